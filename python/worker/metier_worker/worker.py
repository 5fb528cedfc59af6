"""One worker: it was forked with the user's module imported (or imports it now), runs `init_context`, then serves its ring."""

from __future__ import annotations

import os
import signal
import sys
import time
import types

from . import encode as encoding
from . import event as events
from .context import Current, Logger, Platform, make_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READY, INIT_FAILED, ERROR, DRAINED, TERMINATED = 16, 17, 22, 25, 26


class EventTimeout(BaseException):
    """The event's time is over; the worker ends after the handler's `finally` clauses."""


class Worker:
    """What the ring's loop calls."""

    coroutine_type = types.CoroutineType
    answer_type = encoding.Answer

    def __init__(self, spec: dict[str, Any], fds: list[int], handler: Any, module: Any) -> None:
        self.spec = spec
        self.handler = handler
        self.module = module
        ring_module = native_ring()
        segment, out_eventfd, self.in_eventfd, socket_fd = fds
        sdk = sdk_module()
        if ring_module is not None:
            self.ring: Any = ring_module.Ring(segment, out_eventfd, self.in_eventfd, socket_fd)
            event_class = events.make_event_class(ring_module.EventBase, sdk.Event)
            ring_module.configure(
                events.parse_body, events.parse_query, self.trigger_info, events.timestamp, events.new_id, self.cloud_event, event_class
            )
        else:
            from .fallback import Ring

            self.ring = Ring(segment, out_eventfd, self.in_eventfd, socket_fd, self.trigger_info, sdk.Event)
        os.close(segment)
        self.sdk = sdk
        self.triggers: dict[tuple[str, str], Any] = {}
        self.pending = [0]
        self.loop: Any = None
        self.current = Current
        trigger = self.trigger_info(spec.get("trigger_kind", ""), spec.get("trigger_name", ""))
        self.logger = Logger(self.ring, spec.get("log_level", "debug"), spec["worker_id"])
        self.platform = Platform(self.ring, sdk.Response, spec.get("functions", {}), spec.get("namespace", "default"))
        self.context = make_context(sdk, self.logger, self.platform, spec["worker_id"], trigger)

    # ---- what the ring calls ----

    def trigger_info(self, kind: str, name: str) -> Any:
        """Return one TriggerInfo a trigger."""
        key = (kind, name)
        found = self.triggers.get(key) if hasattr(self, "triggers") else None
        if found is None:
            found = sdk_module().TriggerInfo(kind, name)
            if hasattr(self, "triggers") and len(self.triggers) < 64:  # a CloudEvent's source is its sender's choice
                self.triggers[key] = found
        return found

    def cloud_event(self, event: Any) -> None:
        """Set what a structured CloudEvent's envelope says."""
        events.cloud_event(event, self.trigger_info)

    def coroutine(self, coroutine: Any, event: Any) -> Any:
        """Finish a coroutine handler before the next event."""
        return self.loop_at_hand().run(coroutine)

    def encode(self, result: Any, ids: tuple[int, int, int]) -> Any:
        """Encode what is neither text nor bytes; a generator is sent from here, piece by piece."""
        result = encoding.with_file(result)
        if encoding.is_stream(result):
            return self.stream(result, 200, encoding.TEXT, b"", 0, ids)
        if encoding.is_response(result) and encoding.is_stream(result.body):
            headers, flags = encoding.header_bytes(result.headers)
            kind = str(result.content_type or "text/plain").encode()
            return self.stream(result.body, encoding.checked_status(result.status_code), kind, headers, flags, ids)
        if encoding.is_awaitable(result):
            return self.encode(self.finish_awaitable(result), ids)
        return encoding.encode(result)

    def failed(self, error: BaseException) -> Any:
        """Encode an exception of the handler."""
        return encoding.failed(error, self.logger)

    def begin(self, slot: int, generation: int, level: int) -> None:
        """The event's caller wants its log records."""
        Current.event = (slot, generation, level)

    def done(self) -> None:
        """End of what `begin` began."""
        Current.event = None

    def batch(self, batch: list[Any], ids: list[tuple[int, int]]) -> None:
        """Call the handler with a list; each event is answered by its event_id."""
        start = time.monotonic_ns()
        try:
            result = self.handler(self.context, batch)
            if encoding.is_awaitable(result):
                result = self.finish_awaitable(result)
            answers = batch_answers(batch, result)
        except EventTimeout:
            raise
        except BaseException as error:  # noqa: BLE001 - the answer to all of them
            answers = [self.failed(error)] * len(batch)
        spent = (time.monotonic_ns() - start) // max(1, len(batch))
        for (slot, generation), answer in zip(ids, answers):
            self.ring.respond(slot, generation, spent, answer)

    # ---- the rest ----

    def loop_at_hand(self) -> Any:
        """Return the event loop, made now when it is the first time."""
        if self.loop is None:
            from .aio import Loop

            self.loop = Loop(self.ring, self.in_eventfd, self.pending)
        return self.loop

    def finish_awaitable(self, awaitable: Any) -> Any:
        """Wait for a coroutine, a future or any awaitable."""

        async def finish() -> Any:
            return await awaitable

        return self.loop_at_hand().run(awaitable if isinstance(awaitable, types.CoroutineType) else finish())

    def stream(self, pieces: Any, status: int, kind: bytes, headers: bytes, flags: int, ids: tuple[int, int, int]) -> None:
        """Send a generator's pieces as they come; the first decides whether there is an answer at all."""
        slot, generation, spent = ids
        if isinstance(pieces, types.AsyncGeneratorType):
            pieces = self.pulled(pieces)
        iterator = iter(pieces)
        first = next(iterator, None)  # an exception before the first piece is a plain 500
        self.ring.head(slot, generation, status, kind, headers, flags)
        sent = 0
        try:
            piece = first
            while piece is not None:
                data = piece_bytes(piece)
                if data:
                    if not self.ring.chunk(slot, generation, data, sent):
                        pieces.close()
                        break
                    sent += len(data)
                piece = next(iterator, None)
        except EventTimeout:
            raise
        except BaseException as error:  # noqa: BLE001 - the head has been sent: the connection says that it broke off
            self.logger.error_with("Exception caught in handler's generator", err=repr(error))
            self.ring.message(ERROR, slot, generation, repr(error).encode("utf-8", "replace")[:1000])
            return
        self.ring.end(slot, generation, spent)

    def pulled(self, pieces: Any) -> Any:
        """Turn an async generator into a plain one."""
        try:
            while True:
                try:
                    yield self.finish_awaitable(pieces.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            self.finish_awaitable(pieces.aclose())

    def init_context(self) -> None:
        """Run the module's `init_context(context)` when it has one."""
        init = getattr(self.module, "init_context", None)
        if init is not None:
            result = init(self.context)
            if encoding.is_awaitable(result):
                self.finish_awaitable(result)

    def call_back(self, callback: Any) -> None:
        """Run a drain or termination callback; its exception is a log record."""
        if callback is None:
            return
        try:
            result = callback()
            if encoding.is_awaitable(result):
                self.finish_awaitable(result)
        except Exception as error:  # noqa: BLE001
            self.logger.error_with("callback failed", err=repr(error))

    def run(self) -> int:
        """Serve until told to end; give the exit code."""
        try:
            self.init_context()
        except BaseException as error:  # noqa: BLE001 - the processor says it to the user
            said = "\n".join(part for part in (encoding.own_lines(error), f"init_context raised {type(error).__name__}: {error}") if part)
            self.ring.message(INIT_FAILED, 0, 0, said.encode("utf-8", "replace"))
            return 3
        import gc

        gc.collect()
        gc.freeze()
        self.ring.message(READY, 0, 0, b"")
        if self.spec.get("mode") == "async":
            from .concurrent import serve

            return serve(self)
        while True:
            why = self.ring.serve(self, self.pending)
            if why == "pending":
                self.loop.wait()
            elif why == "drain":
                self.call_back(self.platform.drain_callback)
                self.ring.message(DRAINED, 0, 0, b"")
            elif why == "terminate":
                self.call_back(self.platform.termination_callback)
                self.ring.message(TERMINATED, 0, 0, b"")
            elif why in ("stop", "gone"):
                return 0


def piece_bytes(piece: Any) -> bytes:
    """Return the bytes of one piece of a streamed answer."""
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return bytes(piece)
    if isinstance(piece, str):
        return encoding.text_bytes(piece)
    if isinstance(piece, (dict, list)):
        return encoding.dumps(piece)
    return encoding.text_bytes(str(piece))


def batch_answers(batch: list[Any], result: Any) -> list[Any]:
    """Return one encoded answer an event, in their order: by event_id, or by position when none has an id and none is missing."""
    given = result if isinstance(result, list) else [result]
    by_id = {str(entry.event_id): entry for entry in given if getattr(entry, "event_id", None)}
    by_id.update({str(entry["event_id"]): entry for entry in given if isinstance(entry, dict) and entry.get("event_id")})
    if not by_id and len(given) == len(batch):
        return [encoding.encode(entry) for entry in given]
    missing = (500, encoding.TEXT, b"", b"the handler answered the batch without a response for this event_id", encoding.RAISED)
    return [encoding.encode(by_id[str(event.id)]) if str(event.id) in by_id else missing for event in batch]


def sdk_module() -> Any:
    """Return `nuclio_sdk`: the real one, or ours (its folder is last on the path)."""
    import nuclio_sdk

    return nuclio_sdk


def native_ring() -> Any:
    """Return the extension, or None: then the ring is read by plain Python, and the processor says `SlowWorker`."""
    if os.environ.get("METIER_FORCE_PYTHON_RING") == "1":
        return None
    try:
        from . import _ring  # type: ignore[attr-defined]
    except ImportError:
        return None
    return _ring


def on_timeout(worker: Worker) -> Any:
    """Return the handler of SIGALRM: the event timeout."""

    def interrupt(*_: Any) -> None:
        worker.ring.die()
        raise EventTimeout("the event timed out")

    return interrupt


def run_worker(spec: dict[str, Any], fds: list[int], handler: Any, module: Any) -> int:
    """Be one worker until the end."""
    events.new_id.reseed()
    worker = Worker(spec, fds, handler, module)
    signal.signal(signal.SIGALRM, on_timeout(worker))
    try:
        return worker.run()
    except EventTimeout:
        return 4
    except ConnectionError:
        return 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
