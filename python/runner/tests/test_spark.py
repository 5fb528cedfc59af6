"""Command lines, properties and refusals of Spark's part in pods; no JVM is started here (tests/spark does)."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest

from metier_runner import failure, spark, spark_archive, spark_connect
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


@pytest.mark.parametrize(
    ("conf", "place"),
    [
        ({}, "the run's"),
        ({"spark.eventLog.enabled": "true"}, "the run's"),
        ({"spark.eventLog.enabled": "True"}, "the run's"),
        ({"spark.eventLog.enabled": "False"}, None),
        ({"spark.eventLog.enabled": "true", "spark.eventLog.dir": "/logs"}, "/logs"),
    ],
)
def test_an_event_log_without_a_place_is_kept_with_the_run(
    environment: dict[str, str], tmp_path: Path, conf: dict[str, str], place: str | None
) -> None:
    folder = tmp_path / "work"
    spark.driver_command({"app": "a", "conf": conf}, environment, str(folder))
    lines = dict(line.split("=", 1) for line in (folder / "spark.properties").read_text().splitlines())
    kept = place == "the run's"
    assert lines.get("spark.eventLog.dir") == (f"file://{folder}/spark-events" if kept else place)
    assert (folder / "spark-events").is_dir() == kept


def test_a_missing_dependency_is_named_before_anything_starts(environment: dict[str, str], tmp_path: Path) -> None:
    start = {"app": "a", "conf": {"spark.jars": "/nowhere/a.jar,hdfs://h/b.jar"}}
    with pytest.raises(NotFound, match=r"there is no jar /nowhere/a\.jar on this machine"):
        spark.driver_command(start, environment, str(tmp_path / "work"))


def test_what_an_application_brings_is_on_its_drivers_path_as_spark_submit_has_it(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/before")
    environment["PYTHONPATH"] = "/before"
    (tmp_path / "lib").mkdir()
    for name in ("lib/one.py", "lib/beside.py", "two.zip"):
        (tmp_path / name).touch()
    files = f"file://{tmp_path}/lib/one.py,{tmp_path}/two.zip,hdfs://h/three.py"
    assert spark.bring_modules(environment, files) == [f"{tmp_path}/lib/one.py", f"{tmp_path}/two.zip"]
    own, *others = environment["PYTHONPATH"].split(os.pathsep)
    assert os.listdir(own) == ["one.py"] and others == [f"{tmp_path}/two.zip", "/before"]
    assert os.environ["PYTHONPATH"] == environment["PYTHONPATH"]
    assert spark.bring_modules({}, "") == []
    with pytest.raises(NotFound, match=r"there is no Python file /nowhere/a\.py on this machine"):
        spark.bring_modules(environment, "/nowhere/a.py")


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
    with pytest.raises(spark.SparkMissing, match=r"needs 'pyspark==4.*', 'pandas<3', which environment .* --requirements FILE") as refused:
        spark.spark_home({})
    assert failure.describe(refused.value)["code"] == "EngineMissing"


def test_services_by_address_and_by_name(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(spark_connect, "reach", lambda *asked: None)
    environment["METIER_SPARK_SERVICE"] = "spark://127.0.0.1:7077"
    spark_connect.use_service(environment)
    assert os.environ["PYSPARK_SUBMIT_ARGS"].startswith("--master spark://127.0.0.1:7077 ")
    environment["METIER_SPARK_SERVICE"] = "analytics"
    with pytest.raises(InvalidArgument, match="METIER_SPARK_SERVICE_ANALYTICS is not set"):
        spark_connect.use_service(environment)
    environment["METIER_SPARK_SERVICE_ANALYTICS"] = "sc://127.0.0.1:15002"
    monkeypatch.setattr(spark_connect, "find_spec", lambda name: object())
    spark_connect.use_service(environment)
    assert os.environ["SPARK_REMOTE"] == "sc://127.0.0.1:15002"
    monkeypatch.setattr(spark_connect, "find_spec", lambda name: None if name == "grpc" else object())
    with pytest.raises(spark.SparkMissing, match="needs 'grpcio', which environment"):
        spark_connect.use_service(environment)


def test_a_service_where_nobody_listens_is_named_at_once(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(spark_connect, "find_spec", lambda name: object())
    monkeypatch.setattr(spark_connect, "PATIENCE", 0.01)
    with socket.create_server(("127.0.0.9", 0)) as listener:
        port = listener.getsockname()[1]
        environment["METIER_SPARK_SERVICE"] = f"spark://127.0.0.9:1,127.0.0.9:{port}"
        spark_connect.use_service(environment)
    for address in (f"spark://127.0.0.9:{port}", f"sc://127.0.0.9:{port}/;user_id=a"):
        environment["METIER_SPARK_SERVICE"] = address
        with pytest.raises(spark_connect.ServiceUnavailable, match=f"answers at 127.0.0.9:{port}: Connection refused") as refused:
            spark_connect.use_service(environment)
        assert f"METIER_SPARK_SERVICE={address})" in str(refused.value)
        assert failure.describe(refused.value)["code"] == "ServiceUnavailable"
    assert "SPARK_REMOTE" not in environment
    environment |= {"METIER_SPARK_SERVICE": "site", "METIER_SPARK_SERVICE_SITE": f"sc://127.0.0.9:{port}"}
    with pytest.raises(spark_connect.ServiceUnavailable, match=f"METIER_SPARK_SERVICE=site, which is sc://127.0.0.9:{port}"):
        spark_connect.use_service(environment)


@pytest.mark.parametrize("address", ["spark://host", "spark://host:x", "spark://:7077", "sc://host:70000", "sc://", "spark://a:1,b"])
def test_an_address_without_host_and_port_is_refused(environment: dict[str, str], address: str) -> None:
    environment["METIER_SPARK_SERVICE"] = address
    with pytest.raises(InvalidArgument, match="is not HOST:PORT with a port from 1 to 65535"):
        spark_connect.use_service(environment)
    assert spark_connect.places_of("sc://host/;token=a") == [("host", 15002)]
    assert spark_connect.places_of("sc://[::1]/") == [("::1", 15002)] and spark_connect.places_of("sc://[::1]:2") == [("::1", 2)]


def test_wrong_words_are_a_usage_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert spark.main(["executer"]) == 2
    assert "usage:" in capsys.readouterr().err


def submit_of(java: str, option: str = "") -> list[str]:
    return [java, *filter(None, [option]), "org.apache.spark.deploy.SparkSubmit", "pyspark-shell"]


def test_packages_that_cannot_be_brought_are_named(tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text('#!/bin/sh\n[ "$1" != -Wrong ]\n')
    java.chmod(0o755)
    conf = {"spark.jars.packages": "org.example:none:1.0, org.example/two:2", "spark.jars.ivy": str(tmp_path)}
    error = spark.ended_early(1, conf, submit_of(str(java)))
    assert "deps.packages could not be brought: org.example:none:1.0, org.example/two:2 (" in str(error)
    assert failure.describe(error)["code"] == "StartFailed"
    assert "exit code 1" in str(spark.ended_early(1, conf, submit_of(str(java), "-Wrong"))), "Java had not begun"
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "org.example_two-2.jar").touch()
    assert spark.missing_jars(conf) == ["org.example:none:1.0"]
    (tmp_path / "jars" / "org.example_none-1.0.jar").touch()
    assert "exit code 3" in str(spark.ended_early(3, conf, submit_of(str(java)))), "they were brought"
    assert "exit code 3" in str(spark.ended_early(3, {}, submit_of(str(java))))
    killed = spark.ended_early(-9, conf, submit_of(str(java)))
    assert str(killed) == "the driver's JVM was killed by signal 9 (Killed)"
    assert failure.describe(killed)["code"] == "Killed"


PROGRAM = """#!/bin/sh
case "$*" in *-version*) exit 0;; esac
events=$(dirname "$METIER_JOURNAL")/spark-events
[ "$KIND" = silent ] || echo '{"Event":"one"}' > "$events/app-1.inprogress"
[ "$KIND" = good ] && exec mv "$events/app-1.inprogress" "$events/app-1"
[ "$KIND" = killed ] && kill -9 $$
exit 3
"""


@pytest.mark.parametrize(("kind", "code"), [("good", 0), ("bad", 3), ("killed", -9), ("silent", 1)])
def test_the_event_log_of_a_program_is_kept_with_its_run(environment: dict[str, str], tmp_path: Path, kind: str, code: int) -> None:
    (tmp_path / "java" / "bin" / "java").write_text(PROGRAM)
    (tmp_path / "p.jar").touch()
    (tmp_path / "empty").mkdir()
    run = {"metadata": {"name": "r", "uid": "u", "project": "p"}, "spec": {"output_path": str(tmp_path / "out")}}
    conf = {"spark.jars.packages": "org.example:none:1.0", "spark.jars.ivy": str(tmp_path / "empty")}
    more = {
        "PYTHONPATH": str(Path(spark.__file__).resolve().parents[1]),
        "KIND": kind,
        "METIER_SPARK": json.dumps({"app": "a", "conf": conf, "main_class": "A"}),
        "MLRUN_EXEC_CONFIG": json.dumps(run),
    }
    words = [sys.executable, "-m", "metier_runner.spark", "driver", str(tmp_path / "p.jar")]
    done = subprocess.run(words, env={**os.environ, **environment, **more}, check=False, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    journal = tmp_path / "work" / "journal"
    records = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    if kind == "silent":
        assert records[-1]["body"]["code"] == "StartFailed" and "org.example:none:1.0" in records[-1]["body"]["message"]
        return
    [kept] = [one for one in records if one["op"] == "store_artifact"]
    assert kept["body"]["metadata"]["key"] == "spark-events" and kept["tree"] == "u"
    assert Path(kept["body"]["spec"]["target_path"]).read_text() == '{"Event":"one"}\n'
    assert not any("status.state" in one["body"] for one in records), "the pod's end is the run's"


def test_a_program_that_cannot_start_tells_the_run_why(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "environ", {**environment, "METIER_SPARK": json.dumps({"app": "a"})})
    assert spark.main(["driver", "/nowhere/p.jar"]) == 1
    assert "there is no jar /nowhere/p.jar" in capsys.readouterr().err
    record = json.loads((tmp_path / "work" / "journal").read_text().splitlines()[-1])
    assert record["op"] == "failure" and record["body"]["code"] == "StartFailed"


def archive(tmp_path: Path, jars: Path, version: int = 17) -> spark_archive.Archive:
    return spark_archive.Archive(str(tmp_path / "spark"), "driver", str(tmp_path / "java"), version, f"{jars}/*:{tmp_path}/own.jar")


def record(one: spark_archive.Archive, classes: str = "java/lang/Object\n", code: int = 0) -> None:
    """As its JVM would, which then ends."""
    recorded = next(word.split("=", 1)[1] for word in one.options if word.startswith("-XX:DumpLoadedClassList="))
    Path(recorded).write_text(classes)
    one.keep(code)
    assert not os.path.exists(recorded)


# As the JVM: it takes comments and names of classes.
WRITES = """
for a in "$@"; do case $a in
  -XX:SharedClassListFile=*) grep -vE '^#|^[^ ]+$' "${a#*=}" && exit 1 ;;
  -XX:SharedArchiveFile=*) echo "$@" > "${a#*=}" ;;
esac; done
"""


def java(tmp_path: Path, script: str = WRITES) -> None:
    (tmp_path / "java").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "java").chmod(0o755)


def test_an_archive_is_made_once_and_used_while_the_class_path_is_the_same(tmp_path: Path) -> None:
    java(tmp_path)
    jars = tmp_path / "jars"
    jars.mkdir()
    (jars / "a.jar").write_bytes(b"1")
    first = archive(tmp_path, jars)
    assert first.has_work
    record(first, "# NOTE: Do not modify this file.\n" + "".join(f"a/B{n}\n" for n in range(spark_archive.CLASSES[0] + 5)))
    listed = Path(first.path + spark_archive.LIST)
    assert len(listed.read_text().splitlines()) == spark_archive.CLASSES[0] + 2, "half of a driver's are nearly all of the gain"
    second = archive(tmp_path, jars)
    assert second.options == [] and not second.has_work, "recorded once"
    spark_archive.make(str(tmp_path / "spark"))
    words = Path(first.path).read_text()
    assert words.startswith("-Xshare:dump ") and words.rstrip().endswith(f"-cp {jars}/*:{tmp_path}/own.jar")
    assert not listed.exists()
    third = archive(tmp_path, jars)
    assert not third.has_work and f"-XX:SharedArchiveFile={first.path}" in third.options
    (jars / "b.jar").write_bytes(b"2")
    assert archive(tmp_path, jars).has_work, "another class path"
    assert archive(tmp_path, jars, 11).options == [], "an old JVM knows no such archive"


def test_an_archive_that_was_not_finished_is_none(tmp_path: Path) -> None:
    (tmp_path / "jars").mkdir()
    own = tmp_path / "spark" / str(os.geteuid())
    for classes, code in (("", 0), ("java/lang/Object\n", -9)):
        record(archive(tmp_path, tmp_path / "jars"), classes, code)
        assert list(own.iterdir()) == []
    idle = archive(tmp_path, tmp_path / "jars")
    idle.use_only()
    assert idle.options == [] and not idle.has_work
    idle.keep(0)
    java(tmp_path, 'kill -9 "$$"')
    slow = archive(tmp_path, tmp_path / "jars")
    record(slow)
    spark_archive.make(str(tmp_path / "spark"))
    assert [one.name for one in own.iterdir()] == [os.path.basename(slow.path) + spark_archive.FAILED]
    assert not archive(tmp_path, tmp_path / "jars").has_work, "it is not tried again"
    os.utime(slow.path + spark_archive.FAILED, (0, 0))
    assert archive(tmp_path, tmp_path / "jars").has_work, "not on that day"


def test_an_archive_is_of_fewer_classes_where_so_many_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "jars").mkdir()
    one = archive(tmp_path, tmp_path / "jars")
    record(one, "".join(f"a/B{n}\n" for n in range(spark_archive.CLASSES[0])))
    few = 'for a in "$@"; do case $a in -XX:SharedClassListFile=*) [ $(wc -l < "${a#*=}") -gt 5000 ] && exit 1 ;; esac; done'
    java(tmp_path, few + WRITES)
    spark_archive.make(str(tmp_path / "spark"))
    assert os.listdir(os.path.dirname(one.path)) == [os.path.basename(one.path)]


def test_one_process_at_a_time_writes_an_archive(tmp_path: Path) -> None:
    (tmp_path / "jars").mkdir()
    java(tmp_path)
    one = archive(tmp_path, tmp_path / "jars")
    record(one)
    with open(one.path + spark_archive.LIST) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        spark_archive.make(str(tmp_path / "spark"))
        assert not os.path.exists(one.path)
    spark_archive.make(str(tmp_path / "spark"))
    assert os.path.exists(one.path)


def test_archives_of_a_folder_that_others_may_write_are_not_trusted(tmp_path: Path) -> None:
    own = tmp_path / "spark" / str(os.geteuid())
    own.mkdir(parents=True)
    own.chmod(0o777)
    (tmp_path / "jars").mkdir()
    assert archive(tmp_path, tmp_path / "jars").options == []


def test_old_archives_go(tmp_path: Path) -> None:
    java(tmp_path)
    (tmp_path / "jars").mkdir()
    for number in range(spark_archive.MOST + 2):
        (tmp_path / "jars" / f"{number}.jar").write_bytes(b"")
        one = archive(tmp_path, tmp_path / "jars")
        record(one, code=143)
        spark_archive.make(str(tmp_path / "spark"))
        os.utime(one.path, (number, number))
    assert len(list(Path(one.path).parent.glob("*.jsa"))) <= spark_archive.MOST + 1


def test_the_connect_server_gets_its_place_and_its_size(environment: dict[str, str], home: Path, tmp_path: Path) -> None:
    start = {"app": "warm-spark-1", "cores": 2, "memory": "1536m", "conf": {"spark.x": "y"}}
    with pytest.raises(spark.SparkMissing, match="needs a Connect server, which the pyspark of environment"):
        spark_connect.server_command(start, environment, str(tmp_path / "work"))
    (home / "jars" / "spark-connect_2.13-4.3.0.jar").write_bytes(b"")
    words = spark_connect.server_command(start, environment, str(tmp_path / "work"))
    assert "-Xmx1536m" in words and words[words.index("--class") + 1] == spark_connect.SERVER
    lines = dict(line.split("=", 1) for line in (tmp_path / "work" / "spark.properties").read_text().splitlines())
    assert lines["spark.master"] == "local[2]"
    assert lines["spark.connect.grpc.binding.address"] == "127.9.0.1"
    assert "spark.eventLog.dir" not in lines
    start["conf"] = {"spark.eventLog.enabled": "True"}
    spark_connect.server_command(start, environment, str(tmp_path / "work"))
    assert f"spark.eventLog.dir=file://{tmp_path}/work/spark-events\n" in (tmp_path / "work" / "spark.properties").read_text()


def test_connected_clients_are_counted_and_idleness_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.9", 0)) as listener:
        port = listener.getsockname()[1]
        assert spark_connect.listens("127.0.0.9", port) and spark_connect.connections("127.0.0.9", port) == 0
        with socket.create_connection(("127.0.0.9", port)):
            other, _ = listener.accept()
            assert spark_connect.connections("127.0.0.9", port) == 1
            other.close()
    assert not spark_connect.listens("127.0.0.9", port)

    class Jvm:
        alive = True

        def poll(self) -> int | None:
            return None if self.alive else 3

    monkeypatch.setattr(spark_connect, "LOOK_EVERY", 0.001)
    jvm, seen, ready = Jvm(), [1, 1], [False, False]

    def clients() -> int:
        return seen.pop() if seen else 0

    assert spark_connect.watch(jvm, 0.01, clients, lambda: not ready or ready.pop()) is True
    assert not seen and not ready, "it waited until it was ready, and for its clients"
    jvm.alive = False
    assert spark_connect.watch(jvm, 60, clients, lambda: True) is False, "it ended by itself"


def test_what_a_connect_session_lacks_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unsupported(Exception):
        def getCondition(self) -> str:
            return "JVM_ATTRIBUTE_NOT_SUPPORTED"

    Unsupported.__module__ = "pyspark.errors.exceptions.base"
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    assert failure.describe(Unsupported("sparkContext"))["hint"] == ""
    monkeypatch.setenv("SPARK_REMOTE", "sc://127.0.0.1:15002")
    assert "leave spec.warm out" in failure.describe(Unsupported("sparkContext"))["hint"]


@pytest.mark.parametrize("code,told", [(0, 0), (3, 3), (-9, -9), (-15, -15)])
def test_who_waits_for_a_jvm_ends_as_it_did(code: int, told: int) -> None:
    source = f"import sys; from metier_runner import spark; sys.exit(spark.end_like({code}))"
    path = str(Path(spark.__file__).resolve().parents[1])
    done = subprocess.run([sys.executable, "-c", source], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == told


def a_session(environment: dict[str, str], status: int | None) -> spark.Session:
    session = spark.Session(environment)
    if status is not None:
        code = "import time; time.sleep(60)" if status < 0 else f"raise SystemExit({status})"
        session._gateway = subprocess.Popen([sys.executable, "-IS", "-c", code], stdin=subprocess.PIPE)
        if status < 0:
            session._gateway.send_signal(-status)
        assert session._gateway.wait() == status
    return session


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (-9, "Killed", "the driver's JVM was killed by signal 9 (Killed)"),
        (3, "ExitCode", "the driver's JVM ended by itself with exit code 3: its lines above say why"),
    ],
)
def test_what_is_raised_after_the_drivers_jvm_has_ended_names_it(status: int, code: str, words: str) -> None:
    class Py4JNetworkError(Exception):
        pass

    try:
        raise RuntimeError("an error occurred while calling o12") from Py4JNetworkError("answer from Java side is empty")
    except RuntimeError as error:
        lost = a_session({}, status).loss(error)
    assert lost is not None
    told = failure.describe(lost)
    assert (told["code"], told["message"], told["function"]) == (
        code,
        words,
        "test_what_is_raised_after_the_drivers_jvm_has_ended_names_it",
    )


def test_the_jvm_that_pyspark_has_started_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = types.SimpleNamespace(proc=a_session({}, -9)._gateway)
    context = types.SimpleNamespace(SparkContext=types.SimpleNamespace(_gateway=gateway))
    monkeypatch.setitem(sys.modules, "pyspark.context", context)
    assert str(a_session({}, None).loss(ConnectionResetError())) == "the driver's JVM was killed by signal 9 (Killed)"


def test_an_error_is_the_users_own_where_nothing_was_lost() -> None:
    session = a_session({}, 0)  # the user's code ended its JVM in order
    assert session.loss(ConnectionResetError("of something else")) is None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        remote = {"SPARK_REMOTE": f"sc://127.0.0.1:{listener.getsockname()[1]}"}
        assert a_session(remote, None).loss(ConnectionResetError("of something else")) is None
    assert a_session(remote, None).loss(ValueError("a wrong number")) is None
    assert "has ended: nobody listens there" in str(a_session(remote, None).loss(ConnectionResetError()))


@pytest.mark.parametrize("major", [3, 4])
def test_pyspark_does_not_try_again_where_the_service_has_ended(monkeypatch: pytest.MonkeyPatch, major: int) -> None:
    class Client:
        def can_retry(self, error: BaseException) -> bool:
            return str(error) == "unavailable"

        @classmethod
        def retry_exception(cls, error: BaseException) -> bool:
            return str(error) == "unavailable"

    for name in ("pyspark", "pyspark.sql", "pyspark.sql.connect", "pyspark.sql.connect.client"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    own = "retries" if major == 4 else "core"
    module = types.ModuleType(f"pyspark.sql.connect.client.{own}")
    setattr(module, "DefaultPolicy" if major == 4 else "SparkConnectClient", Client)
    setattr(sys.modules["pyspark.sql.connect.client"], own, module)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    looked: list[bool] = []

    def look() -> None:
        looked.append(True)
        raise spark_connect.ServiceUnavailable("it has ended")

    spark_connect.look_before_retries(look)
    tries_again = Client().can_retry if major == 4 else Client.retry_exception
    assert not tries_again(ValueError("wrong"))
    assert not looked
    with pytest.raises(spark_connect.ServiceUnavailable):
        tries_again(ValueError("unavailable"))
