"""Common attributes in every role of a Dask cluster: scheduler, workers and the handler beside them see the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.roles import assert_alike, assert_pods, function, prepared
from support.server import Server

pytest.importorskip("distributed")

CODE = """
def roles(context):
    client = context.dask_client
    client.wait_for_workers(3)
    context.log_result("handler", look())
    context.log_result("scheduler", client.run_on_scheduler(look))
    context.log_result("workers", list(client.run(look).values()))
    context.log_result("files", [shared(), client.run_on_scheduler(shared), *client.run(shared).values()])
"""


@pytest.fixture(scope="module")
def folder(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(server, tmp_path_factory.mktemp("code"), CODE)


def test_scheduler_workers_and_handler_have_the_functions_attributes(server: Server, folder: Path) -> None:
    worker = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}
    scheduler = {"requests": {"cpu": "150m", "memory": "192Mi"}}
    file = function(folder, "dask", replicas=3, worker_resources=worker, scheduler_resources=scheduler)
    done = server.metier("run", "-f", file, "--handler", "roles", "-o", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    results = run["status"]["results"]
    assert_alike([results["handler"]], folder / "work")
    assert_alike([results["scheduler"], *results["workers"]], None)
    names = [results["handler"]["pod"], results["scheduler"]["pod"], *(one["pod"] for one in results["workers"])]
    assert len(set(names)) == 5
    assert results["files"] == [{name: f"written by {name}" for name in names}] * 5
    assert_pods(server, names)
    asked = {part["role"]: part["requests"] for part in run["status"]["parts"] if part.get("requests")}
    assert asked["worker"] == worker["requests"] and asked["scheduler"] == scheduler["requests"]


def test_gpus_that_no_worker_can_have_are_refused_with_the_reason(server: Server, folder: Path) -> None:
    words = ["run", "-f", function(folder, "dask", replicas=2), "--handler", "roles", "--gpus", "1"]
    done = server.metier(*words, cwd=folder)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "nvidia.com/gpu" in done.stderr, done.stderr
