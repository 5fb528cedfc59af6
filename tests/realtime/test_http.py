"""The HTTP trigger as a peer meets it: framing, limits, smuggling, slow and idle clients, draining."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import until

ECHO = """
def handler(context, event):
    if event.path == "/info": return {"method": event.method, "body": event.body.decode() if isinstance(event.body, bytes) else event.body, "size": event.size}
    return event.body
"""


@pytest.fixture
def echo(make: Any) -> Any:
    return make(ECHO)


def read_answer(client: socket.socket, rest: bytes = b"") -> tuple[int, dict[str, str], bytes, bytes]:
    """One answer with Content-Length; what came behind it is given back."""
    while b"\r\n\r\n" not in rest:
        part = client.recv(65536)
        assert part, rest
        rest += part
    head, rest = rest.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
    size = int(headers.get("content-length", 0))
    while len(rest) < size:
        part = client.recv(65536)
        assert part
        rest += part
    return int(lines[0].split()[1]), headers, rest[:size], rest[size:]


def post(body: bytes, path: str = "/", extra: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


def test_keep_alive_and_pipelining(echo: Any) -> None:
    with echo.connect() as client:
        for i in range(5):
            client.sendall(post(f"one {i}".encode()))
            assert read_answer(client)[2] == f"one {i}".encode()
        client.sendall(b"".join(post(f"p{i}".encode() * (i * 100 + 1)) for i in range(50)))
        rest = b""
        for i in range(50):
            status, _, body, rest = read_answer(client, rest)
            assert status == 200 and body == f"p{i}".encode() * (i * 100 + 1)
        # Byte by byte, with the next request's first byte behind it.
        for byte in post(b"slowly") + b"P":
            client.sendall(bytes([byte]))
        assert read_answer(client)[2] == b"slowly"
        client.sendall(post(b"rest")[1:])
        assert read_answer(client)[2] == b"rest"


def test_chunked_requests(echo: Any) -> None:
    body = b"4\r\nwiki\r\n5;ext=1\r\npedia\r\n0\r\nTrailer: x\r\n\r\n"
    with echo.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body + post(b"after"))
        status, _, got, rest = read_answer(client)
        assert (status, got) == (200, b"wikipedia")
        assert read_answer(client, rest)[2] == b"after"


def test_expect_100_continue(echo: Any) -> None:
    with echo.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hello")
        assert read_answer(client)[2] == b"hello"
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
        status, headers, _, _ = read_answer(client)
        assert status == 413 and headers["connection"] == "close"
    assert b"417" in echo.raw(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: tea\r\n\r\n")


def test_http_1_0_and_head(echo: Any) -> None:
    answer = echo.raw(b"GET /info HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b"Connection: close" in answer
    answer = echo.raw(b"HEAD /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, body = answer.split(b"\r\n\r\n", 1)
    assert b"Content-Length: " in head and b"Content-Length: 0" not in head and body == b""


def test_limits(make: Any) -> None:
    f = make(ECHO, attributes={"maxRequestBodySize": 1000, "readBufferSize": 4096})
    assert f.call("/", b"x" * 1000).status == 200
    assert f.call("/", b"x" * 1001).status == 413
    chunk = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
    assert f.raw(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + chunk).startswith(
        b"HTTP/1.1 413 "
    )
    assert f.call("/", headers={"X": "v" * 5000}).status == 431
    assert f.raw(
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"A%d: 1\r\n" % i for i in range(200)) + b"\r\n"
    ).startswith(b"HTTP/1.1 431 ")
    assert f.raw(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")[9:12] in (b"414", b"431")
    assert f.raw(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 1_000_000)[9:12] == b"431"
    assert f.call("/", b"still here").body == b"still here"


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4, 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: x\r\n Content-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_two_readers_could_read_differently_is_refused(echo: Any, request_bytes: bytes) -> None:
    answer = echo.raw(request_bytes + SMUGGLED)
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 405", b"HTTP/1.1 505") and b"Connection: close" in answer, answer
    assert answer.count(b"HTTP/1.1 ") == 1, answer  # what came behind it was not read as a request
    assert b"smuggled" not in answer


def test_upgrade_is_an_ordinary_request(echo: Any) -> None:
    with echo.connect() as client:
        client.sendall(
            b"GET /info HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + post(b"next")
        )
        status, _, body, rest = read_answer(client)
        assert status == 200 and json.loads(body)["method"] == "GET"
        assert read_answer(client, rest)[2] == b"next"


def test_cors(make: Any) -> None:
    f = make(
        ECHO,
        attributes={
            "cors": {
                "enabled": True,
                "allowOrigins": ["https://a.example"],
                "allowCredentials": True,
                "preflightMaxAgeSeconds": 9,
            }
        },
    )
    answer = f.call(
        "/", method="OPTIONS", headers={"Origin": "https://a.example", "Access-Control-Request-Method": "PUT"}
    )
    assert answer.status == 200 and answer.headers["access-control-allow-origin"] == "https://a.example"
    assert "PUT" in answer.headers["access-control-allow-methods"] and answer.headers["access-control-max-age"] == "9"
    assert (
        f.call(
            "/", method="OPTIONS", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
        ).status
        == 400
    )
    assert (
        f.call(
            "/", method="OPTIONS", headers={"Origin": "https://a.example", "Access-Control-Request-Method": "BREW"}
        ).status
        == 400
    )
    assert f.call("/", b"x", headers={"Origin": "https://evil.example"}).status == 403
    answer = f.call("/", b"x", headers={"Origin": "https://a.example"})
    assert answer.body == b"x" and answer.headers["access-control-allow-credentials"] == "true"
    assert f.call("/", b"no origin").body == b"no origin"
    assert f.call("/info", method="OPTIONS").json()["method"] == "OPTIONS"


def test_health_and_trace_context(echo: Any) -> None:
    assert echo.call("/__internal/health").status == 200
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert echo.call("/", headers={"traceparent": trace}).headers["traceparent"] == trace
    assert echo.get(echo.health, "/live").status == 200 and echo.get(echo.health, "/ready").status == 200
    assert echo.get(echo.health, "/nothing").status == 404


def test_web_admin(echo: Any) -> None:
    assert echo.call("/", b"x").status == 200
    assert echo.get(echo.admin, "/status").json() == {"processor": {"oper_status": "up"}}

    def shown_idle() -> Any:
        found = echo.get(echo.admin, "/triggers").json()["web"]
        return found if found["state"].endswith(", 0 connections") else None

    shown = until(shown_idle, what="the end of the call's connection")
    assert (shown["kind"], shown["numWorkers"], shown["workers"]) == ("http", 1, "1 of 1 workers ready")
    assert "attributes" not in shown, "they may hold passwords"
    assert echo.get(echo.admin, "/triggers/web").json() == shown
    assert echo.get(echo.admin, "/triggers/web/stats").json()["handled"] >= 1
    assert echo.get(echo.admin, "/triggers/none").status == 404
    assert echo.get(echo.admin, "/triggers/none/stats").status == 404


def test_slow_clients_are_ended_and_nobody_waits_for_them(make: Any) -> None:
    f = make(ECHO, attributes={"readHeaderTimeout": "2s", "readBodyTimeout": "2s"})
    slow = [f.connect() for _ in range(30)]
    for client in slow[:15]:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-")
    for client in slow[15:]:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    assert f.call("/", b"quick").body == b"quick"
    for client in slow:
        while part := client.recv(1000):  # ends: the processor closed it
            assert b"HTTP/1.1 408 " in part or b"in time" in part
        client.close()
    assert f.call("/", b"after").body == b"after"


def test_ten_thousand_idle_connections(make: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        count = min(10_000, (hard if hard != resource.RLIM_INFINITY else 1 << 20) - 500)
        f = make(ECHO)
        clients = []
        for _ in range(count):
            client = socket.socket()
            client.connect(("127.0.0.1", f.port))
            clients.append(client)
        print(f"{count} connections")
        for client in clients[:: max(1, count // 50)]:
            client.sendall(post(b"awake"))
            assert read_answer(client)[2] == b"awake"
        until(lambda: f.metric("metier_http_connections") >= count, what="all connections")
        rss = next(
            int(line.split()[1])
            for line in Path(f"/proc/{f.process.pid}/status").read_text().splitlines()
            if line.startswith("VmRSS")
        )
        print(f"{rss / 1024:.1f} MiB with {count} idle connections")
        for client in clients:
            client.close()
        until(lambda: f.metric("metier_http_connections") <= 2, what="the connections to go")
        assert f.call("/", b"fine").body == b"fine"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_connections_are_told_so(make: Any) -> None:
    f = make(ECHO, attributes={"maxConnections": 5})
    kept = [f.connect() for _ in range(5)]
    for client in kept:
        client.sendall(post(b"x"))
        read_answer(client)
    answer = f.raw(b"")
    assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After" in answer
    for client in kept:
        client.close()


def test_drain_finishes_what_began(make: Any, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    f = make(
        f"import os, time\ndef handler(context, event):\n    if event.path == '/wait':\n        while not os.path.exists({str(flag)!r}): time.sleep(0.005)\n    return 'done'\n",
        workers=2,
    )
    idle, busy = f.connect(), f.connect()
    idle.sendall(post(b"1"))
    read_answer(idle)
    busy.sendall(post(b"2", "/wait"))
    until(lambda: f.metric("metier_processor_in_flight_events") == 1, what="the event to start")
    f.process.send_signal(signal.SIGTERM)
    until(lambda: f.get(f.health, "/ready").status == 503, what="draining")
    assert f.get(f.health, "/live").status == 200

    def refused() -> bool:
        try:
            f.connect().close()
        except OSError as error:
            return isinstance(error, ConnectionRefusedError)
        return False

    until(refused, what="the listener to close")
    idle.sendall(post(b"still"))  # a request on a connection that is open is answered, then it closes
    status, headers, body, _ = read_answer(idle)
    assert (status, body, headers["connection"]) == (200, b"done", "close")
    flag.touch()
    status, headers, body, _ = read_answer(busy)
    assert (status, body, headers["connection"]) == (200, b"done", "close")
    assert f.process.wait(180) == 0


def test_inherited_and_handed_over_sockets(make: Any, tmp_path: Path) -> None:
    import array
    import threading

    held = socket.create_server(("127.0.0.1", 0))
    os.set_inheritable(held.fileno(), True)
    f = make(ECHO, trigger={"listen": {"fd": held.fileno()}}, pass_fds=(held.fileno(),))
    assert f.port == held.getsockname()[1] and f.call("/", b"by fd").body == b"by fd"
    f.stop()

    gate = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gate.bind(str(tmp_path / "gate.sock"))
    gate.listen()

    def serve() -> None:
        while True:
            try:
                peer, _ = gate.accept()
            except OSError:
                return
            with peer:
                message = json.loads(peer.recv(4096))
                if message == {"op": "take", "name": "default/f"}:
                    peer.sendmsg(
                        [b'{"op":"socket"}'],
                        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [held.fileno()]))],
                    )
                else:
                    peer.send(b'{"op":"none","message":"there is none"}')

    threading.Thread(target=serve, daemon=True).start()
    # Waits in the backlog while there is no processor at all.
    waiting = socket.create_connection(held.getsockname())
    waiting.sendall(post(b"early"))
    f = make(
        ECHO,
        trigger={"listen": {"gate": str(tmp_path / "gate.sock"), "name": "default/f"}},
        control=str(tmp_path / "ctl.sock"),
    )
    assert read_answer(waiting)[2] == b"early"
    waiting.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.connect(str(tmp_path / "ctl.sock"))
        control.send(b'{"op":"state"}')
        state = json.loads(control.recv(4096))
        assert state["ready"] and state["handled"] == 1 and state["workers"] == 1
        control.send(b'{"op":"socket","name":"web"}')
        _, rest, _, _ = control.recvmsg(4096, socket.CMSG_SPACE(4))
        copy = socket.socket(fileno=array.array("i", rest[0][2][:4])[0])
        assert copy.getsockname() == held.getsockname()
        copy.close()
        control.send(b"nonsense")
        assert "no JSON" in control.recv(4096).decode()
        control.send(b'{"op":"drain"}')
        assert f.process.wait(180) == 0
    other = make.start(ECHO, trigger={"listen": {"gate": str(tmp_path / "gate.sock"), "name": "other"}})
    assert other.process.wait(180) == 1 and "the gate has no socket 'other'" in other.log()
    gate.close()
    held.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
    ]
    subprocess.run([*command, "subjectAltName=IP:127.0.0.1"], cwd=folder, check=True, capture_output=True)
    return folder


def test_tls(make: Any, certificate: Path) -> None:
    tls = {"certificate": str(certificate / "cert.pem"), "key": str(certificate / "key.pem")}
    f = make(ECHO, attributes={"tls": tls, "readHeaderTimeout": "2s"})
    context = ssl.create_default_context(cafile=tls["certificate"])
    silent = f.connect()  # never shakes hands
    connection = http.client.HTTPSConnection("127.0.0.1", f.port, timeout=30, context=context)
    for size in (0, 1, 16384, 100_000, 3_000_000):
        body = os.urandom(size)
        connection.request("POST", "/", body=body)
        assert connection.getresponse().read() == body, size
    connection.close()
    # Slow to read: the rest leaves when there is room again.
    with context.wrap_socket(f.connect(), server_hostname="127.0.0.1") as client:
        client.sendall(post(b"q" * 2_000_000) + post(b"second"))
        _, _, body, rest = read_answer(client)
        assert body == b"q" * 2_000_000
        assert read_answer(client, rest)[2] == b"second"
    assert b"HTTP/1.1" not in f.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")  # plain text to a TLS port
    assert silent.recv(1000) == b""
    silent.close()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, OSError)):
        old.wrap_socket(f.connect())
    wrong = make.start(ECHO, attributes={"tls": {**tls, "key": tls["certificate"]}})
    assert wrong.process.wait(180) == 1 and "attributes.tls.key" in wrong.log()
    half = make.start(ECHO, attributes={"tls": {"certificate": tls["certificate"]}})
    assert half.process.wait(180) == 2 and "give both" in half.log()


def test_a_port_that_is_taken_is_said(make: Any) -> None:
    f = make(ECHO)
    other = make.start(ECHO, trigger={"listen": {"address": f"127.0.0.1:{f.port}"}})
    assert other.process.wait(180) == 1
    assert (
        "trigger web: " in other.log()
        and "Address already in use" in other.log()
        and "give another port" in other.log()
    )


@pytest.mark.parametrize(
    "trigger, words",
    [
        ({"kind": "nats"}, ["triggers.web.kind: 'nats' is not supported here", "http"]),
        ({"kind": "htpp"}, ["triggers.web.kind: 'htpp' is no kind of trigger"]),
        (
            {"attributes": {"maxRequestBodySise": 1}},
            ["triggers.web.attributes.maxRequestBodySise", "did you mean maxRequestBodySize?"],
        ),
        ({"attributes": {"maxRequestBodySize": -1}}, ["triggers.web.attributes.maxRequestBodySize", "is no size"]),
        ({"numWorkers": 0}, ["triggers.web.numWorkers: 0 is out of range"]),
        ({"disabled": True}, ["there is none that is enabled"]),
    ],
)
def test_wrong_triggers_are_refused(make: Any, trigger: dict[str, Any], words: list[str]) -> None:
    f = make.start(ECHO, trigger=trigger)
    assert f.process.wait(180) == 2
    for word in words:
        assert word in f.log(), f.log()


def test_replicas_of_one_socket_take_what_the_others_have_no_worker_for(make: Any, tmp_path: Path) -> None:
    held = socket.create_server(("127.0.0.1", 0))
    os.set_inheritable(held.fileno(), True)
    source = (
        "import os, time\n"
        "def handler(context, event):\n"
        "    name = event.body.decode()\n"
        f"    open(os.path.join({str(tmp_path)!r}, name), 'w').write(str(os.getpid()))\n"
        f"    while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
        "    return str(os.getpid())\n"
    )
    for _ in range(2):
        make(source, trigger={"listen": {"fd": held.fileno()}}, pass_fds=(held.fileno(),))
    shared = 0
    for number in range(5):
        callers = []
        for name in ("first", "second", "third"):
            caller = socket.create_connection(held.getsockname())
            caller.sendall(post(name.encode()))
            callers.append(caller)
            if name == "first":
                until((tmp_path / name).exists, what=f"the first handler of round {number}")
            if name == "second":  # on a starved machine the busy one may have been first, and it waits in its queue
                with contextlib.suppress(AssertionError):
                    until((tmp_path / name).exists, 5)
        (tmp_path / "go").touch()
        pids = [read_answer(caller)[2] for caller in callers]
        shared += pids[0] != pids[1]
        for caller, name in zip(callers, ("first", "second", "third"), strict=True):
            caller.close()
            (tmp_path / name).unlink()
        (tmp_path / "go").unlink()
    assert shared >= 3, f"in {shared} of 5 rounds the free replica took the second event"
    held.close()
