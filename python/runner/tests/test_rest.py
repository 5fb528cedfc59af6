from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import Outcome
from fake_server import serving

import metier_runner
from metier_runner import dask_security
from metier_runner.command import parse
from metier_runner.dataitem import DataItem
from metier_runner.errors import NotFound, ServerError
from metier_runner.foreground import Lease, run_in_foreground
from metier_runner.rest import Client, RestSink

ROOT = Path(__file__).parents[1]
RUN = {"metadata": {"uid": "u1", "project": "p", "name": "demo"}, "spec": {"parameters": {"x": 2}}}


@pytest.fixture(params=["tcp", "unix"])
def server(request, tmp_path):
    with serving(str(tmp_path / "s.sock") if request.param == "unix" else "") as fake:
        fake.url += ":" if request.param == "unix" else ""
        yield fake


def test_a_run_without_journal_goes_over_rest(server, tmp_path, monkeypatch):
    (tmp_path / "job.py").write_text("def f(context, x):\n    context.log_result('a.b', x)\n    context.log_artifact('n', body='t')\n")
    monkeypatch.setenv("METIER_SERVER", server.url)
    monkeypatch.setenv("METIER_TOKEN", "secret")
    monkeypatch.setenv("MLRUN_EXEC_CONFIG", json.dumps(RUN))
    assert metier_runner.main(["run", "--name", "demo", "--from-env", "--handler", "f", "job.py"]) == 0
    done = Outcome(0, server.records())
    assert (
        done.results == {"a.b": 2}
        and done.state == "completed"
        and list(done.run["status"]["phases"]) == ["start", "import", "user", "upload", "end"]
    )
    put = server.of("PUT", "/api/v2/projects/p/artifacts/demo_n")[0]
    assert put[2] == {"tree": "u1", "iter": "0"} and put[3]["spec"]["size"] == 1
    assert {request[4] for request in server.requests} == {"Bearer secret"}


def test_a_failure_is_a_patch_with_reason_and_record(server, tmp_path, monkeypatch):
    (tmp_path / "job.py").write_text("1/0\n")
    monkeypatch.setenv("MLRUN_DBPATH", server.url)
    monkeypatch.setenv("MLRUN_EXEC_CONFIG", json.dumps(RUN))
    assert metier_runner.main(["run", "--name", "demo", "--from-env", "job.py"]) == 1
    status = Outcome(1, server.records()).run["status"]
    assert (
        status["reason"] == "HandlerError" and status["failure"]["line"] == 1 and status["error"] == "ZeroDivisionError: division by zero"
    )


def test_transient_errors_are_tried_again_and_permanent_ones_are_not():
    pauses = []
    with serving() as server:
        client = Client(server.url, pause=pauses.append)
        server.failures = [503, 500]
        assert client.json("GET", "v1/x") == {} and pauses == [0.1, 0.5]
        server.failures = [422]
        with pytest.raises(ServerError, match="422 not now – wait"):
            client.json("GET", "v1/x")
        with pytest.raises(NotFound, match="404 no such artifact"):
            client.json("GET", "v2/projects/p/artifacts/none")
        client.close()
    with pytest.raises(ServerError, match="no answer from"):
        Client(server.url, pause=pauses.append).json("GET", "v1/x")


def test_an_unreachable_server_is_exit_6(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("metier_runner.rest.PAUSES", ())
    monkeypatch.setenv("METIER_SERVER", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("MLRUN_EXEC_CONFIG", json.dumps(RUN))
    assert metier_runner.main(["run", "--from-env", "x.py"]) == 6
    assert "no such file or directory" in capsys.readouterr().err
    with pytest.raises(ServerError, match="neither"):
        Client("ftp://x")


def test_a_server_that_user_code_misses_fails_the_run_not_the_runner(pod, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("metier_runner.rest.PAUSES", ())
    done = pod(
        ["--handler", "f", "*"], code="def f(context):\n    context.get_dataitem('store://p/k')\n", METIER_SERVER=f"unix://{tmp_path}/none"
    )
    assert done.code == 1 and done.state == "error" and done.failure["type"] == "ServerError" and done.failure["line"] == 2
    monkeypatch.delenv("MLRUN_EXEC_CODE")
    pod(["nothing.py"])
    assert "\nerror: 'nothing.py': no such file" in capsys.readouterr().err


def test_store_addresses_are_read_through_the_server(server, tmp_path, monkeypatch):
    monkeypatch.setenv("METIER_SERVER", server.url)
    (tmp_path / "m").mkdir()
    (tmp_path / "m/model.bin").write_bytes(b"model")
    (tmp_path / "d.csv").write_text("a\n1\n")
    server.artifacts["k"] = {"kind": "dataset", "metadata": {}, "spec": {"target_path": str(tmp_path / "d.csv"), "format": "csv"}}
    server.artifacts["net"] = {"kind": "model", "spec": {"target_path": f"{tmp_path}/m/", "model_file": "model.bin"}}
    item = DataItem.of("store://datasets/p/k#2:v1@tree")
    assert item.get() == b"a\n1\n" and item.get_artifact_type() == "dataset" and item.kind == "file"
    assert server.requests[-1][2] == {"iter": "2", "tree": "tree", "tag": "v1"}
    assert DataItem.of("store://models/p/net").get() == b"model"
    assert server.requests[-1][2] == {"iter": "0", "tag": "latest"}
    DataItem.of("store://k@t", project="q")
    assert server.requests[-1][1] == "/api/v2/projects/q/artifacts/k" and server.requests[-1][2] == {"iter": "0", "tree": "t"}
    with pytest.raises(NotFound):
        DataItem.of("store://p/none")


def test_a_dask_client_gets_the_certificate_of_our_clusters_only(server, monkeypatch):
    made = ModuleType("distributed.security")
    made.Security = dict
    monkeypatch.setitem(sys.modules, "distributed.security", made)
    monkeypatch.setattr(dask_security, "_other_versions", lambda _: "")
    monkeypatch.delenv("MLRUN_DBPATH", raising=False)
    ours, theirs = "tls://127.70.0.1:8786", "tls://10.0.0.1:8786"
    server.identities[ours] = {"certificate": "C", "key": "K"}
    assert dask_security.load({"address": ours}) is None  # no server is set up
    monkeypatch.setenv("METIER_SERVER", server.url)
    monkeypatch.setenv("METIER_TOKEN", "secret")
    assert dask_security.load({"address": ours}) == {
        "tls_ca_file": "C",
        "tls_client_cert": "C",
        "tls_client_key": "K",
        "require_encryption": True,
    }
    assert server.requests[-1][4] == "Bearer secret"
    assert dask_security.load({"address": theirs}) is None
    assert dask_security.load({"address": "tcp://127.70.0.1:8786"}) is None


def test_the_foreground_kind_tells_results_log_lease_and_state(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLRUN_EXEC_CONFIG", json.dumps(RUN))
    (tmp_path / "job.py").write_text(
        "import sys\ndef f(context, x):\n    print('hello', sys.stdout.isatty(), sys.stdout.encoding)\n    sys.stdout.flush(); sys.stdout.buffer.write(b'raw\\n'); sys.stdout.buffer.flush()\n    return x\n"
    )
    stdout = sys.stdout
    assert metier_runner.main(["handler", "--server", server.url, "--handler", "f", "job.py"]) == 0
    assert sys.stdout is stdout
    printed = capsys.readouterr().out
    assert printed.lower().startswith("hello false utf-8") and server.log.decode() == printed
    done = Outcome(0, server.records())
    assert done.results == {"return": 2} and done.state == "completed"
    lease = server.of("POST", "/api/metier/v1/runs/u1/lease")
    assert lease and lease[0][3] == {"project": "p"}
    assert server.of("POST", "/api/v1/projects/p/logs/u1")[0][2] == {"append": "yes"}


def test_a_failing_foreground_run_posts_its_traceback(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLRUN_EXEC_CONFIG", json.dumps(RUN))
    (tmp_path / "job.py").write_text("import sys\nprint('before')\nsys.exit(3) if len(sys.argv) > 1 else 1/0\n")
    with serving() as server:
        assert metier_runner.main(["handler", "--server", server.url, "job.py"]) == 1
        assert b"before\nTraceback" in server.log and b"ZeroDivisionError" in server.log
        assert Outcome(1, server.records()).run["status"]["error"] == "ZeroDivisionError: division by zero"
        assert metier_runner.main(["handler", "--server", server.url, "job.py", "x"]) == 3
    assert capfd.readouterr().err == ""


def test_an_aborted_lease_interrupts_the_code(tmp_path, monkeypatch):
    monkeypatch.setenv("MLRUN_EXEC_CONFIG", json.dumps(RUN))
    (tmp_path / "job.py").write_text("import threading\nprint('waiting')\nthreading.Event().wait(30)\n")
    monkeypatch.setattr("metier_runner.foreground.LEASE_EVERY", 0.01)
    with serving() as server:
        server.abort_after = b"waiting"
        assert metier_runner.main(["handler", "--server", server.url, "job.py"]) == 130


def test_the_lease_is_renewed_until_it_is_closed():
    with serving() as server:
        lease = Lease(Client(server.url), "p", "u1", every=0.001)
        while len(server.of("POST", "/lease")) < 3:
            server.leased.wait()
        lease.close()
        count = len(server.requests)
        assert count >= 3 and len(server.requests) == count


def test_prints_and_prompts_keep_the_terminal(tmp_path):
    """In a pseudo-terminal: isatty holds, input() prompts through the real stdout, both also reach the log."""
    import os
    import pty

    (tmp_path / "job.py").write_text("import sys\nname = input('name? ')\nprint('got', name, sys.stdout.isatty(), sys.stdout.fileno())\n")
    with serving() as server:
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update(MLRUN_EXEC_CONFIG=json.dumps(RUN), PYTHONPATH=str(ROOT))
            os.execv(sys.executable, [sys.executable, "-m", "metier_runner", "handler", "--server", server.url, "job.py"])
        shown = b""
        while b"name?" not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, b"bob\n")
        try:
            while True:
                shown += os.read(terminal, 1000)
        except OSError:
            pass
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert b"got bob True 1" in shown and b"got bob True 1" in server.log


def test_no_server_is_wrong_usage(monkeypatch, capsys):
    monkeypatch.setenv("MLRUN_EXEC_CONFIG", json.dumps(RUN))
    assert metier_runner.main(["handler", "job.py"]) == 2
    assert "no server" in capsys.readouterr().err


def test_a_callable_runs_in_the_callers_process(server):
    from metier_runner.foreground import run_callable

    def work(context, x, y: int = 1):
        context.log_result("sum", x + y)
        print("working")

    run = {"metadata": {"uid": "u1", "project": "p", "name": "demo"}, "spec": {"parameters": {"x": 2, "y": "5"}}}
    done = run_callable(work, run, server.url)
    assert done.code == 0 and done.error is None and done.run["status"]["results"] == {"sum": 7} and server.log == b"working\n"
    assert Outcome(0, server.records()).state == "completed"
    failed = run_callable(lambda: 1 / 0, {"metadata": {"uid": "u2"}})
    assert failed.code == 1 and isinstance(failed.error, ZeroDivisionError) and failed.run["status"]["state"] == "error"
    grid = run_callable(work, {"metadata": {"uid": "u3"}, "spec": {"hyperparams": {"x": [1, 2]}}})
    assert len(grid.run["status"]["iterations"]) == 3


def test_a_log_that_could_not_be_posted_is_told(tmp_path, monkeypatch, capsys):
    from metier_runner.errors import RunnerError
    from metier_runner.foreground import LogPoster

    monkeypatch.setattr("metier_runner.rest.PAUSES", ())
    poster = LogPoster(Client(f"unix://{tmp_path}/none"), "p", "u")
    poster.add("12345")
    with pytest.raises(RunnerError, match="5 bytes of the log"):
        poster.close()


def test_the_sink_of_a_forked_child_has_a_connection_of_its_own(tmp_path, monkeypatch):
    spec = {"hyperparams": {"a": [1, 2, 3]}, "hyper_param_options": {"parallel_runs": 3, "selector": "max.score"}}
    monkeypatch.setenv("MLRUN_EXEC_CONFIG", json.dumps({**RUN, "spec": spec}))
    (tmp_path / "job.py").write_text("def f(context, a):\n    print('line of', a)\n    context.log_result('score', a)\n")
    with serving() as server:
        env_server = ["--handler", "f", "job.py"]
        monkeypatch.setenv("METIER_SERVER", server.url)
        assert metier_runner.main(["run", "--name", "demo", "--from-env", *env_server]) == 0
        server.requests.clear()
        assert metier_runner.main(["handler", *env_server]) == 0
        assert sorted(line for line in server.log.splitlines() if b"line" in line) == [b"line of 1", b"line of 2", b"line of 3"]
        done = Outcome(0, server.records())
    assert done.results == {"best_iteration": 3, "score": 3} and done.runs[2]["status"]["results"] == {"score": 2}


def test_a_debugger_works_in_the_foreground(tmp_path):
    (tmp_path / "job.py").write_text("def f(context):\n    secret_value = 41\n    breakpoint()\n    return secret_value + 1\n")
    with serving() as server:
        env = {"MLRUN_EXEC_CONFIG": json.dumps(RUN), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        line = [sys.executable, "-m", "metier_runner", "handler", "--server", server.url, "--handler", "f", "job.py"]
        done = subprocess.run(line, env=env, cwd=tmp_path, input="p secret_value\nc\n", capture_output=True, text=True)
        assert done.returncode == 0 and "(Pdb) 41" in done.stdout
        assert Outcome(0, server.records()).results == {"return": 42}


def test_unused_imports_stay_lazy():
    code = "import sys, metier_runner.command; print('http.client' in sys.modules, 'argparse' in sys.modules, 'subprocess' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3


def test_parse_knows_the_server_only_for_handler():
    assert parse(["--server", "x", "f.py"], ("--server",)).server == "x"
    assert run_in_foreground is not None and RestSink is not None
