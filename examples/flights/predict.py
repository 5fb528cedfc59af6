"""Will this flight be late? The model that flights.py trained, behind a URL.

    metier deploy predict.py -e MODEL=/path/of/delay.pkl
    metier invoke predict -d '{"month": 1, "hour": 18, "distance": 1400, "seats": 149, "plane_age": 12}'

An unchanged Nuclio function: `init_context` once in each worker, `handler` for each event. One flight, or a list of them.
"""

import json
import os
import pickle

import numpy as np

FEATURES = ["month", "hour", "distance", "seats", "temp", "wind_speed", "precip", "visib", "plane_age"]
LATE = 15  # minutes; what the FAA counts as late


def init_context(context):
    with open(os.environ["MODEL"], "rb") as file:
        context.user_data.model = pickle.load(file)
    context.logger.info_with("model loaded", path=os.environ["MODEL"])


def handler(context, event):
    asked = event.body if isinstance(event.body, (dict, list)) else json.loads(event.body)
    flights = asked if isinstance(asked, list) else [asked]
    unknown = sorted({key for flight in flights for key in flight} - set(FEATURES))
    if unknown:
        return context.Response(
            body=json.dumps({"error": f"unknown: {', '.join(unknown)}", "known": FEATURES}),
            content_type="application/json",
            status_code=400,
        )
    rows = [[float(flight.get(name, "nan")) for name in FEATURES] for flight in flights]
    minutes = context.user_data.model.predict(np.array(rows))
    answers = [{"delay_minutes": round(float(m), 1), "late": bool(m > LATE)} for m in minutes]
    return answers if isinstance(asked, list) else answers[0]
