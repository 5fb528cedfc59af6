from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
try:
    import metier._core  # noqa: F401  the installed package
except ImportError:
    sys.path.insert(0, str(ROOT))
try:
    import metier_runner  # noqa: F401
except ImportError:
    sys.path.insert(0, str(ROOT / "runner"))
try:
    import metier_serving._engine  # noqa: F401
except ImportError:
    for preset in ("dev", "release"):
        if (built := ROOT.parent / "build" / preset / "serving").is_dir():
            sys.path.insert(0, str(built))
            break


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of its own, without a server and without a program to start one."""
    import metier.client

    monkeypatch.setenv("METIER_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("METIER_SERVER", raising=False)
    monkeypatch.setattr(metier.client, "_default", None)

    def nothing() -> str:
        raise metier.client.make_error("unavailable", "there is no metier program")

    monkeypatch.setattr(metier.client, "binary", nothing)
    monkeypatch.chdir(tmp_path)
    return tmp_path
