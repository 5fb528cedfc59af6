from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHOW = """
import pickle, sys
class Kept: pass
pickle.loads(pickle.dumps(Kept()))
print(__name__, sys.argv, repr(sys.path[0]), __package__, __spec__ and __spec__.name)
"""


def python(*words: str, guarded: bool) -> subprocess.CompletedProcess[str]:
    between = ("-m", "metier_runner.rank") if guarded else ()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *between, *words], env=env, capture_output=True, text=True, timeout=60)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Programs in folders below the current one."""
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / "pkg" / "mod.py").write_text(SHOW)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "__main__.py").write_text(SHOW)
    (tmp_path / "sub" / "train").write_text("#!/usr/bin/env python3\n" + SHOW)
    (tmp_path / "link").symlink_to("sub/train")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("__main__.py", SHOW)
    subprocess.run([sys.executable, "-c", "import py_compile; py_compile.compile('pkg/mod.py', 'sub/mod.pyc')"], check=True)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["sub/train", "-m", "x"],
        ["link"],
        ["sub"],
        ["all.zip", "x"],
        ["sub/mod.pyc"],
        ["-m", "pkg.mod", "-c", "x"],
        ["-m", "sub"],
        ["-c", SHOW, "-m", "x"],
        ["-c", "import sys; sys.exit('no luck')"],
        ["-c", "raise SystemExit(3)"],
    ],
    ids=lambda words: words[1] if words[0] in ("-m", "-c") and len(words[1]) < 10 else words[0],
)
def test_a_program_runs_as_python_runs_it(code: Path, words: list[str]) -> None:
    own, other = python(*words, guarded=True), python(*words, guarded=False)
    assert (own.returncode, own.stdout, own.stderr) == (other.returncode, other.stdout, other.stderr)


@pytest.mark.parametrize("words", [["bad.py"], ["-m", "bad"], ["-c", "import bad"], ["-m", "nothing"], ["nothing.py"]])
def test_a_rank_that_raised_leaves_without_what_waits_at_exit(code: Path, words: list[str]) -> None:
    (code / "bad.py").write_text("import atexit\natexit.register(print, 'waits for the others')\nprint('begun')\nraise ValueError('bad')\n")
    done = python(*words, guarded=True)
    assert done.returncode == 1 and "waits" not in done.stdout
    assert ("ValueError: bad" in done.stderr and done.stdout == "begun\n") or "nothing" in done.stderr
