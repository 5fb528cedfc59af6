"""storey's targets for tables: rows of events are collected and written to a CSV file or to Parquet; the events go on."""

from __future__ import annotations

import csv
import datetime
import importlib.util
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import GraphError


class _Column:
    """``name``, ``new=old`` or ``$key``, ``new=$id``: a member of the body, or of the event."""

    def __init__(self, text: str) -> None:
        name, _, source = text.partition("=")
        self.source = source or name
        self.name = name.lstrip("$") if not source else name

    def of(self, event: Any) -> Any:
        return getattr(event, self.source[1:], None) if self.source.startswith("$") else event.body.get(self.source)


class _Target:
    """Collects rows; writes them after ``max_events``, after ``flush_after_seconds`` and at the end of the flow."""

    graph_mode = "event"

    def __init__(
        self,
        path: str,
        columns: Sequence[str] | None = None,
        infer_columns_from_data: bool | None = None,
        max_events: int | None = 128,
        flush_after_seconds: float | None = 3,
        **_: Any,
    ) -> None:
        kind = type(self).__name__
        if not path or "://" in str(path).replace("file://", ""):
            raise GraphError(f"{kind}: path '{path}' must be a file or folder of this machine")
        if columns is not None and not columns:
            raise GraphError(f"{kind}: columns is empty; leave it out to write what the first event has")
        self._path = Path(str(path).removeprefix("file://"))
        self._columns = [_Column(text) for text in columns] if columns else None
        self._infer = columns is None if infer_columns_from_data is None else infer_columns_from_data
        self._most, self._after = max_events, flush_after_seconds
        self._rows: list[dict[str, Any]] = []
        self._kept: list[Any] = []  # events of streams whose rows are not written yet
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._server: Any = None

    def attach(self, server: Any, row: dict[str, Any]) -> None:
        self._server = server

    def do_event(self, event: Any) -> Any:
        if not isinstance(event.body, dict):
            raise TypeError(
                f"{type(self).__name__} writes rows: the body must be a dict, not {type(event.body).__name__}"
            )
        with self._lock:
            if self._columns is None:
                self._columns = [_Column(name) for name in event.body]
            self._rows.append(self._row(event))
            event.keep()
            self._kept.append(event)
            full = self._most is not None and len(self._rows) >= self._most
            if not full and self._timer is None and self._after is not None:
                self._timer = self._server._driver.call_later(self._after, self.flush)
        if full:
            self.flush()
        return event

    def _row(self, event: Any) -> dict[str, Any]:
        assert self._columns is not None
        return {column.name: column.of(event) for column in self._columns}

    def flush(self) -> None:
        """Writes what has been collected."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._rows:
                self.write(self._rows)  # what it raises leaves them for the next time
            kept, self._rows, self._kept = self._kept, [], []
        for event in kept:
            event.release()

    def write(self, rows: list[dict[str, Any]]) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        self.flush()


class CSVTarget(_Target):
    """Appends rows to a CSV file; with ``header`` a new file begins with the names."""

    def __init__(self, path: str, columns: Any = None, header: bool = False, **options: Any) -> None:
        super().__init__(path, columns, **options)
        self._header = header

    def write(self, rows: list[dict[str, Any]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            if self._header and file.tell() == 0:
                writer.writeheader()
            writer.writerows(rows)


_TIMES = ("$year", "$month", "$day", "$hour")


class ParquetTarget(_Target):
    """Writes row groups to a file that ends in ``.parquet`` or ``.pq``, else files below folders of the partition columns.

    Parameters
    ----------
    partition_cols : list of str
        Names of columns, ``$key``, and ``$year``, ``$month``, ``$day``, ``$hour`` of the event's time.
    index_cols : list of str
        Put before the other columns.
    """

    def __init__(
        self, path: str, index_cols: Any = None, columns: Any = None, partition_cols: Any = None, **options: Any
    ) -> None:
        index = [index_cols] if isinstance(index_cols, str) else list(index_cols or [])
        super().__init__(path, [*index, *columns] if columns else None, **options)
        if importlib.util.find_spec("pyarrow") is None:
            raise GraphError("ParquetTarget needs pyarrow in the function's environment: add it to its requirements")
        self._single = self._path.suffix in (".parquet", ".pq")
        parts = [partition_cols] if isinstance(partition_cols, str) else list(partition_cols or [])
        if self._single and parts:
            raise GraphError(f"ParquetTarget: '{path}' is one file, it has no partitions; name a folder")
        self._parts: list[str] = parts
        self._writer: Any = None

    def _row(self, event: Any) -> dict[str, Any]:
        row = super()._row(event)
        for part in self._parts:
            if part in _TIMES:
                row[part[1:]] = getattr(_time_of(event), part[1:])
            elif part == "$key":
                row["key"] = event.key
        return row

    def write(self, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(rows)
        if not self._single:
            names = [part.lstrip("$") for part in self._parts]
            name = f"{uuid.uuid4().hex}-{{i}}.parquet"
            pq.write_to_dataset(table, str(self._path), partition_cols=names or None, basename_template=name)
            return
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(str(self._path), table.schema)
        self._writer.write_table(table.cast(self._writer.schema))

    def finish(self) -> None:
        """A single file can be read from now on."""
        super().finish()
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _time_of(event: Any) -> datetime.datetime:
    value = event.timestamp
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    if isinstance(value, (int, float)):
        value = datetime.datetime.fromtimestamp(value, datetime.timezone.utc)
    if value is None:
        value = datetime.datetime.now(datetime.timezone.utc)
    return value  # type: ignore[no-any-return]
