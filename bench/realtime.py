"""Real time: CPU per event of ours beside bare uvicorn (uvloop, httptools), FastAPI, Go's net/http and nginx, in one go, in interleaved rounds.

    bench/realtime.py [--rounds 5] [--seconds 2] [--quick]

Server and load generator (`wrk`) run on different cores where there are two. CPU is what all processes of a server used (schedstat), per
answered request; rates and latencies are wrk's, those of "open" our own open-loop generator's at half of the rate that wrk reached. Peers
and tools: bench/peers.py. Nuclio's own figures (other machine, from the reference) are printed beside.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from common import ROOT, median, memory_mib, table
from peers import ASGI, BUILD, FASTAPI, FOLDER, HANDLER, compile_native, go_server, open_loop, peer_python, tools

RELEASE = BUILD / "release"
PORT = 18970
NUCLIO = "Nuclio 1.14: Python 242-288 us CPU an event at 16 connections, 1,740-1,870 us for a 64 KiB echo; its Go handler 11.6-12.6 us"


def lib() -> str:
    folder = FOLDER / "lib"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(
        ROOT / "python" / "worker" / "metier_worker",
        folder / "metier_worker",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copy(RELEASE / "worker" / "_ring.abi3.so", folder / "metier_worker")
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(folder)], check=True)
    return str(folder)


def tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += tree(int(child))
    return found


def cpu_ns(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(task.read_text().split()[0])
    return total


def own_mib(pid: int) -> float:
    """What would be free if this process ended: its private memory in MiB."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return sum(int(n) for n in re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", text, re.M)) / 1024
    return 0.0


@dataclass
class Sample:
    cpu_us: float
    rate: float
    p50_us: float
    p99_us: float


@dataclass
class Server:
    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    first_answer_ms: float = 0.0

    def start(self, port: int, log: Path) -> None:
        pin = ["taskset", "-c", "0"] if (os.cpu_count() or 1) > 1 else []
        command = [
            word.replace("@PORT@", "@P@").replace("PORT", str(port)).replace("@P@", "@PORT@") for word in self.command
        ]
        begun = time.monotonic()
        self.process = subprocess.Popen(
            [*pin, *command], env={**os.environ, **self.environment}, stdout=log.open("ab"), stderr=subprocess.STDOUT
        )
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() - begun > 120:
                    raise SystemExit(f"{self.name} did not start: {log.read_text()[-2000:]}") from None
                time.sleep(0.001)
        self.first_answer_ms = (time.monotonic() - begun) * 1000

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def wrk_sample(output: str, used_ns: int, seconds: int) -> Sample:
    """What wrk printed after so many seconds in which the servers used so much processor time."""
    requests = int(re.search(r"(\d+) requests in", output).group(1))  # type: ignore[union-attr]

    def latency(which: str) -> float:
        match = re.search(rf"{which}%\s+([\d.]+)(us|ms|s)", output)
        return float(match.group(1)) * {"us": 1, "ms": 1e3, "s": 1e6}[match.group(2)] if match else 0.0

    return Sample(used_ns / 1000 / max(1, requests), requests / seconds, latency("50"), latency("99"))


def load(wrk: list[str], server: Server, port: int, connections: int, size: int, seconds: float) -> Sample:
    script = FOLDER / f"body{size}.lua"
    script.write_text(f'wrk.method = "POST"\nwrk.body = string.rep("x", {size})\n' if size else "")
    pin = ["taskset", "-c", "1"] if (os.cpu_count() or 1) > 1 else []
    assert server.process is not None
    pids = tree(server.process.pid)
    before = cpu_ns(pids)
    output = subprocess.run(
        [
            *pin,
            *wrk,
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--latency",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}/",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    used = cpu_ns(pids) - before
    if "Non-2xx" in output or "Socket errors" in output:
        print(f"  {server.name}: {output}")
    return wrk_sample(output, used, max(1, round(seconds)))


def ours(name: str, handler: str, runtime: str, path: str, **trigger: object) -> Server:
    config = {
        "name": "bench",
        "handler": handler,
        "runtime": runtime,
        "path": path,
        "lib": str(FOLDER / "lib"),
        "python": "/usr/bin/python3",
        "triggers": [{"name": "web", "kind": "http", "listen": {"address": "127.0.0.1:@PORT@"}, **trigger}],
    }
    file = FOLDER / f"{name.replace(' ', '-')}.json"
    binary = RELEASE / "src" / "realtime" / "metier_processor"
    # The port is known only when the server starts: the shell writes it in.
    file.write_text(json.dumps(config))
    return Server(name, ["sh", "-c", f"sed s/@PORT@/PORT/ {file} > {file}.run && exec {binary} --config {file}.run"])


@contextlib.contextmanager
def running(servers: list[Server]) -> Iterator[dict[str, int]]:
    ports = {}
    try:
        for number, server in enumerate(servers):
            ports[server.name] = PORT + number
            server.start(PORT + number, FOLDER / "servers.log")
        yield ports
    finally:
        for server in servers:
            server.stop()


def compare(
    title: str,
    wrk: list[str],
    servers: list[Server],
    cases: list[tuple[int, int]],
    rounds: int,
    seconds: float,
    base: str,
) -> None:
    rows = []
    with running(servers) as ports:
        for server in servers:
            load(wrk, server, ports[server.name], 16, cases[0][1], 1)  # warm
        for connections, size in cases:
            samples: dict[str, list[Sample]] = {server.name: [] for server in servers}
            for _ in range(rounds):
                for server in servers:
                    samples[server.name].append(load(wrk, server, ports[server.name], connections, size, seconds))
            reference = median([s.cpu_us for s in samples[base]])
            for server in servers:
                mine = samples[server.name]
                cpu = median([s.cpu_us for s in mine])
                ratio = median([a.cpu_us / b.cpu_us for a, b in zip(mine, samples[base])])
                rows.append(
                    (
                        f"{connections}",
                        f"{size} B",
                        server.name,
                        f"{cpu:.1f}",
                        f"{ratio:.2f}" if server.name != base else "1",
                        f"{median([s.rate for s in mine]):,.0f}",
                        f"{median([s.p50_us for s in mine]):.0f}",
                        f"{median([s.p99_us for s in mine]):.0f}",
                    )
                )
            assert reference > 0
    table(
        f"{title} (ratio: of {base}, median of pairs)",
        ("conns", "body", "server", "CPU us", "ratio", "req/s", "p50 us", "p99 us"),
        rows,
    )


def open_compare(wrk: list[str], servers: list[Server], rounds: int, seconds: float, base: str) -> None:
    """Latencies at half of each server's peak rate, whatever the server does: requests leave when they are due."""
    generator = open_loop()
    pin = ["taskset", "-c", "1"] if (os.cpu_count() or 1) > 1 else []
    rows = []
    with running(servers) as ports:
        half = {}
        for server in servers:
            load(wrk, server, ports[server.name], 16, 0, 1)
            half[server.name] = load(wrk, server, ports[server.name], 64, 0, seconds).rate / 2
        samples: dict[str, list[dict[str, float]]] = {server.name: [] for server in servers}
        for _ in range(rounds):
            for server in servers:
                command = [generator, str(ports[server.name]), "64", f"{half[server.name]:.0f}", str(seconds)]
                done = subprocess.run([*pin, *command], capture_output=True, text=True, check=True)
                samples[server.name].append(json.loads(done.stdout))
        tail = {name: median([s["p99"] / max(s["p50"], 0.1) for s in mine]) for name, mine in samples.items()}
        for server in servers:
            mine = samples[server.name]
            rows.append(
                (
                    server.name,
                    f"{half[server.name]:,.0f}",
                    *(f"{median([s[which] for s in mine]):.0f}" for which in ("p50", "p99", "p999")),
                    f"{tail[server.name]:.1f}",
                    f"{tail[server.name] - tail[base]:+.1f}" if server.name != base else "",
                    f"{sum(s['failed'] for s in mine):.0f}",
                )
            )
    table(
        f"Open loop at half of the peak rate (target: p99/p50 at most {base}'s + 2)",
        ("server", "req/s", "p50 us", "p99 us", "p99.9 us", "p99/p50", "against", "failed"),
        rows,
    )


def from_zero(rounds: int) -> None:
    """The first request to a function at zero replicas, its environment warm: sent to answered."""
    if not (RELEASE / "metier").exists():
        print("from zero: not measured, build/release/metier is missing (scripts/build release)")
        return
    from support.server import running as running_server

    times = []
    folder = FOLDER / "zero"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(HANDLER)
    (folder / "function.yaml").write_text(
        "apiVersion: nuclio.io/v1beta1\nkind: NuclioFunction\nmetadata: {name: zero}\n"
        "spec: {handler: 'main:empty', runtime: python, minReplicas: 0, maxReplicas: 1,\n"
        "       scaleToZero: {scaleResources: [{metricName: events, windowSize: 1s, threshold: 0}]}}\n"
    )
    with running_server(folder / "data") as server:
        done = server.metier("deploy", "-f", "function.yaml", cwd=folder)
        assert done.returncode == 0, done.stderr
        url = done.stdout.strip()

        def until_state(wanted: str) -> None:
            while server.call("GET", "/api/metier/v1/deployments/zero?project=default").json()["state"] != wanted:
                time.sleep(0.05)

        for _ in range(rounds + 1):
            until_state("ready")  # the call before has been noticed
            until_state("scaledToZero")
            time.sleep(0.5)  # its processor has ended
            begun = time.monotonic()
            urllib.request.urlopen(url, timeout=30).read()
            times.append((time.monotonic() - begun) * 1000)
    table("From zero replicas (target 50 ms)", ("median ms", "all"), [
        (f"{median(times[1:]):.0f}", " ".join(f"{t:.0f}" for t in times[1:])),
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--quick", action="store_true", help="16 connections only")
    parser.add_argument("--only", default="", help="start, zero, empty, echo, native, async, open")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    wrk, nginx = tools()
    python = peer_python()
    lib()
    code = FOLDER / "code"
    code.mkdir(exist_ok=True)
    (code / "handler.py").write_text(HANDLER)
    (code / "app.py").write_text(ASGI)
    (code / "fast.py").write_text(FASTAPI)
    compile_native(code)
    (FOLDER / "nginx").mkdir(exist_ok=True)
    (FOLDER / "nginx.conf").write_text(
        f"daemon off; master_process off; worker_processes 1; pid {FOLDER}/nginx/pid; error_log {FOLDER}/nginx/error.log;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {FOLDER}/nginx; proxy_temp_path {FOLDER}/nginx;"
        f" fastcgi_temp_path {FOLDER}/nginx; uwsgi_temp_path {FOLDER}/nginx; scgi_temp_path {FOLDER}/nginx;\n"
        '  server { listen 127.0.0.1:@PORT@; location / { default_type text/plain; return 200 ""; } } }\n'
    )

    def uvicorn(name: str, app: str) -> Server:
        return Server(
            name,
            [
                python,
                "-m",
                "uvicorn",
                app,
                "--app-dir",
                str(code),
                "--port",
                "PORT",
                "--loop",
                "uvloop",
                "--http",
                "httptools",
                "--no-access-log",
                "--log-level",
                "warning",
            ],
        )

    conf = FOLDER / "nginx.conf"
    nginx_server = Server(
        "nginx return", ["sh", "-c", f"sed s/@PORT@/PORT/ {conf} > {conf}.run && exec {' '.join(nginx)} -c {conf}.run"]
    )
    some = [16] if options.quick else [1, 16, 64]
    folder = str(code)
    want = options.only.split(",") if options.only else ["start", "zero", "empty", "echo", "native", "async", "open"]
    print(NUCLIO)
    if "start" in want:
        rows = []
        for server in (
            ours("metier python", "handler:empty", "python", folder),
            ours("metier native", "native.so:empty", "native", folder),
            uvicorn("uvicorn", "app:empty"),
            nginx_server,
        ):
            times, memory = [], ""
            for _ in range(options.rounds):
                server.start(PORT, FOLDER / "servers.log")
                assert server.process is not None
                times.append(server.first_answer_ms)
                memory = " + ".join(f"{memory_mib(pid):.1f} ({own_mib(pid):.1f})" for pid in tree(server.process.pid))
                server.stop()
            rows.append((server.name, f"{median(times):.0f}", memory))
        table(
            "Start to the first 200, and memory (MiB of each process: resident, its own)", ("server", "ms", "MiB"), rows
        )
    if "empty" in want:
        compare(
            "Empty handler",
            wrk,
            [
                uvicorn("uvicorn", "app:empty"),
                ours("metier python", "handler:empty", "python", folder),
                ours("metier depth 1", "handler:empty", "python", folder, queueDepth=1),
                ours("metier coroutine", "handler:coroutine", "python", folder),
                ours("metier 2 workers", "handler:empty", "python", folder, numWorkers=2),
                uvicorn("fastapi", "fast:app"),
            ],
            [(c, 0) for c in some],
            options.rounds,
            options.seconds,
            "uvicorn",
        )
    if "echo" in want:
        compare(
            "Echo",
            wrk,
            [
                uvicorn("uvicorn", "app:echo"),
                ours("metier python", "handler:echo", "python", folder),
                ours("metier depth 1", "handler:echo", "python", folder, queueDepth=1),
            ],
            [(c, size) for size in (1024, 65536) for c in some],
            options.rounds,
            options.seconds,
            "uvicorn",
        )
    gos = []
    if {"native", "open"} & set(want):  # its first build compiles Go's own library: minutes on a busy machine
        go = go_server()
        gos = [Server("go net/http", [go, "PORT"], {"GOMAXPROCS": "1"})] if go else []
        if not gos:
            print("go net/http: not measured, there is no Go on this machine")
    if "zero" in want:
        from_zero(options.rounds)
    if "native" in want:
        compare(
            "Native",
            wrk,
            [nginx_server, ours("metier native", "native.so:empty", "native", folder), *gos],
            [(c, 0) for c in some],
            options.rounds,
            options.seconds,
            "nginx return",
        )
    if "async" in want:
        compare(
            "A handler that waits 1 ms",
            wrk,
            [uvicorn("uvicorn", "app:waits"), ours("metier async", "handler:waits", "python", folder, mode="async")],
            [(64, 0)],
            options.rounds,
            options.seconds,
            "uvicorn",
        )

    if "open" in want:
        open_compare(
            wrk,
            [
                nginx_server,
                ours("metier python", "handler:empty", "python", folder),
                ours("metier native", "native.so:empty", "native", folder),
                uvicorn("uvicorn", "app:empty"),
                uvicorn("fastapi", "fast:app"),
                *gos,
            ],
            options.rounds,
            options.seconds,
            "nginx return",
        )


if __name__ == "__main__":
    main()
