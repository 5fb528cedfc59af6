from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import metier_runner
from metier_runner.command import Options, parse, read_run
from metier_runner.execute import Job, execute
from metier_runner.sinks import MemorySink


class Outcome:
    """What a run left: its exit code, its records, and the run as a server would hold it."""

    def __init__(self, code: int, records: list[dict[str, Any]]) -> None:
        self.code, self.records = code, records
        self.runs: dict[int, dict[str, Any]] = {}
        for record in records:
            if record["op"] == "store_run":
                self.runs[record["iter"]] = json.loads(json.dumps(record["body"]))
            if record["op"] == "patch_run":
                run = self.runs.setdefault(record["iter"], {})
                for path, value in record["body"].items():
                    set_dotted(run, path, value)

    @property
    def run(self) -> dict[str, Any]:
        return self.runs[0]

    @property
    def results(self) -> dict[str, Any]:
        return self.run["status"].get("results", {})

    @property
    def state(self) -> str:
        return self.run["status"]["state"]

    @property
    def phases(self) -> list[str]:
        return [record["name"] for record in self.records if record["op"] == "phase"]

    @property
    def failure(self) -> dict[str, Any]:
        return next(record["body"] for record in self.records if record["op"] == "failure")

    def artifact(self, key: str, iteration: int = 0) -> dict[str, Any]:
        return [r for r in self.records if r["op"] == "store_artifact" and r["body"]["metadata"]["key"] == key and r["iter"] == iteration][
            -1
        ]


def set_dotted(target: dict[str, Any], path: str, value: Any) -> None:
    keys, literal, current = [], False, ""
    for char in path:
        if char == "\\":
            literal = not literal
        elif char == "." and not literal:
            keys.append(current)
            current = ""
        else:
            current += char
    keys.append(current)
    for key in keys[:-1]:
        target = target.setdefault(key, {})
    target[keys[-1]] = value


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each test in a folder of its own, with the interpreter as it was."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("MLRUN_", "METIER_")):
            monkeypatch.delenv(name)
    modules, main, argv, path = set(sys.modules), sys.modules["__main__"], sys.argv, list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]
    sys.modules["__main__"], sys.argv, sys.path[:] = main, argv, path


@pytest.fixture
def run(tmp_path: Path):
    """Write `code` to a file and run it as a pod would, with a memory sink."""

    def go(
        code: str,
        handler: str = "",
        *args: str,
        file: str = "work.py",
        words: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        **spec: Any,
    ):
        (tmp_path / file).write_text(code)
        labels = spec.pop("labels", {"kind": "job"})
        spec.setdefault("output_path", str(tmp_path / "out"))
        config = {"metadata": {"name": "demo", "project": "p", "uid": "u" * 32, "labels": labels}, "spec": spec}
        environment = {"PATH": os.environ["PATH"], "MLRUN_EXEC_CONFIG": json.dumps(config), **(env or {})}
        line = ["--name", "demo", "--from-env", *(["--handler", handler] if handler else []), *words, file, *args]
        options: Options = parse(line)
        sink = MemorySink()
        code_out = execute(Job(options, read_run(options, environment), environment), sink, 1.0)
        return Outcome(code_out, sink.records)

    return go


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Call main() with a journal, as the zygote does."""

    def go(argv: list[str], run: dict[str, Any] | None = None, code: str = "", **env: str) -> Outcome:
        import base64

        journal = tmp_path / "work" / "journal"
        journal.parent.mkdir(exist_ok=True)
        monkeypatch.setenv("METIER_JOURNAL", str(journal))
        config = {"metadata": {"uid": "u1", "project": "p"}, "spec": {"output_path": str(tmp_path / "out")}}
        for part, values in (run or {}).items():
            config.setdefault(part, {}).update(values)
        monkeypatch.setenv("MLRUN_EXEC_CONFIG", json.dumps(config))
        if code:
            monkeypatch.setenv("MLRUN_EXEC_CODE", base64.b64encode(code.encode()).decode())
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        result = metier_runner.main(["mlrun", "run", "--name", "demo", "--from-env", *argv])
        records = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
        return Outcome(result, records)

    return go
