"""A linear model of the arrival delay, fitted by gradient descent over MPI ranks.

    metier run delay_mpi.py:fit --kind mpijob --replicas 3 -i flights=flights.csv.zip

Each rank reads every n-th departure; in each step the ranks add up their gradients (allreduce), so that all of them hold
the same coefficients. The result does not depend on how many ranks there are. delay_mpi.cc is the same in C++.
"""

import csv
import io
import itertools
import zipfile

STEP = 0.3  # of the gradient; the features are scaled to about one


def fit(context, flights, steps: int = 60):
    """Fits arrival delay (minutes, at most 180) = c0 + c1 hour + c2 distance + c3 month; features scaled as in `features`."""
    import numpy as np
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    x, y = load(flights.local(), world.rank, world.size)
    x, y = np.asarray(x), np.asarray(y)
    rows = world.allreduce(len(y))
    if rows == 0:
        raise ValueError("flights has no arrivals")
    coefficients = np.zeros(x.shape[1])
    total = np.zeros(x.shape[1])
    for _ in range(steps):
        gradient = x.T @ (x @ coefficients - y)
        world.Allreduce(gradient, total)
        coefficients -= STEP * total / rows
    square = world.allreduce(float(((x @ coefficients - y) ** 2).sum()))
    print(f"rank {world.rank} of {world.size}: {len(y):,} of {rows:,} arrivals")
    context.log_results(
        {
            "arrivals": rows,
            "ranks": world.size,
            "coefficients": [round(float(c), 6) for c in coefficients],
            "rms_error_minutes": round((square / rows) ** 0.5, 4),
        }
    )


def load(path, rank, size):
    """Features and delays of the departures rank, rank + size, …; cancelled flights are left out."""
    features, delays = [], []
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
        lines = csv.reader(io.TextIOWrapper(file, "utf-8"))
        names = next(lines)
        month, delay, distance, hour = (names.index(n) for n in ("month", "arr_delay", "distance", "hour"))
        for row in itertools.islice(lines, rank, None, size):
            if row[delay] not in ("", "NA"):
                features.append(
                    (1.0, (float(row[hour]) - 13) / 5, float(row[distance]) / 1000 - 1, (float(row[month]) - 6.5) / 3.5)
                )
                delays.append(min(float(row[delay]), 180.0))
    return features, delays
