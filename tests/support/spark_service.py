"""Spark's own services for tests, on 127.0.0.1: a program of it, a Connect server."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from metier_runner import spark

from support.server import BINARY, free_port


def carries_connect(python: Path) -> bool:
    """Whether the pyspark of that environment has a Connect server: 3.5 has none."""
    return any(python.parent.parent.glob("lib/python3*/site-packages/pyspark/jars/spark-connect_*.jar"))


def java(python: Path, folder: Path, memory: str, *words: str) -> subprocess.Popen[bytes]:
    """One of Spark's own programs, on 127.0.0.1."""
    home = next((python.parent.parent / "lib").glob("python3*/site-packages/pyspark"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("METIER_", "MLRUN_", "SPARK_"))}
    environment |= {"SPARK_HOME": str(home), "METIER_JOURNAL": str(folder / "journal"), "TMPDIR": str(folder)}
    environment |= {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_SCALA_VERSION": spark.spark_version(str(home))[1]}
    environment |= {"PYSPARK_PYTHON": str(python), "PYTHONPATH": str(home.parent)}
    environment["METIER_SPARK_JAR"] = str(Path(BINARY).parent / "src" / "main" / "metier-spark.jar")
    command = [*spark.java_command(environment, "warn", memory), *words]
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)


def listening(port: int, seconds: float = 300) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens on {port} after {seconds} s")


@contextlib.contextmanager
def ended_after(*processes: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def connect_server(python: Path, folder: Path) -> Iterator[str]:
    """The URL of a Connect server of `python`'s pyspark."""
    port = free_port()
    conf = {"spark.connect.grpc.binding.address": "127.0.0.1", "spark.connect.grpc.binding.port": str(port)}
    conf |= {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2", "spark.sql.warehouse.dir": str(folder)}
    words = [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
    submit = ["org.apache.spark.deploy.SparkSubmit", "--master", "local[1]", *words]
    main = ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "--name", "connect", "spark-internal"]
    with ended_after(java(python, folder, "512m", *submit, *main)):
        listening(port)
        yield f"sc://127.0.0.1:{port}"
