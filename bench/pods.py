"""No-op native pods: kind job, a static program that exits 0; accepted to completed, durable.

Prints pods per second over the whole, of the first and of the last tenth, and CPU per pod.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from common import cpu_seconds, machine_cpu, memory_mib, table
from support.server import Server, running

COUNT = int(os.environ.get("BENCH_PODS", "10000"))
CLIENTS = 8


def submit(server: Server, program: str) -> None:
    metadata = {"name": "noop", "project": "default"}
    body = {
        "function": {
            "kind": "job",
            "metadata": metadata,
            "spec": {"image": "none", "command": program, "mode": "pass"},
        },
        "task": {"metadata": {**metadata, "uid": uuid.uuid4().hex}, "spec": {}},
    }
    answer = server.call("POST", "/api/v1/submit_job", body)
    assert answer.status == 200, answer.body


def completed(server: Server) -> int:
    """How many have completed, by a count: the list itself would cost the server more than the pods."""
    summary = server.call("GET", "/api/v1/project-summaries/default").json()
    return int(summary["runs_completed_recent_count"])


def rates(server: Server) -> tuple[float, float]:
    """Pods per second of the first and of the last tenth, by the times at which they ended."""
    ends: list[float] = []
    for page in range(1, COUNT // 1000 + 2):
        path = f"/api/v1/projects/default/runs?state=completed&page={page}&page-size=1000"
        answer = server.call("GET", path)
        if answer.status != 200:
            break
        runs = answer.json()["runs"]
        ends += [datetime.fromisoformat(run["status"]["end_time"]).timestamp() for run in runs]
        if len(runs) < 1000:
            break
    ends.sort()
    tenth = max(2, len(ends) // 10)
    first, last = ends[:tenth], ends[-tenth:]
    return tenth / max(first[-1] - first[0], 1e-6), tenth / max(last[-1] - last[0], 1e-6)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "noop.c"
        source.write_text("int main(void) { return 0; }\n")
        program = str(Path(folder) / "noop")
        subprocess.run(["cc", "-static", "-O2", "-o", program, str(source)], check=True)
        with running(Path(folder) / "data") as server:
            assert server.process is not None
            cpu, wall = machine_cpu(), time.monotonic()
            own = cpu_seconds(server.process.pid, children=True)
            with ThreadPoolExecutor(CLIENTS) as pool:
                jobs = [pool.submit(submit, server, program) for _ in range(COUNT)]
                for job in jobs:
                    job.result()
            accepted = time.monotonic() - wall
            while (done := completed(server)) < COUNT:
                if time.monotonic() - wall > 600:
                    raise SystemExit(f"only {done} of {COUNT} completed")
                time.sleep(0.5)
            seconds = time.monotonic() - wall
            cpu = machine_cpu() - cpu
            own = cpu_seconds(server.process.pid, children=True) - own
            first, last = rates(server)
            busy = memory_mib(server.process.pid)
            time.sleep(12)  # it gives back what it used once nothing has gone on for a while
            rows = [
                ("pods", str(COUNT), ""),
                ("pods per second, first submit to last completed", f"{COUNT / seconds:.0f}", "bare floor 362"),
                ("all accepted after, s", f"{accepted:.1f}", ""),
                ("machine CPU per pod (client too), ms", f"{cpu / COUNT * 1e3:.2f}", "bare floor 2.6"),
                ("server CPU per pod (with reaped children), ms", f"{own / COUNT * 1e3:.2f}", ""),
                ("pods per second, first tenth", f"{first:.0f}", ""),
                ("pods per second, last tenth", f"{last:.0f}", ""),
                ("server memory at the end, MiB", f"{busy:.0f}", ""),
                ("server memory when idle again, MiB", f"{memory_mib(server.process.pid):.0f}", "30"),
            ]
            table("no-op native pods, accepted to completed", ("what", "value", "beside"), rows)


if __name__ == "__main__":
    main()
