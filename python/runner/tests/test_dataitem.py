from __future__ import annotations

import http.server
import threading

import pytest

from metier_runner.dataitem import DataItem, parse_store_url
from metier_runner.errors import InvalidArgument, NotFound, RunnerError


def test_files_are_read_written_and_listed(tmp_path):
    item = DataItem.of(str(tmp_path / "d/x.txt"), key="k")
    item.put("hello")
    item.put(b"!", append=True)
    assert item.get() == b"hello!" and item.get(2, 1) == b"el" and item.get(encoding="utf-8") == "hello!"
    assert (item.key, item.suffix, item.kind, item.url) == ("k", ".txt", "file", str(tmp_path / "d/x.txt"))
    assert item.stat().size == 6 and item.stat().content_type == "text/plain" and item.local() == item.url
    assert DataItem.of(str(tmp_path / "d")).listdir() == ["x.txt"] == DataItem.of(f"file://{tmp_path}/d").ls()
    with item.open() as stream:
        assert stream.read() == b"hello!"
    item.download(str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b"hello!"
    item.delete()
    with pytest.raises(NotFound, match=r"x\.txt"):
        item.get()


def test_memory_items_hold_objects():
    item = DataItem.of("memory://a/b")
    with pytest.raises(NotFound):
        item.get()
    item.put("text")
    assert item.get(2) == b"te" and DataItem.of("memory://a").listdir() == ["b"] and item.stat().size == 4
    local = item.local()
    assert open(local).read() == "text"
    item.remove_local()
    item.delete()


@pytest.mark.parametrize("url", ["nosuch://x/y", "gopher://x", "", "a b://x"])
def test_unknown_schemes_are_value_errors(url):
    with pytest.raises(ValueError):
        DataItem.of(url)


def test_drive_letters_are_paths():
    assert DataItem.of("c://x").kind == "file"


def test_other_schemes_go_through_fsspec(tmp_path):
    pytest.importorskip("fsspec")
    (tmp_path / "f").write_text("1")
    item = DataItem.of(f"local://{tmp_path}/f")
    assert item.get() == b"1" and item.stat().size == 1 and item.kind == "local"
    item.put("22")
    item.download(str(tmp_path / "g"))
    assert (tmp_path / "g").read_text() == "22"


def test_a_missing_driver_is_named():
    with pytest.raises(ValueError, match="s3"):
        DataItem.of("s3://bucket/key")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("store://models/p/k#2:v1@t^u", ("models", "p", "k", 2, "v1", "t", "u")),
        ("store://p/a/b", ("artifacts", "p", "a/b", 0, "", "", "")),
        ("store://p/k@tree", ("artifacts", "p", "k", 0, "", "tree", "")),
        ("store://datasets/k", ("datasets", "dflt", "k", 0, "", "", "")),
    ],
)
def test_store_addresses(url, expected):
    parts = parse_store_url(url, "dflt")
    assert tuple(parts[name] for name in ("kind", "project", "key", "iter", "tag", "tree", "uid")) == expected


@pytest.mark.parametrize("url", ["store://", "store://p/k#x"])
def test_wrong_store_addresses(url):
    with pytest.raises(InvalidArgument):
        parse_store_url(url)


def test_a_store_address_needs_a_server():
    with pytest.raises(InvalidArgument, match="METIER_SERVER"):
        DataItem.of("store://p/k")


@pytest.fixture
def web():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if "none" in self.path:
                self.send_error(404)
                return
            short = "short" in self.path
            self.send_response(200)
            self.send_header("Content-Length", "100" if short else "10")
            self.send_header("Content-Type", "text/csv; charset=utf-8")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"0123456789")

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_web_addresses(web, tmp_path):
    item = DataItem.of(f"{web}/a.csv")
    assert item.get() == b"0123456789" and item.get(3, 2) == b"234" and item.kind == "http" and item.suffix == ".csv"
    assert item.stat().size == 10 and item.stat().content_type == "text/csv"
    with open(item.local(), "rb") as stream:
        assert stream.read() == b"0123456789"
    item.remove_local()
    with pytest.raises(NotFound, match="404"):
        DataItem.of(f"{web}/none").get()
    with pytest.raises(RunnerError, match="ended after 10 of 100"):
        DataItem.of(f"{web}/short").download(str(tmp_path / "x"))
    with pytest.raises(InvalidArgument):
        item.put("x")
    with pytest.raises(InvalidArgument):
        DataItem.of(f"{web}/a\r\nX: y").get()


def test_credentials_never_show_in_messages(web):
    with pytest.raises(NotFound) as caught:
        DataItem.of(web.replace("http://", "http://user:secret@") + "/none?token=t").get()
    assert "secret" not in str(caught.value) and "token" not in str(caught.value)


def test_tables(tmp_path):
    pytest.importorskip("pandas")
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "b.json").write_text('[{"x": 1}]')
    (tmp_path / "c.bin").write_text("")
    assert list(DataItem.of("a.csv").as_df(columns=["y"]).y) == [2]
    assert list(DataItem.of("b.json").as_df().x) == [1]
    with pytest.raises(InvalidArgument, match="format="):
        DataItem.of("c.bin").as_df()
