"""Kind mpijob on a real MPI: ranks in their pods, logs and results, the loss of each part, abort, adoption.

The MPI is this machine's Open MPI 4; with METIER_TEST_ALL=1 also Open MPI 5 and MPICH from registry packages.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.gang import assert_nothing_runs, ended, parts, pods_of_runs, processes, shared_memory, state, wait_for
from support.server import BINARY, Server, kill_tree_of, running
from support.terminal import at_terminal, interrupt_and_confirm, read_until

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
ALL = os.environ.get("METIER_TEST_ALL") == "1"
ENVIRONMENTS = {"Open MPI 4": "venv-mpi", "Open MPI 5": "venv-mpi5", "MPICH": "venv-mpich"}

CODE = """
import os, socket, sys, time

def allreduce(context):
    from mpi4py import MPI
    import numpy
    world = MPI.COMM_WORLD
    total = numpy.zeros(1)
    world.Allreduce(numpy.array([world.rank + 1.0]), total)
    shared = sorted({line.split()[-1] for line in open("/proc/self/maps") if "/dev/shm/" in line})
    print("rank", world.rank, "of", world.size, "on", socket.gethostname(), "total", int(total[0]), flush=True)
    hosts = world.gather(socket.gethostname())
    pods = world.gather(os.environ["METIER_POD_NAME"])
    segments = world.gather(shared)
    known = world.gather([context.rank, context.size, context.local_rank, context.is_logging_worker])
    torch = world.gather([os.environ[n] for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")])
    context.log_result("total", int(total[0]))
    context.log_result("by", world.rank)
    context.log_result("seen", {"hosts": hosts, "pods": pods, "segments": segments, "known": known, "torch": torch})

def raises(context):
    from mpi4py import MPI
    if MPI.COMM_WORLD.rank == 1:
        raise ValueError("bad number")
    MPI.COMM_WORLD.Barrier()

def early(context):
    if context.rank == 1:
        raise ValueError("before MPI")
    from mpi4py import MPI
    MPI.COMM_WORLD.Barrier()

def leaves(context):
    from mpi4py import MPI
    MPI.COMM_WORLD.Barrier()
    if MPI.COMM_WORLD.rank == 1:
        os._exit(3)
    MPI.COMM_WORLD.Barrier()

def aborts(context):
    from mpi4py import MPI
    MPI.COMM_WORLD.Barrier()
    if MPI.COMM_WORLD.rank == 1:
        MPI.COMM_WORLD.Abort(7)
    MPI.COMM_WORLD.Barrier()

def writes_logs(context):
    from mpi4py import MPI
    if MPI.COMM_WORLD.rank == 0:
        for name in ("HOROVOD_TIMELINE", "HOROVOD_AUTOTUNE_LOG"):
            with open(os.environ[name], "w") as file:
                file.write(name)
    MPI.COMM_WORLD.Barrier()

def fails_once(context, marker: str):
    from mpi4py import MPI
    again = MPI.COMM_WORLD.bcast(os.path.exists(marker))
    if not again:
        if MPI.COMM_WORLD.rank == 1:
            with open(marker, "w") as file:
                file.write(os.environ["METIER_POD_NAME"])
            raise ValueError("the first time")
        MPI.COMM_WORLD.Barrier()
    context.log_result("pods", MPI.COMM_WORLD.gather(os.environ["METIER_POD_NAME"]))

def works(context, seconds: float = 600):
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    print("begun", world.rank, flush=True)
    until = time.monotonic() + seconds
    while world.bcast(time.monotonic() < until):
        time.sleep(0.05)
    context.log_result("done", world.size)

def terminated(context):
    import signal
    from mpi4py import MPI
    def leave(number, frame):
        print("asked to end", MPI.COMM_WORLD.rank, flush=True)
        time.sleep(0.5)  # a checkpoint takes a while: being asked again would come into it
        os._exit(0)
    signal.signal(signal.SIGTERM, leave)
    MPI.COMM_WORLD.Barrier()
    print("begun", MPI.COMM_WORLD.rank, flush=True)
    time.sleep(600)
"""


def environments() -> list[Any]:
    out = []
    for name, folder in ENVIRONMENTS.items():
        missing = not (BUILD / folder / "bin/python").exists()
        slow = name != "Open MPI 4" and not ALL
        reason = "METIER_TEST_ALL=1 tries it" if slow else f"{folder} is missing: scripts/setup"
        out.append(pytest.param(folder, id=name, marks=[pytest.mark.skipif(slow or missing, reason=reason)]))
    return out


def interpreter(environment: str) -> Path:
    if environment == "venv-mpi" and shutil.which("mpirun") is None:
        pytest.skip("no mpirun on this machine: scripts/setup installs openmpi-bin")
    return BUILD / environment / "bin/python"


@pytest.fixture(scope="module", params=environments())
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    python = str(interpreter(request.param))
    with running(tmp_path_factory.mktemp("m") / "data", python=python) as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("code")
    (path / "work.py").write_text(CODE)
    path.chmod(0o755)
    return path


def run(
    server: Server, folder: Path, handler: str, *options: str, replicas: int = 2
) -> tuple[int, dict[str, Any], str]:
    done = server.metier(
        "run", f"work.py:{handler}", "--kind", "mpijob", "--replicas", str(replicas), *options, "-o", "json", cwd=folder
    )
    return done.returncode, json.loads(done.stdout) if done.stdout.strip().startswith("{") else {}, done.stderr


def started(server: Server, folder: Path, handler: str, *options: str) -> str:
    """A detached run whose two ranks have begun; its uid."""
    done = server.metier(
        "run",
        f"work.py:{handler}",
        "--kind",
        "mpijob",
        "--replicas",
        "2",
        "--detach",
        "-o",
        "json",
        *options,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    uid = str(json.loads(done.stdout)["metadata"]["uid"])
    until = time.monotonic() + 60
    while server.metier("logs", uid).stdout.count("begun") < 2:
        assert time.monotonic() < until, server.metier("logs", uid).stdout
        time.sleep(0.05)
    return uid


def test_ranks_share_memory_in_their_own_pods(server: Server, folder: Path) -> None:
    code, run_, err = run(server, folder, "allreduce", "--set", "spec.slots_per_worker=2")
    assert code == 0, err
    results = run_["status"]["results"]
    assert results["total"] == 10 and results["by"] == 0
    job = run_["status"]["host"].removesuffix("-launcher")
    seen = results["seen"]
    assert seen["pods"] == [f"{job}-worker-0", f"{job}-worker-0", f"{job}-worker-1", f"{job}-worker-1"]
    # The last number of the host name is 0 for rank 0 alone: whoever judges by it takes one rank for the one that logs.
    assert [host.rsplit("-", 1)[1] == "0" for host in seen["hosts"]] == [True, False, False, False]
    assert seen["known"] == [[0, 4, 0, True], [1, 4, 1, False], [2, 4, 0, False], [3, 4, 1, False]]
    assert [one[:4] for one in seen["torch"]] == [[str(n), "4", str(n % 2), "127.0.0.1"] for n in range(4)]
    assert len({one[4] for one in seen["torch"]}) == 1
    assert all(seen["segments"]), "no shared segment is mapped"
    assert_nothing_runs(server)


def test_logs_are_joined_and_kept_per_rank(server: Server, folder: Path) -> None:
    code, run_, err = run(server, folder, "allreduce")
    assert code == 0, err
    uid = run_["metadata"]["uid"]
    log = server.metier("logs", uid).stdout
    for rank in (0, 1):
        assert f"[rank {rank}] rank {rank} of 2 on " in log
        own = server.metier("logs", uid, "--part", f"rank-{rank}").stdout
        assert own.startswith(f"rank {rank} of 2 on ") and own.count("\n") == 1
    wrong = server.metier("logs", uid, "--part", "rank-9")
    assert (
        wrong.returncode == 3
        and "--part" in wrong.stderr
        and "no part 'rank-9'" in wrong.stderr
        and "worker-1" in wrong.stderr
    )
    known = parts(server, uid)
    assert list(known) == ["launcher", "worker-0", "worker-1", "rank-0", "rank-1"]
    assert {one["state"] for one in known.values()} == {"completed"}
    assert known["rank-1"]["pod"].endswith("-worker-1") and known["rank-1"]["peak_memory"] > 1 << 20
    assert "rank-1" in server.metier("describe", uid).stdout
    stored = run_["status"]["parts"]
    assert [one["name"] for one in stored] == list(known)


def test_an_exception_in_one_rank_ends_the_job_with_its_error(server: Server, folder: Path) -> None:
    code, run_, _ = run(server, folder, "raises")
    assert code == 1
    status = run_["status"]
    assert status["state"] == "error" and status["reason"] == "HandlerError"
    assert status["error"] == "rank 1: ValueError: bad number"
    assert status["failure"]["rank"] == 1
    assert_nothing_runs(server)


def test_a_failure_is_told_in_the_terminal_and_the_log_stays_whole(server: Server, folder: Path) -> None:
    words = ["run", "work.py:raises", "--kind", "mpijob", "--replicas", "2"]
    done = server.metier(*words, cwd=folder)
    assert done.returncode == 1 and "ValueError in your code (rank 1)" in done.stderr, done.stderr
    log = server.metier("logs", "@-1").stdout  # what the terminal may have left out is there
    assert "[rank 1] Traceback" in log and "[rank 1] ValueError: bad number" in log
    assert "metier: rank 1 in pod" in log


def test_an_exception_before_mpi_begins_does_not_hang_the_other_ranks(server: Server, folder: Path) -> None:
    code, run_, _ = run(server, folder, "early")
    assert code == 1
    assert (run_["status"]["reason"], run_["status"]["error"]) == ("HandlerError", "rank 1: ValueError: before MPI")
    assert_nothing_runs(server)


def test_a_rank_that_leaves_ends_the_job_with_its_code(server: Server, folder: Path) -> None:
    code, run_, _ = run(server, folder, "leaves")
    assert code == 1
    status = run_["status"]
    assert status["reason"] == "RankFailed"
    assert re.fullmatch(r"rank 1 in pod \S+-worker-1 ended with exit code 3", status["error"])
    assert status["failure"]["exit_code"] == 3
    why = server.metier("why", run_["metadata"]["uid"]).stdout
    assert "one of its ranks failed" in why and "-worker-1" in why


def test_mpi_abort_ends_the_job_with_its_code(server: Server, folder: Path) -> None:
    code, run_, _ = run(server, folder, "aborts")
    assert code == 1
    status = run_["status"]
    assert status["reason"] == "RankFailed"
    # Open MPI 5 lets the rank itself end with its code, the others kill it.
    expected = (
        r"rank 1 in pod \S+-worker-1 ended with exit code 7|mpirun ended every rank with code 7: a rank called .*"
    )
    assert re.fullmatch(expected, status["error"]), status["error"]
    assert status["failure"]["exit_code"] == 7
    assert_nothing_runs(server)


@pytest.mark.parametrize("part", ["rank", "worker", "launcher", "mpirun"])
def test_the_loss_of_a_part_ends_the_job_and_is_named(server: Server, folder: Path, part: str) -> None:
    uid = started(server, folder, "works")
    victims = {
        "rank": processes(server, "metier_runner.rank mlrun"),
        "worker": processes(server, "metier-mpi wait"),
        "launcher": processes(server, "metier-mpi launch"),
        "mpirun": [
            pid for pid in processes(server, "rank --spread") if pid not in processes(server, "metier-mpi launch")
        ],
    }
    # Of the stand-ins and their mpirun the oldest is mpirun.
    ranks = [pid for pid in victims["rank"] if "metier-mpi" not in Path(f"/proc/{pid}/cmdline").read_text()]
    pid = ranks[-1] if part == "rank" else victims[part][0]
    os.kill(pid, signal.SIGKILL)
    status = ended(server, uid)
    assert status["state"] == "error"
    expected = {
        "rank": ("RankFailed", r"rank \d in pod \S+ was killed by SIGKILL"),
        "worker": ("NodeLost", r"worker pod \S+-worker-\d was lost: killed by signal 9"),
        "launcher": ("NodeLost", r"the launcher pod \S+-launcher was lost: it was killed by SIGKILL"),
        "mpirun": ("Killed", r"mpirun was killed by signal 9 \(Killed\)"),
    }[part]
    assert (status["reason"], bool(re.fullmatch(expected[1], status["error"]))) == (expected[0], True), status["error"]
    assert_nothing_runs(server)


def test_a_deadline_ends_the_job_by_its_name(server: Server, folder: Path) -> None:
    code, document, _ = run(server, folder, "works", "--set", "spec.active_deadline_seconds=3")
    assert code == 1
    assert document["status"]["state"] == "error"
    assert document["status"]["reason"] == "DeadlineExceeded"
    why = server.metier("why", document["metadata"]["uid"]).stdout
    assert "metier help DeadlineExceeded" in why
    assert_nothing_runs(server)
    code, _, said = run(server, folder, "works", "--set", "spec.active_deadline_seconds=0")
    assert code == 2
    assert "spec.active_deadline_seconds" in said


def test_abort_lets_ranks_end_themselves_and_leaves_nothing(server: Server, folder: Path) -> None:
    uid = started(server, folder, "terminated")
    pods = {one["pod"] for one in parts(server, uid).values()}
    assert shared_memory(server, pods), "it looks in the wrong place"
    done = server.metier("abort", uid)
    assert done.returncode == 0, done.stderr
    assert state(server, uid)["state"] == "aborted"
    for rank in (0, 1):
        log = server.metier("logs", uid, "--part", f"rank-{rank}").stdout
        assert log.count("asked to end") == 1, log
    assert pods <= pods_of_runs(server)
    assert_nothing_runs(server)


@pytest.mark.parametrize("environment", environments())
def test_a_silent_job_tells_where_its_ranks_are(folder: Path, tmp_path: Path, environment: str) -> None:
    python = interpreter(environment)
    with running(tmp_path / "data", python=str(python), env={"METIER_SILENCE": "1s"}) as own:
        uid = started(own, folder, "terminated")
        until = time.monotonic() + 30
        said = ""
        places = [rf"rank {rank} +work.py:\d+ in terminated" for rank in (0, 1)]
        # A rank that has only printed its word may still be above that line.
        while "Silent" not in said or not all(re.search(place, said) for place in places):
            assert time.monotonic() < until, said
            time.sleep(0.2)
            said = own.metier("why", uid).stdout
        assert own.metier("abort", uid).returncode == 0


NATIVE = """
#include <metier/handler.h>
#include <chrono>
#include <iostream>
#include <thread>
METIER_HANDLER(waits, [](metier::Context& context) {
  std::cout << "begun " << context.rank() << " of " << context.size() << ", slot " << context.local_rank()
            << (context.is_logging_worker() ? ", logs" : ", silent") << std::endl;
  std::this_thread::sleep_for(std::chrono::seconds(600));
  return metier::ok();
});
"""


def test_ctrl_c_at_the_terminal_aborts_the_job_and_leaves_nothing(server: Server, folder: Path) -> None:
    words = ("run", "work.py:terminated", "--kind", "mpijob", "--replicas", "2", "--name", "interrupted")
    with at_terminal(server, folder, *words) as (process, master):
        seen = read_until(master, lambda said: said.count(b"begun") == 2)
        seen += interrupt_and_confirm(process, master)
    assert seen.count(b"asked to end") == 2, seen
    runs = json.loads(server.metier("get", "runs", "-o", "json").stdout)["runs"]
    assert [one["status"]["state"] for one in runs if one["metadata"]["name"] == "interrupted"] == ["aborted"]
    assert_nothing_runs(server)


def test_native_ranks_know_their_place_and_tell_where_they_are(folder: Path, tmp_path: Path) -> None:
    python = interpreter("venv-mpi")
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    (tmp_path / "fit.cc").write_text(NATIVE)
    words = ["g++", "-std=c++17", "-shared", "-fPIC", "-I", str(ROOT / "include"), "fit.cc", "-o", "fit.so"]
    subprocess.run(words, cwd=tmp_path, check=True)
    with running(tmp_path / "data", python=str(python), env={"METIER_SILENCE": "1s"}) as own:
        options = ("--kind", "mpijob", "--replicas", "2", "--set", "spec.slots_per_worker=2", "--detach", "-o", "json")
        done = own.metier("run", "fit.so:waits", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        uid = str(json.loads(done.stdout)["metadata"]["uid"])
        places = [f"[rank {n}] begun {n} of 4, slot {n % 2}, {'silent' if n else 'logs'}" for n in range(4)]
        wait_for(lambda: all(place in own.metier("logs", uid).stdout for place in places))
        where = [rf"rank {n} +in native code, whose stack cannot be read: " for n in range(4)]
        wait_for(lambda: all(re.search(one, own.metier("why", uid).stdout) for one in where))
        assert own.metier("abort", uid).returncode == 0
        assert_nothing_runs(own)


def test_a_killed_server_adopts_a_running_job(server: Server, folder: Path) -> None:
    uid = started(server, folder, "works", "-p", "seconds=3")
    server.kill()
    server.start()
    status = ended(server, uid)
    assert status["state"] == "completed", status
    assert status["results"]["done"] == 2
    assert parts(server, uid)["rank-1"]["state"] == "completed"
    assert_nothing_runs(server)


def test_the_launcher_runs_ranks_when_asked_and_pods_stay_when_asked(server: Server, folder: Path) -> None:
    function = {
        "kind": "mpijob",
        "metadata": {"name": "work", "project": "default"},
        "spec": {
            "command": str(folder / "work.py"),
            "replicas": 1,
            "run_launcher_as_worker": True,
            "launcher_creation_policy": "WaitForWorkersReady",
            "clean_pod_policy": "None",
        },
    }
    (folder / "function.json").write_text(json.dumps(function))
    done = server.metier("run", "-f", "function.json", "--handler", "allreduce", "-o", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    run_ = json.loads(done.stdout)
    seen = run_["status"]["results"]["seen"]
    assert [pod.split("-")[-2:] for pod in seen["pods"]] == [
        [seen["pods"][0].split("-")[-2], "launcher"],
        ["worker", "0"],
    ]
    assert [host.rsplit("-", 1)[1] == "0" for host in seen["hosts"]] == [True, False]
    uid = run_["metadata"]["uid"]
    waiting = processes(server, "metier-mpi wait")
    # Whatever would end its pod has come to that by now.
    server.kill()
    server.start()
    code, _, err = run(server, folder, "allreduce")
    assert code == 0, err
    assert parts(server, uid)["worker-0"]["state"] == "running"
    assert waiting and processes(server, "metier-mpi wait") == waiting
    assert server.metier("delete", uid, "--yes").returncode == 0
    assert_nothing_runs(server)


STAYS = ("--set", 'spec.clean_pod_policy="None"')


def test_pods_that_stay_are_removed_with_the_runs_resources(server: Server, folder: Path) -> None:
    code, run_, err = run(server, folder, "allreduce", *STAYS)
    assert code == 0, err
    uid = run_["metadata"]["uid"]
    assert {parts(server, uid)[f"worker-{n}"]["state"] for n in (0, 1)} == {"running"}
    server.kill()
    server.start(env={"METIER_RESOURCE_TTL": "0s"})
    try:
        assert_nothing_runs(server)
        wait_for(lambda: {parts(server, uid)[f"worker-{n}"]["state"] for n in (0, 1)} == {"removed"})
        assert server.metier("logs", uid, "--part", "rank-1").stdout.startswith("rank 1 of 2 on ")
    finally:
        server.kill()
        server.start()


def test_abort_ends_pods_that_would_stay(server: Server, folder: Path) -> None:
    uid = started(server, folder, "works", *STAYS)
    assert server.metier("abort", uid).returncode == 0
    assert state(server, uid)["state"] == "aborted"
    assert_nothing_runs(server)


WAITS = """
import sys
from mpi4py import MPI
import beside
assert sys.argv[1:] == ["-m", "x"], sys.argv
print("begun", MPI.COMM_WORLD.rank, flush=True)
MPI.COMM_WORLD.Barrier()
if MPI.COMM_WORLD.rank == 1:
    raise ValueError("bad number")
MPI.COMM_WORLD.Barrier()
"""


@pytest.mark.parametrize(
    "words", ["{python} -u {code}/train.py", "{python} -m train", "{python} -W ignore -c {text}", "{code}/train"]
)
def test_an_exception_ends_a_program_of_any_form(server: Server, tmp_path: Path, words: str) -> None:
    (tmp_path / "beside.py").touch()
    (tmp_path / "train.py").write_text(WAITS)
    program = tmp_path / "train"
    program.write_text(f"#!{server.python} -u\n{WAITS}")
    program.chmod(0o755)
    filled = [word.format(python=server.python, code=tmp_path, text=WAITS) for word in words.split()]
    job = mpijob()
    launcher = job["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0]
    launcher["command"] = ["mpirun", *filled, "-m", "x"]
    launcher["env"].append({"name": "PYTHONPATH", "value": str(tmp_path)})  # for -m and -c
    launcher["workingDir"] = str(tmp_path)
    job["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"] = 2
    (tmp_path / "mpijob.json").write_text(json.dumps(job))
    done = server.metier("run", "-f", "mpijob.json", "-o", "json", cwd=tmp_path)
    assert done.returncode == 1, (done.stdout, done.stderr)
    status = json.loads(done.stdout)["status"]
    assert status["reason"] == "RankFailed", status
    assert re.fullmatch(r"rank 1 in pod \S+-worker-1 ended with exit code 1", status["error"]), status
    assert_nothing_runs(server)


def mpijob() -> dict[str, Any]:
    launcher = {
        "image": "i",
        "command": ["mpirun", "sh", "-c", "echo A=$A B=$B of $METIER_SIZE"],
        "env": [{"name": "B", "value": "2"}],
    }
    roles = {
        "Launcher": {"template": {"spec": {"hostNetwork": True, "containers": [launcher]}}},
        "Worker": {"replicas": 1, "template": {"spec": {"containers": [{"image": "i"}]}}},
    }
    return {
        "apiVersion": "kubeflow.org/v2beta1",
        "kind": "MPIJob",
        "metadata": {"name": "hello"},
        "spec": {"mpiReplicaSpecs": roles},
    }


def test_an_mpijob_document_runs_with_the_flags_beside_it(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mpijob.json").write_text(json.dumps(mpijob()))
    done = server.metier("run", "-f", "mpijob.json", "--replicas", "2", "-e", "A=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert all(f"[rank {rank}] A=1 B=2 of 2" in said for rank in (0, 1)), said
    assert "Launcher.template.spec.hostNetwork has no effect" in said


def test_an_mpijob_document_over_rest_says_what_has_no_effect(server: Server) -> None:
    task = {"metadata": {"name": "hello", "project": "default"}, "spec": {}}
    answer = server.call("POST", "/api/v1/submit_job", {"function": mpijob(), "task": task})
    uid = answer.json()["data"]["metadata"]["uid"]
    assert ended(server, uid)["state"] == "completed"
    events = server.call("GET", f"/api/metier/v1/runs/{uid}/timeline?project=default").json()["events"]
    ignored = [e["detail"]["message"] for e in events if e["detail"].get("reason") == "FieldIgnored"]
    assert any("Launcher.template.spec.hostNetwork has no effect" in line for line in ignored), events


def test_what_cannot_be_is_refused(server: Server, folder: Path) -> None:
    def refused(*options: str, **spec: Any) -> str:
        function = {
            "kind": "mpijob",
            "metadata": {"name": "w", "project": "default"},
            "spec": {"command": "work.py", **spec},
        }
        (folder / "wrong.json").write_text(json.dumps(function))
        done = server.metier("run", "-f", "wrong.json", "--handler", "allreduce", *options, cwd=folder)
        assert done.returncode == 2, (done.returncode, done.stderr)
        return done.stderr

    assert "--replicas" in refused("--replicas", "0")
    assert "an MPI job has a fixed number of workers" in refused("--min", "1", "--max", "2")
    assert "option '--hostfile' has no meaning here" in refused(mpi_args=["--hostfile", "x"])
    assert "slots_per_worker: 0 is not a whole number" in refused("-p", "slots_per_worker=0")
    assert "clean_pod_policy: 'Never'" in refused(clean_pod_policy="Never")
    done = server.metier("run", "work.py:allreduce", "--kind", "mpijob", "--replicas", "2", "--cpu", "5000", cwd=folder)
    assert done.returncode == 5 and "cpu" in done.stderr


def test_kinds_says_what_the_default_environment_lacks(server: Server, tmp_path: Path) -> None:
    def said(of: Server) -> str:
        lines = of.metier("kinds", "--check").stdout.splitlines()
        return next(line for line in lines if line.startswith("mpijob"))

    assert "MPI" in said(server) and "mpi4py" not in said(server)
    with running(tmp_path / "data") as other:
        assert f"no mpi4py, which Python programs need: {other.python} -m pip install mpi4py" in said(other)


def test_describe_shows_what_each_role_asks_for_and_when_it_ran(server: Server, folder: Path) -> None:
    code, run_, err = run(server, folder, "allreduce", "--cpu", "100m")
    assert code == 0, err
    uid = run_["metadata"]["uid"]
    known = parts(server, uid)
    assert known["worker-1"]["requests"] == {"cpu": "100m", "memory": "64Mi"}
    text = server.metier("describe", uid).stdout
    assert re.search(r"worker-1 .* asks +100m cpu +64Mi", text), text
    for part in known:
        assert re.search(rf"^  {part} +\S.* from \+\S", text, re.M), text


@pytest.mark.skipif(not ALL, reason="METIER_TEST_ALL=1 tries it: a threshold is one minute at least")
def test_a_job_that_executes_too_long_is_ended(server: Server, folder: Path) -> None:
    code, run_, err = run(server, folder, "works", "--set", 'spec.state_thresholds={"executing":"1m"}')
    assert code != 0, err
    status = run_["status"]
    assert (status["state"], status["reason"]) == ("aborted", "ThresholdExceeded"), status
    assert "executing" in status["error"]
    assert_nothing_runs(server)


@pytest.mark.skipif(not ALL, reason="METIER_TEST_ALL=1 tries it: a run waits 30 s before it is tried again")
def test_a_job_that_failed_is_tried_again_with_pods_of_its_own(server: Server, folder: Path, tmp_path: Path) -> None:
    options = ("--retry", "1", "-p", f"marker={tmp_path / 'marker'}")
    code, run_, err = run(server, folder, "fails_once", *options)
    assert code == 0, err
    status = run_["status"]
    assert status["state"] == "completed" and status["retry_count"] == 1, status
    pods = status["results"]["pods"]
    first = (tmp_path / "marker").read_text()
    assert first.endswith("-worker-1") and len(set(pods)) == 2 and first not in pods
    assert_nothing_runs(server)


def test_the_folders_of_horovods_logs_are_there(server: Server, folder: Path, tmp_path: Path) -> None:
    absolute = tmp_path / "not" / "yet" / "tune.csv"
    logs = ("HOROVOD_TIMELINE=hvd_logs/trace.log", f"HOROVOD_AUTOTUNE_LOG={absolute}")
    code, run_, err = run(server, folder, "writes_logs", *(word for log in logs for word in ("-e", log)))
    assert code == 0, err
    assert (Path(run_["spec"]["output_path"]) / "hvd_logs/trace.log").read_text() == "HOROVOD_TIMELINE"
    assert absolute.read_text() == "HOROVOD_AUTOTUNE_LOG"


def test_another_mpi_than_the_function_asks_for_is_told(server: Server, folder: Path) -> None:
    mpich = "mpich" in server.python
    other, own = ("OpenMPI", "MPICH") if mpich else ("MPICH", "OpenMPI")
    code, run_, _ = run(server, folder, "allreduce", "--set", f'spec.mpi_implementation="{other}"')
    assert code != 0
    status = run_["status"]
    assert status["reason"] == "EngineMissing", status
    assert f"spec.mpi_implementation: '{other}' is asked for, and the MPI here is" in status["error"]
    code, run_, err = run(server, folder, "allreduce", "--set", f'spec.mpi_implementation="{own}"')
    assert code == 0, err


def test_a_library_of_another_mpi_is_refused_before_the_start(server: Server, folder: Path, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    mpich = "mpich" in server.python
    soname, other = ("libmpi.so.40", "Open MPI") if mpich else ("libmpich.so.12", "MPICH")
    (tmp_path / "fit.cc").write_text(
        "#include <metier/handler.h>\nMETIER_HANDLER(fit, [](metier::Context&) { return metier::ok(); });\n"
    )
    library, handler = tmp_path / soname, tmp_path / "fit.so"
    shared = ["g++", "-std=c++17", "-shared", "-fPIC"]
    subprocess.run([*shared, "-x", "c++", "/dev/null", f"-Wl,-soname,{soname}", "-o", str(library)], check=True)
    words = [
        "-I",
        str(ROOT / "include"),
        "fit.cc",
        "-Wl,--no-as-needed",
        str(library),
        f"-Wl,-rpath,{tmp_path}",
        "-o",
        str(handler),
    ]
    subprocess.run([*shared, *words], cwd=tmp_path, check=True)

    def refused(code: int, run_: dict[str, Any]) -> str:
        assert code != 0 and run_["status"]["reason"] == "EngineMissing", run_["status"]
        return str(run_["status"]["error"])

    said = refused(*run(server, folder, "allreduce", "-e", f"MPI4PY_LIBMPI={library}")[:2])
    assert f"MPI4PY_LIBMPI is {library}, a library of {other}, and mpirun is " in said
    said = refused(*run(server, folder, "allreduce", "-e", f"MPI4PY_LIBMPI={tmp_path}/none.so")[:2])
    assert f"MPI4PY_LIBMPI is {tmp_path}/none.so, which is not there, and mpirun is " in said
    done = server.metier("run", "fit.so:fit", "--kind", "mpijob", "--replicas", "2", "-o", "json", cwd=tmp_path)
    said = refused(done.returncode, json.loads(done.stdout))
    assert f"fit.so is linked against {library}, a library of {other}, and mpirun is " in said
    assert_nothing_runs(server)


def test_without_an_mpi_the_run_says_what_to_install(server: Server, folder: Path) -> None:
    done = server.metier(
        "run",
        "work.py:allreduce",
        "--kind",
        "mpijob",
        "--replicas",
        "2",
        "-e",
        "PATH=/nonexistent",
        "-o",
        "json",
        cwd=folder,
    )
    if (Path(server.python).parent / "mpirun").exists():
        pytest.skip("this environment brings its own mpirun")
    status = json.loads(done.stdout)["status"]
    assert status["reason"] == "EngineMissing", status
    assert "apt-get install openmpi-bin" in status["error"]


@pytest.mark.parametrize("environment", environments())
def test_an_ordinary_user_runs_it_too(folder: Path, environment: str) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root to become somebody else")
    python = interpreter(environment)
    probe = subprocess.run(
        ["setpriv", "--reuid", "65534", "--clear-groups", str(python), "-c", "import mpi4py"], capture_output=True
    )
    if probe.returncode != 0:
        pytest.skip("this build folder is not readable for other users")
    home = Path(
        subprocess.run(
            ["mktemp", "-d", "/tmp/metier-mpi-XXXXXX"], capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    shutil.copy(folder / "work.py", home)
    os.chown(home, 65534, 65534)
    user = Server(home / "data", python=str(python))
    try:
        done = subprocess.run(
            ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", BINARY, "run", "work.py:allreduce", "--kind",
             "mpijob", "--replicas", "2", "--set", "spec.slots_per_worker=2", "-o", "json"],
            env=user.environment, cwd=home, capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results = json.loads(done.stdout)["status"]["results"]
        assert results["total"] == 10 and all(results["seen"]["segments"])
    finally:
        kill_tree_of(str(home))
        shutil.rmtree(home, ignore_errors=True)
