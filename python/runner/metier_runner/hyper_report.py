"""The table of iterations and its picture."""

from __future__ import annotations

import html
from typing import Any

from .sinks import JsonDict

_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
MAX_LINES = 1000
_WIDTH, _HEIGHT, _TOP = 160, 320, 50


def table_of(runs: list[JsonDict]) -> list[list[Any]]:
    """Rows of `state`, `iter`, ``param.*``, ``output.*``; the first row is the header."""
    names: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    for run in runs:
        row: dict[str, Any] = {"state": run["status"]["state"], "iter": run["metadata"]["iteration"]}
        row.update({f"param.{name}": value for name, value in (run["spec"].get("parameters") or {}).items()})
        row.update({f"output.{name}": value for name, value in (run["status"].get("results") or {}).items()})
        rows.append(row)
    for part in ("state", "iter", "param.", "output."):
        for row in rows:
            names.update({name: None for name in row if (name.startswith(part) if part.endswith(".") else name == part)})
    return [list(names), *[[row.get(name) for name in names] for row in rows]]


def parallel_coordinates(table: list[list[Any]], title: str) -> str:
    """A page of its own, without scripts or addresses: one axis per column, one line per iteration."""
    header = [str(name) for name in table[0]]
    columns = [place for place, name in enumerate(header) if name not in ("state", "iter")]
    rows = table[1 : MAX_LINES + 1]
    axes = [_axis([row[place] for row in rows]) for place in columns]
    parts = []
    for place, (ticks, _) in enumerate(axes):
        x = 80 + place * _WIDTH
        parts.append(f'<line x1="{x}" y1="{_TOP}" x2="{x}" y2="{_TOP + _HEIGHT}" stroke="#444"/>')
        parts.append(f'<text x="{x}" y="{_TOP - 14}" text-anchor="middle" font-weight="bold">{html.escape(header[columns[place]])}</text>')
        for level, text in ticks:
            y = _TOP + _HEIGHT * (1 - level)
            parts.append(f'<text x="{x + 5}" y="{y:.1f}" font-size="10">{html.escape(text)}</text>')
    for number, row in enumerate(rows):
        points = " ".join(f"{80 + p * _WIDTH},{_TOP + _HEIGHT * (1 - axes[p][1][number]):.1f}" for p in range(len(columns)))
        colour = _COLOURS[number % len(_COLOURS)]
        label = html.escape(", ".join(f"{name}={value}" for name, value in zip(header, row))[:500])
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-opacity="0.7"><title>{label}</title></polyline>')
    size = (160 + max(len(columns) - 1, 0) * _WIDTH, _TOP + _HEIGHT + 40)
    note = f"<p>the first {MAX_LINES} of {len(table) - 1} iterations</p>" if len(table) - 1 > MAX_LINES else ""
    body = "".join(parts)
    return (
        f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>{html.escape(title)}</title></head>"
        f"<body style='font-family:sans-serif'><h3>{html.escape(title)}</h3>{note}"
        f"<svg width='{size[0]}' height='{size[1]}' font-size='12'>{body}</svg></body></html>"
    )


def _axis(values: list[Any]) -> tuple[list[tuple[float, str]], list[float]]:
    """Ticks (height, text) and the height of each value, between 0 and 1."""
    numbers = [float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if numbers and len(numbers) == len(values):
        low, high = min(numbers), max(numbers)
        span = (high - low) or 1.0
        ticks = [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")] if high > low else [(0.0, f"{low:.4g}")]
        return ticks, [(number - low) / span for number in numbers]
    texts = [str(value)[:40] for value in values]
    known = sorted(set(texts))
    span = max(len(known) - 1, 1)
    return [(place / span, text) for place, text in enumerate(known[:50])], [known.index(text) / span for text in texts]
