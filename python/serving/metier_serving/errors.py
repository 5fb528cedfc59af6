"""Errors of graphs."""

from __future__ import annotations

from typing import Any


class GraphError(ValueError):
    """The graph is wrong: the step's name, the rule and the fix are in the text."""

    def __init__(self, message: str, field: str = "", fix: str = "", code: str = "") -> None:
        self.message = message
        self.field = field
        self.fix = fix
        self.code = code
        super().__init__(f"{message}: {fix}" if fix else message)


class NeedsMlrun(GraphError, NotImplementedError):
    """A kind or field that only MLRun's own engine has."""


class Unanswered(RuntimeError):
    """An event ended before a step could answer: filtered, kept by a batch, or a join that misses a branch."""

    error_status_code = 500


class TooBusy(RuntimeError):
    """A bounded queue or a concurrency limit is full."""

    error_status_code = 503
    retry_after = 1


class StepTimeout(TimeoutError):
    """A step or the whole request took longer than it may."""

    error_status_code = 504


def make_graph_error(message: str, field: str, fix: str, code: str, _: Any = None) -> GraphError:
    """For the engine."""
    return (NeedsMlrun if code == "NeedsMlrun" else GraphError)(message, field, fix, code)


def error_text(error: BaseException) -> str:
    """An exception's message with those of its causes: ``a, caused by: b``."""
    parts: list[str] = []
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        text = str(at)
        if text and text not in parts:
            parts.append(text)
        at = at.__cause__
    return ", caused by: ".join(parts) or type(error).__name__
