"""Where records go: ``dummy://`` keeps them in memory, ``http(s)://`` posts each, ``kafka://`` produces, a path appends lines."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit


class Stream(Protocol):
    """What takes records."""

    def push(self, data: Any) -> None: ...


class DummyStream:
    """A list in memory, for tests: ``stream.event_list``."""

    _shared: dict[str, DummyStream] = {}

    def __init__(self, event_list: list[Any] | None = None) -> None:
        self.event_list: list[Any] = event_list if event_list is not None else []

    def push(self, data: Any) -> None:
        self.event_list.extend(data if isinstance(data, list) else [data])


class HttpStream:
    """One POST of JSON for each record."""

    def __init__(self, url: str) -> None:
        self.url = url

    def push(self, data: Any) -> None:
        from .http import request

        for record in data if isinstance(data, list) else [data]:
            body = record if isinstance(record, (str, bytes)) else json.dumps(record)
            request("POST", self.url, body=body, headers={"Content-Type": "application/json"}, timeout=10)


class KafkaStream:
    """Produces to a topic with the client that the environment has (confluent-kafka or kafka-python)."""

    def __init__(self, brokers: str, topic: str) -> None:
        self.topic = topic
        self._send: Callable[[bytes], Any]
        try:
            from confluent_kafka import Producer

            producer = Producer({"bootstrap.servers": brokers})
            self._send = lambda data: (producer.produce(topic, data), producer.flush(10))
        except ImportError:
            try:
                from kafka import KafkaProducer
            except ImportError:
                raise ImportError(
                    f"queue 'kafka://{brokers}/{topic}' needs a Kafka client in the function's environment: "
                    "add confluent-kafka or kafka-python to its requirements"
                ) from None
            client = KafkaProducer(bootstrap_servers=brokers.split(","))
            self._send = lambda data: client.send(topic, data).get(10)

    def push(self, data: Any) -> None:
        for record in data if isinstance(data, list) else [data]:
            text = record if isinstance(record, (bytes, str)) else json.dumps(record)
            self._send(text.encode() if isinstance(text, str) else text)


class FileStream:
    """JSON lines, appended."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()

    def push(self, data: Any) -> None:
        lines = "".join(json.dumps(r, default=str) + "\n" for r in (data if isinstance(data, list) else [data]))
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(lines)


def get_stream_pusher(path: str, **options: Any) -> Stream:
    """A stream by its address. ValueError for schemes that are none of these."""
    brokers = options.get("kafka_brokers") or options.get("kafka_bootstrap_servers") or options.get("brokers")
    parts = urlsplit(path)
    if parts.scheme == "kafka" or brokers:
        topic = parts.path.strip("/") if parts.scheme == "kafka" else path
        return KafkaStream(
            brokers if isinstance(brokers, str) else ",".join(brokers) if brokers else parts.netloc, topic
        )
    if parts.scheme == "dummy":
        return DummyStream._shared.setdefault(path, DummyStream()) if parts.netloc else DummyStream()
    if parts.scheme in ("http", "https"):
        return HttpStream(path)
    if parts.scheme in ("file", ""):
        return FileStream(parts.path if parts.scheme else path)
    raise ValueError(
        f"stream path '{path}': scheme '{parts.scheme}' is unknown, use kafka://, http(s)://, file://, dummy://"
    )
