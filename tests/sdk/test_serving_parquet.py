"""ParquetTarget with the real pyarrow: what is written is read back and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.serving import use_built

use_built()
pq = pytest.importorskip("pyarrow.parquet")
from metier_serving import Flow, GraphServer, create_graph_server  # noqa: E402

Serve = Callable[..., GraphServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """serve(path, **arguments of the target): a server with one ParquetTarget that answers what it was given."""
    servers: list[GraphServer] = []

    def make(path: Path, **arguments: Any) -> GraphServer:
        graph = Flow(engine="async")
        graph.to("storey.ParquetTarget", "w", path=str(path), **arguments).respond()
        server = create_graph_server(graph=graph, current_function="*")
        server.init_states(is_mock=True)
        server.init_object()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.close()


def test_rows_of_every_type_come_back_from_one_file(serve: Serve, tmp_path: Path) -> None:
    server = serve(
        tmp_path / "in" / "a" / "folder.parquet",
        index_cols="id",
        columns=["x", "text", "on", "list", "key=$key"],
        max_events=3,
    )
    rows = [
        {"id": i, "x": i / 4, "text": None if i == 2 else f"é{i}", "on": i % 2 == 0, "list": [i, i + 1]}
        for i in range(8)
    ]
    for row in rows:
        assert server.test(body={**row, "left out": 1}) == {**row, "left out": 1}
    server.wait_for_completion()
    path = tmp_path / "in" / "a" / "folder.parquet"
    assert pq.read_table(path).to_pylist() == [{**row, "key": ""} for row in rows]
    assert pq.ParquetFile(path).num_row_groups == 3  # 3, 3, and 2 at the end


def test_partitions_are_folders_by_columns_and_time(serve: Serve, tmp_path: Path) -> None:
    server = serve(tmp_path / "many", partition_cols=["k", "$year"], max_events=4)
    for index in range(10):
        server.test(body={"x": index, "k": index % 2}, time=f"202{index % 2 + 5}-01-02T03:04:05Z")
    server.wait_for_completion()
    rows = pq.read_table(tmp_path / "many").to_pylist()
    assert sorted((row["x"], int(row["k"]), int(row["year"])) for row in rows) == [
        (i, i % 2, 2025 + i % 2) for i in range(10)
    ]
    assert sorted(p.name for p in (tmp_path / "many").iterdir()) == ["k=0", "k=1"]


@pytest.mark.parametrize("name", ["one.parquet", "many"])
def test_a_row_of_another_type_is_refused_and_the_others_are_written(serve: Serve, tmp_path: Path, name: str) -> None:
    server = serve(tmp_path / name, max_events=2)
    bodies = [{"x": 1, "y": None}, {"x": 2, "y": None}, {"x": 3, "y": 0.5}, {"x": "four", "y": 1}, {"x": 5, "y": "t"}]
    answers = [server.test(body=body, silent=True, get_body=False) for body in bodies]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 400, 200]
    assert "column 'x' has the type int64 of its first rows, 'four' does not fit" in answers[3].body
    # A row that another event's write finds unfit is told in the log; the event that came with it goes on.
    for body in ({"x": 7, "z": "unknown columns are left out"}, {"x": [6], "y": None}, {"x": 8}):
        assert server.test(body=body) == body
    server.wait_for_completion()
    rows = pq.read_table(tmp_path / name).to_pylist()
    assert sorted(rows, key=lambda row: row["x"]) == [
        {"x": 1, "y": None}, {"x": 2, "y": None}, {"x": 3, "y": "0.5"}, {"x": 5, "y": "t"}, {"x": 7, "y": None}, {"x": 8, "y": None},
    ]  # fmt: skip


def test_first_rows_of_two_types_keep_the_first(serve: Serve, tmp_path: Path) -> None:
    server = serve(tmp_path / "one.parquet", max_events=10)
    for body in ({"x": 1}, {"x": "two"}, {"x": 3}):
        server.test(body=body)
    server.wait_for_completion()
    assert pq.read_table(tmp_path / "one.parquet").to_pylist() == [{"x": 1}, {"x": 3}]


@pytest.mark.parametrize("name", ["taken/one.parquet", "taken"])
def test_a_folder_that_is_none_fails_the_event(serve: Serve, tmp_path: Path, name: str) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    server = serve(tmp_path / name, max_events=2, flush_after_seconds=None)
    assert server.test(body={"x": 0}) == {"x": 0}
    for _ in range(3):
        answer = server.test(body={"x": 1}, silent=True, get_body=False)
        assert answer.status_code == 400 and "taken" in answer.body
    (tmp_path / "taken").unlink()
    server.test(body={"x": 2})
    server.wait_for_completion()
    assert sorted(row["x"] for row in pq.read_table(tmp_path / name).to_pylist()) == [0, 2]
