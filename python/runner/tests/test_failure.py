from __future__ import annotations

import sys

import pytest

from metier_runner.failure import message_of


def test_the_record_names_the_users_innermost_line(run):
    code = "import json\n\ndef helper(text):\n    return json.loads(text)\n\ndef f(context, text):\n    return helper(text)\n"
    done = run(code, "f", parameters={"text": "{"})
    body = done.failure
    assert (body["file"], body["line"], body["function"], body["type"]) == ("work.py", 4, "helper", "JSONDecodeError")
    assert body["source"].splitlines()[2] == "   4     return json.loads(text)" and len(body["source"].splitlines()) == 5
    assert body["called_from"] == [{"file": "work.py", "line": 7, "function": "f"}] and body["code"] == "HandlerError"
    assert "json/decoder" not in body["traceback"] and "metier_runner" not in body["traceback"] and "hidden_frames" in body
    if sys.version_info >= (3, 11):
        assert body["columns"] == [11, 27]


def test_the_whole_traceback_is_in_the_log(run, capsys):
    run("def f():\n    raise ValueError('x')\n", "f")
    err = capsys.readouterr().err
    assert "metier_runner/execute.py" in err.replace("\\", "/") and "ValueError: x" in err


@pytest.mark.parametrize("text", ["x", "ümläut 😀"])
def test_the_record_says_how_much_of_the_log_is_the_traceback(run, capsys, text):
    body = run(f"def f():\n    print('before')\n    raise ValueError('{text}')\n", "f").failure
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and body["log_bytes"] == len(err.encode("utf-8", "backslashreplace"))


def test_an_exit_code_is_no_exception(run):
    assert run("import sys\ndef f():\n    sys.exit(7)\n", "f").failure["code"] == "ExitCode"


def test_the_failure_is_written_once_before_the_state(run):
    done = run("def f():\n    raise ValueError('x')\n", "f")
    ops = [r["op"] for r in done.records]
    assert ops.count("failure") == 1 and ops.index("failure") == len(ops) - 3
    assert done.run["status"]["error"] == "ValueError: x" and done.phases == ["start", "import", "user", "end"]


def test_chained_exceptions_show_the_root_cause_first(run):
    code = "def inner():\n    raise KeyError('deep')\ndef f():\n    try:\n        inner()\n    except KeyError as e:\n        raise RuntimeError('outer') from e\n"
    body = run(code, "f").failure
    assert body["type"] == "KeyError" and body["function"] == "inner"
    assert (
        body["traceback"].index("KeyError: 'deep'")
        < body["traceback"].index("direct cause")
        < body["traceback"].index("RuntimeError: outer")
    )


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("raise ValueError('x' * 10**8)", "(100000000 characters)"),
        ("raise ValueError('\\x1b[31mred\\0')", "\\x1b[31mred\\x00"),
        ("class E(Exception):\n        def __str__(self):\n            raise RuntimeError\n    raise E()", "cannot be made: RuntimeError"),
        ("raise ValueError('\\ud800')", "\\ud800"),
    ],
)
def test_any_exception_text_is_cut_and_escaped(run, body, shown):
    done = run(f"def f():\n    {body}\n", "f")
    assert done.code == 1 and shown in done.failure["message"] and len(done.failure["message"]) < 5000
    assert done.run["status"]["error"].startswith(done.failure["type"])


def test_secrets_are_masked_in_message_traceback_and_log(run, capsys):
    done = run("def f():\n    raise ValueError('key is s3cr3t')\n", "f", env={"MLRUN_K8S_SECRET__A": "s3cr3t"})
    assert (
        done.failure["message"] == "key is ******"
        and "s3cr3t" not in str(done.records)
        and "s3cr3t" not in capsys.readouterr().err.replace("'key is s3cr3t'", "")
    )


def test_a_missing_package_names_the_environment(run, monkeypatch):
    monkeypatch.setenv("METIER_ENVIRONMENT", "python")
    body = run("import not_there.sub\ndef f():\n    pass\n", "f").failure
    assert body["code"] == "PackageMissing" and body["line"] == 1 and "environment 'python'" in body["hint"] and "not_there" in body["hint"]


def test_a_text_where_a_number_was_meant_gets_a_hint(run):
    body = run("def f(lr):\n    return lr * 0.5\n", "f", parameters={"lr": "high"}).failure
    assert body["hint"] == "parameter lr was passed as the text 'high'; numbers look like -p lr=0.1"
    assert run("def f(lr):\n    return int('x')\n", "f", parameters={"lr": "high"}).failure["hint"] == ""


def test_a_syntax_error_shows_its_line(run):
    body = run("x = 1\ndef f(:\n    pass\n", "f").failure
    assert (body["type"], body["file"], body["line"]) == ("SyntaxError", "work.py", 2) and "def f(:" in body["source"]


def test_a_failure_at_import_is_the_users(run):
    done = run("1/0\ndef f():\n    pass\n", "f")
    assert done.failure["type"] == "ZeroDivisionError" and done.failure["line"] == 1 and done.phases == ["start", "import", "end"]


def test_deep_recursion_is_bounded(run):
    done = run("def f(n=0):\n    return f(n + 1)\n", "f")
    assert done.failure["type"] == "RecursionError" and len(done.failure["traceback"]) <= 32 * 1024


def test_user_code_that_closes_stdout_still_ends_in_order(run):
    done = run("import sys\ndef f():\n    sys.stdout = None\n    sys.stderr = None\n    raise ValueError('x')\n", "f")
    assert done.code == 1 and done.failure["message"] == "x"


def test_results_before_the_failure_are_kept(run):
    done = run("def f(context):\n    context.log_result('a', 1)\n    raise SystemExit('enough')\n", "f")
    assert done.results == {"a": 1} and done.failure["message"] == "enough" and done.failure["type"] == "SystemExit"


def test_a_failed_task_of_spark_is_told_by_the_users_exception() -> None:
    text = (
        "An error occurred while calling z:PythonRDD.collectAndServe.\n: org.apache.spark.SparkException: Job aborted\n"
        'Traceback (most recent call last):\n  File "x.py", line 3, in broken\n    raise ValueError("no such luck")\n'
        "ValueError: no such luck\n\n\tat org.apache.spark.api.python.BasePythonRunner\n"
    )
    error = type("Py4JJavaError", (Exception,), {"__module__": "py4j.protocol"})(text)
    assert message_of(error) == "a task failed: ValueError: no such luck"
    assert message_of(RuntimeError(text)).startswith("An error occurred")
    plain = type("Py4JError", (Exception,), {"__module__": "py4j.protocol"})("no gateway")
    assert message_of(plain) == "no gateway"
