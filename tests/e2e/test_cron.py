"""Cron triggers: one tick per function whatever the replicas, a function at zero is woken, restarts neither lose nor double."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cron import HANDLER, deploy, rows, until
from support.server import Server, running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "data") as started:
        yield started


def test_one_tick_for_all_replicas(own: Server, tmp_path: Path) -> None:
    event = {"body": "go", "headers": {"X-Tick": "yes"}}
    out = deploy(own, tmp_path, {"interval": "300ms", "event": event}, replicas=2)
    until(lambda: len(rows(out)) >= 6, "ticks")
    seen = rows(out)
    assert {(r["name"], r["body"], r["method"], r["year"]) for r in seen} == {("beat", "go", "", 1970)}
    assert seen[0]["headers"] == {"X-Tick": "yes"}
    assert len({r["id"] for r in seen}) == len(seen)
    assert len({r["pid"] for r in seen}) == 2  # in turn
    span = seen[-1]["at"] - seen[0]["at"]
    assert len(seen) - 1 <= span / 0.3 + 2, "each replica ticks by itself"


def test_a_function_at_zero_is_woken(own: Server, tmp_path: Path) -> None:
    scale = {"scaleResources": [{"metricName": "x", "windowSize": "1s", "threshold": 0}]}
    out = deploy(own, tmp_path, {"schedule": "*/8 * * * * *"}, minReplicas=0, maxReplicas=1, scaleToZero=scale)

    def state() -> str:
        return str(own.call("GET", "/api/metier/v1/deployments/tick?project=default").json()["state"])

    until(lambda: state() == "scaledToZero", "zero replicas")
    before = len(rows(out))
    until(lambda: len(rows(out)) > before, "a tick")
    seen = rows(out)
    assert len({r["pid"] for r in seen[-2:]}) == len(seen[-2:]), "a processor of its own"


def test_kills_neither_lose_nor_double_a_tick(own: Server, tmp_path: Path) -> None:
    out = deploy(own, tmp_path, {"interval": "500ms"}, sleep="0.3")
    until(lambda: len(rows(out)) >= 2, "ticks")
    for _ in range(3):
        before = len(rows(out))
        until(lambda before=before: len(rows(out)) > before, "a tick that runs")
        assert own.process is not None
        os.kill(own.process.pid, signal.SIGKILL)  # its answer finds nobody
        own.process.wait()
        own.start()
        until(lambda before=before: len(rows(out)) >= before + 3, "ticks after the restart")
    seen = rows(out)
    assert len({r["id"] for r in seen}) == len(seen), "a tick ran twice"


def test_a_wrong_schedule_is_refused(own: Server, tmp_path: Path) -> None:
    (tmp_path / "tick.py").write_text(HANDLER)
    spec = {"handler": "tick:handler", "triggers": {"t": {"kind": "cron", "attributes": {"schedule": "61 * * * *"}}}}
    (tmp_path / "function.yaml").write_text(json.dumps({"metadata": {"name": "t"}, "spec": spec}))
    done = own.metier("deploy", "-f", "function.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "spec.triggers.t.attributes.schedule" in done.stderr and "'61' is no minute" in done.stderr
