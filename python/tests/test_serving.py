"""Functions of kind serving: the graph's methods, the document, the mock server."""

from __future__ import annotations

from typing import Any

import metier
import pytest
from metier.serving import GraphError, V2ModelServer


class Model(V2ModelServer):
    def load(self) -> None:
        self.model = float(self.get_param("k", 1))

    def predict(self, request: Any) -> Any:
        return [value * self.model for value in request["inputs"]]


class Add:
    def __init__(self, k: int = 1) -> None:
        self.k = k

    def do(self, body: Any) -> Any:
        return body + self.k


def serving() -> Any:
    return metier.new_function("graph", kind="serving", image="python", project="p")


def test_three_steps_in_the_mock_server() -> None:
    fn = serving()
    graph = fn.set_topology("flow", engine="sync")
    graph.to("Add", "a").to(Add, "b", k=2).to(name="c", handler="(event * 2)")
    assert fn.to_mock_server().test(body=1) == 8


def test_the_document_has_the_graph_and_gives_it_back() -> None:
    fn = serving()
    fn.set_topology("flow").to("Add", "a", k=3).respond()
    document = fn.to_dict()
    step = {"kind": "task", "class_name": "Add", "class_args": {"k": 3}, "responder": True}
    assert document["spec"]["graph"] == {"engine": "async", "steps": {"a": step}}
    again = metier.Function.from_dict(document)
    assert again.spec.graph["a"].class_args == {"k": 3}
    assert again.to_mock_server().test(body=1) == 4
    again.spec.graph["a"].class_args["k"] = 5
    assert again.to_dict()["spec"]["graph"]["steps"]["a"]["class_args"] == {"k": 5}
    assert fn.copy().to_mock_server().test(body=1) == 4


def test_router_and_models() -> None:
    fn = serving()
    fn.add_model("m1", class_name="Model", model_path=".", k=2)
    fn.add_model("m1:v2", class_name=Model, model_path=".", k=3)
    server = fn.to_mock_server()
    assert server.test("/v2/models/m1/infer", {"inputs": [1]})["outputs"] == [2.0]
    assert server.test("/v2/models/m1/versions/v2/infer", {"inputs": [1]})["outputs"] == [3.0]
    assert server.test("/v2/models") == {"models": ["m1", "m1:v2"]}


def test_code_of_the_function_is_where_names_are_found(tmp_path: Any) -> None:
    code = tmp_path / "steps.py"
    code.write_text("def twice(x):\n    return x * 2\n")
    fn = metier.code_to_function("g", kind="serving", filename=str(code), image="python")
    fn.set_topology("flow", engine="sync").to(name="t", handler="twice")
    assert fn.to_mock_server().test(body=4) == 8


def test_wrong_use() -> None:
    fn = serving()
    with pytest.raises(GraphError, match="no models or steps were set"):
        fn.to_mock_server()
    fn.set_topology("flow")
    with pytest.raises(metier.InvalidError, match="topology is already set"):
        fn.set_topology("router")
    with pytest.raises(ValueError, match="does not contain any router"):
        fn.add_model("m", class_name="Model", model_path=".")
    with pytest.raises(metier.InvalidError, match="unsupported topology"):
        serving().set_topology("circle")
    with pytest.raises(metier.UnsupportedError, match="kind 'job' has no set_topology"):
        metier.new_function("j", kind="job", image="python").set_topology()
    with pytest.raises(ValueError, match="model_path or model_url must be provided"):
        serving().add_model("m", class_name="Model")


def test_the_readers_of_durable_queues_are_functions_of_their_own(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.py").write_text("def last(body):\n    return body\n")
    fn = metier.new_function("flow", kind="serving", image="python", project="p")
    fn.with_code(body="def parse(body):\n    return body\n").with_http(workers=3)
    graph = fn.set_topology("flow", engine="async")
    first = graph.to(name="parse", handler="parse").to(">>", "q", path="kafka://a:1,b:2/t")
    first.to(name="store", handler="parse", function="reader").to(
        ">>", "z", path="u", kafka_brokers="c:3", group="mine", trigger_args={"num_workers": 4, "sessionTimeout": "9s"}
    ).to(name="last", handler="last", function="end")
    graph["parse"].to(">>", "m", path="").to(name="near", handler="parse", function="near")
    fn.add_child_function("reader")
    with pytest.raises(metier.errors.InvalidError, match="function 'end' is used in steps and is not defined"):
        fn._children()
    fn.add_child_function("end", url="other.py", image="mlrun/mlrun", requirements=["numpy"])
    end, reader = fn._children()  # who reads stands before who writes
    assert [reader.metadata.name, end.metadata.name] == ["flow-reader", "flow-end"]
    assert reader.metadata.labels["mlrun/parent-function"] == "flow"
    assert reader.get_env("SERVING_CURRENT_FUNCTION") == "reader" and end.get_env("SERVING_CURRENT_FUNCTION") == "end"
    assert reader.spec.graph.to_dict() == graph.to_dict()
    triggers = reader.to_dict()["spec"]["config"]
    assert list(triggers) == ["spec.triggers.kafka"]  # the parent's triggers are its own
    kafka = triggers["spec.triggers.kafka"]
    assert kafka["attributes"]["brokers"] == ["a:1", "b:2"] and kafka["attributes"]["topics"] == ["t"]
    assert kafka["attributes"]["consumerGroup"] == "flow-reader-consumer-group"
    assert kafka["explicitAckMode"] == "explicitOnly"
    kafka = end.to_dict()["spec"]["config"]["spec.triggers.kafka"]
    assert (kafka["numWorkers"], kafka["attributes"]["sessionTimeout"]) == (4, "9s")
    assert (kafka["attributes"]["consumerGroup"], kafka["attributes"]["topics"]) == ("mine", ["u"])
    assert "def last" in end._document.code().decode() and end.spec.image == "mlrun/mlrun"
    assert reader._children() == []


@pytest.mark.parametrize("path", ["v3io:///x", "http://h/x", "kafka://h:1", "topic"])
def test_a_queue_that_cannot_trigger_is_refused(path: str) -> None:
    fn = metier.new_function("flow", kind="serving", image="python")
    graph = fn.set_topology("flow", engine="async")
    graph.to(">>", "q", path=path).to(name="store", handler="parse", function="reader")
    fn.add_child_function("reader")
    with pytest.raises(metier.errors.InvalidError, match="cannot trigger a function here"):
        fn._children()


@pytest.mark.parametrize("field, value", [("streaming", True), ("api_handler_config", {"endpoints": {"x": 1}})])
def test_what_only_mlruns_engine_has_is_refused_by_name(field: str, value: Any) -> None:
    fn = metier.new_function("flow", kind="serving")
    setattr(fn.spec, field, value)
    fn.set_topology("flow").to(name="a", handler="(event)").respond()
    with pytest.raises(GraphError, match=field):
        fn.to_mock_server()
