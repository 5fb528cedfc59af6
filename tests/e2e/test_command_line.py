"""What the command line does beyond one run: waits, watches, tries out, looks after itself, and shows a failure once."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from support.server import BINARY, Server, kill_tree_of
from support.terminal import at_terminal, interrupt_and_confirm, read_rest, read_until

CODE = """
import sys, time

def ok(context, n: int = 1):
    print("working", flush=True)
    context.log_result("n", n)

def fail(context):
    print("before", flush=True)
    try:
        raise KeyError("handled")
    except KeyError:
        import traceback
        traceback.print_exc()
    raise ValueError("no such luck")

def slow(context):
    print("sleeping", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("code")
    (path / "f.py").write_text(CODE)
    return path


def detach(server: Server, folder: Path, *arguments: str) -> str:
    done = server.metier("run", *arguments, "--detach", "-o", "name", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("kind", ["handler", "local", "job"])
def test_the_interpreter_that_is_asked_for(server: Server, folder: Path, kind: str) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    wanted = shutil.which(f"python{version}")
    if wanted is None:
        pytest.skip(f"no python{version} on the PATH")
    (folder / "which.py").write_text("import sys\ndef f(context):\n    context.log_result('prefix', sys.prefix)\n")
    expected = subprocess.run(
        [wanted, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True
    ).stdout.strip()

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return server.metier("run", "which.py:f", "--kind", kind, "-o", "json", *more, cwd=folder)

    prefixes = [json.loads(run(*more).stdout)["status"]["results"]["prefix"] for more in ((), ("--python", version))]
    assert prefixes == [sys.prefix, expected]
    done = run("--python", "3.99")
    assert done.returncode == 5
    assert "3.99" in done.stderr
    assert run("--python", "snake").returncode == 2


@pytest.mark.parametrize("kind", ["handler", "local", "job"])
def test_a_failure_is_shown_once_and_whole_in_the_log(server: Server, folder: Path, kind: str) -> None:
    done = server.metier("run", "f.py:fail", "--kind", kind, cwd=folder)
    assert done.returncode == 1
    shown = done.stdout + done.stderr
    assert "before" in done.stdout
    assert "KeyError: 'handled'" in shown, "a traceback that the code printed itself stays"
    assert shown.count("ValueError: no such luck") == 1
    assert "metier_runner" not in shown
    assert "f.py:15" in done.stderr
    command = next(line for line in done.stderr.splitlines() if "the whole traceback: metier logs" in line)
    uid = command.rsplit(" ", 1)[1]
    log = server.metier("logs", uid).stdout
    assert log.count("ValueError: no such luck") == 1
    assert "metier_runner" in log


def test_wait(server: Server, folder: Path) -> None:
    done = server.metier("wait", detach(server, folder, "f.py:ok", "--kind", "job"), "--for", "completed")
    assert done.returncode == 0, done.stderr
    assert "completed" in done.stderr
    failed = detach(server, folder, "f.py:fail", "--kind", "job")
    assert server.metier("wait", failed).returncode == 0
    assert server.metier("wait", failed, "--for", "completed").returncode == 1
    slow = detach(server, folder, "f.py:slow", "--kind", "job")
    assert server.metier("wait", slow, "--for", "running").returncode == 0
    done = server.metier("wait", slow, "--timeout", "100ms")
    assert done.returncode == 1
    assert f"metier why {slow[:8]}" in done.stderr
    waiter = subprocess.Popen(
        [BINARY, "wait", slow, "--for", "completed"],
        env=server.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert server.metier("abort", slow).returncode == 0
    assert waiter.wait(30) == 4, "an aborted run does not complete"
    assert server.metier("wait", "nothing-of-that-name").returncode == 3
    assert server.metier("wait", slow, "--for", "tea").returncode == 2
    assert server.metier("wait", slow, "--timeout", "soon").returncode == 2


def lines_of(stream: IO[str]) -> Iterator[str]:
    for line in stream:
        yield line.rstrip("\n")


def test_get_runs_watches(server: Server, folder: Path) -> None:
    watcher = subprocess.Popen(
        [BINARY, "get", "runs", "-w", "--name", "watched", "-o", "json"],
        env=server.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        uid = detach(server, folder, "f.py:ok", "--kind", "job", "--name", "watched")
        detach(server, folder, "f.py:ok", "--kind", "job", "--name", "another")
        assert watcher.stdout is not None
        seen = ""
        for line in lines_of(watcher.stdout):
            seen += line
            if '"completed"' in line:
                break
        assert uid in seen
        assert "another" not in seen
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(30) == 130
    finally:
        watcher.kill()
        watcher.wait()
        watcher.stdout.close()  # type: ignore[union-attr]


def test_dry_run_starts_nothing(server: Server, folder: Path) -> None:
    before = server.metier("get", "runs", "-o", "name").stdout
    done = server.metier("run", "f.py:ok", "--kind", "job", "--cpu", "1", "--dry-run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "nothing was started" in done.stdout
    assert "Pod" in done.stdout
    assert "it fits" in done.stdout
    told = server.metier("run", "f.py:ok", "--kind", "job", "--dry-run", "-o", "json", cwd=folder)
    assert json.loads(told.stdout)["verdict"] == "ok"
    done = server.metier("run", "f.py:ok", "--kind", "job", "--mem", "9000Gi", "--dry-run", cwd=folder)
    assert done.returncode == 5
    assert "9000" in done.stderr or "TiB" in done.stderr
    assert server.metier("run", "f.py:ok", "--kind", "local", "--dry-run", cwd=folder).returncode == 0
    assert server.metier("run", "f.py:ok", "--kind", "handler", "--dry-run", cwd=folder).returncode == 2
    assert server.metier("get", "runs", "-o", "name").stdout == before


def test_doctor(server: Server, tmp_path: Path) -> None:
    done = server.metier("doctor", "-o", "json")
    checks = {(c["group"], c["check"]): c for c in json.loads(done.stdout)}
    assert checks["installation", "server"]["state"] == "fine"
    assert str(server.process.pid) in checks["installation", "server"]["text"]  # type: ignore[union-attr]
    assert all(c["fix"] for c in checks.values() if c["state"] != "fine")
    assert done.returncode == (5 if any(c["state"] == "failed" for c in checks.values()) else 0)
    table = server.metier("doctor")
    assert [word in table.stdout for word in ("installation", "machine", "environments", "clients")] == [True] * 4
    away = {"METIER_SERVER": "http://127.0.0.1:9", "MLRUN_DBPATH": "http://127.0.0.1:9"}
    done = server.metier("doctor", "-o", "json", env=away)
    assert done.returncode == 5
    failed = {c["check"] for c in json.loads(done.stdout) if c["state"] == "failed"}
    assert failed == {"server", "mlrun"}


def test_keys_of_a_secret(server: Server, folder: Path) -> None:
    def secret(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = server.metier("secret", *arguments)
        assert done.returncode == 0, done.stderr
        return done

    for key in ("user", "password"):
        (folder / key).write_text(f"{key} value")
        secret("set", f"db:{key}", "--from-file", str(folder / key))
    assert secret("list").stdout.split() == ["db:password", "db:user"]
    (folder / "read.py").write_text(
        "import os\ndef f(context):\n    context.log_result('same', os.environ['user'] == 'user ' + 'value')\n"
    )
    done = server.metier("run", "read.py:f", "--kind", "job", "--secret", "db:user", "-o", "json", cwd=folder)
    assert json.loads(done.stdout)["status"]["results"]["same"] is True, done.stderr
    secret("delete", "db:password", "--yes")
    assert secret("list").stdout.split() == ["db:user"]
    assert server.metier("secret", "delete", "db:password", "--yes").returncode == 3
    secret("delete", "db:user", "--yes")
    assert secret("list").stdout.split() == []
    for key in ("user", "password"):
        secret("set", f"db:{key}", "--from-file", str(folder / key))
    secret("set", "db", "--from-file", str(folder / "user"))  # a key of the project's own secret
    assert secret("list").stdout.split() == ["db", "db:password", "db:user"]
    secret("delete", "db", "--yes")
    assert secret("list").stdout.split() == []
    gone = server.metier("secret", "delete", "db", "--yes")
    assert gone.returncode == 3 and "metier secret list" in gone.stderr


def test_flags_that_a_kind_has_no_use_for(server: Server, folder: Path) -> None:
    (folder / "v.py").write_text("import os\n\n\ndef f():\n    return os.environ['LEVEL']\n")
    for flag, value in (("--mem", "1G"), ("--cpu", "1"), ("--secret", "db:user"), ("-v", "/tmp:/x")):
        done = server.metier("run", "v.py:f", "--kind", "handler", flag, value, cwd=folder)
        assert done.returncode == 2 and done.stderr.startswith(f"error: {flag}: "), done.stderr
    for kind in ("handler", "local"):
        limits = ("--mem", "500M") if kind == "local" else ()
        done = server.metier("run", "v.py:f", "--kind", kind, "-e", "LEVEL=high", *limits, cwd=folder)
        assert done.returncode == 0 and "return\thigh" in done.stdout, done.stderr
        assert "unknown field" not in done.stderr


def test_an_image_that_is_not_known_is_told(server: Server, folder: Path) -> None:
    (folder / "v.py").write_text("def f():\n    return 1\n")
    for image, told in (("python:3.11", True), ("mlrun/mlrun", False)):
        done = server.metier("run", "v.py:f", "--kind", "job", "--image", image, "-o", "name", cwd=folder)
        assert done.returncode == 0, done.stderr
        described = server.metier("describe", "@-1").stdout
        assert ("RuntimeSubstituted" in described) is told, described


def test_a_project_comes_from_a_file(server: Server, folder: Path) -> None:
    (folder / "v.py").write_text("def f():\n    return 1\n")
    (folder / "project.yaml").write_text("kind: Project\nmetadata: {name: from-file}\nspec: {description: mine}\n")
    refused = server.metier("run", "v.py:f", "--kind", "job", "-P", "from-file", cwd=folder)
    assert refused.returncode == 3 and "metier apply -f" in refused.stderr
    assert server.metier("apply", "-f", "project.yaml", cwd=folder).returncode == 0
    assert "from-file" in server.metier("get", "projects").stdout
    done = server.metier("run", "v.py:f", "--kind", "job", "-P", "from-file", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "project.yaml").write_text("kind: Project\nmetadata: {}\n")
    assert server.metier("apply", "-f", "project.yaml", cwd=folder).returncode == 2


def test_a_private_server_keeps_nothing_of_its_caller(folder: Path, tmp_path: Path) -> None:
    """A script that holds a lock while it calls the command has it back when the command ends."""
    lonely = Server(tmp_path / "data")
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            [BINARY, "run", "f.py:ok", "--kind", "job"],
            env=lonely.environment,
            cwd=folder,
            capture_output=True,
            pass_fds=(writer,),
            timeout=90,
        )
        assert done.returncode == 0, done.stderr
        os.close(writer)
        assert os.read(reader, 1) == b"", "nobody holds the other end any more"
    finally:
        os.close(reader)
        kill_tree_of(str(tmp_path / "data"))


def test_names_of_runs(server: Server, folder: Path) -> None:
    uid = detach(server, folder, "f.py:ok", "--kind", "job", "--name", "named")
    assert server.metier("wait", uid[:10]).returncode == 0
    for word in (uid, uid[:10], "named", "@-1"):
        done = server.metier("describe", word, "-o", "json")
        assert json.loads(done.stdout)["metadata"]["uid"] == uid, word


def test_a_live_line_says_why_it_waits(server: Server, folder: Path) -> None:
    """On a terminal only; it is gone when the run goes on."""
    # A later secret keeps the pod waiting for as long as the test wants.
    (folder / "waits.yaml").write_text(
        "kind: job\nmetadata: {name: waits}\nspec:\n  command: f.py\n  env:\n"
        "  - {name: A, valueFrom: {secretKeyRef: {name: later, key: k}}}\n"
    )
    with at_terminal(server, folder, "run", "-f", "waits.yaml", "--handler", "ok") as (process, master):
        seen = read_until(master, lambda said: b"secret that does not exist" in said)
        assert b"pending" in seen
        (folder / "k").write_text("v")
        assert server.metier("secret", "set", "later:k", "--from-file", str(folder / "k")).returncode == 0
        seen += read_rest(master)
        process.wait(30)
        assert b"\r\x1b[K" in seen
        assert seen.rindex(b"does not exist") < seen.rindex(b"\r\x1b[K")


def test_a_run_that_ends_slowly_is_aborted_after_ctrl_c_and_yes(server: Server, folder: Path) -> None:
    """The question's answer waits for the run's end, however often the live line turns meanwhile."""
    (folder / "slow.sh").write_text("#!/bin/sh\ntrap 'sleep 2; exit 0' TERM\necho begun\nwhile :; do sleep 0.1; done\n")
    (folder / "slow.sh").chmod(0o755)
    with at_terminal(server, folder, "run", "slow.sh", "--kind", "job") as (process, master):
        seen = read_until(master, lambda said: b"begun" in said)
        seen += interrupt_and_confirm(process, master)
        assert b"aborted after" in seen and b"interrupted" not in seen


@pytest.mark.parametrize("word", ["shell", "schedule", "workflow"])
def test_a_verb_that_is_not_there_yet_is_absent_from_help_and_says_so(server: Server, word: str) -> None:
    assert re.search(rf"\b{word}\b", server.metier("help").stdout) is None
    for words in ((word,), ("help", word)):
        done = server.metier(*words)
        assert done.returncode == 2, done.stdout
        assert "not in this version" in done.stderr, done.stderr


def test_an_artifact_of_iterations_is_the_best_ones_or_says_which_there_are(server: Server, tmp_path: Path) -> None:
    (tmp_path / "h.py").write_text(
        "def f(context, n: int = 1):\n    context.log_result('acc', n)\n"
        "    context.log_artifact('note', body=f'n={n}', local_path='note.txt')\n"
        "def read(context, data):\n    context.log_result('text', data.get(encoding='utf-8'))\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return server.metier("run", *arguments, "--kind", "job", "-o", "json", cwd=tmp_path)

    def read(url: str) -> subprocess.CompletedProcess[str]:
        return run("h.py:read", "-i", f"data={url}")

    url = "store://artifacts/default/hyper_note"
    assert run("h.py:f", "-n", "hyper", "-x", "n=[1,2]", "--selector", "max.acc").returncode == 0
    assert json.loads(read(url).stdout)["status"]["results"]["text"] == "n=2"
    assert run("h.py:f", "-n", "hyper", "-x", "n=[3,4]").returncode == 0
    # MLRun answers 404 too: no iteration is the best, and none may be guessed.
    nothing = read(url)
    assert nothing.returncode == 1
    assert "logged by 2 iterations of a run that has no best one" in nothing.stderr
    assert "hyper_note#1" in nothing.stderr
    assert json.loads(read(url + "#1").stdout)["status"]["results"]["text"] == "n=3"
