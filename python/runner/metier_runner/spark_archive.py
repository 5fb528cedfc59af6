"""Class-data archives: what a JVM of Spark loads, parsed once and mapped by those that come later (a third less CPU at the start).

The first JVM of a class path records which classes it loads. From that list the first executor of an application, its own JVM's memory free
again, has an archive written beside the end of the run: a JVM that writes one needs half a gigabyte, more than a role of Spark has left while
it lives. The archive is kept below the data folder, in a folder of the user whose pods they are: whoever can write an archive can run code in
the JVM that maps it. A damaged or outdated one is ignored by the JVM.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import itertools
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from types import FrameType

JAVA_NEEDED = 17
MOST = 6  # archives of one user; the longest unused go
# Of a list, in the order of their loading, by tries: 7,000 are half of what a driver loads and nearly all of the gain; on a machine that is
# too slow or too busy to write so many, fewer are better than none.
CLASSES = (7000, 4500, 2500)
ROOM = 2 << 30  # bytes that must be free on the disk to make one
MEMORY = 640 << 20  # bytes that writing one of so many classes takes
LIST = ".lst"  # of classes: an archive is to be made
LATE = ".late"  # it could not be written: the next ones do not try again
TRIED = "# tried"  # a line of a list, whose comments begin so
PATIENCE = 27.0  # seconds after the pod was asked to end, of its 30
QUIET = "-Xlog:cds*=off"  # a JVM tells stdout of each class that it cannot keep


class Archive:
    """The archive of one class path for one part ("driver", "executor", "connect"). Without a folder there is none."""

    def __init__(self, folder: str, part: str, java: str, java_version: int, class_path: str) -> None:
        self.options: list[str] = []
        self.path = self._recorded = ""
        self._java, self._class_path = java, class_path
        self._makes = True
        own = _own_folder(folder) if folder and java_version >= JAVA_NEEDED else ""
        if not own:
            return
        self.path = os.path.join(own, f"{part}-{_key(java, class_path)}.jsa")
        if os.path.isfile(self.path):
            with contextlib.suppress(OSError):
                os.utime(self.path)
            self.options = [QUIET, f"-XX:SharedArchiveFile={self.path}"]
        elif not any(os.path.exists(self.path + known) for known in (LIST, LATE)) and self._can_make():
            self._recorded = f"{self.path}.{os.getpid()}"
            self.options = [QUIET, f"-XX:DumpLoadedClassList={self._recorded}"]

    @property
    def has_work(self) -> bool:
        """True when something is left to do after the JVM has ended: `keep`, `make`."""
        return bool(self._recorded) or (self._makes and bool(self._lists()))

    def use_only(self) -> None:
        """Another JVM records, another pod makes it."""
        self._makes = False
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

    def make(self, asked: Asked) -> None:
        """Write the archives that wait for it. Ends soon after the pod was `asked` to."""
        while self._can_make() and not asked.is_late(1 / 3):  # one that is begun has time to be finished
            waiting = self._lists()
            if not waiting or not _write(waiting[0], asked):
                return

    def _can_make(self) -> bool:
        return shutil.disk_usage(os.path.dirname(self.path)).free > ROOM and not _memory_is_limited()

    def _lists(self) -> list[str]:
        if not self.path:
            return []
        # A driver's before an executor's, whose start is waited for less.
        return sorted(glob.glob(os.path.join(glob.escape(os.path.dirname(self.path)), f"*.jsa{LIST}")))


class Asked:
    """Whether this process was asked to end (SIGTERM), and since when. The signal is passed on to `child`."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.since = 0.0
        self.child: subprocess.Popen[bytes] | None = child
        signal.signal(signal.SIGTERM, self._ask)

    def is_late(self, share: float = 1.0) -> bool:
        """Whether this share of the time that is left to a process which was asked has gone."""
        return self.since > 0 and time.monotonic() - self.since > PATIENCE * share

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.since = self.since or time.monotonic()
        if self.child is not None:
            self.child.terminate()


def _write(listed: str, asked: Asked) -> bool:
    """One archive from its list; False when there is nothing more to do here."""
    path = listed.removesuffix(LIST)
    made = f"{path}.{os.getpid()}"
    with contextlib.suppress(OSError), open(listed, "r+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: another pod does it
        java, class_path, *classes = [line.rstrip("\n") for line in stream]
        tries = classes.count(TRIED)
        if os.path.exists(path) or tries >= len(CLASSES):
            if not os.path.exists(path):
                open(path + LATE, "wb").close()
            os.unlink(listed)
            return True
        stream.write(f"{TRIED}\n")
        stream.flush()
        with open(f"{made}{LIST}", "w", encoding="utf-8") as part:
            part.writelines(f"{name}\n" for name in classes[: CLASSES[tries]])
        words = [java.removeprefix("# "), "-Xshare:dump", "-Xlog:disable", "-Xlog:all=off", "-XX:+UseSerialGC", "-Xmx128m"]
        words += [f"-XX:SharedClassListFile={made}{LIST}", f"-XX:SharedArchiveFile={made}", "-cp", class_path.removeprefix("# ")]
        asked.child = None
        print("metier: writing a class-data archive, once: later JVMs of this Spark start faster", file=sys.stderr, flush=True)
        writer = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while writer.poll() is None:
            if asked.is_late():
                writer.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                writer.wait(0.2)
        os.unlink(f"{made}{LIST}")
        if writer.returncode == 0 and os.path.getsize(made) > 0:
            os.replace(made, path)
            os.unlink(listed)
            _remove_old(os.path.dirname(path))
            return True
    with contextlib.suppress(OSError):
        os.unlink(made)
    return False


def _memory_is_limited() -> bool:
    """Whether a JVM that writes an archive would die of its pod's limit, or of a process's own (no cgroups)."""
    limit = _pod_memory()
    return resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY or (limit is not None and limit < MEMORY)


def _pod_memory() -> int | None:
    """The memory limit of this process's cgroup in bytes; None: there is none."""
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/cgroup", encoding="ascii") as stream:
            groups = [line.rstrip("\n").split(":", 2) for line in stream]
        place = {name: path for _, names, path in groups for name in names.split(",")}
        one = f"memory{place['memory']}/memory.limit_in_bytes" if "memory" in place else f"{place.get('', '')}/memory.max"
        with open(f"/sys/fs/cgroup/{one.lstrip('/')}", encoding="ascii") as stream:
            return int(stream.read())  # "max": ValueError
    return None


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
        if entry.name.removesuffix(LIST).rpartition(".")[2].isdigit() and entry.stat().st_mtime < time.time() - 86400:
            os.unlink(entry.path)
