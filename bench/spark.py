"""The first small Spark job, submit to result, beside the same without us: interleaved, one of each in every round.

- cold: driver and two executors as pods, the same JVMs started by hand, and spark-submit local[2];
- warm: a run on a warm Spark, and a fresh bare client of that same Connect server; remote-spark on it likewise.

Seconds and CPU seconds, medians of so many rounds. CPU is of the processes of that way alone; the JVM of the warm Spark is in none of
them. `--parts cold` or `--parts warm` is one half of it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import ROOT, median, table

sys.path.insert(0, str(ROOT / "python" / "runner"))
from metier_runner import spark  # noqa: E402
from support.server import Server, running  # noqa: E402

PYTHON = ROOT / "build" / "venv-spark" / "bin" / "python"
JOB = """
import sys
import time

def job(context=None):
    if context is None and len(sys.argv) > 1:
        from metier_runner.spark_connect import session_of
        spark = session_of(sys.argv[1])
    else:
        from pyspark.sql import SparkSession
        spark = SparkSession.builder.getOrCreate()
    rows = spark.range(0, 30000, 1, 4).selectExpr("id % 3 as word").groupBy("word").count().collect()
    at = time.time()
    assert sorted(row["count"] for row in rows) == [10000, 10000, 10000], rows
    if context:
        import os
        context.log_result("at", at)
        context.log_result("remote", os.environ.get("SPARK_REMOTE", ""))
    else:
        print("AT", at, flush=True)
        spark.stop()

if __name__ == "__main__":
    job()
"""
LOCAL = "spark-submit local[2]"
Measure = tuple[float, float]  # seconds and CPU seconds


def submit(server: Server, folder: Path, *options: str) -> dict[str, Any]:
    done = server.metier("run", "words.py:job", *options, "-o", "json", cwd=folder, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["status"])


def ours(server: Server, folder: Path, *options: str) -> Measure:
    started = time.time()
    before = children_cpu()
    status = submit(server, folder, *options)
    parts = status.get("parts") or []
    own = [float(part.get("cpu_seconds") or 0) for part in parts if part["role"] != "server"]
    used = sum(own) if parts else float((status.get("usage") or {}).get("cpu_seconds") or 0)
    return float(status["results"]["at"]) - started, used + children_cpu() - before


def children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def environment_by_hand(folder: Path, address: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("METIER_", "MLRUN_", "SPARK_"))}
    home = next((PYTHON.parent.parent / "lib").glob("python3*/site-packages/pyspark"))
    folder.mkdir(parents=True, exist_ok=True)
    own = {"SPARK_HOME": str(home), "METIER_JOURNAL": str(folder / "journal"), "TMPDIR": str(folder)}
    own |= {"METIER_POD_IP": address, "METIER_SPARK_DRIVER_ADDR": "127.77.0.1", "PYSPARK_PYTHON": str(PYTHON)}
    own |= {"PYTHONPATH": f"{home.parent}:{ROOT / 'python' / 'runner'}", "PYSPARK_DRIVER_PYTHON": str(PYTHON)}
    jar = next((ROOT / "build").glob("*/src/main/metier-spark.jar"))
    return {**clean, **own, "METIER_SPARK_JAR": str(jar)}


def by_hand(folder: Path) -> Measure:
    """The driver's JVM and two executors' as a person would start them."""
    started, before = time.time(), children_cpu()
    executors = []
    for i in (1, 2):
        environment = environment_by_hand(folder / f"e{i}", f"127.77.0.1{i}")
        environment["METIER_SPARK"] = json.dumps({"id": str(i), "app": "by-hand", "cores": 1, "memory": "512m"})
        words = [str(PYTHON), "-m", "metier_runner.spark", "executor"]
        with open(folder / f"e{i}" / "log", "wb") as log:
            executors.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))
    environment = environment_by_hand(folder / "driver", "127.77.0.1")
    ports = {"spark.driver.port": "7078", "spark.driver.blockManager.port": "7079", "spark.blockManager.port": "7079"}
    conf = {**ports, "spark.executor.instances": "2", "spark.scheduler.minRegisteredResourcesRatio": "0.8"}
    start = {"app": "by-hand", "memory": "512m", "conf": conf}
    command = spark.driver_command(start, environment, str(folder / "driver"))
    jvm = {**environment, **spark.jvm_environment(environment)}
    done = subprocess.run([*command, str(folder / "words.py")], env=jvm, capture_output=True, text=True, timeout=300)
    for executor in executors:
        executor.wait(60)
    return when(done) - started, children_cpu() - before


def local(folder: Path) -> Measure:
    started, before = time.time(), children_cpu()
    environment = environment_by_hand(folder / "local", "127.0.0.1")
    submit = Path(environment["SPARK_HOME"]) / "bin" / "spark-submit"
    words = [str(submit), "--master", "local[2]", "--driver-memory", "512m", str(folder / "words.py")]
    environment["SPARK_LOCAL_IP"] = "127.0.0.1"
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    return when(done) - started, children_cpu() - before


def client(folder: Path, remote: str, token: str) -> Measure:
    """A fresh process with PySpark alone."""
    started, before = time.time(), children_cpu()
    environment = environment_by_hand(folder / "client", "127.0.0.1") | {"SPARK_CONNECT_AUTHENTICATE_TOKEN": token}
    words = [str(PYTHON), str(folder / "words.py"), remote]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    return when(done) - started, children_cpu() - before


def token_of(server: Server) -> str:
    """The token of the warm Spark, from its server's environment."""
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        values = dict(item.partition(b"=")[::2] for item in environment.split(b"\0"))
        name = values.get(b"METIER_POD_NAME", b"").decode()
        if name.startswith("warm-spark-") and str(server.data).encode() in environment:
            return values[b"SPARK_CONNECT_AUTHENTICATE_TOKEN"].decode()
    raise AssertionError("no warm Spark runs")


def when(done: subprocess.CompletedProcess[str]) -> float:
    found = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("AT ")]
    assert found, done.stderr[-2000:]
    return float(found[0])


def interleaved(
    ways: dict[str, Callable[[], Measure]], rounds: int, filled: Callable[[], bool]
) -> dict[str, list[Measure]]:
    """A round that fills caches, up to two minutes until they are `filled`, and then those that count."""
    out: dict[str, list[Measure]] = {name: [] for name in ways}
    for i in range(rounds + 1):
        for name, call in ways.items():
            value = call()
            if i > 0:
                out[name].append(value)
        late = time.monotonic() + 120
        while i == 0 and not filled():
            if time.monotonic() > late:
                print("note: no archives of classes were written in two minutes", flush=True)
                break
            time.sleep(0.2)
    return out


def has_archives(server: Server) -> bool:
    """Whether the archives of classes are written, which a pod of their own does after the first application's end."""
    names = [path.name for path in server.data.glob("spark/*/*.jsa*")]
    return bool(names) and all(name.endswith(".jsa") for name in names)


def show(title: str, measured: dict[str, list[Measure]], peer: str) -> None:
    """Medians, their distance from the peer's and their ratios to the peer's and to spark-submit's."""
    seconds = {name: median(value for value, _ in values) for name, values in measured.items()}
    bare, local = seconds[peer], seconds[LOCAL]
    rows = []
    for name, values in measured.items():
        own, every = seconds[name], sorted(value for value, _ in values)
        cpu = median(used for _, used in values)
        spread = f"{every[0]:.2f}..{every[-1]:.2f}"
        rows.append(
            (name, f"{own:.2f}", spread, f"{cpu:.1f}", f"{own - bare:+.2f}", f"{own / bare:.2f}", f"{own / local:.2f}")
        )
    header = ("way", "median", "least..most", "cpu", f"- {peer}", "ratio", f"/ {LOCAL}")
    table(f"{title}, s ({len(next(iter(measured.values())))} rounds)", header, rows)


def cold(server: Server, folder: Path, rounds: int) -> None:
    options = ["--kind", "spark", "--replicas", "2"]
    ways: dict[str, Callable[[], Measure]] = {
        "metier, 2 executors": lambda: ours(server, folder, *options),
        "by hand, 2 executors": lambda: by_hand(folder),
        LOCAL: lambda: local(folder),
    }
    show("spark, submit to result", interleaved(ways, rounds, lambda: has_archives(server)), "by hand, 2 executors")


def warm(server: Server, folder: Path, rounds: int) -> None:
    options = ["--kind", "spark", "--replicas", "2", "--set", "spec.warm=true"]
    remote = submit(server, folder, *options)["results"]["remote"]
    token = token_of(server)
    service = ["--kind", "remote-spark", "-e", f"METIER_SPARK_SERVICE={remote}"]
    service += ["-e", f"SPARK_CONNECT_AUTHENTICATE_TOKEN={token}"]
    ways: dict[str, Callable[[], Measure]] = {
        "metier, warm": lambda: ours(server, folder, *options),
        "metier, remote-spark": lambda: ours(server, folder, *service),
        "bare client": lambda: client(folder, remote, token),
        LOCAL: lambda: local(folder),
    }
    show("warm spark, submit to result", interleaved(ways, rounds, lambda: True), "bare client")


PARTS: dict[str, Callable[[Server, Path, int], None]] = {"cold": cold, "warm": warm}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench spark", description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("BENCH_REPEAT", "7")))
    wish = parser.parse_args()
    parts = wish.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"--parts: '{unknown[0]}' is none of {', '.join(PARTS)}")
    if wish.rounds < 1:
        parser.error(f"--rounds: {wish.rounds} is less than 1")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "words.py").write_text(JOB)
        with running(folder / "data", python=str(PYTHON)) as server:
            for part in parts:
                PARTS[part](server, folder, wish.rounds)


if __name__ == "__main__":
    main()
