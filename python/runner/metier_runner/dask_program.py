"""``dask scheduler …`` and ``dask worker …`` in a process that was forked with Dask imported."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main(argv: list[str]) -> int:
    """Run one Dask program as its own command would; return the exit code (127: there is no Dask here)."""
    try:
        program: Any = importlib.import_module(f"distributed.cli.dask_{argv[1]}").main
    except ImportError as error:
        print(f"error: the function's environment has no Dask ({error}): add the requirements dask and distributed", file=sys.stderr)
        return 127
    program(args=argv[2:], prog_name=f"dask {argv[1]}")  # raises SystemExit
    return 0


def look_again() -> None:
    """What Dask found out at import belongs to the process that imported it: variables, processors, memory, folders."""
    import tempfile

    import dask
    import dask.system
    import distributed.system

    tempfile.tempdir = None
    dask.config.refresh()
    memory, processors = distributed.system.memory_limit(), dask.system.cpu_count()
    for name, module in list(sys.modules.items()):
        if not name.startswith(("distributed", "dask.")):
            continue
        if "MEMORY_LIMIT" in vars(module):
            module.MEMORY_LIMIT = memory  # type: ignore[attr-defined]
        if "CPU_COUNT" in vars(module):
            module.CPU_COUNT = processors  # type: ignore[attr-defined]
