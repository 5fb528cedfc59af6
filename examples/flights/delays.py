"""One question, for every kind: how late do flights arrive, by carrier and month, and what explains it?

Mean arrival delay in minutes and share of flights more than 15 minutes late, by carrier and month; and a linear model
of the arrival delay by least squares. Here with pandas (kind job); delays_spark.py asks Spark the same.

    metier run delays.py:delays --kind job -i flights=flights.csv.zip
"""

LATE = 15  # minutes
FEATURES = ["dep_delay", "distance", "hour"]
COLUMNS = ["carrier", "month", "arr_delay", *FEATURES]


def delays(context, flights):
    """The question with pandas."""
    import pandas as pd

    table = pd.read_csv(flights.local(), usecols=COLUMNS).dropna(subset=["arr_delay", "dep_delay"])
    table["late"] = (table["arr_delay"] > LATE).astype(float)
    groups = table.groupby(["carrier", "month"], as_index=False).agg(
        flights=("arr_delay", "size"), mean_delay=("arr_delay", "mean"), late_share=("late", "mean")
    )
    rows = table[FEATURES].assign(one=1.0)[["one", *FEATURES]].to_numpy(dtype=float)
    answer(context, groups, rows.T @ rows, rows.T @ table["arr_delay"].to_numpy(dtype=float))


def answer(context, groups, squares, products):
    """Keeps what every kind must find: the groups, and the model that solves the normal equations."""
    import numpy as np

    groups = groups.sort_values(["carrier", "month"]).reset_index(drop=True)
    worst = groups.sort_values(["mean_delay", "carrier"], ascending=[False, True]).iloc[0]
    coefficients = np.linalg.solve(np.asarray(squares, dtype=float), np.asarray(products, dtype=float))
    context.log_results(
        {
            "flights": int(groups["flights"].sum()),
            "groups": len(groups),
            "worst": f"{worst['carrier']} in month {int(worst['month'])}",
            "worst_minutes": round(float(worst["mean_delay"]), 3),
            "late_share": round(float((groups["late_share"] * groups["flights"]).sum() / groups["flights"].sum()), 6),
            **{name: round(float(value), 6) for name, value in zip(["intercept", *FEATURES], coefficients)},
        }
    )
    context.log_dataset("delays", df=groups, format="csv")
