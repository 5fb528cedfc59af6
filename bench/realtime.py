"""Real time: CPU per event of ours beside bare uvicorn (uvloop, httptools), FastAPI and nginx, in one go, in interleaved rounds.

    bench/realtime.py [--rounds 5] [--seconds 2] [--quick]

Server and load generator (`wrk`) run on different cores where there are two. CPU is what all processes of a server used (schedstat), per
answered request; rates and latencies are wrk's. wrk and nginx come as Debian packages, unpacked below build/bench, nothing is installed;
uvicorn and FastAPI live in an environment of their own there. Nuclio's own figures (other machine, from the reference) are printed beside.
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

BUILD = ROOT / "build"
FOLDER = BUILD / "bench"
RELEASE = BUILD / "release"
PORT = 18970
NUCLIO = "Nuclio 1.14: Python 242-288 us CPU an event at 16 connections, 1,740-1,870 us for a 64 KiB echo; its Go handler 11.6-12.6 us"


def tools() -> tuple[list[str], list[str]]:
    """(wrk, nginx) as commands: the machine's own, or unpacked from Debian's packages."""
    wrk, nginx = shutil.which("wrk"), shutil.which("nginx")
    root = FOLDER / "root"
    if not (wrk and nginx) and not (root / "usr/bin/wrk").exists():
        packages = FOLDER / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["apt-get", "-q", "download", "wrk", "libluajit-5.1-2", "nginx"],
            cwd=packages,
            check=True,
            stderr=subprocess.DEVNULL,
        )
        for package in packages.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    library = next((str(p.parent) for p in root.rglob("libluajit-5.1.so.2")), "")
    return (
        [wrk] if wrk else ["env", f"LD_LIBRARY_PATH={library}", str(root / "usr/bin/wrk")],
        [nginx] if nginx else [str(root / "usr/sbin/nginx")],
    )


def peer_python() -> str:
    """The environment of uvicorn and FastAPI."""
    python = FOLDER / "venv" / "bin" / "python"
    if not python.exists():
        uv = str(BUILD / "tools" / "bin" / "uv")
        subprocess.run([uv, "venv", "-q", "--python", "/usr/bin/python3", str(FOLDER / "venv")], check=True)
        subprocess.run(
            [uv, "pip", "install", "-q", "--python", str(python), "uvicorn", "uvloop", "httptools", "fastapi"],
            check=True,
        )
        subprocess.run(
            [str(python), "-m", "compileall", "-q", str(FOLDER / "venv" / "lib")],
            check=False,
            stdout=subprocess.DEVNULL,
        )
    return str(python)


HANDLER = """
def empty(context, event):
    return ""

def echo(context, event):
    return event.body

async def coroutine(context, event):
    return ""

async def waits(context, event):
    import asyncio
    await asyncio.sleep(0.001)
    return ""
"""
ASGI = """
async def empty(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain"), (b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

async def echo(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})

async def waits(scope, receive, send):
    import asyncio
    if scope["type"] != "http":
        return
    await asyncio.sleep(0.001)
    await empty(scope, receive, send)
"""
FASTAPI = """
from fastapi import FastAPI, Request, Response
app = FastAPI()

@app.api_route("/", methods=["GET", "POST"])
async def root(request: Request):
    return Response(await request.body(), media_type="text/plain")
"""
NATIVE = """
#include <metier/handler.h>
METIER_EVENT_HANDLER(empty, [](metier::Context&, const metier::Event&) { return metier::Response(""); });
METIER_EVENT_HANDLER(echo, [](metier::Context&, const metier::Event& event) { return metier::Response(event.body()); });
"""


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
                if self.process.poll() is not None or time.monotonic() - begun > 20:
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
    requests = int(re.search(r"(\d+) requests in", output).group(1))  # type: ignore[union-attr]
    if "Non-2xx" in output or "Socket errors" in output:
        print(f"  {server.name}: {output}")

    def latency(which: str) -> float:
        match = re.search(rf"{which}%\s+([\d.]+)(us|ms|s)", output)
        return float(match.group(1)) * {"us": 1, "ms": 1e3, "s": 1e6}[match.group(2)] if match else 0.0

    return Sample(used / 1000 / max(1, requests), requests / max(1, round(seconds)), latency("50"), latency("99"))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--quick", action="store_true", help="16 connections only")
    parser.add_argument("--only", default="", help="empty, echo, native, async, start")
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
    (code / "native.cc").write_text(NATIVE)
    subprocess.run(
        [
            "g++",
            "-std=c++17",
            "-O2",
            "-fPIC",
            "-shared",
            "-fvisibility=hidden",
            f"-I{ROOT / 'include'}",
            "native.cc",
            "-o",
            "native.so",
        ],
        cwd=code,
        check=True,
    )
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
    want = options.only.split(",") if options.only else ["start", "empty", "echo", "native", "async"]
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
                memory = " + ".join(f"{memory_mib(pid):.1f}" for pid in tree(server.process.pid))
                server.stop()
            rows.append((server.name, f"{median(times):.0f}", memory))
        table("Start to the first 200, and memory (resident MiB of each process)", ("server", "ms", "MiB"), rows)
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
    if "native" in want:
        compare(
            "Native",
            wrk,
            [nginx_server, ours("metier native", "native.so:empty", "native", folder)],
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


if __name__ == "__main__":
    main()
