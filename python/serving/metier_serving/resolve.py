"""From names to what can be called: classes, functions, expressions, and how each wants to be called."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import GraphError, NeedsMlrun

Namespace = Sequence[Mapping[str, Any]]

# Names that users know from MLRun and storey, and what stands for them here.
_OURS = {
    "mlrun.serving.ModelRouter": "metier_serving.routers.ModelRouter",
    "mlrun.serving.routers.ModelRouter": "metier_serving.routers.ModelRouter",
    "mlrun.serving.ParallelRun": "metier_serving.routers.ParallelRun",
    "mlrun.serving.routers.ParallelRun": "metier_serving.routers.ParallelRun",
    "mlrun.serving.VotingEnsemble": "metier_serving.routers.VotingEnsemble",
    "mlrun.serving.routers.VotingEnsemble": "metier_serving.routers.VotingEnsemble",
    "mlrun.serving.merger.Merge": "metier_serving.steps.Merge",
    "mlrun.serving.Merge": "metier_serving.steps.Merge",
    "mlrun.serving.remote.RemoteStep": "metier_serving.remote.RemoteStep",
    "mlrun.serving.RemoteStep": "metier_serving.remote.RemoteStep",
    "mlrun.serving.remote.BatchHttpRequests": "metier_serving.remote.BatchHttpRequests",
    "mlrun.serving.BatchHttpRequests": "metier_serving.remote.BatchHttpRequests",
    "$remote": "metier_serving.remote.RemoteStep",
}
_STOREY = [
    "Map",
    "Filter",
    "FlatMap",
    "Flatten",
    "Extend",
    "ForEach",
    "MapClass",
    "MapWithState",
    "Choice",
    "Batch",
    "DropColumns",
    "Rename",
    "ReifyMetadata",
    "SampleWindow",
    "Partition",
    "Reduce",
    "Assert",
    "Complete",
]
for _name in ("CSVTarget", "ParquetTarget"):
    _OURS[f"storey.{_name}"] = _OURS[f"storey.targets.{_name}"] = f"metier_serving.targets.{_name}"
_OURS["storey.AggregateByKey"] = "metier_serving.windows.AggregateByKey"
_OURS.update({f"storey.{name}": f"metier_serving.steps.{name}" for name in _STOREY})
_OURS.update({f"storey.flow.{name}": f"metier_serving.steps.{name}" for name in _STOREY})


def namespaces(given: Any) -> Namespace:
    """A module, a dict, or a list of those, as dicts."""
    items = given if isinstance(given, (list, tuple)) else [given] if given is not None else []
    return [vars(item) if inspect.ismodule(item) else item for item in items]


def _find(name: str, spaces: Namespace, what: str, step: str) -> Any:
    head, *rest = name.split(".")
    for space in spaces:
        if name in space:
            return space[name]
        if head in space and name not in _OURS:
            value = space[head]
            for part in rest:
                value = getattr(value, part, None)
            if value is not None:
                return value
    name = _OURS.get(name, name)
    parts = name.split(".")
    missing: ImportError | None = None
    for cut in range(len(parts) - 1, 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:cut]))
        except ImportError as error:
            if not (isinstance(error, ModuleNotFoundError) and error.name and name.startswith(error.name)):
                missing = error
            continue
        for part in parts[cut:]:
            value = getattr(value, part, None)
        if value is not None:
            return value
    if len(parts) == 1:
        import builtins

        if hasattr(builtins, name):
            return getattr(builtins, name)
    raise GraphError(
        f"step '{step}': {what} '{name}' was not found" + (f" ({missing})" if missing else ""),
        f"graph.steps.{step}",
        "define it in the function's code, or give its import path (package.module.Name)",
    )


def needs_storey(step: str, name: Any) -> NeedsMlrun:
    """The refusal of a step that only storey's own engine runs: tables, NoSQL and TSDB targets."""
    return NeedsMlrun(
        f"step '{step}' has the class '{name}', a step of storey that metier's engine lacks",
        f"graph.steps.{step}.class_name",
        "an environment with mlrun serves it by MLRun's own engine; docs/how-to/serving.md has the steps that run here",
        "NeedsMlrun",
    )


def is_storey(cls: type) -> bool:
    """It derives from a step of storey itself."""
    return any(base.__module__.split(".")[0] == "storey" for base in cls.__mro__)


def get_class(name: Any, spaces: Namespace, step: str = "") -> type:
    """A class by name, looked for in the namespaces, then by import."""
    if isinstance(name, type):
        return name
    if str(name).startswith("storey.") and name not in _OURS and not any(name in space for space in spaces):
        raise needs_storey(step, name)
    found = _find(str(name), spaces, "class", step)
    if inspect.ismodule(found):
        raise GraphError(f"step '{step}': '{name}' is a module, not a class", f"graph.steps.{step}.class_name")
    return found  # type: ignore[no-any-return]


def get_function(name: Any, spaces: Namespace, step: str = "") -> Callable[..., Any]:
    """A function by name, or from an expression in parentheses over ``event``."""
    if callable(name):
        given: Callable[..., Any] = name
        return given
    text = str(name).strip()
    if ".so:" in text:
        from .native import native_step

        return native_step(text, step)
    if text.startswith("("):
        if not text.endswith(")"):
            raise GraphError(f"step '{step}': the expression {text!r} must start with '(' and end with ')'")
        try:
            return eval(f"lambda event: {text}", {}, {})  # type: ignore[no-any-return]
        except SyntaxError as error:
            raise GraphError(f"step '{step}': the expression {text!r} is no Python: {error.msg}") from None
    found = _find(text, spaces, "function", step)
    if not callable(found):
        raise GraphError(f"step '{step}': '{name}' is not a function", f"graph.steps.{step}.handler")
    function: Callable[..., Any] = found
    return function


def accepts(function: Callable[..., Any], *names: str) -> list[str]:
    """Which of the names a callable takes; all when it takes any keyword."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return []
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return list(names)
    return [name for name in names if name in parameters]


def takes_context(function: Callable[..., Any]) -> bool:
    """True when a parameter is called ``context``."""
    try:
        return "context" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def is_coroutine(function: Callable[..., Any]) -> bool:
    """True for ``async def`` functions and methods, also behind functools.partial and callable objects."""
    while hasattr(function, "func"):
        function = function.func
    method = getattr(type(function), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(method)


def is_mlrun(obj: Any, name: str) -> bool:
    """True for an instance of a class of ``mlrun.serving`` of that name, if that package is loaded at all."""
    module = sys.modules.get("mlrun.serving")
    cls = getattr(module, name, None)
    return isinstance(cls, type) and isinstance(obj, cls)
