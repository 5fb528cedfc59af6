"""Submit to the first line of user code, and `metier run` prompt to prompt, beside fresh interpreters and mlrun.

Medians in milliseconds, ours and the peer's, and the ratio. The handler logs the time at which its first line
runs; the client notes the time just before the request.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from common import ROOT, cpu_seconds, median, memory_mib, table
from support.server import BINARY, Server, kill_tree_of, running

FIRST_LINE = "import time\ndef f(context):\n    context.log_result('at', time.time())\n"
REPEAT = int(os.environ.get("BENCH_REPEAT", "21"))


def submit_to_first_line(server: Server, imports: str) -> float:
    code = base64.b64encode((imports + FIRST_LINE).encode()).decode()
    times = []
    for _ in range(REPEAT + 3):
        uid = uuid.uuid4().hex
        build = {"functionSourceCode": code, "origin_filename": "f.py"}
        metadata = {"name": "bench", "project": "default"}
        body = {
            "function": {"kind": "job", "metadata": metadata, "spec": {"image": "mlrun/mlrun", "build": build}},
            "task": {"metadata": {"name": "bench-f", "project": "default", "uid": uid}, "spec": {"handler": "f"}},
        }
        started = time.time()
        answer = server.call("POST", "/api/v1/submit_job", body)
        assert answer.status == 200, answer.body
        while True:
            run = server.call("GET", f"/api/v1/projects/default/runs/{uid}").json()["data"]
            if run["status"]["state"] in ("completed", "error"):
                break
            server.call("GET", f"/api/v1/projects/default/logs/{uid}?offset=1000000")
        assert run["status"]["state"] == "completed", run["status"]
        times.append((run["status"]["results"]["at"] - started) * 1000)
    return median(times[3:])


def fresh_python(python: str, imports: str) -> float:
    times = []
    for _ in range(max(3, REPEAT // 3)):
        started = time.time()
        out = subprocess.run(
            [python, "-c", f"{imports}import time; print(time.time())"], capture_output=True, text=True
        )
        times.append((float(out.stdout.split()[-1]) - started) * 1000)
    return median(times)


def prompt_to_prompt(command: list[str], env: dict[str, str], repeat: int = REPEAT, cwd: str | None = None) -> float:
    times = []
    for _ in range(repeat):
        started = time.monotonic()
        subprocess.run(command, env=env, cwd=cwd, check=True, capture_output=True)
        times.append((time.monotonic() - started) * 1000)
    return median(times)


def first_lines() -> None:
    rows = []
    for name, imports, python in (
        ("bare", "", sys.executable),
        ("pandas", "import pandas\n", str(ROOT / "build" / "venv" / "bin" / "python")),
        ("mlrun", "import mlrun\n", str(ROOT / "build" / "venv-sdk" / "bin" / "python")),
    ):
        if not Path(python).exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            preload = {"METIER_PRELOAD": imports.split()[1]} if imports else {}
            with running(Path(folder) / "data", python=python, env=preload) as server:
                ours = submit_to_first_line(server, imports)
        theirs = fresh_python(python, imports)
        rows.append((name, f"{ours:.1f}", f"{theirs:.1f}", f"{theirs / ours:.1f}x"))
    title = "submit to first user line, ms (peer: a fresh python3 with the same import)"
    table(title, ("imports", "ours", "python3", "ratio"), rows)


def commands() -> None:
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "empty.py"
        code.write_text("def f(context):\n    pass\n")
        with running(Path(folder) / "data") as server:
            command = [BINARY, "run", f"{code}:f", "--kind"]
            for kind in ("job", "local", "handler"):
                subprocess.run([*command, kind], env=server.environment, check=True, capture_output=True)
                value = prompt_to_prompt([*command, kind], server.environment)
                rows.append((f"metier run --kind {kind}", f"{value:.1f}"))
            rows.append(("metier version", f"{prompt_to_prompt([BINARY, 'version'], server.environment):.1f}"))
            assert server.process is not None
            idle = (memory_mib(server.process.pid), cpu_seconds(server.process.pid))
        peer = ROOT / "build" / "venv-sdk" / "bin" / "mlrun"
        if peer.exists():
            env = {**os.environ, "MLRUN_DBPATH": "", "PATH": f"{peer.parent}:{os.environ['PATH']}"}
            value = prompt_to_prompt([str(peer), "run", "--local", "--handler", "f", "empty.py"], env, 3, folder)
            rows.append(("mlrun run --local (peer)", f"{value:.0f}"))
        alone = []
        for i in range(5):
            cold = Server(Path(folder) / f"alone{i}" / "data")
            cold.data.mkdir(parents=True)
            alone.append(prompt_to_prompt([BINARY, "run", f"{code}:f", "--kind", "job"], cold.environment, 1))
            kill_tree_of(str(cold.data))
        rows.append(("metier run --kind job, starting its server", f"{median(alone):.0f}"))
        starts = []
        for i in range(5):
            lonely = Server(Path(folder) / f"cold{i}" / "data")
            lonely.data.mkdir(parents=True)
            starts.append(lonely.start().ready_seconds * 1000)
            lonely.stop()
        rows.append(("server, start to ready", f"{median(starts):.0f}"))
    table("prompt to prompt, ms", ("command", "median"), rows)
    print(f"  server after the runs: {idle[0]:.0f} MiB resident, {idle[1]:.2f} s of CPU")


if __name__ == "__main__":
    first_lines()
    commands()
