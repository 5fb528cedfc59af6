"""Errors of the runner. Each names the thing, the value and the rule; `code` is the reason code of the failure record."""

from __future__ import annotations


class RunnerError(Exception):
    """The run cannot go on; the text says what is wrong and how to mend it."""

    code = "HandlerError"


class UsageError(RunnerError):
    """The command line or the run's description is wrong (exit 2)."""

    code = "InvalidParameter"


class InvalidArgument(RunnerError, ValueError):
    """A value given by the run or by user code breaks a rule."""

    code = "InvalidParameter"


class InvalidArgumentType(InvalidArgument, TypeError):
    """A value has the wrong type."""


class HandlerMissing(RunnerError):
    """The file or module has no such handler."""

    code = "HandlerMissing"


class ProgramMissing(RunnerError):
    """The program or file that the run should execute is not there."""

    code = "ProgramMissing"


class SourceRefused(RunnerError):
    """A source archive or repository breaks a safety rule or cannot be read."""

    code = "InvalidParameter"


class NotFound(RunnerError):
    """An artifact, object or file is not there."""


class ServerError(RunnerError):
    """The server answered with an error, or did not answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class ProgramFailed(RunnerError):
    """A program ended with a non-zero exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
