"""An exception as the `failure` record: where in the user's code, why, and what to do when that is certain."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import traceback
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from .sinks import JsonDict
from .values import escape, short

if TYPE_CHECKING:
    from .context import Context

MAX_MESSAGE = 4096
MAX_TRACE = 32 * 1024
MAX_SHOWN = 50  # frames
_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep


def describe(error: BaseException, context: Context | None = None, root: str = "") -> JsonDict:
    """The failure record's body. `root` is the folder that file names are shown relative to; never raises."""
    frames = list(_user_frames(_root_cause(error).__traceback__)) or list(_user_frames(error.__traceback__))
    cause = _root_cause(error) if frames and list(_user_frames(_root_cause(error).__traceback__)) else error
    body: JsonDict = {
        "type": type(cause).__name__,
        "message": message_of(cause),
        "file": "",
        "line": 0,
        "function": "",
        "source": "",
        "traceback": _trimmed(error, root),
        "hint": _hint(cause, frames[-1][0] if frames else None, context),
        "code": code_of(cause),
    }
    if isinstance(cause, SyntaxError) and cause.filename:
        body.update(file=_relative(cause.filename, root), line=cause.lineno or 0, source=_around(cause.filename, cause.lineno or 0))
    elif frames:
        frame, line = frames[-1]
        body.update(file=_relative(frame.f_code.co_filename, root), line=line, function=frame.f_code.co_name)
        body["source"] = _around(frame.f_code.co_filename, line)
        body["columns"] = _columns(cause, frame)
        body["called_from"] = [
            {"file": _relative(f.f_code.co_filename, root), "line": n, "function": f.f_code.co_name} for f, n in reversed(frames[:-1][-5:])
        ]
    # What print_whole adds to the log: who shows the short form can leave exactly that out.
    body["log_bytes"] = len(whole(error, context).encode("utf-8", "backslashreplace"))
    body["hidden_frames"] = max(sum(1 for _ in traceback.walk_tb(error.__traceback__)) - len(frames), 0)
    native = getattr(cause, "place", "") if type(cause).__module__ == "metier_runner.native" else ""
    if native:
        file, _, number = native.rpartition(":")
        body.update(type=getattr(cause, "kind", "") or "Error", file=file, line=int(number), function=getattr(cause, "handler", ""))
    if context is not None:
        body = {name: context.mask(value) if isinstance(value, str) else value for name, value in body.items()}
    return body


KEPT_TEXT = "_metier_text"


def keep_text(error: BaseException) -> None:
    """Make an exception's text now, for `message_of` at a time when its `__str__` fails."""
    with contextlib.suppress(Exception):
        error.__dict__[KEPT_TEXT] = str(error)


def message_of(error: BaseException) -> str:
    """The exception's own text, cut and escaped; a text that cannot be made says so."""
    try:
        kept = error.__dict__.get(KEPT_TEXT)
        text = "" if isinstance(error, SystemExit) and error.code is None else str(error) if kept is None else kept
    except BaseException as inner:  # a user's __str__ may do anything
        return f"<its text cannot be made: {type(inner).__name__}>"
    if type(error).__module__.split(".")[0] in ("py4j", "pyspark"):
        text = _of_task(text)
    return escape(text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + f"… ({len(text)} characters)")


def _of_task(text: str) -> str:
    """The user's own exception in what Spark says of a failed task; the whole text is in the log."""
    at = text.rfind("Traceback (most recent call last):")
    for line in text[at:].splitlines()[1:] if at >= 0 else []:
        if line and not line[0].isspace():
            return f"a task failed: {line}"
    return text


def summary(body: JsonDict) -> str:
    """One line for `status.error`."""
    return f"{body['type']}: {body['message']}" if body["message"] else str(body["type"])


def code_of(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "PackageMissing"
    if isinstance(error, SystemExit):
        return "ExitCode"
    return str(getattr(error, "code", "")) if type(error).__module__.startswith("metier_runner") else "HandlerError"


def whole(error: BaseException, context: Context | None = None) -> str:
    """The complete traceback, with secrets masked; what `sys.exit(text)` says is its text alone, as in Python."""
    if isinstance(error, SystemExit):
        said = f"{message_of(error)}\n" if isinstance(error.code, str) else ""
        return context.mask(said) if context is not None else said
    if type(error).__module__.startswith("metier_runner") and not list(_user_frames(error.__traceback__)):
        said = f"error: {message_of(error)}\n"  # our own frames would help nobody
        return context.mask(said) if context is not None else said
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except BaseException:  # the exception's own text may raise
        text = "".join(traceback.format_tb(error.__traceback__)) + f"{type(error).__name__}: {message_of(error)}\n"
    return context.mask(text) if context is not None else text


def print_whole(error: BaseException, context: Context | None = None) -> None:
    """The complete traceback to the log: stderr in a pod, `context.echo` in a foreground interpreter."""
    text = whole(error, context)
    if context is not None and context.echo is not None:
        context.echo(text)
        return
    stream = sys.stderr or sys.__stderr__
    if stream is not None:
        try:
            stream.write(text)
            stream.flush()
        except (OSError, ValueError):
            pass  # the user closed it; the record still tells


def is_user_file(path: str) -> bool:
    """Not ours, not the standard library's, not an installed package's, not generated."""
    if path.startswith("<"):
        return False
    full = os.path.abspath(path)
    return not (full.startswith((_OWN, _STDLIB)) or f"{os.sep}site-packages{os.sep}" in full or f"{os.sep}dist-packages{os.sep}" in full)


def _root_cause(error: BaseException) -> BaseException:
    seen = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if inner is None or error.__cause__ is None:
            return error
        error = inner
    return error


def _user_frames(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    for frame, line in traceback.walk_tb(trace):
        if is_user_file(frame.f_code.co_filename):
            yield frame, line


def _trimmed(error: BaseException, root: str) -> str:
    """A traceback of user frames only, causes first."""
    parts, seen = [], set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        lines = []
        frames = list(_user_frames(current.__traceback__))
        for frame, line in frames[-MAX_SHOWN:]:
            lines.append(f'  File "{_relative(frame.f_code.co_filename, root)}", line {line}, in {frame.f_code.co_name}')
            text = linecache.getline(frame.f_code.co_filename, line).strip()
            lines.extend([f"    {text[:500]}"] if text else [])
        head = ["Traceback (most recent call last):"] if lines else []
        text = message_of(current)
        parts.append("\n".join([*head, *lines, f"{type(current).__name__}: {text}" if text else type(current).__name__]))
        if current.__cause__ is not None:
            parts.append("The above exception was the direct cause of the following exception:")
            current = current.__cause__
        elif current.__context__ is not None and not current.__suppress_context__:
            parts.append("During handling of the above exception, another exception occurred:")
            current = current.__context__
        else:
            current = None
    return "\n\n".join(reversed(parts))[-MAX_TRACE:]


def _around(path: str, line: int, context: int = 2) -> str:
    """The lines around `line` with their numbers: ``20    for step in …``, one a line."""
    lines = linecache.getlines(path)
    first, last = max(line - context, 1), min(line + context, len(lines))
    return "\n".join(f"{n:>4} {lines[n - 1].rstrip()[:500]}" for n in range(first, last + 1))


def _columns(error: BaseException, frame: FrameType) -> list[int]:
    """[first, end) columns of the failing expression, from Python 3.11 on; empty before."""
    trace, found = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame is frame:
            found = trace
        trace = trace.tb_next
    positions = getattr(frame.f_code, "co_positions", None)
    if found is None or positions is None:
        return []
    for index, (line, end_line, column, end_column) in enumerate(positions()):
        if index == found.tb_lasti // 2:
            return [column, end_column] if line == end_line and column is not None and end_column is not None else []
    return []


def _relative(path: str, root: str) -> str:
    if path.startswith("<"):
        return path
    for base in (root, os.getcwd() if os.path.exists(".") else ""):
        if base and os.path.abspath(path).startswith(base.rstrip(os.sep) + os.sep):
            return os.path.relpath(path, base)
    return path


def _hint(error: BaseException, frame: FrameType | None, context: Context | None) -> str:
    """From a fixed table, only where it is certain."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.split(".")[0]
        return f"{environment_name()} has no {package}; add it: --requirements FILE with a line '{package}'"
    if _needs_classic_spark(error):
        return (
            "a Spark Connect session has DataFrames and SQL only; for sparkContext and RDDs start cold: leave spec.warm out "
            "(--set spec.warm=false), or take kind spark or a spark:// service instead of sc://"
        )
    if isinstance(error, MemoryError):
        return "the memory of this pod was not enough, ask for more with --mem"
    if isinstance(error, (TypeError, ValueError)) and frame is not None and context is not None:
        return _text_parameter(frame, context)
    if isinstance(error, FileNotFoundError) and isinstance(error.filename, str) and not os.path.isabs(error.filename):
        return f"relative paths are looked up in {os.getcwd()}"
    return ""


def _needs_classic_spark(error: BaseException) -> bool:
    """PySpark's own words for what a Connect session does not have."""
    if not os.environ.get("SPARK_REMOTE") or type(error).__module__.split(".")[0] != "pyspark":
        return False
    condition = getattr(error, "getCondition", None) or getattr(error, "getErrorClass", None)
    known = ("JVM_ATTRIBUTE_NOT_SUPPORTED", "CONTEXT_UNAVAILABLE_FOR_REMOTE_CLIENT", "UNSUPPORTED_OPERATION")
    return callable(condition) and condition() in known


def environment_name() -> str:
    """What this run runs in, as messages name it."""
    name = os.environ.get("METIER_ENVIRONMENT") or os.path.basename(sys.prefix) or sys.prefix
    return f"environment '{name}' (Python {sys.version_info[0]}.{sys.version_info[1]})"


def _text_parameter(frame: FrameType, context: Context) -> str:
    """A text parameter that the failing frame holds and its failing line names."""
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    for name, value in context._parameters.items():
        if not isinstance(value, str):
            continue
        for local, held in list(frame.f_locals.items()):
            if held is value and local in line:
                return f"parameter {name} was passed as the text {short(value)}; numbers look like -p {name}=0.1"
    return ""


def exit_code_of(error: BaseException) -> int:
    """The exit code as Python would give it."""
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        return error.code & 0xFF if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 130
    code: Any = getattr(error, "exit_code", None)
    return int(code) if isinstance(code, int) and type(error).__module__.startswith("metier_runner") else 1
