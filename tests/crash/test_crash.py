"""kill -9 of the server at every declared point, of shim, zygote and user process, and what is left."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.server import Server, kill_tree_of, running

from crash.sweep import (
    LINES,
    SCENARIOS,
    Trial,
    check,
    declared_points,
    run_trial,
    submit_body,
    wait_for_terminal,
)

# The gate is a program of its own: test_faults.py kills it; test_deployments.py deploys, test_cron.py ticks.
ELSEWHERE = ("gate/", "deploy/", "cron/")
POINTS = [point for point in declared_points("src") if not point.startswith(ELSEWHERE)]


# Points that only time reaches: a retry waits at least 30 s.
SLOW_POINTS = {"run/retry_committed"}


@pytest.mark.parametrize("point", [p for p in POINTS if p not in SLOW_POINTS])
def test_server_killed_at(point: str, tmp_path: Path) -> None:
    for scenario in SCENARIOS:
        trial = run_trial(tmp_path / scenario.__name__, point, scenario)
        print(f"{point}: {scenario.__name__}: reached {trial.reached}, killed {trial.killed}, {trial.problems}")
        assert not trial.problems
        if trial.reached:
            assert trial.killed, "reached, but the server lived on"
            return
    raise AssertionError("a declared point that no scenario reaches")


def test_server_killed_with_many_runs_in_flight(tmp_path: Path) -> None:
    count = 1000 if os.environ.get("METIER_TEST_ALL") else 60
    seed = int(os.environ.get("METIER_SEED", "1"))
    choose = random.Random(seed)
    print(f"seed {seed}")
    server = Server(tmp_path / "data").start()
    acknowledged: list[tuple[str, Path, int]] = []

    def submit(index: int) -> None:
        uid, marker, code = uuid.uuid4().hex, tmp_path / f"marker-{index}", choose.choice([0, 0, 3])
        try:
            if server.call("POST", "/api/v1/submit_job", submit_body(uid, marker, code), timeout=60).status == 200:
                acknowledged.append((uid, marker, code))
        except OSError:
            return

    try:
        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(submit, i) for i in range(count)]
            for _ in range(2):
                time.sleep(choose.uniform(0.2, 0.8))
                server.kill()
                server.start()
            for job in jobs:
                job.result()
        server.kill()
        server.start()
        assert acknowledged
        for uid, _, _ in acknowledged:
            wait_for_terminal(server, uid)
        for uid, marker, code in acknowledged:
            trial = Trial("in flight", acknowledged=True)
            check(server, trial, uid, marker, code)
            assert not trial.problems, (uid, trial.problems)
        assert server.stop() == 0
    finally:
        kill_tree_of(str(tmp_path))


def test_live_pods_are_adopted_by_the_next_server(tmp_path: Path) -> None:
    """Pods that read from a pipe without a writer; the server dies, the next one has each of them, and sees its end."""
    count = 1000 if os.environ.get("METIER_TEST_ALL") else 40
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    server = Server(tmp_path / "data").start()

    def submit(index: int) -> None:
        metadata = {"name": "reader", "project": "default"}
        spec = {"image": "none", "command": "cat", "args": [str(pipe)], "mode": "pass"}
        body = {
            "function": {"kind": "job", "metadata": metadata, "spec": spec},
            "task": {"metadata": {**metadata, "uid": f"{index:032x}"}, "spec": {}},
        }
        assert server.call("POST", "/api/v1/submit_job", body, timeout=60).status == 200

    def pods() -> dict[str, str]:
        """Those that run: when they started, by name."""
        listed = server.call("GET", "/api/metier/v1/pods?project=default").json()["pods"]
        return {
            p["metadata"]["name"]: p["status"]["startTime"] for p in listed if p["status"].get("phase") == "Running"
        }

    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(submit, range(count)))
        deadline = time.monotonic() + 300
        while len(before := pods()) < count:
            assert time.monotonic() < deadline, f"{len(before)} of {count} pods run"
            time.sleep(0.1)
        server.kill()
        server.start()
        while len(after := pods()) < count:
            assert time.monotonic() < deadline, f"{len(after)} of {count} pods are adopted"
            time.sleep(0.1)
        assert after == before
        while pods():
            assert time.monotonic() < deadline, "pods that do not end"
            with contextlib.suppress(OSError):  # nobody reads at the moment
                os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
            time.sleep(0.05)
        for index in range(count):
            run = wait_for_terminal(server, f"{index:032x}")
            assert run is not None and run["status"]["state"] == "completed", run
        assert server.stop() == 0
    finally:
        kill_tree_of(str(tmp_path))


def test_user_process_killed_by_signal(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        path = tmp_path / "kill.py"
        path.write_text("import os, signal\ndef f(context):\n    os.kill(os.getpid(), signal.SIGSEGV)\n")
        done = server.metier("run", f"{path}:f", "--kind", "job", "-o", "json")
        assert done.returncode == 1
        assert json.loads(done.stdout)["status"]["reason"] == "Killed(SIGSEGV)"


@pytest.mark.parametrize("victim", ["metier-shim", "metier_runner.zygote"])
def test_helpers_killed_while_a_run_is_alive(victim: str, tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        path = tmp_path / "wait.py"
        path.write_text(
            "import os, time\ndef f(context, go: str):\n    print('up', flush=True)\n"
            "    while not os.path.exists(go):\n        time.sleep(0.02)\n    context.log_result('ok', 1)\n"
        )
        go = tmp_path / "go"
        done = server.metier("run", f"{path}:f", "--kind", "job", "-p", f"go={go}", "--detach", "-o", "json")
        assert done.returncode == 0, done.stderr
        uid = json.loads(done.stdout)["metadata"]["uid"]
        while b"up" not in server.call("GET", f"/api/v1/projects/default/logs/{uid}?offset=0").body:
            pass
        killed = 0
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_text(errors="replace")
                    where = (entry / "environ").read_text(errors="replace") + command + str((entry / "cwd").readlink())
                except OSError:
                    continue
                # A forked pod has its zygote's command line; the zygote itself is the server's child.
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if "zygote" in victim and parent != server.process.pid:  # type: ignore[union-attr]
                    continue
                if victim in command.replace("\0", " ") and str(tmp_path) in where:
                    os.kill(int(entry.name), signal.SIGKILL)
                    killed += 1
        assert killed, "no such process"
        go.touch()
        run = wait_for_terminal(server, uid)
        assert run is not None
        if victim == "metier-shim":
            assert run["status"]["state"] in ("error", "completed")
            if run["status"]["state"] == "error":
                assert run["status"]["reason"] == "ShimLost"
        else:
            assert run["status"]["state"] == "completed"


def test_a_damaged_database_is_refused_by_name(tmp_path: Path) -> None:
    server = Server(tmp_path / "data").start()
    server.stop()
    database = next((tmp_path / "data").glob("*.db"))
    copy = tmp_path / "copy.db"
    shutil.copy(database, copy)
    damaged = bytearray(database.read_bytes())
    damaged[4096:4196] = os.urandom(100)
    database.write_bytes(bytes(damaged))
    done = server.metier("server", "--data", str(server.data), timeout=20)
    assert done.returncode == 2
    assert database.name in done.stderr
    shutil.copy(copy, database)
    server.start()
    assert server.stop() == 0


def test_log_survives_a_server_that_dies_while_it_is_followed(tmp_path: Path) -> None:
    server = Server(tmp_path / "data").start()
    try:
        uid, marker = uuid.uuid4().hex, tmp_path / "marker"
        assert server.call("POST", "/api/v1/submit_job", submit_body(uid, marker)).status == 200
        server.kill()
        server.start()
        assert wait_for_terminal(server, uid)["status"]["state"] == "completed"  # type: ignore[index]
        log = server.call("GET", f"/api/v1/projects/default/logs/{uid}?offset=0&size=-1").body.decode()
        assert log.count("line ") == LINES
        half = len(log) // 2
        again = server.call("GET", f"/api/v1/projects/default/logs/{uid}?offset={half}&size=-1").body.decode()
        assert again == log[half:]
    finally:
        server.stop()
        kill_tree_of(str(tmp_path))
