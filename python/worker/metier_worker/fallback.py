"""The worker's end of the ring in plain Python (docs/formats/ring.md), for interpreters that cannot load the extension. Slow: the processor
says `SlowWorker`. It cannot compare-and-swap, so nothing that waits in this worker is taken back from it (`no_claims`), and it asks for an
eventfd at every record, so that no wake-up depends on a memory fence."""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
import time

from . import encode as encoding
from . import event as events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

CONTROL, RING, SLOTS_AT, INLINE, WINDOW = 64 * 1024, 256 * 1024, 4096, 64 * 1024, 256 * 1024
NO_CLAIMS, IN_HEAD, IN_TAIL, IN_SLEEPING, OUT_HEAD, OUT_TAIL = 16, 64, 128, 192, 256, 320
ALWAYS_EVENTFD = 3
STARTED = 2
RECORD = struct.Struct("=IHHII")
EVENT = struct.Struct("=IHHIIqqQiiI14II")
HEAD = struct.Struct("=IHHIIqqIIII")
(UID, KIND, NAME, METHOD, PATH, QUERY, TYPE, TOPIC, KEY, CE_TYPE, CE_TYPE_VERSION, VERSION, HEADERS, BODY) = range(14)
WORDS = {4: "drain", 5: "terminate", 6: "continue", 7: "stop"}


def text(data: bytes) -> str:
    """Return UTF-8 when it is, else Latin-1."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def canonical(name: str) -> str:
    """`x-my-header` is seen as `X-My-Header`."""
    return "-".join(word[:1].upper() + word[1:].lower() for word in name.split("-"))


class Ring:
    """What the extension's Ring is, word for word."""

    def __init__(
        self, segment: int, out_eventfd: int, in_eventfd: int, socket_fd: int, trigger: Callable[[str, str], Any], event: type
    ) -> None:
        self.memory = mmap.mmap(segment, CONTROL + 2 * RING)
        self.words64 = memoryview(self.memory).cast("Q")
        self.words32 = memoryview(self.memory).cast("I")
        self.out_eventfd, self.in_eventfd = out_eventfd, in_eventfd
        self.socket = socket.socket(fileno=socket_fd)
        self.trigger, self.event_class = trigger, event
        self.in_tail = self.out_head = 0
        self.dying = False
        self.words32[NO_CLAIMS // 4] = 1
        self.words32[IN_SLEEPING // 4] = ALWAYS_EVENTFD

    # ---- memory ----

    def read(self, ring: int, at: int, size: int) -> bytes:
        """Return bytes of a ring, around its end."""
        start = at % RING
        first = min(size, RING - start)
        base = CONTROL + ring * RING
        return self.memory[base + start : base + start + first] + self.memory[base : base + size - first]

    def write(self, at: int, data: bytes) -> None:
        """Put bytes into the out ring, around its end."""
        start = at % RING
        first = min(len(data), RING - start)
        base = CONTROL + RING
        self.memory[base + start : base + start + first] = data[:first]
        if first < len(data):
            self.memory[base : base + len(data) - first] = data[first:]

    def ready(self) -> bool:
        """Whether a record waits."""
        return self.in_tail != self.words64[IN_HEAD // 8]

    def orphaned(self) -> bool:
        """Whether the processor has gone."""
        poll = select.poll()
        poll.register(self.socket, select.POLLHUP | getattr(select, "POLLRDHUP", 0x2000))
        return bool(poll.poll(0))

    def put(self, data: bytes) -> None:
        """Publish one record; waits for room."""
        size = (len(data) + 15) & ~15
        while RING - (self.out_head - self.words64[OUT_TAIL // 8]) < size:
            time.sleep(0.001)
            if self.orphaned():
                raise ConnectionError("the processor has gone")
        self.write(self.out_head, data)
        self.out_head += size
        self.words64[OUT_HEAD // 8] = self.out_head
        os.write(self.out_eventfd, b"\1\0\0\0\0\0\0\0")

    def consume(self, size: int) -> None:
        """Give a record's room back."""
        self.in_tail += (size + 15) & ~15
        self.words64[IN_TAIL // 8] = self.in_tail

    # ---- events ----

    def claim(self, slot: int, generation: int) -> bool:
        """Take the event: nobody takes it back from a worker without claims."""
        at = SLOTS_AT // 8 + slot * 2
        if self.words64[at] >> 32 != generation:
            return False
        self.words64[at] = generation << 32 | STARTED
        return True

    def receive_body(self, size: int) -> bytes:
        """Return a body that came as a memfd."""
        _, rest, _, _ = self.socket.recvmsg(1, socket.CMSG_SPACE(4))
        fd = struct.unpack("=i", rest[0][2][:4])[0]
        try:
            data = bytearray()
            while len(data) < size:
                piece = os.pread(fd, size - len(data), len(data))
                if not piece:
                    raise ConnectionError("the body ended early")
                data += piece
            return bytes(data)
        finally:
            os.close(fd)

    def make_event(self, data: bytes) -> tuple[Any, int, int, bool, int]:
        """Return (event, slot, generation, wants logs, level) of an EVENT record."""
        values = EVENT.unpack_from(data)
        flags, slot, generation = values[2:5]
        timestamp, offset, body_size, shard, num_shards, level = values[5:11]
        lengths = values[11:25]
        parts, at = [], EVENT.size
        for length in lengths:
            parts.append(data[at : at + length])
            at += length
        body: Any = self.receive_body(body_size) if flags & 1 else parts[BODY]
        kind = text(parts[TYPE])
        if kind == "application/json":
            body = events.parse_body(body)
        headers: dict[str, Any] = {}
        rest = parts[HEADERS]
        while len(rest) >= 8:
            name, value = struct.unpack_from("=II", rest)
            raw = rest[8 + name : 8 + name + value]
            headers[text(rest[8 : 8 + name]) if flags & 2 else canonical(text(rest[8 : 8 + name]))] = raw if flags & 2 else text(raw)
            rest = rest[8 + name + value :]
        event = self.event_class(
            body=body, content_type=kind, trigger=self.trigger(text(parts[KIND]), text(parts[NAME])), fields=events.parse_query(parts[QUERY]),
            headers=headers, _id=text(parts[UID]) or events.new_id(), method=text(parts[METHOD]), path=text(parts[PATH]), size=body_size,
            timestamp=events.timestamp(timestamp), url="", shard_id=shard, num_shards=num_shards, _type=text(parts[CE_TYPE]),
            type_version=text(parts[CE_TYPE_VERSION]), version=text(parts[VERSION]), last_in_batch=bool(flags & 4), offset=offset,
            topic=text(parts[TOPIC]),
        )  # fmt: skip
        event.key = parts[KEY]
        if kind.startswith("application/cloudevents"):
            events.cloud_event(event, self.trigger)
        return event, slot, generation, bool(flags & 8), level

    def record(self) -> tuple[int, int, int, bytes] | None:
        """Return the next record whole and give its room back."""
        if not self.ready():
            return None
        size, kind, _, slot, generation = RECORD.unpack(self.read(0, self.in_tail, RECORD.size))
        data = self.read(0, self.in_tail, size)
        self.consume(size)
        return kind, slot, generation, data

    def next(self) -> Any:
        """Return one message, or None."""
        while True:
            found = self.record()
            if found is None:
                return None
            kind, slot, generation, data = found
            if kind == 1:
                event, slot, generation, logs, level = self.make_event(data)
                if self.claim(slot, generation):
                    return "event", event, slot, generation, logs, level
            elif kind == 3:
                return "cancel", slot, generation
            elif kind in WORDS:
                return (WORDS[kind],)

    def wait(self) -> None:
        """Sleep until a record may be there, at most a second."""
        poll = select.poll()
        poll.register(self.in_eventfd, select.POLLIN)
        if poll.poll(1000):
            self.awake()
        elif self.orphaned():
            raise ConnectionError("the processor has gone")

    def serve(self, host: Any, pending: list[int]) -> str:
        """The loop of a sync worker."""
        while True:
            found = self.record()
            if found is None:
                if pending[0]:
                    return "pending"
                try:
                    self.wait()
                except ConnectionError:
                    return "gone"
                continue
            kind, slot, _, data = found
            if kind == 1:
                self.serve_event(host, data)
            elif kind == 2:
                self.serve_batch(host, slot)
            elif kind in WORDS:
                return WORDS[kind]

    def serve_event(self, host: Any, data: bytes) -> None:
        """One event, from its record to its answer."""
        event, slot, generation, logs, level = self.make_event(data)
        if not self.claim(slot, generation):
            return
        if logs:
            host.begin(slot, generation, level)
        start = time.monotonic_ns()
        try:
            result = host.handler(host.context, event)
            if isinstance(result, host.coroutine_type):
                result = host.coroutine(result, event)
            spent = time.monotonic_ns() - start
            encoded = host.encode(result, (slot, generation, spent))
        except BaseException as error:  # noqa: BLE001 - the answer says it
            if self.dying:
                raise
            spent = time.monotonic_ns() - start
            encoded = host.failed(error)
        if encoded is not None:
            self.respond(slot, generation, spent, encoded)
        if logs:
            host.done()

    def serve_batch(self, host: Any, count: int) -> None:
        """Events that belong together."""
        batch, ids = [], []
        for _ in range(count):
            found = self.record()
            if found is None:
                break
            event, slot, generation, _, _ = self.make_event(found[3])
            if self.claim(slot, generation):
                batch.append(event)
                ids.append((slot, generation))
        if batch:
            host.batch(batch, ids)

    # ---- answers ----

    def respond(self, slot: int, generation: int, spent: int, encoded: encoding.Encoded) -> None:
        """A whole answer."""
        status, kind, headers, body, flags = encoded
        whole = len(body) <= INLINE
        size = HEAD.size + len(kind) + len(headers) + (len(body) if whole else 0)
        head = HEAD.pack(
            size, 18 if whole else 19, flags, slot, generation, len(body), spent, status, len(kind), len(headers), len(body) if whole else 0
        )
        self.put(head + kind + headers + (body if whole else b""))
        if not whole:
            for at in range(0, len(body), INLINE):
                self.message(20, slot, generation, body[at : at + INLINE])
            self.end(slot, generation, spent)

    def head(self, slot: int, generation: int, status: int, kind: bytes, headers: bytes, flags: int) -> None:
        """A streamed answer begins."""
        size = HEAD.size + len(kind) + len(headers)
        self.put(HEAD.pack(size, 19, flags | 4, slot, generation, -1, 0, status, len(kind), len(headers), 0) + kind + headers)

    def credit(self, slot: int) -> int:
        """Bytes of a stream that have left."""
        return int(self.words64[SLOTS_AT // 8 + slot * 2 + 1])

    def wanted(self, slot: int, generation: int) -> bool:
        """Whether the stream's peer is there."""
        return bool(self.words64[SLOTS_AT // 8 + slot * 2] == (generation << 32 | STARTED))

    def chunk(self, slot: int, generation: int, data: bytes, sent: int) -> bool:
        """A piece of a stream; False: its peer has gone."""
        for at in range(0, len(data), INLINE):
            while sent + at - self.credit(slot) >= WINDOW:
                if not self.wanted(slot, generation):
                    return False
                time.sleep(0.001)
            self.message(20, slot, generation, data[at : at + INLINE])
        return self.wanted(slot, generation)

    def end(self, slot: int, generation: int, spent: int) -> None:
        """A streamed answer ends."""
        self.put(RECORD.pack(RECORD.size + 16, 21, 0, slot, generation) + struct.pack("=qq", spent, 0))

    def message(self, kind: int, slot: int, generation: int, data: bytes) -> None:
        """A word to the processor."""
        data = data[:INLINE]
        self.put(RECORD.pack(RECORD.size + len(data), kind, 0, slot, generation) + data)

    def ack(self, topic: str, partition: int, offset: int) -> None:
        """An explicit acknowledgement."""
        name = topic.encode()
        self.put(RECORD.pack(RECORD.size + 16 + len(name), 23, 0, 0, 0) + struct.pack("=qiI", offset, partition, len(name)) + name)

    # ---- the event loop's ----

    def sleep(self) -> bool:
        """The next record writes the eventfd, as every one does."""
        return not self.ready()

    def awake(self) -> None:
        """Read the eventfd empty."""
        try:
            os.read(self.in_eventfd, 8)
        except BlockingIOError:
            pass

    def die(self) -> None:
        """The event timeout came."""
        self.dying = True
