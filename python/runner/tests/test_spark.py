"""Command lines, properties and refusals of Spark's part in pods; no JVM is started here (tests/spark does)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metier_runner import spark
from metier_runner.errors import InvalidArgument, NotFound


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that looks like an installed Spark 4."""
    jars = tmp_path / "spark" / "jars"
    jars.mkdir(parents=True)
    (jars / "spark-core_2.13-4.3.0.jar").write_bytes(b"")
    return jars.parent


def java_at(folder: Path, version: str) -> Path:
    """A JAVA_HOME of that version."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").write_text("#!/bin/sh\n")
    (folder / "bin" / "java").chmod(0o755)
    (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return folder


@pytest.fixture
def environment(tmp_path: Path, home: Path) -> dict[str, str]:
    work = tmp_path / "work"
    work.mkdir()
    jar = tmp_path / "metier-spark.jar"
    jar.write_bytes(b"")
    return {
        "SPARK_HOME": str(home),
        "JAVA_HOME": str(java_at(tmp_path / "java", "17.0.15")),
        "METIER_JOURNAL": str(work / "journal"),
        "METIER_POD_IP": "127.9.0.1",
        "METIER_SPARK_JAR": str(jar),
        "TMPDIR": str(work),
        "MLRUN_HTTPDB__TOKEN": "secret of the run",
    }


def test_the_driver_gets_its_properties_and_no_secret_in_its_command(environment: dict[str, str], tmp_path: Path) -> None:
    start = {"app": "app-1", "memory": "512M", "java_options": "-Da=b", "conf": {"spark.x": "a=b\\c\n é"}}
    words = spark.driver_command(start, environment, str(tmp_path / "work"))
    assert "-Xmx512m" in words and "-Da=b" in words and "org.apache.spark.deploy.SparkSubmit" in words
    path = Path(words[words.index("--properties-file") + 1])
    assert path.stat().st_mode & 0o777 == 0o600
    lines = dict(line.split("=", 1) for line in path.read_text().splitlines())
    assert lines["spark.master"] == "local-metier"
    assert lines["spark.driver.host"] == "127.9.0.1"
    assert lines["spark.metier.app.id"] == "app-1"
    assert lines["spark.x"] == "a=b\\\\c\\n \\u00e9"
    secret = lines["spark.authenticate.secret"]
    assert secret == spark.shared_secret(environment) and len(secret) == 64
    assert not any(secret in word or "secret of the run" in word for word in words)


def test_a_missing_dependency_is_named_before_anything_starts(environment: dict[str, str], tmp_path: Path) -> None:
    start = {"app": "a", "conf": {"spark.jars": "/nowhere/a.jar,hdfs://h/b.jar"}}
    with pytest.raises(NotFound, match=r"there is no jar /nowhere/a\.jar on this machine"):
        spark.driver_command(start, environment, str(tmp_path / "work"))


@pytest.mark.parametrize(("version", "major"), [("17.0.15", 17), ("1.8.0_392", 8), ("21", 21)])
def test_reads_the_version_of_java(tmp_path: Path, version: str, major: int) -> None:
    assert spark.java_version(str(java_at(tmp_path / "j", version) / "bin" / "java")) == major


def test_no_java_and_an_old_one_are_refused_with_the_command_that_installs_it(
    environment: dict[str, str], tmp_path: Path, home: Path
) -> None:
    with pytest.raises(spark.SparkMissing, match="apt-get install openjdk-17-jre-headless"):
        spark.find_java({"PATH": str(tmp_path)}, str(home))
    with pytest.raises(spark.SparkMissing, match=r"needs Java 17 or newer, .* is 11"):
        spark.find_java({"JAVA_HOME": str(java_at(tmp_path / "old", "11.0.2"))}, str(home))
    (home / "jars" / "spark-core_2.13-4.3.0.jar").rename(home / "jars" / "spark-core_2.12-3.5.9.jar")
    assert spark.spark_version(str(home)) == (3, "2.12")
    assert spark.find_java({"JAVA_HOME": str(tmp_path / "old")}, str(home)).endswith("/bin/java")


def test_no_pyspark_is_refused_with_the_requirement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark, "find_spec", lambda name: None)
    with pytest.raises(spark.SparkMissing, match="add the requirement pyspark=="):
        spark.spark_home({})


def test_services_by_address_and_by_name(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    environment["METIER_SPARK_SERVICE"] = "spark://127.0.0.1:7077"
    spark.use_service(environment)
    assert os.environ["PYSPARK_SUBMIT_ARGS"].startswith("--master spark://127.0.0.1:7077 ")
    environment["METIER_SPARK_SERVICE"] = "analytics"
    with pytest.raises(InvalidArgument, match="METIER_SPARK_SERVICE_ANALYTICS is not set"):
        spark.use_service(environment)
    environment["METIER_SPARK_SERVICE_ANALYTICS"] = "sc://127.0.0.1:15002"
    monkeypatch.setattr(spark, "find_spec", lambda name: object())
    spark.use_service(environment)
    assert os.environ["SPARK_REMOTE"] == "sc://127.0.0.1:15002"
    monkeypatch.setattr(spark, "find_spec", lambda name: None if name == "grpc" else object())
    with pytest.raises(spark.SparkMissing, match="lacks: grpcio"):
        spark.use_service(environment)


def test_wrong_words_are_a_usage_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert spark.main(["executer"]) == 2
    assert "usage:" in capsys.readouterr().err
