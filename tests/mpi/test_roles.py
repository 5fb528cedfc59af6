"""Common attributes in every role of an MPI job: launcher and workers see the same volume, variables, secrets and code."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.gang import parts
from support.roles import assert_alike, assert_pods, function, prepared
from support.server import Server, running
from support.shown import assert_shown

PYTHON = Path(__file__).resolve().parents[2] / "build" / "venv-mpi" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    shutil.which("mpirun") is None or not PYTHON.exists(), reason="no Open MPI or no build/venv-mpi: scripts/setup"
)

CODE = """
def roles(context):
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    mine = look()
    world.Barrier()
    seen, files = world.gather(mine), world.gather(shared())
    context.log_result("seen", seen)
    context.log_result("files", files)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("m") / "data", python=str(PYTHON)) as started:
        yield started


@pytest.fixture(scope="module")
def folder(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(server, tmp_path_factory.mktemp("code"), CODE)


def test_launcher_and_workers_have_the_functions_attributes(server: Server, folder: Path) -> None:
    asked = {"requests": {"cpu": "100m", "memory": "96Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}
    # The launcher computes too, so that code runs in every role; its pods stay, so that they can be looked at.
    ours = {"replicas": 3, "run_launcher_as_worker": True, "clean_pod_policy": "None", "resources": asked}
    file = function(folder, "mpijob", **ours)
    done = server.metier("run", "-f", file, "--handler", "roles", "-o", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    seen, files = run["status"]["results"]["seen"], run["status"]["results"]["files"]
    names = [one["pod"] for one in seen]
    assert [name.rpartition("-")[2] for name in names] == ["launcher", "0", "1", "2"]
    assert_alike(seen, folder / "work")
    assert files == [{name: f"written by {name}" for name in names}] * 4
    assert_pods(server, names)
    known = parts(server, run["metadata"]["uid"])
    assert known["worker-2"]["requests"] == asked["requests"]
    assert known["launcher"].get("requests") != asked["requests"]
    assert server.metier("delete", run["metadata"]["uid"], "--yes").returncode == 0


PROGRAM = """
import json, metier
function = metier.code_to_function("ranks", filename="ranks.py", kind="mpijob", image="mlrun/mlrun")
function.spec.replicas = 3
function.set_mpi_args(["-x", "OF_MPIRUN=yes"])
function.set_env("PLAIN", "a value")
function.with_requests(mem="96Mi", cpu="100m")
run = function.run(handler="meet", params={"word": "hello"}, watch=True)
print(json.dumps({"state": run.state(), "outputs": run.outputs, "log": run.logs(), "why": run.why()["code"], "uid": run.uid}))
"""
RANKS = """
import os

def meet(context, word: str = ""):
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    print(word, "from rank", world.rank, "of", world.size, flush=True)
    seen = world.gather([os.environ["PLAIN"], os.environ["OF_MPIRUN"]])
    context.log_result("seen", seen)
"""


def test_a_program_that_imports_metier_runs_ranks_and_all_are_shown(server: Server, tmp_path: Path) -> None:
    python = PYTHON.parents[2] / "venv-wheel" / "bin" / "python"
    if not python.exists():
        pytest.skip("no build/venv-wheel: the stage 'pip install' of scripts/test makes it")
    (tmp_path / "ranks.py").write_text(RANKS)
    environment = {**server.environment, "METIER_SERVER": server.url, "METIER_TOKEN": server.token}
    words = [str(python), "-c", PROGRAM]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["state"], said["why"]) == ("completed", "Completed")
    assert said["outputs"]["seen"] == [["a value", "yes"]] * 3
    lines = {f"rank-{n}": f"hello from rank {n} of 3" for n in range(3)}
    assert all(line in said["log"] for line in lines.values()), said["log"]
    known = assert_shown(
        server, "default", said["uid"], ["launcher", "worker-0", "worker-1", "worker-2", *lines], lines
    )
    assert known["worker-2"]["requests"] == {"cpu": "100m", "memory": "96Mi"}


def test_gpus_that_no_worker_can_have_are_refused_with_the_reason(server: Server, folder: Path) -> None:
    words = ["run", "-f", function(folder, "mpijob", replicas=2), "--handler", "roles", "--gpus", "1"]
    done = server.metier(*words, cwd=folder)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "nvidia.com/gpu" in done.stderr, done.stderr
