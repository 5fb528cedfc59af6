"""What a forked pod does instead of exec: namespaces, mounts, limits, privileges, descriptors. Through ctypes, since Python before 3.12
has none of it."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import resource
import stat
import struct
import sys

from . import _targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWUSER = 0x00020000, 0x04000000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 1, 32, 4096, 16384, 1 << 19
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 4, 24, 38, 47, 4
SYS_MOUNT_SETATTR, SYS_OPENAT2 = 442, 437
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS = 0x08, 0x02
AT_RECURSIVE, AT_FDCWD, MOUNT_ATTR_RDONLY = 0x8000, -100, 1

_libc = ctypes.CDLL(None, use_errno=True)


def _fail(step: str, about: str) -> NoReturn:
    error = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), about)
    error.step = step  # type: ignore[attr-defined]
    raise error


def _call(step: str, about: str, result: int) -> int:
    if result < 0:
        _fail(step, about)
    return result


def _mount(step: str, source: bytes | None, target: str, flags: int) -> None:
    _call(step, target, _libc.mount(source, os.fsencode(target), None, ctypes.c_ulong(flags), None))


def confine(launch: dict[str, Any]) -> None:
    """Everything that a user's code must not be able to undo. Raises OSError with `step` and the path."""
    _namespaces(launch)
    if launch.get("mount_namespace"):
        _mount("mount", None, "/", MS_REC | MS_SLAVE)
        targets = _targets.Targets(launch["folder"], launch.get("cwd") or "/")
        for one in launch.get("mounts", ()):
            _bind(one, targets)
        targets.seal()
    for number, soft, hard in launch.get("rlimits", ()):
        resource.setrlimit(int(number), (int(soft), int(hard)))
    os.umask(int(launch.get("umask", 0o22)))
    _drop_privileges()
    os.chdir(launch.get("cwd") or "/")


def _namespaces(launch: dict[str, Any]) -> None:
    hostname = launch.get("hostname") or ""
    flags = (CLONE_NEWUSER if launch.get("user_namespace") else 0) | (CLONE_NEWNS if launch.get("mount_namespace") else 0)
    flags |= CLONE_NEWUTS if hostname else 0
    if not flags:
        return
    uid, gid = os.geteuid(), os.getegid()
    _call("namespace", "unshare", _libc.unshare(flags))
    if launch.get("user_namespace"):
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    if hostname:
        encoded = os.fsencode(hostname)
        _call("hostname", hostname, _libc.sethostname(encoded, ctypes.c_size_t(len(encoded))))


def _open_beneath(folder: int, path: str) -> int:
    how = struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    return _call(
        "mount", path, _libc.syscall(ctypes.c_long(SYS_OPENAT2), ctypes.c_int(folder), os.fsencode(path), how, ctypes.c_size_t(len(how)))
    )


def _open_source(mount: dict[str, Any]) -> int:
    source = os.open(mount["source"], os.O_PATH | os.O_CLOEXEC)
    if not mount.get("sub_path"):
        return source
    try:
        return _open_beneath(source, mount["sub_path"])
    finally:
        os.close(source)


def _bind(mount: dict[str, Any], targets: _targets.Targets) -> None:
    target = mount["target"]
    source = _open_source(mount)
    targets.make(target, folder=stat.S_ISDIR(os.fstat(source).st_mode))
    os.close(source)
    source = _open_source(mount)  # again: the root may be another one now
    _mount("mount", f"/proc/self/fd/{source}".encode(), target, MS_BIND | MS_REC)
    os.close(source)
    if mount.get("readonly"):
        attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY, 0, 0, 0)
        size = ctypes.c_size_t(len(attributes))
        done = _libc.syscall(ctypes.c_long(SYS_MOUNT_SETATTR), AT_FDCWD, os.fsencode(target), ctypes.c_uint(AT_RECURSIVE), attributes, size)
        if done < 0:
            if ctypes.get_errno() != errno.ENOSYS:
                _fail("mount", target)
            _mount("mount", None, target, MS_BIND | MS_REMOUNT | MS_RDONLY)
    targets.mounted(target)


def _drop_privileges() -> None:
    for capability in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # past the kernel's last one, or not permitted at all
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("Ii", 0x20080522, 0)
    number = SYS_CAPSET.get(os.uname().machine)
    if number is None:
        _call("capabilities", "capset", _libc.capset(header, bytes(24)))
    else:
        _call("capabilities", "capset", _libc.syscall(ctypes.c_long(number), header, bytes(24)))
    _call("capabilities", "no_new_privs", _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def take_log(launch: dict[str, Any]) -> None:
    """Stdout and stderr become the pod's log, stdin is empty; every other descriptor but the shim's is closed."""
    log = os.open(
        os.path.join(launch["folder"], launch.get("log") or "log"),
        os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW,
        0o600,
    )
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(null)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "r", closefd=False)), encoding="utf-8", errors="surrogateescape")
    sys.__stdin__ = sys.stdin  # type: ignore[misc]
    open_output(buffered=True)


def open_output(*, buffered: bool) -> None:
    """New sys.stdout and sys.stderr on descriptors 1 and 2: written line by line, or at once as ``python -u`` does."""
    for name, descriptor, errors in (("stdout", 1, "surrogateescape"), ("stderr", 2, "backslashreplace")):
        raw = io.FileIO(descriptor, "w", closefd=False)
        binary: Any = io.BufferedWriter(raw) if buffered else raw
        stream = io.TextIOWrapper(binary, encoding="utf-8", errors=errors, line_buffering=buffered, write_through=not buffered)
        stream.mode = "w"  # type: ignore[misc]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def close_others(keep: set[int]) -> None:
    """Close every descriptor from 3 on that is not in `keep`."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor not in keep:
            try:
                os.close(descriptor)
            except OSError:
                continue
