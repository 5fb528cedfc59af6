"""What steps are given: the context, responses, the error stream."""

from __future__ import annotations

import json
import logging
import os
import socket
from typing import Any


class Response:
    """An answer with status, headers and content type."""

    def __init__(
        self,
        headers: dict[str, str] | None = None,
        body: Any = None,
        content_type: str | None = None,
        status_code: int = 200,
    ) -> None:
        self.headers = headers or {}
        self.body = body
        self.status_code = status_code
        self.content_type = content_type or "text/plain"

    def __repr__(self) -> str:
        return f"Response({self.status_code}, {self.content_type}, {self.body!r})"


class MockTrigger:
    """The trigger that an event came from: kind and name."""

    def __init__(self, kind: str = "", name: str = "") -> None:
        self.kind = kind
        self.name = name


class Logger:
    """Nuclio's logger calls over the standard library's logging."""

    def __init__(self, name: str = "metier.serving") -> None:
        self._logger = logging.getLogger(name)

    def _write(self, level: int, message: Any, args: tuple[Any, ...], more: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            text = str(message) + "".join(f" {key}={value!r}" for key, value in more.items())
            self._logger.log(level, text, *args)

    def debug(self, message: Any, *args: Any, **more: Any) -> None:
        self._write(logging.DEBUG, message, args, more)

    def info(self, message: Any, *args: Any, **more: Any) -> None:
        self._write(logging.INFO, message, args, more)

    def warning(self, message: Any, *args: Any, **more: Any) -> None:
        self._write(logging.WARNING, message, args, more)

    def error(self, message: Any, *args: Any, **more: Any) -> None:
        self._write(logging.ERROR, message, args, more)

    debug_with, info_with, warning_with, error_with, warn, warn_with = debug, info, warning, error, warning, warning


class StreamContext:
    """Whether and where model calls are recorded."""

    def __init__(self, enabled: Any, parameters: dict[str, Any], function_uri: str) -> None:
        self.hostname = socket.gethostname()
        self.function_uri = function_uri
        self.stream_uri = parameters.get("log_stream") or None
        self.enabled = bool((enabled or self.stream_uri) and function_uri and self.stream_uri)
        self.output_stream: Any = None
        if self.enabled:
            from .streams import get_stream_pusher

            self.output_stream = get_stream_pusher(str(self.stream_uri), **(parameters.get("stream_args") or {}))


class GraphContext:
    """The context of a graph's steps: ``context.logger``, ``context.Response``, ``context.get_param(...)``."""

    Response = Response

    def __init__(self, server: Any = None, host: Any = None, logger: Any = None) -> None:
        self._server = server
        self.logger = logger or getattr(host, "logger", None) or Logger()
        self.worker_id = getattr(host, "worker_id", 0)
        self.trigger = getattr(getattr(host, "trigger", None), "kind", None)
        self.platform = getattr(host, "platform", None)
        self.user_data = getattr(host, "user_data", None)
        self.verbose = False
        self.stream: Any = None
        self.root: Any = None
        self.state: Any = None
        self.current_function: str | None = None
        self.is_mock = False
        self.monitoring_mock = False
        self.executor: Any = None
        self.get_store_resource: Any = None
        self.get_table: Any = None

    @property
    def server(self) -> Any:
        """The graph's server."""
        return self._server

    @property
    def project(self) -> str:
        """The function's project."""
        uri = str(getattr(self._server, "function_uri", "") or "")
        return uri.split("/", 1)[0] if "/" in uri else os.environ.get("METIER_PROJECT", "default")

    def get_param(self, key: str, default: Any = None) -> Any:
        """A parameter of the function."""
        parameters = getattr(self._server, "parameters", None) or {}
        return parameters.get(key, default)

    def get_secret(self, key: str, default: Any = None) -> Any:
        """A secret: inline ones of the function, else the variables that the project's secrets set."""
        inline: dict[str, Any] = getattr(self._server, "secrets", None) or {}
        for name in (key, f"MLRUN_K8S_SECRET__{key}", f"METIER_SECRET_{key}"):
            if name in inline:
                return inline[name]
            if name in os.environ:
                return os.environ[name]
        return default

    def get_remote_endpoint(self, name: str, external: bool = True) -> str:
        """The URL of a function by name: ``[project/]name``, ``.child`` for a child of this one."""
        if "://" in name:
            return name
        endpoints = json.loads(os.environ.get("METIER_ENDPOINTS", "{}"))
        own = str(getattr(self._server, "function_uri", "") or "").split("/")[-1].split(":")[0].split("@")[0]
        full = f"{own}-{name[1:]}" if name.startswith(".") else name
        if full in endpoints:
            return str(endpoints[full])
        raise ValueError(f"function '{full}' has no address here: is it deployed?")

    def push_error(self, event: Any, message: str, source: str | None = None, **args: Any) -> None:
        """Writes to the error stream, if the function has one. Never raises."""
        stream = getattr(self._server, "error_stream_object", None)
        if self.verbose:
            self.logger.error(f"got error from {source} state:\n{getattr(event, 'body', None)}\n{message}")
        if stream is None:
            return
        try:
            stream.push(
                {
                    "function_uri": self._server.function_uri,
                    "worker": self.worker_id,
                    "host": socket.gethostname(),
                    "source": source,
                    "event": {"id": getattr(event, "id", None), "body": getattr(event, "body", None)},
                    "message": message,
                    "args": args,
                }
            )
        except Exception as error:
            self.logger.error(f"failed to write to error stream: {error}")
