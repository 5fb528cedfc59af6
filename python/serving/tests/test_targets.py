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
    end = time.monotonic() + 60
    while not (path.exists() and path.read_text()) and time.monotonic() < end:
        time.sleep(0.01)
    assert path.read_text().strip() == "1,2"


def test_a_folder_that_cannot_be_written_fails_the_event_and_keeps_the_rows(serve: Any, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    path = tmp_path / "taken" / "rows.csv"
    graph = Flow(engine="async")
    graph.to("storey.CSVTarget", "w", path=str(path), max_events=2, flush_after_seconds=None).respond()
    server = serve(graph)
    assert server.test(body={"x": 0}) == {"x": 0}
    for index in (1, 2, 3):  # each of them would fill the batch: none is kept, so that nothing grows
        answer = server.test(body={"x": index}, silent=True, get_body=False)
        assert answer.status_code == 400 and str(tmp_path / "taken") in answer.body
    (tmp_path / "taken").unlink()
    server.test(body={"x": 4})
    assert path.read_text().split() == ["0", "4"]


def test_a_late_write_that_fails_is_tried_again(serve: Any, tmp_path: Path) -> None:
    import time

    (tmp_path / "taken").write_text("")
    path = tmp_path / "taken" / "rows.csv"
    graph = Flow(engine="async")
    graph.to("storey.CSVTarget", "w", path=str(path), flush_after_seconds=0.02)
    server = serve(graph)
    server.test(body={"x": 7})
    time.sleep(0.1)
    (tmp_path / "taken").unlink()
    end = time.monotonic() + 60
    while not (path.exists() and path.read_text()) and time.monotonic() < end:
        time.sleep(0.01)
    assert path.read_text().split() == ["7"]


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
