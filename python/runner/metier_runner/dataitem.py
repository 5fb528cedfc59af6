"""Data items: one object for a file, an address or a stored artifact, with MLRun's methods.

Schemes of our own: none and ``file``, ``http(s)``, ``memory``, ``store``. Others go through fsspec where it is installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import IO, Any, Protocol
from urllib.parse import unquote, urlsplit

from . import files
from .errors import InvalidArgument, NotFound, RunnerError
from .sinks import JsonDict
from .values import short

FSSPEC = frozenset(  # what MLRun knows, and some that fsspec has drivers for
    ("s3", "az", "wasb", "wasbs", "abfs", "abfss", "v3io", "v3ios", "redis", "rediss", "gcs", "gs", "dbfs", "hdfs", "webhdfs", "oss")
    + ("ds", "ftp", "sftp", "github", "hf", "lakefs")
)
MAX_DOWNLOAD = 64 << 30  # of one http answer: a server that never stops must not fill the disk
_memory: dict[str, Any] = {}


class Stat:
    """What `DataItem.stat()` returns."""

    def __init__(self, size: int | None = None, modified: float | None = None, content_type: str | None = None) -> None:
        self.size, self.modified, self.content_type = size, modified, content_type

    def __repr__(self) -> str:
        return f"FileStats(size={self.size}, modified={self.modified}, type={self.content_type})"


class Store(Protocol):
    """One scheme's way to bytes. A path is what follows the scheme."""

    kind: str

    def get(self, path: str, offset: int, size: int | None) -> Any: ...
    def put(self, path: str, data: bytes, append: bool) -> None: ...
    def stat(self, path: str) -> Stat: ...
    def listdir(self, path: str) -> list[str]: ...
    def delete(self, path: str) -> None: ...
    def open(self, path: str, mode: str) -> IO[Any]: ...
    def download(self, path: str, target: str) -> None: ...
    def upload(self, path: str, source: str) -> None: ...


class DataItem:
    """A handle on data somewhere; nothing is read until a method asks for it."""

    def __init__(self, key: str, store: Store, path: str, url: str, meta: JsonDict | None = None, artifact_url: str = "") -> None:
        self.key, self._store, self._path, self._url = key, store, path, url
        self._meta, self.artifact_url = meta, artifact_url or url
        self._local = ""

    @staticmethod
    def of(url: str, *, key: str = "", secrets: Callable[[str], str | None] | None = None, project: str = "") -> DataItem:
        """The data item of an address. Raises ValueError for a scheme that nobody here knows."""
        if not isinstance(url, str) or not url:
            raise InvalidArgument(f"the address of input '{key}' is {short(url)}, it must be a path or URL")
        if url.startswith("store://"):
            return _stored(url, key, secrets, project)
        store, path = _store_of(url, secrets)
        return DataItem(key or os.path.basename(path.rstrip("/")), store, path, url)

    @property
    def url(self) -> str:
        """The address as it was given."""
        return self._url

    @property
    def suffix(self) -> str:
        """The ending of the file name with its dot, empty without one."""
        return files.suffix_of(self._path)

    @property
    def kind(self) -> str:
        """The scheme's name: file, http, memory, s3, …"""
        return self._store.kind

    @property
    def store(self) -> Store:
        """The store behind the item: one per scheme."""
        return self._store

    @property
    def meta(self) -> JsonDict:
        """The stored artifact's record; empty for an address that is no ``store://``."""
        return self._meta or {}

    def get_artifact_type(self) -> str | None:
        """The kind of the stored artifact (dataset, model, …), None for other addresses."""
        return str(self._meta["kind"]) if self._meta and self._meta.get("kind") else None

    def get(self, size: int | None = None, offset: int = 0, encoding: str | None = None) -> Any:
        """The bytes (or text, with `encoding`) from `offset`; for memory items the object itself."""
        body = self._store.get(self._path, offset, size)
        return body.decode(encoding) if encoding and isinstance(body, (bytes, bytearray)) else body

    def put(self, data: str | bytes, append: bool = False) -> None:
        """Write `data` (text as UTF-8), in place of what is there or behind it."""
        self._store.put(self._path, data.encode("utf-8") if isinstance(data, str) else data, append)

    def delete(self) -> None:
        """Delete what the address names."""
        self._store.delete(self._path)

    def upload(self, src_path: str) -> None:
        """Copy a local file to the address."""
        self._store.upload(self._path, src_path)

    def download(self, target_path: str) -> None:
        """Copy what the address names to a local file; folders on the way are made."""
        os.makedirs(os.path.dirname(os.path.abspath(target_path)), exist_ok=True)
        self._store.download(self._path, target_path)

    def stat(self) -> Stat:
        """Size in bytes, time of the last change and content type."""
        return self._store.stat(self._path)

    def open(self, mode: str = "rb") -> IO[Any]:
        """A file object; close it."""
        return self._store.open(self._path, mode)

    def ls(self) -> list[str]:
        """The same as `listdir`."""
        return self.listdir()

    def listdir(self) -> list[str]:
        """The names below the address."""
        return self._store.listdir(self._path)

    def local(self) -> str:
        """A path in the file system: the file itself, or a copy that `remove_local` deletes."""
        if self.kind == "file":
            return self._path
        if not self._local:
            import tempfile

            fd, path = tempfile.mkstemp(suffix=self.suffix)
            os.close(fd)
            self._store.download(self._path, path)
            self._local = path
        return self._local

    def remove_local(self) -> None:
        """Delete the copy that `local` made, if it made one."""
        if self._local:
            os.unlink(self._local)
            self._local = ""

    def as_df(self, columns: list[str] | None = None, df_module: Any = None, format: str = "", **kwargs: Any) -> Any:
        """The data as a DataFrame of `df_module` (pandas): CSV, Parquet or JSON by `format` or suffix."""
        if self.kind == "memory" and not isinstance(self.get(), (bytes, str)):
            return self.get()
        if df_module is None:
            import importlib

            df_module = importlib.import_module("pandas")
        if str(getattr(df_module, "__name__", "")).startswith("dask"):
            return self._as_parts(columns, df_module, format, kwargs)
        kind = format or str((self.meta.get("spec") or {}).get("format") or "") or self.suffix.lstrip(".")
        path = self.local()
        if os.path.isdir(path):
            kind = kind or "parquet"
        if kind == "csv":
            return df_module.read_csv(path, **({"usecols": columns} if columns else {}), **kwargs)
        if kind in ("parquet", "pq"):
            return df_module.read_parquet(path, **({"columns": columns} if columns else {}), **kwargs)
        if kind == "json":
            return df_module.read_json(path, **kwargs)
        raise InvalidArgument(f"{short(self._url)} is not known to be a table: give format='csv', 'parquet' or 'json'")

    def _as_parts(self, columns: list[str] | None, df_module: Any, format: str, kwargs: JsonDict) -> Any:
        """A Dask frame: its workers read the parts, so they get an address that they can reach, never a copy of this process's."""
        kind = format or str((self.meta.get("spec") or {}).get("format") or "") or self.suffix.lstrip(".")
        if isinstance(self._store, FsspecStore):
            path = self._url
            kwargs.setdefault("storage_options", self._store.options)
        else:
            path = self.local()
        folder = os.path.isdir(path)
        if kind == "csv":
            return df_module.read_csv(
                f"{path.rstrip('/')}/*.csv" if folder else path, **({"usecols": columns} if columns else {}), **kwargs
            )
        if kind in ("parquet", "pq") or (folder and not kind):
            return df_module.read_parquet(path, **({"columns": columns} if columns else {}), **kwargs)
        if kind == "json":
            return df_module.read_json(path, **{"orient": "records", "lines": False, **kwargs})
        raise InvalidArgument(f"{short(self._url)} is not known to be a table: give format='csv', 'parquet' or 'json'")

    def show(self, format: str | None = None) -> None:
        """Print the data as text."""
        body = self.get()
        print(body.decode("utf-8", "replace") if isinstance(body, bytes) else body)

    def __fspath__(self) -> str:
        return self.local()

    def __str__(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"'{self._url}'"


def get_dataitem(url: str, key: str = "", project: str = "") -> DataItem:
    """The data item of an address, as `mlrun.get_dataitem` gives it."""
    return DataItem.of(url, key=key, project=project)


class FileStore:
    kind = "file"

    def get(self, path: str, offset: int, size: int | None) -> bytes:
        with self.open(path, "rb") as stream:
            stream.seek(offset)
            return bytes(stream.read(-1 if size is None else size))

    def put(self, path: str, data: bytes, append: bool) -> None:
        if append:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            with open(path, "ab") as stream:
                stream.write(data)
        else:
            files.write_file(os.path.abspath(path), data)

    def stat(self, path: str) -> Stat:
        found = _existing(path)
        return Stat(found.st_size, found.st_mtime, files.content_type(path))

    def listdir(self, path: str) -> list[str]:
        _existing(path)
        return sorted(relative for relative, _ in files.walk(path))

    def delete(self, path: str) -> None:
        _existing(path)
        if os.path.isdir(path):
            import shutil

            shutil.rmtree(path)
        else:
            os.unlink(path)

    def open(self, path: str, mode: str) -> IO[Any]:
        if "r" in mode:
            _existing(path)
        return open(path, mode)

    def download(self, path: str, target: str) -> None:
        files.copy_file(path, os.path.abspath(target))

    def upload(self, path: str, source: str) -> None:
        files.copy_file(source, os.path.abspath(path))


class MemoryStore:
    """``memory://name``: objects of this process."""

    kind = "memory"

    def get(self, path: str, offset: int, size: int | None) -> Any:
        if path not in _memory:
            raise NotFound(f"memory://{path}: nothing was put there in this process")
        body = _memory[path]
        if isinstance(body, (bytes, str)) and (offset or size is not None):
            return body[offset : None if size is None else offset + size]
        return body

    def put(self, path: str, data: Any, append: bool) -> None:
        _memory[path] = _memory[path] + data if append and path in _memory else data

    def stat(self, path: str) -> Stat:
        body = self.get(path, 0, None)
        return Stat(len(body) if hasattr(body, "__len__") else None)

    def listdir(self, path: str) -> list[str]:
        return sorted(name[len(path) :].lstrip("/") for name in _memory if name.startswith(path))

    def delete(self, path: str) -> None:
        _memory.pop(path, None)

    def open(self, path: str, mode: str) -> IO[Any]:
        import io

        body = self.get(path, 0, None)
        return io.BytesIO(body) if isinstance(body, bytes) and "b" in mode else io.StringIO(_as_text(body))

    def download(self, path: str, target: str) -> None:
        body = self.get(path, 0, None)
        files.write_file(os.path.abspath(target), body if isinstance(body, bytes) else _as_text(body).encode("utf-8"))

    def upload(self, path: str, source: str) -> None:
        with open(source, "rb") as stream:
            _memory[path] = stream.read()


class HttpStore:
    kind = "http"

    def __init__(self, scheme: str, token: str | None = None) -> None:
        self.kind = scheme
        self._token = token

    def get(self, path: str, offset: int, size: int | None) -> bytes:
        headers = {}
        if offset or size is not None:
            headers["Range"] = f"bytes={offset}-" + ("" if size is None else str(offset + size - 1))
        with self._open(path, headers) as answer:
            if answer.status == 206:
                return bytes(answer.read())
            answer.read(offset)  # a server without ranges
            return bytes(answer.read() if size is None else answer.read(size))

    def put(self, path: str, data: bytes, append: bool) -> None:
        raise InvalidArgument(f"{self.kind}:// addresses are read-only here")

    def stat(self, path: str) -> Stat:
        with self._open(path, {}, "HEAD") as answer:
            length = answer.headers.get("Content-Length")
            return Stat(int(length) if length else None, None, answer.headers.get_content_type())

    def listdir(self, path: str) -> list[str]:
        raise InvalidArgument(f"{self.kind}:// addresses cannot be listed")

    def delete(self, path: str) -> None:
        raise InvalidArgument(f"{self.kind}:// addresses are read-only here")

    def open(self, path: str, mode: str) -> IO[Any]:
        import io

        data = self.get(path, 0, None)
        return io.BytesIO(data) if "b" in mode else io.StringIO(data.decode("utf-8"))

    def download(self, path: str, target: str) -> None:
        with self._open(path, {}) as answer, open(target, "wb") as out:
            total = 0
            while True:
                chunk = answer.read(files.CHUNK)
                if not chunk:
                    break
                total += len(chunk)
                if total > MAX_DOWNLOAD:
                    raise InvalidArgument(f"{self.kind}://{short(path)} is larger than {MAX_DOWNLOAD >> 30} GiB")
                out.write(chunk)
            expected = answer.headers.get("Content-Length")
            if expected and total != int(expected):
                raise RunnerError(f"{self.kind}://{short(path)}: the answer ended after {total} of {expected} bytes")

    def upload(self, path: str, source: str) -> None:
        self.put(path, b"", False)

    def _open(self, path: str, headers: dict[str, str], method: str = "GET") -> Any:
        import urllib.error
        import urllib.request

        if any(ord(c) < 33 for c in path):
            raise InvalidArgument(f"{self.kind}://{short(path)} contains a space or control character")
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        host, slash, rest = path.partition("/")
        user, at, host = host.rpartition("@")
        if at:  # urllib would look the user up as a part of the host's name
            import base64

            headers["Authorization"] = "Basic " + base64.b64encode(unquote(user).encode("utf-8")).decode()
        request = urllib.request.Request(f"{self.kind}://{host}{slash}{rest}", headers=headers, method=method)
        try:
            return urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            kind = NotFound if error.code == 404 else RunnerError
            raise kind(f"{self.kind}://{_public(path)}: {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise RunnerError(f"{self.kind}://{_public(path)}: {error.reason}") from None


class FsspecStore:
    def __init__(self, scheme: str, options: JsonDict) -> None:
        import importlib

        self.kind = scheme
        self.options = options
        try:
            fsspec = importlib.import_module("fsspec")
            self._fs: Any = fsspec.filesystem({"wasb": "abfs", "wasbs": "abfs", "az": "abfs"}.get(scheme, scheme), **options)
        except ImportError as error:
            raise InvalidArgument(f"{scheme}:// needs the packages fsspec and its driver in this environment ({error})") from None
        except ValueError:
            raise InvalidArgument(f"scheme '{scheme}' is unknown to the installed fsspec") from None

    def get(self, path: str, offset: int, size: int | None) -> bytes:
        return bytes(self._fs.cat_file(path, start=offset or None, end=None if size is None else offset + size))

    def put(self, path: str, data: bytes, append: bool) -> None:
        with self._fs.open(path, "ab" if append else "wb") as stream:
            stream.write(data)

    def stat(self, path: str) -> Stat:
        found = self._fs.info(path)
        return Stat(found.get("size"), None, files.content_type(path))

    def listdir(self, path: str) -> list[str]:
        prefix = path.rstrip("/") + "/"
        return sorted(name.split(prefix, 1)[-1] for name in self._fs.find(path))

    def delete(self, path: str) -> None:
        self._fs.rm(path, recursive=True)

    def open(self, path: str, mode: str) -> IO[Any]:
        stream: IO[Any] = self._fs.open(path, mode)
        return stream

    def download(self, path: str, target: str) -> None:
        self._fs.get(path, target)

    def upload(self, path: str, source: str) -> None:
        self._fs.put(source, path)


def _store_of(url: str, secrets: Callable[[str], str | None] | None) -> tuple[Store, str]:
    scheme = urlsplit(url).scheme.lower() if "://" in url else ""
    if "://" in url and not scheme:
        raise InvalidArgument(f"{short(url)} begins with no scheme like https://")
    if len(scheme) == 1 or not scheme:  # a path; a Windows drive letter is one too
        return FileStore(), url
    rest = url.split("://", 1)[1]
    if scheme == "file":
        return FileStore(), unquote(rest)
    if scheme == "memory":
        return MemoryStore(), rest
    if scheme in ("http", "https"):
        return HttpStore(scheme, secrets("HTTPS_AUTH_TOKEN") if secrets and scheme == "https" else None), rest.split("#", 1)[0]
    if scheme in FSSPEC or _fsspec_knows(scheme):
        return FsspecStore(scheme, _options(scheme, secrets)), rest
    known = "file, http, https, memory, store"
    raise InvalidArgument(f"{short(url)}: scheme '{scheme}' is unknown, schemes are {known} and those of fsspec")


def _fsspec_knows(scheme: str) -> bool:
    from importlib.util import find_spec

    if find_spec("fsspec") is None:
        return False
    import importlib

    return scheme in importlib.import_module("fsspec").available_protocols()


def _options(scheme: str, secrets: Callable[[str], str | None] | None) -> JsonDict:
    if scheme != "s3" or secrets is None:
        return {}
    found = {"key": secrets("AWS_ACCESS_KEY_ID"), "secret": secrets("AWS_SECRET_ACCESS_KEY"), "endpoint_url": secrets("S3_ENDPOINT_URL")}
    return {name: value for name, value in found.items() if value}


def parse_store_url(url: str, project: str = "") -> JsonDict:
    """The parts of ``store://[kind/]project/key[#iter][:tag][@tree][^uid]``."""
    rest = url[len("store://") :]
    kind, _, after = rest.partition("/")
    known = ("artifacts", "models", "datasets", "feature-sets", "feature-vectors", "documents")
    rest, kind = (after, kind) if kind in known else (rest, "artifacts")
    rest, _, uid = rest.partition("^")
    rest, _, tree = rest.partition("@")
    rest, _, tag = rest.partition(":")
    rest, _, iteration = rest.partition("#")
    if iteration and not iteration.isdigit():
        raise InvalidArgument(f"{short(url)}: iteration '{iteration}' is not a number")
    place, _, key = rest.partition("/")
    if not key:
        place, key = project, place
    if not place or not key:
        raise InvalidArgument(f"{short(url)} is not store://[kind/]project/key[#iter][:tag][@tree]")
    return {"kind": kind, "project": place, "key": key, "iter": int(iteration or 0), "tag": tag, "tree": tree, "uid": uid}


def _stored(
    url: str, key: str, secrets: Callable[[str], str | None] | None, project: str, environment: Mapping[str, str] | None = None
) -> DataItem:
    from urllib.parse import quote

    from .rest import Client

    parts = parse_store_url(url, project)
    if parts["kind"].startswith("feature-"):
        raise InvalidArgument(f"{short(url)}: feature store objects are read by the mlrun package only")
    client = Client.from_environment(os.environ if environment is None else environment)
    if client is None:
        raise InvalidArgument(f"{short(url)} needs a server: set METIER_SERVER")
    query: JsonDict = {"iter": parts["iter"]}
    # `latest` is only implied where nothing else names the version.
    query.update({"tree": parts["tree"]} if parts["tree"] else {})
    query.update({"object-uid": parts["uid"]} if parts["uid"] else {})
    query.update({"tag": parts["tag"] or "latest"} if parts["tag"] or not (parts["tree"] or parts["uid"]) else {})
    path = f"v2/projects/{quote(parts['project'], safe='')}/artifacts/{quote(parts['key'])}"
    try:
        meta = client.json("GET", path, None, query)
    finally:
        client.close()
    target = str((meta.get("spec") or {}).get("target_path") or "")
    if meta.get("kind") == "model" and (meta.get("spec") or {}).get("model_file"):
        target = target.rstrip("/") + "/" + os.path.basename(str(meta["spec"]["model_file"]))
    if not target or target.startswith("store://"):
        raise NotFound(f"{short(url)}: the artifact's record has no target_path")
    store, path = _store_of(target, secrets)
    return DataItem(key or parts["key"], store, path, target, meta, url)


def _existing(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except FileNotFoundError:
        raise NotFound(f"{short(path)}: no such file (looked in {os.getcwd()})") from None
    except NotADirectoryError:
        raise NotFound(f"{short(path)}: no such file") from None


def _as_text(body: Any) -> str:
    return body if isinstance(body, str) else (body.decode("utf-8") if isinstance(body, bytes) else str(body))


def _public(path: str) -> str:
    """Without user:password@ (never in a message)."""
    host, slash, rest = path.partition("/")
    return host.rpartition("@")[2] + slash + rest.partition("?")[0]
