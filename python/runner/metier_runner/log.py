"""The logger of a context: one line an event on stdout, MLRun's form, fields as JSON; a line cannot be forged by its text."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from .values import escape, short

LEVELS = {"debug": 10, "info": 20, "warning": 30, "warn": 30, "error": 40, "critical": 50}


class Logger:
    def __init__(self, level: str = "info", clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.level = "info"
        self.set_logger_level(level)

    def set_logger_level(self, level: str) -> None:
        self.level = level.lower() if level and level.lower() in LEVELS else "info"

    def debug(self, message: object, *args: object, **fields: Any) -> None:
        self._log("debug", message, args, fields)

    def info(self, message: object, *args: object, **fields: Any) -> None:
        self._log("info", message, args, fields)

    def warning(self, message: object, *args: object, **fields: Any) -> None:
        self._log("warning", message, args, fields)

    warn = warning

    def error(self, message: object, *args: object, **fields: Any) -> None:
        self._log("error", message, args, fields)

    def critical(self, message: object, *args: object, **fields: Any) -> None:
        self._log("critical", message, args, fields)

    def exception(self, message: object, *args: object, **fields: Any) -> None:
        import traceback

        fields["exc_info"] = traceback.format_exc()
        self._log("error", message, args, fields)

    def get_child(self, name: str) -> Logger:
        return self

    def _log(self, level: str, message: object, args: tuple[object, ...], fields: dict[str, Any]) -> None:
        out = sys.stdout
        if LEVELS[level] < LEVELS[self.level] or out is None:
            return
        text = str(message)
        if args:
            try:
                text = text % args
            except (TypeError, ValueError):
                text = f"{text} {' '.join(short(arg) for arg in args)}"
        text = escape(text).replace("\n", "\\n")
        at = self._clock()
        line = f"> {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))},{int(at % 1 * 1000):03d} [{level}] {text}"
        if fields:
            line += " " + json.dumps(fields, default=short, ensure_ascii=False)
        out.write(line + "\n")
        out.flush()
