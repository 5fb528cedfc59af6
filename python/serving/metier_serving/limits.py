"""What a step may cost: ``timeout`` and ``retries`` (with ``backoff``), ``max_in_flight`` and ``max_queue``, as fields of the step.

They are fields of ours in a step's document; MLRun ignores them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from .errors import GraphError, StepTimeout, TooBusy

_FIELDS = ("timeout", "retries", "backoff", "max_in_flight", "max_queue")


def limited(call: Callable[..., Any], step: Any, coroutine: bool, context: Any) -> Callable[..., Any]:
    """The callable within its step's limits; itself when there are none."""
    given = {name: step._fields.get(name) for name in _FIELDS if step._fields.get(name) is not None}
    if not given:
        return call
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise GraphError(
                f"step '{step.name}': {name}={value!r} must be a number, 0 or more", f"graph.steps.{step.name}.{name}"
            )
    timeout, retries = given.get("timeout"), int(given.get("retries", 0))
    backoff = float(given.get("backoff", 0.1))
    gate = _Gate(step.name, given.get("max_in_flight"), given.get("max_queue"))
    make: Callable[..., Callable[..., Any]] = _coroutine if coroutine else _plain
    return make(call, step.name, timeout, retries, backoff, gate)


class _Gate:
    """At most `limit` calls at a time, at most `waiting` that wait; more are refused with 503."""

    def __init__(self, step: str, limit: float | None, waiting: float | None) -> None:
        self.step = step
        self.limit = int(limit) if limit else 0
        self.most = self.limit + int(waiting if waiting is not None else 1024)
        self.now = 0
        self._lock = threading.Lock()
        self._places = threading.Semaphore(self.limit) if self.limit else None
        self._async: asyncio.Semaphore | None = None

    def enter(self) -> None:
        if not self.limit:
            return
        with self._lock:
            if self.now >= self.most:
                raise TooBusy(f"step '{self.step}' has {self.limit} calls running and {self.most - self.limit} waiting")
            self.now += 1

    def leave(self) -> None:
        if self.limit:
            with self._lock:
                self.now -= 1


def _delay(backoff: float, attempt: int) -> float:
    return float(min(backoff * 2**attempt, 120.0) * (0.5 + random.random() / 2))


def _coroutine(call: Any, name: str, timeout: float | None, retries: int, backoff: float, gate: _Gate) -> Any:
    async def run(value: Any, **kwargs: Any) -> Any:
        gate.enter()
        try:
            if gate.limit:
                gate._async = gate._async or asyncio.Semaphore(gate.limit)
                async with gate._async:
                    return await attempts(value, kwargs)
            return await attempts(value, kwargs)
        finally:
            gate.leave()

    async def attempts(value: Any, kwargs: Any) -> Any:
        for attempt in range(retries + 1):
            try:
                return await (
                    call(value, **kwargs) if timeout is None else asyncio.wait_for(call(value, **kwargs), timeout)
                )
            except asyncio.TimeoutError as error:
                if attempt == retries:
                    raise StepTimeout(f"step '{name}' took longer than {timeout:g} s") from error
            except Exception:
                if attempt == retries:
                    raise
            await asyncio.sleep(_delay(backoff, attempt))
        raise AssertionError

    return run


def _plain(call: Any, name: str, timeout: float | None, retries: int, backoff: float, gate: _Gate) -> Any:
    pool = concurrent.futures.ThreadPoolExecutor(gate.limit or 8, f"step-{name}") if timeout is not None else None

    def once(value: Any, kwargs: Any) -> Any:
        if pool is None:
            return call(value, **kwargs)
        future = pool.submit(call, value, **kwargs)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            if future.done():  # meanwhile, or the step raised it
                return future.result()
            future.cancel()
            raise StepTimeout(f"step '{name}' took longer than {timeout:g} s") from None

    def run(value: Any, **kwargs: Any) -> Any:
        gate.enter()
        try:
            if gate._places is not None:
                with gate._places:
                    return attempts(value, kwargs)
            return attempts(value, kwargs)
        finally:
            gate.leave()

    def attempts(value: Any, kwargs: Any) -> Any:
        for attempt in range(retries + 1):
            try:
                return once(value, kwargs)
            except Exception:
                if attempt == retries:
                    raise
                time.sleep(_delay(backoff, attempt))
        raise AssertionError

    return run
