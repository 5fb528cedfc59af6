"""A great many events through steps that keep some: every one comes out, and nothing of them stays."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest
from metier_serving import Flow

EVENTS = 1_000_000 if os.environ.get("METIER_TEST_ALL") == "1" else 100_000
WARM = 20_000
BATCH = 100


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


async def awaited(body: Any) -> Any:
    return body


@pytest.mark.parametrize("coroutines", [False, True], ids=["plain", "coroutine"])
def test_batch_merge_and_windows_keep_nothing(serve: Any, coroutines: bool) -> None:
    got = {"events": 0, "sum": 0, "batches": 0}

    def collect(batch: Any) -> Any:
        got["batches"] += 1
        got["events"] += len(batch)
        for left, right in batch:
            assert left["y"] == right["x"] and left["n_sum_10s"] >= 1
            got["sum"] += left["y"]

    graph = Flow(engine="async")
    aggregates = [{"name": "n", "column": "one", "operations": ["sum"], "windows": ["10s"], "period": "1s"}]
    graph.to("storey.AggregateByKey", "w", aggregates=aggregates, key_field="k", max_keys=100)
    graph.add_step("storey.Rename", "l", after="w", mapping={"x": "y"})
    graph.add_step("storey.DropColumns", "r", after="w", columns=["one"])
    graph.add_step("mlrun.serving.Merge", "j", after=["l", "r"])
    last = graph["j"].to(name="a", handler="awaited") if coroutines else graph["j"]
    last.to("storey.Batch", "b", max_events=BATCH).to(name="c", handler="collect")
    server = serve(graph, {"collect": collect, "awaited": awaited})

    def send(first: int, count: int) -> None:
        for number in range(first, first + count):
            # many more keys than the window keeps; a millisecond passes with each event
            server.test(body={"x": number, "one": 1, "k": f"k{number % 1000}"}, time=1.7e9 + number / 1000)

    count = EVENTS // 5 if coroutines else EVENTS
    send(0, WARM)
    gc.collect()
    before = resident_kib()
    send(WARM, count)
    gc.collect()
    grown = resident_kib() - before
    server.wait_for_completion()
    total = WARM + count
    assert got == {"events": total, "sum": total * (total - 1) // 2, "batches": total // BATCH}
    assert grown < 4096, f"{grown} KiB stay of {count} events"  # 40 bytes an event of 100,000 would show
