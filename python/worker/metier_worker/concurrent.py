"""A worker of `mode: async`: every event is a task of one loop."""

from __future__ import annotations

import asyncio
import inspect
import time
from contextvars import ContextVar

from . import encode as encoding
from .context import Current
from .worker import DRAINED, ERROR, TERMINATED, EventTimeout, Worker, piece_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WINDOW = 256 * 1024
wanted_logs: ContextVar[tuple[int, int, int] | None] = ContextVar("wanted_logs", default=None)


class Concurrent:
    """The loop's side of a worker."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.ring = worker.ring
        self.loop = worker.loop_at_hand().loop
        self.tasks: dict[tuple[int, int], asyncio.Task[None]] = {}
        self.end: asyncio.Future[int] = self.loop.create_future()
        self.stopping = False

    def pump(self) -> None:
        """Take what the ring has; after 64 records the tasks have their turn."""
        for _ in range(64):
            message = self.ring.next()
            if message is None:
                if self.ring.sleep():
                    return
                continue
            word = message[0]
            if word == "event":
                _, event, slot, generation, logs, level = message
                # Not the loop's create_task, which counts tasks for a worker that waits for them.
                task = asyncio.Task(self.one(event, slot, generation, level if logs else None), loop=self.loop)
                self.tasks[slot, generation] = task
            elif word == "cancel":
                found = self.tasks.get((message[1], message[2]))
                if found is not None:
                    found.cancel()
            else:
                self.loop.create_task(self.told(word))
        self.loop.call_soon(self.pump)

    def woken(self) -> None:
        """The processor wrote the eventfd."""
        self.ring.awake()
        self.pump()

    async def told(self, word: str) -> None:
        """Drain, terminate, stop."""
        if word == "drain":
            await self.call_back(self.worker.platform.drain_callback)
            self.ring.message(DRAINED, 0, 0, b"")
        elif word == "terminate":
            await self.call_back(self.worker.platform.termination_callback)
            self.ring.message(TERMINATED, 0, 0, b"")
        elif word == "stop":
            while self.tasks:
                await asyncio.wait(list(self.tasks.values()))
            if not self.end.done():
                self.end.set_result(0)

    async def call_back(self, callback: Any) -> None:
        """Run one callback; its exception is a log record."""
        if callback is None:
            return
        try:
            result = callback()
            if inspect.isawaitable(result):
                await result
        except Exception as error:  # noqa: BLE001
            self.worker.logger.error_with("callback failed", err=repr(error))

    async def one(self, event: Any, slot: int, generation: int, level: int | None) -> None:
        """One event, from the handler's call to its answer."""
        if level is not None:
            wanted_logs.set((slot, generation, level))
        start = time.monotonic_ns()
        try:
            result = self.worker.handler(self.worker.context, event)
            if encoding.is_awaitable(result):
                result = await result
            result = encoding.with_file(result)
            spent = time.monotonic_ns() - start
            if encoding.is_stream(result) or (encoding.is_response(result) and encoding.is_stream(result.body)):
                await self.stream(result, slot, generation, spent)
            else:
                self.ring.respond(slot, generation, spent, encoding.encode(result))
        except EventTimeout:
            raise
        except ConnectionError as error:
            if not self.end.done() and self.ring.orphaned():
                self.end.set_result(0)
            else:
                self.ring.respond(slot, generation, time.monotonic_ns() - start, self.worker.failed(error))
        except BaseException as error:  # noqa: BLE001 - also a cancelled task has its answer, which the processor drops
            self.ring.respond(slot, generation, time.monotonic_ns() - start, self.worker.failed(error))
        finally:
            self.tasks.pop((slot, generation), None)

    async def stream(self, result: Any, slot: int, generation: int, spent: int) -> None:
        """Send a generator's pieces; other events go on while its reader is slow."""
        pieces, status, kind, headers, flags = result, 200, encoding.TEXT, b"", 0
        if encoding.is_response(result):
            pieces = result.body
            headers, flags = encoding.header_bytes(result.headers)
            status, kind = encoding.checked_status(result.status_code), str(result.content_type or "text/plain").encode()
        step = as_async(pieces)
        first = await step.__anext__() if not inspect.isasyncgen(pieces) else await anext_or_none(step)
        self.ring.head(slot, generation, status, kind, headers, flags)
        sent = 0
        piece = first
        try:
            while piece is not None:
                data = piece_bytes(piece)
                while data:
                    while sent - self.ring.credit(slot) >= WINDOW:
                        if not self.ring.wanted(slot, generation):
                            return
                        await asyncio.sleep(0.002)
                    part, data = data[:65536], data[65536:]
                    if not self.ring.chunk(slot, generation, part, sent):
                        return
                    sent += len(part)
                piece = await anext_or_none(step)
        except BaseException as error:  # noqa: BLE001
            self.ring.message(ERROR, slot, generation, repr(error).encode("utf-8", "replace")[:1000])
            return
        finally:
            close = getattr(step, "aclose", None)
            if close is not None:
                await close()
        self.ring.end(slot, generation, spent)


async def as_pieces(pieces: Any) -> Any:
    """Turn a plain generator into an async one."""
    for piece in pieces:
        yield piece
    yield None


def as_async(pieces: Any) -> Any:
    """Return an async iterator."""
    return pieces if inspect.isasyncgen(pieces) else as_pieces(pieces)


async def anext_or_none(step: Any) -> Any:
    """Return the next piece, None at the end."""
    try:
        return await step.__anext__()
    except StopAsyncIteration:
        return None


def serve(worker: Worker) -> int:
    """Serve until told to end."""
    Current.get = classmethod(lambda _: wanted_logs.get())  # type: ignore[method-assign, assignment]
    concurrent = Concurrent(worker)
    loop = concurrent.loop
    loop.remove_reader(worker.in_eventfd)
    loop.add_reader(worker.in_eventfd, concurrent.woken)

    async def watch() -> None:
        while not concurrent.end.done():
            await asyncio.sleep(2)
            if concurrent.ring.orphaned() and not concurrent.end.done():
                concurrent.end.set_result(0)

    watcher = loop.create_task(watch())
    loop.call_soon(concurrent.pump)
    code = loop.run_until_complete(concurrent.end)
    watcher.cancel()
    return int(code)
