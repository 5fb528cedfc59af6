"""The loss of each part of a Spark application at each step of its life, with JVMs of the test's own that stop where they are told.

Needs neither Spark nor Java, but a build that has our cluster manager. The real ones: test_spark.py, test_real_loss.py. The table of docs/reliability.md ("Distributed jobs") is this file's.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_spark import STOP, fake_engine, until, variables
from support.gang import assert_none_left, ended, of_pod, parent, parts, pod_processes, processes, state
from support.server import Server, running
from support.terminal import at_terminal, interrupt_and_confirm, read_until

CODE = (
    STOP
    + """
import socket

def work(context):
    jvm = socket.create_connection(("127.0.0.1", int(os.environ["PYSPARK_GATEWAY_PORT"])))
    lines = jvm.makefile("r")

    def executors(number):
        jvm.sendall(b"%d\\n" % number)
        line = lines.readline()
        if not line:
            raise ConnectionError("the answer from the Java side is empty")  # as Py4J does
        return line.split()

    open(os.environ["GATE"] + "/begun", "w").close()
    executors(2)
    step("tasks run", lambda: executors(0))
    context.log_result("executors", executors(2))
"""
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("m") / "data") as started:
        yield started


class Job:
    """An application of two executors that stands at `step`."""

    def __init__(self, server: Server, engine: Path, folder: Path, step: str, *options: str) -> None:
        self.server, self.gate, self.step = server, folder, step
        (folder / "work.py").write_text(CODE)
        words = variables(engine, folder, step)
        done = server.metier(
            "run", "work.py:work", "--kind", "spark", "--replicas", "2", "--detach", "-o", "json", *words, *options,
            cwd=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.uid = str(json.loads(done.stdout)["metadata"]["uid"])
        until(f"it stands: {state(server, self.uid)}", self.stands)
        self.left = pod_processes(server)

    def stands(self) -> bool:
        standing = len(list(self.gate.glob("at.*")))
        if self.step == "before the driver's JVM":
            return standing == 1 and len(processes(self.server, "metier_runner.spark executor")) == 2
        if self.step == "the executors leave":
            return standing == 2
        if self.step == "before the executors":
            return standing == 2 and (self.gate / "begun").exists()
        return standing == 1

    def pid(self, part: str) -> int:
        if part.startswith("executor"):
            number = part.partition("-")[2].removesuffix("'s shim")
            pid = of_pod(self.server, f"-exec-{number}")[0]
        else:
            pid = processes(self.server, "pyspark-shell")[0]
            if part != "driver's JVM":
                pid = parent(pid)
        return parent(pid) if part.endswith("shim") else pid

    def kill(self, part: str) -> None:
        os.kill(self.pid(part), signal.SIGKILL)

    def go(self) -> None:
        (self.gate / "go").touch()

    def assert_nothing_left(self) -> None:
        assert_none_left(self.server, self.left)


LOST = {
    "driver": ("Killed(SIGKILL)", r"the driver pod \S+-driver was killed by SIGKILL"),
    "driver's shim": ("ShimLost", r"the driver pod \S+-driver was lost: the pod's supervisor was killed; .+"),
    "driver's JVM": ("Killed", r"DriverLost: the driver's JVM was killed by signal 9 \(Killed\)"),
}
EXECUTORS = ("executor-2", "executor-2's shim")
STEPS = ("before the driver's JVM", "before the executors", "tasks run", "the user's code has ended")


def assert_lost(job: Job, part: str) -> None:
    status = ended(job.server, job.uid)
    reason, words = LOST[part]
    assert (status["state"], status["reason"]) == ("error", reason), status
    assert re.fullmatch(words, status["error"]), status["error"]
    job.assert_nothing_left()


def assert_completed(job: Job, executors: list[str]) -> None:
    status = ended(job.server, job.uid)
    assert (status["state"], status["results"]) == ("completed", {"executors": executors}), status
    job.assert_nothing_left()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("part", LOST)
def test_a_lost_part_of_the_driver_is_the_runs_error(
    server: Server, engine: Path, tmp_path: Path, step: str, part: str
) -> None:
    job = Job(server, engine, tmp_path, step)
    job.kill(part)
    if (step, part) == ("the user's code has ended", "driver's JVM"):
        assert_completed(job, ["1", "2"])  # nothing is wanted of it any more
    else:
        assert_lost(job, part)


def assert_replaced(job: Job) -> None:
    until("its place is taken", lambda: "executor-3" in parts(job.server, job.uid))
    if job.step == "tasks run":  # at the end of the application its JVM is given ten seconds
        until("it is there", (job.gate / "connected.3").exists)
    job.left |= pod_processes(job.server)
    job.go()
    assert_completed(job, ["1", "3"] if job.step != "the user's code has ended" else ["1", "2"])
    assert parts(job.server, job.uid)["executor-2"]["state"] == "error"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("part", EXECUTORS)
def test_a_lost_executor_is_replaced(server: Server, engine: Path, tmp_path: Path, step: str, part: str) -> None:
    job = Job(server, engine, tmp_path, step)
    job.kill(part)
    assert_replaced(job)


@pytest.mark.parametrize("nth", [0, -1], ids=["its Python", "its JVM"])
def test_a_lost_executor_that_records_its_classes_is_replaced(
    server: Server, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, nth: int
) -> None:
    engine = fake_engine(tmp_path_factory.mktemp("fake"), "17.0.1")
    job = Job(server, engine, tmp_path, "tasks run")
    os.kill(of_pod(server, "-exec-1")[nth], signal.SIGKILL)
    until("its place is taken", (job.gate / "connected.3").exists)
    job.left |= pod_processes(server)
    job.go()
    assert_completed(job, ["2", "3"])


MOST = ("--set", 'spec.spark_conf={"spark.executor.maxNumFailures": "2"}')


@pytest.mark.parametrize("step", [*STEPS, "while no server runs"])
def test_too_many_lost_executors_are_the_runs_error(server: Server, engine: Path, tmp_path: Path, step: str) -> None:
    served = step in STEPS
    job = Job(server, engine, tmp_path, step if served else "tasks run", *MOST)
    pids = [job.pid("executor-1"), job.pid("executor-2's shim")]
    if not served:
        server.kill()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    if not served:
        server.start()
    status = ended(server, job.uid)
    assert (status["state"], status["reason"]) == ("error", "ExecutorsFailed"), status
    assert re.fullmatch(r"2 executors failed, the first: pod \S+-exec-1 was killed by SIGKILL", status["error"])
    why = server.metier("why", job.uid).stdout
    assert f"metier logs {job.uid[:8]} --part executor-1" in why, why
    job.assert_nothing_left()


@pytest.mark.parametrize("step", STEPS)
def test_a_lost_server_costs_nothing(server: Server, engine: Path, tmp_path: Path, step: str) -> None:
    job = Job(server, engine, tmp_path, step)
    server.kill()
    server.start()
    job.go()
    assert_completed(job, ["1", "2"])


@pytest.mark.parametrize("part", [*LOST, *EXECUTORS])
def test_a_part_lost_while_no_server_runs(server: Server, engine: Path, tmp_path: Path, part: str) -> None:
    job = Job(server, engine, tmp_path, "tasks run")
    pid = job.pid(part)
    server.kill()
    os.kill(pid, signal.SIGKILL)
    server.start()
    assert_lost(job, part) if part in LOST else assert_replaced(job)


@pytest.mark.parametrize("step", STEPS)
def test_abort_leaves_nothing(server: Server, engine: Path, tmp_path: Path, step: str) -> None:
    job = Job(server, engine, tmp_path, step)
    assert server.metier("abort", job.uid).returncode == 0
    assert state(server, job.uid)["state"] == "aborted"
    job.assert_nothing_left()


def test_an_interrupt_and_its_answer_end_the_application(server: Server, engine: Path, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(
        CODE.replace("executors(2)\n    step", "print(*executors(2), flush=True)\n    step")
    )
    words = ["work.py:work", "--kind", "spark", "--replicas", "2", "--name", "asked"]
    with at_terminal(server, tmp_path, "run", *words, *variables(engine, tmp_path, "tasks run")) as (process, master):
        read_until(master, lambda said: b"1 2\r\n" in said)
        left = pod_processes(server)
        [run] = json.loads(server.metier("get", "runs", "--name", "asked", "-o", "json").stdout)["runs"]
        interrupt_and_confirm(process, master)
    uid = run["metadata"]["uid"]
    assert state(server, uid)["state"] == "aborted"
    assert_none_left(server, left)
    # What a role asks for whose function says nothing: its heap of 512m and the overhead.
    described = server.metier("describe", uid).stdout
    for part in ("driver", "executor-1", "executor-2"):
        assert re.search(rf"^  {part} .* asks 250m cpu +896Mi ", described, re.M), described


def test_an_executor_that_stays_behind_its_run_is_removed_and_its_log_is_kept(
    engine: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("m") / "data"
    with running(data, env={"METIER_RESOURCE_TTL": "8s"}) as server:
        job = Job(server, engine, tmp_path, "the executors leave")
        assert ended(server, job.uid)["state"] == "completed"

        def logs() -> list[str]:
            return [server.metier("logs", job.uid, "--part", f"executor-{n}").stdout for n in (1, 2)]

        said = logs()
        assert all(f"executor {n + 1} waits for the driver" in text for n, text in enumerate(said)), said
        until("they are removed", lambda: all(one["state"] != "running" for one in parts(server, job.uid).values()))
        assert [parts(server, job.uid)[f"executor-{n}"]["state"] for n in (1, 2)] == ["removed"] * 2
        assert logs() == said, "their pods are gone"
        until("the run is cleaned", lambda: not list((data / "logs").rglob("*@held")))
        assert logs() == said
        job.assert_nothing_left()
