"""Submitting to a server: a small one in this process, over TCP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import metier
import metier.client
import pytest


class Server:
    """Keeps what was submitted; every run ends in `state` at once."""

    def __init__(self) -> None:
        self.state = "completed"
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.run: dict[str, Any] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "null")
                outer.requests.append(("POST", self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                if self.path.startswith("/api/v1/submit_job"):
                    if body["function"]["spec"].get("image") == "never":
                        detail = {"reason": "needs 64 GiB", "field": "spec", "fix": "ask for less", "kind": "exhausted"}
                        self.answer(400, {"detail": {**detail, "code": "NeverFits"}})
                        return
                    outer.run = body["task"]
                    self.answer(200, {"data": body["task"]})
                else:
                    self.answer(200, {"hash_key": "abc"})

            def do_GET(self) -> None:
                outer.requests.append(("GET", self.path, {}, None))
                outer.run["status"] = {
                    "state": outer.state,
                    "results": {"x": 1},
                    "error": "boom",
                    "reason": "HandlerError",
                }
                if "/logs/" in self.path:
                    data = b"hello\n" if "offset=0" in self.path else b""
                    self.answer(200, data, {"x-mlrun-run-state": outer.state})
                elif "/functions/" in self.path:
                    self.answer(200, {"func": {"kind": "job", "metadata": {"name": "f"}, "spec": {}}})
                else:
                    self.answer(200, {"data": outer.run})

            def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    monkeypatch.setenv("METIER_SERVER", made.url)
    monkeypatch.setenv("METIER_TOKEN", "secret")
    monkeypatch.setattr(metier.client, "_default", None)
    yield made
    made.close()


def test_a_job_is_submitted_with_its_function_and_followed(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    fn = metier.new_function("f", project="p", kind="job", image="i", command="a.py").set_env("A", 1)
    run = fn.run(handler="go", params={"lr": 0.1}, labels={"team": "a"})
    assert run.state() == "completed"
    assert run.outputs == {"x": 1}
    assert capsys.readouterr().out == "hello\n"
    _, path, headers, body = server.requests[0]
    assert path == "/api/v1/submit_job"
    assert headers["authorization"] == "Bearer secret"
    assert headers["x-metier-python"]
    assert body["function"]["spec"]["env"] == [{"name": "A", "value": "1"}]
    assert body["task"]["spec"] == {"parameters": {"lr": 0.1}, "handler": "go"}
    assert body["task"]["metadata"]["name"] == "f-go"
    assert body["task"]["metadata"]["labels"]["team"] == "a"
    assert body["task"]["metadata"]["labels"]["kind"] == "job"


def test_the_working_folder_of_a_run_goes_with_its_function(server: Server) -> None:
    fn = metier.new_function("f", project="p", kind="job", image="i", command="a.py")
    fn.run(handler="go", workdir="/w")
    assert server.requests[0][3]["function"]["spec"]["workdir"] == "/w"
    assert not fn.spec.workdir


def test_a_failed_job_raises_and_keeps_the_run(server: Server) -> None:
    server.state = "error"
    with pytest.raises(metier.UserCodeError) as caught:
        metier.new_function("f", kind="job", image="i").run(handler="go")
    assert caught.value.reason == "HandlerError"
    assert caught.value.run.status["state"] == "error"
    assert metier.new_function("f", kind="job", image="i").run(handler="go", watch=False).state() == "error"


def test_what_the_server_refuses_is_an_exception_with_its_fix(server: Server) -> None:
    with pytest.raises(metier.ExhaustedError) as caught:
        metier.new_function("f", kind="job", image="never").run(handler="go")
    assert (caught.value.reason, caught.value.fix) == ("NeverFits", "ask for less")


def test_functions_are_stored_and_fetched(server: Server) -> None:
    fn = metier.new_function("f", project="p", kind="job", image="i")
    assert fn.save(tag="v1") == "abc"
    assert fn.uri == "p/f@abc"
    assert metier.import_function("db://p/f:v1", new_name="g").name == "g"
    assert server.requests[-1][1] == "/api/v1/projects/p/functions/f?tag=v1"
