"""The foreground ``handler`` kind: a recorded run in this interpreter, against a server.

Nothing stands between the code and the terminal: stdout keeps its descriptor, so debuggers, prompts and progress bars work;
what is printed is posted to the run's log as well. A failure is not printed here: whoever started this reads the run and shows it.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .errors import RunnerError, UsageError

if TYPE_CHECKING:
    from .command import Options
    from .execute import Job
    from .rest import Client

LEASE_EVERY = 5.0  # seconds; the server ends a run after three missed ones
LOG_PIECE = 1 << 20
LOG_WAITING = 16 << 20  # bytes kept while the server is away


class LogPoster:
    """Collects what is printed and posts it in the background; `close` posts the rest."""

    def __init__(self, client: Client, project: str, uid: str) -> None:
        self._client = client
        self._path = f"v1/projects/{quote(project, safe='')}/logs/{quote(uid, safe='')}"
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._lost = 0
        self._wake, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="metier-log", daemon=True)
        self._thread.start()

    def in_child(self) -> None:
        """After a fork: a thread and a connection of this process; what waited is the parent's to post."""
        self._client = self._client.clone()
        self._begin()

    def add(self, text: str) -> None:
        self.add_bytes(text.encode("utf-8", "backslashreplace"))

    def add_bytes(self, data: bytes) -> None:
        with self._lock:
            if len(self._waiting) + len(data) > LOG_WAITING:
                self._lost += len(data)
            else:
                self._waiting += data
        self._wake.set()

    def close(self) -> None:
        """Post what is left; raises RunnerError when some of the log could not be kept."""
        self._ended = True
        self._wake.set()
        self._thread.join()
        with self._lock:
            lost = self._lost + len(self._waiting)
        self._client.close()
        if lost:
            raise RunnerError(f"{lost} bytes of the log could not be posted to {self._client.server}")

    def _work(self) -> None:
        while True:
            self._wake.wait()
            ended = self._ended
            if not ended:
                self._wake.clear()
            while True:
                with self._lock:
                    piece = bytes(self._waiting[:LOG_PIECE])
                if not piece:
                    break
                try:
                    self._client.request("POST", self._path, piece, {"append": "yes"})
                except RunnerError:
                    break  # kept; tried again with the next lines and at the end
                with self._lock:
                    del self._waiting[: len(piece)]
            if ended:
                return


class TeeBytes:
    """`sys.stdout.buffer` of the tee."""

    def __init__(self, stream: Any, poster: LogPoster) -> None:
        self._stream, self._poster = stream, poster

    def write(self, data: Any) -> int:
        written = int(self._stream.write(data))
        self._poster.add_bytes(bytes(data))
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Tee(io.TextIOBase):
    """stdout that also feeds the log. Everything else (fileno, isatty, encoding) is the real stream's."""

    def __init__(self, stream: Any, poster: LogPoster) -> None:
        self._stream, self._poster = stream, poster
        self._bytes = TeeBytes(stream.buffer, poster) if hasattr(stream, "buffer") else None

    def write(self, text: str) -> int:
        written = int(self._stream.write(text))
        self._poster.add(text)
        return written

    def in_child(self) -> None:
        self._poster.in_child()

    def drain(self) -> None:
        """Post what waits; for a process that ends without the exit handlers."""
        self._poster.close()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return int(self._stream.fileno())

    def isatty(self) -> bool:
        return bool(self._stream.isatty())

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        pass  # the interpreter's stream outlives us

    def __getattribute__(self, name: str) -> Any:
        if name == "buffer":
            return object.__getattribute__(self, "_bytes") or getattr(object.__getattribute__(self, "_stream"), name)
        if name in ("encoding", "errors", "newlines", "mode", "name", "line_buffering", "reconfigure"):
            return getattr(object.__getattribute__(self, "_stream"), name)
        return object.__getattribute__(self, name)


class Lease:
    """Tells the server every few seconds that this process lives. An aborted run interrupts the main thread."""

    def __init__(self, client: Client, project: str, uid: str, every: float | None = None) -> None:
        self._client, self._project, self._every = client, project, LEASE_EVERY if every is None else every
        self._path = f"metier/v1/runs/{quote(uid, safe='')}/lease"
        self.aborted = False
        # Shells start background jobs with SIGINT ignored, and then an abort could not wake the main thread.
        self._unignore = False
        if threading.current_thread() is threading.main_thread():
            import signal

            if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                self._unignore = True
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="metier-lease", daemon=True)
        self._thread.start()

    def renew(self) -> None:
        answer = self._client.json("POST", self._path, {"project": self._project})
        if isinstance(answer, dict) and answer.get("state") in ("aborting", "aborted") and not self.aborted:
            self.aborted = True
            import signal

            # To that thread: interrupt_main() alone would not wake it from a system call.
            main = threading.main_thread().ident
            if main is not None:
                signal.pthread_kill(main, signal.SIGINT)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()
        if self._unignore and threading.current_thread() is threading.main_thread():
            import signal

            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _work(self) -> None:
        while True:
            try:
                self.renew()
            except (RunnerError, ValueError):
                pass  # the next one may arrive; a lost lease is the server's to tell
            if self._stop.wait(self._every):
                return


class Finished:
    """How a foreground run ended: exit code, the run dict as it was left, and the exception when one ended it."""

    def __init__(self, code: int, run: dict[str, Any], error: BaseException | None) -> None:
        self.code, self.run, self.error = code, run, error


def run_in_foreground(options: Options, environment: MutableMapping[str, str], started: float | None = None) -> int:
    """``handler --server S [run options] [command] [args]``: run MLRUN_EXEC_CONFIG here; returns the exit code."""
    from .command import read_run
    from .execute import Job
    from .rest import Client

    run = read_run(options, environment)
    client = Client.from_environment(environment, options.server)
    if client is None:
        raise UsageError("handler: no server is given (--server URL, or METIER_SERVER)")
    return _run(Job(options, run, environment), client, started).code


def run_callable(
    function: Callable[..., Any],
    run: dict[str, Any],
    server: str = "",
    token: str = "",
    environment: MutableMapping[str, str] | None = None,
) -> Finished:
    """Run `function` in this process as the run `run` (metadata.uid is needed), against `server`; without one in memory only.

    For clients: what the function raises is told to the server and given back in `Finished.error`, never raised here.
    """
    from .command import Options
    from .execute import Job, execute
    from .rest import Client
    from .sinks import MemorySink

    environment = os.environ if environment is None else environment
    for part in ("metadata", "spec", "status"):
        run.setdefault(part, {})
    job = Job(Options(), run, environment)
    job.function = function
    if server:
        return _run(job, Client(server, token), None)
    code = execute(job, MemorySink(), time.time())
    return Finished(code, job.context.to_dict(with_artifacts=True) if job.context else run, job.error)


def _run(job: Job, client: Client, started: float | None) -> Finished:
    from .execute import execute
    from .rest import RestSink

    metadata, environment = job.run["metadata"], job.environment
    project = str(metadata.get("project") or environment.get("MLRUN_DEFAULT_PROJECT") or "default")
    metadata["project"] = project
    uid = str(metadata["uid"])
    sink = RestSink(client, project, uid)
    poster = LogPoster(client.clone(), project, uid)
    lease: Lease | None = None
    stdout = sys.stdout
    sys.stdout = Tee(stdout, poster)
    job.echo = poster.add  # the log gets the whole traceback; the terminal gets the caller's short form of it
    # Code that asks for the server by its environment (store:// inputs, programs) finds the one of the argument.
    given = environment.get("METIER_SERVER")
    environment["METIER_SERVER"] = client.server
    try:
        lease = Lease(client.clone(timeout=LEASE_EVERY * 2), project, uid)
        code = execute(job, sink, time.time() if started is None else started)
        return Finished(code, job.context.to_dict(with_artifacts=True) if job.context else job.run, job.error)
    finally:
        sys.stdout = stdout
        if given is None:
            del environment["METIER_SERVER"]
        else:
            environment["METIER_SERVER"] = given
        if lease is not None:
            lease.close()
        try:
            poster.close()
        except RunnerError as error:
            print(f"warning: {error}", file=sys.stderr)
        sink.close()
