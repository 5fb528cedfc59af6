"""Modifiers for :meth:`metier.Function.apply`: volumes and credentials, named as MLRun's.

>>> import metier
>>> fn = metier.new_function("f", kind="job", image="python")
>>> fn.apply(metier.mounts.mount_hostpath("/data", "/data")).spec.volume_mounts[0]["mountPath"]
'/data'
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .function import Function

Modifier = Callable[[Function], Function]


def _modifier(change: Callable[[Any], None]) -> Modifier:
    def apply(function: Function) -> Function:
        change(function._core)
        return function

    return apply


def mount_pvc(
    pvc_name: str | None = None, volume_name: str = "pipeline", volume_mount_path: str = "/mnt/pipeline"
) -> Modifier:
    """A persistent volume claim; without a name the one of ``MLRUN_PVC_MOUNT=name:/path``."""
    fallback = os.environ.get("MLRUN_PVC_MOUNT", "")
    return _modifier(lambda core: core.mount_pvc(pvc_name or "", volume_name, volume_mount_path, fallback))


def auto_mount(pvc_name: str = "", volume_mount_path: str = "", volume_name: str | None = None) -> Modifier:
    """The claim that is named, else that of ``MLRUN_PVC_MOUNT``."""
    fallback = os.environ.get("MLRUN_PVC_MOUNT", "")
    name = volume_name or "shared-persistency"
    given = pvc_name if pvc_name and volume_mount_path else ""
    return _modifier(lambda core: core.mount_pvc(given, name, volume_mount_path, fallback))


def mount_secret(
    secret_name: str, mount_path: str, volume_name: str = "secret", items: Sequence[Mapping[str, Any]] | None = None
) -> Modifier:
    """Files of a secret."""
    keys = None if items is None else [dict(item) for item in items]
    return _modifier(lambda core: core.mount_secret(secret_name, mount_path, volume_name, keys))


def mount_configmap(
    configmap_name: str,
    mount_path: str,
    volume_name: str = "configmap",
    items: Sequence[Mapping[str, Any]] | None = None,
) -> Modifier:
    """Files of a config map."""
    keys = None if items is None else [dict(item) for item in items]
    return _modifier(lambda core: core.mount_configmap(configmap_name, mount_path, volume_name, keys))


def mount_hostpath(host_path: str, mount_path: str, volume_name: str = "hostpath") -> Modifier:
    """A folder of the node."""
    return _modifier(lambda core: core.mount_hostpath(host_path, mount_path, volume_name))


def mount_s3(
    secret_name: str | None = None,
    aws_access_key: str = "",
    aws_secret_key: str = "",
    endpoint_url: str | None = None,
    prefix: str = "",
    aws_region: str | None = None,
    non_anonymous: bool = False,
) -> Modifier:
    """Credentials of S3 as environment variables, from a secret or literal."""
    return _modifier(
        lambda core: core.mount_s3(
            secret_name or "",
            aws_access_key,
            aws_secret_key,
            endpoint_url or "",
            prefix,
            aws_region or "",
            non_anonymous,
        )
    )


def set_env_variables(env_vars_dict: Mapping[str, Any] | None = None, **kwargs: Any) -> Modifier:
    """Plain environment variables; switches automatic mounts off."""

    def change(core: Any) -> None:
        for name, value in {**(env_vars_dict or {}), **kwargs}.items():
            core.set_env(name, value, None)
        core.assign(("spec", "disable_auto_mount"), True)

    return _modifier(change)
