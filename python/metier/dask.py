"""The Dask cluster of a function of kind dask: start it, connect to it, close it."""

from __future__ import annotations

import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

from .client import default_client
from .errors import Error, make_error

if TYPE_CHECKING:
    from .function import Function

START_SECONDS = 600
LOOK_SECONDS = 0.05
CLOSE_SECONDS = 10


def client_of(function: Function) -> Any:
    """A ``distributed.Client`` of the function's cluster, which is started when it does not run.

    Raises :class:`metier.errors.Error`: ``unsupported`` for another kind, ``unavailable`` when the cluster cannot start or
    its versions do not go with this process's.
    """
    distributed = _distributed()
    _check_kind(function)
    if function.spec.remote is False:  # absent: a cluster
        return _local_client(distributed)
    status = _known_status(function)
    if _phase(function) != "running" or not status.get("scheduler_address"):
        status = start(function)
    return _connect(distributed, status)


def start(function: Function) -> dict[str, Any]:
    """Store the function and start its cluster; the function's status then: scheduler_address, cluster_name…"""
    _check_kind(function)
    client = default_client()
    project, name, tag = _names(function)
    document = function.to_dict()
    document.setdefault("metadata", {}).update(project=project, name=name)
    client.post(f"/api/v1/projects/{project}/functions/{name}", document, tag=tag, versioned="false")
    # On this machine the cluster gets this process's interpreter where the function names none.
    task = client.call(
        "POST",
        "/api/v1/start/function",
        {"functionUrl": f"{project}/{name}:{tag}"},
        headers={"X-Metier-Python": sys.executable},
    )
    until = time.monotonic() + START_SECONDS
    path = f"/api/v1/projects/{project}/background-tasks/{task['metadata']['name']}"
    while task["status"]["state"] == "running" and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        task = client.get(path)
    if task["status"]["state"] != "succeeded":
        raise make_error(
            "unavailable",
            f"the Dask cluster of {name} did not start: {task['status'].get('error') or 'it took too long'}",
            fix="metier get pods shows its scheduler and workers",
        )
    status = _known_status(function)
    function._core.assign(("status",), status)
    return status


def close(function: Function) -> None:
    """End scheduler and workers of the function's cluster. The next use starts another."""
    _check_kind(function)
    distributed = _distributed()
    if _phase(function) != "running":
        return
    status = _known_status(function)
    # A client of this process that stays would complain that its scheduler is gone, and try to find it again.
    known = [one for one in _clients(distributed) if one.scheduler.address == status.get("scheduler_address")]
    client = known[0] if known else _connect(distributed, status)
    client.shutdown()
    for one in known or [client]:
        one.close()
    function._core.assign(("status",), {})
    until = time.monotonic() + CLOSE_SECONDS
    while _phase(function) == "running" and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise make_error(
            "unavailable",
            f"this Python has no 'distributed' ({error})",
            fix="install the version of the function's environment: pip install dask distributed",
        ) from None
    return distributed


def _clients(distributed: Any) -> list[Any]:
    """The open clients of this process."""
    found = [
        one
        for one in getattr(distributed.Client, "_instances", ())
        if one.status == "running" and one.scheduler is not None
    ]
    return sorted(found, key=lambda one: str(one.id))


def _check_kind(function: Function) -> None:
    if function.kind != "dask":
        raise make_error(
            "unsupported", f"kind '{function.kind}' has no Dask cluster", field="kind", fix="it is for kind dask"
        )


def _names(function: Function) -> tuple[str, str, str]:
    metadata = function.metadata
    return metadata.project or "default", function.name, metadata.tag or "latest"


def _known_status(function: Function) -> dict[str, Any]:
    project, name, tag = _names(function)
    try:
        found = default_client().get(f"/api/v1/projects/{project}/functions/{name}", tag=tag)
    except Error:
        return {}
    return dict((found.get("func") or {}).get("status") or {})


def _phase(function: Function) -> str:
    project, name, tag = _names(function)
    selector = [f"mlrun/project={project}", f"mlrun/function={name}", f"mlrun/tag={tag}"]
    body = {"kind": "dask", "selector": selector, "project": project, "name": name}
    return str(default_client().post("/api/v1/status/function", body).get("data") or "")


def _local_client(distributed: Any) -> Any:
    try:
        return distributed.default_client()
    except ValueError:
        return distributed.Client()


def _connect(distributed: Any, status: dict[str, Any]) -> Any:
    address = str(status.get("scheduler_address") or "")
    with warnings.catch_warnings():
        # Dask's own table of versions; ours is one sentence.
        warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
        try:
            client = distributed.Client(address, security=_security(address))
        except (OSError, TimeoutError) as error:
            raise make_error("unavailable", f"the Dask scheduler at {address} does not answer: {error}") from None
    from metier_runner.dask_cluster import other_versions

    if difference := other_versions(client):
        client.close()
        raise make_error(
            "unavailable",
            difference,
            fix="use the interpreter of the function's environment, or give the function this one's version "
            "(spec.build.requirements)",
        )
    return client


def _security(address: str) -> Any:
    """The cluster's certificate; None for a cluster without, or one that is not of this server."""
    if not address.startswith("tls://"):
        return None
    from metier_runner.dask_security import security_from

    client = default_client()
    try:
        answer = client.get("/api/metier/v1/dask-identity", address=address)
    except Error:
        return None
    return security_from(answer["certificate"], answer["key"])
