"""A mount point that the host does not have is made inside the pod and leaves nothing on the host: as root, as an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from support.server import BINARY, Server, running

CODE = """
import errno, os

def look(context, root: str, beside: str):
    seen = {}
    for name, path in (("root", root), ("beside", beside)):
        with open(os.path.join(path, "given.txt")) as file:
            seen[name] = file.read()
        with open(os.path.join(path, "made.txt"), "w") as file:
            file.write(name)
    parent = os.path.dirname(beside)
    with open(os.path.join(parent, "old", "kept.txt"), "w") as file:
        file.write("kept")
    seen["link"] = os.readlink(os.path.join(parent, "link"))
    seen["entries"] = sorted(os.listdir(parent))
    try:
        open(os.path.join(parent, "lost.txt"), "w").close()
    except OSError as error:
        seen["refused"] = errno.errorcode[error.errno]
    seen["proc"] = os.path.exists("/proc/self/status") and os.path.isdir("/usr/bin")
    context.log_results(seen)
"""

SHELL = """#!/bin/sh
cat $1/given.txt; echo
cat $2/given.txt; echo
echo $(ls $(dirname $2))
touch $(dirname $2)/lost.txt 2>/dev/null || echo refused
echo beside > $2/made.txt
echo kept > $(dirname $2)/old/kept.txt
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that every user may pass through: pytest's own are the tester's alone."""
    folder = Path(tempfile.mkdtemp(prefix="metier-targets-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def prepare(base: Path, owner: int | None) -> None:
    for name in ("code", "source", "parent/old"):
        (base / name).mkdir(parents=True)
    (base / "code" / "f.py").write_text(CODE)
    (base / "code" / "look.sh").write_text(SHELL)
    (base / "code" / "look.sh").chmod(0o755)
    (base / "source" / "given.txt").write_text("given")
    (base / "parent" / "link").symlink_to("old")
    if owner is not None:
        for path in [base, *base.rglob("*")]:
            os.chown(path, owner, owner, follow_symlinks=False)


def metier(server: Server, base: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = server.metier("run", "--kind", "job", *arguments, cwd=base / "code")
    assert done.returncode == 0, done.stderr
    return done


def check(server: Server, base: Path, started_by: str) -> None:
    root = f"/metier-{uuid4().hex}/inner"
    beside = str(base / "parent" / "missing")
    volumes = ["-v", f"{base}/source:{root}", "-v", f"{base}/source:{beside}"]
    if started_by == "zygote":
        done = metier(server, base, "f.py:look", "-o", "json", "-p", f"root={root}", "-p", f"beside={beside}", *volumes)
        assert json.loads(done.stdout)["status"]["results"] == {
            "root": "given",
            "beside": "given",
            "link": "old",
            "entries": ["link", "missing", "old"],
            "refused": "EROFS",
            "proc": True,
        }
    else:
        done = metier(server, base, "look.sh", *volumes, "--", root, beside)
        assert done.stdout.splitlines()[:4] == ["given", "given", "link missing old", "refused"]
    assert not Path(root).parent.exists(), "the target at the root stays inside the pod"
    assert sorted(entry.name for entry in (base / "parent").iterdir()) == ["link", "old"]
    assert (base / "parent" / "old" / "kept.txt").read_text().strip() == "kept", "what exists is the host's own"
    assert (base / "source" / "made.txt").read_text().strip() == "beside"


@pytest.mark.parametrize("started_by", ["zygote", "shim"])
def test_nothing_stays_on_the_host(base: Path, started_by: str) -> None:
    """A handler is forked from its zygote, a program is started by the shim: each makes the mounts by itself."""
    prepare(base, None)
    with running(base / "data") as server:
        check(server, base, started_by)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a server as another user")
@pytest.mark.parametrize("started_by", ["zygote", "shim"])
def test_nothing_stays_on_the_host_as_an_ordinary_user(
    base: Path, started_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = 1000
    # Root's own folders are closed to others, and with them a binary and an interpreter that were built there.
    monkeypatch.setattr("support.server.BINARY", shutil.copy(BINARY, base / "metier"))
    prepare(base, user)
    (base / "data").mkdir()
    os.chown(base / "data", user, user)
    probe = subprocess.run(["unshare", "-Urm", "true"], user=user, group=user, capture_output=True)
    if probe.returncode != 0:
        pytest.skip("this host lets no ordinary user make a mount namespace")
    with running(base / "data", user=user, python="/usr/bin/python3") as server:
        check(server, base, started_by)
