"""Where records go: ``dummy://`` keeps them in memory, ``http(s)://`` posts each, ``kafka://`` produces, a path appends lines."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit


class Stream(Protocol):
    """What takes records; those of one key keep their order."""

    def push(self, data: Any, partition_key: Any = None) -> None: ...


class DummyStream:
    """A list in memory, for tests: ``stream.event_list``."""

    _shared: dict[str, DummyStream] = {}

    def __init__(self, event_list: list[Any] | None = None) -> None:
        self.event_list: list[Any] = event_list if event_list is not None else []

    def push(self, data: Any, partition_key: Any = None) -> None:
        self.event_list.extend(data if isinstance(data, list) else [data])


class HttpStream:
    """One POST of JSON for each record."""

    def __init__(self, url: str) -> None:
        self.url = url

    def push(self, data: Any, partition_key: Any = None) -> None:
        from .http import request

        for record in data if isinstance(data, list) else [data]:
            body = record if isinstance(record, (str, bytes)) else json.dumps(record)
            request("POST", self.url, body=body, headers={"Content-Type": "application/json"}, timeout=10)


class KafkaStream:
    """Produces to a topic with the client that the environment has (confluent-kafka or kafka-python).

    ``push`` returns when the brokers have the records, and raises ConnectionError when they do not within 10 seconds.
    """

    def __init__(self, brokers: str, topic: str) -> None:
        self.address, self.topic = f"kafka://{brokers}/{topic}", topic
        self._send: Callable[[list[tuple[bytes, bytes | None]]], None]
        try:
            from confluent_kafka import Producer
        except ImportError:
            self._send = self._by_kafka_python(brokers)
            return
        producer = Producer({"bootstrap.servers": brokers, "linger.ms": 0, "message.timeout.ms": 10_000})

        def send(records: list[tuple[bytes, bytes | None]]) -> None:
            failed: list[Any] = []
            left = [len(records)]

            def told(error: Any, _: Any) -> None:
                left[0] -= 1
                if error is not None:
                    failed.append(error)

            for value, key in records:
                producer.produce(topic, value, key=key, on_delivery=told)
            while left[0]:  # each is told of, at the latest when its time is over
                producer.poll(1)
            if failed:
                raise ConnectionError(f"{self.address}: {failed[0]}")

        self._send = send

    def _by_kafka_python(self, brokers: str) -> Callable[[list[tuple[bytes, bytes | None]]], None]:
        try:
            from kafka import KafkaProducer
            from kafka.errors import KafkaError
        except ImportError:
            raise ImportError(
                f"queue '{self.address}' needs a Kafka client in the function's environment: "
                "add confluent-kafka or kafka-python to its requirements"
            ) from None
        client = KafkaProducer(bootstrap_servers=brokers.split(","))

        def send(records: list[tuple[bytes, bytes | None]]) -> None:
            try:
                for future in [client.send(self.topic, value, key=key) for value, key in records]:
                    future.get(10)
            except KafkaError as error:
                raise ConnectionError(f"{self.address}: {error}") from error

        return send

    def push(self, data: Any, partition_key: Any = None) -> None:
        key = partition_key if isinstance(partition_key, bytes) else str(partition_key or "").encode()
        records = []
        for record in data if isinstance(data, list) else [data]:
            text = record if isinstance(record, (bytes, str)) else json.dumps(record)
            records.append((text.encode() if isinstance(text, str) else text, key or None))
        self._send(records)


class FileStream:
    """JSON lines, appended."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()

    def push(self, data: Any, partition_key: Any = None) -> None:
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
