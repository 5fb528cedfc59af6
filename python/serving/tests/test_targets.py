from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from metier_serving import Flow, GraphError


def test_rows_are_appended_to_a_csv_file(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "out" / "rows.csv"
    for _ in range(2):  # a second server goes on in the same file
        graph = Flow(engine="async")
        target = graph.to(
            "storey.CSVTarget", "w", path=str(path), columns=["x", "new=y", "$key"], header=True, max_events=2
        )
        target.to(name="out", handler="(event['x'] * 10)").respond()
        server = serve(graph)
        assert [server.test(body={"x": i, "y": f"t,{i}"}) for i in range(3)] == [0, 10, 20]
        server.wait_for_completion()
    rows = list(csv.reader(path.open(newline="")))
    assert rows[0] == ["x", "new", "key"]
    assert rows[1:] == [["0", "t,0", ""], ["1", "t,1", ""], ["2", "t,2", ""]] * 2


def test_what_was_collected_is_written_after_a_while(serve: Any, tmp_path: Path) -> None:
    import time

    path = tmp_path / "rows.csv"
    graph = Flow(engine="async")
    graph.to("storey.CSVTarget", "w", path=str(path), flush_after_seconds=0.05)
    serve(graph).test(body={"a": 1, "b": 2})
    end = time.monotonic() + 10
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert path.read_text().strip() == "1,2"


def test_parquet_as_one_file_and_in_partitions(serve: Any, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    graph = Flow(engine="async")
    graph.to("storey.ParquetTarget", "one", path=str(tmp_path / "one.parquet"), columns=["x"], max_events=2)
    graph.to("storey.ParquetTarget", "many", path=str(tmp_path / "many"), partition_cols=["k", "$year"])
    server = serve(graph)
    for index in range(5):
        server.test(body={"x": index, "k": index % 2}, time="2026-01-02T03:04:05Z")
    server.wait_for_completion()
    assert pq.read_table(tmp_path / "one.parquet").to_pylist() == [{"x": i} for i in range(5)]
    rows = pq.read_table(tmp_path / "many").to_pylist()
    assert sorted(row["x"] for row in rows) == list(range(5)) and {int(row["year"]) for row in rows} == {2026}


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"path": ""}, "must be a file"),
        ({"path": "s3://b/x"}, "of this machine"),
        ({"path": "a", "columns": []}, "columns is empty"),
    ],
)
def test_wrong_targets_are_refused(serve: Any, arguments: dict[str, Any], says: str) -> None:
    graph = Flow(engine="async")
    graph.to("storey.CSVTarget", "w", **arguments)
    with pytest.raises(GraphError, match=says):
        serve(graph)


def test_a_body_that_is_no_row_fails_by_name(serve: Any, tmp_path: Path) -> None:
    graph = Flow(engine="async")
    graph.to("storey.CSVTarget", "w", path=str(tmp_path / "x.csv")).respond()
    answer = serve(graph).test(body=[1], silent=True, get_body=False)
    assert answer.status_code == 400 and "the body must be a dict, not list" in answer.body
