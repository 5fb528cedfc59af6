"""Kind spark on the real engine: a driver and executors as pods, what is lost and what is left."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.server import Server, free_port

PATIENCE = 900.0  # how long a JVM takes on a busy machine is no part of what is tested
only_all = pytest.mark.skipif(not os.environ.get("METIER_TEST_ALL"), reason="tested under --all")


def run(server: Server, folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    done = server.metier("run", *arguments, "-o", "json", cwd=folder, timeout=PATIENCE)
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr


def begin(server: Server, folder: Path, *arguments: str) -> str:
    """Submits without waiting; gives the run's uid."""
    done = server.metier("run", *arguments, "--detach", "-o", "json", cwd=folder, timeout=120)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["metadata"]["uid"])


def pods_of(server: Server, uid: str) -> dict[str, dict[str, Any]]:
    answer = server.call("GET", "/api/metier/v1/pods?project=default").json()
    return {p["metadata"]["name"]: p for p in answer["pods"] if p["metadata"]["labels"].get("mlrun/uid") == uid}


def state_of(server: Server, uid: str) -> dict[str, Any]:
    run = server.call("GET", f"/api/v1/projects/default/runs/{uid}").json()["data"]
    return dict(run["status"])


def wait_for(what: str, check: Any, seconds: float = PATIENCE) -> Any:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        found = check()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {seconds} s")


def processes_of(server: Server, pod: str = "") -> list[int]:
    """Processes of this server's runs, by their environment; the pod that writes archives is none of a run."""
    out = []
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if b"-archiver\0" in environment:
            continue
        if str(server.data).encode() in environment and b"METIER_POD_NAME=" + pod.encode() in environment:
            out.append(int(entry.name))
    return out


def java_of(server: Server, pod: str) -> int:
    for pid in processes_of(server, pod):
        try:
            if b"java" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
                return pid
        except OSError:
            continue
    return 0


def number_of(pod: str) -> int:
    return int(pod.rpartition("-exec-")[2]) if "-exec-" in pod else 0


def executors_of(server: Server, uid: str) -> dict[int, int]:
    """The JVM of each executor that lives, by the executor's number."""
    found = {number_of(pod): java_of(server, pod) for pod in pods_of(server, uid) if number_of(pod)}
    return {number: pid for number, pid in found.items() if pid}


MAPS = """
import os
from pathlib import Path

def maps(context):
    from pyspark.sql import SparkSession
    SparkSession.builder.getOrCreate().range(10).count()
    tasks = Path(f"/proc/{os.getpid()}/task")
    children = [int(one) for path in tasks.glob("*/children") for one in path.read_text().split()]
    found = {line.split()[-1] for child in children for line in Path(f"/proc/{child}/maps").read_text().splitlines() if ".jsa" in line}
    context.log_result("mapped", len([one for one in found if "/driver-" in one]))
"""


def archives_of(server: Server) -> list[str]:
    return [path.name for path in server.data.glob("spark/*/*.jsa*")]


def page_of(server: Server, uid: str) -> dict[str, Any]:
    [page] = server.call("GET", f"/api/metier/v1/projects/default/runs/{uid}/ui").json()["pages"]
    assert page["name"] == "spark"
    assert server.call("GET", page["path"], token="").status == 401
    return dict(page)


def test_a_job_uses_both_executors_and_leaves_nothing(server: Server, folder: Path, brought: list[str]) -> None:
    wish = ["--kind", "spark", "--replicas", "2", "-p", "n=1000", *brought]
    code, done, errors = run(server, folder, "brings.py:total", *wish)
    assert code == 0, errors
    results = done["status"]["results"]
    assert results["sum"] == 999000 + 1000
    assert results["master"] == "local-metier"
    name = done["metadata"]["name"]
    assert len(results["places"]) == 2
    assert all(place.startswith(name) and "-exec-" in place for place in results["places"])
    kept = {a["metadata"]["key"]: a["spec"]["target_path"] for a in done["status"]["artifacts"]}
    assert set(kept) == {"spark-events", "squares"}
    assert '"Event":"SparkListenerApplicationEnd"' in Path(kept["spark-events"]).read_text()
    driver = next(p for n, p in pods_of(server, done["metadata"]["uid"]).items() if n.endswith("-driver"))
    assert driver["status"]["phase"] == "Succeeded"
    wait_for("processes end", lambda: not processes_of(server), 90)
    # Archives are made of what this run's JVMs recorded, after its end and in a pod of their own: none of it is the run's.
    assert {name.partition("-")[0] for name in archives_of(server)} == {"driver", "executor"}
    described = server.metier("describe", done["metadata"]["uid"]).stdout
    assert "ProcessOOMKilled" not in described and "archiver" not in described
    page = page_of(server, done["metadata"]["uid"])  # of the event log: no process of Spark's is left
    text = server.call("GET", page["path"]).body.decode()
    assert not page["live"] and "executor" in text.lower() and "collect at" in text, text[:2000]


@only_all
def test_archives_of_classes_are_made_and_used(server: Server, folder: Path) -> None:
    (folder / "maps.py").write_text(MAPS)
    for mapped in (None, 1):
        code, done, errors = run(server, folder, "maps.py:maps", "--kind", "spark")
        assert code == 0, errors
        assert mapped in (None, done["status"]["results"]["mapped"]), archives_of(server)
        wait_for("archives", lambda: all(name.endswith(".jsa") for name in archives_of(server)), 600)
    assert "ProcessOOMKilled" not in server.metier("describe", done["metadata"]["uid"]).stdout


def test_an_exception_in_a_task_fails_the_run_with_its_words(server: Server, folder: Path) -> None:
    code, done, _ = run(server, folder, "count.py:fail", "--kind", "spark")
    assert code == 1
    assert done["status"]["state"] == "error"
    assert "no such luck" in done["status"]["error"]


def ended(server: Server, uid: str) -> dict[str, Any]:
    return dict(wait_for("the end", lambda: (s := state_of(server, uid))["state"] in ("completed", "error") and s))


@only_all
def test_an_event_log_that_the_function_asks_for_is_kept_too(server: Server, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "m").touch()
    code, done, errors = run(
        server, folder, "count.py:once", "--kind", "spark", "--set", 'spec.spark_conf={"spark.eventLog.enabled": true}',
        "-p", f"marker={tmp_path / 'm'}",
    )  # fmt: skip
    assert code == 0, errors
    [kept] = [a["spec"]["target_path"] for a in done["status"]["artifacts"]]
    assert '"Event":"SparkListenerApplicationEnd"' in Path(kept).read_text()
    assert not page_of(server, done["metadata"]["uid"])["live"]


def test_a_lost_executor_and_a_lost_server_cost_the_job_nothing(server: Server, folder: Path) -> None:
    uid = begin(server, folder, "count.py:slow", "--kind", "spark", "--replicas", "2", "-p", "seconds=16")
    wait_for("tasks", lambda: "session is ready" in server.metier("logs", uid).stdout)
    # Not the first ones in any case: a busy machine may have lost one before the tasks began.
    executors = wait_for("two executors", lambda: len(found := executors_of(server, uid)) == 2 and found)
    last = max(executors)
    os.kill(executors[last], signal.SIGKILL)
    progress = wait_for("progress", lambda: progress_of(server, uid))
    assert progress["tasks"]["total"] == 16
    assert "/16 tasks" in server.metier("describe", uid).stdout
    page = page_of(server, uid)  # Spark's own
    assert page["live"]
    assert "Spark Jobs" in server.call("GET", page["path"] + "jobs/").body.decode()
    [application] = server.call("GET", page["path"] + "api/v1/applications").json()
    assert application["attempts"][0]["completed"] is False
    before = set(processes_of(server))
    server.kill()
    server.start()
    assert before & set(processes_of(server)), "its processes live on"
    status = ended(server, uid)
    assert status["state"] == "completed", status
    assert status["results"]["tasks"] == 16
    assert any(number_of(n) > last for n in pods_of(server, uid)), "its place was taken"


def progress_of(server: Server, uid: str) -> dict[str, Any]:
    answer = server.call("GET", f"/api/metier/v1/runs/{uid}/parts?project=default").json()
    progress = answer["progress"] or {}
    return progress if progress.get("tasks", {}).get("total") else {}


def kill_driver(server: Server, uid: str) -> None:
    driver = next(n for n in pods_of(server, uid) if n.endswith("-driver"))
    jvm = Path(f"/proc/{java_of(server, driver)}/stat").read_text()
    os.kill(int(jvm.rpartition(")")[2].split()[1]), signal.SIGKILL)  # its parent, the user's Python


@only_all
def test_executors_have_the_modules_of_a_source_archive(server: Server, folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "code.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("helper.py", "def power(x):\n    return x * x\n")
        packed.writestr(
            "mod.py",
            "from helper import power\n"
            "def total(context):\n"
            "    from pyspark.sql import SparkSession\n"
            "    numbers = SparkSession.builder.getOrCreate().sparkContext.parallelize(range(4), 2)\n"
            "    context.log_result('sum', numbers.map(power).map(lambda x: x + 1).sum())\n",
        )
    for loads in (True, False):
        file = tmp_path / "function.yaml"
        build = {"source": str(archive), "load_source_on_run": loads}
        spec = {"default_handler": "mod.total", "build": build, "replicas": 1}
        file.write_text(json.dumps({"kind": "spark", "metadata": {"name": "packed"}, "spec": spec}))
        code, run_, err = run(server, folder, "-f", str(file))
        assert (code, run_["status"]["results"]) == (0, {"sum": 18}), err


@only_all
def test_a_lost_driver_ends_the_run_with_its_cause(server: Server, folder: Path) -> None:
    uid = begin(server, folder, "count.py:slow", "--kind", "spark", "-p", "seconds=100")
    wait_for("tasks", lambda: "session is ready" in server.metier("logs", uid).stdout)
    kill_driver(server, uid)
    status = ended(server, uid)
    assert (status["state"], status["reason"]) == ("error", "Killed(SIGKILL)"), status
    assert re.fullmatch(r"the driver pod \S+-driver was killed by SIGKILL", status["error"]), status
    wait_for("processes end", lambda: not processes_of(server), 90)


@only_all
def test_a_driver_starts_again_by_its_policy(server: Server, folder: Path, tmp_path: Path) -> None:
    policy = {"type": "OnFailure", "retries": 1, "retry_interval": 1}
    wish = ["--kind", "spark", "--set", f"spec.restart_policy={json.dumps(policy)}", "-p", f"marker={tmp_path / 'm'}"]
    code, done, errors = run(server, folder, "count.py:once", *wish)
    assert code == 0, errors
    assert done["status"]["results"]["total"] == 45
    drivers = [n for n in pods_of(server, done["metadata"]["uid"]) if n.endswith("-driver")]
    assert len(drivers) == 2
    assert "first attempt" in server.metier("logs", done["metadata"]["uid"], "--part", "driver").stdout


def test_executors_come_with_need_and_go_without(server: Server, folder: Path) -> None:
    conf = {
        "spark.dynamicAllocation.executorIdleTimeout": "3s",
        "spark.dynamicAllocation.shuffleTracking.timeout": "3s",
    }
    wish = ["--min", "1", "--max", "3", "--set", f"spec.spark_conf={json.dumps(conf)}"]
    code, done, errors = run(server, folder, "count.py:waves", "--kind", "spark", *wish)
    assert code == 0, errors
    results = done["status"]["results"]
    assert results["counts"] == [8, 8, 8]
    assert results["most"] == 3
    assert results["least"] == 1
    assert results["again"] == 6
    # The executors that went are told like those that stayed, and their logs are kept.
    executors = [part for part in done["status"]["parts"] if part["role"] == "executor"]
    gone = [part for part in executors if part["state"] == "removed"]
    assert len(executors) >= 3 and gone, executors
    for part in gone:
        assert "Executor" in server.metier("logs", done["metadata"]["uid"], "--part", part["name"]).stdout, part


def test_abort_ends_every_part(server: Server, folder: Path) -> None:
    uid = begin(server, folder, "count.py:slow", "--kind", "spark", "-p", "seconds=200")
    wait_for("tasks", lambda: "session is ready" in server.metier("logs", uid).stdout)
    assert server.metier("abort", uid, timeout=120).returncode == 0
    assert state_of(server, uid)["state"] == "aborted"
    wait_for("processes end", lambda: not processes_of(server), 90)


def test_a_port_that_is_taken_names_its_holder(server: Server, folder: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        conf = f"spec.spark_conf={json.dumps({'spark.ui.port': str(port)})}"
        done = server.metier("run", "count.py:total", "--kind", "spark", "--set", conf, cwd=folder, timeout=PATIENCE)
    assert done.returncode == 5, done.stdout + done.stderr
    assert f"in use by process {os.getpid()} (" in done.stderr, done.stderr
    assert f"port {port} of its address 127." in done.stderr, done.stderr
    assert "or set spark.ui.port" in done.stderr and "in your code" not in done.stderr
    assert "PortTaken" in server.metier("why", "@-1").stdout
    wait_for("processes end", lambda: not processes_of(server), 90)


def test_pages_and_progress_are_found_at_the_users_port(server: Server, folder: Path) -> None:
    port = free_port()
    conf = f"spec.spark_conf={json.dumps({'spark.ui.port': str(port)})}"
    uid = begin(server, folder, "count.py:slow", "--kind", "spark", "-p", "seconds=200", "--set", conf)
    wait_for("progress", lambda: progress_of(server, uid))
    page = page_of(server, uid)
    assert page["live"] and "Spark Jobs" in server.call("GET", page["path"] + "jobs/").body.decode()
    assert server.metier("abort", uid, timeout=120).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kind", "spark", "--replicas", "0"], "--replicas"),
        (["--kind", "spark", "--min", "3", "--max", "2"], "--min"),
        (["--kind", "spark", "--mem", "900Gi"], "memory"),
    ],
)
def test_wrong_use_is_one_sentence(server: Server, folder: Path, arguments: list[str], says: str) -> None:
    done = server.metier("run", "count.py:total", *arguments, cwd=folder)
    assert done.returncode in (2, 5), done.stdout
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
