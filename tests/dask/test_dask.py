"""Kind dask on the real Dask: a handler beside a scheduler and workers that the server makes, by the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.server import BINARY, Server

pytest.importorskip("distributed")

CODE = """
import os, time
import helpers

def square(x):
    return helpers.power(x)

def total(context, n: int = 10):
    client = context.dask_client
    context.log_result("total", sum(client.gather(client.map(square, range(n)))))
    context.log_result("workers", len(client.scheduler_info()["workers"]))
    context.log_result("scheduler", client.scheduler_info()["address"])
    context.log_result("pids", sorted(client.run(os.getpid).values()))

def slow(context):
    client = context.dask_client
    client.wait_for_workers(1)
    print("connected", flush=True)
    client.submit(time.sleep, 600).result()

def steady(context, seconds: float = 8.0):
    client = context.dask_client
    print("connected", flush=True)
    began, done = time.time(), 0
    while time.time() - began < seconds:
        done += sum(client.gather(client.map(square, range(20), pure=False)))
    context.log_result("done", done)

def kept(context):
    client = context.dask_client
    scattered = client.scatter(list(range(100)))
    naps = client.map(lambda i: time.sleep(0.4) or i, range(40), pure=False)
    most = 0
    while any(not nap.done() for nap in naps):
        most = max(most, len(client.scheduler_info(n_workers=-1)["workers"]))
        time.sleep(0.1)
    context.log_result("most", most)
    until = time.time() + 60
    while len(client.scheduler_info(n_workers=-1)["workers"]) > 1 and time.time() < until:
        time.sleep(0.2)
    context.log_result("left", len(client.scheduler_info(n_workers=-1)["workers"]))
    context.log_result("sum", sum(client.gather(naps)))
    context.log_result("scattered", sum(client.gather(scattered)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("code")
    (path / "squares.py").write_text(CODE)
    (path / "helpers.py").write_text("def power(x):\n    return x * x\n")
    return path


def run(server: Server, folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    done = server.metier("run", *arguments, "--kind", "dask", "-o", "json", cwd=folder)
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr


def objects(server: Server, kind: str) -> list[dict[str, Any]]:
    said = server.metier("get", kind, "-o", "json").stdout
    return list(json.loads(said)) if said.strip() else []


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until `what` is true; how long is no part of what is tested."""
    until = time.monotonic() + seconds
    while True:
        value = what()
        if value or time.monotonic() > until:
            return value
        time.sleep(0.05)


def test_a_handler_runs_beside_the_cluster_of_its_function(server: Server, folder: Path) -> None:
    code, first, errors = run(server, folder, "squares.py:total", "--replicas", "2", "-p", "n=20")
    assert code == 0, errors
    results = first["status"]["results"]
    assert results["total"] == sum(x * x for x in range(20))
    assert results["workers"] == 2
    assert results["scheduler"].startswith(("tcp://127.", "tls://127."))
    code, second, errors = run(server, folder, "squares.py:total", "--replicas", "2")
    assert code == 0, errors
    assert second["status"]["results"]["pids"] == results["pids"], "the cluster was not found again"


def test_the_file_may_change_between_two_runs(server: Server, folder: Path) -> None:
    code, first, errors = run(server, folder, "squares.py:total", "--replicas", "2")
    assert code == 0, errors
    helpers = (folder / "helpers.py").read_text()
    (folder / "helpers.py").write_text("def power(x):\n    return x * x * x\n")
    code, second, errors = run(server, folder, "squares.py:total", "--replicas", "2")
    (folder / "helpers.py").write_text(helpers)
    assert code == 0, errors
    assert first["status"]["results"]["total"] == sum(x**2 for x in range(10))
    assert second["status"]["results"]["total"] == sum(x**3 for x in range(10))
    assert second["status"]["results"]["pids"] == first["status"]["results"]["pids"]
