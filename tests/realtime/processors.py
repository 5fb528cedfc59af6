"""Processors for tests: `metier processor --config FILE`, its calls, metrics and end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("METIER_BINARY", str(ROOT / "build" / "dev" / "metier"))
# The processor alone (`metier_processor`), for work on it without building the whole program.
ALONE = os.environ.get("METIER_PROCESSOR", "")


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<{self.status} {self.headers} {self.body[:300]!r}>"


def children(pid: int) -> list[int]:
    """All descendants that live."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *children(int(child))]
    return found


# Of every wait: only a broken test reaches it, however busy the machine is.
LIMIT = 180.0


def until(check: Any, seconds: float = LIMIT, what: str = "it") -> Any:
    """Wait for a true value; the limit is only there to end a broken test."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = check()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds} s for {what}")


class Processor:
    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        environment: dict[str, str] | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.folder = folder
        self.config = config
        path = folder / "config.json"
        path.write_text(json.dumps(config))
        command = [ALONE] if ALONE else [BINARY, "processor"]
        self.out = open(folder / "out.log", "ab")  # noqa: SIM115
        variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
        variables.pop("PYTHONPATH", None)
        self.process = subprocess.Popen(
            [*command, "--config", str(path)],
            stdout=self.out,
            stderr=subprocess.STDOUT,
            env=variables,
            pass_fds=pass_fds,
        )
        self.ports: dict[str, int] = {}

    def wait_ready(self, seconds: float = LIMIT) -> Processor:
        ready = Path(self.config["readyFile"])

        def is_ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"the processor ended with {self.process.returncode}:\n{self.log()}")
            return ready.exists()

        until(is_ready, seconds, what="the processor")
        document = json.loads(ready.read_text())
        self.ports = document["ports"]
        self.health, self.metrics_port = document.get("health", 0), document.get("metrics", 0)
        self.admin = document.get("admin", 0)
        return self

    def log(self) -> str:
        return (self.folder / "out.log").read_text(errors="replace")

    @property
    def port(self) -> int:
        return next(iter(self.ports.values()))

    def call(
        self,
        path: str = "/",
        body: Any = None,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 30,
    ) -> Answer:
        if isinstance(body, str):
            body = body.encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(
                method or ("POST" if body is not None else "GET"), path, body=body, headers=headers or {}
            )
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def raw(self, data: bytes, timeout: float = 30) -> bytes:
        """Send bytes, return everything until the other side closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as client:
            client.sendall(data)
            parts = []
            with contextlib.suppress(ConnectionResetError):
                while part := client.recv(65536):
                    parts.append(part)
            return b"".join(parts)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def get(self, port: int, path: str) -> Answer:
        """What one of its own ports answers, as soon as the event loop takes part: on a starved machine it may be late."""
        answers: list[Answer] = []

        def loop_answers() -> bool:
            answers.append(self.get_once(port, path))
            return not (answers[-1].status == 503 and "the event loop is busy" in answers[-1].text)

        until(loop_answers, what="the event loop")
        return answers[-1]

    def get_once(self, port: int, path: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        total, found = 0.0, False
        for line in self.get(self.metrics_port, "/metrics").text.splitlines():
            if line.startswith(name + "{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total, found = total + float(line.rsplit(" ", 1)[1]), True
        assert found, f"no metric {name} {labels}"
        return total

    def stop(self, kill: bool = False) -> int:
        family = children(self.process.pid) if self.process.poll() is None else []
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            code = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self.out.close()

        def gone() -> bool:
            return not any(
                Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1][:3]
                for pid in family
            )

        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            until(gone, what=f"processes {family} to end")
        return code


class Make:
    """Starts processors; all are gone at the end of the test."""

    def __init__(self, folder: Path, lib: str) -> None:
        self.folder, self.lib = folder, lib
        self.running: list[Processor] = []

    def config(self, source: str | None, **more: Any) -> dict[str, Any]:
        number = len(self.running)
        folder = self.folder / f"p{number}"
        (folder / "code").mkdir(parents=True)
        if source is not None:
            (folder / "code" / more.pop("file", "main.py")).write_text(source)
        trigger = {
            "name": "web",
            "kind": "http",
            "listen": {"address": "127.0.0.1:0"},
            "numWorkers": more.pop("workers", 1),
            "attributes": more.pop("attributes", {}),
            **more.pop("trigger", {}),
        }
        return {
            "name": "f",
            "handler": "main:handler",
            "path": str(folder / "code"),
            "lib": self.lib,
            "python": sys.executable,
            "triggers": [trigger],
            "health": {"address": "127.0.0.1:0"},
            "metrics": {"address": "127.0.0.1:0"},
            "admin": {"address": "127.0.0.1:0"},
            "readyFile": str(folder / "ready.json"),
            **more,
        }

    def start(
        self, source: str | None, environment: dict[str, str] | None = None, pass_fds: tuple[int, ...] = (), **more: Any
    ) -> Processor:
        config = self.config(source, **more)
        processor = Processor(Path(config["readyFile"]).parent, config, environment, pass_fds)
        self.running.append(processor)
        return processor

    def __call__(self, source: str | None, **more: Any) -> Processor:
        return self.start(source, **more).wait_ready()
