"""The program at a terminal, as a user has it."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from support.server import BINARY, Server


@contextlib.contextmanager
def at_terminal(server: Server, folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The program with these words at a terminal of its own, and the descriptor of the user's side."""
    master, slave = pty.openpty()
    environment = {**server.environment, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        [BINARY, *words], env=environment, cwd=folder, stdin=slave, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        try:
            yield process, master
        finally:
            process.kill()
            process.wait()
            os.close(master)


def read_until(master: int, ready: Callable[[bytes], bool], seconds: float = 120) -> bytes:
    """What the program prints until that is `ready`."""
    seen, ends = b"", time.monotonic() + seconds
    while not ready(seen):
        left = ends - time.monotonic()
        assert left > 0 and select.select([master], [], [], left)[0], seen
        seen += os.read(master, 4096)
    return seen


def read_rest(master: int) -> bytes:
    """What the program prints until it closes its side."""
    seen = b""
    with contextlib.suppress(OSError):  # closed
        while piece := os.read(master, 4096):
            seen += piece
    return seen


def interrupt_and_confirm(process: subprocess.Popen[bytes], master: int) -> bytes:
    """Ctrl-C, and yes to the question whether to abort; what the program printed after it, until it has ended with 4."""
    process.send_signal(signal.SIGINT)
    seen = read_until(master, lambda said: b"abort run" in said)
    os.write(master, b"y\n")
    seen += read_rest(master)
    assert process.wait(30) == 4, seen
    return seen
