"""Artifacts: what they are, where they are written, and the record that is stored for each.

Order of one artifact: temporary file → fsync → rename → record. A record never names a file that is not there.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from . import files
from .errors import InvalidArgument, InvalidArgumentType
from .sinks import JsonDict
from .values import short

if TYPE_CHECKING:
    from .context import Context

_KEY = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_STORE_KINDS = {"model": "models", "dataset": "datasets"}


class Artifact:
    """One thing to keep. `body` is text or bytes; subclasses make it from richer objects."""

    kind = "artifact"
    suffix = ""
    viewer = ""

    def __init__(self, key: str = "", body: Any = None, *, format: str = "", viewer: str = "", target_path: str = "", **spec: Any) -> None:
        self.key, self.body, self.format, self.target_path = key, body, format, target_path
        self.viewer = viewer or self.viewer
        self.spec: JsonDict = {name: value for name, value in spec.items() if value is not None}
        self.metadata: JsonDict = {}
        self.local_path = ""
        self.db_key = ""
        self.record: JsonDict = {}

    def get_body(self) -> str | bytes:
        if isinstance(self.body, (str, bytes)):
            return self.body
        if isinstance(self.body, (bytearray, memoryview)):
            return bytes(self.body)
        raise InvalidArgumentType(f"artifact '{self.key}': body is {type(self.body).__name__}, it must be text or bytes")

    @property
    def uri(self) -> str:
        """The artifact's address in the store, ``store://models/p/run_key#0@tree``."""
        meta = self.record["metadata"]
        tag = f":{meta['tag']}" if meta.get("tag") else ""
        prefix = _STORE_KINDS.get(self.record["kind"], "artifacts")
        return f"store://{prefix}/{meta['project']}/{self.db_key}#{meta['iter']}{tag}@{meta['tree']}"

    def get_store_url(self) -> str:
        return self.uri

    def get_target_path(self) -> str:
        return self.target_path

    def to_dict(self) -> JsonDict:
        return dict(self.record)


class DirArtifact(Artifact):
    kind = "dir"


class LinkArtifact(Artifact):
    kind = "link"


class PlotArtifact(Artifact):
    """A matplotlib figure as one HTML page with the picture inside, as MLRun keeps plots."""

    kind, suffix, viewer = "plot", ".html", "chart"

    def get_body(self) -> str | bytes:
        if isinstance(self.body, (str, bytes)):
            return self.body
        if not hasattr(self.body, "savefig"):
            raise InvalidArgumentType(f"plot '{self.key}': body is {type(self.body).__name__}, it must be a matplotlib figure or HTML")
        import base64
        import html
        import io

        picture = io.BytesIO()
        self.body.savefig(picture, bbox_inches="tight", format="png")
        data = base64.b64encode(picture.getvalue()).decode()
        title = html.escape(str(self.spec.get("title") or self.key))
        return f'<html><body><h3>{title}</h3><img title="{title}" src="data:image/png;base64,{data}"></body></html>'


class PlotlyArtifact(Artifact):
    kind, suffix, viewer = "plotly", ".html", "plotly"

    def get_body(self) -> str | bytes:
        return self.body if isinstance(self.body, (str, bytes)) else str(self.body.to_html())


class TableArtifact(Artifact):
    """A table as CSV: a DataFrame, or rows with their `header`."""

    kind, suffix, viewer = "table", ".csv", "table"

    def __init__(self, key: str = "", body: Any = None, *, df: Any = None, header: list[str] | None = None, **kw: Any) -> None:
        super().__init__(key, df if df is not None else body, format=kw.pop("format", "csv"), **kw)
        if df is not None:
            header = [str(name) for name in df.columns]
        if header:
            self.spec["header"] = header

    def get_body(self) -> str | bytes:
        if isinstance(self.body, (str, bytes)):
            return self.body
        if hasattr(self.body, "to_csv"):
            return str(self.body.to_csv(index=False))
        import csv
        import io

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if self.spec.get("header"):
            writer.writerow(self.spec["header"])
        writer.writerows(self.body)
        return text.getvalue()


class DatasetArtifact(Artifact):
    kind = "dataset"


class ModelArtifact(Artifact):
    kind = "model"


def check_artifact_key(key: object) -> str:
    if not isinstance(key, str):
        raise InvalidArgumentType(f"artifact key {short(key)} is {type(key).__name__}, it must be text")
    if not _KEY.match(key) or len(key) > 200:
        raise InvalidArgument(
            f"artifact key {short(key)} must be at most 200 of A-Z a-z 0-9 - _ . and begin and end with a letter or digit"
        )
    return key


def is_remote(path: str) -> bool:
    return "://" in path and not path.startswith("file://")


def local_file(path: str) -> str:
    """A plain path for a local target, with ``file://`` taken off."""
    if not path.startswith("file://"):
        return path
    from urllib.parse import unquote

    return unquote(path[len("file://") :])


def register(context: Context, item: Artifact, *, tag: str = "", labels: JsonDict | None = None, db_key: Any = None) -> Artifact:
    """Make the record of an artifact whose content is in place, store it, and put its address into the run."""
    stamp = timestamp()
    item.db_key = db_key if isinstance(db_key, str) and db_key else f"{context.name}_{item.key}"
    uid = context.run_uid
    producer: JsonDict = {"name": context.name, "kind": "run", "uri": f"{context.project}/{context.uid}"}
    if context.labels.get("owner"):
        producer["owner"] = context.labels["owner"]
    tree = context.labels.get("workflow") or uid
    if context.labels.get("workflow"):
        producer["workflow"] = context.labels["workflow"]
    metadata: JsonDict = {"key": item.key, "project": context.project, "iter": context.iteration, "tree": tree}
    metadata.update({**item.metadata, "created": stamp, "updated": stamp})
    if tag:
        metadata["tag"] = tag
    if labels:
        metadata["labels"] = {str(k): str(v) for k, v in labels.items()}
    spec: JsonDict = {"target_path": item.target_path, "db_key": item.db_key, "producer": producer, **item.spec}
    for name, value in (("format", item.format), ("viewer", item.viewer)):
        if value:
            spec[name] = value
    item.record = {"kind": item.kind, "project": context.project, "metadata": metadata, "spec": spec, "status": {"state": "ready"}}
    if db_key is not False:
        context.sink.store_artifact(item.db_key, item.record, tag=tag, tree=tree, iteration=context.iteration)
    return item


def upload(context: Context, item: Artifact, *, local_path: str = "", artifact_path: str = "", target_path: str = "") -> None:
    """Put the content of `item` (its body, or the file or folder `local_path`) where the run's artifacts live."""
    suffix = item.suffix or (f".{item.format}" if item.format and item.body is not None else "")
    name = item.key if item.kind == "dir" or item.key.endswith(suffix or "\0") else item.key + suffix
    if local_path:
        tail = "" if item.kind in ("dir", "model") else files.suffix_of(local_path)
        name = item.key if tail and item.key.endswith(tail) else item.key + tail
    base = artifact_path or context.artifact_path
    target = target_path or item.target_path or f"{base.rstrip('/')}/{context.name}/{context.iteration}/{name}"
    if item.kind == "dir":
        target = target.rstrip("/") + "/"
    if not is_remote(target):
        target = files.absolute(local_file(target))
    if item.body is not None:
        body = item.get_body()
        data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
        size, digest = _put(context, target, data)
    elif item.kind == "dir":
        size, digest = files.copy_tree(local_path, target) if not is_remote(target) else _upload_tree(context, local_path, target)
    elif is_remote(target):
        size, digest = files.measure(local_path)
        context.get_dataitem(target).upload(local_path)
    else:
        size, digest = files.copy_file(local_path, target)
    item.target_path = target
    item.spec.setdefault("size", size)
    item.metadata.setdefault("hash", digest)
    if item.kind != "dir":
        item.spec.setdefault("content_type", files.content_type(target))


def _put(context: Context, target: str, data: bytes) -> tuple[int, str]:
    if is_remote(target):
        context.get_dataitem(target).put(data)
        return len(data), files.sha1(data)
    return files.write_file(target, data)


def _upload_tree(context: Context, source: str, target: str) -> tuple[int, str]:
    total, digests = 0, []
    for relative, path in files.walk(source):
        size, digest = files.measure(path)
        context.get_dataitem(target + relative).upload(path)
        total += size
        digests.append(f"{relative}\0{digest}")
    return total, files.sha1("\n".join(digests).encode("utf-8", "surrogateescape"))


def short_form(item: Artifact) -> JsonDict:
    """What a run's `status.artifacts` holds of an artifact."""
    meta = item.record["metadata"]
    return {
        "kind": item.record["kind"],
        "metadata": {name: meta[name] for name in ("key", "project", "iter", "tree", "hash") if name in meta},
        "spec": {"target_path": item.target_path, "db_key": item.db_key, "size": item.spec.get("size")},
        "status": {"state": "ready"},
    }


def timestamp(at: float | None = None) -> str:
    """UTC as MLRun writes it: ``2024-10-23 10:00:00.123456+00:00``."""
    at = time.time() if at is None else at
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(at))}.{int(at % 1 * 1e6):06d}+00:00"
