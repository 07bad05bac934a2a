"""Plots as SVG: labelled scatter plots, line plots and singular-value spectra.

Colours and fonts are those of the page: the classes ``s0`` to ``s7`` are the networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

SERIES = 8
"""Number of colours; more networks repeat them."""

_WIDTH, _HEIGHT = 360, 260
_RIGHT, _TOP, _BOTTOM = 14, 14, 42
_LETTER, _LINE = 6.4, 14.0
_LONGEST = 22
"""Most characters of a name that are shown."""

_ROWS = sorted((rows / 2 for rows in range(-10, 11)), key=abs)
"""Allowed vertical distances between a point and its name, in lines of text."""

_MOST_ABOVE = 4
"""Most names of marks above a spectrum."""

_FLOOR = 1e-4
"""Singular values below this part of the largest are drawn at it."""


class Point(NamedTuple):
    """A network in a scatter plot.

    Parameters
    ----------
    name : str
        Label of the point.
    x, y : float
        Finite.
    series : int or None
        Number of the network; None for the original, which has no label.
    spread : tuple of float, optional
        Quartiles of x.
    """

    name: str
    x: float
    y: float
    series: int | None
    spread: tuple[float, float] | None = None


class Line(NamedTuple):
    """A network in a line plot, one value for each position.

    Parameters
    ----------
    name : str
        Label at its end.
    values : sequence of float
        Finite.
    series : int or None
        Number of the network; None for the original.
    """

    name: str
    values: Sequence[float]
    series: int | None


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: _Box) -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)


class _Axis(NamedTuple):
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * part


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers from `low` to `high`.

    Examples
    --------
    >>> ticks(0, 10), ticks(-0.3, 0.04)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [-0.3, -0.25, -0.2, -0.15, -0.1, -0.05, 0.0])
    """
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = min((power * m for m in (1, 2, 5, 10)), key=lambda s: abs(s - span / count))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(k * step, digits) for k in range(first, last + 1)]


def padded(values: Iterable[float], *, part: float = 0.09) -> tuple[float, float]:
    """Return a range with a margin around all values.

    Examples
    --------
    >>> padded([0, 10], part=0.1), padded([2, 2])
    ((-1.0, 11.0), (1.9, 2.1))
    """
    several = list(values)
    low, high = min(several), max(several)
    pad = part * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def scatter(points: Sequence[Point], marks: Mapping[str, float], x_title: str, y_title: str) -> str:
    """Return a scatter plot of labelled points, with a line through the Pareto-optimal ones.

    Parameters
    ----------
    points : sequence of Point
        Lower x and higher y are better.
    marks : mapping of str to float
        Values of y with a horizontal line, by name.
    x_title, y_title : str
        With units.
    """
    spreads = [x for point in points for x in point.spread or ()]
    x_range = padded([*(point.x for point in points), *spreads], part=0.12)
    y_range = padded([*(point.y for point in points), *marks.values()])
    parts, x_axis, y_axis = _frame(x_range, y_range, x_title, y_title)
    places = [(x_axis.at(point.x), y_axis.at(point.y)) for point in points]
    taken = [_Box(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    for point, (_, y) in zip(points, places, strict=True):
        if point.spread is not None:
            first, last = map(x_axis.at, point.spread)
            taken.append(_Box(first, y - 2, last, y + 2))
    for name, value in marks.items():
        parts.append(_across(name, value, x_axis, y_axis, taken))
    best = _pareto_optimal([(point.x, point.y) for point in points if point.series is not None])
    if len(best) > 1:
        parts.append(_polyline("best", [(x_axis.at(x), y_axis.at(y)) for x, y in best]))
    for point, (x, y) in zip(points, places, strict=True):
        if point.spread is not None:
            first, last = map(x_axis.at, point.spread)
            parts.append(_line("spread", _colour(point.series), first, y, last, y))
        parts.append(_dot(_colour(point.series), x, y, point.name))
        if point.series is not None:
            parts.append(_beside(point, x, y, x_axis, taken))
    return _svg(parts, f"{y_title} against {x_title}")


def line_plot(lines: Sequence[Line], positions: Sequence[float], x_title: str, y_title: str) -> str:
    """Return lines with dots at some positions, each with its name at its end.

    Parameters
    ----------
    lines : sequence of Line
        One for each network.
    positions : sequence of float
        Ascending values of x; the same for all lines.
    x_title, y_title : str
        With units.
    """
    longest = max(_width(_short(line.name)) for line in lines)
    x_range = padded(positions, part=0.04)
    y_range = padded(value for line in lines for value in line.values)
    parts, x_axis, y_axis = _frame(
        x_range, y_range, x_title, y_title, positions, right=_RIGHT + longest + 6
    )
    ends = [y_axis.at(line.values[-1]) for line in lines]
    for line, label_y in zip(lines, _spread_out(ends, _TOP + 4, _HEIGHT - _BOTTOM), strict=True):
        colour = _colour(line.series)
        places = [(x_axis.at(x), y_axis.at(y)) for x, y in zip(positions, line.values, strict=True)]
        parts.append(_polyline(f"curve {colour}", places))
        parts += [_dot(colour, x, y, line.name, 3) for x, y in places]
        x, y = places[-1]
        parts.append(_line("leader", colour, x + 4, y, x + 13, label_y))
        parts.append(_text("name", x + 16, label_y + 4, _short(line.name)))
    return _svg(parts, f"{y_title} by {x_title}")


def spectrum(
    values: Sequence[float], marks: Sequence[tuple[str, int, int]], x_title: str, y_title: str
) -> str:
    """Return a descending curve on a logarithmic axis, with marks.

    Parameters
    ----------
    values : sequence of float
        Descending from 1.
    marks : sequence of (str, int, int)
        Text, position (from 1) and colour of each.
    x_title, y_title : str
        With units.
    """
    heights = [math.log10(max(value, _FLOOR)) for value in values]
    bottom = min(-1, math.floor(heights[max(0, math.ceil(0.97 * len(heights)) - 1)]))
    heights = [max(height, bottom) for height in heights]
    above = 8 + _LINE * min(len(marks), _MOST_ABOVE)
    parts, x_axis, y_axis = _frame(
        (0, max(len(values), 2)),
        (bottom, -bottom * above / (_HEIGHT - _TOP - _BOTTOM - above)),
        x_title,
        y_title,
        [tick for tick in ticks(0, max(len(values), 2)) if tick == round(tick)],
        [float(power) for power in range(bottom, 1)],
        lambda power: f"{10**power:g}",
    )
    places = [(x_axis.at(k), y_axis.at(h)) for k, h in enumerate(heights, 1)]
    parts.append(_polyline("curve", places))
    for row, (name, rank, series) in enumerate(sorted(marks, key=lambda m: -m[1])):
        x, y = places[rank - 1]
        parts.append(_line("mark", _colour(series), x, _TOP, x, y_axis.start))
        parts.append(_dot(_colour(series), x, y, name, 4))
        label_y = _TOP + 10 + _LINE * row
        to_the_left = x + _width(name) + 8 > _WIDTH
        anchor, shift = ("end", -6) if to_the_left else ("start", 6)
        parts.append(_text("name", x + shift, label_y, name, anchor))
    return _svg(parts, f"{y_title} by {x_title}")


def _frame(
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_title: str,
    y_title: str,
    x_ticks: Sequence[float] | None = None,
    y_ticks: Sequence[float] | None = None,
    y_text: Callable[[float], str] | None = None,
    right: float = _RIGHT,
) -> tuple[list[str], _Axis, _Axis]:
    """Return the SVG elements of axes with numbers and titles, and the axes."""
    x_ticks = ticks(*x_range) if x_ticks is None else x_ticks
    y_ticks = ticks(*y_range) if y_ticks is None else y_ticks
    x_text, y_text = _number(x_ticks), y_text or _number(y_ticks)
    left = 30 + max((_width(y_text(tick)) for tick in y_ticks), default=0)
    x_axis = _Axis(*x_range, left, _WIDTH - right)
    y_axis = _Axis(*y_range, _HEIGHT - _BOTTOM, _TOP)
    parts = []
    for tick in y_ticks:
        y = y_axis.at(tick)
        parts.append(_line("grid", "", x_axis.start, y, x_axis.end, y))
        parts.append(_text("tick", x_axis.start - 7, y + 4, y_text(tick), "end"))
    parts.append(_line("axis", "", x_axis.start, y_axis.start, x_axis.end, y_axis.start))
    for tick in x_ticks:
        x = x_axis.at(tick)
        parts.append(_line("axis", "", x, y_axis.start, x, y_axis.start + 4))
        parts.append(_text("tick", x, y_axis.start + 16, x_text(tick), "middle"))
    middle = (y_axis.start + y_axis.end) / 2
    parts.append(_text("title", (x_axis.start + x_axis.end) / 2, _HEIGHT - 7, x_title, "middle"))
    parts.append(
        f'<text class="title" transform="translate(12 {middle:.1f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_title)}</text>'
    )
    return parts, x_axis, y_axis


def _across(name: str, value: float, x_axis: _Axis, y_axis: _Axis, taken: list[_Box]) -> str:
    """Draw a horizontal line with its name at one end, above or below."""
    y, shown = y_axis.at(value), _short(name)
    width = _width(shown)
    boxes = [
        _Box(left, y + shift, left + width, y + shift + _LINE)
        for left in (x_axis.end - width, x_axis.start + 4)
        for shift in (-_LINE - 2, 2)
    ]
    box = min(boxes, key=lambda b: sum(map(b.overlap, taken)))
    taken.append(box)
    line = _line("reference", "", x_axis.start, y, x_axis.end, y)
    return line + _text("note", box.left, box.bottom - 3, shown)


def _beside(point: Point, x: float, y: float, x_axis: _Axis, taken: list[_Box]) -> str:
    """Write a name near a point, with the least overlap; if it is far away, with a leader line."""
    shown = _short(point.name)
    width = _width(shown)
    lefts = (x + 9, x - 9 - width, x - width / 2)
    positions = [
        (abs(rows) + side, lefts[side], y + rows * _LINE)
        for rows in _ROWS
        for side in (0, 1, 2)
        if side < 2 or abs(rows) >= 1
    ]

    def cost(position: tuple[float, float, float]) -> float:
        distance, left, middle = position
        box = _around(left, middle, width)
        outside = max(0.0, x_axis.start - box.left) + max(0.0, box.right - _WIDTH)
        below = max(0.0, box.bottom - (_HEIGHT - _BOTTOM)) + max(0.0, -box.top)
        return distance + sum(map(box.overlap, taken)) + 50 * (outside + below)

    _, left, middle = min(positions, key=cost)
    box = _around(left, middle, width)
    taken.append(box)
    label = _text("name", left, box.bottom - 3, shown)
    if abs(middle - y) < 1.8 * _LINE:
        return label
    end = min(max(x, left), left + width)
    near = box.bottom if middle < y else box.top
    return _line("leader", _colour(point.series), x, y, end, near) + label


def _around(left: float, middle: float, width: float) -> _Box:
    return _Box(left, middle - _LINE / 2, left + width, middle + _LINE / 2)


def _spread_out(positions: Sequence[float], low: float, high: float) -> list[float]:
    """Move positions from `low` to `high` so that a line of text fits between any two.

    Moving them down from the first, or up from the last, gives enough room, and so does the mean.
    """
    order = sorted(range(len(positions)), key=lambda k: positions[k])
    room = min(_LINE - 1, (high - low) / max(len(positions) - 1, 1))
    down, up = list(positions), list(positions)
    for before, after in pairwise(order):
        down[after] = max(down[after], down[before] + room)
    for after, before in pairwise(reversed(order)):
        up[before] = min(up[before], up[after] - room)
    moved = [(lower + upper) / 2 for lower, upper in zip(down, up, strict=True)]
    first = min(moved, default=low)
    last = max(moved, default=high)
    shift = max(low - first, 0) - max(last - high, 0)
    return [position + shift for position in moved]


def _pareto_optimal(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points for which no other has lower x and higher y, from left to right."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best


def _number(scale: Sequence[float]) -> Callable[[float], str]:
    """Return the format of the numbers of an axis, with as many digits as their step needs."""
    steps = [abs(b - a) for a, b in pairwise(scale) if b != a]
    digits = max(0, -math.floor(math.log10(min(steps)) + 1e-9)) if steps else 0
    return lambda value: f"{value:,.{digits}f}"


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _width(text: str) -> float:
    return sum(_LETTER if ord(letter) < 0x2E80 else 2 * _LETTER for letter in text)


def _colour(series: int | None) -> str:
    return "original" if series is None else f"s{series % SERIES}"


def _polyline(kind: str, places: Iterable[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline class="{kind}" points="{path}"/>'


def _line(kind: str, colour: str, x1: float, y1: float, x2: float, y2: float) -> str:
    drawn = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line class="{f"{kind} {colour}".strip()}" {drawn}/>'


def _dot(colour: str, x: float, y: float, name: str, radius: float = 5) -> str:
    title = f"<title>{escape(name)}</title>"
    return f'<circle class="dot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{title}</circle>'


def _text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(text)}</text>'


def _svg(parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )
