"""W3C trace context through a processor, and its spans in a file and at a collector."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path
from typing import Any

from processors import until


def spans_of(path: Path) -> list[dict[str, Any]]:
    """Spans that a file exporter has written, each with its attributes as a dict."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        for resource_spans in json.loads(line)["resourceSpans"]:
            for scope in resource_spans["scopeSpans"]:
                for span in scope["spans"]:
                    values = {a["key"]: next(iter(a["value"].values())) for a in span["attributes"]}
                    found.append({**span, "attributes": values})
    return found


TRACED = """
def handler(context, event):
    if event.path == "/raise":
        raise ValueError("no")
    return event.headers["Traceparent"]
"""


def test_spans_are_exported_when_asked_for(make: Any, tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    f = make.start(TRACED, environment={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"file://{file}"}).wait_ready()
    trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    given = f.call("/a", b"x", headers={"traceparent": f"00-{trace}-{caller}-01"}).text
    assert given.startswith(f"00-{trace}-") and caller not in given and given.endswith("-01")
    own = f.call("/b").text  # nobody's child: a trace of its own
    assert len(own) == 55 and trace not in own
    assert f.call("/raise").status == 500
    assert f.call("/c", headers={"traceparent": f"00-{trace}-{caller}-00"}).text.endswith("-00")
    assert f.call("/d", headers={"traceparent": "00-" + "0" * 32 + f"-{caller}-01"}).text.endswith("-01")
    until(lambda: len(spans_of(file)) >= 4, what="the spans")
    spans = {span["attributes"]["url.path"]: span for span in spans_of(file)}
    assert set(spans) == {"/a", "/b", "/raise", "/d"}, "what its caller does not sample is not exported"
    assert (spans["/a"]["traceId"], spans["/a"]["parentSpanId"]) == (trace, caller)
    assert spans["/a"]["spanId"] == given.split("-")[2] and spans["/a"]["name"] == "POST f"
    assert "parentSpanId" not in spans["/b"] and spans["/b"]["traceId"] == own.split("-")[1]
    assert int(spans["/a"]["startTimeUnixNano"]) < int(spans["/a"]["endTimeUnixNano"])
    assert spans["/a"]["status"]["code"] == 0 and spans["/raise"]["status"]["code"] == 2
    assert spans["/raise"]["attributes"]["http.response.status_code"] == "500"


def test_spans_go_to_a_collector(make: Any) -> None:
    got: list[tuple[str, dict[str, Any]]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, json.loads(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        f = make.start(TRACED, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}).wait_ready()
        assert f.call("/%ff").status == 200
        until(lambda: got, what="the collector")
        path, document = got[0]
        assert path == "/v1/traces"
        assert document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] == "GET f"
    finally:
        server.shutdown()
        server.server_close()
    assert f.call("/").status == 200  # a collector that is away is nobody's failure
    until(lambda: f.metric("metier_processor_spans_dropped_total") >= 1, what="the count of lost spans")


def test_a_wrong_exporter_is_said(make: Any) -> None:
    for name, value, says in [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317", "is no address of a collector"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "is not spoken here"),
    ]:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", name: value}
        f = make.start(TRACED, environment=environment)
        assert f.process.wait(180) == 2
        assert name in f.log() and says in f.log()
