"""docs/decisions/0021: one test for each quirk of MLRun's graphs, in the decision's order."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from metier_serving import Flow, GraphError, RouterStep, V2ModelServer


class Busy(Exception):
    error_status_code = 429


def boom(body: Any) -> Any:
    raise Busy("later") if body == "busy" else ValueError("wrong")


def answer(server: Any, body: Any, **more: Any) -> Any:
    return server.test("/", body, silent=True, get_body=False, **more)


def flow(handler: str, engine: str = "async", **step: Any) -> Flow:
    graph = Flow(engine=engine)
    task = graph.to(name="a", handler=handler, **step)
    if engine == "async":
        task.respond()
    return graph


def test_1_what_fails_is_400_unless_the_exception_says_otherwise(serve: Any) -> None:
    server = serve(flow("boom"), globals())
    assert answer(server, "x").status_code == 400
    assert answer(server, '"busy"').status_code == 429


@pytest.mark.parametrize("value, text", [({}, "{}"), ([], "[]"), (0, "0"), (False, "false"), ("", ""), (None, None)])
def test_2_falsy_bodies_are_json(serve: Any, value: Any, text: Any) -> None:
    said = answer(serve(flow("(event['v'])")), {"v": value})
    assert getattr(said, "body", said) == text


def test_3_respond_with_successors_answers_there(serve: Any) -> None:
    seen: list[Any] = []
    graph = Flow(engine="async")
    first = graph.to(name="a", handler="(event + 1)").respond()
    first.to(name="b", handler=seen.append)
    assert serve(graph).test(body=1) == 2
    assert seen == [2]


def test_4_a_terminal_error_handler_does_not_hold_successes(serve: Any) -> None:
    graph = Flow(engine="async")
    graph.to(name="a", handler="(1 / event)").error_handler("c", handler="('caught')")
    server = serve(graph)
    assert server.test(body=1, event_id="i") == {"id": "i"}
    assert server.test(body=0) == "caught"


def test_5_a_filtered_event_is_answered_with_nothing(serve: Any) -> None:
    graph = Flow(engine="async")
    graph.to("storey.Filter", "f", _fn="(event > 1)").to(name="a", handler="(event)").respond()
    assert serve(graph).test(body=1) is None


class Slow(V2ModelServer):
    def load(self) -> None:
        self.model = 1

    def predict(self, request: Any) -> Any:
        time.sleep(1.05)
        return request["inputs"]


def test_6_microsec_does_not_wrap(serve: Any) -> None:
    from metier_serving.streams import DummyStream
    from metier_serving.tracking import ModelLogPusher

    router = RouterStep("r")
    router.add_route("m", class_name=Slow, model_path="")
    server = serve(router, globals(), function_uri="p/f", track_models=True, parameters={"log_stream": "dummy://q6"})
    server.test("/v2/models/m/infer", {"inputs": [1]})
    ModelLogPusher.flush()
    assert DummyStream._shared["dummy://q6"].event_list[0]["microsec"] > 1_000_000


def parallel(**arguments: Any) -> RouterStep:
    router = RouterStep("r", class_name="mlrun.serving.ParallelRun", class_args=arguments)
    router.add_route("good", handler="({'g': 1})")
    router.add_route("bad", handler="boom")
    return router


@pytest.mark.parametrize("executor", ["array", "thread", "process"])
def test_7_a_failing_route_fails_the_request_by_name(serve: Any, executor: str) -> None:
    said = answer(serve(parallel(executor_type=executor), globals()), {"x": 1})
    assert said.status_code == 400 and "route 'bad' failed: ValueError: wrong" in said.body
    partial = serve(parallel(executor_type=executor, on_partial="skip"), globals()).test(body={"x": 1})
    assert partial == {"g": 1, "errors": {"bad": "ValueError: wrong"}}


def test_8_a_health_call_keeps_the_pool(serve: Any) -> None:
    server = serve(parallel(on_partial="skip"), globals())
    router = server._objects["r"]
    router._row = 1.0  # as slow routes: by threads
    server.test(body={"x": 1})
    pool = router._pool
    assert pool is not None
    server.test("/v2/health", method="GET")
    assert router._pool is pool


def test_9_weights_below_one_are_normalised(serve: Any) -> None:
    router = RouterStep(
        "r",
        class_name="mlrun.serving.VotingEnsemble",
        class_args={"vote_type": "regression", "weights": {"a": 0.2, "b": 0.2}},
    )
    router.add_route("a", handler="({'outputs': [1.0]})")
    router.add_route("b", handler="({'outputs': [3.0]})")
    assert serve(router).test("/v2/models/infer", {"inputs": [1]})["outputs"] == [2.0]


def test_10_merge_keeps_no_more_than_max_behind(serve: Any) -> None:
    graph = Flow(engine="async")
    graph.to(name="a", handler="(event)")
    graph.add_step("storey.Filter", "f", after="a", _fn="(False)")
    graph.add_step("mlrun.serving.Merge", "m", after=["a", "f"], max_behind=5)
    server = serve(graph)
    for _ in range(50):
        server.test(body=1)
    assert len(server._objects["m"]._kept) == 5 and server._objects["m"].dropped == 45


class Echo(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        data = json.dumps({"id": self.headers["MLRUN-EVENT-ID"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def test_11_headers_of_a_remote_step_are_each_events_own(serve: Any) -> None:
    web = HTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        headers = {"X-Mine": "1"}
        graph = Flow(engine="async")
        graph.to("$remote", "r", url=f"http://127.0.0.1:{web.server_port}", method="POST", headers=headers).respond()
        server = serve(graph)
        assert [server.test(body=1, event_id=name)["id"] for name in ("a", "b")] == ["a", "b"]
        assert headers == {"X-Mine": "1"}
    finally:
        web.shutdown()
        web.server_close()


def layers(depth: int, width: int) -> Flow:
    graph = Flow(engine="async")
    before: list[str] = []
    for level in range(depth):
        names = [f"s{level}_{index}" for index in range(width)]
        for name in names:
            graph.to(name=name, handler="(event)")
            graph[name].after_step(*before, append=False)
        before = names
    return graph


def test_12_loops_are_found_in_linear_time() -> None:
    layers(300, 3).check_and_process_graph()  # 3**300 ways


@pytest.mark.parametrize("engine", ["sync", "async"])
def test_13_the_errors_shape_is_each_engines_own(serve: Any, engine: str) -> None:
    seen: list[Any] = []

    def catch(event: Any) -> Any:
        seen.append((event.error, event.origin_state))
        event.body = "caught"
        return event

    graph = Flow(engine=engine)
    step = graph.to(name="a", handler="(1 / event)")
    step.error_handler("c", handler=catch, full_event=True)
    if engine == "async":
        step.respond()
    serve(graph).test(body=0)
    error, origin = seen[0]
    if engine == "sync":
        assert error == {"a": "division by zero"} and origin == "a"
    else:
        assert isinstance(error, ZeroDivisionError) and origin == "a"


def test_14_terminated_ends_async_flows_too(serve: Any) -> None:
    def stop(event: Any) -> Any:
        event.terminated, event.body = True, "stopped"
        return event

    graph = Flow(engine="async")
    graph.to(name="a", handler=stop, full_event=True).to(name="b", handler="('went on')").respond()
    assert serve(graph).test(body=1) == "stopped"


def test_15_remote_calls_verify_tls(serve: Any, tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    web = HTTPServer(("127.0.0.1", 0), Echo)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        graph = Flow(engine="async")
        url = f"https://127.0.0.1:{web.server_port}"
        graph.to("$remote", "r", url=url, method="POST", retries=0).respond()
        said = answer(serve(graph), {"x": 1})
        assert said.status_code == 400 and "CERTIFICATE_VERIFY_FAILED" in said.body
    finally:
        web.shutdown()
        web.server_close()


def test_16_expressions_have_no_builtins_of_server_or_processor(serve: Any) -> None:
    # What only Python can run stays in the worker: the engine in C++ says so (src/serving/expression_test.cc).
    assert serve(flow("(sorted(event)[0])")).test(body=[3, 1]) == 1


def test_17_a_root_flows_document_has_no_kind() -> None:
    assert "kind" not in flow("(event)").to_dict()


def test_18_callers_before_a_full_batch_get_an_empty_answer(serve: Any) -> None:
    graph = Flow(engine="async")
    graph.to("storey.Batch", "b", max_events=2).to(name="a", handler="(event)").respond()
    server = serve(graph)
    assert [server.test(body=1), server.test(body=2)] == [None, [1, 2]]


def test_19_steps_of_another_function_need_a_queue(serve: Any) -> None:
    graph = Flow(engine="sync")
    graph.to(name="a", handler="(event)").to(name="b", handler="(event)", function="other").to(
        name="c", handler="(event)", function="third"
    )
    with pytest.raises(GraphError, match="put a queue between them|belongs to function"):
        serve(graph, current_function="")


def test_20_the_first_branch_answers_and_bodies_are_apart(serve: Any) -> None:
    seen: list[Any] = []

    def changes(body: Any) -> Any:
        body["n"].append(1)
        return body

    graph = Flow(engine="async")
    graph.to(name="s", handler="(event)")
    graph.add_step(name="a", handler=changes, after="s").respond()
    graph.add_step(name="b", handler=seen.append, after="s")
    assert serve(graph).test(body={"n": []}) == {"n": [1]}
    assert seen == [{"n": []}]


def test_events_that_await_are_in_flight_together(serve: Any) -> None:
    at_once: list[int] = []
    running = [0]

    async def waits(body: Any) -> Any:
        running[0] += 1
        at_once.append(running[0])
        await asyncio.sleep(0.05)
        running[0] -= 1
        return body

    graph = Flow(engine="async")
    graph.to(name="a", handler=waits).respond()
    server = serve(graph)
    callers = [threading.Thread(target=server.test, kwargs={"body": 1}) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert max(at_once) > 1


def test_the_first_callers_may_come_together(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from metier_serving import loop

    class Slow(loop._Loop):  # while it is made, others come
        def __init__(self) -> None:
            time.sleep(0.1)
            super().__init__()

    monkeypatch.setattr(loop, "_Loop", Slow)

    async def waits(body: Any) -> Any:
        await asyncio.sleep(0.01)
        return body

    graph = Flow(engine="async")
    graph.to(name="a", handler=waits).respond()
    server = serve(graph)
    answers: list[Any] = []
    callers = [threading.Thread(target=lambda i=i: answers.append(server.test(body=i))) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(answers) == list(range(8))


def test_routes_run_in_threads_where_that_is_faster() -> None:
    from metier_serving.routers import ParallelRun

    router = ParallelRun(name="r", routes={"a": None, "b": None})
    router._row, router._threads = 90e-6, 0.0
    assert router._in_a_row()  # less than a hand-over
    router._row = 0.02
    assert not router._in_a_row()  # nothing is known of threads yet
    router._threads = 0.021
    chosen = [router._in_a_row() for _ in range(64)]
    assert chosen.count(False) == 1  # they hold the interpreter's lock; now and then it is tried
    router._threads = 0.01
    chosen = [router._in_a_row() for _ in range(64)]
    assert chosen.count(True) == 1
