"""The unmodified mlrun SDK deploys nuclio functions to our server, calls them and runs `nuclio:mlrun` functions."""

from __future__ import annotations

import json
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from support.gang import wait_for
from support.server import Server

CODE = """
import json

def init_context(context):
    context.user_data.calls = 0

def handler(context, event):
    context.user_data.calls += 1
    context.logger.info_with("called", path=event.path)
    if event.method == "POST":
        body = event.body if isinstance(event.body, dict) else json.loads(event.body)
        return {"sum": sum(body["values"])}
    return "hello"

def broken(context, event):
    raise ValueError("no such luck")
"""

TRAIN = """
def train(context, p1: int = 1):
    context.log_result("twice", p1 * 2)
    return p1
"""


@pytest.fixture(scope="module")
def project(mlrun: Any, server: Server) -> Any:
    return mlrun.get_or_create_project("rt", context=str(server.data.parent / "context"), user_project=False)


@pytest.fixture(scope="module")
def code(server: Server) -> Path:
    path = server.data.parent / "hello.py"
    path.write_text(textwrap.dedent(CODE))
    (server.data.parent / "train.py").write_text(textwrap.dedent(TRAIN))
    return path


def test_deploys_and_invokes(mlrun: Any, project: Any, code: Path, server: Server) -> None:
    function = mlrun.code_to_function("hello", project="rt", filename=str(code), kind="nuclio", image="mlrun/mlrun")
    address = function.deploy()
    assert address.startswith("http://127.")
    assert function.status.state == "ready"
    assert function.status.nuclio_name == "rt-hello"
    assert function.invoke("/") in ("hello", b"hello")
    assert function.invoke("/", body={"values": [1, 2, 39]}) == {"sum": 42}
    # What the client saved afterwards keeps its source, and the state that is observed.
    stored = mlrun.get_run_db().get_function("hello", "rt")
    assert stored["status"]["state"] == "ready"
    assert stored["spec"]["build"]["functionSourceCode"]
    began = time.monotonic()
    again = mlrun.code_to_function("warm", project="rt", filename=str(code), kind="nuclio", image="mlrun/mlrun")
    again.deploy()
    print(f"warm fn.deploy(): {time.monotonic() - began:.3f} s")


def test_triggers_and_configuration(mlrun: Any, project: Any, code: Path, server: Server) -> None:
    function = mlrun.code_to_function("full", project="rt", filename=str(code), kind="nuclio", image="mlrun/mlrun")
    function.with_http(workers=2, worker_timeout=5)
    function.add_trigger("tick", mlrun.runtimes.nuclio.function.nuclio.triggers.CronTrigger(interval="1h"))
    function.set_config("spec.eventTimeout", "30s")
    function.spec.min_replicas = 1
    function.spec.max_replicas = 1
    function.set_env("A", "1")
    function.with_limits(mem="1G", cpu=1)
    function.deploy()
    view = server.call("GET", "/api/metier/v1/deployments/full?project=rt").json()
    assert view["state"] == "ready"
    rendered = server.call("POST", "/api/metier/v1/deployments/render", {"function": view["function"]}).json()
    spec = rendered["items"][0]["spec"]
    assert spec["eventTimeout"] == "30s"
    assert spec["triggers"]["http"]["numWorkers"] == 2
    assert spec["triggers"]["tick"]["attributes"]["interval"] == "1h"
    assert function.invoke("/") in ("hello", b"hello")


def test_async_spec(mlrun: Any, project: Any, server: Server) -> None:
    path = server.data.parent / "waits.py"
    path.write_text(
        "import asyncio\nasync def handler(context, event):\n    await asyncio.sleep(0.01)\n    return 'waited'\n"
    )
    function = mlrun.code_to_function("waits", project="rt", filename=str(path), kind="nuclio", image="mlrun/mlrun")
    try:
        spec = mlrun.runtimes.nuclio.function.AsyncSpec(max_connections=100)
    except AttributeError:
        pytest.skip("this SDK has no async_spec")
    function.with_http(workers=1, async_spec=spec)
    function.deploy()
    assert function.invoke("/") in ("waited", b"waited")


CONFIGURED = """# @nuclio.configure
#
# function.yaml:
#   spec:
#     env: [{name: WHO, value: inside}]
#     triggers:
#       web: {kind: http, numWorkers: 2}
import os

def handler(context, event):
    return f"{os.environ['WHO']} {context.trigger_name}"
"""


def test_a_source_that_configures_itself(mlrun: Any, project: Any, server: Server) -> None:
    path = server.data.parent / "self.py"
    path.write_text(CONFIGURED)
    function = mlrun.code_to_function("self", project="rt", filename=str(path), kind="nuclio", image="mlrun/mlrun")
    function.deploy()
    assert function.invoke("/") in ("inside web", b"inside web")
    function.set_env("WHO", "sdk")  # what the call says wins
    function.deploy()
    # Its predecessor, told to go, may take a last call.
    wait_for(lambda: function.invoke("/") in ("sdk web", b"sdk web"))


def with_trigger(trigger: dict[str, Any]) -> Any:
    return lambda function: function.add_trigger("t", trigger)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_trigger({"kind": "rabbit-mq"}), "triggers of kind rabbit-mq are not served here"),
        (lambda f: f.add_v3io_stream_trigger("v3io:///projects/x/s", group="g"), "triggers of kind v3ioStream are not served"),
        (lambda f: f.with_sidecar("side", "image", ports=8050), "a function's pod has the processor only"),
        (lambda f: f.with_source_archive("git://github.com/o/r#main", handler="main:handler"), "'git://github.com/o/r#main' is not fetched"),
        (lambda f: f.set_config("spec.eventTimeout", "soon"), "expected a duration such as"),
        (with_trigger({"kind": "kafka-cluster", "attributes": {"topics": ["t"], "brokers": ["127.0.0.1:1"], "consumerGroup": "g", "sessionTimeout": "1s"}}),
         "3000 ms is not less than sessionTimeout 1000 ms"),
    ],
)  # fmt: skip
def test_what_is_refused_is_said(mlrun: Any, project: Any, code: Path, change: Any, says: str) -> None:
    function = mlrun.code_to_function("refused", project="rt", filename=str(code), kind="nuclio", image="mlrun/mlrun")
    change(function)
    with pytest.raises(OSError, match="cannot submit deploy") as refusal:
        function.deploy()
    assert says in str(refusal.value)


def test_a_function_that_raises(mlrun: Any, project: Any, code: Path) -> None:
    function = mlrun.code_to_function(
        "broken", project="rt", filename=str(code), handler="broken", kind="nuclio", image="mlrun/mlrun"
    )
    function.deploy()
    with pytest.raises(RuntimeError, match="500"):
        function.invoke("/")


def test_a_function_that_cannot_start(mlrun: Any, project: Any, server: Server) -> None:
    path = server.data.parent / "bad.py"
    path.write_text("import surely_not_installed\ndef handler(context, event): pass\n")
    function = mlrun.code_to_function("bad", project="rt", filename=str(path), kind="nuclio", image="mlrun/mlrun")
    with pytest.raises(mlrun.runtimes.utils.RunError):
        function.deploy()


def test_runs_a_nuclio_mlrun_function(mlrun: Any, project: Any, code: Path, server: Server) -> None:
    function = mlrun.code_to_function(
        "batch", project="rt", filename=str(server.data.parent / "train.py"), kind="nuclio:mlrun", image="mlrun/mlrun"
    )
    function.deploy()
    run = function.run(handler="train", params={"p1": 21})
    assert run.state() == "completed"
    assert run.status.results["twice"] == 42
    assert mlrun.get_run_db().read_run(run.metadata.uid, "rt")["status"]["state"] == "completed"


def test_deletes(mlrun: Any, project: Any, server: Server) -> None:
    mlrun.get_run_db().delete_function("hello", "rt")
    end = time.monotonic() + 60
    while server.call("GET", "/api/metier/v1/deployments/hello?project=rt").status == 200:
        assert time.monotonic() < end
        time.sleep(0.05)
    pods = server.call("GET", "/api/metier/v1/pods?project=rt").json()
    assert "rt-hello" not in json.dumps(pods)
