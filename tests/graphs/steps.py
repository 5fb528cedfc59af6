"""Python steps of the conformance suite (`python.json`): the mock server and workers must answer the same."""

from __future__ import annotations

import asyncio
from typing import Any

from metier_serving import ModelRouter, V2ModelServer
from metier_serving.steps import MapClass


class Add:
    def __init__(self, k: int = 1) -> None:
        self.k = k

    def do(self, body: Any) -> Any:
        return body + self.k

    def other(self, body: Any) -> Any:
        return [body, self.k]


class Whole:
    def __init__(self, name: str) -> None:
        self.name = name

    def do_event(self, event: Any) -> Any:
        event.body = {"by": self.name, "path": event.path, "method": event.method, "id": event.id, "body": event.body}
        return event


class Small(MapClass):
    def do(self, body: Any) -> Any:
        if body > 10:
            self.filter()
        return body


class Choose:
    def do(self, body: Any) -> Any:
        return body

    def select_outlets(self, body: Any) -> list[str]:
        return [body["to"]]


class Stop:
    def do_event(self, event: Any) -> Any:
        event.terminated = event.body == "stop"
        return event


class Model(V2ModelServer):
    def load(self) -> None:
        self.factor = self.get_param("factor", 2)

    def predict(self, request: Any) -> Any:
        if request["inputs"] == ["boom"]:
            raise RuntimeError("no prediction")
        return [value * self.factor for value in request["inputs"]]

    def explain(self, request: Any) -> Any:
        return {"why": request["inputs"]}

    def op_mine(self, event: Any) -> Any:
        return {"mine": event.body["inputs"]}


class Slow(V2ModelServer):
    def load(self) -> None:
        raise OSError("the model's file is damaged")


class Router(ModelRouter):
    def preprocess(self, event: Any) -> Any:
        if isinstance(event.body, dict) and "rows" in event.body:
            event.body = {"inputs": event.body["rows"]}
        return event


class Teapot(Exception):
    error_status_code = 418


def answers(body: Any, context: Any) -> Any:
    return context.Response(
        body=f"<b>{body.decode()}</b>", content_type="text/html", status_code=201, headers={"X-Mine": "1"}
    )


def boom(body: Any) -> Any:
    raise ValueError(f"no {body}")


def teapot(body: Any) -> Any:
    raise Teapot("short and stout")


def caught(event: Any) -> Any:
    event.body = [event.origin_state, str(event.error)]
    return event


async def waits(body: Any) -> Any:
    await asyncio.sleep(0.001)
    if body == "boom":
        raise ValueError("after a while")
    return [body]


def nothing(body: Any) -> None:
    pass


def forgets(event: Any) -> None:
    pass


def param(body: Any, context: Any) -> Any:
    return context.get_param("k", "none")


def unserialisable(body: Any) -> Any:
    return {"set": {1, 2}}


def changes(body: Any) -> Any:
    body["changed"] = True
    return body
