"""Kind remote-spark against clusters that the test starts: a standalone master with a worker, and a Connect server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.server import Server, free_port, running
from support.spark_service import carries_connect, connect_server, ended_after, java, listening
from test_spark import begin, ended, java_of, only_all, pods_of, run, wait_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def master(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("standalone"), free_port()
    place = ["--host", "127.0.0.1", "--webui-port", "0"]
    first = java(python, folder, "256m", "org.apache.spark.deploy.master.Master", *place, "--port", str(port))
    with ended_after(first):
        listening(port)
        url = f"spark://127.0.0.1:{port}"
        size = ["--cores", "1", "--memory", "1200m", "--work-dir", str(folder / "work")]
        with ended_after(java(python, folder, "256m", "org.apache.spark.deploy.worker.Worker", *place, *size, url)):
            yield url


@pytest.fixture(scope="module")
def connect(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not carries_connect(python):
        python = (
            ROOT / "build" / "venv-spark" / "bin" / "python"
        )  # pyspark 3.5 carries no Connect server: its client meets Spark 4's
    with connect_server(python, tmp_path_factory.mktemp("connect")) as url:
        yield url


def yaml_for(folder: Path, service: str) -> str:
    """A function file: what `with_spark_service` writes."""
    path = folder / f"remote-{service.partition(':')[0]}.yaml"
    path.write_text(
        "kind: remote-spark\nmetadata: {name: remote}\nspec:\n  command: count.py\n"
        f"  env: [{{name: METIER_SPARK_SERVICE, value: '{service}'}}]\n"
    )
    return str(path)


@only_all
def test_a_session_goes_to_the_standalone_master(server: Server, folder: Path, master: str) -> None:
    function = yaml_for(folder, master)
    code, done, errors = run(server, folder, "-f", function, "--handler", "connected")
    assert code == 0, errors
    assert done["status"]["results"] == {"sum": 499500, "session": "pyspark.sql.session"}


@only_all
def test_the_jvm_of_a_session_at_the_master_is_named(server: Server, folder: Path, master: str) -> None:
    uid = begin(server, folder, "-f", yaml_for(folder, master), "--handler", "slow", "-p", "seconds=400")
    wait_for("tasks", lambda: "session is ready" in server.metier("logs", uid).stdout)
    [pod] = pods_of(server, uid)
    os.kill(java_of(server, pod), signal.SIGKILL)
    status = ended(server, uid)
    assert (status["state"], status["reason"]) == ("error", "Killed"), status
    assert status["error"] == "DriverLost: the driver's JVM was killed by signal 9 (Killed)"


def test_a_session_goes_to_the_connect_server(server: Server, folder: Path, connect: str) -> None:
    function = yaml_for(folder, connect)
    code, done, errors = run(server, folder, "-f", function, "--handler", "connected")
    assert code == 0, errors
    assert done["status"]["results"] == {"sum": 499500, "session": "pyspark.sql.connect.session"}


def test_a_name_is_looked_up_in_the_servers_settings(tmp_path: Path, folder: Path, python: Path) -> None:
    sites = {"METIER_SPARK_SERVICE_BIG_DATA": "mesos://127.0.0.1:1"}
    with running(tmp_path / "data", python=str(python), env=sites) as server:
        function = yaml_for(folder, "big-data")
        done = server.metier("run", "-f", function, "--handler", "connected", cwd=folder, timeout=120)
        assert "'mesos://127.0.0.1:1' is no address of a Spark service" in done.stderr, done.stderr
        function = yaml_for(folder, "nobody")
        done = server.metier("run", "-f", function, "--handler", "connected", cwd=folder, timeout=120)
        assert "METIER_SPARK_SERVICE_NOBODY is not set" in done.stderr, done.stderr


@pytest.mark.parametrize("scheme", ["spark", "sc"])
def test_an_address_where_nobody_listens_is_named(server: Server, folder: Path, python: Path, scheme: str) -> None:
    service = f"{scheme}://127.0.0.1:{free_port()}"
    done = server.metier("run", "-f", yaml_for(folder, service), "--handler", "connected", cwd=folder, timeout=120)
    assert done.returncode == 5, done.stdout + done.stderr
    assert f"no Spark service answers at {service.partition('://')[2]}: Connection refused" in done.stderr
    assert "ServiceUnavailable" in server.metier("why", "@-1").stdout


def test_livy_is_refused(server: Server, folder: Path) -> None:
    done = server.metier("run", "-f", yaml_for(folder, "livy://127.0.0.1:8998"), "--handler", "connected", cwd=folder)
    assert done.returncode == 5
    assert "Livy is not supported" in done.stderr
