from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_spark import fake_engine
from support.server import Server, running

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ["venv-spark", "venv-spark35"] if os.environ.get("METIER_TEST_ALL") else ["venv-spark"]

CODE = """
import os, sys, time
import helpers

def total(context, n: int = 1000):
    from pyspark.sql import SparkSession
    spark = SparkSession.builder.getOrCreate()
    rows = spark.sparkContext.parallelize(range(n), 4)
    context.log_result("sum", rows.map(lambda x: helpers.twice(x) + one(x)).sum())
    context.log_result("master", spark.sparkContext.master)
    places = spark.sparkContext.parallelize(range(8), 8).map(lambda _: os.environ["METIER_POD_NAME"]).distinct().collect()
    context.log_result("places", sorted(places))
    context.log_dataset("squares", spark.range(10).selectExpr("id", "id * id as square"))
    print("rows", spark.range(10).count())

def one(x):
    return 1

def slow(context, seconds: float = 20):
    from pyspark.sql import SparkSession
    spark = SparkSession.builder.getOrCreate()
    def wait(x):
        time.sleep(seconds / 8)
        return os.environ["METIER_POD_NAME"]
    print("session is ready", flush=True)
    names = spark.sparkContext.parallelize(range(16), 16).map(wait).collect()
    context.log_result("places", sorted(set(names)))
    context.log_result("tasks", len(names))

def fail(context):
    from pyspark.sql import SparkSession
    spark = SparkSession.builder.getOrCreate()
    def broken(x):
        raise ValueError("no such luck")
    spark.sparkContext.parallelize(range(2), 2).map(broken).collect()

def waves(context, pause: float = 8):
    from pyspark.sql import SparkSession
    sc = SparkSession.builder.getOrCreate().sparkContext
    def executors():
        return sc._jsc.sc().getExecutorMemoryStatus().size() - 1
    seen = [executors()]
    def wait(x):
        time.sleep(1.5)
        return x % 3, 1
    print("begin", flush=True)
    import threading
    most = []
    done = threading.Event()
    def look():
        while not done.wait(0.2):
            most.append(executors())
    threading.Thread(target=look, daemon=True).start()
    counts = dict(sc.parallelize(range(24), 24).map(wait).reduceByKey(lambda a, b: a + b).collect())
    done.set()
    context.log_result("most", max(most))
    context.log_result("counts", [counts[k] for k in sorted(counts)])
    ends = time.monotonic() + 120
    while executors() > 1 and time.monotonic() < ends:
        time.sleep(0.2)
    context.log_result("least", executors())
    context.log_result("again", sc.parallelize(range(4), 4).sum())

def once(context, marker: str):
    total = __import__("pyspark").SparkContext.getOrCreate().parallelize(range(10), 2).sum()
    first = not os.path.exists(marker)
    open(marker, "a").close()
    context.log_result("total", total)
    if first:
        print("first attempt", flush=True)
        os._exit(3)

def warm(context, n: int = 1000):
    from pyspark.sql import SparkSession, functions as F
    spark = SparkSession.builder.appName("mine").getOrCreate()
    twice = F.udf(lambda x: helpers.twice(x) + one(x), "long")
    context.log_result("sum", spark.range(n).agg(F.sum(twice("id"))).first()[0])
    context.log_result("session", type(spark).__module__)
    context.log_result("server", os.environ["SPARK_REMOTE"])

def computes(context, seconds: float = 200):
    from pyspark.sql import SparkSession, functions as F
    spark = SparkSession.builder.getOrCreate()
    spark.range(1).collect()
    print("session is ready in process", os.getpid(), flush=True)
    def wait(x):
        time.sleep(seconds)
        return x
    context.log_result("rows", len(spark.range(1).select(F.udf(wait, "long")("id")).collect()))

def classic(context):
    from pyspark.sql import SparkSession
    SparkSession.builder.getOrCreate().sparkContext.parallelize(range(3)).sum()

def connected(context):
    from pyspark.sql import SparkSession, functions as F
    spark = SparkSession.builder.getOrCreate()
    context.log_result("sum", spark.range(1000).agg(F.sum("id")).first()[0])
    context.log_result("session", type(spark).__module__)
"""


ONE = "def one(x):\n    return 1"
BROUGHT = "def one(x):\n    import packed as there\n    return alone.one() + there.nothing()"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up Spark and Java; tests that use it have a server of their own."""
    return fake_engine(tmp_path_factory.mktemp("fake"))


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def python(request: pytest.FixtureRequest) -> Path:
    """An interpreter that has one version of Spark."""
    found = ROOT / "build" / request.param / "bin" / "python"
    if not found.exists():
        pytest.skip(f"no build/{request.param}: scripts/setup makes it (Spark 3.5 with METIER_TEST_ALL=1)")
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, python: Path) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("m") / "data", python=str(python)) as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("code")
    (path / "count.py").write_text(CODE)
    (path / "helpers.py").write_text("def twice(x):\n    return 2 * x\n")
    (path / "brings.py").write_text(
        CODE.replace("import helpers", "import helpers, alone, packed").replace(ONE, BROUGHT)
    )
    (path / "elsewhere").mkdir()
    (path / "elsewhere" / "alone.py").write_text("def one():\n    return 1\n")
    with zipfile.ZipFile(path / "elsewhere" / "packed.zip", "w") as archive:
        archive.writestr("packed.py", "def nothing():\n    return 0\n")
    return path


@pytest.fixture(scope="module")
def brought(folder: Path) -> list[str]:
    """Options for brings.py: it imports what its application brings, at its top and where its tasks run."""
    files = [str(folder / "elsewhere" / name) for name in ("alone.py", "packed.zip")]
    return ["--set", f"spec.deps={json.dumps({'pyFiles': files})}"]
