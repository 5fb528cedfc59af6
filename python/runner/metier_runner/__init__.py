"""What runs around the user's Python code inside a pod or in a foreground interpreter.

Standard library only, Python 3.9 and newer, works from a zip. Importing this package imports next to nothing: everything is
reached lazily, because every pod pays for it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # the name is what type checkers look at; importing typing costs more than the rest
if TYPE_CHECKING:
    from typing import Any

    from .command import main

    def preload() -> None: ...

    from .context import Context, get_or_create_ctx
    from .dataitem import DataItem

__version__ = "0.1.0"
__all__ = ["Context", "DataItem", "get_or_create_ctx", "main", "preload"]

_HOMES = {"Context": "context", "get_or_create_ctx": "context", "DataItem": "dataitem"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not TYPE_CHECKING:

    def main(argv: list[str] | None = None) -> int:
        """Run one command line (``["mlrun", "run", ...]`` or without the program's name); return the exit code."""
        from .command import main as command_main

        return command_main(argv)

    def preload() -> None:
        """Import what nearly every run needs: for a zygote, before it forks."""
        import importlib

        for name in ("execute", "calling", "program", "failure", "returns", "log", "artifacts", "files", "sinks"):
            importlib.import_module(f"{__name__}.{name}")
        importlib.import_module("hashlib")
