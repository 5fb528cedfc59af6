"""`parallel_runs`: iterations in forked processes of this pod.

Each child runs one iteration and writes its outputs itself (the journal takes whole records from several processes); its run
dict comes back over a pipe. Nothing is pickled, so every handler works.
"""

from __future__ import annotations

import json
import os
import select
import sys
from typing import TYPE_CHECKING, Any

from .sinks import JsonDict, MemorySink, encode

if TYPE_CHECKING:
    from .context import Context
    from .hyper import Call, Plan


class _Running:
    def __init__(self, pid: int, pipe: int, child: Context) -> None:
        self.pid, self.pipe, self.child = pid, pipe, child
        self.data = bytearray()


def run_parallel(context: Context, plan: Plan, call: Call) -> list[JsonDict]:
    """Run the plan with up to `plan.parallel` iterations at once; the answer is in the order of ending."""
    from .hyper import ends_early

    waiting = iter(plan)
    running: dict[int, _Running] = {}
    done: list[JsonDict] = []
    errors, stopped = 0, False
    poller = select.poll()
    try:
        while True:
            while not stopped and len(running) < plan.parallel:
                parameters = next(waiting, None)
                if parameters is None:
                    stopped = True
                    break
                one = _start(context, parameters, call)
                running[one.pipe] = one
                poller.register(one.pipe, select.POLLIN | select.POLLHUP)
            if not running:
                return done
            for pipe, _ in poller.poll():
                one = running[pipe]
                chunk = os.read(pipe, 1 << 20)
                if chunk:
                    one.data += chunk
                    continue
                poller.unregister(pipe)
                del running[pipe]
                run = _finish(one)
                done.append(run)
                errors += run["status"]["state"] == "error"
                stopped = ends_early(context, plan, run, errors) or stopped
    finally:
        _kill(running)


def _start(context: Context, parameters: dict[str, Any], call: Call) -> _Running:
    child = context.get_child_context(with_parent_params=True, **parameters)
    context.forget_child()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _in_child(child, call, writer)
    os.close(writer)
    return _Running(pid, reader, child)


def _in_child(child: Context, call: Call, writer: int) -> None:
    """Never returns: what the parent has on its stack and in its exit handlers is not this process's."""
    code = 1
    try:
        from .hyper import run_child

        child.sink.in_child()
        tee: Any = sys.stdout if hasattr(sys.stdout, "in_child") else None
        if tee is not None:
            tee.in_child()  # the foreground's: its thread stayed behind
        records = child.sink.records if isinstance(child.sink, MemorySink) else []
        before = len(records)
        answer = encode({"run": run_child(child, call), "records": records[before:]})
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        if tee is not None:
            tee.drain()
        view = memoryview(answer)
        while view:
            view = view[os.write(writer, view) :]
        code = 0
    except BaseException as error:
        os.write(2, f"iteration {child.iteration}: {type(error).__name__}: {error}\n".encode("utf-8", "replace"))
    finally:
        os._exit(code)


def _finish(one: _Running) -> JsonDict:
    os.close(one.pipe)
    _, status = os.waitpid(one.pid, 0)
    try:
        answer = json.loads(bytes(one.data))
    except ValueError:
        # Killed, or its outputs could not be written: the parent tells its end.
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
        one.child.finish(error=f"the process of iteration {one.child.iteration} ended with {how}")
        return one.child.to_dict()
    if isinstance(one.child.sink, MemorySink):
        one.child.sink.records.extend(answer["records"])
    run: JsonDict = answer["run"]
    return run


def _kill(running: dict[int, _Running]) -> None:
    import signal

    for one in running.values():
        try:
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)
            os.close(one.pipe)
        except OSError:
            pass
