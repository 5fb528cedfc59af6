"""delays.py over MPI ranks (kind mpijob): every rank reads a part of the rows, the sums are added up by allreduce.

metier run delays_mpi.py:delays --kind mpijob --replicas 3 -i flights=flights.csv.zip
"""

from delays import COLUMNS, FEATURES, LATE, answer


def delays(context, flights):
    """The question with MPI."""
    import numpy as np
    import pandas as pd
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    path = flights.local()
    table = pd.read_csv(path, usecols=COLUMNS, skiprows=lambda n: n and n % world.size != world.rank)
    table = table.dropna(subset=["arr_delay", "dep_delay"])
    table["late"] = (table["arr_delay"] > LATE).astype(float)
    mine = table.groupby(["carrier", "month"], as_index=False).agg(
        flights=("arr_delay", "size"), delay=("arr_delay", "sum"), late=("late", "sum")
    )
    rows = table[FEATURES].assign(one=1.0)[["one", *FEATURES]].to_numpy(dtype=float)
    sums = np.column_stack([rows.T @ rows, rows.T @ table["arr_delay"].to_numpy(dtype=float)])
    total = np.zeros_like(sums)
    world.Allreduce(sums, total)
    groups = pd.concat(world.allgather(mine)).groupby(["carrier", "month"], as_index=False).sum()
    groups["mean_delay"] = groups["delay"] / groups["flights"]
    groups["late_share"] = groups["late"] / groups["flights"]
    print(f"rank {world.rank} of {world.size}: {len(table):,} of {int(groups['flights'].sum()):,} arrivals")
    if world.rank == 0:  # what other ranks log is not kept
        columns = ["carrier", "month", "flights", "mean_delay", "late_share"]
        answer(context, groups[columns], total[:, :-1], total[:, -1])
