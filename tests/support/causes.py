"""A server whose runs are made to wait and fail, and what `metier why` says of them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shlex
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from support.server import Server, running

SOURCE = Path(__file__).resolve().parents[2]
TOOLS = SOURCE / "build" / "tools" / "bin"
ENDED = ("completed", "error", "aborted")

CODE = """
import os, signal, sys, time

# There is no trian here.
def ok(context, n: int = 1):
    context.log_result("n", n)

def even(context, n: int):
    if n % 2:
        raise ValueError(f"{n} is odd")

def fail(context):
    raise ValueError("no such luck")

def missing(context):
    import surely_not_installed
    context.log_result("found", surely_not_installed.VALUE)

def slow(context):
    print("sleeping", flush=True)
    time.sleep(600)

def hungry(context):
    block = bytearray(90 << 20)
    context.log_result("bytes", len(block))

def pool(context):
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(1) as executor:
        print(executor.submit(eval, "len(bytearray(120 << 20))").result())

def crash(context):
    os.kill(os.getpid(), signal.SIGSEGV)

def leave(context):
    sys.exit(7)

def reads(context):
    context.log_result("secret", "TOKEN" in os.environ)
    context.log_result("seen", os.path.exists("/data"))
"""


@dataclass
class Cause:
    """What `metier why` and the run's record say together."""

    code: str
    sentence: str
    facts: dict[str, str]
    fixes: dict[str, str] = field(default_factory=dict)

    def command(self, start: str) -> list[str]:
        """The words of the fix whose command begins so."""
        return next(shlex.split(c) for c in self.fixes.values() if c.startswith(start))


@dataclass
class Place:
    server: Server
    folder: Path

    def run(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        done = self.server.metier("run", *arguments, "-o", "json", cwd=self.folder)
        return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr

    def detach(self, *arguments: str) -> str:
        done = self.server.metier("run", *arguments, "--detach", "-o", "name", cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def why(self, uid: str, *more: str) -> Cause:
        done = self.server.metier("why", uid, "-o", "json", *more)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        told = self.server.metier("help", document["code"])
        assert told.returncode == 0, f"`metier help {document['code']}` knows nothing of it"
        facts = {name: value for name, value in document["facts"]}
        return Cause(document["code"], document["sentence"], facts, dict(document["fixes"]))

    def waits_for(self, uid: str, code: str) -> Cause:
        return until(lambda: (lambda cause: cause if cause.code == code else None)(self.why(uid)), f"{uid} for {code}")

    def ended(self, uid: str) -> str:
        def state() -> str | None:
            answer = self.server.call("GET", f"/api/v1/projects/default/runs/{uid}?format=full")
            now = str(answer.json()["data"]["status"]["state"])
            return now if now in ENDED else None

        return until(state, f"{uid} to end")

    def abort(self, uid: str) -> None:
        done = self.server.metier("abort", uid)
        assert done.returncode == 0, done.stderr

    def submit(
        self, spec: dict[str, Any], handler: str = "ok", name: str = "by-rest", kind: str = "job"
    ) -> dict[str, Any]:
        """A submit as other clients do it: nothing was checked by the command line before."""
        source = base64.b64encode((self.folder / "f.py").read_bytes()).decode()
        function = {
            "kind": kind,
            "metadata": {"name": name, "project": "default"},
            "spec": {"build": {"functionSourceCode": source}, **spec},
        }
        task = {"metadata": {"name": name, "project": "default"}, "spec": {"handler": handler}}
        answer = self.server.call("POST", "/api/v1/submit_job", {"function": function, "task": task})
        assert answer.status == 200, answer.body
        document: dict[str, Any] = answer.json()["data"]
        return document


T = TypeVar("T")


def until(probe: Callable[[], T | None], what: str, seconds: float = 60) -> T:
    """Waits for the product, never for a clock: the limit is for a product that hangs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = probe()
        if found is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain: {what}")


def write_wheel(folder: Path, name: str) -> Path:
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{name}.py", "VALUE = 42\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: here\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@contextlib.contextmanager
def causes_place(base: Path) -> Iterator[Place]:
    """A server of its own with code that fails in every way; packages are installed from `base` alone."""
    code, wheels = base / "code", base / "wheels"
    code.mkdir()
    wheels.mkdir()
    (code / "f.py").write_text(CODE)
    (code / "three.sh").write_text("#!/bin/sh\nexit 3\n")
    (code / "three.sh").chmod(0o755)
    write_wheel(wheels, "surely_not_installed")
    (base / "uv.toml").write_text(f"no-index = true\nfind-links = [{json.dumps(str(wheels))}]\n")
    variables = {
        "PATH": f"{TOOLS}:{os.environ['PATH']}",
        "UV_CONFIG_FILE": str(base / "uv.toml"),
        "UV_CACHE_DIR": str(base / "uv"),
    }
    with running(base / "data", env=variables) as server:
        yield Place(server, code)


def processors(place: Place) -> int:
    done = place.server.metier("run", "f.py:ok", "--kind", "job", "--cpu", "100000", cwd=place.folder)
    found = re.search(r"this node has (\d+)", done.stderr)
    assert found, done.stderr
    return int(found.group(1))


def refusal(place: Place, *arguments: str) -> tuple[int, dict[str, Any]]:
    code, document, _ = place.run(*arguments)
    return code, document["detail"]


@dataclass
class Process:
    pid: int
    name: str
    text: str


def processes(marker: str) -> list[Process]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            text = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if entry.name.isdigit() and marker in text:
                found.append(Process(int(entry.name), Path(text.split(" ", 1)[0]).name, text))
    return found
