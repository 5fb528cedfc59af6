"""PyTorch's own collectives and Horovod under kind mpijob, with Debian's PyTorch and a Horovod built beside it.

Only with METIER_TEST_ALL=1: `METIER_TEST_ALL=1 scripts/setup` makes the environment (minutes).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.gang import assert_nothing_runs
from support.server import Server, running

PYTHON = Path(__file__).resolve().parents[2] / "build" / "venv-horovod" / "bin" / "python"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "mpi"
pytestmark = [
    pytest.mark.skipif(os.environ.get("METIER_TEST_ALL") != "1", reason="METIER_TEST_ALL=1 tries PyTorch and Horovod"),
    pytest.mark.skipif(
        not PYTHON.exists() or shutil.which("mpirun") is None, reason="no Horovod: METIER_TEST_ALL=1 scripts/setup"
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("m") / "data", python=str(PYTHON)) as started:
        yield started


def run(server: Server, file: str, *options: str) -> dict[str, Any]:
    done = server.metier("run", f"{file}:train", "--kind", "mpijob", *options, "-o", "json", cwd=EXAMPLES, timeout=240)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["status"]["results"])


@pytest.mark.parametrize("file", ["torch_ddp.py", "horovod_torch.py"])
def test_ranks_train_one_model(server: Server, file: str) -> None:
    two = run(server, file, "--replicas", "2", "--set", "spec.slots_per_worker=2")
    assert two["ranks"] == 4 and two["equal_weights"] is True
    assert two["last_loss"] < 0.05 * two["first_loss"]
    # The ranks' gradients are averaged: how many share the rows does not change the model.
    one = run(server, file, "--replicas", "1")
    assert one["ranks"] == 1
    assert two["weights"] == pytest.approx(one["weights"], abs=1e-3)
    assert two["weights"] == pytest.approx([2.0, -3.0, 0.5], abs=0.02)
    assert_nothing_runs(server)


def test_horovod_writes_its_timeline(server: Server, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    run(server, "horovod_torch.py", "--replicas", "2", "-e", f"HOROVOD_TIMELINE={trace}")
    assert "MPI_ALLREDUCE" in trace.read_text()
