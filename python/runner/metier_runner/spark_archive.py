"""Class-data archives: what a JVM of Spark loads, parsed once and mapped by those that come later (a third less CPU at the start).

The first JVM of a class path records which classes it loads. From that list an archive is written after the application's end, in a pod of
its own: a JVM that writes one needs half a gigabyte, more than a role of Spark has left while it lives. The archive is kept below the data
folder, in a folder of the user whose pods they are: whoever can write an archive can run code in the JVM that maps it. A damaged or outdated
one is ignored by the JVM.

    METIER_SPARK_ARCHIVES=FOLDER python -m metier_runner.spark_archive     write the archives that lists wait for
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import itertools
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Mapping

JAVA_NEEDED = 17
MOST = 6  # archives of one user; the longest unused go
# Of a list, in the order of their loading, by tries: 7,000 are half of what a driver loads and nearly all of the gain; on a machine where
# so many cannot be written, fewer are better than none.
CLASSES = (7000, 4500, 2500)
ROOM = 2 << 30  # bytes that must be free on the disk to make one
LIST = ".lst"  # of classes: an archive is to be made
FAILED = ".failed"  # it could not be written: for a day nobody tries again
DAY = 86400.0
TRIED = "# tried"  # a line of a list, whose comments begin so
LIMIT = 600.0  # seconds for one archive
QUIET = "-Xlog:cds*=off"  # a JVM tells stdout of each class that it cannot keep


class Archive:
    """The archive of one class path for one part ("driver", "executor", "connect"). Without a folder there is none."""

    def __init__(self, folder: str, part: str, java: str, java_version: int, class_path: str) -> None:
        self.options: list[str] = []
        self.path = self._recorded = ""
        self._java, self._class_path = java, class_path
        own = _own_folder(folder) if folder and java_version >= JAVA_NEEDED else ""
        if not own:
            return
        self.path = os.path.join(own, f"{part}-{_key(java, class_path)}.jsa")
        if os.path.isfile(self.path):
            with contextlib.suppress(OSError):
                os.utime(self.path)
            self.options = [QUIET, f"-XX:SharedArchiveFile={self.path}"]
        elif not os.path.exists(self.path + LIST) and not _has_failed(self.path) and shutil.disk_usage(own).free > ROOM:
            self._recorded = f"{self.path}.{os.getpid()}"
            self.options = [QUIET, f"-XX:DumpLoadedClassList={self._recorded}"]

    @property
    def has_work(self) -> bool:
        """True when something is left to do after the JVM has ended: `keep`."""
        return bool(self._recorded)

    def use_only(self) -> None:
        """Another JVM records."""
        if self._recorded:
            self._recorded, self.options = "", []

    def keep(self, exit_code: int) -> None:
        """Put the list that the JVM has written in its place; one that was killed (a negative code) has not finished."""
        recorded, self._recorded = self._recorded, ""
        if not recorded:
            return
        with contextlib.suppress(OSError):
            with open(recorded, encoding="utf-8", errors="replace") as stream:
                classes = list(itertools.islice(stream, CLASSES[0]))
            if exit_code >= 0 and classes:
                with open(recorded, "w", encoding="utf-8") as stream:
                    stream.writelines([f"# {self._java}\n", f"# {self._class_path}\n", *classes])
                os.replace(recorded, self.path + LIST)
            else:
                os.unlink(recorded)


def make(folder: str) -> None:
    """Write the archives that lists of this user below `folder` wait for."""
    own = _own_folder(folder)
    while own and shutil.disk_usage(own).free > ROOM:
        # A driver's before an executor's, whose start is waited for less. Lists come while one is written.
        if not any(_write(listed) for listed in sorted(glob.glob(os.path.join(glob.escape(own), f"*.jsa{LIST}")))):
            return


def _write(listed: str) -> bool:
    """Try to write one archive from its list; False when another process does it. The list goes when it is written or cannot be."""
    path = listed.removesuffix(LIST)
    made = f"{path}.{os.getpid()}"
    with contextlib.suppress(OSError), open(listed, "r+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: another pod does it
        java, class_path = (next(stream).rstrip("\n").removeprefix("# ") for _ in range(2))
        classes = [line.rstrip("\n") for line in stream]
        tries = classes.count(TRIED)
        if os.path.exists(path) or tries >= len(CLASSES):
            if not os.path.exists(path):
                with open(path + FAILED, "wb") as failed:
                    os.utime(failed.fileno())
            os.unlink(listed)
            return True
        stream.write(f"{TRIED}\n")
        stream.flush()
        with open(f"{made}{LIST}", "w", encoding="utf-8") as part:
            part.writelines(f"{name}\n" for name in classes[: CLASSES[tries]])
        words = [java, "-Xshare:dump", "-Xlog:disable", "-Xlog:all=off", "-XX:+UseSerialGC", "-Xmx128m"]
        words += [f"-XX:SharedClassListFile={made}{LIST}", f"-XX:SharedArchiveFile={made}", "-cp", class_path]
        print(f"{path}: of {min(CLASSES[tries], len(classes) - tries)} classes", flush=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            ended = subprocess.run(words, stdout=subprocess.DEVNULL, timeout=LIMIT, check=False)
            if ended.returncode == 0 and os.path.getsize(made) > 0:
                os.replace(made, path)
                os.unlink(listed)
                _remove_old(os.path.dirname(path))
            else:
                print(f"{path}: not written, {java} ended with {ended.returncode}", flush=True)
        for left in (f"{made}{LIST}", made):
            with contextlib.suppress(OSError):
                os.unlink(left)
        return True
    return False


def _has_failed(path: str) -> bool:
    try:
        return os.stat(path + FAILED).st_mtime > time.time() - DAY
    except OSError:
        return False


def _own_folder(folder: str) -> str:
    """This user's part of `folder`, which nobody else may write; "" when there is none."""
    path = os.path.join(folder, str(os.geteuid()))
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.lstat(path)
    except OSError:
        return ""
    return path if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022 else ""


def _key(java: str, class_path: str) -> str:
    """Changes with whatever makes a JVM refuse an archive: the JVM itself, the jars and their order."""
    real = os.path.realpath(java)
    parts = [real, _stamp(real)]
    for item in class_path.split(os.pathsep):
        parts.append(item)
        if item.endswith(f"{os.sep}*"):
            parts += [f"{entry.name} {_stamp(entry.path)}" for entry in sorted(os.scandir(item[:-1]), key=lambda entry: entry.name)]
        else:
            parts.append(_stamp(item))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _stamp(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return "none"
    return f"{found.st_size} {found.st_mtime_ns}"


def _remove_old(folder: str) -> None:
    found: Mapping[str, float] = {entry.path: entry.stat().st_mtime for entry in os.scandir(folder) if entry.name.endswith(".jsa")}
    for path in sorted(found, key=lambda one: found[one], reverse=True)[MOST:]:
        os.unlink(path)
    for entry in os.scandir(folder):  # of processes that were killed
        if entry.name.removesuffix(LIST).rpartition(".")[2].isdigit() and entry.stat().st_mtime < time.time() - DAY:
            os.unlink(entry.path)


if __name__ == "__main__":
    os.nice(19)
    make(os.environ["METIER_SPARK_ARCHIVES"])
