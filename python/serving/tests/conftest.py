from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
_built = [os.environ.get("METIER_SERVING_PATH", ""), *(str(ROOT / "build" / p / "serving") for p in ("dev", "release"))]
for _folder in _built:
    if _folder and list(Path(_folder).glob("metier_serving/_engine*.so")):
        sys.path.insert(0, _folder)
        break

from metier_serving import GraphServer, create_graph_server  # noqa: E402


@pytest.fixture
def serve() -> Any:
    """serve(graph, namespace, **spec): a mock server of a graph, closed at the test's end."""
    servers: list[GraphServer] = []

    def make(
        graph: Any, namespace: Any = None, current_function: str = "*", mock: bool = True, **spec: Any
    ) -> GraphServer:
        server = create_graph_server(graph=graph, current_function=current_function, **spec)
        server.init_states(None, namespace, is_mock=mock)
        server.init_object(namespace)
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.close()
