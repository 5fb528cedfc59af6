"""storey's targets for tables: rows of events are collected and written to a CSV file or to Parquet; the events go on."""

from __future__ import annotations

import csv
import datetime
import importlib.util
import json
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import GraphError, error_text


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
            if not full:
                self._arm()
        if full:
            try:
                refused = self._write_out()
            except BaseException:
                self._withdraw(event)
                raise
            if event in refused:
                raise ValueError(refused[event])
        return event

    def _arm(self) -> None:
        if self._timer is None and self._after is not None:
            self._timer = self._server._driver.call_later(self._after, self._flush_late)

    def _withdraw(self, event: Any) -> None:
        """The event fails, so that its row is not written later: what waits never grows past ``max_events``."""
        with self._lock:
            at = next((i for i, kept in enumerate(self._kept) if kept is event), None)
            if at is None:
                return
            del self._rows[at], self._kept[at]
            self._arm()
        event.release()

    def _flush_late(self) -> None:
        try:
            self.flush()
        except Exception as error:  # the rows stay for the next time
            self._server.context.logger.error(f"{type(self).__name__} {self._path}: {error_text(error)}")
            with self._lock:
                self._arm()

    def _row(self, event: Any) -> dict[str, Any]:
        assert self._columns is not None
        return {column.name: column.of(event) for column in self._columns}

    def flush(self) -> None:
        """Writes what has been collected."""
        for why in self._write_out().values():
            self._server.context.logger.error(why)

    def _write_out(self) -> dict[Any, str]:
        """The events whose rows were refused, and why."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            refused = self.write(self._rows) if self._rows else {}  # what it raises leaves them for the next time
            kept, self._rows, self._kept = self._kept, [], []
        for event in kept:
            event.release()
        return {kept[at]: f"{type(self).__name__} {self._path}: {why}" for at, why in refused.items()}

    def write(self, rows: list[dict[str, Any]]) -> dict[int, str]:
        """Writes all rows, or those that fit: of the others, why they do not."""
        raise NotImplementedError

    def finish(self) -> None:
        self.flush()


class CSVTarget(_Target):
    """Appends rows to a CSV file; with ``header`` a new file begins with the names."""

    def __init__(self, path: str, columns: Any = None, header: bool = False, **options: Any) -> None:
        super().__init__(path, columns, **options)
        self._header = header

    def write(self, rows: list[dict[str, Any]]) -> dict[int, str]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            if self._header and file.tell() == 0:
                writer.writeheader()
            writer.writerows(rows)
        return {}


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
        self._texts: list[str] = []  # columns without a value in the first rows
        self._schema: Any = None  # of what was written first; later rows have its types

    def _row(self, event: Any) -> dict[str, Any]:
        row = super()._row(event)
        for part in self._parts:
            if part in _TIMES:
                row[part[1:]] = getattr(_time_of(event), part[1:])
            elif part == "$key":
                row["key"] = event.key
        return row

    def write(self, rows: list[dict[str, Any]]) -> dict[int, str]:
        import pyarrow.parquet as pq

        table, refused = self._table(rows)
        if table is None:
            return refused
        if not self._single:
            names = [part.lstrip("$") for part in self._parts]
            name = f"{uuid.uuid4().hex}-{{i}}.parquet"
            pq.write_to_dataset(table, str(self._path), partition_cols=names or None, basename_template=name)
        else:
            if self._writer is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(str(self._path), table.schema)
            self._writer.write_table(table)
        self._schema = table.schema
        return refused

    def _table(self, rows: list[dict[str, Any]]) -> tuple[Any, dict[int, str]]:
        """The rows that fit the schema of those before them, and why others do not."""
        import pyarrow as pa

        try:
            return self._made(rows), {}
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            pass
        fitting: list[dict[str, Any]] = []
        refused: dict[int, str] = {}
        for at, row in enumerate(rows):
            try:
                self._schema = self._made([row]).schema
                fitting.append(row)
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
                refused[at] = self._misfit(row) or str(error)
        return self._made(fitting) if fitting else None, refused

    def _made(self, rows: list[dict[str, Any]]) -> Any:
        import pyarrow as pa

        for name in self._texts:
            rows = [{**row, name: _as_text(row.get(name))} for row in rows]
        if self._schema is not None:
            return pa.Table.from_pylist(rows, self._schema)
        table = pa.Table.from_pylist(rows)
        # Of a column that has no value in the first rows nothing is known: it holds texts, which take what comes.
        self._texts = [field.name for field in table.schema if pa.types.is_null(field.type)]
        fields = [field.with_type(pa.string()) if field.name in self._texts else field for field in table.schema]
        return table.cast(pa.schema(fields))

    def _misfit(self, row: dict[str, Any]) -> str:
        import pyarrow as pa

        for field in self._schema or []:
            try:
                pa.array([row.get(field.name)], field.type)
            except pa.ArrowException:
                return (
                    f"column '{field.name}' has the type {field.type} of its first rows, {row[field.name]!r} does not fit; "
                    "write all rows of one type"
                )
        return ""

    def finish(self) -> None:
        """A single file can be read from now on."""
        super().finish()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._schema = None
            self._texts = []


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _time_of(event: Any) -> datetime.datetime:
    value = event.timestamp
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
    if isinstance(value, (int, float)):
        value = datetime.datetime.fromtimestamp(value, datetime.timezone.utc)
    if value is None:
        value = datetime.datetime.now(datetime.timezone.utc)
    return value  # type: ignore[no-any-return]
