"""A graph as the handler of a Nuclio function: ``attach(globals())`` at the end of the function's code."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from .acks import Acks, Arrival
from .errors import NeedsMlrun
from .server import GraphServer, load_spec, within_ours

_IN_FLIGHT = 1024  # coroutines of a stream's events at a time in one worker
_STREAMS = ("kafka", "kafka-cluster", "v3ioStream", "v3io-stream", "rabbit-mq", "rabbitMq")


def attach(namespace: dict[str, Any], spec: str | None = None) -> None:
    """Gives a module ``init_context`` and ``handler`` that serve the graph of this pod's spec (or of `spec`, JSON text).

    A module that has both of its own stays as it is: it is an ordinary function.
    """
    if "handler" in namespace and "init_context" in namespace:
        return
    if spec is not None:
        os.environ["SERVING_SPEC_ENV"] = spec  # for user code that reads it, as far as the system lets it through

    serve: Any = None  # of the engine, for requests

    def init_context(context: Any) -> Any:
        nonlocal serve
        document = load_spec() if spec is None else dict(json.loads(spec))
        try:
            server = build(document, namespace, context)
        except NeedsMlrun as error:
            return by_mlrun(error, namespace, context)
        context._server = server
        if server.http_trigger:
            serve = server.engine.serve
        context.mlrun_handler = lambda context, event: handle(server, event)
        platform: Any = getattr(context, "platform", None)
        if hasattr(platform, "set_termination_callback"):
            platform.set_termination_callback(lambda: end(server))
            platform.set_drain_callback(lambda: drain(server))
        return None

    def handler(context: Any, event: Any) -> Any:
        if serve is not None:
            return serve(event)
        server = context._server
        return handle(server, event) if server.__class__ is GraphServer else context.mlrun_handler(context, event)

    namespace.update(init_context=init_context, handler=handler)


def by_mlrun(error: NeedsMlrun, namespace: Any, context: Any) -> Coroutine[Any, Any, None]:
    """Lets MLRun's own engine serve a graph that ours lacks something for; the refusal where there is no ``mlrun``."""
    try:
        from mlrun.serving.server import v2_serving_init
    except ImportError:
        raise error from None
    context.logger.info(f"engine: mlrun ({error.message})")

    async def start() -> None:  # its source takes the running loop, which is the worker's
        v2_serving_init(context, namespace)

    return start()


def build(spec: dict[str, Any], namespace: Any, context: Any) -> GraphServer:
    """The server of a spec in this worker."""
    within_ours(spec)
    if not spec.get("graph"):  # the code itself builds it: a module's `graph`
        spec = {**spec, "graph": namespace.get("graph")}
        cut(spec["graph"])
    server = GraphServer.from_dict(spec)
    server.set_current_function(os.environ.get("SERVING_CURRENT_FUNCTION", ""))
    server.init_states(context, namespace)
    kind = getattr(getattr(context, "trigger", None), "kind", "")
    server.http_trigger = (kind or "http") == "http"
    server.init_object(namespace)
    try:
        from metier_worker.encode import Answer
    except ImportError:  # a worker that is not ours
        return server
    server.engine.answers_as(Answer)
    return server


def cut(graph: Any) -> None:
    """Tells the processor the graph that this module has built; it says from which step on the workers run it (``START_FROM_STEP``)."""
    folder = os.environ.get("METIER_GRAPH_STATS", "")
    if graph is None or os.environ.get("METIER_GRAPH_CUT") != "ask":
        return
    entry = Path(folder) / "entry"
    if not entry.exists():
        document = graph.to_dict() if hasattr(graph, "to_dict") else graph
        text = json.dumps(document, default=str)
        own = Path(folder) / f"graph.json.{os.getpid()}"
        own.write_text(text, encoding="utf-8")
        own.replace(Path(folder) / "graph.json")
    end = time.monotonic() + 60  # it looks every few milliseconds, on a machine that has time
    while not entry.exists():
        if time.monotonic() > end:
            raise RuntimeError("the processor does not say from which step on this worker runs the graph")
        time.sleep(0.001)
    step = entry.read_text(encoding="utf-8")
    if step:
        os.environ["START_FROM_STEP"] = step


def handle(server: GraphServer, event: Any) -> Any:
    """The answer to a worker's event, or a coroutine that gives it."""
    if getattr(event.trigger, "kind", "") in _STREAMS:
        event.path = "/"
        return stream(server, event)
    return server.engine.serve(event)


async def later(server: GraphServer, parked: list[Any], event: Any) -> Any:
    """The answer of an event whose steps wait."""
    try:
        await server.finish_in_loop(parked)
    except Exception as error:  # the request's time is over
        return _web(server._failed(event, error, "_handler"))
    return _web(server.engine.answer(event))


def stream(server: GraphServer, event: Any) -> Any:
    """Runs a stream's event. It is acknowledged when nothing of it is on its way or kept by a step any more.

    Where acknowledgements are the trigger's (``explicitAckMode: disable``), the handler ends with the event's last step, and with its error.
    """
    explicit = os.environ.get("METIER_GRAPH_ACKS") == "explicit"
    if server.acks is None and explicit:
        server.acks = Acks(server.context.platform)
    arrival = Arrival(server.acks if explicit else None, event)
    done, value, _ = server.engine.begin(event, False, arrival)
    if not done:
        return _streamed(server, value, arrival, wait=not explicit)
    if arrival.error is not None and not explicit:
        raise arrival.error
    return _web(value)


async def _streamed(server: GraphServer, parked: list[Any], arrival: Arrival, wait: bool) -> str:
    tasks = await begin(parked, server.background)
    while tasks and wait:
        await asyncio.wait(tasks)
        tasks = {task for task in tasks if not task.done()}
    while len(server.background) >= _IN_FLIGHT:
        await asyncio.wait(list(server.background), return_when=asyncio.FIRST_COMPLETED)
    if wait and arrival.error is not None:
        raise arrival.error
    await asyncio.sleep(0)  # so that what is under way has its turn between two events
    return ""


def _web(value: Any) -> Any:
    return "" if value is None else value


async def begin(parked: list[Any], background: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Tasks for what is parked; the set grows with the branches that they park in turn."""
    tasks: set[asyncio.Task[Any]] = set()

    def spawn(item: Any) -> None:
        task = asyncio.ensure_future(drive(item))
        tasks.add(task)
        background.add(task)
        task.add_done_callback(background.discard)

    def drive(item: Any) -> Coroutine[Any, Any, None]:
        return _drive(item, spawn)

    for item in parked:
        spawn(item)
    return tasks


async def finish(
    parked: list[Any], wait: bool, background: set[asyncio.Task[Any]], timeout: float | None = None
) -> None:
    """Drives parked events on the running loop until their request is answered; the rest goes on in `background`."""
    tasks = await begin(parked, background)
    loop = asyncio.get_running_loop()
    end = None if timeout is None else loop.time() + timeout
    try:
        while wait and not parked[0].finished():
            running = [task for task in tasks if not task.done()]
            if not running:
                break
            left = None if end is None else end - loop.time()
            if left is not None and left <= 0:
                raise TimeoutError(f"no answer after {timeout:g} s")
            await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
    except (asyncio.CancelledError, TimeoutError):  # nobody waits for what is under way
        await _give_up([task for task in tasks if not task.done()])
        raise


async def _give_up(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:  # so that steps see their end now, not with the next event
        await asyncio.wait(tasks, timeout=0.5)


async def _drive(parked: Any, spawn: Any) -> None:
    while True:
        try:
            result = await parked.awaitable
        except BaseException as error:
            more = parked.throw(error)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            more = parked.resume(result)
        if not more:
            return
        parked, *others = more
        for other in others:
            spawn(other)


async def end(server: GraphServer) -> None:
    """Lets what is on its way come to its end, and flushes batches."""
    if server.background:
        await asyncio.wait(list(server.background), timeout=20)
    await asyncio.get_running_loop().run_in_executor(None, server.wait_for_completion)
    if server.background:
        await asyncio.wait(list(server.background), timeout=5)


async def drain(server: GraphServer) -> None:
    """Before partitions move elsewhere: what steps have collected goes on, so that it can be acknowledged."""
    await asyncio.get_running_loop().run_in_executor(None, server.flush)
    if server.background:
        await asyncio.wait(list(server.background), timeout=20)
