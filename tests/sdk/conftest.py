"""The SDK of each module of tests, pointed at the module's own server."""

from __future__ import annotations

import os
from typing import Any

import pytest
from support.server import Server


@pytest.fixture(scope="module")
def mlrun(server: Server) -> Any:
    os.environ["MLRUN_DBPATH"] = server.url
    os.environ["MLRUN_HTTPDB__TOKEN"] = server.token
    os.environ["MLRUN_HTTPDB__HTTP__VERIFY"] = "false"
    import mlrun

    mlrun.set_environment(api_path=server.url, artifact_path=str(server.data.parent / "artifacts"))
    # The SDK's one store manager keeps its connection to the server that an earlier module had.
    mlrun.datastore.store_manager._db = None
    return mlrun
