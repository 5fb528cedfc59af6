"""A Spark and a Java of the tests' own: JVMs that stop where they are told. They need our cluster manager, as the build makes it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.server import BINARY

# `step` stops while the environment names it, until the gate's folder has `go`.
STOP = """
import os, time

def stands(name):
    gate = os.environ["GATE"]
    if os.environ["GATE_STEP"] != name or os.path.exists(f"{gate}/go"):
        return False
    open(f"{gate}/at.{os.getpid()}", "w").close()
    return True

def step(name, look=lambda: None):
    while stands(name):
        look()
        time.sleep(0.005)
"""
# Whoever is at the other end may be killed at any time: then there is nothing to hear, and nobody to tell.
HEAR = """
import selectors, socket

def hear(connection):
    try:
        return connection.recv(100)
    except OSError:
        return b""

def tell(connection, said):
    try:
        connection.sendall(said)
    except OSError:
        pass

def echo(place):
    listener, ready = socket.create_server(place), selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ)
    while True:  # ended by a signal
        for key, _ in ready.select():
            if key.fileobj is listener:
                ready.register(listener.accept()[0], selectors.EVENT_READ)
            elif said := hear(key.fileobj):
                tell(key.fileobj, said)
            else:
                ready.unregister(key.fileobj)
                key.fileobj.close()
"""
# What a driver's JVM and an executor's do towards the outside: ports, connections, the end. Py4J's part is a line that asks for executors.
JAVA = """#!{python} -IS
import struct, sys
{stop}
{hear}
words = sys.argv[1:]

def after(option):
    return words[words.index(option) + 1]

def driver():
    step("before the driver's JVM")
    conf = dict(line.rstrip().split("=", 1) for line in open(after("--properties-file")))
    port = int(conf["spark.driver.port"])
    ready = selectors.DefaultSelector()
    names = {{}}
    asked = []
    for name, place in (("executors", (conf["spark.driver.host"], port)), ("gateway", ("127.0.0.1", 0))):
        names[name] = socket.create_server(place)
        ready.register(names[name], selectors.EVENT_READ, name)
    information = os.environ["_PYSPARK_DRIVER_CONN_INFO_PATH"]
    with open(information + ".new", "wb") as stream:
        stream.write(struct.pack(">ii", names["gateway"].getsockname()[1], 6) + b"secret")
    os.rename(information + ".new", information)
    ready.register(sys.stdin, selectors.EVENT_READ, "stdin")
    executors, closing = {{}}, False
    while not closing or stands("the user's code has ended"):
        for key, _ in ready.select(0.005 if closing else None):
            if key.data == "stdin":
                closing = True  # its other end was closed
                ready.unregister(sys.stdin)
            elif key.data in ("executors", "gateway"):
                one, _ = key.fileobj.accept()
                ready.register(one, selectors.EVENT_READ, "executor" if key.data == "executors" else "python")
            else:
                said = hear(key.fileobj)
                if key.data == "executor" and said:
                    executors[key.fileobj] = said.decode().strip()
                elif key.data == "python" and said:
                    asked.append((key.fileobj, int(said)))
                else:
                    ready.unregister(key.fileobj)
                    executors.pop(key.fileobj, None)
                    key.fileobj.close()
        for one in [one for one in asked if one[1] <= len(executors)]:
            asked.remove(one)
            tell(one[0], " ".join(sorted(executors.values())).encode() + b"\\n")
    for one in executors:
        tell(one, b"stop")

def service():
    conf = dict(line.rstrip().split("=", 1) for line in open(after("--properties-file")))
    step("before the server listens")
    echo((conf["spark.connect.grpc.binding.address"], int(conf["spark.connect.grpc.binding.port"])))

def executor():
    step("before the executors")
    host, _, port = after("--driver-url").rpartition("@")[2].rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(after("--executor-id").encode() + b"\\n")
    open(os.environ["GATE"] + "/connected." + after("--executor-id"), "w").close()
    told = hear(connection)
    step("the executors leave")
    sys.exit(0 if told == b"stop" else 1)

if "org.apache.spark.executor.CoarseGrainedExecutorBackend" in words:
    executor()
elif "org.apache.spark.sql.connect.service.SparkConnectServer" in words:
    service()
else:
    driver()
"""

# What the runner and a client need of PySpark and its packages: one connection is the session.
MODULES = {
    "grpc": """
def local_channel_credentials(): pass
def access_token_call_credentials(token): pass
def composite_channel_credentials(*parts): pass
""",
    "grpc_status": "",
    "google.rpc": "",
    "zstandard": "",
    "pyarrow": "",
    "pyspark": "",
    "pyspark.sql": """
class Anything:
    def __getattr__(self, name): return self
    def __call__(self, *words, **named): return self
functions = Anything()
""",
    "pyspark.sql.connect": "",
    "pyspark.sql.connect.client": """
class DefaultChannelBuilder:
    def __init__(self, remote):
        self.place = remote.removeprefix("sc://").rpartition(":")
""",
    "pyspark.sql.connect.session": STOP
    + """
import socket, sys
from pyspark.sql import Anything

class SparkSession(Anything):
    _default_session = None

    def channelBuilder(self, builder):
        host, _, port = builder.place
        self.connection = socket.create_connection((host, int(port)))
        SparkSession._default_session = self
        return self

    def getOrCreate(self):
        return self

    def ask(self):
        self.connection.sendall(b"x")
        if not self.connection.recv(1):
            raise ConnectionError("the service is unavailable")

    def stop(self):
        if "warm-up" not in sys.argv:  # the server's own first client
            step("the user's code has ended")
        self.connection.close()

SparkSession.builder = SparkSession()
""",
}


def fake_engine(folder: Path, java_version: str = "") -> Path:
    """From Java 17 on the first JVM of each part records its classes, with a Python that waits for its end."""
    if not (Path(BINARY).parent / "src" / "main" / "metier-spark.jar").exists():
        pytest.skip("this build has no Spark cluster manager: it was made without a JDK")
    (folder / "spark" / "jars").mkdir(parents=True)
    for name in ("spark-core_2.13-4.3.0.jar", "spark-connect_2.13-4.3.0.jar"):
        (folder / "spark" / "jars" / name).touch()
    java = folder / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(JAVA.format(python=sys.executable, stop=STOP, hear=HEAR))
    java.chmod(0o755)
    if java_version:
        (folder / "java" / "release").write_text(f'JAVA_VERSION="{java_version}"\n')
    for name, text in MODULES.items():
        package = folder / "modules" / name.replace(".", "/")
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(text)
    return folder


def variables(engine: Path, gate: Path, step: str) -> list[str]:
    """Options of `metier run` that give the run this engine and the step to stop at."""
    out = {"SPARK_HOME": engine / "spark", "JAVA_HOME": engine / "java", "PYTHONPATH": engine / "modules"}
    return [
        word for name, value in {**out, "GATE": gate, "GATE_STEP": step}.items() for word in ("-e", f"{name}={value}")
    ]


def until(what: str, check: Callable[[], object], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < ends, what
        time.sleep(0.01)
