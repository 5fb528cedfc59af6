"""Routers, models, ensembles, tracking: MLRun's status matrix and answers."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from metier_serving import Flow, GraphError, MockTrigger, RouterStep, V2ModelServer
from metier_serving.tracking import ModelLogPusher


class Model(V2ModelServer):
    def load(self) -> None:
        self.model = self.get_param("multiplier", 2)

    def predict(self, request: Any) -> Any:
        if request["inputs"] == ["boom"]:
            raise ValueError("no such input")
        return [value * self.model for value in request["inputs"]]

    def explain(self, request: Any) -> Any:
        return {"explained": request["inputs"][0]}

    def op_myop(self, event: Any) -> Any:
        return {"mine": event.body["inputs"]}


class Hooks(Model):
    def preprocess(self, request: Any, operation: str) -> Any:
        return {**request, "inputs": [value + 1 for value in request["inputs"]], "op": operation}

    def validate(self, request: Any, operation: str) -> Any:
        assert request["op"] == operation
        return request

    def postprocess(self, request: Any) -> Any:
        return {**request, "post": True}


class Coroutine(Model):
    async def predict(self, request: Any) -> Any:
        import asyncio

        await asyncio.sleep(0.001)
        return ["later", *request["inputs"]]


class Slow(V2ModelServer):
    gate = threading.Event()

    def load(self) -> None:
        self.gate.wait(10)
        self.model = 1

    def predict(self, request: Any) -> Any:
        return request["inputs"]


class Bad(V2ModelServer):
    def load(self) -> None:
        raise OSError("the model file is damaged")

    def predict(self, request: Any) -> Any:
        return []


class Named:
    def __init__(self, name: str) -> None:
        self.name = name

    def do(self, body: Any) -> Any:
        return {self.name: body["x"]}


def fails(body: Any) -> Any:
    raise RuntimeError("broken route")


def router(class_name: str | None = None, **args: Any) -> RouterStep:
    made = RouterStep("router", class_name=class_name, class_args=args)
    made.add_route("m1", class_name="Model", model_path="", multiplier=10)
    made.add_route("m2", class_name="Hooks", model_path="")
    made.add_route("m3:v1", class_name="Model", model_path="", multiplier=3)
    made.add_route("m3:v2", class_name="Model", model_path="", multiplier=4)
    return made


def test_status_matrix(serve: Any) -> None:
    server = serve(router(), globals())
    for path in ("/", "/v2/health", "/v2/health/ready"):
        assert server.test(path, method="GET") == {"name": "ModelRouter", "version": "v2", "extensions": []}
    for path in ("/v2/models", "/v2/models/"):
        assert server.test(path) == {"models": ["m1", "m2", "m3:v1", "m3:v2"]}
    assert server.test("/v2/models/m1") == {"name": "m1", "version": "", "inputs": [], "outputs": []}
    assert server.test("/v2/models/m3/versions/v2")["version"] == "v2"
    ready = server.test("/v2/models/m1/ready", event_id="e")
    assert (ready.status_code, ready.body) == (200, b"Model m1 is ready (event_id = e)")
    for path in ("/", "/v2/models/m1", "/v2/models/m1/infer", "/v2/models/m1/predict", "/v2/models/m1/"):
        for _ in range(3):  # the path is learned by the first
            answer = server.test(path, {"inputs": [1, 2]}, event_id="e")
            assert {k: v for k, v in answer.items() if k != "timestamp"} == {
                "id": "e",
                "model_name": "m1",
                "outputs": [10, 20],
            }
            assert len(answer["timestamp"]) == 32 and answer["timestamp"].endswith("+00:00")
    assert server.test("/v2/models/m3/versions/v2/infer", {"inputs": [1], "id": "own"})["outputs"] == [4]
    assert server.test("/v2/models/m3/versions/v2/infer", {"inputs": [1], "id": "own"})["model_version"] == "v2"
    assert server.test("/v2/models/m1/infer", {"inputs": [1], "id": "own"})["id"] == "own"
    assert server.test("/v2/models/m1/infer", b'{"inputs": [5]}')["outputs"] == [50]


@pytest.mark.parametrize(
    "path, body, method, text",
    [
        ("/v2/models/m1/infer", {"x": 1}, "POST", 'Exception: Expected key "inputs" in request body'),
        ("/v2/models/m1/infer", {"inputs": 1}, "POST", 'Exception: Expected "inputs" to be a list'),
        (
            "/v2/models/zz/infer",
            {"inputs": [1]},
            "POST",
            "ValueError: model zz doesnt exist, available models: m1 | m2 |",
        ),
        ("/v2/models/m3/versions/v9/infer", {"inputs": [1]}, "POST", "model m3:v9 doesnt exist"),
        ("/v3/models/m1", {"inputs": [1]}, "POST", "illegal path prefix /v3/models/m1, must start with /v2/models"),
        ("/v2", None, "GET", "illegal path prefix /v2"),
        ("/v2/models/m1/wat", {"inputs": [1]}, "POST", "illegal model operation wat, method=POST"),
        ("/v2/models/m1/infer", b"{no json", "POST", "Unrecognized request format"),
        ("/v2/models/m1/infer", {"inputs": ["boom"]}, "POST", "ValueError: no such input"),
    ],
)
def test_what_is_wrong_is_400_with_the_reason(serve: Any, path: str, body: Any, method: str, text: str) -> None:
    server = serve(router(), globals())
    for _ in range(2):
        answer = server.test(path, body, method=method, silent=True)
        assert answer.status_code == 400 and text in answer.body and answer.content_type == "text/plain"


def test_operations_hooks_and_bodies_that_route(serve: Any) -> None:
    server = serve(router(), globals())
    assert server.test("/v2/models/m1/explain", {"inputs": [7]})["outputs"] == {"explained": 7}
    assert "timestamp" not in server.test("/v2/models/m1/explain", {"inputs": [7]})
    assert server.test("/v2/models/m1/myop", {"inputs": [7]}) == {"mine": [7]}
    answer = server.test("/v2/models/m2/infer", {"inputs": [1]})
    assert answer["outputs"] == [4] and answer["post"]
    stream = {"model": "m3:v2", "operation": "predict", "inputs": [1]}
    assert server.test("/", stream, trigger=MockTrigger("kafka"))["outputs"] == [4]
    assert server.test("/v2/models/m1/infer", {"inputs": [1], "operation": "explain"})["outputs"] == {"explained": 1}
    image = server.test("/v2/models/m1/infer", b"\x89PNG", content_type="image/png", silent=True)
    assert "BytesIO" in image.body  # the model got the bytes, and cannot multiply them


def test_models_whose_predict_is_a_coroutine(serve: Any) -> None:
    graph = Flow(engine="async")
    step = graph.to("*", "router").respond()
    step.add_route("m", class_name="Coroutine", model_path="")
    server = serve(graph, globals())
    for _ in range(3):
        assert server.test("/v2/models/m/infer", {"inputs": [1]})["outputs"] == ["later", 1]


def test_loading_in_the_background(serve: Any) -> None:
    Slow.gate = threading.Event()
    made = RouterStep("router")
    made.add_route("m", class_name="Slow", model_path="")
    server = serve(made, globals(), load_mode="async")
    ready = server.test("/v2/models/m/ready", method="GET", silent=True)
    assert (ready.status_code, ready.body) == (408, b"model not ready")
    assert (
        "RuntimeError: model m is not ready yet" in server.test("/v2/models/m/infer", {"inputs": [1]}, silent=True).body
    )
    threading.Timer(0.05, Slow.gate.set).start()
    answer = server.test("/v2/models/m/infer", {"inputs": [1]}, trigger=MockTrigger("kafka"))  # a stream's event waits
    assert answer["outputs"] == [1]
    assert server.test("/v2/models/m/ready", method="GET").status_code == 200


def test_models_that_do_not_load(serve: Any) -> None:
    made = RouterStep("router")
    made.add_route("m", class_name="Bad", model_path="")
    with pytest.raises(RuntimeError, match="failed to load model m: OSError: the model file is damaged"):
        serve(made, globals())
    made["m"].class_args["model_path"] = "/m/bad.pkl"
    with pytest.raises(RuntimeError, match="failed to load model m from '/m/bad.pkl': OSError: the model file is"):
        serve(made, globals())
    server = serve(made, globals(), load_mode="async")
    end = time.monotonic() + 5
    while "damaged" not in server.test("/v2/models/m/infer", {"inputs": []}, silent=True).body:
        assert time.monotonic() < end
    missing = RouterStep("router")
    missing.add_route("m", class_name="Model", model_path="/nowhere/model.pkl")
    missing["m"].class_args["multiplier"] = 1
    model = serve(missing, globals())._engine  # this one never asks for its file
    assert model is not None


def test_model_files(tmp_path: Any) -> None:
    (tmp_path / "a.pkl").write_bytes(b"1")
    (tmp_path / "b.txt").write_bytes(b"2")
    model = Model(name="m", model_path=str(tmp_path))
    assert model.get_model(".pkl")[0] == str(tmp_path / "a.pkl")
    with pytest.raises(FileNotFoundError, match="has 2 files"):
        model.get_model()
    with pytest.raises(FileNotFoundError, match="model file '/nowhere/x' does not exist"):
        Model(name="m", model_path="/nowhere/x").get_model()
    (tmp_path / "model_spec.yaml").write_text(
        '{"spec": {"model_file": "b.txt", "inputs": [{"name": "x"}], "parameters": {"k": 1}}}'
    )
    assert model.get_model()[0] == str(tmp_path / "b.txt") and model.get_param("k") == 1
    model.ready = True
    assert [f["name"] for f in model.model_spec.inputs] == ["x"]


def test_dicts_as_inputs(serve: Any, tmp_path: Any) -> None:
    (tmp_path / "m.bin").write_bytes(b"")
    (tmp_path / "model_spec.yaml").write_text(
        '{"spec": {"model_file": "m.bin", "inputs": [{"name": "x"}, {"name": "y"}]}}'
    )

    class Rows(V2ModelServer):
        def load(self) -> None:
            self.get_model()

        def predict(self, request: Any) -> Any:
            return request["inputs"]

    made = RouterStep("router")
    made.add_route("m", class_name="Rows", model_path=str(tmp_path))
    server = serve(made, {"Rows": Rows})
    assert server.test("/v2/models/m/infer_dict", {"inputs": [{"y": 2, "x": 1}]})["outputs"] == [[1, 2]]
    answer = server.test("/v2/models/m/infer_dict", {"inputs": [{"y": 2}]}, silent=True)
    assert answer.status_code == 400 and "the inputs lack 'x'" in answer.body
    assert server.test("/v2/models/m")["inputs"] == [{"name": "x"}, {"name": "y"}]


# --- several at once ---------------------------------------------------------------------------------------------


def ensemble(values: list[Any], **args: Any) -> RouterStep:
    made = RouterStep("router", class_name="mlrun.serving.VotingEnsemble", class_args=args)
    for index, value in enumerate(values):
        made.add_route(f"m{index}", class_name="Model", model_path="", multiplier=value)
    return made


@pytest.mark.parametrize("executor", ["array", "thread", "process"])
def test_votes(serve: Any, executor: str) -> None:
    def vote(values: list[Any], inputs: list[Any], **args: Any) -> Any:
        server = serve(ensemble(values, executor_type=executor, **args), globals())
        return server.test("/v2/models/infer", {"inputs": inputs})["outputs"]

    assert vote([500, 1000, 1500, 2000], [1, 2], vote_type="regression") == [1250, 2500]
    assert vote([1, 2, 1, 3], [1], vote_type="classification") == [1]
    assert vote([2, 1], [1], vote_type="classification") == [1]  # ties to the smallest
    weights = {"m0": 0.1, "m1": 0.2, "m2": 0.3, "m3": 0.4}
    assert vote([1, 2, 3, 4], [1], vote_type="classification", weights=weights) == [4]
    assert vote([500, 1000, 1500, 2000], [1], vote_type="regression", weights=weights) == [pytest.approx(1500)]
    assert vote([1, 2, 1], [1]) == [1]  # whole numbers: a classification
    assert vote([0.5, 1.5], [1]) == [1.0]
    assert vote([10, 20], [1], vote_type="regression", weights={"m0": 0.1, "m1": 0.3}) == [17.5]  # normalised


def test_an_ensembles_paths(serve: Any) -> None:
    server = serve(ensemble([1, 2], vote_type="regression", weights={"m0": 1}), globals())
    assert server.test("/v2/models") == {"models": ["m0", "m1", "router"], "weights": {"m0": 1}}
    for path in ("/", "/v2/models/infer", "/v2/models/router", "/v2/models/router/predict"):
        answer = server.test(path, {"inputs": [3]}, event_id="e")
        assert answer == {"id": "e", "model_name": "router", "outputs": [3.0], "model_version": "v1"}
    assert server.test("/v2/models/m1/infer", {"inputs": [3]})["outputs"] == [6]
    assert server.test("/v2/models/router", method="GET") == {
        "name": "router",
        "version": "v1",
        "inputs": [],
        "outputs": [],
    }
    answer = server.test("/v2/models/infer", {"inputs": 3}, silent=True)
    assert answer.status_code == 400 and 'Expected "inputs" to be a list' in answer.body
    with pytest.raises(ValueError, match="weights name zz, which is no route"):
        serve(ensemble([1], weights={"zz": 1}), globals())


def test_a_failing_model_fails_the_vote_by_name(serve: Any) -> None:
    made = ensemble([1, 2], vote_type="regression")
    answer = serve(made, globals()).test("/v2/models/infer", {"inputs": ["boom"]}, silent=True)
    assert answer.status_code == 400 and "route 'm0' failed: ValueError: no such input" in answer.body


@pytest.mark.parametrize("executor", ["array", "thread", "process"])
def test_parallel_run(serve: Any, executor: str) -> None:
    made = RouterStep(
        "router", class_name="mlrun.serving.ParallelRun", class_args={"extend_event": True, "executor_type": executor}
    )
    for name in ("a", "b", "c"):
        made.add_route(name, class_name="Named")
    graph = Flow(engine="sync")
    graph._put("router", made)
    server = serve(graph, globals())
    for _ in range(2):
        assert server.test(body={"x": 1}) == {"x": 1, "a": 1, "b": 1, "c": 1}
    made.add_route("bad", handler="fails")
    answer = serve(graph, globals()).test(body={"x": 1}, silent=True)
    assert answer.status_code == 400 and "route 'bad' failed: RuntimeError: broken route" in answer.body
    made.class_args["on_partial"] = "skip"
    answer = serve(graph, globals()).test(body={"x": 1})
    assert answer["a"] == 1 and answer["errors"] == {"bad": "RuntimeError: broken route"}


def test_slow_routes_run_at_the_same_time(serve: Any) -> None:
    barrier = threading.Barrier(3, timeout=10)
    calls = 0

    def meets(body: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 3:  # the first call goes one after the other, and is measured
            barrier.wait()
        else:
            time.sleep(0.01)
        return {}

    made = RouterStep("router", class_name="mlrun.serving.ParallelRun")
    for name in ("a", "b", "c"):
        made.add_route(name, handler="meets")
    server = serve(made, {"meets": meets})
    assert server.test(body={"x": 1}) == {}
    assert server.test(body={"x": 1}) == {}


def test_router_in_a_flow_with_paths(serve: Any) -> None:
    graph = Flow(engine="async")
    step = graph.to(
        "*mlrun.serving.VotingEnsemble", "vote", vote_type="regression", input_path="data", result_path="res"
    )
    step.to(name="out", handler="(event['res']['outputs'])").respond()
    step.add_route("m1", class_name="Model", model_path="", multiplier=100)
    step.add_route("m2", class_name="Model", model_path="", multiplier=50)
    assert serve(graph, globals()).test(body={"data": {"inputs": [1]}}) == [75]


def test_two_models_as_steps(serve: Any) -> None:
    graph = Flow(engine="async")
    graph.to("Model", "m1", model_path="", multiplier=10, result_path="m1", input_path="req").to(
        "Model", "m2", model_path="", multiplier=5, result_path="m2", input_path="req"
    ).respond()
    answer = serve(graph, globals()).test(body={"req": {"inputs": [1]}})
    assert list(answer) == ["req", "m1", "m2"]
    assert (answer["m1"]["outputs"], answer["m2"]["outputs"]) == ([10], [5])


def test_more_than_4500_routes() -> None:
    made = RouterStep("router")
    for index in range(4500):
        made.add_route(f"m{index}", handler="x")
    with pytest.raises(GraphError, match="cannot support more than 4500"):
        made.add_route("one-more", handler="x")
    made.add_route("m1", handler="y")


# --- tracking ----------------------------------------------------------------------------------------------------


def tracked(serve: Any, made: Any, **parameters: Any) -> Any:
    return serve(
        made, globals(), track_models=True, function_uri="p/f", parameters={"log_stream": "dummy://", **parameters}
    )


def records(server: Any, name: str) -> list[Any]:
    ModelLogPusher.flush()
    return list(server.context.stream.output_stream.event_list)


def test_tracking_records(serve: Any) -> None:
    server = tracked(serve, router())
    server.test("/v2/models/m3/versions/v2/infer", {"inputs": [5]}, event_id="e")
    server.test("/v2/models/m1/infer", {"inputs": ["boom"]}, silent=True)
    good, bad = records(server, "m1")
    assert good["request"] == {"inputs": [5], "id": "e"} and good["resp"]["outputs"] == [20]
    assert {k: good[k] for k in ("class", "model", "version", "function_uri", "op")} == {
        "class": "Model",
        "model": "m3",
        "version": "v2",
        "function_uri": "p/f",
        "op": "infer",
    }
    assert 0 <= good["microsec"] < 5_000_000
    assert bad["error"] == "no such input" and "resp" not in bad


def test_tracking_of_ensembles_batches_and_samples(serve: Any) -> None:
    server = tracked(serve, ensemble([10, 15], vote_type="regression"))
    server.test("/v2/models/infer", {"inputs": [1]})
    got = records(server, "")
    assert len(got) == 3 and [r["resp"]["outputs"] for r in got if r["class"] == "VotingEnsemble"] == [[12.5]]
    server = tracked(serve, router(), log_stream_batch=3)
    for value in range(7):
        server.test("/v2/models/m1/infer", {"inputs": [value]})
    got = records(server, "")
    assert [len(r["values"]) for r in got] == [3, 3]
    assert got[0]["headers"] == ["request", "op", "resp", "when", "microsec", "metrics"]
