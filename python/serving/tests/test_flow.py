"""Flows: both engines, paths, events, errors, answers."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from metier_serving import Event, Flow, GraphError, MockTrigger, Response, graph_from_dict

ENGINES = ["sync", "async"]


class Chain:
    def __init__(self, name: str = "", context: Any = None) -> None:
        self.name = name
        self.project = context.project

    def do(self, body: Any) -> Any:
        return [*body, self.name] if isinstance(body, list) else body


class Add:
    def __init__(self, k: int = 1) -> None:
        self.k = k

    def do(self, body: Any) -> Any:
        return body + self.k


class Place:
    def do_event(self, event: Any) -> Any:
        event.body = {"path": event.path, "method": event.method, "id": event.id}
        return event


def double(body: Any) -> Any:
    return body * 2


def with_context(body: Any, context: Any) -> Any:
    return [body, context.get_param("p"), context.current_function]


def boom(body: Any) -> Any:
    raise ValueError(f"cannot take {body}")


def catch(event: Any) -> Any:
    event.body = {"origin": event.origin_state, "error": str(event.error), "body": event.body}
    return event


def nothing(event: Any) -> None:
    return None


async def later(body: Any) -> Any:
    await asyncio.sleep(0.001)
    return body + 1


async def at_once(body: Any) -> Any:
    return body + 1


def flow(engine: str) -> Flow:
    return Flow(engine=engine)


def ended(graph: Flow, step: Any) -> Flow:
    if graph.engine == "async":
        step.respond()
    return graph


@pytest.mark.parametrize("engine", ENGINES)
def test_order_of_steps_added_before_and_after(serve: Any, engine: str) -> None:
    graph = flow(engine)
    graph.add_step(class_name="Chain", name="s1")
    graph.add_step(class_name="Chain", name="s3", after="$prev")
    graph.add_step(class_name="Chain", name="s2", after="s1", before="s3")
    server = serve(ended(graph, graph["s3"]), globals(), function_uri="proj/fn")
    assert server.test(body=[]) == ["s1", "s2", "s3"]
    assert server._objects["s1"].project == "proj"


@pytest.mark.parametrize("engine", ENGINES)
def test_expressions_context_arguments_and_import_paths(serve: Any, engine: str) -> None:
    graph = flow(engine)
    last = graph.to(name="add", handler="(event + 1)").to("Add", "k", k=4).to(name="ctx", handler="with_context")
    last = last.to(name="json", handler="json.dumps")
    server = serve(ended(graph, last), globals(), parameters={"p": 7})
    assert json.loads(server.test(body=5)) == [10, 7, "*"]


@pytest.mark.parametrize("engine", ENGINES)
def test_input_and_result_path(serve: Any, engine: str) -> None:
    graph = flow(engine)
    step = graph.to(name="d", handler="double", input_path="a.b", result_path="x.y")
    server = serve(ended(graph, step), globals())
    assert server.test(body={"a": {"b": 4}}) == {"a": {"b": 4}, "x": {"y": 8}}
    assert server.test(body={"a": {"b": 4}, "x": {"z": 1}})["x"] == {"z": 1, "y": 8}
    answer = server.test(body={"c": 1}, silent=True)  # a missing member is None
    assert answer.status_code == 400 and "NoneType" in answer.body


@pytest.mark.parametrize("engine", ENGINES)
def test_body_and_content_type(serve: Any, engine: str) -> None:
    graph = flow(engine)
    server = serve(ended(graph, graph.to(name="e", handler="(event)")), globals())
    for content_type in (None, "", "json", "application/json"):
        assert server.test(body='{"x": 5}', content_type=content_type) == {"x": 5}
        assert server.test(body=b"[1, 2.5, null, true]", content_type=content_type) == [1, 2.5, None, True]
    assert server.test(body='{"x": 5}', content_type="text/plain") == '{"x": 5}'
    assert server.test(body="no json") == "no json"
    assert server.test(body=b"\xff\xfe\x00") == b"\xff\xfe\x00"
    answer = server.test(body="{no", content_type="application/json", silent=True)
    assert answer.status_code == 400 and answer.body.startswith("failed to json decode event, Expecting property name")
    big = 123456789012345678901234567890
    assert server.test(body=str(big)) == big
    assert server.test(body='{"a": NaN}')["a"] != server.test(body='{"a": NaN}')["a"]


def test_default_content_type(serve: Any) -> None:
    graph = flow("sync")
    graph.to(name="e", handler="(event)")
    assert serve(graph, globals(), default_content_type="text/x").test(body="[1]") == "[1]"


@pytest.mark.parametrize("engine", ENGINES)
def test_answers_as_the_web_gets_them(serve: Any, engine: str) -> None:
    graph = flow(engine)
    server = serve(ended(graph, graph.to(name="e", handler="(event)")), globals())
    answer = server.test(body={"x": [1, 2.5, "ü", None, 1e-7]}, get_body=False)
    assert answer.body == json.dumps({"x": [1, 2.5, "ü", None, 1e-7]}) and answer.content_type == "application/json"
    assert server.test(body="text", get_body=False) == "text"
    for value in ({}, [], 0, False):  # MLRun gives these back raw, and its processor then fails on them
        answer = server.test(body=json.dumps(value), get_body=False)
        assert (answer.status_code, answer.body) == (200, json.dumps(value))
    assert server.test(body="null", get_body=False) is None


@pytest.mark.parametrize("engine", ENGINES)
def test_responses_of_steps_are_answers(serve: Any, engine: str) -> None:
    graph = flow(engine)
    server = serve(
        ended(graph, graph.to(name="r", handler="respond")),
        {
            "respond": lambda b, context: context.Response(
                headers={"x": "y"}, body=b"z", content_type="a/b", status_code=b
            )
        },
    )
    answer = server.test(body=201, get_body=False)
    assert (answer.status_code, answer.body, answer.headers) == (201, b"z", {"x": "y"})
    with pytest.raises(RuntimeError, match=r"failed \(418\)"):
        server.test(body=418)


@pytest.mark.parametrize("engine", ENGINES)
def test_step_error_handler(serve: Any, engine: str) -> None:
    graph = flow(engine)
    graph.to(name="a:b", handler="boom").error_handler("catcher", handler="catch", full_event=True, before="tail")
    graph.add_step(name="tail", handler="(dict(event, tail=1))", after="a:b")
    answer = serve(ended(graph, graph["tail"]), globals()).test(body=3)
    assert answer["tail"] == 1 and answer["body"] == 3
    # the shape of error and origin_state differs as MLRun's engines do
    expected = ("a_b", "{'a:b': 'cannot take 3'}") if engine == "sync" else ("a:b", "cannot take 3")
    assert (answer["origin"], answer["error"]) == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_terminal_error_handler_answers_and_success_is_not_held(serve: Any, engine: str) -> None:
    graph = flow(engine)
    graph.to(name="maybe", handler="(1 / event)").error_handler("catcher", handler="catch", full_event=True)
    server = serve(graph, globals())
    assert server.test(body=0)["origin"] == "maybe"
    answer = server.test(body=2, event_id="e1")
    assert answer == (0.5 if engine == "sync" else {"id": "e1"})


@pytest.mark.parametrize("engine", ENGINES)
def test_graph_error_handler(serve: Any, engine: str) -> None:
    graph = flow(engine)
    step = graph.to(name="a", handler="(event)").to(name="b", handler="boom")
    graph.error_handler("ge", handler="catch", full_event=True)
    assert serve(ended(graph, step), globals()).test(body=1)["origin"] == "b"


@pytest.mark.parametrize("engine", ENGINES)
def test_unhandled_errors_are_400_with_name_and_cause_and_go_to_the_error_stream(serve: Any, engine: str) -> None:
    graph = flow(engine)
    server = serve(ended(graph, graph.to(name="b", handler="boom")), globals(), error_stream="dummy://")
    answer = server.test(body=1, silent=True, event_id="x")
    assert (answer.status_code, answer.body, answer.content_type) == (400, "ValueError: cannot take 1", "text/plain")
    record = server.error_stream_object.event_list[0]
    assert record["message"] == "ValueError: cannot take 1" and record["event"] == {"id": "x", "body": 1}
    with pytest.raises(RuntimeError, match=r"failed \(400\): ValueError: cannot take 1"):
        server.test(body=1)
    assert server.test(body=1, silent=True).status_code == 400  # it goes on


@pytest.mark.parametrize("engine", ENGINES)
def test_full_events(serve: Any, engine: str) -> None:
    graph = flow(engine)
    server = serve(ended(graph, graph.to("Place", "p")), globals())
    assert server.test("/a/b", method="PUT", event_id="7") == {"path": "/a/b", "method": "PUT", "id": "7"}
    headers = {"MLRUN-EVENT-ID": "9", "MLRUN-EVENT-PATH": "/z"}
    assert server.test("/a", headers=headers)["id"] == "9"
    assert server.test("/a", headers=headers)["path"] == "/z"
    assert server.test()["method"] == "GET" and server.test(body=[1])["method"] == "POST"
    assert len({server.test()["id"] for _ in range(1000)}) == 1000


@pytest.mark.parametrize("engine", ENGINES)
def test_a_full_event_step_that_returns_nothing_is_said(serve: Any, engine: str) -> None:
    graph = flow(engine)
    server = serve(ended(graph, graph.to(name="n", handler="nothing", full_event=True)), globals())
    answer = server.test(body=1, silent=True)
    assert answer.status_code == 400
    assert "step 'n' returned nothing; it is given the whole event and must return it" in answer.body


def test_sync_terminated_stops(serve: Any) -> None:
    graph = flow("sync")
    graph.to(name="t", handler="stop", full_event=True).to(name="b", handler="boom")

    def stop(event: Any) -> Any:
        event.terminated, event.body = True, "stopped"
        return event

    assert serve(graph, {"stop": stop, "boom": boom}).test(body=1) == "stopped"


# --- async -------------------------------------------------------------------------------------------------------


def test_async_without_responder_answers_the_id(serve: Any) -> None:
    seen: list[Any] = []
    graph = flow("async")
    graph.to(name="s", handler="see")
    assert serve(graph, {"see": seen.append}).test(body=1, event_id="i") == {"id": "i"}
    assert seen == [1]


def test_respond_in_the_middle_answers_there_and_the_rest_goes_on(serve: Any) -> None:
    seen: list[Any] = []
    graph = flow("async")
    graph.to(name="d", handler="double").respond().to(name="s", handler="see")
    assert serve(graph, {"see": seen.append, "double": double}).test(body=2) == 4
    assert seen == [4]


def test_branches_do_not_see_each_others_changes(serve: Any) -> None:
    seen: list[Any] = []

    def change(body: Any) -> Any:
        body["list"].append(1)
        body["new"] = 1
        return body

    graph = flow("async")
    graph.to(name="s", handler="(event)")
    graph.add_step(name="a", handler="change", after="s").respond()
    graph.add_step(name="b", handler="see", after="s")
    assert serve(graph, {"change": change, "see": seen.append}).test(body={"list": []}) == {"list": [1], "new": 1}
    assert seen == [{"list": []}]


@pytest.mark.parametrize("handler", ["(event + 1)", "later", "at_once"])
def test_merge_gives_the_branches_in_their_order(serve: Any, handler: str) -> None:
    graph = flow("async")
    graph.to(name="s", handler="(event)")
    graph.add_step(name="a", handler=handler, after="s")
    graph.add_step(name="b", handler="double", after="s")
    graph.add_step(name="c", handler="later", after="s")
    graph.add_step("mlrun.serving.Merge", "m", after=["b", "a", "c"]).respond()
    server = serve(graph, globals())
    for value in range(20):
        assert server.test(body=value) == [value * 2, value + 1, value + 1]
    assert not server._objects["m"]._kept


def test_a_join_that_misses_a_branch_is_an_error(serve: Any) -> None:
    graph = flow("async")
    graph.to(name="s", handler="(event)")
    graph.add_step("storey.Filter", "a", after="s", _fn="(event > 10)")
    graph.add_step(name="b", handler="double", after="s")
    graph.add_step("mlrun.serving.Merge", "m", after=["a", "b"]).respond()
    server = serve(graph, globals())
    assert server.test(body=11) == [11, 22]
    answer = server.test(body=1, silent=True)
    assert answer.status_code == 500 and "'m' got 1 of 2 branches" in answer.body
    assert server.test(body=12) == [12, 24]


def test_merge_by_key_over_events_and_max_behind(serve: Any) -> None:
    got: list[Any] = []
    graph = flow("async")
    graph.add_step(name="a", handler="(event)")
    graph.add_step(name="b", handler="(event)", after="a")
    graph.add_step(
        "mlrun.serving.merger.Merge", "m", after=["b"], key_path="event.body['k']", expected_num_events=2, max_behind=3
    )
    graph.add_step(name="out", handler="got", after="m")
    from metier_serving import Merge

    server = serve(graph, {"got": got.append, "Merge": Merge}, error_stream="dummy://")
    for key in (1, 2, 1, 3, 4, 5, 6, 2):
        server.test(body={"k": key})
    assert got == [[{"k": 1}, {"k": 1}]]
    assert server._objects["m"].dropped == 3 and len(server._objects["m"]._kept) <= 3
    with pytest.raises(Exception, match="has no join key"):
        server._objects["m"].do_event(Event({}))


def test_filtered_events_are_answered_with_nothing(serve: Any) -> None:
    graph = flow("async")
    graph.to("storey.Filter", "f", _fn="(event['x'] > 1)").to(name="d", handler="(event['x'])").respond()
    server = serve(graph, globals())
    assert server.test(body={"x": 2}) == 2
    assert server.test(body={"x": 1}) is None


def test_coroutines_from_many_threads_are_in_flight_together(serve: Any) -> None:
    running, most = 0, 0

    async def slow(body: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return body + 1

    graph = flow("async")
    graph.to(name="a", handler="slow").to(name="b", handler="slow").to(name="c", handler="double").respond()
    server = serve(graph, {"slow": slow, "double": double})
    wrong: list[Any] = []

    def caller(n: int) -> None:
        wrong.extend(i for i in range(n, n + 5) if server.test(body=i) != (i + 2) * 2)

    threads = [threading.Thread(target=caller, args=(n * 10,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and most > 8


def test_coroutines_without_responder_end_in_the_background(serve: Any) -> None:
    done: list[Any] = []
    graph = flow("async")
    graph.to(name="l", handler="later").to(name="d", handler="done")
    server = serve(graph, {"later": later, "done": done.append})
    for i in range(50):
        assert set(server.test(body=i)) == {"id"}
    server.wait_for_completion()
    assert sorted(done) == list(range(1, 51))


def test_coroutine_errors_go_to_handlers(serve: Any) -> None:
    async def fails(body: Any) -> Any:
        await asyncio.sleep(0)
        raise KeyError(body)

    graph = flow("async")
    graph.to(name="f", handler="fails").error_handler("c", handler="catch", full_event=True)
    graph["f"].respond()
    assert serve(graph, {"fails": fails, "catch": catch}).test(body=1)["error"] == "1"
    plain = flow("async")
    plain.to(name="f", handler="fails").respond()
    assert serve(plain, {"fails": fails}).test(body=1, silent=True).body == "KeyError: 1"


def test_inside_a_running_loop(serve: Any) -> None:
    graph = flow("async")
    graph.to(name="a", handler="later").respond()
    server = serve(graph, globals())

    async def notebook() -> Any:
        return server.test(body=1)

    assert asyncio.run(notebook()) == 2


def test_tasks_timeouts_and_locks_of_asyncio_work_in_steps(serve: Any) -> None:
    lock = asyncio.Lock()

    async def uses(body: Any) -> Any:
        assert asyncio.current_task() is not None
        async with lock:
            return await asyncio.wait_for(asyncio.gather(later(body), at_once(body)), 1)

    graph = flow("async")
    graph.to(name="u", handler="uses").respond()
    assert serve(graph, {"uses": uses}).test(body=1) == [2, 2]


def test_a_graph_that_calls_itself(serve: Any) -> None:
    servers: list[Any] = []

    def again(body: Any) -> Any:
        return body if body >= 5 else servers[0].test(body=body + 1)

    graph = flow("async")
    graph.to(name="a", handler="again").respond()
    servers.append(serve(graph, {"again": again}))
    assert servers[0].test(body=1) == 5


# --- documents ---------------------------------------------------------------------------------------------------

DOCUMENTS: list[dict[str, Any]] = [
    {
        "engine": "async",
        "steps": {
            "clean": {"kind": "task", "class_name": "Clean", "class_args": {"lower": True}, "on_error": "catch"},
            "catch": {
                "kind": "error_step",
                "handler": "on_err",
                "full_event": True,
                "base_step": "clean",
                "before": ["out"],
            },
            "models": {
                "kind": "router",
                "class_name": "mlrun.serving.ParallelRun",
                "class_args": {"extend_event": True},
                "after": ["clean"],
                "input_path": "data",
                "result_path": "res",
                "routes": {
                    "m1": {"kind": "task", "class_name": "M", "class_args": {"model_path": "s3://b/m1"}},
                    "m2:v2": {"kind": "task", "handler": "fn2"},
                },
            },
            "out": {"kind": "task", "handler": "(event['res'])", "after": ["models"], "responder": True},
        },
    },
    {
        "steps": {
            "a": {"kind": "task", "class_name": "A"},
            "q": {"kind": "queue", "after": ["a"], "path": "kafka://h:9092/t", "shards": 2, "options": {"group": "cg"}},
            "b": {"kind": "task", "class_name": "B", "function": "child", "after": ["q"]},
            "future": {"kind": "model_runner", "somewhere": {"x": 1}, "after": ["b"], "allow": False},
        },
        "allow_cyclic": False,
        "model_endpoints_routes_names": ["b"],
    },
    {"kind": "router", "name": "r", "routes": {"m1": {"kind": "task", "class_name": "M", "endpoint_type": 3}}},
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_in_both_directions(document: dict[str, Any]) -> None:
    assert graph_from_dict(document).to_dict() == document


def test_built_graphs_have_mlruns_document() -> None:
    graph = Flow(engine="async")
    graph.to("Clean", "clean", lower=True).error_handler("catch", handler="on_err", full_event=True, before="out").to(
        "*mlrun.serving.ParallelRun", "models", extend_event=True, input_path="data", result_path="res"
    ).to(name="out", handler="(event['res'])").respond()
    graph["models"].add_route("m1", class_name="M", model_path="s3://b/m1")
    graph["models"].add_route("m2:v2", handler="fn2")
    document = graph.to_dict()
    assert document["steps"]["models"].pop("name") == "models"
    assert document == DOCUMENTS[0]


def test_queue_links_and_functions() -> None:
    graph = Flow()
    graph.to("A", "a").to(">>", "q", path="", shards=2).to("B", "b", function="child")
    assert graph.list_child_functions() == ["child"]
    assert {name: queue.name for name, queue in graph.get_queue_links().items()} == {"child": "q"}
    with pytest.raises(GraphError, match="must specify a function, because it follows a queue"):
        graph["q"].to("C", "c")


def test_parts_of_a_graph_by_function(serve: Any) -> None:
    graph = Flow(engine="async")
    graph.to(name="a", handler="(event + ['a'])").to(">>", "q", path="").to(
        name="b", handler="(event + ['b'])", function="f2"
    ).respond()
    assert serve(graph, {}).test(body=[]) == ["a", "b"]
    assert serve(graph, {}, current_function="f2").test(body=[]) == ["b"]
    assert serve(graph, {}, current_function="", mock=False).test(body=[]) == ["a", "b"]  # the edge is in memory
    with pytest.raises(GraphError, match=r"did not find steps pointing to current function \(f3\)"):
        serve(graph, {}, current_function="f3")


def test_queue_with_a_path_gets_wrapped_events(serve: Any) -> None:
    graph = Flow(engine="sync")
    graph.to(name="a", handler="(event + 1)").to(">>", "q", path="dummy://").to(
        name="b", handler="double", function="f"
    )
    server = serve(graph, globals(), current_function="", mock=False)
    assert server.test(body=1, event_id="e") is None
    record = json.loads(server._objects["q"].event_list[0])
    assert record == {"full_event_wrapper": True, "body": 2, "key": "", "id": "e"}


def test_a_wrapped_event_is_that_event(serve: Any) -> None:
    graph = Flow(engine="async")
    graph.to(name="b", handler="whole", full_event=True).respond()

    def whole(event: Any) -> Any:
        event.body = [event.body, event.key, event.id]
        return event

    server = serve(graph, {"whole": whole})
    wrapped = {"full_event_wrapper": True, "body": {"x": 1}, "key": "k", "id": "i"}
    assert server.test(body=wrapped) == [{"x": 1}, "k", "i"]
    assert server.test(body=json.dumps(wrapped)) == [{"x": 1}, "k", "i"]


# --- events of streams -------------------------------------------------------------------------------------------


class Platform:
    def __init__(self) -> None:
        self.acked: dict[int, int] = {}  # the last one of each partition

    async def explicit_ack(self, offset: Any) -> None:
        assert offset.topic == "t" and offset.offset > self.acked.get(offset.partition, -1)
        self.acked[offset.partition] = offset.offset


class Record:
    """What a worker gets of a Kafka trigger."""

    def __init__(self, offset: int, body: Any, shard: int = 0) -> None:
        self.offset, self.body, self.shard_id, self.topic, self.key = offset, json.dumps(body).encode(), shard, "t", ""
        self.trigger, self.path, self.headers, self.content_type, self.id = (
            MockTrigger("kafka-cluster"),
            "t",
            {},
            "",
            None,
        )
        self.method, self.timestamp = "", None


@pytest.fixture
def streamed(serve: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """streamed(graph, namespace): send(record) and the offsets that were acknowledged."""
    from metier_serving.worker import handle

    monkeypatch.setenv("METIER_GRAPH_ACKS", "explicit")

    def make(graph: Any, namespace: Any) -> Any:
        server = serve(graph, namespace)
        server.context.platform = Platform()
        return server, lambda *record: handle(server, Record(*record)), server.context.platform.acked

    return make


def test_a_streams_event_is_acknowledged_when_its_batch_has_ended(streamed: Any) -> None:
    graph = Flow(engine="async")
    graph.to("storey.Batch", "b", max_events=3).to(name="n", handler="note")
    seen: list[Any] = []
    server, send, acked = streamed(graph, {"note": seen.append})
    send(7, 1)
    send(8, 2)
    assert (seen, acked) == ([], {})
    send(9, 3)
    assert (seen, acked) == ([[1, 2, 3]], {0: 9})
    send(10, 4)
    server.flush()  # partitions move elsewhere
    assert (seen, acked) == ([[1, 2, 3], [4]], {0: 10})


def test_batches_of_batches_and_branches_hold_their_events(streamed: Any) -> None:
    graph = Flow(engine="async")
    graph.to(name="a", handler="(event)")
    graph.add_step("storey.Batch", "b", after="a", max_events=2)
    graph.add_step("storey.Batch", "bb", after="b", max_events=2)
    graph.add_step(name="n", handler="(event)", after="bb")
    graph.add_step("storey.FlatMap", "f", after="a", _fn="([event, event])")
    _, send, acked = streamed(graph, {})
    for offset in range(1, 8):
        send(offset, offset)
    assert acked == {0: 4}
    send(8, 8)
    assert acked == {0: 8}


def test_an_older_event_that_still_runs_holds_the_newer_ones(streamed: Any) -> None:
    graph = Flow(engine="async")
    graph.to("storey.Batch", "b", max_events=2, key_field="k").to(name="n", handler="(event)")
    _, send, acked = streamed(graph, {})
    send(1, {"k": "a"})
    send(2, {"k": "b"})
    send(3, {"k": "b"})
    assert acked == {}  # 2 and 3 have ended, 1 has not: an acknowledgement would be for all three
    send(0, {"k": "c"}, 1)
    send(1, {"k": "c"}, 1)
    assert acked == {1: 1}
    send(4, {"k": "a"})
    assert acked == {1: 1, 0: 4}


def test_what_is_delivered_again_counts_anew(streamed: Any) -> None:
    graph = Flow(engine="async")
    graph.to("storey.Batch", "b", max_events=2).to(name="n", handler="(event)")
    _, send, acked = streamed(graph, {})
    send(1, 1)
    send(1, 1)  # fills the batch with its first delivery
    assert acked == {0: 1}


def test_a_failed_event_of_a_stream_is_told_and_acknowledged(streamed: Any) -> None:
    graph = Flow(engine="async")
    graph.to(name="n", handler="(1 / event)")
    server, send, acked = streamed(graph, {})
    pushed: list[Any] = []
    server.error_stream_object = type("Errors", (), {"push": lambda _, record: pushed.append(record)})()
    send(1, 0)
    send(2, 1)
    assert acked == {0: 2}
    assert "division by zero" in str(pushed[0])


def test_a_join_and_a_target_hold_what_they_keep(streamed: Any, tmp_path: Any) -> None:
    graph = Flow(engine="async")
    graph.to(name="a", handler="(event)")
    graph.add_step(name="x", handler="(event)", after="a")
    graph.add_step(name="y", handler="(event)", after="a")
    graph.add_step(
        "mlrun.serving.merger.Merge", "m", after=["x", "y"], key_path="event.body['k']", expected_num_events=4
    )
    graph.add_step("storey.CSVTarget", "c", after="a", path=str(tmp_path / "rows.csv"), max_events=3)
    server, send, acked = streamed(graph, {})
    send(1, {"k": 1})
    send(2, {"k": 1})
    assert acked == {}  # joined, but the rows are not written
    send(3, {"k": 2})
    assert acked == {0: 2}  # written, but 3 waits for its join
    send(4, {"k": 2})
    server.flush()
    assert acked == {0: 4}
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 4


def test_coroutines_of_a_stream_are_in_flight_together(streamed: Any) -> None:
    gates: dict[int, asyncio.Event] = {}

    async def waits(body: int) -> int:
        gates[body] = asyncio.Event()
        await gates[body].wait()
        return body

    graph = Flow(engine="async")
    graph.to(name="w", handler="waits").to(name="n", handler="(event)")
    _, send, acked = streamed(graph, {"waits": waits})

    async def scenario() -> None:
        for offset in (1, 2, 3):
            await send(offset, offset)
        assert set(gates) == {1, 2, 3}
        gates[2].set()
        gates[3].set()
        await asyncio.sleep(0.01)
        assert acked == {}
        gates[1].set()
        await asyncio.sleep(0.01)
        assert acked == {0: 3}

    asyncio.run(scenario())


def test_without_explicit_acks_the_handler_ends_with_the_event(streamed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []

    async def waits(body: int) -> int:
        await asyncio.sleep(0.01)
        ended.append(body)
        return 1 // (body - 2)

    graph = Flow(engine="async")
    graph.to(name="w", handler="waits").to(name="n", handler="(1 / event)")
    _, send, acked = streamed(graph, {"waits": waits})
    monkeypatch.delenv("METIER_GRAPH_ACKS")
    asyncio.run(send(1, 3))
    assert (ended, acked) == ([3], {})
    with pytest.raises(ZeroDivisionError):  # so that onFailure of the trigger can decide
        asyncio.run(send(1, 2))


def test_a_module_with_a_handler_of_its_own_stays_as_it_is() -> None:
    from metier_serving.worker import attach

    own = {"handler": lambda context, event: "mine", "init_context": lambda context: None}
    namespace = dict(own)
    attach(namespace)
    assert namespace == own
    attach(other := {"handler": own["handler"]})
    assert other["handler"] is not own["handler"]  # without its init_context the graph is served


# --- set_flow, wrong use -----------------------------------------------------------------------------------------


def test_set_flow(serve: Any) -> None:
    graph = flow("async")
    graph.set_flow([Add, {"handler": "json.dumps", "name": "j"}]).respond()
    assert serve(graph, globals()).test(body=14) == "15"
    with pytest.raises(GraphError, match="force=True"):
        graph.set_flow([Add])
    assert graph.set_flow([Add], force=True).name == "Add"


def cycle() -> Flow:
    graph = flow("async")
    first = graph.to(name="a", handler="double")
    first.to(name="b", handler="double")
    first.after_step("b")
    return graph


def upstream_handler() -> Flow:
    graph = flow("async")
    graph.to(name="a", handler="double").to(name="b", handler="boom").error_handler("c", handler="catch", before="a")
    return graph


def two_answers() -> Flow:
    graph = flow("async")
    graph.to(name="a", handler="double").respond()
    graph.add_step(name="b", handler="double", after="a").respond()
    return graph


def branch_in_sync() -> Flow:
    graph = flow("sync")
    graph.to(name="a", handler="double")
    graph.add_step(name="b", handler="double", after="a")
    graph.add_step(name="c", handler="double", after="a")
    return graph


def lost_border() -> Flow:
    graph = flow("async")
    graph.to(name="a", handler="double").to(name="b", handler="double", function="other")
    return graph


@pytest.mark.parametrize(
    "make, text",
    [
        (cycle, r"loop detected, the graph must be acyclic \(DAG\): .*a -> b -> a|.*b -> a -> b"),
        (upstream_handler, "loop detected"),
        (two_answers, r"more than one responder steps in the graph \(a,b\)"),
        (branch_in_sync, "step 'a': synchronous flow engine doesnt support branches"),
        (lambda: Flow(), "the graph has no steps"),
        (lambda: Flow(steps={"a": {"kind": "task"}}), "step 'a': it has neither class_name nor handler"),
        (lambda: Flow(steps={"a": {"handler": "double", "after": ["z"]}}), "after names 'z', and there is no step"),
        (lambda: Flow(steps={"a": {"handler": "double", "on_error": "z"}}), "on_error names 'z'"),
        (lambda: Flow(steps={"a": {"kind": "wat"}}), "kind 'wat' is unknown"),
        (lambda: Flow(steps={"a": {"kind": "model_runner"}}), "kind 'model_runner', which metier's engine lacks"),
        (lambda: Flow(steps={"r": {"kind": "router"}}), "the router has no routes"),
        (lambda: Flow(steps={"a": {"class_name": "no.such.Class"}}), "step 'a': class 'no.such.Class' was not found"),
        (lambda: Flow(steps={"a": {"handler": "missing"}}), "step 'a': function 'missing' was not found"),
        (lambda: Flow(steps={"a": {"handler": "(event +)"}}), "is no Python"),
        (lambda: Flow(steps={"a": {"handler": "double", "timeout": "soon"}}), "timeout='soon' must be a number"),
    ],
)
def test_wrong_graphs_are_refused_by_step(serve: Any, make: Any, text: str) -> None:
    with pytest.raises(GraphError, match=text):
        serve(make(), globals())


def test_border_without_queue(serve: Any) -> None:
    with pytest.raises(GraphError, match="step 'b': it belongs to function 'other' and follows step 'a' directly"):
        serve(lost_border(), globals(), current_function="")


def test_a_layered_graph_is_checked_in_no_time(serve: Any) -> None:
    graph = flow("async")
    before: list[str] = []
    for layer in range(40):
        names = [f"l{layer}n{i}" for i in range(3)]
        for name in names:
            graph.add_step(name=name, handler="double", after=before or None)
        before = names
    serve(graph, globals())  # MLRun's check would take 3^40 steps


def test_constructor_that_does_not_take_its_arguments(serve: Any) -> None:
    graph = flow("sync")
    graph.to("Add", "a", nope=1)
    with pytest.raises(TypeError, match=r"failed to init step a: .*nope"):
        serve(graph, globals())


def test_limits(serve: Any) -> None:
    calls: list[int] = []

    def flaky(body: Any) -> Any:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("again")
        return body

    graph = flow("sync")
    step = graph.to(name="f", handler="flaky")
    step.retries, step.backoff = 2, 0.001
    assert serve(graph, {"flaky": flaky}).test(body=1) == 1 and len(calls) == 3

    never = threading.Event()
    graph = flow("async")
    step = graph.to(name="w", handler="wait").respond()
    step.timeout = 0.02
    answer = serve(graph, {"wait": lambda body: never.wait(5)}).test(body=1, silent=True)
    never.set()
    assert answer.status_code == 504 and "step 'w' took longer than 0.02 s" in answer.body

    async def forever(body: Any) -> Any:
        await asyncio.Event().wait()

    graph = flow("async")
    graph.to(name="w", handler="forever").respond()
    graph["w"].timeout = 0.02
    assert serve(graph, {"forever": forever}).test(body=1, silent=True).status_code == 504
    del graph["w"]._fields["timeout"]
    server = serve(graph, {"forever": forever}, parameters={"request_timeout": 0.02})
    assert server.test(body=1, silent=True).status_code == 504  # the request's own deadline


def test_a_step_that_ends_as_its_time_ends_is_answered(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import concurrent.futures

    result = concurrent.futures.Future.result

    def late(future: Any, timeout: float | None = None) -> Any:
        if timeout != 7.25:
            return result(future, timeout)
        concurrent.futures.wait([future])
        raise concurrent.futures.TimeoutError

    def step(body: Any) -> Any:
        if body == "raise":
            raise TimeoutError("the database")
        return body

    monkeypatch.setattr(concurrent.futures.Future, "result", late)
    graph = flow("sync")
    graph.to(name="s", handler="step").timeout = 7.25
    server = serve(graph, {"step": step})
    assert server.test(body="answer") == "answer"
    answer = server.test(body="raise", silent=True)
    assert answer.status_code == 504 and answer.body == "TimeoutError: the database"


def test_too_many_calls_of_a_step_are_refused(serve: Any) -> None:
    gate, entered = threading.Event(), threading.Semaphore(0)

    def slow(body: Any) -> Any:
        entered.release()
        gate.wait(10)
        return body

    graph = flow("sync")
    step = graph.to(name="s", handler="slow")
    step.max_in_flight, step.max_queue = 1, 0
    server = serve(graph, {"slow": slow})
    first = threading.Thread(target=server.test, kwargs={"body": 1})
    first.start()
    entered.acquire()
    answer = server.test(body=2, silent=True)
    gate.set()
    first.join()
    assert answer.status_code == 503 and answer.headers == {"Retry-After": "1"}
    assert isinstance(answer, Response) and server.test(body=3) == 3


def test_json_text_is_that_of_json_dumps() -> None:
    from metier_serving import _engine

    values: list[Any] = [
        "plain",
        'quote" back\\ \n\r\t\b\f\x00\x1f\x7f',
        "ü € 𝄞 \ud800",
        {"a": [1, -2, 2**63 - 1, 2**70, 1.5, 1e16, 1e-5, 1e22, 123456.789, -0.0, True, None], "b": {}, "c": []},
        {1: "x"},
        (1, (2,)),
        [float("inf"), float("-inf")],
        {"deep": {"er": [[[]]]}},
    ]
    for value in values:
        assert _engine.dumps(value) == json.dumps(value)
        if "\\ud800" not in json.dumps(value):
            assert _engine.loads(json.dumps(value)) == json.loads(json.dumps(value))
    deep: Any = []
    for _ in range(500):
        deep = [deep]
    assert _engine.loads(json.dumps(deep)) == deep and _engine.dumps(deep) == json.dumps(deep)
    with pytest.raises(TypeError, match="not JSON serializable"):
        _engine.dumps({"x": object()})


def test_nothing_is_left_of_failed_requests(serve: Any) -> None:
    import gc
    import weakref

    class Kept:
        pass

    def fails(event: Any) -> Any:
        event.body = Kept()
        seen.append(weakref.ref(event.body))
        raise ValueError("no")

    seen: list[Any] = []
    for engine in ENGINES:
        graph = flow(engine)
        ended(graph, graph.to(name="f", handler="fails", full_event=True))
        server = serve(graph, {"fails": fails})
        for _ in range(10):
            assert server.test(body=1, silent=True).status_code == 400
    gc.collect()
    assert [ref for ref in seen if ref() is not None] == []


SMOKE = """
import asyncio, sys
from metier_serving import Flow, create_graph_server

async def waits(body):
    await asyncio.sleep(0.001)
    return body + 1

graph = Flow(engine="async")
graph.to(name="a", handler="(event * 2)").to(name="w", handler="waits").to(name="e", handler="(1 / event)").error_handler(
    "c", handler="caught", full_event=True
).respond()

def caught(event):
    event.body = str(event.error)
    return event

server = create_graph_server(graph=graph, current_function="*")
server.init_states(None, globals(), is_mock=True)
server.init_object(globals())
assert server.test(body='1.5') == 0.25, server.test(body='1.5')
assert server.test(body=-0.5) == "float division by zero", server.test(body=-0.5)
for _ in range(2000):
    server.test(body=1)
print(sys.version_info[:2])
"""


def interpreters() -> list[str]:
    import shutil

    found = [path for minor in range(9, 15) for path in [shutil.which(f"python3.{minor}")] if path]
    found += [str(path) for path in Path.home().glob(".pyenv/versions/3.*/bin/python3")]
    return sorted(set(found))


@pytest.mark.parametrize("interpreter", interpreters())
def test_one_extension_for_every_interpreter(interpreter: str) -> None:
    import subprocess

    import metier_serving

    probe = [interpreter, "-c", "import sys; print(sys.version_info[:2] >= (3, 9) and sys.implementation.name)"]
    if subprocess.run(probe, capture_output=True, text=True).stdout.strip() != "cpython":
        pytest.skip(f"{interpreter} is older than Python 3.9, or does not start")
    folder = str(Path(metier_serving.__file__).parent.parent)
    done = subprocess.run(
        [interpreter, "-c", SMOKE],
        env={"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


async def _short(body: Any) -> Any:
    import asyncio

    await asyncio.sleep(0.01)
    return body


@pytest.mark.parametrize("answers", [True, False])
def test_a_dropped_server_is_freed(serve: Any, answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import gc
    import time
    import weakref

    from metier_serving import create_graph_server, loop

    monkeypatch.setattr(loop, "_KEPT", 0.05)
    graph = Flow(engine="async")
    step = graph.to(name="a", handler="_short")
    if answers:
        step.respond()
    server = create_graph_server(graph=graph, current_function="*")
    server.init_states(None, globals(), is_mock=True)
    server.init_object(globals())
    server.test("/", body={"x": 1})
    server.wait_for_completion()
    gone = weakref.ref(server)
    driver = weakref.ref(server._driver)
    del server
    end = time.monotonic() + 10
    while (gone() is not None or driver() is not None) and time.monotonic() < end:
        gc.collect()
        time.sleep(0.02)
    assert gone() is None and driver() is None


def test_events_through_batch_merge_and_windows_leave_nothing(serve: Any) -> None:
    import os
    import resource

    graph = Flow(engine="async")
    aggregate = {"name": "n", "column": "x", "operations": ["sum"], "windows": ["10s"]}
    first = graph.to("storey.AggregateByKey", "w", aggregates=[aggregate], key_field="k", time_field="t", max_keys=100)
    first.to("storey.Rename", "l", mapping={"x": "y"})
    first.to("storey.DropColumns", "r", columns="x")
    graph.add_step("mlrun.serving.Merge", "j", after=["l", "r"])
    graph.add_step("storey.Batch", "b", after="j", max_events=100)
    server = serve(graph)

    def send(count: int) -> int:
        for index in range(count):
            server.test("/", body={"x": 1, "k": index % 1000, "t": index / 1000})
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = send(20_000)
    assert send(1_000_000 if os.environ.get("METIER_TEST_ALL") else 60_000) - before < 8_192  # KiB
