"""kill -9 of the server at each step of a tick: it is neither lost nor run twice."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from support.cron import deploy, rows, until
from support.server import Server, kill_tree_of

from crash.sweep import declared_points

POINTS = [point for point in declared_points("src") if point.startswith("cron/")]


@pytest.mark.parametrize("point", POINTS)
def test_server_killed_at(point: str, tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    server = Server(tmp_path / "data").start()
    try:
        out = deploy(server, tmp_path, {"interval": "300ms"})
        until(lambda: len(rows(out)) >= 2, "ticks")
        server.kill()
        with contextlib.suppress(AssertionError):  # it may die while it starts
            server.start(env={"METIER_FAILPOINTS": f"{point}=kill", "METIER_FAILPOINTS_LOG": str(reached)})
        assert server.process is not None
        server.process.wait(60)
        assert point in reached.read_text().split(), "a declared point that nothing reaches"
        before = len(rows(out))
        server.start()
        until(lambda: len(rows(out)) >= before + 3, "ticks after the restart")
        seen = [row["id"] for row in rows(out)]
        assert len(set(seen)) == len(seen), "a tick ran twice"
        print(f"{point}: reached, killed, {len(seen)} ticks")
    finally:
        kill_tree_of(str(server.data))
