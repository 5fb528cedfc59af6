from __future__ import annotations

from pathlib import Path

import metier
import pytest


@pytest.fixture
def fn() -> metier.Function:
    return metier.new_function("f", kind="nuclio")


def test_set_config_and_triggers(fn: metier.Function) -> None:
    fn.set_config("spec.eventTimeout", "30s").with_http(workers=2, worker_timeout=5)
    fn.with_cron(interval="10s", body={"a": 1}).with_kafka(["b:9092"], ["t"], "g", explicit_ack_mode="explicitOnly")
    config = fn.to_dict()["spec"]["config"]
    assert config["spec.eventTimeout"] == "30s"
    assert config["spec.triggers.http"]["workerAvailabilityTimeoutMilliseconds"] == 5000
    assert config["spec.triggers.cron"]["attributes"] == {"interval": "10s", "event": {"body": {"a": 1}}}
    assert config["spec.triggers.kafka"]["attributes"]["workerAllocationMode"] == "static"


def test_a_trigger_of_the_sdk_has_to_dict(fn: metier.Function) -> None:
    class Trigger:
        def to_dict(self) -> dict[str, object]:
            return {"kind": "http", "maxWorkers": 3, "attributes": {}}

    fn.add_trigger("web", Trigger())
    assert fn.to_dict()["spec"]["config"]["spec.triggers.web"]["maxWorkers"] == 3


def test_what_is_wrong_is_named(fn: metier.Function) -> None:
    with pytest.raises(metier.UnsupportedError, match="rabbit-mq are not served here"):
        fn.add_trigger("q", {"kind": "rabbit-mq"})
    with pytest.raises(metier.InvalidError, match="numWorker"):
        fn.add_trigger("q", {"kind": "http", "numWorker": 1})
    with pytest.raises(metier.InvalidError, match="no path of Nuclio's document"):
        fn.set_config("eventTimeout", 1)
    with pytest.raises(metier.InvalidError, match="more than max_replicas"):
        fn.with_replicas(3, 2)
    with pytest.raises(metier.InvalidError, match="is a method of nuclio functions"):
        metier.new_function("j", kind="job", image="i").with_http()


def test_replicas_and_service_type(fn: metier.Function) -> None:
    fn.with_replicas(0, 3).with_service_type("ClusterIP").disable_default_http_trigger()
    assert (fn.spec.min_replicas, fn.spec.max_replicas, fn.spec.service_type) == (0, 3, "ClusterIP")
    assert fn.spec.disable_default_http_trigger is True
    assert fn.enable_default_http_trigger().spec.disable_default_http_trigger is False


def test_reads_nuclios_file(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def handler(context, event):\n    return 1\n")
    (tmp_path / "function.yaml").write_text("metadata: {name: x}\nspec: {handler: 'main:handler', runtime: python}\n")
    fn = metier.import_function(tmp_path / "function.yaml")
    assert (fn.kind, fn.name) == ("remote", "x")
    assert fn.spec.base_spec["spec"]["handler"] == "main:handler"
    (tmp_path / "function.yaml").write_text("spec: {handler: 'main:handler', runtime: python, nope: 1}\n")
    with pytest.raises(metier.InvalidError, match=r"spec\.nope"):
        metier.import_function(tmp_path / "function.yaml")
