"""Runs of several parts: their state, their parts, their processes, and that nothing of them is left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from support.server import Server


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


def parts(server: Server, uid: str) -> dict[str, dict[str, Any]]:
    answer = server.call("GET", f"/api/metier/v1/runs/{uid}/parts?project=default")
    return {one["name"]: one for one in answer.json()["parts"]}


def processes(server: Server, word: str) -> list[int]:
    """Living processes of this server's pods whose command line holds `word`."""
    out = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if word in words and str(server.data).encode() in (entry / "environ").read_bytes():
                out.append(int(entry.name))
        except OSError:
            pass
    return sorted(out)


def assert_nothing_runs(server: Server) -> None:
    until = time.monotonic() + 10
    words = ("metier-mpi", "mpirun", "orterun", "mpiexec", "prterun", "metier_runner.rank")
    while any(processes(server, word) for word in words):
        assert time.monotonic() < until, [(word, processes(server, word)) for word in words]
        time.sleep(0.02)
    left = [
        entry.name
        for entry in Path("/dev/shm").iterdir()
        if entry.name.startswith(("vader_segment.work-", "sm_segment.work-"))
    ]
    assert not left, left
    gangs = server.data / "gangs"
    assert not gangs.exists() or not list(gangs.iterdir())
