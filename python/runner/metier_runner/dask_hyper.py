"""`parallel_runs` of kind dask: iterations as tasks of the run's Dask cluster.

A worker runs one iteration with the handler of the shipped file and gives back its run dict and its records; this process
writes them, so that there is one journal. What the handler prints is in the worker's log.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from . import dask_cluster
from .errors import InvalidArgument
from .sinks import JsonDict, MemorySink

if TYPE_CHECKING:
    from .context import Context
    from .hyper import Plan

DEFAULT_PARALLEL = 4


def run_over_dask(context: Context, plan: Plan) -> list[JsonDict]:
    """Run the plan with up to `plan.parallel` iterations at once; the answer is in the order of ending."""
    from .hyper import ends_early

    client = context.dask_client
    handler = dask_cluster.handler
    if not handler:
        raise InvalidArgument("iterations over Dask need a handler, and this run is a whole program: name a function of the file")
    distributed: Any = importlib.import_module("distributed")
    waiting = iter(plan)
    children: dict[Any, Context] = {}
    done: list[JsonDict] = []
    errors, stopped = 0, False
    ready = distributed.as_completed()
    try:
        while True:
            while not stopped and len(children) < (plan.parallel or DEFAULT_PARALLEL):
                parameters = next(waiting, None)
                if parameters is None:
                    stopped = True
                    break
                child = context.get_child_context(with_parent_params=True, **parameters)
                context.forget_child()
                future = client.submit(
                    iterate,
                    child.to_dict(),
                    dask_cluster.module,
                    handler,
                    dict(context._environment),
                    pure=False,
                    key=f"{context.name}-{child.iteration}-{context.run_uid[:8]}",
                )
                children[future] = child
                ready.add(future)
            if not children:
                return done
            future = next(ready)
            run = _finish(children.pop(future), future)
            done.append(run)
            errors += run["status"]["state"] == "error"
            stopped = ends_early(context, plan, run, errors) or stopped
    finally:
        if children:
            client.cancel(list(children))


def _finish(child: Context, future: Any) -> JsonDict:
    try:
        answer: JsonDict = future.result()
    except Exception as error:  # noqa: BLE001 - the worker died, or could not even begin
        child.finish(error=f"iteration {child.iteration} on the Dask cluster: {type(error).__name__}: {error}")
        return child.to_dict(with_artifacts=True)
    sink: Any = child.sink
    for record in answer["records"]:
        sink._add(record)
    run: JsonDict = answer["run"]
    return run


def iterate(run: JsonDict, module: str, handler: str, environment: dict[str, str]) -> JsonDict:
    """On a worker: one iteration."""
    from . import calling
    from .context import Context
    from .hyper import run_child
    from .returns import log_returned

    sink = MemorySink()
    child = Context(
        run, sink, environment={**environment, **{k: v for k, v in os.environ.items() if k.startswith(("METIER_POD", "TMPDIR"))}}
    )
    code = importlib.import_module(module) if module else None

    def call(context: Context) -> None:
        function = calling.find_handler(code, handler, context._parameters, context)
        positional, named = calling.bind(function, context)
        value = function(*positional, **named)
        log_returned(context, value, list(context._spec.get("returns") or []))

    return {"run": run_child(child, call), "records": sink.records}
