"""Cron triggers: one tick per function whatever the replicas, a function at zero is woken, restarts neither lose nor double."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.server import Server, running

HANDLER = """
import json, os, time
OUT = os.open(os.environ["OUT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

def handler(context, event):
    if event.trigger.kind != "cron":
        return "not a tick"
    row = {"id": event.id, "name": event.trigger.name, "body": event.body.decode(), "headers": event.headers,
           "method": event.method, "year": event.timestamp.year, "pid": os.getppid(), "at": time.time()}
    os.write(OUT, json.dumps(row).encode() + b"\\n")
    time.sleep(float(os.environ.get("SLEEP", "0")))
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "data") as started:
        yield started


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def until(check: Any, what: str, seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return value


def deploy(server: Server, folder: Path, attributes: dict[str, Any], sleep: str = "0", **spec: Any) -> Path:
    out = folder / "ticks.txt"
    (folder / "tick.py").write_text(HANDLER)
    document = {
        "apiVersion": "nuclio.io/v1beta1",
        "kind": "NuclioFunction",
        "metadata": {"name": "tick"},
        "spec": {
            "handler": "tick:handler",
            "runtime": "python",
            "env": [{"name": "OUT", "value": str(out)}, {"name": "SLEEP", "value": sleep}],
            "triggers": {"beat": {"kind": "cron", "attributes": attributes}},
            **spec,
        },
    }
    (folder / "function.yaml").write_text(json.dumps(document))
    done = server.metier("deploy", "-f", "function.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return out


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
