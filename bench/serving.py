"""The cost of serving graphs: MLRun's own mock server beside ours, the same graphs and steps, interleaved.

    build/venv-sdk/bin/python bench/serving.py [--rounds N] [--only TEXT]

Cost of the engine = a request's time less that of the same functions called in a plain loop. Each pair runs in turns in one
process, so that both see the same machine; printed is the median over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, os.environ.get("METIER_SERVING_PATH", str(ROOT / "build" / "release" / "serving")))
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
os.environ.setdefault("MLRUN_DBPATH", "")

import mlrun  # noqa: E402
import mlrun.serving  # noqa: E402
from metier_serving import Flow, RouterStep, create_graph_server  # noqa: E402
from metier_serving import V2ModelServer as OurModel  # noqa: E402


class Add:
    def __init__(self, k: int = 1) -> None:
        self.k = k

    def do(self, body: Any) -> Any:
        return body


async def coroutine(body: Any) -> Any:
    return body


async def awaits(body: Any) -> Any:
    await asyncio.sleep(0.01)
    return body


class TheirModel(mlrun.serving.V2ModelServer):
    def load(self) -> None:
        self.model = 1

    def predict(self, request: Any) -> Any:
        return request["inputs"]


class Model(OurModel):
    def load(self) -> None:
        self.model = 1

    def predict(self, request: Any) -> Any:
        return request["inputs"]


SMALL = {"a": 1, "b": "text", "c": [1, 2, 3]}
ROWS = [[float(i * j) for i in range(20)] for j in range(8)]
LARGE = {"data": [[i * 0.37 + j for i in range(20)] for j in range(151)], "x": {"y": 1}}
INPUTS = {"inputs": [[1.0, 2.0, 3.0]]}


def chain(graph: Any, count: int, **step: Any) -> Any:
    for index in range(count):
        graph = graph.to(name=f"s{index}", **step) if "handler" in step else graph.to("Add", f"s{index}", **step)
    return graph


def ours(graph: Any) -> Any:
    server = create_graph_server(graph=graph, current_function="*", function_uri="p/f")
    server.init_states(None, globals(), is_mock=True)
    server.init_object(globals())
    return server


def flows(build: Callable[[Any], Any], engine: str) -> tuple[Any, Any]:
    """(MLRun's server, ours) of the same flow."""
    fn = mlrun.new_function("bench", kind="serving", image="x")
    theirs = fn.set_topology("flow", engine=engine)
    mine = Flow(engine=engine)
    for graph in (theirs, mine):
        last = build(graph)
        if engine == "async":
            last.respond()
    return fn.to_mock_server(namespace=globals()), ours(mine)


def routers(class_name: str | None, count: int, **args: Any) -> tuple[Any, Any]:
    fn = mlrun.new_function("bench", kind="serving", image="x")
    theirs = fn.set_topology("router", class_name, **args) if class_name else fn.set_topology("router")
    mine = RouterStep("router", class_name=class_name, class_args=args)
    for index in range(count):
        theirs.add_route(f"m{index}", class_name="TheirModel", model_path="")
        mine.add_route(f"m{index}", class_name="Model", model_path="")
    return fn.to_mock_server(namespace=globals()), ours(mine)


def fan(graph: Any) -> Any:
    graph.to("Add", "start")
    for index in range(4):
        graph.add_step("Add", f"b{index}", after="start")
    return graph.add_step("mlrun.serving.merger.Merge", "join", after=[f"b{index}" for index in range(4)])


def micros(call: Callable[[], Any], seconds: float) -> float:
    """Time of one call, the best of a few short series."""
    call()
    count, taken = 1, 0.0
    while taken < seconds / 10:
        count *= 2
        start = time.perf_counter()
        for _ in range(count):
            call()
        taken = time.perf_counter() - start
    best = taken / count
    for _ in range(4):
        start = time.perf_counter()
        for _ in range(count):
            call()
        best = min(best, (time.perf_counter() - start) / count)
    return best * 1e6


def pair(
    servers: tuple[Any, Any], arguments: tuple[Any, ...], plain: Callable[[], Any], rounds: int
) -> tuple[float, float]:
    theirs, mine = [], []
    for _ in range(rounds):
        base = micros(plain, 0.05)
        theirs.append(micros(lambda: servers[0].test(*arguments), 0.25) - base)
        time.sleep(0.3)  # its threads have work left, which would count as ours
        mine.append(micros(lambda: servers[1].test(*arguments), 0.1) - base)
    return statistics.median(theirs), statistics.median(mine)


def rate(server: Any, callers: int, seconds: float) -> float:
    """Requests per second of many threads."""
    done = [0] * callers
    end = time.perf_counter() + seconds

    def run(index: int) -> None:
        while time.perf_counter() < end:
            server.test("/", 1)
            done[index] += 1

    threads = [threading.Thread(target=run, args=(i,)) for i in range(callers)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


def nothing() -> None:
    return None


def plain_steps(count: int, body: Any) -> Callable[[], Any]:
    steps = [Add().do for _ in range(count)]

    def run() -> Any:
        value = body
        for step in steps:
            value = step(value)
        return value

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    text = json.dumps(LARGE)
    model = Model(name="m", context=None)
    model.ready = True
    three, ten = plain_steps(3, SMALL), plain_steps(10, SMALL)
    cases: list[tuple[str, Callable[[], tuple[Any, Any]], tuple[Any, ...], Callable[[], Any], str]] = [
        ("three Python steps, sync, body 1", lambda: flows(lambda g: chain(g, 3), "sync"), ("/", 1), plain_steps(3, 1), "3"),
        ("three Python steps, sync, dict", lambda: flows(lambda g: chain(g, 3), "sync"), ("/", SMALL), three, "3"),
        ("ten Python steps, sync, dict", lambda: flows(lambda g: chain(g, 10), "sync"), ("/", SMALL), ten, ""),
        ("three Python steps, async", lambda: flows(lambda g: chain(g, 3), "async"), ("/", SMALL), three, "5"),
        ("ten Python steps, async", lambda: flows(lambda g: chain(g, 10), "async"), ("/", SMALL), ten, "12"),
        ("three async def steps", lambda: flows(lambda g: chain(g, 3, handler="coroutine"), "async"), ("/", 1), nothing, "8"),
        ("router and Python model", lambda: routers(None, 1), ("/v2/models/m0/infer", INPUTS),
         lambda: model.predict(INPUTS), "5"),
        ("ensemble of 4 models", lambda: routers("mlrun.serving.VotingEnsemble", 4, vote_type="regression"),
         ("/v2/models/infer", {"inputs": [1, 2, 3]}), nothing, "30"),
        ("4 branches and a join, 8x20 floats", lambda: flows(fan, "async"), ("/", ROWS), nothing, "40"),
        ("22.6 KB of JSON text, input_path", lambda: flows(lambda g: chain(g, 1, input_path="x.y"), "sync"),
         ("/", text), nothing, "30"),
    ]  # fmt: skip
    print(
        f"microseconds of the engine per request, Python {sys.version.split()[0]}, mlrun {mlrun.__version__}, body {len(text)} B large"
    )
    print(f"  {'':40} {'MLRun':>9} {'metier':>9} {'ratio':>7}  target")
    for name, make, arguments, plain, target in cases:
        if options.only and options.only not in name:
            continue
        servers = make()
        theirs, mine = pair(servers, arguments, plain, options.rounds)
        print(f"  {name:40} {theirs:9.1f} {mine:9.2f} {theirs / max(mine, 0.01):6.0f}x  {target}", flush=True)
        servers[0].wait_for_completion() if servers[0].graph.kind != "router" else None
    if not options.only or options.only in "awaits":
        servers = flows(lambda g: chain(g, 1, handler="awaits"), "async")
        theirs, mine = rate(servers[0], 64, 2.0), rate(servers[1], 64, 2.0)
        print(
            f"  {'a step that awaits 10 ms, 64 callers, 1/s':40} {theirs:9.0f} {mine:9.0f} {mine / theirs:6.0f}x  5000"
        )


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # storey's threads
