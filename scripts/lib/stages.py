"""Runs the test stages one after the other and prints a table: cases, failed, skipped with reasons, seconds.

A stage with no cases fails. The closing line is `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from fuzz import run_all

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
JOBS = str(os.cpu_count() or 2)


@dataclass
class Outcome:
    passed: int = 0
    failed: int = 0
    skipped: list[str] = field(default_factory=list)
    seeds: list[str] = field(default_factory=list)


@dataclass
class Stage:
    name: str
    run: Callable[[], Outcome]
    only_all: bool = False


def call(
    command: list[str],
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
    quiet: bool = True,
    show: Callable[[str], bool] = lambda line: True,
) -> tuple[int, str]:
    """Runs a command; the lines of its output that `show` chooses are shown only when it fails (or `quiet` is off)."""
    process = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if process.returncode != 0 or not quiet:
        lines = [line for line in process.stdout.splitlines(keepends=True) if show(line)]
        sys.stdout.write("".join(lines)[-20000:])
    return process.returncode, process.stdout


def lint() -> Outcome:
    code, _ = call(["scripts/lint"])
    return Outcome(passed=int(code == 0), failed=int(code != 0))


def build(preset: str, *targets: str) -> Callable[[], Outcome]:
    def run() -> Outcome:
        code, _ = call(["scripts/build", preset, *targets])
        return Outcome(passed=int(code == 0), failed=int(code != 0))

    return run


def ctest(preset: str, labels: str = "") -> Callable[[], Outcome]:
    def run() -> Outcome:
        command = ["ctest", "--test-dir", str(BUILD / preset), "-j", JOBS, "--output-on-failure"]
        if labels:
            command += ["-L", labels]
        code, text = call(command, show=lambda line: not re.search(r"^ +Start +\d+:|\.+ +Passed ", line))
        match = re.search(r"(\d+)% tests passed, (\d+) tests failed out of (\d+)", text)
        if not match:
            return Outcome(failed=1)
        failed, total = int(match.group(2)), int(match.group(3))
        skipped = re.findall(r"Test +#\d+: (\S+) .*\*\*\*Skipped", text)
        if code != 0 and failed == 0:
            failed = 1
        seeds = sorted(set(re.findall(r"seed[ =]+(\d+)", text)))
        return Outcome(total - failed - len(skipped), failed, [f"{name}: see its output" for name in skipped], seeds)

    return run


def pytest(folder: str, venv: str, *options: str, env: dict[str, str] | None = None) -> Callable[[], Outcome]:
    def run() -> Outcome:
        command = [str(BUILD / venv / "bin" / "python"), "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", folder]
        variables = {
            "METIER_BINARY": str(BUILD / "dev" / "metier"),
            "PYTHONPATH": str(ROOT / "python" / "runner"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **(env or {}),
        }
        code, text = call([*command, *options], env=variables)
        counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", text)}
        failed = counts.get("failed", 0) + counts.get("error", 0)
        if code != 0 and failed == 0:
            failed = 1
        skipped = re.findall(r"SKIPPED \[\d+\] (.*)", text)
        seeds = sorted(set(re.findall(r"seed[ =]+(\d+)", text)))
        return Outcome(counts.get("passed", 0), failed, skipped, seeds)

    return run


def wheel() -> Outcome:
    """`pip install ./python` in a fresh environment: the package and the metier command in one step."""
    folder, uv = BUILD / "venv-wheel", str(BUILD / "tools" / "bin" / "uv")
    steps = [
        [uv, "venv", "-q", "--clear", "--python", "/usr/bin/python3", str(folder)],
        [uv, "pip", "install", "-q", "--python", str(folder / "bin" / "python"), "./python", "pytest"],
        [str(folder / "bin" / "metier"), "version"],
        [str(folder / "bin" / "python"), "-c", "import metier; metier.new_function('x', kind='job')"],
    ]
    for done, step in enumerate(steps):
        if call(step)[0] != 0:
            return Outcome(passed=done, failed=1)
    return Outcome(passed=len(steps))


def fuzz() -> Outcome:
    """Every target from one seed: a fixed number of executions, 60 seconds under --all."""
    seed = int(os.environ.get("METIER_SEED", "1"))
    outcome = Outcome(seeds=[str(seed)])
    for one in run_all(60 if os.environ.get("METIER_TEST_ALL") else 0, seed):
        print(f"   {one.target:<10} {one.executions:>9} executions, coverage {one.coverage}")
        if one.failure or one.executions == 0:
            print(one.failure or f"error: fuzz target '{one.target}' executed nothing")
            outcome.failed += 1
        else:
            outcome.passed += 1
    return outcome


STAGES = [
    Stage("lint", lint),
    Stage("build dev", build("dev")),
    Stage("unit", ctest("dev")),
    Stage("runner", pytest("python/runner/tests", "venv-test")),
    Stage("pip install", wheel),
    Stage("serving", pytest("python/serving/tests", "venv-test", env={"PYTHONPATH": ""})),
    Stage("python", pytest("python/tests", "venv-wheel", env={"PYTHONPATH": ""})),
    Stage("end to end", pytest("tests/e2e", "venv-test")),
    Stage("dask", pytest("tests/dask", "venv-dask")),
    Stage("real time", pytest("tests/realtime", "venv-test")),
    Stage("kafka", pytest("tests/kafka", "venv-kafka")),
    Stage("dask sdk", pytest("tests/dask_sdk", "venv-sdk-dask")),
    Stage("sdk 1.12.1", pytest("tests/sdk", "venv-sdk")),
    Stage("sdk 1.7.2", pytest("tests/sdk", "venv-sdk17"), only_all=True),
    Stage("spark", pytest("tests/spark", "venv-test")),
    Stage("mpi", pytest("tests/mpi", "venv-test")),
    Stage("flights", pytest("tests/flights", "venv-test"), only_all=True),
    Stage("crash", pytest("tests/crash", "venv-test")),
    Stage("build asan", build("asan")),
    Stage("asan", ctest("asan")),
    Stage("fuzz", fuzz),
    Stage("build tsan", build("tsan", "base_test", "store_test")),
    Stage("tsan", ctest("tsan", "base|store")),
]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/test")
    parser.add_argument(
        "--all", action="store_true", help="add what is slow: full sweeps, every engine and SDK version"
    )
    parser.add_argument("--setup-seconds", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("stages", nargs="*", help="only stages whose name contains one of these")
    options = parser.parse_args()
    if options.all:
        os.environ["METIER_TEST_ALL"] = "1"
    rows: list[tuple[str, Outcome, float]] = []
    broken = False
    for stage in STAGES:
        if stage.only_all and not options.all:
            continue
        if options.stages and not any(word in stage.name for word in options.stages):
            continue
        print(f"── {stage.name}", flush=True)
        started = time.monotonic()
        outcome = stage.run()
        seconds = time.monotonic() - started
        if outcome.passed + outcome.failed == 0:
            print(f"error: stage '{stage.name}' ran no case")
            outcome.failed = 1
        rows.append((stage.name, outcome, seconds))
        print(f"   {outcome.passed} passed, {outcome.failed} failed, {len(outcome.skipped)} skipped, {seconds:.1f} s")
        for reason in outcome.skipped:
            print(f"   skipped: {reason}")
        if outcome.seeds:
            print(f"   seeds: {' '.join(outcome.seeds)}")
        if outcome.failed and stage.name.startswith("build"):
            broken = True
            break
    print(f"\n{'stage':<14} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    print(f"{'setup':<14} {'':>7} {'':>7} {'':>8} {options.setup_seconds:>8}")
    for name, outcome, seconds in rows:
        print(f"{name:<14} {outcome.passed:>7} {outcome.failed:>7} {len(outcome.skipped):>8} {seconds:>8.1f}")
    passed = sum(o.passed for _, o, _ in rows)
    failed = sum(o.failed for _, o, _ in rows)
    skipped = sum(len(o.skipped) for _, o, _ in rows)
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or broken or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
