"""The unmodified mlrun SDK drives our server: connect, project, local, handler and job runs, artifacts, lists."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from support.server import Server

CODE = """
import mlrun

def train(context, lr: float = 0.1, text="x"):
    print("fitting with", lr)
    context.logger.info("fitting")
    context.log_result("accuracy", 0.9 + lr)
    context.set_annotation("purpose", "test")
    context.log_artifact("note", body=b"hello " + text.encode(), local_path="note.txt")
    return "done"

def fail(context):
    raise ValueError("no such luck")
"""


@pytest.fixture(scope="module")
def project(mlrun: Any, server: Server) -> Any:
    return mlrun.get_or_create_project(
        "sdk", context=str(server.data.parent / "context"), user_project=False, save=True
    )


@pytest.fixture(scope="module")
def code(server: Server) -> Path:
    path = server.data.parent / "train.py"
    path.write_text(textwrap.dedent(CODE))
    return path


def test_connects_and_reads_the_client_spec(mlrun: Any) -> None:
    db = mlrun.get_run_db()
    assert db.kind == "http"
    assert mlrun.mlconf.namespace


def test_creates_lists_and_reads_projects(mlrun: Any, project: Any, server: Server) -> None:
    assert "sdk" in mlrun.get_run_db().list_projects(format_="name_only")
    again = mlrun.get_or_create_project("sdk", context=str(server.data.parent / "context"))
    assert again.metadata.name == "sdk"


def test_priority_classes_are_those_of_the_server(mlrun: Any, project: Any, code: Path) -> None:
    function = mlrun.code_to_function("trainer", project="sdk", filename=str(code), kind="job", image="mlrun/mlrun")
    assert function.list_valid_priority_class_names() == [f"igz-workload-{c}" for c in ("low", "medium", "high")]
    function.with_priority_class("igz-workload-high")
    run = function.run(handler="train", params={"lr": 0.05}, local=False, watch=True)
    assert run.state() == "completed"


def test_runs_a_job_and_reads_its_outputs(mlrun: Any, project: Any, code: Path) -> None:
    function = mlrun.code_to_function("trainer", project="sdk", filename=str(code), kind="job", image="mlrun/mlrun")
    run = function.run(handler="train", params={"lr": 0.05, "text": "job"}, local=False, watch=True)
    assert run.state() == "completed"
    assert run.status.results["accuracy"] == pytest.approx(0.95)
    assert run.output("return") == "done"
    assert run.metadata.annotations["purpose"] == "test"
    assert mlrun.get_dataitem(run.output("note")).get() == b"hello job"
    state, log = mlrun.get_run_db().get_log(run.metadata.uid, "sdk")
    assert b"fitting with 0.05" in log
    assert b"namespace" not in log  # mlrun's warning when server and pod tell it different ones


def test_a_failing_job_raises_with_the_users_error(mlrun: Any, project: Any, code: Path) -> None:
    function = mlrun.code_to_function("trainer", project="sdk", filename=str(code), kind="job", image="mlrun/mlrun")
    with pytest.raises(mlrun.runtimes.utils.RunError, match="no such luck"):
        function.run(handler="fail", local=False, watch=True)


def test_runs_locally_and_as_handler(mlrun: Any, project: Any, code: Path, tmp_path: Path) -> None:
    function = mlrun.code_to_function("local-one", project="sdk", filename=str(code), kind="job", image="mlrun/mlrun")
    run = function.run(handler="train", params={"lr": 0.01}, local=True)
    assert run.status.results["accuracy"] == pytest.approx(0.91)

    def handler(context, p1: int = 1):  # type: ignore[no-untyped-def]  # mlrun resolves the hints
        context.log_result("twice", p1 * 2)

    run = mlrun.new_function("h", project="sdk").run(handler=handler, params={"p1": 21})
    assert run.status.results["twice"] == 42
    stored = mlrun.get_run_db().read_run(run.metadata.uid, "sdk")
    assert stored["status"]["state"] == "completed"


def test_hyper_parameters_of_a_job(mlrun: Any, project: Any, code: Path) -> None:
    function = mlrun.code_to_function("trainer", project="sdk", filename=str(code), kind="job", image="mlrun/mlrun")
    run = function.run(
        handler="train",
        local=False,
        hyperparams={"lr": [0.01, 0.03, 0.02]},
        hyper_param_options=mlrun.model.HyperParamOptions(selector="max.accuracy"),
    )
    assert run.status.results["best_iteration"] == 2
    assert len(run.status.iterations) == 4


def test_lists_runs_artifacts_functions(mlrun: Any, project: Any) -> None:
    db = mlrun.get_run_db()
    assert len(db.list_runs(project="sdk")) >= 2
    assert all(r["status"]["state"] == "completed" for r in db.list_runs(project="sdk", states=["completed"]))
    assert "note" in {a["metadata"]["key"] for a in db.list_artifacts(project="sdk")}
    assert "trainer" in {f["metadata"]["name"] for f in db.list_functions(project="sdk")}


def test_sets_secrets_that_jobs_see(mlrun: Any, project: Any, server: Server, tmp_path: Path) -> None:
    project.set_secrets({"API_KEY": "s3cr3t-value"}, provider="kubernetes")
    path = server.data.parent / "secret.py"
    path.write_text(
        "def f(context):\n    value = context.get_secret('API_KEY')\n    print('key is', value)\n    return len(value)\n"
    )
    function = mlrun.code_to_function("secretive", project="sdk", filename=str(path), kind="job", image="mlrun/mlrun")
    run = function.run(handler="f", local=False)
    assert run.output("return") == 12
    _, log = mlrun.get_run_db().get_log(run.metadata.uid, "sdk")
    assert b"s3cr3t-value" not in log and b"*" * 12 in log


def test_aborts_a_run(mlrun: Any, project: Any, server: Server) -> None:
    path = server.data.parent / "slow.py"
    path.write_text("import time\ndef f(context):\n    time.sleep(600)\n")
    function = mlrun.code_to_function("slow", project="sdk", filename=str(path), kind="job", image="mlrun/mlrun")
    run = function.run(handler="f", local=False, watch=False)
    mlrun.get_run_db().abort_run(run.metadata.uid, "sdk", timeout=30)
    assert mlrun.get_run_db().read_run(run.metadata.uid, "sdk")["status"]["state"] == "aborted"


def test_what_is_missing_says_so(mlrun: Any, project: Any, code: Path) -> None:
    function = mlrun.code_to_function("trainer", project="sdk", filename=str(code), kind="job", image="mlrun/mlrun")
    with pytest.raises(mlrun.errors.MLRunHTTPError, match="(?i)schedule"):
        function.run(handler="train", local=False, schedule="0 * * * *")


def test_deletes_runs_functions_and_the_project(mlrun: Any, project: Any) -> None:
    db = mlrun.get_run_db()
    newest = db.list_runs(project="sdk")[0]
    db.del_run(newest["metadata"]["uid"], "sdk")
    db.del_runs(project="sdk")
    assert len(db.list_runs(project="sdk")) == 0
    db.delete_project("sdk", deletion_strategy="cascade")
    assert "sdk" not in db.list_projects(format_="name_only")
