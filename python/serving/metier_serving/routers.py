"""Routers: one of several models by path (ModelRouter), all of them at once (ParallelRun), or their vote (VotingEnsemble)."""

from __future__ import annotations

import concurrent.futures
import json
import time
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from . import _engine
from .paths import get_path, put_path


class BaseModelRouter:
    """What all routers share: paths, metadata, hooks.

    Parameters
    ----------
    routes : dict
        Name to route; each has ``run(event)``.
    url_prefix, health_prefix : str
        Default ``/v2/models`` and ``/v2/health``.
    """

    def __init__(
        self,
        context: Any = None,
        name: str | None = None,
        routes: Any = None,
        protocol: str | None = None,
        url_prefix: str | None = None,
        health_prefix: str | None = None,
        input_path: str | None = None,
        result_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.name = name
        self.context = context
        self.routes: dict[str, Any] = routes if routes is not None else {}
        self.protocol = protocol or "v2"
        self.url_prefix = url_prefix or f"/{self.protocol}/models"
        self.health_prefix = health_prefix or f"/{self.protocol}/health"
        self.inputs_key = "instances" if self.protocol == "v1" else "inputs"
        self._input_path = input_path
        self._result_path = result_path
        self.kwargs = kwargs
        cls = type(self)
        self._plain = (
            cls.parse_event is BaseModelRouter.parse_event
            and cls.preprocess is BaseModelRouter.preprocess
            and cls.postprocess is BaseModelRouter.postprocess
            and not input_path
            and not result_path
        )

    def post_init(self, mode: str = "sync", **_: Any) -> None:
        """After the routes have been built."""
        self.context.logger.info(f"Loaded {list(self.routes)}")

    def parse_event(self, event: Any) -> Any:
        """The request of an event: a dict, JSON text, an image, or ``data_url`` to fetch."""
        body = event.body
        try:
            if not isinstance(body, dict):
                body = json.loads(body)
            if "data_url" in body:
                from .artifacts import read_url

                return {self.inputs_key: [BytesIO(read_url(body["data_url"]))]}
            return body
        except Exception as error:
            if str(event.content_type or "").startswith("image/"):
                return {self.inputs_key: [BytesIO(event.body)]}
            raise ValueError("Unrecognized request format") from error

    def get_metadata(self) -> dict[str, Any]:
        """The answer of GET / and of health checks."""
        return {"name": type(self).__name__, "version": "v2", "extensions": []}

    def preprocess(self, event: Any) -> Any:
        """Before routing."""
        return event

    def postprocess(self, event: Any) -> Any:
        """After routing."""
        return event

    def _handle_event(self, event: Any) -> Any:
        return event

    def _pre_handle_event(self, event: Any) -> Any:
        method = event.method or "POST"
        odd = event.body.__class__ is not dict or not self._plain
        if method != "GET" and event.body and (odd or "data_url" in event.body):
            event.body = self.parse_event(event)
        path = event.path or ""
        if method == "GET" and (path == "/" or path.startswith(self.health_prefix)):
            event.terminated = True
            event.body = self.get_metadata()
            return event
        if path and path != "/" and not path.startswith(self.url_prefix):
            raise ValueError(f"illegal path prefix {path}, must start with {self.url_prefix}")
        return event

    def do_event(self, event: Any, *args: Any, **kwargs: Any) -> Any:
        """Handles one event."""
        original = event.body
        if self._input_path:
            event.body = get_path(self._input_path, original)
        event = self._pre_handle_event(self.preprocess(event))
        if not getattr(event, "terminated", None):
            result = self._handle_event(event)
            if hasattr(result, "__await__"):
                return self._finish_later(result, original)
            event = self.postprocess(result)
        if self._result_path:
            event.body = put_path(self._result_path, original, event.body)
        return event

    async def _finish_later(self, result: Any, original: Any) -> Any:
        event = self.postprocess(await result)
        if self._result_path:
            event.body = put_path(self._result_path, original, event.body)
        return event


class ModelRouter(BaseModelRouter):
    """``<prefix>/<model>[/versions/<version>][/<operation>]``; stream events name ``model`` and ``operation`` in the body."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known: dict[str, tuple[str, Any, str]] = {}
        self._quick = type(self)._resolve_route is ModelRouter._resolve_route and self._plain

    def do_event(self, event: Any, *args: Any, **kwargs: Any) -> Any:
        # The usual request, a POST of a dict to a model's path, without the detours.
        body = event.body
        if self._quick and body.__class__ is dict and event.method != "GET" and "operation" not in body:
            known = self._known.get(event.path)
            if known is not None and "data_url" not in body:
                event.path = known[2]
                answer = known[1](event)
                if answer is event:
                    return event
                if hasattr(answer, "__await__"):
                    return self._route_later(event, answer)
                event.body = answer.body if answer is not None else None
                return event
        return super().do_event(event)

    def _resolve_route(self, body: Any, path: str) -> tuple[str, Any, str]:
        subpath: str | None = None
        model = ""
        if path and path != "/":
            rest = path[len(self.url_prefix) :].strip("/")
            if not rest:
                return "", None, ""
            segments = rest.split("/")
            model = segments[0]
            if len(segments) > 2 and segments[1] == "versions":
                model = f"{model}:{segments[2]}"
                segments = segments[2:]
            subpath = "/".join(segments[1:])
        if isinstance(body, dict):
            model = model or body.get("model", next(iter(self.routes), ""))
            subpath = body.get("operation", subpath)
        if subpath is None:
            subpath = "infer"
        if model not in self.routes:
            raise ValueError(f"model {model} doesnt exist, available models: {' | '.join(self.routes)}")
        return model, self.routes[model], subpath

    def _handle_event(self, event: Any) -> Any:
        path = event.path
        _, route, subpath = self._resolve_route(event.body, path)
        if route is None:
            event.terminated = True
            event.body = {"models": list(self.routes)}
            return event
        if self._quick and path not in ("", "/", None) and event.method != "GET" and len(self._known) < 10_000:
            plain = not (isinstance(event.body, dict) and "operation" in event.body)
            if plain:  # an empty operation of a POST is "infer"
                self._known[path] = (path, route.run, subpath or "infer")
        event.path = subpath
        answer = route.run(event)
        if hasattr(answer, "__await__"):
            return self._route_later(event, answer)
        event.body = answer.body if answer is not None else None
        return event

    async def _route_later(self, event: Any, answer: Any) -> Any:
        result = await answer
        event.body = result.body if result is not None else None
        return event


class ParallelRun(BaseModelRouter):
    """Sends the event to all routes and merges their answers, in the order of the routes.

    Parameters
    ----------
    extend_event : bool
        The merge starts with the request's body instead of ``{}``.
    executor_type : str
        ``"thread"`` (default), ``"array"``: one after the other, ``"process"``: as threads, since routes share their models here.
    on_partial : str
        ``"fail"`` (default): a failing route fails the request. ``"skip"``: the answer is made of the others, and lists
        the failed ones under ``"errors"``.
    """

    def __init__(
        self,
        *args: Any,
        extend_event: bool | None = None,
        executor_type: Any = None,
        on_partial: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        executor = str(getattr(executor_type, "value", executor_type) or "thread")
        if executor not in ("array", "thread", "process"):
            raise ValueError(f"executor_type '{executor}' is unknown: array, thread or process")
        if on_partial not in ("fail", "skip"):
            raise ValueError(f"on_partial '{on_partial}' is unknown: fail or skip")
        self.extend_event = extend_event
        self.executor_type = executor
        self.on_partial = on_partial
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._row = self._threads = 0.0  # seconds of a route: in a row, or its part of a call in threads
        self._calls = 0

    def merger(self, body: Any, results: Mapping[str, Any]) -> Any:
        """Merges the routes' answers into the body."""
        for result in results.values():
            body.update(result)
        return body

    def _apply_logic(self, results: dict[str, Any], event: Any = None) -> Any:
        if not self.extend_event:
            event.body = {}
        return self.merger(event.body, results)

    def do_event(self, event: Any, *args: Any, **kwargs: Any) -> Any:
        original = event.body
        event.body = get_path(self._input_path, original)
        event = self._pre_handle_event(self.preprocess(event))
        if not getattr(event, "terminated", None):
            results, errors = self._parallel_run(event)
            merged = self._apply_logic(results, event)
            event.body = {**merged, "errors": errors} if errors and isinstance(merged, dict) else merged
            event = self.postprocess(event)
        event.body = put_path(self._result_path, original, event.body)
        return event

    def _parallel_run(self, event: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """Each route's answer, in route order, and the errors of those that failed."""
        outcomes = self._outcomes(event)
        results: dict[str, Any] = {}
        errors: dict[str, str] = {}
        for name, (value, error) in outcomes.items():
            if error is None:
                results[name] = value
            elif self.on_partial == "fail":
                raise RuntimeError(f"route '{name}' failed: {type(error).__name__}: {error}") from error
            else:
                errors[name] = f"{type(error).__name__}: {error}"
        if errors and not results:
            raise RuntimeError(f"all routes failed: {errors}")
        return results, errors

    def _outcomes(self, event: Any) -> dict[str, tuple[Any, BaseException | None]]:
        names = list(self.routes)
        copies = [_copy(event) for _ in names]
        start = time.perf_counter()
        if self.executor_type == "array" or len(names) < 2 or self._in_a_row():
            done = {name: _call(self.routes[name], copied) for name, copied in zip(names, copies)}
            self._row = _learnt(self._row, (time.perf_counter() - start) / len(names))
            return done
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(len(names), f"router-{self.name}")
        futures = [self._pool.submit(_call, self.routes[n], c) for n, c in zip(names, copies)]
        done = {name: future.result() for name, future in zip(names, futures)}
        self._threads = _learnt(self._threads, (time.perf_counter() - start) / len(names))
        return done

    def _in_a_row(self) -> bool:
        """Routes of less than a thread's hand-over, and those that gain nothing by threads (they hold the interpreter's lock)."""
        self._calls += 1
        if self._row < 100e-6:
            return True
        return (self._row <= 1.1 * self._threads) != (
            self._calls % 64 == 0
        )  # now and then the other way, to see whether it has changed

    def close(self) -> None:
        """Ends the pool."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)


def _learnt(known: float, seconds: float) -> float:
    # A late call among quick ones (the machine was busy) must not count as what a call takes: down at once, up slowly.
    return min(seconds, known + (min(seconds, 8 * known + 1e-3) - known) / 8)


def _copy(event: Any) -> Any:
    copied = event.__copy__()
    if copied.body.__class__ is dict:
        copied.body = _engine.clone(copied.body)
    return copied


def _call(route: Any, event: Any) -> tuple[Any, BaseException | None]:
    try:
        answer = route.run(event)
        if hasattr(answer, "__await__"):
            import asyncio

            answer = asyncio.run(_finish(answer))
        return (answer.body if answer is not None else None), None
    except Exception as error:
        return None, error


async def _finish(awaitable: Any) -> Any:
    return await awaitable


class VotingEnsemble(ParallelRun):
    """The vote of all models, or one of them by path.

    Parameters
    ----------
    vote_type : str
        ``"classification"``: weighted majority, ties to the smallest class; ``"regression"``: weighted mean; None: decided by
        the first predictions (all whole numbers: classification).
    weights : dict
        Route name to weight; missing routes weigh 0. Weights are normalised to a sum of 1.
    """

    def __init__(
        self,
        *args: Any,
        vote_type: str | None = None,
        weights: Mapping[str, float] | None = None,
        format_response_with_col_name_flag: bool = False,
        prediction_col_name: str | None = None,
        version: str = "v1",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if vote_type not in (None, "classification", "regression"):
            raise ValueError(f"vote_type '{vote_type}' is unknown: classification or regression")
        self.name = self.name or "VotingEnsemble"
        self.vote_type = vote_type
        self.version = version or "v1"
        self.weights = dict(weights) if weights else None
        self.prediction_col_name = prediction_col_name or "prediction"
        self.format_response_with_col_name_flag = format_response_with_col_name_flag
        self._weights = self._normalised()
        self._model_logger: Any = None
        self.model_spec: Any = None
        self.metrics: dict[str, Any] = {}

    def _normalised(self) -> dict[str, float]:
        if not self.weights:
            return {name: 1 / max(len(self.routes), 1) for name in self.routes}
        unknown = sorted(set(self.weights) - set(self.routes))
        if unknown:
            raise ValueError(f"weights name {', '.join(unknown)}, which is no route; routes: {' | '.join(self.routes)}")
        total = float(sum(self.weights.values()))
        if total <= 0:
            raise ValueError("the weights' sum must be more than 0")
        scale = 1.0 if total >= 1 else 1 / total
        return {name: float(self.weights.get(name, 0)) * scale for name in self.routes}

    def post_init(self, mode: str = "sync", **_: Any) -> None:
        super().post_init(mode)
        stream = getattr(self.context, "stream", None)
        if stream is not None and stream.enabled:
            from .tracking import ModelLogPusher

            self._model_logger = ModelLogPusher(self, self.context)

    # --- routing -------------------------------------------------------------------------------------------------

    def _resolve(self, body: Any, path: str) -> tuple[str, Any, str]:
        subpath: str | None = None
        model = ""
        if path and path != "/":
            rest = path[len(self.url_prefix) :].strip("/")
            if not rest:
                return "", None, ""
            segments = rest.split("/")
            if segments[0] in ("infer", "predict", "explain"):
                return self.name or "", None, segments[0]
            model = segments[0]
            if len(segments) > 2 and segments[1] == "versions":
                model = f"{model}:{segments[2]}"
                segments = segments[2:]
            subpath = "/".join(segments[1:])
        if isinstance(body, dict):
            model = model or body.get("model", self.name)
            subpath = body.get("operation", subpath)
        if subpath is None:
            subpath = "infer"
        model = model or self.name or ""
        if model == self.name:
            return model, None, subpath
        if model not in self.routes:
            names = " | ".join([*self.routes, self.name or ""])
            raise ValueError(f"model {model} doesnt exist, available models: {names}")
        return model, self.routes[model], subpath

    def do_event(self, event: Any, *args: Any, **kwargs: Any) -> Any:
        original = event.body
        event.body = get_path(self._input_path, original)
        event = self._pre_handle_event(self.preprocess(event))
        if not getattr(event, "terminated", None):
            event = self.postprocess(self._vote(event))
        if not isinstance(event.body, self.context.Response):
            event.body = put_path(self._result_path, original, event.body)
        return event

    def _vote(self, event: Any) -> Any:
        name, route, subpath = self._resolve(event.body, event.path or "")
        if not name:
            event.terminated = True
            event.body = {"models": [*self.routes, self.name], "weights": self.weights}
            return event
        if route is not None:
            event.path = subpath
            answer = route.run(event)
            event.body = answer.body if answer is not None else None
            return event
        if event.method == "GET" and not subpath:
            event.terminated = True
            event.body = self._metadata()
            return event
        subpath = subpath or "infer"
        if subpath not in ("infer", "predict", "explain"):
            raise ValueError(f"illegal model operation {subpath}, method={event.method}")
        request = self.validate(event.body, event.method)
        when, started = _engine.timestamp(), time.perf_counter()
        event_id = request.get("id", event.id)
        event.path = subpath
        results, errors = self._parallel_run(event)
        votes = self._votes(results)
        response = {"id": event_id, "model_name": self.name, "outputs": votes, "model_version": self.version}
        if errors:
            response["errors"] = errors
        if self._model_logger is not None:
            self._model_logger.push(when, started, {**request, "id": event_id}, response, None, event_id=event_id)
        event.body = response
        return event

    def _metadata(self) -> dict[str, Any]:
        for route in self.routes.values():
            spec = getattr(route.object, "model_spec", None)
            if spec is not None:
                from .v2 import _features

                return {
                    "name": self.name,
                    "version": self.version,
                    "inputs": _features(spec, "inputs"),
                    "outputs": _features(spec, "outputs"),
                }
        return {"name": self.name, "version": self.version, "inputs": [], "outputs": []}

    def validate(self, request: Any, method: str) -> Any:
        """Raises when the request has no list of inputs."""
        if not isinstance(request, dict) or "inputs" not in request:
            raise Exception('Expected key "inputs" in request body')
        if not isinstance(request["inputs"], list):
            raise Exception('Expected "inputs" to be a list')
        return request

    # --- voting --------------------------------------------------------------------------------------------------

    def _votes(self, results: Mapping[str, Any]) -> Any:
        rows: list[Any] = []
        weights: list[float] = []
        for name, answer in results.items():
            rows.append(self.extract_results_from_response(answer))
            weights.append(self._weights[name])
        lengths = {len(r) for r in rows}
        if len(lengths) != 1:
            raise ValueError(f"the models gave different numbers of predictions: {dict(zip(results, map(len, rows)))}")
        votes = self.logic([list(column) for column in zip(*rows)], weights)
        return {self.prediction_col_name: votes} if self.format_response_with_col_name_flag else votes

    def extract_results_from_response(self, response: Any) -> list[Any]:
        """The list of predictions in a model's answer."""
        outputs = response["outputs"] if isinstance(response, dict) else response
        if isinstance(outputs, dict):
            outputs = outputs.get(self.prediction_col_name, next(iter(outputs.values()), []))
        return list(outputs.tolist() if hasattr(outputs, "tolist") else outputs)

    def logic(self, predictions: list[list[Any]], weights: list[float]) -> list[Any]:
        """The votes: one for each row of predictions, a column per model."""
        if self.vote_type is None:
            whole = all(float(value).is_integer() for row in predictions for value in row)
            self.vote_type = "classification" if whole else "regression"
        if self.vote_type == "regression":
            return [sum(float(value) * weight for value, weight in zip(row, weights)) for row in predictions]
        out: list[Any] = []
        for row in predictions:
            totals: dict[int, float] = {}
            for value, weight in zip(row, weights):
                totals[int(value)] = totals.get(int(value), 0.0) + weight
            best = max(totals.values())
            out.append(min(value for value, total in totals.items() if total >= best - 1e-12))
        return out
