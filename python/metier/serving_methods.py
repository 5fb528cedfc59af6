"""What functions of kind ``serving`` have in addition: the graph, models, the mock server."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import make_error
from .live import Section

if TYPE_CHECKING:
    from metier_serving.server import GraphServer
    from metier_serving.states import Flow, RouterStep

    from . import _core as core_types


def _invalid(message: str, field: str, fix: str = "") -> Exception:
    return make_error("invalid", message, field=field, fix=fix)


def plain_graph(value: Any) -> Any:
    """The document of a graph without live objects: callables by their names."""
    if isinstance(value, Mapping):
        return {key: plain_graph(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_graph(item) for item in value]
    if isinstance(value, type) or (callable(value) and hasattr(value, "__name__")):
        from metier_serving.states import class_name_of

        return class_name_of(value)
    return value


class ServingSpec(Section):
    """``fn.spec`` whose ``graph`` is the graph itself."""

    __slots__ = ("_function",)
    _function: ServingMethods

    def __init__(self, core: core_types.Function, function: ServingMethods) -> None:
        super().__init__(core, ("spec",))
        object.__setattr__(self, "_function", function)

    def __getattr__(self, name: str) -> Any:
        return self._function._live_graph() if name == "graph" else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "graph":
            self._function._set_graph(value)
        else:
            super().__setattr__(name, value)


class ServingMethods:
    """The methods of kind ``serving``. :mod:`metier_serving` is loaded by the first one that needs it."""

    _document: core_types.Function
    _graph: Flow | RouterStep | None = None

    @property
    def _core(self) -> core_types.Function:
        """The document, with the graph as it is now."""
        if self._graph is not None:
            self._document.assign(("spec", "graph"), plain_graph(self._graph.to_dict()))
        return self._document

    def _spec_view(self, core: core_types.Function) -> Any:
        return ServingSpec(core, self) if core.kind == "serving" else Section(core, ("spec",))

    def _need_serving(self, method: str) -> None:
        if self._document.kind != "serving":
            raise make_error(
                "unsupported",
                f"kind '{self._document.kind}' has no {method}()",
                field="kind",
                fix="graphs are for kind serving: new_function(..., kind='serving')",
            )

    def _live_graph(self) -> Flow | RouterStep | None:
        if self._graph is None:
            document = self._document.copy(("spec", "graph"))
            if document:
                from metier_serving.states import graph_from_dict

                self._graph = graph_from_dict(document)
        return self._graph

    def _set_graph(self, graph: Any) -> None:
        from metier_serving.states import graph_from_dict

        self._graph = graph_from_dict(graph) if isinstance(graph, Mapping) else graph
        if self._graph is None:
            self._document.remove(("spec", "graph"))

    def set_topology(
        self,
        topology: str | None = None,
        class_name: Any = None,
        engine: str | None = None,
        exist_ok: bool = False,
        **class_args: Any,
    ) -> Any:
        """Starts the graph: ``"router"`` (default) or ``"flow"``; returns it.

        Parameters
        ----------
        class_name : str, class or router
            The router's class; default ModelRouter.
        engine : str
            Of a flow: ``"async"`` (default) or ``"sync"``.
        exist_ok : bool
            Replace a graph that there is already.
        """
        from metier_serving.states import Flow, RouterStep, Step, class_name_of, make_step

        self._need_serving("set_topology")
        if self._live_graph() is not None and not exist_ok:
            raise _invalid(
                "graph topology is already set, cannot be overwritten", "spec.graph", "set_topology(exist_ok=True)"
            )
        topology = topology or "router"
        if topology == "router":
            if isinstance(class_name, Step):
                if not isinstance(class_name, RouterStep):
                    raise _invalid(f"'{class_name.kind}' is no router", "class_name", "give a router's class")
                self._graph = class_name
            else:
                _, step = make_step(
                    "*" + class_name if isinstance(class_name, str) else "*", "router", class_args=class_args
                )
                if class_name is not None and not isinstance(class_name, str):
                    step._fields["class_name"] = class_name_of(class_name)
                    step._live["class"] = class_name
                self._graph = step
        elif topology == "flow":
            if engine not in (None, "sync", "async"):
                raise _invalid(f"'{engine}' is no engine", "engine", "'sync' or 'async'")
            self._graph = Flow(engine=engine or "async")
        else:
            raise _invalid(f"unsupported topology {topology}, use 'router' or 'flow'", "topology")
        return self._graph

    def add_model(
        self,
        key: str,
        model_path: Any = None,
        class_name: Any = None,
        model_url: str | None = None,
        handler: Any = None,
        router_step: str | None = None,
        child_function: str | None = None,
        **class_args: Any,
    ) -> Any:
        """Adds a model to the router, which is made when there is no graph yet; returns the route.

        Parameters
        ----------
        key : str
            The model's name, ``name:version`` for one of several versions.
        model_path : str
            File, folder or ``store://`` address.
        model_url : str
            A model that is served elsewhere; then neither path nor class are needed.
        router_step : str
            In a flow with several routers, which one.
        """
        from metier_serving.states import Flow, TaskStep

        self._need_serving("add_model")
        graph = self._live_graph() or self.set_topology()
        router = graph
        if isinstance(graph, Flow):
            routers = [name for name, step in graph.steps.items() if step.kind == "router"]
            if router_step:
                if router_step not in graph:
                    raise _invalid(f"router step '{router_step}' not present in the graph topology", "router_step")
                router = graph[router_step]
            elif len(routers) == 1:
                router = graph[routers[0]]
            else:
                raise ValueError(
                    f"there are several routers ({' | '.join(routers)}): say which with router_step="
                    if routers
                    else "graph does not contain any router, add_model can only be used when there is a router step"
                )
        if not model_path and not model_url and not class_args.get("model"):
            raise ValueError("model_path or model_url must be provided")
        if model_path:
            class_args["model_path"] = str(model_path)
        if model_url:
            route = TaskStep(key, class_name="$remote", class_args={"url": model_url, **class_args})
            return router.add_route(key, route, function=child_function)
        class_name = class_name or self._document.copy(("spec", "default_class"))
        if not class_name and not handler:
            raise ValueError("model_path must be specified with class_name, or set the function's default_class")
        return router.add_route(key, class_name=class_name, handler=handler, function=child_function, **class_args)

    def set_tracking(
        self,
        stream_path: str | None = None,
        batch: int | None = None,
        sampling_percentage: float = 100,
        stream_args: Mapping[str, Any] | None = None,
        enable_tracking: bool = True,
        sample: int | None = None,
        **_: Any,
    ) -> None:
        """Records the calls of models to a stream (``kafka://``, ``http://``, ``dummy://``, a file of JSON lines)."""
        self._need_serving("set_tracking")
        self._document.assign(("spec", "track_models"), bool(enable_tracking))
        given = {
            "log_stream": stream_path,
            "log_stream_batch": batch,
            "log_stream_sample": sample,
            "sampling_percentage": sampling_percentage if sampling_percentage != 100 else None,
            "stream_args": dict(stream_args) if stream_args else None,
        }
        for name, value in given.items():
            if value is not None:
                self._document.assign(("spec", "parameters", name), value)

    def deploy(self, project: str = "", tag: str = "", watch: bool = True, timeout: float = 300) -> str:
        """Deploys the function, those that read its durable queues first, and returns its URL.

        Raises
        ------
        InvalidError
            A step's function that ``add_child_function`` does not name, a wrong graph.
        """
        children = self._children() if self._document.kind == "serving" else []
        if children:
            self._assign_place(project, tag)
            from .client import default_client

            # A graph that is refused leaves no child behind.
            body = {"function": self._core.document()}
            headers = {"X-Metier-Python": sys.executable}
            default_client().call("POST", "/api/metier/v1/deployments/render", body, headers=headers, timeout=200)
        for child in children:
            child.deploy(project, tag, watch, timeout)
        url: str = super().deploy(project, tag, watch, timeout)  # type: ignore[misc]
        return url

    def _assign_place(self, project: str, tag: str) -> None:
        if project:
            self._document.assign(("metadata", "project"), project)
        if tag:
            self._document.assign(("metadata", "tag"), tag)

    def _children(self) -> list[Any]:
        """The functions behind the graph's durable queues: this one's code and graph, unless their references say otherwise."""
        return [type(self).from_dict(child) for child in self._core.child_functions(".")]  # type: ignore[attr-defined]

    def add_child_function(
        self,
        name: str,
        url: str | None = None,
        image: str | None = None,
        requirements: Any = None,
        kind: str | None = None,
    ) -> None:
        """Another function that runs steps of this graph (``function=name``); deployed as ``<this>-<name>``."""
        self._need_serving("add_child_function")
        reference = {"name": name, "url": url, "image": image, "requirements": requirements, "kind": kind or "serving"}
        self._document.assign(
            ("spec", "function_refs", name), {key: value for key, value in reference.items() if value is not None}
        )

    def remove_states(self, keys: list[str]) -> None:
        """Removes steps or routes."""
        graph = self._live_graph()
        if graph is not None:
            graph.clear_children(keys)

    def with_secrets(self, kind: str, source: Any) -> Any:
        """Secrets for steps: ``inline`` (a dict), ``env`` (names, comma separated) or ``file``."""
        self._need_serving("with_secrets")
        if kind not in ("inline", "env", "file"):
            raise _invalid(f"secrets of kind '{kind}' are not known", "kind", "inline, env or file")
        sources = self._document.copy(("spec", "secret_sources")) or []
        self._document.assign(("spec", "secret_sources"), [*sources, {"kind": kind, "source": source}])
        return self

    def plot(self, filename: str | None = None, format: str | None = None, **options: Any) -> Any:
        """Draws the graph."""
        self._need_serving("plot")
        graph = self._live_graph()
        if graph is None:
            raise _invalid("there is no graph to draw", "spec.graph", "set_topology(), then add steps")
        return graph.plot(filename, format, **options)

    def to_mock_server(
        self,
        namespace: Any = None,
        current_function: str = "*",
        track_models: bool = False,
        workdir: str | None = None,
        logger: Any = None,
        **fields: Any,
    ) -> GraphServer:
        """A server of the graph in this process, by the same engine that serves it in pods.

        Parameters
        ----------
        namespace : module, dict or list of them
            Where classes and functions are looked up; default the caller's globals, then the function's own code.
        current_function : str
            Only this function's steps; ``"*"``: all, queues between functions pass events on in memory.
        track_models : bool
            Record calls to the stream that ``set_tracking`` names.

        Raises
        ------
        GraphError
            The graph is wrong; the message names the step and the fix.
        """
        from metier_serving.errors import GraphError
        from metier_serving.server import create_graph_server, within_ours

        self._need_serving("to_mock_server")
        caller = sys._getframe(1).f_globals
        spaces = list(namespace) if isinstance(namespace, (list, tuple)) else [namespace or caller]
        code = self._code_namespaces()
        graph = self._live_graph() or next((space["graph"] for space in code if "graph" in space), None)
        if graph is None:
            raise GraphError("no models or steps were set, use function.set_topology() and add steps")
        spaces += code
        spec = self._document.copy(("spec",)) or {}
        within_ours(spec)
        server = create_graph_server(
            parameters=spec.get("parameters"),
            load_mode=spec.get("load_mode"),
            graph=graph,
            verbose=bool(spec.get("verbose")),
            current_function=current_function,
            graph_initializer=spec.get("graph_initializer"),
            error_stream=spec.get("error_stream"),
            track_models=track_models and spec.get("track_models"),
            function_uri=self.uri,  # type: ignore[attr-defined]
            secret_sources=spec.get("secret_sources"),
            default_content_type=spec.get("default_content_type"),
            **fields,
        )
        server.init_states(None, spaces, logger=logger, is_mock=True)
        server.init_object(spaces)
        return server

    def _code_namespaces(self) -> list[dict[str, Any]]:
        spec = self._document.copy(("spec",)) or {}
        embedded = (spec.get("build") or {}).get("functionSourceCode")
        command = spec.get("command") or ""
        if not embedded and not str(command).endswith(".py"):
            return []
        name = "metier_graph_code"
        module = ModuleType(name)
        module.__file__ = command or "<function code>"
        source = self._document.code().decode() if embedded else Path(command).read_text(encoding="utf-8")
        sys.modules[name] = module
        exec(compile(source, module.__file__, "exec"), module.__dict__)
        return [module.__dict__]
