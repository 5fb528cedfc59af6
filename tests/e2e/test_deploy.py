"""Deployments by the command line: deploy, invoke, describe, logs, delete, redeploy under load, kills, wrong use."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.server import BINARY, Server, kill_tree_of, running

HELLO = """
import os
import helpers

def init_context(context):
    context.user_data.greeting = "hello"

def handler(context, event):
    name = event.body.decode() if isinstance(event.body, bytes) else event.body
    context.logger.info("greeting somebody")
    return f"{context.user_data.greeting} {name or helpers.NAME}"

def pid(context, event):
    return str(os.getpid())

def slow(context, event):
    import time
    time.sleep(0.2)
    return str(os.getpid())

def blocks(context, event):
    import time
    time.sleep(3600)

def exits(context, event):
    os._exit(3)

def fail(context, event):
    raise ValueError("no such luck")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("code")
    (path / "hello.py").write_text(HELLO)
    (path / "helpers.py").write_text("NAME = 'world'\n")
    return path


@pytest.fixture(autouse=True)
def nothing_left(server: Server) -> Iterator[None]:
    yield
    for row in json.loads(server.metier("get", "functions", "-o", "json").stdout or "{}").get("funcs") or []:
        server.metier("delete", row["metadata"]["name"], "-y")


def view(server: Server, name: str) -> dict[str, Any]:
    answer = server.call("GET", f"/api/metier/v1/deployments/{name}?project=default")
    return answer.json() if answer.status == 200 else {"state": "none"}


def until(condition: Any, what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def get(url: str, timeout: float = 30) -> tuple[int, str]:
    host, port = url.removeprefix("http://").rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def deploy(server: Server, folder: Path, *arguments: str) -> str:
    done = server.metier("deploy", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def processors(data: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"processor" in words and any(word.startswith(str(data).encode()) for word in words):
            found.append(int(entry.name))
    return found


def test_a_file_becomes_a_url_that_answers(server: Server, folder: Path) -> None:
    url = deploy(server, folder, "hello.py")
    assert url.startswith("http://127.")
    assert get(url) == (200, "hello world")
    assert server.metier("invoke", "hello", "-d", "Ada").stdout == "hello Ada"
    listed = server.metier("get", "functions", "--no-headers").stdout
    assert "hello" in listed and "ready" in listed and url.removeprefix("http://") in listed
    told = server.metier("describe", "hello").stdout
    assert "ready" in told and url in told and "nuclio-default-hello-1-0" in told
    assert "greeting somebody" in server.metier("logs", "hello").stdout
    assert server.metier("delete", "hello", "-y").returncode == 0
    until(lambda: view(server, "hello")["state"] == "none", "the deployment goes")
    assert "hello" not in server.metier("get", "functions").stdout


def test_a_function_yaml_of_nuclio(server: Server, folder: Path) -> None:
    (folder / "function.yaml").write_text(
        "apiVersion: nuclio.io/v1beta1\nkind: NuclioFunction\nmetadata: {name: from-file}\n"
        "spec: {handler: 'hello:handler', runtime: 'python:3.9', triggers: {web: {kind: http, numWorkers: 2}}}\n"
    )
    url = deploy(server, folder, "-f", "function.yaml")
    assert get(url) == (200, "hello world")
    conditions = {c["type"] for c in view(server, "from-file")["status"].get("conditions", [])}
    import shutil

    assert ("RuntimeSubstituted" in conditions) == (shutil.which("python3.9") is None)


INSIDE = """# @nuclio.configure
#
# function.yaml:
#   spec:
#     handler: main:go
#     eventTimeout: 30s
#     env: [{name: WHO, value: inside}]
#     triggers:
#       web: {kind: http, numWorkers: 2}
import os

def go(context, event):
    return f"{os.environ['WHO']} {context.trigger_name}"
"""


def test_a_source_that_configures_itself(server: Server, tmp_path: Path) -> None:
    (tmp_path / "self.py").write_text(INSIDE)
    assert get(deploy(server, tmp_path, "self.py")) == (200, "inside web")
    url = deploy(server, tmp_path, "self.py", "-e", "WHO=request")
    # Its predecessor, told to go, may take a last call.
    until(lambda: get(url) == (200, "request web"), "the new generation")
    (tmp_path / "self.py").write_text(INSIDE.replace("numWorkers", "numWorker"))
    done = server.metier("deploy", "self.py", cwd=tmp_path)
    assert done.returncode == 2 and "did you mean numWorkers?" in done.stderr, done.stderr


def test_a_notebook_with_magic(server: Server, tmp_path: Path) -> None:
    cells = [
        "# nuclio: ignore\nimport surely_not_installed",
        "%nuclio config spec.triggers.web = {'kind': 'http', 'numWorkers': 2}\n%nuclio env WHO=notebook",
        "import os\n%time\n!echo no part of it",
        "def handler(context, event):\n    return f\"{os.environ['WHO']} {context.trigger_name}\"",
        "# nuclio: end-code",
        "handler(None, None)",
    ]
    notebook = {
        "nbformat": 4, "nbformat_minor": 5, "metadata": {},
        "cells": [{"cell_type": "code", "metadata": {}, "outputs": [], "source": cell} for cell in cells],
    }  # fmt: skip
    (tmp_path / "nb.ipynb").write_text(json.dumps(notebook))
    assert get(deploy(server, tmp_path, "nb.ipynb")) == (200, "notebook web")


def test_the_same_again_does_nothing_and_a_change_replaces_it(server: Server, folder: Path) -> None:
    url = deploy(server, folder, "hello.py:pid")
    first = get(url)
    assert deploy(server, folder, "hello.py:pid") == url
    assert get(url) == first
    assert deploy(server, folder, "hello.py:pid", "-e", "A=1") == url
    until(lambda: get(url) != first, "the new generation")


def test_a_redeploy_under_load_fails_no_request(server: Server, folder: Path) -> None:
    url = deploy(server, folder, "hello.py:pid", "--name", "rolled")
    stop = threading.Event()
    answers: list[tuple[int, str]] = []
    errors: list[str] = []

    def ask() -> None:
        while not stop.is_set():
            try:
                answers.append(get(url))
            except Exception as error:  # noqa: BLE001 - every failure is one too many
                errors.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(3):
            deploy(server, folder, "hello.py:pid", "--name", "rolled", "-e", f"N={number}")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert {status for status, _ in answers} == {200}
    assert len({pid for _, pid in answers}) >= 4, "each deploy has processes of its own"


def test_a_function_at_zero_answers_its_first_request(server: Server, folder: Path) -> None:
    (folder / "zero.yaml").write_text(
        "apiVersion: nuclio.io/v1beta1\nkind: NuclioFunction\nmetadata: {name: zero}\n"
        "spec: {handler: 'hello:handler', runtime: python, minReplicas: 0, maxReplicas: 2,\n"
        "       scaleToZero: {scaleResources: [{metricName: events, windowSize: 1s, threshold: 0}]}}\n"
    )
    url = deploy(server, folder, "-f", "zero.yaml")
    assert get(url)[0] == 200
    until(lambda: view(server, "zero")["state"] == "scaledToZero", "it goes to zero")
    assert view(server, "zero")["status"]["reason"] == "ScaledToZero"
    why = server.metier("why", "zero").stdout
    assert "the next call starts one" in why
    assert "metier help ScaledToZero" in why
    assert server.metier("help", "ScaledToZero").returncode == 0
    until(lambda: not processors(server.data), "its processor ends")
    assert get(url) == (200, "hello world")
    until(lambda: view(server, "zero")["state"] == "ready", "it is ready again")


class Callers:
    """Threads that call a function again and again, `pause` seconds after each answer; every failure is kept."""

    def __init__(self, url: str, count: int, pause: float = 0) -> None:
        self.url = url
        self.pause = pause
        self.answers: list[tuple[int, str]] = []
        self.errors: list[str] = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.ask) for _ in range(count)]

    def ask(self) -> None:
        while not self.stop.is_set():
            try:
                self.answers.append(get(self.url, timeout=60))
            except Exception as error:  # noqa: BLE001 - every failure is one too many
                self.errors.append(repr(error))
            self.stop.wait(self.pause)

    def __enter__(self) -> Callers:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def check(self) -> None:
        assert self.errors == []
        assert {status for status, _ in self.answers} == {200}


def ready_replicas(server: Server, name: str) -> int:
    return int((view(server, name).get("status") or {}).get("ready_replicas", 0))


BUSY = """
apiVersion: nuclio.io/v1beta1
kind: NuclioFunction
metadata: {name: busy}
spec: {handler: 'hello:slow', runtime: python, minReplicas: %d, maxReplicas: 3,
       resources: {requests: {cpu: 50m, memory: 32Mi}},
       scaleToZero: {scaleResources: [{metricName: events, windowSize: 3s, threshold: 0}]}}
"""


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Server]:
    """Replicas are added only where processors are free: here they count as free, whatever else runs on this machine."""
    with running(tmp_path / "data", env={"METIER_FORCE": "free-cpus"}) as own:
        yield own


def test_load_adds_replicas_and_they_go_after_it_without_a_failed_request(roomy: Server, folder: Path) -> None:
    (folder / "busy.yaml").write_text(BUSY % 1)
    url = deploy(roomy, folder, "-f", "busy.yaml")
    assert ready_replicas(roomy, "busy") == 1
    with Callers(url, 6) as callers:
        until(lambda: ready_replicas(roomy, "busy") >= 2, "busy workers make a second replica", 180)
        grown = len(callers.answers)
        until(lambda: len({pid for _, pid in callers.answers[grown:]}) >= 2, "both answer")
        # A redeploy while there are several, under the same load.
        deploy(roomy, folder, "-f", "busy.yaml", "-e", "N=1")
        until(lambda: ready_replicas(roomy, "busy") >= 2, "the redeployed ones are as many", 180)
        later = len(callers.answers)
        until(lambda: len({pid for _, pid in callers.answers[later:]}) >= 2, "the new ones answer")
    callers.check()
    # A little load goes on while the others leave: a third of one replica's time, which wants 75 % to be two.
    with Callers(url, 1, pause=0.4) as callers:
        until(lambda: len(processors(roomy.data)) == 1, "without load one stays", 240)
    callers.check()
    assert view(roomy, "busy")["state"] == "ready"


def test_load_at_zero_makes_replicas_and_all_go_again(roomy: Server, folder: Path) -> None:
    (folder / "busy.yaml").write_text(BUSY % 0)
    url = deploy(roomy, folder, "-f", "busy.yaml")
    for _ in range(2):
        until(lambda: view(roomy, "busy")["state"] == "scaledToZero", "without load it goes to zero", 120)
        until(lambda: not processors(roomy.data), "its processors end")
        with Callers(url, 6) as callers:
            until(lambda: ready_replicas(roomy, "busy") >= 2, "load at zero makes two", 180)
        callers.check()


def test_a_killed_processor_comes_back(server: Server, folder: Path) -> None:
    url = deploy(server, folder, "hello.py", "--name", "killed")
    for pid in processors(server.data):
        os.kill(pid, signal.SIGKILL)
    assert get(url) == (200, "hello world")  # the connection waits in the backlog
    until(lambda: view(server, "killed")["state"] == "ready", "it is ready again")


SURROUNDINGS = """
import json, os, signal, sys, threading
LINES = open("/proc/self/status").read().splitlines()
MASKS = [line for line in LINES if line.startswith(("SigBlk", "SigIgn", "CapEff", "Threads"))]

def handler(context, event):
    tree = [os.getpid(), os.getppid(), os.getpgid(0) == os.getppid()]
    mine = {"environ": dict(os.environ), "argv": sys.argv, "cwd": os.getcwd(), "first": sys.path[0], "masks": MASKS,
            "main": sys.modules["__main__"].__name__, "umask": os.umask(0o22), "thread": threading.current_thread().name,
            "interrupt": str(signal.getsignal(signal.SIGINT)), "open": sorted(os.listdir("/proc/self/fd"))[:3],
            "errors": [sys.stdout.errors, sys.stderr.errors, sys.stdout.encoding], "executable": sys.executable}
    print("here", flush=False)
    return context.Response(body=json.dumps({"mine": mine, "tree": tree}), content_type="application/json")
"""


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_a_function_forked_from_the_nodes_interpreter_sees_what_one_of_its_own_would(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "around.py").write_text(SURROUNDINGS)
    url = deploy(server, tmp_path, "around.py", "--env", "COLOUR=green")
    forked = json.loads(get(url)[1])
    assert "metier_runner.zygote" in command_of(forked["tree"][1]), "no interpreter was started for it"
    until(lambda: len(processors(server.data)) == 1, "the end of the test's before")
    (processor,) = processors(server.data)
    os.kill(processor, signal.SIGKILL)  # its shim starts it again, with an interpreter of its own
    cold = json.loads(get(url)[1])
    assert "-m metier_worker" in command_of(cold["tree"][1])
    assert forked["tree"][2] and cold["tree"][2], "a Ctrl-C at a terminal is not for the template"
    assert forked["mine"]["environ"]["COLOUR"] == "green"
    mine, its = (one["mine"].pop("environ") for one in (forked, cold))
    assert {name: (mine.get(name), its.get(name)) for name in {**mine, **its} if mine.get(name) != its.get(name)} == {}
    assert forked["mine"] == cold["mine"]
    until(lambda: server.metier("logs", "around").stdout.count("here") == 2, "what each printed, unbuffered")


def test_gate_and_server_may_die(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> None:
    data = tmp_path_factory.mktemp("kills") / "data"
    with running(data) as own:
        url = deploy(own, folder, "hello.py")
        own.kill()
        assert get(url) == (200, "hello world")  # nobody but the processor is needed
        own.start()
        until(lambda: view(own, "hello")["state"] == "ready", "it is known again")
        assert get(url) == (200, "hello world")
        pids = processors(data)
        gates = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _is_gate(p, data)]
        assert len(gates) == 1
        os.kill(gates[0], signal.SIGKILL)
        assert get(url) == (200, "hello world")
        until(lambda: any(_is_gate(p, data) for p in Path("/proc").iterdir() if p.name.isdigit()), "a new gate")
        assert deploy(own, folder, "hello.py", "-e", "A=1") == url
        # Both together: the processor still has the socket, and gives it back.
        own.kill()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _is_gate(entry, data):
                os.kill(int(entry.name), signal.SIGKILL)
        assert get(url) == (200, "hello world")
        own.start()
        until(lambda: view(own, "hello")["state"] == "ready", "it is known after both died")
        assert deploy(own, folder, "hello.py", "-e", "A=2") == url
        assert get(url) == (200, "hello world")
        assert pids != processors(data)
    kill_tree_of(str(data))


def _is_gate(entry: Path, data: Path) -> bool:
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"gate" in words and str(data).encode() in words


# --- wrong use, as a new user would try it ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "arguments", "exit_code", "says"),
    [
        ("def handler(c, e): pass", ["bad.py:nothing"], 2, "no function 'nothing'"),
        ("def handler(c, e): pass", ["bad.py", "--kind", "job"], 2, "is run, not deployed"),
        ("def handler(c, e): pass", ["bad.py", "--min", "3", "--max", "2"], 2, "--min"),
        ("def handler(c, e): pass", ["bad.py", "--mem", "9000Gi"], 5, "memory"),
        ("def handler(c, e):\n    return 1 +\n", ["bad.py"], 1, "SyntaxError"),
        ("import surely_not_installed\ndef handler(c, e): pass\n", ["bad.py"], 1, "surely_not_installed"),
        ("def init_context(c): raise ValueError('no luck')\ndef handler(c, e): pass\n", ["bad.py"], 1, "no luck"),
    ],
)
def test_wrong_use_says_what_is_wrong(
    server: Server, tmp_path: Path, code: str, arguments: list[str], exit_code: int, says: str
) -> None:
    (tmp_path / "bad.py").write_text(code)
    done = server.metier("deploy", *arguments, cwd=tmp_path)
    assert done.returncode == exit_code, done.stderr
    assert says in done.stderr


def test_function_yaml_with_wrong_fields(server: Server, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def handler(c, e): pass")
    for spec, code, says in [
        ("{handler: 'main:handler', runtime: golang}", 5, "handlers written in Go do not run here"),
        ("{handler: 'main:handler', runtime: python, numReplicas: 2}", 2, "spec.numReplicas"),
        ("{handler: 'main:handler', triggers: {q: {kind: rabbit-mq}}}", 5, "rabbit-mq are not served here"),
        ("{handler: 'main:handler', runtime: python, minReplicas: 0, maxReplicas: 1, "
         "triggers: {k: {kind: kafka-cluster, attributes: {topics: [t], brokers: ['127.0.0.1:1'], consumerGroup: g}}}}", 5,
         "0 with a stream trigger"),
        ("{handler: 'other:handler', runtime: python}", 3, "other.py: no such file"),
        ("{handler: 'main:handler', disableDefaultHTTPTrigger: true}", 2, "spec.triggers: there is none that is enabled"),
        ("{handler: 'main:handler', triggers: {w: {kind: http, disabled: true}}}", 2, "none that is enabled"),
    ]:  # fmt: skip
        (tmp_path / "function.yaml").write_text(f"metadata: {{name: bad}}\nspec: {spec}\n")
        done = server.metier("deploy", "-f", "function.yaml", cwd=tmp_path)
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr


@pytest.mark.parametrize(
    ("trigger", "says"),
    [
        ("{kind: http, attributes: {readBufferSize: 9999999}}", "attributes.readBufferSize: '9999999' is no size"),
        ("{kind: http, attributes: {readHeaderTimeout: 0s}}", "attributes.readHeaderTimeout: '\"0s\"' is no duration above 0"),
        ("{kind: http, attributes: {tls: {certificate: /c.pem}}}", "attributes.tls: names only one of certificate and key"),
        ("{kind: http, mode: async, batch: {mode: enable}}", "t.batch: cannot be used with mode async"),
        ("{kind: kafka, attributes: {topics: [t], brokers: ['127.0.0.1:1'], consumerGroup: g, sessionTimeout: 1s}}",
         "heartbeatInterval: 3000 ms is not less than sessionTimeout"),
        ("{kind: kafka, attributes: {topics: [t], brokers: ['127.0.0.1:1'], consumerGroup: g, fetchMin: 0}}", "fetchMin: 0 is out of range"),
    ],
)  # fmt: skip
def test_what_a_processor_would_end_with_is_refused_at_deploy(
    server: Server, tmp_path: Path, trigger: str, says: str
) -> None:
    (tmp_path / "main.py").write_text("def handler(c, e): pass")
    (tmp_path / "function.yaml").write_text(
        f"metadata: {{name: refused}}\nspec: {{handler: 'main:handler', triggers: {{t: {trigger}}}}}\n"
    )
    done = server.metier("deploy", "-f", "function.yaml", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr and "spec.triggers.t." in done.stderr, done.stderr
    assert view(server, "refused")["state"] == "none", "nothing was started"


CALLER = """
import nuclio_sdk

def handler(context, event):
    answer = context.platform.call_function(event.body.decode(), nuclio_sdk.Event(body=b"Ada"))
    return f"{answer.status_code} {answer.body.decode()}"
"""


def test_a_function_calls_another_by_name(server: Server, folder: Path) -> None:
    (folder / "caller.py").write_text(CALLER)
    deploy(server, folder, "caller.py")
    deploy(server, folder, "hello.py")  # after it: a running function finds it all the same
    for name in ("hello", "default-hello"):
        assert server.metier("invoke", "caller", "-d", name).stdout == "200 hello Ada"
    done = server.metier("invoke", "caller", "-d", "nobody")
    assert done.returncode == 1 and "function 'nobody' does not answer" in done.stdout + done.stderr


def test_a_folder_too_large_to_be_taken_along_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("def handler(context, event):\n    return 'here'\n\ndef f(context):\n    pass\n")
    with open(tmp_path / "big.bin", "wb") as big:
        big.truncate(51 << 20)
    url = deploy(server, tmp_path, "one.py")
    assert get(url) == (200, "here"), "a file alone needs no folder"
    (told,) = view(server, "one")["status"]["conditions"]
    assert told["type"] == "ContextTooLarge" and "big.bin alone has 51 MiB" in told["message"]
    assert ".gitignore" in server.metier("help", "ContextTooLarge").stdout
    done = server.metier("run", "one.py:f", "--kind", "job", cwd=tmp_path)
    assert done.returncode == 0 and "! " in done.stderr and "larger than 50 MiB: big.bin alone" in done.stderr, done
    assert "ContextTooLarge  " in server.metier("describe", "one-f").stdout
    (tmp_path / "two.py").write_text("import beside\n\ndef f(context):\n    pass\n")
    (tmp_path / "beside.py").write_text("")
    assert server.metier("run", "two.py:f", "--kind", "job", cwd=tmp_path).returncode == 1
    assert "not taken along" in server.metier("why", "two-f").stdout
    (tmp_path / ".gitignore").write_text("*.bin\n")
    assert deploy(server, tmp_path, "one.py") == url
    assert "conditions" not in view(server, "one")["status"]


def test_over_rest_an_unknown_field_is_a_condition(server: Server) -> None:
    import base64

    source = base64.b64encode(b"def handler(context, event):\n    return 'ok'\n").decode()
    function = {
        "kind": "remote",
        "metadata": {"name": "rest", "project": "default"},
        "spec": {
            "function_handler": "main:handler",
            "build": {"functionSourceCode": source},
            "config": {
                "spec.noSuchField": 1,
                "spec.nodeName": "x",
                "spec.triggers.web": {"kind": "http", "attributes": {"noSuchAttribute": 1}},
            },
        },
    }
    answer = server.call("POST", "/api/v1/projects/default/nuclio/rest/deploy", {"function": function})
    assert answer.status == 200, answer.body
    until(lambda: view(server, "rest")["state"] == "ready", "it is ready")
    said = [c["message"] for c in view(server, "rest")["status"]["conditions"] if c["type"] == "FieldIgnored"]
    for field in ("spec.noSuchField", "spec.nodeName", "spec.triggers.web.attributes.noSuchAttribute"):
        assert any(field in text for text in said), said
    function["spec"]["nuclio_runtime"] = "golang"
    answer = server.call("POST", "/api/v1/projects/default/nuclio/rest/deploy", {"function": function})
    assert answer.status == 400 and b"written in Go" in answer.body
    assert get("http://" + view(server, "rest")["status"]["address"]) == (200, "ok")  # what was there stays


def test_a_handler_that_raises_answers_500(server: Server, folder: Path) -> None:
    deploy(server, folder, "hello.py:fail", "--name", "fails")
    done = server.metier("invoke", "fails")
    assert done.returncode == 1
    assert "answered 500" in done.stderr


def test_handlers_that_block_or_exit_and_bodies_too_large(server: Server, folder: Path) -> None:
    trigger = '{"kind":"http","attributes":{"maxRequestBodySize":1000}}'
    for handler, timeout, code, says in [
        ("blocks", "500ms", 408, "handler timed out"),
        ("exits", "30s", 502, "the worker died while it handled the event"),
    ]:
        url = deploy(
            server, folder, f"hello.py:{handler}", "--name", handler,
            "--set", f'spec.config={{"spec.eventTimeout":"{timeout}","spec.triggers.http":{trigger}}}',
        )  # fmt: skip
        status, text = get(url)
        assert status == code and says in text
        done = server.metier("invoke", handler, "-d", "x" * 2000)
        assert done.returncode == 1 and "answered 413" in done.stderr, done.stderr
        until(lambda handler=handler: view(server, handler)["state"] == "ready", "its worker is replaced")


def test_api_gateways_are_refused_with_the_way_out(server: Server) -> None:
    answer = server.call("PUT", "/api/v1/projects/default/api-gateways/gw", {"metadata": {"name": "gw"}})
    assert answer.status == 501
    assert "API gateways are not served" in answer.body.decode() and "metier describe" in answer.body.decode()


def test_a_port_that_is_taken(server: Server, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = server.metier(
            "deploy", "hello.py", "--name", "port", "--set",
            f'spec.config={{"spec.triggers.http":{{"kind":"http","attributes":{{"port":{port}}}}}}}', cwd=folder,
        )  # fmt: skip
        assert done.returncode == 5, done.stderr
        assert f"{port} is taken" in done.stderr
    assert server.metier("invoke", "nobody").returncode == 3


def held_by_gate(server: Server) -> set[str]:
    """Addresses that the server's gate listens at, as the kernel writes them."""
    listening = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A":
            listening[f"socket:[{words[9]}]"] = words[1]
    out = set()
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"gate" in words and str(server.data).encode() in words:
                links = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
                out |= {listening[link] for link in links if link in listening}
    return out


def test_a_function_whose_port_is_taken_leaves_no_address_held(server: Server, folder: Path) -> None:
    before = held_by_gate(server)
    assert before, "the gate holds the listener of runs"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        trigger = {"spec.triggers.http": {"kind": "http", "attributes": {"port": taken.getsockname()[1]}}}
        done = server.metier(
            "deploy", "hello.py", "--name", "held", "--set", f"spec.config={json.dumps(trigger)}", cwd=folder
        )
        assert done.returncode == 5
        assert server.metier("delete", "held", "-y").returncode == 0
    # Those of functions that an earlier test has deleted may go meanwhile.
    until(lambda: held_by_gate(server) <= before, "the gate lets its address go")


def test_a_worker_that_crashes_is_a_condition(server: Server, folder: Path) -> None:
    url = deploy(server, folder, "hello.py:exits", "--name", "exits")
    assert server.metier("why", "exits").stdout == "function 'exits' is ready\n"
    assert get(url)[0] == 502

    def conditions() -> list[dict[str, Any]]:
        return view(server, "exits")["status"].get("conditions") or []

    until(lambda: [c["type"] for c in conditions()] == ["WorkerCrashed"], "the condition")
    assert "1 of its workers ended by itself (exit code 3)" in conditions()[0]["message"]
    why = server.metier("why", "exits")
    assert "WorkerCrashed: 1 of its workers ended by itself" in why.stdout
    assert "metier logs FUNCTION" in why.stdout
    assert "WorkerCrashed" in server.metier("describe", "exits").stdout
    assert "WorkerCrashed" in server.metier("help", "WorkerCrashed").stdout
    assert view(server, "exits")["state"] == "ready", "another worker has its place"


def test_an_address_on_every_network_is_said(tmp_path: Path, folder: Path) -> None:
    with running(tmp_path / "data", listen="0.0.0.0:0") as server:
        trigger = {"spec.triggers.http": {"kind": "http", "attributes": {"serviceType": "NodePort"}}}
        deploy(server, folder, "hello.py", "--set", f"spec.config={json.dumps(trigger)}")
        conditions = json.loads(server.metier("why", "hello", "-o", "json").stdout)["conditions"]
        assert [c["type"] for c in conditions] == ["ListensOnAllInterfaces"]
        assert "0.0.0.0:" in conditions[0]["message"]
        assert "ListensOnAllInterfaces" in server.metier("describe", "hello").stdout
        assert "127.0.0.1:8080" in server.metier("why", "hello").stdout
        doctor = json.loads(server.metier("doctor", "-o", "json").stdout)
        found = [check for check in doctor if check["check"] == "ListensOnAllInterfaces"]
        assert [check["state"] for check in found] == ["look"]
        assert server.metier("help", "ListensOnAllInterfaces").returncode == 0


class Watch:
    """`metier deploy --watch` in the background."""

    def __init__(self, server: Server, folder: Path, *arguments: str) -> None:
        self.err = folder / "watch.err"
        self.out = folder / "watch.out"
        self.process = subprocess.Popen(
            [BINARY, "deploy", *arguments, "--watch"],
            cwd=folder,
            env=server.environment,
            stdin=subprocess.DEVNULL,
            stdout=self.out.open("wb"),
            stderr=self.err.open("wb"),
        )

    def said(self, text: str) -> None:
        until(lambda: text in self.err.read_text() + self.out.read_text(), f"{text!r} of the watch")

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


def test_watch_deploys_every_save_and_a_broken_one_leaves_the_old(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "live.py"
    file.write_text("import part\ndef handler(context, event):\n    return 'first ' + part.WORD\n")
    (tmp_path / "part.py").write_text("WORD = 'one'\n")

    def answer() -> str:
        return server.metier("invoke", "live").stdout

    watch = Watch(server, tmp_path, "live.py")
    try:
        watch.said("watching")
        assert answer() == "first one"
        beside = tmp_path / "new"  # as editors save: written beside, renamed
        beside.write_text(
            "import part\ndef handler(context, event):\n    print('seen', flush=True)\n    return 'second ' + part.WORD\n"
        )
        beside.rename(file)
        until(lambda: answer() == "second one", "the save is deployed")
        watch.said("live.py changed")
        watch.said("seen")  # what it prints is shown
        (tmp_path / "part.py").write_text("WORD = 'two'\n")
        until(lambda: answer() == "second two", "a file that it imports is deployed too")

        file.write_text("def handlr(context, event):\n    return 'never'\n")
        watch.said("has no function 'handler'")
        assert answer() == "second two"
        file.write_text("import nothing_of_that_name\ndef handler(context, event):\n    return 'never'\n")
        watch.said("the generation before still answers")
        assert answer() == "second two"
        assert watch.process.poll() is None
        file.write_text("def handler(context, event):\n    return 'third'\n")
        until(lambda: answer() == "third", "it goes on with the next good save")
        until(lambda: "watching" in watch.err.read_text().splitlines()[-1], "it waits for the next")
        assert watch.interrupt() == 130
        assert "metier delete live" in watch.err.read_text()
        assert answer() == "third", "it stays deployed"
    finally:
        watch.process.kill()
        watch.process.wait()


def test_watch_without_a_file_or_detached_is_refused(server: Server, tmp_path: Path) -> None:
    absent = server.metier("deploy", "absent.py", "--watch", cwd=tmp_path)
    assert absent.returncode == 3
    (tmp_path / "f.py").write_text("def handler(context, event):\n    return 'x'\n")
    both = server.metier("deploy", "f.py", "--watch", "--detach", cwd=tmp_path)
    assert both.returncode == 2
    assert "does not go with --watch" in both.stderr
