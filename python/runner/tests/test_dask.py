"""Clients of a Dask cluster of other versions: one sentence, from whoever connects. Without Dask; tests/dask has the real one."""

from __future__ import annotations

import http.server
import json
import platform
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest

from metier_runner import dask_cluster, dask_security

PYTHON = ".".join(platform.python_version().split(".")[:2])
SENTENCE = (
    f"this process has Python {PYTHON} with distributed 2.0, the Dask cluster has Python {{}} with distributed {{}}, and their pickles"
)


class Client:
    made: ClassVar[list[Client]] = []
    theirs = ("", "")

    def __init__(self, address, **_):
        self.address, self.closed = address, False
        Client.made.append(self)

    def get_versions(self, check):
        mine = (platform.python_version(), "2.0")
        sides = {"client": mine, "scheduler": Client.theirs}
        return {side: {"host": {"python": python}, "packages": {"distributed": dask}} for side, (python, dask) in sides.items()}

    def close(self):
        self.closed = True


@pytest.fixture
def distributed(monkeypatch):
    made = ModuleType("distributed")
    made.Client, made.__version__ = Client, "2.0"
    Client.made.clear()
    monkeypatch.setitem(sys.modules, "distributed", made)
    return made


@pytest.mark.parametrize("theirs", [("3.5.1", "2.0"), (platform.python_version(), "1.9")])
def test_a_named_cluster_of_other_versions_is_refused(distributed, monkeypatch, theirs):
    context = SimpleNamespace(name="n", project="p", run_uid="u", _spec={"hyper_param_options": {"dask_cluster_uri": "db://p/pool"}})
    monkeypatch.setattr(dask_cluster, "_cluster_of", lambda *_: ("tls://127.9.0.1:8786", "a certificate"))
    shared = []
    monkeypatch.setattr(dask_cluster, "share_code", lambda *_: shared.append(1))
    Client.theirs = theirs
    with pytest.raises(dask_cluster.DaskUnavailable) as refused:
        dask_cluster.connect(context, {})
    assert str(refused.value).startswith(SENTENCE.format(".".join(theirs[0].split(".")[:2]), theirs[1]))
    assert Client.made[-1].closed and not shared
    Client.theirs = (f"{PYTHON}.99", "2.0")  # another patch of Python goes
    assert dask_cluster.connect(context, {}) is Client.made[-1]
    assert not Client.made[-1].closed and shared


@pytest.fixture
def page(monkeypatch):
    """What a scheduler's page of versions answers."""
    said = {}

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/metier/versions.json" and said
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(dask_security, "HTTP_PORT", server.server_port)
        yield said
        server.shutdown()


def test_the_sdks_client_of_other_versions_is_refused(distributed, monkeypatch, page):
    monkeypatch.setenv("METIER_SERVER", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # not for this machine's addresses
    monkeypatch.setattr(dask_security, "security_of", lambda *_: "a certificate")
    ours = {"address": "tls://127.0.0.1:8786"}
    page.update(python="3.5.1", distributed="2.0")
    with pytest.raises(dask_cluster.DaskUnavailable, match="use the interpreter of the function's environment") as refused:
        dask_security.load(ours)
    assert str(refused.value).startswith(SENTENCE.format("3.5", "2.0"))
    page.update(python=platform.python_version())
    assert dask_security.load(ours) == "a certificate"
    page.clear()  # a scheduler that was started before there was such a page
    assert dask_security.load(ours) == "a certificate"
