"""Kinds spark and remote-spark from metier's own Python: what each method writes, and what it refuses."""

from __future__ import annotations

from typing import Any

import metier
import pytest


@pytest.fixture
def function(alone: object) -> metier.Function:
    return metier.new_function("f", kind="spark", command="a.py", image="spark")


def field(function: metier.Function, name: str) -> Any:
    return function.to_dict()["spec"].get(name)


def test_amounts_of_the_roles(function: metier.Function) -> None:
    function.with_driver_requests(mem="1g", cpu="500m")
    function.with_driver_limits(cpu="2")
    function.with_executor_requests(mem="3g", cpu=2)
    function.with_executor_limits(cpu=4, gpus=1, gpu_type="amd.com/gpu")
    assert field(function, "driver_resources") == {"requests": {"memory": "1g", "cpu": "500m"}, "limits": {"cpu": "2"}}
    assert field(function, "executor_resources") == {
        "requests": {"memory": "3g", "cpu": 2},
        "limits": {"cpu": 4, "amd.com/gpu": 1},
    }
    function.with_executor_requests(cpu=1, patch=True)
    assert field(function, "executor_resources")["requests"] == {"memory": "3g", "cpu": 1}
    with pytest.raises(metier.InvalidError, match="Spark's own form of it is 1g"):
        function.with_driver_requests(mem="1Gi")


def test_cores_allocation_and_restart(function: metier.Function) -> None:
    function.with_cores(executor_cores=2)
    function.with_cores(driver_cores=3)
    assert (field(function, "executor_cores"), field(function, "driver_cores")) == (2, 3)
    with pytest.raises(metier.InvalidError, match="executor_cores: -1 is not a number of cores"):
        function.with_cores(-1)
    function.with_dynamic_allocation(1, 4, 2)
    expected = {"enabled": True, "minExecutors": 1, "maxExecutors": 4, "initialExecutors": 2}
    assert field(function, "dynamic_allocation") == expected
    function.with_restart_policy("OnFailure", retries=2)
    assert field(function, "restart_policy") == {
        "type": "OnFailure",
        "retries": 2,
        "retry_interval": 10,
        "submission_retries": 3,
        "submission_retry_interval": 20,
    }
    function.disable_monitoring()
    assert field(function, "monitoring") == {"enabled": False}


def test_places_of_the_roles(function: metier.Function) -> None:
    tolerations = [{"key": "k", "operator": "Exists"}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
    function.with_driver_node_selection(node_selector={"zone": "a"}, tolerations=tolerations)
    function.with_executor_node_selection(affinity=affinity)
    assert field(function, "driver_node_selector") == {"zone": "a"}
    assert field(function, "driver_tolerations") == tolerations
    assert field(function, "executor_affinity") == affinity
    function.with_node_selection(node_selector={"zone": "b"})
    assert field(function, "driver_node_selector") == field(function, "executor_node_selector") == {"zone": "b"}
    with pytest.raises(metier.InvalidError, match="'toleration_seconds' is not Kubernetes' form"):
        function.with_driver_node_selection(tolerations=[{"key": "k", "toleration_seconds": 3}])
    with pytest.raises(metier.UnsupportedError, match="no node name"):
        function.with_executor_node_selection(node_name="n")
    with pytest.warns(UserWarning, match=r"spec\.executor_node_selector.*pods with it will be refused"):
        function.with_executor_node_selection(node_selector={"no key!": "x"})
    function.with_driver_preemption_mode("allow")
    function.with_executor_preemption_mode("none")
    assert (field(function, "driver_preemption_mode"), field(function, "executor_preemption_mode")) == ("allow", "none")


def test_folders_of_the_node(function: metier.Function) -> None:
    function.with_driver_host_path_volume("/a", "/data", volume_name="a")
    function.with_executor_host_path_volume("/b", "/data", type="Directory")
    assert field(function, "volumes") == [
        {"name": "a", "hostPath": {"path": "/a", "type": ""}},
        {"name": "host-path-volume", "hostPath": {"path": "/b", "type": "Directory"}},
    ]
    assert field(function, "driver_volume_mounts") == [{"name": "a", "mountPath": "/data"}]
    assert field(function, "executor_volume_mounts") == [{"name": "host-path-volume", "mountPath": "/data"}]


def test_what_no_spark_has_is_refused(function: metier.Function) -> None:
    for call in (function.with_igz_spark, lambda: function.with_limits(mem="1G")):
        with pytest.raises((metier.UnsupportedError, NotImplementedError)):
            call()
    with pytest.raises(metier.InvalidError, match="takes no security context"):
        function.with_security_context({"runAsUser": 7})
    with pytest.raises(metier.InvalidError, match="with_driver_preemption_mode"):
        function.with_preemption_mode("allow")
    with pytest.raises(metier.UnsupportedError, match="environment takes its place") as refused:
        function.deploy_default_image()
    assert "with_requirements" in refused.value.fix
    assert function.is_deployed()
    with pytest.raises(metier.UnsupportedError, match="kind spark"):
        metier.new_function("j", kind="job").with_cores(2)
