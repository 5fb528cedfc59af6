"""delays.py with Spark: kinds spark (driver and executors here) and remote-spark (a cluster that exists).

    metier run delays_spark.py:delays --kind spark --replicas 2 -i flights=flights.csv.zip
    metier run delays_spark.py:delays --kind remote-spark -e METIER_SPARK_SERVICE=sc://127.0.0.1:15002 -i flights=flights.csv.zip

It needs DataFrames only, so it runs on Spark Connect as well. The linear model is one aggregation: the sums of the normal
equations, computed where the rows are.
"""

from delays import COLUMNS, FEATURES, LATE, answer


def delays(context, flights):
    """The question with Spark."""
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    spark = SparkSession.builder.getOrCreate()
    table = spark.read.csv(unpacked(flights.local()), header=True, nullValue="NA", schema=SCHEMA).select(*COLUMNS)
    table = table.dropna(subset=["arr_delay", "dep_delay"]).cache()
    groups = table.groupBy("carrier", "month").agg(
        F.count("*").alias("flights"),
        F.avg("arr_delay").alias("mean_delay"),
        F.avg((F.col("arr_delay") > LATE).cast("double")).alias("late_share"),
    )
    terms = [F.lit(1.0), *(F.col(name).cast("double") for name in FEATURES)]
    target = F.col("arr_delay").cast("double")
    sums = table.agg(
        *(F.sum(a * b).alias(f"s{i}_{j}") for i, a in enumerate(terms) for j, b in enumerate(terms)),
        *(F.sum(a * target).alias(f"p{i}") for i, a in enumerate(terms)),
    ).first()
    count = len(terms)
    squares = [[sums[f"s{i}_{j}"] for j in range(count)] for i in range(count)]
    answer(context, groups.toPandas(), squares, [sums[f"p{i}"] for i in range(count)])


# Columns of flights.csv; without it Spark would read the file twice.
SCHEMA = (
    "year int, month int, day int, dep_time double, sched_dep_time int, dep_delay double, arr_time double, sched_arr_time int,"
    " arr_delay double, carrier string, flight int, tailnum string, origin string, dest string, air_time double, distance double,"
    " hour int, minute int, time_hour string"
)


def unpacked(path):
    """The CSV inside a .zip, which Spark does not read, beside it or in a folder of this run."""
    import tempfile
    import zipfile
    from pathlib import Path

    if not path.endswith(".zip"):
        return path
    folder = tempfile.mkdtemp(prefix="flights-")
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".csv"))
        archive.extract(name, folder)
    return str(Path(folder, name))
