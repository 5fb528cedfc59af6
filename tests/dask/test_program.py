"""What the template of Dask's processes does before its first fork, and what a fork finds out again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("bokeh")

REHEARSED = """
import json, os, platform, re, socket, sys
from types import SimpleNamespace
import distributed.cli.dask_scheduler, distributed.cli.dask_worker, distributed.versions
import distributed.dashboard.scheduler as dashboard
import tornado.netutil
from metier_runner import dask_program

threads = len(os.listdir("/proc/self/task"))
dask_program.rehearse()
said = {"threads": len(os.listdir("/proc/self/task")) - threads}
said["certificates"] = tornado.netutil._client_ssl_defaults.cache_info().currsize
said["versions"] = distributed.versions._version_cached.cache_info().currsize
compiled = []
whole = re._compiler.compile
re._compiler.compile = lambda pattern, flags=0: compiled.append(pattern) or whole(pattern, flags)
server = SimpleNamespace(http_server=SimpleNamespace(port=8787))
application = dashboard.BokehApplication(dashboard.applications, server, prefix="")
said["pages"], said["compiled"] = len(application.app_paths), compiled
said["imported"] = "metier_runner.dask_cluster" in sys.modules

machine = platform.uname()
platform._uname_cache = machine._replace(node="template")
dask_program.look_again()
said["node"] = platform.node() == socket.gethostname()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    runner = Path(__file__).resolve().parents[2] / "python" / "runner"
    single = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
    env = {**os.environ, **single, "PYTHONPATH": str(runner)}
    done = subprocess.run([sys.executable, "-c", REHEARSED], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_what_every_process_does_at_its_start_is_done_before(said: dict[str, Any]) -> None:
    assert said["certificates"] == 1
    assert said["versions"] > 5
    assert said["imported"]
    assert said["pages"] > 20
    assert said["compiled"] == [], "patterns that each scheduler would compile again"


def test_no_thread_is_left_that_a_fork_would_lose(said: dict[str, Any]) -> None:
    assert said["threads"] == 0


def test_a_fork_has_the_host_name_of_its_pod(said: dict[str, Any]) -> None:
    assert said["node"]
