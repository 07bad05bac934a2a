"""Plots as SVG: points with their names beside them, bars, and falling curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 560, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 24, 18, 50


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers from below `low` to above `high`, about as many as wanted."""
    span = high - low or abs(high) or 1.0
    raw = span / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((power * m for m in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * k for k in range(first, last + 1)]


def scatter(
    points: Sequence[tuple[str, float, float]],
    x_title: str,
    y_title: str,
    *,
    line: bool = True,
    reference: bool = True,
) -> str:
    """Return a plot of named points.

    Parameters
    ----------
    points : sequence of (str, float, float)
        Name, x and y of each, finite.
    x_title, y_title : str
        With units.
    line : bool
        Whether to join them from left to right, but for the reference.
    reference : bool
        Whether the first is what the others are compared with.
    """
    x_ticks = ticks(min(0.0, *(x for _, x, _ in points)), max(x for _, x, _ in points))
    y_ticks = ticks(min(y for *_, y in points), max(y for *_, y in points))
    parts = [_frame(x_ticks, y_ticks, x_title, y_title)]

    def place(x: float, y: float) -> tuple[float, float]:
        return _at(x, x_ticks, _LEFT, _WIDTH - _RIGHT), _at(y, y_ticks, _HEIGHT - _BOTTOM, _TOP)

    ordered = sorted(points[int(reference) :], key=lambda point: point[1])
    if line and len(ordered) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*p[1:]) for p in ordered))
        parts.append(f'<polyline class="curve" points="{path}"/>')
    taken: list[tuple[float, float]] = []
    for number, (name, *values) in enumerate(points):
        x, y = place(*values)
        parts.append(
            f'<circle class="{"dot" if number or not reference else "dot reference"}" cx="{x:.1f}" '
            f'cy="{y:.1f}" r="5"/>'
        )
        right = x < _WIDTH * 0.66
        label_y = y - 9
        while any(abs(label_y - ty) < 14 and abs(x - tx) < 150 for tx, ty in taken):
            label_y += 14
        taken.append((x, label_y))
        parts.append(
            f'<text class="name" x="{x + (9 if right else -9):.1f}" y="{label_y:.1f}" '
            f'text-anchor="{"start" if right else "end"}">{escape(name)}</text>'
        )
    return _svg(parts, f"{y_title} against {x_title}")


def curves(values: Sequence[float], marks: Mapping[str, int], x_title: str, y_title: str) -> str:
    """Return a falling curve on a logarithmic axis, with marks.

    Parameters
    ----------
    values : sequence of float
        Above 0 and up to 1; what is below 1e-4 is drawn there.
    marks : mapping of str to int
        Positions from 1, by name.
    x_title, y_title : str
        With units.
    """
    heights = [math.log10(max(value, 1e-4)) for value in values]
    x_ticks, y_ticks = ticks(0, len(values)), [-4.0, -3.0, -2.0, -1.0, 0.0]
    parts = [_frame(x_ticks, y_ticks, x_title, y_title, lambda y: f"{10**y:g}")]

    def place(position: int, height: float) -> tuple[float, float]:
        x = _at(position, x_ticks, _LEFT, _WIDTH - _RIGHT)
        return x, _at(height, y_ticks, _HEIGHT - _BOTTOM, _TOP)

    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(k, h) for k, h in enumerate(heights, 1)))
    parts.append(f'<polyline class="curve" points="{path}"/>')
    for number, (name, rank) in enumerate(marks.items()):
        x, y = place(rank, heights[rank - 1])
        parts.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" '
            f'y2="{_HEIGHT - _BOTTOM}"/><circle class="dot" cx="{x:.1f}" cy="{y:.1f}" '
            f'r="5"/>'
        )
        parts.append(
            f'<text class="name" x="{x + 8:.1f}" y="{_TOP + 14 + 15 * number}">'
            f"{escape(name)}: {rank}</text>"
        )
    return _svg(parts, f"{y_title} by {x_title}")


def _at(value: float, scale: Sequence[float], start: float, end: float) -> float:
    span = scale[-1] - scale[0] or 1.0
    return start + (end - start) * (value - scale[0]) / span


def _frame(
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_title: str,
    y_title: str,
    y_text: Callable[[float], str] | None = None,
) -> str:
    written = y_text or _number(y_ticks)
    number = _number(x_ticks)
    parts = []
    for tick in x_ticks:
        x = _at(tick, x_ticks, _LEFT, _WIDTH - _RIGHT)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" '
            f'text-anchor="middle">{number(tick)}</text>'
        )
    for tick in y_ticks:
        y = _at(tick, y_ticks, _HEIGHT - _BOTTOM, _TOP)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/><text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" '
            f'text-anchor="end">{written(tick)}</text>'
        )
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text class="title" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 10}" '
        f'text-anchor="middle">{escape(x_title)}</text>'
    )
    parts.append(
        f'<text class="title" transform="translate(15 {middle}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_title)}</text>'
    )
    return "".join(parts)


def _number(scale: Sequence[float]) -> Callable[[float], str]:
    step = abs(scale[1] - scale[0]) if len(scale) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 0
    return lambda value: f"{value:,.{digits}f}"


def _svg(parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )
