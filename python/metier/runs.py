"""Runs as Python sees them: state, results, outputs, log; waiting and aborting."""

from __future__ import annotations

import html
import time
from typing import Any

from .client import Client, default_client
from .errors import make_error

TERMINAL = ("completed", "error", "aborted", "skipped")


class RunObject:
    """One run. ``run.outputs["accuracy"]``, ``run.state()``, ``run.logs()``.

    Parameters
    ----------
    document : dict
        MLRun's run document ``{kind, metadata, spec, status}``.
    client : Client
        The server that has it; None for a run that only lives here.
    """

    def __init__(self, document: dict[str, Any], client: Client | None = None) -> None:
        self._document = document
        self._client = client

    @property
    def metadata(self) -> dict[str, Any]:
        """Uid, name, project, labels, iteration."""
        value: dict[str, Any] = self._document.setdefault("metadata", {})
        return value

    @property
    def spec(self) -> dict[str, Any]:
        """What was asked: handler, parameters, inputs…"""
        value: dict[str, Any] = self._document.setdefault("spec", {})
        return value

    @property
    def status(self) -> dict[str, Any]:
        """What happened: state, results, artifacts, error, reason."""
        value: dict[str, Any] = self._document.setdefault("status", {})
        return value

    @property
    def uid(self) -> str:
        """32 hexadecimal digits."""
        return str(self.metadata.get("uid", ""))

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.metadata.get("name", ""))

    @property
    def project(self) -> str:
        """The project it belongs to."""
        return str(self.metadata.get("project", "default"))

    def to_dict(self) -> dict[str, Any]:
        """The document itself."""
        return self._document

    def uri(self) -> str:
        """``project@uid#iteration``."""
        return f"{self.project}@{self.uid}#{self.metadata.get('iteration', 0)}"

    def refresh(self) -> RunObject:
        """Reads the run again from its server."""
        if self._client is not None:
            path = f"/api/v1/projects/{self.project}/runs/{self.uid}"
            self._document = self._client.get(path, format="full", iter=self.metadata.get("iteration", 0))["data"]
        return self

    def state(self) -> str:
        """The state now; a terminal one is not asked for again."""
        known = str(self.status.get("state", "created"))
        return known if known in TERMINAL else str(self.refresh().status.get("state", "created"))

    @property
    def error(self) -> str:
        """Why it failed, or an empty text."""
        return str(self.status.get("error") or self.status.get("status_text") or self.status.get("reason") or "")

    @property
    def outputs(self) -> dict[str, Any]:
        """Results by key, and the URI of each artifact."""
        if self.status.get("state") not in TERMINAL:
            self.refresh()
        return {**self.status.get("results", {}), **self.status.get("artifact_uris", {})}

    def output(self, key: str) -> Any:
        """One result or artifact URI; None when there is none of that key."""
        return self.outputs.get(key)

    def artifact(self, key: str) -> Any:
        """The artifact of that key as a data item."""
        from metier_runner.dataitem import get_dataitem  # the runner's data items, lazily

        uri = self.status.get("artifact_uris", {}).get(key)
        if uri is None:
            known = ", ".join(self.status.get("artifact_uris", {})) or "none"
            raise make_error("not_found", f"run {self.name} has no artifact '{key}'", fix=f"artifacts: {known}")
        return get_dataitem(uri)

    def logs(self, offset: int = 0, watch: bool = False) -> str:
        """The log from a byte offset; with ``watch`` it is printed as it grows, until the run has ended."""
        if self._client is None:
            return ""
        path = f"/api/v1/projects/{self.project}/logs/{self.uid}"
        text = b""
        while True:
            data, headers = self._client.raw("GET", path, query={"offset": offset, "size": 1 << 20})
            text += data
            offset += len(data)
            if watch and data:
                print(data.decode(errors="replace"), end="", flush=True)
            state = headers.get("x-mlrun-run-state", "")
            if not data and (state in TERMINAL or not watch):
                self.status["state"] = state or self.status.get("state", "")
                return text.decode(errors="replace")

    def wait_for_completion(self, timeout: float = 0, raise_on_failure: bool = True, show_logs: bool = False) -> str:
        """Waits until the run has ended.

        Parameters
        ----------
        timeout : float
            Seconds, 0 = without end.
        raise_on_failure : bool
            Raise when the final state is not ``completed``.
        show_logs : bool
            Print the log while waiting.

        Returns
        -------
        str
            The final state.

        Raises
        ------
        TimedOutError, UserCodeError, CancelledError
        """
        if show_logs and timeout <= 0:
            self.logs(watch=True)
        deadline = time.monotonic() + timeout if timeout > 0 else None
        while self.state() not in TERMINAL:
            if deadline is not None and time.monotonic() > deadline:
                raise make_error(
                    "timed_out", f"run {self.name} is {self.status.get('state')} after {timeout:g} s", run=self
                )
            if self._client is not None:  # the log's long poll answers at the next byte or change of state
                self._client.raw(
                    "GET",
                    f"/api/v1/projects/{self.project}/logs/{self.uid}",
                    query={"offset": 1 << 40, "size": 1},
                    timeout=60,
                )
        self.refresh()
        state = str(self.status.get("state"))
        if raise_on_failure:
            self.raise_for_state()
        return state

    def raise_for_state(self) -> None:
        """Raises when the run failed or was aborted."""
        state = self.status.get("state")
        reason = str(self.status.get("reason", ""))
        if state == "error":
            raise make_error("user_code", f"run {self.name} failed: {self.error}", reason, run=self)
        if state in ("aborted", "aborting"):
            raise make_error("cancelled", f"run {self.name} was aborted", reason or "AbortedByUser", run=self)

    def abort(self) -> None:
        """Stops the run; returns when the stop is on its way."""
        if self._client is not None:
            self._client.post(f"/api/v1/projects/{self.project}/runs/{self.uid}/abort", {})

    def why(self) -> dict[str, Any]:
        """One cause and one fix for a run that waits or failed."""
        if self._client is None:
            return {}
        answer: dict[str, Any] = self._client.get(f"/api/metier/v1/runs/{self.uid}/why", project=self.project)
        return answer

    def __repr__(self) -> str:
        results = self.status.get("results", {})
        shown = " ".join(f"{k}={v}" for k, v in list(results.items())[:3])
        return f"Run({self.name} {self.uid[:8]} {self.status.get('state', 'created')}{' ' + shown if shown else ''})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v)[:200])}</td></tr>"
            for k, v in self.outputs.items()
        )
        head = f"{html.escape(self.name)} <code>{html.escape(self.uid[:8])}</code> {html.escape(str(self.status.get('state')))}"
        return f"<div><b>{head}</b><table>{rows}</table></div>"


def get_run(uid: str, project: str = "default", client: Client | None = None) -> RunObject:
    """A stored run by its uid."""
    client = client or default_client()
    document = client.get(f"/api/v1/projects/{project}/runs/{uid}", format="full")["data"]
    return RunObject(document, client)


def list_runs(project: str = "default", client: Client | None = None, **filters: Any) -> list[RunObject]:
    """Stored runs, the newest first; filters are those of MLRun's API (``name``, ``state``, ``label``…)."""
    client = client or default_client()
    documents = client.get(f"/api/v1/projects/{project}/runs", **filters)["runs"]
    return [RunObject(document, client) for document in documents]
