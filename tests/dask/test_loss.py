"""The loss of each part of a Dask run at each step of its life, on the real Dask: a cluster is there in half a second.

Steps are held by files: scheduler and workers by a preload of Dask's, tasks and handler by their own code. The table of
docs/reliability.md ("Distributed jobs") is this file's; every cell of it runs in every test run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.gang import ended, parts, state, wait_for
from support.server import Server, running

pytest.importorskip("distributed")

STOP = """
import os, time

def step(name):
    gate = os.environ["GATE"]
    if os.path.exists(f"{gate}/hold.{name}"):
        open(f"{gate}/at.{name}.{os.getpid()}", "w").close()
        while os.path.exists(f"{gate}/hold.{name}"):
            time.sleep(0.005)
"""
CODE = (
    STOP
    + """
def square(x):
    step("task")
    return x * x

def work(context):
    client = context.dask_client
    context.log_result("sum", sum(client.gather(client.map(square, range(4), pure=False))))
    step("end")

def late(context):
    step("late")
    work(context)

def shut(context):
    context.dask_client.shutdown()
"""
)
SUM = sum(x * x for x in range(4))
WORKERS = 2
# Step → what is held, and how many processes stand there then.
STEPS = {"scheduler": 1, "worker": WORKERS, "task": WORKERS, "end": 1}


class Cluster:
    """One function, its cluster, and the folder with the files that hold them."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.addresses: set[str] = set()
        self.runs: list[str] = []
        (folder / "work.py").write_text(CODE)
        for role in ("scheduler", "worker"):
            (folder / f"hold_{role}.py").write_text(f"{STOP}\nstep({role!r})\n")

    def run(self, handler: str = "work", more: list[str] | None = None) -> str:
        """Start a run of the function; its uid."""
        preloads = [
            word
            for role in ("scheduler", "worker")
            for word in ("-e", f"DASK_DISTRIBUTED__{role.upper()}__PRELOAD={self.folder}/hold_{role}.py")
        ]
        done = self.server.metier(
            "run", f"work.py:{handler}", "--name", "work", "--kind", "dask", "--replicas", str(WORKERS), "--detach", "-o", "json", "-e",
            f"GATE={self.folder}", *preloads, *(more or []), cwd=self.folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.runs.append(str(json.loads(done.stdout)["metadata"]["uid"]))
        return self.runs[-1]

    def hold(self, step: str) -> None:
        for old in self.folder.glob("at.*"):
            old.unlink()
        (self.folder / f"hold.{step}").touch()

    def standing(self, step: str) -> int:
        return len(list(self.folder.glob(f"at.{step}.*")))

    def let_go(self) -> None:
        for held in self.folder.glob("hold.*"):
            held.unlink()

    def run_to(self, step: str) -> str:
        """A run that stands at `step`; its uid."""
        self.hold(step)
        uid = self.run()
        wait_for(lambda: self.standing(step) >= STEPS[step])
        wait_for(lambda: [one["status"]["phase"] for one in self.pods().values()] == ["Running"] * (WORKERS + 2))
        if step == "end":
            wait_for(lambda: state(self.server, uid).get("results") == {"sum": SUM})
        return uid

    def pods(self, role: str = "") -> dict[str, dict[str, Any]]:
        """The pods that have not ended, of the cluster and of handlers, by name."""
        found = {}
        for pod in self.server.call("GET", "/api/metier/v1/pods?project=default").json()["pods"]:
            self.addresses.add(pod["status"].get("podIP", ""))
            of = pod["metadata"]["labels"].get("dask.org/component", "handler")
            if role in ("", of) and pod["status"].get("phase") in ("Pending", "Running"):
                found[pod["name"]] = pod
        return found

    def record(self, pod: dict[str, Any]) -> dict[str, Any]:
        """The last state that the pod's shim has written."""
        for folder in (self.server.data / "pods").iterdir():
            if folder.name.startswith(".") or (folder / "exit").exists():
                continue
            with contextlib.suppress(OSError):  # another one, that is being made or removed
                if rf"pod_ip\":\"{pod['status']['podIP']}\"" in (folder / "handle").read_text():
                    return dict(json.loads((folder / "state").read_text().partition("\n")[2]))
        raise AssertionError(pod)

    def pid(self, part: str) -> int:
        """The process of a part, of the workers the first's."""
        role, _, shim = part.partition("'s ")
        record = self.record(sorted(self.pods(role).items())[0][1])
        return int(record["shim"] if shim else record["containers"][0]["pid"])

    def kill(self, part: str) -> str:
        """SIGKILL for a part; its pod."""
        name = sorted(self.pods(part.partition("'s ")[0]))[0]
        os.kill(self.pid(part), signal.SIGKILL)
        return name

    def assert_whole(self) -> None:
        """A scheduler and its workers, and no handler."""
        wait_for(lambda: len(self.pods("worker")) == WORKERS and not self.pods("handler"))
        assert len(self.pods("scheduler")) == 1

    def shut(self, how: str) -> None:
        if how == "shutdown":
            assert_completed(self, self.run("shut"), {})
        else:
            self.close()

    def close(self) -> None:
        query = "?kind=dask&object-id=work&force=true"
        answer = self.server.call("DELETE", f"/api/v1/projects/default/runtime-resources{query}")
        assert answer.status == 200, answer.body


def processes(server: Server) -> list[str]:
    """The living processes of this server's pods, shims too: they stand in a folder of a pod."""
    out = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(server.data / "pods"):
                out.append(f"{entry.name} {(entry / 'cmdline').read_bytes()!r}")
        except OSError:
            pass
    return out


def listening(addresses: set[str]) -> list[str]:
    """The ports of these addresses that somebody listens on."""
    out = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        host, port = words[1].split(":")
        address = ".".join(str(byte) for byte in reversed(bytes.fromhex(host)))
        if words[3] == "0A" and address in addresses:
            out.append(f"{address}:{int(port, 16)}")
    return out


def assert_nothing_is_left(cluster: Cluster) -> None:
    """After the close: no process, no folder, no port of the cluster and its runs."""
    cluster.pods()
    cluster.let_go()
    cluster.close()
    wait_for(lambda: not processes(cluster.server))
    wait_for(lambda: not listening(cluster.addresses))
    for uid in cluster.runs:
        ended(cluster.server, uid)
        assert cluster.server.call("DELETE", f"/api/v1/projects/default/runs/{uid}").status < 300
    wait_for(lambda: not list((cluster.server.data / "pods").iterdir()))


def assert_completed(cluster: Cluster, uid: str, results: Any = None) -> None:
    status = ended(cluster.server, uid)
    expected = {"sum": SUM} if results is None else results
    assert (status["state"], status.get("results", {})) == ("completed", expected), status
    wait_for(lambda: {"running", "pending"}.isdisjoint(one["state"] for one in parts(cluster.server, uid).values()))


def assert_the_next_run_works(cluster: Cluster) -> None:
    cluster.let_go()
    assert_completed(cluster, cluster.run())
    cluster.assert_whole()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("m") / "data") as started:
        yield started


@pytest.fixture
def cluster(server: Server, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(server, tmp_path)
    yield made
    assert_nothing_is_left(made)


POD = r"mlrun-work-\w+"
GONE = rf"the scheduler of the Dask cluster is gone: {POD}-scheduler(-\d+)?"
SHIM = r"was lost: the pod's supervisor was killed; its exit status is not known, what was left of it was ended"
LOST = {
    "scheduler": ("SchedulerLost", rf"{GONE} was killed by signal 9"),
    "scheduler's shim": ("ShimLost", rf"{GONE} {SHIM}"),
    "handler": ("Killed(SIGKILL)", r"the handler's pod work-\w+ was killed by signal 9"),
    "handler's shim": ("ShimLost", rf"the handler's pod work-\w+ {SHIM}"),
}


def assert_over(cluster: Cluster, uid: str, stays: set[str]) -> None:
    """No part of an ended run is told to be alive; `stays`: those of a cluster that goes on."""
    wait_for(lambda: {"running", "pending"}.isdisjoint(one["state"] for one in parts(cluster.server, uid).values()))
    assert {name for name, one in parts(cluster.server, uid).items() if one["state"] == "released"} == stays


def assert_lost(cluster: Cluster, uid: str, part: str) -> None:
    """The run's error names who was lost and how; its parts have ended, but for a cluster that goes on."""
    status = ended(cluster.server, uid)
    reason, words = LOST[part]
    assert (status["state"], status["reason"]) == ("error", reason), status
    assert re.fullmatch(words, status["error"]), status["error"]
    why = json.loads(cluster.server.metier("why", uid, "-o", "json").stdout)
    assert why["code"] == reason.partition("(")[0]
    assert cluster.server.metier("help", why["code"]).returncode == 0
    cluster.let_go()  # a worker in a task leaves at its end
    stays = {"scheduler", "worker-0", "worker-1"} if part.startswith("handler") else set()
    assert_over(cluster, uid, stays)
    known = parts(cluster.server, uid)
    assert known["main" if part.startswith("handler") else "scheduler"]["state"] == "error", known
    assert re.search(rf"main +{known['main']['state']} ", cluster.server.metier("describe", uid).stdout)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("part", LOST)
def test_a_lost_part_is_the_runs_error(cluster: Cluster, step: str, part: str) -> None:
    uid = cluster.run_to(step)
    cluster.kill(part)
    assert_lost(cluster, uid, part)
    assert_the_next_run_works(cluster)


@pytest.mark.parametrize("part", LOST)
def test_a_part_lost_while_no_server_runs_is_the_runs_error(cluster: Cluster, part: str) -> None:
    uid = cluster.run_to("task")
    pid, handler = cluster.pid(part), cluster.pid("handler")
    cluster.server.kill()
    os.kill(pid, signal.SIGKILL)
    if part == "scheduler":  # the handler falls with it, and its error is not the cause
        wait_for(lambda: not Path(f"/proc/{handler}").exists())
    cluster.server.start()
    assert_lost(cluster, uid, part)
    assert_the_next_run_works(cluster)


@pytest.mark.parametrize("then", ["they end", "a server comes"])
def test_parts_that_outlive_their_run_and_its_server_are_told(cluster: Cluster, then: str) -> None:
    uid = cluster.run_to("task")
    cluster.kill("scheduler")
    ended(cluster.server, uid)
    # Still there as a rule: they have three seconds.
    known = parts(cluster.server, uid)
    assert {known[f"worker-{i}"]["state"] for i in range(WORKERS)} <= {"running", "error", "removed"}, known
    cluster.server.kill()
    if then == "they end":
        cluster.let_go()
        wait_for(lambda: not processes(cluster.server))
    cluster.server.start()
    cluster.let_go()
    assert_over(cluster, uid, set())
    assert_the_next_run_works(cluster)


WORKER = ["worker", "worker's shim"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("part", WORKER)
def test_a_lost_worker_is_replaced_and_the_run_completes(cluster: Cluster, step: str, part: str) -> None:
    uid = cluster.run_to(step)
    lost = cluster.kill(part)
    wait_for(lambda: lost not in cluster.pods("worker"))
    if step != "scheduler":  # which is asked for what it needs
        wait_for(lambda: len(cluster.pods("worker")) == WORKERS)
    cluster.let_go()
    assert_completed(cluster, uid)
    cluster.assert_whole()
    assert_the_next_run_works(cluster)


@pytest.mark.parametrize("part", WORKER)
def test_a_worker_lost_while_no_server_runs_is_replaced(cluster: Cluster, part: str) -> None:
    uid = cluster.run_to("task")
    lost, pid = sorted(cluster.pods("worker"))[0], cluster.pid(part)
    cluster.server.kill()
    os.kill(pid, signal.SIGKILL)
    cluster.server.start()
    wait_for(lambda: lost not in cluster.pods("worker") and len(cluster.pods("worker")) == WORKERS)
    cluster.let_go()
    assert_completed(cluster, uid)
    cluster.assert_whole()


@pytest.mark.parametrize("part", ["scheduler", "scheduler's shim", *WORKER])
def test_after_a_loss_in_an_idle_cluster_the_next_run_works(cluster: Cluster, part: str) -> None:
    assert_completed(cluster, cluster.run())
    cluster.assert_whole()
    lost = cluster.kill(part)
    wait_for(lambda: lost not in cluster.pods())
    assert_the_next_run_works(cluster)


@pytest.mark.parametrize("idle", [False, True])
def test_a_scheduler_that_leaves_before_the_client_comes_is_made_again(cluster: Cluster, idle: bool) -> None:
    if idle:  # the cluster is an earlier run's
        assert_completed(cluster, cluster.run())
    cluster.hold("late")
    uid = cluster.run("late")
    wait_for(lambda: cluster.standing("late"))
    wait_for(lambda: len(cluster.pods("worker")) == WORKERS)
    wait_for(lambda: any(port.endswith(":8786") for port in listening(cluster.addresses)))
    (left,) = cluster.pods("scheduler")
    os.kill(cluster.pid("scheduler"), signal.SIGTERM)  # it ends as after its scheduler_timeout
    wait_for(lambda: set(cluster.pods("scheduler")) - {left})
    cluster.let_go()
    assert_completed(cluster, uid)
    assert_the_next_run_works(cluster)


@pytest.mark.parametrize("how", ["shutdown", "removal"])
def test_after_the_close_of_an_idle_cluster_the_next_run_works(cluster: Cluster, how: str) -> None:
    assert_completed(cluster, cluster.run())
    cluster.shut(how)
    wait_for(lambda: not processes(cluster.server))
    assert_the_next_run_works(cluster)


def test_a_server_lost_at_every_step_costs_nothing(cluster: Cluster) -> None:
    for step in STEPS:
        cluster.hold(step)
    uid = cluster.run()
    for step in STEPS:
        wait_for(lambda step=step: cluster.standing(step) >= STEPS[step])
        cluster.server.kill()
        cluster.server.start()
        (cluster.folder / f"hold.{step}").unlink()
    assert_completed(cluster, uid)
    cluster.assert_whole()
    cluster.server.kill()
    cluster.server.start()
    assert_the_next_run_works(cluster)


@pytest.mark.parametrize("step", STEPS)
def test_abort_ends_the_handler_and_keeps_the_cluster(cluster: Cluster, step: str) -> None:
    uid = cluster.run_to(step)
    before = set(cluster.pods("scheduler"))
    assert cluster.server.metier("abort", uid).returncode == 0
    assert state(cluster.server, uid)["state"] == "aborted"
    assert not cluster.pods("handler")
    assert set(cluster.pods("scheduler")) == before
    wait_for(lambda: len(cluster.pods("worker")) == WORKERS)  # one that is held in a task is replaced
    cluster.let_go()
    assert_the_next_run_works(cluster)
    assert set(cluster.pods("scheduler")) == before


def test_workers_that_do_not_come_up_are_the_runs_error(cluster: Cluster) -> None:
    uid = cluster.run(more=["--set", 'spec.args=["--nonsense"]'])
    status = ended(cluster.server, uid)
    assert (status["state"], status["reason"]) == ("error", "WorkerFailed"), status
    words = rf"{POD}-worker-\d+ ended with exit code 1; its log: metier logs RUN --part (worker-\d+)"
    found = re.fullmatch(words, status["error"])
    assert found, status["error"]
    assert "--nonsense" in cluster.server.metier("logs", uid, "--part", found.group(1)).stdout
    assert_the_next_run_works(cluster)


# What fn.close() does once the scheduler listens, and the request that removes the cluster.
CLOSED = [("shutdown", step) for step in ("worker", "task", "end")] + [("removal", step) for step in STEPS]


@pytest.mark.parametrize(("how", "step"), CLOSED)
def test_a_cluster_that_is_closed_while_a_handler_runs(cluster: Cluster, how: str, step: str) -> None:
    uid = cluster.run_to(step)
    cluster.shut(how)
    if (how, step) == ("shutdown", "end"):  # it needs the cluster no more
        wait_for(lambda: not cluster.pods("scheduler"))
        cluster.let_go()
        assert_completed(cluster, uid)
        assert cluster.server.metier("logs", uid).stdout == ""
    else:
        status = ended(cluster.server, uid)
        words = "ClusterClosed: the Dask cluster was closed while the run used it"
        told = ("ClusterClosed", words) if how == "shutdown" else ("AbortedByUser", "its resources were deleted")
        assert (status["state"], status["reason"], status["error"]) == ("error", *told)
        assert "Connection refused" not in cluster.server.metier("logs", uid).stdout
        cluster.let_go()
    wait_for(lambda: not processes(cluster.server))
    if how == "shutdown":
        wait_for(lambda: all(one["state"] != "running" for one in parts(cluster.server, uid).values()))
    assert_the_next_run_works(cluster)
