"""The demo's real-time part: examples/flights/predict.py is deployed and a real day's departures are replayed at it."""

from __future__ import annotations

import csv
import http.client
import io
import json
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

DAY = (7, 10)  # one of the worst of 2013
CONNECTIONS = 4
# One flight is too little work to share: threads that wait for each other took 20 times as long on a busy machine.
ONE_THREAD = ["-e", "OMP_NUM_THREADS=1"]


def departures_of(day: tuple[int, int], data_file: Callable[[str], str]) -> list[tuple[dict[str, float], float]]:
    """What was known before each departure of that day, and how late it left in minutes."""

    def rows(name: str) -> csv.DictReader[str]:
        path = Path(data_file(name))
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                return csv.DictReader(io.StringIO(archive.read(archive.namelist()[0]).decode()))
        return csv.DictReader(io.StringIO(path.read_text()))

    def number(text: str | None) -> float | None:
        try:
            return float(text or "")
        except ValueError:
            return None

    weather = {(r["origin"], r["time_hour"]): r for r in rows("weather.csv")}
    planes = {r["tailnum"]: r for r in rows("planes.csv")}
    out = []
    for row in rows("flights.csv.zip"):
        late = number(row["dep_delay"])
        if (int(row["month"]), int(row["day"])) != day or late is None:
            continue
        sky = weather.get((row["origin"], row["time_hour"]), {})
        plane = planes.get(row["tailnum"], {})
        built = number(plane.get("year"))
        known = {
            "month": number(row["month"]),
            "hour": number(row["hour"]),
            "distance": number(row["distance"]),
            "seats": number(plane.get("seats")),
            "plane_age": None if built is None else 2013 - built,
            **{key: number(sky.get(key)) for key in ("temp", "wind_speed", "precip", "visib")},
        }
        out.append(({key: value for key, value in known.items() if value is not None}, late))
    return out


def replay(
    url: str, flights: list[tuple[dict[str, float], float]]
) -> tuple[list[tuple[float, bool, bool]], list[float], float]:
    """Asks for every flight over a few connections: (predicted minutes, said late, was late), latencies, seconds."""
    host, port = url.removeprefix("http://").rsplit(":", 1)
    answers: list[tuple[float, bool, bool]] = []
    latencies: list[float] = []
    failures: list[str] = []
    lock = threading.Lock()

    def ask(part: list[tuple[dict[str, float], float]]) -> None:
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        for flight, late in part:
            began = time.monotonic()
            connection.request("POST", "/", json.dumps(flight), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
            took = time.monotonic() - began
            with lock:
                latencies.append(took)
                if answer.status != 200:
                    failures.append(f"{answer.status} {body[:200]!r}")
                    continue
                said = json.loads(body)
                answers.append((said["delay_minutes"], said["late"], late > 15))
        connection.close()

    threads = [threading.Thread(target=ask, args=(flights[i::CONNECTIONS],)) for i in range(CONNECTIONS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"error: {len(failures)} of {len(flights)} requests failed: {failures[0]}")
    return answers, sorted(latencies), time.monotonic() - began


def model_file(metier: str, environment: Mapping[str, str], name: str) -> str:
    """Where a model of the demo lies."""
    command = [metier, "get", "artifacts", "-o", "json"]
    text = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=True).stdout
    for item in json.loads(text).get("artifacts", []):
        if item["spec"].get("db_key") != name:
            continue
        path = Path(item["spec"]["target_path"].removeprefix("file://"))
        return str(path / item["spec"]["model_file"] if path.is_dir() else path)
    raise SystemExit(f"error: the demo's model {name} is not there")


def deploy(
    metier: str, environment: Mapping[str, str], example: Path, data_file: Callable[[str], str]
) -> tuple[str, str, str, str, str]:
    """One row of the demo's table."""
    print("── predict.py as kind nuclio", flush=True)
    began = time.monotonic()
    done = subprocess.run(
        [
            metier,
            "deploy",
            str(example),
            "--name",
            "predict",
            "-e",
            f"MODEL={model_file(metier, environment, 'train_delay')}",
            *ONE_THREAD,
        ],
        env=dict(environment),
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        return "predict.py", "nuclio", f"exit {done.returncode}", f"{time.monotonic() - began:.2f}", ""
    flights = departures_of(DAY, data_file)
    url = done.stdout.strip()
    replay(url, flights[:20])  # the first calls import what the handler needs
    answers, latencies, seconds = replay(url, flights)
    for (flight, late), _ in zip(flights[:3], range(3)):
        said = subprocess.run(
            [metier, "invoke", "predict", "-d", json.dumps(flight)],
            env=dict(environment),
            capture_output=True,
            text=True,
        )
        print(f"   {flight['distance']:.0f} miles at {flight['hour']:.0f} h: {said.stdout.strip()}, was {late:.0f} min")
    right = sum(said == was for _, said, was in answers) / len(answers)
    rate, p50, p99 = len(answers) / seconds, latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
    print(
        f"   {len(answers)} departures of {DAY[1]}.{DAY[0]}.2013: {rate:.0f}/s, p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"
    )
    return "predict.py", "nuclio", "ready", f"{time.monotonic() - began:.2f}", f"late or not: {right:.0%} right"
