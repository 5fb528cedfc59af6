from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import metier_runner
from metier_runner.command import parse
from metier_runner.errors import UsageError

ROOT = Path(__file__).parents[1]


def test_a_handler_of_inline_code_writes_results_phases_and_state_to_the_journal(pod):
    done = pod(
        ["--handler", "f", "--origin-file", "my/train.py", "*"],
        {"spec": {"parameters": {"x": 2}}},
        "def f(context, x):\n    context.log_result('y', x * 2)\n",
    )
    assert done.code == 0 and done.results == {"y": 4} and done.state == "completed"
    assert done.phases == ["start", "import", "user", "upload", "end"]
    assert [record["v"] for record in done.records] == [1] * len(done.records)
    assert done.run["metadata"]["labels"]["host"]


def test_the_state_is_the_last_patch_and_comes_after_the_outputs(pod):
    done = pod(["--handler", "f", "*"], code="def f(context):\n    context.log_artifact('a', body='x')\n    return 3\n")
    ops = [(r["op"], r.get("name")) for r in done.records]
    assert ops[-1] == ("phase", "end") and "status.state" in done.records[-2]["body"]
    assert done.results == {"return": 3}


def test_a_file_without_handler_runs_as_main_with_its_arguments(pod, tmp_path, capsys):
    (tmp_path / "job.py").write_text(
        "import sys\nfrom pickle import dumps, loads\nclass A: pass\nloads(dumps(A()))\nprint(__name__, sys.argv)\n"
    )
    assert pod(["job.py", "--fast", "2"]).code == 0
    assert capsys.readouterr().out == "__main__ ['job.py', '--fast', '2']\n"


def test_a_star_takes_the_place_of_the_inline_code_file(pod, capsys):
    assert pod(["*", "a", "b"], code="import sys\nprint(sys.argv[1:])\n").code == 0
    assert capsys.readouterr().out == "['a', 'b']\n"


@pytest.mark.parametrize(
    ("code", "expected", "message"),
    [
        ("sys.exit(7)", 7, "7"),
        ("sys.exit('no luck')", 1, "no luck"),
        ("sys.exit(0)", 0, ""),
        ("sys.exit()", 0, ""),
        ("1/0", 1, "division by zero"),
    ],
)
def test_exit_codes_are_those_of_python(pod, tmp_path, code, expected, message):
    (tmp_path / "job.py").write_text(f"import sys\n{code}\n")
    done = pod(["job.py"])
    assert done.code == expected and done.state == ("error" if expected else "completed")
    if expected:
        assert message in done.failure["message"] and message in done.run["status"]["error"]


def test_a_keyboard_interrupt_ends_with_130(pod, tmp_path):
    (tmp_path / "job.py").write_text("raise KeyboardInterrupt\n")
    assert pod(["job.py"]).code == 130


def test_mode_pass_runs_a_program_with_placeholders(pod, tmp_path):
    done = pod(["--mode", "pass", "sh", "-c", "echo {n} {{}} > {file}"], {"spec": {"parameters": {"n": 3, "file": str(tmp_path / "o")}}})
    assert done.code == 0 and (tmp_path / "o").read_text() == "3 {}\n"


def test_a_program_that_fails_silently_is_an_error(pod):
    done = pod(["--mode", "pass", "sh", "-c", "exit 3"])
    assert done.code == 3 and done.state == "error" and "exit code 3" in done.failure["message"]


def test_a_killed_program_names_its_signal(pod):
    done = pod(["--mode", "pass", "sh", "-c", "kill -9 $$"])
    assert done.code == 137 and "SIGKILL" in done.failure["message"]


def test_an_unknown_placeholder_names_the_parameters(pod):
    done = pod(["--mode", "pass", "echo", "{nope}"], {"spec": {"parameters": {"n": 3}}})
    assert done.code == 1 and "{nope}" in done.failure["message"] and "parameters: n" in done.failure["message"]


def test_a_program_returns_results_through_the_meta_file(pod, tmp_path):
    script = "import json, os; p = os.environ['MLRUN_META_TMPFILE']; run = json.loads(os.environ['MLRUN_EXEC_CONFIG']); "
    script += "run['status']['results'] = {'z': 1}; json.dump(run, open(p, 'w'))"
    assert pod(["--mode", "pass", sys.executable, "-c", script.replace("{", "{{").replace("}", "}}")]).results == {"z": 1}


def test_a_shell_file_without_mode_is_a_program(pod, tmp_path):
    (tmp_path / "job.sh").write_text("echo $1 > out.txt\n")
    assert pod(["job.sh", "hello"]).code == 0
    assert (tmp_path / "out.txt").read_text() == "hello\n"


def test_inline_shell_code_takes_the_place_of_codefile(pod, tmp_path):
    done = pod(["--mode", "pass", "--origin-file", "x.sh", "sh {codefile}", "5"], code=f"echo got $1 > {tmp_path}/o\n")
    assert done.code == 0 and (tmp_path / "o").read_text() == "got 5\n"


def test_the_current_context_is_found_by_get_or_create_ctx(pod, tmp_path):
    (tmp_path / "job.py").write_text(
        "import metier_runner\nc = metier_runner.get_or_create_ctx('x')\nc.log_result('n', c.get_param('k') + 1)\n"
    )
    assert pod(["job.py"], {"spec": {"parameters": {"k": 1}}}).results == {"n": 2}


@pytest.mark.parametrize("words", [["--mode", "other", "x"], ["--nope"], ["--handler"], ["--mode", "pass", "--handler", "f", "x"]])
def test_wrong_usage_is_refused(words):
    with pytest.raises(UsageError):
        parse(words)


def test_wrong_usage_exits_with_2(monkeypatch, capsys):
    monkeypatch.setenv("MLRUN_EXEC_CONFIG", "[1]")
    assert metier_runner.main(["run", "--from-env", "x.py"]) == 2
    assert metier_runner.main(["frobnicate"]) == 2
    assert "error: MLRUN_EXEC_CONFIG is a JSON list" in capsys.readouterr().err


def test_options_end_at_the_command():
    options = parse(["--name", "n", "--from-env", "--handler=h", "train.py", "--name", "x"])
    assert (options.name, options.handler, options.command, options.args) == ("n", "h", "train.py", ["--name", "x"])


def test_a_missing_file_says_where_it_was_looked_for(pod, tmp_path):
    done = pod(["nope.py"])
    assert done.code == 1 and "nope.py" in done.failure["message"] and str(tmp_path) in done.failure["message"]


def test_inline_code_that_is_no_base64_is_an_error_of_the_run(pod):
    done = pod(["*"], MLRUN_EXEC_CODE="%%%")
    assert done.code == 1 and "base64" in done.failure["message"]


def test_code_and_source_together_are_refused(pod, tmp_path):
    assert "only one" in pod(["--source", str(tmp_path), "*"], code="x=1").failure["message"]


def test_a_relative_command_is_looked_up_in_the_workdir_of_the_source(pod, tmp_path):
    (tmp_path / "src" / "sub").mkdir(parents=True)
    (tmp_path / "src" / "sub" / "job.py").write_text("import helper\ndef f(context):\n    return helper.n\n")
    (tmp_path / "src" / "sub" / "helper.py").write_text("n = 9\n")
    done = pod(["--source", str(tmp_path / "src"), "--workdir", "./sub", "--handler", "f", "job.py"])
    assert done.results == {"return": 9} and os.getcwd() == str(tmp_path)


def test_a_workdir_outside_the_source_is_refused(pod, tmp_path):
    assert "leaves" in pod(["--source", str(tmp_path), "--workdir", "../..", "x.py"]).failure["message"]


def test_it_runs_from_a_zip(tmp_path):
    archive = tmp_path / "runner.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for path in (ROOT / "metier_runner").glob("*.py"):
            out.write(path, f"metier_runner/{path.name}")
    run = {"metadata": {"uid": "u1"}, "spec": {}}
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(archive),
        "MLRUN_EXEC_CONFIG": json.dumps(run),
        "METIER_JOURNAL": str(tmp_path / "j"),
    }
    env["MLRUN_EXEC_CODE"] = base64.b64encode(b"def f(context):\n    return 1\n").decode()
    done = subprocess.run(
        [sys.executable, "-m", "metier_runner", "run", "--name", "z", "--from-env", "--handler", "f", "*"], env=env, cwd=tmp_path
    )
    assert done.returncode == 0
    assert any(json.loads(line).get("body", {}).get("status.results.return") == 1 for line in (tmp_path / "j").read_text().splitlines())


def test_ranks_of_a_pod_never_see_half_of_the_code(pod, tmp_path):
    code = "def f(context):\n    return 1\n"
    file = tmp_path / "work" / "code" / "main.py"
    assert pod(["--handler", "f", "*"], code=code, METIER_RANK="0").code == 0
    with open(file) as read_by_rank_0:
        assert pod(["--handler", "f", "*"], code=code, METIER_RANK="1").code == 0
        assert os.fstat(read_by_rank_0.fileno()).st_nlink == 0, "the file was written while another rank could read it"
    assert [path.name for path in file.parent.iterdir() if path.suffix != ""] == ["main.py"]


@pytest.mark.parametrize(("rank", "kept"), [("1", True), ("", False)])
def test_ranks_of_a_pod_share_one_source_tree(pod, tmp_path, monkeypatch, rank, kept):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(tmp_path / "tree.zip", "w") as out:
        out.writestr("train.py", "def f(context):\n    return 1\n")
    line = ["--handler", "f", "--source", str(tmp_path / "tree.zip"), "train.py"]
    first = {"METIER_RANK": "0"} if rank else {}
    assert pod(line, **first).code == 0
    of_rank_0 = tmp_path / "work" / "source" / "made-by-rank-0"
    of_rank_0.touch()
    assert pod(line, **({"METIER_RANK": rank} if rank else {})).code == 0
    assert of_rank_0.exists() is kept


def test_importing_the_package_imports_almost_nothing():
    code = "import sys; before = set(sys.modules); import metier_runner; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['__future__', 'metier_runner']"


def test_an_unknown_option_before_the_command_is_not_taken_for_it():
    with pytest.raises(UsageError, match="--fast"):
        parse(["--fast", "train.py"])
