"""Aggregates over time by key: storey's AggregateByKey, kept in memory by one worker."""

from __future__ import annotations

import datetime
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import GraphError

OPERATIONS = ("count", "sum", "sqr", "max", "min", "first", "last", "avg", "stdvar", "stddev")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str, step: str = "AggregateByKey") -> int:
    """``"10m"`` in seconds. GraphError for anything but a number and one of s, m, h, d."""
    match = re.fullmatch(r"([0-9]+)([smhd])", str(text))
    if not match or int(match.group(1)) == 0:
        raise GraphError(f"{step}: '{text}' is no window; write a number and s, m, h or d, such as 10m")
    return int(match.group(1)) * _UNITS[match.group(2)]


class _Bucket:
    __slots__ = ("count", "first", "index", "last", "most", "least", "squares", "total")

    def __init__(self, index: int) -> None:
        self.index = index
        self.count = 0
        self.total = self.squares = 0.0
        self.least, self.most = math.inf, -math.inf
        self.first: tuple[float, Any] = (math.inf, None)
        self.last: tuple[float, Any] = (-math.inf, None)

    def add(self, when: float, value: float) -> None:
        self.count += 1
        self.total += value
        self.squares += value * value
        self.least = min(self.least, value)
        self.most = max(self.most, value)
        if when < self.first[0]:
            self.first = (when, value)
        if when >= self.last[0]:
            self.last = (when, value)


def _value(operation: str, buckets: Sequence[_Bucket]) -> Any:
    count = sum(b.count for b in buckets)
    if operation == "count":
        return count
    if count == 0:
        return math.nan
    total = sum(b.total for b in buckets)
    squares = sum(b.squares for b in buckets)
    if operation == "sum":
        return total
    if operation == "sqr":
        return squares
    if operation == "avg":
        return total / count
    if operation == "max":
        return max(b.most for b in buckets)
    if operation == "min":
        return min(b.least for b in buckets)
    if operation == "first":
        return min(b.first for b in buckets)[1]
    if operation == "last":
        return max(b.last for b in buckets)[1]
    variance = max(squares - total * total / count, 0.0) / (count - 1) if count > 1 else math.nan
    return variance if operation == "stdvar" else math.sqrt(variance) if variance == variance else math.nan


class _Feature:
    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.name = str(spec.get("name", ""))
        self.column: Any = spec.get("column", spec.get("field"))
        operations = spec.get("operations", spec.get("aggr", []))
        self.operations = [operations] if isinstance(operations, str) else list(operations)
        windows = spec.get("windows", [])
        self.windows = {str(w): seconds_of(w) for w in ([windows] if isinstance(windows, str) else windows)}
        self.fixed = str(spec.get("type", "")).lower() == "fixed"
        self.limit: Callable[[Any], bool] | None = spec.get("aggr_filter")
        wrong = [op for op in self.operations if op not in OPERATIONS]
        if not self.name or self.column is None or not self.operations or not self.windows:
            raise GraphError("AggregateByKey: an aggregate needs name, column, operations and windows")
        if wrong:
            raise GraphError(f"AggregateByKey: operation '{wrong[0]}' is unknown; known: {' '.join(OPERATIONS)}")
        period = spec.get("period")
        self.period = seconds_of(period) if period else max(min(self.windows.values()) // 2, 1)
        for text, seconds in self.windows.items():
            if seconds % self.period:
                raise GraphError(f"AggregateByKey: the period of {self.period} s does not divide the window {text}")
        self.longest = max(self.windows.values())

    def of(self, body: Any) -> Any:
        return self.column(body) if callable(self.column) else body.get(self.column)


class AggregateByKey:
    """Adds ``<name>_<operation>_<window>`` to the body: over the events of the same key in each window.

    Parameters
    ----------
    aggregates : list of dict
        ``{"name", "column", "operations", "windows", "period"}``; windows slide by the period, ``"type": "fixed"`` aligns them.
    key_field : str
        The member that is the key; default the event's key.
    time_field : str
        The member that is the time (ISO text, datetime or Unix seconds); default the event's time, else now.
    max_keys : int
        How many keys are kept; the one that was not seen for the longest time goes first.
    """

    graph_mode = "event"

    def __init__(
        self,
        aggregates: Sequence[Any],
        table: Any = None,
        key_field: Any = None,
        time_field: str | None = None,
        aliases: Mapping[str, str] | None = None,
        max_keys: int = 100_000,
        **_: Any,
    ) -> None:
        self._features = [_Feature(a if isinstance(a, Mapping) else a.to_dict()) for a in aggregates]
        if not self._features:
            raise GraphError("AggregateByKey: aggregates is empty")
        self._key, self._time = key_field, time_field
        self._aliases = dict(aliases or {})
        self._most = max_keys
        self._kept: OrderedDict[Any, list[dict[int, _Bucket]]] = OrderedDict()

    def _when(self, event: Any) -> float:
        value = event.body.get(self._time) if self._time else event.timestamp
        if value is None or value == "":
            return time.time()
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, str):
            value = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
        if value.tzinfo is None:
            value = value.replace(tzinfo=datetime.timezone.utc)
        return float(value.timestamp())

    def do_event(self, event: Any) -> Any:
        key = event.key if self._key is None else self._key(event) if callable(self._key) else event.body[self._key]
        when = self._when(event)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = [{} for _ in self._features]
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        for feature, buckets in zip(self._features, kept):
            now = int(when // feature.period)
            value = feature.of(event.body)
            if value is not None and (feature.limit is None or feature.limit(event.body)):
                bucket = buckets.get(now)
                if bucket is None:
                    bucket = buckets[now] = _Bucket(now)
                    old = now - feature.longest // feature.period
                    for index in [i for i in buckets if i <= old]:
                        del buckets[index]
                bucket.add(when, float(value))
            for text, seconds in feature.windows.items():
                first = (
                    int(when // seconds) * seconds // feature.period
                    if feature.fixed
                    else now - seconds // feature.period + 1
                )
                inside = [b for i, b in buckets.items() if first <= i <= now]
                for operation in feature.operations:
                    name = f"{feature.name}_{operation}_{text}"
                    event.body[self._aliases.get(name, name)] = _value(operation, inside)
        return event
