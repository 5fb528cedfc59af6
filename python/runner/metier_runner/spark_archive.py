"""Class-data archives: what a JVM of Spark loads, parsed once and mapped by those that come later (a third less CPU at the start).

The first JVM of a class path writes its classes when it ends; the archive is kept below the data folder, in a folder of the user whose
pods they are: whoever can write an archive can run code in the JVM that maps it. A damaged or outdated one is ignored by the JVM.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import shutil
import stat
from collections.abc import Mapping

JAVA_NEEDED = 17
MOST = 6  # archives of one user; the longest unused go
ROOM = 2 << 30  # bytes that must be free to make one
LATE = ".late"  # a JVM was too slow to write it: the next ones do not try again
QUIET = "-Xlog:cds*=off"  # a JVM tells stdout of each class that it cannot keep


class Archive:
    """The archive of one class path for one part ("driver", "executor", "connect"). Without a folder there is none."""

    def __init__(self, folder: str, part: str, java: str, java_version: int, class_path: str) -> None:
        self.options: list[str] = []
        self.path = self._made = ""
        own = _own_folder(folder) if folder and java_version >= JAVA_NEEDED else ""
        if not own:
            return
        self.path = os.path.join(own, f"{part}-{_key(java, class_path)}.jsa")
        if os.path.isfile(self.path):
            with contextlib.suppress(OSError):
                os.utime(self.path)
            self.options = [QUIET, f"-XX:SharedArchiveFile={self.path}"]
        elif not os.path.exists(self.path + LATE) and shutil.disk_usage(own).free > ROOM and not _memory_is_limited():
            self._made = f"{self.path}.{os.getpid()}"
            self.options = [QUIET, f"-XX:ArchiveClassesAtExit={self._made}"]

    @property
    def making(self) -> bool:
        """True when the JVM writes the archive as it ends: `keep` has to be called after that."""
        return bool(self._made)

    def use_only(self) -> None:
        """Another JVM makes it."""
        if self._made:
            self._made, self.options = "", []

    def keep(self, exit_code: int) -> None:
        """Put what the JVM has written in its place; one that was killed before the end (a negative code) has not finished."""
        if not self._made:
            return
        with contextlib.suppress(OSError):
            if exit_code < 0:
                open(self.path + LATE, "wb").close()
            if exit_code >= 0 and os.path.getsize(self._made) > 0 and not os.path.exists(self.path):
                os.replace(self._made, self.path)
            else:
                os.unlink(self._made)
            _remove_old(os.path.dirname(self.path))


def _memory_is_limited() -> bool:
    """Where a pod's limit holds for each process (no cgroups), a JVM that writes its archive beside its heap dies of it."""
    return resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY


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
