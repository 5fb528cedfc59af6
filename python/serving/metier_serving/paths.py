"""``input_path`` and ``result_path``: dotted places in a body."""

from __future__ import annotations

from typing import Any


def get_path(path: str | None, body: Any) -> Any:
    """The value at the path; None when a member is missing."""
    if not path:
        return body
    for key in path.split("."):
        if body is None:
            return None
        if hasattr(body, "get"):
            body = body.get(key)
        else:
            body = body[key]
    return body


def put_path(path: str | None, body: Any, value: Any) -> Any:
    """The body with the value put at the path; the value itself without a path or body."""
    if not path or not body:
        return value
    at = body
    *parents, last = path.split(".")
    for key in parents:
        if key not in at:
            at[key] = {}
        at = at[key]
    at[last] = value
    return body
