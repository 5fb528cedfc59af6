"""Two pages more on a Dask scheduler's HTTP port: what its controller asks every second, in one answer, and its versions.

Loaded by the scheduler itself (``distributed.scheduler.http.routes``), where this package is on its path.
"""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    RequestHandler = Any
else:
    from distributed.http.utils import RequestHandler


class State(RequestHandler):  # type: ignore[misc]
    """``{workers: {name: {address, orphans, retiring}}, closable, desired, clients, served}``.

    ``served`` grows with every step of a task: a client that came and left between two looks is seen by it.

    ``orphans``: tasks that the worker still executes although nobody wants them any more (their client is gone, the call
    cannot be interrupted); they keep a thread from everybody else's tasks.

    ``closable``: the names of the workers, from the one that it costs least to lose. ``retiring``: what it holds is being moved.
    """

    def get(self) -> None:
        scheduler: Any = self.server
        workers = {}
        for worker in scheduler.workers.values():
            orphans = int((worker.metrics.get("task_counts") or {}).get("cancelled", 0))
            retiring = worker.status.name == "closing_gracefully"
            workers[str(worker.name)] = {"address": worker.address, "orphans": orphans, "retiring": retiring}
        clients = sum(1 for client in scheduler.clients.values() if client.client_key != "fire-and-forget")
        closable = scheduler.workers_to_close(n=len(workers), attribute="name")
        self.set_header("Content-Type", "application/json")
        self.write(
            json.dumps(
                {
                    "workers": workers,
                    "closable": [str(name) for name in closable],
                    "desired": scheduler.adaptive_target(),
                    "clients": clients,
                    "served": scheduler.transition_counter,
                }
            )
        )


class Versions(RequestHandler):  # type: ignore[misc]
    """``{python, distributed}``: what a client's pickles must go with."""

    def get(self) -> None:
        import distributed

        self.set_header("Content-Type", "application/json")
        self.write(json.dumps({"python": platform.python_version(), "distributed": distributed.__version__}))


routes: list[tuple[str, Any, dict[str, Any]]] = [("metier/state.json", State, {}), ("metier/versions.json", Versions, {})]
