"""Live views of a function's document: what is read and written here is the C++ object itself.

A view keeps the path, not the value, so it stays right when the document changes under it. Lists and dicts inside are
views too: ``fn.spec.volumes.append({...})``, ``fn.spec.resources["limits"]["cpu"] = "2"``.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, MutableSequence
from typing import TYPE_CHECKING, Any, Union, overload

if TYPE_CHECKING:
    from collections.abc import Iterable

    from . import _core

Step = Union[str, int]
Path = tuple[Step, ...]

_LISTS = frozenset(
    [
        "args",
        "volumes",
        "volume_mounts",
        "env",
        "env_from",
        "tolerations",
        "categories",
        "commands",
        "requirements",
        "mpi_args",
        "secret_sources",
        "driver_volume_mounts",
        "executor_volume_mounts",
        "driver_tolerations",
        "executor_tolerations",
    ]
)
_DICTS = frozenset(
    [
        "build",
        "entry_points",
        "resources",
        "node_selector",
        "labels",
        "annotations",
        "state_thresholds",
        "config",
        "base_spec",
        "parameters",
        "models",
        "deps",
        "spark_conf",
        "hadoop_conf",
        "restart_policy",
        "dynamic_allocation",
        "monitoring",
        "scheduler_resources",
        "worker_resources",
        "driver_resources",
        "executor_resources",
        "credentials",
    ]
)


def view(core: _core.Function, path: Path) -> Any:
    """The value at a path: plain values as they are, dicts and lists as views."""
    kind, value = core.peek(path)
    if kind == 1:
        return LiveDict(core, path)
    if kind == 2:
        return LiveList(core, path)
    return value


def plain(value: Any) -> Any:
    """An ordinary copy of what may be a view."""
    return value.copy() if isinstance(value, (LiveDict, LiveList)) else value


class LiveDict(MutableMapping[str, Any]):
    """An object of the document as a dict."""

    __slots__ = ("_doc", "_path")
    _doc: _core.Function
    _path: Path

    def __init__(self, core: _core.Function, path: Path) -> None:
        object.__setattr__(self, "_doc", core)
        object.__setattr__(self, "_path", path)

    def __getitem__(self, key: str) -> Any:
        if not isinstance(key, str) or self._doc.peek((*self._path, key))[0] == -1:
            raise KeyError(key)
        return view(self._doc, (*self._path, key))

    def __setitem__(self, key: str, value: Any) -> None:
        self._doc.assign((*self._path, str(key)), plain(value))

    def __delitem__(self, key: str) -> None:
        if not isinstance(key, str) or not self._doc.remove((*self._path, key)):
            raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._doc.keys(self._path))

    def __len__(self) -> int:
        return self._doc.size(self._path)

    def copy(self) -> dict[str, Any]:
        """An ordinary dict with the same content."""
        value: dict[str, Any] | None = self._doc.copy(self._path)
        return value if value is not None else {}

    def to_dict(self) -> dict[str, Any]:
        """An ordinary dict with the same content."""
        return self.copy()

    def __eq__(self, other: object) -> bool:
        return bool(self.copy() == plain(other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.copy())

    # Attribute access, as MLRun's own objects have it: fn.spec.build.commands.
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._doc.peek((*self._path, name))[0] == -1 or self._doc.peek((*self._path, name)) == (0, None):
            if name in _LISTS:
                return LiveList(self._doc, (*self._path, name))
            if name in _DICTS:
                return LiveDict(self._doc, (*self._path, name))
            return None
        return view(self._doc, (*self._path, name))

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self})


class Section(LiveDict):
    """``fn.spec``, ``fn.metadata`` or ``fn.status``: a dict whose fields are attributes. An absent field reads as None,
    or as an empty list or dict where it is one."""

    __slots__ = ()

    def __dir__(self) -> list[str]:
        known = self._doc.known_fields() if self._path == ("spec",) else []
        return sorted({*super().__dir__(), *known})


class LiveList(MutableSequence[Any]):
    """A list of the document."""

    __slots__ = ("_doc", "_path")

    def __init__(self, core: _core.Function, path: Path) -> None:
        self._doc = core
        self._path = path

    def _at(self, index: int) -> int:
        size = len(self)
        if not -size <= index < size:
            raise IndexError("list index out of range")
        return index % size

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return view(self._doc, (*self._path, self._at(index)))

    @overload
    def __setitem__(self, index: int, value: Any) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[Any]) -> None: ...
    def __setitem__(self, index: int | slice, value: Any) -> None:
        if isinstance(index, slice):
            whole = self.copy()
            whole[index] = [plain(item) for item in value]
            self._doc.assign(self._path, whole)
        else:
            self._doc.assign((*self._path, self._at(index)), plain(value))

    def __delitem__(self, index: int | slice) -> None:
        if isinstance(index, slice):
            whole = self.copy()
            del whole[index]
            self._doc.assign(self._path, whole)
        else:
            self._doc.remove((*self._path, self._at(index)))

    def __len__(self) -> int:
        return self._doc.size(self._path)

    def insert(self, index: int, value: Any) -> None:
        """Puts a value before a place; the list is made when the document has none."""
        size = len(self)
        place = max(0, index + size) if index < 0 else min(index, size)
        self._doc.insert(self._path, place, plain(value))

    def copy(self) -> list[Any]:
        """An ordinary list with the same content."""
        value: list[Any] | None = self._doc.copy(self._path)
        return value if value is not None else []

    def __eq__(self, other: object) -> bool:
        return bool(self.copy() == plain(other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.copy())
