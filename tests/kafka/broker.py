"""A real Kafka broker (KRaft, one node) on loopback, from the jars that scripts/fetch-broker keeps below build/kafka."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

ROOT = Path(__file__).resolve().parents[2]
JARS = ROOT / "build" / "kafka" / "lib"
FORMATTED = ROOT / "build" / "kafka" / "formatted"  # an empty data folder: formatting one takes two JVMs
JAVA = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*"]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Door:
    """The way of clients to a broker, which can be shut: who is inside is put out, who comes is refused."""

    def __init__(self) -> None:
        (self.port,) = free_ports(1)
        self.leads_to = 0
        self.ends: list[socket.socket] = []

    def open(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # shut
            while True:
                caller, _ = listener.accept()
                try:
                    broker = socket.create_connection(("127.0.0.1", self.leads_to))
                except OSError:  # it does not listen yet
                    caller.close()
                    continue
                self.ends += [caller, broker]
                for source, target in ((caller, broker), (broker, caller)):
                    threading.Thread(target=self.carry, args=(source, target), daemon=True).start()

    def carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def shut(self) -> None:
        for end in [self.listener, *self.ends]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.ends.clear()


class Broker:
    """Listeners: plain, SASL (PLAIN and SCRAM, user alice), TLS (a certificate of its own).

    A folder whose broker runs already is taken as it is. With a door, clients of the plain listener come through it.
    """

    def __init__(self, folder: Path, door: Door | None = None) -> None:
        self.door = door
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        if Path(self.config).exists():
            ports = re.search(r"^listeners=.*:(\d+),.*:(\d+),.*:(\d+),", Path(self.config).read_text(), re.M)
            assert ports is not None
            self.port, self.sasl_port, self.tls_port = map(int, ports.groups())
            return
        self.port, self.sasl_port, self.tls_port, controller = free_ports(4)
        self.make_certificate()
        if door is not None:
            door.leads_to = self.port
            door.open()
        jaas = 'org.apache.kafka.common.security.{0} required username="alice" password="secret"'
        plain = jaas.format("plain.PlainLoginModule") + ' user_alice="secret";'
        scram = jaas.format("scram.ScramLoginModule") + ";"
        (folder / "server.properties").write_text(
            f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAIN://127.0.0.1:{self.port},SASL://127.0.0.1:{self.sasl_port},TLS://127.0.0.1:{self.tls_port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAIN://{self.address},SASL://127.0.0.1:{self.sasl_port},TLS://127.0.0.1:{self.tls_port}
listener.security.protocol.map=PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.sasl.plain.sasl.jaas.config={plain}
listener.name.sasl.scram-sha-256.sasl.jaas.config={scram}
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location={folder}/server.pem
log.dirs={folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
"""
        )
        if not FORMATTED.exists():
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            user = "SCRAM-SHA-256=[name=alice,password=secret]"
            self.run_java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", self.config, "--add-scram", user)
            with contextlib.suppress(OSError):  # another run may have been faster
                shutil.copytree(folder / "data", part := FORMATTED.with_name(f"formatted.{os.getpid()}"))
                part.rename(FORMATTED)
        else:
            shutil.copytree(FORMATTED, folder / "data")

    @property
    def config(self) -> str:
        return str(self.folder / "server.properties")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.door.port if self.door else self.port}"

    def run_java(self, *arguments: str) -> None:
        done = subprocess.run([*JAVA, *arguments], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def make_certificate(self) -> None:
        key, certificate = self.folder / "key.pem", self.folder / "ca.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
            + ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
            check=True,
            capture_output=True,
        )
        (self.folder / "server.pem").write_text(key.read_text() + certificate.read_text())

    @property
    def ca(self) -> str:
        return (self.folder / "ca.pem").read_text()

    def start(self) -> Broker:
        with open(self.folder / "broker.log", "ab") as log:
            self.process = subprocess.Popen(
                [*JAVA, "kafka.Kafka", self.config], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        try:
            until(self.answers, 300, "the broker")  # a JVM's start takes minutes where other work fills the machine
        except BaseException:
            self.stop()
            raise
        return self

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "broker.log").read_text()[-3000:]
        with contextlib.suppress(KafkaException):
            return bool(self.admin().list_topics(timeout=2).brokers)
        return False

    def stop(self, kill: bool = True) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self.process.wait(60)
        self.process = None

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def topic(self, partitions: int = 1, name: str = "") -> str:
        name = name or f"t-{os.urandom(4).hex()}"
        admin = self.admin()
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result(60)
        return name

    def produce(self, topic: str, count: int, partitions: int = 1, first: int = 0, **more: Any) -> None:
        """Records `first` … of every partition: their bodies are their numbers."""
        producer = Producer({"bootstrap.servers": self.address, "linger.ms": 5, "log_level": 0})
        for number in range(first, first + count):
            for partition in range(partitions):
                producer.produce(topic, str(number).encode(), partition=partition, **more)
            producer.poll(0)
        assert producer.flush(60) == 0

    def committed(self, topic: str, group: str, partitions: int = 1) -> list[int]:
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group, "log_level": 0})

        def answer() -> list[TopicPartition] | None:
            try:
                return consumer.committed([TopicPartition(topic, p) for p in range(partitions)], timeout=30)
            except KafkaException as error:
                # A broker that has just begun creates its offsets topic first: no group has a coordinator until then.
                if error.args[0].code() not in (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS):
                    raise
                return None

        try:
            return [max(0, each.offset) for each in until(answer, what="the group's coordinator")]
        finally:
            consumer.close()


def until(check: Callable[[], Any], seconds: float = 180.0, what: str = "it") -> Any:
    """Wait for a true value; the limit is only there to end a broken test."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = check()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}")
