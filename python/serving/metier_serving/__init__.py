"""Serving graphs: what runs inside workers and in the mock server. The engine is ``_engine`` (C++, stable ABI)."""

from __future__ import annotations

from typing import Any

_HOMES = {
    **dict.fromkeys(("GraphServer", "create_graph_server", "load_spec"), "server"),
    **dict.fromkeys(("GraphContext", "MockTrigger", "Response"), "context"),
    **dict.fromkeys(("GraphError", "NeedsMlrun", "StepTimeout", "TooBusy", "Unanswered"), "errors"),
    **dict.fromkeys(("ModelRouter", "ParallelRun", "VotingEnsemble"), "routers"),
    **dict.fromkeys(
        ("ErrorStep", "Flow", "QueueStep", "RootFlowStep", "RouterStep", "TaskStep", "graph_from_dict"), "states"
    ),
    **dict.fromkeys(("BatchHttpRequests", "RemoteStep"), "remote"),
    "Merge": "steps",
    "V2ModelServer": "v2",
    "Event": "_engine",
    "get_stream_pusher": "streams",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
