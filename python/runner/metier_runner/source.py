"""Source archives: a local folder, ``.zip``, ``.tar.gz``/``.tgz`` (local or by address), or a git repository.

An archive is unpacked whole into a new folder or not at all: into a temporary neighbour first, renamed at the end. Nothing of it
can be written outside, be special, or be larger than the limits.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import zlib
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from .errors import NotFound, SourceRefused
from .values import short

if TYPE_CHECKING:
    import tarfile
    import zipfile

MAX_BYTES = 4 << 30
MAX_ENTRIES = 100_000
MAX_RATIO, RATIO_FROM = 1000, 64 << 20  # a ratio is judged once this much came out
MAX_PATH, MAX_NAME = 4096, 255
CHUNK = 1 << 20
DEPTH = ["--depth", "1"]
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Limits:
    """Counts what comes out of one archive; tests make it small."""

    def __init__(self, size: int = MAX_BYTES, entries: int = MAX_ENTRIES, ratio: int = MAX_RATIO, ratio_from: int = RATIO_FROM) -> None:
        self.size, self.entries, self.ratio, self.ratio_from = size, entries, ratio, ratio_from


def fetch(source: str, target: str, limits: Limits | None = None) -> str:
    """Make the source tree present and return its folder: a local folder stays where it is, all else goes to `target`."""
    if source.startswith("git://"):
        return clone(source, target)
    if "://" not in source and os.path.isdir(source):
        return os.path.abspath(source)
    kind = _kind_of(source)
    path, copy = source, ""
    if "://" in source:
        from .dataitem import DataItem

        os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
        path = copy = f"{os.path.abspath(target)}.download"
        DataItem.of(source).download(path)
    try:
        if not os.path.isfile(path):
            raise NotFound(f"source {short(source)}: no such file or folder (looked in {os.getcwd()})")
        return unpack(path, target, kind, limits)
    finally:
        if copy and os.path.exists(copy):
            os.unlink(copy)


def unpack(path: str, target: str, kind: str, limits: Limits | None = None) -> str:
    """Unpack the archive of `kind` (zip or tar.gz) into the new folder `target`."""
    limits = limits or Limits()
    target = os.path.abspath(target)
    if os.path.lexists(target) and (not os.path.isdir(target) or os.listdir(target)):
        shutil.rmtree(target) if os.path.isdir(target) and not os.path.islink(target) else os.unlink(target)
    partial = f"{target}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    try:
        with open(path, "rb") as stream:
            _check_magic(stream, kind, path)
            (_unzip if kind == "zip" else _untar)(stream, _Tree(partial, limits), path)
        if not os.listdir(partial):
            raise SourceRefused(f"archive {short(path)} is empty")
        if os.path.isdir(target):
            os.rmdir(target)
        os.rename(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


class _Tree:
    """The folder being made. Every path is checked before it is used; links are made last."""

    def __init__(self, root: str, limits: Limits) -> None:
        self.root, self.limits = root, limits
        self._files: set[str] = set()
        self._folders: set[str] = {""}
        self._links: dict[str, str] = {}
        self._bytes = self._entries = 0

    def folder(self, name: str) -> None:
        self._make_folders(self._checked(name))

    def file(self, name: str, executable: bool, size: int, read: Callable[[], IO[bytes]]) -> None:
        path = self._new(name)
        self._make_folders(os.path.dirname(path))
        if self._bytes + size > self.limits.size:
            raise SourceRefused(f"archive holds more than {self.limits.size} bytes (limit), at {short(name)}")
        self._files.add(path)
        fd = os.open(
            os.path.join(self.root, path),
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0),
            0o755 if executable else 0o644,
        )
        written = 0
        with os.fdopen(fd, "wb") as out, read() as stream:
            while True:
                chunk = stream.read(CHUNK)
                if not chunk:
                    break
                written += len(chunk)
                if written > size:
                    raise SourceRefused(f"entry {short(name)} is larger than its header says")
                out.write(chunk)
        if written != size:
            raise SourceRefused(f"entry {short(name)} is truncated: {written} of {size} bytes")
        self._bytes += size

    def link(self, name: str, target: str) -> None:
        """A symbolic link that stays inside, wherever links inside it lead: no ``..`` after a name."""
        path = self._new(name)
        parts = [part for part in target.split("/") if part not in ("", ".")]
        ups = 0
        while ups < len(parts) and parts[ups] == "..":
            ups += 1
        outside = ups > path.count("/") or ".." in parts[ups:]
        if target.startswith("/") or "\\" in target or _CONTROL.search(target) or outside or len(target) > MAX_PATH:
            raise SourceRefused(f"entry {short(name)} links to {short(target)}, out of the archive")
        self._links[path] = target

    def copy(self, name: str, of: str) -> None:
        """A hard link: a copy of an earlier file of the same archive."""
        origin = self._checked(of)
        if origin not in self._files:
            raise SourceRefused(f"entry {short(name)} is a hard link to {short(of)}, which is no earlier file of the archive")
        full = os.path.join(self.root, origin)
        found = os.stat(full)
        self.file(name, bool(found.st_mode & 0o100), found.st_size, lambda: open(full, "rb"))

    def finish(self) -> None:
        for path in (*self._files, *self._folders, *self._links):
            parent = os.path.dirname(path)
            while parent:
                if parent in self._links:
                    raise SourceRefused(f"entry {short(path)} lies below the link {short(parent)}")
                parent = os.path.dirname(parent)
        for path, target in self._links.items():
            self._make_folders(os.path.dirname(path))
            os.symlink(target, os.path.join(self.root, path))

    def _new(self, name: str) -> str:
        path = self._checked(name)
        if not path or path in self._files or path in self._folders or path in self._links:
            raise SourceRefused(f"entry {short(name)} is in the archive twice")
        return path

    def _checked(self, name: str) -> str:
        self._entries += 1
        if self._entries > self.limits.entries:
            raise SourceRefused(f"archive holds more than {self.limits.entries} entries (limit)")
        try:
            length = len(name.encode("utf-8"))
        except UnicodeEncodeError:
            raise SourceRefused(f"entry name {short(name)} is not UTF-8") from None
        if length > MAX_PATH:
            raise SourceRefused(f"entry name {short(name)} has {length} bytes, at most {MAX_PATH} are allowed")
        if _CONTROL.search(name):
            raise SourceRefused(f"entry name {short(name)} contains a control character")
        if name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
            raise SourceRefused(f"entry {short(name)} leads out of the archive")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        for part in parts:
            if len(part.encode("utf-8")) > MAX_NAME:
                raise SourceRefused(f"entry name {short(name)} has a part of more than {MAX_NAME} bytes")
        return "/".join(parts)

    def _make_folders(self, path: str) -> None:
        made = ""
        for part in path.split("/") if path else []:
            made = f"{made}/{part}" if made else part
            if made in self._files or made in self._links:
                raise SourceRefused(f"entry {short(made)} is a file and a folder at once")
            if made not in self._folders:
                self._folders.add(made)
                os.mkdir(os.path.join(self.root, made), 0o755)


def _kind_of(source: str) -> str:
    name = source.split("?")[0].split("#")[0].lower() if "://" in source else source.lower()
    if name.endswith(".zip"):
        return "zip"
    if name.endswith((".tar.gz", ".tgz")):
        return "tar.gz"
    if "://" not in source:
        raise NotFound(f"source {short(source)}: no such folder (archives end in .zip, .tar.gz or .tgz; looked in {os.getcwd()})")
    raise SourceRefused(f"source {short(source)} is no folder, .zip, .tar.gz, .tgz or git://host/repository#ref")


def _check_magic(stream: IO[bytes], kind: str, path: str) -> None:
    head = stream.read(4)
    stream.seek(0)
    found = "zip" if head[:4] in (b"PK\x03\x04", b"PK\x05\x06") else ("tar.gz" if head[:2] == b"\x1f\x8b" else "")
    if found != kind:
        raise SourceRefused(f"{short(path)} is not a {kind} archive by its content{f' but {found}' if found else ''}")


def _unzip(stream: IO[bytes], tree: _Tree, path: str) -> None:
    import zipfile

    _check_zip_end(stream, path)
    try:
        with zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
            if len(entries) > tree.limits.entries:
                raise SourceRefused(f"archive holds {len(entries)} entries, the limit is {tree.limits.entries}")
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > tree.limits.size:
                raise SourceRefused(f"archive holds {unpacked} bytes, the limit is {tree.limits.size}")
            if unpacked > tree.limits.ratio_from and unpacked > tree.limits.ratio * max(os.fstat(stream.fileno()).st_size, 1):
                raise SourceRefused(f"archive unpacks to more than {tree.limits.ratio} times its size (limit)")
            for entry in entries:
                _unzip_entry(archive, entry, tree)
            tree.finish()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise SourceRefused(f"{short(path)} is not a readable zip archive: {error}") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # an offset before the file's beginning; all others are the disk's
            raise
        raise SourceRefused(f"{short(path)} is not a readable zip archive: an offset in it is wrong") from None


def _unzip_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, tree: _Tree) -> None:
    name = entry.orig_filename  # zipfile replaces backslashes and cuts at NUL in `filename`
    mode = entry.external_attr >> 16
    if entry.flag_bits & 1:
        raise SourceRefused(f"entry {short(name)} is encrypted")
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        if entry.file_size > MAX_PATH:
            raise SourceRefused(f"entry {short(name)} is a link of {entry.file_size} bytes")
        tree.link(name, archive.read(entry).decode("utf-8", "surrogateescape"))
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise SourceRefused(f"entry {short(name)} is a special file")
    elif name.endswith("/") or kind == stat.S_IFDIR:
        tree.folder(name)
    else:
        tree.file(name, bool(mode & 0o111), entry.file_size, lambda: archive.open(entry))


def _check_zip_end(stream: IO[bytes], path: str) -> None:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(size - 65557, 0))
    tail = stream.read()
    stream.seek(0)
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < 22:
        raise SourceRefused(f"{short(path)} is a truncated zip archive: its directory is missing")
    if len(tail) - place != 22 + int.from_bytes(tail[place + 20 : place + 22], "little"):
        raise SourceRefused(f"{short(path)} has bytes after the end of the archive")


def _untar(stream: IO[bytes], tree: _Tree, path: str) -> None:
    import tarfile

    plain = f"{tree.root}.tar"
    try:
        _gunzip(stream, plain, tree.limits, path)
        with open(plain, "rb") as unzipped, tarfile.open(fileobj=unzipped, mode="r:", errorlevel=2) as archive:
            while True:
                entry = archive.next()
                if entry is None:
                    break
                _untar_entry(archive, entry, tree)
                archive.members = []  # type: ignore[attr-defined]  # it would keep every header
            unzipped.seek(archive.offset)
            rest = unzipped.read(CHUNK)
            if len(rest) < 512:
                raise SourceRefused(f"{short(path)} is a truncated tar archive: its end is missing")
            while rest:
                if rest.strip(b"\0"):
                    raise SourceRefused(f"{short(path)} is damaged or has bytes after the end of the archive")
                rest = unzipped.read(CHUNK)
        tree.finish()
    except (tarfile.TarError, EOFError, ValueError) as error:
        if isinstance(error, SourceRefused):
            raise
        raise SourceRefused(f"{short(path)} is not a readable tar archive: {error}") from None
    finally:
        if os.path.exists(plain):
            os.unlink(plain)


def _untar_entry(archive: tarfile.TarFile, entry: tarfile.TarInfo, tree: _Tree) -> None:
    if entry.isdir():
        tree.folder(entry.name)
    elif entry.issym():
        tree.link(entry.name, entry.linkname)
    elif entry.islnk():
        tree.copy(entry.name, entry.linkname)
    elif entry.isreg():
        stream = archive.extractfile(entry)
        assert stream is not None
        tree.file(entry.name, bool(entry.mode & 0o111), entry.size, lambda: stream)
    else:
        raise SourceRefused(f"entry {short(entry.name)} is a special file (device, FIFO or socket)")


def _gunzip(stream: IO[bytes], target: str, limits: Limits, path: str) -> None:
    """Decompress while counting; a bomb is stopped at the limit, not after it."""
    most = limits.size + limits.entries * 1024 + 10240
    taken = made = 0
    machine = zlib.decompressobj(31)
    with open(target, "xb") as out:
        while True:
            chunk = stream.read(64 * 1024)
            if not chunk:
                break
            taken += len(chunk)
            data = b""
            while chunk or len(data) == CHUNK:  # a full answer may have more behind it
                try:
                    data = machine.decompress(chunk, CHUNK)
                except zlib.error as error:
                    raise SourceRefused(f"{short(path)} is not a readable gzip file: {error}") from None
                made += len(data)
                if made > most:
                    raise SourceRefused(f"archive holds more than {limits.size} bytes (limit)")
                if made > limits.ratio_from and made > limits.ratio * taken:
                    raise SourceRefused(f"archive unpacks to more than {limits.ratio} times its size (limit)")
                out.write(data)
                chunk = machine.unconsumed_tail
                if machine.eof:
                    chunk = machine.unused_data.lstrip(b"\0")
                    if chunk and not chunk.startswith(b"\x1f"):
                        raise SourceRefused(f"{short(path)} has bytes after the end of the archive")
                    machine = zlib.decompressobj(31) if chunk else machine
                    if not chunk:
                        break
    if not machine.eof:
        raise SourceRefused(f"{short(path)} is a truncated gzip file")


_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?\Z")
_PATH = re.compile(r"[A-Za-z0-9._~/+-]+\Z")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]*\Z")


def clone(source: str, target: str) -> str:
    """Clone ``git://host/path[#ref]`` over HTTPS, at depth 1, without hooks, submodules or other protocols.

    `ref` is a branch, a tag or ``refs/heads/…``. A token for private repositories comes from GIT_TOKEN.
    """
    import subprocess

    place, _, ref = source[len("git://") :].partition("#")
    host, _, path = place.rpartition("@")[2].partition("/")
    ref = re.sub(r"^refs/(heads|tags)/", "", ref)
    if not _HOST.match(host) or not _PATH.match(path) or ".." in path.split("/") or path.startswith(("-", "/")):
        raise SourceRefused(f"git source {short(_public(source))} is not git://host/path[#ref]")
    if ref and (not _REF.match(ref) or ".." in ref):
        raise SourceRefused(f"git source: ref {short(ref)} is not a branch or tag name")
    target = os.path.abspath(target)
    shutil.rmtree(target, ignore_errors=True)
    environment = {**os.environ, "GIT_ALLOW_PROTOCOL": "https:http:ssh", "GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1"}
    settings = ["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never"]
    token = os.environ.get("GIT_TOKEN", "")
    if token:
        # By environment, not by argument or address: both would show in process lists and error messages.
        import base64

        basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        environment.update(
            GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0=f"http.https://{host}/.extraHeader", GIT_CONFIG_VALUE_0=f"Authorization: Basic {basic}"
        )
    command = ["git", *settings, "clone", "--quiet", "--no-recurse-submodules", *DEPTH, "--single-branch"]
    command += ["--branch", ref] if ref else []
    try:
        done = subprocess.run(
            [*command, "--", f"https://{host}/{path}", target], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise SourceRefused("git sources need the program git, which is not installed here") from None
    if done.returncode:
        shutil.rmtree(target, ignore_errors=True)
        raise SourceRefused(f"git source {short(_public(source))}: {done.stderr.strip()[-500:]}")
    return target


def _public(source: str) -> str:
    scheme, _, rest = source.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
