"""Context, logger and platform of a worker: Nuclio's names, subclasses of `nuclio_sdk`'s where that matters to isinstance."""

from __future__ import annotations

import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

LEVELS = {"debug": 0, "info": 1, "warn": 2, "error": 3}
MESSAGE_LOG = 24


class Current:
    """The event whose handler runs, when its caller wants the log records: (slot, generation, level)."""

    event: tuple[int, int, int] | None = None

    @classmethod
    def get(cls) -> tuple[int, int, int] | None:
        """Return it; an async worker asks its task instead."""
        return cls.event


def plain(value: Any) -> Any:
    """Return what JSON can say: an object's own `__log__`, else its repr."""
    try:
        return value.__log__()
    except Exception:  # noqa: BLE001 - an object that cannot describe itself must not cost the record
        try:
            return repr(value)
        except Exception:  # noqa: BLE001
            return f"<{type(value).__name__}>"


class Logger:
    """`context.logger`. A record is one line on the worker's stdout; those of a caller who asked for them go to it as well."""

    def __init__(self, ring: Any, level: str, worker_id: str, bound: dict[str, Any] | None = None) -> None:
        self._ring = ring
        self._least = LEVELS.get(level, 0)
        self._worker_id = worker_id
        self._bound = bound or {}
        self._streams: dict[str, tuple[Any, Any]] = {}

    def _write(self, level: str, message: Any, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
        rank = LEVELS[level]
        current = Current.get()
        if rank < self._least and (current is None or rank < current[2]):
            return
        try:
            text = str(message) % args if args else str(message)
        except (TypeError, ValueError):
            text = " ".join([str(message), *map(str, args)])
        more = {**self._bound, **fields} if self._bound or fields else {}
        now = time.time()
        if rank >= self._least:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}"
            tail = " " + json.dumps(more, default=plain) if more else ""
            line = f"{stamp} {level:5} {text}{tail}\n"
            for stream, formatter in list(self._streams.values()) or [(None, None)]:
                if stream is None:
                    os.write(1, line.encode("utf-8", "replace"))
                else:
                    stream.write(formatter(level, text, more) if callable(formatter) else line)
        if current is not None and rank >= current[2]:
            record = {"level": level, "message": text, "name": f"w{self._worker_id}", "time": int(now * 1000), **more}
            data = json.dumps(record, default=plain).encode("utf-8", "replace")
            if len(data) <= 16384:
                self._ring.message(MESSAGE_LOG, current[0], current[1], data)

    def debug(self, message: Any, *args: Any) -> None:
        """Log; `args` fill the message's % places."""
        self._write("debug", message, args, {})

    def info(self, message: Any, *args: Any) -> None:
        """Log; `args` fill the message's % places."""
        self._write("info", message, args, {})

    def warn(self, message: Any, *args: Any) -> None:
        """Log; `args` fill the message's % places."""
        self._write("warn", message, args, {})

    warning = warn

    def error(self, message: Any, *args: Any) -> None:
        """Log; `args` fill the message's % places."""
        self._write("error", message, args, {})

    def exception(self, message: Any, *args: Any) -> None:
        """Log the exception at hand as an error."""
        import traceback

        self._write("error", message, args, {"traceback": traceback.format_exc()})

    def debug_with(self, message: Any, *args: Any, **fields: Any) -> None:
        """Log with named values."""
        self._write("debug", message, args, fields)

    def info_with(self, message: Any, *args: Any, **fields: Any) -> None:
        """Log with named values."""
        self._write("info", message, args, fields)

    def warn_with(self, message: Any, *args: Any, **fields: Any) -> None:
        """Log with named values."""
        self._write("warn", message, args, fields)

    def error_with(self, message: Any, *args: Any, **fields: Any) -> None:
        """Log with named values."""
        self._write("error", message, args, fields)

    def bind(self, **fields: Any) -> Logger:
        """Add named values to every later record."""
        self._bound = {**self._bound, **fields}
        return self

    def get_child(self, name: str) -> Logger:
        """Return a logger that names where its records come from."""
        return Logger(self._ring, next(k for k, v in LEVELS.items() if v == self._least), self._worker_id, {**self._bound, "logger": name})

    def set_handler(self, name: str, stream: Any, formatter: Any) -> None:
        """Write to `stream` instead of stdout."""
        self._streams[name] = (stream, formatter)

    def set_level(self, level: Any) -> None:
        """Change the least level that is written: a name, or a number of `logging`."""
        self._least = LEVELS.get(
            str(level).lower().replace("warning", "warn"), min(3, int(level) // 10 - 1) if isinstance(level, int) else 0
        )


class UserData:
    """A namespace of the handler's own, alive as long as the worker."""


class Platform:
    """`context.platform`."""

    def __init__(self, ring: Any, response: type, functions: dict[str, str], namespace: str) -> None:
        self.kind = "local"
        self.namespace = namespace
        self._ring = ring
        self._response = response
        self._functions = functions
        self.drain_callback: Callable[[], Any] | None = None
        self.termination_callback: Callable[[], Any] | None = None

    def set_drain_callback(self, callback: Callable[[], Any]) -> None:
        """Call `callback` before a stream's partitions move elsewhere; no arguments, may be a coroutine function."""
        self.drain_callback = callback

    def set_termination_callback(self, callback: Callable[[], Any]) -> None:
        """Call `callback` before this worker ends; no arguments, may be a coroutine function."""
        self.termination_callback = callback

    async def explicit_ack(self, qualified_offset: Any) -> None:
        """Finish every delivered record up to this one of its topic and partition."""
        self._ring.ack(qualified_offset.topic, int(qualified_offset.partition), int(qualified_offset.offset))

    def _url_of(self, name: str, service: str | None) -> str:
        """Return where a function is called: its name at Nuclio (`PROJECT-NAME`), or its own within this one's project."""
        named = self._functions.get(name) or os.environ.get("METIER_FUNCTION_" + name.upper().replace("-", "_"))
        if named:
            return named
        try:
            with open(os.environ["METIER_FUNCTION_ADDRESSES"], encoding="utf-8") as file:
                addresses = json.load(file)
        except (KeyError, OSError, ValueError):  # a processor by itself: names are the network's matter
            addresses = {}
        project = os.environ.get("NUCLIO_PROJECT_NAME", "default")
        wanted = [service.removeprefix("nuclio-")] if service else [name, f"{project}-{name}"]
        for word in wanted:
            if word in addresses:
                return str(addresses[word])
        return f"http://{service or 'nuclio-' + name}:8080"

    def call_function(
        self, function_name: str, event: Any, node: Any = None, timeout: float | None = None, service_name_override: str | None = None
    ) -> Any:
        """Send `event` to another function over HTTP and return its Response; `timeout` in seconds."""
        import http.client
        from urllib.parse import urlsplit

        url = self._url_of(function_name, service_name_override)
        parts = urlsplit(url if "://" in url else "http://" + url)
        body = event.body
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            event.content_type = event.content_type or "application/json"
        headers = event.headers if event.headers is not None else {}
        headers["Content-Type"] = event.content_type or "text/plain"
        headers["X-Nuclio-Target"] = function_name
        event.headers = headers
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = make(parts.hostname or "", parts.port, timeout=timeout)
        try:
            path = (parts.path.rstrip("/") + "/" + str(event.path or "/").lstrip("/")) or "/"
            connection.request(
                event.method or ("POST" if body else "GET"), path, body=body, headers={k: str(v) for k, v in headers.items()}
            )
            answer = connection.getresponse()
            data: Any = answer.read()
        except OSError as error:
            raise ConnectionError(f"function '{function_name}' does not answer at {url}: {error}") from error
        finally:
            connection.close()
        content_type = answer.getheader("content-type", "")
        if content_type == "application/json":
            data = json.loads(data)
        return self._response(
            headers={name.lower(): value for name, value in answer.getheaders()},
            body=data,
            content_type=content_type,
            status_code=answer.status,
        )

    def _on_signal(self, *_: Any) -> None:
        print("signals are the processor's own", file=sys.stderr)


def make_context(sdk: Any, logger: Logger, platform: Platform, worker_id: str, trigger: Any) -> Any:
    """Return the context; a subclass of the SDK's, every attribute of it can be set."""

    class Context(sdk.Context):  # type: ignore[misc]
        """What a handler gets beside its event."""

        logger: Any = None  # the SDK has properties of these names
        trigger_name: Any = None

    context = Context.__new__(Context)
    context.platform = platform
    context.user_data = UserData()
    context.Response = sdk.Response
    context.worker_id = worker_id
    context.trigger = trigger
    context.trigger_name = trigger.name
    context.logger = logger
    return context
