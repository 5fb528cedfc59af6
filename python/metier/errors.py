"""One family of exceptions, one class for each kind of error; attributes instead of text to parse.

Where the ``mlrun`` package is already imported, the exceptions raised are also instances of MLRun's own
classes (``MLRunInvalidArgumentError``…), so that code written for it keeps working.
"""

from __future__ import annotations

import sys
from typing import Any


class Error(Exception):
    """Base of all errors of metier.

    Parameters
    ----------
    message : str
        What is wrong, with the value quoted.
    reason : str
        Stable reason code (``"NeverFits"``), may be empty.
    field : str
        Path of the field that is wrong, may be empty.
    fix : str
        What is allowed, or the command to run, may be empty.
    run : object
        The run that failed, when there is one.
    """

    kind = "internal"
    mlrun_class = "MLRunRuntimeError"

    def __init__(self, message: str, reason: str = "", field: str = "", fix: str = "", run: Any = None) -> None:
        self.message = message
        self.reason = reason
        self.field = field
        self.fix = fix
        self.run = run
        first = f"{field}: {message}" if field else message
        super().__init__(f"{first}\n{fix}" if fix else first)


class InvalidError(Error, ValueError):
    """The request is wrong: a name, a quantity, a field."""

    kind = "invalid"
    mlrun_class = "MLRunInvalidArgumentError"


class NotFoundError(Error, LookupError):
    """No such run, function, artifact, project, secret or file."""

    kind = "not_found"
    mlrun_class = "MLRunNotFoundError"


class ConflictError(Error):
    """It exists already, or has changed meanwhile."""

    kind = "conflict"
    mlrun_class = "MLRunConflictError"


class PreconditionError(Error):
    """Something must be done first."""

    kind = "precondition"
    mlrun_class = "MLRunPreconditionFailedError"


class DeniedError(Error, PermissionError):
    """Not allowed, or no valid token."""

    kind = "denied"
    mlrun_class = "MLRunAccessDeniedError"


class UnsupportedError(Error, NotImplementedError):
    """This build or site cannot do it; the message says why."""

    kind = "unsupported"
    mlrun_class = "MLRunNotImplementedServerError"


class ExhaustedError(Error):
    """It can never fit here; the message says what there is."""

    kind = "exhausted"
    mlrun_class = "MLRunBadRequestError"


class UnavailableError(Error, ConnectionError):
    """Nobody answers now; try later."""

    kind = "unavailable"
    mlrun_class = "MLRunServiceUnavailableError"


class TimedOutError(Error, TimeoutError):
    """The time was over before the answer came."""

    kind = "timed_out"
    mlrun_class = "MLRunTimeoutError"


class CancelledError(Error):
    """The run was aborted."""

    kind = "cancelled"
    mlrun_class = "MLRunTaskCancelledError"


class UserCodeError(Error):
    """The function itself failed; ``run.status`` has the details, the log the whole traceback."""

    kind = "user_code"
    mlrun_class = ""


class InternalError(Error):
    """A bug of metier."""


_CLASSES: dict[str, type[Error]] = {
    c.kind: c
    for c in (
        InvalidError,
        NotFoundError,
        ConflictError,
        PreconditionError,
        DeniedError,
        UnsupportedError,
        ExhaustedError,
        UnavailableError,
        TimedOutError,
        CancelledError,
        UserCodeError,
        InternalError,
    )
}
_CLASSES["unauthorized"] = DeniedError
_CLASSES["too_large"] = InvalidError
_BY_STATUS = {
    400: "invalid",
    401: "unauthorized",
    403: "denied",
    404: "not_found",
    409: "conflict",
    412: "precondition",
    413: "too_large",
    501: "unsupported",
    503: "unavailable",
    504: "timed_out",
}
_joined: dict[type[Error], type[Error]] = {}


def _with_mlrun(cls: type[Error]) -> type[Error]:
    mlrun_errors = sys.modules.get("mlrun.errors")
    base = getattr(mlrun_errors, cls.mlrun_class, None) if cls.mlrun_class else None
    if cls is UserCodeError:
        base = getattr(sys.modules.get("mlrun.runtimes.utils"), "RunError", None)
    if base is None:
        return cls
    if cls not in _joined:
        try:
            _joined[cls] = type(cls.__name__, (cls, base), {"__module__": cls.__module__})
        except TypeError:  # layouts that do not mix
            _joined[cls] = cls
    return _joined[cls]


def make_error(kind: str, message: str, reason: str = "", field: str = "", fix: str = "", run: Any = None) -> Error:
    """The exception for an error kind of the engine (``"invalid"``, ``"not_found"``…)."""
    cls = _with_mlrun(_CLASSES.get(kind, InternalError))
    return cls(message, reason, field, fix, run)


def error_of_answer(status: int, detail: Any) -> Error:
    """The exception for an HTTP answer ``{"detail": …}``."""
    kind = _BY_STATUS.get(status, "internal")
    if isinstance(detail, dict):
        return make_error(
            str(detail.get("kind") or kind),
            str(detail.get("reason", detail)),
            str(detail.get("code", "")),
            str(detail.get("field", "")),
            str(detail.get("fix", "")),
        )
    return make_error(kind, str(detail))
