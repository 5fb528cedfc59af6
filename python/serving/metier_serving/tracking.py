"""Model tracking: records are made in the request, written by a thread of their own. A full queue drops, and counts, records."""

from __future__ import annotations

import atexit
import queue
import random
import threading
import time
from typing import Any

from .errors import error_text


class ModelLogPusher:
    """Writes MLRun's tracking records to the function's stream, sampled and batched as its parameters say."""

    _queue: queue.Queue[tuple[Any, Any]] = queue.Queue(10_000)
    _thread: threading.Thread | None = None
    dropped = 0

    def __init__(self, model: Any, context: Any) -> None:
        self.model = model
        self.stream = context.stream.output_stream
        self.batch = int(context.get_param("log_stream_batch", 1) or 1)
        percentage = context.get_param("sampling_percentage", None)
        sample = int(context.get_param("log_stream_sample", 1) or 1)
        self.share = float(percentage) / 100 if percentage is not None else 1 / sample
        self.verbose = context.verbose
        self.base = {
            "class": type(model).__name__,
            "worker": context.worker_id,
            "model": model.name.split(":", 1)[0],
            "version": getattr(model, "version", ""),
            "host": context.stream.hostname,
            "function_uri": context.stream.function_uri,
        }
        self._rows: list[list[Any]] = []
        cls = type(self)
        if cls._thread is None or not cls._thread.is_alive():
            cls._thread = threading.Thread(target=self._write, name="metier-tracking", daemon=True)
            cls._thread.start()
            atexit.register(self.flush)

    @classmethod
    def _write(cls) -> None:
        while True:
            stream, records = cls._queue.get()
            try:
                stream.push(records)
            except Exception:
                cls.dropped += len(records)
            finally:
                cls._queue.task_done()

    @classmethod
    def flush(cls, timeout: float = 5.0) -> None:
        """Waits until what was recorded is written."""
        end = time.monotonic() + timeout
        while cls._queue.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.005)

    def _put(self, record: dict[str, Any]) -> None:
        try:
            self._queue.put_nowait((self.stream, [record]))
        except queue.Full:
            type(self).dropped += 1

    def push(
        self,
        when: str,
        started: float,
        request: Any,
        response: Any = None,
        op: str | None = None,
        error: BaseException | None = None,
        event_id: Any = None,
    ) -> None:
        """One call of the model."""
        if isinstance(request, dict) and "id" not in request:
            request = {**request, "id": event_id}
        base = dict(self.base)
        if getattr(self.model, "labels", None):
            base["labels"] = self.model.labels
        if error is not None:
            self._put({**base, "request": request, "op": op, "when": when, "error": error_text(error)})
            return
        if self.share < 1 and random.random() >= self.share:
            return
        microseconds = int((time.perf_counter() - started) * 1e6)
        metrics = dict(getattr(self.model, "metrics", None) or {})
        if self.batch > 1:
            self._rows.append([request, op, response, when, microseconds, metrics])
            if len(self._rows) >= self.batch:
                rows, self._rows = self._rows, []
                self._put({**base, "headers": ["request", "op", "resp", "when", "microsec", "metrics"], "values": rows})
            return
        record = {**base, "request": request, "op": op, "resp": response, "when": when, "microsec": microseconds}
        if metrics:
            record["metrics"] = metrics
        self._put(record)
