"""Finding a handler and giving it its arguments: by name, converted by annotation (MLRun's calling convention)."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import HandlerMissing, InvalidArgument
from .values import short

if TYPE_CHECKING:
    from .context import Context
    from .dataitem import DataItem

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_NAMES: dict[str, Any] = {"int": int, "float": float, "bool": bool, "str": str, "list": list, "dict": dict, "bytes": bytes}


def load_file(path: str, name: str = "") -> ModuleType:
    """Import a Python file as a module, registered under its stem so that pickles and process pools find it."""
    name = name or os.path.splitext(os.path.basename(path))[0].replace("-", "_")
    full = os.path.abspath(path)
    known = sys.modules.get(name)
    if name in sys.builtin_module_names or (known is not None and not _is_users(known)):
        name = f"user_{name}"  # json.py of the user must not become everybody's json
    spec = importlib.util.spec_from_file_location(name, full, loader=importlib.machinery.SourceFileLoader(name, full))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    with open(path, "rb") as stream:
        code = compile(stream.read(), full, "exec", dont_inherit=True)
    previous = sys.modules.get(name)
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        if previous is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = previous
        raise
    return module


def _is_users(module: ModuleType) -> bool:
    from .failure import is_user_file

    return module.__name__ != "__main__" and is_user_file(getattr(module, "__file__", None) or "<none>")


def find_handler(module: ModuleType | None, handler: str, parameters: dict[str, Any], context: Any = None) -> Callable[..., Any]:
    """The callable of ``name``, ``module.name`` or ``Class::method``.

    A class is made with the arguments of parameter ``_init_args``, and with `context` when its constructor takes one.
    """
    owner, _, method = handler.partition("::")
    found = _lookup(module, owner)
    if not method:
        if not callable(found):
            raise HandlerMissing(f"{_place(module)}: '{handler}' is {type(found).__name__}, not a function")
        return _method_of_class(found) if inspect.isclass(found) else found
    if not inspect.isclass(found):
        raise HandlerMissing(f"{_place(module)}: '{owner}' is not a class (handler {short(handler)})")
    if not callable(getattr(found, method, None)):
        raise HandlerMissing(f"{_place(module)}: class {owner} has no method '{method}'{_near(method, _methods(found))}")
    arguments = parameters.pop("_init_args", None) or {}
    if not isinstance(arguments, dict):
        raise InvalidArgument(f"parameter _init_args is {type(arguments).__name__}, it must be an object of constructor arguments")
    if "context" in inspect.signature(found).parameters:
        arguments = {"context": context, **arguments}
    bound: Callable[..., Any] = getattr(found(**arguments), method)
    return bound


def _lookup(module: ModuleType | None, name: str) -> Any:
    if module is not None and hasattr(module, name):
        return getattr(module, name)
    if "." in name:
        where, _, last = name.rpartition(".")
        if module is not None and where == module.__name__ and hasattr(module, last):
            return getattr(module, last)
        import importlib

        imported = importlib.import_module(where)
        if not hasattr(imported, last):
            raise HandlerMissing(f"{_place(imported)}: no function '{last}'{_near(last, functions_of(imported))}")
        return getattr(imported, last)
    if module is None:
        raise HandlerMissing(f"handler '{name}' names no module: give a file, or module.{name}")
    raise HandlerMissing(f"{_place(module)}: no function '{name}'{_near(name, functions_of(module))}")


def functions_of(module: ModuleType) -> list[str]:
    """Public functions and classes that the module defines itself."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and (inspect.isroutine(value) or inspect.isclass(value)) and value.__module__ == module.__name__
    ]


def near_names(name: str, known: list[str]) -> list[str]:
    import difflib

    return difflib.get_close_matches(name, known, 3, 0.5)


def _near(name: str, known: list[str]) -> str:
    near = near_names(name, known)
    text = f", did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return f"{text}\nfunctions in this file: {', '.join(known[:20]) or 'none'}"


def _methods(owner: type) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_") and callable(getattr(owner, name))]


def _method_of_class(owner: type) -> Callable[..., Any]:
    raise HandlerMissing(f"'{owner.__name__}' is a class: name a method as handler {owner.__name__}::method{_near('', _methods(owner))}")


def _place(module: ModuleType | None) -> str:
    path = getattr(module, "__file__", None)
    return os.path.basename(path) if path else (module.__name__ if module else "handler")


def bind(function: Callable[..., Any], context: Context) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of one call: ``context``, run parameters, then inputs; ``**kwargs`` takes the rest.

    Raises InvalidArgument when a parameter without default has no value, or a text cannot be what the annotation says.
    """
    signature = _signature(function)
    parameters, inputs = dict(context._parameters), context.inputs
    hints = _hints(function, signature, parameters, inputs)
    type_hints = context._type_hints
    positional: list[Any] = []
    named: dict[str, Any] = {}
    rest: str = ""
    used = set()
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            rest = name
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        used.add(name)
        hint = hints.get(name, parameter.annotation)
        if name == "context":
            value: Any = own_context(hint, context)
        elif name in parameters:
            value = convert(parameters[name], hint, name)
        elif name in inputs:
            value = _input(context, name, type_hints.get(name, hint), parameter)
        elif parameter.default is parameter.empty:
            raise InvalidArgument(f"parameter '{name}' has no value: {describe(function)} needs it\ngive it: -p {name}=… or -i {name}=…")
        else:
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(value)
        else:
            named[name] = value
    if rest:
        named.update({name: value for name, value in parameters.items() if name not in used})
        named.update({name: context.get_input(name) for name in inputs if name not in used and name not in named})
    return positional, named


def describe(function: Callable[..., Any]) -> str:
    """``train.py:12 train(context, lr, epochs)``."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    place = f"{os.path.basename(code.co_filename)}:{code.co_firstlineno} " if code else ""
    names = ", ".join(_signature(function).parameters)
    return f"{place}{getattr(function, '__name__', 'handler')}({names})"


def own_context(hint: Any, context: Context) -> Any:
    """MLRun's own context where the annotation asks for it and the package is there; ours otherwise."""
    wanted = hint if isinstance(hint, str) else f"{getattr(hint, '__module__', '')}.{getattr(hint, '__qualname__', '')}"
    if not (wanted.startswith("mlrun.") or wanted.endswith("MLClientCtx")):
        return context
    try:
        import importlib

        mlrun = importlib.import_module("mlrun")
    except ModuleNotFoundError:
        return context
    made = mlrun.get_or_create_ctx(context.name)
    context.foreign = made
    return made


def convert(value: Any, hint: Any, name: str) -> Any:
    """A text parameter as its annotation says; values that are no text, and unknown annotations, stay as they are."""
    if not isinstance(value, str) or hint is inspect.Parameter.empty or hint is str:
        return value
    if isinstance(hint, str):
        hint = _NAMES.get(hint.split("[")[0].strip())
    choices = _union(hint)
    if choices is not None:
        if str in choices or Any in choices:
            return value
        if type(None) in choices and value.strip().lower() in ("", "none", "null"):
            return None
        for choice in choices:
            try:
                return convert(value, choice, name)
            except InvalidArgument:
                continue
        return _refuse(value, hint, name)
    return _convert_to(value, getattr(hint, "__origin__", None) or hint, name)


def _convert_to(value: str, kind: Any, name: str) -> Any:
    text = value.strip()
    try:
        if kind is bool:
            if text.lower() in _TRUE + _FALSE:
                return text.lower() in _TRUE
            return _refuse(value, kind, name)
        if kind is int:
            return int(text, 0) if text[:2].lower() in ("0x", "0o", "0b") else int(text)
        if kind is float:
            return float(text)
        if kind is bytes:
            return value.encode("utf-8")
        if kind in (list, dict, tuple, set, frozenset):
            import json

            made = json.loads(text)
            if not isinstance(made, dict if kind is dict else list):
                return _refuse(value, kind, name)
            return made if kind in (list, dict) else kind(made)
    except ValueError as error:
        if isinstance(error, InvalidArgument):
            raise
        return _refuse(value, kind, name)
    return _convert_class(value, kind, name)


def _convert_class(value: str, kind: Any, name: str) -> Any:
    """pathlib paths, enums, dates: classes that are loaded already because the annotation names them."""
    if not isinstance(kind, type):
        return value
    module, kind = kind.__module__, cast_any(kind)
    try:
        if module.startswith("pathlib"):
            return kind(value)
        if module == "datetime" and hasattr(kind, "fromisoformat"):
            return kind.fromisoformat(value.replace("Z", "+00:00") if kind.__name__ == "datetime" else value)
        if module in ("decimal", "uuid", "_decimal", "_pydecimal"):
            return kind(value)
        enum = sys.modules.get("enum")
        if enum is not None and issubclass(kind, enum.Enum):
            return kind[value] if value in kind.__members__ else kind(value)
    except (ValueError, ArithmeticError):
        return _refuse(value, kind, name)
    return value


def cast_any(value: object) -> Any:
    return value


def _refuse(value: str, kind: Any, name: str) -> Any:
    wanted = getattr(kind, "__name__", str(kind))
    hint = f"; numbers look like -p {name}=0.1" if kind in (int, float) else ""
    raise InvalidArgument(f"parameter {name} was passed as the text {short(value)}, which is no {wanted}{hint}")


def _union(hint: Any) -> tuple[Any, ...] | None:
    origin = getattr(hint, "__origin__", None)
    if origin is not None and getattr(origin, "_name", str(origin)).endswith("Union"):
        return tuple(hint.__args__)
    return tuple(hint.__args__) if type(hint).__name__ == "UnionType" or type(hint).__name__ == "Union" else None


def _hints(
    function: Callable[..., Any], signature: inspect.Signature, parameters: dict[str, Any], inputs: dict[str, str]
) -> dict[str, Any]:
    """Evaluated annotations, only where a value needs them and they are text (`from __future__ import annotations`)."""
    needed = [
        name
        for name, p in signature.parameters.items()
        if isinstance(p.annotation, str) and p.annotation not in _NAMES and (isinstance(parameters.get(name), str) or name in inputs)
    ]
    if not needed:
        return {}
    import typing

    try:
        return typing.get_type_hints(inspect.unwrap(function))
    except Exception:  # an annotation may name what is imported for type checkers only
        return {}


def _input(context: Context, name: str, hint: Any, parameter: inspect.Parameter) -> Any:
    item = context.get_input(name)
    if hint is parameter.empty:
        return item.local() if isinstance(parameter.default, str) else item
    return unpack(item, hint, name)


def unpack(item: DataItem, hint: Any, name: str) -> Any:
    """An input as its type hint says; the data item itself when the hint is unknown."""
    choices = _union(hint)
    if choices is not None:
        kept = [choice for choice in choices if choice is not type(None)]
        return unpack(item, kept[0], name) if len(kept) == 1 else item
    full = hint.strip("'\"") if isinstance(hint, str) else f"{getattr(hint, '__module__', '')}.{getattr(hint, '__qualname__', str(hint))}"
    last = full.rsplit(".", 1)[-1]
    if last == "DataItem":
        return _foreign_item(item, full)
    if last in ("DataFrame", "Series") and (full.startswith(("pandas", "pd.", "polars", "pl.")) or full == last):
        frame = item.as_df(df_module=sys.modules.get("polars") if full.startswith(("polars", "pl.")) else None)
        return frame.squeeze("columns") if last == "Series" and hasattr(frame, "squeeze") else frame
    if last == "ndarray":
        return _array(item)
    if last in ("Path", "PosixPath", "PurePath"):
        import pathlib

        return pathlib.Path(item.local())
    if last == "str":
        return item.local()
    if last == "bytes":
        return item.get()
    if last in ("dict", "list", "int", "float", "bool"):
        return _plain_value(item, last, name)
    return item


def _plain_value(item: DataItem, last: str, name: str) -> Any:
    import json

    body = item.get()
    try:
        made = json.loads(body) if isinstance(body, (str, bytes)) else body
    except ValueError as error:
        raise InvalidArgument(f"input {name}: {short(item.url)} is not JSON ({error}), the handler wants {last}") from None
    return float(made) if last == "float" and isinstance(made, int) else made


def _array(item: DataItem) -> Any:
    import importlib

    numpy = importlib.import_module("numpy")
    if item.suffix == ".csv":
        return numpy.loadtxt(item.local(), delimiter=",")
    return numpy.load(item.local(), allow_pickle=False)


def _foreign_item(item: DataItem, full: str) -> Any:
    mlrun = sys.modules.get("mlrun")
    return mlrun.get_dataitem(item.artifact_url) if full.startswith("mlrun") and mlrun is not None else item


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return inspect.Signature()
