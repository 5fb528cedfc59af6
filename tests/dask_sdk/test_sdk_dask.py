"""The unmodified mlrun SDK and kind dask: fn.client starts the cluster, a run beside it, close, and the next start."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.server import Server

pytest.importorskip("distributed")

CODE = """
def total(context, n: int = 10):
    client = context.dask_client
    futures = client.map(lambda x: x * x, range(n))
    context.log_result("total", sum(client.gather(futures)))
"""


@pytest.fixture(scope="module")
def mlrun(server: Server) -> Iterator[Any]:
    """As a user gets it: what `metier env` prints, then the SDK."""
    for line in server.metier("env").stdout.splitlines():
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            os.environ[name] = value.strip("'\"")
    sys.path.extend(path for path in os.environ["PYTHONPATH"].split(os.pathsep) if path not in sys.path)
    import dask
    import mlrun

    dask.config.refresh()  # a user's shell has these variables before Python starts
    mlrun.set_environment(api_path=server.url, artifact_path=str(server.data.parent / "artifacts"))
    yield mlrun


@pytest.fixture(scope="module")
def function(mlrun: Any, server: Server) -> Any:
    mlrun.get_or_create_project("sdk", context=str(server.data.parent / "context"), user_project=False, save=True)
    path = server.data.parent / "squares.py"
    path.write_text(CODE)
    made = mlrun.new_function("squares", project="sdk", kind="dask", image="mlrun/ml-base", command=str(path))
    made.spec.remote = True
    made.spec.replicas = 2
    made.spec.min_replicas = made.spec.max_replicas = 2
    made.with_scheduler_requests(mem="192Mi", cpu="150m")
    made.with_scheduler_limits(mem="1Gi")
    made.with_worker_requests(mem="256Mi", cpu="100m")
    made.with_worker_limits(mem="768Mi", cpu="1")
    made.spec.nthreads = 2
    made.set_env("PLAIN", "a value")
    return made


def test_the_client_starts_the_cluster_and_computes(function: Any) -> None:
    # Closed at once: a client that is collected while another starts can hold distributed's own lock.
    with function.client as client:
        assert client.submit(lambda x: x + 1, 41).result() == 42
        client.wait_for_workers(2, timeout=60)
    assert function.status.cluster_name.startswith("mlrun-squares-")
    assert function.status.scheduler_address.startswith("tls://127.")
    assert function.get_status() == "running"


def test_what_the_sdk_sets_arrives_in_scheduler_and_workers(function: Any, server: Server) -> None:
    with function.client as client:
        names = client.run(lambda: os.environ["METIER_POD_NAME"]).values()
        plain = client.run(lambda: os.environ["PLAIN"]).values()
        scheduler = client.run_on_scheduler(lambda: os.environ["METIER_POD_NAME"])
        workers = client.scheduler_info()["workers"].values()
    assert list(plain) == ["a value"] * 2
    assert [(one["nthreads"], one["memory_limit"]) for one in workers] == [(2, 768 << 20)] * 2
    listed = json.loads(server.metier("get", "pods", "-P", "sdk", "-o", "json").stdout)["pods"]
    asked = {pod["name"]: pod["spec"]["containers"][0]["resources"] for pod in listed}
    assert asked[scheduler] == {"requests": {"memory": "192Mi", "cpu": "150m"}, "limits": {"memory": "1Gi"}}
    for name in names:
        expected = {"requests": {"memory": "256Mi", "cpu": "100m"}, "limits": {"memory": "768Mi", "cpu": "1"}}
        assert asked[name] == expected, name


def test_a_client_without_the_certificate_is_refused(function: Any) -> None:
    import distributed

    with pytest.raises((OSError, TypeError, RuntimeError)):
        distributed.Client(function.status.scheduler_address, security=distributed.Security(), timeout="2s")


def test_a_run_finds_the_same_cluster(mlrun: Any, function: Any) -> None:
    run = function.run(handler="total", params={"n": 5}, watch=False)
    assert run.state() == "completed"
    assert run.status.results["total"] == sum(x * x for x in range(5))


def test_close_ends_the_cluster_and_the_next_client_starts_it_again(function: Any) -> None:
    function.close()
    until = time.monotonic() + 30  # the scheduler ends by itself
    while function.get_status() == "running" and time.monotonic() < until:
        time.sleep(0.05)
    assert function.get_status() != "running"
    function.status.scheduler_address = None
    client = function.client
    assert client.submit(sum, [1, 2]).result() == 3


def test_its_resources_are_listed_and_deleted_by_the_functions_name(mlrun: Any, function: Any) -> None:
    db = mlrun.get_run_db()
    listed = db.list_runtime_resources(project="sdk", kind="dask", object_id="squares")
    assert any(pod.name.endswith("-scheduler-2") for one in listed for pod in one.resources.pod_resources)
    db.delete_runtime_resources(project="sdk", kind="dask", object_id="squares", force=True)

    def running() -> bool:
        left = db.list_runtime_resources(project="sdk", kind="dask", object_id="squares")
        return any(pod.status.get("phase") == "Running" for one in left for pod in one.resources.pod_resources)

    until = time.monotonic() + 30
    while running() and time.monotonic() < until:
        time.sleep(0.1)
    assert not running()
