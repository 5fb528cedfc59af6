"""A server in this process that keeps what it is sent: runs, artifacts, logs, leases."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit


class FakeServer:
    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], Any, str]] = []
        self.log = b""
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.identities: dict[str, dict[str, str]] = {}  # of Dask clusters, by address
        self.failures: list[int] = []  # statuses to answer before the next good one
        self.lease_state = "running"
        self.abort_after = b""  # text in the log that makes the run aborting
        self.leased = threading.Event()
        self.url = ""

    def of(self, method: str, part: str) -> list[tuple[str, str, dict[str, str], Any, str]]:
        return [request for request in self.requests if request[0] == method and part in request[1]]

    def records(self) -> list[dict[str, Any]]:
        """What came, in the form of journal records."""
        found = []
        for method, path, query, body, _ in self.requests:
            if "/runs/" in path and method in ("POST", "PATCH") and path.startswith("/api/v1"):
                found.append({"op": "store_run" if method == "POST" else "patch_run", "iter": int(query.get("iter", 0)), "body": body})
            if "/artifacts/" in path and method == "PUT":
                found.append({"op": "store_artifact", "key": path.rsplit("/", 1)[1], "iter": int(query["iter"]), "body": body})
        return found

    def answer(self, method: str, target: str, data: bytes, token: str) -> tuple[int, Any]:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if self.failures:
            return self.failures.pop(0), {"detail": {"reason": "not now", "fix": "wait"}}
        raw = "/logs/" in parts.path
        self.requests.append((method, parts.path, query, data if raw else json.loads(data or b"null"), token))
        if raw:
            self.log += data
            if self.abort_after and self.abort_after in self.log:
                self.lease_state = "aborting"
        if parts.path.endswith("/lease"):
            self.leased.set()
            return 200, {"state": self.lease_state}
        if parts.path == "/api/metier/v1/dask-identity":
            known = self.identities.get(query["address"])
            return (200, known) if known else (404, {"detail": "no such cluster"})
        if method == "GET" and "/artifacts/" in parts.path:
            found = self.artifacts.get(parts.path.rsplit("/", 1)[1])
            return (200, found) if found else (404, {"detail": "no such artifact"})
        return 200, {}


@contextmanager
def serving(unix: str = "") -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = fake.answer(self.command, self.path, data, self.headers.get("Authorization", ""))
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_PATCH = _any

        def log_message(self, *args: Any) -> None:
            pass

        def address_string(self) -> str:
            return "test"

    kind = socketserver.ThreadingUnixStreamServer if unix else socketserver.ThreadingTCPServer
    kind.daemon_threads = True
    kind.block_on_close = False
    server: Any = kind(unix or ("127.0.0.1", 0), Handler)  # type: ignore[arg-type]
    fake.url = f"unix://{unix}" if unix else f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        if unix:
            os.unlink(unix)
