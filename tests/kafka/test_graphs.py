"""Serving graphs over several functions, joined by a real broker: deployed together, and nothing committed before its last branch ended."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import ROOT, Broker
from broker import until as until_

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.server import Server, running  # noqa: E402

CODE = """
import asyncio, json, os

FOLDER = {folder!r}

def parse(body):
    return {{**body, "seen": [os.environ.get("SERVING_CURRENT_FUNCTION", "?")]}}

def note(event):
    with open(FOLDER + "/notes", "a") as file:
        file.write(json.dumps([event.body, event.id, os.getpid(), os.environ["SERVING_CURRENT_FUNCTION"]]) + "\\n")
    return event

async def waits(body):
    while body.get("gate") and not os.path.exists(FOLDER + "/" + body["gate"]):
        await asyncio.sleep(0.02)
    return body

def boom(body):
    if body.get("boom"):
        raise ValueError("boom")
    return body

def caught(event):
    with open(FOLDER + "/caught", "a") as file:
        file.write(f"{{event.origin_state}} {{event.error}}\\n")
    return event
"""


def until(check: Any, what: str) -> Any:
    return until_(check, 300, what)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "data") as started:
        yield started


def spread(queue: dict[str, Any], **child: Any) -> dict[str, Any]:
    """parse | queue | note, and beside it waits: a step of one function, the rest of another."""
    return {
        "engine": "async",
        "steps": {
            "parse": {"handler": "parse"},
            "q": {"kind": "queue", "after": ["parse"], **queue},
            "first": {"handler": "(event)", "function": "reader", "after": ["q"]},
            "note": {"handler": "note", "function": "reader", "after": ["first"], "full_event": True},
            "waits": {"handler": "waits", "function": "reader", "after": ["first"]},
            **child,
        },
    }


def deploy(server: Server, folder: Path, graph: dict[str, Any], refs: Any = None) -> str:
    code = CODE.format(folder=str(folder))
    document = {
        "kind": "serving",
        "metadata": {"name": "flow", "project": "default"},
        "spec": {
            "image": "python",
            "graph": graph,
            "function_refs": {"reader": {}} if refs is None else refs,
            "build": {"functionSourceCode": base64.b64encode(code.encode()).decode()},
        },
    }
    (folder / "function.yaml").write_text(json.dumps(document))
    done = server.metier("deploy", "-f", "function.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return str(done.stdout.strip().splitlines()[-1])


def call(url: str, body: Any, event_id: str = "") -> Any:
    host, port = url.removeprefix("http://").rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        headers = {"MLRUN-EVENT-ID": event_id} if event_id else {}
        connection.request("POST", "/", json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
        return json.loads(text) if text else None
    finally:
        connection.close()


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


GROUP = "flow-reader-consumer-group"


def test_a_graph_over_two_functions(broker: Broker, server: Server, tmp_path: Path) -> None:
    topic = broker.topic(2)
    url = deploy(server, tmp_path, spread({"path": f"kafka://{broker.address}/{topic}"}))
    names = [
        row["metadata"]["name"] for row in json.loads(server.metier("get", "functions", "-o", "json").stdout)["funcs"]
    ]
    assert sorted(names) == ["flow", "flow-reader"]
    for number in range(20):
        assert call(url, {"n": number}, f"id{number}") == {"id": f"id{number}"}
    until(lambda: len(lines(tmp_path / "notes")) == 20, what="the other function")
    notes = {row[0]["n"]: row for row in lines(tmp_path / "notes")}
    for number in range(20):
        body, event_id, _, function = notes[number]
        assert (body, event_id, function) == ({"n": number, "seen": [""]}, f"id{number}", "reader")
    until(lambda: sum(broker.committed(topic, GROUP, 2)) == 20, what="the commits")
    shown = server.metier("describe", "flow-reader").stdout
    assert "note" in shown and "20" in shown, shown


def test_nothing_is_committed_before_its_last_branch_has_ended(broker: Broker, server: Server, tmp_path: Path) -> None:
    topic = broker.topic()
    url = deploy(server, tmp_path, spread({"path": f"kafka://{broker.address}/{topic}"}))
    call(url, {"n": 0})
    until(lambda: broker.committed(topic, GROUP) == [1], what="the first commit")
    call(url, {"n": 1, "gate": "open"})
    for number in range(2, 6):  # these end at once, behind one that has not
        call(url, {"n": number})
    until(lambda: len(lines(tmp_path / "notes")) == 6, what="the other branch of each")
    assert broker.committed(topic, GROUP) == [1]
    os.kill(lines(tmp_path / "notes")[-1][2], signal.SIGKILL)  # the worker: what had not ended comes again
    until(lambda: len({row[2] for row in lines(tmp_path / "notes")}) == 2, what="a delivery to another worker")
    until(lambda: {row[0]["n"] for row in lines(tmp_path / "notes")[6:]} >= {1}, what="the event that waited")
    assert broker.committed(topic, GROUP) == [1]
    (tmp_path / "open").touch()
    until(lambda: broker.committed(topic, GROUP) == [6], what="the commits")


def test_a_batch_holds_its_records_and_errors_are_caught(broker: Broker, server: Server, tmp_path: Path) -> None:
    topic = broker.topic()
    steps = spread(
        {"path": topic, "options": {"kafka_brokers": broker.address, "group": "mine"}},
        boom={"handler": "boom", "function": "reader", "after": ["first"], "on_error": "caught"},
        caught={"kind": "error_step", "handler": "caught", "full_event": True, "base_step": "boom"},
        many={"class_name": "storey.Batch", "class_args": {"max_events": 3}, "function": "reader", "after": ["boom"]},
        last={"handler": "note", "function": "reader", "after": ["many"], "full_event": True},
    )
    url = deploy(server, tmp_path, steps)
    for number in range(2):
        call(url, {"n": number})
    until(lambda: len(lines(tmp_path / "notes")) == 2, what="the other branches")
    assert broker.committed(topic, "mine") == [0]
    call(url, {"n": 2, "boom": True})
    call(url, {"n": 3})
    until(lambda: broker.committed(topic, "mine") == [4], what="the commits")
    batches = [row[0] for row in lines(tmp_path / "notes") if isinstance(row[0], list)]
    assert [[body["n"] for body in batch] for batch in batches] == [[0, 1, 3]]
    assert (tmp_path / "caught").read_text() == "boom boom\n"


def test_a_queue_without_a_path_stays_in_the_process(broker: Broker, server: Server, tmp_path: Path) -> None:
    graph = spread({})
    graph["steps"]["waits"]["responder"] = True
    url = deploy(server, tmp_path, graph, refs={})
    assert call(url, {"n": 1}) == {"n": 1, "seen": ["*"]}
    assert len(lines(tmp_path / "notes")) == 1


def test_what_cannot_be_spread_is_refused_and_leaves_nothing(broker: Broker, server: Server, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="function 'reader' is used in steps and is not defined"):
        deploy(server, tmp_path, spread({"path": f"kafka://{broker.address}/t"}), refs={})
    with pytest.raises(AssertionError, match="queue 'q' at 'v3io:///x' cannot trigger a function here"):
        deploy(server, tmp_path, spread({"path": "v3io:///x"}))
    with pytest.raises(AssertionError, match="loop detected"):
        graph = spread({"path": f"kafka://{broker.address}/t"})
        graph["steps"]["note"]["after"] = ["first", "waits"]
        graph["steps"]["waits"]["after"] = ["note"]
        deploy(server, tmp_path, graph)
    assert not json.loads(server.metier("get", "functions", "-o", "json").stdout or "{}").get("funcs")


def test_a_native_graph_commits_what_has_ended(broker: Broker, make: Any, group: str) -> None:
    """The processor itself reads the stream, also where acknowledgements are explicit (as the mlrun SDK asks)."""
    topic = broker.topic()
    graph = {"engine": "async", "steps": {"b": {"class_name": "storey.Batch", "class_args": {"max_events": 3}}}}
    trigger = {
        "name": "k",
        "kind": "kafka-cluster",
        "explicitAckMode": "explicitOnly",
        "attributes": {"brokers": [broker.address], "topics": [topic], "consumerGroup": group},
    }
    variables = {"SERVING_SPEC_ENV": json.dumps({"graph": graph}), "SERVING_CURRENT_FUNCTION": "*"}
    make.start(None, variables, runtime="graph", handler="graph.json:graph", triggers=[trigger]).wait_ready()
    broker.produce(topic, 5)
    until(lambda: broker.committed(topic, group) == [3], what="the first batch")
    broker.produce(topic, 1, first=5)
    until(lambda: broker.committed(topic, group) == [6], what="the second one")


SDK = """
import sys
import mlrun

mlrun.set_environment(api_path=sys.argv[1], artifact_path=sys.argv[2])
fn = mlrun.code_to_function("flow", kind="serving", filename=sys.argv[3], image="mlrun/mlrun", project="default")
graph = fn.set_topology("flow", engine="async")
queue = graph.to(name="parse", handler="parse").to(">>", "q", path=sys.argv[4])
queue.to(name="note", handler="note", function="reader", full_event=True)
fn.add_child_function("reader", url=sys.argv[3], image="mlrun/mlrun")
fn.deploy()
fn.invoke("/", body={"n": 1})
"""


def test_the_unmodified_sdk_deploys_both(broker: Broker, server: Server, tmp_path: Path) -> None:
    python = ROOT / "build" / "venv-sdk" / "bin" / "python"
    topic = broker.topic()
    (tmp_path / "steps.py").write_text(CODE.format(folder=str(tmp_path)))
    (tmp_path / "sdk.py").write_text(SDK)
    done = subprocess.run(
        [
            str(python),
            "sdk.py",
            server.url,
            str(tmp_path / "artifacts"),
            "steps.py",
            f"kafka://{broker.address}/{topic}",
        ],
        cwd=tmp_path,
        env={**os.environ, "MLRUN_DBPATH": server.url, "MLRUN_HTTPDB__TOKEN": server.token, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: len(lines(tmp_path / "notes")) == 1, what="the other function")
    assert lines(tmp_path / "notes")[0][0] == {"n": 1, "seen": [""]}
    until(lambda: broker.committed(topic, "reader-consumer-group") == [1], what="the commit")
