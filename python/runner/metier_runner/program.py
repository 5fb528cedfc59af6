"""Code that is run whole: a Python file as ``__main__``, and programs as child processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .errors import InvalidArgument, ProgramFailed, ProgramMissing
from .values import short


def run_as_main(path: str, arguments: list[str], ready: Callable[[], None] = lambda: None) -> None:
    """Execute a Python file as ``python FILE ARGS`` would, in this process.

    Compiled and executed in a new ``__main__`` module, which stays: functions defined there are found by pickle and by
    forked process pools. `runpy` would throw the module away. `ready` is called between compiling and executing.
    """
    full = os.path.abspath(path)
    with open(full, "rb") as stream:
        code = compile(stream.read(), full, "exec", dont_inherit=True)
    module = ModuleType("__main__")
    module.__file__ = full
    module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = module
    sys.argv = [path, *arguments]
    ready()
    exec(code, module.__dict__)


def fill(text: str, parameters: dict[str, Any]) -> str:
    """``{param}`` placeholders replaced from the run's parameters; ``{{`` and ``}}`` are literal braces.

    Raises InvalidArgument for a name that is no parameter. Attributes and indexes of values are not reachable.
    """
    out, position = [], 0
    while position < len(text):
        char = text[position]
        if char in "{}" and text[position : position + 2] == char * 2:
            out.append(char)
            position += 2
        elif char == "{":
            end = text.find("}", position)
            name = text[position + 1 : end] if end > 0 else ""
            if end < 0 or name not in parameters:
                known = ", ".join(sorted(parameters)) or "none"
                raise InvalidArgument(f"placeholder {{{name}}} in {short(text)} is no parameter of this run (parameters: {known})")
            out.append(str(parameters[name]))
            position = end + 1
        else:
            out.append(char)
            position += 1
    return "".join(out)


def is_python(path: str) -> bool:
    """Whether a command without mode is a Python file: by name, else by not being executable in another way."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in (".py", ".pyw", ".pyc"):
        return True
    if suffix in (".sh", ".bash") or not os.path.isfile(path):
        return False
    with open(path, "rb") as stream:
        head = stream.read(128)
    if head.startswith(b"#!"):
        return b"python" in head.split(b"\n")[0]
    return not head.startswith(b"\x7fELF")


def _missing(program: str, path: str) -> str:
    """Which program is not there, and where it was looked for."""
    import shutil

    if "/" not in program:
        found = shutil.which(program, path=path)
        if found is None:
            return f"program {short(program)} is not there (looked in PATH {path})"
        program = found
    if os.path.exists(program):  # the kernel says the same of a script whose interpreter is not there
        return f"the interpreter that the first line of {short(program)} names is not there"
    looked = "" if os.path.isabs(program) else f" (looked in {os.getcwd()})"
    return f"program {short(program)} is not there{looked}"


def run_program(argv: list[str], environment: dict[str, str]) -> None:
    """Run a program to its end with our streams. Raises ProgramFailed on any non-zero exit code.

    SIGTERM and SIGINT are passed on, so that the program decides how to end.
    """
    import signal
    import subprocess

    if argv[0].endswith((".sh", ".bash")) and os.path.isfile(argv[0]) and not os.access(argv[0], os.X_OK):
        argv = ["bash" if argv[0].endswith(".bash") else "sh", *argv]
    sys.stdout.flush()
    try:
        process = subprocess.Popen(argv, env=environment)
    except FileNotFoundError:
        raise ProgramMissing(_missing(argv[0], environment.get("PATH", os.defpath))) from None
    except PermissionError:
        raise InvalidArgument(f"program {short(argv[0])} may not be executed: chmod +x, or name its interpreter") from None
    except OSError as error:
        raise InvalidArgument(f"program {short(argv[0])} cannot be executed: {error.strerror}") from None
    previous: list[tuple[int, Any]] = []
    try:
        for number in (int(signal.SIGTERM), int(signal.SIGINT)):
            previous.append((number, signal.signal(number, lambda received, _: process.send_signal(received))))
    except ValueError:
        pass  # not the main thread: signals do not come here
    try:
        code = process.wait()
    finally:
        for number, handler in previous:
            signal.signal(number, handler)
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.Signals._value2member_map_ else str(-code)
        raise ProgramFailed(f"{short(argv[0])} was killed by signal {name}", 128 - code)
    if code:
        raise ProgramFailed(f"{short(argv[0])} ended with exit code {code}", code)
