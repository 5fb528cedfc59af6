"""The parts of real Spark that test_spark.py and test_warm.py do not kill, killed while tasks run. Each step with made-up JVMs: test_loss.py."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from support.gang import assert_none_left, pod_processes, shim_of
from support.server import Server
from support.spark_service import carries_connect, connect_server
from test_remote_spark import ROOT, yaml_for
from test_spark import begin, ended, executors_of, java_of, only_all, pods_of, progress_of, wait_for
from test_warm import WARM, servers

pytestmark = only_all


def computing(server: Server, folder: Path, *arguments: str) -> str:
    uid = begin(server, folder, *arguments)
    wait_for("tasks", lambda: "session is ready" in server.metier("logs", uid).stdout)
    return uid


def driver_of(server: Server, uid: str) -> int:
    """The driver's JVM."""
    driver = next(name for name in pods_of(server, uid) if name.endswith("-driver"))
    return java_of(server, driver)


def kill(pid: int) -> None:
    assert pid > 1
    os.kill(pid, signal.SIGKILL)


def assert_error(status: dict[str, Any], reason: str, words: str) -> None:
    assert (status["state"], status["reason"]) == ("error", reason), status
    assert re.fullmatch(words, status["error"]), status["error"]


def test_executors_are_replaced_and_the_drivers_jvm_is_named(server: Server, folder: Path) -> None:
    wish = ["--kind", "spark", "--replicas", "2", "-p", "seconds=400"]
    uid = computing(server, folder, "count.py:slow", *wish)
    executors = wait_for("two executors", lambda: len(found := executors_of(server, uid)) == 2 and found)
    first, second = sorted(executors)
    kill(executors[first])
    kill(shim_of(executors[second]))
    others = wait_for("others", lambda: len(found := executors_of(server, uid)) == 2 and min(found) > second and found)
    assert not set(others) & set(executors)
    wait_for("their tasks", lambda: progress_of(server, uid).get("executors") == 2)
    left = pod_processes(server)
    kill(driver_of(server, uid))
    assert_error(ended(server, uid), "Killed", r"DriverLost: the driver's JVM was killed by signal 9 \(Killed\)")
    assert_none_left(server, left)


def test_the_drivers_shim(server: Server, folder: Path) -> None:
    uid = computing(server, folder, "count.py:slow", "--kind", "spark", "-p", "seconds=400")
    left = pod_processes(server)
    kill(shim_of(driver_of(server, uid)))
    assert_error(
        ended(server, uid), "ShimLost", r"the driver pod \S+-driver was lost: the pod's supervisor was killed; .+"
    )
    assert_none_left(server, left)


def process_of_run(server: Server, uid: str) -> int:
    found = re.search(r"session is ready in process (\d+)", server.metier("logs", uid).stdout)
    assert found
    return int(found[1])


def test_a_warm_sparks_clients_and_its_server(server: Server, folder: Path, python: Path) -> None:
    if not carries_connect(python):
        pytest.skip("pyspark 3.5 carries no Connect server")
    wish = ["count.py:computes", *WARM]
    uid = computing(server, folder, *wish)
    kill(process_of_run(server, uid))
    assert_error(ended(server, uid), "Killed(SIGKILL)", r"killed by signal 9")

    uid = computing(server, folder, *wish)
    kill(shim_of(process_of_run(server, uid)))
    assert_error(ended(server, uid), "ShimLost", r"the pod's supervisor was killed; .+")

    uid = computing(server, folder, *wish)
    left = pod_processes(server)
    assert len(servers(server)) == 1, "the first one has served all of them"
    kill(java_of(server, servers(server)[0]))
    assert_error(
        ended(server, uid),
        "ServerLost",
        r"the warm Spark of this project is gone: pod \S+-server was killed by SIGKILL",
    )
    assert_none_left(server, left)


def process_of_service(service: str) -> int:
    word = f"spark.connect.grpc.binding.port={service.rpartition(':')[2]}"
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word.encode() in (entry / "cmdline").read_bytes():
                return int(entry.name)
        except OSError:
            continue
    raise AssertionError(f"nobody serves {service}")


def test_a_remote_sparks_client_and_its_service(server: Server, folder: Path, python: Path, tmp_path: Path) -> None:
    if not carries_connect(python):
        python = ROOT / "build" / "venv-spark" / "bin" / "python"
    with connect_server(python, tmp_path) as service:
        function = yaml_for(folder, service)
        uid = computing(server, folder, "-f", function, "--handler", "computes")
        left = pod_processes(server)
        kill(process_of_run(server, uid))
        assert_error(ended(server, uid), "Killed(SIGKILL)", r"killed by signal 9")
        assert_none_left(server, left)

        uid = computing(server, folder, "-f", function, "--handler", "computes")
        kill(process_of_service(service))
        words = f"ServiceUnavailable: the Spark service {re.escape(service)} has ended: nobody listens there any more"
        assert_error(ended(server, uid), "ServiceUnavailable", words)
        assert_none_left(server, left)
