"""The graph engine (C++). Internal: use :mod:`metier_serving`."""

from typing import Any

class Event:
    body: Any
    key: Any
    id: Any
    path: Any
    method: Any
    headers: Any
    content_type: Any
    error: Any
    origin_state: Any
    terminated: Any
    trigger: Any
    timestamp: Any
    time: Any
    offset: Any
    shard_id: Any
    topic: Any
    stream_path: Any
    source: Any
    _from: int
    def __init__(self, body: Any = None, /, **members: Any) -> None: ...
    def __copy__(self) -> Event: ...

class Flow:
    waits: bool
    sync: bool
    def __init__(self, graph: str, current_function: str = "*", from_step: str = "") -> None: ...
    def steps(self) -> str: ...
    def bind(
        self,
        index: int,
        call: Any,
        mode: str,
        whole: bool,
        input_path: list[str] | None,
        result_path: list[str] | None,
        kwargs: dict[str, Any] | None,
        coroutine: bool,
        selector: Any,
        /,
    ) -> None: ...
    def hooks(self, on_step_error: Any, error_text: Any, /) -> None: ...
    def measure(self, path: str, /) -> None: ...
    def emit(self, step: str, event: Event, /) -> list[Any]: ...

class Server:
    def __init__(self, flow: Flow, owner: Any, response: type, default_type: str, trigger: Any, /) -> None: ...
    def test(self, *args: Any, **kwargs: Any) -> Any: ...
    def run(self, event: Any, get_body: bool = False, /) -> Any: ...
    def begin(self, event: Any, get_body: bool = False, /) -> tuple[bool, Any, Event]: ...
    def answer(self, event: Event, get_body: bool = False, /) -> Any: ...

class Model:
    def __init__(self, *parts: Any) -> None: ...
    def __call__(self, event: Any, /) -> Any: ...

def loads(text: Any, /) -> Any: ...
def dumps(value: Any, /) -> str: ...
def clone(value: Any, /) -> Any: ...
def timestamp() -> str: ...
