"""Every cause that `metier why` names, provoked for real: its code, its sentence, its exit code, and its fix, followed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.causes import CODE, ENDED, SOURCE, Place, causes_place, processes, processors, refusal, until, write_wheel
from support.server import BINARY, Server, kill_tree_of, running

ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with causes_place(tmp_path_factory.mktemp("why")) as made:
        yield made


@pytest.fixture(scope="module")
def orphan(place: Place) -> str:
    """A handler's run whose interpreter and command line are killed; its lease runs out while other tests go on."""
    process = subprocess.Popen(
        [BINARY, "run", "f.py:slow", "--kind", "handler", "--name", "orphan"],
        env=place.server.environment,
        cwd=place.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "sleeping" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    listed = json.loads(place.server.metier("get", "runs", "--name", "orphan", "-o", "json").stdout)
    return str(listed["runs"][0]["metadata"]["uid"])


def test_an_orphan_is_begun(orphan: str) -> None:
    assert len(orphan) == 32


# What the user's code did.


def test_handler_error(place: Place) -> None:
    code, run, _ = place.run("f.py:fail", "--kind", "job")
    assert code == 1
    cause = place.why(run["metadata"]["uid"])
    assert cause.code == "HandlerError"
    assert cause.facts["your code"] == "ValueError: no such luck"
    assert cause.facts["where"] == "f.py:13"
    log = place.server.metier(*cause.command("metier logs")[1:])
    assert "ValueError: no such luck" in log.stdout
    assert "Traceback" in log.stdout


def test_package_missing_and_the_fix_followed(place: Place) -> None:
    code, run, errors = place.run("f.py:missing", "--kind", "job")
    assert code == 1
    cause = place.why(run["metadata"]["uid"])
    assert cause.code == "PackageMissing"
    hint = next(text for text in cause.fixes if "--requirements" in text)
    assert hint in errors
    line = re.search(r"a line '(\w+)'", hint)
    assert line
    (place.folder / "requirements.txt").write_text(line.group(1) + "\n")
    code, run, errors = place.run("f.py:missing", "--kind", "job", "--requirements", "requirements.txt")
    assert code == 0, errors
    assert run["status"]["results"]["found"] == 42


def test_exit_code_of_a_program(place: Place) -> None:
    code, run, _ = place.run("three.sh", "--kind", "local")
    assert code == 1
    cause = place.why(run["metadata"]["uid"])
    assert cause.code == "ExitCode"
    assert cause.facts["exit code"] == "3"
    code, run, _ = place.run("f.py:leave", "--kind", "job")
    assert code == 1
    assert place.why(run["metadata"]["uid"]).code == "ExitCode"


def test_killed_by_a_signal(place: Place) -> None:
    code, run, _ = place.run("f.py:crash", "--kind", "job")
    assert code == 1
    assert run["status"]["reason"] == "Killed(SIGSEGV)"
    cause = place.why(run["metadata"]["uid"])
    assert cause.code == "Killed"
    assert "SIGSEGV" in cause.sentence


def test_invalid_parameter(place: Place) -> None:
    code, run, errors = place.run("f.py:ok", "--kind", "job", "-p", "n=abc")
    assert code == 2
    assert "your code" not in errors
    cause = place.why(run["metadata"]["uid"])
    assert cause.code == "InvalidParameter"
    assert any("n" in value and "abc" in value for value in cause.facts.values())


def test_iterations_failed(place: Place) -> None:
    code, run, errors = place.run("f.py:even", "--kind", "job", "-x", "n=[1, 2, 3]")
    assert code == 1, errors
    cause = place.why(run["metadata"]["uid"])
    assert cause.code == "IterationsFailed"
    assert "2 of 3" in cause.facts["your code"]


def test_handler_missing(place: Place) -> None:
    uid = place.submit({}, handler="trian")["metadata"]["uid"]
    assert place.ended(uid) == "error"
    cause = place.why(uid)
    assert cause.code == "HandlerMissing"
    assert any("ok" in value and "trian" in value for value in cause.facts.values()), cause.facts


@pytest.mark.skipif(not ROOT, reason="memory limits need cgroups, which need root here")
def test_killed_for_memory_and_the_fix_followed(place: Place) -> None:
    code, run, errors = place.run("f.py:hungry", "--kind", "job", "--mem", "64Mi")
    assert code == 1
    assert "memory" in errors
    cause = place.why(run["metadata"]["uid"])
    assert cause.code == "OOMKilled"
    assert cause.facts["limit"] == "64 MiB"
    code, run, errors = place.run("f.py:hungry", "--kind", "job", *cause.command("--mem"))
    assert code == 0, errors


@pytest.mark.skipif(not ROOT, reason="memory limits need cgroups, which need root here")
def test_a_child_killed_for_memory_explains_its_parents_error_and_the_fix_followed(place: Place) -> None:
    code, run, errors = place.run("f.py:pool", "--kind", "job", "--mem", "100Mi")
    assert code == 1
    assert "BrokenProcessPool" in errors and "used more memory than the limit" in errors
    cause = place.why(run["metadata"]["uid"])
    assert cause.code == "HandlerError" and "used more memory than the limit" in cause.facts["out of memory"]
    code, _, errors = place.run("f.py:pool", "--kind", "job", *cause.command("--mem"))
    assert code == 0 and "used more memory" not in errors, errors
    assert "more memory than the limit" in place.server.metier("help", "ProcessOOMKilled").stdout


# What a person or the server did.


def test_aborted_by_user(place: Place) -> None:
    uid = place.detach("f.py:slow", "--kind", "job")
    place.abort(uid)
    cause = place.why(uid)
    assert cause.code == "AbortedByUser"
    assert "run it again" in cause.fixes


def test_awaiting_retry_and_the_fix_followed(place: Place) -> None:
    uid = place.detach("f.py:fail", "--kind", "job", "--retry", "2")
    cause = place.waits_for(uid, "AwaitingRetry")
    assert "no such luck" in cause.facts["the cluster says"]
    done = place.server.metier(*cause.command("metier abort")[1:])
    assert done.returncode == 0, done.stderr
    assert place.why(uid).code == "AbortedByUser"


def test_shim_lost(place: Place) -> None:
    uid = place.detach("f.py:slow", "--kind", "job")
    until(lambda: "sleeping" in place.server.metier("logs", uid).stdout or None, "the first line")
    shims = [p for p in processes(str(place.server.data)) if p.name == "metier-shim"]
    assert len(shims) == 1, shims
    os.kill(shims[0].pid, signal.SIGKILL)
    assert place.ended(uid) == "error"
    cause = place.why(uid)
    assert cause.code == "ShimLost"
    assert "run it again" in cause.fixes


def test_a_program_that_is_not_there(place: Place) -> None:
    code, _, errors = place.run("no-such-program", "--kind", "local")
    assert code == 3, errors
    # Told by the pod's shim: a program that is run as it is.
    uid = place.submit({"command": "/no/such/program", "build": {}, "mode": "pass"}, handler="")["metadata"]["uid"]
    assert place.ended(uid) == "error"
    cause = place.why(uid)
    assert cause.code == "ProgramMissing"
    assert cause.facts["the cluster says"] == "program '/no/such/program' is not there"
    assert any("correct the command" in text for text in cause.fixes)
    # Told by the runner: a program beside parameters, a file of Python.
    file = place.folder / "function.yaml"
    for kind, command, said in (
        ("local", "no-such-program", "program 'no-such-program' is not there (looked in PATH /"),
        ("local", "./nowhere.py", "'./nowhere.py': no such file (looked in /"),
        ("job", "nowhere.py", "'nowhere.py': no such file (looked in /"),
    ):
        file.write_text(json.dumps({"kind": kind, "metadata": {"name": "nothing"}, "spec": {"command": command}}))
        code, run, errors = place.run("-f", "function.yaml")
        assert code == 3, errors
        assert said in errors
        cause = place.why(run["metadata"]["uid"])
        assert cause.code == "ProgramMissing"
        assert said in cause.facts["the cluster says"]
    # A script that names an interpreter which is not there is there itself.
    script = place.folder / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    for kind in ("local", "job"):
        code, run, errors = place.run("./script", "--kind", kind)
        assert code == 3, errors
        assert "the interpreter that the first line of" in errors
        assert place.why(run["metadata"]["uid"]).code == "ProgramMissing"


def test_a_program_that_may_not_be_executed(place: Place) -> None:
    plain = place.folder / "plain"
    plain.write_bytes(b"\x7fELF, so they say")
    uid = place.submit({"command": str(plain), "build": {}, "mode": "pass"}, handler="")["metadata"]["uid"]
    assert place.ended(uid) == "error"
    cause = place.why(uid)
    assert cause.code == "StartFailed"
    assert "chmod +x" in cause.facts["the cluster says"]


def record(body: bytes) -> bytes:
    """A small file in the form that shim and server share (docs/formats/pod-folder.md)."""
    crc = 0xFFFFFFFF
    for byte in body:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return b"METIER1 %d %08x\n" % (len(body), crc ^ 0xFFFFFFFF) + body


@pytest.fixture
def interrupted(place: Place, tmp_path: Path) -> Iterator[tuple[Place, str, Path]]:
    """A run that prints, and a server, a shim and a process of it that are dead: as a power cut leaves them."""
    with running(tmp_path / "data") as server:
        own = Place(server, place.folder)
        uid = own.detach("f.py:slow", "--kind", "job")
        until(lambda: "sleeping" in server.metier("logs", uid).stdout or None, "the first line")
        # The log may be ahead of what is stored: a pod that is not known to run is begun by the next server.
        assert server.metier("wait", uid, "--for", "running").returncode == 0
        server.kill()
        kill_tree_of(str(tmp_path))
        yield own, uid, next((server.data / "pods").glob("*/state")).parent


def test_host_rebooted(interrupted: tuple[Place, str, Path]) -> None:
    own, uid, pod = interrupted
    state = (pod / "state").read_bytes().split(b"\n", 1)[1]
    other = re.sub(rb'"boot":"[^"]*"', b'"boot":"00000000-0000-4000-8000-000000000000"', state)
    (pod / "state").write_bytes(record(other))
    own.server.start()
    assert own.ended(uid) == "error"
    cause = own.why(uid)
    assert cause.code == "HostRebooted"
    assert "run it again" in cause.fixes


def test_a_pod_that_is_gone_without_a_trace(interrupted: tuple[Place, str, Path]) -> None:
    own, uid, pod = interrupted
    shutil.rmtree(pod)
    own.server.start()
    assert own.ended(uid) == "error"
    cause = own.why(uid)
    assert cause.code == "ShimLost"
    assert "could not be found again" in cause.facts["the cluster says"]


# What it waits for.


def test_insufficient_cpu_and_the_fix_followed(place: Place) -> None:
    cores = str(processors(place))
    holder = place.detach("f.py:slow", "--kind", "job", "--cpu", cores, "--name", "holder")
    waiting = place.detach("f.py:ok", "--kind", "job", "--cpu", cores, "--name", "waiting")
    cause = place.waits_for(waiting, "InsufficientCpu")
    assert cause.facts["asked"] == f"cpu {cores}"
    assert f"cpu 0 of {cores}" in cause.facts["free now"]
    assert cause.facts["held by"].startswith("holder (")
    assert cause.facts["position"] == "1 of 1"
    done = place.server.metier(*cause.command("metier abort")[1:])
    assert done.returncode == 0, done.stderr
    assert place.ended(waiting) == "completed"
    assert place.ended(holder) == "aborted"


def test_queue_order(place: Place) -> None:
    """What would fit waits when a larger run has been passed too often."""
    cores = processors(place)
    holder = place.detach("f.py:slow", "--kind", "job", "--cpu", "0.2", "--name", "holder")
    large = place.detach("f.py:slow", "--kind", "job", "--cpu", str(cores), "--name", "large")
    place.waits_for(large, "InsufficientCpu")
    passed = 0
    while True:
        small = place.detach("f.py:ok", "--kind", "job", "--cpu", "0.1", "--name", f"small{passed}")
        code = until(partial(settled, place, small), f"small run {passed}")
        if code == "QueueOrder":
            break
        passed += 1
        assert passed < 100, "nothing keeps the large run from waiting for ever"
    place.abort(holder)
    place.abort(large)
    assert place.ended(small) == "completed"


def settled(place: Place, uid: str) -> str | None:
    code = place.why(uid).code
    return code if code in ("QueueOrder", "Completed") else None


def test_a_paused_queue_and_the_fix_followed(place: Place) -> None:
    def queue(*words: str) -> dict[str, Any]:
        done = place.server.metier("queue", *words, "-o", "json")
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    running_on = place.detach("f.py:slow", "--kind", "job", "--cpu", "0.1")
    until(lambda: "sleeping" in place.server.metier("logs", running_on).stdout or None, "the first line")
    assert queue() == {"paused": False, "reason": "", "waiting": 0}
    assert queue("pause", "new disks at five")["paused"] is True
    uid = place.detach("f.py:ok", "--kind", "job", "--cpu", "0.1")
    cause = place.waits_for(uid, "QueuePaused")
    assert cause.facts["the cluster says"] == "the queue is paused: new disks at five"
    assert "paused (new disks at five), 1 waiting" in place.server.metier("queue").stdout
    place.server.kill()
    place.server.start()  # it stays paused, and what ran goes on
    assert queue()["paused"] is True
    assert place.why(running_on).code == "Running"
    assert place.waits_for(uid, "QueuePaused").facts["the cluster says"].endswith("new disks at five")
    assert place.server.metier("queue", "pasue").returncode == 2
    done = place.server.metier(*cause.command("metier queue resume")[1:])
    assert done.returncode == 0, done.stderr
    assert place.ended(uid) == "completed"
    assert queue() == {"paused": False, "reason": "", "waiting": 0}
    place.abort(running_on)


def test_a_gang_waits_as_a_whole(place: Place) -> None:
    cores = str(processors(place))
    holder = place.detach("f.py:slow", "--kind", "job", "--cpu", cores, "--name", "holder")
    done = place.server.metier(
        "run", "f.py:ok", "--kind", "mpijob", "--replicas", "2", "--cpu", "0.5", "--detach", "-o", "name",
        cwd=place.folder,
    )  # fmt: skip
    if done.returncode == 5:
        place.abort(holder)
        pytest.skip(f"kind mpijob is not usable here: {done.stderr.splitlines()[0]}")
    uid = done.stdout.strip()
    cause = place.waits_for(uid, "InsufficientCpu")
    assert re.match(r"the gang of 3 asks for 1 of cpu; 0 of \d+ is free", cause.facts["the cluster says"]), cause
    done = place.server.metier(*cause.command("metier abort")[1:])
    assert done.returncode == 0, done.stderr
    until(lambda: place.why(uid).code not in ("InsufficientCpu", "GangIncomplete") or None, "the gang's start")
    place.server.metier("abort", uid)
    assert place.ended(uid) in ENDED


def test_insufficient_memory_and_the_fix_followed(place: Place) -> None:
    refused = place.server.metier("run", "f.py:ok", "--kind", "job", "--mem", "9000Gi", cwd=place.folder)
    most = re.search(r"this node has (\d+)", refused.stderr)
    assert most
    gibibytes = int(most.group(1)) - 1
    holder = place.detach("f.py:slow", "--kind", "job", "--mem", f"{gibibytes}Gi", "--name", "holder")
    waiting = place.detach("f.py:ok", "--kind", "job", "--mem", f"{gibibytes}Gi")
    cause = place.waits_for(waiting, "InsufficientMemory")
    code, _, errors = place.run("f.py:ok", "--kind", "job", *cause.command("--mem"))
    assert code == 0, errors
    place.abort(holder)
    assert place.ended(waiting) == "completed"


DEVICES = """
for name in null zero full random urandom tty; do : >"$0/$name"; mount --bind "/dev/$name" "$0/$name"; done
mkdir "$0/shm" "$0/pts"
mount --bind /dev/shm "$0/shm"
mount --bind /dev/pts "$0/pts"
ln -s pts/ptmx "$0/ptmx"
ln -s /proc/self/fd "$0/fd"
: >"$0/nvidia0"
: >"$0/nvidia1"
mount --rbind "$0" /dev
exec "$@"
"""


@pytest.fixture
def two_gpus(tmp_path: Path) -> Iterator[Place]:
    """A server that sees two GPUs by their device files, in a /dev of its own."""
    devices, code = tmp_path / "dev", tmp_path / "code"
    devices.mkdir()
    code.mkdir()
    (code / "f.py").write_text(CODE)
    server = Server(tmp_path / "data")
    server.wrapper = ["unshare", "--mount", "sh", "-c", DEVICES, str(devices)]
    try:
        yield Place(server.start(), code)
    finally:
        server.stop()
        kill_tree_of(str(server.data))


@pytest.mark.skipif(not ROOT, reason="a /dev of its own is a mount, which needs root")
def test_insufficient_gpu_and_the_fix_followed(two_gpus: Place) -> None:
    holder = two_gpus.detach("f.py:slow", "--kind", "job", "--gpus", "1", "--name", "holder")
    until(lambda: "sleeping" in two_gpus.server.metier("logs", holder).stdout or None, "the first line")
    waiting = two_gpus.detach("f.py:ok", "--kind", "job", "--gpus", "2")
    cause = two_gpus.waits_for(waiting, "InsufficientGpu")
    assert cause.facts["the cluster says"] == "asks for 2 of nvidia.com/gpu; 1 of 2 is free"
    assert "holder" in cause.facts["held by"]
    two_gpus.abort(waiting)
    code, _, errors = two_gpus.run("f.py:ok", "--kind", "job", *cause.command("--gpus"))
    assert code == 0, errors
    waiting = two_gpus.detach("f.py:ok", "--kind", "job", "--gpus", "2")
    cause = two_gpus.waits_for(waiting, "InsufficientGpu")
    done = two_gpus.server.metier(*cause.command("metier abort")[1:])
    assert done.returncode == 0, done.stderr
    assert two_gpus.ended(waiting) == "completed"


def test_secret_missing_and_the_fix_followed(place: Place) -> None:
    variable = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "vault", "key": "token"}}}
    run = place.submit({"env": [variable]}, handler="reads")
    uid = run["metadata"]["uid"]
    cause = place.waits_for(uid, "SecretMissing")
    assert "vault" in cause.facts["the cluster says"]
    command = cause.command("metier secret set")
    assert command == ["metier", "secret", "set", "vault:token"]
    (place.folder / "value").write_text("hush")
    done = place.server.metier(*command[1:], "--from-file", str(place.folder / "value"))
    assert done.returncode == 0, done.stderr
    assert place.ended(uid) == "completed"


def test_config_map_missing_and_the_fix_followed(place: Place) -> None:
    variable = {"name": "TOKEN", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "token"}}}
    uid = place.submit({"env": [variable]}, handler="reads")["metadata"]["uid"]
    cause = place.waits_for(uid, "ConfigMapMissing")
    assert cause.command("metier apply") == ["metier", "apply", "-f", "FILE"]
    file = place.folder / "settings.yaml"
    file.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {token: a}\n")
    done = place.server.metier("apply", "-f", str(file))
    assert done.returncode == 0, done.stderr
    assert place.ended(uid) == "completed"


def test_volume_missing_and_the_fix_followed(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "not-yet"
    spec = {
        "volumes": [{"name": "v", "hostPath": {"path": str(source)}}],
        "volume_mounts": [{"name": "v", "mountPath": str(place.folder.parent / "mounted")}],
    }
    uid = place.submit(spec)["metadata"]["uid"]
    cause = place.waits_for(uid, "VolumeMissing")
    assert str(source) in cause.facts["the cluster says"]
    claimed = {
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "later"}}],
        "volume_mounts": [{"name": "v", "mountPath": str(place.folder.parent / "mounted")}],
    }
    second = place.submit(claimed)["metadata"]["uid"]
    assert "later" in place.waits_for(second, "VolumeMissing").facts["the cluster says"]
    source.mkdir()
    file = place.folder / "claim.yaml"
    file.write_text("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: later}\nspec: {}\n")
    done = place.server.metier("apply", "-f", str(file))
    assert done.returncode == 0, done.stderr
    assert place.ended(second) == "completed"
    assert place.ended(uid) == "completed"


def slow_package(folder: Path, end: str) -> Path:
    """A package whose build leaves a line in `builds`, waits for the file `go`, and then does what `end` says."""
    package = folder / "slowly"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[project]\nname = "slowly"\nversion = "1.0"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (package / "backend.py").write_text(
        "import os, shutil, time\n"
        "def build_wheel(folder, config_settings=None, metadata_directory=None):\n"
        f"    print('one', file=open({str(folder / 'builds')!r}, 'a'), flush=True)\n"
        f"    while not os.path.exists({str(folder / 'go')!r}): time.sleep(0.05)\n"
        f"    {end}\n"
    )
    return package


def test_environment_building(place: Place, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, "slowly")
    package = slow_package(tmp_path, f"return os.path.basename(shutil.copy({str(wheel)!r}, folder))")
    uid = place.submit({"build": {"requirements": [f"slowly @ file://{package}"]}, "command": "true"})["metadata"][
        "uid"
    ]
    cause = place.waits_for(uid, "EnvironmentBuilding")
    assert "being built" in cause.facts["the cluster says"]
    (tmp_path / "go").touch()
    assert place.ended(uid) in ENDED
    assert place.why(uid).code != "EnvironmentBuilding"


def test_a_failed_build_is_told_to_all_that_waited_for_it(place: Place, tmp_path: Path) -> None:
    package = slow_package(tmp_path, "raise RuntimeError('no such compiler')")
    function = {"build": {"requirements": [f"slowly @ file://{package}"]}, "command": "true"}
    uids = [place.submit(function)["metadata"]["uid"] for _ in range(3)]
    for uid in uids:
        place.waits_for(uid, "EnvironmentBuilding")
    (tmp_path / "go").touch()
    assert [place.ended(uid) for uid in uids] == ["error"] * 3
    assert {place.why(uid).code for uid in uids} == {"EnvironmentFailed"}
    assert (tmp_path / "builds").read_text().count("one") == 1
    # Who comes afterwards has it tried again.
    assert place.ended(place.submit(function)["metadata"]["uid"]) == "error"
    assert (tmp_path / "builds").read_text().count("one") == 2


def test_environment_failed_and_the_fix_followed(place: Place) -> None:
    (place.folder / "bad.txt").write_text("nowhere-to-be-found==9\n")
    code, run, errors = place.run("f.py:ok", "--kind", "job", "--requirements", "bad.txt")
    assert code == 5
    assert "nowhere-to-be-found" in errors
    cause = place.why(run["metadata"]["uid"])
    assert cause.code == "EnvironmentFailed"
    log = re.search(r"whole log: (\S+)\)", cause.facts["the cluster says"])
    assert log
    assert "nowhere-to-be-found" in Path(log.group(1)).read_text()
    (place.folder / "bad.txt").write_text("surely-not-installed==1.0\n")
    code, _, errors = place.run("f.py:ok", "--kind", "job", "--requirements", "bad.txt")
    assert code == 0, errors


@pytest.fixture
def no_python(tmp_path: Path) -> Iterator[Place]:
    """A server that finds no interpreter: PATH holds a shell and little else."""
    programs, code = tmp_path / "bin", tmp_path / "code"
    programs.mkdir()
    code.mkdir()
    for name in ("sh", "bash", "cat"):
        (programs / name).symlink_to(shutil.which(name) or "")
    (code / "f.py").write_text("def ok(context):\n    context.log_result('n', 1)\n")
    (code / "program.sh").write_text("#!/bin/sh\necho no interpreter needed\n")
    (code / "program.sh").chmod(0o755)
    with running(tmp_path / "data", python="", env={"PATH": str(programs)}) as server:
        yield Place(server, code)


def test_a_machine_without_python(no_python: Place) -> None:
    for kind in ("job", "local"):
        code, run, errors = no_python.run("f.py:ok", "--kind", kind)
        assert code == 5, errors
        assert "there is no Python interpreter on this machine; apt-get install python3" in errors
        cause = no_python.why(run["metadata"]["uid"])
        assert cause.code == "EnvironmentFailed"
        assert "there is no Python interpreter" in cause.facts["the cluster says"]
    code, document, _ = no_python.run("f.py:ok", "--kind", "handler")
    assert (code, document["detail"]["code"]) == (5, "EnvironmentFailed")
    done = no_python.server.metier("deploy", "f.py:ok", "--name", "fn", cwd=no_python.folder)
    assert done.returncode == 5, done.stderr
    assert "there is no Python interpreter" in done.stderr
    for kind in ("job", "local"):
        done = no_python.server.metier("run", "program.sh", "--kind", kind, cwd=no_python.folder)
        assert done.returncode == 0, done.stderr
        assert "no interpreter needed" in done.stdout + done.stderr
    checked = no_python.server.metier("kinds", "--check", "-o", "json")
    done = no_python.server.metier(
        "run", "f.py:ok", "--kind", "mpijob", "--replicas", "2", "-o", "json", cwd=no_python.folder
    )
    if shutil.which("mpirun"):
        assert done.returncode == 5, done.stderr
        cause = no_python.why(json.loads(done.stdout)["metadata"]["uid"])
        assert cause.code in ("GangIncomplete", "EnvironmentFailed")
        assert "there is no Python interpreter" in cause.facts["the cluster says"]
    kinds = {k["kind"]: k for k in json.loads(checked.stdout)["kinds"]}
    assert kinds["job"]["usable"] is True
    assert "apt-get install python3" in kinds["job"]["note"]
    assert kinds["dask"]["usable"] is False
    checks = {c["check"]: c for c in json.loads(no_python.server.metier("doctor", "-o", "json").stdout)}
    assert checks["python"]["state"] == "look"


# Functions that stay.


def test_a_port_in_use_and_the_fix_followed(place: Place) -> None:
    (place.folder / "event.py").write_text("def handler(context, event):\n    return 'hello'\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        trigger = {"spec.triggers.http": {"kind": "http", "attributes": {"port": taken.getsockname()[1]}}}
        port = f"spec.config={json.dumps(trigger)}"
        done = place.server.metier("deploy", "event.py", "--set", port, cwd=place.folder)
        assert done.returncode == 5
        why = place.server.metier("why", "event")
        assert f"127.0.0.1:{taken.getsockname()[1]} is taken by another program" in why.stdout
        assert "PortTaken" in why.stdout
        assert "another port" in why.stdout
    done = place.server.metier("deploy", "event.py", "--set", port, cwd=place.folder)
    assert done.returncode == 0, done.stderr
    assert place.server.metier("why", "event").stdout == "function 'event' is ready\n"
    assert place.server.metier("invoke", "event").stdout == "hello"
    assert place.server.metier("delete", "event", "--yes").returncode == 0


def test_a_processor_that_ends_again_and_again(place: Place) -> None:
    (place.folder / "broken.py").write_text(
        "def init_context(context):\n    raise RuntimeError('no model')\ndef handler(context, event):\n    pass\n"
    )
    done = place.server.metier("deploy", "broken.py", cwd=place.folder)
    assert done.returncode == 1
    assert "no model" in done.stderr
    why = place.server.metier("why", "broken")
    assert "ProcessorFailed" in why.stdout
    assert place.server.metier("help", "ProcessorFailed").returncode == 0
    assert "no model" in place.server.metier("logs", "broken", "--tail", "5").stdout
    assert place.server.metier("delete", "broken", "--yes").returncode == 0


# What is refused before it is a run.


@pytest.mark.parametrize("asked", [["--cpu", "100000"], ["--mem", "9000Gi"], ["--gpus", "64"]])
def test_never_fits(place: Place, asked: list[str]) -> None:
    before = place.server.metier("get", "runs", "-o", "name").stdout
    code, detail = refusal(place, "f.py:ok", "--kind", "job", *asked)
    assert code == 5
    assert detail["code"] == "NeverFits"
    assert "this node has" in detail["reason"]
    assert place.server.metier("get", "runs", "-o", "name").stdout == before, "nothing is left of it"


def test_engine_missing(place: Place) -> None:
    kinds = json.loads(place.server.metier("kinds", "--check", "-o", "json").stdout)["kinds"]
    absent = [k["kind"] for k in kinds if k["usable"] in (False, "no")]
    if not absent:
        pytest.skip("every kind is usable on this machine")
    code, detail = refusal(place, "f.py:ok", "--kind", absent[0])
    assert code == 5
    assert detail["code"] == "EngineMissing"
    assert absent[0] in detail["reason"]


@pytest.mark.parametrize(("kind", "package"), [("dask", "'dask' program"), ("spark", "pyspark")])
def test_an_environment_without_the_engines_packages(place: Place, kind: str, package: str) -> None:
    """Only what runs there can tell: the environment may be made by this very run."""
    code, run, errors = place.run("f.py:ok", "--kind", kind, "--replicas", "2")
    assert code == 5, errors
    cause = place.why(run["metadata"]["uid"])
    assert cause.code == "EngineMissing"
    assert package in errors and "--requirements FILE" in errors, errors


def test_another_project_is_named_in_every_command(place: Place) -> None:
    answer = place.server.call("POST", "/api/v1/projects", {"metadata": {"name": "other"}, "spec": {}})
    assert answer.status == 201, answer.body
    _, run, _ = place.run("f.py:fail", "--kind", "job", "-P", "other")
    cause = place.why(run["metadata"]["uid"], "-P", "other")
    done = place.server.metier(*cause.command("metier logs")[1:])
    assert done.returncode == 0
    assert "no such luck" in done.stdout


def test_every_cause_has_its_page(place: Place) -> None:
    causes = re.findall(r'^    \{"(\w+)",', (SOURCE / "src/engine/why.cc").read_text(), re.MULTILINE)
    assert len(causes) > 30
    unknown = [code for code in causes if place.server.metier("help", code).returncode != 0]
    assert unknown == []


def test_every_page_is_of_something_that_is_said() -> None:
    pages = re.findall(r'Topic\{"(\w+)",', (SOURCE / "src/cli/help.cc").read_text())
    assert len(pages) > 40
    files = [*(SOURCE / "src").rglob("*.cc"), *(SOURCE / "src").rglob("*.h"), *(SOURCE / "python").rglob("*.py")]
    said = "".join(f.read_text() for f in files if f.name != "help.cc" and "test" not in f.name)
    # As a code, or as the first word of a condition's text.
    assert [code for code in pages if not re.search(rf'"(?:, )?{code}\b', said)] == []


@pytest.mark.skipif(not ROOT, reason="a small disk is a mount, which needs root")
def test_a_full_disk_and_the_fix_followed(place: Place, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
    try:
        with running(disk / "data") as server:
            small = Place(server, place.folder)
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 1024)
            code, document, errors = small.run("f.py:ok", "--kind", "job")
            assert code == 5
            assert document["detail"]["code"] == "NoSpace"
            assert "free disk space" in errors
            filler.unlink()
            code, _, errors = small.run("f.py:ok", "--kind", "job")
            assert code == 0, errors
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


# The long ones, begun above.


def test_client_lost(place: Place, orphan: str) -> None:
    assert place.ended(orphan) in ("error", "aborted")
    cause = place.why(orphan)
    assert cause.code == "ClientLost"
    assert any("job" in text for text in cause.fixes)


@pytest.mark.skipif(not os.environ.get("METIER_TEST_ALL"), reason="the shortest threshold is a minute")
def test_threshold_exceeded(place: Place) -> None:
    code, run, _ = place.run("f.py:slow", "--kind", "job", "--timeout", "60s")
    cause = place.why(run["metadata"]["uid"])
    assert cause.code == "ThresholdExceeded"
    assert code in (1, 4)
