"""The template process of one function: it imports the user's module once and forks workers, all but one page of whose memory they share.

It talks to the processor over the SEQPACKET socket at descriptor 3, one JSON message a packet:

- from it `{"op": "init", …}` (with `variables` and `folder` to take on, when an interpreter of the node was forked), answered `{"op": "ready", …}` or `{"op": "failed", "message": …}`
- from it `{"op": "fork", "worker": …}` with four descriptors (segment, eventfd out, eventfd in, socket), answered `{"op": "forked", "pid": …}`
- from it `{"op": "reap", "pid": …}`, answered `{"op": "exit", "pid": …, "status": …}`: only then the pid may be used again
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import sys
import time
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONTROL = 3
SINGLE_THREADED = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


class HandlerError(Exception):
    """What is wrong with the user's file, in one sentence."""


def split_handler(handler: str) -> tuple[str, str]:
    """Return module and function of `module[.sub]:function`; raise HandlerError for another form."""
    module, colon, name = handler.partition(":")
    words = [*module.replace("-", "_").split("."), *name.split(".")]
    if not colon or not all(word.isidentifier() for word in words):
        raise HandlerError(f"handler '{handler}' is malformed: give module:function")
    return module, name


def load(handler: str, path: str) -> tuple[Any, Any]:
    """Import the module and return (module, function). Raises HandlerError with the user's own traceback."""
    module_name, name = split_handler(handler)
    folder = os.path.dirname(path) if os.path.isfile(path) else path
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = import_module(module_name, path)
    except HandlerError:
        raise
    except BaseException as error:  # noqa: BLE001 - also SystemExit: a module that exits is the user's mistake
        import traceback

        trace = error.__traceback__
        while trace is not None and (
            "metier_worker" in trace.tb_frame.f_code.co_filename or "importlib" in trace.tb_frame.f_code.co_filename
        ):
            trace = trace.tb_next
        lines = "".join(traceback.format_exception(type(error), error, trace))
        raise HandlerError(f"module '{module_name}' could not be imported: {type(error).__name__}: {error}\n{lines}") from None
    target: Any = module
    for word in name.split("."):
        if not hasattr(target, word):
            known = sorted(
                k
                for k, v in vars(module).items()
                if callable(v) and not k.startswith("_") and getattr(v, "__module__", "") == module.__name__
            )
            raise HandlerError(f"module '{module_name}' has no handler '{name}'" + (f"; it has: {', '.join(known)}" if known else ""))
        target = getattr(target, word)
    if not callable(target):
        raise HandlerError(f"'{handler}' cannot be called, its type is {type(target).__name__}")
    check_arguments(handler, target)
    return module, target


def check_arguments(handler: str, target: Any) -> None:
    """Refuse a plain function that every event would fail on: it is called with two arguments."""
    if not isinstance(target, types.FunctionType):
        return
    code = target.__code__
    needs = code.co_argcount - len(target.__defaults__ or ())
    named = set(code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]) - set(target.__kwdefaults__ or ())
    takes_two = needs <= 2 and (code.co_argcount >= 2 or code.co_flags & 0x04)
    if not takes_two or named:
        names = ", ".join(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
        raise HandlerError(f"'{handler}' takes ({names}), and is called with two arguments: write def {target.__name__}(context, event)")


def import_module(name: str, path: str) -> Any:
    """Import by name; a file that is named otherwise (`my-handler.py`) by its path."""
    import importlib

    if os.path.isfile(path) and path.endswith(".py"):
        stem = os.path.splitext(os.path.basename(path))[0]
        if stem == name and not stem.isidentifier():
            return import_file(name, path)
    elif not all(word.isidentifier() for word in name.split(".")):
        return import_file(name, os.path.join(path, *name.split(".")) + ".py")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name.split(".")[0]:
            raise HandlerError(f"there is no module '{name}' in {path or os.getcwd()}") from None
        raise


def import_file(name: str, path: str) -> Any:
    """Import a file whose name is no identifier."""
    import importlib.util

    if not os.path.isfile(path):
        raise HandlerError(f"there is no module '{name}': {path} does not exist")
    module_spec = importlib.util.spec_from_file_location(name.replace("-", "_"), path)
    if module_spec is None or module_spec.loader is None:
        raise HandlerError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module
    module_spec.loader.exec_module(module)
    return module


class Template:
    """The fork server."""

    def __init__(self) -> None:
        self.control = socket.socket(fileno=CONTROL)
        self.control.set_inheritable(False)
        self.init: dict[str, Any] = {}
        self.module: Any = None
        self.handler: Any = None
        self.cold = os.environ.pop("METIER_WORKER_COLD", "")
        self.restored: dict[str, str | None] = {}

    def say(self, **message: Any) -> None:
        """Send one message."""
        self.control.send(json.dumps(message).encode())

    def receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        """Return one message and its descriptors; None at the end."""
        data, rest, _, _ = self.control.recvmsg(1 << 18, socket.CMSG_SPACE(4 * 4), getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        fds = array.array("i")
        for level, kind, payload in rest:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % 4])
        return (json.loads(data) if data else None), list(fds)

    def restore(self) -> None:
        """Give the user's code its own values of what kept the template single-threaded."""
        for name, value in self.restored.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def prepare(self) -> bool:
        """Import what workers need, and the user's module; False when that failed (and was said)."""
        from . import worker

        native = worker.native_ring() is not None
        start = time.monotonic()
        try:
            if self.cold:
                split_handler(self.init["handler"])
            else:
                self.module, self.handler = load(self.init["handler"], self.init.get("path", ""))
        except HandlerError as error:
            self.say(op="failed", message=str(error))
            return False
        worker.sdk_module()  # and what else every worker would import for itself
        if getattr(getattr(self.handler, "__code__", None), "co_flags", 0) & 0x80:
            from . import aio  # noqa: F401 - a coroutine function needs the event loop's modules
        threads = len(os.listdir("/proc/self/task"))
        if threads > 1:
            # A thread cannot be taken back: once more, and the import moves to the workers.
            os.environ["METIER_WORKER_COLD"] = json.dumps({"init": self.init, "threads": threads})
            self.control.set_inheritable(True)
            os.execv(sys.executable, [sys.executable, "-u", "-m", "metier_worker"])
        self.say(op="ready", native=native, cold=bool(self.cold), import_ms=int((time.monotonic() - start) * 1000))
        import gc

        gc.collect()
        gc.freeze()
        return True

    def fork(self, message: dict[str, Any], fds: list[int]) -> None:
        """Fork one worker."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = self.child(message, fds)
            except BaseException:  # noqa: BLE001
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        for fd in fds:
            os.close(fd)
        self.say(op="forked", worker=message["worker"], pid=pid)

    def child(self, message: dict[str, Any], fds: list[int]) -> int:
        """Be a worker."""
        self.control.close()
        self.restore()
        if "random" in sys.modules:
            sys.modules["random"].seed()
        if "numpy" in sys.modules and hasattr(sys.modules["numpy"], "random"):
            sys.modules["numpy"].random.seed()
        if self.init.get("memory"):
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (self.init["memory"], self.init["memory"]))
        from .worker import run_worker

        if self.cold:
            try:
                self.module, self.handler = load(self.init["handler"], self.init.get("path", ""))
            except HandlerError as error:
                print(error, file=sys.stderr)
                return 3
        return run_worker({**self.init, **message}, fds, self.handler, self.module)

    def serve(self) -> int:
        """Fork and reap until the processor has gone, also in the middle of an answer: what a user reads last is not about that."""
        with contextlib.suppress(ConnectionError):
            while self.serve_one():
                pass
        return 0

    def serve_one(self) -> bool:
        """Do what one message asks; False when there are no more."""
        try:
            message, fds = self.receive()
        except OSError:
            return False
        if message is None:
            return False
        if message["op"] == "fork" and len(fds) == 4:
            self.fork(message, fds)
        elif message["op"] == "reap":
            try:
                _, status = os.waitpid(message["pid"], 0)
            except ChildProcessError:
                status = -1
            self.say(op="exit", pid=message["pid"], status=status)
        return True


def main() -> int:
    """Be the template of one function."""
    template = Template()
    if template.cold:
        saved = json.loads(template.cold)
        template.init = saved["init"]
    else:
        message, _ = template.receive()
        if message is None:
            return 0
        template.init = message
        os.environ.update(message.get("variables", {}))
        if message.get("folder"):
            os.chdir(message["folder"])
    for name, value in SINGLE_THREADED.items():
        template.restored[name] = template.init.get("environment", {}).get(name)
        os.environ[name] = value
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != own] + [
        own,
        os.path.join(own, "metier_worker", "compat"),
    ]
    if template.init.get("path"):
        path = template.init["path"]
        sys.path.insert(0, os.path.dirname(path) if os.path.isfile(path) else path)
    kept = [word for word in os.environ.get("PYTHONPATH", "").split(os.pathsep) if word and os.path.abspath(word) != own]
    if not template.cold:
        os.environ["METIER_WORKER_PATH"] = own
    if not template.prepare():
        return 3
    os.environ.pop("METIER_WORKER_PATH", None)
    if kept:
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    else:
        os.environ.pop("PYTHONPATH", None)
    return template.serve()
