"""An interpreter with its imports done, which forks pods (docs/formats/pod-folder.md, "Launch from a zygote").

One request a pod comes on the SEQPACKET socket at descriptor 3: ``{"v": 1, "id": …}`` with three descriptors, the launch document, the
shim's control connection and the shim's spec. A pair of processes waits for it: A, forked by the zygote, and B, forked by A and held on
a socket pair. The zygote hands the request on to A and forks the next pair; A gives the document to B and becomes the shim. B waits for
the shim's ``go``, makes its namespaces, and runs the user's command. The zygote itself answers nothing after ``ready``.
"""

from __future__ import annotations

import _signal
import array
import builtins
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
import types

from . import _confine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

SOCKET = 3
# One thread in the zygote, whatever libraries it holds; a pod gets its own values back.
SINGLE_THREADED = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
# What every pod's start needs, imported and used once before the first fork.
OWN_IMPORTS = ("atexit", "base64", "codecs", "ctypes", "random", "resource", "runpy", "traceback", "weakref", "multiprocessing.process")

# Signals whose action in the zygote is not the default; `signal.signal` for all 64 in each pod costs as much as a fork.
CHANGED_SIGNALS: set[int] = {int(signal.SIGCHLD), int(signal.SIGINT), int(signal.SIGPIPE)}


def thread_count() -> int:
    """Return how many threads the kernel sees in this process; only one is safe to fork from."""
    return len(os.listdir("/proc/self/task"))


def preload(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Import `names`; return those that left a thread (the fork must not happen with them) and those that failed."""
    threaded: list[str] = []
    failed: dict[str, str] = {}
    for name in names:
        before = thread_count()
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 - a broken package must not cost the others their zygote
            failed[name] = f"{type(error).__name__}: {error}"[:200]
        if thread_count() > before:
            threaded.append(name)
    return threaded, failed


def restart_without(names: list[str], moved: list[str]) -> NoReturn:
    """Execute this zygote again without the imports that leave threads: a thread cannot be taken back."""
    os.environ["METIER_PRELOAD"] = ",".join(name for name in names if name not in moved)
    os.environ["METIER_PRELOAD_MOVED"] = ",".join(moved)
    os.set_inheritable(SOCKET, True)
    os.execv(sys.executable, [sys.executable, "-m", "metier_runner.zygote"])


def main() -> int:
    """Serve until the other end of the socket is closed."""
    os.environ.update(SINGLE_THREADED)
    os.set_inheritable(SOCKET, False)
    server = socket.socket(fileno=SOCKET)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # A is the shim afterwards, nobody waits for it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    names = [name.strip() for name in os.environ.pop("METIER_PRELOAD", "").split(",") if name.strip()]
    moved = [name for name in os.environ.pop("METIER_PRELOAD_MOVED", "").split(",") if name]
    for name in OWN_IMPORTS:
        importlib.import_module(name)
    runner = importlib.import_module("metier_runner")
    for name in ("command", "execute", "context", "sinks", "calling", "source", "values", "returns", "program", "artifacts", "failure"):
        try:
            importlib.import_module(f"metier_runner.{name}")
        except ImportError:
            continue
    _ = runner.main
    threaded, failed = preload(names)
    if threaded and not moved:
        restart_without(names, threaded)
    warm_up()
    if "distributed.cli.dask_scheduler" in sys.modules:
        importlib.import_module("metier_runner.dask_program").rehearse()
    gc.collect()
    gc.freeze()
    ready = {"v": 1, "ready": True, "pid": os.getpid(), "threads": thread_count(), "preloaded": [n for n in names if n not in failed]}
    ready.update({"moved": moved, "failed": failed, "python": sys.version.split()[0]})
    server.send(json.dumps(ready).encode())
    note_signals()
    pair = fork_pair(server, moved)
    while True:
        try:
            message, files = receive(server)
        except OSError:
            return 0
        if not message:
            return 0
        if hand_on(pair, message, files) or hand_on(fork_pair(server, moved), message, files):
            pair = fork_pair(server, moved)


def warm_up() -> None:
    """Run once what each child runs, so that bytecode caches and codecs are shared pages."""
    json.loads(json.dumps({"a": [1, 2.5, None, "é"]}))
    import ctypes

    ctypes.CDLL(None, use_errno=True)
    compile("x = 1", "<warm>", "exec")
    import traceback

    try:
        raise ValueError("warm")
    except ValueError:
        traceback.format_exc()


def receive(server: socket.socket) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it."""
    ints = array.array("i")
    data, control, _flags, _address = server.recvmsg(1 << 16, socket.CMSG_SPACE(3 * ints.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, body in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            ints.frombytes(body[: len(body) - len(body) % ints.itemsize])
    return data, list(ints)


def hand_on(pair: socket.socket, message: bytes, files: list[int]) -> bool:
    """Give a request to a waiting pair; False when the pair has gone. The descriptors are closed either way: what is not a
    request ends there, and the driver starts the pod cold."""
    with pair:
        try:
            request = json.loads(message)
            if request.get("v") == 1 and len(files) == 3:
                socket.send_fds(pair, [message], files)
        except (ValueError, AttributeError):
            pass
        except OSError:
            return False
    for descriptor in files:
        os.close(descriptor)
    return True


def fork_pair(server: socket.socket, moved: list[str]) -> socket.socket:
    """Fork a pair that waits for one request; the end that it is given on. A zygote with threads forks none."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if thread_count() == 1 and os.fork() == 0:
        ours.close()
        server.close()
        become_shim_and_pod(theirs, moved)
    theirs.close()
    return ours


def read_all(descriptor: int) -> bytes:
    """The whole of a file that another process wrote, from its start."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0)


def become_shim_and_pod(requests: socket.socket, moved: list[str]) -> NoReturn:
    """In A: fork B, wait for the request, then execute the shim in this process's place."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # before B exists, else its end would not be kept for the shim
        hold_of_shim, hold = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()
        if child == 0:
            hold_of_shim.close()
            requests.close()
            run_pod(hold, moved)
        hold.close()
        message, files = receive(requests)
        if not message:  # the zygote has ended
            os._exit(0)
        document, control, spec = files
        socket.send_fds(hold_of_shim, [b"launch"], [document])
        launch = json.loads(read_all(document))
        for descriptor in (control, spec, hold_of_shim.fileno()):
            os.set_inheritable(descriptor, True)
        shim = launch["shim"]
        words = [shim, "--folder", launch["folder"], "--spec", str(spec), "--ctl", str(control)]
        words += ["--adopt", str(child), "--hold", str(hold_of_shim.fileno())]
        environment = {name: value for name, value in os.environ.items() if name.startswith("METIER_SHIM_")}
        os.execve(shim, words, environment)
    finally:
        os._exit(125)  # B reads end of file and leaves too


def run_pod(hold: socket.socket, moved: list[str]) -> NoReturn:
    """In B: wait for the request and the release, become the pod, run its command; never return into the zygote's frames."""
    code = 1
    try:
        os.setsid()
        message, files = receive(hold)
        if message != b"launch" or len(files) != 1:
            os._exit(126)
        launch = json.loads(read_all(files[0]))
        os.close(files[0])
        if hold.recv(16) != b"go":
            os._exit(126)
        try:
            _confine.close_others({hold.fileno()})
            _confine.confine(launch)
            _confine.take_log(launch)
        except OSError as error:
            step = getattr(error, "step", "zygote")
            hold.send(f"error {step} {error.errno or 5} {error.filename or error.strerror or ''}".encode()[:250])
            os._exit(127)
        hold.send(b"ok")
        hold.close()
        code = run_command(launch, moved)
    except SystemExit as error:
        code = exit_code(error)
    except BaseException:  # noqa: BLE001 - the traceback is the pod's output
        import traceback

        traceback.print_exc()
    finally:
        leave(code)


def run_command(launch: dict[str, Any], moved: list[str]) -> int:
    """Make the process look freshly started, then hand over to the runner."""
    processor = launch["argv"][1:2] == ["processor"]  # its template keeps BLAS at one thread: workers are forked from it
    reset_environment(launch["env"], keep_threads=processor)
    reset_signals()
    reset_modules(launch["argv"])
    reseed()
    if processor:
        from metier_runner.processor import main as processor_main

        processor_main(list(launch["argv"]))
    for name in moved:  # these start threads: each pod imports them for itself
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001, S112 - the user's own import says what is wrong
            continue
    if "distributed" in sys.modules:
        from metier_runner.dask_program import look_again

        look_again()
    if os.path.basename(launch["argv"][0]) == "dask":
        from metier_runner.dask_program import main as dask_main

        return dask_main(list(launch["argv"]))
    from metier_runner import main as runner_main

    return int(runner_main(list(launch["argv"])) or 0)


def reset_environment(environment: dict[str, str], *, keep_threads: bool = False) -> None:
    """Replace `os.environ` in place: clear and update keep the C library's environment right as well."""
    os.environ.clear()
    os.environ.update(environment)
    path = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = path + [part for part in sys.path if part not in path and part != ""]
    if not keep_threads:
        restore_blas_threads(environment)


def restore_blas_threads(environment: dict[str, str]) -> None:
    """Give loaded BLAS libraries the pod's number of threads; the zygote held them at one."""
    pools = sys.modules.get("threadpoolctl")
    if pools is None:
        return
    wanted = environment.get("OPENBLAS_NUM_THREADS") or environment.get("OMP_NUM_THREADS") or ""
    pools.threadpool_limits(int(wanted) if wanted.isdigit() else len(os.sched_getaffinity(0)))


def note_signals() -> None:
    """Note which signals do not have their default action here, as the kernel sees it: libraries set some too."""
    found = 0
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith(("SigIgn:", "SigCgt:")):
                found |= int(line.split()[1], 16)
    usual = {number for number in signal.valid_signals() if found >> (int(number) - 1) & 1}
    CHANGED_SIGNALS.update({int(number) for number in usual} - {int(signal.SIGKILL), int(signal.SIGSTOP)})


def reset_signals() -> None:
    """Give every signal its default action again, as exec would, and Python's own three."""
    for number in CHANGED_SIGNALS:
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def reset_modules(argv: list[str]) -> None:
    """Make a fresh ``__main__``, arguments, and no trace of the parent in multiprocessing and threading."""
    main_module = types.ModuleType("__main__")
    main_module.__builtins__ = builtins  # type: ignore[attr-defined]
    sys.modules["__main__"] = main_module
    sys.argv[:] = argv
    sys.orig_argv = list(argv)
    threading.main_thread().name = "MainThread"
    import multiprocessing.process as process

    process._parent_process = None  # type: ignore[attr-defined]
    process._current_process = type(process._current_process)()  # type: ignore[attr-defined]
    process._children = set()  # type: ignore[attr-defined]
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None:
        tracker._resource_tracker._fd = None
        tracker._resource_tracker._pid = None
    spawn = sys.modules.get("multiprocessing.spawn")
    if spawn is not None:
        spawn.set_executable(sys.executable)
    gc.enable()


def reseed() -> None:
    """Draw new seeds: two pods of one zygote must not draw the same numbers."""
    import random

    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.seed()
    uuid = sys.modules.get("uuid")
    if uuid is not None:
        uuid._last_timestamp = None  # type: ignore[attr-defined]


def exit_code(error: SystemExit) -> int:
    """Return what the interpreter would make of it."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def leave(code: int) -> NoReturn:
    """End as an interpreter ends: threads joined, exit handlers run, output flushed."""
    import atexit

    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except SystemExit as error:
        code = exit_code(error)
    except BaseException:  # noqa: BLE001
        import traceback

        traceback.print_exc()
        code = code or 1
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            code = code or 120
    os._exit(code & 0xFF)


if __name__ == "__main__":
    from metier_runner.zygote import main as serve_forever  # not as __main__: pods replace that module

    sys.exit(serve_forever())
