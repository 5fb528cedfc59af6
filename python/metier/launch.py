"""How a function is run: in this process by the runner, or on the cluster by the server."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import _core
from .client import Client, default_client
from .errors import Error, make_error
from .runs import RunObject
from .settings import setting

if TYPE_CHECKING:
    from metier_runner.command import Options

    from .function import Function

_LOCAL = ("", "local", "handler")


def launch(
    function: Function,
    runspec: Mapping[str, Any] | RunObject | None,
    handler: str | Callable[..., Any] | None,
    *,
    local: bool | None,
    watch: bool,
    name: str,
    project: str,
    fields: Mapping[str, Any],
    labels: Mapping[str, str] | None,
    workdir: str,
) -> RunObject:
    """One run of a function; see :meth:`metier.Function.run`."""
    callable_handler = handler if callable(handler) else None
    handler_name = getattr(handler, "__name__", "handler") if callable_handler is not None else handler or ""
    run = make_run(function, runspec, str(handler_name), name, project, fields, labels)
    here = function.kind in _LOCAL if local is None else local
    if callable_handler is not None and not here:
        raise make_error(
            "invalid",
            f"a callable cannot be sent to kind '{function.kind}'",
            field="handler",
            fix="give its name, with the code in the function (code_to_function), or local=True",
        )
    if schedule := run["spec"].pop("schedule", None):
        raise make_error("unsupported", f"schedules are not built yet, got {schedule!r}", field="schedule")
    _core.validate_run(run)
    if here:
        return run_here(function, run, callable_handler, workdir, watch)
    return submit(function, run, watch, workdir)


def make_run(
    function: Function,
    runspec: Mapping[str, Any] | RunObject | None,
    handler: str,
    name: str,
    project: str,
    fields: Mapping[str, Any],
    labels: Mapping[str, str] | None,
) -> dict[str, Any]:
    """The run document of a call."""
    given = runspec.to_dict() if isinstance(runspec, RunObject) else runspec or {}
    run: dict[str, Any] = json.loads(json.dumps({key: given.get(key) or {} for key in ("metadata", "spec")}))
    metadata, spec = run["metadata"], run["spec"]
    for key, value in fields.items():
        if value is not None and (value or key not in ("output_path", "inputs", "parameters")):
            spec[key] = dict(value) if isinstance(value, Mapping) else value
    handler = handler or spec.get("handler") or function.spec.default_handler or ""
    if handler:
        spec["handler"] = handler
    metadata["project"] = project or metadata.get("project") or function.metadata.project or "default"
    metadata["name"] = name or metadata.get("name") or _core.default_run_name(function.name, handler)
    metadata.setdefault("uid", uuid.uuid4().hex)
    metadata.setdefault("iteration", 0)
    merged = {"kind": function.kind or "local", "owner": _user(), **metadata.get("labels", {}), **dict(labels or {})}
    metadata["labels"] = {str(k): str(v) for k, v in merged.items()}
    run["kind"] = "run"
    run["status"] = {"state": "created"}
    return run


def submit(function: Function, run: dict[str, Any], watch: bool, workdir: str = "") -> RunObject:
    """Sends the run to the server and, on request, follows it to its end."""
    client = default_client()
    document = function.to_dict()
    document.setdefault("metadata", {})["project"] = run["metadata"]["project"]
    if workdir:
        document.setdefault("spec", {})["workdir"] = workdir
    answer = client.call(
        "POST",
        "/api/v1/submit_job",
        {"task": run, "function": document},
        headers={"X-Metier-Python": sys.executable},
        timeout=200,
    )
    submitted = RunObject(answer["data"], client)
    if watch:
        submitted.wait_for_completion(show_logs=True)
    return submitted


def run_here(
    function: Function, run: dict[str, Any], handler: Callable[..., Any] | None, workdir: str, watch: bool
) -> RunObject:
    """Runs in this process. The run is recorded by the server; where none can be started, only here."""
    from metier_runner import foreground
    from metier_runner.execute import Job, execute
    from metier_runner.rest import Client as RunnerClient
    from metier_runner.sinks import MemorySink

    client = _recorder()
    run["status"] = {"state": "running", "start_time": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())}
    path = f"/api/v1/projects/{run['metadata']['project']}/runs/{run['metadata']['uid']}"
    if client is not None:
        client.post(path, run, iter=0)
    job = Job(_options(function, run, workdir), run, _environment(function, run))
    job.function = handler
    if client is not None:
        error = foreground._run(job, RunnerClient(client.server, client.token), None).error
        document = client.get(path, format="full", iter=0)["data"]
    else:
        execute(job, MemorySink(), time.time())
        error = job.error
        document = job.context.to_dict(with_artifacts=True) if job.context else run
    result = RunObject(document, client)
    if watch and result.status.get("state") != "completed":
        try:
            result.raise_for_state()
        except Error as raised:
            raise raised from error
    return result


def _options(function: Function, run: dict[str, Any], workdir: str) -> Options:
    """The command line that the runner would get for it."""
    from metier_runner.command import Options

    spec = function.spec
    options = Options()
    options.name = str(run["metadata"]["name"])
    options.mode = str(spec.mode or "")
    options.handler = "" if options.mode == "pass" else str(run["spec"].get("handler") or "")
    options.command = str(spec.command or "")
    options.args = [str(arg) for arg in spec.args]
    if spec.build.source and spec.build.load_source_on_run:
        options.source = str(spec.build.source)
    elif spec.build.functionSourceCode:
        options.origin_file = str(spec.build.origin_filename or "")
        options.command = options.command or "*"
    options.workdir = workdir or str(spec.workdir or "")
    return options


def _recorder() -> Client | None:
    """The server, or None where there is neither one to reach nor a program to start it with."""
    client = default_client()
    try:
        client.get("/api/v1/healthz")
    except Error as error:
        if setting("server") or error.kind != "unavailable":
            raise
        print(f"metier: this run is not recorded: {error.message}", file=sys.stderr)
        return None
    return client


def _environment(function: Function, run: dict[str, Any]) -> dict[str, str]:
    environment = dict(os.environ)
    for entry in function.spec.env:
        if entry.get("value") is not None:
            environment[entry["name"]] = entry["value"]
    if code := function.spec.build.functionSourceCode:
        environment["MLRUN_EXEC_CODE"] = str(code)
    environment["MLRUN_DEFAULT_PROJECT"] = run["metadata"]["project"]
    return environment


def store_function(function: Function, tag: str = "", versioned: bool = True) -> str:
    """Stores the function; its hash."""
    project = function.metadata.project or "default"
    answer = default_client().post(
        f"/api/v1/projects/{project}/functions/{function.name}",
        function.to_dict(),
        tag=tag or None,
        versioned=versioned,
    )
    key = str(answer["hash_key"])
    function.metadata.hash = key
    return key


def fetch_function(uri: str, project: str = "") -> Function:
    """A stored function by ``db://project/name[:tag|@hash]``."""
    from .function import Function

    rest, _, key = uri[len("db://") :].partition("@")
    rest, _, tag = rest.partition(":")
    owner, _, name = rest.rpartition("/")
    owner = owner or project or "default"
    answer = default_client().get(f"/api/v1/projects/{owner}/functions/{name}", tag=tag or None, hash_key=key or None)
    return Function.from_dict(answer["func"])


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
