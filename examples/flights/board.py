"""A departures board: flights come through Kafka, a cron tick prints the counts per airport.

    metier deploy -f board.yaml            # topic "departures" at 127.0.0.1:9092, a tick every 10 s
    metier logs -f board

One record is one departure as JSON: {"origin": "JFK", "dest": "LAX", "dep_delay": 3}. The function has one worker for both triggers
(`workerAllocatorName`), so that one memory holds the counts; a tick, or a call over HTTP, answers the board.
"""

import json
from collections import Counter

LATE = 15  # minutes; what the FAA counts as late


def init_context(context):
    context.user_data.departed = Counter()
    context.user_data.late = Counter()


def handler(context, event):
    data = context.user_data
    if event.trigger.kind == "kafka-cluster":
        flight = json.loads(event.body)
        data.departed[flight["origin"]] += 1
        data.late[flight["origin"]] += (flight.get("dep_delay") or 0) > LATE
        return ""
    board = {origin: {"departed": count, "late": data.late[origin]} for origin, count in sorted(data.departed.items())}
    if event.trigger.kind == "cron":
        context.logger.info_with("departures", **{origin: row["departed"] for origin, row in board.items()})
    return board
