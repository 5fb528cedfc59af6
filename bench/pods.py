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
from pathlib import Path

from common import cpu_seconds, machine_cpu, memory_mib, table
from support.server import Server, running

COUNT = int(os.environ.get("BENCH_PODS", "3000"))
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
    listing = "/api/v1/projects/default/runs?state=completed&start_time_from=2000-01-01"
    return len(server.call("GET", listing).json()["runs"])


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
            rows = [
                ("pods", str(COUNT), ""),
                ("pods per second, first submit to last completed", f"{COUNT / seconds:.0f}", "bare floor 362"),
                ("all accepted after, s", f"{accepted:.1f}", ""),
                ("machine CPU per pod (client too), ms", f"{cpu / COUNT * 1e3:.2f}", "bare floor 2.6"),
                ("server CPU per pod (with reaped children), ms", f"{own / COUNT * 1e3:.2f}", ""),
                ("server memory after, MiB", f"{memory_mib(server.process.pid):.0f}", ""),
            ]
            table("no-op native pods, accepted to completed", ("what", "value", "beside"), rows)


if __name__ == "__main__":
    main()
