"""Kill sweeps: start a server that dies at one point, submit, restart, look at what is left.

A *point* is a failpoint name (see src/base/failpoint.h). The job writes numbered lines to its log and one line
to a marker file each time it starts, so that lost, doubled and repeated work is seen.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from support.server import Server, kill_tree_of

ROOT = Path(__file__).resolve().parents[2]
LINES = 200
TERMINAL = {"completed", "error", "aborted"}

CODE = f"""
import os, time
def work(context, marker: str = "", code: int = 0, seconds: float = 0):
    with open(marker, "a") as f:
        f.write(context.uid + "\\n")
    for i in range({LINES}):
        print("line", i, flush=i % 50 == 0)
    context.log_result("lines", {LINES})
    context.log_artifact("note", body=b"kept", local_path="note.txt")
    time.sleep(seconds)
    if code:
        os._exit(code)
"""


def declared_points(*folders: str) -> list[str]:
    """Names of all failpoints in the sources of these folders."""
    names: set[str] = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.cc"):
            if path.name.endswith("_test.cc"):
                continue
            names.update(re.findall(r'METIER_FAILPOINT(?:_RETURN)?\("([^"]+)"\)', path.read_text()))
    return sorted(names)


def submit_body(uid: str, marker: Path, code: int = 0) -> dict[str, Any]:
    source = base64.b64encode(CODE.encode()).decode()
    function = {
        "kind": "job",
        "metadata": {"name": "sweep", "project": "default"},
        "spec": {
            "image": "mlrun/mlrun",
            "default_handler": "work",
            "build": {"functionSourceCode": source, "origin_filename": "sweep.py"},
        },
    }
    task = {
        "metadata": {"name": "sweep-work", "project": "default", "uid": uid, "labels": {}},
        "spec": {"handler": "work", "parameters": {"marker": str(marker), "code": code}},
    }
    return {"function": function, "task": task}


@dataclass
class Trial:
    """One run through one kill: what was acknowledged and what was found afterwards."""

    point: str
    reached: bool = False
    killed: bool = False
    acknowledged: bool = False
    aborts: list[str] = field(default_factory=list)  # runs whose abort was acknowledged
    problems: list[str] = field(default_factory=list)


def wait_for_terminal(server: Server, uid: str, seconds: float = 40) -> dict[str, Any] | None:
    """The run's document once its state is terminal; None when the run does not exist."""
    deadline = time.monotonic() + seconds
    while True:
        answer = server.call("GET", f"/api/v1/projects/default/runs/{uid}")
        if answer.status == 404:
            return None
        run: dict[str, Any] = answer.json()["data"]
        if run["status"]["state"] in TERMINAL:
            return run
        if time.monotonic() > deadline:
            return run
        # The log's long poll is the way to wait: it answers at new bytes or a change of state.
        server.call("GET", f"/api/v1/projects/default/logs/{uid}?offset=100000000")


def check(
    server: Server, trial: Trial, uid: str, marker: Path, code: int, fair: tuple[str, ...] = ("ShimLost",)
) -> None:
    """Invariants I1-I9 of the reliability reference, for one job. `fair`: reasons that the fault itself explains."""
    run = wait_for_terminal(server, uid)
    starts = marker.read_text().split() if marker.exists() else []
    if run is None:
        if trial.acknowledged:
            trial.problems.append("acknowledged, but not stored")
        if starts:
            trial.problems.append(f"not stored, but started {len(starts)} times")
        return
    state = run["status"]["state"]
    wanted = "error" if code else "completed"
    if state != wanted:
        reason = run["status"].get("reason") or run["status"].get("error")
        if reason not in fair:
            trial.problems.append(f"state {state} ({reason}), expected {wanted}")
            return
        if reason == "StartFailed" and starts:
            trial.problems.append("said not to have been started, but was")
    if len(starts) != 1 and state == wanted:
        trial.problems.append(f"started {len(starts)} times")
    log = server.call("GET", f"/api/v1/projects/default/logs/{uid}?offset=0&size=-1").body.decode()
    numbers = [int(n) for n in re.findall(r"^line (\d+)$", log, re.M)]
    if state == "completed":
        if numbers != list(range(LINES)):
            trial.problems.append(f"log has {len(numbers)} lines of {LINES}")
        if run["status"]["results"].get("lines") != LINES:
            trial.problems.append(f"results are {run['status'].get('results')}")
        if "note" not in run["status"].get("artifact_uris", {}):
            trial.problems.append("the artifact is not recorded")
    for ended in (uid, *trial.aborts):
        if live := pods_that_stay(server, ended):
            trial.problems.append(f"{len(live)} pods of {'the run' if ended == uid else 'an aborted run'} still live")


def pods_that_stay(server: Server, uid: str, seconds: float = 40) -> list[Any]:
    """A run's pods that still live after this time: other runs, which nobody acknowledged, may go on."""
    deadline = time.monotonic() + seconds
    while True:
        pods = server.call("GET", "/api/metier/v1/pods?project=default").json()["pods"]
        live = [
            p
            for p in pods
            if p["metadata"]["labels"].get("mlrun/uid") == uid and p["status"]["phase"] in ("Running", "Pending")
        ]
        if not live or time.monotonic() > deadline:
            return live
        time.sleep(0.05)


def submit(server: Server, trial: Trial, body: dict[str, Any]) -> None:
    """Submits and notes whether it was acknowledged; a server that dies meanwhile is what the trial is about."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        answer = server.call("POST", "/api/v1/submit_job", body, timeout=20)
        trial.acknowledged = answer.status == 200
        if answer.status not in (200, 400, 503):
            trial.problems.append(f"submit answered {answer.status}: {answer.body[:200]!r}")


# What happens between an armed start and the kill. Each gets the server and a slow job's uid when it needs one.
def plain(server: Server, trial: Trial, uid: str, marker: Path, code: int) -> None:
    """One job from submit to its end."""
    submit(server, trial, submit_body(uid, marker, code))
    with contextlib.suppress(OSError, http.client.HTTPException, KeyError, ValueError):
        wait_for_terminal(server, uid, 10)


def aborted(server: Server, trial: Trial, uid: str, marker: Path, code: int) -> None:
    """The same, and beside it an abort of a job that would not end."""
    other = uuid.uuid4().hex
    body = submit_body(other, marker.with_name("slow"), 0)
    body["task"]["spec"]["parameters"]["seconds"] = 600
    with contextlib.suppress(OSError, http.client.HTTPException):
        server.call("POST", "/api/v1/submit_job", body, timeout=20)
        if server.call("POST", f"/api/v1/projects/default/runs/{other}/abort", {}, timeout=20).status < 300:
            trial.aborts.append(other)
    with contextlib.suppress(OSError, http.client.HTTPException, KeyError, ValueError):
        wait_for_terminal(server, other, 10)
    plain(server, trial, uid, marker, code)


def cleaned(server: Server, trial: Trial, uid: str, marker: Path, code: int) -> None:
    """The same, until its resources are removed (the server keeps them for no time)."""
    plain(server, trial, uid, marker, code)
    deadline = time.monotonic() + 10
    with contextlib.suppress(OSError, http.client.HTTPException, KeyError, ValueError):
        while time.monotonic() < deadline:
            if not server.call("GET", "/api/metier/v1/pods?project=default").json()["pods"]:
                return


def filled(server: Server, trial: Trial, uid: str, marker: Path, code: int) -> None:
    """Enough writes for a checkpoint, then a job."""
    text = "x" * 200_000
    with contextlib.suppress(OSError, http.client.HTTPException):
        for i in range(80):
            body = {
                "metadata": {"name": "filler"},
                "spec": {"parameters": {"text": text}},
                "status": {"state": "completed"},
            }
            server.call("POST", f"/api/v1/projects/default/runs/filler{i}", body, timeout=20)
    plain(server, trial, uid, marker, code)


def recovered(server: Server, trial: Trial, uid: str, marker: Path, code: int) -> None:
    """A job that an earlier server began; this one dies while it takes it over."""
    plain(server, trial, uid, marker, code)


SCENARIOS = (plain, aborted, cleaned, recovered, filled)


def kill_helpers(folder: Path, word: str) -> int:
    """kill -9 of every process below `folder` that has `word` in its command line; how many there were."""
    killed = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = command + (entry / "environ").read_text(errors="replace") + str((entry / "cwd").readlink())
            if word in command and str(folder) in where:
                os.kill(int(entry.name), signal.SIGKILL)
                killed += 1
    return killed


def run_trial(
    folder: Path,
    point: str,
    scenario: Callable[..., None] = plain,
    code: int = 0,
    term: str = "kill",
    env: dict[str, str] | None = None,
    between: Callable[[], None] | None = None,
    fair: tuple[str, ...] = ("ShimLost",),
) -> Trial:
    """One sweep step: the server dies at `point`, a new one finds what is left.

    `env` arms a second program's death, `between` kills one while no server runs; `fair` is what that explains.
    """
    trial = Trial(point)
    server = Server(folder / "data")
    reached = folder / "reached"
    marker = folder / "marker"
    uid = uuid.uuid4().hex
    arm = {"METIER_FAILPOINTS": f"{point}={term}", "METIER_FAILPOINTS_LOG": str(reached), **(env or {})}
    if scenario is cleaned:
        arm["METIER_RESOURCE_TTL"] = "0s"
    try:
        if scenario is recovered:
            server.start()
            submit(server, trial, submit_body(uid, marker, code))
            server.kill()
        started = True
        try:
            server.start(env=arm)
        except (AssertionError, KeyError):
            started = False  # died while starting: the point lies there
        if started:
            acknowledged = trial.acknowledged
            scenario(server, trial, uid, marker, code)
            trial.acknowledged = trial.acknowledged or acknowledged
        trial.reached = reached.exists() and point in reached.read_text().split()
        assert server.process is not None
        # The connection breaks a moment before the process can be reaped.
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(5 if trial.reached else 0)
            trial.killed = True
        if not trial.killed:
            server.kill()
        if between:
            between()
        server.start()
        check(server, trial, uid, marker, code, fair)
        if server.stop() != 0:
            trial.problems.append(f"clean stop exited {server.process.returncode}")
    finally:
        kill_tree_of(str(folder))
    return trial
