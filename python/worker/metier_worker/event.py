"""The Event class of this worker: a subclass of `nuclio_sdk.Event` (the real one when installed), complete under copy, pickle and vars."""

from __future__ import annotations

import datetime
import functools
import itertools
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ATTRIBUTES = (
    "body", "content_type", "trigger", "fields", "headers", "id", "method", "path", "size", "timestamp", "url", "shard_id", "num_shards",
    "type", "type_version", "version", "last_in_batch", "offset", "topic",
)  # fmt: skip
EPOCH = datetime.datetime(1970, 1, 1)


def parse_body(data: bytes) -> Any:
    """Return the JSON value of a body of type application/json; the bytes themselves when it is none."""
    import json

    try:
        return json.loads(data.decode("utf-8"))
    except ValueError as error:
        import sys

        print(f"the body is not JSON, the event keeps its bytes: {error}", file=sys.stderr)
        return data


def parse_query(query: bytes) -> dict[str, str]:
    """Return a query's arguments; of repeated ones the last."""
    from urllib.parse import parse_qsl

    return dict(parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True))


@functools.lru_cache(maxsize=64)
def timestamp_of(seconds: int) -> datetime.datetime:
    """Return naive UTC of Unix seconds: what Nuclio's handlers see."""
    return EPOCH + datetime.timedelta(seconds=seconds)


def timestamp(microseconds: int) -> datetime.datetime:
    """Return naive UTC, whole seconds."""
    return timestamp_of(microseconds // 1_000_000)


def cloud_event(event: Any, trigger: Any) -> None:
    """Put a structured CloudEvent's envelope (0.1 names, as Nuclio reads them) into the event's attributes; its data becomes the body."""
    import json

    try:
        envelope = json.loads(event.body)
    except ValueError:
        return
    if not isinstance(envelope, dict) or not isinstance(envelope.get("eventID", ""), str):
        return
    event.id = envelope.get("eventID") or event.id
    event.type = str(envelope.get("eventType", ""))
    event.type_version = str(envelope.get("eventTypeVersion", ""))
    event.version = str(envelope.get("cloudEventsVersion", ""))
    event.content_type = str(envelope.get("contentType", ""))
    source = str(envelope.get("source", ""))
    event.trigger = trigger(source, source)
    event.body = envelope.get("data")
    try:
        when = datetime.datetime.fromisoformat(str(envelope["eventTime"]).replace("Z", "+00:00"))
        event.timestamp = when.astimezone(datetime.timezone.utc).replace(tzinfo=None, microsecond=0)
    except (KeyError, ValueError):
        pass


class Ids:
    """Event ids that look like random UUIDs: a random part per process, counted on. `reseed` after a fork."""

    def __init__(self) -> None:
        self.reseed()

    def reseed(self) -> None:
        """Draw a new random part."""
        self.head = os.urandom(8).hex()
        self.count = itertools.count(int.from_bytes(os.urandom(6), "big"))

    def __call__(self) -> str:
        """Return the next id."""
        head = self.head
        return f"{head[:8]}-{head[8:12]}-4{head[12:15]}-a{head[13:16]}-{next(self.count) & 0xFFFFFFFFFFFF:012x}"


new_id = Ids()


def make_event_class(base: type, sdk_event: type) -> type:
    """Return the class that workers make of each event: `base` is the ring's EventBase."""
    plain = type("Plain", (base, sdk_event), {"__module__": __name__})
    real_dict = next(kind.__dict__["__dict__"] for kind in plain.__mro__ if "__dict__" in kind.__dict__ and kind is not object)

    class Event(plain):  # type: ignore[valid-type, misc]
        """One event, as a handler sees it; attributes are decoded when they are first read."""

        __slots__ = ()

        @property
        def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
            values: dict[str, Any] = real_dict.__get__(self)
            for name in ATTRIBUTES:
                values[name] = getattr(self, name)
            return values

        def __reduce_ex__(self, protocol: Any) -> Any:
            import copyreg

            return copyreg._reconstructor, (sdk_event, object, None), self.__dict__  # type: ignore[attr-defined]

        def __repr__(self) -> str:
            return f"<Event {self.id} {self.trigger.kind} {self.method} {self.path}>".replace("  ", " ")

        def to_json(self) -> str:
            """Return the event as JSON text; a body of bytes becomes text."""
            import json

            values = dict(self.__dict__)
            values["trigger"] = dict(vars(self.trigger))
            values["timestamp"] = self.timestamp.isoformat()
            if isinstance(values["body"], bytes):
                values["body"] = values["body"].decode("utf-8", "replace")
            return json.dumps(values, default=str)

    Event.__qualname__ = "Event"
    return Event
