"""The ports that Spark's parts have at their pod's own address: fixed, so that the parts find each other.

Spark would take the next one where a port is taken, and its peers would speak to whoever holds it: a program that listens on every
address (0.0.0.0) has its port at every pod's.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
from collections.abc import Iterator, Mapping

from .errors import RunnerError


class PortTaken(RunnerError):
    """Another program listens on a port that this part needs."""

    code = "PortTaken"


def check_free(address: str, ports: Mapping[int, str]) -> None:
    """Raises PortTaken for the first of `ports` (number to its use) that is taken at `address`."""
    for port, use in ports.items():
        with socket.socket() as probe:
            # As the JVM has it: connections that ended a moment ago do not hold a port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                raise PortTaken(
                    f"port {port} at {address}, {use}, is taken by {_holder(address, port)}: end it, or let it listen on one address"
                ) from None


def _holder(address: str, port: int) -> str:
    """Who listens there; a pod that has processes of its own sees the user only, and the command that names the program."""
    found = dict(_listening(address, port))
    inodes = {f"socket:[{inode}]" for inode in found}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if any(os.readlink(one.path) in inodes for one in os.scandir(f"{entry.path}/fd")):
                with open(f"{entry.path}/comm", encoding="utf-8", errors="replace") as stream:
                    return f"{stream.read().strip()} (process {entry.name})"
    users = ", ".join(sorted(set(found.values())))
    return f"a program{f' of user {users}' if users else ''} (ss -ltnp 'sport = :{port}' names it)"


def _listening(address: str, port: int) -> Iterator[tuple[str, str]]:
    """Inode and user of the sockets that listen on that port at that address, or at every one."""
    number = "".join(f"{int(part):02X}" for part in reversed(address.split(".")))
    places = {f"{place}:{port:04X}" for place in (number, "0" * 8, "0" * 32, f"0000000000000000FFFF0000{number}")}
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as stream:
            for words in map(str.split, stream):
                if words[3] == "0A" and words[1] in places:
                    yield words[9], _user(int(words[7]))


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
