"""Runs every fuzz target from a fixed seed, so many executions or seconds each; prints executions, coverage and what was found.

Corpora are in tests/fuzz/corpus/<target>/: small seeds and every input that once failed. What a run finds new stays
below build/asan/found/; an input that fails is named with the command that repeats it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
BINARIES = ROOT / "build" / "asan" / "tests" / "fuzz"
MODEL = ROOT / "src" / "model" / "testdata"
# Files that other tests keep anyway serve as seeds too.
MORE_SEEDS = {"function": [MODEL], "yaml": [MODEL], "json": [ROOT / "src" / "kind" / "job" / "golden"]}
# The shim's spec lives until its process ends: what it holds is not lost memory.
LEAKS = {"shim_spec": "detect_leaks=0"}


# Without a time limit a target ends after so many executions: the same ones for the same seed and sources.
RUNS = 4000


@dataclass
class Fuzzed:
    target: str
    executions: int = 0
    coverage: int = 0
    failure: str = ""


def targets() -> list[str]:
    return sorted(folder.name for folder in CORPUS.iterdir() if folder.is_dir())


def run_target(name: str, seconds: int, seed: int) -> Fuzzed:
    if not (BINARIES / f"{name}_fuzz").exists():
        return Fuzzed(name, failure=f"{name}_fuzz is not built: scripts/build asan fuzz")
    found = ROOT / "build" / "asan" / "found" / name
    shutil.rmtree(found, ignore_errors=True)
    found.mkdir(parents=True)
    seeds = [str(folder) for folder in [CORPUS / name, *MORE_SEEDS.get(name, [])]]
    command = [
        str(BINARIES / f"{name}_fuzz"),
        *[
            f"-seed={seed}",
            f"-runs={RUNS}" if seconds == 0 else f"-max_total_time={seconds}",
            "-timeout=20",
            "-malloc_limit_mb=256",
            "-rss_limit_mb=0",
        ],
        "-max_len=4096",
        *["-print_final_stats=1", f"-artifact_prefix={found}/failed-"],
        *[str(found), *seeds],
    ]
    sanitizer = f"quarantine_size_mb=16:{LEAKS.get(name, '')}"
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            env={**os.environ, "ASAN_OPTIONS": sanitizer},
            timeout=(seconds or 60) + 120,
        )
    except subprocess.TimeoutExpired:
        return Fuzzed(name, failure=f"{name}_fuzz did not end: {' '.join(command)}")
    out = Fuzzed(name)
    if stats := re.search(r"number_of_executed_units: *(\d+)", done.stderr):
        out.executions = int(stats[1])
    if coverage := re.findall(r"cov: (\d+)", done.stderr):
        out.coverage = int(coverage[-1])
    if done.returncode != 0:
        told = [line for line in done.stderr.splitlines() if re.search(r"oracle:|runtime error:|==ERROR|SUMMARY", line)]
        text = "\n".join([*told, *[line for line in done.stderr.splitlines() if line.startswith("    #")]])
        failed = sorted(found.glob("failed-*"))
        again = f"{command[0]} {failed[0]}" if failed else " ".join(command)
        out.failure = f"{text[:3000]}\nrepeat: {again}\nthen keep the input in tests/fuzz/corpus/{name}/"
    return out


def run_all(seconds: int, seed: int) -> list[Fuzzed]:
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        return list(pool.map(lambda name: run_target(name, seconds, seed), targets()))
