"""The SDK of each module of tests, pointed at the module's own server."""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any

import pytest
from support.server import Server

# Answers and classes of MLRun's own engine, compared with ours: today's is the measure.
TODAYS_ENGINE = ("test_serving_graphs.py", "test_serving_fallback.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    version = importlib.metadata.version("mlrun")
    if tuple(map(int, version.split(".")[:2])) >= (1, 10):
        return
    for item in items:
        if item.path.name in TODAYS_ENGINE:
            item.add_marker(pytest.mark.skip(f"compared with today's engine, not with mlrun {version}'s"))


@pytest.fixture(scope="module")
def mlrun(server: Server) -> Any:
    os.environ["MLRUN_DBPATH"] = server.url
    os.environ["MLRUN_HTTPDB__TOKEN"] = server.token
    os.environ["MLRUN_HTTPDB__HTTP__VERIFY"] = "false"
    import mlrun

    mlrun.mlconf.httpdb.token = server.token  # which 1.7 reads from its environment once
    mlrun.set_environment(api_path=server.url, artifact_path=str(server.data.parent / "artifacts"))
    # The SDK's one store manager keeps its connection to the server that an earlier module had.
    mlrun.datastore.store_manager._db = None
    return mlrun
