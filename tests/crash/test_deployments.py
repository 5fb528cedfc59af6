"""kill -9 of the server at each step of a deployment's life: what was acknowledged is there again, what was not can be asked again."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path

import pytest
from support.server import Server, kill_tree_of

from crash.sweep import declared_points

POINTS = [point for point in declared_points("src") if point.startswith("deploy/")]
CODE = "def handler(context, event):\n    return 'alive'\n"


@pytest.mark.parametrize("point", POINTS)
def test_server_killed_at(point: str, tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(CODE)
    reached = tmp_path / "reached"
    arm = {"METIER_FAILPOINTS": f"{point}=kill", "METIER_FAILPOINTS_LOG": str(reached)}
    server = Server(tmp_path / "data")

    def metier(*words: str) -> subprocess.CompletedProcess[str]:
        # By the socket's name: a command line without one would start a private server in the dead one's place.
        return server.metier(*words, cwd=tmp_path, env={"METIER_SERVER": f"{server.data}/metier.sock"})

    try:
        deployed = deleted = False
        if point == "deploy/recover":
            server.start()
            deployed = metier("deploy", "echo.py").returncode == 0
            assert deployed
            server.kill()
        with contextlib.suppress(AssertionError, KeyError):  # it may die while it starts
            server.start(env=arm)
            if not deployed:
                deployed = metier("deploy", "echo.py").returncode == 0
            deleted = metier("delete", "echo", "-y").returncode == 0
        assert reached.exists() and point in reached.read_text().split(), "a declared point that nothing reaches"
        assert server.process is not None
        server.process.wait(10)
        server.start()
        if deleted:
            assert metier("describe", "echo").returncode == 3
        elif point == "deploy/removal_committed":
            assert metier("describe", "echo").returncode == 3, "the removal was committed"
        elif deployed:
            done = metier("invoke", "echo")
            assert done.stdout == "alive", done.stderr
        again = metier("deploy", "echo.py")
        assert again.returncode == 0, again.stderr
        done = metier("invoke", "echo")
        assert done.stdout == "alive", done.stderr
        rows = json.loads(metier("get", "functions", "-o", "json").stdout)["funcs"]
        assert [row["metadata"]["name"] for row in rows] == ["echo"]
        assert metier("delete", "echo", "-y").returncode == 0
        assert server.stop() == 0
        print(f"{point}: reached, killed, deployed {deployed}, deleted {deleted}")
    finally:
        kill_tree_of(str(tmp_path))
