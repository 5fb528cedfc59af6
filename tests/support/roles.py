"""The common attributes of a function, as each process of each role of its run sees them from inside."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from support.server import Server

# What a process finds, and one file of its own in the volume that all share.
LOOK = """
import hashlib, os, pathlib

def look(*_):
    import helpers  # beside the function's file
    pod = os.environ["METIER_POD_NAME"]
    pathlib.Path("/shared", pod).write_text(helpers.mark(pod))
    return {
        "pod": pod,
        "plain": os.environ.get("PLAIN"),
        "token": hashlib.sha256(os.environ.get("TOKEN", "").encode()).hexdigest(),  # the value itself would be masked
        "project": hashlib.sha256(os.environ.get("MLRUN_K8S_SECRET__API_KEY", "").encode()).hexdigest(),
        "config": pathlib.Path("/config/level").read_text(),
        "cwd": os.getcwd(),
    }

def shared(*_):
    return {path.name: path.read_text() for path in pathlib.Path("/shared").iterdir()}
"""
HELPERS = "def mark(name):\n    return 'written by ' + name\n"
OBJECTS = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: shared-data}
spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {level: "debug"}
"""
TOKEN, API_KEY = "t0ken-of-vault", "key-of-the-project"


def prepared(server: Server, folder: Path, code: str) -> Path:
    """Stores volume, settings and secrets; writes roles.py and what lies beside it. The folder of the code."""
    (folder / "objects.yaml").write_text(OBJECTS)
    (folder / "token").write_text(TOKEN)
    (folder / "key").write_text(API_KEY)
    (folder / "helpers.py").write_text(HELPERS)
    (folder / "roles.py").write_text(LOOK + code)
    (folder / "work").mkdir()
    for words in (
        ["apply", "-f", "objects.yaml"],
        ["secret", "set", "vault:token", "--from-file", "token"],
        ["secret", "set", "API_KEY", "--from-file", "key"],
    ):
        done = server.metier(*words, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def function(folder: Path, kind: str, **spec: Any) -> str:
    """A function file with every common attribute; its name."""
    document = {
        "kind": kind,
        "metadata": {"name": "roles", "project": "default"},
        "spec": {
            "command": "roles.py",
            "workdir": str(folder / "work"),
            "env": [
                {"name": "PLAIN", "value": "a value"},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "vault", "key": "token"}}},
            ],
            "volumes": [
                {"name": "shared", "persistentVolumeClaim": {"claimName": "shared-data"}},
                {"name": "config", "configMap": {"name": "settings"}},
            ],
            "volume_mounts": [{"name": "shared", "mountPath": "/shared"}, {"name": "config", "mountPath": "/config"}],
            "image_pull_secret": "registry",
            "image_pull_policy": "IfNotPresent",
            "service_account": "robot",
            **spec,
        },
    }
    (folder / f"{kind}.json").write_text(json.dumps(document))
    return f"{kind}.json"


def assert_alike(seen: Iterable[dict[str, Any]], cwd: Path | None) -> None:
    """Every process saw the function's attributes; `cwd` None: its role has no working directory of its own."""
    digests = {name: sha256(value.encode()).hexdigest() for name, value in (("token", TOKEN), ("project", API_KEY))}
    for one in seen:
        expected = {"plain": "a value", "config": "debug", **digests, "pod": one["pod"], "cwd": one["cwd"]}
        assert one == expected
        assert cwd is None or one["cwd"] == str(cwd), one


def assert_pods(server: Server, names: Iterable[str], operator: bool = False) -> None:
    """The pods of these names carry what the function says of pods, whatever their role.

    `operator`: they were made from a SparkApplication, which keeps what only pulls images.
    """
    listed = json.loads(server.metier("get", "pods", "-o", "json").stdout)["pods"]
    pods = {pod["metadata"]["name"]: pod["spec"] for pod in listed}
    for name in names:
        spec = pods[name]
        assert {"shared", "config"} <= {volume["name"] for volume in spec["volumes"]}, name
        container = spec["containers"][0]
        assert {"/shared", "/config"} <= {mount["mountPath"] for mount in container["volumeMounts"]}, name
        assert API_KEY not in json.dumps(spec) and TOKEN not in json.dumps(spec), name
        if operator:
            continue
        assert spec["imagePullSecrets"] == [{"name": "registry"}], name
        assert spec["serviceAccount"] == "robot", name
        assert container["imagePullPolicy"] == "IfNotPresent", name
