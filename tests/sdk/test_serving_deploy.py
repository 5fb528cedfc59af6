"""The unmodified mlrun SDK deploys serving functions to our server and calls them."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from support.server import Server

CODE = """
import mlrun.serving

class Add:
    def __init__(self, k=1):
        self.k = k
    def do(self, body):
        return body + self.k

class Model(mlrun.serving.V2ModelServer):
    def load(self):
        self.model = self.get_param("times", 3)
    def predict(self, request):
        return [value * self.model for value in request["inputs"]]
"""


@pytest.fixture(scope="module")
def code(server: Server) -> Path:
    path = server.data.parent / "steps.py"
    path.write_text(textwrap.dedent(CODE))
    return path


@pytest.fixture(scope="module")
def project(mlrun: Any, server: Server) -> Any:
    return mlrun.get_or_create_project("graphs", context=str(server.data.parent / "context"), user_project=False)


def test_a_flow(mlrun: Any, project: Any, code: Path) -> None:
    fn = mlrun.code_to_function("flow", kind="serving", filename=str(code), image="mlrun/mlrun", project="graphs")
    graph = fn.set_topology("flow", engine="async")
    graph.to("Add", "a").to("Add", "b", k=10).respond()
    fn.deploy()
    assert fn.invoke("/", body=1) == 12


def test_a_router_with_models(mlrun: Any, project: Any, code: Path) -> None:
    fn = mlrun.code_to_function("models", kind="serving", filename=str(code), image="mlrun/mlrun", project="graphs")
    fn.set_topology("router")
    fn.add_model("m1", class_name="Model", model_path="file:///nowhere", times=4)
    fn.deploy()
    assert fn.invoke("/v2/models/m1/infer", body={"inputs": [2]})["outputs"] == [8]
    assert "m1" in fn.invoke("/v2/models", method="GET")["models"]
