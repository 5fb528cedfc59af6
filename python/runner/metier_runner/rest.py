"""The REST sink and a small client: HTTP, HTTPS or a unix socket, standard library only."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from .errors import NotFound, ServerError
from .sinks import JsonDict, encode

RETRIED = (500, 502, 503, 504)
PAUSES = (0.1, 0.5, 2.0)  # seconds before the second, third and fourth try


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """One keep-alive connection to a server. Not shared between threads: `clone()` makes another one.

    `server` is ``http://host:port``, ``https://…``, ``unix:///path[:/prefix]`` or an absolute path of a socket.
    """

    def __init__(self, server: str, token: str = "", timeout: float = 60.0, pause: Callable[[float], None] = time.sleep) -> None:
        self.server, self._token, self._timeout, self._pause = server, token, timeout, pause
        self._connection: http.client.HTTPConnection | None = None
        self._prefix = ""
        if not (server.startswith(("unix:", "/")) or urlsplit(server).scheme in ("http", "https")):
            raise ServerError(f"server address '{server}' is neither http(s)://host:port nor unix:///path (METIER_SERVER)")

    @staticmethod
    def from_environment(environment: Mapping[str, str], server: str = "") -> Client | None:
        """The server that the environment names, or None."""
        server = server or environment.get("METIER_SERVER", "") or environment.get("MLRUN_DBPATH", "")
        token = environment.get("METIER_TOKEN", "") or environment.get("MLRUN_HTTPDB__TOKEN", "")
        return Client(server, token) if server else None

    def clone(self, timeout: float | None = None) -> Client:
        return Client(self.server, self._token, timeout or self._timeout, self._pause)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def forget(self) -> None:
        """Drop the connection without closing the peer's side: for a forked child."""
        self._connection = None

    def request(self, method: str, path: str, body: bytes | None = None, query: Mapping[str, Any] | None = None) -> bytes:
        """The body of a 2xx answer.

        Retries on lost connections and 500, 502, 503, 504. Raises NotFound on 404 and ServerError otherwise.
        """
        target = f"/api/{path}" + (f"?{urlencode(query)}" if query else "")
        problem = ""
        for attempt in range(len(PAUSES) + 1):
            if attempt:
                self._pause(PAUSES[attempt - 1])
            try:
                status, answer = self._once(method, target, body)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                problem = f"no answer from {self.server} ({_reason(error)})"
                continue
            if status < 300:
                return answer
            problem = f"{method} {target.split('?')[0]}: {status} {_detail(answer)}"
            if status == 404:
                raise NotFound(problem)
            if status not in RETRIED:
                raise ServerError(problem, status)
        raise ServerError(f"{problem}; is it running? (METIER_SERVER)")

    def json(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None) -> Any:
        answer = self.request(method, path, None if body is None else encode(body), query)
        return json.loads(answer) if answer.strip() else {}

    def _once(self, method: str, target: str, body: bytes | None) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = self._connect()
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        self._connection.request(method, self._prefix + target, body=body, headers=headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def _connect(self) -> http.client.HTTPConnection:
        if self.server.startswith(("unix:", "/")):
            path = self.server[5:] if self.server.startswith("unix:") else self.server
            path = "/" + path.lstrip("/") if path.startswith("/") else path
            place, colon, prefix = path.rpartition(":")  # unix:///run/m.sock:/prefix
            if colon and (not prefix or prefix.startswith("/")):
                path, self._prefix = place, prefix.rstrip("/")
            return _UnixConnection(path, self._timeout)
        parts = urlsplit(self.server)
        self._prefix = parts.path.rstrip("/")
        maker = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return maker(parts.hostname or "localhost", parts.port, timeout=self._timeout)


class RestSink:
    """Sends records at once as MLRun's REST calls; phases travel with the state at the end."""

    def __init__(self, client: Client, project: str, uid: str, clock: Callable[[], float] = time.time) -> None:
        self.client, self._clock = client, clock
        self._project, self._uid = quote(project, safe=""), quote(uid, safe="")
        self._phases: dict[str, float] = {}

    def store_run(self, body: JsonDict, iteration: int) -> None:
        self.client.json("POST", f"v1/projects/{self._project}/runs/{self._uid}", body, {"iter": iteration})

    def patch_run(self, changes: JsonDict, iteration: int) -> None:
        if changes.get("status.state") in ("completed", "error", "aborted", "skipped") and iteration == 0:
            # The journal's last mark follows the state; here nothing may follow it.
            changes = {"status.phases": {**self._phases, "end": round(self._clock(), 6)}, **changes}
        self.client.json("PATCH", f"v1/projects/{self._project}/runs/{self._uid}", changes, {"iter": iteration})

    def store_artifact(self, key: str, body: JsonDict, *, tag: str, tree: str, iteration: int) -> None:
        query: JsonDict = {"tree": tree, "iter": iteration}
        if tag:
            query["tag"] = tag
        self.client.json("PUT", f"v2/projects/{self._project}/artifacts/{quote(key)}", body, query)

    def phase(self, name: str, at: float) -> None:
        self._phases[name] = round(at, 6)

    def failure(self, body: JsonDict) -> None:
        self.client.json(
            "PATCH",
            f"v1/projects/{self._project}/runs/{self._uid}",
            {"status.reason": body.get("code", ""), "status.failure": body},
            {"iter": 0},
        )

    def in_child(self) -> None:
        self.client.forget()

    def close(self) -> None:
        self.client.close()


def _detail(answer: bytes) -> str:
    try:
        detail = json.loads(answer).get("detail", "")
    except (ValueError, AttributeError):
        return answer[:200].decode("utf-8", "replace")
    if isinstance(detail, dict):
        detail = " – ".join(str(detail[name]) for name in ("reason", "fix") if detail.get(name))
    return str(detail)[:500]


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
