"""The server of one graph in this process: builds its steps, answers its events."""

from __future__ import annotations

import json
import os
import traceback
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import _engine
from .context import GraphContext, MockTrigger, Response, StreamContext
from .errors import GraphError, NeedsMlrun, Unanswered, error_text
from .limits import limited
from .loop import Driver
from .resolve import (
    accepts,
    get_class,
    get_function,
    is_coroutine,
    is_mlrun,
    is_storey,
    namespaces,
    needs_storey,
    takes_context,
)
from .states import Flow, RouterStep, Step, graph_from_dict
from .streams import get_stream_pusher
from .v2 import V2ModelServer, fast, post_init

_SPEC_FILE = "/tmp/mlrun/serving-conf/serving_spec.json"
_FIELDS: dict[str, Any] = {
    "graph": None,
    "parameters": {},
    "load_mode": "sync",
    "function_uri": None,
    "verbose": False,
    "version": "v2",
    "functions": {},
    "graph_initializer": None,
    "error_stream": None,
    "track_models": None,
    "tracking_policy": None,
    "secret_sources": None,
    "default_content_type": None,
}


def compile_flow(graph: Flow | RouterStep, current_function: str = "*") -> _engine.Flow:
    """The compiled table. GraphError names the step, the rule and the fix."""
    document = json.dumps(graph.to_dict(), default=_text)
    return _engine.Flow(document, current_function, os.environ.get("START_FROM_STEP", ""))


def _text(value: Any) -> str:  # live objects in class_args: the table does not look at them
    return str(value)


class Route:
    """A route of a router: ``route.run(event)``."""

    def __init__(self, name: str, step: Step, built: Built) -> None:
        self.name = name
        self.step = step
        self.object = self._object = built.object
        self.context = built.context
        self.whole = built.whole
        self._call = built.bound()
        self.run: Callable[[Any], Any] = self._call if built.whole else self._run_body
        self._input, self._result = built.input_path, built.result_path
        if built.whole and (self._input or self._result):
            self.run = self._call

    def _run_body(self, event: Any) -> Any:
        from .paths import get_path, put_path

        result = self._call(get_path(self._input, event.body))
        event.body = put_path(self._result, event.body, result)
        return event

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["step"], name)


class Built:
    """A step's callable and how it is called."""

    def __init__(self, step: Step, context: GraphContext) -> None:
        self.step = step
        self.context = context
        self.object: Any = None
        self.call: Callable[..., Any] | None = None
        self.mode = "map"
        self.whole = bool(step.full_event)
        self.kwargs: dict[str, Any] | None = None
        self.selector: Callable[..., Any] | None = None
        self.input_path: str | None = step.input_path
        self.result_path: str | None = step.result_path

    def bound(self) -> Callable[[Any], Any]:
        """One argument in, the result out."""
        assert self.call is not None
        call, kwargs = self.call, self.kwargs
        return (lambda value: call(value, **kwargs)) if kwargs else call


class GraphServer:
    """Runs a graph: ``server.test(path, body)``, ``server.run(event)``.

    Parameters
    ----------
    graph : dict, Flow or RouterStep
        The graph or its document.
    parameters : dict
        What ``context.get_param`` gives.
    load_mode : str
        ``"sync"`` or ``"async"``: whether models load before the first event or in threads.
    """

    function_uri: Any
    verbose: Any
    graph_initializer: Any
    error_stream: Any
    track_models: Any
    secret_sources: Any
    default_content_type: Any

    def __init__(self, graph: Any = None, parameters: Any = None, load_mode: str | None = None, **fields: Any) -> None:
        for name, default in _FIELDS.items():
            setattr(self, name, fields.pop(name, None) or (dict(default) if isinstance(default, dict) else default))
        self.unknown = fields
        self.parameters: dict[str, Any] = dict(parameters or {})
        self.load_mode: str = load_mode or "sync"
        self.graph: Any = graph_from_dict(graph) if isinstance(graph, Mapping) else graph
        self.context: GraphContext = GraphContext(self)
        self.secrets: dict[str, str] = {}
        self.error_stream_object: Any = None
        self.http_trigger = True
        self.streaming = False
        self.model_endpoint_creation_task_name = None  # what MLRun's own routers ask about
        self._current_function = "*"
        self._driver = Driver()
        self._flow: _engine.Flow | None = None
        self._engine: Any = None
        self.background: set[Any] = set()  # tasks on a host's own loop that nobody waits for
        self.acks: Any = None  # of a worker that acknowledges its streams itself
        self._objects: dict[str, Any] = {}
        self._ends: list[Callable[[], Any]] = []

    @classmethod
    def from_dict(cls, spec: Mapping[str, Any]) -> GraphServer:
        """From a serving spec (``SERVING_SPEC_ENV``); unknown fields are kept in ``unknown``."""
        return cls(**dict(spec))

    def set_current_function(self, function: str) -> None:
        """Which part of the graph is run here; ``"*"`` all of it."""
        self._current_function = function

    # --- building ------------------------------------------------------------------------------------------------

    def init_states(
        self, context: Any = None, namespace: Any = None, logger: Any = None, is_mock: bool = False
    ) -> None:
        """Prepares secrets, streams and the context."""
        if self.graph is None:
            raise GraphError("no models or steps were set, use function.set_topology() and add steps")
        for source in self.secret_sources or []:
            _add_secrets(self.secrets, source)
        if self.error_stream:
            self.error_stream_object = get_stream_pusher(self.error_stream)
        self.context = GraphContext(self, context, logger)
        self.context.is_mock = is_mock
        self.context.root = self.graph
        self.context.verbose = bool(self.verbose)
        self.context.current_function = self._current_function
        self.context.stream = StreamContext(self.track_models, self.parameters, self.function_uri or "")
        if self.graph_initializer:
            get_function(self.graph_initializer, namespaces(namespace), "graph_initializer")(self)

    def init_object(self, namespace: Any = None) -> None:
        """Compiles the graph and makes its steps. GraphError, and what constructors and loads raise."""
        spaces = namespaces(namespace)
        flow = compile_flow(self.graph, self._current_function)
        self._table = json.loads(flow.steps())
        self._flow = flow
        flow.hooks(self._step_error, error_text)
        built: dict[str, Built] = {}
        if self._table["router_root"]:
            built[self._table["steps"][0]["name"]] = self._build(self.graph, spaces, self._table["steps"][0])
        else:
            for row in self._table["steps"]:
                if row["local"]:
                    built[row["name"]] = self._build(self.graph.steps[row["name"]], spaces, row)
        for index, row in enumerate(self._table["steps"]):
            if row["name"] in built:
                self._bind(flow, index, built[row["name"]])
        self._engine = _engine.Server(
            flow,
            self,
            Response,
            self.default_content_type or "",
            MockTrigger("http" if not self.context.is_mock else ""),
        )
        self.__dict__["test"] = self._engine.test
        counters = os.environ.get("METIER_GRAPH_STATS")
        if counters and not self.context.is_mock:
            flow.measure(f"{counters}/{os.getpid()}")

    def _build(self, step: Any, spaces: Any, row: Any) -> Built:
        built = Built(step, self.context)
        if step.kind == "queue":
            self._build_queue(built, row)
            return built
        if step.kind == "router":
            self._build_router(built, spaces)
        elif step.class_name or "class" in step._live:
            self._build_class(built, spaces, row, {})
            self._post_init(built)
        else:
            handler = step._live.get("handler") or get_function(step.handler, spaces, step.name)
            built.call = handler
            if takes_context(handler):
                built.kwargs = {"context": self.context}
        if built.call is None and is_storey(type(built.object)):
            raise needs_storey(step.name, step.class_name)
        if built.call is None:
            raise GraphError(
                f"step '{step.name}': class '{step.class_name}' has neither do() nor do_event()",
                f"graph.steps.{step.name}",
                "give the class one of them, or name its method with handler=",
            )
        if built.whole and built.mode == "map":
            built.mode = "event"
        self._objects[step.name] = built.object if built.object is not None else built.call
        built.call = limited(built.call, step, is_coroutine(built.call), self.context)
        return built

    def _build_queue(self, built: Built, row: Any) -> None:
        step = built.step
        built.mode = "pass"
        if not step.path or (self.context.is_mock and self._all_next(step)):
            return
        stream = get_stream_pusher(str(step.path), **(step.options or {}))
        self._objects[step.name] = stream
        full = (step.options or {}).get("full_event")
        wrap = bool(full) or (full is None and bool(self._all_next(step)))

        def push(event: Any) -> Any:
            body = event.body
            if body is None and self._table["sync"]:
                return event
            record: Any = body
            key = event.key.decode("utf-8", "replace") if isinstance(event.key, bytes) else event.key
            if wrap:
                record = {"full_event_wrapper": True, "body": body, "key": key, "id": event.id}
                record = {name: value for name, value in record.items() if value is not None}
            stream.push(record if isinstance(record, (bytes, str)) else json.dumps(record), partition_key=key)
            if self._table["sync"]:
                event.terminated, event.body = True, None
            return event

        built.call, built.mode, built.whole = push, "event", True

    def _all_next(self, step: Any) -> list[str]:
        return [name for name, other in self.graph.steps.items() if step.name in (other.after or [])]

    def _build_router(self, built: Built, spaces: Any) -> None:
        step = built.step
        routes: dict[str, Route] = {}
        for name, route in step.routes.items():
            child = Built(route, self.context)
            if route.class_name or "class" in route._live:
                self._build_class(child, spaces, None, {})
            else:
                child.call = route._live.get("handler") or get_function(route.handler, spaces, name)
                if takes_context(child.call):
                    child.kwargs = {"context": self.context}
            if child.call is None:
                raise GraphError(
                    f"route '{name}' of '{step.name}': '{route.class_name}' has neither do() nor do_event()"
                )
            self._post_init(child)
            routes[name] = Route(name, route, child)
        self._build_class(built, spaces, None, {"routes": routes}, "mlrun.serving.ModelRouter")
        self._post_init(built)

    def _build_class(self, built: Built, spaces: Any, row: Any, extra: dict[str, Any], default: str = "") -> None:
        step = built.step
        cls = step._live.get("class") or get_class(step.class_name or default, spaces, step.name)
        args: dict[str, Any] = {}
        for key, value in (step.class_args or {}).items():
            if key.startswith("_") and isinstance(value, str) and not key.startswith("__"):
                args[key[1:]] = get_function(value, spaces, step.name)
            elif key.startswith("_") and callable(value):
                args[key[1:]] = value
            else:
                args[key] = value
        args.update(extra)
        common = {
            "name": step.name,
            "context": self.context,
            "input_path": step.input_path,
            "result_path": step.result_path,
            "full_event": step.full_event,
            "graph_step": step,
        }
        for name in accepts(cls, *common):
            args.setdefault(name, common[name])
        try:
            obj = cls(**args)
        except TypeError as error:
            raise TypeError(f"failed to init step {step.name}: {error}\n args={step.class_args}") from error
        built.object = obj
        takes_paths = "input_path" in accepts(cls, "input_path")
        if not step.handler and _is_plain_model(obj):
            obj.version = getattr(obj, "version", "") or (obj.name.split(":", 1)[1] if ":" in (obj.name or "") else "")
            built.call, built.whole, built.mode = fast(obj), True, "event"
            built.input_path = built.result_path = None
        elif step.handler:
            built.call = getattr(obj, step.handler, None)
            if built.call is None:
                raise GraphError(f"handler ({step.handler}) specified but doesnt exist in class {step.class_name}")
        elif hasattr(obj, "do_event"):
            built.call, built.whole = obj.do_event, True
            if takes_paths:
                built.input_path = built.result_path = None
        elif hasattr(obj, "do"):
            built.call = obj.do
        if hasattr(obj, "graph_mode"):  # our own steps say how they are run
            built.mode = obj.graph_mode
            built.whole = built.mode in ("event", "emit") or built.whole
        if hasattr(obj, "attach") and row is not None:
            obj.attach(self, row)
        if hasattr(obj, "finish"):
            self._ends.append(obj.finish)
        selector = getattr(obj, "select_outlets", None)
        if callable(selector):
            built.selector = selector

    def _post_init(self, built: Built) -> None:
        obj = built.object
        if obj is None or not hasattr(obj, "post_init"):
            return
        if is_mlrun(obj, "V2ModelServer"):
            post_init(obj, self.load_mode)
        elif accepts(obj.post_init, "creation_strategy"):
            obj.post_init(self.load_mode, creation_strategy="skip", endpoint_type=1)
        else:
            obj.post_init(self.load_mode)

    def _bind(self, flow: _engine.Flow, index: int, built: Built) -> None:
        if built.call is None:
            return
        takes_body = not built.whole or built.mode not in ("event", "emit")
        flow.bind(
            index,
            built.call,
            built.mode,
            built.whole,
            built.input_path.split(".") if built.input_path and takes_body else None,
            built.result_path.split(".") if built.result_path and takes_body else None,
            built.kwargs,
            is_coroutine(built.call),
            built.selector,
        )

    # --- answering -----------------------------------------------------------------------------------------------

    def test(self, *args: Any, **kwargs: Any) -> Any:
        """Sends one event through the graph.

        ``test(path="/", body=None, method="", headers=None, content_type=None, silent=False, get_body=True, event_id=None,
        trigger=None, offset=None, time=None)``. Raises RuntimeError for statuses from 300 on, unless silent.
        """
        raise GraphError("the graph has not been built: call init_states() and init_object(), or fn.to_mock_server()")

    def run(self, event: Any, context: Any = None, get_body: bool = False) -> Any:
        """Answers an event: a Response, text, or with ``get_body`` the value itself."""
        return self._engine.run(event, get_body)

    def emit(self, step: str, event: Any) -> None:
        """An event of a step's own goes on behind it."""
        if self._flow is None:
            return
        parked = self._flow.emit(step, event)
        if parked:
            self._driver.finish(parked, wait=False)

    def flush(self) -> None:
        """What batches and targets have collected goes on."""
        for obj in self._objects.values():
            if hasattr(obj, "graph_mode") and hasattr(obj, "flush"):
                obj.flush()
        self._driver.drain()

    def wait_for_completion(self) -> Any:
        """Waits until all events have ended, flushes batches; what ``Reduce`` and its like have collected is returned."""
        self._driver.drain()
        result = None
        for end in self._ends:
            value = end()
            result = value if result is None else result
            self._driver.drain()
        return result

    @property
    def engine(self) -> Any:
        """The engine's server: ``begin`` and ``answer``, for hosts that have a loop of their own."""
        return self._engine

    async def finish_in_loop(self, parked: list[Any]) -> None:
        """Drives parked events on the running loop."""
        from .worker import finish

        assert self._flow is not None
        await finish(parked, self._flow.waits, self.background, self.parameters.get("request_timeout"))

    # Called by the engine.

    def _await(self, event: Any, parked: list[Any]) -> bool:
        assert self._flow is not None
        self._driver.finish(parked, wait=self._flow.waits, timeout=self.parameters.get("request_timeout"))
        return True

    def _later(self, parked: list[Any], event: Any) -> Any:
        from .worker import later

        return later(self, parked, event)

    def _failed(self, event: Any, error: BaseException, where: str) -> Any:
        if where == "json":
            message, status, headers = f"failed to json decode event, {error_text(error)}", 400, {}
        else:
            status = int(getattr(error, "error_status_code", 504 if isinstance(error, TimeoutError) else 400))
            message = f"{type(error).__name__}: {error_text(error)}"
            retry = getattr(error, "retry_after", None)
            headers = {"Retry-After": str(retry)} if retry is not None else {}
        if self.verbose:
            message += "\n" + "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.context.logger.error(f"run error: {message}")
        self.context.push_error(event, message, source="_handler")
        return self.context.Response(body=message, content_type="text/plain", status_code=status, headers=headers)

    def _step_error(self, event: Any, error: BaseException, step: str) -> None:
        self.context.logger.error(f"step {step} failed: {error_text(error)}")
        self.context.push_error(event, f"{type(error).__name__}: {error_text(error)}", source=step)

    def _unanswered(self, event: Any) -> Any:
        for obj in self._objects.values():
            missing = getattr(obj, "missing", None)
            if callable(missing) and (what := missing(event)):
                raise Unanswered(what)
        return None  # filtered, or kept by a step: there is nothing to answer

    def _encode(self, body: Any) -> Any:
        if isinstance(body, self.context.Response) or hasattr(body, "status_code"):
            return body
        if isinstance(body, types.GeneratorType) or hasattr(body, "__aiter__"):
            return body
        return self._encoded(_engine.dumps(body))

    def _encoded(self, text: str) -> Any:
        return self.context.Response(body=text, content_type="application/json", status_code=200)

    def _check(self, response: Any) -> Any:
        if response.status_code >= 300:
            raise RuntimeError(f"failed ({response.status_code}): {response.body}")
        return response

    def to_dict(self) -> dict[str, Any]:
        """The serving spec."""
        out = {name: getattr(self, name) for name in _FIELDS}
        out["graph"] = self.graph.to_dict() if self.graph is not None else None
        return {**out, **self.unknown}

    def close(self) -> None:
        """Ends what runs for this graph."""
        self._driver.close()


def _is_plain_model(obj: Any) -> bool:
    """A V2 model server, ours or MLRun's, that has not its own do_event."""
    if isinstance(obj, V2ModelServer):
        return type(obj).do_event is V2ModelServer.do_event
    if is_mlrun(obj, "V2ModelServer"):
        import mlrun.serving

        return bool(type(obj).do_event is mlrun.serving.V2ModelServer.do_event)
    return False


def _add_secrets(secrets: dict[str, str], source: Any) -> None:
    kind, value = (source.get("kind"), source.get("source")) if isinstance(source, Mapping) else source
    if kind == "inline":
        secrets.update(value if isinstance(value, Mapping) else json.loads(str(value).replace("'", '"')))
    elif kind == "env":
        for name in str(value).split(","):
            if name in os.environ:
                secrets[name] = os.environ[name]
    elif kind == "file":
        with open(str(value), encoding="utf-8") as file:
            for line in file:
                key, _, text = line.strip().partition("=")
                if key and not key.startswith("#"):
                    secrets[key] = text


def within_ours(spec: Mapping[str, Any]) -> None:
    """Raises NeedsMlrun for a function with what only MLRun's own engine has, by the field's name."""
    for field, what in (("streaming", "streamed answers"), ("api_handler_config", "an API of its own")):
        if spec.get(field):
            raise NeedsMlrun(
                f"the function has {what} ({field}), which metier's engine lacks",
                f"spec.{field}",
                "an environment with mlrun serves it by MLRun's own engine",
                "NeedsMlrun",
            )


def load_spec() -> dict[str, Any]:
    """The serving spec of this pod: the mounted file, else ``SERVING_SPEC_ENV``. GraphError without either."""
    path = os.environ.get("METIER_SERVING_SPEC", _SPEC_FILE)
    if Path(path).exists():
        return dict(json.loads(Path(path).read_text(encoding="utf-8")))
    text = os.environ.get("SERVING_SPEC_ENV", "")
    if not text:
        raise GraphError(
            "there is no serving spec", "SERVING_SPEC_ENV", f"it is mounted as {_SPEC_FILE} or set as variable"
        )
    return dict(json.loads(text))


def create_graph_server(
    parameters: Any = None,
    load_mode: str | None = None,
    graph: Any = None,
    verbose: bool = False,
    current_function: str | None = None,
    **fields: Any,
) -> GraphServer:
    """A server in this process, not built yet: ``init_states`` and ``init_object`` follow."""
    server = GraphServer(graph, parameters, load_mode, verbose=verbose, **fields)
    server.set_current_function(
        os.environ.get("SERVING_CURRENT_FUNCTION", "") if current_function is None else current_function
    )
    return server


__all__ = ["GraphServer", "V2ModelServer", "compile_flow", "create_graph_server", "load_spec"]
