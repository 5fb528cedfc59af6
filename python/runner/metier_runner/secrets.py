"""Where `get_secret` looks: the run's secret sources, the environment, the project's secrets (MLRUN_K8S_SECRET__)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import InvalidArgument

PREFIX = "MLRUN_K8S_SECRET__"


class Secrets:
    def __init__(self, sources: Any, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._values: dict[str, str] = {}
        for source in sources if isinstance(sources, list) else []:
            self._add(str(source.get("kind", "")), source.get("source"))

    def get(self, key: str, default: str | None = None) -> str | None:
        for found in (
            self._values.get(key),
            self._environment.get(PREFIX + key),
            self._environment.get(PREFIX + key.upper()),
            self._environment.get(key),
        ):
            if found is not None:
                return found
        return default

    def known_values(self) -> list[str]:
        """Every secret text, longest first, for masking. Very short ones would mask ordinary words."""
        found = {value for name, value in self._environment.items() if name.startswith(PREFIX)} | set(self._values.values())
        return sorted((value for value in found if len(value) >= 4), key=len, reverse=True)

    def mask(self, text: str) -> str:
        for value in self.known_values():
            text = text.replace(value, "*" * len(value))
        return text

    def _add(self, kind: str, source: Any) -> None:
        if kind == "inline" and isinstance(source, dict):
            self._values.update({str(name): str(value) for name, value in source.items()})
        elif kind == "inline" and isinstance(source, str) and source.lstrip().startswith("{"):
            import json

            self._add(kind, json.loads(source))
        elif kind == "file" and isinstance(source, str):
            self._values.update(read_env_file(source))
        elif kind == "env" and isinstance(source, str):
            for name in filter(None, (part.strip() for part in source.split(","))):
                if name in self._environment:
                    self._values[name] = self._environment[name]
        elif kind in ("kubernetes", "vault", "azure_vault"):
            return  # these reach the process as environment variables
        else:
            raise InvalidArgument(f"secret source of kind '{kind}' is unknown, kinds are inline, file, env, kubernetes")


def read_env_file(path: str) -> dict[str, str]:
    values = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            line = line.strip()
            if line and not line.startswith("#") and "=" in line:
                name, value = line.split("=", 1)
                values[name.strip()] = value.strip()
    return values
