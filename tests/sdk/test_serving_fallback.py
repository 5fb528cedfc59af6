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


def variables(graph: Any) -> dict[str, str]:
    spec = {"graph": graph, "parameters": {}, "function_uri": "default/f", "version": "v2", "load_mode": "sync"}
    return {"SERVING_SPEC_ENV": json.dumps(spec), "SERVING_CURRENT_FUNCTION": "*", "MLRUN_DBPATH": ""}


def test_a_cycle_runs_on_mlruns_engine(make: Make) -> None:
    processor = make.start(CODE, variables(CYCLE), python=sys.executable).wait_ready(180)
    assert processor.call("/", json.dumps({"n": 1}), headers={"Content-Type": "application/json"}).json() == {"done": 5}
    assert "engine: mlrun (cyclic flows are beyond metier's engine)" in processor.log()


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
