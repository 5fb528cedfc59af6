"""Functions that a real broker feeds: processors as in tests/realtime, records in a file that handlers append to."""

from __future__ import annotations

import os
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

REALTIME = Path(__file__).parents[1] / "realtime"
sys.path[:0] = [str(Path(__file__).parent), str(REALTIME)]

from broker import Broker, until  # noqa: E402

_spec = spec_from_file_location("realtime_conftest", REALTIME / "conftest.py")
assert _spec is not None and _spec.loader is not None
_realtime = module_from_spec(_spec)
sys.modules[_spec.name] = _realtime
_spec.loader.exec_module(_realtime)
lib, make = _realtime.lib, _realtime.make

HANDLER = """
import os, time, pathlib
OUT = os.open(os.environ["OUT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

def handler(context, event):
    os.write(OUT, f"{event.shard_id} {event.offset} {event.body.decode()} {os.getpid()}\\n".encode())
    SLEEP and time.sleep(SLEEP)
    return "ok"
SLEEP = 0
"""


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if running := os.environ.get("METIER_TEST_BROKER"):  # the folder of one that runs, for work on a single test
        yield Broker(Path(running))
        return
    started = Broker(tmp_path_factory.mktemp("broker")).start()
    yield started
    started.stop()


class Seen:
    """What handlers wrote: partition, offset, body and worker of each call, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.readers: list[Any] = []  # processors whose state is told when records do not come

    def rows(self) -> list[tuple[int, int, str, int]]:
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines()
        return [(int(p), int(o), body, int(pid)) for p, o, body, pid in (line.split(" ") for line in lines)]

    def offsets(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = defaultdict(list)
        for partition, offset, _, _ in self.rows():
            found[partition].append(offset)
        return found

    def wait(self, count: int, partitions: int = 1, seconds: float = 240) -> None:
        """Until every offset below `count` of every partition was handled."""

        def all_there() -> bool:
            offsets = self.offsets()
            return all(set(offsets[p]) >= set(range(count)) for p in range(partitions))

        try:
            until(all_there, seconds, "every record")
        except AssertionError as error:
            missing = {p: sorted(set(range(count)) - set(self.offsets()[p]))[:5] for p in range(partitions)}
            states = [each.get(each.admin, "/triggers").text for each in self.readers if each.process.poll() is None]
            raise AssertionError(f"{error}; missing {missing}; processors: {states}") from error

    def check_order(self) -> None:
        """First deliveries of a partition come in order, and a step back goes to a record that was not finished."""
        for partition, offsets in self.offsets().items():
            highest = -1
            for offset in offsets:
                assert offset <= highest + 1, f"partition {partition} skips from {highest} to {offset}"
                highest = max(highest, offset)

    def duplicates(self) -> int:
        return sum(len(offsets) - len(set(offsets)) for offsets in self.offsets().values())


class Stream:
    """Records of every partition that come on, always some that no handler has seen, until the block ends: then `count` of each."""

    AHEAD = 100

    def __init__(self, broker: Broker, topic: str, partitions: int, seen: Seen) -> None:
        self.broker, self.topic, self.partitions, self.seen = broker, topic, partitions, seen
        self.count = 0
        self.ended = threading.Event()
        self.pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Stream:
        self.running = self.pool.submit(self.produce)
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.pool.shutdown()
        self.running.result()

    def produce(self) -> None:
        while not self.ended.is_set():
            done = max((len(offsets) for offsets in self.seen.offsets().values()), default=0)
            if done + self.AHEAD > self.count:
                self.broker.produce(self.topic, self.AHEAD, self.partitions, first=self.count)
                self.count += self.AHEAD
            self.ended.wait(0.02)


@pytest.fixture
def seen(tmp_path: Path) -> Seen:
    return Seen(tmp_path / "seen.txt")


@pytest.fixture
def consume(make: Any, seen: Seen) -> Any:
    """Start a processor whose only trigger is Kafka's."""

    def start(address: str, topic: str, group: str, source: str = HANDLER, wait: bool = True, **trigger: Any) -> Any:
        more = {"eventTimeout": trigger.pop("timeout")} if "timeout" in trigger else {}
        environment = trigger.pop("environment", {})
        attributes = {
            "brokers": [address],
            "topics": [topic],
            "consumerGroup": group,
            "sessionTimeout": "6s",
            "heartbeatInterval": "1s",
            "retryBackoff": "100ms",
            **trigger.pop("attributes", {}),
        }
        processor = make.start(
            source,
            environment={"OUT": str(seen.path), **environment},
            triggers=[{"name": "k", "kind": "kafka-cluster", "attributes": attributes, **trigger}],
            **more,
        )
        if not wait:
            return processor
        seen.readers.append(processor.wait_ready())
        return processor

    return start


@pytest.fixture
def group() -> str:
    return f"g-{os.urandom(4).hex()}"
