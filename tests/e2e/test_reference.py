"""The reference in docs/ is what the program says of itself."""

from __future__ import annotations

import sys
from pathlib import Path

from support.server import BINARY

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "lib"))

import reference  # noqa: E402


def test_the_command_lines_page_is_current() -> None:
    assert (ROOT / "docs/reference/command-line.md").read_text() == reference.command_line(BINARY)


def test_the_rest_page_is_current() -> None:
    assert (ROOT / "docs/reference/rest.md").read_text() == reference.rest(BINARY)


def test_python() -> None:
    assert (ROOT / "docs/reference/python.md").read_text() == reference.reference_python.page()
