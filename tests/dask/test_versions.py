"""A client of another version of distributed than its cluster's: one sentence. With METIER_TEST_ALL=1 (it installs the other one)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = ROOT / "build" / "tools" / "bin" / "uv"
OTHER = "2025.9.1"
pytestmark = pytest.mark.skipif(
    os.environ.get("METIER_TEST_ALL") != "1", reason="METIER_TEST_ALL=1 installs another Dask"
)
CLIENT = """
import sys
import distributed
from metier_runner.dask_cluster import other_versions
with distributed.Client(sys.argv[1], timeout="60s") as client:
    print("said:", other_versions(client))
"""


def said(python: Path, address: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "python" / "runner"), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [python, "-c", CLIENT, address], env=env, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.partition("said:")[2].strip()


def test_two_versions_are_told_apart(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    subprocess.run([UV, "venv", "-q", "--python", "/usr/bin/python3", tmp_path / "other"], check=True)
    other = tmp_path / "other" / "bin" / "python"
    packages = [f"dask=={OTHER}", f"distributed=={OTHER}"]
    subprocess.run([UV, "pip", "install", "-q", "--python", other, *packages], check=True)
    with distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as cluster:
        assert said(Path(sys.executable), cluster.scheduler_address) == ""
        sentence = said(other, cluster.scheduler_address)
    assert f"this process has Python {sys.version_info[0]}.{sys.version_info[1]} with distributed {OTHER}" in sentence
    assert f"distributed {distributed.__version__}, and their pickles do not go together" in sentence
