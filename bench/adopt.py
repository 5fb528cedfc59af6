"""kill -9 of a server with 1,000 live pods: from the exec of the next one to "ready" and to all of them adopted."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import cpu_seconds, memory_mib, table
from support.server import Server, kill_tree_of

COUNT = int(os.environ.get("BENCH_LIVE", "1000"))


def submit(server: Server, program: str) -> None:
    metadata = {"name": "sleeper", "project": "default"}
    spec = {"image": "none", "command": program, "mode": "pass"}
    body = {
        "function": {"kind": "job", "metadata": metadata, "spec": spec},
        "task": {"metadata": {**metadata, "uid": uuid.uuid4().hex}, "spec": {}},
    }
    answer = server.call("POST", "/api/v1/submit_job", body)
    assert answer.status == 200, answer.body


def in_state(server: Server, state: str) -> int:
    path = f"/api/v1/projects/default/runs?state={state}&page=1&page-size=1000"
    return len(server.call("GET", path).json()["runs"])


def running_pods(server: Server) -> int:
    pods = server.call("GET", "/api/metier/v1/pods?project=default").json()["pods"]
    return sum(pod.get("status", {}).get("phase") == "Running" for pod in pods)


def wait(server: Server, state: str, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (have := in_state(server, state)) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"error: only {have} of {count} are {state}")
        time.sleep(0.1)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, program, go = Path(folder) / "wait.c", Path(folder) / "wait", Path(folder) / "go"
        source.write_text(
            f'#include <unistd.h>\nint main(void) {{ while (access("{go}", F_OK) != 0) usleep(500000); return 0; }}\n'
        )
        subprocess.run(["cc", "-static", "-O2", "-o", str(program), str(source)], check=True)
        server = Server(Path(folder) / "data").start()
        try:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: submit(server, str(program)), range(COUNT)))
            wait(server, "running", COUNT, 120)
            server.kill()
            began = time.monotonic()
            server.start()
            while (have := running_pods(server)) < COUNT:
                if time.monotonic() - began > 60:
                    raise SystemExit(f"error: {have} of {COUNT} pods were adopted")
            adopted = time.monotonic() - began
            assert server.process is not None
            rows = [
                ("live pods", str(COUNT), ""),
                ("start to ready, s", f"{server.ready_seconds:.2f}", ""),
                ("start to all adopted, s", f"{adopted:.2f}", "3"),
                ("CPU of the new server, s", f"{cpu_seconds(server.process.pid):.2f}", ""),
                ("its memory, MiB", f"{memory_mib(server.process.pid):.0f}", ""),
            ]
            go.touch()
            wait(server, "completed", COUNT, 120)
            rows.append(("completed after the adoption", str(in_state(server, "completed")), str(COUNT)))
            table("adoption of live pods after kill -9", ("what", "value", "target"), rows)
        finally:
            server.stop()
            kill_tree_of(folder)


if __name__ == "__main__":
    main()
