"""Common attributes in every role of a Spark application, and in the pod of kind remote-spark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.roles import assert_alike, assert_pods, function, prepared
from support.server import Server
from test_spark import PATIENCE, only_all, pods_of

CODE = """
def roles(context):
    from pyspark.sql import SparkSession
    context.log_result("driver", look())
    sc = SparkSession.builder.getOrCreate().sparkContext
    executors = {}
    while len(executors) < 2:
        executors |= {one["pod"]: one for one in sc.parallelize(range(8), 8).map(look).collect()}
    context.log_result("executors", list(executors.values()))
    context.log_result("files", [shared(), *sc.parallelize(range(2), 2).map(shared).collect()])
    context.log_result("conf", {key: sc.getConf().get(key) for key in ("spark.executor.cores", "spark.my.own")})

def alone(context):
    context.log_result("seen", look())
"""


@pytest.fixture(scope="module")
def folder(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(server, tmp_path_factory.mktemp("code"), CODE)


@only_all
def test_driver_and_executors_have_the_functions_attributes(server: Server, folder: Path) -> None:
    ours = {
        "replicas": 2,
        "driver_resources": {"requests": {"cpu": "200m", "memory": "600m"}},
        "executor_resources": {"requests": {"cpu": "300m", "memory": "550m"}, "limits": {"cpu": "1"}},
        "executor_cores": 2,
        "spark_conf": {"spark.my.own": "yes"},
    }
    file = function(folder, "spark", **ours)
    done = server.metier("run", "-f", file, "--handler", "roles", "-o", "json", cwd=folder, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    results = run["status"]["results"]
    assert_alike([results["driver"]], folder / "work")
    assert_alike(results["executors"], None)
    names = [results["driver"]["pod"], *(one["pod"] for one in results["executors"])]
    assert results["files"] == [{name: f"written by {name}" for name in names}] * 3
    assert_pods(server, names, operator=True)
    made = json.loads(server.metier("render", "-f", file, "--handler", "roles", "-o", "json", cwd=folder).stdout)
    application = next(one for one in made["items"] if one["kind"] == "SparkApplication")["spec"]
    assert application["imagePullSecrets"] == ["registry"] and application["imagePullPolicy"] == "IfNotPresent"
    assert application["executor"]["serviceAccount"] == "robot"
    assert results["conf"] == {"spark.executor.cores": "2", "spark.my.own": "yes"}
    asked = {part["role"]: part["requests"] for part in run["status"]["parts"]}
    assert asked["driver"] == {"cpu": "200m", "memory": f"{600 + 384}Mi"}
    assert asked["executor"] == {"cpu": "300m", "memory": f"{550 + 384}Mi"}
    assert set(names) <= set(pods_of(server, run["metadata"]["uid"]))


def test_the_pod_of_a_remote_session_has_them_too(server: Server, folder: Path) -> None:
    file = function(folder, "remote-spark")
    # Nobody is at that address: this function asks for no session.
    words = ["run", "-f", file, "--handler", "alone", "-e", "SPARK_REMOTE=sc://127.0.0.1:1", "-o", "json"]
    done = server.metier(*words, cwd=folder, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)["status"]["results"]["seen"]
    assert_alike([seen], folder / "work")
    assert_pods(server, [seen["pod"]])


@pytest.mark.parametrize("kind", ["spark", "remote-spark"])
def test_gpus_that_no_pod_can_have_are_refused_with_the_reason(server: Server, folder: Path, kind: str) -> None:
    file = function(folder, kind)
    words = ["run", "-f", file, "--handler", "alone", "--gpus", "1", "-e", "SPARK_REMOTE=sc://127.0.0.1:1"]
    done = server.metier(*words, cwd=folder)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "nvidia.com/gpu" in done.stderr, done.stderr
