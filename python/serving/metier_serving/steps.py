"""Steps that users know from storey and MLRun. ``graph_mode`` tells the engine how a step's result is used."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from ._engine import Event
from .errors import GraphError


class _Function:
    """A step around a function of the body."""

    graph_mode = "map"

    def __init__(self, fn: Callable[[Any], Any], long_running: bool | None = None, **_: Any) -> None:
        if not callable(fn):
            raise GraphError(f"{type(self).__name__} needs a function: _fn='(event + 1)' or the name of one")
        self.do = fn


class Map(_Function):
    """The body becomes ``fn(body)``."""


class Filter(_Function):
    """Events whose ``fn(body)`` is false end here."""

    graph_mode = "filter"


class FlatMap(_Function):
    """One event for each item of ``fn(body)``."""

    graph_mode = "flat"


class Flatten:
    """One event for each item of the body."""

    graph_mode = "flat"

    def __init__(self, **_: Any) -> None:
        pass

    def do(self, body: Any) -> Any:
        return body


class Extend(_Function):
    """The members of ``fn(body)`` are added to the body."""

    graph_mode = "extend"


class ForEach(_Function):
    """Calls ``fn(body)``; the event goes on as it was."""

    graph_mode = "each"


class MapClass:
    """Base class: ``do(body)`` gives the new body; ``self.filter()`` in it drops the event."""

    graph_mode = "emit"

    def __init__(self, **_: Any) -> None:
        self._drop = False

    def do(self, body: Any) -> Any:
        raise NotImplementedError

    def filter(self) -> None:
        """Drops the event that is being handled."""
        self._drop = True

    def do_event(self, event: Any) -> Any:
        self._drop = False
        event.body = self.do(event.body)
        return None if self._drop else event


class DropColumns:
    """Removes members of the body."""

    def __init__(self, columns: str | Sequence[str], **_: Any) -> None:
        self._columns = [columns] if isinstance(columns, str) else list(columns)

    def do(self, body: Any) -> Any:
        for column in self._columns:
            body.pop(column, None)
        return body


class Rename:
    """Renames members of the body."""

    def __init__(self, mapping: dict[str, str], **_: Any) -> None:
        self._mapping = dict(mapping)

    def do(self, body: Any) -> Any:
        for old, new in self._mapping.items():
            if old in body:
                body[new] = body.pop(old)
        return body


class ReifyMetadata:
    """Puts members of the event (``key``, ``id``, ``time``…) into the body."""

    graph_mode = "event"

    def __init__(self, mapping: Any, **_: Any) -> None:
        self._mapping = mapping if isinstance(mapping, dict) else {name: name for name in mapping}

    def do_event(self, event: Any) -> Any:
        for attribute, name in self._mapping.items():
            event.body[name] = getattr(event, attribute)
        return event


class MapWithState:
    """``fn(body, state)`` gives the new body and the new state; one state, or one for each key."""

    graph_mode = "event"

    def __init__(self, initial_state: Any, fn: Any, group_by_key: bool = False, **_: Any) -> None:
        self._state = initial_state
        self._fn = fn
        self._by_key = group_by_key

    def do_event(self, event: Any) -> Any:
        if self._by_key:
            event.body, self._state[event.key] = self._fn(event.body, self._state[event.key])
        else:
            event.body, self._state = self._fn(event.body, self._state)
        return event


class Choice:
    """Sends the event to one of the steps after it: the first whose condition is true, else the default, else nowhere.

    Parameters
    ----------
    choices : list of (step name, condition)
        A condition is a function of the body or an expression ``"(event['x'] > 1)"``.
    """

    def __init__(self, choices: Any = None, choice_array: Any = None, default: str | None = None, **_: Any) -> None:
        from .resolve import get_function

        given = choices if choices is not None else choice_array or []
        self._choices = [(str(name), get_function(test, [], "choice")) for name, test in given]
        self._default = default

    def do(self, body: Any) -> Any:
        return body

    def select_outlets(self, body: Any) -> list[str]:
        for name, test in self._choices:
            if test(body):
                return [name]
        return [self._default] if self._default else []


class Batch:
    """Collects bodies into lists of ``max_events``, flushed ``flush_after_seconds`` after the first; by ``key_field`` separately."""

    graph_mode = "emit"

    def __init__(
        self,
        max_events: int | None = None,
        flush_after_seconds: float | None = None,
        key_field: Any = None,
        full_event: bool = False,
        **_: Any,
    ) -> None:
        if max_events is not None and max_events < 1:
            raise GraphError(f"Batch: max_events={max_events} must be 1 or more")
        if flush_after_seconds is not None and flush_after_seconds < 0:
            raise GraphError(f"Batch: flush_after_seconds={flush_after_seconds} must be 0 or more")
        self._max = max_events
        self._after = flush_after_seconds
        self._key = key_field
        self._full = bool(full_event)
        self._batches: dict[Any, list[Any]] = {}
        self._timers: dict[Any, threading.Timer] = {}
        self._server: Any = None
        self._name = ""

    def attach(self, server: Any, row: dict[str, Any]) -> None:
        self._server, self._name = server, row["name"]

    def _key_of(self, event: Any) -> Any:
        if self._key is None:
            return None
        if callable(self._key):
            return self._key(event)
        if self._key == "$key":
            return event.key
        return event.body[self._key]

    def do_event(self, event: Any) -> Any:
        key = self._key_of(event)
        batch = self._batches.setdefault(key, [])
        batch.append(event)
        if self._max is not None and len(batch) >= self._max:
            return self._take(key, event)
        event.keep()
        if len(batch) == 1 and self._after is not None:
            self._timers[key] = self._server._driver.call_later(self._after, lambda: self._flush(key))
        return None

    def _take(self, key: Any, last: Any = None) -> Any:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        events = self._batches.pop(key, None)
        if not events:
            return None
        made = Event(events if self._full else [event.body for event in events], key=key)
        for event in events:
            if event is not last:
                made.carry(event)
        if last is not None:
            made.path, made.method, made.headers, made.trigger = last.path, last.method, last.headers, last.trigger
        return made

    def _flush(self, key: Any) -> None:
        made = self._take(key)
        if made is not None:
            self._server.emit(self._name, made)

    def flush(self) -> None:
        """What has been collected goes on."""
        for key in list(self._batches):
            self._flush(key)

    finish = flush


class SampleWindow:
    """One of ``window_size`` events goes on, the first or the last (``emit_period``), for each key separately."""

    graph_mode = "emit"

    def __init__(
        self,
        window_size: int,
        emit_period: Any = "FIRST",
        emit_before_termination: bool = False,
        key: Any = None,
        **_: Any,
    ) -> None:
        if window_size <= 1:
            raise GraphError(f"SampleWindow: window_size={window_size} must be more than 1")
        self._size = window_size
        self._first = str(getattr(emit_period, "name", emit_period)).upper() == "FIRST"
        self._at_end = emit_before_termination
        self._key = key
        self._counts: dict[Any, int] = {}
        self._last: dict[Any, Any] = {}
        self._server: Any = None
        self._name = ""

    def attach(self, server: Any, row: dict[str, Any]) -> None:
        self._server, self._name = server, row["name"]

    def do_event(self, event: Any) -> Any:
        key = None
        if self._key is not None:
            key = (
                self._key(event) if callable(self._key) else event.key if self._key == "$key" else event.body[self._key]
            )
        count = self._counts.get(key, 0) + 1
        self._counts[key] = 0 if count == self._size else count
        chosen = count == 1 if self._first else count == self._size
        if self._at_end and not self._first:
            self._last[key] = None if chosen else event
        return event if chosen else None

    def finish(self) -> None:
        for event in self._last.values():
            if event is not None:
                self._server.emit(self._name, Event(event.body, key=event.key))


class Partition:
    """The body becomes ``(left, right)``: itself on the side that ``predicate(event)`` says, None on the other."""

    graph_mode = "event"

    def __init__(self, predicate: Callable[[Any], bool], **_: Any) -> None:
        self._predicate = predicate

    def do_event(self, event: Any) -> Any:
        event.body = (event.body, None) if self._predicate(event) else (None, event.body)
        return event


class Reduce:
    """Folds all bodies with ``fn(so_far, body)``; the result is that of ``wait_for_completion()``."""

    graph_mode = "emit"

    def __init__(self, initial_value: Any, fn: Callable[[Any, Any], Any], **_: Any) -> None:
        self._value = initial_value
        self._fn = fn

    def do_event(self, event: Any) -> Any:
        self._value = self._fn(self._value, event.body)
        return None

    def finish(self) -> Any:
        return self._value


class Complete:
    """The end of a flow; the answer is what ``respond()`` says."""

    def __init__(self, **_: Any) -> None:
        pass

    def do(self, body: Any) -> Any:
        return body


class Merge:
    """Joins the branches of an event: the body becomes the list of theirs, in the order of ``after``.

    Parameters
    ----------
    key_path : str
        An expression over ``event`` that gives the key to join by; default the event's id.
    max_behind : int
        How many keys are kept at most (64). The oldest incomplete one is given up, counted and reported to the error stream.
    expected_num_events : int
        How many make one; default the number of steps before this one.
    """

    graph_mode = "emit"

    def __init__(
        self,
        full_event: bool | None = None,
        key_path: str | None = None,
        max_behind: int | None = None,
        expected_num_events: int | None = None,
        context: Any = None,
        name: str | None = None,
        **_: Any,
    ) -> None:
        self.name = name or "Merge"
        self.context = context
        self.full_event = full_event
        self.max_behind = max_behind or 64
        self.expected = expected_num_events or 0
        self.dropped = 0
        self._before: list[str] = []
        self._kept: OrderedDict[Any, list[Any]] = OrderedDict()
        self._key: Callable[[Any], Any] | None = None
        if key_path:
            text = key_path if key_path.startswith("(") else f"({key_path})"
            from .resolve import get_function

            self._key = get_function(text, [], self.name)

    def attach(self, server: Any, row: dict[str, Any]) -> None:
        self._before = row["before"]
        self.expected = self.expected or len(self._before)
        names = [r["name"] for r in server._table["steps"]]
        self._order = {names.index(name): place for place, name in enumerate(self._before)}

    def get_join_key(self, event: Any) -> Any:
        """The key of an event; RuntimeError when it has none."""
        if self._key is None:
            return event.id
        try:
            return self._key(event)
        except Exception as error:
            raise RuntimeError(
                f"step '{self.name}': the event has no join key: {type(error).__name__}: {error}"
            ) from error

    def merge_function(self, last_event: Any, events: Sequence[Any]) -> Any:
        """The event that goes on."""
        last_event.body = [event.body for event in events]
        return last_event

    def do_event(self, event: Any) -> Any:
        if self.expected <= 1:
            return event
        key = self.get_join_key(event)
        kept = self._kept.setdefault(key, [])
        kept.append(event)
        if len(kept) == self.expected:
            del self._kept[key]
            events = sorted(kept, key=lambda e: self._order.get(e._from, 0)) if self._key is None else kept
            joined = self.merge_function(event, events)
            for other in kept:
                if other is joined and other is not event:
                    raise RuntimeError(f"step '{self.name}': merge_function must return the last event or a new one")
                if other is not event:
                    joined.carry(other) if type(joined) is Event else other.release()
            return joined
        event.keep()
        if len(self._kept) > self.max_behind:
            _, lost = self._kept.popitem(last=False)
            self.dropped += 1
            if self.context is not None:
                text = f"step '{self.name}' gave up a join that had {len(lost)} of {self.expected} events"
                self.context.logger.warning(text)
                self.context.push_error(lost[-1], text, source=self.name)
            for event in lost:
                event.release()
        return None

    def missing(self, event: Any) -> str:
        """What to tell the caller whose join did not come together."""
        kept = self._kept.pop(event.id, None) if self._key is None else None
        for branch in kept or []:
            branch.release()
        return f"step '{self.name}' got {len(kept)} of {self.expected} branches, so there is no answer" if kept else ""


class Assert:
    """Checks what passes; fails the event, or the end of the flow."""

    graph_mode = "event"

    def __init__(self, **_: Any) -> None:
        self._count = 0
        self._each: list[Callable[[Any], bool]] = []
        self._exactly: int | None = None

    def each_event(self, fn: Callable[[Any], bool]) -> Assert:
        self._each.append(fn)
        return self

    def exactly(self, expected: int) -> Assert:
        self._exactly = expected
        return self

    def do_event(self, event: Any) -> Any:
        self._count += 1
        for test in self._each:
            assert test(event.body), f"event {event.body!r} fails the check"
        return event

    def finish(self) -> None:
        assert self._exactly is None or self._count == self._exactly, f"{self._count} events, expected {self._exactly}"
