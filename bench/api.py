"""CPU per API request, 16 and 1 keep-alive connections, synchronous=FULL, runs of 1.4 KB.

The peer is MLRun's own server: its 1.7 figures (one core's work per request, measured earlier on such a
machine) are printed beside ours, since its last wheel that carries the server is 1.5.2, which is slower.
"""

from __future__ import annotations

import http.client
import json
import os
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

from common import cpu_seconds, median, memory_mib, table
from support.server import Server, running

REQUESTS = int(os.environ.get("BENCH_REQUESTS", "4000"))
STORED = int(os.environ.get("BENCH_RUNS", "10000"))
PEER = {
    "POST run": 6750,
    "PATCH run": 9600,
    "GET run": 3000,
    "PUT artifact": 14000,
    "list page 20": 43000,
    "healthz": 400,
}
BASE = "/api/v1/projects/default/runs"
Call = Callable[[int, str], "tuple[str, str, bytes | None]"]


def run_body(uid: str, name: str) -> dict[str, Any]:
    labels = {"kind": "job", "owner": "bench", "host": "node-1", "mlrun/client_version": "1.12.1"}
    return {
        "kind": "run",
        "metadata": {
            "uid": uid,
            "name": name,
            "project": "default",
            "iteration": 0,
            "labels": labels,
            "annotations": {},
        },
        "spec": {
            "function": "default/bench@0123456789abcdef0123456789abcdef01234567",
            "handler": "train",
            "parameters": {f"parameter_{i}": i * 0.37 for i in range(12)},
            "inputs": {"data": "s3://bucket/path/to/data.csv"},
            "output_path": "/data/projects/default/artifacts/" + uid,
            "log_level": "info",
        },
        "status": {
            "state": "running",
            "results": {f"metric_{i}": i * 0.11 for i in range(12)},
            "start_time": "2026-11-25T10:00:00.000000+00:00",
            "last_update": "2026-11-25T10:00:01.000000+00:00",
        },
    }


def measure(server: Server, make: Call, connections: int, uids: list[str], count: int) -> tuple[float, float]:
    """CPU microseconds of the server per request, and requests per second."""
    parts = urlsplit(server.url)
    per_client = max(1, count // connections)
    headers = {"Authorization": f"Bearer {server.token}"}
    failures: list[str] = []

    def client(index: int) -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80)
        for i in range(per_client):
            n = index * per_client + i
            method, path, body = make(n, uids[n % len(uids)])
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
            if answer.status >= 300 and not failures:
                failures.append(f"{method} {path}: {answer.status} {data[:200]!r}")

    assert server.process is not None
    before, wall = cpu_seconds(server.process.pid), time.monotonic()
    threads = [threading.Thread(target=client, args=(i,)) for i in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"error: {failures[0]}")
    total = per_client * connections
    return (cpu_seconds(server.process.pid) - before) / total * 1e6, total / (time.monotonic() - wall)


def post(n: int, uid: str) -> tuple[str, str, bytes | None]:
    return "POST", f"{BASE}/{uid}?iter=0", json.dumps(run_body(uid, f"bench-{n % 50}")).encode()


def patch(n: int, uid: str) -> tuple[str, str, bytes | None]:
    body = {"status.results": {"accuracy": 0.9}, "status.last_update": "2026-11-25T10:00:02+00:00"}
    return "PATCH", f"{BASE}/{uid}?iter=0", json.dumps(body).encode()


def artifact(n: int, uid: str) -> tuple[str, str, bytes | None]:
    body = {
        "kind": "artifact",
        "metadata": {"key": f"note{n}", "project": "default", "iter": 0, "tree": uid},
        "spec": {"target_path": f"/data/{uid}/note", "size": 12, "db_key": f"bench_note{n}"},
        "status": {"state": "created"},
    }
    return "PUT", f"/api/v2/projects/default/artifacts/bench_note{n}?tree={uid}", json.dumps(body).encode()


def main() -> None:
    listing = (
        f"{BASE}?page=1&page-size=20&sort=yes&iter=no&with-notifications=False&partition-by=project_and_name"
        "&rows-per-partition=1&partition-sort-by=updated&partition-order=desc&max-partitions=0"
        "&start_time_from=2026-01-01"
    )
    kinds: list[tuple[str, Call]] = [
        ("POST run", post),
        ("PATCH run", patch),
        ("GET run", lambda n, uid: ("GET", f"{BASE}/{uid}?iter=0", None)),
        ("PUT artifact", artifact),
        ("list page 20", lambda n, uid: ("GET", listing, None)),
        ("healthz", lambda n, uid: ("GET", "/api/v1/healthz", None)),
    ]
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data") as server:
        uids = [uuid.uuid4().hex for _ in range(STORED)]
        measure(server, post, 16, uids, STORED)
        rows = []
        for name, make in kinds:
            many = [measure(server, make, 16, uids, REQUESTS) for _ in range(3)]
            one = measure(server, make, 1, uids, REQUESTS)
            cpu = median([m[0] for m in many])
            rate = median([m[1] for m in many])
            ratio = f"{PEER[name] / max(cpu, 1):.0f}x"
            rows.append((name, f"{cpu:.0f}", f"{rate:.0f}", f"{one[0]:.0f}", str(PEER[name]), ratio))
        assert server.process is not None
        title = f"API, CPU microseconds per request, {STORED} runs stored"
        table(title, ("request", "ours, 16 conns", "req/s", "ours, 1 conn", "MLRun 1.7", "ratio"), rows)
        print(f"  server memory {memory_mib(server.process.pid):.0f} MiB")


if __name__ == "__main__":
    main()
