"""One rank of an MPI job: ``python -m metier_runner.rank mlrun run …``, ``… FILE ARGS``, ``… -m MODULE ARGS``, ``… -c CODE ARGS``.

An exception in one rank must end that rank at once. Python's own way out goes through MPI_Finalize (mpi4py calls it at exit),
which waits for the other ranks: they wait for this one, and nobody ends. So a rank that failed leaves without it, and mpirun
ends the others.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def main(words: list[str]) -> int:
    """Run `words` (``mlrun`` with its arguments, or what Python's command line can name); return 0 or do not return at all."""
    _show_stacks()
    code = 1
    try:
        path = words[0]
        if path == "mlrun":
            path = _real_mlrun()
            if path and os.environ.get("METIER_RANK", "0") != "0":
                _let_rank_0_log()
        if not path:
            from .command import main as command_main

            code = command_main(words)
        else:
            _run_as_python(path, words[1:])
            code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    if code:
        _leave(code)
    return 0


def _run_as_python(what: str, words: list[str]) -> None:
    """As ``python WHAT WORDS`` would: a file, a folder or archive with ``__main__.py``, ``-m MODULE``, ``-c CODE``."""
    if what == "-m":
        import runpy

        sys.argv = words  # its first becomes the module's file
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)  # the current folder is on the path already
        return
    form = "code" if what == "-c" else _form(what)
    safe = getattr(sys.flags, "safe_path", False)  # -P: no folder of the program's is on the path
    if not safe:
        del sys.path[0]
    if form == "archive":
        sys.path.insert(0, os.path.abspath(what))
    elif not safe:
        sys.path.insert(0, "" if form == "code" else os.path.dirname(os.path.realpath(what)))
    if form == "text":
        from .program import run_as_main

        run_as_main(what, words)
    elif form == "compiled":
        from importlib.machinery import SourcelessFileLoader

        _run_code(SourcelessFileLoader("__main__", what).get_code("__main__"), [what, *words], __file__=what)
    elif form == "archive":
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec("__main__", [sys.path[0]])
        loader: Any = spec and spec.loader
        if spec is None or not hasattr(loader, "get_code"):
            sys.exit(f"can't find '__main__' module in {what!r}")
        _run_code(loader.get_code("__main__"), [what, *words], __file__=spec.origin, __package__="", __spec__=spec)
    else:
        _run_code(compile(words[0], "<string>", "exec", dont_inherit=True), ["-c", *words[1:]])


def _run_code(code: Any, argv: list[str], **attributes: Any) -> None:
    main = ModuleType("__main__")
    main.__dict__.update(attributes, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    sys.argv = argv
    exec(code, main.__dict__)


def _form(path: str) -> str:
    """What a file is: text, compiled, or an archive (a folder too). One that is not there is text: opening it says so."""
    if os.path.isdir(path):
        return "archive"
    if path.endswith(".pyc"):
        return "compiled"
    try:
        with open(path, "rb") as stream:
            head = stream.read(2)
    except OSError:
        return "text"
    if head not in (b"PK", b"#!"):
        return "text"
    import zipfile

    return "archive" if zipfile.is_zipfile(path) else "text"


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # closed or full: it must not keep us here
    os._exit(code & 0xFF)


def _real_mlrun() -> str:
    """The mlrun package's own program, when the environment has one."""
    import shutil

    from .program import is_python

    path = shutil.which("mlrun") or ""
    return path if path and is_python(path) else ""


def _let_rank_0_log() -> None:
    """The mlrun package lets every rank write the run's results, the last one wins: here only what went wrong is told."""
    import importlib

    try:
        MLClientCtx = importlib.import_module("mlrun.execution").MLClientCtx
    except ImportError:
        return
    whole = getattr(MLClientCtx, "_get_updates", None)
    if whole is None:
        return

    def updates(self: Any) -> Any:
        told = whole(self)
        kept = ("status.error", "status.last_update")
        return {k: v for k, v in told.items() if k in kept or (k == "status.state" and v == "error")}

    MLClientCtx._get_updates = updates


def _show_stacks() -> None:
    """On a signal that nothing else uses, write every thread's stack to a file of the pod: for `metier why`."""
    number = signal.SIGRTMIN + 11
    journal = os.environ.get("METIER_JOURNAL", "")
    try:
        if journal:
            folder, rank = os.path.dirname(journal), os.environ.get("METIER_RANK", "0")
            target = open(os.path.join(folder, f"stack.rank-{rank}"), "w")  # noqa: SIM115
            faulthandler.register(number, file=target, all_threads=True)
            _kept.append(target)
            # Which process this is, and since when: its environment may be closed to who asks.
            with open("/proc/self/stat") as own, open(os.path.join(folder, f"rank-{rank}.pid"), "w") as told:
                told.write(f"{os.getpid()} {own.read().rpartition(')')[2].split()[19]}\n")
    except (OSError, ValueError, RuntimeError):
        pass  # why then says less


_kept: list[object] = []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
