"""Steps of shared libraries (``include/metier/step.h``): ``handler="steps.so:name"``. The engine calls them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import _engine
from .errors import GraphError


class StepFailed(RuntimeError):
    """A native step failed; the text is the library's."""


def native_step(name: str, step: str) -> Callable[[Any], Any]:
    """The function of a library. GraphError when there is no such file or function in it."""
    path, _, function = name.rpartition(":")
    field = f"graph.steps.{step}.handler"
    found = next((p for p in (Path(path), *(Path(folder) / path for folder in sys.path)) if p.is_file()), None)
    if found is None:
        fix = "`metier build` makes it of a .cc file; it lies beside the function's code, or has an absolute path"
        raise GraphError(f"step '{step}': there is no library '{path}'", field, fix)
    try:
        call: Callable[[Any], Any] = _engine.library_step(str(found.resolve()), function, step, StepFailed)
    except LookupError:
        fix = f"METIER_STEP({function}, ...) in its code defines it"
        raise GraphError(f"step '{step}': '{path}' has no step '{function}'", field, fix) from None
    except OSError as error:
        raise GraphError(f"step '{step}': '{path}' cannot be loaded: {error}", field) from None
    return call
