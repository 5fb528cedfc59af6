"""Draws a graph: by the graphviz package where it is installed, else as SVG of our own."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from .states import Flow, RouterStep

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _EDGE = 150, 40, 40, 46, 20


class Drawing:
    """A drawing in SVG; notebooks show it."""

    def __init__(self, svg: str) -> None:
        self.svg = svg

    def _repr_svg_(self) -> str:
        return self.svg

    def __str__(self) -> str:
        return self.svg


def plot(graph: Any, filename: str | None = None, format: str | None = None, **options: Any) -> Any:
    """The drawing of a graph.

    Parameters
    ----------
    filename : str
        Where to write it; None: only return it, as notebooks show it.
    format : str
        ``"svg"`` always works; ``"png"`` and ``"pdf"`` need graphviz (package and program).
    """
    wanted = format or (Path(filename).suffix.lstrip(".") if filename else "") or "svg"
    made = _graphviz(graph, options) if wanted != "svg" or options else None
    if made is not None:
        if filename:
            Path(filename).write_bytes(made.pipe(format=wanted))
        return made
    if wanted != "svg":
        raise ValueError(f"format '{wanted}' needs the package graphviz and the program dot; 'svg' needs neither")
    drawing = Drawing(to_svg(graph))
    if filename:
        Path(filename).write_text(drawing.svg, encoding="utf-8")
    return drawing


def _edges(graph: Flow) -> list[tuple[str, str, bool]]:
    out: list[tuple[str, str, bool]] = []
    for name, step in graph.steps.items():
        out += [(previous, name, False) for previous in step.after or []]
        if step.kind == "error_step":
            out += [(name, following, False) for following in step.before or []]
        if step.on_error:
            out.append((name, step.on_error, True))
    return out


def _graphviz(graph: Any, options: dict[str, Any]) -> Any:
    try:
        import shutil

        from graphviz import Digraph
    except ImportError:
        return None
    if shutil.which("dot") is None:
        return None
    dot = Digraph("mlrun-flow", format="png")
    dot.attr(compound="true", **{key: str(value) for key, value in options.items()})
    dot.node("_start", "start", shape="egg", style="filled")
    if isinstance(graph, RouterStep):
        _router(dot, graph, graph.name)
        dot.edge("_start", graph.name)
        return dot
    for name, step in graph.steps.items():
        if isinstance(step, RouterStep):
            _router(dot, step, name)
        else:
            dot.node(name, name, shape=step.shape or step.default_shape)
        if not step.after and step.kind != "error_step":
            dot.edge("_start", name)
    for start, end, dashed in _edges(graph):
        dot.edge(start, end, style="dashed" if dashed else "solid")
    return dot


def _router(dot: Any, router: RouterStep, name: str) -> None:
    with dot.subgraph(name=f"cluster_{name}") as cluster:
        cluster.node(name, name, shape=router.shape or router.default_shape)
        for route in router.routes:
            cluster.node(f"{name}/{route}", route)
            cluster.edge(name, f"{name}/{route}")


def to_svg(graph: Any) -> str:
    """The graph as SVG: layers from left to right, routers with their routes below, error links dashed."""
    if isinstance(graph, RouterStep):
        names: dict[str, Any] = {graph.name: graph}
        edges: list[tuple[str, str, bool]] = []
    else:
        names = dict(graph.steps)
        edges = _edges(graph)
    layer = {name: 0 for name in names}
    for _ in names:
        moved = False
        for start, end, _dashed in edges:
            if start in layer and end in layer and layer[end] <= layer[start] < len(names):
                layer[end] = layer[start] + 1
                moved = True
        if not moved:
            break
    rows: dict[int, float] = {}
    place: dict[str, tuple[float, float]] = {}
    heights: dict[str, int] = {}
    for name, step in names.items():
        count = len(step.routes) if isinstance(step, RouterStep) else 0
        heights[name] = _HEIGHT + count * 22 + (8 if count else 0)
        top = rows.get(layer[name], _EDGE)
        place[name] = (_EDGE + 70 + layer[name] * (_WIDTH + _GAP_X), top)
        rows[layer[name]] = top + heights[name] + _GAP_Y - _HEIGHT / 2
    width = max(x for x, _ in place.values()) + _WIDTH + _EDGE
    height = max(y + heights[n] for n, (_, y) in place.items()) + _EDGE
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" font-family="sans-serif" font-size="12">',
        '<defs><marker id="a" markerWidth="8" markerHeight="8" refX="7" refY="3" orient="auto">'
        '<path d="M0,0 L7,3 L0,6 z" fill="#555"/></marker></defs>',
        f'<ellipse cx="{_EDGE + 22}" cy="{_EDGE + _HEIGHT / 2}" rx="22" ry="14" fill="#ddd" stroke="#555"/>'
        f'<text x="{_EDGE + 22}" y="{_EDGE + _HEIGHT / 2 + 4}" text-anchor="middle">start</text>',
    ]
    targets = {end for _, end, _dashed in edges}
    for name, (x, y) in place.items():
        if name not in targets and names[name].kind != "error_step":
            out.append(_line(_EDGE + 44, _EDGE + _HEIGHT / 2, x, y + _HEIGHT / 2, False))
    for start, end, dashed in edges:
        if start in place and end in place:
            (x1, y1), (x2, y2) = place[start], place[end]
            out.append(_line(x1 + _WIDTH, y1 + _HEIGHT / 2, x2, y2 + _HEIGHT / 2, dashed))
    for name, (x, y) in place.items():
        out += _box(name, names[name], x, y, heights[name])
    return "\n".join([*out, "</svg>"])


def _line(x1: float, y1: float, x2: float, y2: float, dashed: bool) -> str:
    middle = (x1 + x2) / 2
    style = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<path d="M{x1:.0f},{y1:.0f} C{middle:.0f},{y1:.0f} {middle:.0f},{y2:.0f} {x2:.0f},{y2:.0f}" fill="none" '
        f'stroke="{"#b33" if dashed else "#555"}"{style} marker-end="url(#a)"/>'
    )


_FILL = {"queue": "#fdf2d0", "router": "#e3ecfa", "error_step": "#fbe3e3"}


def _box(name: str, step: Any, x: float, y: float, height: int) -> list[str]:
    fill = _FILL.get(step.kind, "#eef6ee")
    thick = 2.5 if step.responder else 1
    out = [
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{_WIDTH}" height="{height}" rx="8" fill="{fill}" stroke="#555" stroke-width="{thick}"/>',
        f'<text x="{x + _WIDTH / 2:.0f}" y="{y + 17:.0f}" text-anchor="middle" font-weight="bold">{html.escape(name)}</text>',
    ]
    what = step.kind if step.kind != "task" else str(step.class_name or step.handler or "")
    if step.function:
        what += f" @ {step.function}"
    out.append(
        f'<text x="{x + _WIDTH / 2:.0f}" y="{y + 32:.0f}" text-anchor="middle" fill="#666" font-size="10">{html.escape(what[-26:])}</text>'
    )
    for index, route in enumerate(step.routes if isinstance(step, RouterStep) else []):
        top = y + _HEIGHT + index * 22
        out.append(
            f'<rect x="{x + 14:.0f}" y="{top:.0f}" width="{_WIDTH - 28}" height="18" rx="4" fill="#fff" stroke="#99a"/>'
            f'<text x="{x + _WIDTH / 2:.0f}" y="{top + 13:.0f}" text-anchor="middle" font-size="11">{html.escape(route)}</text>'
        )
    return out
