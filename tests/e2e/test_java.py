"""Where kinds spark and remote-spark find Java: what `metier kinds --check` sees is what pods get."""

from __future__ import annotations

import json
from pathlib import Path

from support.server import running


def test_a_java_of_the_servers_own_home_is_seen_and_given_to_pods(tmp_path: Path) -> None:
    home = tmp_path / "java"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").write_text("#!/bin/sh\n")
    (home / "bin" / "java").chmod(0o755)
    (home / "release").write_text('JAVA_VERSION="17.0.99"\n')
    (tmp_path / "tell.sh").write_text('#!/bin/sh\necho "home is $JAVA_HOME"\n')
    (tmp_path / "tell.sh").chmod(0o755)
    with running(tmp_path / "data", env={"JAVA_HOME": str(home)}) as server:
        kinds = json.loads(server.metier("kinds", "--check", "-o", "json").stdout)["kinds"]
        assert "Java 17.0.99" in json.dumps(kinds)
        done = server.metier("run", "tell.sh", "--kind", "job", cwd=tmp_path)
        assert f"home is {home}" in done.stdout + done.stderr
        done = server.metier("run", "tell.sh", "--kind", "job", "-e", "JAVA_HOME=/own", cwd=tmp_path)
        assert "home is /own" in done.stdout + done.stderr
    with running(tmp_path / "other", env={"JAVA_HOME": "/nowhere"}) as server:
        done = server.metier("run", "tell.sh", "--kind", "job", cwd=tmp_path)
        assert "home is \n" in done.stdout + done.stderr, "a home without Java is none"
