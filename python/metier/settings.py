"""Settings as the ``metier`` command has them: variable, ``metier.toml`` of the folder or above, the user's, nothing."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path

from .errors import make_error

NAMES = ("server", "token", "data", "project", "python")
_LINE = re.compile(r"""\s*(?P<name>[^=#]*?)\s*=\s*(?P<value>"(?:[^"\\]|\\.)*"|'[^']*')\s*(?:#.*)?""")


def setting(name: str) -> str:
    """The value of a setting, "" where nothing says one.

    Raises
    ------
    metier.InvalidError
        A file that cannot be understood; it names file and line.
    """
    value = os.environ.get("METIER_" + name.upper(), "")
    if value:
        return value
    user = user_file()
    for file in (_project_file(Path.cwd(), user), user):
        if file is not None and file.is_file():
            about = file.stat()
            found = _parsed(file, about.st_ctime_ns, about.st_size, file == user).get(name, "")
            if found:
                return found
    return ""


def user_file() -> Path | None:
    """The user's file: METIER_CONFIG, as root /etc/metier/metier.toml, else below XDG_CONFIG_HOME."""
    if os.environ.get("METIER_CONFIG"):
        return Path(os.environ["METIER_CONFIG"]).absolute()
    if os.geteuid() == 0:
        return Path("/etc/metier/metier.toml")
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if base.startswith("/"):
        return Path(base) / "metier" / "metier.toml"
    home = os.environ.get("HOME", "")
    return Path(home) / ".config" / "metier" / "metier.toml" if home else None


def _project_file(folder: Path, user: Path | None) -> Path | None:
    for at in (folder, *folder.parents):
        file = at / "metier.toml"
        if file.is_file() and not (user is not None and user.exists() and file.samefile(user)):
            return file if file.stat().st_uid in (os.geteuid(), 0) else None
    return None


@lru_cache(maxsize=8)
def _parsed(file: Path, _changed: int, _size: int, own: bool) -> dict[str, str]:
    out: dict[str, str] = {}
    for number, line in enumerate(file.read_text().split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        name = match["name"] if match else line.partition("=")[0].strip()
        place = f"{file}:{number}"
        if name not in NAMES:
            raise make_error("invalid", f"{name!r} is not a setting", field=place, fix="settings: " + ", ".join(NAMES))
        if match is None:
            raise make_error(
                "invalid", f"the value of {name} is not one quoted text", field=place, fix=f'write {name} = "VALUE"'
            )
        if name in out:
            raise make_error("invalid", f"{name} is set a second time", field=place, fix="take one of them out")
        if not own and name != "project":
            raise make_error("invalid", f"{name} is not a setting of a folder", field=place, fix="take the line out")
        if name == "token" and file.stat().st_mode & 0o077:
            raise make_error("invalid", "a token that other users can read", field=place, fix=f"chmod 600 {file}")
        quoted = match["value"]
        try:
            out[name] = quoted[1:-1] if quoted.startswith("'") else json.loads(quoted)
        except ValueError as error:
            raise make_error("invalid", f"the value of {name}: {error}", field=place) from error
    return out
