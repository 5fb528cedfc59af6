"""Calls of other services: one (RemoteStep) or one for each item of a list (BatchHttpRequests)."""

from __future__ import annotations

import concurrent.futures
import json
import random
import threading
import time
from typing import Any

from .errors import GraphError
from .http import HttpPool

_RETRIED = (500, 502, 503, 504)


class _Breaker:
    """Opens after `most` failures in a row; then calls fail at once for `seconds`, and one is let through to try."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._failures = 0
        self._until = 0.0
        self._last = ""
        self._lock = threading.Lock()

    def check(self, name: str) -> None:
        with self._lock:
            if self._most and self._failures >= self._most:
                if time.monotonic() < self._until:
                    raise ConnectionError(
                        f"step '{name}': the target failed {self._failures} times in a row, the last time with {self._last}: "
                        f"calls are paused for {self._seconds:g} s"
                    )
                self._until = time.monotonic() + self._seconds

    def note(self, failed: str) -> None:
        """How a call went: what it failed with, empty when it did not."""
        with self._lock:
            self._failures = self._failures + 1 if failed else 0
            self._last = failed
            self._until = time.monotonic() + self._seconds


class _Caller:
    def __init__(self, name: str, retries: int, backoff: float, timeout: float | None, breaker: _Breaker) -> None:
        self.name, self.retries, self.backoff, self.timeout = name, retries, backoff, timeout
        self._pool = HttpPool()
        self._breaker = breaker

    def call(self, method: str, url: str, headers: dict[str, str], body: Any) -> tuple[int, dict[str, str], bytes]:
        for attempt in range(self.retries + 1):
            self._breaker.check(self.name)
            try:
                answer = self._pool.request(method, url, body, headers, self.timeout)
            except (OSError, TimeoutError) as error:
                late = isinstance(error, TimeoutError) and self.timeout
                what = f"no answer within {self.timeout:g} s" if late else str(error)
                self._breaker.note(what or type(error).__name__)
                if attempt == self.retries:
                    raise RuntimeError(f"failed to invoke {url} in step {self.name}: {what}") from error
            else:
                self._breaker.note(f"status {answer[0]}" if answer[0] >= 500 else "")
                if answer[0] not in _RETRIED or attempt == self.retries:
                    return answer
            time.sleep(min(self.backoff * 2**attempt, 120) * (0.5 + random.random() / 2))
        raise AssertionError


def _body_of(body: Any) -> tuple[Any, dict[str, str]]:
    if body is None or isinstance(body, (str, bytes)):
        return body.encode() if isinstance(body, str) else body, {}
    return json.dumps(body).encode(), {"Content-Type": "application/json"}


def _expression(text: str | None, step: str, names: str) -> Any:
    if not text:
        return None
    try:
        return eval(f"lambda {names}: ({text})", {}, {})
    except SyntaxError as error:
        raise GraphError(f"step '{step}': the expression {text!r} is no Python: {error.msg}") from None


class _Remote:
    def __init__(
        self,
        url: str,
        subpath: str | None,
        method: str | None,
        headers: dict[str, str] | None,
        url_expression: str | None,
        body_expression: str | None,
        return_json: bool,
        retries: int | None,
        backoff_factor: float | None,
        timeout: float | None,
        name: str | None,
        context: Any,
        headers_expression: str | None = None,
        failures: int = 20,
        pause: float = 5.0,
    ) -> None:
        self.name = name or type(self).__name__
        if not url and not url_expression:
            raise GraphError(f"step '{self.name}': url or url_expression must be given")
        self.context = context
        self.url = url
        self.subpath = subpath
        self.method = method
        self.headers = dict(headers or {})
        self.return_json = return_json
        self._url = _expression(url_expression, self.name, "event, endpoint, context")
        self._body = _expression(body_expression, self.name, "event, context")
        self._headers = _expression(headers_expression, self.name, "event, context")
        self._endpoint = ""
        retries = 6 if retries is None else retries
        self._caller = _Caller(self.name, retries, backoff_factor or 1.0, timeout, _Breaker(failures, pause))

    def post_init(self, mode: str = "sync", **_: Any) -> None:
        if self.url:
            endpoint = self.context.get_remote_endpoint(self.url) if self.context is not None else self.url
            self._endpoint = endpoint.rstrip("/")

    def _where(self, event: Any, body: Any) -> str:
        if self._url is not None:
            return str(self._url(body, self._endpoint, self.context))
        path = (event.path if self.subpath == "$path" else self.subpath) or ""
        return f"{self._endpoint}/{path.lstrip('/')}" if path else self._endpoint

    def _prepare(self, event: Any, body: Any) -> tuple[str, str, dict[str, str], Any]:
        method = self.method or event.method or "POST"
        headers = dict(self.headers)  # a copy for each event
        if self._headers is not None:
            headers.update(self._headers(body, self.context))
        if event.id:
            headers["MLRUN-EVENT-ID"] = str(event.id)
        if event.path and self._url is None:
            headers["MLRUN-EVENT-PATH"] = str(event.path)
        data = None
        if method != "GET":
            data, more = _body_of(body if self._body is None else self._body(body, self.context))
            headers = {**more, **headers}
        return method, self._where(event, body), headers, data

    def _call(self, method: str, url: str, headers: dict[str, str], data: Any) -> Any:
        status, answered, content = self._caller.call(method, url, headers, data)
        if status >= 400:
            raise RuntimeError(
                f"bad http response {status}: {content[:300].decode('utf-8', 'replace')} ({method} {url})"
            )
        if self.return_json or answered.get("content-type", "").startswith("application/json"):
            return json.loads(content) if content else None
        return content


class RemoteStep(_Remote):
    """Sends the body to another service; its answer is the result.

    Parameters
    ----------
    url : str
        ``http(s)://…`` or a function's name; ``subpath="$path"`` adds the event's path.
    url_expression, body_expression, headers_expression : str
        Python over ``event`` (the body), ``endpoint`` and ``context``.
    retries, backoff_factor, timeout : int, float, float
        Of connection errors, time-outs and statuses 500, 502, 503, 504. Default 6 and 1 s; no time-out.
    failures, pause : int, float
        The circuit breaker: after so many failures in a row, calls fail at once for so many seconds (20, 5).
    """

    graph_mode = "event"

    def __init__(
        self,
        url: str = "",
        subpath: str | None = None,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        url_expression: str | None = None,
        body_expression: str | None = None,
        return_json: bool = True,
        input_path: str | None = None,
        result_path: str | None = None,
        max_in_flight: int | None = None,
        retries: int | None = None,
        backoff_factor: float | None = None,
        timeout: float | None = None,
        headers_expression: str | None = None,
        name: str | None = None,
        context: Any = None,
        failures: int = 20,
        pause: float = 5.0,
        **_: Any,
    ) -> None:
        super().__init__(
            url, subpath, method, headers, url_expression, body_expression, return_json, retries, backoff_factor, timeout,
            name, context, headers_expression, failures, pause,
        )  # fmt: skip
        self._input, self._result = input_path, result_path

    def do_event(self, event: Any) -> Any:
        from .paths import get_path, put_path

        request = self._prepare(event, get_path(self._input, event.body))
        event.body = put_path(self._result, event.body, self._call(*request))
        return event


class BatchHttpRequests(_Remote):
    """One request for each item of the body, at most ``max_in_flight`` (8) at a time; the answers in the order of the items."""

    graph_mode = "event"

    def __init__(
        self,
        url: str = "",
        subpath: str | None = None,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        url_expression: str | None = None,
        body_expression: str | None = None,
        return_json: bool = True,
        input_path: str | None = None,
        result_path: str | None = None,
        retries: int | None = None,
        backoff_factor: float | None = None,
        timeout: float | None = None,
        max_in_flight: int | None = None,
        name: str | None = None,
        context: Any = None,
        **_: Any,
    ) -> None:
        super().__init__(
            url, subpath, method, headers, url_expression, body_expression, return_json, retries, backoff_factor, timeout,
            name, context,
        )  # fmt: skip
        self._input, self._result = input_path, result_path
        self._threads = concurrent.futures.ThreadPoolExecutor(max_in_flight or 8, f"step-{self.name}")

    def do_event(self, event: Any) -> Any:
        from .paths import get_path, put_path

        items = get_path(self._input, event.body)
        if not isinstance(items, list):
            raise ValueError(f"step '{self.name}': its input must be a list, it is a {type(items).__name__}")
        calls = [self._threads.submit(self._call, *self._prepare(event, item)) for item in items]
        event.body = put_path(self._result, event.body, [call.result() for call in calls])
        return event


__all__ = ["BatchHttpRequests", "RemoteStep"]
