"""tests/graphs: what the engine in C++ answers, the mock server answers; what its expressions say, Python says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

GRAPHS = Path(__file__).resolve().parents[3] / "tests" / "graphs"
CASES = json.loads((GRAPHS / "cases.json").read_text(encoding="utf-8"))
PYTHON = json.loads((GRAPHS / "python.json").read_text(encoding="utf-8"))


def check(server: Any, case: dict[str, Any]) -> None:
    for call in case["calls"]:
        body = call.get("body")
        answer = server.test(
            call.get("path", "/"),
            body.encode() if isinstance(body, str) else body,  # text, as it comes over the wire
            method="GET" if "body" not in call else "POST",
            content_type=call.get("content_type"),
            event_id=call.get("id"),
            silent=True,
            get_body=False,
        )
        status = getattr(answer, "status_code", 200)
        text = getattr(answer, "body", answer)
        text = text.decode() if isinstance(text, bytes) else text
        assert status == call.get("status", 200), (call, text)
        if "answered_as" in call:
            assert answer.content_type == call["answered_as"], call
        for name, value in call.get("headers", {}).items():
            assert answer.headers.get(name) == value, call
        if "says" in call:
            assert call["says"] in text, call
            continue
        if "has" in call:
            found = json.loads(text)
            assert {name: found.get(name) for name in call["has"]} == call["has"], call
            continue
        value = call.get("value")
        assert text == (value if isinstance(value, str) or value is None else json.dumps(value)), call


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_the_mock_server_answers_the_suite(serve: Any, case: dict[str, Any]) -> None:
    check(serve(case["graph"]), case)


@pytest.mark.parametrize("case", PYTHON, ids=lambda case: str(case["name"]))
def test_the_mock_server_answers_the_suite_of_python_steps(
    serve: Any, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(GRAPHS))
    monkeypatch.delitem(sys.modules, "steps", raising=False)
    import steps  # type: ignore[import-not-found]

    check(serve(case["graph"], vars(steps), parameters=case.get("parameters")), case)


def test_the_corpus_of_expressions_is_what_python_says() -> None:
    for row in json.loads((GRAPHS / "expressions.json").read_text(encoding="utf-8")):
        function = eval(f"lambda event: {row['expression']}", {}, {})
        if "raises" not in row:
            assert json.dumps(function(row["event"])) == json.dumps(row["value"]), row
            continue
        with pytest.raises(Exception) as raised:
            function(row["event"])
        assert type(raised.value).__name__ == row["raises"], row
