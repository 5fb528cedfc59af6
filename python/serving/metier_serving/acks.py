"""When a worker may acknowledge a stream's events: in the order of their offsets, when nothing of them is on its way any more."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from types import SimpleNamespace
from typing import Any


class Acks:
    """The events of each partition that have not ended. An acknowledgement finishes all that lie before it, so the oldest decides."""

    def __init__(self, platform: Any) -> None:
        self._platform = platform
        self._partitions: dict[tuple[str, int], deque[Arrival]] = {}
        self._lock = threading.Lock()  # batches end on threads of their own

    def begin(self, arrival: Arrival) -> None:
        """An event has come."""
        with self._lock:
            waiting = self._partitions.setdefault(arrival.place, deque())
            while waiting and waiting[-1].offset >= arrival.offset:  # delivered again: only the later one counts
                waiting.pop()
            waiting.append(arrival)

    def look(self, place: tuple[str, int]) -> None:
        """Acknowledges what has ended at the front."""
        with self._lock:
            waiting = self._partitions[place]
            last = None
            while waiting and waiting[0].ended:
                last = waiting.popleft()
            if last is None:
                return
            offset = SimpleNamespace(topic=place[0], partition=place[1], offset=last.offset)
            with contextlib.suppress(StopIteration):  # it never waits
                self._platform.explicit_ack(offset).send(None)


class Arrival:
    """One event of a stream; the engine calls it when the event has ended."""

    __slots__ = ("acks", "ended", "error", "offset", "place")

    def __init__(self, acks: Acks | None, event: Any) -> None:
        self.acks = acks
        self.ended = False
        self.error: BaseException | None = None
        self.place = (str(event.topic), int(event.shard_id or 0))
        self.offset = int(event.offset or 0)
        if acks is not None:
            acks.begin(self)

    def __call__(self, error: BaseException | None) -> None:
        self.ended, self.error = True, error
        if self.acks is not None:
            self.error = None  # nobody asks
            self.acks.look(self.place)
