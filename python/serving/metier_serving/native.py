"""Steps of shared libraries (``include/metier/step.h``): ``handler="steps.so:name"``."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import _engine
from .errors import GraphError


class _Result(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("release", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    ]


class StepFailed(RuntimeError):
    """A native step failed; the text is the library's."""


def native_step(name: str, step: str) -> Callable[[Any], Any]:
    """The function of a library. GraphError when there is no such file or function in it."""
    path, _, function = name.rpartition(":")
    found = next((p for p in (Path(path), *(Path(folder) / path for folder in sys.path)) if p.is_file()), None)
    if found is None:
        raise GraphError(f"step '{step}': there is no library '{path}'", f"graph.steps.{step}.handler")
    try:
        library = ctypes.CDLL(str(found.resolve()))
    except OSError as error:
        raise GraphError(f"step '{step}': '{path}' cannot be loaded: {error}", f"graph.steps.{step}.handler") from None
    try:
        call = getattr(library, f"metier_step_v1_{function}")
    except AttributeError:
        raise GraphError(
            f"step '{step}': '{path}' has no step '{function}'",
            f"graph.steps.{step}.handler",
            f"METIER_STEP({function}, ...) in its code defines it",
        ) from None
    call.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(_Result)]
    call.restype = ctypes.c_int32

    def run(body: Any) -> Any:
        text = body if isinstance(body, bytes) else (body if isinstance(body, str) else _engine.dumps(body)).encode()
        out = _Result()
        status = call(text, len(text), ctypes.byref(out))
        if status == 2:
            raise MemoryError(f"step '{step}'")
        try:
            answer = ctypes.string_at(out.data, out.size)
        finally:
            out.release(out.data)
        if status != 0:
            raise StepFailed(answer.decode("utf-8", "replace"))
        try:
            return _engine.loads(answer)
        except ValueError:
            return answer

    return run
