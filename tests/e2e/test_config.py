"""Settings: flag, variable, the folder's metier.toml, the user's, the default."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.server import BINARY, Server

Metier = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def place(tmp_path: Path) -> tuple[Metier, Path, dict[str, str]]:
    """The command with a user's file of its own and no variable that says a setting."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("METIER_", "XDG_", "VIRTUAL_ENV", "CONDA_"))}
    environment = {**keep, "METIER_CONFIG": str(tmp_path / "own" / "metier.toml"), "HOME": str(tmp_path)}
    (tmp_path / "work" / "deep").mkdir(parents=True)

    def metier(*words: str, env: dict[str, str] | None = None, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BINARY, *words],
            cwd=tmp_path / "work" / "deep",
            env={**environment, **(env or {})},
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return metier, tmp_path, environment


def shown(metier: Metier, name: str, **more: dict[str, str]) -> tuple[str, str]:
    document = json.loads(metier("config", "-o", "json", **more).stdout)
    entry = next(entry for entry in document["settings"] if entry["name"] == name)
    return entry["value"], entry["from"]


def test_each_place_hides_the_next_and_is_named(place: tuple[Metier, Path, dict[str, str]]) -> None:
    metier, folder, _ = place
    assert shown(metier, "project") == ("default", "default")
    assert metier("config", "set", "project", "mine").returncode == 0
    own = folder / "own" / "metier.toml"
    assert shown(metier, "project") == ("mine", f"{own}:1")
    (folder / "work" / "metier.toml").write_text("# the team's\nproject = 'flights'\n")
    assert shown(metier, "project") == ("flights", f"{folder / 'work' / 'metier.toml'}:2")
    variable = {"METIER_PROJECT": "named"}
    assert shown(metier, "project", env=variable) == ("named", "METIER_PROJECT")
    flag = json.loads(metier("config", "-P", "asked", "-o", "json", env=variable).stdout)["settings"]
    assert {"name": "project", "value": "asked", "from": "-P", "variable": "METIER_PROJECT"} in flag
    assert metier("config", "get", "project").stdout == "flights\n"
    assert metier("config", "get", "project", "--show-origin").stdout.split("\t")[1] == "flights\n"
    table = metier("config").stdout
    assert "project\tflights\t" in table, table


def test_set_and_unset_change_one_line_of_the_right_file(place: tuple[Metier, Path, dict[str, str]]) -> None:
    metier, folder, _ = place
    own = folder / "own" / "metier.toml"
    assert metier("config", "set", "data", str(folder / "records")).returncode == 0
    assert own.stat().st_mode & 0o777 == 0o600
    assert own.parent.stat().st_mode & 0o777 == 0o700
    own.write_text("# keep me\n" + own.read_text())
    assert metier("config", "set", "server", "http://127.0.0.1:1").returncode == 0
    assert own.read_text() == f'# keep me\ndata = "{folder / "records"}"\nserver = "http://127.0.0.1:1"\n'
    hidden = metier("config", "set", "project", "a", env={"METIER_PROJECT": "b"})
    assert hidden.returncode == 0
    assert "project still comes from METIER_PROJECT" in hidden.stderr
    assert metier("config", "set", "project", "team", "--local").returncode == 0
    assert (folder / "work" / "deep" / "metier.toml").read_text() == 'project = "team"\n'
    assert metier("config", "unset", "project", "--local").returncode == 0
    assert (folder / "work" / "deep" / "metier.toml").read_text() == ""
    assert metier("config", "unset", "project").returncode == 0
    gone = metier("config", "unset", "project")
    assert gone.returncode == 3
    assert f"project is not set in {own}" in gone.stderr
    assert list(own.parent.iterdir()) == [own], "nothing is left beside it"


def test_a_link_stays_a_link(place: tuple[Metier, Path, dict[str, str]]) -> None:
    metier, folder, _ = place
    (folder / "dotfiles").mkdir()
    (folder / "own").mkdir()
    real = folder / "dotfiles" / "metier.toml"
    real.write_text("project = 'a'\n")
    (folder / "own" / "metier.toml").symlink_to(real)
    assert metier("config", "set", "project", "b").returncode == 0
    assert (folder / "own" / "metier.toml").is_symlink()
    assert real.read_text() == 'project = "b"\n'


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["set", "projct", "a"], "did you mean project?"),
        (["set", "colour", "a"], "settings: server, token, data, project, python"),
        (["set", "project", "Not Good"], "small letters, digits and '-'"),
        (["set", "server", "nonsense"], "http://HOST:PORT"),
        (["set", "data", "here"], "/work/deep/here"),
        (["set", "python", "no-such-python"], "is not a program here"),
        (["set", "project"], "no value is given"),
        (["set"], "has no name behind it"),
        (["set", "token", "secret"], "seen by everyone on this machine"),
        (["set", "python", "python3", "--local"], "is not a setting of a folder"),
        (["list", "project"], "takes no word behind it"),
        (["get", "project", "data"], "one word too many"),
        (["drop", "project"], "view, get, set or unset"),
    ],
)
def test_what_is_refused_by_name(place: tuple[Metier, Path, dict[str, str]], words: list[str], says: str) -> None:
    metier, folder, _ = place
    done = metier("config", *words)
    assert done.returncode == 2, done.stdout
    assert says in done.stderr
    assert not (folder / "own").exists()


def test_a_token_is_never_shown_and_never_open_to_others(place: tuple[Metier, Path, dict[str, str]]) -> None:
    metier, folder, _ = place
    token = "0123456789abcdefSECRETwxyz"
    assert metier("config", "set", "token", text=token + "\n").returncode == 0
    own = folder / "own" / "metier.toml"
    assert own.read_text() == f'token = "{token}"\n'
    assert own.stat().st_mode & 0o777 == 0o600
    for words in (["config"], ["config", "-o", "json"], ["config", "get", "token"]):
        done = metier(*words)
        assert "SECRET" not in done.stdout + done.stderr
        assert "…wxyz" in done.stdout
    own.chmod(0o644)
    done = metier("get", "runs")
    assert done.returncode == 2
    assert f"chmod 600 {own}" in done.stderr


def test_a_broken_file_is_named_by_line_and_help_is_still_there(place: tuple[Metier, Path, dict[str, str]]) -> None:
    metier, folder, _ = place
    file = folder / "work" / "metier.toml"
    file.write_text("project = 'a'\nserver = 'http://elsewhere:1'\n")
    for words in (["get", "runs"], ["config"]):
        done = metier(*words)
        assert done.returncode == 2
        assert f"{file}:2: server is not a setting of a folder" in done.stderr
    assert metier("help", "config").returncode == 0
    assert metier("version").returncode == 0
    assert metier("completion", "bash").returncode == 0


def test_commands_go_where_the_file_says(place: tuple[Metier, Path, dict[str, str]], server: Server) -> None:
    metier, folder, _ = place
    assert metier("config", "set", "server", str(server.data / "metier.sock")).returncode == 0
    assert metier("config", "set", "project", "from-file").returncode == 0
    (folder / "work" / "deep" / "f.py").write_text("def ok(context):\n    context.log_result('n', 1)\n")
    created = server.call("POST", "/api/v1/projects", {"metadata": {"name": "from-file"}, "spec": {}})
    assert created.status in (200, 201)
    done = metier("run", "f.py:ok", "--kind", "job", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metadata"]["project"] == "from-file"

    (folder / "away.toml").write_text("server = 'http://127.0.0.1:1'\n")
    away = metier("get", "runs", env={"METIER_CONFIG": str(folder / "away.toml")})
    assert away.returncode == 6
    assert f"({folder / 'away.toml'}:1)" in away.stderr
    assert "metier config unset server" in away.stderr
