"""One function as handler, local and job by the command line, and wrong use as a new user would try it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from support.gang import wait_for
from support.server import BINARY, Server, kill_tree_of

CODE = """
import os, sys, time
import helpers

def train(context, lr: float = 0.1, epochs: int = 2):
    print("fitting with", lr)
    context.log_result("accuracy", 0.9 + lr)
    context.log_result("where", os.getcwd())
    context.log_artifact("note", body=helpers.text(), local_path="note.txt")

def fail(context):
    print("about to fail")
    raise ValueError("no such luck")

def missing(context):
    import surely_not_installed

def slow(context):
    print("sleeping", flush=True)
    time.sleep(600)

def hungry(context):
    block = b"x" * (300 << 20)
    print(len(block))

def leave(context):
    sys.exit(7)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("code")
    (path / "train.py").write_text(CODE)
    (path / "helpers.py").write_text("def text():\n    return b'hello'\n")
    (path / "hello.sh").write_text("#!/bin/sh\necho shell says $1\nexit ${2:-0}\n")
    (path / "hello.sh").chmod(0o755)
    return path


def run(server: Server, folder: Path, *arguments: str) -> tuple[int, dict, str]:
    done = server.metier("run", *arguments, "-o", "json", cwd=folder)
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr


FLAKY = """
import os
def flaky(context, folder):
    n = len(os.listdir(folder)) + 1
    open(f"{folder}/{n}", "w").close()
    print(f"try {n} is here", flush=True)
    if n == 1:
        raise RuntimeError("not yet")
"""


@pytest.fixture(scope="module")
def retried(server: Server, tmp_path_factory: pytest.TempPathFactory) -> subprocess.Popen[str]:
    """A run whose first attempt fails, in the foreground; the half minute before its second one passes beside other tests."""
    base = tmp_path_factory.mktemp("retried")
    (base / "tries").mkdir()
    (base / "flaky.py").write_text(FLAKY)
    return subprocess.Popen(
        [BINARY, "run", "flaky.py:flaky", "--kind", "job", "--retry", "1", "-p", f"folder={base / 'tries'}"],
        env=server.environment,
        cwd=base,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_retried_run_is_begun(retried: subprocess.Popen[str]) -> None:
    assert retried.poll() is None


@pytest.mark.parametrize("kind", ["handler", "local", "job"])
def test_one_function_in_every_kind(server: Server, folder: Path, kind: str) -> None:
    code, document, errors = run(server, folder, "train.py:train", "--kind", kind, "-p", "lr=0.05")
    assert code == 0, errors
    assert document["status"]["state"] == "completed"
    assert document["status"]["results"]["accuracy"] == pytest.approx(0.95)
    uri = document["status"]["artifact_uris"]["note"]
    assert uri.startswith("store://artifacts/default/")
    log = server.metier("logs", document["metadata"]["uid"]).stdout
    assert "fitting with 0.05" in log
    assert not (folder / "artifacts").exists(), "nothing is left in the caller's folder"


def test_prints_results_as_a_table(server: Server, folder: Path) -> None:
    done = server.metier("run", "train.py:train", "--kind", "job", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "fitting with 0.1" in done.stdout
    assert "accuracy" in done.stdout


def test_a_shell_program_as_local(server: Server, folder: Path) -> None:
    done = server.metier("run", "hello.sh", "--kind", "local", "--", "Ada", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "shell says Ada" in done.stdout
    done = server.metier("run", "hello.sh", "--kind", "local", "--", "Ada", "3", cwd=folder)
    assert done.returncode == 1
    assert "3" in done.stderr


@pytest.mark.parametrize("kind", ["handler", "local", "job"])
def test_a_failing_handler_shows_the_users_line(server: Server, folder: Path, kind: str) -> None:
    done = server.metier("run", "train.py:fail", "--kind", kind, cwd=folder)
    assert done.returncode == 1
    assert "no such luck" in done.stderr
    assert "train.py:" in done.stderr
    assert "metier_runner" not in done.stderr


def test_exit_codes_of_user_code(server: Server, folder: Path) -> None:
    code, document, _ = run(server, folder, "train.py:leave", "--kind", "job")
    assert code == 1
    assert document["status"]["state"] == "error"


def test_a_missing_package_names_environment_and_fix(server: Server, folder: Path) -> None:
    done = server.metier("run", "train.py:missing", "--kind", "job", cwd=folder)
    assert done.returncode == 1
    assert "surely_not_installed" in done.stderr
    assert "--requirements" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="memory limits need cgroups, which need root here")
def test_killed_for_memory_by_name(server: Server, folder: Path) -> None:
    code, document, _ = run(server, folder, "train.py:hungry", "--kind", "job", "--mem", "64Mi")
    assert code == 1
    assert document["status"]["reason"] == "OOMKilled"
    why = server.metier("why", document["metadata"]["uid"])
    assert "OOMKilled" in why.stdout + why.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nothing.py:train"], 3, "nothing.py"),
        (["train.py:trian"], 2, "train"),
        (["train.py:train", "--kind", "jbo"], 2, "job"),
        (["train.py:train", "--kind", "job", "--mem", "2GB"], 2, "2G"),
        (["train.py:train", "--kind", "job", "--mem", "9000Gi"], 5, "GiB"),
        (["train.py:train", "--kind", "job", "--secret", "nothing:key"], 3, "nothing"),
        (["train.py:train", "--kind", "mpijob", "--max", "3"], 2, "fixed number of workers"),
        (["train.py:train", "-p", "x"], 2, "-p"),
        (["train.py:train", "--nonsense"], 2, "--nonsense"),
    ],
)
def test_wrong_use_says_what_and_how(server: Server, folder: Path, arguments: list[str], code: int, text: str) -> None:
    done = server.metier("run", *arguments, cwd=folder)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert text in done.stderr
    assert "error:" in done.stderr


def test_abort_and_interrupts(server: Server, folder: Path) -> None:
    process = subprocess.Popen(
        [BINARY, "run", "train.py:slow", "--kind", "job", "--name", "sleeper"],
        env=server.environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "sleeping" in line:
            break
    assert server.metier("wait", "sleeper", "--for", "running").returncode == 0  # its log may be ahead of its state
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    listed = json.loads(server.metier("get", "runs", "-o", "json").stdout)["runs"]
    assert {r["metadata"]["name"]: r["status"]["state"] for r in listed}["sleeper"] == "running"
    done = server.metier("abort", "sleeper")
    assert done.returncode == 0, done.stderr
    listed = server.metier("get", "runs", "-o", "json")
    states = {r["metadata"]["name"]: r["status"]["state"] for r in json.loads(listed.stdout)["runs"]}
    assert states["sleeper"] == "aborted"


def test_a_closed_pipe_leaves_the_run_alone(server: Server, folder: Path) -> None:
    command = f"{BINARY} run train.py:train --kind job --name piped | head -n 1"
    subprocess.run(["sh", "-c", command], env=server.environment, cwd=folder, check=True, capture_output=True)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        done = json.loads(server.metier("get", "runs", "-o", "json").stdout)
        states = [r["status"]["state"] for r in done["runs"] if r["metadata"]["name"] == "piped"]
        if states and states[0] == "completed":
            return
    raise AssertionError("the run did not complete")


def test_port_in_use(server: Server, tmp_path: Path) -> None:
    port = server.url.rsplit(":", 1)[1]
    done = server.metier("server", "--listen", f"127.0.0.1:{port}", "--data", str(tmp_path / "other"))
    assert done.returncode == 2
    assert port in done.stderr


def test_two_servers_on_one_folder(server: Server) -> None:
    done = server.metier("server", "--data", str(server.data))
    assert done.returncode == 2
    assert str(server.process.pid) in done.stderr  # type: ignore[union-attr]


def test_two_terminals_at_once_without_a_server(folder: Path, tmp_path: Path) -> None:
    lonely = Server(tmp_path / "data")
    processes = [
        subprocess.Popen(
            [BINARY, "run", "train.py:train", "--kind", "job", "-o", "json"],
            env=lonely.environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        for process in processes:
            out, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert json.loads(out)["status"]["state"] == "completed"
    finally:
        kill_tree_of(str(tmp_path / "data"))


def test_render_is_pure(server: Server, folder: Path) -> None:
    done = server.metier("render", "train.py:train", "--kind", "job", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "kind: Pod" in done.stdout
    assert server.metier("render", "train.py:train", "--kind", "handler", cwd=folder).returncode == 2


@pytest.mark.parametrize("kind", ["job", "mpijob", "dask", "spark"])
def test_a_priority_class_that_is_none_is_told(server: Server, folder: Path, kind: str) -> None:
    urgent = ("--kind", kind, "--set", 'spec.priority_class_name="urgent"')
    done = server.metier("render", "train.py:train", *urgent, "-o", "json", cwd=folder)
    assert '"priorityClassName": "urgent"' in done.stdout, done
    dry = server.metier("run", "train.py:train", *urgent, "--dry-run", cwd=folder)
    assert "'urgent' is not one of the server's priority classes" in dry.stdout, dry


def test_logs_since_a_time_and_with_timestamps(server: Server, folder: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    (folder / "steps.py").write_text(
        "import os, time\n"
        "def steps(context, go: str):\n"
        "    print('one', flush=True)\n"
        "    while not os.path.exists(go):\n"
        "        time.sleep(0.01)\n"
        "    print('two\\nthree', flush=True)\n"
    )
    before = set(server.data.rglob("*@times"))
    done = server.metier("run", "steps.py:steps", "--kind", "job", "-p", f"go={go}", "--detach", cwd=folder)
    assert done.returncode == 0, done.stderr
    stamped = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?\+00:00) (.*)$")

    def lines(*options: str) -> list[tuple[datetime, str]]:
        out = server.metier("logs", "@-1", "--timestamps", *options)
        assert out.returncode == 0, out.stderr
        found = [stamped.match(line) for line in out.stdout.splitlines()]
        assert all(found), out.stdout
        return [(datetime.fromisoformat(m[1]), m[2]) for m in found if m]

    while not (first := lines()):
        time.sleep(0.05)
    assert [text for _, text in first] == ["one"]
    between = datetime.now(timezone.utc)
    assert first[0][0] < between
    time.sleep(0.05)  # files are stamped by the kernel's tick, up to 10 ms early
    wait_for(lambda: set(server.data.rglob("*@times")) - before)  # the first line's time is noted
    go.touch()
    followed = lines("-f")
    assert [text for _, text in followed] == ["one", "two", "three"]
    assert followed[1][0] >= between
    for options in [["--since", between.isoformat()], ["--since", between.isoformat(), "-f"]]:
        assert [text for _, text in lines(*options)] == ["two", "three"]
    assert server.metier("logs", "@-1", "--since", "1h", "--tail", "1").stdout == "three\n"
    assert server.metier("logs", "@-1", "--since", (between + timedelta(hours=1)).isoformat()).stdout == ""
    wrong = server.metier("logs", "@-1", "--since", "noon")
    assert wrong.returncode == 2
    assert "'noon'" in wrong.stderr and "30s" in wrong.stderr


def test_each_attempt_is_told_between_its_log_and_the_next(
    server: Server, folder: Path, retried: subprocess.Popen[str]
) -> None:
    said, _ = retried.communicate(timeout=120)
    assert retried.returncode == 0, said
    words = (
        "try 1 is here",
        "RuntimeError: not yet",
        "! attempt 1 failed (RuntimeError: not yet); the next one starts in 30",
        "attempt 2 of 2 starts",
        "try 2 is here",
        "completed",
    )
    places = [said.find(word) for word in words]
    assert -1 not in places, said
    assert places == sorted(places), said
    first = re.search(r"flaky  job  (\w{8})", said)
    assert first, said
    previous = server.metier("logs", first.group(1), "--previous").stdout
    assert "try 1 is here" in previous
    assert "try 2 is here" not in previous
    assert server.metier("logs", first.group(1), "--previous", "-f").returncode == 2
    _, document, _ = run(server, folder, "train.py:train", "--kind", "job")
    assert server.metier("logs", document["metadata"]["uid"], "--previous").returncode == 3
