"""The first small Spark job with two executors, submit to result, beside the same JVMs started by hand and spark-submit local[2].

Interleaved: one of each in every round (BENCH_REPEAT, default 7). Seconds, medians; CPU is the whole machine's, less what it uses idle.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import ROOT, machine_cpu, median, table

sys.path.insert(0, str(ROOT / "python" / "runner"))
from metier_runner import spark  # noqa: E402
from support.server import Server, running  # noqa: E402

PYTHON = ROOT / "build" / "venv-spark" / "bin" / "python"
REPEAT = int(os.environ.get("BENCH_REPEAT", "7"))
JOB = """
import time
from pyspark.sql import SparkSession

def job(context=None):
    spark = SparkSession.builder.getOrCreate()
    words = spark.sparkContext.parallelize(["a b", "b c", "c a b"] * 1000, 4).flatMap(str.split)
    counts = words.map(lambda w: (w, 1)).reduceByKey(lambda a, b: a + b).collectAsMap()
    at = time.time()
    assert counts["b"] == 3000, counts
    if context:
        context.log_result("at", at)
    else:
        print("AT", at, flush=True)
        spark.stop()

if __name__ == "__main__":
    job()
"""


def ours(server: Server, folder: Path) -> float:
    started = time.time()
    done = server.metier(
        "run", "words.py:job", "--kind", "spark", "--replicas", "2", "-o", "json", cwd=folder, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return float(json.loads(done.stdout)["status"]["results"]["at"]) - started


def environment_by_hand(folder: Path, address: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("METIER_", "MLRUN_", "SPARK_"))}
    home = next((PYTHON.parent.parent / "lib").glob("python3*/site-packages/pyspark"))
    folder.mkdir(parents=True, exist_ok=True)
    own = {"SPARK_HOME": str(home), "METIER_JOURNAL": str(folder / "journal"), "TMPDIR": str(folder)}
    own |= {"METIER_POD_IP": address, "METIER_SPARK_DRIVER_ADDR": "127.77.0.1", "PYSPARK_PYTHON": str(PYTHON)}
    own |= {"PYTHONPATH": f"{home.parent}:{ROOT / 'python' / 'runner'}", "PYSPARK_DRIVER_PYTHON": str(PYTHON)}
    jar = next((ROOT / "build").glob("*/src/main/metier-spark.jar"))
    return {**clean, **own, "METIER_SPARK_JAR": str(jar)}


def by_hand(folder: Path) -> float:
    """The driver's JVM and two executors' as a person would start them."""
    started = time.time()
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
        executor.wait(30)
    return when(done) - started


def local(folder: Path) -> float:
    started = time.time()
    environment = environment_by_hand(folder / "local", "127.0.0.1")
    submit = Path(environment["SPARK_HOME"]) / "bin" / "spark-submit"
    words = [str(submit), "--master", "local[2]", "--driver-memory", "512m", str(folder / "words.py")]
    environment["SPARK_LOCAL_IP"] = "127.0.0.1"
    return when(subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)) - started


def when(done: subprocess.CompletedProcess[str]) -> float:
    found = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("AT ")]
    assert found, done.stderr[-2000:]
    return float(found[0])


def measured(call: Callable[[], float]) -> tuple[float, float]:
    before = machine_cpu()
    seconds = call()
    return seconds, machine_cpu() - before


def main() -> None:
    ways: dict[str, list[tuple[float, float]]] = {"metier, 2 executors": [], "by hand, 2 executors": [], "local[2]": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "words.py").write_text(JOB)
        with running(folder / "data", python=str(PYTHON)) as server:
            calls: list[Callable[[], float]] = [
                lambda: ours(server, folder),
                lambda: by_hand(folder),
                lambda: local(folder),
            ]
            for i in range(REPEAT + 1):
                for name, call in zip(ways, calls):
                    value = measured(call)
                    if i > 0:  # the first round warms the page cache
                        ways[name].append(value)
    hand = median(seconds for seconds, _ in ways["by hand, 2 executors"])
    rows = []
    for name, values in ways.items():
        seconds, cpu = median(v[0] for v in values), median(v[1] for v in values)
        rows.append((name, f"{seconds:.2f}", f"{cpu:.1f}", f"{seconds - hand:+.2f}"))
    table(f"spark, submit to result, s ({REPEAT} rounds)", ("way", "median", "cpu", "against by hand"), rows)


if __name__ == "__main__":
    main()
