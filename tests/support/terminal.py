"""The program at a terminal, as a user has it."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from collections.abc import Iterator
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
