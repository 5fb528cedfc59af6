"""Runs of several parts: their state, their parts, their processes, and that nothing of them is left."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from support.server import Server


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    """What it gives once that is true; the limit only ends a broken test."""
    until = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < until, what
        time.sleep(0.02)
    return value


def state(server: Server, uid: str) -> dict[str, Any]:
    answer = server.call("GET", f"/api/v1/projects/default/runs/{uid}")
    return dict(answer.json()["data"]["status"])


def ended(server: Server, uid: str, seconds: float = 60) -> dict[str, Any]:
    until = time.monotonic() + seconds
    while True:
        status = state(server, uid)
        if status["state"] in ("completed", "error", "aborted"):
            return status
        assert time.monotonic() < until, status
        time.sleep(0.02)


def parts(server: Server, uid: str, project: str = "default") -> dict[str, dict[str, Any]]:
    answer = server.call("GET", f"/api/metier/v1/runs/{uid}/parts?project={project}")
    return {one["name"]: one for one in answer.json()["parts"]}


def pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def processes(server: Server, word: str) -> list[int]:
    """Living processes of this server's pods whose command line holds `word`."""
    data = str(server.data).encode()
    return sorted(pid for pid in pids() if word in command_of(pid) and data in environ(pid))


def shared_memory(server: Server, pods: Iterable[str]) -> list[Path]:
    """What the gangs of these pods of project default have in shared memory: their folders, each with what is in it."""
    out: list[Path] = []
    for job in {re.sub(r"-(launcher|worker-\d+)$", "", pod) for pod in pods}:
        name = hashlib.sha256(str(server.data / "gangs" / f"default.{job}").encode()).hexdigest()[:16]
        folder = Path("/dev/shm") / f"metier-gang-{name}"
        if folder.exists():
            out += [folder, *folder.rglob("*")]
    return out


def pods_of_runs(server: Server) -> set[str]:
    """The pods that the server's ended runs of several parts have had."""
    runs = server.call("GET", "/api/v1/projects/default/runs").json()["runs"]
    return {part["pod"] for run in runs for part in run["status"].get("parts", [])}


def assert_nothing_runs(server: Server) -> None:
    """Soon no process of any pod lives, and nothing of an MPI job is in shared memory or in the gangs' folder."""
    until = time.monotonic() + 30
    words = ("metier-mpi", "mpirun", "orterun", "mpiexec", "prterun", "metier_runner.rank")
    pods = pods_of_runs(server)
    while True:
        left = {word: found for word in words if (found := processes(server, word))}
        left |= {command_of(pid)[:200]: [pid] for pid, _ in pod_processes(server)}
        shared = shared_memory(server, pods)
        gangs = list((server.data / "gangs").glob("*"))  # the last member's end removes it
        if not left and not shared and not gangs:
            return
        assert time.monotonic() < until, (left, shared, gangs)
        time.sleep(0.02)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def of_pod(server: Server, ending: str) -> list[int]:
    """Living processes of the pod of this server whose name ends so; those that a zygote forked are not seen by their environment."""
    out = []
    for pid in processes(server, ""):
        variables = environ(pid).split(b"\0")
        if any(one.startswith(b"METIER_POD_NAME=") and one.endswith(ending.encode()) for one in variables):
            out.append(pid)
    return out


def pod_processes(server: Server) -> set[tuple[int, str]]:
    """Every process of this server's pods, shims too, with the time it began: below the shims, or by its environment."""
    children: dict[int, list[int]] = {}
    began: dict[int, str] = {}
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            command = (entry / "cmdline").read_bytes()
            pid = int(entry.name)
            if words[0] != "Z":
                began[pid] = words[19]
                children.setdefault(int(words[1]), []).append(pid)
                if b"metier-shim" in command and str(server.data).encode() in command:
                    found.append(pid)
        except OSError:
            pass
    found += [pid for pid in processes(server, "") if b"METIER_POD_NAME=" in environ(pid)]
    out = set()
    while found:
        pid = found.pop()
        if pid in began and (pid, began[pid]) not in out:
            out.add((pid, began[pid]))
            found += children.get(pid, [])
    return out


def environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def shim_of(pid: int) -> int:
    """The shim of the pod that this process is in."""
    while "metier-shim" not in command_of(pid):
        pid = parent(pid)
    return pid


def assert_none_left(server: Server, before: set[tuple[int, str]]) -> None:
    """Soon no pod's process lives, neither one that is found now nor one of `before`, and no gang's folder is there."""
    until = time.monotonic() + 10
    while True:
        left = {one for one in pod_processes(server) | before if alive(*one)}
        gangs = list((server.data / "gangs").glob("*"))
        if not left and not gangs:
            return
        assert time.monotonic() < until, ([(pid, command_of(pid)[:200]) for pid, _ in left], gangs)
        time.sleep(0.02)


def alive(pid: int, began: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return False
    return words[0] != "Z" and words[19] == began
