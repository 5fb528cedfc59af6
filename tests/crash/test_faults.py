"""Faults beyond one death of the server: the gate at its steps, two programs in sequence, every durable system call,
a retry, and power loss. Seeds are printed; METIER_SEED sets them.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.server import Server, kill_tree_of

from crash.sweep import (
    Trial,
    check,
    declared_points,
    kill_helpers,
    plain,
    run_trial,
    submit,
    submit_body,
    wait_for_terminal,
)

ALL = bool(os.environ.get("METIER_TEST_ALL"))
SEED = int(os.environ.get("METIER_SEED", "1"))
POINTS = declared_points("src")
SHIM_POINTS = sorted(
    set(
        re.findall(
            r'failpoint\("([^"]+)"\)', "".join(p.read_text() for p in Path(__file__).parents[2].glob("shim/*.cc"))
        )
    )
)


@pytest.mark.parametrize("point", [p for p in POINTS if p.startswith("gate/")])
def test_gate_killed_at(point: str, tmp_path: Path) -> None:
    """The gate dies at a step of its own; the server goes on, and the next one finds a gate or starts one."""
    server, reached = Server(tmp_path / "data"), tmp_path / "reached"
    arm = {"METIER_FAILPOINTS": f"{point}=kill", "METIER_FAILPOINTS_LOG": str(reached)}
    try:
        server.start(env=arm)
        trial, uid, marker = Trial(point), uuid.uuid4().hex, tmp_path / "marker"
        plain(server, trial, uid, marker, 0)
        assert trial.acknowledged, "the server did not work without its gate"
        if point == "gate/quit":
            assert server.stop() == 0
        else:
            server.kill()
        assert point in reached.read_text().split(), "a declared point that is not reached"
        said = len(server.errors())
        server.start()
        check(server, trial, uid, marker, 0)
        assert not trial.problems
        assert "no gate" not in server.errors()[said:]
        # The new gate holds the run listener: it outlives the server that is killed now.
        server.kill()
        server.start()
        assert "no gate" not in server.errors()[said:] and "is taken" not in server.errors()[said:]
        assert server.stop() == 0
    finally:
        kill_tree_of(str(tmp_path))


def test_gate_and_server_killed_at_once(tmp_path: Path) -> None:
    """Both sides of the run listener die; the port is the same afterwards."""
    server = Server(tmp_path / "data").start()
    try:
        for _ in range(10 if ALL else 3):
            server.process.send_signal(signal.SIGKILL)  # type: ignore[union-attr]
            kill_helpers(tmp_path, " gate ")
            server.start()  # at once: nothing is waited for
            errors = server.errors()
            assert "no gate" not in errors and "is taken" not in errors, errors[-2000:]
        uid, marker = uuid.uuid4().hex, tmp_path / "marker"
        trial = Trial("gate and server")
        submit(server, trial, submit_body(uid, marker))
        check(server, trial, uid, marker, 0)
        assert trial.acknowledged and not trial.problems
        assert server.stop() == 0
    finally:
        kill_tree_of(str(tmp_path))


def pairs() -> list[tuple[str, str]]:
    """Server at a point, then another program: drawn by seed, a third of all under --all."""
    points = [p for p in POINTS if p.startswith(("run/", "store/", "cluster/")) and p != "run/retry_committed"]
    every = [(p, other) for p in points for other in [*SHIM_POINTS, "gate", "zygote", "shim"]]
    return random.Random(SEED).sample(every, len(every) // 3 if ALL else 8)


@pytest.mark.parametrize("point, other", pairs())
def test_two_deaths_in_sequence(point: str, other: str, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    word = {"gate": " gate ", "zygote": "metier_runner.zygote", "shim": "metier-shim"}.get(other)
    # A forked pod has its zygote's command line and dies with it; a shim that always dies at its first step starts nothing.
    fair = {"zygote": ("Killed(SIGKILL)",), "shim/started": ("StartFailed",)}.get(other, ())
    trial = run_trial(
        tmp_path,
        point,
        env={} if word else {"METIER_SHIM_FAILPOINT": other},
        between=(lambda: print(f"killed {kill_helpers(tmp_path, word)} of {other}")) if word else None,
        fair=("ShimLost", *fair),
    )
    print(f"{point} then {other}: reached {trial.reached}, killed {trial.killed}, {trial.problems}")
    assert not trial.problems


# --- system calls ---

DURABLE = (
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "mkdir",
    "mkdirat",
    "unlink",
    "unlinkat",
    "ftruncate",
)


def traced(folder: Path) -> Counter[str]:
    """How often the busiest thread makes each durable call from the start of a server to its stop, with one job."""
    server = Server(folder / "data")
    record = folder / "calls"
    server.wrapper = ["strace", "-f", "-qq", "-e", f"trace={','.join(DURABLE)}", "-o", str(record)]
    try:
        server.start()
        trial = Trial("traced")
        plain(server, trial, uuid.uuid4().hex, folder / "marker", 0)
        assert trial.acknowledged
        os.kill(server.pid, signal.SIGTERM)
        server.process.wait(60)  # type: ignore[union-attr]
    finally:
        kill_tree_of(str(folder))
    per_thread: Counter[tuple[str, str]] = Counter()
    for line in record.read_text(errors="replace").splitlines():
        if found := re.match(r"(\d+) +(\w+)\(", line):
            per_thread[found[1], found[2]] += 1
    most: Counter[str] = Counter()
    for (_, call), count in per_thread.items():
        most[call] = max(most[call], count)
    return most


def trial_of_call(folder: Path, fault: str) -> Trial:
    """One job while strace injects `fault`; then a server without faults finds what is left."""
    server, trial = Server(folder / "data"), Trial(fault)
    uid, marker = uuid.uuid4().hex, folder / "marker"
    call = fault.split(":", 1)[0]
    server.wrapper = [
        "strace",
        "-f",
        "-qq",
        "-e",
        f"trace={call}",
        "-e",
        f"inject={fault}",
        "-o",
        str(folder / "calls"),
    ]
    folder.mkdir()
    try:
        with contextlib.suppress(AssertionError, KeyError, subprocess.TimeoutExpired):
            server.start()
            plain(server, trial, uid, marker, 0)
        trial.reached = "INJECTED" in (folder / "calls").read_text(errors="replace") or "SIGKILL" in (
            folder / "calls"
        ).read_text(errors="replace")
        server.kill()
        server.wrapper = []
        server.start()
        # strace follows the job's own process too: what happened to it is what is reported.
        fair = (
            ("ShimLost", "Killed(SIGKILL)")
            if "SIGKILL" in fault
            else ("ShimLost", "HandlerError", "ExitCode", "StartFailed")
        )
        check(server, trial, uid, marker, 0, fair)
        if server.stop() != 0:
            trial.problems.append("the clean stop failed")
    finally:
        kill_tree_of(str(folder))
    return trial


def test_durable_system_calls(tmp_path: Path) -> None:
    """kill, EIO and ENOSPC at durable system calls: a sample by default, each of them under --all."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (scripts/setup)")
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True)
    if tried.returncode != 0:
        pytest.skip(f"this machine does not let strace trace: {tried.stderr.decode().strip()[:100]}")
    print(f"seed {SEED}")
    first = tmp_path / "first"
    first.mkdir()
    counts = traced(first)
    print("calls of the busiest thread:", dict(counts))
    assert counts["fdatasync"] + counts["fsync"] > 0
    faults = [f"{call}:signal=SIGKILL:when={n}" for call, most in sorted(counts.items()) for n in range(1, most + 1)]
    faults += [
        f"{call}:error={error}:when={n}"
        for call in ("fsync", "fdatasync")
        for error in ("EIO", "ENOSPC")
        for n in range(1, counts[call] + 1)
    ]
    chosen = faults if ALL else random.Random(SEED).sample(faults, min(8, len(faults)))

    def one(numbered: tuple[int, str]) -> Trial:
        trial = trial_of_call(tmp_path / f"trial{numbered[0]}", numbered[1])
        print(
            f"{trial.point}: reached {trial.reached}, acknowledged {trial.acknowledged}, {trial.problems}", flush=True
        )
        return trial

    with ThreadPoolExecutor(3) as pool:  # most of a trial is waiting
        trials = list(pool.map(one, enumerate(chosen)))
    print(f"{len(trials)} of {len(faults)} faults, {sum(t.reached for t in trials)} reached")
    assert not [t for t in trials if t.problems]
    assert any(t.reached for t in trials)


# --- what only time reaches ---


@pytest.mark.skipif(not ALL, reason="a retry waits at least 30 s (--all)")
def test_server_killed_when_a_retry_is_committed(tmp_path: Path) -> None:
    point, server, reached = "run/retry_committed", Server(tmp_path / "data"), tmp_path / "reached"
    uid, marker = uuid.uuid4().hex, tmp_path / "marker"
    body = submit_body(uid, marker, code=3)
    body["task"]["spec"]["retry"] = {"count": 1, "backoff": {"base_delay": "30s"}}
    try:
        server.start(env={"METIER_FAILPOINTS": f"{point}=kill", "METIER_FAILPOINTS_LOG": str(reached)})
        assert server.call("POST", "/api/v1/submit_job", body).status == 200
        assert server.process is not None
        server.process.wait(120)
        assert point in reached.read_text().split()
        server.start()
        run = wait_for_terminal(server, uid)
        assert run is not None and run["status"]["state"] == "error", run
        assert len(marker.read_text().split()) == 2, "one start for each attempt"
        assert server.stop() == 0
    finally:
        kill_tree_of(str(tmp_path))


# --- power loss ---


class Disk:
    """A real ext4 in a file in memory, whose power can be cut: what was not flushed is gone."""

    def __init__(self, folder: Path) -> None:
        self.image = Path("/dev/shm") / f"metier-power-{os.getpid()}.img"
        self.mount_point = folder / "disk"
        self.mount_point.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(256 << 20)
        self.run("mkfs.ext4", "-q", "-F", str(self.image))
        self.mount()

    @staticmethod
    def run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, text=True)

    def mount(self) -> None:
        self.run("mount", "-o", "loop", str(self.image), str(self.mount_point))

    def cut(self) -> None:
        import fcntl
        import struct

        root = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(root, 0x8004587D, struct.pack("I", 2))  # EXT4_IOC_SHUTDOWN, without flushing the journal
        finally:
            os.close(root)

    def unmount(self) -> None:
        for _ in range(100):  # until the last killed process has let go
            if subprocess.run(["umount", str(self.mount_point)], capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        subprocess.run(["umount", "-l", str(self.mount_point)], capture_output=True)

    def remove(self) -> None:
        self.unmount()
        self.image.unlink(missing_ok=True)


def disk_or_skip(folder: Path) -> Disk:
    if os.geteuid() != 0:
        pytest.skip("cutting a disk's power needs root (loop device, mount)")
    try:
        return Disk(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        Path(f"/dev/shm/metier-power-{os.getpid()}.img").unlink(missing_ok=True)
        pytest.skip(f"no ext4 on a loop device here: {error}")


def test_power_loss(tmp_path: Path) -> None:
    """The disk loses power while jobs run and records are written: what was acknowledged is there afterwards."""
    print(f"seed {SEED}")
    choose = random.Random(SEED)
    disk = disk_or_skip(tmp_path)
    server = Server(disk.mount_point / "data")
    try:
        for round_ in range(8 if ALL else 2):
            server.start()
            runs: list[str] = []
            jobs: list[tuple[str, Path]] = []
            for i in range(choose.randrange(20, 60)):
                if i % 10 == 0:
                    uid, marker = uuid.uuid4().hex, tmp_path / f"marker-{round_}-{i}"
                    if server.call("POST", "/api/v1/submit_job", submit_body(uid, marker)).status == 200:
                        jobs.append((uid, marker))
                uid = f"r{round_}x{i}"
                body = {"metadata": {"name": "record"}, "status": {"state": "completed", "results": {"i": i}}}
                with contextlib.suppress(OSError, http.client.HTTPException):
                    if server.call("POST", f"/api/v1/projects/default/runs/{uid}", body).status == 200:
                        runs.append(uid)
            time.sleep(choose.uniform(0, 0.3))
            disk.cut()
            kill_tree_of(str(disk.mount_point))
            server.process.wait()  # type: ignore[union-attr]
            disk.unmount()
            disk.mount()
            server.start()
            for uid in runs:
                assert server.call("GET", f"/api/v1/projects/default/runs/{uid}").status == 200, f"{uid} is lost"
            states = Counter()
            for uid, marker in jobs:
                run = wait_for_terminal(server, uid)
                assert run is not None, f"job {uid} is lost"
                states[run["status"]["state"]] += 1
                starts = len(marker.read_text().split()) if marker.exists() else 0
                # The machine went down: a job that had not begun runs now, one that had is said to be lost.
                assert starts <= 1, f"{uid} started {starts} times"
                assert run["status"]["state"] in ("completed", "error"), json.dumps(run["status"])
            print(f"round {round_}: {len(runs)} records, {len(jobs)} jobs kept: {dict(states)}")
            assert server.stop() == 0
            kill_tree_of(str(disk.mount_point))
    finally:
        kill_tree_of(str(disk.mount_point))
        disk.remove()
