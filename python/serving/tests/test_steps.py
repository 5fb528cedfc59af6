"""Steps by storey's names, remote calls, windows, drawings."""

from __future__ import annotations

import http.server
import json
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from metier_serving import Flow, GraphError, RouterStep
from metier_serving.steps import MapClass


class Odd(MapClass):
    def do(self, body: Any) -> Any:
        if body % 2 == 0:
            self.filter()
        return body * 10


def running(body: Any, state: Any) -> Any:
    return body + state, body + state


def chain(*steps: Any) -> tuple[Flow, list[Any]]:
    """An async flow of (class name, arguments), and what comes out of it."""
    got: list[Any] = []
    graph = Flow(engine="async")
    at: Any = graph
    for index, (name, args) in enumerate(steps):
        at = at.to(name, f"s{index}", **args)
    at.to(name="out", handler="got")
    return graph, got


def through(serve: Any, bodies: list[Any], *steps: Any, finish: bool = True, **events: Any) -> list[Any]:
    graph, got = chain(*steps)
    server = serve(graph, {"got": got.append, "Odd": Odd, "running": running})
    for body in bodies:
        server.test(body=body, **events)
    if finish:
        server.wait_for_completion()
    return got


@pytest.mark.parametrize(
    "steps, bodies, expected",
    [
        ([("storey.Map", {"_fn": "(event + 1)"})], [1, 2], [2, 3]),
        ([("storey.Filter", {"_fn": "(event > 1)"})], [1, 2, 3], [2, 3]),
        ([("storey.FlatMap", {"_fn": "([event, event])"})], [1, 2], [1, 1, 2, 2]),
        ([("storey.Flatten", {})], [[1, 2], [], [3]], [1, 2, 3]),
        ([("storey.Extend", {"_fn": "({'y': event['x'] + 1})"})], [{"x": 1}], [{"x": 1, "y": 2}]),
        ([("storey.ForEach", {"_fn": "(event + 1)"})], [1], [1]),
        ([("Odd", {})], [1, 2, 3], [10, 30]),
        ([("storey.DropColumns", {"columns": ["a"]})], [{"a": 1, "b": 2}], [{"b": 2}]),
        ([("storey.Rename", {"mapping": {"a": "z"}})], [{"a": 1}], [{"z": 1}]),
        ([("storey.MapWithState", {"initial_state": 0, "_fn": "running"})], [1, 2, 3], [1, 3, 6]),
        ([("storey.Batch", {"max_events": 4})], list(range(10)), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]),
        ([("storey.Batch", {})], [1, 2], [[1, 2]]),
        ([("storey.SampleWindow", {"window_size": 3})], list(range(7)), [0, 3, 6]),
        ([("storey.SampleWindow", {"window_size": 3, "emit_period": "LAST"})], list(range(7)), [2, 5]),
        (
            [("storey.FlatMap", {"_fn": "(event)"}), ("storey.Batch", {"max_events": 2})],
            [[1, 2, 3], [4]],
            [[1, 2], [3, 4]],
        ),
        ([("storey.Partition", {"_predicate": "(event.body > 1)"})], [1, 2], [(None, 1), (2, None)]),
        ([("storey.ReifyMetadata", {"mapping": {"path": "p"}})], [{}, {"a": 1}], [{"p": "/"}, {"a": 1, "p": "/"}]),
    ],
)
def test_steps(serve: Any, steps: Any, bodies: Any, expected: Any) -> None:
    assert through(serve, bodies, *steps) == expected


def test_batches_by_key_and_by_time(serve: Any) -> None:
    bodies = [{"k": 1, "v": 0}, {"k": 2, "v": 1}, {"k": 1, "v": 2}]
    got = through(serve, bodies, ("storey.Batch", {"max_events": 2, "key_field": "k"}))
    assert got == [[bodies[0], bodies[2]], [bodies[1]]]
    graph, got = chain(("storey.Batch", {"max_events": 100, "flush_after_seconds": 0.01}))
    server = serve(graph, {"got": got.append})
    server.test(body=1)
    end = time.monotonic() + 5
    while not got:
        assert time.monotonic() < end
        time.sleep(0.001)
    assert got == [[1]]
    with pytest.raises(GraphError, match="max_events=0 must be 1 or more"):
        through(serve, [], ("storey.Batch", {"max_events": 0}))


def test_choice(serve: Any) -> None:
    got: list[Any] = []
    graph = Flow(engine="async")
    graph.to("storey.Choice", "c", choices=[["big", "(event > 10)"], ["even", "(event % 2 == 0)"]], default="rest")
    for name in ("big", "even", "rest"):
        graph.add_step(name=name, handler=name, after="c")
    spaces = {name: (lambda body, name=name: got.append((name, body))) for name in ("big", "even", "rest")}
    server = serve(graph, spaces)
    for body in (12, 2, 3):
        server.test(body=body)
    assert got == [("big", 12), ("even", 2), ("rest", 3)]


def test_outlets_of_a_class(serve: Any) -> None:
    class Where:
        def do(self, body: Any) -> Any:
            return body

        def select_outlets(self, body: Any) -> Any:
            return body["to"]

    got: list[Any] = []
    graph = Flow(engine="async")
    graph.to("Where", "w")
    for name in ("a", "b"):
        graph.add_step(name=name, handler=name, after="w")
    server = serve(graph, {"Where": Where, "a": lambda x: got.append("a"), "b": lambda x: got.append("b")})
    server.test(body={"to": ["b", "a"]})
    server.test(body={"to": []})
    assert got == ["b", "a"]
    assert set(server.test(body={"to": ["a"]}, event_id="i")) == {"id"}
    graph["a"].respond()
    answer = serve(graph, {"Where": Where, "a": lambda x: x, "b": lambda x: x}).test(body={"to": ["zz"]}, silent=True)
    assert (
        answer.status_code == 400
        and "step 'w' selected the outlet 'zz', which is not one of the steps after it" in answer.body
    )


def test_reduce_is_the_flows_result(serve: Any) -> None:
    graph = Flow(engine="async")
    graph.to("storey.Reduce", "r", initial_value=0, _fn="add")
    server = serve(graph, {"add": lambda so_far, body: so_far + body})
    for body in range(11):
        server.test(body=body)
    assert server.wait_for_completion() == 55


def test_windows(serve: Any) -> None:
    aggregates = [
        {
            "name": "n",
            "column": "v",
            "operations": ["count", "sum", "avg", "max", "min", "last"],
            "windows": ["1m", "2m"],
            "period": "30s",
        }
    ]
    graph, got = chain(("storey.AggregateByKey", {"aggregates": aggregates, "key_field": "k", "time_field": "t"}))
    server = serve(graph, {"got": got.append})
    for second, key, value in ((0, "a", 1), (10, "a", 2), (40, "a", 3), (45, "b", 9), (95, "a", 4), (200, "a", 5)):
        server.test(body={"k": key, "v": value, "t": second})
    rows = [(g["n_count_1m"], g["n_sum_1m"], g["n_count_2m"], g["n_sum_2m"], g["n_last_2m"]) for g in got]
    assert rows == [
        (1, 1.0, 1, 1.0, 1.0),
        (2, 3.0, 2, 3.0, 2.0),
        (3, 6.0, 3, 6.0, 3.0),
        (1, 9.0, 1, 9.0, 9.0),
        (1, 4.0, 4, 10.0, 4.0),
        (1, 5.0, 2, 9.0, 5.0),
    ]
    assert got[2]["n_avg_1m"] == 2.0 and got[2]["n_max_1m"] == 3.0 and got[2]["n_min_2m"] == 1.0
    for wrong, text in (
        ({"windows": ["1x"]}, "is no window"),
        ({"operations": ["mode"]}, "operation 'mode' is unknown"),
        ({"period": "7s"}, "does not divide"),
    ):
        with pytest.raises(GraphError, match=text):
            serve(chain(("storey.AggregateByKey", {"aggregates": [{**aggregates[0], **wrong}]}))[0], {"got": print})


def test_a_million_events_leave_nothing(serve: Any) -> None:
    import resource

    graph = Flow(engine="async")
    graph.to("storey.Batch", "b", max_events=8).to(name="o", handler="(event)")
    server = serve(graph, {})
    test = server.test
    for value in range(50_000):
        test("/", value)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for value in range(300_000):
        test("/", value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024


# --- remote ------------------------------------------------------------------------------------------------------


class Target(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    failures = 0
    seen: list[Any] = []

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        type(self).seen.append((self.command, self.path, dict(self.headers), body))
        if self.path == "/slow":
            time.sleep(0.5)
        status = 200
        if type(self).failures > 0:
            type(self).failures -= 1
            status = 503
        if self.path == "/bad":
            status = 404
        answer = json.dumps({"got": json.loads(body) if body else None, "path": self.path}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def target() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Target)
    Target.failures, Target.seen = 0, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def remote(serve: Any, **args: Any) -> Any:
    graph = Flow(engine="sync")
    graph.to("$remote", "r", **args)
    return serve(graph, {})


def test_remote_step(serve: Any, target: str) -> None:
    server = remote(serve, url=target, subpath="$path", headers={"X": "1"})
    assert server.test("/a/b", {"x": 1}, event_id="e") == {"got": {"x": 1}, "path": "/a/b"}
    _, _, headers, _ = Target.seen[-1]
    assert (headers["X"], headers["MLRUN-EVENT-ID"], headers["MLRUN-EVENT-PATH"]) == ("1", "e", "/a/b")
    assert server.test("/g", method="GET")["path"] == "/g"
    server = remote(serve, url=target, url_expression="endpoint + '/' + event['to']", body_expression="event['x']")
    assert server.test(body={"to": "z", "x": [1]}) == {"got": [1], "path": "/z"}
    server = remote(serve, url=target, input_path="in", result_path="out")
    assert server.test(body={"in": 5})["out"]["got"] == 5


def test_remote_failures(serve: Any, target: str) -> None:
    Target.failures = 2
    assert remote(serve, url=target, retries=3, backoff_factor=0.001).test(body=1)["got"] == 1
    answer = remote(serve, url=target, subpath="bad").test(body=1, silent=True)
    assert answer.status_code == 400 and "bad http response 404" in answer.body and len(Target.seen) == 4
    answer = remote(serve, url=target, subpath="slow", retries=0, timeout=0.05).test(body=1, silent=True)
    assert "no answer within 0.05 s" in answer.body
    server = remote(serve, url="http://127.0.0.1:9", retries=0, failures=2, pause=60)
    for _ in range(2):
        assert "failed to invoke" in server.test(body=1, silent=True).body
    said = server.test(body=1, silent=True).body
    assert "failed 2 times in a row" in said and "refused" in said and "calls are paused for 60 s" in said


def test_after_its_pause_one_call_of_a_remote_step_tries(
    serve: Any, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("metier_serving.remote.time", types.SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    server = remote(serve, url=target, retries=0, failures=2, pause=5)
    Target.failures = 3
    for _ in range(2):
        assert "bad http response 503" in server.test(body=1, silent=True).body
    assert "the last time with status 503: calls are paused for 5 s" in server.test(body=1, silent=True).body
    assert len(Target.seen) == 2, "a paused call reached the target"
    now[0] += 5.1
    assert "bad http response 503" in server.test(body=1, silent=True).body, "one call is let through"
    assert "calls are paused" in server.test(body=1, silent=True).body, "its failure pauses the others again"
    assert len(Target.seen) == 3
    now[0] += 5.1
    assert [server.test(body=n)["got"] for n in (1, 2, 3)] == [1, 2, 3]
    Target.failures = 1
    assert "bad http response 503" in server.test(body=1, silent=True).body
    assert server.test(body=1)["got"] == 1, "one failure after a good call is the first of a row"


def test_batch_requests(serve: Any, target: str) -> None:
    graph = Flow(engine="sync")
    graph.to("mlrun.serving.BatchHttpRequests", "b", url=target, input_path="items", result_path="answers")
    answer = serve(graph, {}).test(body={"items": [1, 2, 3]})
    assert [a["got"] for a in answer["answers"]] == [1, 2, 3]
    assert "must be a list" in serve(graph, {}).test(body={"items": 1}, silent=True).body


# --- drawings ----------------------------------------------------------------------------------------------------


def test_plot(tmp_path: Path) -> None:
    graph = Flow(engine="async")
    graph.to("A", "first").to("*", "models").to(name="last", handler="x").respond()
    graph["models"].add_route("m<1>", class_name="M")
    graph.error_handler("oops", handler="y")
    drawn = graph.plot(str(tmp_path / "g.svg"))
    text = (tmp_path / "g.svg").read_text()
    for name in ("first", "models", "last", "oops", "m&lt;1&gt;"):
        assert name in text
    assert drawn._repr_svg_() == text and text.count("<path") >= 4
    import xml.etree.ElementTree

    xml.etree.ElementTree.fromstring(text)
    assert "<svg" in RouterStep("r", routes={"a": {"class_name": "M"}}).plot().svg


# --- native ------------------------------------------------------------------------------------------------------

STEPS = """
#include <metier/step.h>
#include <stdexcept>

METIER_STEP(wrap, [](std::string_view body) { return "[" + std::string(body) + ",1]"; });
METIER_STEP(fails, [](std::string_view body) -> std::string { throw std::runtime_error("no " + std::string(body)); });
"""


def test_native_steps_of_a_library(serve: Any, tmp_path: Path) -> None:
    import shutil
    import subprocess

    compiler = next((c for c in ("clang++-19", "g++", "clang++") if shutil.which(c)), None)
    if compiler is None:
        pytest.skip("no C++ compiler")
    (tmp_path / "steps.cc").write_text(STEPS)
    include = Path(__file__).resolve().parents[3] / "include"
    options = ["-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{include}"]
    library = tmp_path / "steps.so"
    subprocess.run([compiler, *options, str(tmp_path / "steps.cc"), "-o", str(library)], check=True)
    graph = Flow(engine="sync")
    graph.to(name="a", handler=f"{library}:wrap").to(name="b", handler=f"{library}:wrap")
    assert serve(graph, {}).test(body={"x": "ü"}) == [[{"x": "ü"}, 1], 1]
    graph = Flow(engine="sync")
    graph.to(name="f", handler=f"{library}:fails")
    assert serve(graph, {}).test(body=7, silent=True).body == "StepFailed: no 7"
    for handler, text in (
        (f"{library}:nope", "has no step 'nope'"),
        ("missing.so:x", "there is no library 'missing.so'"),
    ):
        graph = Flow(engine="sync")
        graph.to(name="f", handler=handler)
        with pytest.raises(GraphError, match=text):
            serve(graph, {})
    (tmp_path / "bad.so").write_text("no library")
    graph = Flow(engine="sync")
    graph.to(name="f", handler=f"{tmp_path}/bad.so:x")
    with pytest.raises(GraphError, match="cannot be loaded"):
        serve(graph, {})


def test_steps_of_storey_that_are_not_ours_are_refused_by_name(serve: Any) -> None:
    graph = Flow(engine="async")
    graph.to("storey.NoSqlTarget", "t", table="x")
    with pytest.raises(GraphError, match=r"step 't' has the class 'storey.NoSqlTarget', a step of storey"):
        serve(graph, {})
