"""Kafka -> Python handler -> commit, one partition, 1 KiB: CPU per event of ours beside a plain confluent_kafka loop, in one go, interleaved.

    bench/realtime_kafka.py [--rounds 5] [--records 100000]

A real broker (build/kafka, scripts/setup) has the records; both read all of them from the start with a group of their own, and commit every second.
CPU is what all processes of the reader used (schedstat) from its first to its last record, per record. The broker's is not counted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from common import ROOT, median, table

PYTHON = ROOT / "build" / "venv-kafka" / "bin" / "python"
if Path(sys.executable).absolute() != PYTHON and PYTHON.exists():
    os.execv(str(PYTHON), [str(PYTHON), *sys.argv])

import argparse  # noqa: E402
import json  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402

from realtime import RELEASE, cpu_ns, lib, tree  # noqa: E402

sys.path.insert(0, str(ROOT / "tests" / "kafka"))
from broker import Broker, until  # noqa: E402
from confluent_kafka import Producer  # noqa: E402

PROCESSOR = RELEASE / "src" / "realtime" / "metier_processor"
HANDLER = "def handler(context, event):\n    return ''\n"
LOOP = """
import sys
from confluent_kafka import Consumer
address, topic, group, records = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": address, "group.id": group, "auto.offset.reset": "earliest",
                     "enable.auto.offset.store": False, "auto.commit.interval.ms": 1000})
consumer.subscribe([topic])
def handler(message):
    return ""
left = int(records)
print("ready", flush=True)
while left:
    message = consumer.poll(1.0)
    if message is None or message.error():
        continue
    handler(message)
    consumer.store_offsets(message)
    left -= 1
consumer.commit(asynchronous=False)
print("done", flush=True)
sys.stdin.read()
"""


def peer(broker: Broker, topic: str, group: str, records: int) -> tuple[float, float]:
    process = subprocess.Popen(
        [str(PYTHON), "-c", LOOP, broker.address, topic, group, str(records)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    before, begun = cpu_ns(tree(process.pid)), time.monotonic()
    process.stdout.readline()
    used, took = cpu_ns(tree(process.pid)) - before, time.monotonic() - begun
    process.kill()
    process.wait()
    return used / 1000 / records, records / took


def ours(broker: Broker, topic: str, group: str, records: int, folder: Path, worker: str) -> tuple[float, float]:
    attributes = {"brokers": [broker.address], "topics": [topic], "consumerGroup": group}
    config = {
        "name": "f",
        "handler": "main:handler",
        "path": str(folder),
        "lib": worker,
        "python": sys.executable,
        "triggers": [{"name": "k", "kind": "kafka-cluster", "attributes": attributes}],
        "readyFile": str(folder / "ready.json"),
    }
    (folder / "main.py").write_text(HANDLER)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "ready.json").unlink(missing_ok=True)
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen([str(PROCESSOR), "--config", str(folder / "config.json")], stdout=log, stderr=log)
    until((folder / "ready.json").exists, what="the processor")
    before, begun = cpu_ns(tree(process.pid)), time.monotonic()
    until(lambda: broker.committed(topic, group) == [records], 300, "the commit")
    used, took = cpu_ns(tree(process.pid)) - before, time.monotonic() - begun
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    return used / 1000 / records, records / took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=100_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="metier-kafka-"))
    worker = lib()
    broker = Broker(folder / "broker").start()
    try:
        topic = broker.topic()
        producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 5})
        body = b"x" * 1024
        for number in range(options.records):
            producer.produce(topic, body, partition=0)
            if number % 10_000 == 0:
                producer.flush(60)
        producer.flush(60)
        rows: dict[str, list[tuple[float, float]]] = {"ours": [], "confluent_kafka": []}
        for number in range(options.rounds):
            rows["confluent_kafka"].append(peer(broker, topic, f"p{number}", options.records))
            rows["ours"].append(ours(broker, topic, f"o{number}", options.records, folder, worker))
        ratio = median(a[0] / b[0] for a, b in zip(rows["ours"], rows["confluent_kafka"]))
        table(
            f"Kafka to Python handler to commit, 1 partition, 1 KiB, {options.records} records, {options.rounds} rounds",
            ("", "CPU us/event", "records/s", "ours/loop"),
            [
                (
                    name,
                    f"{median(c for c, _ in seen):.1f}",
                    f"{median(r for _, r in seen):.0f}",
                    f"{ratio:.2f}" if name == "ours" else "",
                )
                for name, seen in rows.items()
            ],
        )
        print("  target: at most 10 us and 2 x the loop")
    finally:
        broker.stop()


main()
