"""What of a function reaches the JVMs of its Spark application: properties, options, files, volumes.

Needs neither Spark nor Java: the JVMs are support/fake_spark.py's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_spark import until, variables
from support.gang import command_of, ended, of_pod, processes, state
from support.server import Server, running
from test_loss import CODE
from test_warm_loss import WARM
from test_warm_loss import Run as Warm

STEP = "tasks run"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("m") / "data") as started:
        yield started


class Application:
    """One that stands where its tasks run; its end is the test's."""

    def __init__(self, server: Server, engine: Path, folder: Path, **spec: Any) -> None:
        self.server, self.folder = server, folder
        (folder / "work.py").write_text(CODE)
        file = folder / "function.json"
        file.write_text(
            json.dumps({"kind": "spark", "metadata": {"name": "f"}, "spec": {"command": "work.py", **spec}})
        )
        done = server.metier(
            "run", "-f", str(file), "--handler", "work", "--detach", "-o", "json", *variables(engine, folder, STEP),
            cwd=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.uid = str(json.loads(done.stdout)["metadata"]["uid"])
        until(f"it stands: {state(server, self.uid)}", lambda: list(folder.glob("at.*")))

    def driver(self) -> str:
        return command_of(processes(self.server, "pyspark-shell")[0])

    def executor(self, number: int) -> str:
        return command_of(of_pod(self.server, f"-exec-{number}")[0])

    def environments(self) -> list[dict[str, str]]:
        """Of the driver's JVM and of each executor's."""
        pids = [processes(self.server, "pyspark-shell")[0], *(of_pod(self.server, f"-exec-{n}")[0] for n in (1, 2))]
        lines = [Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0") for pid in pids]
        return [dict(line.split("=", 1) for line in one if "=" in line) for one in lines]

    def properties(self) -> dict[str, str]:
        words = self.driver().split()
        lines = Path(words[words.index("--properties-file") + 1]).read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def end(self) -> dict[str, Any]:
        (self.folder / "go").touch()
        status = ended(self.server, self.uid)
        assert status["state"] == "completed", status
        return status


def test_sizes_of_the_configuration_hold(server: Server, engine: Path, tmp_path: Path) -> None:
    conf = {"spark.executor.memory": "300m", "spark.executor.instances": 2, "spark.driver.memory": "200m"}
    one = Application(server, engine, tmp_path, spark_conf={**conf, "spark.executor.cores": "3"})
    assert "-Xmx200m" in one.driver()
    for number in (1, 2):
        assert "-Xmx300m" in one.executor(number) and "--cores 3" in one.executor(number)
    properties = one.properties()
    assert {key: properties[key] for key in conf} == {key: str(value) for key, value in conf.items()}
    assert properties["spark.executor.cores"] == "3"
    one.end()


def test_an_allocation_of_the_configuration_is_ours_too(server: Server, engine: Path, tmp_path: Path) -> None:
    conf = {"enabled": True, "minExecutors": 2, "maxExecutors": 4}
    one = Application(
        server, engine, tmp_path, spark_conf={f"spark.dynamicAllocation.{key}": value for key, value in conf.items()}
    )
    properties = one.properties()
    assert properties["spark.metier.wishes.port"] == "7080"
    assert properties["spark.dynamicAllocation.minExecutors"] == "2"
    assert properties["spark.dynamicAllocation.initialExecutors"] == "2"
    one.end()


def test_variables_of_a_source_are_in_every_part(server: Server, engine: Path, tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: level}\ndata: {LEVEL: high}\n"
    )
    assert server.metier("apply", "-f", "map.yaml", cwd=tmp_path).returncode == 0
    one = Application(server, engine, tmp_path, replicas=2, env_from=[{"configMapRef": {"name": "level"}}])
    assert [found.get("LEVEL") for found in one.environments()] == ["high"] * 3
    one.end()


def test_a_common_field_that_no_role_has_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(
        json.dumps(
            {
                "kind": "spark",
                "metadata": {"name": "f"},
                "spec": {"command": "a.py", "security_context": {"runAsUser": 7}},
            }
        )
    )
    done = server.metier("run", "-f", "f.json", "--handler", "x", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "function.spec.security_context: kind 'spark' takes no security context" in done.stderr


def test_what_the_application_brings_reaches_its_driver(server: Server, engine: Path, tmp_path: Path) -> None:
    for name in ("a.jar", "b.jar", "words.txt", "helpers.zip", "data.tgz"):
        (tmp_path / name).touch()
    deps = {
        "jars": [f"local://{tmp_path}/a.jar", f"{tmp_path}/b.jar"],
        "files": [f"{tmp_path}/words.txt"],
        "pyFiles": [f"file://{tmp_path}/helpers.zip"],
        "archives": [f"{tmp_path}/data.tgz#data"],
        "packages": ["org.example:one:1.0", "org.example:two:2.0"],
        "excludePackages": ["org.example:three"],
        "repositories": ["https://repo.example/maven"],
    }
    one = Application(server, engine, tmp_path, replicas=2, deps=deps, hadoop_conf={"fs.s3a.fast": True, "fs.s3a.n": 3})
    properties = one.properties()
    assert {key: value.replace("\\", "") for key, value in properties.items() if key.startswith(("spark.jars", "spark.files", "spark.sub", "spark.arch", "spark.hadoop"))} == {
        "spark.jars": f"{tmp_path}/a.jar,{tmp_path}/b.jar",
        "spark.files": f"{tmp_path}/words.txt",
        "spark.submit.pyFiles": f"{tmp_path}/helpers.zip",
        "spark.archives": f"{tmp_path}/data.tgz#data",
        "spark.jars.packages": "org.example:one:1.0,org.example:two:2.0",
        "spark.jars.excludes": "org.example:three",
        "spark.jars.repositories": "https://repo.example/maven",
        "spark.hadoop.fs.s3a.fast": "True",
        "spark.hadoop.fs.s3a.n": "3",
    }  # fmt: skip
    one.end()


def test_each_role_has_its_own_options(server: Server, engine: Path, tmp_path: Path) -> None:
    one = Application(
        server, engine, tmp_path, replicas=2, driver_java_options="-Dof.driver=1 -Xss2m", executor_java_options="-Dof.executor=1",
        driver_cores=2, executor_cores=4,
    )  # fmt: skip
    driver = one.driver()
    assert "-Dof.driver=1 -Xss2m" in driver and "-Dof.executor" not in driver
    for number in (1, 2):
        assert "-Dof.executor=1" in one.executor(number) and "-Dof.driver" not in one.executor(number)
        assert "--cores 4" in one.executor(number)
    one.end()


def test_executor_options_of_the_configuration_hold_where_the_role_has_none(
    server: Server, engine: Path, tmp_path: Path
) -> None:
    one = Application(
        server, engine, tmp_path, replicas=2, spark_conf={"spark.executor.extraJavaOptions": "-Dof.conf=1"}
    )
    assert "-Dof.conf=1" in one.executor(2) and "-Dof.conf=1" not in one.driver()
    one.end()


def test_a_role_alone_has_its_volume(server: Server, engine: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    one = Application(
        server, engine, tmp_path, replicas=2, volumes=[{"name": "data", "hostPath": {"path": str(data)}}],
        executor_volume_mounts=[{"name": "data", "mountPath": "/data"}],
    )  # fmt: skip
    pods = json.loads(server.metier("get", "pods", "-o", "json").stdout)["pods"]
    mine = {p["metadata"]["name"]: p["spec"] for p in pods if p["metadata"]["labels"].get("mlrun/uid") == one.uid}
    mounted = {name: "volumes" in spec for name, spec in mine.items()}
    assert sorted(mounted.values()) == [False, True, True], mounted
    one.end()


def test_a_warm_server_has_the_options_of_its_executors(server: Server, engine: Path, tmp_path: Path) -> None:
    options = ['spec.driver_java_options="-Dof.driver=1"', 'spec.executor_java_options="-Dof.executor=1"']
    job = Warm(server, engine, tmp_path, STEP, *WARM, *(word for one in options for word in ("--set", one)))
    assert "-Dof.driver=1 -Dof.executor=1" in command_of(job.pid("server's JVM"))
    job.go()
    assert ended(server, job.uid)["state"] == "completed"
    job.end_server()


def test_what_has_no_effect_here_is_told(server: Server, engine: Path, tmp_path: Path) -> None:
    one = Application(server, engine, tmp_path, replicas=2, spark_version="3.2.3")
    sentence = "spec.spark_version has no effect on the embedded cluster: Spark is that of the environment's pyspark"
    events = server.call("GET", f"/api/metier/v1/runs/{one.uid}/timeline?project=default").json()["events"]
    assert any(sentence in str(e["detail"]) for e in events if e["detail"].get("reason") == "FieldIgnored"), events
    dry = server.metier("run", "-f", "function.json", "--handler", "work", "--dry-run", cwd=tmp_path)
    assert sentence in dry.stdout + dry.stderr, dry
    one.end()
