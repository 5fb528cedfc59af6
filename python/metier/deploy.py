"""Deployments: functions that stay (nuclio, serving, Dask) and are called.

The methods are those of MLRun's RemoteRuntime; the work is done by the C++ object model and the server.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import Error, make_error
from .live import plain
from .settings import setting

if TYPE_CHECKING:
    from typing_extensions import Self

    from . import _core

_ENDED = ("ready", "error", "unhealthy", "scaledToZero")


class Deployable:
    """What functions of kinds with deployments can do."""

    _core: _core.Function

    # --- attributes of nuclio ----------------------------------------------------------------------------------

    def set_config(self, key: str, value: Any) -> Self:
        """Sets a dotted key of Nuclio's document, used verbatim at deploy.

        Examples
        --------
        >>> import metier
        >>> fn = metier.new_function("f", kind="nuclio")
        >>> fn.set_config("spec.eventTimeout", "30s").spec.config["spec.eventTimeout"]
        '30s'
        """
        self._core.set_config(key, plain(value))
        return self

    def add_trigger(self, name: str, spec: Any) -> Self:
        """Adds a trigger: Nuclio's dict (``{"kind": "cron", "attributes": {...}}``) or an object that has ``to_dict()``.

        Raises
        ------
        InvalidError
            No kind, an unknown or wrong field.
        UnsupportedError
            A kind of trigger that is not served here.
        """
        self._core.add_trigger(name, plain(spec.to_dict() if hasattr(spec, "to_dict") else spec))
        return self

    def with_http(
        self,
        workers: int | None = 8,
        port: int | None = None,
        host: str | None = None,
        paths: Sequence[str] | None = None,
        worker_timeout: int | None = None,
        gateway_timeout: int | None = None,
        trigger_name: str | None = None,
        annotations: Mapping[str, str] | None = None,
        extra_attributes: Mapping[str, Any] | None = None,
        async_max_connections: int | None = None,
    ) -> Self:
        """Sets the HTTP trigger.

        Parameters
        ----------
        workers : int
            Workers (processes) of each replica.
        port : int
            Port of a NodePort Service; any free one by default.
        worker_timeout : int
            Seconds that a request waits for a worker; then 503.
        async_max_connections : int
            Coroutine handlers take so many events at a time (mode async).
        """
        self._core.with_http(
            workers,
            port or 0,
            host or "",
            list(paths or ()),
            worker_timeout,
            gateway_timeout,
            trigger_name or "http",
            None if annotations is None else dict(annotations),
            None if extra_attributes is None else plain(extra_attributes),
            async_max_connections,
        )
        return self

    def with_cron(
        self,
        interval: str = "",
        schedule: str = "",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        name: str = "cron",
        concurrency_policy: str = "",
    ) -> Self:
        """Adds a cron trigger: every ``interval`` ("10s") or by ``schedule`` ("0 9 * * *"), once whatever the replicas."""
        self._core.with_cron(
            name, interval, schedule, plain(body), None if headers is None else dict(headers), concurrency_policy
        )
        return self

    def with_kafka(
        self,
        brokers: Sequence[str],
        topics: Sequence[str],
        consumer_group: str,
        initial_offset: str = "earliest",
        explicit_ack_mode: str = "",
        workers: int = 1,
        extra_attributes: Mapping[str, Any] | None = None,
        name: str = "kafka",
    ) -> Self:
        """Adds a Kafka trigger. ``explicit_ack_mode``: disable (the default), enable or explicitOnly."""
        self._core.with_kafka(
            name,
            list(brokers),
            list(topics),
            consumer_group,
            initial_offset,
            explicit_ack_mode,
            workers,
            None if extra_attributes is None else plain(extra_attributes),
        )
        return self

    def with_replicas(self, min_replicas: int | None = None, max_replicas: int | None = None) -> Self:
        """Replicas follow the share of time in which workers are busy; ``min_replicas=0``: none while nobody calls."""
        self._core.with_replicas(min_replicas, max_replicas)
        return self

    def with_service_type(self, service_type: str) -> Self:
        """``ClusterIP``: this machine only; ``NodePort``: on the server's ``--listen`` host too."""
        self._core.with_service_type(service_type)
        return self

    def disable_default_http_trigger(self) -> Self:
        """No HTTP trigger unless one is added."""
        self._core.disable_default_http_trigger(True)
        return self

    def enable_default_http_trigger(self) -> Self:
        """An HTTP trigger when none is added (the default)."""
        self._core.disable_default_http_trigger(False)
        return self

    # --- life --------------------------------------------------------------------------------------------------

    def deploy(self, project: str = "", tag: str = "", watch: bool = True, timeout: float = 300) -> str:
        """Deploys the function and returns its URL.

        Parameters
        ----------
        watch : bool
            Wait until it is ready. Without, the URL is empty unless it was ready before.
        timeout : float
            Seconds to wait.

        Raises
        ------
        UserCodeError
            It did not become ready: the message is the server's, its log says more (``fn.logs()``).
        InvalidError, UnsupportedError, ExhaustedError, TimedOutError
        """
        from .client import default_client

        client = default_client()
        metadata = {"project": project or self._get("metadata", "project") or "default"}
        if tag:
            metadata["tag"] = tag
        for key, value in metadata.items():
            self._core.assign(("metadata", key), value)
        answer = client.call(
            "POST",
            "/api/metier/v1/deployments",
            {"function": self._core.document()},
            headers={"X-Metier-Python": sys.executable},
            timeout=200,
        )
        self._core.assign(("status",), answer["data"].get("status") or {})
        deadline = time.monotonic() + timeout
        view = self._view(0)
        while watch and view["state"] not in _ENDED:
            if time.monotonic() > deadline:
                raise make_error("timed_out", f"function {self._core.name} is {view['state']} after {timeout:g} s")
            view = self._view(view["revision"])
        self._core.assign(("status",), view["status"])
        if watch and view["state"] in ("error", "unhealthy"):
            status = view["status"]
            raise make_error(
                "user_code",
                f"function {self._core.name} is {view['state']}: {status.get('message') or 'it did not become ready'}",
                fix=f"metier logs {self._core.name}",
                reason=status.get("reason", ""),
            )
        return self.get_url()

    def is_deployed(self) -> bool:
        """Whether nothing is left to build or to deploy before it is used.

        nuclio and serving: the server has it, ready or at zero. Other kinds: its image is set, there is nothing to build (spark:
        no source and no commands; dask: ``remote`` is false), or it is deployed (dask).
        """
        kind = self._core.kind
        if kind in ("", "local", "handler"):
            return True
        if kind not in ("remote", "nuclio", "serving"):
            spec = self._core.document().get("spec") or {}
            build = spec.get("build") or {}
            spark = kind in ("spark", "remote-spark") and not any(build.get(k) for k in ("source", "commands", "extra"))
            if spec.get("image") or spark or (kind == "dask" and spec.get("remote") is False):
                return True
            if kind != "dask":
                return False
        try:
            return self._view(0)["state"] in ("ready", "scaledToZero")
        except Error as error:
            if error.kind != "not_found":
                raise
            return False

    def get_url(self, force_external_address: bool = False) -> str:
        """Where the function is called: ``http://127.64.0.3:8080``; dask: its scheduler (``tls://127.64.0.3:8786``). Empty while
        it has no address.
        """
        status = self._core.copy(("status",)) or {}
        outside = status.get("external_invocation_urls") or []
        address = outside[0] if outside and force_external_address else status.get("address", "")
        return f"http://{address}" if address else str(status.get("scheduler_address") or "")

    def invoke(
        self,
        path: str = "",
        body: Any = None,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 600,
    ) -> Any:
        """Calls the deployed function: POST with a body, else GET. JSON answers are decoded, others are bytes.

        Raises
        ------
        UserCodeError
            The function answered with 400 or more.
        """
        url = self.get_url()
        if not url:
            view = self._view(0)
            self._core.assign(("status",), view["status"])
            url = self.get_url()
        if not url:
            raise make_error("unavailable", f"function {self._core.name} has no address", fix="fn.deploy()")
        sent = {str(k): str(v) for k, v in (headers or {}).items()}
        data: bytes | None
        if body is None or isinstance(body, bytes):
            data = body
        elif isinstance(body, str):
            data = body.encode()
        else:
            data = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        parts = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
        try:
            target = "/" + path.lstrip("/")
            connection.request(method or ("GET" if data is None else "POST"), target, body=data, headers=sent)
            answer = connection.getresponse()
            content = answer.read()
        except OSError as error:
            raise make_error("unavailable", f"{url}: {error}", fix=f"metier describe {self._core.name}") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise make_error(
                "user_code", f"{url} answered {answer.status}: {content.decode(errors='replace')[:2000].strip()}"
            )
        if (answer.getheader("Content-Type") or "").startswith("application/json"):
            return json.loads(content)
        return content

    def logs(self) -> str:
        """What the function's processors have printed so far."""
        from .client import default_client

        view = self._view(0)
        out = []
        for part in view["parts"]:
            data, _ = default_client().raw(
                "GET", self._path() + "/log", query={"project": view["project"], "tag": view["tag"], "pod": part["pod"]}
            )
            out.append(data.decode(errors="replace"))
        return "".join(out)

    def delete(self) -> None:
        """Deletes the function and its pods."""
        from .client import default_client

        project = self._get("metadata", "project") or "default"
        default_client().call("DELETE", self._path(), query={"project": project})

    def _path(self) -> str:
        return "/api/metier/v1/deployments/" + urllib.parse.quote(self._core.name)

    def _get(self, *path: str) -> str:
        return str(self._core.copy(path) or "")

    def _view(self, revision: int) -> dict[str, Any]:
        from .client import default_client

        project = self._get("metadata", "project") or setting("project") or "default"
        query = {"project": project, "revision": revision, "tag": self._get("metadata", "tag") or None}
        view: dict[str, Any] = default_client().call("GET", self._path(), query=query)
        return view
