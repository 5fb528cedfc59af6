"""Kinds mpijob, spark and remote-spark from the unmodified SDK: what its methods set arrives in the pods, and every part is shown.

Kind dask is in tests/dask_sdk, whose environment has Dask's own client.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.server import Server, free_port
from support.shown import assert_shown
from support.spark_service import connect_server

BUILD = Path(__file__).resolve().parents[2] / "build"
ALL = os.environ.get("METIER_TEST_ALL") == "1"
EXECUTORS = 3 if ALL else 1  # a JVM each
only_all = pytest.mark.skipif(not ALL, reason="METIER_TEST_ALL=1 starts it")

MPI = """
import os, pathlib

def meet(context, words: int = 1):
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    pathlib.Path("/shared", f"rank-{world.rank}").write_text("here")
    world.Barrier()
    seen = world.gather([os.environ.get("PLAIN"), os.environ.get("OF_MPIRUN"), sorted(os.listdir("/shared"))])
    print("rank", world.rank, "of", world.size, flush=True)
    context.log_result("seen", seen)
    context.log_artifact("note", body=b"of all ranks", local_path="note.txt")
"""

SPARK = """
import os, time

def total(context, n: int = 100, executors: int = 0):
    from pyspark.sql import SparkSession, functions as F
    spark = SparkSession.builder.getOrCreate()
    print("session", type(spark).__module__, flush=True)
    late = time.monotonic() + 120
    while executors and spark.sparkContext._jsc.sc().getExecutorMemoryStatus().size() <= executors and time.monotonic() < late:
        time.sleep(0.2)  # Spark begins without the last one after 30 s
    context.log_result("sum", spark.range(n).agg(F.sum("id")).first()[0])
    context.log_dataset("squares", spark.range(5).selectExpr("id * id as square"))
    if "connect" in type(spark).__module__:
        return
    context.log_result("plain", spark.sparkContext.parallelize([0]).map(lambda _: os.environ.get("PLAIN")).first())
    conf = spark.sparkContext.getConf()
    names = ("spark.dynamicAllocation.enabled", "spark.dynamicAllocation.maxExecutors", "spark.executor.cores", "spark.my.own")
    context.log_result("conf", {name: conf.get(name) for name in names})
"""


@pytest.fixture(scope="module")
def project(mlrun: Any, server: Server) -> Any:
    folder = str(server.data.parent / "context")
    return mlrun.get_or_create_project("parts", context=folder, user_project=False, save=True)


def python_of(name: str) -> str:
    found = BUILD / name / "bin" / "python"
    if not found.exists():
        pytest.skip(f"no build/{name}: scripts/setup makes it")
    return str(found)


def function_of(mlrun: Any, server: Server, kind: str, code: str, environment: str) -> Any:
    path = server.data.parent / f"{kind}.py"
    path.write_text(code)
    made = mlrun.code_to_function(kind, project="parts", filename=str(path), kind=kind, image="mlrun/mlrun")
    made.metadata.annotations["metier.dev/python"] = python_of(environment)
    made.set_env("PLAIN", "a value")
    return made


def test_ranks_have_what_the_sdk_sets(mlrun: Any, project: Any, server: Server, tmp_path: Path) -> None:
    if shutil.which("mpirun") is None:
        pytest.skip("no Open MPI here: scripts/setup")
    from mlrun_pipelines.mounts import mount_hostpath

    function = function_of(mlrun, server, "mpijob", MPI, "venv-mpi")
    function.spec.replicas = 3
    function.set_mpi_args(["-x", "OF_MPIRUN=yes"])
    function.with_requests(mem="96Mi", cpu="100m")
    function.with_limits(mem="512Mi", cpu="1")
    function.apply(mount_hostpath(str(tmp_path), "/shared"))
    run = function.run(handler="meet", watch=True)
    assert run.state() == "completed", run.status.error
    ranks = ["rank-0", "rank-1", "rank-2"]
    assert run.status.results["seen"] == [["a value", "yes", ranks]] * 3
    assert mlrun.get_dataitem(run.outputs["note"]).get() == b"of all ranks"
    known = assert_shown(
        server, "parts", run.metadata.uid, ["launcher", *(f"worker-{n}" for n in range(3)), *ranks],
        {rank: f"{rank.replace('-', ' ')} of 3" for rank in ranks},
    )  # fmt: skip
    assert known["worker-1"]["requests"] == {"cpu": "100m", "memory": "96Mi"}
    seen_by_the_sdk(mlrun, run, b"[rank 2] rank 2 of 3")


def seen_by_the_sdk(mlrun: Any, run: Any, line: bytes) -> None:
    """The SDK's own views of a run: its log, the lists, its artifacts."""
    db, uid = mlrun.get_run_db(), run.metadata.uid
    _, log = db.get_log(uid, "parts")
    assert line in log, log
    listed = {one["metadata"]["uid"]: one for one in db.list_runs(project="parts", states=["completed"])}
    assert listed[uid]["metadata"]["labels"]["kind"] == run.metadata.labels["kind"]
    keys = {one["metadata"]["key"] for one in db.list_artifacts(project="parts", tree=uid)}
    assert keys >= {"note"} or keys >= {"squares"}, keys


def test_driver_and_executors_have_what_the_sdk_sets(mlrun: Any, project: Any, server: Server) -> None:
    function = function_of(mlrun, server, "spark", SPARK, "venv-spark")
    function.with_driver_requests(mem="600m", cpu="200m")
    function.with_executor_requests(mem="550m", cpu="300m")
    function.with_driver_limits(cpu="1")
    function.with_executor_limits(cpu="1500m")
    function.with_cores(executor_cores=2)
    function.with_dynamic_allocation(min_executors=EXECUTORS, max_executors=4, initial_executors=EXECUTORS)
    function.spec.spark_conf = {"spark.my.own": "yes"}
    run = function.run(handler="total", params={"n": 1000, "executors": EXECUTORS}, watch=True)
    assert run.state() == "completed", run.status.error
    results = run.status.results
    assert results["sum"] == 499500 and results["plain"] == "a value"
    assert results["conf"] == {
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.maxExecutors": "4",
        "spark.executor.cores": "2",
        "spark.my.own": "yes",
    }
    executors = [f"executor-{n + 1}" for n in range(EXECUTORS)]
    lines = {"driver": "session pyspark.sql.session", **dict.fromkeys(executors, "Executor")}
    known = assert_shown(server, "parts", run.metadata.uid, ["driver", *executors], lines)
    assert known["driver"]["requests"] == {"cpu": "200m", "memory": f"{600 + 384}Mi"}
    assert known[executors[-1]]["requests"] == {"cpu": "300m", "memory": f"{550 + 384}Mi"}
    made = json.loads(server.metier("get", "pods", "-P", "parts", "-o", "json").stdout)["pods"]
    limits = {one["name"]: one["spec"]["containers"][0].get("resources", {}).get("limits") for one in made}
    assert limits[known["driver"]["pod"]]["cpu"] == "1"
    assert limits[known[executors[-1]]["pod"]]["cpu"] == "1500m"
    seen_by_the_sdk(mlrun, run, b"session pyspark.sql.session")
    with pytest.raises(ValueError, match="memory"):
        function.with_driver_requests(mem="1Gi")


def test_iguazios_own_spark_is_refused_by_its_name(mlrun: Any, project: Any, server: Server) -> None:
    function = function_of(mlrun, server, "spark", SPARK, "venv-spark")
    # What with_igz_spark() does first; its v3io volume is one that this Kubernetes client cannot make.
    function._update_igz_jars(deps=function._get_igz_deps())
    with pytest.raises(Exception, match="Iguazio's Spark runs on Iguazio's platform only"):
        function.run(handler="total")


def remote(mlrun: Any, server: Server, service: str) -> Any:
    function = function_of(mlrun, server, "remote-spark", SPARK, "venv-spark")
    function.with_spark_service(service, with_v3io_mount=False)
    function.spec.replicas = 3  # without meaning here, and no error
    return function


def test_a_service_that_the_sdk_names_is_the_one_that_is_asked(mlrun: Any, project: Any, server: Server) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(mlrun.runtimes.utils.RunError, match=f"no Spark service answers at {address}"):
        remote(mlrun, server, f"sc://{address}").run(handler="total", watch=True)
    with pytest.raises(mlrun.runtimes.utils.RunError, match="METIER_SPARK_SERVICE_ANALYTICS is not set"):
        remote(mlrun, server, "analytics").run(handler="total", watch=True)


@pytest.fixture(scope="module")
def connect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with connect_server(Path(python_of("venv-spark")), tmp_path_factory.mktemp("connect")) as url:
        yield url


@only_all
def test_a_session_goes_to_the_service_that_the_sdk_names(
    mlrun: Any, project: Any, server: Server, connect: str
) -> None:
    run = remote(mlrun, server, connect).run(handler="total", params={"n": 1000}, watch=True)
    assert run.state() == "completed", run.status.error
    assert run.status.results["sum"] == 499500
    seen_by_the_sdk(mlrun, run, b"session pyspark.sql.connect.session")
