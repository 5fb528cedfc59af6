"""The reference in docs/ is what the program says of itself."""

from __future__ import annotations

import re
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


def test_every_attribute_of_kafkas_trigger_has_a_row_that_says_what_becomes_of_it() -> None:
    source = (ROOT / "src/model/nuclio/fields.h").read_text()
    source = source[source.index("inline constexpr Field kKafkaOauth") :]
    fields = {
        name: "ignored" if "Use::ignored" in rest else "refused" if "Use::refused" in rest else "used"
        for name, rest in re.findall(r'\{"(\w+)"((?:[^{}"]|"[^"]*")*)\}', source)
    }
    assert {"brokers", "mechanism", "onFailure"} <= set(fields)
    page = (ROOT / "docs/reference/kafka-attributes.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    named = {word for row in rows for word in re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", row[1])))}
    inside_oauth = {"clientID", "clientSecret", "tokenURL", "scopes"}  # refused with oauth as a whole
    other_spelling = {"worker_allocation_mode"}  # MLRun's, of workerAllocationMode
    assert set(fields) - inside_oauth - other_spelling <= named
    assert named - set(fields) <= {"url", "OAUTHBEARER"}, "the page names what the trigger does not take"
    for name, use in fields.items():
        said = " ".join(row[3] for row in rows if name in re.findall(r"\w+", row[1]))
        if use == "ignored":
            assert said.strip().startswith("ignored"), name
        elif name not in inside_oauth | other_spelling:
            assert not said.strip().startswith("ignored"), name


def test_the_causes_page_is_current_and_every_cause_has_its_test() -> None:
    page = reference.reference_causes.page()
    assert (ROOT / "docs/reference/causes.md").read_text() == page
    assert [line for line in page.splitlines() if line.endswith("| nothing |")] == []
