"""The demo's serving graph: examples/flights/graph.py is deployed, a real day's departures are replayed at it as an airport sees them."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import demo_deploy


def seen_at_the_gate(day: tuple[int, int], data_file: Callable[[str], str]) -> list[tuple[dict[str, object], float]]:
    """Origin, hour, tail number and distance of that day's departures, and how late they left in minutes."""
    with zipfile.ZipFile(data_file("flights.csv.zip")) as archive:
        rows = csv.DictReader(io.StringIO(archive.read(archive.namelist()[0]).decode()))
        out: list[tuple[dict[str, object], float]] = []
        for row in rows:
            left = row["dep_delay"] not in ("", "NA")  # a cancelled flight did not leave
            if (int(row["month"]), int(row["day"])) == day and left:
                names = ("origin", "time_hour", "tailnum")
                known: dict[str, object] = {name: row[name] for name in names if row[name] not in ("", "NA")}
                known["distance"] = float(row["distance"])
                out.append((known, float(row["dep_delay"])))
    return out


def deploy(
    metier: str, environment: Mapping[str, str], flights: Path, data_file: Callable[[str], str]
) -> tuple[str, str, str, str, str]:
    """One row of the demo's table."""
    print("── graph.py as kind serving", flush=True)
    began = time.monotonic()
    departures = "departures=store://datasets/default/prepare_departures"
    quick = [metier, "run", f"{flights}/flights.py:train", "--kind", "job", "-i", departures]
    quick += ["-p", "iterations=8", "--name", "quick"]
    subprocess.run(quick, env=dict(environment), capture_output=True, check=True)
    code = Path(environment["METIER_DATA"]) / "graph"  # the example, with its native steps beside it
    code.mkdir(exist_ok=True)
    shutil.copy(flights / "graph.py", code)
    build = [metier, "build", str(flights / "enrich.cc"), "-o", str(code / "enrich.so")]
    subprocess.run(build, env=dict(environment), check=True)
    command = [metier, "deploy", str(code / "graph.py"), "--kind", "serving", "--name", "graph"]
    command += ["-e", f"MODEL={demo_deploy.model_file(metier, environment, 'train_delay')}"]
    command += ["-e", f"MODEL_QUICK={demo_deploy.model_file(metier, environment, 'quick_delay')}"]
    command += ["-e", f"FLIGHTS_DATA={Path(data_file('weather.csv')).parent}", *demo_deploy.ONE_THREAD]
    done = subprocess.run(command, env=dict(environment), stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        return "graph.py", "serving", f"exit {done.returncode}", f"{time.monotonic() - began:.2f}", ""
    url = done.stdout.strip().splitlines()[-1]
    day = seen_at_the_gate(demo_deploy.DAY, data_file)
    demo_deploy.replay(url, day[:20])  # type: ignore[arg-type]  # the first calls import what the models need
    answers, latencies, seconds = demo_deploy.replay(url, day)  # type: ignore[arg-type]
    drawn = Path(environment["METIER_DATA"]) / "graph.svg"
    draw = "import sys; sys.path[:0] = sys.argv[1:3]; import graph; graph.graph.plot(sys.argv[3])"
    folders = [str(Path(metier).parent / "serving"), str(code)]
    subprocess.run([environment["METIER_PYTHON"], "-c", draw, *folders, str(drawn)], check=True)
    right = sum(said == was for _, said, was in answers) / len(answers)
    p50, p99 = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
    print(
        f"   parse, enrich (native) → 2 models, vote → answer: {len(answers) / seconds:.0f}/s, p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms; drawn: {drawn}"
    )
    return "graph.py", "serving", "ready", f"{time.monotonic() - began:.2f}", f"late or not: {right:.0%} right"
