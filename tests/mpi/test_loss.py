"""The loss of each part of an MPI job at each step of its life, with an mpirun of the test's own that stops where it is told.

Real MPIs: test_mpi.py. The table of docs/reliability.md ("Distributed jobs") is this file's.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.gang import assert_nothing_runs, ended, parts, processes, state
from support.server import Server, running

STOP = """
import os, time

def step(name):
    gate = os.environ["GATE"]
    if os.environ["GATE_STEP"] == name:
        open(f"{gate}/at.{os.getpid()}", "w").close()
        while not os.path.exists(f"{gate}/go"):
            time.sleep(0.005)
"""
MPIRUN = """#!{python} -IS
import os, subprocess, sys
{stop}
words = sys.argv[1:]
if words == ["--version"]:
    print("mpirun (Open MPI) 4.1.0")
    step("before mpirun")
    sys.exit(0)
step("before the ranks")
at = words.index("-n")
ranks = {{}}
for rank in range(int(words[at + 1])):
    own = {{"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": words[at + 1]}}
    child = subprocess.Popen(words[at + 2 :], env={{**os.environ, **own}})
    ranks[child.pid] = child
code = 0
while ranks:
    pid, status = os.wait()
    del ranks[pid]
    if status and not code:
        code = os.waitstatus_to_exitcode(status)
        code = code if code > 0 else 128 - code
        for other in ranks.values():
            other.terminate()
step("after the ranks")
sys.exit(code)
"""
CODE = (
    STOP
    + """
def work(context):
    step("in the ranks")
    if context.rank == 1:
        step("a rank has ended")
    context.log_result("done", context.size)
"""
)


@pytest.fixture(scope="module")
def mpirun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fake") / "mpirun"
    path.write_text(MPIRUN.format(python=sys.executable, stop=STOP))
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("m") / "data") as started:
        yield started


class Job:
    """A job of two ranks in two pods that stands at `step`."""

    def __init__(self, server: Server, mpirun: Path, folder: Path, step: str) -> None:
        self.server, self.mpirun, self.gate = server, mpirun, folder
        (folder / "work.py").write_text(CODE)
        done = server.metier(
            "run", "work.py:work", "--kind", "mpijob", "--replicas", "2", "--detach", "-o", "json", "-e",
            f"PATH={mpirun.parent}:/usr/bin:/bin", "-e", f"GATE={folder}", "-e", f"GATE_STEP={step}", cwd=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.uid = str(json.loads(done.stdout)["metadata"]["uid"])
        standing = 2 if step == "in the ranks" else 1
        until = time.monotonic() + 60
        while len(list(folder.glob("at.*"))) < standing or (
            step == "a rank has ended" and parts(server, self.uid).get("rank-0", {}).get("state") != "completed"
        ):
            assert time.monotonic() < until, state(server, self.uid)
            time.sleep(0.01)

    def pid(self, part: str) -> int:
        if part == "mpirun":
            return processes(self.server, f"{self.mpirun} ")[0]
        words = {"rank": "metier_runner.rank mlrun", "worker": "metier-mpi wait", "launcher": "metier-mpi launch"}
        # The worker and the rank that stay to the end, where one does not.
        pid = processes(self.server, words[part.removesuffix("'s shim")])[-1]
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) if "shim" in part else pid

    def kill(self, part: str) -> None:
        os.kill(self.pid(part), signal.SIGKILL)


LOST = {
    "rank": ("RankFailed", r"rank \d in pod \S+-worker-\d was killed by SIGKILL"),
    "worker": ("NodeLost", r"worker pod \S+-worker-\d was lost: killed by signal 9"),
    "worker's shim": ("ShimLost", r"worker pod \S+-worker-\d was lost: .+"),
    "launcher": ("NodeLost", r"the launcher pod \S+-launcher was lost: it was killed by SIGKILL"),
    "launcher's shim": ("ShimLost", r".+"),
    "mpirun": ("Killed", r"mpirun was killed by signal 9 \(Killed\)"),
}
STEPS = ("before mpirun", "before the ranks", "in the ranks", "a rank has ended", "after the ranks")
CASES = [
    (step, part)
    for step in STEPS
    for part in LOST
    if not (part == "rank" and step not in ("in the ranks", "a rank has ended"))
    and not (part == "mpirun" and step == "before mpirun")
]


def assert_lost(job: Job, part: str) -> None:
    status = ended(job.server, job.uid)
    assert status["state"] == "error"
    reason, words = LOST[part]
    assert (status["reason"], bool(re.fullmatch(words, status["error"]))) == (reason, True), status["error"]
    assert_nothing_runs(job.server)


@pytest.mark.parametrize(("step", "part"), CASES)
def test_a_lost_part_is_the_runs_error(server: Server, mpirun: Path, tmp_path: Path, step: str, part: str) -> None:
    job = Job(server, mpirun, tmp_path, step)
    job.kill(part)
    assert_lost(job, part)


@pytest.mark.parametrize("step", STEPS)
def test_a_lost_server_costs_nothing(server: Server, mpirun: Path, tmp_path: Path, step: str) -> None:
    job = Job(server, mpirun, tmp_path, step)
    server.kill()
    server.start()
    (tmp_path / "go").touch()
    status = ended(server, job.uid)
    assert (status["state"], status["results"]) == ("completed", {"done": 2}), status
    assert_nothing_runs(server)


@pytest.mark.parametrize("part", LOST)
def test_a_part_lost_while_no_server_runs_is_the_runs_error(
    server: Server, mpirun: Path, tmp_path: Path, part: str
) -> None:
    job = Job(server, mpirun, tmp_path, "in the ranks")
    server.kill()
    job.kill(part)
    server.start()
    assert_lost(job, part)


@pytest.mark.parametrize("step", STEPS)
def test_abort_leaves_nothing(server: Server, mpirun: Path, tmp_path: Path, step: str) -> None:
    job = Job(server, mpirun, tmp_path, step)
    assert server.metier("abort", job.uid).returncode == 0
    assert state(server, job.uid)["state"] == "aborted"
    assert_nothing_runs(server)
