"""The graph as users build it: MLRun's step classes with its method names, and its JSON form in both directions.

A step keeps its document as it was given: fields that we do not know stay. What a graph means is decided by the engine,
which compiles the document.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, Union

from .errors import GraphError

Document = dict[str, Any]
StepLike = Union[str, type, Callable[..., Any], Any]
S = TypeVar("S", bound="Step")
MAX_ROUTES = 4500
_QUEUES = (">>", "$queue")
_LIVE = "_live"  # live objects given in place of names: kept beside the document, for the mock server


def class_name_of(class_name: StepLike) -> str:
    """The name by which a class is found again: module and name, the bare name for ``__main__`` and builtins."""
    if isinstance(class_name, str):
        return class_name
    module = getattr(class_name, "__module__", "")
    name = getattr(class_name, "__qualname__", type(class_name).__name__)
    return name if module in ("__main__", "builtins", "") or "<locals>" in name else f"{module}.{name}"


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (dict, list)) and not value)


class Step:
    """One step of a graph. Attributes are the document's fields."""

    kind = "task"
    default_shape = "ellipse"

    def __init__(self, name: str = "", parent: Flow | None = None, **fields: Any) -> None:
        self.__dict__["_fields"] = {key: value for key, value in fields.items() if value is not None}
        self.__dict__["name"] = name
        self.__dict__["_parent"] = parent
        self.__dict__[_LIVE] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_fields", "_parent", _LIVE):
            raise AttributeError(name)
        fields = self.__dict__["_fields"]
        if name in fields:
            return fields[name]
        if name in ("class_args", "trigger_args", "options"):
            return fields.setdefault(name, {})
        if name in ("after", "before"):
            return fields.setdefault(name, [])
        if name.startswith("_"):
            raise AttributeError(name)
        return None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "name" or name.startswith("_") or isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            self._fields[name] = value

    @property
    def fullname(self) -> str:
        """The name as errors give it."""
        return str(self.name).replace(":", "_")

    @property
    def next(self) -> list[str]:
        """The names of the steps that follow."""
        if self._parent is None:
            return []
        return [name for name, step in self._parent.steps.items() if self.name in (step.after or [])]

    def to_dict(self) -> Document:
        """MLRun's document, empty fields left out."""
        out: Document = {"kind": self.kind}
        for key, value in self._fields.items():
            value = value.to_dict() if hasattr(value, "to_dict") else value
            if not _is_empty(value):
                out[key] = copy.deepcopy(value) if isinstance(value, (dict, list)) else value
        return out

    def after_step(self, *after: str, append: bool = True) -> Step:
        """Sets or extends the names of the steps before this one."""
        names = list(self.after or []) if append else []
        for item in after:
            name = item.name if isinstance(item, Step) else item
            if name and name not in names:
                names.append(name)
        self._fields["after"] = names
        return self

    def set_flow(self, steps: Sequence[Any], force: bool = False) -> Step:
        raise GraphError("set_flow() can only be used on a flow", fix="graph.set_flow([...])")

    def respond(self: S) -> S:
        """This step's output is the answer of the request."""
        self._fields["responder"] = True
        return self

    def error_handler(
        self: S,
        name: str | None = None,
        class_name: StepLike = None,
        handler: Any = None,
        before: str | Sequence[str] | None = None,
        function: str | None = None,
        full_event: bool | None = None,
        input_path: str | None = None,
        result_path: str | None = None,
        **class_args: Any,
    ) -> S:
        """The step that gets the events on which this one fails; returns this step, so that a chain goes on from it.

        Raises GraphError without class_name and handler, and for ``before`` on a graph.
        """
        if not (class_name or handler):
            raise GraphError("class_name or handler must be provided")
        flow = self if isinstance(self, Flow) else self._parent
        if flow is None:
            raise GraphError(f"step {self.name} is not part of a graph")
        if flow is self and before:
            raise GraphError("`before` arg can't be specified for graph error handler")
        name = name or _default_name(class_name, handler)
        step = _task(ErrorStep, name, class_name, handler, class_args)
        for key, value in (
            ("function", function),
            ("full_event", full_event),
            ("input_path", input_path),
            ("result_path", result_path),
        ):
            if value is not None:
                step._fields[key] = value
        before = [before] if isinstance(before, str) else list(before or [])
        if before:
            step._fields["before"] = before
        if flow is not self:
            step._fields["base_step"] = self.name
        self._fields["on_error"] = name
        flow._put(name, step)
        return self

    def to(
        self,
        class_name: StepLike = None,
        name: str | None = None,
        handler: Any = None,
        graph_shape: str | None = None,
        function: str | None = None,
        full_event: bool | None = None,
        input_path: str | None = None,
        result_path: str | None = None,
        **class_args: Any,
    ) -> Any:
        """Adds a step after this one and returns it.

        Parameters
        ----------
        class_name : str, class or step object
            ``*Name`` makes a router, ``>>`` or ``$queue`` a queue, ``$remote`` a call of another service.
        handler : str or callable
            A function, or the method of the class; ``"(event['x'] + 1)"`` is an expression.
        input_path, result_path : str
            Dotted paths: what of the body the step gets, and where its result is put.
        """
        flow = self if isinstance(self, Flow) else self._parent
        if flow is None:
            raise GraphError(f"step {self.name} parent is not set or it's not part of a graph")
        if isinstance(self, QueueStep) and not function:
            raise GraphError(
                f"step '{name or _default_name(class_name, handler)}' must specify a function, because it follows a queue step"
            )
        name, step = make_step(
            class_name, name, handler, graph_shape, function, full_event, input_path, result_path, class_args
        )
        step = flow._put(name, step)
        if flow is not self:
            step.after_step(self.name)
        flow._last = name
        return step

    def plot(self, filename: str | None = None, format: str | None = None, **options: Any) -> Any:
        """Draws the graph; see :func:`metier_serving.plot.plot`."""
        from .plot import plot

        return plot(self, filename, format, **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


class TaskStep(Step):
    """A class or function."""


class ErrorStep(TaskStep):
    """What gets failed events."""

    kind = "error_step"


class QueueStep(Step):
    """A stream between functions, or an edge in memory."""

    kind = "queue"
    default_shape = "cds"


class _Parent:
    """``step["name"]``, ``del step["name"]``, ``name in step`` and the names of what is in it."""

    def _children(self) -> dict[str, Any]:
        raise NotImplementedError

    def __getitem__(self, name: str) -> Any:
        return self._children()[name]

    def __delitem__(self, name: str) -> None:
        del self._children()[name]

    def __contains__(self, name: str) -> bool:
        return name in self._children()

    def __iter__(self) -> Iterator[str]:
        return iter(self._children())


class RouterStep(_Parent, TaskStep):
    """A router and its routes: ``router[name]``, ``name in router``."""

    kind = "router"
    default_shape = "doubleoctagon"

    def __init__(self, name: str = "", parent: Flow | None = None, routes: Any = None, **fields: Any) -> None:
        super().__init__(name, parent, **fields)
        self.routes: dict[str, Any]
        self.__dict__["routes"] = {}
        self._fields.setdefault("name", name)  # MLRun writes a router's name into its document
        for key, route in (routes or {}).items():
            self.routes[key] = route if isinstance(route, Step) else step_from_dict(key, route)

    def to_dict(self) -> Document:
        out = super().to_dict()
        if self.routes:
            out["routes"] = {key: route.to_dict() for key, route in self.routes.items()}
        return out

    def add_route(
        self,
        key: str,
        route: Any = None,
        class_name: StepLike = None,
        handler: Any = None,
        function: str | None = None,
        **class_args: Any,
    ) -> Step:
        """Adds or replaces a route, from a step or from a class."""
        if len(self.routes) >= MAX_ROUTES and key not in self.routes:
            raise GraphError(f"Router cannot support more than {MAX_ROUTES} model endpoints")
        if not route and not class_name and not handler:
            raise GraphError("route or class_name must be specified")
        class_args.pop("creation_strategy", None)
        step = route if isinstance(route, Step) else None
        if step is None and route is not None:
            _, step = make_step(route, key, handler, class_args=class_args)
        if step is None:
            step = _task(TaskStep, key, class_name, handler, class_args)
        step.name = key
        if function:
            step._fields["function"] = function
        self.routes[key] = step
        return step

    def clear_children(self, routes: Sequence[str] | None = None) -> None:
        """Removes routes, all of them by default."""
        for key in list(routes or self.routes):
            del self.routes[key]

    def _children(self) -> dict[str, Any]:
        return self.routes

    def __setitem__(self, name: str, route: Any) -> None:
        self.add_route(name, route)


class Flow(_Parent, Step):
    """A graph of steps: ``graph["name"]``, ``graph.to(...)``, ``graph.add_step(..., after=..., before=...)``."""

    kind = "root"

    def __init__(self, name: str = "", steps: Any = None, engine: str | None = None, **fields: Any) -> None:
        super().__init__(name, None, engine=engine, **fields)
        self.steps: dict[str, Any]
        self.__dict__["steps"] = {}
        self._last: str = ""
        for key, step in (steps or {}).items():
            self._put(key, step if isinstance(step, Step) else step_from_dict(key, step))

    def _put(self, name: str, step: Any) -> Any:
        step.name = name
        step._parent = self
        self.steps[name] = step
        return step

    def to_dict(self) -> Document:
        out = super().to_dict()
        del out["kind"]  # a root flow has none
        out["steps"] = {key: step.to_dict() for key, step in self.steps.items()}
        return out

    def add_step(
        self,
        class_name: StepLike = None,
        name: str | None = None,
        handler: Any = None,
        after: str | Sequence[str] | None = None,
        before: str | None = None,
        graph_shape: str | None = None,
        function: str | None = None,
        full_event: bool | None = None,
        input_path: str | None = None,
        result_path: str | None = None,
        **class_args: Any,
    ) -> Any:
        """Adds a step at a place: ``after`` one or several names or ``"$prev"``, ``before`` a name that it is put in front of."""
        name, step = make_step(
            class_name, name, handler, graph_shape, function, full_event, input_path, result_path, class_args
        )
        for previous in after if isinstance(after, (list, tuple)) else [after]:
            self.insert_step(name, step, previous, before)
        return step

    def insert_step(self, key: str, step: Step, after: Any, before: Any = None) -> Step:
        """Puts a step object at a place."""
        if before and before not in self.steps:
            raise GraphError(f"cant set before, there is no step named {before}")
        last = self._last
        if after and after != "$prev" and after not in self.steps:
            raise GraphError(f"cant set after, there is no step named {after}")
        self._put(key, step)
        previous = last if after == "$prev" else (after or "")
        if previous and previous != key:
            step.after_step(previous)
        if before:
            if before in (key, previous):
                raise GraphError(f"graph loop, step {before} is specified in before and/or after {key}")
            step.after_step(*self.steps[before].after, append=False)
            self.steps[before].after_step(key, append=False)
        self._last = key
        return step

    def set_flow(self, steps: Sequence[Any], force: bool = False) -> Any:
        """Replaces all steps by a chain of classes, objects or dicts of ``to()``'s arguments; returns the last."""
        if self.steps and not force:
            raise GraphError(
                "set_flow() called on a step that already has downstream steps. If you want to overwrite "
                "existing steps, set force=True."
            )
        self.clear_children()
        at: Step = self
        for item in steps:
            at = at.to(**item) if isinstance(item, dict) else at.to(item)
        return at

    def clear_children(self, steps: Sequence[str] | None = None) -> None:
        """Removes steps, all of them by default."""
        for key in list(steps or self.steps):
            del self.steps[key]

    def list_child_functions(self) -> list[str]:
        """The names of functions that steps are given to."""
        out: list[str] = []
        for step in self.steps.values():
            if step.function and step.function not in out:
                out.append(step.function)
        return out

    def get_queue_links(self) -> dict[str, Step]:
        """The queue that each function reads."""
        links: dict[str, Step] = {}
        for step in self.steps.values():
            for queue in (self.steps[name] for name in step.after or [] if self.steps[name].kind == "queue"):
                if not step.function:
                    raise GraphError(
                        f"child function name must be specified in steps ({step.name}) which follow a queue"
                    )
                if links.get(step.function, queue) is not queue:
                    raise GraphError(f"function ({step.function}) cannot read from multiple queues")
                links[step.function] = queue
        return links

    def is_empty(self) -> bool:
        """True without steps."""
        return not self.steps

    def supports_termination(self) -> bool:
        """True when the engine is not sync."""
        return bool(self.engine != "sync")

    def check_and_process_graph(self, allow_empty: bool = False) -> None:
        """Raises GraphError for what is wrong."""
        if self.steps or not allow_empty:
            from .server import compile_flow

            compile_flow(self)

    def _children(self) -> dict[str, Any]:
        return self.steps

    def __setitem__(self, name: str, step: Any) -> None:
        self.add_step(step, name)


RootFlowStep = Flow
_KINDS: dict[str, type[Step]] = {
    "task": TaskStep,
    "error_step": ErrorStep,
    "queue": QueueStep,
    "router": RouterStep,
}


def step_from_dict(name: str, document: Mapping[str, Any]) -> Step:
    """A step from its document; kinds that we do not know keep theirs."""
    fields = copy.deepcopy(dict(document))
    kind = str(fields.pop("kind", "") or "task")
    own_name = fields.pop("name", None)  # a router's document carries its own
    if kind == "router":
        step: Step = RouterStep(name, routes=fields.pop("routes", None), **fields)
    else:
        step = _KINDS.get(kind, TaskStep)(name, **fields)
    step._fields.pop("name", None)
    if own_name is not None:
        step._fields["name"] = own_name
    if kind not in _KINDS:
        step.__dict__["kind"] = kind
    return step


def graph_from_dict(document: Mapping[str, Any]) -> Flow | RouterStep:
    """The root: a router, or a flow without kind."""
    kind = document.get("kind") or "root"
    if kind == "router":
        step = step_from_dict(str(document.get("name") or "router"), document)
        assert isinstance(step, RouterStep)
        return step
    if kind not in ("root", "flow"):
        raise GraphError(f"illegal root step {kind}", "graph.kind", "a flow or a router")
    fields = copy.deepcopy({key: value for key, value in document.items() if key != "kind"})
    return Flow(steps=fields.pop("steps", None), engine=fields.pop("engine", None), **fields)


def _default_name(class_name: StepLike, handler: Any = None) -> str:
    if isinstance(class_name, str) and class_name:
        return class_name.split(".")[-1]
    if class_name:
        return str(getattr(class_name, "name", None) or getattr(class_name, "__name__", type(class_name).__name__))
    raise GraphError("name or class_name must be provided")


def _task(cls: type[Step], name: str, class_name: StepLike, handler: Any, class_args: Document) -> Any:
    step = cls(name, class_args=dict(class_args))
    if class_name:
        step._fields["class_name"] = class_name_of(class_name)
        if not isinstance(class_name, str):
            step._live["class"] = class_name
    if callable(handler):
        step._live["handler"] = handler
        handler = getattr(handler, "__name__", type(handler).__name__)
    if handler:
        step._fields["handler"] = handler
    return step


def make_step(
    class_name: StepLike,
    name: str | None = None,
    handler: Any = None,
    graph_shape: str | None = None,
    function: str | None = None,
    full_event: bool | None = None,
    input_path: str | None = None,
    result_path: str | None = None,
    class_args: Document | None = None,
) -> tuple[str, Any]:
    """A step from the arguments of ``to()``."""
    args = dict(class_args or {})
    step: Any
    if isinstance(class_name, Step):
        step, name = class_name, name or class_name.name
    elif isinstance(class_name, str) and class_name in _QUEUES:
        if "path" not in args:
            raise GraphError("path=<stream path or None> must be specified for queues")
        if not name:
            raise GraphError("queue name must be specified")
        fields = {
            k: args.pop(k) for k in ("path", "shards", "retention_in_hours", "trigger_args", "after") if k in args
        }
        if full_event is not None:
            args["full_event"] = full_event
        return name, QueueStep(name, options=args, **fields)
    elif isinstance(class_name, str) and class_name.startswith("*"):
        routes = args.pop("routes", None)
        base = class_name[1:]
        name = name or (base.split(".")[-1] if base else "router")
        step = RouterStep(name, routes=routes, class_name=base or None, class_args=args)
        step._fields["name"] = name
        if handler:
            step._fields["handler"] = handler
    elif class_name and not isinstance(class_name, (str, type)) and hasattr(class_name, "to_dict"):
        document = class_name.to_dict()
        name = (
            name
            or document.get("name")
            or getattr(class_name, "name", None)
            or _default_name(document.get("class_name"))
        )
        document.pop("name", None)
        step = step_from_dict(str(name), document)
        step._live["class"] = type(class_name)
    elif class_name or handler:
        if not name and not class_name and callable(handler):
            name = handler.__name__
        name = name or _default_name(class_name, handler)
        step = _task(TaskStep, name, class_name, handler, args)
    else:
        raise GraphError("class_name or handler must be provided")
    for key, value in (
        ("shape", graph_shape),
        ("function", function),
        ("full_event", full_event),
        ("input_path", input_path),
        ("result_path", result_path),
    ):
        if value is not None:
            step._fields[key] = value
    return str(name), step
