from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from metier_runner import hyper
from metier_runner.conditions import Condition
from metier_runner.errors import InvalidArgument

CODE = "def f(context, a, b=0):\n    context.log_result('score', a * 10 + b)\n"


def test_grid_varies_the_first_key_fastest(run):
    done = run(CODE, "f", hyperparams={"a": [1, 2], "b": [3, 4]}, hyper_param_options={"selector": "max.score"})
    table = done.run["status"]["iterations"]
    assert table[0] == ["state", "iter", "param.a", "param.b", "output.score"]
    assert [row[1:] for row in table[1:]] == [[1, 1, 3, 13], [2, 2, 3, 23], [3, 1, 4, 14], [4, 2, 4, 24]]
    assert done.results == {"best_iteration": 4, "score": 24} and done.state == "completed" and done.code == 0
    assert [done.runs[n]["status"]["state"] for n in range(5)] == ["completed"] * 5
    assert done.phases == ["start", "import", "user", "upload", "end"]


def test_parent_parameters_reach_the_children(run):
    assert run(CODE, "f", parameters={"b": 7}, hyperparams={"a": [1]}).runs[1]["status"]["results"] == {"score": 17}


def test_the_table_and_its_picture_are_artifacts(run):
    done = run(CODE, "f", hyperparams={"a": [1, 2]})
    text = Path(done.artifact("iteration_results")["body"]["spec"]["target_path"]).read_text()
    assert text.splitlines()[:2] == ["state,iter,param.a,output.score", "completed,1,1,10"]
    page = Path(done.artifact("parallel_coordinates")["body"]["spec"]["target_path"])
    assert page.suffix == ".html" and page.read_text().count("<polyline") == 2
    assert "best_iteration" not in done.results


def test_the_best_childs_artifacts_are_linked(run):
    code = CODE + "    context.log_artifact('note', body=str(a))\n"
    done = run(code, "f", hyperparams={"a": [1, 3, 2]}, hyper_param_options={"selector": "score"})
    link = done.artifact("note", 0)["body"]
    assert (
        link["kind"] == "link"
        and link["spec"]["link_iteration"] == 2
        and link["spec"]["link_key"] == "demo_note"
        and link["spec"]["link_tree"] == "u" * 32
    )
    assert done.run["status"]["artifact_uris"]["note"].startswith("store://artifacts/p/demo_note#0@")


def test_list_pairs_by_position_and_floats_spread(run):
    done = run(CODE, "f", hyperparams={"a": [1, 2], "b": [0.5, 1]}, hyper_param_options={"strategy": "list"})
    assert [row[2:] for row in done.run["status"]["iterations"][1:]] == [[1.0, 0.5, 10.5], [2.0, 1.0, 21.0]]
    bad = run(CODE, "f", hyperparams={"a": [1, 2], "b": [1]}, hyper_param_options={"strategy": "list"})
    assert "different lengths: a 2, b 1" in bad.failure["message"]


def test_random_makes_independent_picks(run):
    assert len(run(CODE, "f", hyperparams={"a": [1, 2]}, hyper_param_options={"strategy": "random"}).run["status"]["iterations"]) == 11
    done = run(CODE, "f", hyperparams={"a": [1, 2]}, hyper_param_options={"strategy": "random", "max_iterations": 4})
    assert len(done.run["status"]["iterations"]) == 5


def test_param_files(run, tmp_path):
    (tmp_path / "p.csv").write_text("a,b\n1,2\n3,4\n")
    (tmp_path / "p.json").write_text('{"a": [1, 2], "b": [5]}')
    assert [r[2:] for r in run(CODE, "f", hyper_param_options={"param_file": "p.csv"}).run["status"]["iterations"][1:]] == [
        [1, 2, 12],
        [3, 4, 34],
    ]
    assert len(run(CODE, "f", param_file="p.json").run["status"]["iterations"]) == 3
    assert "csv of rows" in run(CODE, "f", hyper_param_options={"param_file": "p.csv", "strategy": "grid"}).failure["message"]
    assert "only one" in run(CODE, "f", hyperparams={"a": [1]}, hyper_param_options={"param_file": "p.csv"}).failure["message"]


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        ({"hyperparams": {"a": []}}, "empty list"),
        ({"hyperparams": {"a": 5}}, "must be a list"),
        ({"hyperparams": {n: list(range(1000)) for n in "abc"}}, "1000000000 iterations"),
        ({"hyperparams": {"a": [1]}, "hyper_param_options": {"max_errors": -1}}, "max_errors is -1"),
        ({"hyperparams": {"a": [1]}, "hyper_param_options": {"selector": "best.x"}}, "operator 'best'"),
        ({"hyperparams": {"a": [1]}, "hyper_param_options": {"max_iterations": 3}}, "belongs to strategy random"),
        ({"hyperparams": {"a": [1]}, "hyper_param_options": {"stop_condition": "import os"}}, "stop condition"),
        ({"hyperparams": {"a": [1]}, "hyper_param_options": {"strategy": "magic"}}, "strategies are"),
    ],
)
def test_wrong_options_end_the_run_before_the_first_iteration(run, spec, rule):
    done = run(CODE, "f", **spec)
    assert done.code == 1 and rule in done.failure["message"] and done.failure["code"] == "InvalidParameter" and list(done.runs) == [0]


def test_a_dask_cluster_needs_the_server_that_knows_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", ModuleType("distributed"))
    monkeypatch.setitem(sys.modules, "distributed.security", ModuleType("distributed.security"))
    done = run(CODE, "f", hyperparams={"a": [1, 2]}, hyper_param_options={"dask_cluster_uri": "db://x"})
    assert done.code == 1 and done.failure["code"] == "EngineMissing" and list(done.runs) == [0]
    assert "dask_cluster_uri 'db://x': no server is set up" in done.failure["message"]


def test_the_stop_condition_ends_the_iterations(run):
    done = run(CODE, "f", hyperparams={"a": list(range(100))}, hyper_param_options={"stop_condition": "score >= 20"})
    assert len(done.run["status"]["iterations"]) == 4 and done.state == "completed"


def test_a_stop_condition_on_a_missing_result_is_an_error(run):
    done = run(CODE, "f", hyperparams={"a": [1]}, hyper_param_options={"stop_condition": "loss < 1"})
    assert done.code == 1 and "names the result 'loss', the iteration has: score" in done.failure["message"]


FAILING = "def f(context, a):\n    if a % 2:\n        raise ValueError(a)\n    context.log_result('score', a)\n"


def test_failing_children_make_the_run_an_error_that_says_how_many(run):
    done = run(FAILING, "f", hyperparams={"a": [1, 2, 3, 4]}, hyper_param_options={"selector": "min.score"})
    assert done.code == 1 and done.state == "error" and done.run["status"]["error"].startswith("2 of 4 iterations failed")
    assert done.failure["code"] == "IterationsFailed" and done.failure["message"] == done.run["status"]["error"]
    assert done.results == {"best_iteration": 2, "score": 2} and done.runs[1]["status"]["error"] == "ValueError: 1"


@pytest.mark.parametrize(("limit", "rows"), [(0, 4), (None, 4), (1, 2), (10, 7)])
def test_max_errors_stops_when_exceeded(run, limit, rows):
    done = run("def f(a):\n    1/0\n", "f", hyperparams={"a": list(range(7))}, hyper_param_options={"max_errors": limit})
    assert len(done.run["status"]["iterations"]) == rows + 1


def test_negative_results_can_win_and_the_first_of_equals_does():
    def child(n, value, state="completed"):
        return {"metadata": {"iteration": n}, "status": {"state": state, "results": {"r": value}}}

    runs = [child(1, -5), child(2, "-3"), child(3, -3), child(4, 9, "error"), child(5, "nan"), child(6, None)]
    assert hyper.select(runs, ("max", "r")) == 2 and hyper.select(runs, ("min", "r")) == 1
    assert hyper.select(runs, ("max", "other")) == 0 and hyper.select(runs, ("", "")) == 0


def test_custom_handlers_make_their_own_children(run):
    code = "def f(context):\n    for n in range(3):\n        with context.get_child_context(n=n) as child:\n            child.log_result('r', n)\n"
    code += "            if n == 1: child.mark_as_best()\n    context.update_child_iterations()\n"
    done = run(code, "f", hyper_param_options={"strategy": "custom"})
    assert done.results == {"best_iteration": 2, "r": 1} and len(done.run["status"]["iterations"]) == 4


def test_files_without_handler_iterate_too(run):
    code = "import metier_runner\nc = metier_runner.get_or_create_ctx('x')\nc.log_result('r', c.get_param('a') * 2)\n"
    done = run(code, hyperparams={"a": [1, 2]})
    assert [row[-1] for row in done.run["status"]["iterations"][1:]] == [2, 4]


def test_parallel_iterations_run_in_processes_of_their_own(run):
    code = "import os\ndef f(context, a):\n    context.log_result('score', a)\n    context.log_result('pid', os.getpid())\n    if a == 2: os._exit(9)\n    if a == 3: 1/0\n"
    done = run(code, "f", hyperparams={"a": [1, 2, 3, 4]}, hyper_param_options={"parallel_runs": 3, "selector": "max.score"})
    assert done.run["status"]["error"].startswith("2 of 4") and done.results["score"] == 4
    assert "exit code 9" in done.runs[2]["status"]["error"] and done.runs[3]["status"]["error"].startswith("ZeroDivisionError")
    assert done.runs[1]["status"]["results"]["pid"] not in (os.getpid(), done.runs[4]["status"]["results"]["pid"])


def test_parallel_iterations_share_the_journal(pod):
    spec = {"hyperparams": {"a": list(range(20))}, "hyper_param_options": {"parallel_runs": 4, "selector": "max.score"}}
    done = pod(["--handler", "f", "*"], {"spec": spec}, code="def f(context, a):\n    context.log_result('score', a)\n")
    assert done.code == 0 and done.results["best_iteration"] == 20 and len(done.run["status"]["iterations"]) == 21
    assert {done.runs[n]["status"]["results"]["score"] for n in range(1, 21)} == set(range(20))


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("a > 1", True), ("a>=3 and not b", True), ("a == 2 or b == 0", True), ("1 < a < 3", False), ("a * 2 - 1 == 5", True), ("-a < 0", True),
        ("abs(b - a) == 3", True), ("s in ('x', 'y')", True), ("s not in ['x']", False), ("results['a.b'] == 1", True), ("(a)", True), ("max(a, 10) == 10", True),
        ("s == \"x\"", True), ("7 // 2 == 3", True), ("7 % 4 == 3", True), ("1e3 > .5", True), ("a > 1 && !(b > 0)", True), ("True", True), ("a != None", True),
    ],
)  # fmt: skip
def test_conditions(text, holds):
    assert Condition(text).holds({"a": 3, "b": 0, "s": "x", "a.b": 1}) is holds


@pytest.mark.parametrize(
    "text",
    ["", "a >", "a b", "(a", "__import__('os')", "a.b", "a[0]", "lambda: 1", "a = 1", "a ** 2", "f(1)", "x" * 2000, "(" * 100 + "1" + ")" * 100, "exec('x')", "'a' 'b'", "not"],
)  # fmt: skip
def test_texts_that_are_no_conditions_are_refused(text):
    with pytest.raises(InvalidArgument):
        Condition(text)


@pytest.mark.parametrize("text", ["s * 1000000000", "s > 1", "a / 0", "missing"])
def test_conditions_that_cannot_be_computed_say_so(text):
    with pytest.raises(InvalidArgument):
        Condition(text).holds({"a": 3, "s": "x"})


def test_a_plan_is_counted_without_being_built():
    plan = hyper.Plan({}, {"a": list(range(300)), "b": list(range(300))}, "grid")
    assert plan.count == 90_000 and list(itertools.islice(plan, 301))[300] == {"a": 0, "b": 1}
