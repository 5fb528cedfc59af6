"""Coroutine steps in the caller's process: one private event loop, run by whoever waits for it.

A caller whose steps never suspend pays for no thread: it drives its own coroutines. When a step does suspend, the caller
runs the loop until its request is answered; callers that come meanwhile hand their coroutines over and wait. What is left
when the last caller has gone (branches behind the answer, flows without one) is finished by a background thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

_KEPT = 1.0  # seconds that an idle background thread stays
_set_running = asyncio._set_running_loop
_get_running = asyncio._get_running_loop


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose tasks can take their first step at once (Python 3.12 calls that eager)."""

    def __init__(self) -> None:
        super().__init__()
        self._catch: list[tuple[Any, tuple[Any, ...], Any]] | None = None

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        catch = self._catch
        if catch is not None:
            self._catch = None
            catch.append((callback, args, context))
            return None
        return super().call_soon(callback, *args, context=context)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task whose first step has been taken. Only on the thread that leads the loop."""
        catch: list[tuple[Any, tuple[Any, ...], Any]] = []
        self._catch = catch
        task = asyncio.Task(coroutine, loop=self)
        self._catch = None
        for callback, args, context in catch:
            if context is None:
                callback(*args)
            else:
                context.run(callback, *args)
        return task


class _Waiter:
    __slots__ = ("done", "error", "lock", "parked", "tasks")

    def __init__(self, parked: list[Any]) -> None:
        self.parked = parked
        self.lock: threading.Lock | None = None
        self.done = False
        self.error: BaseException | None = None
        self.tasks: list[asyncio.Task[Any]] = []


class Driver:
    """Runs what walks have parked."""

    def __init__(self) -> None:
        self._loop: _Loop | None = None
        self._lead = threading.Lock()
        self._handing = threading.Lock()  # of work to the background thread
        self._pending: set[asyncio.Task[Any]] = set()
        self._background: threading.Thread | None = None
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._closed = False

    # --- one parked event ----------------------------------------------------------------------------------------

    async def _drive(self, parked: Any, waiter: _Waiter) -> None:
        while True:
            try:
                result = await parked.awaitable
            except asyncio.CancelledError as error:
                more = parked.throw(error)
                if waiter.error is error:  # the request was given up
                    return
            except BaseException as error:
                more = parked.throw(error)
            else:
                more = parked.resume(result)
            if not more:
                return
            parked, *others = more
            for other in others:
                self._begin(other, waiter)

    def _begin(self, parked: Any, waiter: _Waiter) -> None:
        loop = self._loop
        assert loop is not None
        task = loop.start(self._drive(parked, waiter))
        if task.done():
            error = None if task.cancelled() else task.exception()
            if error is not None:
                waiter.error = error
            return
        self._pending.add(task)
        waiter.tasks.append(task)
        task.add_done_callback(lambda ended: self._ended(ended, waiter))

    def _ended(self, task: asyncio.Task[Any], waiter: _Waiter) -> None:
        self._pending.discard(task)
        if not task.cancelled() and task.exception() is not None:
            waiter.error = task.exception()
        self._look(waiter)

    def _look(self, waiter: _Waiter) -> None:
        """Is the request answered, or is nothing of it left?"""
        if waiter.done:
            return
        if waiter.error is not None or waiter.parked[0].finished() or all(task.done() for task in waiter.tasks):
            waiter.done = True
            if waiter.lock is not None:
                waiter.lock.release()
            if self._loop is not None and getattr(self._loop, "_awaited", None) is waiter:
                self._loop.stop()

    # --- waiting -------------------------------------------------------------------------------------------------

    def finish(self, parked: list[Any], wait: bool = True, timeout: float | None = None) -> None:
        """Drives what is parked, until the request is answered when the caller waits for that.

        Raises what went wrong in the engine itself; TimeoutError past `timeout` seconds (the request's tasks are cancelled).
        """
        if _get_running() is not None:  # a loop runs in this thread already (Jupyter): ours runs in another
            self._elsewhere(lambda: self.finish(parked, wait, timeout))
            return
        waiter = _Waiter(parked)
        if self._lead.acquire(blocking=False):
            self._as_leader(waiter, wait, timeout, begin=True)
            return
        waiter.lock = threading.Lock()
        waiter.lock.acquire()
        loop = self._made_loop()  # the leader may not have come so far yet
        loop.call_soon_threadsafe(self._begin_all, waiter)
        # The leader may have gone just now: then this thread leads.
        if self._lead.acquire(blocking=False):
            self._as_leader(waiter, wait, timeout, begin=False)
            return
        if wait and not waiter.lock.acquire(timeout=-1 if timeout is None else timeout):
            loop.call_soon_threadsafe(self._give_up, waiter)
            raise TimeoutError(f"no answer after {timeout:g} s")
        if wait and waiter.error is not None:
            raise waiter.error

    def _made_loop(self) -> _Loop:
        if self._loop is None:
            with self._handing:
                if self._loop is None:
                    self._loop = _Loop()
        return self._loop

    def _begin_all(self, waiter: _Waiter) -> None:
        for parked in waiter.parked:
            self._begin(parked, waiter)
        self._look(waiter)

    def _give_up(self, waiter: _Waiter) -> None:
        for task in waiter.tasks:
            task.cancel()

    def _as_leader(self, waiter: _Waiter, wait: bool, timeout: float | None, begin: bool) -> None:
        loop = self._made_loop()
        try:
            if begin:
                _set_running(loop)
                try:
                    self._begin_all(waiter)
                finally:
                    _set_running(None)
            if wait and not waiter.done:
                self._run(waiter, timeout)
        finally:
            self._lead.release()
            if self._pending or getattr(loop, "_ready", None):
                self._hand_over()
        if wait and waiter.error is not None:
            raise waiter.error

    def _run(self, waiter: _Waiter, timeout: float | None) -> None:
        loop: Any = self._loop
        late: list[bool] = []

        def give_up() -> None:
            late.append(True)
            self._give_up(waiter)
            waiter.done = True
            loop.stop()

        timer = None if timeout is None else loop.call_later(timeout, give_up)
        loop._awaited = waiter
        try:
            while not waiter.done:
                loop.run_forever()
        finally:
            loop._awaited = None
            if timer is not None:
                timer.cancel()
        if late:
            raise TimeoutError(f"no answer after {timeout:g} s")

    # --- the background thread -----------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        self._idle.clear()
        with self._handing:
            self._wake.set()
            if self._background is None or not self._background.is_alive():
                self._background = threading.Thread(target=self._finish_rest, name="metier-graph", daemon=True)
                self._background.start()

    def _finish_rest(self) -> None:
        while not self._closed:
            if not self._wake.wait(_KEPT):  # nothing for a while: a dropped server must not be held by its thread
                with self._handing:
                    if not self._wake.is_set():
                        self._background = None
                        return
            self._wake.clear()
            with self._lead:
                loop: Any = self._loop
                # Callers that came meanwhile have put their work into the loop's queue; it ends when nothing is left.
                while not self._closed and (self._pending or loop._ready):
                    loop.call_soon(self._stop_when_idle)
                    loop.run_forever()
                self._idle.set()
            if loop._ready:
                self._wake.set()

    def _stop_when_idle(self) -> None:
        loop: Any = self._loop
        if self._closed or not self._pending:
            loop.stop()
            return
        for task in list(self._pending)[:1]:
            task.add_done_callback(lambda _: loop.call_soon(self._stop_when_idle))

    def _elsewhere(self, call: Callable[[], None]) -> None:
        failed: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run, name="metier-graph-call")
        thread.start()
        thread.join()
        if failed:
            raise failed[0]

    def call_later(self, seconds: float, call: Callable[[], None]) -> threading.Timer:
        """For batches whose time is over."""
        timer = threading.Timer(seconds, call)
        timer.daemon = True
        timer.start()
        return timer

    def drain(self, timeout: float | None = None) -> None:
        """Waits until nothing is on its way."""
        self._idle.wait(timeout)

    def close(self) -> None:
        """Drains and closes the loop."""
        self.drain(30)
        self._closed = True
        self._wake.set()
        background = self._background
        if background is not None and background is not threading.current_thread():
            background.join(5)
        with self._lead:
            if self._loop is not None and not self._loop.is_running():
                self._loop.close()
                self._loop = None
