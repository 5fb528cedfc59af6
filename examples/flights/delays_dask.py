"""delays.py with Dask: the handler beside a scheduler and workers that the server makes (kind dask).

    metier run delays_dask.py:delays --kind dask --replicas 2 -i flights=flights.csv.zip

The workers read parts of the file; each sends back the sums of its rows.
"""

from delays import COLUMNS, FEATURES, LATE, answer


def delays(context, flights, block_megabytes: float = 8):
    """The question with Dask."""
    import dask
    import dask.dataframe as dd
    import pandas as pd

    client = context.dask_client
    kinds = dict.fromkeys(["arr_delay", *FEATURES], "float64") | {"month": "int64"}
    table = dd.read_csv(unpacked(flights.local()), usecols=COLUMNS, dtype=kinds, blocksize=int(block_megabytes * 1e6))
    parts = [dask.delayed(sums)(part) for part in table.to_delayed()]
    context.logger.info(f"{len(parts)} parts on {len(client.scheduler_info()['workers'])} workers")
    found = client.gather(client.compute(parts))
    groups = pd.concat([groups for groups, _, _ in found]).groupby(["carrier", "month"], as_index=False).sum()
    groups["mean_delay"] = groups["delay"] / groups["flights"]
    groups["late_share"] = groups["late"] / groups["flights"]
    columns = ["carrier", "month", "flights", "mean_delay", "late_share"]
    answer(context, groups[columns], sum(squares for _, squares, _ in found), sum(products for _, _, products in found))


def sums(table):
    """Of one part, on a worker: flights, delay and late flights by carrier and month, and the terms of the normal equations."""
    table = table.dropna(subset=["arr_delay", "dep_delay"])
    table = table.assign(late=(table["arr_delay"] > LATE).astype(float))
    groups = table.groupby(["carrier", "month"], as_index=False).agg(
        flights=("arr_delay", "size"), delay=("arr_delay", "sum"), late=("late", "sum")
    )
    rows = table[FEATURES].assign(one=1.0)[["one", *FEATURES]].to_numpy(dtype=float)
    return groups, rows.T @ rows, rows.T @ table["arr_delay"].to_numpy(dtype=float)


def unpacked(path):
    """The CSV inside a .zip, in a folder of this run that the workers of this machine read too."""
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
