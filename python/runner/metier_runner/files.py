"""Files of artifacts: durable writes, bounded copies, hashes. Paths are local."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import InvalidArgument, NotFound
from .values import short

CHUNK = 1 << 20
MAX_TREE = 100_000  # files of one folder artifact
_BYTES = "application/octet-stream"
_TYPES = {
    ".csv": "text/csv", ".json": "application/json", ".parquet": "application/vnd.apache.parquet", ".html": "text/html",
    ".txt": "text/plain", ".md": "text/markdown", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg",
    ".svg": "image/svg+xml", ".pdf": "application/pdf", ".yaml": "application/yaml", ".yml": "application/yaml",
    ".zip": "application/zip", ".pkl": _BYTES, ".npy": _BYTES, ".npz": _BYTES,
}  # fmt: skip


def content_type(path: str) -> str:
    suffix = suffix_of(path).lower()
    if suffix in _TYPES:
        return _TYPES[suffix]
    import mimetypes

    return mimetypes.guess_type(path, strict=False)[0] or _BYTES


def suffix_of(path: str) -> str:
    return os.path.splitext(path.rstrip("/"))[1]


def absolute(path: str) -> str:
    """Absolute, a trailing slash kept."""
    made = os.path.abspath(os.path.expanduser(path))
    return made + "/" if path.endswith("/") else made


def sha1(data: bytes) -> str:
    """The content hash of MLRun's `metadata.hash`; a name for content, not a defence."""
    import hashlib  # OpenSSL is slow to load, and most runs keep no artifact

    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def write_file(target: str, data: bytes) -> tuple[int, str]:
    """Write durably: the target is the whole new content or the old one, also after a crash. Returns size and hash."""
    with _replacing(target) as out:
        view = memoryview(data)
        while view:
            view = view[os.write(out, view[: CHUNK * 64]) :]
    return len(data), sha1(data)


def copy_file(source: str, target: str) -> tuple[int, str]:
    """Copy a regular file durably; when both are the same file only measure it."""
    with _open_regular(source) as fd:
        if os.path.exists(target) and os.path.samestat(os.fstat(fd), os.stat(target)):
            return _drain(fd, None)
        with _replacing(target) as out:
            return _drain(fd, out)


def measure(path: str) -> tuple[int, str]:
    with _open_regular(path) as fd:
        return _drain(fd, None)


def walk(folder: str) -> Iterator[tuple[str, str]]:
    """Files below `folder` as (relative, path), sorted. Links to folders are not followed; a link out of the folder is refused."""
    root = os.path.realpath(folder)
    count = 0
    for where, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(where, name)
            real = os.path.realpath(path)
            if os.path.islink(path) and not real.startswith(root + "/"):
                raise InvalidArgument(f"{short(path)} is a link out of the folder, it is not taken along")
            count += 1
            if count > MAX_TREE:
                raise InvalidArgument(f"{short(folder)} holds more than {MAX_TREE} files, log an archive instead")
            yield os.path.relpath(path, root), real


def copy_tree(source: str, target: str) -> tuple[int, str]:
    """Copy a folder's files; the hash is over names and hashes in sorted order."""
    total, digests = 0, []
    for relative, path in list(walk(source)):
        size, digest = copy_file(path, os.path.join(target, relative))
        total += size
        digests.append(f"{relative}\0{digest}")
    return total, sha1("\n".join(digests).encode("utf-8", "surrogateescape"))


@contextmanager
def _open_regular(path: str) -> Iterator[int]:
    try:
        # Non-blocking: opening a FIFO must not wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFound(f"{short(path)}: no such file (looked in {os.getcwd()})") from None
    except OSError as error:
        raise InvalidArgument(f"{short(path)} cannot be read: {os.strerror(error.errno or 0).lower()}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidArgument(f"{short(path)} is not a regular file")
        yield fd
    finally:
        os.close(fd)


def _drain(fd: int, out: int | None) -> tuple[int, str]:
    import hashlib

    size, digest = 0, hashlib.sha1(usedforsecurity=False)
    while True:
        chunk = os.read(fd, CHUNK)
        if not chunk:
            return size, digest.hexdigest()
        size += len(chunk)
        digest.update(chunk)
        view = memoryview(chunk)
        while out is not None and view:
            view = view[os.write(out, view) :]


@contextmanager
def _replacing(target: str) -> Iterator[int]:
    folder, name = os.path.split(target)
    os.makedirs(folder or ".", exist_ok=True)
    temporary = os.path.join(folder, f".{name[:100]}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o644)
    try:
        try:
            yield fd
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, target)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
    directory = os.open(folder or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
