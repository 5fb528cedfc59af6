"""What requests cost with 10^6 stored runs beside 10^3, and how long such a server takes to start.

The rows are written by SQL into the server's own file while no server runs: the point is what they cost later.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
import uuid
from pathlib import Path

from common import cpu_seconds, median, memory_mib, table
from support.server import Server, kill_tree_of

from api import Call, artifact, measure, patch, post, run_body

SIZES = [int(n) for n in os.environ.get("BENCH_SIZES", "1000,1000000").split(",")]
REQUESTS = int(os.environ.get("BENCH_REQUESTS", "2000"))
RUNS = "/api/v1/projects/default/runs"
DEFAULT_LIST = (
    f"{RUNS}?page=1&page-size=20&sort=yes&iter=no&with-notifications=False&partition-by=project_and_name"
    "&rows-per-partition=1&partition-sort-by=updated&partition-order=desc&max-partitions=0"
)
LISTS = {
    "default list, page 20": DEFAULT_LIST + "&start_time_from=2026-01-01",
    "by label, page 20": f"{RUNS}?label=kind=job&page=1&page-size=20&iter=no",
    "by rare label, page 20": f"{RUNS}?label=shard=s7&page=1&page-size=20&iter=no",
    "by state, page 20": f"{RUNS}?state=error&page=1&page-size=20&iter=no",
    "by two states, page 20": f"{RUNS}?state=running&state=error&page=1&page-size=20&iter=no",
    "by state and label, page 20": f"{RUNS}?state=error&label=kind=job&page=1&page-size=20&iter=no",
    "by name, page 20": f"{RUNS}?name=bench-7&page=1&page-size=20&iter=no",
    "all projects, page 20": "/api/v1/projects/*/runs?state=error&page=1&page-size=20",
}


def seed_runs(data: Path, count: int) -> list[str]:
    """Writes `count` runs of 1.4 KB, one in a hundred failed, of at most 10,000 names; gives some of their uids."""
    import json

    body = json.dumps(run_body("@UID@", "@NAME@"), separators=(",", ":")).replace("'", "''")
    uid = "printf('%016x%016x', i * -7046029254386353131, i)"
    name = "'bench-' || (i % min(10000, max(50, :n / 100)))"
    state = "CASE WHEN i % 100 = 0 THEN 'error' ELSE 'completed' END"
    start = "1764000000000000 + i * 1000000"
    database = sqlite3.connect(data / "metier.db", isolation_level=None)
    database.executescript(
        "PRAGMA journal_mode=DELETE; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-400000"
    )
    database.execute("BEGIN")
    numbers = "WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < :n)"
    database.execute(
        f"""{numbers} INSERT INTO runs(id, project, uid, iteration, name, state, kind, start, updated, version, body)
        SELECT i, 'default', {uid}, 0, {name}, {state}, 'job', {start}, {start} + 500000, 1,
        replace(replace('{body}', '@UID@', {uid}), '@NAME@', {name}) FROM numbers""",
        {"n": count},
    )
    for label, value in (("kind", "'job'"), ("owner", "'bench'"), ("shard", "'s' || (i % 10000)")):
        database.execute(
            f"{numbers} INSERT INTO run_labels(run, name, value, project, start) "
            f"SELECT i, '{label}', {value}, 'default', {start} FROM numbers",
            {"n": count},
        )
    database.execute(
        """INSERT INTO run_heads(project, name, changed, changed_run, started, started_run, changed_start)
        SELECT project, name, max(updated), id, start, id, start FROM runs GROUP BY project, name"""
    )
    database.execute("COMMIT")
    database.execute("PRAGMA journal_mode=WAL")
    uids = [row[0] for row in database.execute("SELECT uid FROM runs WHERE id % max(1, :n / 1000) = 0", {"n": count})]
    database.close()
    return uids


def measure_at(folder: Path, count: int) -> dict[str, str]:
    server = Server(folder / "data")
    server.start()
    server.stop()
    began = time.monotonic()
    uids = seed_runs(server.data, count)
    seeded = time.monotonic() - began
    row: dict[str, str] = {"": f"{count} runs"}
    try:
        ready = []
        for _ in range(3):
            ready.append(server.start().ready_seconds * 1000)
            server.stop()
        server.start()
        row["start after a clean stop, ms"] = f"{median(ready):.0f}"
        server.kill()
        row["start after kill -9, ms"] = f"{server.start().ready_seconds * 1000:.0f}"
        assert server.process is not None
        pid = server.process.pid
        # A look at the whole file after the kill goes on beside us: its processor time is not the requests'.
        while (before := cpu_seconds(pid)) >= 0:
            time.sleep(1)
            if cpu_seconds(pid) - before < 0.05:
                break
        row["memory after start, MiB"] = f"{memory_mib(pid):.0f}"
        kinds: dict[str, Call] = {
            "POST run (new)": lambda n, uid: post(n, uuid.uuid4().hex),
            "PATCH run": patch,
            "GET run": lambda n, uid: ("GET", f"{RUNS}/{uid}?iter=0", None),
            "PUT artifact": artifact,
        }
        for name, path in LISTS.items():
            kinds[name] = lambda n, uid, path=path: ("GET", path, None)  # type: ignore[misc]
        for name, make in kinds.items():
            measure(server, make, 16, uids, REQUESTS // 4)
            row[name] = f"{median([measure(server, make, 16, uids, REQUESTS)[0] for _ in range(3)]):.0f}"
        row["memory after, MiB"] = f"{memory_mib(pid):.0f}"
        row["file, MiB"] = f"{(server.data / 'metier.db').stat().st_size / 2**20:.0f}"
        row["(seeding, s)"] = f"{seeded:.0f}"
    finally:
        server.stop()
        kill_tree_of(str(folder))
    return row


def main() -> None:
    columns = []
    for size in SIZES:
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as folder:
            columns.append(measure_at(Path(folder), size))
    rows = []
    for name in columns[0]:
        if name:
            values = [column.get(name, "") for column in columns]
            ratio = f"{float(values[-1]) / max(float(values[0]), 0.5):.1f}x" if len(values) > 1 else ""
            rows.append((name, *values, ratio))
    header = ("what (CPU µs per request, 16 connections)", *[column[""] for column in columns], "ratio")
    table("stored runs and what they cost", header, rows)


if __name__ == "__main__":
    main()
