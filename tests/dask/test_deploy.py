"""Deployed functions of kind dask: `metier deploy` brings the cluster up and says how it went; the function tells its state."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support.gang import wait_for
from support.server import Server

pytest.importorskip("distributed")

CODE = """
def total(context):
    client = context.dask_client
    context.log_result("total", sum(client.gather(client.map(lambda x: x * x, range(10)))))
    context.log_result("scheduler", client.scheduler_info()["address"])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "squares.py").write_text(CODE)
    return tmp_path


def document(folder: Path, name: str, **spec: Any) -> str:
    path = folder / f"{name}.json"
    spec = {"image": "mlrun/ml-base", "command": str(folder / "squares.py"), **spec}
    path.write_text(json.dumps({"kind": "dask", "metadata": {"name": name}, "spec": spec}))
    return str(path)


def deploy(server: Server, file: str) -> tuple[int, str, str]:
    done = server.metier("deploy", "-f", file, cwd=Path(file).parent)
    return done.returncode, done.stdout, done.stderr


def view(server: Server, name: str) -> dict[str, Any]:
    return dict(server.call("GET", f"/api/metier/v1/deployments/{name}?project=default").json())


def stored(server: Server, name: str) -> dict[str, Any]:
    """The status that clients read with the function."""
    answer = server.call("GET", f"/api/v1/projects/default/functions/{name}?tag=latest").json()
    return dict(answer["func"]["status"])


def run(server: Server, file: str) -> dict[str, Any]:
    done = server.metier("run", "-f", file, "--handler", "total", "-o", "json", cwd=Path(file).parent)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["status"]["results"])


def alive(server: Server, name: str) -> list[str]:
    pods = server.call("GET", "/api/metier/v1/pods?project=default").json()["pods"]
    return sorted(
        pod["name"]
        for pod in pods
        if pod["name"].startswith(f"mlrun-{name}-") and pod["status"].get("phase") in ("Pending", "Running")
    )


def process_of(server: Server, pod: str) -> int:
    """The process of a pod's container."""
    pods = server.call("GET", "/api/metier/v1/pods?project=default").json()["pods"]
    (address,) = (one["status"]["podIP"] for one in pods if one["name"] == pod)
    for folder in (server.data / "pods").iterdir():
        if folder.name.startswith(".") or (folder / "exit").exists():  # one that had the address before
            continue
        with contextlib.suppress(OSError):  # another one, that is being removed
            if rf"pod_ip\":\"{address}\"" in (folder / "handle").read_text():
                return int(json.loads((folder / "state").read_text().partition("\n")[2])["containers"][0]["pid"])
    raise AssertionError(pod)


def test_a_deployed_function_has_its_cluster_and_runs_find_it(server: Server, folder: Path) -> None:
    file = document(folder, "stays", replicas=2)
    code, out, errors = deploy(server, file)
    assert code == 0, errors
    assert "ready in" in errors
    address = out.strip()
    assert address.startswith("tls://127.") and address.endswith(":8786")
    seen = view(server, "stays")
    assert [part["role"] for part in seen["parts"]] == ["scheduler", "worker", "worker"]
    assert (seen["status"]["replicas"], seen["status"]["ready_replicas"]) == (2, 2)
    assert stored(server, "stays")["scheduler_address"] == address
    assert run(server, file) == {"total": 285, "scheduler": address}
    described = server.metier("describe", "stays").stdout
    assert "state        ready" in described and f"scheduler    {address}" in described, described
    assert "2 (2 ready)" in described and seen["status"]["cluster_name"] in described
    assert "Scheduler at" in server.metier("logs", "stays").stdout
    code, again, errors = deploy(server, file)  # the same does nothing, though a run has used it
    assert (code, again.strip(), view(server, "stays")["generation"]) == (0, address, 1), errors
    assert server.metier("delete", "stays", "-y").returncode == 0
    wait_for(lambda: server.call("GET", "/api/metier/v1/deployments/stays?project=default").status == 404)
    assert not alive(server, "stays")


def test_a_cluster_that_does_not_come_up_is_the_deploys_error(server: Server, folder: Path) -> None:
    code, _, errors = deploy(server, document(folder, "broken", replicas=1, args=["--nonsense"]))
    assert code == 5, errors
    assert "function 'broken' is error" in errors and "its log: metier logs broken\n" in errors, errors
    assert "failed to start" in errors, "the end of the worker's log"
    assert "--nonsense" in server.metier("logs", "broken").stdout
    status = stored(server, "broken")
    assert (status["state"], status["reason"]) == ("error", "WorkerFailed")
    wait_for(lambda: not alive(server, "broken"))
    code, out, errors = deploy(server, document(folder, "broken", replicas=1))
    assert code == 0 and out.startswith("tls://"), errors
    assert stored(server, "broken")["state"] == "ready"
    assert "reason" not in stored(server, "broken")
    server.metier("delete", "broken", "-y")


def test_more_than_the_machine_holds_is_refused(server: Server, folder: Path) -> None:
    code, _, errors = deploy(server, document(folder, "large", replicas=900))
    assert code == 5 and "asks for" in errors, errors
    assert server.call("GET", "/api/metier/v1/deployments/large?project=default").status == 404


def test_an_idle_cluster_closes_and_whoever_comes_next_opens_it(server: Server, folder: Path) -> None:
    file = document(folder, "idle", replicas=1, scheduler_timeout="10s")
    code, _, errors = deploy(server, file)
    assert code == 0, errors
    wait_for(lambda: stored(server, "idle")["state"] == "scaledToZero")
    status = stored(server, "idle")
    assert status["reason"] == "ScaledToZero" and "scheduler_address" not in status, status
    assert "idle for scheduler_timeout" in server.metier("describe", "idle").stdout
    assert not alive(server, "idle")
    server.kill()  # a server that starts opens nothing
    server.start()
    assert stored(server, "idle")["state"] == "scaledToZero"
    assert view(server, "idle")["state"] == "scaledToZero"
    assert not alive(server, "idle")
    assert run(server, file)["total"] == 285
    wait_for(lambda: stored(server, "idle")["state"] == "scaledToZero")
    code, out, errors = deploy(server, file)
    assert code == 0 and out.startswith("tls://"), errors
    server.metier("delete", "idle", "-y")


def test_a_server_that_was_killed_follows_the_cluster_again(server: Server, folder: Path) -> None:
    file = document(folder, "kept", replicas=1)
    code, address, errors = deploy(server, file)
    assert code == 0, errors
    before = alive(server, "kept")
    server.kill()
    server.start()
    assert view(server, "kept")["state"] == "ready"
    assert run(server, file)["scheduler"] == address.strip()
    assert alive(server, "kept") == before
    (pod,) = (name for name in before if name.endswith("-scheduler"))
    os.kill(process_of(server, pod), signal.SIGKILL)
    wait_for(lambda: stored(server, "kept")["state"] == "unhealthy")
    status = stored(server, "kept")
    assert status["reason"] == "SchedulerLost" and "killed by signal 9" in status["message"], status
    assert "SchedulerLost" in server.metier("describe", "kept").stdout
    code, _, errors = deploy(server, file)
    assert code == 0, errors
    assert stored(server, "kept")["state"] == "ready"
    server.metier("delete", "kept", "-y")


HERE = """
import os

def total(context):
    client = context.dask_client
    context.log_result("total", sum(client.gather(client.map(lambda x: x * x, range(10)))))
    context.log_result("scheduler", client.scheduler_info()["address"])
    context.log_result("here", client.submit(os.getpid).result() == os.getpid())
"""


def test_without_remote_dask_is_in_the_handlers_process(server: Server, folder: Path) -> None:
    (folder / "squares.py").write_text(HERE)
    file = document(folder, "inside", remote=False)
    results = run(server, file)
    assert (results["total"], results["here"]) == (285, True)
    assert results["scheduler"].startswith("inproc://")
    assert not alive(server, "inside")
    code, _, errors = deploy(server, file)
    assert code == 2 and "spec.remote" in errors, errors


def test_a_file_that_says_nothing_of_idleness_is_idle_after_an_hour(server: Server, folder: Path) -> None:
    file = document(folder, "quiet", replicas=1)
    rendered = json.loads(server.metier("render", "-f", file, "-o", "json", cwd=folder).stdout)["items"]
    assert [one["kind"] for one in rendered] == ["DaskCluster"], "nothing to run: what deploy applies"
    (container,) = rendered[0]["spec"]["scheduler"]["template"]["spec"]["containers"]
    assert container["args"][-2:] == ["--idle-timeout", "60 minutes"]


def test_what_is_rendered_is_what_a_run_applies(server: Server, folder: Path) -> None:
    words = ["render", "-f", document(folder, "shown", args=["--nanny"]), "--handler", "total", "-o", "json"]
    cluster, pod = json.loads(server.metier(*words, cwd=folder).stdout)["items"]
    assert (cluster["kind"], pod["kind"]) == ("DaskCluster", "Pod")
    assert cluster["spec"]["handler"] is True
    assert "--nanny" in cluster["spec"]["worker"]["template"]["spec"]["containers"][0]["args"]
    assert pod["spec"]["containers"][0]["args"][-3:] == ["--handler", "total", str(folder / "squares.py")]


def test_what_has_no_effect_is_told(server: Server, folder: Path) -> None:
    file = document(folder, "told", replicas=1, node_port=30087, extra_pip="pip install x")
    code, _, errors = deploy(server, file)
    assert code == 0, errors
    assert "FieldIgnored: spec.node_port has no effect on the embedded cluster" in errors, errors
    assert "FieldIgnored: spec.extra_pip has no effect" in errors, errors
    assert "spec.node_port has no effect" in server.metier("describe", "told").stdout
    assert stored(server, "told")["node_ports"] == {}
    tried = server.metier("run", "-f", file, "--handler", "total", "--dry-run", cwd=folder)
    assert "spec.node_port has no effect" in tried.stdout + tried.stderr
    server.metier("delete", "told", "-y")


def test_a_deploy_goes_on_over_a_killed_server(server: Server, folder: Path) -> None:
    file = document(folder, "goeson", replicas=1)
    done = server.metier("deploy", "-f", file, "--detach", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "goeson\n"), done.stderr
    server.kill()
    server.start()

    wait_for(lambda: stored(server, "goeson")["state"] == "ready")
    assert len(alive(server, "goeson")) == 2
    server.metier("delete", "goeson", "-y")


def test_a_cluster_whose_resources_were_deleted_is_closed(server: Server, folder: Path) -> None:
    file = document(folder, "taken", replicas=1)
    assert deploy(server, file)[0] == 0
    query = "?kind=dask&object-id=taken&force=true"
    assert server.call("DELETE", f"/api/v1/projects/default/runtime-resources{query}").status == 200
    wait_for(lambda: stored(server, "taken")["state"] == "scaledToZero")
    assert "it was removed" in stored(server, "taken")["message"]
    wait_for(lambda: not alive(server, "taken"))
    code, out, errors = deploy(server, file)
    assert code == 0 and out.startswith("tls://"), errors
    server.metier("delete", "taken", "-y")
