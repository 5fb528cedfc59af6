"""Models by address: files and folders on this machine, and ``store://`` through the server or the ``mlrun`` package."""

from __future__ import annotations

import importlib.util
import json
import os
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit


def get_model(model_path: Any, suffix: str = "") -> tuple[str, Any, dict[str, Any]]:
    """The model's file, its specification (inputs, outputs, parameters; None when unknown) and extra data.

    Raises FileNotFoundError with the path; ValueError for addresses that cannot be read here.
    """
    text = str(model_path)
    scheme = urlsplit(text).scheme
    if scheme == "store":
        return _from_store(text, suffix)
    if scheme not in ("", "file"):
        if importlib.util.find_spec("mlrun") is None:
            raise ValueError(f"model '{text}': models at {scheme}:// need the package mlrun in the environment")
        import mlrun.artifacts

        path, spec, extra = mlrun.artifacts.get_model(text, suffix)
        return path, spec, extra
    path = Path(urlsplit(text).path if scheme else text)
    return _from_folder(path, suffix)


def _from_folder(path: Path, suffix: str) -> tuple[str, Any, dict[str, Any]]:
    if not path.exists():
        raise FileNotFoundError(f"model file '{path}' does not exist")
    spec: Any = None
    extra: dict[str, Any] = {}
    if path.is_dir():
        described = path / "model_spec.yaml"
        document = _read_spec(described) if described.exists() else {}
        if document:
            spec = _spec_of(document)
            name = document.get("spec", document).get("model_file", "")
            if name:
                return _existing(path / name), spec, extra
        files = sorted(f for f in path.iterdir() if f.is_file() and f.name != "model_spec.yaml")
        chosen = [f for f in files if not suffix or f.name.endswith(suffix)]
        if len(chosen) != 1:
            names = ", ".join(f.name for f in files) or "none"
            raise FileNotFoundError(
                f"model folder '{path}' has {len(chosen)} files{f' that end in {suffix}' if suffix else ''} (files: {names})"
            )
        return str(chosen[0]), spec, extra
    return str(path), spec, extra


def _existing(path: Path) -> str:
    if not path.exists():
        raise FileNotFoundError(f"model file '{path}' does not exist")
    return str(path)


def _read_spec(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    try:
        return dict(json.loads(text))
    except ValueError:
        if importlib.util.find_spec("yaml") is None:
            return {}
        import yaml

        return dict(yaml.safe_load(text) or {})


def _spec_of(document: dict[str, Any]) -> Any:
    spec = document.get("spec", document)
    return SimpleNamespace(
        inputs=spec.get("inputs") or [],
        outputs=spec.get("outputs") or [],
        parameters=spec.get("parameters") or {},
        model_file=spec.get("model_file", ""),
    )


def _from_store(uri: str, suffix: str) -> tuple[str, Any, dict[str, Any]]:
    """``store://[models/]project/key[#iter][:tag][@tree]``, read from the server that MLRUN_DBPATH names."""
    server = os.environ.get("MLRUN_DBPATH") or os.environ.get("METIER_SERVER", "")
    if not server.startswith("http"):
        raise ValueError(f"model '{uri}': there is no server to ask (MLRUN_DBPATH is not set)")
    rest = urlsplit(uri).netloc + urlsplit(uri).path
    parts = [p for p in rest.split("/") if p]
    if parts and parts[0] in ("models", "artifacts", "datasets"):
        parts = parts[1:]
    project, key = (parts[0], parts[1]) if len(parts) > 1 else ("default", parts[0])
    key, _, tree = key.partition("@")
    key, _, tag = key.partition(":")
    fragment = urlsplit(uri).fragment
    query = "&".join(f"{k}={v}" for k, v in (("tag", tag), ("tree", tree), ("iter", fragment)) if v)
    url = f"{server}/api/v1/projects/{project}/artifacts/{key}?format=full" + (f"&{query}" if query else "")
    token = (
        os.environ.get("MLRUN_AUTH_SESSION") or os.environ.get("V3IO_ACCESS_KEY") or os.environ.get("METIER_TOKEN", "")
    )
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            document = json.load(answer)
    except OSError as error:
        raise FileNotFoundError(f"model '{uri}' could not be read from the server: {error}") from error
    artifact = document.get("data", document)
    spec = artifact.get("spec", artifact)
    target = str(spec.get("target_path", ""))
    folder = Path(urlsplit(target).path if target.startswith("file:") else target)
    name = spec.get("model_file", "")
    path = folder / name if name and folder.is_dir() else folder
    if path.is_dir():
        return _from_folder(path, suffix)
    return _existing(path), _spec_of(artifact), dict(spec.get("extra_data") or {})


def read_url(url: str) -> bytes:
    """The bytes at an http(s) address or of a file."""
    if urlsplit(url).scheme in ("", "file"):
        return Path(urlsplit(url).path).read_bytes()
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"data_url '{url}': only http(s) and files can be fetched")
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())
