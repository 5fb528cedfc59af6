"""A small HTTP client on the standard library: one pool of kept connections per target, for remote steps."""

from __future__ import annotations

import http.client
import ssl
import threading
from typing import Any
from urllib.parse import urlsplit


class HttpPool:
    """Connections by scheme, host and port. Thread safe; each connection serves one request at a time."""

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._free: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body. OSError and TimeoutError when nobody answers."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"'{url}' is not an http(s) address")
        key = (parts.scheme, parts.netloc)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        for fresh in (False, True):
            connection = None if fresh else self._take(key)
            reused = connection is not None
            if connection is None:
                cls: Any = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
                more = {"context": ssl.create_default_context()} if parts.scheme == "https" else {}
                connection = cls(parts.hostname, parts.port, timeout=timeout, **more)
            connection.timeout = timeout
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            try:
                connection.request(method, path, body=body, headers=headers or {})
                answer = connection.getresponse()
                data = answer.read()
            except (http.client.BadStatusLine, ConnectionError) as error:
                connection.close()
                if reused:  # the other side had closed it meanwhile
                    continue
                raise ConnectionError(f"{url}: {type(error).__name__}: {error}") from error
            except BaseException:
                connection.close()
                raise
            if answer.will_close:
                connection.close()
            else:
                self._give(key, connection)
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, data
        raise AssertionError

    def _take(self, key: tuple[str, str]) -> http.client.HTTPConnection | None:
        with self._lock:
            free = self._free.get(key)
            return free.pop() if free else None

    def _give(self, key: tuple[str, str], connection: http.client.HTTPConnection) -> None:
        with self._lock:
            free = self._free.setdefault(key, [])
            if len(free) < self._most:
                free.append(connection)
                return
        connection.close()


_pool = HttpPool()
request = _pool.request
