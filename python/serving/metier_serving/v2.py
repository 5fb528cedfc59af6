"""The V2 model server: MLRun's hooks and answers. Subclasses of ``mlrun.serving.V2ModelServer`` are served by the same code."""

from __future__ import annotations

import threading
import time
import traceback
from typing import Any

from . import _engine
from .paths import get_path, put_path

_PREDICT = frozenset(("infer", "predict", "infer_dict", "predict_dict"))


class V2ModelServer:
    """Base class of models. Subclasses implement ``load`` and ``predict``, and may override the other hooks.

    Parameters
    ----------
    name : str
        ``model`` or ``model:version``.
    model_path : str
        File, folder or ``store://`` address of the model; :meth:`get_model` fetches it.
    model : object
        A model that is loaded already.
    """

    def __init__(
        self,
        context: Any = None,
        name: str | None = None,
        model_path: str | None = None,
        model: Any = None,
        protocol: str | None = None,
        input_path: str | None = None,
        result_path: str | None = None,
        shard_by_endpoint: bool | None = None,
        **kwargs: Any,
    ) -> None:
        self.name = name or type(self).__name__
        self.version = self.name.split(":", 1)[1] if ":" in self.name else ""
        self.context = context
        self.ready = model is not None
        self.error: Any = ""
        self.protocol = protocol or "v2"
        self.model_path = model_path
        self.model_spec: Any = None
        self.model = model
        self.metrics: dict[str, Any] = {}
        self.labels: dict[str, str] = {}
        self.model_endpoint_uid = kwargs.get("model_endpoint_uid")
        self._input_path = input_path
        self._result_path = result_path
        self._kwargs = kwargs
        self._params = kwargs
        self._model_logger: Any = None

    # --- life ----------------------------------------------------------------------------------------------------

    def post_init(self, mode: str = "sync", **_: Any) -> None:
        """Loads the model: now, or in a thread of its own."""
        post_init(self, mode)

    def load(self) -> None:
        """Loads the model into ``self.model``."""
        if not self.ready and self.model is None:
            raise ValueError("please specify a load method or a model object")

    def get_model(self, suffix: str = "") -> tuple[str | None, dict[str, Any] | None]:
        """The model's file on this machine and its extra data; fills ``self.model_spec``."""
        if not self.model_path:
            return None, None
        from .artifacts import get_model

        path, self.model_spec, extra = get_model(self.model_path, suffix)
        for key, value in (getattr(self.model_spec, "parameters", None) or {}).items():
            self._params[key] = value
        return path, extra

    def get_param(self, key: str, default: Any = None) -> Any:
        """A parameter of the model, else of the function."""
        if key in self._params:
            return self._params.get(key)
        return self.context.get_param(key, default) if self.context is not None else default

    def set_metric(self, name: str, value: Any) -> None:
        """A metric that goes along with the tracking record."""
        self.metrics[name] = value

    # --- hooks ---------------------------------------------------------------------------------------------------

    def preprocess(self, request: Any, operation: str) -> Any:
        """Before validation."""
        return request

    def validate(self, request: Any, operation: str) -> Any:
        """Raises when the request is none."""
        if self.protocol == "v2":
            if "inputs" not in request:
                raise Exception('Expected key "inputs" in request body')
            if not isinstance(request["inputs"], list):
                raise Exception('Expected "inputs" to be a list')
        return request

    def predict(self, request: Any) -> Any:
        """The model's answers for ``request["inputs"]``, one per row."""
        raise NotImplementedError(f"model {self.name}: {type(self).__name__} has no predict()")

    def explain(self, request: Any) -> Any:
        """The model's explanation."""
        raise NotImplementedError(f"model {self.name}: {type(self).__name__} has no explain()")

    def postprocess(self, request: Any) -> Any:
        """The last change of the answer."""
        return request

    def logged_results(self, request: Any, response: Any, op: str) -> tuple[Any, Any]:
        """Other inputs and outputs for the tracking record."""
        return None, None

    def do_event(self, event: Any, *args: Any, **kwargs: Any) -> Any:
        """Handles one event."""
        return do_event(self, event)


def post_init(model: Any, mode: str) -> None:
    """Loads any V2 model server. RuntimeError when a synchronous load fails."""
    if model.ready:
        _start_tracking(model)
        return
    if mode == "async":
        threading.Thread(target=_load_quietly, args=(model,), name=f"load-{model.name}", daemon=True).start()
    else:
        _load(model)
    _start_tracking(model)


def _load(model: Any) -> None:
    try:
        model.load()
    except Exception as error:
        model.error = error
        path = getattr(model, "model_path", None)
        place = f" from '{path}'" if path and str(path) not in str(error) else ""  # a library's message has no path
        raise RuntimeError(f"failed to load model {model.name}{place}: {type(error).__name__}: {error}") from error
    model.ready = True


def _load_quietly(model: Any) -> None:
    try:
        _load(model)
    except Exception:
        if model.context is not None:
            model.context.logger.error(traceback.format_exc())


def _start_tracking(model: Any) -> None:
    stream = getattr(model.context, "stream", None)
    if stream is not None and stream.enabled:
        from .tracking import ModelLogPusher

        model._model_logger = ModelLogPusher(model, model.context)


def _wait_until_ready(model: Any, event: Any) -> None:
    kind = getattr(event.trigger, "kind", "") if event.trigger else ""
    if kind in ("http", "", None):
        why = f": {type(model.error).__name__}: {model.error}" if model.error else " yet"
        raise RuntimeError(f"model {model.name} is not ready{why}")
    for _ in range(2500):  # a stream's event waits for the load, some four minutes
        time.sleep(0.1)
        if model.ready:
            return
        if model.error:
            break
    raise RuntimeError(f"model {model.name} is not ready {model.error}")


def do_event(model: Any, event: Any) -> Any:
    """One event through any object with V2 model server's hooks."""
    original = body = event.body
    if model._input_path:
        body = get_path(model._input_path, body)
    op = event.path
    if op != "infer":
        op = op.strip("/")
    event_id = None
    if isinstance(body, dict):
        event_id = body.get("id")
        op = op or body.get("operation") or ""
    if not op and event.method != "GET":
        op = "infer"
    if op in _PREDICT or op == "explain":
        if not model.ready:
            _wait_until_ready(model, event)
        if op == "infer_dict" or op == "predict_dict":
            body = inputs_to_list(model, body)
        request = model.validate(model.preprocess(body, op), op)
        outputs = None
        started = time.perf_counter()
        when = _engine.timestamp()
        logger = model._model_logger
        try:
            outputs = model.explain(request) if op == "explain" else model.predict(request)
        except Exception as error:
            if logger is not None:
                logger.push(when, started, request, op=op, error=error, event_id=event_id or event.id)
            raise
        name = model.name
        response: Any = {
            "id": event_id if event_id is not None else event.id,
            "model_name": name.split(":", 1)[0] if ":" in name else name,
            "outputs": outputs,
        }
        if op != "explain":
            response["timestamp"] = when
        version = getattr(model, "version", "")
        if version:
            response["model_version"] = version
        if outputs.__class__ is _CORO or hasattr(outputs, "__await__"):
            return _await_outputs(model, event, original, request, response, op, when, started)
        return _respond(model, event, original, request, response, op, when, started)
    return _other(model, event, original, op, event_id)


def fast(model: Any) -> Any:
    """What calls a model's hooks for its usual request without a detour; do_event for the others."""
    bases = [cls for cls in type(model).__mro__ if cls.__name__ == "V2ModelServer"]
    if not bases or model._input_path or model._result_path or getattr(model, "protocol", "v2") != "v2":
        return lambda event: do_event(model, event)

    def hook(name: str) -> Any:
        return None if getattr(type(model), name) is getattr(bases[-1], name) else getattr(model, name)

    def later(event: Any, original: Any, request: Any, response: Any, op: str, when: str) -> Any:
        return _await_outputs(model, event, original, request, response, op, when, time.perf_counter())

    return _engine.Model(
        model,
        lambda event: do_event(model, event),
        later,
        model.predict,
        hook("preprocess"),
        hook("validate"),
        hook("postprocess"),
        model.name.split(":", 1)[0],
        getattr(model, "version", "") or None,
    )


async def _nothing() -> None:
    return None


_probe = _nothing()
_CORO = type(_probe)
_probe.close()


async def _await_outputs(
    model: Any, event: Any, original: Any, request: Any, response: Any, op: str, when: str, started: float
) -> Any:
    response["outputs"] = await response["outputs"]
    return _respond(model, event, original, request, response, op, when, started)


def _respond(
    model: Any, event: Any, original: Any, request: Any, response: Any, op: str, when: str, started: float
) -> Any:
    response = model.postprocess(response)
    if model._model_logger is not None:
        inputs, outputs = model.logged_results(request, response, op)
        if inputs is None and outputs is None:
            model._model_logger.push(when, started, request, response, op, event_id=event.id)
        else:
            model._model_logger.push(
                when,
                started,
                {"id": event.id, "inputs": inputs or []},
                {"outputs": outputs or []},
                op,
                event_id=event.id,
            )
    event.body = put_path(model._result_path, original, response) if model._result_path else response
    return event


def _other(model: Any, event: Any, original: Any, op: str, event_id: Any) -> Any:
    if op == "ready" and event.method == "GET":
        event.terminated = True
        if model.ready:
            text = f"Model {model.name} is ready (event_id = {event_id or event.id})"
            event.body = model.context.Response(status_code=200, body=text.encode())
        else:
            event.body = model.context.Response(status_code=408, body=b"model not ready")
        return event
    if op == "" and event.method == "GET":
        event.terminated = True
        spec = model.model_spec
        metadata = {
            "name": model.name.split(":", 1)[0],
            "version": getattr(model, "version", "") or "",
            "inputs": _features(spec, "inputs"),
            "outputs": _features(spec, "outputs"),
        }
        event.body = put_path(model._result_path, original, metadata)
        return event
    custom = getattr(model, f"op_{op}", None)
    if custom is not None:
        event.body = put_path(model._result_path, original, custom(event))
        return event
    raise ValueError(f"illegal model operation {op}, method={event.method}")


def _features(spec: Any, name: str) -> Any:
    value = getattr(spec, name, None)
    if value is None:
        return []
    return value.to_dict() if hasattr(value, "to_dict") else list(value)


def inputs_to_list(model: Any, request: Any) -> Any:
    """Rows given as dicts, in the order of the model's inputs."""
    if hasattr(model, "_inputs_to_list") and not isinstance(model, V2ModelServer):
        return model._inputs_to_list(request)
    spec = getattr(model.model_spec, "inputs", None)
    order = [getattr(f, "name", None) or f["name"] for f in spec] if spec else []
    if not order:
        raise ValueError(
            "predict_dict and infer_dict need the model's inputs: give model_path, and load it with get_model()"
        )
    inputs = request.get("inputs")
    try:
        if isinstance(inputs, list) and all(isinstance(item, dict) for item in inputs):
            rows: Any = [[item[key] for key in order] for item in inputs]
        elif isinstance(inputs, dict):
            rows = [inputs[key] for key in order]
        else:
            raise ValueError("with predict_dict or infer_dict the inputs must be a dict or a list of dicts")
    except KeyError as error:
        raise ValueError(f"the inputs lack {error}; the model needs {order}") from None
    request["inputs"] = rows
    return request
