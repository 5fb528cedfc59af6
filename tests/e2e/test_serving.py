"""Serving graphs, deployed: the file's own graph, a graph in the document, errors, redeploy under load, what is refused."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.server import Server

GRAPH = """
import asyncio
from metier_serving import Flow, V2ModelServer

class Add:
    def __init__(self, k=1):
        self.k = k
    def do(self, body):
        return {**body, "x": body["x"] + self.k}

async def waits(body):
    await asyncio.sleep(0.01)
    return body

def boom(body):
    if body["x"] > 100:
        raise ValueError("too much")
    return body

def caught(event, context):
    event.body = context.Response(status_code=418, body=f"{event.origin_state}: {event.error}", content_type="text/x")
    return event

class Model(V2ModelServer):
    def load(self):
        self.model = self.get_param("times", 2)
    def predict(self, request):
        return [value * self.model for value in request["inputs"]]

graph = Flow(engine="async")
graph.to("Add", "a").to(name="w", handler="waits").to(name="b", handler="boom").error_handler(
    "c", handler="caught", full_event=True
).to("Add", "d", k=10).respond()
"""


@pytest.fixture(autouse=True)
def nothing_left(server: Server) -> Iterator[None]:
    yield
    for row in json.loads(server.metier("get", "functions", "-o", "json").stdout or "{}").get("funcs") or []:
        server.metier("delete", row["metadata"]["name"], "-y")


def call(url: str, path: str = "/", body: Any = None, method: str = "") -> tuple[int, str, str]:
    host, port = url.removeprefix("http://").rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        data = None if body is None else body if isinstance(body, (str, bytes)) else json.dumps(body)
        connection.request(method or ("POST" if data else "GET"), path, data)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.getheader("Content-Type") or ""
    finally:
        connection.close()


def deploy(server: Server, folder: Path, text: str, *arguments: str) -> str:
    (folder / "flow.py").write_text(text)
    done = server.metier("deploy", "flow.py", "--kind", "serving", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_a_files_graph_is_deployed_and_answers(server: Server, tmp_path: Path) -> None:
    url = deploy(server, tmp_path, GRAPH)
    status, body, kind = call(url, body={"x": 1})
    assert (status, json.loads(body), kind) == (200, {"x": 12}, "application/json")
    assert call(url, body={"x": 200}) == (418, "b: too much", "text/x")
    status, body, _ = call(url, body='{"y": 1}')
    assert status == 400 and "KeyError: 'x'" in body


def test_redeploy_under_load_fails_no_request(server: Server, tmp_path: Path) -> None:
    url = deploy(server, tmp_path, GRAPH)
    answers: list[int] = []
    wrong: list[Any] = []
    stop = threading.Event()

    def caller() -> None:
        while not stop.is_set():
            try:
                status, body, _ = call(url, body={"x": 1})
                answers.append(json.loads(body)["x"])
                if status != 200:
                    wrong.append(body)
            except OSError as error:
                wrong.append(error)

    threads = [threading.Thread(target=caller) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        end = time.monotonic() + 30
        while not answers and time.monotonic() < end:
            time.sleep(0.01)
        assert deploy(server, tmp_path, GRAPH.replace("k=10", "k=20")) == url
        while 22 not in answers[-3:] and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong and {12, 22} == set(answers)


def document(graph: Any, code: str = GRAPH) -> dict[str, Any]:
    return {
        "kind": "serving",
        "metadata": {"name": "routed", "project": "default"},
        "spec": {
            "image": "python",
            "graph": graph,
            "parameters": {"times": 5},
            "build": {"functionSourceCode": base64.b64encode(code.encode()).decode()},
        },
    }


def test_a_graph_of_the_document_and_a_router(server: Server, tmp_path: Path) -> None:
    routes = {"m1": {"kind": "task", "class_name": "Model", "class_args": {"model_path": ""}}}
    (tmp_path / "function.yaml").write_text(json.dumps(document({"kind": "router", "routes": routes})))
    done = server.metier("deploy", "-f", "function.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    url = done.stdout.strip().splitlines()[-1]
    status, body, _ = call(url, "/v2/models/m1/infer", {"inputs": [3]})
    assert (status, json.loads(body)["outputs"]) == (200, [15])
    assert json.loads(call(url, "/v2/models")[1]) == {"models": ["m1"]}
    status, body, _ = call(url, "/v2/models/zz/infer", {"inputs": [3]})
    assert status == 400 and "model zz doesnt exist, available models: m1" in body


@pytest.mark.parametrize(
    "text, says",
    [
        (GRAPH.replace('handler="waits"', 'handler="wait"'), "step 'w': function 'wait' was not found"),
        (GRAPH + "graph['a'].after_step('d')\n", "loop detected"),
        (GRAPH.replace("class Add:", "class Odd:"), "step 'a': class 'Add' was not found"),
    ],
)
def test_wrong_graphs_do_not_deploy_and_say_why(server: Server, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "flow.py").write_text(text)
    done = server.metier("deploy", "flow.py", "--kind", "serving", cwd=tmp_path)
    assert done.returncode != 0 and says in done.stderr + done.stdout


def test_no_graph_and_a_cycle_in_the_document_are_refused_at_once(server: Server, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("def handler(context, event):\n    return 1\n")
    done = server.metier("deploy", "plain.py", "--kind", "serving", cwd=tmp_path)
    assert done.returncode == 2 and "the function has no graph" in done.stderr
    steps = {"a": {"handler": "boom", "after": ["b"]}, "b": {"handler": "boom", "after": ["a"]}}
    (tmp_path / "function.yaml").write_text(json.dumps(document({"steps": steps})))
    done = server.metier("deploy", "-f", "function.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "loop detected" in done.stderr


def test_a_graph_without_code_runs_in_the_processor(server: Server, tmp_path: Path) -> None:
    steps = {
        "f": {"class_name": "storey.Filter", "class_args": {"_fn": "(event['x'] > 0)"}},
        "m": {"handler": "({**event, 'y': event['x'] * 2})", "after": ["f"], "responder": True},
    }
    text = json.dumps(document({"engine": "async", "steps": steps}, code=""))
    (tmp_path / "function.yaml").write_text(text)
    done = server.metier("deploy", "-f", "function.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    url = done.stdout.strip().splitlines()[-1]
    assert json.loads(call(url, body={"x": 2})[1]) == {"x": 2, "y": 4}
    assert call(url, body={"x": 0})[1] == ""
    assert call(url, body={})[:2] == (400, "KeyError: 'x'")
    shown = server.metier("describe", "routed").stdout
    rows = {line.split()[0]: line.split()[1:3] for line in shown.split("steps\n", 1)[1].splitlines()[1:3]}
    assert rows == {"f": ["3", "1"], "m": ["1", "0"]}, shown


def test_a_library_with_its_graph_is_deployed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "steps.cc").write_text(
        """
#include <metier/graph.h>
#include <metier/step.h>
METIER_STEP(scale, [](std::string_view body) { return "[" + std::string(body) + "]"; });
METIER_GRAPH([](metier::Graph& graph) {
  graph.set_topology("flow", "async");
  graph.to("storey.Filter", "late", {{"_fn", "(event['delay'] > 15)"}})
      .to(metier::handler("steps.so:scale"), "scale").input_path("delay").result_path("scaled")
      .respond();
});
"""
    )
    built = server.metier("build", "steps.cc", "-o", "steps.so", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    done = server.metier("deploy", "steps.so", "--kind", "serving", "--name", "cpp", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    url = done.stdout.strip().splitlines()[-1]
    assert json.loads(call(url, body={"delay": 20})[1]) == {"delay": 20, "scaled": [20]}
    assert call(url, body={"delay": 1})[1] == ""


PROGRAM = """
#include <metier/graph.h>
#include <metier/mock_server.h>
#include <cstdio>

void build(metier::Graph& graph) {
  graph.set_topology("flow", "async");
  graph.to("storey.Filter", "late", {{"_fn", "(event['delay'] > 15)"}})
      .to(metier::handler("(1 / event['by'])"), "divide")
      .result_path("part")
      .error_handler(metier::handler("({'failed': event})"), "caught", {"out"});
  graph.add_step(metier::handler("([event])"), "out", {"divide"}).respond();
}

int main() {
  metier::Graph graph;
  build(graph);
  metier::MockServer server(graph);
  for (const char* body : {R"({"delay": 20, "by": 4})", R"({"delay": 20, "by": 0})", R"({"delay": 1})", R"({})", "no json"}) {
    const metier::Answer answer = server.test("/", body, "", "application/json");
    std::printf("%d %d %s\\n", answer.status, answer.failed, answer.body.c_str());
  }
  metier::Graph python;
  python.to("Mine", "mine");
  try {
    metier::MockServer refused(python);
  } catch (const std::invalid_argument& error) { std::printf("%s\\n", error.what()); }
}
"""


def test_a_program_tests_its_graph_in_its_own_process(server: Server, tmp_path: Path) -> None:
    (tmp_path / "check.cc").write_text(PROGRAM)
    built = server.metier("build", "--program", "check.cc", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(tmp_path / "check")], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[:4] == [
        '200 0 [{"delay": 20, "by": 4, "part": 0.25}]',
        '200 0 [{"failed": {"delay": 20, "by": 0}}]',
        "200 0 ",
        "400 1 KeyError: 'delay'",
    ]
    broken, refused = done.stdout.splitlines()[4:]
    assert broken.startswith("400 1 failed to json decode event")
    assert "step 'mine' runs in Python" in refused


def test_the_program_of_the_how_to_runs(server: Server, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "serving.md").read_text(encoding="utf-8")
    steps, program = (block.split("```")[0] for block in page.split("```cpp\n")[1:3])
    (tmp_path / "steps.cc").write_text(steps)
    (tmp_path / "graph_test.cc").write_text(program)
    for words in (["steps.cc"], ["--program", "graph_test.cc"]):
        built = server.metier("build", *words, cwd=tmp_path)
        assert built.returncode == 0, built.stderr
    subprocess.run([str(tmp_path / "graph_test")], cwd=tmp_path, check=True)
    (tmp_path / "graph_test.cc").write_text(program.replace("MockServer", "NoServer"))
    broken = server.metier("build", "--program", "graph_test.cc", cwd=tmp_path)
    assert broken.returncode != 0 and "graph_test.cc does not compile" in broken.stderr
