"""Functions from Python: the C++ object model with Python's manners."""

from __future__ import annotations

import json
from pathlib import Path

import metier
import pytest
from metier import mounts

DATA = Path(__file__).resolve().parents[2] / "src" / "model" / "testdata"


def job() -> metier.Function:
    return metier.new_function("f", project="p", kind="job", image="i")


def test_new_functions_are_those_of_mlrun() -> None:
    for kind, document in json.loads((DATA / "mlrun-1.12.1-new.json").read_text()).items():
        made = metier.new_function(
            "my_fn", "p", kind=kind, command="a.py" if kind == "local" else "", image="" if kind == "local" else "img"
        )
        assert made.to_dict() == document, kind


def test_spec_is_a_live_view() -> None:
    fn = job()
    spec = fn.spec
    spec.replicas = 4
    spec.volumes.append({"name": "v", "hostPath": {"path": "/a"}})
    volume = spec.volumes[0]
    volume["hostPath"]["path"] = "/b"
    spec.env.append({"name": "A", "value": "1"})
    fn.set_env("A", 2)
    assert spec.env[0]["value"] == "2"
    spec.resources["limits"] = {"cpu": "1"}
    spec.resources["limits"]["memory"] = "1G"
    assert fn.to_dict()["spec"]["volumes"] == [{"name": "v", "hostPath": {"path": "/b"}}]
    assert fn.to_dict()["spec"]["resources"] == {"limits": {"cpu": "1", "memory": "1G"}}
    assert fn.to_dict()["spec"]["replicas"] == 4
    del spec.volumes[0]
    assert "volumes" not in fn.to_dict()["spec"]
    assert spec.service_account is None
    assert spec.node_selector == {}
    spec.build.commands.append("echo")
    spec.build.commands += ["ls", "pwd"]
    assert list(reversed(spec.build.commands)) == ["pwd", "ls", "echo"]
    spec.build.commands[0:2] = ["x"]
    assert spec.build.commands == ["x", "pwd"]
    spec.build.commands.insert(-1, "y")
    assert spec.build.commands == ["x", "y", "pwd"]
    assert {**spec.build} == {"commands": ["x", "y", "pwd"]}
    spec["unknown"] = {"kept": [1, None]}
    assert fn.to_dict()["spec"]["unknown"] == {"kept": [1, None]}
    fn.metadata.labels["team"] = "a"
    assert fn.to_dict()["metadata"]["labels"] == {"team": "a"}


def test_a_view_may_be_assigned_to_its_own_document() -> None:
    fn = job()
    fn.spec.parameters = {"a": {"b": [1]}}
    fn.spec.parameters["a"] = fn.spec.parameters["a"]
    fn.spec.parameters["c"] = fn.spec.parameters
    assert fn.spec.parameters == {"a": {"b": [1]}, "c": {"a": {"b": [1]}}}
    with pytest.raises(IndexError):
        fn.spec.parameters["a"]["b"][1]
    with pytest.raises(KeyError):
        fn.spec.parameters["nope"]
    with pytest.raises(metier.InvalidError):
        fn.spec.image["x"] if fn.spec.image is None else fn.spec.__setitem__("bad", object())


def test_common_methods_have_mlruns_results() -> None:
    fn = job()
    fn.with_requests(mem="1G", cpu="500m")
    fn.with_limits(mem="2G", cpu="2", gpus=1)
    fn.with_limits(cpu=3, patch=True)
    assert fn.spec.resources == {
        "requests": {"memory": "1G", "cpu": "500m"},
        "limits": {"memory": "2G", "cpu": 3, "nvidia.com/gpu": 1},
    }
    fn.gpus(2, "amd.com/gpu")
    assert fn.spec.resources["limits"]["amd.com/gpu"] == 2
    assert fn.set_env("A", 1).set_envs({"B": True}).set_env_from_secret("T", secret="s") is fn
    assert fn.get_env("B") == "True"
    assert fn.get_env("T") == {"secretKeyRef": {"name": "s", "key": "T"}}
    assert fn.get_env("nope", 5) == 5
    assert not fn.is_env_exists("nope")
    fn.apply(mounts.mount_pvc("claim", "v", "/x")).apply(mounts.set_env_variables({"X": 1}))
    assert fn.spec.disable_auto_mount is True
    with pytest.warns(UserWarning, match="a/b/c"):
        fn.with_node_selection(node_selector={"a/b/c": "x"})
    fn.set_state_thresholds({"executing": "2h"})
    assert fn.spec.state_thresholds["executing"] == "2h"
    fn.set_image_pull_configuration("Always")
    assert fn.spec.image_pull_policy == "Always"


def test_dotenv_files(tmp_path: Path) -> None:
    file = tmp_path / "x.env"
    file.write_text("A=1\nexport B='two words'\n")
    assert job().set_envs(file_path=file).get_env("B") == "two words"
    with pytest.raises(metier.InvalidError):
        job().set_envs()
    with pytest.raises(metier.InvalidError):
        job().set_envs({"A": 1}, file)
    with pytest.raises(metier.NotFoundError):
        job().set_envs(file_path=tmp_path / "no.env")


def test_errors_carry_field_and_fix() -> None:
    with pytest.raises(metier.InvalidError) as caught:
        metier.new_function("f", kind="mpi-job")
    assert caught.value.message == "'mpi-job' is unknown, did you mean 'mpijob'?"
    assert caught.value.reason == "UnknownKind"
    assert isinstance(caught.value, ValueError)
    with pytest.raises(metier.InvalidError) as quantity:
        job().with_limits(mem="1GB")
    assert quantity.value.field == "function.spec.resources.limits.memory"
    assert "2Gi" in quantity.value.fix
    with pytest.raises(metier.UnsupportedError):
        metier.new_function("f", kind="spark").with_limits(mem="1G")
    with pytest.raises(metier.InvalidError):
        metier.Function.from_dict({"spec": []})
    with pytest.raises(metier.InvalidError):
        job().spec.x = 1 << 70


def test_files_round_trip(tmp_path: Path) -> None:
    for file in DATA.glob("export-*.yaml"):
        read = metier.import_function(file)
        assert metier.Function.from_dict(read.to_dict()) == read
        read.export(tmp_path / "function.yaml")
        assert metier.import_function(tmp_path / "function.yaml") == read, file.name
    fn = metier.code_to_function("t", filename=DATA / "train.py", kind="job", image="i")
    assert list(fn.spec.entry_points) == ["train", "method", "other"]
    notebook = metier.code_to_function("nb", filename=DATA / "nb.ipynb", kind="job")
    assert notebook.get_env("A") == "5"
    assert notebook.spec.build.commands == ["pip install pandas"]


def test_copies_are_independent() -> None:
    fn = job()
    other = fn.copy()
    other.spec.image = "j"
    assert fn.spec.image == "i"
    assert repr(fn) == "Function(f job i)"


def test_validate_warns_of_unknown_fields() -> None:
    fn = job()
    fn.spec.replcas = 3
    assert fn.validate() == ["spec.replcas: unknown field, did you mean replicas?"]


@pytest.mark.parametrize("url", ["hub://describe", "https://host/function.yaml"])
def test_what_is_not_a_file_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(metier.Error, match="download it|not fetched|files and db://"):
        metier.import_function(url)


def test_an_mpijob_document_is_a_function_and_what_has_no_effect_is_warned_of(tmp_path: Path) -> None:
    roles = {
        "Launcher": {"template": {"spec": {"containers": [{"image": "i", "command": ["mpirun", "./pi"]}]}}},
        "Worker": {"replicas": 3, "template": {"spec": {"hostNetwork": True, "containers": [{"image": "i"}]}}},
    }
    document = {"apiVersion": "kubeflow.org/v1", "kind": "MPIJob", "spec": {"mpiReplicaSpecs": roles}}
    file = tmp_path / "my_pi.json"
    file.write_text(json.dumps(document))
    with pytest.warns(UserWarning, match="Worker.template.spec.hostNetwork has no effect"):
        fn = metier.import_function(file)
    assert (fn.kind, fn.name, fn.spec.replicas, fn.spec.command) == ("mpijob", "my-pi", 3, "./pi")
    file.write_text(json.dumps({**document, "kind": "SparkApplication"}))
    with pytest.raises(metier.UnsupportedError, match="SparkApplication"):
        metier.import_function(file)


def test_a_secret_as_a_whole_is_in_env_from_once() -> None:
    fn = job()
    assert fn.set_env_from_secret_ref("db").set_env_from_secret_ref("db") is fn
    assert fn.to_dict()["spec"]["env_from"] == [{"secretRef": {"name": "db"}}]
    assert fn.validate() == []
    with pytest.raises(metier.InvalidError, match="no name"):
        fn.set_env_from_secret_ref("")
    with pytest.raises(metier.UnsupportedError, match="kind 'local'"):
        metier.new_function("l", kind="local", command="a.py").set_env_from_secret_ref("db")


def test_mpijob_methods() -> None:
    fn = metier.new_function("t", kind="mpijob", image="x", command="a.py")
    assert list(fn.spec.mpi_args)[:2] == ["-x", "NCCL_SOCKET_NTHREADS=2"] and fn.spec.clean_pod_policy == "All"
    fn.set_mpi_args(["-x", "A=1"])
    assert list(fn.spec.mpi_args) == ["-x", "A=1"]
    for wrong in ("-x A=1", ["-x", 1]):
        with pytest.raises(metier.InvalidError, match="mpi_args"):
            fn.set_mpi_args(wrong)  # type: ignore[arg-type]
    fn.with_tracing(enable_cycle_markers=True)
    assert fn.get_env("HOROVOD_TIMELINE") == "hvd_logs/trace.log" and fn.get_env("HOROVOD_TIMELINE_MARK_CYCLES") == "1"
    fn.with_autotune(warmup_samples=3, gaussian_process_noise=0.5)
    assert fn.get_env("HOROVOD_AUTOTUNE") == "1" and fn.get_env("HOROVOD_AUTOTUNE_WARMUP_SAMPLES") == "3"
    assert not fn.is_env_exists("HOROVOD_AUTOTUNE_STEPS_PER_SAMPLE")
    fn.spec.slots_per_worker = 2
    fn.spec.run_launcher_as_worker = True
    assert fn.validate() == []
    with pytest.raises(metier.UnsupportedError, match="kind 'job' has no"):
        metier.new_function("t", kind="job", image="x").set_mpi_args([])
