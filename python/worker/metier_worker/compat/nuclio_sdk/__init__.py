"""Stands in for `nuclio_sdk` where it is not installed: the same names, attributes and results, written anew."""

from __future__ import annotations

import datetime
import json
from typing import Any, Callable

__all__ = ["Context", "Event", "Logger", "Platform", "QualifiedOffset", "Response", "TriggerInfo"]


class TriggerInfo:
    """Kind and name of the trigger that an event came by."""

    def __init__(self, kind: str = "", name: str = "") -> None:
        self.kind = kind
        self.name = name


class QualifiedOffset:
    """A record's place in a stream: topic, partition, offset."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        self.topic = topic
        self.partition = partition
        self.offset = offset

    @classmethod
    def from_event(cls, event: Any) -> QualifiedOffset:
        """Return the place of the record that `event` was made of."""
        return cls(event.topic, event.shard_id, event.offset)

    def compile_explicit_ack_message(self) -> dict[str, Any]:
        """Return what a processor is told when everything up to this record is done."""
        return {"kind": "streamMessageAck", "attributes": {"topic": self.topic, "partition": self.partition, "offset": self.offset}}


class Event:
    """One event, as a handler sees it."""

    def __init__(
        self,
        body: Any = None,
        content_type: str | None = None,
        trigger: TriggerInfo | None = None,
        fields: dict[str, str] | None = None,
        headers: dict[str, Any] | None = None,
        _id: str | None = None,
        method: str | None = None,
        path: str | None = None,
        size: int | None = None,
        timestamp: datetime.datetime | None = None,
        url: str | None = None,
        shard_id: int | None = None,
        num_shards: int | None = None,
        _type: str | None = None,
        type_version: str | None = None,
        version: str | None = None,
        last_in_batch: bool | None = None,
        offset: int | None = None,
        topic: str | None = None,
    ) -> None:
        self.body = body
        self.content_type = content_type
        self.trigger = trigger or TriggerInfo()
        self.fields = fields or {}
        self.headers = headers or {}
        self.id = _id
        self.method = method
        self.path = path or "/"
        self.size = size
        self.timestamp = timestamp or datetime.datetime(1970, 1, 1)
        self.url = url
        self.shard_id = shard_id
        self.num_shards = num_shards
        self.type = _type
        self.type_version = type_version
        self.version = version
        self.last_in_batch = last_in_batch
        self.offset = offset
        self.topic = topic

    def to_json(self) -> str:
        """Return the event as JSON text; a body of bytes becomes text."""
        values = dict(self.__dict__)
        values["trigger"] = dict(self.trigger.__dict__)
        values["timestamp"] = self.timestamp.isoformat()
        if isinstance(values["body"], bytes):
            values["body"] = values["body"].decode("utf-8", "replace")
        return json.dumps(values, default=str)

    def get_header(self, header_key: str) -> Any:
        """Return the header of this name, letters' case ignored; None when there is none."""
        wanted = header_key.lower()
        return next((value for name, value in self.headers.items() if str(name).lower() == wanted), None)

    def compile_explicit_ack_message(self) -> dict[str, Any]:
        """Return what a processor is told when this event is done."""
        return QualifiedOffset.from_event(self).compile_explicit_ack_message()


class Response:
    """An answer with status, headers and type."""

    def __init__(
        self,
        headers: dict[str, Any] | None = None,
        body: Any = None,
        content_type: str | None = None,
        status_code: int = 200,
        event_id: str | None = None,
    ) -> None:
        self.headers = headers or {}
        self.body = body
        self.content_type = content_type or "text/plain"
        self.status_code = status_code
        self.event_id = event_id or ""

    def ensure_no_ack(self) -> None:
        """Keep a stream's record unacknowledged although the handler has answered."""
        self.headers["x-nuclio-stream-no-ack"] = True


class Logger:
    """The shape of a context's logger; in a worker it is the worker's own."""

    def __init__(self, level: Any, name: str = "nuclio_sdk") -> None:
        self.level = level
        self.name = name


class Platform:
    """The shape of a context's platform; in a worker it is the worker's own."""

    def __init__(self, kind: str, namespace: str = "default", *_: Any) -> None:
        self.kind = kind
        self.namespace = namespace


class Context:
    """What a handler gets beside its event. User code puts attributes of its own on it."""

    Response = Response

    def __init__(self, logger: Any = None, platform: Any = None, worker_id: str | None = None, trigger: TriggerInfo | None = None) -> None:
        self.logger = logger
        self.platform = platform
        self.worker_id = worker_id
        self.trigger = trigger or TriggerInfo()
        self.user_data: Any = _UserData()

    @property
    def trigger_name(self) -> str:
        """Return the trigger's name."""
        return self.trigger.name


class _UserData:
    """A namespace of the handler's own."""

    __call__: Callable[..., None] = lambda self: None
