"""Kind spark on the real engine: a driver and executors as pods, what is lost and what is left."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support.server import Server


def run(server: Server, folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    done = server.metier("run", *arguments, "-o", "json", cwd=folder, timeout=300)
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr


def begin(server: Server, folder: Path, *arguments: str) -> str:
    """Submits without waiting; gives the run's uid."""
    done = server.metier("run", *arguments, "--detach", "-o", "json", cwd=folder, timeout=120)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["metadata"]["uid"])


def pods_of(server: Server, uid: str) -> dict[str, dict[str, Any]]:
    answer = server.call("GET", "/api/metier/v1/pods?project=default").json()
    return {p["metadata"]["name"]: p for p in answer["pods"] if p["metadata"]["labels"].get("mlrun/uid") == uid}


def state_of(server: Server, uid: str) -> dict[str, Any]:
    run = server.call("GET", f"/api/v1/projects/default/runs/{uid}").json()["data"]
    return dict(run["status"])


def wait_for(what: str, check: Any, seconds: float = 180) -> Any:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        found = check()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {seconds} s")


def processes_of(server: Server, pod: str = "") -> list[int]:
    """Processes of pods of this server, by their environment."""
    out = []
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if str(server.data).encode() in environment and b"METIER_POD_NAME=" + pod.encode() in environment:
            out.append(int(entry.name))
    return out


def java_of(server: Server, pod: str) -> int:
    for pid in processes_of(server, pod):
        try:
            if b"java" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
                return pid
        except OSError:
            continue
    return 0


def test_a_job_uses_both_executors_and_leaves_nothing(server: Server, folder: Path) -> None:
    code, done, errors = run(server, folder, "count.py:total", "--kind", "spark", "--replicas", "2", "-p", "n=1000")
    assert code == 0, errors
    results = done["status"]["results"]
    assert results["sum"] == 999000 + 1000
    assert results["master"] == "local-metier"
    name = done["metadata"]["name"]
    assert len(results["places"]) == 2
    assert all(place.startswith(name) and "-exec-" in place for place in results["places"])
    assert sorted(a["kind"] for a in done["status"]["artifacts"]) == [
        "artifact",
        "dataset",
    ]  # Spark's event log is kept
    wait_for("processes end", lambda: not processes_of(server), 30)


def test_an_exception_in_a_task_fails_the_run_with_its_words(server: Server, folder: Path) -> None:
    code, done, _ = run(server, folder, "count.py:fail", "--kind", "spark")
    assert code == 1
    assert done["status"]["state"] == "error"
    assert "no such luck" in done["status"]["error"]


def test_a_lost_executor_is_replaced_and_the_job_ends_well(server: Server, folder: Path) -> None:
    uid = begin(server, folder, "count.py:slow", "--kind", "spark", "--replicas", "2", "-p", "seconds=16")
    victim = wait_for(
        "an executor", lambda: java_of(server, next((n for n in pods_of(server, uid) if n.endswith("exec-2")), "none"))
    )
    wait_for("tasks", lambda: "session is ready" in server.metier("logs", uid).stdout)
    os.kill(victim, signal.SIGKILL)
    status = wait_for("the end", lambda: (s := state_of(server, uid))["state"] in ("completed", "error") and s, 240)
    assert status["state"] == "completed", status
    assert status["results"]["tasks"] == 16
    assert any(n.endswith("exec-3") for n in pods_of(server, uid)), "its place was taken"


def test_a_lost_driver_ends_the_run_with_its_cause(server: Server, folder: Path) -> None:
    uid = begin(server, folder, "count.py:slow", "--kind", "spark", "-p", "seconds=100")
    wait_for("tasks", lambda: "session is ready" in server.metier("logs", uid).stdout)
    driver = next(n for n in pods_of(server, uid) if n.endswith("-driver"))
    jvm = Path(f"/proc/{java_of(server, driver)}/stat").read_text()
    os.kill(int(jvm.rpartition(")")[2].split()[1]), signal.SIGKILL)  # its parent, the user's Python
    status = wait_for("the end", lambda: (s := state_of(server, uid))["state"] in ("completed", "error") and s)
    assert status["state"] == "error"
    wait_for("processes end", lambda: not processes_of(server), 60)


def test_abort_ends_every_part(server: Server, folder: Path) -> None:
    uid = begin(server, folder, "count.py:slow", "--kind", "spark", "-p", "seconds=200")
    wait_for("tasks", lambda: "session is ready" in server.metier("logs", uid).stdout)
    assert server.metier("abort", uid, timeout=120).returncode == 0
    assert state_of(server, uid)["state"] == "aborted"
    wait_for("processes end", lambda: not processes_of(server), 60)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kind", "spark", "--replicas", "0"], "--replicas"),
        (["--kind", "spark", "--min", "3", "--max", "2"], "--min"),
        (["--kind", "spark", "--mem", "900Gi"], "memory"),
    ],
)
def test_wrong_use_is_one_sentence(server: Server, folder: Path, arguments: list[str], says: str) -> None:
    done = server.metier("run", "count.py:total", *arguments, cwd=folder)
    assert done.returncode in (2, 5), done.stdout
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def test_a_killed_server_adopts_the_application(server: Server, folder: Path) -> None:
    uid = begin(server, folder, "count.py:slow", "--kind", "spark", "-p", "seconds=16")
    wait_for("tasks", lambda: "session is ready" in server.metier("logs", uid).stdout)
    before = set(processes_of(server))
    server.kill()
    server.start()
    assert before <= set(processes_of(server)), "every process lives on"
    status = wait_for("the end", lambda: (s := state_of(server, uid))["state"] in ("completed", "error") and s, 240)
    assert status["state"] == "completed", status
    assert status["results"]["tasks"] == 16
