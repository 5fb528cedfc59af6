"""A warm Spark: one Connect server for the runs of a project, its end, and what it is not for."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.server import Server
from support.spark_service import carries_connect
from test_spark import java_of, only_all, page_of, pods_of, processes_of, run, wait_for

WARM = ["--kind", "spark", "--set", "spec.warm=true"]


def servers(server: Server, project: str = "default") -> list[str]:
    answer = server.call("GET", f"/api/metier/v1/pods?project={project}").json()
    roles = {p["metadata"]["name"]: p["metadata"]["labels"].get("spark-role") for p in answer["pods"]}
    return sorted(name for name, role in roles.items() if role == "connect")


def test_runs_share_a_server_and_its_loss_costs_one(
    server: Server, folder: Path, python: Path, brought: list[str]
) -> None:
    if not carries_connect(python):
        code, done, errors = run(server, folder, "count.py:warm", *WARM)
        assert code == 5, errors
        assert "needs a Connect server" in server.metier("logs", done["metadata"]["uid"], "--part", "server").stdout
        return
    code, first, errors = run(server, folder, "brings.py:warm", *WARM, *brought)
    assert code == 0, errors
    assert first["status"]["results"]["sum"] == 999000 + 1000
    assert first["status"]["results"]["session"] == "pyspark.sql.connect.session"
    code, second, errors = run(server, folder, "count.py:warm", *WARM, "--name", "other", "-p", "n=10")
    assert code == 0, errors
    assert second["status"]["results"]["sum"] == 90 + 10
    assert second["status"]["results"]["server"] == first["status"]["results"]["server"]
    assert len(servers(server)) == 1
    assert {part["role"] for part in second["status"]["parts"]} == {"main", "server"}
    page = page_of(server, second["metadata"]["uid"])  # the run is over, its server lives
    assert page["live"] and "Spark Jobs" in server.call("GET", page["path"] + "jobs/").body.decode()

    code, third, _ = run(server, folder, "count.py:classic", *WARM)
    assert code == 1
    assert "leave spec.warm out" in str(third["status"])

    said = server.metier("logs", third["metadata"]["uid"], "--part", "server").stdout
    assert "Traceback" not in said, "the server's first query of its own failed"

    os.kill(java_of(server, servers(server)[0]), signal.SIGKILL)
    code, fourth, errors = run(
        server, folder, "count.py:warm", *WARM, "--set", "spec.warm_idle_timeout=20", "-P", "other"
    )
    assert code == 3, "no such project"
    code, fourth, errors = run(server, folder, "count.py:warm", *WARM)
    if code != 0:  # submitted before the loss was seen: submitted anew by itself, unless its code had begun
        assert "ServerLost" in errors, errors
        uid = fourth["metadata"]["uid"]
        events = server.call("GET", f"/api/metier/v1/runs/{uid}/timeline?project=default").json()["events"]
        assert {e["detail"]["name"] for e in events if e["what"] == "phase"} & {"import", "user"}, "it had not begun"
        code, fourth, errors = run(server, folder, "count.py:warm", *WARM)
    assert code == 0, errors
    assert len(servers(server)) == 2


@only_all
def test_an_idle_server_ends(server: Server, folder: Path, python: Path) -> None:
    if not carries_connect(python):
        pytest.skip("pyspark 3.5 carries no Connect server")
    before = set(servers(server))
    code, done, errors = run(server, folder, "count.py:warm", *WARM, "--set", "spec.warm_idle_timeout=5")
    assert code == 0, errors
    mine = (set(servers(server)) - before).pop()
    wait_for("it ends", lambda: not processes_of(server, mine), 120)
    assert pods_of(server, done["metadata"]["uid"])
