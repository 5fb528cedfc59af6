"""What a Python handler sees and may return (nuclio-processor.md 2)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import until

ROOT = Path(__file__).resolve().parents[2]
SDK_PYTHON = ROOT / "build" / "venv-sdk" / "bin" / "python"

RETURNS = """
import base64, nuclio_sdk
FORMS = {
    "str": lambda c: "text",
    "bytes": lambda c: b"\\x00\\xff",
    "dict": lambda c: {"a": [1]},
    "list": lambda c: [1, "b"],
    "empty-list": lambda c: [],
    "none": lambda c: None,
    "int": lambda c: 5,
    "tuple-str": lambda c: (201, "made"),
    "tuple-dict": lambda c: (202, {"x": 1}),
    "tuple-bytes": lambda c: (203, b"raw"),
    "response": lambda c: c.Response(body="hi", headers={"X-A": "1", "X-N": 7, "X-Drop": 1.5, "Set-Cookie": ["a=1", "b=2"]},
                                     content_type="text/html", status_code=404),
    "response-dict": lambda c: c.Response(body={"k": None}, content_type="text/plain"),
    "response-none": lambda c: c.Response(),
    "response-list": lambda c: c.Response(body=[1, 2]),
    "surrogate": lambda c: "\\udcff",
    "unicode": lambda c: "żółw",
    "not-json": lambda c: {"a": object()},
    "bad-header": lambda c: c.Response(body="x", headers={"X": "a\\r\\nY: b"}),
    "text-first": lambda c: c.Response("x"),
    "bad-type": lambda c: c.Response(body="x", content_type="a\\nb"),
    "bad-status": lambda c: c.Response(body="x", status_code=99),
    "no-content": lambda c: c.Response(body="ignored", status_code=204),
    "big": lambda c: b"z" * 3_000_000,
}
def handler(context, event):
    return FORMS[event.path[1:]](context)
"""

JSON_TYPE = "application/json"


@pytest.mark.parametrize("ring", ["native", "python"])
def test_every_form_of_answer(make: Any, ring: str) -> None:
    f = make(RETURNS, environment={"METIER_FORCE_PYTHON_RING": "1"} if ring == "python" else {})
    expected = {
        "str": (200, "text/plain", b"text"),
        "bytes": (200, "text/plain", b"\x00\xff"),
        "dict": (200, JSON_TYPE, b'{"a": [1]}'),
        "list": (200, JSON_TYPE, b'[1, "b"]'),
        "empty-list": (200, JSON_TYPE, b"[]"),
        "none": (200, "text/plain", b"None"),
        "int": (200, "text/plain", b"5"),
        "tuple-str": (201, "text/plain", b"made"),
        "tuple-dict": (202, JSON_TYPE, b'{"x": 1}'),
        "tuple-bytes": (203, "text/plain", b"raw"),
        "response": (404, "text/html", b"hi"),
        "response-dict": (200, JSON_TYPE, b'{"k": null}'),
        "response-none": (200, "text/plain", b"None"),
        "response-list": (200, "text/plain", b"[1, 2]"),
        "surrogate": (200, "text/plain", b"\xff"),
        "unicode": (200, "text/plain", "żółw".encode()),
        "big": (200, "text/plain", b"z" * 3_000_000),
    }
    for form, (status, kind, body) in expected.items():
        answer = f.call("/" + form)
        assert (answer.status, answer.headers["content-type"], answer.body[:100]) == (status, kind, body[:100]), form
        assert answer.body == body
    for form, word in {
        "not-json": "not JSON serializable",
        "bad-header": "cannot be sent",
        "text-first": "write Response(body=...)",
        "bad-type": "cannot be sent",
        "bad-status": "is no status",
    }.items():
        answer = f.call("/" + form)
        assert answer.status == 500 and word in answer.text, (form, answer)
    answer = f.call("/no-content")
    assert answer.status == 204 and answer.body == b""
    raw = f.raw(b"GET /response HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").decode()
    assert "X-A: 1\r\n" in raw and "X-N: 7\r\n" in raw and "X-Drop" not in raw
    assert raw.count("Set-Cookie:") == 2
    if ring == "python":
        assert "SlowWorker" in f.log()


EVENT = """
import copy, datetime, json, pickle
import nuclio_sdk
def facts(e):
    return {k: (v if isinstance(v, (str, int, bool, dict, list, type(None))) else v.isoformat() if isinstance(v, datetime.datetime)
                else v.decode("latin-1") if isinstance(v, bytes) else dict(vars(v))) for k, v in vars(e).items()}
KEPT = []
def handler(context, event):
    if event.path == "/kept":
        return {"paths": [k.path for k in KEPT], "bodies": [k.body.decode() for k in KEPT], "x": KEPT[0].mine}
    event.mine = 5
    KEPT.append(event)
    out = {"vars": facts(event), "deep": facts(copy.deepcopy(event)), "copy": facts(copy.copy(event)), "pickle": facts(pickle.loads(pickle.dumps(event))),
           "is_sdk": isinstance(event, nuclio_sdk.Event), "get": event.get_header("x-tWo"), "sdk_file": nuclio_sdk.__file__,
           "json": json.loads(event.to_json())["path"], "worker": context.worker_id, "trigger": [context.trigger.kind, context.trigger.name, context.trigger_name],
           "unpickled": type(pickle.loads(pickle.dumps(event))).__module__}
    event.body = b"changed"
    out["changed"] = event.body.decode()
    return out
"""


def interpreters() -> list[Any]:
    return [
        pytest.param(sys.executable, id="without-sdk"),
        pytest.param(
            str(SDK_PYTHON),
            id="with-sdk",
            marks=pytest.mark.skipif(not SDK_PYTHON.exists(), reason="build/venv-sdk is not there: scripts/setup"),
        ),
    ]


@pytest.mark.parametrize("python", interpreters())
def test_event_has_every_attribute(make: Any, python: str) -> None:
    f = make(EVENT, python=python)
    got = f.call(
        "/a%20b/c?x=1&y=&x=3&z=%C5%BC+q", b"payload", headers={"X-one": "1", "x-TWO": "2", "Content-Type": "text/x"}
    ).json()
    seen = got["vars"]
    assert seen["body"] == "payload" and seen["content_type"] == "text/x" and seen["size"] == 7
    assert seen["method"] == "POST" and seen["path"] == "/a b/c" and seen["url"] == ""
    assert seen["fields"] == {"x": "3", "y": "", "z": "ż q"}
    assert seen["headers"]["X-One"] == "1" and seen["headers"]["X-Two"] == "2" and got["get"] == "2"
    assert seen["trigger"] == {"kind": "http", "name": "web"}
    assert seen["shard_id"] == -1 and seen["num_shards"] == 0 and seen["offset"] == 0 and seen["topic"] == ""
    assert seen["type"] == seen["type_version"] == seen["version"] == "" and seen["last_in_batch"] is False
    assert (
        len(seen["id"]) == 36
        and seen["id"][14] == "4"
        and seen["timestamp"].startswith("20")
        and "+" not in seen["timestamp"]
    )
    assert seen["mine"] == 5
    assert seen == got["deep"] == got["copy"] == got["pickle"]
    assert (
        got["is_sdk"] and got["json"] == "/a b/c" and got["worker"] == "0" and got["trigger"] == ["http", "web", "web"]
    )
    assert got["unpickled"].startswith("nuclio_sdk") and got["changed"] == "changed"
    assert ("compat" in got["sdk_file"]) == (python == sys.executable)
    second = f.call("/second", b"other").json()["vars"]
    assert second["id"] != seen["id"]
    # An event that outlives its call keeps what it had.
    kept = f.call("/kept").json()
    assert kept["paths"] == ["/a b/c", "/second"] and kept["bodies"] == ["changed", "changed"] and kept["x"] == 5


def test_json_bodies(make: Any) -> None:
    f = make(
        "def handler(context, event):\n    return {'t': type(event.body).__name__, 'b': event.body if not isinstance(event.body, bytes) else None}\n"
    )
    assert f.call("/", b'{"a": 1}', headers={"Content-Type": "application/json"}).json() == {"t": "dict", "b": {"a": 1}}
    assert f.call("/", b"{oops", headers={"Content-Type": "application/json"}).json()["t"] == "bytes"
    assert f.call("/", b'{"a": 1}', headers={"Content-Type": "application/json; charset=utf-8"}).json()["t"] == "bytes"
    assert "the body is not JSON" in f.log()


@pytest.mark.parametrize("ring", ["native", "python"])
def test_cloud_events(make: Any, ring: str) -> None:
    f = make(
        "def handler(c, e):\n    return [e.id, e.type, e.type_version, e.version, e.trigger.kind, e.timestamp.isoformat(), e.content_type, e.body if isinstance(e.body, dict) else e.body.decode(), e.trigger.name]\n",
        environment={"METIER_FORCE_PYTHON_RING": "1"} if ring == "python" else {},
    )
    envelope = {"eventID": "E1", "eventType": "t", "eventTypeVersion": "2", "cloudEventsVersion": "0.1", "source": "/s", "eventTime": "2020-01-02T03:04:05Z",
                "contentType": "application/json", "data": {"a": 1}}  # fmt: skip
    structured = f.call("/", json.dumps(envelope), headers={"Content-Type": "application/cloudevents+json"}).json()
    assert structured == ["E1", "t", "2", "0.1", "/s", "2020-01-02T03:04:05", "application/json", {"a": 1}, "/s"]
    headers = {"CE-CloudEventsVersion": "0.1", "CE-EventID": "E2", "CE-EventType": "u", "CE-Source": "/b",
               "CE-EventTime": "2021-01-02T05:04:05+02:00"}  # fmt: skip
    binary = f.call("/", "x", headers=headers).json()
    assert binary == ["E2", "u", "", "0.1", "/b", "2021-01-02T03:04:05", "", "x", "web"]
    assert f.call("/", "x").json()[1:5] == ["", "", "", "http"], "nothing is left of the event before"


CONTEXT = """
def init_context(context):
    context.user_data.count = 10
    context.anything = "set"
async def handler(context, event):
    context.user_data.count += 1
    context.logger.debug_with("counted", n=context.user_data.count)
    context.logger.info("plain %s", "text")
    return f"{context.user_data.count} {context.anything}"
"""


def test_context_lives_as_long_as_the_worker(make: Any) -> None:
    f = make(CONTEXT)
    assert [f.call().text for _ in range(3)] == ["11 set", "12 set", "13 set"]
    assert 'debug counted {"n": 11}' in f.log() and "info  plain text" in f.log()
    answer = f.call(headers={"X-Nuclio-Log-Level": "info"})
    logs = json.loads(answer.headers["x-nuclio-logs"])
    assert [record["message"] for record in logs] == ["plain text"] and logs[0]["level"] == "info"
    logs = json.loads(f.call(headers={"X-Nuclio-Log-Level": "debug"}).headers["x-nuclio-logs"])
    assert [record["message"] for record in logs] == ["counted", "plain text"] and logs[0]["n"] == 15


def test_exceptions_are_answers(make: Any) -> None:
    f = make(
        "import sys\n"
        "def handler(context, event):\n"
        "    if event.path == '/exit': sys.exit(3)\n"
        "    if event.path == '/interrupt': raise KeyboardInterrupt('x')\n"
        "    raise ValueError('the reason')\n"
    )
    answer = f.call("/v")
    assert answer.status == 500 and answer.headers["content-type"] == "text/plain"
    assert (
        answer.text.startswith('Exception caught in handler - "the reason": Traceback')
        and "main.py" in answer.text
        and "metier_worker" not in answer.text
    )
    assert f.call("/exit").status == 500 and f.call("/interrupt").status == 500 and f.call("/v").status == 500
    assert f.metric("metier_processor_worker_restarts_total") == 0
    assert f.metric("nuclio_processor_handled_events_total", result="success") == 4


@pytest.mark.parametrize(
    "source, handler, words",
    [
        (
            "def other(c, e): pass\ndef nearby(c, e): pass\n",
            "main:handler",
            ["has no handler 'handler'", "nearby, other"],
        ),
        ("def handler(c, e):\n    return (\n", "main:handler", ["SyntaxError", "main.py"]),
        ("import nothing_of_this_name\n", "main:handler", ["ModuleNotFoundError", "nothing_of_this_name", "line 1"]),
        ("raise SystemExit(4)\n", "main:handler", ["SystemExit"]),
        ("handler = 5\n", "main:handler", ["'main:handler' cannot be called, its type is int"]),
        ("def handler(): pass\n", "main:handler", ["'main:handler' takes (), and is called with two arguments"]),
        ("def handler(e, *, k): pass\n", "main:handler", ["takes (e, k)", "write def handler(context, event)"]),
        ("def handler(a, b, c): pass\n", "main:handler", ["takes (a, b, c)"]),
        ("x = 1\n", "absent:handler", ["there is no module 'absent'"]),
        ("x = 1\n", "main", ["malformed", "module:function"]),
        ("x = 1\n", "main:__import__('os')", ["malformed"]),
        (
            "def init_context(c):\n    raise RuntimeError('no model')\ndef handler(c, e): pass\n",
            "main:handler",
            ["init_context raised RuntimeError: no model", 'main.py", line 2, in init_context'],
        ),
        ("import os\nos._exit(9)\n", "main:handler", ["ended while it imported the handler (exit code 9)"]),
    ],
)
def test_a_wrong_file_is_said_in_words(make: Any, source: str, handler: str, words: list[str]) -> None:
    f = make.start(source, handler=handler)
    assert f.process.wait(180) == 1
    for word in words:
        assert word in f.log(), f.log()


def test_coroutines(make: Any) -> None:
    f = make(
        """
import asyncio
ORDER = []
background = []
async def handler(context, event):
    if event.path == "/plain": return "at once"
    if event.path == "/wait":
        await asyncio.sleep(0.01); return "waited"
    if event.path == "/timeout":
        try:
            await asyncio.wait_for(asyncio.sleep(60), 0.01)
        except asyncio.TimeoutError:
            return "timed out inside"
    if event.path == "/task":
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0 if hasattr(task, "cancelling") else True
        if hasattr(asyncio, "timeout"):
            try:
                async with asyncio.timeout(0.01): await asyncio.sleep(60)
            except TimeoutError:
                pass
            async with asyncio.TaskGroup() as group:
                a = group.create_task(asyncio.sleep(0, "a")); b = group.create_task(asyncio.sleep(0.001, "b"))
            return a.result() + b.result()
        return "ab"
    if event.path == "/spawn":
        async def later():
            await asyncio.sleep(0.02); ORDER.append("later")
        background.append(asyncio.get_running_loop().create_task(later())); return "spawned"
    if event.path == "/order": return ORDER
    if event.path == "/gather": return await asyncio.gather(asyncio.sleep(0.001, 1), asyncio.sleep(0, 2))
    raise KeyError(event.path)
"""
    )
    assert f.call("/plain").text == "at once" and f.call("/wait").text == "waited"
    assert f.call("/timeout").text == "timed out inside" and f.call("/task").text == "ab"
    assert f.call("/gather").json() == [1, 2]
    assert f.call("/spawn").text == "spawned"
    import time

    end = time.monotonic() + 20
    while f.call("/order").json() != ["later"]:  # the task goes on between events
        assert time.monotonic() < end
        time.sleep(0.02)
    assert f.call("/absent").status == 500


ASYNC = """
import asyncio
INSIDE = 0
GATE = None
async def handler(context, event):
    global INSIDE, GATE
    if GATE is None: GATE = asyncio.Event()
    if event.path == "/meet":                    # all of them must be inside at once
        INSIDE += 1
        if INSIDE == 20: GATE.set()
        await GATE.wait()
        context.logger.info("met")
        return str(INSIDE)
    if event.path == "/stream":
        async def pieces():
            for i in range(3):
                await asyncio.sleep(0.001); yield f"{i};"
        return pieces()
    if event.path == "/forever":
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            print("was cancelled", flush=True); raise
    if event.path == "/block":
        import time; time.sleep(3600)
    if event.path == "/pid":
        import os; return str(os.getpid())
    return event.body
"""


@pytest.mark.parametrize("ring", ["native", "python"])
def test_mode_async_has_many_events_in_one_worker(make: Any, ring: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    f = make(ASYNC, trigger={"mode": "async", "async": {"maxConnectionsNumber": 50}}, eventTimeout="15s",
             environment={"METIER_FORCE_PYTHON_RING": "1"} if ring == "python" else {})  # fmt: skip
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: f.call("/meet", headers={"X-Nuclio-Log-Level": "info"}), range(20)))
    assert [a.text for a in answers] == ["20"] * 20
    assert all(len(json.loads(a.headers["x-nuclio-logs"])) == 1 for a in answers)  # each its own records
    assert f.call("/stream").text == "0;1;2;"
    assert f.call("/", b"q" * 200_000).body == b"q" * 200_000


def test_mode_async_timeouts(make: Any) -> None:
    f = make(ASYNC, trigger={"mode": "async"}, eventTimeout="2s")

    def kept() -> bool:
        worker = f.call("/pid").text
        assert f.call("/forever").status == 408
        until(lambda: f.metric("metier_processor_in_flight_events") == 0, what="the coroutine's end")
        return f.call("/pid").text == worker

    until(kept, what="a worker that cancels")  # within a second: on a starved machine not the first one
    assert "was cancelled" in f.log()
    restarts = f.metric("metier_processor_worker_restarts_total")
    assert f.call("/block").status == 408  # this one's loop does not turn: the worker is replaced
    assert f.call("/", b"alive").body == b"alive"
    assert f.metric("metier_processor_worker_restarts_total") == restarts + 1


def test_generators_stream(make: Any, tmp_path: Path) -> None:
    f = make(
        f"""
import os, time
FLAG = {str(tmp_path / "flag")!r}
def handler(context, event):
    def pieces():
        yield "first "
        while not os.path.exists(FLAG): time.sleep(0.005)
        yield b"second "
        yield {{"third": 3}}
    def broken():
        yield "one"
        raise RuntimeError("midway")
    def empty():
        return
        yield
    def early():
        raise RuntimeError("before the head")
        yield
    def large():
        for i in range(64): yield b"x" * 100_000
    return {{"/ok": pieces, "/broken": broken, "/empty": empty, "/early": early, "/large": large,
             "/typed": lambda: context.Response(body=large(), content_type="video/x", status_code=206)}}[event.path]()
"""
    )
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", f.port, timeout=30)
    connection.request("GET", "/ok")
    answer = connection.getresponse()
    assert answer.read(6) == b"first "  # there before the second piece exists
    (tmp_path / "flag").touch()
    assert answer.read() == b'second {"third": 3}'
    connection.request("GET", "/empty")
    assert connection.getresponse().read() == b""
    connection.request("GET", "/broken")
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        connection.getresponse().read()
    connection.close()
    assert f.call("/early").status == 500
    assert len(f.call("/large").body) == 6_400_000
    typed = f.call("/typed")
    assert typed.status == 206 and typed.headers["content-type"] == "video/x"
    # Slow to read: the writer waits, the processor keeps a bounded part.
    slow = f.connect()
    slow.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    import time

    time.sleep(0.3)
    got = b""
    while part := slow.recv(65536):
        got += part
    assert got.count(b"x") >= 6_400_000
    # Gone in the middle: the worker is free again.
    gone = f.connect()
    gone.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    gone.recv(1000)
    gone.close()
    assert f.call("/empty").status == 200


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_files_are_streamed(make: Any, tmp_path: Path, mode: str) -> None:
    f = make(
        "def handler(context, event):\n"
        "    headers = {'X-nuclio-filestream-path': event.body.decode(), 'X-More': '1'}\n"
        "    if event.path == '/delete': headers['X-nuclio-filestream-delete-after-send'] = 'yes'\n"
        "    return context.Response(headers=headers, content_type='x/y')\n",
        trigger={"mode": mode},
    )
    file = tmp_path / "file"
    file.write_bytes(b"content " * 50_000)
    answer = f.call("/", str(file))
    assert (
        answer.body == file.read_bytes() and answer.headers["content-type"] == "x/y" and answer.headers["x-more"] == "1"
    )
    assert f.call("/delete", str(file)).body == b"content " * 50_000
    until(lambda: not file.exists(), what="the file to be removed")
    assert f.call("/", str(file)).status == 404


def test_batches_are_answered_by_id(make: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    f = make(
        """
def handler(context, events):
    assert isinstance(events, list)
    out = [context.Response(body=f"{len(events)} {e.body.decode()}", event_id=e.id) for e in reversed(events)]
    if any(e.path == "/raise" for e in events): raise ValueError("all of them")
    if any(e.path == "/short" for e in events): return out[:0]
    if any(e.path == "/plain" for e in events): return [e.body for e in events]
    return out
""",
        trigger={"batch": {"mode": "enable", "batchSize": 4, "timeout": "100ms"}},
    )
    with ThreadPoolExecutor(8) as pool:
        answers = [a.text for a in pool.map(lambda i: f.call("/", str(i)), range(8))]
    assert [a.split()[1] for a in answers] == [str(i) for i in range(8)]
    assert all(int(a.split()[0]) <= 4 for a in answers) and any(int(a.split()[0]) > 1 for a in answers)
    assert f.call("/", "alone").text == "1 alone"
    assert f.call("/raise", "x").status == 500
    short = f.call("/short", "x")
    assert short.status == 500 and "event_id" in short.text
    assert f.call("/plain", "position").text == "position"


def test_call_function(make: Any) -> None:
    inner = make(
        "def handler(context, event):\n    return {'got': event.body, 'target': event.headers['X-Nuclio-Target'], 'path': event.path}\n"
    )
    outer = make(
        """
import nuclio_sdk
def handler(context, event):
    answer = context.platform.call_function("inner", nuclio_sdk.Event(body={"a": 1}, path="/deep", method="PUT"))
    try:
        context.platform.call_function("gone", nuclio_sdk.Event(body="x"), timeout=1)
    except ConnectionError as error:
        return {"status": answer.status_code, "body": answer.body, "kind": answer.headers["content-type"], "error": str(error)}
""",
        functions={"inner": f"http://127.0.0.1:{inner.port}", "gone": "http://127.0.0.1:1"},
    )
    got = outer.call().json()
    assert (
        got["status"] == 200
        and got["body"] == {"got": {"a": 1}, "target": "inner", "path": "/deep"}
        and got["kind"] == "application/json"
    )
    assert "function 'gone' does not answer" in got["error"]


def test_acknowledgements_and_callbacks(make: Any) -> None:
    f = make(
        """
import nuclio_sdk
def init_context(context):
    async def ending():
        print("termination callback", flush=True)
    context.platform.set_termination_callback(ending)
    context.platform.set_drain_callback(lambda: print("drain callback", flush=True))
async def handler(context, event):
    await context.platform.explicit_ack(nuclio_sdk.QualifiedOffset("topic", 3, 41))
    await context.platform.explicit_ack(nuclio_sdk.QualifiedOffset.from_event(event))
    answer = context.Response(body="acked")
    answer.ensure_no_ack()
    return answer
"""
    )
    answer = f.call()
    assert answer.text == "acked" and "x-nuclio-stream-no-ack" not in answer.headers
    assert f.metric("metier_processor_unknown_acks_total") == 2
    assert f.stop() == 0
    assert "termination callback" in f.log() and "drain callback" not in f.log()


def test_environment_and_imports(make: Any) -> None:
    config = make.config(
        "import os, helpers\ndef handler(context, event):\n    return {k: v for k, v in os.environ.items() if k.startswith(('NUCLIO', 'MINE', 'OMP', 'PYTHONPATH'))} | {'h': helpers.X, 'cwd': os.getcwd()}\n",
        env=[{"name": "MINE", "value": "yes"}, {"name": "OMP_NUM_THREADS", "value": "7"}],
        instance="pod-1",
    )
    (Path(config["path"]) / "helpers.py").write_text("X = 3\n")
    from conftest import Processor

    f = Processor(Path(config["readyFile"]).parent, config).wait_ready()
    make.running.append(f)
    got = f.call().json()
    assert got["MINE"] == "yes" and got["OMP_NUM_THREADS"] == "7" and "PYTHONPATH" not in got
    assert (
        got["NUCLIO_FUNCTION_NAME"] == "f"
        and got["NUCLIO_FUNCTION_INSTANCE"] == "pod-1"
        and got["NUCLIO_FUNCTION_HANDLER"] == "main:handler"
    )
    assert got["h"] == 3 and Path(got["cwd"]).samefile(config["path"])


def test_a_module_that_starts_threads_is_imported_in_each_worker(make: Any) -> None:
    f = make(
        "import os, threading, time\nPID = os.getpid()\nthreading.Thread(target=lambda: time.sleep(3600), daemon=True).start()\n"
        "def handler(context, event):\n    return {'same': PID == os.getpid(), 'threads': threading.active_count()}\n"
    )
    assert f.call().json() == {"same": True, "threads": 2}
    assert "ColdWorkers" in f.log()
