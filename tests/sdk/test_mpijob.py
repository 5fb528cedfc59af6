"""Kind mpijob from the unmodified mlrun SDK, with our runner in the pods and with the real mlrun package there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.server import Server, running

BUILD = Path(__file__).resolve().parents[2] / "build"

CODE = """
import os, socket

def allreduce(context, fail: bool = False):
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    total = world.allreduce(world.rank + 1)
    context.log_result("total", total)
    context.log_result("by", world.rank)
    context.log_result("context", type(context).__module__)
    context.log_result("hosts", world.gather(socket.gethostname()))
    print("rank", world.rank, "total", total, flush=True)
    if fail and world.rank == 1:
        raise ValueError("no such luck")
    world.Barrier()
"""


def environment(folder: Path) -> Path:
    """An interpreter that has both mlrun and mpi4py, and `mlrun` as a program."""
    python = folder / "env" / "bin" / "python"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    packages = next((folder / "env" / "lib").glob("python3*/site-packages"))
    sources = [next((BUILD / name / "lib").glob("python3*/site-packages")) for name in ("venv-sdk", "venv-mpi")]
    (packages / "both.pth").write_text("".join(f"{source}\n" for source in sources))
    program = python.parent / "mlrun"
    program.write_text(f"#!{python}\nimport sys\nfrom mlrun.__main__ import main\nsys.exit(main())\n")
    program.chmod(0o755)
    return python


@pytest.fixture(scope="module", params=["our runner", "mlrun in the pods"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if shutil.which("mpirun") is None or not (BUILD / "venv-mpi/bin/python").exists():
        pytest.skip("no Open MPI here: scripts/setup")
    folder = tmp_path_factory.mktemp("m")
    python = BUILD / "venv-mpi/bin/python" if request.param == "our runner" else environment(folder)
    with running(folder / "data", python=str(python)) as started:
        os.environ["MLRUN_DBPATH"] = started.url
        os.environ["MLRUN_HTTPDB__TOKEN"] = started.token
        yield started


@pytest.fixture(scope="module")
def function(served: Server) -> Any:
    import mlrun

    mlrun.mlconf.httpdb.token = served.token  # which 1.7 reads from its environment once
    mlrun.set_environment(api_path=served.url, artifact_path=str(served.data.parent / "artifacts"))
    mlrun.get_or_create_project("mpi", context=str(served.data.parent / "context"), user_project=False, save=True)
    path = served.data.parent / "work.py"
    path.write_text(CODE)
    made = mlrun.code_to_function("work", project="mpi", filename=str(path), kind="mpijob", image="mlrun/mlrun")
    made.spec.replicas = 2
    return made


def test_rank_0_alone_logs(served: Server, function: Any) -> None:
    run = function.run(handler="allreduce", params={"slots_per_worker": 2}, local=False, watch=True)
    assert run.state() == "completed"
    assert run.status.results["total"] == 10
    assert run.status.results["by"] == 0
    numbers = [int(host.rsplit("-", 1)[1]) for host in run.status.results["hosts"]]
    assert [number == 0 for number in numbers] == [True, False, False, False]
    ours = run.status.results["context"].startswith("metier_runner")
    assert ours == served.python.endswith("venv-mpi/bin/python")
    assert run.metadata.labels["kind"] == "mpijob"


def test_an_exception_in_one_rank_is_the_runs_error(served: Server, function: Any) -> None:
    import mlrun

    with pytest.raises(mlrun.runtimes.utils.RunError, match="rank 1|no such luck"):
        function.run(handler="allreduce", params={"fail": True}, local=False, watch=True)
    run = mlrun.get_run_db().list_runs(project="mpi", states=["error"]).to_objects()[0]
    assert "no such luck" in run.status.error or "rank 1" in run.status.error
    _, log = mlrun.get_run_db().get_log(run.metadata.uid, "mpi")
    assert b"no such luck" in log


def test_the_launcher_may_be_a_worker(served: Server, function: Any) -> None:
    function = function.copy()
    function.spec.replicas = 1
    document = function.to_dict()
    document["spec"]["run_launcher_as_worker"] = True
    import mlrun

    # The SDK has no such attribute: its REST client submits what its MPI runtime cannot say.
    task = {"metadata": {"name": "as-worker", "project": "mpi"}, "spec": {"handler": "allreduce"}}
    answer = mlrun.get_run_db().api_call("POST", "submit_job", body=json.dumps({"function": document, "task": task}))
    uid = answer.json()["data"]["metadata"]["uid"]
    run = mlrun.get_run_db().read_run(uid, "mpi")
    until = time.monotonic() + 60
    while run["status"]["state"] in ("pending", "running", "created"):
        assert time.monotonic() < until, run["status"]
        time.sleep(0.2)
        run = mlrun.get_run_db().read_run(uid, "mpi")
    assert run["status"]["state"] == "completed", run["status"]
    assert run["status"]["results"]["total"] == 3 and run["status"]["results"]["by"] == 0
