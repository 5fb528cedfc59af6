"""``metier processor --config FILE`` in a process that a zygote has forked: the function's template is forked here first, so that it need not
start an interpreter of its own, then this process becomes the processor (its parent still, by exec)."""

from __future__ import annotations

import json
import os
import socket
import sys

from . import _confine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

CONTROL = 3  # the template's control socket
VARIABLE = "METIER_TEMPLATE"  # "DESCRIPTOR:PID" of the template, for the processor


def main(argv: list[str]) -> NoReturn:
    """Be the processor; the template of its function is its child."""
    try:
        config = template_config(argv)
        if config is not None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            template = os.fork()
            if template == 0:
                ours.close()
                raise SystemExit(be_template(config, theirs))
            theirs.close()
            ours.set_inheritable(True)
            os.environ[VARIABLE] = f"{ours.fileno()}:{template}"
    except (OSError, ValueError, KeyError):
        os.environ.pop(VARIABLE, None)  # the processor starts a template by itself, and says what is wrong with its configuration
    os.execve(argv[0], argv, os.environ)


def template_config(argv: list[str]) -> dict[str, Any] | None:
    """Return the processor's configuration when this interpreter can be its function's template."""
    with open(argv[argv.index("--config") + 1], encoding="utf-8") as file:
        config: dict[str, Any] = json.load(file)
    # Another interpreter was asked for; a limit of address space, of which the zygote's imports would take their part; another path.
    if (
        config.get("python") != sys.executable
        or config.get("workerMemoryBytes")
        or any(one["name"] == "PYTHONPATH" for one in config.get("env", []))
    ):
        return None
    return config if os.path.isdir(os.path.join(config["lib"], "metier_worker")) else None


def be_template(config: dict[str, Any], control: socket.socket) -> int:
    """Be what ``python -u -m metier_worker`` would be; return its exit code."""
    os.setpgid(0, 0)  # a terminal's Ctrl-C is for the processor, which drains
    if control.fileno() == CONTROL:
        control.detach()
    else:
        os.dup2(control.fileno(), CONTROL)
        control.close()
    lib = config["lib"]
    os.environ["PYTHONPATH"] = os.pathsep.join([lib, *filter(None, [os.environ.get("PYTHONPATH", "")])])
    if not any(os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG")):
        os.environ["LC_CTYPE"] = "C.UTF-8"  # as an interpreter that starts does (PEP 538)
    sys.path.insert(0, lib)
    sys.argv[:] = [os.path.join(lib, "metier_worker", "__main__.py")]
    _confine.open_output(buffered=False)
    from metier_worker.template import main as template_main

    return int(template_main())
