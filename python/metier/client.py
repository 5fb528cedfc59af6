"""The REST client: standard library only, over TCP or a unix socket, one kept connection a thread.

Where no server is configured (``METIER_SERVER``, ``metier config``) it uses the one of the data folder and starts it when nobody
listens, exactly as the ``metier`` command does.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path
from typing import Any

from .errors import error_of_answer, make_error
from .settings import setting


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def data_folder() -> Path:
    """The folder of records: METIER_DATA, as root /var/lib/metier, else below XDG_DATA_HOME."""
    named = setting("data")
    if named:
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/metier")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "metier"


def default_socket() -> str:
    """The socket of the data folder's server; root's default folder has it in /run/metier."""
    folder = data_folder()
    if folder == Path("/var/lib/metier"):
        return "/run/metier/metier.sock"
    return str(folder / "metier.sock")


def binary() -> str:
    """The ``metier`` program: beside this interpreter, else on PATH."""
    beside = Path(sys.executable).parent / "metier"
    if beside.exists():
        return str(beside)
    found = shutil.which("metier")
    if found is None:
        raise make_error("unavailable", "the metier program is not on PATH", fix="pip install ./python puts it there")
    return found


class Client:
    """Calls the server; answers are decoded JSON, errors are exceptions of :mod:`metier.errors`."""

    def __init__(self, server: str = "", token: str = "") -> None:
        self.server = server or setting("server")
        self.token = token or setting("token")
        self._local = threading.local()
        self._own = not self.server
        if self._own:
            self.server = default_socket()
        elif self.server.startswith("unix://"):
            self.server = self.server[len("unix://") :]

    @property
    def is_unix(self) -> bool:
        """True when the server is on this machine, reached by its socket."""
        return not self.server.startswith(("http://", "https://"))

    def get(self, path: str, **query: Any) -> Any:
        """GET of a JSON document."""
        return self.call("GET", path, query=query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """POST of a JSON document."""
        return self.call("POST", path, body, query)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Any:
        """One request; the decoded JSON answer, or None for an empty one."""
        data, _ = self.raw(method, path, body, query, headers, timeout)
        return json.loads(data) if data.strip() else None

    def raw(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> tuple[bytes, dict[str, str]]:
        """One request; bytes and headers (lower case) of the answer."""
        pairs = [(k, v) for k, v in (query or {}).items() if v is not None]
        target = path + ("?" + urllib.parse.urlencode(pairs, doseq=True) if pairs else "")
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        for attempt in range(2):
            connection = self._connection(timeout)
            try:
                connection.request(method, target, body=data, headers=sent)
                answer = connection.getresponse()
                content = answer.read()
                break
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
                # A kept connection that the server has closed meanwhile: once more on a new one.
                self._close()
                if attempt:
                    raise self._unreachable(error) from error
            except (FileNotFoundError, ConnectionRefusedError) as error:
                self._close()
                if attempt or not self._own:
                    raise self._unreachable(error) from error
                self._start()
            except TimeoutError as error:
                self._close()
                raise make_error("timed_out", f"{method} {path}: no answer within {timeout:g} s") from error
            except OSError as error:
                self._close()
                raise self._unreachable(error) from error
        if answer.status >= 300:
            try:
                detail = json.loads(content).get("detail", "")
            except ValueError:
                detail = content.decode(errors="replace")
            raise error_of_answer(answer.status, detail or f"{method} {path}: status {answer.status}")
        return content, {k.lower(): v for k, v in answer.getheaders()}

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            if self.is_unix:
                connection = _UnixConnection(self.server, timeout)
            else:
                parts = urllib.parse.urlsplit(self.server)
                cls = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
                connection = cls(parts.hostname or "", parts.port, timeout=timeout)
            self._local.connection = connection
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        return connection

    def _close(self) -> None:
        connection = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def _start(self) -> None:
        """Starts the private server of the data folder by the command line, which settles races."""
        done = subprocess.run(
            [binary(), "get", "projects", "-o", "name"], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            raise make_error("unavailable", done.stderr.strip() or "the private server did not start")

    def _unreachable(self, error: Exception) -> Exception:
        return make_error(
            "unavailable",
            f"no server at {self.server} ({error or type(error).__name__})",
            fix="start it: metier server; or work without: unset METIER_SERVER",
        )


_default: Client | None = None


def default_client() -> Client:
    """The client of this process, made at its first use."""
    global _default
    if _default is None:
        _default = Client()
    return _default
