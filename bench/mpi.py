"""Kind mpijob beside a bare, tuned mpirun: start, allreduce, the end after a killed rank, CPU of our own processes beside
that of a job's ranks (BENCH_SECONDS of computing, 60). BENCH_ROWS=start,killed,cpu and BENCH_MPI=venv-mpi,venv-mpi5,venv-mpich
choose rows and libraries; all of it takes a quarter of an hour.

Pairs are interleaved in one go; medians. `start`: from the submit (bare: from the exec of mpirun) to the time that rank 0
takes after a first allreduce of a Python program with mpi4py.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import ROOT, TICK, median, table
from support.gang import command_of, pids, processes
from support.server import Server, running

PAIRS = int(os.environ.get("BENCH_REPEAT", "7"))
ENVIRONMENTS = {"Open MPI 4": "venv-mpi", "Open MPI 5": "venv-mpi5", "MPICH": "venv-mpich"}
PROGRAM = """
import json, sys, time
from mpi4py import MPI
import numpy
world = MPI.COMM_WORLD
total = numpy.zeros(1)
world.Allreduce(numpy.ones(1), total)
first = time.time()
seconds = 0.0
if len(sys.argv) > 1 and sys.argv[1] == "allreduce":
    size = 16 << 20
    mine, sums = numpy.ones(size // 8), numpy.zeros(size // 8)
    for _ in range(3):
        world.Allreduce(mine, sums)
    world.Barrier()
    began = time.perf_counter()
    for _ in range(10):
        world.Allreduce(mine, sums)
    seconds = (time.perf_counter() - began) / 10
elif len(sys.argv) > 2:
    values, until = numpy.ones(100_000), time.monotonic() + float(sys.argv[2])
    while world.allreduce(time.monotonic() < until, op=MPI.LAND):
        for _ in range(2000):
            values = numpy.sqrt(values)
elif len(sys.argv) > 1:
    until = time.monotonic() + float(sys.argv[1])
    while world.bcast(time.monotonic() < until):
        time.sleep(0.1)
if world.rank == 0:
    print("AT", json.dumps([first, seconds]), flush=True)
"""
TUNED = {
    "venv-mpi": {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_pml": "ob1",
        "OMPI_MCA_btl": "self,vader",
        "OMPI_MCA_plm": "isolated",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "OMPI_MCA_odls_base_sigkill_timeout": "0",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
    },
    "venv-mpi5": {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_ALLOW_RUN_AS_ROOT": "1",
        "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        "OMPI_MCA_pml": "ob1",
        "OMPI_MCA_btl": "self,sm",
        "OMPI_MCA_mpi_yield_when_idle": "1",
    },
    "venv-mpich": {},
}


def library(folder: str) -> str:
    found = {"venv-mpi": "/usr/lib/*/libmpi.so.40", "venv-mpi5": "lib/libmpi.so.40", "venv-mpich": "lib/libmpi*.so.12"}[
        folder
    ]
    root = Path("/") if found.startswith("/") else ROOT / "build" / folder
    return str(sorted(root.glob(found.lstrip("/")))[0])


def bare_command(folder: str, program: Path, ranks: int, *words: str) -> tuple[list[str], dict[str, str]]:
    python = ROOT / "build" / folder / "bin/python"
    own = python.parent / "mpirun"
    launcher = str(own) if own.exists() else "mpirun"
    env = {**os.environ, **TUNED[folder], "MPI4PY_LIBMPI": library(folder)}
    return [launcher, "-n", str(ranks), str(python), str(program), *words], env


def bare(folder: str, program: Path, ranks: int, *words: str) -> list[float]:
    command, env = bare_command(folder, program, ranks, *words)
    started = time.time()
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    first, seconds = json.loads(done.stdout.split("AT ", 1)[1].split("\n")[0])
    return [(first - started) * 1000, seconds * 1000]


def bare_killed(folder: str, program: Path) -> float:
    """Milliseconds from SIGKILL of a rank to mpirun's end."""
    command, env = bare_command(folder, program, 2, "600")
    rank = " ".join(command[3:])
    job = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ranks = until_two(lambda: [pid for pid in pids() if command_of(pid).startswith(rank)])
    began = time.monotonic()
    os.kill(ranks[0], signal.SIGKILL)
    job.wait()
    return (time.monotonic() - began) * 1000


def until_two(ranks: Callable[[], list[int]]) -> list[int]:
    """The two ranks of a job once both run and have met."""
    until = time.monotonic() + 60
    while len(found := ranks()) < 2:
        assert time.monotonic() < until, found
        time.sleep(0.3)
    time.sleep(0.5)
    return found


def submit(server: Server, replicas: int, slots: int, *words: str) -> tuple[str, float]:
    uid = uuid.uuid4().hex
    build = {"functionSourceCode": base64.b64encode(PROGRAM.encode()).decode(), "origin_filename": "work.py"}
    spec = {"replicas": replicas, "slots_per_worker": slots, "build": build, "command": "", "args": list(words)}
    body = {
        "function": {"kind": "mpijob", "metadata": {"name": "bench", "project": "default"}, "spec": spec},
        "task": {"metadata": {"name": "bench-m", "project": "default", "uid": uid}, "spec": {}},
    }
    started = time.time()
    answer = server.call("POST", "/api/v1/submit_job", body)
    assert answer.status == 200, answer.body
    return uid, started


def wait(server: Server, uid: str) -> dict[str, Any]:
    while True:
        run = server.call("GET", f"/api/v1/projects/default/runs/{uid}").json()["data"]
        if run["status"]["state"] in ("completed", "error", "aborted"):
            return dict(run)
        server.call("GET", f"/api/v1/projects/default/logs/{uid}?offset=100000000")


def ours(server: Server, replicas: int, slots: int, *words: str) -> list[float]:
    uid, started = submit(server, replicas, slots, *words)
    run = wait(server, uid)
    log = server.call("GET", f"/api/v1/projects/default/logs/{uid}").body.decode()
    assert run["status"]["state"] == "completed", log[-2000:]
    first, seconds = json.loads(log.split("AT ", 1)[1].split("\n")[0])
    return [(first - started) * 1000, seconds * 1000]


def rows_of(name: str, folder: str, program: Path, server: Server) -> list[tuple[str, ...]]:
    rows = []
    for title, replicas, slots, words, item in (
        ("start, 4 ranks in 2 pods", 2, 2, (), 0),
        ("start, 16 ranks in 16 pods", 16, 1, (), 0),
        ("allreduce 16 MiB, 2 ranks", 2, 1, ("allreduce",), 1),
    ):
        mine, theirs = [], []
        for _ in range(PAIRS):
            theirs.append(bare(folder, program, replicas * slots, *words)[item])
            mine.append(ours(server, replicas, slots, *words)[item])
        a, b = median(mine), median(theirs)
        rows.append((name, title, f"{a:.1f}", f"{b:.1f}", f"{a / b:.2f}"))
    return rows


def killed(server: Server) -> float:
    """Milliseconds from SIGKILL of a rank to the run's end."""
    uid, _started = submit(server, 2, 1, "600")

    def ranks_of_job() -> list[int]:
        return [pid for pid in processes(server, "metier_runner.rank ") if "metier-mpi" not in command_of(pid)]

    ranks = until_two(ranks_of_job)
    began = time.monotonic()
    os.kill(ranks[0], signal.SIGKILL)
    run = wait(server, uid)
    took = (time.monotonic() - began) * 1000
    assert run["status"]["reason"] == "RankFailed", run["status"]
    return took


def own_ticks(server: Server) -> dict[int, int]:
    """CPU of every process of ours: server, gate, shims, launcher, the ranks' stand-ins."""
    out = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if not (entry / "exe").readlink().name.startswith("metier"):
                continue
            if str(server.data).encode() in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                out[int(entry.name)] = int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return out


def own_cpu(server: Server, replicas: int, slots: int, seconds: int) -> tuple[float, float]:
    """CPU seconds of our own processes and of the ranks, from the submit of a job that computes to its end."""
    before = own_ticks(server)
    seen = dict(before)
    uid, _started = submit(server, replicas, slots, "compute", str(seconds))
    while True:
        run = server.call("GET", f"/api/v1/projects/default/runs/{uid}").json()["data"]
        seen.update(own_ticks(server))
        if run["status"]["state"] in ("completed", "error", "aborted"):
            break
        time.sleep(1)
    assert run["status"]["state"] == "completed", run["status"]["error"]
    parts = run["status"]["parts"]
    ranks = sum(part.get("cpu_seconds", 0.0) for part in parts if part["role"] == "rank")
    return sum(ticks - before.get(pid, 0) for pid, ticks in seen.items()) / TICK, ranks


def main() -> None:
    only = os.environ.get("BENCH_ROWS", "start,killed,cpu").split(",")
    folders = os.environ.get("BENCH_MPI", ",".join(ENVIRONMENTS.values())).split(",")
    if shutil.which("mpirun") is None:
        raise SystemExit("no mpirun here: scripts/setup")
    rows: list[tuple[str, ...]] = []
    notes: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as temporary:
        program = Path(temporary) / "work.py"
        program.write_text(PROGRAM)
        for name, folder in ENVIRONMENTS.items():
            python = ROOT / "build" / folder / "bin/python"
            if not python.exists() or folder not in folders:
                continue
            with running(Path(temporary) / folder / "data", python=str(python)) as server:
                ours(server, 2, 1)  # the zygote and the page cache
                if "start" in only:
                    rows += rows_of(name, folder, program, server)
                if "killed" in only:
                    pairs = [(killed(server), bare_killed(folder, program)) for _ in range(PAIRS)]
                    a, b = (median(one) for one in zip(*pairs, strict=True))
                    rows.append((name, "a killed rank → the end", f"{a:.1f}", f"{b:.1f}", f"{a / b:.2f}"))
                if "cpu" in only:
                    length = int(os.environ.get("BENCH_SECONDS", "60"))
                    for replicas, slots in ((2, 2), (16, 4)):
                        own, ranks = own_cpu(server, replicas, slots, length)
                        what = (
                            f"our own CPU of that of the ranks, {replicas * slots} ranks in {replicas} pods, {length} s"
                        )
                        notes.append((name, what, f"{100 * own / ranks:.2f} % ({own:.2f} of {ranks:.1f} s)"))
                        print(*notes[-1], flush=True)  # a minute each: kept whatever the next one does
    if rows:
        table("mpijob beside bare mpirun, ms", ("MPI", "what", "ours", "bare", "ratio"), rows)
    if notes:
        table("mpijob alone", ("MPI", "what", ""), notes)


if __name__ == "__main__":
    main()
