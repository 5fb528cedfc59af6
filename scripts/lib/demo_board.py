"""The demo's stream: examples/flights/board.py reads a real day's departures from a Kafka broker of its own (build/kafka) and counts them.

Run by build/venv-kafka's Python (it has the client); prints the row of the demo's table as JSON in its last line.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "kafka"), str(ROOT / "scripts" / "lib")]

from broker import Broker, until  # noqa: E402
from confluent_kafka import Producer  # noqa: E402
from demo_deploy import DAY  # noqa: E402
from demo_graph import seen_at_the_gate  # noqa: E402

TOPIC = "departures"


def main() -> None:
    metier, data = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="metier-board-") as folder:
        broker = Broker(Path(folder) / "broker").start()
        try:
            print(json.dumps(row(metier, broker, Path(folder), data)))
        finally:
            subprocess.run([metier, "delete", "board", "-y"], capture_output=True, check=False)
            broker.stop()


def row(metier: str, broker: Broker, folder: Path, data: str) -> list[str]:
    broker.topic(name=TOPIC)
    text = (ROOT / "examples" / "flights" / "board.yaml").read_text().replace("127.0.0.1:9092", broker.address)
    (folder / "board.yaml").write_text(text)
    (folder / "board.py").write_text((ROOT / "examples" / "flights" / "board.py").read_text())
    flights = seen_at_the_gate(DAY, lambda _: data)
    began = time.monotonic()
    done = subprocess.run([metier, "deploy", "-f", "board.yaml"], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        return ["board.py", "nuclio", f"exit {done.returncode}", f"{time.monotonic() - began:.2f}", ""]
    producer = Producer({"bootstrap.servers": broker.address, "linger.ms": 5, "log_level": 0})
    for known, late in flights:
        producer.produce(TOPIC, json.dumps({"origin": known["origin"], "dep_delay": late}).encode())
    producer.flush(60)

    def board() -> dict[str, dict[str, int]]:
        answer = subprocess.run([metier, "invoke", "board"], capture_output=True, text=True, check=True)
        return dict(json.loads(answer.stdout))

    until(lambda: sum(each["departed"] for each in board().values()) == len(flights), 120, "every departure")
    shown = ", ".join(f"{origin} {each['departed']} ({each['late']} late)" for origin, each in board().items())
    return ["board.py", "nuclio", "ready", f"{time.monotonic() - began:.2f}", shown]


if __name__ == "__main__":
    main()
