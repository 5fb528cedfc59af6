"""Places for a pod's mounts that the host does not have, made in the pod's own mount namespace: the shim's `targets.cc` for a forked pod.

The nearest folder that exists is covered by a small file system in memory in which everything that is in it appears again, and the
missing names beside it; when all mounts are made the cover is read-only. Made for real, as the pod's user: a place in another mount, in
the working folder, or in a folder that everybody may write to.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 32, 4096, 16384
MS_UNBINDABLE, MS_SLAVE = 1 << 17, 1 << 19
MNT_DETACH = 2
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
MOST_ENTRIES = 16384
STAGE = "root"  # in the pod's folder

_libc = ctypes.CDLL(None, use_errno=True)


def _fail(about: str, number: int = 0) -> NoReturn:
    number = number or ctypes.get_errno()
    error = OSError(number, os.strerror(number), about)
    error.step = "mount"  # type: ignore[attr-defined]
    raise error


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, options)]
    if _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]) < 0:
        _fail(target)


def _inside(path: str, folder: str) -> bool:
    folder = folder.rstrip("/")  # everything is in "/": that says nothing
    return bool(folder) and (path == folder or path.startswith(folder + "/"))


def _bind(source: int, target: str) -> None:
    _mount(f"/proc/self/fd/{source}", target, None, MS_BIND | MS_REC)


def _make_file(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _repeat(folder: int, name: str, path: str) -> None:
    """The entry `name` of `folder` again as `path`: a link as a link, everything else bound."""
    try:
        entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return  # gone meanwhile
    try:
        mode = os.fstat(entry).st_mode
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(name, dir_fd=folder), path)
            return
        if stat.S_ISDIR(mode):
            os.mkdir(path, 0o755)
        else:
            _make_file(path)
        _bind(entry, path)
    finally:
        os.close(entry)


def _fill(folder: int, path: str) -> None:
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        names = os.listdir(readable)
    finally:
        os.close(readable)
    if len(names) > MOST_ENTRIES:
        _fail(path, errno.E2BIG)
    for name in names:
        _repeat(folder, name, os.path.join(path, name))


def _mount_cover(path: str, like: os.stat_result) -> None:
    _mount("metier", path, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={stat.S_IMODE(like.st_mode):04o},size=4m")
    try:
        os.chown(path, like.st_uid, like.st_gid)
    except OSError:
        pass  # not every namespace can


class Targets:
    """The mount points of one pod. `folder` is the pod's own, `cwd` where its program will start."""

    def __init__(self, folder: str, cwd: str) -> None:
        self._folder = folder
        self._cwd = cwd
        self._mounted: list[str] = []
        self._covers: list[str] = []
        self._devices: list[int] = []

    def mounted(self, target: str) -> None:
        self._mounted.append(target)

    def make(self, target: str, *, folder: bool) -> None:
        """Raises OSError with `step` and the path."""
        if os.path.exists(target):
            return
        parent = os.path.dirname(target.rstrip("/"))
        while not os.path.exists(parent) and parent != "/":
            parent = os.path.dirname(parent)
        about = os.stat(parent)
        if about.st_dev not in self._devices and not self._for_real(parent, about.st_mode):
            if parent == "/":
                self._cover_root(about)
            else:
                self._cover(parent, about)
            self._devices.append(os.stat(parent).st_dev)
            self._covers.append(parent)
        # A forked pod has its user's identity already: what is made is the user's.
        os.makedirs(target if folder else os.path.dirname(target), 0o755, exist_ok=True)
        if not folder:
            _make_file(target)

    def seal(self) -> None:
        for path in self._covers:
            _mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)

    def _for_real(self, parent: str, mode: int) -> bool:
        return bool(mode & stat.S_IWOTH) or _inside(parent, self._cwd) or any(_inside(parent, one) for one in self._mounted)

    @staticmethod
    def _cover(path: str, about: os.stat_result) -> None:
        folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _mount_cover(path, about)
            _fill(folder, path)
        finally:
            os.close(folder)

    def _cover_root(self, about: os.stat_result) -> None:
        """Nothing can be mounted over "/": the new root is made in the pod's folder and takes its place."""
        number = SYS_PIVOT_ROOT.get(os.uname().machine)
        if number is None:
            _fail("/", errno.ENOSYS)
        stage = os.path.join(self._folder, STAGE)
        os.makedirs(stage, 0o700, exist_ok=True)
        _mount_cover(stage, about)
        # The folder that the stage is in is bound again too: without a copy of the stage in it.
        _mount(None, stage, None, MS_UNBINDABLE)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _fill(root, stage)
        finally:
            os.close(root)
        os.chdir(stage)
        if _libc.syscall(ctypes.c_long(number), b".", b".") < 0:
            _fail("/")
        # The old root lies on the new one now; both are ".".
        _mount(None, ".", None, MS_REC | MS_SLAVE)
        if _libc.umount2(b".", MNT_DETACH) < 0:
            _fail("/")
        os.chdir("/")
