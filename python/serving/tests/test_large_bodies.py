"""Bodies of which steps see little: the rest is neither read nor written anew."""

from __future__ import annotations

import json
from typing import Any

import pytest
from metier_serving import Flow

ROWS = [[i * 0.37 + j for i in range(20)] for j in range(20)]
LARGE = {"data": ROWS, "x": {"y": 1, "z": {"deep": [1, 2]}}, "text": "é"}


def add(body: Any) -> Any:
    return body + 1


def add_to(body: Any) -> Any:
    body.append("seen")
    return body


def whole(event: Any) -> Any:
    event.body = {"keys": sorted(event.body), "z": event.body.get("r"), "rows": len(event.body["data"])}
    return event


def catch(event: Any) -> Any:
    event.body = [str(event.error), len(event.body["data"])]
    return event


def shown(event: Any) -> Any:
    event.body = repr(event)
    return event


def boom(body: Any) -> Any:
    raise ValueError("no")


def make(serve: Any, *steps: dict[str, Any], engine: str = "sync") -> Any:
    graph = Flow(engine=engine)
    at: Any = graph
    for index, step in enumerate(steps):
        at = at.to(name=f"s{index}", **step)
    if engine == "async":
        at.respond()
    return serve(graph, globals())


@pytest.mark.parametrize("kind", [str, bytes])
@pytest.mark.parametrize("engine", ["sync", "async"])
def test_a_step_sees_what_input_path_names(serve: Any, engine: str, kind: type) -> None:
    text: Any = json.dumps(LARGE) if kind is str else json.dumps(LARGE, ensure_ascii=False).encode()
    server = make(serve, {"handler": "add", "input_path": "x.y"}, engine=engine)
    assert server.test(body=text) == 2
    assert make(serve, {"handler": "add_to", "input_path": "x.z.deep"}).test(body=text) == [1, 2, "seen"]
    assert make(serve, {"handler": "(event)", "input_path": "data"}).test(body=text) == ROWS
    assert make(serve, {"handler": "([event])", "input_path": "gone.far"}).test(body=text) == [None]
    answer = make(serve, {"handler": "([event])", "input_path": "text.far"}).test(
        body=text, silent=True, get_body=False
    )
    assert answer.status_code == 400 and answer.body.startswith("TypeError: string indices must be integers")


def test_what_no_step_sees_is_answered_as_it_came(serve: Any) -> None:
    text = json.dumps(LARGE)[:-1] + ', "number": 1.10, "big": 123456789012345678901234567890, "e":1E5}'
    server = make(serve, {"handler": "add", "input_path": "x.y", "result_path": "r"})
    answer = server.test(body=text, get_body=False)
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    assert answer.body == text.replace('"e":1E5}', '"e": 1E5, "r": 2}')
    assert server.test(body=text) == {**json.loads(text), "r": 2}  # as values to a caller that wants them
    over = make(serve, {"handler": "add", "input_path": "x.y", "result_path": "x"}).test(body=text, get_body=False)
    assert json.loads(over.body) == {**json.loads(text), "x": 2}


def test_later_steps_see_the_whole_body(serve: Any) -> None:
    first = {"handler": "add", "input_path": "x.y", "result_path": "r"}
    text = json.dumps(LARGE)
    assert make(serve, first, {"handler": "whole", "full_event": True}).test(body=text) == {
        "keys": ["data", "r", "text", "x"], "z": 2, "rows": 20,
    }  # fmt: skip
    assert make(serve, first, {"handler": "(event['r'] + len(event['data']))"}).test(body=text) == 22
    nested = make(serve, first, {"handler": "add", "input_path": "r", "result_path": "x.n"}).test(body=text)
    assert nested == {**LARGE, "r": 2, "x": {**LARGE["x"], "n": 3}}  # type: ignore[dict-item]


def test_branches_do_not_see_each_other(serve: Any) -> None:
    graph = Flow(engine="async")
    graph.to(name="s", handler="(event)", input_path="x.z.deep", result_path="r")
    graph.add_step(name="a", handler="add_to", after="s", input_path="r", result_path="a")
    graph.add_step(name="b", handler="add_to", after="s", input_path="r", result_path="b")
    graph.add_step("mlrun.serving.Merge", "j", after=["a", "b"])
    graph["j"].to(name="out", handler="([(body['r'], sorted(body)) for body in event])").respond()
    answer = serve(graph, globals()).test(body=json.dumps(LARGE))
    assert answer == [
        ([1, 2, "seen"], ["a", "data", "r", "text", "x"]),
        ([1, 2, "seen"], ["b", "data", "r", "text", "x"]),
    ]


@pytest.mark.parametrize("engine", ["sync", "async"])
def test_an_error_handler_has_the_body(serve: Any, engine: str) -> None:
    graph = Flow(engine=engine)
    graph.to(name="s", handler="boom", input_path="x.y").error_handler("catch", handler="catch", full_event=True)
    if engine == "async":
        graph["s"].respond()
    error, rows = serve(graph, globals()).test(body=json.dumps(LARGE))
    assert "no" in error and rows == 20


@pytest.mark.parametrize(
    "damage, error",
    [
        (lambda text: text[:-1], "failed to json decode event"),
        (lambda text: text + "]", "failed to json decode event"),
        (lambda text: text.replace("[", "[,", 1), "failed to json decode event"),
        (lambda text: text.replace('"text"', "text"), "failed to json decode event"),
        (lambda text: text.replace("0.37", "00.37", 1), "failed to json decode event"),
    ],
)
def test_what_is_no_json_is_refused(serve: Any, damage: Any, error: str) -> None:
    server = make(serve, {"handler": "add", "input_path": "x.y"})
    answer = server.test(body=damage(json.dumps(LARGE)), content_type="application/json", silent=True, get_body=False)
    assert answer.status_code == 400 and error in answer.body


def test_what_only_a_reader_of_values_knows_is_read_whole(serve: Any) -> None:
    server = make(serve, {"handler": "add", "input_path": "x.y"})
    text = json.dumps(LARGE)[:-1]
    assert server.test(body=text + ', "n": NaN}') == 2
    assert server.test(body=text + ', "s": "\\ud800"}') == 2
    assert server.test(body=text + ', "x": {"y": 5}}') == 6  # a key given twice has its last value
    wrapped = json.dumps({"full_event_wrapper": True, "body": LARGE, "id": "i"})
    assert server.test(body=wrapped) == 2


def test_a_number_that_python_does_not_take_is_an_error_where_it_is_asked_for(serve: Any) -> None:
    text = json.dumps(LARGE)[:-1] + ', "n": ' + "1" * 5000 + "}"
    first = {"handler": "add", "input_path": "x.y", "result_path": "r"}
    assert make(serve, {**first, "result_path": ""}).test(body=text) == 2
    answer = make(serve, first, {"handler": "shown", "full_event": True}).test(body=text, silent=True, get_body=False)
    assert answer.status_code == 400 and "ValueError" in answer.body
