"""Coroutines in a worker. A sync worker finishes one before its next event: the first step is driven directly and a loop is entered only
when it suspends. A worker of `mode: async` has many under way in one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

# Fast private twins of the public calls; all versions 3.9 to 3.14 have them.
_set_running_loop = asyncio._set_running_loop
_enter_task: Callable[[Any, Any], None] = asyncio.tasks._enter_task
_leave_task: Callable[[Any, Any], None] = asyncio.tasks._leave_task


class FirstStep:
    """Stands for the task that a coroutine's first step has not got yet; forwards to the real one once there is one."""

    def __init__(self) -> None:
        self._task: Any = None
        self._cancelled: list[Any] = []

    def bind(self, task: asyncio.Task[Any]) -> None:
        """Hand over to the real task."""
        self._task = task
        for message in self._cancelled:
            task.cancel(message)

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the coroutine at its next suspension."""
        if self._task is not None:
            return bool(self._task.cancel(msg))
        self._cancelled.append(msg)
        return True

    def uncancel(self) -> int:
        """Take one cancel back."""
        if self._task is not None:
            return int(self._task.uncancel())
        if self._cancelled:
            self._cancelled.pop()
        return len(self._cancelled)

    def cancelling(self) -> int:
        """Return how often it was cancelled."""
        return int(self._task.cancelling()) if self._task is not None else len(self._cancelled)

    def cancelled(self) -> bool:
        """Whether it ended cancelled."""
        return self._task is not None and bool(self._task.cancelled())

    def done(self) -> bool:
        """Whether it ended."""
        return self._task is not None and bool(self._task.done())

    def get_name(self) -> str:
        """Return a name."""
        return "handler" if self._task is None else str(self._task.get_name())

    def __getattr__(self, name: str) -> Any:
        if self._task is None:
            raise AttributeError(f"the handler's task has no {name} before it first waits")
        return getattr(self._task, name)


class Resume:
    """Goes on with a coroutine that was suspended at `first`."""

    def __init__(self, coroutine: Any, first: Any) -> None:
        self.coroutine = coroutine
        self.first = first

    def __await__(self) -> Generator[Any, Any, Any]:
        step = self.first
        try:
            while True:
                try:
                    value = yield step
                except GeneratorExit:
                    self.coroutine.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - a cancel belongs to the coroutine
                    step = self.coroutine.throw(error)
                else:
                    step = self.coroutine.send(value)
        except StopIteration as stop:
            return stop.value


async def resume(coroutine: Any, first: Any) -> Any:
    """Finish `coroutine` inside a task."""
    return await Resume(coroutine, first)


class Loop:
    """The event loop of a worker, made when a handler first needs one. `pending` counts its unfinished tasks, `serve` reads it."""

    def __init__(self, ring: Any, in_eventfd: int, pending: list[int]) -> None:
        self.ring = ring
        self.in_eventfd = in_eventfd
        self.pending = pending
        self.waiter: asyncio.Future[None] | None = None
        owner = self

        class Counting(asyncio.SelectorEventLoop):
            def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
                task = super().create_task(coro, **options)
                owner.pending[0] += 1
                task.add_done_callback(owner.task_done)
                return task

        self.loop = Counting()
        asyncio.set_event_loop(self.loop)
        self.loop.add_reader(in_eventfd, self.woken)

    def task_done(self, _: Any) -> None:
        """Count it out; nobody waits in the loop for nothing."""
        self.pending[0] -= 1
        if self.pending[0] == 0:
            self.release()

    def woken(self) -> None:
        """A record has come while the worker waited in the loop."""
        self.ring.awake()
        self.release()

    def release(self) -> None:
        """End the wait."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def run(self, coroutine: Any) -> Any:
        """Finish a coroutine; what its tasks do meanwhile goes on as well."""
        loop = self.loop
        first_step = FirstStep()
        _set_running_loop(loop)
        _enter_task(loop, first_step)
        try:
            first = coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        finally:
            _leave_task(loop, first_step)
            _set_running_loop(None)
        task = loop.create_task(resume(coroutine, first))
        first_step.bind(task)
        return loop.run_until_complete(task)

    def wait(self) -> None:
        """Wait in the loop until a record is there or its tasks have ended."""
        while self.pending[0] and not self.ring.ready():
            self.waiter = self.loop.create_future()
            if not self.ring.sleep():
                return
            self.loop.run_until_complete(self.waiter)
