"""Dask's own pages through the server and `metier ui`: with the user's token only, a WebSocket's frames too."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.gang import wait_for
from support.server import BINARY, Server

pytest.importorskip("distributed")

CODE = """
import time

def steady(context):
    client = context.dask_client
    client.wait_for_workers(1)
    print("connected", flush=True)
    while True:
        client.gather(client.map(lambda x: x, range(5), pure=False))
        time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def run(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A run that goes on, and its uid."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "pages.py").write_text(CODE)
    done = server.metier("run", "pages.py:steady", "--kind", "dask", "--replicas", "1", "--detach", "-q", cwd=folder)
    assert done.returncode == 0, done.stderr
    uid = done.stdout.split()[-1]
    wait_for(lambda: "connected" in server.metier("logs", uid).stdout)
    wait_for(lambda: server.call("GET", base(uid)).json()["pages"])  # its cluster says so a little later
    yield uid
    server.metier("abort", uid)


def base(uid: str) -> str:
    return f"/api/metier/v1/projects/default/runs/{uid}/ui"


def test_the_pages_of_a_run_are_listed_and_served(server: Server, run: str) -> None:
    [page] = server.call("GET", base(run)).json()["pages"]
    assert page["name"] == "dask" and page["live"] and page["path"] == f"{base(run)}/dask/"
    assert server.call("GET", page["path"] + "health").body == b"ok"
    info = server.call("GET", page["path"] + "info/main/workers.html")
    assert info.status == 200 and b"127." in info.body
    assert server.call("GET", page["path"] + "json/counts.json").json()["workers"] == 1
    away = server.call("GET", f"{base(run)}/dask")
    assert away.status == 302 and away.headers["location"] == page["path"]
    status = server.call("GET", page["path"] + "status")
    assert status.status == 200
    if b"bokeh" in status.body.lower():
        script = re.search(rb'src="(statics?/js/bokeh[^"]*)"', status.body)
        assert script is not None, "the dashboard loads no script of its own"
        loaded = server.call("GET", page["path"] + script.group(1).decode())
        assert loaded.status == 200 and len(loaded.body) > 10_000


def test_the_cluster_of_a_function_has_the_same_page(server: Server, run: str) -> None:
    [page] = server.call("GET", "/api/metier/v1/projects/default/functions/pages/ui").json()["pages"]
    assert server.call("GET", page["path"] + "health").body == b"ok"


def test_nothing_is_open(server: Server, run: str) -> None:
    assert server.call("GET", f"{base(run)}/dask/health", token="").status == 401
    assert server.call("GET", f"{base(run)}/dask/health", token="wrong").status == 401
    assert server.call("GET", f"{base(run)}/other/").status == 404
    assert server.call("GET", f"/api/metier/v1/projects/default/runs/{'0' * 32}/ui").status == 404
    # Reading only: nobody retires workers from a browser.
    assert server.call("POST", f"{base(run)}/dask/api/v1/retire_workers", {"n": 1}).status in (404, 405)


def websocket(address: tuple[str, int], target: str, headers: dict[str, str]) -> tuple[str, bytes]:
    """The answer's head and the first frame's beginning."""
    with socket.create_connection(address, timeout=30) as peer:
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: {address[0]}:{address[1]}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        peer.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        said = b""
        while b"\r\n\r\n" not in said and (more := peer.recv(4096)):
            said += more
        head, _, rest = said.partition(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 101") and len(rest) < 4 and (more := peer.recv(4096)):
            rest += more
        return head.decode(), rest


def test_a_websocket_carries_the_events_of_tasks(server: Server, run: str) -> None:
    parts = urlsplit(server.url)
    address = (parts.hostname or "", parts.port or 0)
    head, frame = websocket(address, f"{base(run)}/dask/eventstream", {"Authorization": f"Bearer {server.token}"})
    assert head.startswith("HTTP/1.1 101"), head
    assert frame[0] & 0x0F in (1, 2), "a frame of text or bytes"
    refused, _ = websocket(address, f"{base(run)}/dask/eventstream", {})
    assert refused.startswith("HTTP/1.1 401"), refused


def get(address: str, target: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", target, headers=headers or {})
    answer = connection.getresponse()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def test_metier_ui_lets_a_browser_in_with_the_key_of_its_address(server: Server, run: str) -> None:
    viewer = subprocess.Popen(
        [BINARY, "ui", run], env=server.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert viewer.stdout is not None
        lines = [viewer.stdout.readline(), viewer.stdout.readline()]
        assert "Dask" in lines[0], lines
        url = urlsplit(lines[1].strip())
        address, first = url.netloc, f"{url.path}?{url.query}"
        assert address.startswith("127.0.0.1:")
        status, headers, _ = get(address, first)
        assert status == 303 and headers["location"] == f"{base(run)}/dask/"
        assert "HttpOnly" in headers["set-cookie"] and "SameSite=Strict" in headers["set-cookie"]
        cookie = {"Cookie": headers["set-cookie"].split(";")[0]}
        assert get(address, f"{base(run)}/dask/health", cookie)[2] == b"ok"
        host, port = address.split(":")
        head, _ = websocket((host, int(port)), f"{base(run)}/dask/eventstream", cookie)
        assert head.startswith("HTTP/1.1 101"), head
        assert get(address, f"{base(run)}/dask/health")[0] == 403
        assert get(address, first.replace("key=", "key=0"))[0] == 403
        assert get(address, "/api/v1/projects", cookie)[0] == 404, "only the page, not the API"
        assert get(address, f"{base(run)}/dask/health", {**cookie, "Host": "evil.example"})[0] == 403
        viewer.send_signal(signal.SIGINT)
        assert viewer.wait(20) == 0
    finally:
        viewer.kill()
        viewer.wait()


def test_what_has_no_pages_says_so(server: Server, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("def plain(context):\n    pass\n")
    done = server.metier("run", "plain.py:plain", "--kind", "job", "-o", "json", cwd=tmp_path)
    uid = json.loads(done.stdout)["metadata"]["uid"]
    said = server.metier("ui", uid)
    assert said.returncode == 3 and "no pages now" in said.stderr
    nobody = server.metier("ui", "nobody-has-this-name")
    assert nobody.returncode == 3 and "no run 'nobody-has-this-name'" in nobody.stderr
    # A function whose cluster has closed is known: the name is not what is wrong.
    function = {"kind": "dask", "metadata": {"name": "closed"}, "spec": {"image": "mlrun/ml-base"}}
    assert server.call("POST", "/api/v1/projects/default/functions/closed", function).status == 200
    closed = server.metier("ui", "closed")
    assert closed.returncode == 3 and "'closed' has no pages now" in closed.stderr, closed.stderr
    assert server.metier("ui", uid, "--port", "0").returncode == 2
