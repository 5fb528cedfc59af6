"""Graphs with what our engine lacks run on MLRun's own engine, inside our worker, when its environment has mlrun; without it they are
refused by the step's name."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "realtime"))
from processors import Make  # noqa: E402

CODE = """
import storey

class Count:
    def do(self, body):
        return {**body, "n": body["n"] + 1}

class Again(storey.Choice):
    def select_outlets(self, body):
        return ["count"] if body["n"] < 5 else ["out"]

def out(body):
    return {"done": body["n"]}

from metier_serving.worker import attach as _attach
_attach(globals())
"""
CYCLE = {
    "engine": "async",
    "allow_cyclic": True,
    "max_iterations": 10,
    "steps": {
        "count": {"kind": "task", "class_name": "Count", "after": ["again"], "cycle_from": ["again"]},
        "again": {"kind": "task", "class_name": "Again", "after": ["count"]},
        "out": {"kind": "task", "handler": "out", "after": ["again"], "responder": True},
    },
}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    lib = tmp_path / "lib"
    for source in (ROOT / "python" / "worker" / "metier_worker", ROOT / "build" / "dev" / "serving" / "metier_serving"):
        shutil.copytree(source, lib / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    made = Make(tmp_path, str(lib))
    yield made
    for processor in made.running:
        processor.stop()


MODELS = """
import mlrun.serving

class Twice(mlrun.serving.Model):
    def predict(self, body, **kwargs):
        return {**body, "n": body["n"] * 2}

class Words(mlrun.serving.Model):
    def predict(self, body, **kwargs):
        for word in body["text"].split():
            yield word + ";"

from metier_serving.worker import attach as _attach
_attach(globals())
"""


def runner(model: str) -> dict[str, Any]:
    """A flow of one model runner, as the SDK writes it."""
    monitoring = {"creation_strategy": "skip", "model_class": model}
    args = {
        "model_selector": [None, None],
        "model_runner_selector": [None, None],
        "execution_mechanism_by_model_name": {"m1": "naive"},
        "models": {"m1": [model, {"artifact_uri": None, "name": "m1"}]},
        "monitoring_data": {"m1": monitoring},
    }
    step = {"kind": "model_runner", "class_name": "mlrun.serving.ModelRunner", "class_args": args, "responder": True}
    return {"engine": "async", "steps": {"runner": {**step, "raise_exception": True}}}


def variables(graph: Any, **more: Any) -> dict[str, str]:
    spec = {"graph": graph, "parameters": {}, "function_uri": "default/f", "version": "v2", "load_mode": "sync", **more}
    return {"SERVING_SPEC_ENV": json.dumps(spec), "SERVING_CURRENT_FUNCTION": "*", "MLRUN_DBPATH": ""}


def test_a_cycle_runs_on_mlruns_engine(make: Make) -> None:
    processor = make.start(CODE, variables(CYCLE), python=sys.executable).wait_ready(180)
    assert processor.call("/", json.dumps({"n": 1}), headers={"Content-Type": "application/json"}).json() == {"done": 5}
    assert "engine: mlrun (cyclic flows are beyond metier's engine)" in processor.log()


def test_a_model_runner_runs_on_mlruns_engine(make: Make) -> None:
    processor = make.start(MODELS, variables(runner("Twice")), python=sys.executable).wait_ready(180)
    assert processor.call("/", json.dumps({"n": 3}), headers={"Content-Type": "application/json"}).json() == {"n": 6}
    assert "engine: mlrun (step 'runner' has kind 'model_runner', which metier's engine lacks)" in processor.log()


def test_streamed_answers_come_from_mlruns_engine(make: Make) -> None:
    processor = make.start(MODELS, variables(runner("Words"), streaming=True), python=sys.executable).wait_ready(180)
    answer = processor.call("/", json.dumps({"text": "a b c"}), headers={"Content-Type": "application/json"})
    assert (answer.status, answer.text) == (200, "a;b;c;")
    assert (
        "engine: mlrun (the function has streamed answers (streaming), which metier's engine lacks)" in processor.log()
    )


COLLECTED = {
    "engine": "async",
    "steps": {
        "count": {"class_name": "Count"},
        "collect": {"class_name": "storey.Collector", "after": ["count"]},
        "out": {"handler": "out", "after": ["collect"], "responder": True},
    },
}


@pytest.mark.parametrize("class_name", ["storey.Collector", "Mine"])
def test_other_steps_of_storey_run_on_mlruns_engine(make: Make, class_name: str) -> None:
    mine = (
        "\nclass Mine(storey.Flow):\n    async def _do(self, event):\n        return await self._do_downstream(event)\n"
    )
    graph = json.loads(json.dumps(COLLECTED).replace("storey.Collector", class_name))
    processor = make.start(
        CODE.replace("import storey", "import storey" + mine), variables(graph), python=sys.executable
    )
    processor.wait_ready(180)
    assert processor.call("/", json.dumps({"n": 1}), headers={"Content-Type": "application/json"}).json() == {"done": 2}
    assert f"engine: mlrun (step 'collect' has the class '{class_name}', a step of storey" in processor.log()


def test_a_graph_of_ours_stays_on_our_engine_where_mlrun_is_there(make: Make) -> None:
    graph = {"engine": "async", "steps": {"a": {"handler": "out", "responder": True}}}
    processor = make.start(CODE, variables(graph), python=sys.executable).wait_ready(180)
    assert processor.call("/", json.dumps({"n": 7})).json() == {"done": 7}
    assert "engine: mlrun" not in processor.log()


@pytest.mark.parametrize(
    "graph, more, says",
    [
        (runner("Twice"), {}, "step 'runner' has kind 'model_runner', which metier's engine lacks"),
        ({"steps": {"h": {"kind": "hub_task", "class_name": "x"}}}, {}, "step 'h' has kind 'hub_task'"),
        ({"allow_cyclic": True, "steps": {"a": {"handler": "out"}}}, {}, "cyclic flows are beyond metier's engine"),
        (
            {"steps": {"m": {"kind": "monitoring_application", "class_name": "x"}}},
            {},
            "step 'm' has kind 'monitoring_app",
        ),
        (COLLECTED, {}, "step 'collect' has the class 'storey.Collector', a step of storey that metier's engine lacks"),
        ({"steps": {"t": {"class_name": "storey.NoSqlTarget"}}}, {}, "step 't' has the class 'storey.NoSqlTarget'"),
        ({"steps": {"t": {"class_name": "storey.TSDBTarget"}}}, {}, "step 't' has the class 'storey.TSDBTarget'"),
        ({"steps": {"a": {"handler": "out"}}}, {"streaming": True}, "the function has streamed answers (streaming)"),
        ({"steps": {"a": {"handler": "out"}}}, {"api_handler_config": {"endpoints": {"x": 1}}}, "an API of its own"),
    ],
)
def test_what_needs_mlrun_is_refused_without_it(make: Make, graph: Any, more: dict[str, Any], says: str) -> None:
    plain = CODE.replace("import storey", "").replace("(storey.Choice)", "")
    processor = make.start(plain, variables(graph, **more), python=os.path.realpath(sys.executable))
    with pytest.raises(AssertionError, match="the processor ended"):
        processor.wait_ready(60)
    assert says in processor.log()


def test_without_mlrun_it_is_refused_by_name(make: Make, tmp_path: Path) -> None:
    graph = {
        "steps": {
            "count": {"class_name": "Count", "cycle_from": ["again"]},
            "again": {"handler": "out", "after": ["count"]},
        }
    }
    plain = CODE.replace("import storey", "").replace("(storey.Choice)", "")
    processor = make.start(plain, variables(graph), python=os.path.realpath(sys.executable))
    with pytest.raises(AssertionError, match="the processor ended"):
        processor.wait_ready(60)
    assert "step 'count' is part of a cycle (cycle_from), which metier's engine lacks" in processor.log()
