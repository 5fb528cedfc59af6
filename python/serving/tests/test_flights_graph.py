"""examples/flights/graph.py: its native steps and their Python forms say the same, and the whole graph answers."""

from __future__ import annotations

import importlib.util
import pickle
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "flights"
WEATHER = """origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour
JFK,2013,7,10,18,80.06,70,71,180,14.96014,NA,0,1010,10,2013-07-10T22:00:00Z
EWR,2013,7,10,18,NA,70,71,180,12,NA,0.25,1010,1e1,2013-07-10T22:00:00Z
"""
PLANES = """tailnum,year,type,manufacturer,model,engines,seats,speed,engine
N14228,1999,Fixed wing multi engine,BOEING,737-824,2,149,NA,Turbo-fan
N1,NA,Fixed wing single engine,CESSNA,150,1,2,90,Reciprocating
"""
WHEN = "2013-07-10T22:00:00Z"
FLIGHTS: list[Any] = [
    {"origin": "JFK", "time_hour": WHEN, "tailnum": "N14228", "distance": 1400},
    {"origin": "EWR", "time_hour": WHEN, "tailnum": "N1", "distance": 1.5e2},
    {"origin": "JFK", "time_hour": WHEN, "tailnum": "N14228", "temp": -1.25, "seats": 3, "plane_age": 0, "month": 1},
    {"origin": "LGA", "time_hour": "2013-01-01T06:00:00Z"},
    {"distance": 1, "tailnum": 'é " \\ {[,:]}'},
    {"hour": 5, "time_hour": "", "origin": "JFK"},
    {"origin": "JFK", "time_hour": WHEN, "seat": 1, "zz": [1, {"a": "}"}], "from": "x"},  # unknown members
    {"time_hour": "yesterday"},
    {"time_hour": "20"},
    {"time_hour": "2013-02-29T10:00:00Z"},
    {},
    [1],
    # the hours around both changes of the clocks, and a month's and a year's first hours
    *({"time_hour": f"2013-03-10T{hour:02}:00:00Z"} for hour in range(4, 10)),
    *({"time_hour": f"2013-11-03T{hour:02}:00:00Z"} for hour in range(3, 9)),
    *(
        {"time_hour": f"{day}T{hour:02}:00:00Z"}
        for day in ("2013-01-01", "2012-03-01", "2013-08-01")
        for hour in (0, 5)
    ),
    *({"time_hour": f"{year}-{month:02}-15T12:00:00Z"} for year in (2008, 2013, 2024) for month in range(1, 13)),
]


class Mean:
    """A model that knows nothing of scikit-learn."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def predict(self, rows: Any) -> Any:
        return rows[:, 2] * self.factor


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, in a folder with its library, data and models."""
    shutil.copy(EXAMPLE / "graph.py", tmp_path)
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{ROOT / 'include'}"]
    library = str(tmp_path / "enrich.so")
    subprocess.run(
        ["g++", "-Wall", "-Wextra", "-Werror", *flags, str(EXAMPLE / "enrich.cc"), "-o", library], check=True
    )
    (tmp_path / "weather.csv").write_text(WEATHER)
    (tmp_path / "planes.csv").write_text(PLANES)
    for name, factor in (("delay", 0.1), ("quick", 0.2)):
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(Mean(factor)))
    monkeypatch.setenv("FLIGHTS_DATA", str(tmp_path))
    monkeypatch.setenv("MODEL", str(tmp_path / "delay.pkl"))
    monkeypatch.setenv("MODEL_QUICK", str(tmp_path / "quick.pkl"))
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("flights_graph", tmp_path / "graph.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_native_steps_and_their_python_forms_say_the_same(serve: Any, example: ModuleType) -> None:
    answers = []
    for native in (True, False):
        graph = example.make(native)
        graph["enrich"].respond()
        graph["answer"].responder = None
        server = serve(graph, vars(example))
        said = []
        for flight in FLIGHTS:
            answer = server.test(body=flight if flight else "{}", silent=True)
            said.append((answer.status_code, answer.body) if hasattr(answer, "status_code") else answer)
        answers.append(said)
    for flight, native, python in zip(FLIGHTS, *answers):
        assert native == python, flight
    known = {"temp": 80.06, "wind_speed": 14.96014, "precip": 0.0, "visib": 10.0, "seats": 149.0, "plane_age": 14.0}
    assert answers[0][0] == {**FLIGHTS[0], **known, "month": 7, "hour": 18}
    assert answers[0][1]["visib"] == 10.0 and "temp" not in answers[0][1] and "plane_age" not in answers[0][1]
    assert answers[0][6][0] == 400 and "unknown: from, seat, zz; known: origin, time_hour, tailnum" in answers[0][6][1]
    assert "time_hour yesterday is no time; write it as" in answers[0][7][1]


@pytest.mark.parametrize("native", [True, False])
def test_the_vote_of_both_models_is_answered(serve: Any, example: ModuleType, native: bool) -> None:
    pytest.importorskip("numpy")
    server = serve(example.make(native), vars(example))
    assert server.test(body=FLIGHTS[0]) == {"delay_minutes": 182.0, "late": True}  # 0.7 of 140 and 0.3 of 280
    assert server.test(body={"distance": 10}) == {"delay_minutes": 1.3, "late": False}
    wrong = server.test(body={"far": 1}, silent=True, get_body=False)
    assert (wrong.status_code, wrong.content_type) == (400, "application/json")
    assert '"step": "parse"' in wrong.body
