"""The command line of a pod, ``mlrun run --name N --from-env …``, and the making of its run, sink and exit code."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from .errors import RunnerError, ServerError, UsageError
from .sinks import JournalSink, JsonDict, MemorySink, Sink

USAGE = "mlrun run --name NAME --from-env [--handler H] [--mode pass] [--origin-file F] [--source S] [--workdir W] [command] [args...]"
_VALUED = ("--name", "--handler", "--mode", "--origin-file", "--source", "--workdir")
MAX_CONFIG = 16 << 20


class Options:
    """One parsed command line."""

    def __init__(self) -> None:
        self.name = self.handler = self.mode = self.origin_file = self.source = self.workdir = self.command = ""
        self.from_env = False
        self.server = ""
        self.args: list[str] = []


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return the exit code: the user's own, 1 failed, 2 wrong usage, 6 server not reachable."""
    started = time.time()
    words = list(sys.argv[1:] if argv is None else argv)
    if words and os.path.basename(words[0]) in ("mlrun", "metier-runner", "metier_runner"):
        del words[0]
    try:
        if words and words[0] == "run":
            return run_from_environment(parse(words[1:]), os.environ, started)
        if words and words[0] == "handler":
            from .foreground import run_in_foreground

            return run_in_foreground(parse(words[1:], ("--server",)), os.environ, started)
        said = f"'{words[0]}' is not a verb of the in-pod runner" if words else "no verb is given"
        raise UsageError(f"{said}\nusage: {USAGE}")
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 6


def parse(words: list[str], more: tuple[str, ...] = ()) -> Options:
    """Options end at the command: what follows belongs to the user's program."""
    options, index = Options(), 0
    while index < len(words) and words[index].startswith("-"):
        name, equals, value = words[index].partition("=")
        index += 1
        if name == "--":
            break
        if name == "--from-env" and not equals:
            options.from_env = True
        elif name in _VALUED + more:
            if not equals:
                if index >= len(words):
                    raise UsageError(f"{name} has no value\nusage: {USAGE}")
                value = words[index]
                index += 1
            setattr(options, name[2:].replace("-", "_"), value)
        else:
            raise UsageError(f"option {name} is unknown\nusage: {USAGE}")
    options.command, options.args = (words[index], words[index + 1 :]) if index < len(words) else ("", [])
    if options.mode not in ("", "pass"):
        raise UsageError(f"--mode '{options.mode}' is unknown, the only mode is pass")
    if options.mode == "pass" and options.handler:
        raise UsageError("--mode pass runs a program and takes no --handler")
    return options


def read_run(options: Options, environment: Mapping[str, str]) -> JsonDict:
    """The run of MLRUN_EXEC_CONFIG, with the command line's name and handler over it."""
    text = environment.get("MLRUN_EXEC_CONFIG", "")
    run: Any = {}
    if text:
        import json

        if len(text) > MAX_CONFIG:
            raise UsageError(f"MLRUN_EXEC_CONFIG has {len(text)} characters, at most {MAX_CONFIG} are read")
        try:
            run = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"MLRUN_EXEC_CONFIG is not JSON: {error}") from None
    if not isinstance(run, dict):
        raise UsageError(f"MLRUN_EXEC_CONFIG is a JSON {type(run).__name__}, it must be the object of a run")
    for part in ("metadata", "spec", "status"):
        if not isinstance(run.setdefault(part, {}), dict):
            raise UsageError(f"MLRUN_EXEC_CONFIG: {part} is {type(run[part]).__name__}, it must be an object")
    for part in ("parameters", "inputs", "hyperparams"):
        if not isinstance(run["spec"].get(part) or {}, dict):
            raise UsageError(f"MLRUN_EXEC_CONFIG: spec.{part} is {type(run['spec'][part]).__name__}, it must be an object")
    if options.name:
        run["metadata"]["name"] = options.name
    if not run["metadata"].get("uid"):
        run["metadata"]["uid"] = os.urandom(16).hex()
    handler = run["spec"].get("handler")
    if not options.handler and isinstance(handler, str) and options.mode != "pass":
        options.handler = handler
    return run


def make_sink(environment: Mapping[str, str], run: JsonDict, server: str = "") -> Sink:
    """The journal of METIER_JOURNAL, else the server of METIER_SERVER or MLRUN_DBPATH, else memory."""
    if environment.get("METIER_JOURNAL") and not server:
        try:
            return JournalSink(environment["METIER_JOURNAL"])
        except OSError as error:
            raise RunnerError(f"METIER_JOURNAL {environment['METIER_JOURNAL']}: {error.strerror}") from None
    if server or environment.get("METIER_SERVER") or environment.get("MLRUN_DBPATH"):
        from .rest import Client, RestSink

        client = Client.from_environment(environment, server)
        assert client is not None
        metadata = run["metadata"]
        project = str(metadata.get("project") or environment.get("MLRUN_DEFAULT_PROJECT") or "default")
        return RestSink(client, project, str(metadata["uid"]))
    return MemorySink()


def run_from_environment(options: Options, environment: MutableMapping[str, str], started: float) -> int:
    from .execute import Job, execute

    run = read_run(options, environment)
    sink = make_sink(environment, run)
    for stream in (sys.stdout, sys.stderr):
        # Lines reach the log when they are printed, not when a block is full.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    try:
        return execute(Job(options, run, environment), sink, started)
    finally:
        sink.close()
