"""``dask scheduler …`` and ``dask worker …`` in a process that was forked with Dask imported."""

from __future__ import annotations

import importlib
import logging
import os
import platform
import sys
from types import SimpleNamespace
from typing import Any

M_TRIM_THRESHOLD = -1  # <malloc.h>


def main(argv: list[str]) -> int:
    """Run one Dask program as its own command would; return the exit code (127: there is no Dask here)."""
    try:
        program: Any = importlib.import_module(f"distributed.cli.dask_{argv[1]}").main
    except ImportError as error:
        print(f"error: the function's environment has no Dask ({error}): add the requirements dask and distributed", file=sys.stderr)
        return 127
    _spare_the_list_of_pages()
    _give_memory_back()
    program(args=argv[2:], prog_name=f"dask {argv[1]}")  # raises SystemExit
    return 0


def _give_memory_back() -> None:
    """The C library reads MALLOC_TRIM_THRESHOLD_ as a program starts; the one that this was forked from started without it."""
    import ctypes

    threshold = os.environ.get("MALLOC_TRIM_THRESHOLD_", "")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if threshold.isdigit() and mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, int(threshold))


def rehearse() -> None:
    """Do once, before the first fork, what scheduler, worker and client each do as they start and what stays in memory.

    Half of the processor time of their starts: certificates of the machine, versions of packages, patterns of pages.
    """
    for name in ("dask_cluster", "dask_http", "dask_security"):
        importlib.import_module(f"metier_runner.{name}")
    for step in (_versions, _certificates, _pages):
        try:
            step()
        except Exception:  # noqa: BLE001, S112 - another version of Dask: its processes do it themselves
            continue


def _versions() -> None:
    importlib.import_module("distributed.versions").get_versions()


def _certificates() -> None:
    """Every TLS stream of tornado asks for its defaults, which read the certificates of the machine."""
    netutil: Any = importlib.import_module("tornado.netutil")
    netutil._client_ssl_defaults()


def _pages() -> None:
    """The patterns of the addresses of a scheduler's pages stay compiled in the cache of `re`."""
    import dask

    handlers: Any = importlib.import_module("distributed.http.utils")
    routing: Any = importlib.import_module("distributed.http.routing")
    server = SimpleNamespace(http_server=SimpleNamespace(port=8787))
    for role in ("scheduler", "worker"):
        modules = [*dask.config.get(f"distributed.{role}.http.routes"), "distributed.http.scheduler.api"]
        routing.RoutingApplication(handlers.get_handlers(server=server, modules=modules, prefix=""))
    dashboard: Any = importlib.import_module("distributed.dashboard.scheduler")
    _spare_the_list_of_pages()
    dashboard.BokehApplication(dashboard.applications, server, prefix="")


def _spare_the_list_of_pages() -> None:
    """Bokeh makes a text of all its pages for its debug log, whether that is kept or not."""
    pages: Any = sys.modules.get("bokeh.server.tornado")
    if hasattr(pages, "pformat") and not logging.getLogger("bokeh").isEnabledFor(logging.DEBUG):
        pages.pformat = lambda *_, **__: ""


def look_again() -> None:
    """What Dask found out at import belongs to the process that imported it: variables, processors, memory, folders, host name."""
    import tempfile

    import dask
    import dask.system
    import distributed.system

    tempfile.tempdir = None
    if getattr(platform, "_uname_cache", None) is not None:
        processor = platform.uname().processor  # a program is run to find it out
        platform._uname_cache = None  # type: ignore[attr-defined]
        vars(platform.uname())["processor"] = processor
    dask.config.refresh()
    memory, processors = distributed.system.memory_limit(), dask.system.cpu_count()
    for name, module in list(sys.modules.items()):
        if not name.startswith(("distributed", "dask.")):
            continue
        if "MEMORY_LIMIT" in vars(module):
            module.MEMORY_LIMIT = memory  # type: ignore[attr-defined]
        if "CPU_COUNT" in vars(module):
            module.CPU_COUNT = processors  # type: ignore[attr-defined]
