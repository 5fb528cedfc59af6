"""A server of the tests' own: data folder below a temporary one, loopback only, killed at the end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BINARY = os.environ.get("METIER_BINARY", str(Path(__file__).resolve().parents[2] / "build" / "dev" / "metier"))


class Answer:
    """Status, headers and body of one REST call."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {k.lower(): v for k, v in headers.items()}
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    def __init__(
        self,
        data: Path,
        python: str = sys.executable,
        env: dict[str, str] | None = None,
        user: int | None = None,
        listen: str = "127.0.0.1:0",
    ) -> None:
        self.data = data
        self.python = python
        self.extra = env or {}
        self.listen = listen
        self.wrapper: list[str] = []  # a program that starts the server (strace)
        self.user = user  # the server runs as this user; only root can
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.token = ""
        self.ready_seconds = 0.0  # from exec to "ready", of the last start

    @property
    def environment(self) -> dict[str, str]:
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("METIER_", "MLRUN_", "PYTHON", "VIRTUAL_ENV"))}
        return {
            **keep,
            "METIER_DATA": str(self.data),
            "METIER_PYTHON": self.python,
            "HOME": str(self.data.parent),
            "NO_COLOR": "1",
            **self.extra,
        }

    def start(self, *options: str, env: dict[str, str] | None = None) -> Server:
        read, write = os.pipe()
        os.set_inheritable(write, True)
        self.data.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with open(self.data.parent / "server.err", "ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, BINARY, "server", "--listen", self.listen, "--data", str(self.data), *options],
                env={**self.environment, "METIER_READY_FD": str(write), **(env or {})},
                pass_fds=(write,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else [],
            )
        os.close(write)
        said = b""
        with open(read, "rb", buffering=0) as ready:
            while b"ready" not in said:
                # A wrapper keeps the other end open, for as long as a gate lives that the dead server has left.
                if not select.select([ready], [], [], 0.2)[0]:
                    if self.wrapper and self.died():
                        raise AssertionError(f"server died: {self.errors()[-2000:]}")
                    continue
                if not (more := ready.read(64)):
                    break
                said += more
        self.ready_seconds = time.monotonic() - began
        if b"ready" not in said:
            self.process.wait()
            raise AssertionError(f"server ended {self.process.returncode}: {self.errors()[-2000:]}")
        # This server or none: where one dies at once, the command line would start another for itself.
        lines = self.metier("env", env={"METIER_SERVER": str(self.data / "metier.sock")}).stdout.splitlines()
        values = dict(line.removeprefix("export ").split("=", 1) for line in lines if "=" in line and "export" in line)
        if "MLRUN_DBPATH" not in values:
            raise AssertionError(f"server ended after it was ready: {self.errors()[-2000:]}")
        self.url = values["MLRUN_DBPATH"].strip("'\"")
        self.token = values["METIER_TOKEN"].strip("'\"")
        return self

    def errors(self) -> str:
        return (self.data.parent / "server.err").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The server's own process, whoever started it."""
        text = (self.data / "lock").read_text()
        if not text:  # it has stopped by itself, or has not begun
            raise ProcessLookupError(str(self.data))
        return int(text)

    def died(self) -> bool:
        """It had begun, and its process is gone."""
        with contextlib.suppress(FileNotFoundError):
            text = (self.data / "lock").read_text()
            return text != "" and not Path(f"/proc/{int(text)}").exists()
        return False

    def kill(self) -> None:
        assert self.process is not None
        if self.wrapper:
            with contextlib.suppress(OSError, ValueError):
                os.kill(self.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        if self.process is None or self.process.poll() is not None:
            return self.process.returncode if self.process else 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def metier(
        self, *arguments: str, cwd: Path | str | None = None, timeout: float = 90, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BINARY, *arguments],
            env={**self.environment, **(env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
        )

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)
        with contextlib.closing(connection):
            sent = {"Authorization": f"Bearer {self.token if token is None else token}", **(headers or {})}
            data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            connection.request(method, path, body=data, headers=sent)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())


def kill_tree_of(marker: str) -> list[int]:
    """Kills every process that has `marker` (a folder) in its command line or environment; gives their pids."""
    killed = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        text = b""
        for file in ("cmdline", "environ"):  # the server's environment is closed to its own user
            with contextlib.suppress(OSError):
                text += (entry / file).read_bytes()
        if marker.encode() in text:
            with contextlib.suppress(OSError):
                os.kill(int(entry.name), signal.SIGKILL)
                killed.append(int(entry.name))
    return killed


@contextlib.contextmanager
def running(data: Path, *options: str, **keywords: Any) -> Iterator[Server]:
    server = Server(data, **keywords)
    try:
        yield server.start(*options)
    finally:
        server.stop()
        kill_tree_of(str(data))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
