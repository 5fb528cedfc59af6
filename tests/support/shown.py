"""What metier shows of a run of several parts: describe, its timeline, logs of each part, why."""

from __future__ import annotations

import re
from typing import Any

from support.gang import parts as every_part
from support.gang import wait_for
from support.server import Server


def assert_shown(
    server: Server, project: str, uid: str, parts: list[str], lines: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Every one of `parts` is in describe and its timeline; `lines`: a text that the log of a part has. The parts by name."""

    # A run's end is its driver's: an executor's may be seen later. A run of one pod has no parts.
    wait_for(lambda: all(one["state"] != "running" for one in every_part(server, uid, project).values()), 120)
    known = every_part(server, uid, project)
    assert set(parts) <= set(known), (parts, list(known))
    described = server.metier("describe", uid, "-P", project).stdout
    _, _, rest = described.partition("\nparts\n")
    listed, _, timeline = rest.partition("\ntimeline\n")
    for part in parts:
        # A part that the end of its run overtook says so.
        assert re.search(
            rf"^  {part} +(completed|released|removed) .*{known[part]['pod']}(  RunEnded)?$", listed, re.M
        ), described
        assert re.search(rf"^  {part} +\S.* from \+\S", timeline, re.M), described
    for part, line in lines.items():
        log = server.metier("logs", uid, "-P", project, "--part", part)
        assert log.returncode == 0 and line in log.stdout, (part, log.stdout, log.stderr)
    together = server.metier("logs", uid, "-P", project, "--part", "all").stdout
    assert all(line in together for line in lines.values()), together
    why = server.metier("why", uid, "-P", project)
    assert why.returncode == 0 and "has completed" in why.stdout, why.stdout
    return known
