"""Serving graphs in a real processor: natively, in workers, and cut between both."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BINARY, ROOT, Make, Processor, until
from processors import children

CASES = json.loads((ROOT / "tests" / "graphs" / "cases.json").read_text(encoding="utf-8"))
PYTHON = json.loads((ROOT / "tests" / "graphs" / "python.json").read_text(encoding="utf-8"))
STEPS = (ROOT / "tests" / "graphs" / "steps.py").read_text(encoding="utf-8")
ATTACH = "\nfrom metier_serving.worker import attach as _attach\n_attach(globals())\n"
Serve = Callable[..., Processor]


@pytest.fixture
def serve(make: Make) -> Iterator[Serve]:
    """serve(graph, code): a processor with the graph's workers; without code the processor runs the graph itself."""
    built = Path(os.environ.get("METIER_SERVING_PATH", str(Path(BINARY).parent / "serving"))) / "metier_serving"
    shutil.copytree(
        built, Path(make.lib) / "metier_serving", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )

    def start(graph: Any, code: str | None = "", **more: Any) -> Processor:
        spec = {"graph": graph, "parameters": more.pop("parameters", {})}
        variables = {"SERVING_SPEC_ENV": json.dumps(spec), "SERVING_CURRENT_FUNCTION": "*"}
        if code is None:
            more = {"runtime": "graph", "handler": "graph.json:graph", **more}
        source = None if code is None else code + ATTACH
        return make.start(source, variables, **more).wait_ready()

    yield start


def answers_the_suite(processor: Processor, case: dict[str, Any]) -> None:
    for call in case["calls"]:
        body = call.get("body")
        sent = None if "body" not in call else body if isinstance(body, str) else json.dumps(body)
        headers = {"Content-Type": call["content_type"]} if "content_type" in call else {}
        if "id" in call:
            headers["MLRUN-EVENT-ID"] = call["id"]
        answer = processor.call(call.get("path", "/"), sent, headers=headers)
        assert answer.status == call.get("status", 200), (call, answer)
        if "answered_as" in call:
            assert answer.headers["content-type"] == call["answered_as"], call
        for name, value in call.get("headers", {}).items():
            assert answer.headers.get(name.lower()) == value, call
        if "says" in call:
            assert call["says"] in answer.text, (call, answer)
            continue
        if "has" in call:
            found = answer.json()
            assert {name: found.get(name) for name in call["has"]} == call["has"], call
            continue
        value = call.get("value")
        text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
        assert answer.text == text, (call, answer)


@pytest.mark.parametrize("where", ["processor", "worker"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_the_suite(serve: Serve, case: dict[str, Any], where: str) -> None:
    answers_the_suite(serve(case["graph"], None if where == "processor" else ""), case)


@pytest.mark.parametrize("case", PYTHON, ids=lambda case: str(case["name"]))
def test_the_suite_of_python_steps(serve: Serve, case: dict[str, Any]) -> None:
    answers_the_suite(serve(case["graph"], STEPS, parameters=case.get("parameters", {})), case)


CUT = {
    "engine": "async",
    "steps": {
        "f": {"class_name": "storey.Filter", "class_args": {"_fn": "(event['x'] > 0)"}},
        "e": {"handler": "({**event, 'y': event['x'] + 1})", "after": ["f"]},
        "p": {"handler": "python", "after": ["e"]},
        "z": {"handler": "([event])", "after": ["p"], "responder": True},
    },
}


def test_native_steps_run_before_the_hop_to_python(serve: Serve) -> None:
    processor = serve(CUT, "def python(body):\n    return {**body, 'p': 1}\n")
    assert processor.call("/", '{"x": 1}').json() == [{"x": 1, "y": 2, "p": 1}]
    assert processor.call("/", '{"x": 0}').text == ""  # filtered before any worker saw it
    assert processor.call("/", "{}").text == "KeyError: 'x'"
    counts = {step: processor.metric("metier_graph_step_events_total", step=step) for step in "fepz"}
    assert counts == {"f": 3, "e": 1, "p": 1, "z": 1}
    assert processor.metric("metier_graph_step_failures_total", step="f") == 1
    assert processor.metric("metier_graph_step_seconds_bucket", step="p", le="+Inf") == 1


BUILT = """
from metier_serving import Flow
def python(body):
    return {**body, 'p': 1}
graph = Flow(engine="async")
graph.to("storey.Filter", "f", _fn="(event['x'] > 0)").to(name="e", handler="({**event, 'y': event['x'] + 1})").to(
    name="p", handler="python").to(name="z", handler="([event])").respond()
"""


def test_a_graph_that_the_code_builds_keeps_its_native_start(serve: Serve) -> None:
    processor = serve(None, BUILT, workers=2)
    assert processor.call("/", '{"x": 1}').json() == [{"x": 1, "y": 2, "p": 1}]
    assert processor.call("/", '{"x": 0}').text == ""
    counts = {step: processor.metric("metier_graph_step_events_total", step=step) for step in "fepz"}
    assert counts == {"f": 2, "e": 1, "p": 1, "z": 1}
    handled = processor.metric("nuclio_processor_handled_events_total")
    assert handled == 1  # by workers: what was filtered cost no hop
    for pid in children(processor.process.pid):  # the template too: their successors run the same part
        os.kill(pid, signal.SIGKILL)
    until(lambda: processor.call("/", '{"x": 1}').status == 200, 120, "a new worker")
    assert processor.call("/", '{"x": 4}').json() == [{"x": 4, "y": 5, "p": 1}]


def test_a_graph_of_the_code_without_a_native_start_runs_whole(serve: Serve) -> None:
    code = BUILT.replace('"storey.Filter", "f", _fn="(event[\'x\'] > 0)"', 'name="f", handler="python"')
    assert serve(None, code).call("/", '{"x": 1}').json() == [{"x": 1, "y": 2, "p": 1}]


def test_what_is_wrong_with_a_graph_is_said_without_the_engines_frames(make: Make, serve: Serve) -> None:
    code = BUILT.replace('name="p", handler="python"', '"Missing", "p"')
    with pytest.raises(AssertionError, match="the processor ended"):
        serve(None, code)
    log = make.running[-1].log()
    assert "init_context raised GraphError: step 'p': class 'Missing' was not found: define it in the function's" in log
    assert "Traceback" not in log, log
    model = """
from metier_serving import RouterStep, V2ModelServer
class Model(V2ModelServer):
    def load(self):
        raise OSError("the file is damaged")
    def predict(self, request):
        return []
graph = RouterStep("r")
graph.add_route("m1", class_name="Model", model_path="")
"""
    with pytest.raises(AssertionError, match="the processor ended"):
        serve(None, model)
    log = make.running[-1].log()
    assert "init_context raised RuntimeError: failed to load model m1: OSError: the file is damaged" in log
    assert ", in load" in log and "metier_serving/" not in log, log


def test_code_with_a_handler_of_its_own_runs_unchanged(serve: Serve) -> None:
    code = "def init_context(context):\n    context.mine = 'mine'\n\ndef handler(context, event):\n    return context.mine\n"
    assert serve(None, code, workers=2).call("/", "x").text == "mine"


def test_steps_of_a_library_run_in_workers_too(serve: Serve, library: Path) -> None:
    graph = {
        "engine": "async",
        "steps": {
            "p": {"handler": "python"},
            "t": {
                "handler": f"{library}:twice",
                "after": ["p"],
                "input_path": "x",
                "result_path": "y",
                "responder": True,
            },
        },
    }
    processor = serve(graph, "def python(body):\n    return {**body, 'p': 1}\n")
    assert processor.call("/", '{"x": 4}').json() == {"x": 4, "p": 1, "y": 8}
    answer = processor.call("/", '{"x": 13}')
    assert (answer.status, answer.text) == (400, "StepFailed: thirteen")
    graph["steps"]["t"]["after"] = []
    graph["steps"]["p"]["after"], graph["steps"]["p"]["responder"] = ["t"], True
    del graph["steps"]["t"]["responder"]
    processor = serve(graph, "def python(body):\n    return {**body, 'p': 1}\n")  # before the workers
    assert processor.call("/", '{"x": 4}').json() == {"x": 4, "p": 1, "y": 8}
    assert processor.metric("metier_graph_step_events_total", step="t") == 1


SLOW = """
import asyncio, os, time
def sleeps(body):
    time.sleep(body["s"])
    return body
async def waits(body):
    try:
        await asyncio.sleep(body["s"])
    except asyncio.CancelledError:
        open(body["cancelled"], "w").close()
        raise
    return body
def held(body):
    while not os.path.exists(body["file"]):
        time.sleep(0.01)
    return body
async def waits_for(body):
    while not os.path.exists(body["file"]):
        await asyncio.sleep(0.01)
    return body
"""


def flow(handler: str, **step: Any) -> dict[str, Any]:
    return {"engine": "async", "steps": {"a": {"handler": handler, "responder": True, **step}}}


def test_a_sync_step_past_its_time_is_504_and_the_next_request_is_answered(serve: Serve) -> None:
    processor = serve(flow("sleeps"), SLOW, eventTimeout="2s")
    assert processor.call("/", '{"s": 30}').status == 504
    assert processor.call("/", '{"s": 0}').json() == {"s": 0}


def test_a_coroutine_past_its_time_is_504_and_cancelled(serve: Serve, tmp_path: Path) -> None:
    for number, options in enumerate(
        (
            {"parameters": {"request_timeout": 2}},
            {"eventTimeout": "2s", "trigger": {"mode": "async"}},
            {"step": {"timeout": 2}},
        )
    ):
        mark = tmp_path / f"cancelled{number}"
        processor = serve(flow("waits", **options.pop("step", {})), SLOW, **options)

        def cancelled(processor: Processor = processor, mark: Path = mark, options: Any = options) -> bool:
            assert processor.call("/", json.dumps({"s": 300, "cancelled": str(mark)})).status == 504, options
            with contextlib.suppress(AssertionError):  # a worker that does not cancel within a second is replaced
                until(mark.exists, 10)
            return mark.exists()

        until(cancelled, what="the cancellation")
        assert processor.call("/", '{"s": 0}').json() == {"s": 0}


def refusals(processor: Processor, go: Path, calls: int, least: int) -> list[Any]:
    """The answers of calls that wait for a file, which is there once so many were refused; the rest must be answered."""
    answers: list[Any] = []
    body = json.dumps({"file": str(go)})
    callers = [
        threading.Thread(target=lambda: answers.append(processor.call("/", body, timeout=180))) for _ in range(calls)
    ]
    for caller in callers:
        caller.start()
    until(lambda: [answer.status for answer in answers].count(503) >= least, what="the refusals")
    go.touch()
    for caller in callers:
        caller.join()
    refused = [answer for answer in answers if answer.status == 503]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    return [answer.status for answer in answers if answer.status != 503]


def test_a_full_step_is_503_with_retry_after(serve: Serve, tmp_path: Path) -> None:
    processor = serve(flow("waits_for", max_in_flight=1, max_queue=0), SLOW, trigger={"mode": "async"})
    assert refusals(processor, tmp_path / "go", 4, least=3) == [200]


def test_a_full_function_is_503_with_retry_after(serve: Serve, tmp_path: Path) -> None:
    limits = {"queueSize": 1, "queueDepth": 1, "workerAvailabilityTimeoutMilliseconds": 600_000}
    processor = serve(flow("held"), SLOW, trigger=limits)
    assert refusals(processor, tmp_path / "go", 6, least=4) == [200, 200]  # one ran, one waited


def test_a_worker_that_is_killed_fails_its_own_events_only(serve: Serve, tmp_path: Path) -> None:
    code = """
import os, time
def marks(body):
    if "mark" in body:
        with open(body["mark"], "w") as file:
            file.write(str(os.getpid()))
        time.sleep(30)
    return body
"""
    processor = serve(flow("marks"), code, workers=2)
    mark = tmp_path / "pid"
    answers: list[Any] = []
    caller = threading.Thread(target=lambda: answers.append(processor.call("/", json.dumps({"mark": str(mark)}))))
    caller.start()
    until(lambda: mark.exists() and mark.read_text(), what="the step")
    assert processor.call("/", '{"x": 1}').json() == {"x": 1}  # by the other worker
    os.kill(int(mark.read_text()), signal.SIGKILL)
    caller.join(20)
    assert not caller.is_alive() and answers[0].status in (502, 503), answers
    assert processor.call("/", '{"x": 2}').json() == {"x": 2}


STEPS_CC = """
#include <metier/graph.h>
#include <metier/step.h>
#include <cstdlib>
#include <stdexcept>
METIER_STEP(twice, [](std::string_view body) {
  if (body == "13") { throw std::runtime_error("thirteen"); }
  return std::to_string(2 * std::atoi(std::string(body).c_str()));
});
METIER_GRAPH([](metier::Graph& graph) {
  graph.set_topology("flow", "async");
  graph.to("storey.Filter", "f", {{"_fn", "(event['x'] >= 0)"}})
      .to(metier::handler("steps.so:twice"), "twice").input_path("x").result_path("y")
      .respond();
});
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    (folder / "steps.cc").write_text(STEPS_CC)
    command = ["g++", "-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{ROOT}/include"]
    subprocess.run([*command, "steps.cc", "-o", "steps.so"], cwd=folder, check=True)
    return folder / "steps.so"


def test_a_graph_and_steps_in_cpp_need_no_python(make: Make, library: Path) -> None:
    config = make.config(None, runtime="graph", handler="steps.so:graph", python="/nonexistent")
    shutil.copy(library, config["path"])
    processor = Processor(Path(config["readyFile"]).parent, config)
    make.running.append(processor)
    processor.wait_ready()
    assert processor.call("/", '{"x": 4}').json() == {"x": 4, "y": 8}
    assert processor.call("/", '{"x": -1}').text == ""
    answer = processor.call("/", '{"x": 13}')
    assert (answer.status, answer.text) == (400, "StepFailed: thirteen")


def test_what_a_processor_cannot_run_ends_it_with_the_reason(serve: Serve, make: Make) -> None:
    for graph, says in (
        ({"steps": {"a": {"class_name": "Mine"}}}, "step 'a' runs in Python"),
        ({"steps": {"a": {"handler": "gone.so:f"}}}, "there is no library 'gone.so'"),
        ({"steps": {"a": {"handler": "(event)", "after": ["a"]}}}, "loop detected"),
    ):
        with pytest.raises(AssertionError, match="the processor ended with"):
            serve(graph, None)
        assert says in make.running[-1].log()
