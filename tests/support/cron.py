"""A function that notes the ticks of its cron trigger in a file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from support.server import Server

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
