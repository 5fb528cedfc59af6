from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

INCLUDE = Path(__file__).parents[3] / "include"
CODE = """
#include <metier/handler.h>
#include <cstdio>
METIER_HANDLER(train, [](metier::Context& context) {
  const double rate = context.get_param("rate", 0.1);
  const int steps = context.get_param<int>("steps");
  const std::string name = context.get_param("name", "none");
  const bool fast = context.get_param("fast", false);
  std::FILE* file = std::fopen(context.get_input("data").c_str(), "r");
  int value = 0;
  if (std::fscanf(file, "%d", &value) != 1) { return metier::error("the input holds no number"); }
  std::fclose(file);
  context.info("fitting " + name);
  context.log_result("score", rate * steps + value);
  context.log_result("big", uint64_t{18446744073709551615u});
  context.log_result("fast", fast);
  context.log_result("who", context.project() + "/" + context.name());
  context.log_result_json("list", "[1, 2]");
  context.log_artifact("note", "hello", "txt");
  context.set_label("colour", "red");
  return metier::ok();
});
METIER_HANDLER(nothing, [](metier::Context& context) { context.log_result("n", 1); });
METIER_HANDLER(thrower, [](metier::Context&) { throw std::runtime_error("out of luck"); });
METIER_HANDLER(refused, [](metier::Context&) { return metier::error("no such luck"); });
METIER_HANDLER(bad_key, [](metier::Context& context) { context.log_result("", 1); });
METIER_HANDLER(place, [](metier::Context& context) {
  context.info("rank " + std::to_string(context.rank()) + " of " + std::to_string(context.size()) + ", slot " +
               std::to_string(context.local_rank()) + (context.is_logging_worker() ? ", logs" : ", silent"));
});
METIER_HANDLER(odd, [](metier::Context&) { throw 5; });
METIER_EVENT_HANDLER(echo, [](metier::Context&, const metier::Event& event) { return metier::Response{event.body()}; });
METIER_BLOCKING(echo);
"""
# A second file of the same library: the table is weak and the list of handlers shared.
SECOND = '#include <metier/handler.h>\nMETIER_HANDLER(second, [](metier::Context& c) { c.log_result("two", 2); });\n'


def build(folder: Path, compiler: str, *codes: str, name: str = "lib.so") -> Path:
    files = []
    for number, code in enumerate(codes):
        files.append(folder / f"part{number}.cc")
        files[-1].write_text(code)
    flags = ["-std=c++17", "-O0", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", f"-I{INCLUDE}"]
    subprocess.run([compiler, *flags, *map(str, files), "-o", str(folder / name)], check=True)
    return folder / name


@pytest.fixture(scope="module", params=["g++", "clang++-19"])
def library(request, tmp_path_factory) -> Path:
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    return build(tmp_path_factory.mktemp("native"), request.param, CODE, SECOND)


def test_a_native_handler_runs_like_a_python_one(pod, library, tmp_path, capsys):
    (tmp_path / "d.txt").write_text("40")
    spec = {"parameters": {"rate": "0.5", "steps": 4, "name": "x"}, "inputs": {"data": "d.txt"}}
    done = pod(["--handler", "train", str(library)], {"spec": spec})
    assert done.code == 0, done.failure
    assert done.results == {"score": 42.0, "big": 2**64 - 1, "fast": False, "who": "p/demo", "list": [1, 2]}
    assert done.run["metadata"]["labels"]["colour"] == "red"
    assert Path(done.artifact("note")["body"]["spec"]["target_path"]).read_text() == "hello"
    assert done.phases == ["start", "import", "user", "upload", "end"]
    assert "[info] fitting x" in capsys.readouterr().out


def test_a_rank_knows_its_place(pod, library, capsys):
    rank = {"METIER_RANK": "3", "METIER_SIZE": "4", "METIER_LOCAL_RANK": "1"}
    assert pod(["--handler", "place", str(library)], {"metadata": {"labels": {"kind": "mpijob"}}}, **rank).code == 0
    assert "rank 3 of 4, slot 1, silent" in capsys.readouterr().out


def test_a_run_of_one_process_is_rank_0_of_1(pod, library, capsys):
    assert pod(["--handler", "place", str(library)]).code == 0
    assert "rank 0 of 1, slot 0, logs" in capsys.readouterr().out


def test_a_handler_may_return_nothing_and_live_in_another_file(pod, library):
    assert pod(["--handler", "nothing", str(library)]).results == {"n": 1}


def test_handlers_of_every_file_of_the_library_are_there(pod, library):
    assert pod(["--handler", "second", str(library)]).results == {"two": 2}


@pytest.mark.parametrize(
    ("handler", "kind", "message"),
    [
        ("thrower", "std::exception", "out of luck"),
        ("refused", "Error", "no such luck"),
        ("bad_key", "metier::Error", "result key is empty, give it a name"),
        ("odd", "unknown exception", "the handler threw something that is no std::exception"),
    ],
)
def test_failures_and_exceptions_become_the_failure_record(pod, library, handler, kind, message):
    done = pod(["--handler", handler, str(library)])
    assert done.code == 1 and done.failure["type"] == kind and done.failure["message"] == message
    assert done.failure["file"] == "part0.cc" and done.failure["function"] == handler and done.failure["line"] > 1


def test_a_missing_parameter_and_a_wrong_one_name_themselves(pod, library):
    assert "parameter 'steps' has no value" in pod(["--handler", "train", str(library)]).failure["message"]
    done = pod(["--handler", "train", str(library)], {"spec": {"parameters": {"rate": "high"}}})
    assert "parameter rate is 'high', which is no number" in [r for r in done.records if r["op"] == "failure"][-1]["body"]["message"]


def test_an_unknown_handler_lists_the_near_ones(pod, library):
    done = pod(["--handler", "trian", str(library)])
    assert done.failure["code"] == "HandlerMissing" and "did you mean 'train'" in done.failure["message"]
    assert "handlers in this library: " in done.failure["message"] and "second" in done.failure["message"]


def test_an_event_handler_is_no_batch_handler(pod, library):
    from metier_runner.native import Library

    assert Library(str(library)).event_names == ["echo"] and Library(str(library))._handlers["echo"].flags == 1
    assert "event handler" in pod(["--handler", "echo", str(library)]).failure["message"]


def test_another_library_or_version_is_refused_with_a_sentence(pod, tmp_path):
    build(tmp_path, "g++", "int x;", name="plain.so")
    assert "no library of native handlers" in pod(["--handler", "f", "plain.so"]).failure["message"]
    old = "struct t { unsigned long size; unsigned abi; } v{64, 9};\n"
    old += 'extern "C" __attribute__((visibility("default"))) t* metier_library_v1_table() { return &v; }'
    build(tmp_path, "g++", old, name="new.so")
    done = pod(["--handler", "f", "new.so"])
    assert "table version 9" in [r for r in done.records if r["op"] == "failure"][-1]["body"]["message"]
    (tmp_path / "text.so").write_text("no library")
    assert "cannot be loaded" in [r for r in pod(["--handler", "f", "text.so"]).records if r["op"] == "failure"][-1]["body"]["message"]
