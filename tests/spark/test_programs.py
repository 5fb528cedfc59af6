"""Java programs with their jars and files, and what an application brings that is not there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.server import Server
from test_spark import page_of, run

PROGRAM = """
import java.nio.file.Files;
import java.nio.file.Paths;
import org.apache.spark.SparkFiles;
import org.apache.spark.sql.SparkSession;

public class Count {
  public static void main(String[] words) throws Exception {
    SparkSession spark = SparkSession.builder().getOrCreate();
    long even = spark.range(Long.parseLong(words[0])).filter("id % 2 = 0").count();
    String text = new String(Files.readAllBytes(Paths.get(SparkFiles.get("words.txt")))).trim();
    System.out.println("even " + even + ", " + Extra.text() + ", " + text + ", " + spark.conf().get("spark.sql.shuffle.partitions"));
    spark.stop();
  }
}
"""
EXTRA = 'public class Extra { public static String text() { return "from the other jar"; } }'


def jar(folder: Path, name: str, source: str, class_path: str) -> Path:
    """`source` compiled into a jar of its own."""
    classes = folder / name
    classes.mkdir()
    (classes / f"{name}.java").write_text(source)
    javac = shutil.which("javac")
    assert javac, "scripts/setup installs a JDK"
    words = [javac, "--release", "17", "-cp", class_path, "-d", str(classes), str(classes / f"{name}.java")]
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    path = folder / f"{name.lower()}.jar"
    with zipfile.ZipFile(path, "w") as archive:
        for one in classes.glob("*.class"):
            archive.write(one, one.name)
    return path


def function_file(folder: Path, name: str, **spec: object) -> str:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"kind": "spark", "metadata": {"name": name}, "spec": spec}))
    return str(path)


def test_a_java_program_runs_with_its_jars_and_files(server: Server, python: Path, tmp_path: Path) -> None:
    jars = next((python.parent.parent / "lib").glob("python3*/site-packages/pyspark/jars"))
    extra = jar(tmp_path, "Extra", EXTRA, ".")
    program = jar(tmp_path, "Count", PROGRAM, f"{jars}/*:{extra}")
    (tmp_path / "words.txt").write_text("some words\n")
    deps = {"jars": [str(extra)], "files": [str(tmp_path / "words.txt")]}
    conf = {"spark.sql.shuffle.partitions": 3}
    common = {"command": str(program), "job_type": "Java", "main_class": "Count", "deps": deps, "spark_conf": conf}
    code, done, errors = run(server, tmp_path, "-f", function_file(tmp_path, "even", **common, args=["1001"]))
    assert code == 0, errors
    uid = done["metadata"]["uid"]
    assert "even 501, from the other jar, some words, 3" in server.metier("logs", uid).stdout
    [kept] = done["status"]["artifacts"]
    assert kept["metadata"]["key"] == "spark-events"
    page = page_of(server, uid)
    text = server.call("GET", page["path"]).body.decode()
    assert not page["live"] and "application even-" in text and "<h2>Jobs (" in text, text


@pytest.mark.parametrize(
    ("spec", "code", "says"),
    [
        ({"command": "/nowhere/a.jar", "job_type": "Java", "main_class": "A"}, 5, "there is no jar /nowhere/a.jar"),
        ({"command": "a.jar", "job_type": "Java"}, 2, "needs its main class"),
        ({"command": "a.R", "job_type": "R"}, 5, "R are not run"),
        ({"command": "a.R"}, 5, "R are not run"),
        (
            {"command": "count.py", "executor_resources": {"requests": {"memory": "1Gi"}}},
            2,
            "Spark's own form of it is 1g",
        ),
        ({"command": "count.py", "restart_policy": {"type": "Sometimes"}}, 2, "Never, OnFailure or Always"),
        ({"command": "count.py", "warm": True, "dynamic_allocation": {"enabled": True}}, 2, "a fixed size"),
    ],
)
def test_what_cannot_run_is_said_before_spark_starts(
    server: Server, folder: Path, spec: dict[str, object], code: int, says: str
) -> None:
    done = server.metier(
        "run", "-f", function_file(folder, "wrong", **spec), "--handler", "total", cwd=folder, timeout=200
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert says in done.stderr


def test_a_jar_that_is_not_there_is_named(server: Server, folder: Path) -> None:
    function = function_file(folder, "nojar", command="count.py", deps={"jars": ["/nowhere/b.jar"]})
    done = server.metier("run", "-f", function, "--handler", "total", cwd=folder, timeout=300)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "there is no jar /nowhere/b.jar on this machine" in done.stderr


def test_no_java_and_no_pyspark_are_the_engines_fault(server: Server, folder: Path) -> None:
    done = server.metier(
        "run", "count.py:total", "--kind", "spark", "-e", "JAVA_HOME=/nowhere", cwd=folder, timeout=300
    )
    assert done.returncode == 5, done.stdout + done.stderr
    assert "apt-get install openjdk-17-jre-headless" in done.stderr
    bare = ["--python", f"{sys.version_info[0]}.{sys.version_info[1]}"]  # the one on PATH, without pyspark
    done = server.metier("run", "count.py:total", "--kind", "spark", *bare, cwd=folder, timeout=300)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "needs 'pyspark==" in done.stderr and "--requirements FILE" in done.stderr
