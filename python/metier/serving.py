"""The classes that stand in serving graphs.

They come from :mod:`metier_serving`, which also runs inside pods: ``class Model(metier.serving.V2ModelServer): ...``.
"""

from __future__ import annotations

from metier_serving import (
    BatchHttpRequests,
    Flow,
    GraphError,
    GraphServer,
    Merge,
    MockTrigger,
    ModelRouter,
    ParallelRun,
    QueueStep,
    RemoteStep,
    Response,
    RouterStep,
    TaskStep,
    V2ModelServer,
    VotingEnsemble,
    create_graph_server,
)

__all__ = [
    "BatchHttpRequests",
    "Flow",
    "GraphError",
    "GraphServer",
    "Merge",
    "MockTrigger",
    "ModelRouter",
    "ParallelRun",
    "QueueStep",
    "RemoteStep",
    "Response",
    "RouterStep",
    "TaskStep",
    "V2ModelServer",
    "VotingEnsemble",
    "create_graph_server",
]
