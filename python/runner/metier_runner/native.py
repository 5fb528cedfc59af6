"""Native handlers: a shared library over the C table of include/metier/handler.h, called through ctypes.

The structs here mirror that header; only they cross the border. What the library is given lives until its handler returns.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import HandlerMissing, InvalidArgument, NotFound, ProgramMissing, RunnerError
from .values import escape, short

if TYPE_CHECKING:
    from .context import Context

ABI = 1
SYMBOL = "metier_library_v1_table"
MAX_HANDLERS = 10_000
_NONE, _BOOLEAN, _INTEGER, _REAL, _TEXT, _JSON = range(6)
_LEVELS = {10: "debug", 20: "info", 30: "warning", 40: "error"}


class Text(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t))

    def read(self) -> bytes:
        return ctypes.string_at(self.data, self.size) if self.data and self.size else b""

    def text(self) -> str:
        return self.read().decode("utf-8", "replace")


class Value(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("integer", ctypes.c_int64),
        ("real", ctypes.c_double),
        ("text", Text),
    )


_P = ctypes.c_void_p
_I = ctypes.c_int32
_LAST_ERROR = ctypes.CFUNCTYPE(None, _P, ctypes.POINTER(Text))
_VALUE_OF = ctypes.CFUNCTYPE(_I, _P, Text, ctypes.POINTER(Value))
_TEXT_OF = ctypes.CFUNCTYPE(_I, _P, Text, ctypes.POINTER(Text))
_TWO_TEXTS = ctypes.CFUNCTYPE(_I, _P, Text, Text)
_THREE_TEXTS = ctypes.CFUNCTYPE(_I, _P, Text, Text, Text)
_LOG = ctypes.CFUNCTYPE(_I, _P, _I, Text)
_FAIL = ctypes.CFUNCTYPE(None, _P, Text, Text)


class ContextTable(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("self", _P),
        ("last_error", _LAST_ERROR),
        ("get_param", _VALUE_OF),
        ("get_input", _TEXT_OF),
        ("get_secret", _TEXT_OF),
        ("log_result", _VALUE_OF),
        ("log_artifact", _THREE_TEXTS),
        ("log_artifact_file", _TWO_TEXTS),
        ("set_label", _TWO_TEXTS),
        ("log", _LOG),
        ("describe", _VALUE_OF),
        ("fail", _FAIL),
    )


_RUN = ctypes.CFUNCTYPE(_I, ctypes.POINTER(ContextTable))


class Handler(ctypes.Structure):
    pass


Handler._fields_ = (
    ("name", Text),
    ("flags", ctypes.c_uint32),
    ("line", ctypes.c_uint32),
    ("file", Text),
    ("run", _P),
    ("event", _P),
    ("next", ctypes.POINTER(Handler)),
)


class LibraryTable(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("abi", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("compiler", Text),
        ("handlers", ctypes.POINTER(Handler)),
    )


class Library:
    """One loaded library. Raises InvalidArgument with a sentence for what cannot be loaded here."""

    def __init__(self, path: str) -> None:
        if not os.path.isfile(path):
            raise ProgramMissing(f"{short(path)}: no such file (looked in {os.getcwd()})")
        self.path = path
        try:
            self._library = ctypes.CDLL(os.path.abspath(path), mode=os.RTLD_NOW | os.RTLD_LOCAL)
        except OSError as error:
            raise InvalidArgument(f"{short(path)} cannot be loaded: {escape(str(error))}") from None
        function = getattr(self._library, SYMBOL, None)
        if function is None:
            raise InvalidArgument(f"{short(path)} is no library of native handlers (no {SYMBOL}): build it with metier build FILE.cc")
        function.restype, function.argtypes = ctypes.POINTER(LibraryTable), []
        table = function()
        if not table:
            raise InvalidArgument(f"{short(path)} gives no table of handlers")
        if table.contents.abi != ABI or table.contents.size < ctypes.sizeof(LibraryTable):
            raise InvalidArgument(
                f"{short(path)} was built for table version {table.contents.abi}, this metier loads version {ABI}: "
                "build it again with this metier's handler.h"
            )
        self.compiler = table.contents.compiler.text()
        self._handlers: dict[str, Handler] = {}
        entry, count = table.contents.handlers, 0
        while entry and count < MAX_HANDLERS:
            self._handlers.setdefault(entry.contents.name.text(), entry.contents)
            entry, count = entry.contents.next, count + 1

    @property
    def names(self) -> list[str]:
        """The batch handlers, in the order of their definition."""
        return [name for name, entry in reversed(self._handlers.items()) if entry.run]

    @property
    def event_names(self) -> list[str]:
        return [name for name, entry in reversed(self._handlers.items()) if entry.event]

    def check(self, handler: str) -> str:
        """The name of the handler to call; without one the library's only handler is meant."""
        if not handler and len(self.names) == 1:
            return self.names[0]
        if handler in self.names:
            return handler
        place = os.path.basename(self.path)
        if handler in self.event_names:
            raise HandlerMissing(f"{place}: '{handler}' is an event handler, it runs as kind nuclio")
        from .calling import near_names

        near = near_names(handler, self.names)
        hint = f", did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
        asked = f"no handler '{handler}'{hint}" if handler else "several handlers, name one"
        raise HandlerMissing(f"{place}: {asked}\nhandlers in this library: {', '.join(self.names) or 'none'}")

    def call(self, handler: str, context: Context) -> None:
        """Run one handler. Raises NativeFailure with what it said."""
        name = self.check(handler)
        entry = self._handlers[name]
        host = _Host(context)
        answer = ctypes.cast(entry.run, _RUN)(ctypes.byref(host.table))
        if host.raised is not None and not isinstance(host.raised, Exception):
            raise host.raised  # Ctrl-C while a callback ran
        if answer != 0:
            place = f"{os.path.basename(entry.file.text())}:{entry.line}"
            raise NativeFailure(host.failure or f"handler {name} answered {answer} without a reason", name, place, host.failure_type)


class NativeFailure(RunnerError):
    """A native handler failed; the text is its own."""

    def __init__(self, message: str, handler: str, place: str, kind: str) -> None:
        super().__init__(message)
        self.handler, self.place, self.kind = handler, place, kind


_DESCRIBED = ("project", "name", "uid", "artifact_path", "iteration", "rank", "size", "local_rank", "is_logging_worker")


class _Host:
    """The callbacks of one call, and the memory that they hand out."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._kept: list[Any] = []
        self._error = ""
        self.raised: BaseException | None = None
        self.failure = self.failure_type = ""
        self.table = ContextTable(
            size=ctypes.sizeof(ContextTable),
            last_error=_LAST_ERROR(lambda _, out: self._give(out, self._error)),
            get_param=_VALUE_OF(lambda _, key, out: self._do(self._get_param, key.text(), out)),
            get_input=_TEXT_OF(lambda _, key, out: self._do(self._get_input, key.text(), out)),
            get_secret=_TEXT_OF(lambda _, key, out: self._do(self._get_secret, key.text(), out)),
            log_result=_VALUE_OF(lambda _, key, value: self._do(self._log_result, key.text(), value.contents)),
            log_artifact=_THREE_TEXTS(lambda _, key, body, form: self._do(self._log_artifact, key.text(), body.read(), form.text())),
            log_artifact_file=_TWO_TEXTS(lambda _, key, path: self._do(self._log_file, key.text(), os.fsdecode(path.read()))),
            set_label=_TWO_TEXTS(lambda _, key, value: self._do(self._set_label, key.text(), value.text())),
            log=_LOG(lambda _, level, text: self._do(self._log, level, text.text())),
            describe=_VALUE_OF(lambda _, name, out: self._do(self._describe, name.text(), out)),
            fail=_FAIL(lambda _, kind, text: self._fail(kind.text(), text.text())),
        )

    def _do(self, action: Callable[..., None], *arguments: Any) -> int:
        """No exception crosses the border: it becomes 1 and a sentence."""
        try:
            action(*arguments)
            return 0
        except BaseException as error:
            self.raised = error
            self._error = str(error)
            return 1

    def _get_param(self, key: str, out: Any) -> None:
        self._set(out.contents, self._context._parameters.get(key))

    def _get_input(self, key: str, out: Any) -> None:
        if key not in self._context.inputs:
            raise InvalidArgument(f"input '{key}' has no value: give it with -i {key}=...")
        self._give(out, self._context.get_input(key).local())

    def _get_secret(self, key: str, out: Any) -> None:
        value = self._context.get_secret(key)
        if value is None:
            raise NotFound(f"secret '{key}' is not there")
        self._give(out, value)

    def _log_result(self, key: str, value: Value) -> None:
        kind = value.type
        given: Any = None
        if kind == _BOOLEAN:
            given = bool(value.integer)
        elif kind == _INTEGER:
            given = value.integer
        elif kind == _REAL:
            given = value.real
        elif kind == _TEXT:
            given = value.text.text()
        elif kind == _JSON:
            try:
                given = json.loads(value.text.read())
            except (ValueError, RecursionError) as error:
                raise InvalidArgument(f"result '{key}' is not JSON: {error}") from None
        self._context.log_result(key, given)

    def _log_artifact(self, key: str, body: bytes, form: str) -> None:
        self._context.log_artifact(key, body=body, format=form)

    def _log_file(self, key: str, path: str) -> None:
        self._context.log_artifact(key, local_path=path)

    def _set_label(self, key: str, value: str) -> None:
        self._context.set_label(key, value)

    def _log(self, level: int, text: str) -> None:
        getattr(self._context.logger, _LEVELS.get(level, "info"))(text)

    def _describe(self, name: str, out: Any) -> None:
        context = self._context
        self._set(out.contents, getattr(context, name) if name in _DESCRIBED else None)

    def _fail(self, kind: str, text: str) -> None:
        self.failure_type, self.failure = kind, text

    def _set(self, out: Value, value: Any) -> None:
        if isinstance(value, bool):
            out.type, out.integer = _BOOLEAN, int(value)
        elif isinstance(value, int) and -(2**63) <= value < 2**63:
            out.type, out.integer = _INTEGER, value
        elif isinstance(value, float):
            out.type, out.real = _REAL, value
        elif isinstance(value, str):
            out.type, out.text = _TEXT, self._keep(value)
        elif value is None:
            out.type = _NONE
        else:
            out.type, out.text = _JSON, self._keep(json.dumps(value, default=str))

    def _give(self, out: Any, value: str) -> None:
        out.contents.data, out.contents.size = (kept := self._keep(value)).data, kept.size

    def _keep(self, value: str) -> Text:
        data = value.encode("utf-8", "surrogateescape")
        buffer = ctypes.create_string_buffer(data, len(data) or 1)
        self._kept.append(buffer)
        return Text(ctypes.cast(buffer, ctypes.c_void_p), len(data))
