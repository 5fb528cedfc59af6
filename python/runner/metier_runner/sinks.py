"""Where a run's outputs go: one small interface, and its journal and memory forms (the REST form is in rest.py).

Bodies are MLRun's shapes: a run dict, a flat object of dotted PATCH paths, an artifact dict.
"""

from __future__ import annotations

import json
import os
from typing import Any, Protocol

from .errors import InvalidArgument, RunnerError

JsonDict = dict[str, Any]

MAX_RECORD = 1 << 20
MAX_JOURNAL = 256 << 20
_RESERVE = 4 << 20  # kept free for the records of the end: a run that filled its journal can still say so


class Sink(Protocol):
    """Takes records in order. A method returns when the record is where it belongs, and raises when it cannot be."""

    def store_run(self, body: JsonDict, iteration: int) -> None: ...

    def patch_run(self, changes: JsonDict, iteration: int) -> None: ...

    def store_artifact(self, key: str, body: JsonDict, *, tag: str, tree: str, iteration: int) -> None: ...

    def phase(self, name: str, at: float) -> None: ...

    def failure(self, body: JsonDict) -> None: ...

    def in_child(self) -> None:
        """Called in a forked child: connections are not shared."""

    def close(self) -> None: ...


class MemorySink:
    """Keeps the records in a list; for tests, and for code that runs without any server."""

    def __init__(self) -> None:
        self.records: list[JsonDict] = []

    def store_run(self, body: JsonDict, iteration: int) -> None:
        self._add({"op": "store_run", "iter": iteration, "body": body})

    def patch_run(self, changes: JsonDict, iteration: int) -> None:
        self._add({"op": "patch_run", "iter": iteration, "body": changes})

    def store_artifact(self, key: str, body: JsonDict, *, tag: str, tree: str, iteration: int) -> None:
        self._add({"op": "store_artifact", "key": key, "tag": tag, "tree": tree, "iter": iteration, "body": body})

    def phase(self, name: str, at: float) -> None:
        self._add({"op": "phase", "name": name, "at": at})

    def failure(self, body: JsonDict) -> None:
        self._add({"op": "failure", "body": body})

    def in_child(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _add(self, record: JsonDict) -> None:
        self.records.append(record)


class JournalSink(MemorySink):
    """Appends one JSON line a record to the file of METIER_JOURNAL (docs/formats/journal.md).

    One `write` per record in append mode: records of several processes never mix. Nothing is buffered here, so a killed
    process loses nothing that a method returned from.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        self.path = path
        self._fd = os.open(path, flags, 0o600)

    def phase(self, name: str, at: float) -> None:
        self._write({"v": 1, "op": "phase", "name": name, "at": round(at, 6)}, reserve=0)

    def failure(self, body: JsonDict) -> None:
        self._write({"v": 1, "op": "failure", "body": body}, reserve=0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _add(self, record: JsonDict) -> None:
        final = record["op"] == "patch_run" and "status.state" in record["body"]
        self._write({"v": 1, **record}, reserve=0 if final else _RESERVE)

    def _write(self, record: JsonDict, reserve: int) -> None:
        line = encode(record) + b"\n"
        if len(line) > MAX_RECORD:
            raise InvalidArgument(f"{_name_of(record)} needs {len(line)} bytes, a record holds {MAX_RECORD}: log it as an artifact")
        if os.fstat(self._fd).st_size + len(line) > MAX_JOURNAL - reserve:
            raise RunnerError(f"the run's journal is full ({MAX_JOURNAL >> 20} MiB): log fewer or smaller values")
        written = os.write(self._fd, line)
        if written != len(line):
            # The disk filled up in the middle of a line: end the line, so that the next record is not spoilt too.
            os.write(self._fd, b"\n")
            raise RunnerError(f"the run's journal {self.path} could not be written: no space left")


def encode(value: Any) -> bytes:
    """Compact UTF-8 JSON; NaN stays a bare token, as in MLRun's bodies."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")


def _name_of(record: JsonDict) -> str:
    body = record.get("body", {})
    if record["op"] == "store_artifact":
        return f"artifact '{record.get('key')}'"
    if record["op"] == "patch_run":
        return "update of " + ", ".join(list(body)[:3])
    return str(record["op"])
