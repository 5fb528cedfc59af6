"""`returns=` log hints: what a handler returned becomes results and artifacts (MLRun's packaging, with its defaults)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from .errors import InvalidArgument, InvalidArgumentType
from .sinks import JsonDict
from .values import short

if TYPE_CHECKING:
    from .context import Context

TYPES = ("object", "path", "file", "dataset", "model", "plot", "result", "artifact", "table")
_PLAIN = (bool, int, float, str, type(None), complex)


def parse_hint(hint: Any) -> JsonDict | None:
    """``"key"``, ``"key : type"`` or a dict with `key`; None skips its value."""
    if hint is None:
        return None
    if isinstance(hint, dict):
        if not isinstance(hint.get("key"), str) or not hint["key"]:
            raise InvalidArgument(f"returns: {short(hint)} has no 'key'")
        made = dict(hint)
    elif isinstance(hint, str):
        parts = [part.strip() for part in hint.split(":")]
        if len(parts) > 2 or not all(parts):
            raise InvalidArgument(f"returns: {short(hint)} is not 'key' or 'key : type'")
        made = {"key": parts[0], **({"artifact_type": parts[1]} if len(parts) == 2 else {})}
    else:
        raise InvalidArgumentType(f"returns: {short(hint)} is {type(hint).__name__}, it must be text, an object or null")
    kind = made.get("artifact_type")
    if kind is not None and kind not in TYPES:
        raise InvalidArgument(f"returns: type '{kind}' of '{made['key']}' is unknown, types are {', '.join(TYPES)}")
    return made


def log_returned(context: Context, value: Any, hints: list[Any]) -> None:
    """Keep what a handler returned.

    Without hints a true value becomes the result ``return``. With hints a tuple is spread over them; a wrong count or a value
    that cannot be packed is a warning, not a failure of the run.
    """
    if not hints:
        if value:
            context.log_result("return", value)
        return
    if not context.is_logging_worker:
        return
    parsed = [parse_hint(hint) for hint in hints]
    values = list(value) if isinstance(value, tuple) and (len(parsed) > 1 or len(value) == 1) else [value]
    if len(values) != len(parsed):
        context.logger.warning(f"the handler returned {len(values)} values, returns names {len(parsed)}: the first ones are paired")
    for one, hint in zip(values, parsed):
        if hint is None:
            continue
        try:
            pack(context, one, hint)
        except Exception as error:
            context.logger.warning(f"returned value '{hint['key']}' could not be kept: {type(error).__name__}: {error}")


def pack(context: Context, value: Any, hint: JsonDict) -> None:
    """Keep one value under its hint; the type of the value decides where the hint does not."""
    extra = {name: item for name, item in hint.items() if name not in ("key", "artifact_type")}
    key, kind = hint["key"], hint.get("artifact_type") or default_type(value)
    if kind == "result":
        context.log_result(key, value)
    elif kind == "dataset":
        context.log_dataset(key, _frame(value), **extra)
    elif kind in ("file", "artifact"):
        _log_file(context, key, value, extra)
    elif kind == "path":
        _log_path(context, key, value, extra)
    elif kind == "plot":
        context.log_artifact(key, body=_figure(value), **extra)
    elif kind == "model":
        _log_model(context, key, value, extra)
    elif kind == "table":
        from .artifacts import TableArtifact

        context.log_artifact(TableArtifact(key, df=value) if hasattr(value, "columns") else TableArtifact(key, value), **extra)
    else:
        _log_object(context, key, value, extra)


def default_type(value: Any) -> str:
    """The artifact type that a value gets without a hint."""
    if isinstance(value, _PLAIN):
        return "result"
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        inside = list(value.values()) if isinstance(value, dict) else list(value)
        return "file" if inside and any(_is_array(item) for item in inside) else "result"
    if _is_array(value):
        return "file"
    module = type(value).__module__
    if module.startswith("numpy"):
        return "result"
    if hasattr(value, "columns") and (hasattr(value, "to_csv") or hasattr(value, "write_csv") or hasattr(value, "toPandas")):
        return "dataset"
    if module.startswith("pandas") and type(value).__name__ == "Series":
        return "file"
    if hasattr(value, "savefig") or (hasattr(value, "to_plotly_json") and hasattr(value, "to_html")):
        return "plot"
    if isinstance(value, os.PathLike):
        return "path"
    if hasattr(value, "fit") and hasattr(value, "predict"):
        return "model"
    if isinstance(value, (bytes, bytearray)):
        return "result"
    return "object"


def _is_array(value: Any) -> bool:
    return type(value).__module__ == "numpy" and type(value).__name__ == "ndarray"


def _frame(value: Any) -> Any:
    if hasattr(value, "columns"):
        return value
    import importlib

    pandas = importlib.import_module("pandas")
    return value.to_frame() if hasattr(value, "to_frame") else pandas.DataFrame(value)


def _figure(value: Any) -> Any:
    return value.figure if not hasattr(value, "savefig") and hasattr(value, "figure") else value


def _log_file(context: Context, key: str, value: Any, extra: JsonDict) -> None:
    if isinstance(value, (str, os.PathLike)) and os.path.isfile(value):
        context.log_artifact(key, local_path=os.fspath(value), **extra)
        return
    import io

    if _is_array(value) or _holds_arrays(value):
        numpy = sys.modules["numpy"]
        binary = io.BytesIO()
        if _is_array(value):
            numpy.save(binary, value, allow_pickle=False)
        else:
            parts = value if isinstance(value, dict) else {str(n): item for n, item in enumerate(value)}
            numpy.savez(binary, **{str(name): item for name, item in parts.items()})
        body, format = binary.getvalue(), "npy" if _is_array(value) else "npz"
    elif hasattr(value, "to_frame"):
        body, format = value.to_frame().to_csv().encode("utf-8"), "csv"
    elif hasattr(value, "to_csv"):
        body, format = value.to_csv(index=False).encode("utf-8"), "csv"
    elif isinstance(value, (str, bytes, bytearray)):
        body = value.encode("utf-8") if isinstance(value, str) else bytes(value)
        format = str(extra.pop("file_format", "txt" if isinstance(value, str) else "bin"))
    else:
        from .sinks import encode
        from .values import to_json

        body, format = encode(to_json(value, key)), "json"
    context.log_artifact(key, body=body, format=format, **extra)


def _holds_arrays(value: Any) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else ()
    return bool(inside) and any(_is_array(item) for item in inside)


def _log_path(context: Context, key: str, value: Any, extra: JsonDict) -> None:
    path = os.fspath(value)
    context.log_artifact(key, local_path=path, **extra)


def _log_model(context: Context, key: str, value: Any, extra: JsonDict) -> None:
    if isinstance(value, (str, os.PathLike)) and os.path.exists(value):
        path = os.fspath(value)
        given: JsonDict = {"model_dir": path} if os.path.isdir(path) else {"model_file": path}
        context.log_model(key, **given, **extra)
        return
    framework = type(value).__module__.split(".")[0]
    context.log_model(key, body=_pickled(key, value), model_file=f"{key}.pkl", framework=framework, algorithm=type(value).__name__, **extra)


def _log_object(context: Context, key: str, value: Any, extra: JsonDict) -> None:
    instructions = {"packager_name": "DefaultPackager", "object_type": f"{type(value).__module__}.{type(value).__qualname__}"}
    extra = {"unpackaging_instructions": {**instructions, "artifact_type": "object"}, **extra}
    context.log_artifact(key, body=_pickled(key, value), format="pkl", **extra)


def _pickled(key: str, value: Any) -> bytes:
    import importlib
    import pickle

    try:
        return pickle.dumps(value)
    except Exception as error:
        try:
            made: bytes = importlib.import_module("cloudpickle").dumps(value)
            return made
        except ImportError:
            raise InvalidArgument(f"'{key}' ({type(value).__name__}) cannot be pickled: {error}") from None
