"""Runs in this process, without a server; runs against one are in tests/mpi and tests/flights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import metier
import pytest


def test_a_callable_runs_here(alone: Path) -> None:
    def train(context, lr: float = 0.1, name="x"):  # type: ignore[no-untyped-def]
        context.log_result("lr", lr)
        return lr * 2

    run = metier.new_function(kind="", handler=train).run(params={"lr": 2})
    assert run.status["state"] == "completed"
    assert run.outputs["lr"] == 2
    assert run.outputs["return"] == 4
    assert run.name == "train-train"


def test_a_file_runs_here_in_kinds_local_and_job(alone: Path) -> None:
    (alone / "work.py").write_text("def go(context, n=1):\n    context.log_result('n', n + 1)\n")
    local = metier.new_function("w", command=str(alone / "work.py"), kind="local")
    assert local.run(handler="go", params={"n": 4}).outputs == {"n": 5}
    job = metier.code_to_function("w", filename=alone / "work.py", kind="job", image="i")
    assert job.run(handler="go", local=True).outputs == {"n": 2}


def test_hyper_parameters_expand(alone: Path) -> None:
    def score(context, x=0):  # type: ignore[no-untyped-def]
        context.log_result("score", x * x)

    run = metier.new_function(handler=score).run(
        hyperparams={"x": [1, 3, 2]}, hyper_param_options={"selector": "max.score"}
    )
    assert run.outputs["score"] == 9
    assert run.outputs["best_iteration"] == 2


def test_a_failure_raises_with_its_cause(alone: Path) -> None:
    def bad(context):  # type: ignore[no-untyped-def]
        raise KeyError("nope")

    with pytest.raises(metier.UserCodeError) as caught:
        metier.new_function(handler=bad).run()
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.run.status["state"] == "error"
    run = metier.new_function(handler=bad).run(watch=False)
    assert run.status["state"] == "error"


def test_wrong_use_says_what_is_right(alone: Path) -> None:
    fn = metier.new_function("f", kind="job", image="i")
    with pytest.raises(metier.InvalidError, match="cannot be sent"):
        fn.run(handler=print)
    with pytest.raises(metier.InvalidError, match="2\\^63"):
        fn.run(handler="x", params={"n": 1 << 63})
    with pytest.raises(metier.InvalidError, match="not a run name"):
        fn.run(handler="x", name="a/b")
    with pytest.raises(metier.UnavailableError):
        fn.run(handler="x")


def test_importing_is_cheap_and_starts_nothing() -> None:
    code = "import sys, metier; assert 'subprocess' not in sys.modules and 'http.client' not in sys.modules; metier.new_function"
    path = [entry for entry in sys.path if entry]
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(path)})
