"""Functions of kind dask from Python, without a cluster: which Dask is asked for, and what counts as deployed."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import metier
import metier.dask
import pytest


def dask(**spec: Any) -> metier.Function:
    return metier.Function.from_dict({"kind": "dask", "metadata": {"name": "f", "project": "p"}, "spec": spec})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which Dask was asked for: "here", or the function's cluster."""
    found: list[str] = []
    local = SimpleNamespace(cluster="local cluster")
    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace())
    monkeypatch.setattr(metier.dask, "_local_client", lambda _: found.append("here") or local)
    monkeypatch.setattr(metier.dask, "_known_status", lambda _: {})
    monkeypatch.setattr(metier.dask, "_phase", lambda _: "")
    monkeypatch.setattr(metier.dask, "start", lambda _: {"scheduler_address": "tls://127.9.0.1:8786"})
    monkeypatch.setattr(metier.dask, "_connect", lambda _, status: found.append(status["scheduler_address"]) or local)
    return found


@pytest.mark.parametrize("spec", [{}, {"remote": None}, {"remote": True}])
def test_a_function_has_a_cluster_unless_it_says_otherwise(asked: list[str], spec: dict[str, Any]) -> None:
    assert dask(**spec).client.cluster
    assert asked == ["tls://127.9.0.1:8786"]


def test_without_remote_dask_is_in_this_process(asked: list[str]) -> None:
    assert dask(remote=False).cluster() == "local cluster"
    assert asked == ["here"]


def test_a_client_of_other_versions_than_its_clusters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    class Client:
        def __init__(self, address: str, security: Any) -> None:
            self.address = address

        def get_versions(self, check: bool) -> dict[str, Any]:
            return {
                side: {"host": {"python": "3.12.1"}, "packages": {"distributed": version}}
                for side, version in (("client", "2.0"), ("scheduler", "1.9"))
            }

        def close(self) -> None:
            closed.append(self.address)

    versions = SimpleNamespace(VersionMismatchWarning=UserWarning)
    found = SimpleNamespace(Client=Client, versions=versions)
    with pytest.raises(
        metier.errors.Error, match="this process has Python 3.12 with distributed 2.0, the Dask cluster has"
    ):
        metier.dask._connect(found, {"scheduler_address": "tcp://127.9.0.1:8786"})
    assert closed == ["tcp://127.9.0.1:8786"]


def test_what_is_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    state = "deploying"

    def view(self: metier.Function, revision: int) -> dict[str, Any]:
        if not state:
            raise metier.errors.make_error("not_found", "function 'f' is not deployed")
        return {"state": state}

    monkeypatch.setattr(metier.Function, "_view", view)
    assert dask(remote=False).is_deployed() and dask(image="mlrun/ml-base").is_deployed()
    assert not dask().is_deployed()
    state = "scaledToZero"
    assert dask().is_deployed()
    state = ""
    assert not dask().is_deployed()
    assert not metier.new_function("g", kind="nuclio", image="i").is_deployed()
    assert metier.new_function("j", kind="job", image="i").is_deployed()
    assert not metier.new_function("j", kind="job").is_deployed()
    assert metier.new_function("s", kind="spark").is_deployed()


def test_the_address_of_a_deployed_cluster_is_its_schedulers() -> None:
    fn = dask()
    fn._core.assign(("status",), {"state": "ready", "scheduler_address": "tls://127.9.0.1:8786"})
    assert fn.get_url() == "tls://127.9.0.1:8786"
