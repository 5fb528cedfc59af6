"""Turning what user code logs into JSON values: bounded, without losing anything silently."""

from __future__ import annotations

import math
import re
from typing import Any

from .errors import InvalidArgument, InvalidArgumentType

MAX_DEPTH = 100  # the server reads documents of depth 128
MAX_TEXT = 256 * 1024  # of one value: what is larger is an artifact
MAX_ITEMS = 100_000
MAX_KEY = 256
_INT_LOW, _INT_HIGH = -(2**63), 2**64 - 1
_SIMPLE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def check_key(key: object, what: str = "result") -> str:
    """Return `key` when it may name a result, a label or an artifact; raise InvalidArgument with the rule otherwise."""
    if not isinstance(key, str):
        raise InvalidArgumentType(f"{what} key {short(key)} is {type(key).__name__}, it must be text")
    if not key:
        raise InvalidArgument(f"{what} key is empty, give it a name")
    if len(key) > MAX_KEY:
        raise InvalidArgument(f"{what} key {short(key)} has {len(key)} characters, at most {MAX_KEY} are allowed")
    if "\\" in key or _CONTROL.search(key) or "\n" in key or "\t" in key:
        raise InvalidArgument(f"{what} key {short(key)} contains a backslash or a control character")
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidArgument(f"{what} key {short(key)} is not valid Unicode text") from None
    return key


def dotted(prefix: str, key: str) -> str:
    """The PATCH path of `key` below `prefix`; keys with dots are put between backslashes (MLRun's literal mode)."""
    return f"{prefix}.{key}" if _SIMPLE_KEY.match(key) else f"{prefix}.\\{key}\\"


def short(value: object, limit: int = 160) -> str:
    """A short, printable form of any value, cut in the middle (paths end in what matters); never raises."""
    try:
        text = repr(value)
    except Exception:  # a user's __repr__ may do anything
        text = f"<{type(value).__name__}>"
    text = escape(text)
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-(limit // 2) :]}"


def escape(text: str) -> str:
    """Control characters (terminal escapes, NUL) as ``\\x1b``; newlines and tabs stay."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROL.sub(lambda m: f"\\x{ord(m.group()):02x}", text)


def to_json(value: Any, key: str, what: str = "result") -> Any:
    """The JSON form of a logged value.

    numpy scalars and arrays become numbers and lists; integers beyond 64 bits, non-finite numbers and everything JSON cannot
    hold become their text. Raises InvalidArgument, naming `key`, for what is too large, too deep or contains itself.
    """
    return _convert(value, f"{what} '{escape(key)[:80]}'", 0, set(), [0])


def _convert(value: Any, where: str, depth: int, parents: set[int], count: list[int]) -> Any:
    count[0] += 1
    if count[0] > MAX_ITEMS:
        raise InvalidArgument(f"{where} has more than {MAX_ITEMS} values, log it as an artifact or a dataset")
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return _text(value, where)
    if kind is int:
        return value if _INT_LOW <= value <= _INT_HIGH else _big_integer(value, where)
    if kind is float:
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        return _container(value, where, depth, parents, count)
    if isinstance(value, (str, int, float)):  # subclasses: enums, numpy.float64, numpy.str_
        plain: Any = str.__str__(value) if isinstance(value, str) else (int(value) if isinstance(value, int) else float(value))
        return _convert(plain, where, depth, parents, count)
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        if getattr(value, "size", 1) > MAX_ITEMS:
            raise InvalidArgument(f"{where} is an array of {value.size} values, log it as an artifact or a dataset")
        listed = value.tolist()
        return _text(_user_text(listed, where), where) if type(listed) is kind else _convert(listed, where, depth, parents, count)
    return _text(_user_text(value, where), where)


def _container(value: Any, where: str, depth: int, parents: set[int], count: list[int]) -> Any:
    if depth >= MAX_DEPTH:
        raise InvalidArgument(f"{where} is nested deeper than {MAX_DEPTH} levels")
    if id(value) in parents:
        raise InvalidArgument(f"{where} contains itself")
    parents.add(id(value))
    try:
        if isinstance(value, dict):
            return {
                _text(name if isinstance(name, str) else _user_text(name, where), where): _convert(item, where, depth + 1, parents, count)
                for name, item in value.items()
            }
        return [_convert(item, where, depth + 1, parents, count) for item in value]
    finally:
        parents.discard(id(value))


def _text(value: str, where: str) -> str:
    if len(value) > MAX_TEXT:
        raise InvalidArgument(f"{where} is a text of {len(value)} characters, at most {MAX_TEXT} are allowed: log it as an artifact")
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _big_integer(value: int, where: str) -> str:
    if value.bit_length() > 13_000:  # Python itself refuses the text of larger ones
        raise InvalidArgument(f"{where} is an integer of {value.bit_length()} bits, at most 13000 are allowed")
    return str(value)


def _user_text(value: object, where: str) -> str:
    try:
        return str(value)
    except Exception as error:
        raise InvalidArgument(f"{where}: the text of a {type(value).__name__} cannot be made ({type(error).__name__})") from error
