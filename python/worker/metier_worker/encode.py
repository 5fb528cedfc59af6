"""From what a handler returned to an answer: (status, content type, headers, body, flags) of bytes."""

from __future__ import annotations

import struct
import sys
import types
from collections.abc import Iterable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Encoded = tuple[int, bytes, bytes, bytes, int]


class Answer(tuple):  # type: ignore[type-arg]
    """(status, content type, headers, body, flags), encoded by whoever returns it: a serving graph."""

    __slots__ = ()


RAISED = 1
NO_ACK = 2
JSON = b"application/json"
TEXT = b"text/plain"
NO_ACK_HEADER = "x-nuclio-stream-no-ack"


def dumps(value: Any) -> bytes:
    """Return compact-enough JSON as Python's json writes it."""
    import json

    return json.dumps(value).encode("utf-8")


def text_bytes(value: str) -> bytes:
    """Return UTF-8; lone surrogates become what they stood for, or '?'."""
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace")


def header_bytes(headers: Any) -> tuple[bytes, int]:
    """Pack headers; a list or tuple of values repeats the header. Values that are neither text nor number are left out, as Nuclio does."""
    if not headers:
        return b"", 0
    flags = 0
    parts: list[bytes] = []
    if not hasattr(headers, "items") and not isinstance(headers, (list, tuple)):
        raise TypeError(
            f"the response's headers are a {type(headers).__name__}: give a dict (Response's first argument is headers, write Response(body=...))"
        )
    pairs: Iterable[tuple[Any, Any]] = headers.items() if hasattr(headers, "items") else headers
    for name, given in pairs:
        if str(name).lower() == NO_ACK_HEADER:
            if given not in (False, None, "false", "False"):
                flags |= NO_ACK
            continue
        for value in given if isinstance(given, (list, tuple)) else (given,):
            if isinstance(value, bytes):
                encoded = value
            elif isinstance(value, (str, int)) and not isinstance(value, bool):
                encoded = str(value).encode("utf-8")
            else:
                continue
            key = name if isinstance(name, bytes) else str(name).encode("utf-8")
            if not valid_header(key, encoded):
                raise ValueError(f"the response's header {name!r} cannot be sent: names are tokens, values have no control characters")
            parts.append(struct.pack("=II", len(key), len(encoded)) + key + encoded)
    return b"".join(parts), flags


TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def valid_header(name: bytes, value: bytes) -> bool:
    """Whether HTTP can carry it."""
    return bool(name) and all(c in TOKEN for c in name) and not any((c < 32 and c != 9) or c == 127 for c in value)


def body_bytes(body: Any) -> tuple[bytes, bool]:
    """Return a Response's body and whether its type is forced to JSON."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), False
    if isinstance(body, str):
        return text_bytes(body), False
    if isinstance(body, dict):
        return dumps(body), True
    return text_bytes(str(body)), False


def is_stream(value: Any) -> bool:
    """Whether it is sent piece by piece."""
    return isinstance(value, (types.GeneratorType, types.AsyncGeneratorType))


def is_awaitable(value: Any) -> bool:
    """Whether it has to be waited for."""
    return isinstance(value, types.CoroutineType) or hasattr(type(value), "__await__")


def is_response(value: Any) -> bool:
    """Whether it is a Response of any package: by what it has, not by its class."""
    return hasattr(value, "status_code") and hasattr(value, "headers") and hasattr(value, "body") and hasattr(value, "content_type")


class FileAnswer:
    """A Response whose body is a file: `X-nuclio-filestream-path`, removed afterwards with `X-nuclio-filestream-delete-after-send`."""

    def __init__(self, response: Any, path: str, delete: bool) -> None:
        self.status_code = response.status_code
        self.content_type = response.content_type
        self.headers = {k: v for k, v in response.headers.items() if not str(k).lower().startswith("x-nuclio-filestream-")}
        self.body = file_pieces(path, delete)


def file_pieces(path: str, delete: bool) -> Any:
    """Yield a file's bytes."""
    import os

    try:
        with open(path, "rb") as file:
            while piece := file.read(65536):
                yield piece
    finally:
        if delete:
            try:
                os.unlink(path)
            except OSError:
                pass


def with_file(result: Any) -> Any:
    """Return what streams the file that a Response names; (404, text) when there is none; else the result itself."""
    headers = getattr(result, "headers", None)
    if not headers or not hasattr(headers, "items") or not is_response(result):
        return result
    named = {str(k).lower(): v for k, v in headers.items()}
    path = named.get("x-nuclio-filestream-path")
    if path is None:
        return result
    import os

    if not os.path.isfile(str(path)):
        return 404, f"there is no file {path}"
    return FileAnswer(result, str(path), "x-nuclio-filestream-delete-after-send" in named)


def encode(result: Any) -> Encoded:
    """Encode every form that is not streamed; raises what the handler then raised."""
    if type(result) is Answer:
        return result
    if isinstance(result, str):
        return 200, TEXT, b"", text_bytes(result), 0
    if isinstance(result, (bytes, bytearray, memoryview)):
        return 200, TEXT, b"", bytes(result), 0
    if isinstance(result, dict):
        return 200, JSON, b"", dumps(result), 0
    if isinstance(result, list):
        return 200, JSON, b"", dumps(result), 0
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], int):
        status, body = result
        if isinstance(body, str):
            return checked_status(status), TEXT, b"", text_bytes(body), 0
        if isinstance(body, (bytes, bytearray)):
            return checked_status(status), TEXT, b"", bytes(body), 0
        return checked_status(status), JSON, b"", dumps(body), 0
    if is_response(result):
        headers, flags = header_bytes(result.headers)
        body, is_json = body_bytes(result.body)
        kind = JSON if is_json else str(result.content_type or "text/plain").encode("utf-8")
        if not valid_header(b"Content-Type", kind):
            raise ValueError(f"content type {result.content_type!r} cannot be sent: it has control characters")
        return checked_status(result.status_code), kind, headers, body, flags
    return 200, TEXT, b"", text_bytes(str(result)), 0


def checked_status(status: Any) -> int:
    """Return the status; one that HTTP does not have is the handler's error."""
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= int(status) <= 599:
        raise ValueError(f"{status!r} is no status: a handler answers 200 to 599")
    return int(status)


ENGINE = ("/metier_worker/", "/metier_serving/", "<frozen ")


def own_lines(error: BaseException) -> str:
    """Return the traceback of an exception and its causes without the engine's frames; empty when nothing else is in it."""
    import traceback

    parts: list[str] = []
    at: BaseException | None = error
    while at is not None and len(parts) < 8:
        frames = [frame for frame in traceback.extract_tb(at.__traceback__) if not any(name in frame.filename for name in ENGINE)]
        if frames:
            lines = [*traceback.format_list(frames), *traceback.format_exception_only(type(at), at)]
            parts.append("Traceback (most recent call last):\n" + "".join(lines).rstrip("\n"))
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\n".join(reversed(parts))


def failed(error: BaseException, log: Any = None) -> Encoded:
    """Encode an exception: 500, its text and traceback, as Nuclio words it."""
    import traceback

    trace = error.__traceback__
    while trace is not None and any(name in trace.tb_frame.f_code.co_filename for name in ENGINE):
        trace = trace.tb_next  # begin where the handler's own code begins
    lines = "".join(traceback.format_exception(type(error), error, trace))
    if log is not None:
        try:
            log.error_with("Exception caught in handler", err=str(error), traceback=lines)
        except Exception:  # noqa: BLE001 - the answer matters more than the record
            print(lines, file=sys.stderr)
    # An exception that carries an answer (nuclio_sdk.ExceptionWithResponse and alike) is that answer.
    response = getattr(error, "response", None)
    if response is not None and is_response(response):
        try:
            status, kind, headers, body, flags = encode(response)
        except Exception:  # noqa: BLE001, S110 - then it is an exception like any other
            pass
        else:
            return status, kind, headers, body, flags | RAISED
    return 500, TEXT, b"", text_bytes(f'Exception caught in handler - "{error}": {lines}'), RAISED
