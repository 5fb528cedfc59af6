"""The settings that Python reads are the command's: the same files, the same order, the same refusals."""

from __future__ import annotations

import os
from pathlib import Path

import metier
import pytest
from metier.client import Client
from metier.settings import setting


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in [name for name in os.environ if name.startswith("METIER_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "own.toml"
    monkeypatch.setenv("METIER_CONFIG", str(file))
    (tmp_path / "work" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "deep")
    return file


def test_the_variable_then_the_folder_then_the_user(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert setting("project") == ""
    own.write_text("# mine\nproject = \"m\\u0069ne\"  # why\nserver = '/run/m.sock'\n")
    assert setting("project") == "mine"
    (own.parent / "work" / "metier.toml").write_text("project = 'flights'\n")
    assert setting("project") == "flights"
    assert metier.new_function("f", kind="job").metadata.project == "flights"
    monkeypatch.setenv("METIER_PROJECT", "named")
    assert setting("project") == "named"
    assert Client().server == "/run/m.sock"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colour = 'red'", "'colour' is not a setting"),
        ("[server]", "is not a setting"),
        ("project = mine", "not one quoted text"),
        ("project = 'a' b", "not one quoted text"),
        ("project = 'a'\nproject = 'b'", "a second time"),
    ],
)
def test_a_broken_file_is_refused_by_line(own: Path, text: str, says: str) -> None:
    own.write_text(text + "\n")
    with pytest.raises(metier.Error, match=says) as caught:
        setting("project")
    assert caught.value.field.startswith(f"{own}:")


def test_a_folder_chooses_nothing_but_its_project(own: Path) -> None:
    (own.parent / "work" / "metier.toml").write_text("server = 'http://elsewhere:1'\n")
    with pytest.raises(metier.Error, match="not a setting of a folder"):
        setting("server")


def test_a_token_that_others_can_read_is_refused(own: Path) -> None:
    own.write_text("token = 'abcdefgh'\n")
    own.chmod(0o600)
    assert Client().token == "abcdefgh"
    own.chmod(0o644)
    with pytest.raises(metier.Error, match="other users can read"):
        setting("token")
