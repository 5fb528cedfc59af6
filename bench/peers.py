"""What real-time measurements are held against, and what makes the load: fetched or built below build/bench, nothing is installed.

wrk and nginx come as Debian packages, uvicorn and FastAPI live in an environment of their own, the Go server is built by the Go that is
on this machine, the open-loop generator is ours (bench/openloop.cc).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from common import ROOT

BUILD = ROOT / "build"
FOLDER = BUILD / "bench"


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
GO = """
package main

import (
	"io"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/plain")
		w.Write(body)
	})
	if err := http.ListenAndServe("127.0.0.1:"+os.Args[1], nil); err != nil {
		panic(err)
	}
}
"""


def go_server() -> str | None:
    """The program of Go's net/http, or None where there is no Go."""
    go = shutil.which("go") or ("/usr/local/go/bin/go" if os.access("/usr/local/go/bin/go", os.X_OK) else None)
    if go is None:
        return None
    folder = FOLDER / "go"
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "main.go"
    program = folder / "server"
    if not program.exists() or not source.exists() or source.read_text() != GO:
        source.write_text(GO)
        variables = {**os.environ, "GO111MODULE": "off", "GOTOOLCHAIN": "local", "GOCACHE": str(folder / "cache")}
        subprocess.run([go, "build", "-o", str(program), "main.go"], cwd=folder, env=variables, check=True)
    return str(program)


def open_loop() -> str:
    """Our generator, compiled."""
    source, program = ROOT / "bench" / "openloop.cc", FOLDER / "openloop"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["g++", "-std=c++20", "-O2", str(source), "-o", str(program)], check=True)
    return str(program)


def compile_native(folder: Path) -> None:
    """The native handlers as a library beside their source."""
    (folder / "native.cc").write_text(NATIVE)
    flags = ["-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{ROOT / 'include'}"]
    subprocess.run(["g++", *flags, "native.cc", "-o", "native.so"], cwd=folder, check=True)
