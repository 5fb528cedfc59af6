from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome

from metier_runner import datasets, files
from metier_runner.context import Context
from metier_runner.errors import InvalidArgument, InvalidArgumentType, NotFound, RunnerError
from metier_runner.sinks import MAX_RECORD, JournalSink, MemorySink


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make(tmp_path)


def make(tmp_path: Path, environment: dict[str, str] | None = None, **spec: Any) -> Context:
    labels = spec.pop("labels", {"kind": "job", "owner": "me"})
    run = {
        "metadata": {"name": "demo", "project": "p", "uid": "u1", "labels": labels},
        "spec": {"output_path": str(tmp_path / "out"), **spec},
    }
    return Context(run, MemorySink(), environment=environment or {})


def seen(context: Context) -> Outcome:
    assert isinstance(context.sink, MemorySink)
    return Outcome(0, context.sink.records)


def test_results_of_every_kind_are_kept_as_decided(context):
    class Odd:
        def __str__(self) -> str:
            return "odd"

    given = {
        "nan": float("nan"),
        "inf": float("-inf"),
        "big": 2**1000,
        "c": 1j,
        "b": b"x",
        "o": Odd(),
        "t": (1, {2}),
        "n": None,
        "k": {1: "a"},
    }
    context.log_results(given)
    expected = {
        "nan": "nan",
        "inf": "-inf",
        "big": str(2**1000),
        "c": "1j",
        "b": "b'x'",
        "o": "odd",
        "t": [1, [2]],
        "n": None,
        "k": {"1": "a"},
    }
    assert seen(context).results == expected
    json.dumps(seen(context).results, allow_nan=False)


def test_numpy_values_become_numbers_and_lists(context):
    np = pytest.importorskip("numpy")
    context.log_results(
        {
            "s": np.float32(0.5),
            "i": np.int64(3),
            "a": np.arange(3),
            "b": np.bool_(True),
            "d": np.datetime64("2024-01-02"),
            "n": np.float64("nan"),
        }
    )
    assert seen(context).results == {"s": 0.5, "i": 3, "a": [0, 1, 2], "b": True, "d": "2024-01-02", "n": "nan"}
    with pytest.raises(InvalidArgument, match="'huge'"):
        context.log_result("huge", np.zeros(10**6))


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class Raising:
    def __str__(self) -> str:
        raise RuntimeError("no")


def _loop() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


UNKEEPABLE = {
    "text": ("x" * 10**6, "1000000 characters"),
    "deep": (_nested(10**5), "deeper than 100"),
    "loop": (_loop(), "contains itself"),
    "raising": (Raising(), "RuntimeError"),
    "integer": (1 << 20000, "bits"),
    "many": ([0] * 10**6, "100000 values"),
}


@pytest.mark.parametrize(("value", "rule"), list(UNKEEPABLE.values()), ids=list(UNKEEPABLE))
def test_results_that_cannot_be_kept_are_refused_by_name_and_the_others_stay(context, value, rule):
    context.log_result("good", 1)
    with pytest.raises(InvalidArgument, match=f"result 'bad'.*{rule}"):
        context.log_result("bad", value)
    assert seen(context).results == {"good": 1}


@pytest.mark.parametrize("key", ["", "k" * 10_000, 5, "a\\b", "a\nb", "\x1b[0m"])
def test_result_keys_that_break_a_rule(context, key):
    with pytest.raises(InvalidArgument, match="key"):
        context.log_result(key, 1)


@pytest.mark.parametrize("key", ["a.b.c", "schön", "🚀", "with space", "a/b"])
def test_result_keys_that_are_kept_unchanged(context, key):
    context.log_result(key, 1)
    assert seen(context).results == {key: 1}


def test_log_results_takes_a_dict_only(context):
    with pytest.raises(InvalidArgumentType):
        context.log_results([1])


def test_get_param_stores_the_default_and_sends_true_ones(context):
    assert context.get_param("a", 0) == 0 and context.get_param("b", 2) == 2
    assert context.parameters == {"a": 0, "b": 2} and seen(context).run["spec"]["parameters"] == {"b": 2}


def test_an_artifact_is_written_before_its_record(context, tmp_path):
    made = context.log_artifact("note", body="hello", format="txt", tag="v1", labels={"a": 1}, local_path=None)
    record = seen(context).artifact("note")
    body, path = record["body"], tmp_path / "out/demo/0/note.txt"
    assert path.read_text() == "hello" and (record["key"], record["tag"], record["tree"]) == ("demo_note", "v1", "u1")
    assert body["metadata"]["hash"] == hashlib.sha1(b"hello").hexdigest() and body["metadata"]["labels"] == {"a": "1"}
    spec = body["spec"]
    assert (spec["target_path"], spec["size"], spec["content_type"], spec["format"]) == (str(path), 5, "text/plain", "txt")
    assert spec["producer"] == {"name": "demo", "kind": "run", "uri": "p/u1", "owner": "me"} and spec["db_key"] == "demo_note"
    assert made.uri == "store://artifacts/p/demo_note#0:v1@u1" == seen(context).run["status"]["artifact_uris"]["note"]
    assert not [name for name in os.listdir(path.parent) if name.endswith(".tmp")]


def test_a_failed_write_leaves_neither_file_nor_record(context, tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(5, "broken disk")))
    with pytest.raises(OSError, match="broken disk"):
        context.log_artifact("note", body="hello")
    assert not any(r["op"] == "store_artifact" for r in context.sink.records) and os.listdir(tmp_path / "out/demo/0") == []


def test_files_and_folders_are_copied(context, tmp_path):
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/f.csv").write_text("1")
    (tmp_path / "d/empty").write_text("")
    context.log_artifact("one", local_path="d/e/f.csv")
    context.log_artifact("all", local_path="d")
    assert (tmp_path / "out/demo/0/one.csv").read_text() == "1" and (tmp_path / "out/demo/0/all/e/f.csv").read_text() == "1"
    assert seen(context).artifact("all")["body"]["kind"] == "dir" and seen(context).artifact("all")["body"]["spec"]["size"] == 1


def test_local_path_names_the_target_of_a_body(context, tmp_path):
    context.log_artifact("page", body=b"<p>", local_path="sub/page.html")
    assert (tmp_path / "out/demo/0/sub/page.html").read_bytes() == b"<p>"
    context.log_artifact("evil", body=b"x", local_path="../../../evil.txt")
    assert (tmp_path / "out/demo/0/evil.txt").exists()


def test_content_that_is_not_there_is_not_registered(context, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for arguments, error in [
        ({"local_path": "nope"}, NotFound),
        ({"local_path": "pipe"}, InvalidArgument),
        ({}, InvalidArgument),
        ({"body": 5}, InvalidArgumentType),
    ]:
        with pytest.raises(error):
            context.log_artifact("a", **arguments)
    assert context.sink.records == []


def test_a_folder_with_a_link_out_of_it_is_refused(context, tmp_path):
    (tmp_path / "d").mkdir()
    os.symlink("/etc/passwd", tmp_path / "d" / "x")
    os.symlink(tmp_path / "d", tmp_path / "d" / "again")
    with pytest.raises(InvalidArgument, match="link out of the folder"):
        context.log_artifact("a", local_path="d")


@pytest.mark.parametrize("key", ["", "a/b", "-a", "ä", 5, "x" * 300])
def test_artifact_keys_have_mlruns_form(context, key):
    with pytest.raises(InvalidArgument):
        context.log_artifact(key, body="x")


def test_an_empty_body_is_valid(context):
    context.log_artifact("a", body=b"")
    assert seen(context).artifact("a")["body"]["spec"]["size"] == 0


def test_target_path_alone_registers_what_is_there(context, tmp_path):
    (tmp_path / "x.csv").write_text("abc")
    context.log_artifact("a", target_path=str(tmp_path / "x.csv"))
    context.log_artifact("b", target_path="s3://bucket/x.csv")
    assert seen(context).artifact("a")["body"]["spec"]["size"] == 3
    assert seen(context).artifact("b")["body"]["spec"]["target_path"] == "s3://bucket/x.csv"


def test_memory_targets_are_uploaded(context):
    context.log_artifact("a", body="abc", target_path="memory://there/a.txt")
    assert context.get_dataitem("memory://there/a.txt").get() == b"abc"


def test_a_dataset_has_header_schema_preview_and_length(context, tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": range(30), "b": ["x"] * 29 + [None]})
    context.log_dataset("data", frame, format="csv", stats=True, label_column="b")
    spec = seen(context).artifact("data")["body"]["spec"]
    assert (tmp_path / "out/demo/0/data.csv").read_text().startswith("a,b\n0,x\n")
    assert (spec["header"], spec["length"], len(spec["preview"]), spec["label_column"]) == (["a", "b"], 30, 20, "b")
    assert (
        spec["schema"]["fields"] == [{"name": "a", "type": "integer"}, {"name": "b", "type": "string"}] and spec["stats"]["a"]["max"] == 29
    )
    assert seen(context).artifact("data")["body"]["kind"] == "dataset"
    assert context.get_cached_artifact("data").uri.startswith("store://datasets/p/demo_data#0")


def test_a_dataset_of_another_type_or_format_is_refused(context):
    pd = pytest.importorskip("pandas")
    with pytest.raises(InvalidArgumentType, match="dict"):
        context.log_dataset("d", {"a": [1]})
    with pytest.raises(InvalidArgument, match="xml"):
        context.log_dataset("d", pd.DataFrame(), format="xml")


def test_a_model_keeps_its_file_and_description(context, tmp_path):
    context.log_result("acc", 1)
    (tmp_path / "m").mkdir()
    (tmp_path / "m/net.bin").write_bytes(b"net")
    context.log_model("model", model_dir="m", model_file="net.bin", framework="own", algorithm="x", labels={"a": "b"})
    spec = seen(context).artifact("model")["body"]["spec"]
    assert spec["target_path"] == f"{tmp_path}/out/demo/0/model/" and spec["model_file"] == "net.bin" and spec["metrics"] == {"acc": 1}
    assert (tmp_path / "out/demo/0/model/net.bin").read_bytes() == b"net"
    assert json.loads((tmp_path / "out/demo/0/model/model_spec.yaml").read_text())["spec"]["framework"] == "own"


def test_a_model_without_its_file_is_not_registered(context, tmp_path):
    (tmp_path / "m").mkdir()
    for arguments in ({"model_dir": "m", "model_file": "nope.bin"}, {"model_dir": "m"}, {}):
        with pytest.raises((NotFound, InvalidArgument)):
            context.log_model("model", **arguments)
    with pytest.raises(InvalidArgument, match="not both"):
        context.log_model("model", body=b"x", training_set=object(), inputs=[{"name": "a"}])
    assert context.sink.records == []


def test_labels_and_annotations(context):
    context.set_label("a", 1)
    context.set_label("a", 2, replace=False)
    context.set_annotation("n", "x")
    assert seen(context).run["metadata"]["labels"]["a"] == "1" and seen(context).run["metadata"]["annotations"] == {"n": "x"}


def test_an_error_is_sticky_and_the_end_is_the_end(context, capsys):
    context.set_state(error="broken")
    context.set_state("running")
    assert context.state == "error" and "not changed" in capsys.readouterr().out
    with pytest.raises(InvalidArgument, match="unknown"):
        context.set_state("finished")
    context.finish()
    count = len(context.sink.records)
    context.set_state("running")
    context.commit()
    with pytest.raises(RunnerError):
        context.log_result("late", 1)
    assert len(context.sink.records) == count and seen(context).state == "error"


def test_commit_repeats_everything_and_keeps_completed_for_the_end(context):
    context.log_result("a", 1)
    context.commit("message", completed=True)
    body = context.sink.records[-1]["body"]
    assert body["status.results"] == {"a": 1} and body["status.commit"] == "message" and "status.state" not in body
    context.finish()
    assert seen(context).state == "completed"


def test_secrets_come_from_sources_then_the_project_then_the_environment(tmp_path):
    (tmp_path / "env").write_text("# x\nf=1\n")
    sources = [{"kind": "inline", "source": {"i": "inline"}}, {"kind": "file", "source": "env"}, {"kind": "env", "source": "e,nope"}]
    environment = {"e": "env", "MLRUN_K8S_SECRET__TOKEN": "hidden", "PLAIN": "p"}
    context = make(tmp_path, environment, secret_sources=sources)
    assert [context.get_secret(k) for k in ("i", "f", "e", "token", "TOKEN", "PLAIN", "none")] == [
        "inline",
        "1",
        "env",
        "hidden",
        "hidden",
        "p",
        None,
    ]
    assert context.mask("a hidden thing inline") == "a ****** thing ******"


def test_only_rank_0_logs(tmp_path):
    other = make(tmp_path, {"OMPI_COMM_WORLD_RANK": "1"}, labels={"kind": "mpijob"})
    other.log_result("a", 1)
    other.set_label("x", "y")
    other.log_artifact("b", body="x")
    other.finish()
    assert not [r for r in other.sink.records if r["op"] == "store_artifact"]
    assert not [r for r in other.sink.records if any(k.startswith(("status.results", "metadata.labels")) for k in r["body"])]
    assert not [r for r in other.sink.records if "status.state" in r["body"]]
    assert make(tmp_path, {"METIER_POD_NAME": "j-worker-3"}, labels={"kind": "mpijob"}).is_logging_worker is False


def test_children_share_the_uid(context):
    child = context.get_child_context(with_parent_params=True, p=1)
    child.log_result("accuracy", 2)
    assert child.uid == "u1-1" and child.parameters == {"p": 1} and context.sink.records[0]["op"] == "store_run"
    with pytest.raises(RunnerError):
        child.get_child_context()
    with pytest.raises(RunnerError):
        context.mark_as_best()
    child.mark_as_best()
    context.update_child_iterations(commit_children=True)
    assert seen(context).results["best_iteration"] == 1 and seen(context).results["accuracy"] == 2
    assert seen(context).run["status"]["iterations"][0] == ["state", "iter", "param.p", "output.accuracy"]


def test_the_context_manager_commits_or_tells_the_error(tmp_path):
    with make(tmp_path) as good:
        good.log_result("a", 1)
    assert good.state == "completed"
    with pytest.raises(ZeroDivisionError), make(tmp_path) as bad:
        1 / 0  # noqa: B018
    assert bad.state == "error" and "ZeroDivisionError" in bad.error


def test_a_script_of_its_own_records_a_run(monkeypatch):
    from fake_server import serving

    import metier_runner

    with serving() as server:
        monkeypatch.setenv("METIER_SERVER", server.url)
        with metier_runner.get_or_create_ctx("script") as context:
            context.log_result("a", 1)
        done = Outcome(0, server.records())
        assert done.run["metadata"]["name"] == "script" and done.state == "completed" and done.results == {"a": 1}
        with pytest.raises(ZeroDivisionError), metier_runner.get_or_create_ctx("script") as context:
            1 / 0  # noqa: B018
        assert Outcome(0, server.records()).state == "error"


def test_the_meta_file_gets_the_run(tmp_path):
    context = make(tmp_path, {"MLRUN_META_TMPFILE": str(tmp_path / "meta")})
    context.log_result("a", 1)
    context.commit()
    assert json.loads((tmp_path / "meta").read_text())["status"]["results"] == {"a": 1}


def test_output_paths_are_templates(tmp_path):
    run = {"metadata": {"uid": "u1", "project": "p"}, "spec": {"output_path": "/x/{{project}}/{{run.uid}}"}}
    assert Context(run, MemorySink(), environment={}).artifact_path == "/x/p/u1"


def test_log_lines_cannot_be_forged(context, capsys):
    context.logger.info("a\n> 2026 [error] forged \x1b[31m", key="v\nw")
    context.logger.debug("unseen")
    context.logger.info("%s of %s", 1, 2)
    lines = capsys.readouterr().out.splitlines()
    assert (
        len(lines) == 2
        and "\\n> 2026 [error] forged \\x1b[31m" in lines[0]
        and lines[0].endswith('{"key": "v\\nw"}')
        and lines[1].endswith("1 of 2")
    )


def test_many_results_stay_below_the_record_limit(tmp_path):
    sink = JournalSink(str(tmp_path / "j"))
    context = Context({"metadata": {"uid": "u"}}, sink, environment={})
    context._results = {f"key{n}": "x" * 100 for n in range(20_000)}
    context.finish()
    sink.close()
    assert all(len(line) < MAX_RECORD for line in (tmp_path / "j").read_bytes().splitlines())


def test_a_full_journal_still_takes_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("metier_runner.sinks.MAX_JOURNAL", 6 << 20)
    sink = JournalSink(str(tmp_path / "j"))
    context = Context({"metadata": {"uid": "u"}}, sink, environment={})
    with pytest.raises(RunnerError, match="journal is full"):
        for n in range(20):
            context.log_result(f"k{n}", "x" * 200_000)
    context._results = {}
    context.finish(error="full")
    assert json.loads((tmp_path / "j").read_bytes().splitlines()[-1])["body"]["status.error"] == "full"


def test_the_journal_is_not_opened_through_a_link(tmp_path):
    os.symlink(tmp_path / "elsewhere", tmp_path / "j")
    with pytest.raises(OSError):
        JournalSink(str(tmp_path / "j"))


def test_a_table_of_spark_connect_is_kept_without_sparks_own_notes(context: Context) -> None:
    pd = pytest.importorskip("pandas")

    class DataFrame:  # of pyspark.sql.connect: pandas writes `attrs` into Parquet as JSON, and fails at objects
        def toPandas(self) -> Any:
            table = pd.DataFrame({"a": [1, 2]})
            table.attrs["metrics"] = [object()]
            return table

    DataFrame.__module__ = "pyspark.sql.connect.dataframe"
    assert datasets.gathered(DataFrame()).attrs == {}
    context.log_dataset("squares", DataFrame())
    assert seen(context).artifact("squares")["body"]["spec"]["length"] == 2
