"""Kafka to handler to commit with a real broker: nothing lost, nothing skipped, order per partition kept, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from broker import Broker, until
from confluent_kafka import Consumer, Producer, TopicPartition
from conftest import HANDLER, Seen, Stream


def test_an_event_has_what_nuclio_gives_it(broker: Broker, consume: Any, seen: Seen, group: str) -> None:
    topic = broker.topic()
    source = """
import os, json
OUT = os.open(os.environ["OUT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
def handler(context, event):
    os.write(OUT, json.dumps({
        "kind": event.trigger.kind, "name": event.trigger.name, "topic": event.topic, "path": event.path,
        "shard": event.shard_id, "offset": event.offset, "body": event.body.decode(), "key": getattr(event, "key", b"").decode(),
        "headers": {k: v.decode() for k, v in event.headers.items()}, "year": event.timestamp.year, "method": event.method,
    }).encode() + b"\\n")
"""
    producer = Producer({"bootstrap.servers": broker.address})
    producer.produce(topic, b"hello", key=b"k1", headers=[("Trace", b"abc")], timestamp=1_600_000_000_000)
    producer.flush(30)
    processor = consume(broker.address, topic, group, source)
    event = json.loads(until(lambda: seen.path.exists() and seen.path.read_text(), what="the event"))
    assert event == {
        "kind": "kafka-cluster",
        "name": "k",
        "topic": topic,
        "path": topic,
        "shard": 0,
        "offset": 0,
        "body": "hello",
        "key": "k1",
        "headers": {"Trace": "abc"},
        "year": 2020,
        "method": "",
    }
    until(lambda: broker.committed(topic, group) == [1], what="the commit")
    assert f"reading {topic}/0 at 1" in processor.get(processor.metrics_port, "/triggers").text
    assert processor.metric("metier_kafka_records_total") == 1
    assert (
        processor.metric("nuclio_processor_handled_events_total", trigger_kind="kafka-cluster", result="success") == 1
    )


def test_all_is_handled_in_order_and_committed(broker: Broker, consume: Any, seen: Seen, group: str) -> None:
    topic = broker.topic(4)
    broker.produce(topic, 500, 4)
    processor = consume(broker.address, topic, group, numWorkers=3)
    seen.wait(500, 4)
    for offsets in seen.offsets().values():
        assert offsets == list(range(500))
    until(lambda: broker.committed(topic, group, 4) == [500] * 4, what="the commits")
    assert processor.stop() == 0
    consume(broker.address, topic, group)
    broker.produce(topic, 5, 4, first=500)
    seen.wait(505, 4)
    assert seen.duplicates() == 0


def test_a_worker_that_is_killed_loses_nothing(broker: Broker, consume: Any, seen: Seen, group: str) -> None:
    topic = broker.topic(2)
    consume(broker.address, topic, group, HANDLER.replace("SLEEP = 0", "SLEEP = 0.002"), numWorkers=2)
    with Stream(broker, topic, 2, seen) as stream:
        for _ in range(3):
            before = len(seen.rows())
            until(lambda before=before: len(seen.rows()) > before + 50, what="records")
            os.kill(seen.rows()[-1][3], signal.SIGKILL)
    seen.wait(stream.count, 2)
    seen.check_order()
    assert seen.duplicates() <= 3  # only what ran when its worker was killed
    until(lambda: broker.committed(topic, group, 2) == [stream.count] * 2, what="the commits")


def test_a_processor_that_is_killed_repeats_only_what_was_not_committed(
    broker: Broker, consume: Any, seen: Seen, group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = broker.topic(2)
    slow = HANDLER.replace("SLEEP = 0", "SLEEP = 0.001")
    attributes = {"commitInterval": "200ms"}
    first = consume(broker.address, topic, group, slow, attributes=attributes)
    with Stream(broker, topic, 2, seen) as stream:
        until(lambda: sum(broker.committed(topic, group, 2)) > 300, what="commits")
        first.stop(kill=True)
        handled = len(seen.rows())
        committed = sum(broker.committed(topic, group, 2))
        assert 0 < committed <= handled
        consume(broker.address, topic, group, slow, attributes=attributes)
    seen.wait(stream.count, 2)
    seen.check_order()
    with capsys.disabled():
        print(f"\n   duplicate window: {seen.duplicates()} of {handled} records, {handled - committed} not committed")
    assert seen.duplicates() <= handled - committed


@pytest.mark.parametrize("strategy", ["range", "sticky"])
def test_rebalances_under_load(broker: Broker, consume: Any, seen: Seen, group: str, strategy: str) -> None:
    topic = broker.topic(4)
    slow = HANDLER.replace("SLEEP = 0", "SLEEP = 0.002")
    attributes = {"balanceStrategy": strategy, "maxWaitHandlerDuringRebalance": "10s"}
    first = consume(broker.address, topic, group, slow, attributes=attributes)
    with Stream(broker, topic, 4, seen) as stream:
        until(lambda: len(seen.rows()) > 200, what="records")
        second = consume(broker.address, topic, group, slow, attributes=attributes)
        until(lambda: len({pid for _, _, _, pid in seen.rows()[-50:]}) == 2, what="both to have partitions")
        assert first.stop() == 0
    seen.wait(stream.count, 4)
    # Partitions were handed over after their handlers had ended and their offsets were committed.
    for offsets in seen.offsets().values():
        assert offsets == list(range(stream.count))
    until(lambda: broker.committed(topic, group, 4) == [stream.count] * 4, what="the commits")
    until(lambda: second.metric("metier_kafka_partitions") == 4, what="all partitions")


def test_a_broker_that_is_away_at_start_and_later(
    tmp_path: Path, consume: Any, seen: Seen, group: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    broker = Broker(tmp_path_factory.mktemp("late"))
    processor = consume(broker.address, "t", group)
    assert processor.get(processor.health, "/ready").status == 503
    until(lambda: "refused" in processor.get(processor.metrics_port, "/triggers").text, what="the reason")
    try:
        broker.start()
        topic = broker.topic(name="t")
        until(lambda: processor.get(processor.health, "/ready").status == 200, 120, "the group")
        broker.produce(topic, 100)
        seen.wait(100)
        broker.stop(kill=True)
        broker.start()
        broker.produce(topic, 100, first=100)
        seen.wait(200)
        seen.check_order()
        until(lambda: broker.committed(topic, group) == [200], what="the commit")
    finally:
        broker.stop()


def test_a_topic_that_is_missing_is_told_while_another_is_read(
    broker: Broker, consume: Any, seen: Seen, group: str
) -> None:
    topic, missing = broker.topic(), f"{group}-missing"
    processor = consume(broker.address, topic, group, attributes={"topics": [topic, missing]})

    def problems() -> str:
        return str(processor.get(processor.metrics_port, "/problems").text)

    until(lambda: missing in problems(), what="the missing topic")
    for number in range(3):
        broker.produce(topic, 1, first=number)
        until(lambda number=number: broker.committed(topic, group) == [number + 1], what="the commit")
        assert missing in problems() and f"{topic}:" not in problems()
    broker.topic(name=missing)
    until(lambda: "BrokerUnavailable" not in problems(), what="the topic to be found")
    broker.produce(missing, 1, first=100)
    until(lambda: "100" in {body for _, _, body, _ in seen.rows()}, 180, "the record of the new topic")
    assert "BrokerUnavailable" not in problems()


def test_batches_are_of_one_partition(broker: Broker, consume: Any, seen: Seen, group: str) -> None:
    topic = broker.topic(3)
    broker.produce(topic, 95, 3)
    source = """
import os
OUT = os.open(os.environ["OUT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
def handler(context, events):
    assert isinstance(events, list) and len({e.shard_id for e in events}) == 1 and len(events) <= 10
    text = "".join(f"{e.shard_id} {e.offset} {len(events)} {os.getpid()}\\n" for e in events)
    os.write(OUT, text.encode())
    return [context.Response(body="ok", event_id=e.id) for e in events]
"""
    batch = {"mode": "enable", "batchSize": 10, "timeout": "200ms"}
    consume(broker.address, topic, group, source, batch=batch, numWorkers=2)
    seen.wait(95, 3)
    for offsets in seen.offsets().values():
        assert offsets == list(range(95))
    sizes = [int(size) for _, _, size, _ in seen.rows()]
    assert sizes.count(10) >= 3 * 80 and 5 in sizes  # full ones, and the rest when the time was over
    until(lambda: broker.committed(topic, group, 3) == [95] * 3, what="the commits")


# Acknowledges the records of some offsets, which replace OFFSETS.
ACKNOWLEDGES = """
import os
import nuclio_sdk
OUT = os.open(os.environ["OUT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
async def handler(context, event):
    os.write(OUT, f"{event.shard_id} {event.offset} x {os.getpid()}\\n".encode())
    if event.offset in (OFFSETS):
        await context.platform.explicit_ack(nuclio_sdk.QualifiedOffset.from_event(event))
"""


def test_explicit_acknowledgement(broker: Broker, consume: Any, seen: Seen, group: str) -> None:
    topic = broker.topic()
    broker.produce(topic, 100)
    source = ACKNOWLEDGES.replace("OFFSETS", "9, 59")
    processor = consume(broker.address, topic, group, source, explicitAckMode="explicitOnly")
    seen.wait(100)
    until(lambda: broker.committed(topic, group) == [60], what="the commit of what was acknowledged")
    time.sleep(0.3)
    assert broker.committed(topic, group) == [60]
    processor.stop(kill=True)
    again = consume(
        broker.address, topic, group, ACKNOWLEDGES.replace("OFFSETS", "99,"), explicitAckMode="explicitOnly"
    )
    until(lambda: broker.committed(topic, group) == [100], what="the last acknowledgement")
    assert seen.offsets()[0] == [*range(100), *range(60, 100)]
    assert again.stop() == 0


def test_a_worker_that_is_killed_before_it_acknowledged_loses_nothing(
    broker: Broker, consume: Any, seen: Seen, group: str
) -> None:
    topic = broker.topic()
    broker.produce(topic, 20)
    source = ACKNOWLEDGES.replace("OFFSETS", "9, 29")
    consume(broker.address, topic, group, source, explicitAckMode="explicitOnly", numWorkers=2)
    seen.wait(20)
    until(lambda: broker.committed(topic, group) == [10], what="the first acknowledgement")
    os.kill(seen.rows()[-1][3], signal.SIGKILL)
    broker.produce(topic, 10, first=20)
    until(lambda: broker.committed(topic, group) == [30], what="its successor's acknowledgement")
    assert seen.offsets()[0] == [*range(20), *range(10, 30)]  # what nobody had acknowledged, before what came later


def test_no_ack_in_a_response(broker: Broker, consume: Any, seen: Seen, group: str) -> None:
    topic = broker.topic()
    broker.produce(topic, 10)
    source = HANDLER.replace(
        'return "ok"',
        'r = context.Response(body="ok")\n    if event.offset == 7:\n        r.ensure_no_ack()\n    return r',
    )
    consume(broker.address, topic, group, source, explicitAckMode="enable")
    seen.wait(10)
    until(lambda: broker.committed(topic, group) == [7], what="the commit up to the one without")


def test_a_handler_that_raises(broker: Broker, consume: Any, seen: Seen, group: str) -> None:
    raising = HANDLER.replace('return "ok"', "if event.offset == 3: raise ValueError(3)")
    topic = broker.topic()
    broker.produce(topic, 10)
    processor = consume(broker.address, topic, group, raising)
    seen.wait(10)
    processor.stop()
    assert broker.committed(topic, group) == [10]  # as Nuclio: it has answered
    other = broker.topic()
    broker.produce(other, 10)
    seen.path.unlink()
    consume(broker.address, other, group + "r", raising, attributes={"onFailure": "retry"})
    until(lambda: seen.offsets()[0].count(3) >= 3, what="tries")
    assert max(seen.offsets()[0]) == 3
    until(lambda: broker.committed(other, group + "r") == [3], what="the commit up to it")


def test_a_handler_that_hangs_is_delivered_three_times(broker: Broker, consume: Any, seen: Seen, group: str) -> None:
    hanging = HANDLER.replace('return "ok"', "if event.offset == 3: time.sleep(60)")
    topic = broker.topic()
    broker.produce(topic, 10)
    consume(broker.address, topic, group, hanging, timeout="2s")
    seen.wait(10)
    seen.check_order()
    assert seen.offsets()[0].count(3) == 3
    until(lambda: broker.committed(topic, group) == [10], what="the commit")


def test_a_record_that_no_handler_saw_counts_no_delivery(broker: Broker, consume: Any, seen: Seen, group: str) -> None:
    topic = broker.topic()
    broker.produce(topic, 1)
    attributes = {"onFailure": "retry", "maxDeliveries": 1}
    processor = consume(broker.address, topic, group, timeout="2s", attributes=attributes)
    seen.wait(1)
    stopped = seen.rows()[0][3]
    os.kill(stopped, signal.SIGSTOP)
    broker.produce(topic, 3, first=1)
    seen.wait(4)
    assert seen.offsets()[0] == [0, 1, 2, 3]
    assert stopped not in {pid for _, _, _, pid in seen.rows()[1:]}
    until(lambda: broker.committed(topic, group) == [4], what="the commit")
    assert "passed over" not in processor.log()


def read_topic(broker: Broker, topic: str, count: int) -> list[Any]:
    """The first records of a topic of one partition."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": f"{topic}-reader", "log_level": 0})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[Any] = []

    def all_there() -> bool:
        message = consumer.poll(1)
        if message is not None and message.error() is None:
            found.append(message)
        return len(found) >= count

    try:
        until(all_there, 180, f"{count} records of {topic}")
        return found
    finally:
        consumer.close()


FAILS = HANDLER.replace(
    'return "ok"',
    """
    if event.offset == 3: raise ValueError("three")
    if event.offset == 5: os._exit(1)
    if event.offset == 7: time.sleep(600)
    return "ok" """,
)


def test_what_fails_again_and_again_goes_to_the_dead_letter_topic(
    broker: Broker, consume: Any, seen: Seen, group: str
) -> None:
    topic, dead = broker.topic(), broker.topic(name=f"{group}.dead")
    broker.produce(topic, 10, key=b"k", headers={"origin": b"test"})
    processor = consume(
        broker.address, topic, group, FAILS, timeout="2s", attributes={"deadLetterTopic": dead, "maxDeliveries": 2}
    )
    seen.wait(10)
    offsets = seen.offsets()[0]
    assert [offsets.count(n) for n in range(10)] == [1, 1, 1, 2, 1, 2, 1, 2, 1, 1]
    seen.check_order()
    letters = read_topic(broker, dead, 3)
    assert [(letter.key(), letter.value()) for letter in letters] == [(b"k", b"3"), (b"k", b"5"), (b"k", b"7")]
    for letter, offset, why in zip(letters, (3, 5, 7), ("three", "worker", "timed out"), strict=True):
        headers = {name: value.decode() for name, value in letter.headers()}
        assert why in headers.pop("metier-error"), letter.headers()
        assert headers == {
            "origin": "test", "metier-function": "f", "metier-group": group, "metier-topic": topic,
            "metier-partition": "0", "metier-offset": str(offset), "metier-deliveries": "2",
        }  # fmt: skip
    until(lambda: broker.committed(topic, group) == [10], what="the commit")
    assert processor.metric("metier_kafka_dead_letters_total") == 3


def test_a_dead_letter_topic_that_is_not_there_holds_the_partition(
    broker: Broker, consume: Any, seen: Seen, group: str
) -> None:
    topic, dead = broker.topic(), f"{group}.dead"
    broker.produce(topic, 6)
    processor = consume(broker.address, topic, group, FAILS, attributes={"deadLetterTopic": dead, "maxDeliveries": 1})
    until(lambda: dead in processor.get(processor.admin, "/triggers/k").json()["state"], 180, "the reason to be told")
    assert broker.committed(topic, group)[0] <= 3, "nothing is passed over"
    assert max(seen.offsets()[0]) == 3
    broker.topic(name=dead)
    seen.wait(6)
    assert [letter.value() for letter in read_topic(broker, dead, 2)] == [b"3", b"5"]
    until(lambda: broker.committed(topic, group) == [6], what="the commit")


PRODUCES = """
import os
from confluent_kafka import Producer

def init_context(context):
    context.user_data.producer = Producer({"bootstrap.servers": os.environ["BROKERS"]})
    context.platform.set_termination_callback(context.user_data.producer.flush)

def handler(context, event):
    failed = []
    producer = context.user_data.producer
    producer.produce(os.environ["TO"], event.body + b"!", key=event.key, on_delivery=lambda error, _: error and failed.append(error))
    if producer.flush(30) or failed:
        raise RuntimeError(f"not delivered: {failed}")
"""


def test_a_handler_produces_with_a_client_of_its_own(broker: Broker, consume: Any, group: str) -> None:
    topic, to = broker.topic(), broker.topic()
    broker.produce(topic, 5, key=b"k")
    variables = {"BROKERS": broker.address, "TO": to}
    processor = consume(broker.address, topic, group, PRODUCES, numWorkers=2, environment=variables)
    assert [(m.key(), m.value()) for m in read_topic(broker, to, 5)] == [(b"k", b"%d!" % n) for n in range(5)]
    processor.stop()
    assert broker.committed(topic, group) == [5]


def test_busy_workers_leave_records_at_the_broker(broker: Broker, consume: Any, seen: Seen, group: str) -> None:
    topic = broker.topic(2)
    payload = os.urandom(50_000).hex().encode()
    producer = Producer({"bootstrap.servers": broker.address, "message.max.bytes": 900_000})
    for number in range(2000):
        producer.produce(topic, payload, partition=number % 2)
        producer.poll(0)
        if number % 100 == 0:
            producer.flush(60)
    assert producer.flush(60) == 0
    source = HANDLER.replace("{event.body.decode()}", "x").replace("SLEEP = 0", "SLEEP = 0.5")
    processor = consume(broker.address, topic, group, source, attributes={"channelBufferSize": 16})
    until(lambda: len(seen.rows()) > 4, what="some records")
    status = Path(f"/proc/{processor.process.pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0]) / 1024
    assert resident < 120, f"{resident} MiB of 200 MB are in memory"
    assert processor.metric("metier_kafka_lag") > 1900
    assert processor.stop() == 0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_busy_worker_beside_an_idle_one_is_waited_for_asleep(
    broker: Broker, consume: Any, seen: Seen, group: str
) -> None:
    topic = broker.topic()
    broker.produce(topic, 8)
    slow = HANDLER.replace("SLEEP = 0", "SLEEP = 0.5")
    processor = consume(broker.address, topic, group, slow, numWorkers=2)
    until(lambda: len(seen.rows()) > 1, what="the first")
    before = cpu_seconds(processor.process.pid)
    seen.wait(8)
    used = cpu_seconds(processor.process.pid) - before
    # The partition's records go to one worker in order; the other one's room is no reason to ask again and again.
    assert used < 1, f"{used} s of CPU while handlers slept 3 s"
    assert seen.offsets()[0] == list(range(8))


def test_partitions_of_a_traced_function_go_to_all_its_workers(
    broker: Broker, consume: Any, seen: Seen, group: str, tmp_path: Path
) -> None:
    topic = broker.topic(2)
    broker.produce(topic, 60, 2)
    spans = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"file://{tmp_path / 'spans'}"}
    slow = HANDLER.replace("SLEEP = 0", "SLEEP = 0.02")
    consume(broker.address, topic, group, slow, numWorkers=2, environment=spans)
    seen.wait(60, 2)
    assert len({pid for _, _, _, pid in seen.rows()}) == 2
    for offsets in seen.offsets().values():
        assert offsets == list(range(60))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_sasl(broker: Broker, consume: Any, seen: Seen, group: str, mechanism: str) -> None:
    topic = broker.topic()
    broker.produce(topic, 5)
    sasl = {"enable": True, "user": "alice", "password": "secret", "mechanism": mechanism}
    consume(f"127.0.0.1:{broker.sasl_port}", topic, group, attributes={"sasl": sasl})
    seen.wait(5)
    sasl["password"] = "wrong"
    refused = consume(f"127.0.0.1:{broker.sasl_port}", topic, group + "w", attributes={"sasl": sasl})
    until(lambda: "uthentication" in refused.get(refused.metrics_port, "/triggers").text, what="the reason")
    assert refused.get(refused.health, "/ready").status == 503


def test_tls(broker: Broker, consume: Any, seen: Seen, group: str) -> None:
    topic = broker.topic()
    broker.produce(topic, 5)
    address = f"127.0.0.1:{broker.tls_port}"
    consume(address, topic, group, attributes={"tls": {"enable": True}, "caCert": broker.ca})
    seen.wait(5)
    refused = consume(address, topic, group + "w", attributes={"tls": {"enable": True}})
    until(lambda: "certificate" in refused.get(refused.metrics_port, "/triggers").text.lower(), what="the reason")


def test_a_wrong_attribute_is_refused(broker: Broker, consume: Any, group: str) -> None:
    processor = consume(broker.address, "t", group, wait=False, attributes={"initialOffset": "middle"})
    assert processor.process.wait(30) == 2
    assert "triggers.k.attributes.initialOffset: 'middle' is not one of its values" in processor.log()
