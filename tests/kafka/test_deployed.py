"""Kafka functions of the embedded cluster: replicas share partitions; server, gate and processors are killed under load."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import Broker, Door, until
from conftest import HANDLER, Seen, Stream

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.server import Server, running  # noqa: E402


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "data") as started:
        yield started


def deploy(server: Server, folder: Path, seen: Seen, attributes: dict[str, Any], **spec: Any) -> Any:
    (code := folder / "code").mkdir(exist_ok=True)  # it is taken along: a broker's folder would be too large
    (code / "f.py").write_text(HANDLER.replace("SLEEP = 0", "SLEEP = 0.003"))
    document = {
        "apiVersion": "nuclio.io/v1beta1",
        "kind": "NuclioFunction",
        "metadata": {"name": "f"},
        "spec": {
            "handler": "f:handler",
            "runtime": "python",
            "env": [{"name": "OUT", "value": str(seen.path)}],
            "triggers": {"k": {"kind": "kafka-cluster", "attributes": attributes}},
            **spec,
        },
    }
    (code / "function.yaml").write_text(json.dumps(document))
    return server.metier("deploy", "-f", "function.yaml", cwd=code)


def processors(data: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            words = b""
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"\0processor\0" in words and str(data).encode() in words:
                found.append(int(entry.name))
    return found


def gates(data: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"\0gate\0" in words and str(data).encode() in words:
                found.append(int(entry.name))
    return found


def test_kills_under_load(broker: Broker, server: Server, seen: Seen, group: str, tmp_path: Path) -> None:
    topic = broker.topic(4)
    attributes = {
        "brokers": [broker.address],
        "topics": [topic],
        "consumerGroup": group,
        "sessionTimeout": "3s",
        "heartbeatInterval": "500ms",
        "commitInterval": "200ms",
    }
    done = deploy(server, tmp_path, seen, attributes, replicas=2)
    assert done.returncode == 0, done.stderr

    def more() -> None:
        before = len(seen.rows())
        until(lambda: len(seen.rows()) > before + 100, what="records go on")

    with Stream(broker, topic, 4, seen) as stream:
        until(lambda: len({pid for _, _, _, pid in seen.rows()[-100:]}) == 2, what="both replicas to have partitions")
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        more()  # without a server
        server.start()
        for gate in gates(server.data):
            os.kill(gate, signal.SIGKILL)
        more()
        os.kill(processors(server.data)[0], signal.SIGKILL)
        more()
    seen.wait(stream.count, 4)
    until(lambda: broker.committed(topic, group, 4) == [stream.count] * 4, what="the commits")
    repeated = seen.duplicates()
    assert repeated < 600, f"{repeated} records were repeated"


def test_no_replica_and_a_stream_is_refused(broker: Broker, server: Server, seen: Seen, tmp_path: Path) -> None:
    attributes = {"brokers": [broker.address], "topics": ["t"], "consumerGroup": "g"}
    done = deploy(server, tmp_path, seen, attributes, minReplicas=0, maxReplicas=2)
    assert done.returncode != 0
    assert "0 with a stream trigger: nobody reads the stream while there is no replica" in done.stderr
    done = deploy(server, tmp_path, seen, {**attributes, "initialOffset": "middle"})
    assert done.returncode == 2
    assert "spec.triggers.k.attributes.initialOffset" in done.stderr
    del attributes["consumerGroup"]
    done = deploy(server, tmp_path, seen, attributes)
    assert "spec.triggers.k.attributes.consumerGroup" in done.stderr


def test_a_broker_that_is_away_is_told(server: Server, seen: Seen, tmp_path: Path) -> None:
    attributes = {"brokers": ["127.0.0.1:1"], "topics": ["t"], "consumerGroup": "g"}
    begun = time.monotonic()
    done = deploy(server, tmp_path, seen, attributes, readinessTimeoutSeconds=3)
    assert done.returncode != 0 and time.monotonic() - begun < 60
    assert "not ready within 3 s" in done.stderr, done.stderr

    def told() -> dict[str, Any]:
        return dict(server.call("GET", "/api/metier/v1/deployments/f?project=default").json()["status"])

    until(lambda: [c["type"] for c in told().get("conditions") or []] == ["BrokerUnavailable"], what="the condition")
    assert "127.0.0.1:1" in told()["conditions"][0]["message"]
    assert told()["reason"] == "ReadinessTimeout"
    why = server.metier("why", "f").stdout
    assert "BrokerUnavailable: trigger k: 127.0.0.1:1" in why
    assert "start the broker" in why
    assert "BrokerUnavailable" in server.metier("describe", "f").stdout
    assert server.metier("help", "BrokerUnavailable").returncode == 0


def test_a_broker_that_goes_away_and_comes_back_is_told(server: Server, seen: Seen, tmp_path: Path) -> None:
    own = Broker(tmp_path / "broker").start()
    try:
        topic = own.topic(1)
        done = deploy(server, tmp_path, seen, {"brokers": [own.address], "topics": [topic], "consumerGroup": "g"})
        assert done.returncode == 0, done.stderr

        def state() -> tuple[str, list[str]]:
            view = server.call("GET", "/api/metier/v1/deployments/f?project=default").json()
            return view["state"], [c["type"] for c in view["status"].get("conditions") or []]

        def reaches(*expected: str) -> None:
            with contextlib.suppress(AssertionError):
                until(lambda: state() == ("ready", [*expected]), seconds=120)
            told = server.metier("describe", "f").stdout + server.metier("logs", "f").stdout
            assert state() == ("ready", [*expected]), told

        reaches()  # what the start met of its broker may be told until it is asked again
        own.stop()
        reaches("BrokerUnavailable")
        assert own.address in server.metier("why", "f").stdout
        own.start()  # no record comes: there is nothing to read and nothing to commit
        reaches()
        own.produce(topic, 5)
        seen.wait(5)
    finally:
        own.stop()


def test_a_broker_that_cannot_be_reached_is_told_until_it_can(server: Server, seen: Seen, tmp_path: Path) -> None:
    """Nothing is read and nothing is committed meanwhile: the function looks for itself whether its broker answers."""
    door = Door()
    own = Broker(tmp_path / "broker", door).start()
    try:
        attributes = {"brokers": [own.address], "topics": [own.topic(1)], "consumerGroup": "g"}
        done = deploy(server, tmp_path, seen, attributes)
        assert done.returncode == 0, done.stderr

        def conditions() -> list[str]:
            view = server.call("GET", "/api/metier/v1/deployments/f?project=default").json()
            return [one["type"] for one in view["status"].get("conditions") or []]

        until(lambda: "partitions taken" in server.metier("logs", "f").stdout, what="its partition")
        until(lambda: conditions() == [], what="a broker that answers")
        before = server.metier("logs", "f").stdout.count("do not answer")
        door.shut()
        until(lambda: server.metier("logs", "f").stdout.count("do not answer") > before, what="the broker's absence")
        door.open()  # before the group misses anybody
        until(lambda: "the brokers answer again" in server.metier("logs", "f").stdout, what="the broker's return")
        until(lambda: conditions() == [], what="a function without a condition")
    finally:
        own.stop()
        door.shut()
