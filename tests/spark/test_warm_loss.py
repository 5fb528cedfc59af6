"""The loss of each part of a warm Spark and of a remote one at each step of its life, with a Connect server of the test's own.

Needs no Spark: support/fake_spark.py. The real one: test_warm.py, test_real_loss.py. The tables of docs/reliability.md ("Distributed jobs") are
this file's.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from metier_runner.spark_connect import listens
from support.fake_spark import HEAR, STOP, until, variables
from support.gang import assert_none_left, command_of, ended, parent, pod_processes, processes, shim_of, state
from support.server import Server, free_port, running

CODE = (
    STOP
    + """
from pyspark.sql.connect.session import SparkSession

def work(context):
    session = SparkSession._default_session
    open(os.environ["GATE"] + f"/client.{os.getpid()}", "w").close()
    step("tasks run", session.ask)
    session.ask()
    context.log_result("done", 1)
"""
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("m") / "data") as started:
        yield started


class Run:
    """A run that stands at `step`."""

    def __init__(self, server: Server, engine: Path, folder: Path, step: str, *options: str) -> None:
        self.server, self.gate, self.step = server, folder, step
        (folder / "work.py").write_text(CODE)
        done = server.metier(
            "run", "work.py:work", *options, "--detach", "-o", "json", *variables(engine, folder, step), cwd=folder
        )
        assert done.returncode == 0, done.stderr
        self.uid = str(json.loads(done.stdout)["metadata"]["uid"])
        until(f"it stands: {state(server, self.uid)}", self.stands)
        self.left = pod_processes(server)

    def stands(self) -> bool:
        standing = len(list(self.gate.glob("at.*"))) == 1
        if self.step == "before the server listens":
            return standing and state(self.server, self.uid)["state"] == "running"
        return standing

    def pid(self, part: str) -> int:
        """`client`, `server` (its Python), `server's JVM`, or the shim of one."""
        jvm = processes(self.server, "SparkConnectServer")
        of_server = shim_of(jvm[0]) if jvm else 0
        if part == "server's JVM":
            return jvm[0]
        if part == "server":
            return parent(jvm[0])
        [of_client] = [pid for pid in processes_of_shims(self.server) if pid != of_server]
        if part.endswith("shim"):
            return of_client if part.startswith("client") else of_server
        return int(Path(f"/proc/{of_client}/task/{of_client}/children").read_text().split()[0])

    def kill(self, part: str) -> None:
        os.kill(self.pid(part), signal.SIGKILL)

    def go(self) -> None:
        (self.gate / "go").touch()

    def end_server(self) -> None:
        """It would stay until it is idle."""
        self.left |= pod_processes(self.server)
        for pid in processes(self.server, "metier_runner.spark connect"):
            os.kill(pid, signal.SIGKILL)
        assert_none_left(self.server, self.left)


def processes_of_shims(server: Server) -> list[int]:
    return [pid for pid, _ in pod_processes(server) if "metier-shim" in command_of(pid)]


WARM = ("--kind", "spark", "--set", "spec.warm=true")
STEPS = ("before the server listens", "tasks run", "the user's code has ended")
CLIENT = {
    "client": ("Killed(SIGKILL)", r"killed by signal 9"),
    "client's shim": ("ShimLost", r"the pod's supervisor was killed; .+"),
}
SERVER = {
    "server": r"the warm Spark of this project is gone: pod \S+-server was killed by SIGKILL",
    "server's JVM": r"the warm Spark of this project is gone: pod \S+-server was killed by SIGKILL",
    "server's shim": r"the warm Spark of this project is gone: pod \S+-server was lost: the pod's supervisor was killed; .+",
}


def assert_error(job: Run, reason: str, words: str) -> None:
    status = ended(job.server, job.uid)
    assert (status["state"], status["reason"]) == ("error", reason), status
    assert re.fullmatch(words, status["error"]), status["error"]


def assert_completed(job: Run) -> None:
    status = ended(job.server, job.uid)
    assert (status["state"], status["results"]) == ("completed", {"done": 1}), status


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("part", CLIENT)
def test_a_lost_client_is_its_runs_error_alone(
    server: Server, engine: Path, tmp_path: Path, step: str, part: str
) -> None:
    job = Run(server, engine, tmp_path, step, *WARM)
    jvm = job.pid("server's JVM")
    job.kill(part)
    assert_error(job, *CLIENT[part])
    assert processes(server, "SparkConnectServer") == [jvm], "the server stays"
    job.end_server()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("part", SERVER)
def test_a_lost_server_costs_what_had_begun(server: Server, engine: Path, tmp_path: Path, step: str, part: str) -> None:
    job = Run(server, engine, tmp_path, step, *WARM)
    jvm = job.pid("server's JVM")
    job.kill(part)
    if step == "before the server listens":
        until("another one", lambda: (found := processes(server, "SparkConnectServer")) and found != [jvm])
        job.go()
        assert_completed(job)  # submitted anew by itself
        [first] = state(server, job.uid)["retries"]
        assert (first["reason"], first["unbegun"]) == ("ServerLost", True)
    else:
        assert_error(job, "ServerLost", SERVER[part])
    job.end_server()


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_metier_costs_nothing(server: Server, engine: Path, tmp_path: Path, step: str) -> None:
    job = Run(server, engine, tmp_path, step, *WARM)
    server.kill()
    server.start()
    job.go()
    assert_completed(job)
    job.end_server()


@pytest.mark.parametrize("part", [*CLIENT, *SERVER])
def test_a_part_lost_while_no_metier_runs(server: Server, engine: Path, tmp_path: Path, part: str) -> None:
    job = Run(server, engine, tmp_path, "tasks run", *WARM)
    pid = job.pid(part)
    server.kill()
    os.kill(pid, signal.SIGKILL)
    server.start()
    assert_error(job, *CLIENT[part]) if part in CLIENT else assert_error(job, "ServerLost", SERVER[part])
    job.end_server()


@pytest.mark.parametrize("step", STEPS)
def test_abort_ends_the_client_alone(server: Server, engine: Path, tmp_path: Path, step: str) -> None:
    job = Run(server, engine, tmp_path, step, *WARM)
    jvm = job.pid("server's JVM")
    assert server.metier("abort", job.uid).returncode == 0
    assert state(server, job.uid)["state"] == "aborted"
    assert processes(server, "SparkConnectServer") == [jvm]
    job.end_server()


SERVICE = HEAR + 'import sys\necho(("127.0.0.1", int(sys.argv[1])))\n'


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A Connect service of somebody's: its address and its process."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-IS", "-c", SERVICE, str(port)])
    until("it listens", lambda: listens("127.0.0.1", port))
    try:
        yield f"sc://127.0.0.1:{port}", process.pid
    finally:
        process.kill()
        process.wait()


REMOTE_STEPS = ("tasks run", "the user's code has ended")


def remote(service: str) -> list[str]:
    """With a token the runner makes the session."""
    variables = {"METIER_SPARK_SERVICE": service, "SPARK_CONNECT_AUTHENTICATE_TOKEN": "t"}
    return ["--kind", "remote-spark", *(word for pair in variables.items() for word in ("-e", "=".join(pair)))]


@pytest.mark.parametrize("step", REMOTE_STEPS)
@pytest.mark.parametrize("part", CLIENT)
def test_a_lost_client_of_a_service(
    server: Server, engine: Path, tmp_path: Path, service: tuple[str, int], step: str, part: str
) -> None:
    job = Run(server, engine, tmp_path, step, *remote(service[0]))
    job.kill(part)
    assert_error(job, *CLIENT[part])
    assert_none_left(server, job.left)


@pytest.mark.parametrize("step", REMOTE_STEPS)
def test_a_lost_service_is_named(
    server: Server, engine: Path, tmp_path: Path, service: tuple[str, int], step: str
) -> None:
    job = Run(server, engine, tmp_path, step, *remote(service[0]))
    os.kill(service[1], signal.SIGKILL)
    if step == "tasks run":
        assert_error(job, "ServiceUnavailable", f"ServiceUnavailable: the Spark service {service[0]} has ended: .+")
    else:
        job.go()
        assert_completed(job)
    assert_none_left(server, job.left)


@pytest.mark.parametrize("step", REMOTE_STEPS)
def test_a_killed_metier_costs_a_remote_session_nothing(
    server: Server, engine: Path, tmp_path: Path, service: tuple[str, int], step: str
) -> None:
    job = Run(server, engine, tmp_path, step, *remote(service[0]))
    server.kill()
    server.start()
    job.go()
    assert_completed(job)
    assert_none_left(server, job.left)


@pytest.mark.parametrize("part", [*CLIENT, "service"])
def test_a_part_of_a_remote_session_lost_while_no_metier_runs(
    server: Server, engine: Path, tmp_path: Path, service: tuple[str, int], part: str
) -> None:
    job = Run(server, engine, tmp_path, "tasks run", *remote(service[0]))
    pid = service[1] if part == "service" else job.pid(part)
    server.kill()
    os.kill(pid, signal.SIGKILL)
    server.start()
    if part == "service":
        assert_error(job, "ServiceUnavailable", f"ServiceUnavailable: the Spark service {service[0]} has ended: .+")
    else:
        assert_error(job, *CLIENT[part])
    assert_none_left(server, job.left)


@pytest.mark.parametrize("step", REMOTE_STEPS)
def test_abort_ends_a_remote_session(
    server: Server, engine: Path, tmp_path: Path, service: tuple[str, int], step: str
) -> None:
    job = Run(server, engine, tmp_path, step, *remote(service[0]))
    assert server.metier("abort", job.uid).returncode == 0
    assert state(server, job.uid)["state"] == "aborted"
    assert_none_left(server, job.left)
