"""Dask started by metier against the same Dask started by hand: cold to the first result, one worker more, CPU per small task.

In one go, interleaved pairs; both sides use the same interpreter and TLS. Wall times in seconds, medians.
Targets: first result at most 0.4 s, a worker registered at most 0.08 s after the decision, a further worker decided at most
1.1 s after the need, CPU per small task at most 1.05 of bare.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from common import ROOT, median, table

PYTHON = ROOT / "build" / "venv-dask" / "bin" / "python"

# Of both sides: when the scheduler has a worker.
WATCH = """
def watch(dask_scheduler):
    from distributed.diagnostics.plugin import SchedulerPlugin
    joined = dask_scheduler.joined_at = []
    class Joined(SchedulerPlugin):
        name = "joined"
        def add_worker(self, scheduler, worker):
            joined.append(time.time())
    dask_scheduler.add_plugin(Joined())
"""
CODE = (
    """
import time

def first(context, began: float):
    client = context.dask_client
    client.submit(lambda: 1).result()
    context.log_result("first", time.time() - began)

def tasks(context, n: int = 4000):
    client = context.dask_client
    client.wait_for_workers(2)
    client.gather(client.map(lambda x: x, range(200), pure=False))
    cpu = lambda: sum(client.run(time.process_time).values()) + client.run_on_scheduler(time.process_time) + time.process_time()
    before = cpu()
    client.gather(client.map(lambda x: x, range(n), pure=False))
    context.log_result("cpu_per_task_us", (cpu() - before) / n * 1e6)

def grow(context):
    client = context.dask_client
    client.wait_for_workers(1)
    client.run_on_scheduler(watch)
    naps = client.map(lambda i: __import__("time").sleep(1.5), range(40), pure=False)
    context.log_result("began", time.time())
    client.wait_for_workers(2)
    context.log_result("registered", client.run_on_scheduler(lambda dask_scheduler: min(dask_scheduler.joined_at)))
    client.cancel(naps)
"""
    + WATCH
)

BARE = (
    WATCH
    + """
import sys, time
import distributed
began = float(sys.argv[1])
client = distributed.Client(sys.argv[2], timeout="60s")
client.submit(lambda: 1).result()
print("first", time.time() - began, flush=True)
if sys.argv[3] == "grow":
    import os, subprocess
    command = [sys.executable, "-m", "dask", "worker", sys.argv[2], "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    client.wait_for_workers(2)
    client.run_on_scheduler(watch)
    began = time.time()
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client.wait_for_workers(3)
    print("registered", client.run_on_scheduler(lambda dask_scheduler: min(dask_scheduler.joined_at)) - began, flush=True)
    worker.kill()
    worker.wait()
if sys.argv[3] == "tasks":
    n = 4000
    client.wait_for_workers(2)
    client.gather(client.map(lambda x: x, range(200), pure=False))
    cpu = lambda: sum(client.run(time.process_time).values()) + client.run_on_scheduler(time.process_time) + time.process_time()
    before = cpu()
    client.gather(client.map(lambda x: x, range(n), pure=False))
    print("cpu", (cpu() - before) / n * 1e6, flush=True)
"""
)


def certificate(folder: Path) -> dict[str, str]:
    """A certificate of the same sort as ours, as Dask's variables."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj", "/CN=bench"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    names = {"CA_FILE": cert}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        names |= {f"{role}__CERT": cert, f"{role}__KEY": key}
    return {f"DASK_DISTRIBUTED__COMM__TLS__{name}": str(path) for name, path in names.items()}


def bare(what: str, environment: dict[str, str]) -> dict[str, float]:
    """Scheduler, two workers and a client by hand; seconds from the first fork to the first result."""
    from support.server import free_port

    port = free_port()
    address = f"tls://127.0.0.1:{port}"
    program = [str(PYTHON), "-m", "dask"]
    began = time.time()
    started = [
        [*program, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--protocol", "tls", "--no-dashboard"],
        *[[*program, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"] for _ in range(2)],
    ]
    processes = [
        subprocess.Popen(c, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for c in started
    ]
    try:
        client = subprocess.run(
            [str(PYTHON), "-c", BARE, str(began), address, what],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert client.returncode == 0, client.stderr
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
    return {line.split()[0]: float(line.split()[1]) for line in client.stdout.splitlines() if len(line.split()) == 2}


def main() -> int:
    from support.server import running

    parser = argparse.ArgumentParser(prog="scripts/bench dask")
    parser.add_argument("--pairs", type=int, default=7)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="metier-bench-dask-"))
    (folder / "bench.py").write_text(CODE)
    environment = {**os.environ, **certificate(folder)}
    ours: dict[str, list[float]] = {}
    peers: dict[str, list[float]] = {}

    def run(server: object, handler: str, *more: str) -> dict[str, float]:
        done = server.metier("run", f"bench.py:{handler}", "--kind", "dask", "-o", "json", *more, cwd=folder)  # type: ignore[attr-defined]
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout)["status"]["results"])

    def decided(server: object, began: float) -> float:
        """When the first worker after `began` was given its place, in seconds since the epoch."""
        times = []
        for pod in server.call("GET", "/api/metier/v1/pods").json()["pods"]:  # type: ignore[attr-defined]
            for condition in pod["status"].get("conditions", []) if "-worker-" in pod["name"] else []:
                if condition["type"] == "PodScheduled":
                    times.append(datetime.fromisoformat(condition["lastTransitionTime"]).timestamp())
        return min(time for time in times if time > began)

    with running(folder / "data", python=str(PYTHON)) as server:
        run(server, "tasks", "--replicas", "2")  # the zygote is up
        for pair in range(options.pairs):
            # Another variable, another cluster: nothing is found again.
            fresh = ["--replicas", "2", "-e", f"PAIR={pair}", "-p", f"began={time.time()}"]
            ours.setdefault("cold to first result, s", []).append(run(server, "first", *fresh)["first"])
            peers.setdefault("cold to first result, s", []).append(bare("first", environment)["first"])
        again = ["--replicas", "2"]
        for _ in range(options.pairs):
            ours.setdefault("CPU per small task, us", []).append(run(server, "tasks", *again)["cpu_per_task_us"])
            peers.setdefault("CPU per small task, us", []).append(bare("tasks", environment)["cpu"])
        for pair in range(options.pairs):
            grown = run(server, "grow", "--min", "1", "--max", "3", "-e", f"GROW={pair}")
            at = decided(server, grown["began"])
            ours.setdefault("need to decision, s", []).append(at - grown["began"])
            ours.setdefault("decision to registered, s", []).append(grown["registered"] - at)
            peers.setdefault("decision to registered, s", []).append(bare("grow", environment)["registered"])
    rows = []
    for name, values in ours.items():
        peer = peers.get(name)
        ratio = f"{median(values) / median(peer):.2f}" if peer else ""
        rows.append((name, f"{median(values):.3f}", f"{median(peer):.3f}" if peer else "", ratio, str(len(values))))
    table("kind dask", ("what", "metier", "bare", "ratio", "pairs"), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
