"""metier: one function, any kind.

>>> import metier
>>> fn = metier.new_function("trainer", kind="job", image="python", command="train.py")
>>> fn.kind
'job'

Importing it starts nothing and asks nobody; the server is reached, or started, by the first call that needs one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import mounts
    from .client import Client, binary, default_client
    from .errors import (
        CancelledError,
        ConflictError,
        DeniedError,
        Error,
        ExhaustedError,
        InternalError,
        InvalidError,
        NotFoundError,
        PreconditionError,
        TimedOutError,
        UnavailableError,
        UnsupportedError,
        UserCodeError,
    )
    from .function import Function, code_to_function, function_to_module, import_function, kinds, new_function
    from .runs import RunObject, get_run, list_runs

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(
        ("Function", "code_to_function", "function_to_module", "import_function", "kinds", "new_function"), "function"
    ),
    **dict.fromkeys(("RunObject", "get_run", "list_runs"), "runs"),
    **dict.fromkeys(("Client", "binary", "default_client"), "client"),
    **dict.fromkeys(
        [
            "Error",
            "CancelledError",
            "ConflictError",
            "DeniedError",
            "ExhaustedError",
            "InternalError",
            "InvalidError",
            "NotFoundError",
            "PreconditionError",
            "TimedOutError",
            "UnavailableError",
            "UnsupportedError",
            "UserCodeError",
        ],
        "errors",
    ),
}

__all__ = [
    "CancelledError",
    "Client",
    "ConflictError",
    "DeniedError",
    "Error",
    "ExhaustedError",
    "Function",
    "InternalError",
    "InvalidError",
    "NotFoundError",
    "PreconditionError",
    "RunObject",
    "TimedOutError",
    "UnavailableError",
    "UnsupportedError",
    "UserCodeError",
    "binary",
    "code_to_function",
    "default_client",
    "function_to_module",
    "get_or_create_ctx",
    "get_run",
    "import_function",
    "kinds",
    "list_runs",
    "mounts",
    "new_function",
    "serving",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name in ("mounts", "serving"):
        return importlib.import_module(f".{name}", __name__)
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get_or_create_ctx(name: str = "", **options: Any) -> Any:
    """The context of the run that this code is part of; a new one, kept in memory, outside of runs."""
    from metier_runner import get_or_create_ctx as from_runner

    return from_runner(name, **options)


def __dir__() -> list[str]:
    return sorted(__all__)
