"""Workers die, hang, lie and wait; the events of others never notice (reliability.md 4.3)."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, children, until

PIDS = """
import os, time
def handler(context, event):
    if event.path == "/pid": return str(os.getpid())
    if event.path == "/wait":
        open(event.body.decode() + ".started", "w").close()
        while not os.path.exists(event.body.decode()): time.sleep(0.005)
        return "waited"
    if event.path == "/exit": os._exit(int(event.body))
    if event.path == "/segv":
        import ctypes; ctypes.string_at(0)
    return event.body
"""


def test_kill_minus_nine_of_a_worker_fails_only_what_had_started(make: Any, tmp_path: Path) -> None:
    f = make(PIDS, workers=1)
    victim = int(f.call("/pid").text)
    flag = tmp_path / "flag"
    with ThreadPoolExecutor(4) as pool:
        started = pool.submit(f.call, "/wait", str(flag))
        until(lambda: Path(f"{flag}.started").exists(), what="the event to start")
        waiting = [pool.submit(f.call, "/", f"w{i}") for i in range(3)]
        until(
            lambda: f.metric("metier_processor_queued_events") + f.metric("metier_processor_in_flight_events") == 4,
            what="the queue",
        )
        os.kill(victim, signal.SIGKILL)
        assert started.result().status == 502
        assert [w.result().text for w in waiting] == ["w0", "w1", "w2"]
    assert int(f.call("/pid").text) != victim
    until(lambda: "signal 9" in f.log(), what="the log to say how it ended")
    assert f.metric("nuclio_processor_handled_events_total", result="failure") == 1


def test_unstarted_events_inside_a_dead_worker_move(make: Any, tmp_path: Path) -> None:
    f = make(PIDS, workers=1, trigger={"queueDepth": 8})
    flag = tmp_path / "flag"
    victim = int(f.call("/pid").text)
    with ThreadPoolExecutor(6) as pool:
        started = pool.submit(f.call, "/wait", str(flag))
        until(lambda: Path(f"{flag}.started").exists(), what="the event to start")
        inside = [pool.submit(f.call, "/", f"i{i}") for i in range(5)]
        until(lambda: f.metric("metier_processor_in_flight_events") == 6, what="all six in the worker")
        os.kill(victim, signal.SIGKILL)
        assert started.result().status == 502
        assert [i.result().text for i in inside] == ["i0", "i1", "i2", "i3", "i4"]
    assert f.metric("metier_processor_redispatched_events_total") == 5


def test_what_waits_behind_a_slow_event_moves_to_a_free_worker(make: Any, tmp_path: Path) -> None:
    f = make(PIDS, workers=2, trigger={"queueDepth": 8})
    first, second = tmp_path / "first", tmp_path / "second"
    with ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(f.call, "/wait", str(first)), pool.submit(f.call, "/wait", str(second))]
        until(lambda: Path(f"{first}.started").exists() and Path(f"{second}.started").exists(), what="both to start")
        behind = [pool.submit(f.call, "/", f"b{i}") for i in range(4)]
        until(lambda: f.metric("metier_processor_in_flight_events") == 6, what="four to wait inside the workers")
        first.touch()  # one worker is free, the other never
        assert [b.result().text for b in behind] == ["b0", "b1", "b2", "b3"]
        second.touch()
        assert [s.result().text for s in slow] == ["waited", "waited"]


def test_crash_loops_back_off_and_heal(make: Any, tmp_path: Path) -> None:
    f = make(PIDS, workers=2)
    for code in (1, 0, 255):  # also exit code 0: a worker that has gone is replaced
        assert f.call("/exit", str(code)).status == 502
    assert f.call("/segv").status == 502
    until(lambda: f.metric("metier_processor_workers_ready") == 2, what="both workers again")
    assert f.call("/", b"healed").body == b"healed"
    assert f.metric("metier_processor_worker_restarts_total") == 4


def test_event_timeout_replaces_only_its_worker(make: Any, tmp_path: Path) -> None:
    f = make(
        """
import os, time
def handler(context, event):
    if event.path == "/hang":
        try:
            time.sleep(3600)
        finally:
            print("finally ran", flush=True)
    if event.path == "/deaf":
        import signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(3600)
    return str(os.getpid())
""",
        workers=2,
        eventTimeout="2s",
    )
    with ThreadPoolExecutor(2) as pool:
        hanging = pool.submit(f.call, "/hang")
        assert f.call("/").status == 200
        answer = hanging.result()
    assert answer.status == 408 and answer.json() == {"error": "handler timed out"}
    hung = 1

    def cleaned_up() -> bool:
        nonlocal hung
        until(lambda: f.metric("metier_processor_worker_restarts_total") >= hung, what="the worker's end")
        if "finally ran" in f.log():
            return True
        hung += 1  # it has a second for its `finally`: on a starved machine one may be killed before it runs
        assert f.call("/hang").status == 408
        return False

    until(cleaned_up, what="the handler's finally")
    assert f.call("/deaf").status == 408
    until(lambda: f.metric("metier_processor_workers_ready") == 2, what="both workers again")
    assert f.metric("metier_processor_event_timeouts_total") == hung + 1


# They turn while they wait: a worker that sleeps has answered.
ANSWERS = """
import asyncio, os
def handler(context, event):
    if event.path == "/pid": return str(os.getpid())
    open(event.body.decode() + ".started", "w").close()
    while not os.path.exists(event.body.decode()): pass
    return "answered"
async def coroutine(context, event):
    if event.path == "/pid": return str(os.getpid())
    open(event.body.decode() + ".started", "w").close()
    while not os.path.exists(event.body.decode()): await asyncio.sleep(0)
    return "answered"
"""


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_answer_that_came_while_the_processor_stood_still_counts(make: Any, tmp_path: Path, mode: str) -> None:
    handler = "main:handler" if mode == "sync" else "main:coroutine"
    f = make(ANSWERS, handler=handler, trigger={"mode": mode}, eventTimeout="4s")
    worker = int(f.call("/pid").text)
    flag = tmp_path / "flag"
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(f.call, "/", str(flag))
        until(lambda: Path(f"{flag}.started").exists(), what="the event to start")
        os.kill(f.process.pid, signal.SIGSTOP)
        late = time.monotonic() + 4.5
        flag.touch()
        until(lambda: state_of(worker) == "S", what="the worker to wait for another event")
        until(lambda: time.monotonic() > late, what="the end of the event's time")
        os.kill(f.process.pid, signal.SIGCONT)
        assert call.result().text == "answered"
    assert int(f.call("/pid").text) == worker
    assert f.metric("metier_processor_event_timeouts_total") == 0


def test_an_event_that_its_worker_never_began_goes_to_the_next(make: Any) -> None:
    f = make(PIDS, workers=1, eventTimeout="2s")
    stopped = int(f.call("/pid").text)
    os.kill(stopped, signal.SIGSTOP)
    assert int(f.call("/pid").text) != stopped
    until(lambda: "it began no event within the event timeout" in f.log(), what="the reason in the log")
    assert f.metric("metier_processor_event_timeouts_total") == 0


def test_no_worker_in_time_is_503_with_retry_after(make: Any, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    f = make(PIDS, trigger={"workerAvailabilityTimeoutMilliseconds": 150, "queueSize": 2})
    with ThreadPoolExecutor(8) as pool:
        busy = pool.submit(f.call, "/wait", str(flag))
        until(lambda: Path(f"{flag}.started").exists(), what="the event to start")
        late = list(pool.map(lambda i: f.call("/", str(i)), range(5)))
        assert all(answer.status == 503 and answer.headers["retry-after"] == "1" for answer in late)
        flag.touch()
        assert busy.result().text == "waited"
    assert f.metric("nuclio_processor_worker_allocation_total", result="error_timeout") == 5
    never = make(PIDS, trigger={"workerAvailabilityTimeoutMilliseconds": 0})
    flag = tmp_path / "flag2"
    with ThreadPoolExecutor(2) as pool:
        busy = pool.submit(never.call, "/wait", str(flag))
        until(lambda: Path(f"{flag}.started").exists(), what="the event to start")
        assert never.call("/", b"x").status == 503
        flag.touch()
        assert busy.result().status == 200


def test_a_client_that_goes_away_frees_its_place_in_the_queue(make: Any, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    f = make(PIDS + "\n", workers=1)
    with ThreadPoolExecutor(2) as pool:
        busy = pool.submit(f.call, "/wait", str(flag))
        until(lambda: Path(f"{flag}.started").exists(), what="the event to start")
        gone = f.connect()
        gone.sendall(b"POST /exit HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n9")
        until(lambda: f.metric("metier_processor_queued_events") == 1, what="the queue")
        import socket
        import struct

        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()  # a reset
        until(lambda: f.metric("metier_processor_queued_events") == 0, what="the queue to empty")
        flag.touch()
        assert busy.result().status == 200
    assert f.call("/", b"never ran").status == 200
    assert f.metric("metier_processor_worker_restarts_total") == 0


HOSTILE = """
import ctypes, os, random, re
def scribble(seed):
    chance = random.Random(seed)
    spans = [tuple(int(x, 16) for x in line.split()[0].split("-")) for line in open("/proc/self/maps") if "memfd:metier-ring" in line]
    for start, end in spans:
        for _ in range(200):
            at = start + chance.randrange(end - start - 8)
            if chance.random() < 0.5: at = start + chance.randrange(min(4096, end - start - 8))
            ctypes.memmove(at, bytes(chance.randrange(256) for _ in range(8)), 8)
def handler(context, event):
    if event.path == "/scribble":
        seed, folder = event.body.decode().split(" ", 1)
        open(os.path.join(folder, str(os.getpid())), "w").close()
        scribble(int(seed))
    return context.Response(body=event.body, headers={"X-Worker": str(os.getpid())})
"""


def test_a_worker_that_scribbles_over_its_ring_is_replaced(make: Any, tmp_path: Path) -> None:
    """What comes from a worker that scribbled is its own (the events that waited in its ring are as damaged as its answers);
    everybody else's events are answered, right and in time."""
    seed = int(os.environ.get("METIER_SEED", random.randrange(1 << 30)))
    print(f"seed={seed}")
    f = make(HOSTILE, workers=2, eventTimeout="2s")
    chance = random.Random(seed)
    stop = threading.Event()
    odd: list[Any] = []
    mad = tmp_path / "mad"
    mad.mkdir()

    def others(number: int) -> None:
        count = 0
        while not stop.is_set():
            body = f"{number}/{count}".encode() * 20
            answer = f.call("/", body)
            # An event that waits unstarted in a worker which then goes mad counts as started: 502 at worst.
            if not (answer.status == 200 and answer.body == body) and answer.status not in (502, 408):
                odd.append(answer)
            count += 1

    threads = [threading.Thread(target=others, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    rounds = 60 if os.environ.get("METIER_TEST_ALL") else 15
    for _ in range(rounds):
        with contextlib.suppress(OSError):  # an answer that broke off
            f.call("/scribble", f"{chance.randrange(1 << 30)} {mad}", timeout=20)
    stop.set()
    for thread in threads:
        thread.join()
    scribblers = {each.name for each in mad.iterdir()}
    assert scribblers
    # A worker's name that is none was damaged by the scribbler that sent it.
    wrong = [a for a in odd if (name := a.headers.get("x-worker", "0")).isdigit() and name not in scribblers]
    assert not wrong, wrong[:3]
    until(lambda: f.metric("metier_processor_workers_ready") == 2, 60, what="both workers again")
    assert f.call("/", b"sane").body == b"sane"
    assert f.process.poll() is None


def test_workers_end_with_their_processor(make: Any) -> None:
    f = make(PIDS, workers=3)
    family = children(f.process.pid)
    assert len(family) == 4  # the template and three workers
    f.process.kill()
    f.process.wait()
    until(
        lambda: (
            not any(
                Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family
            )
        ),
        what="them to end",
    )


def test_what_a_dying_template_was_asked_for_comes_of_the_next(make: Any) -> None:
    f = make(PIDS, workers=1)
    worker = int(f.call("/pid").text)
    template = int(Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1])

    def watched() -> bool:  # a worker may answer before its template has told of it
        for file in Path(f"/proc/{f.process.pid}/fdinfo").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if f"Pid:\t{worker}\n" in file.read_text():
                    return True
        return False

    until(watched, what="the processor to watch its worker")
    os.kill(template, signal.SIGSTOP)  # it is sent the request to fork, and never reads it
    os.kill(worker, signal.SIGKILL)
    until(lambda: f.metric("metier_processor_worker_restarts_total") == 1, what="the request")
    os.kill(template, signal.SIGKILL)
    assert f.call("/", b"replaced", timeout=120).body == b"replaced"
    f.stop()  # nobody waits for the worker that never was


def test_the_template_may_die(make: Any) -> None:
    f = make(PIDS, workers=1)
    template = int((Path(f"/proc/{f.call('/pid').text}/stat").read_text().rsplit(")", 1)[1].split())[1])
    os.kill(template, signal.SIGKILL)
    assert f.call("/", b"workers live on").status == 200
    until(lambda: "it is started again" in f.log(), what="the log")
    assert f.call("/exit", b"1").status == 502
    assert f.call("/", b"replaced").body == b"replaced"


def test_programs_that_a_handler_starts_have_their_signals(make: Any) -> None:
    f = make(
        """
import multiprocessing, subprocess, time
def handler(context, event):
    child = subprocess.Popen(["sleep", "3600"])
    child.terminate()
    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,))
    other.start()
    other.terminate()
    other.join()
    return [child.wait(), other.exitcode]
"""
    )
    assert f.call().json() == [-15, -15]


def test_fairness_over_allocators(make: Any) -> None:
    """Two triggers of one allocator name share its workers."""
    config_of_second = {
        "name": "second",
        "kind": "http",
        "listen": {"address": "127.0.0.1:0"},
        "workerAllocatorName": "shared",
    }
    config = make.config(
        "import os\ndef handler(c, e):\n    return {'pid': os.getpid(), 'kind': c.trigger.kind, 'name': c.trigger.name, 'by': e.trigger.name}\n",
        trigger={"workerAllocatorName": "shared"},
    )
    config["triggers"].append(config_of_second)
    from conftest import Processor

    f = Processor(Path(config["readyFile"]).parent, config).wait_ready()
    make.running.append(f)
    first = f.call().json()
    f.ports = {"second": f.ports["second"]}
    second = f.call().json()
    assert first["pid"] == second["pid"] and first["name"] == second["name"] == "shared" and first["kind"] == ""
    assert (first["by"], second["by"]) == ("web", "second")


NATIVE = """
#include <metier/handler.h>
#include <stdexcept>
#include <unistd.h>
METIER_EVENT_HANDLER(echo, [](metier::Context& context, const metier::Event& event) {
  if (event.path() == "/raise") { throw std::runtime_error("no"); }
  if (event.path() == "/info") {
    context.info("informed");
    std::string text(event.method());
    text += " " + std::string(event.header("x-one").value_or("-")) + " " + std::string(event.field("q").value_or("-")) + " " + context.name();
    metier::Response response(text, 201, "text/x");
    response.headers.emplace_back("X-Mine", "yes");
    response.headers.emplace_back("Bad Name", "no");
    return response;
  }
  if (event.path() == "/none") { return metier::Response("", 99); }
  return metier::Response(event.body());
});
METIER_EVENT_HANDLER(slow, [](metier::Context&, const metier::Event& event) {
  if (event.path() == "/slow") { usleep(200000); }
  return metier::Response(event.body());
});
METIER_BLOCKING(slow);
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    (folder / "h.cc").write_text(NATIVE)
    subprocess.run(
        [
            "g++",
            "-std=c++17",
            "-O1",
            "-fPIC",
            "-shared",
            "-fvisibility=hidden",
            f"-I{ROOT / 'include'}",
            "h.cc",
            "-o",
            "h.so",
        ],
        cwd=folder,
        check=True,
    )
    return folder


def test_native_handlers(make: Any, library: Path) -> None:
    f = make(None, handler="h.so:echo", runtime="native", path=str(library))
    assert f.call("/", b"x" * 300_000).body == b"x" * 300_000
    answer = f.call("/info?q=a%20b", headers={"X-One": "1"})
    assert (answer.status, answer.text, answer.headers["content-type"], answer.headers["x-mine"]) == (
        201,
        "GET 1 a b f",
        "text/x",
        "yes",
    )
    assert "bad name" not in answer.headers and "informed" in f.log()
    assert f.call("/raise").status == 500 and "std::exception: no" in f.call("/raise").text
    assert f.call("/none").status == 500
    with f.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na" * 200)
        got = b""
        while got.count(b"HTTP/1.1 200") < 200:
            got += client.recv(65536)
    slow = make(None, handler="h.so:slow", runtime="native", path=str(library), workers=4)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: slow.call("/slow", str(i)).text, range(8)))
    assert answers == [str(i) for i in range(8)]
    missing = make.start(None, handler="h.so:nope", runtime="native", path=str(library))
    assert missing.process.wait(180) == 2 and "'nope'" in missing.log() and "slow, echo" in missing.log()


def test_shell_handlers(make: Any, tmp_path: Path) -> None:
    script = 'if [ "$1" = fail ]; then echo broken; exit 3; fi\nif [ "$1" = hang ]; then sleep 3600; fi\ntr a-z A-Z\necho "[$1]" >&2\n'
    f = make(script, file="up.sh", handler="up.sh:main", runtime="shell", workers=2, eventTimeout="2s",
             runtimeAttributes={"responseHeaders": {"X-Shell": "1"}})  # fmt: skip
    answer = f.call("/", "hello")
    assert (answer.status, answer.text, answer.headers["x-shell"]) == (200, "HELLO", "1")
    assert f.call("/", b"big " * 100_000).text == "BIG " * 100_000
    answer = f.call("/", "x", headers={"X-Nuclio-Arguments": "fail"})
    assert answer.status == 500 and answer.text == "broken\n"
    assert f.call("/", "x", headers={"X-Nuclio-Arguments": "hang"}).status == 408
    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(lambda i: f.call("/", str(i)).text, range(12))) == sorted(str(i) for i in range(12))
    absent = make.start(None, handler="absent.sh", runtime="shell")
    assert absent.process.wait(180) != 0 and "absent.sh" in absent.log()
