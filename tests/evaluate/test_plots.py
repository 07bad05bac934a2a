import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from nnrcodec.evaluate.plots import Line, Point, line_plot, padded, scatter, spectrum, ticks


def parsed(svg):
    return ElementTree.fromstring(svg)  # noqa: S314 (our own)


def shown(svg, kind):
    """Return the texts of a kind, with their places."""
    return {
        element.text: (float(element.get("x")), float(element.get("y")))
        for element in parsed(svg).iter("text")
        if element.get("class") == kind and element.get("x")
    }


def dots(svg):
    return [
        (float(dot.get("cx")), float(dot.get("cy")), dot.get("class").removeprefix("dot "))
        for dot in parsed(svg).iter("circle")
    ]


def inside(svg):
    """Return whether all there is lies in the picture."""
    width, height = map(float, parsed(svg).get("viewBox").split()[2:])
    numbers = {
        "x": [float(v) for v in re.findall(r'\b(?:x|cx|x1|x2)="([^"]*)"', svg)],
        "y": [float(v) for v in re.findall(r'\b(?:y|cy|y1|y2)="([^"]*)"', svg)],
    }
    return all(0 <= x <= width for x in numbers["x"]) and all(
        0 <= y <= height for y in numbers["y"]
    )


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.3, 0.92, [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        (-1.1, 1.1, [-1, -0.5, 0, 0.5, 1]),
        (34.81, 35.92, [35, 35.2, 35.4, 35.6, 35.8]),
        (46_000, 129_000, [60_000, 80_000, 100_000, 120_000]),
    ],
)
def test_ticks_are_round_and_inside(low, high, expected):
    assert ticks(low, high) == expected


@pytest.mark.parametrize("span", [1e-9, 3e-4, 0.07, 1, 12, 999, 5e7])
@pytest.mark.parametrize("low", [-3.7, 0, 123.4])
def test_ticks_are_evenly_spaced_and_neither_few_nor_many(low, span):
    shown = ticks(low, low + span)
    steps = [b - a for a, b in pairwise(shown)]
    assert 3 <= len(shown) <= 9
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)
    assert low - 1e-12 <= shown[0]
    assert shown[-1] <= low + span + 1e-6 * span


def test_a_range_has_room_and_is_never_empty():
    assert padded([1, 3], part=0.5) == (0, 4)
    for value in (0, 7, -2):
        low, high = padded([value, value])
        assert low < value < high


POINTS = [
    Point("small", 40, 35.2, 0),
    Point("good", 50, 35.7, 1),
    Point("bad", 60, 35.1, 2),
    Point("large", 90, 35.8, 3),
    Point("original", 100, 35.8, None, (95, 110)),
]


def test_a_scatter_plot_has_its_points_where_they_belong():
    svg = scatter(POINTS, {"original": 35.8, "none": 35.3}, "kB", "dB")
    drawn = dots(svg)
    assert [kind for *_, kind in drawn] == ["s0", "s1", "s2", "s3", "original"]
    xs, ys = [x for x, _, _ in drawn], [y for _, y, _ in drawn]
    for k in range(5):
        assert xs[k] - xs[0] == pytest.approx((xs[4] - xs[0]) * (POINTS[k].x - 40) / 60, abs=0.11)
        wanted = (ys[3] - ys[0]) * (POINTS[k].y - 35.2) / 0.6
        assert ys[k] - ys[0] == pytest.approx(wanted, abs=0.11)
    assert ys[3] < ys[0]
    assert shown(svg, "name").keys() == {"small", "good", "bad", "large"}
    assert shown(svg, "note").keys() == {"original", "none"}
    assert inside(svg)


def test_a_line_joins_the_points_that_none_beats():
    svg = scatter(POINTS, {}, "kB", "dB")
    (line,) = parsed(svg).iter("polyline")
    x, y = {}, {}
    for point, (cx, cy, _) in zip(POINTS, dots(svg), strict=True):
        x[point.name], y[point.name] = cx, cy
    expected = [f"{x[name]:.1f},{y[name]:.1f}" for name in ("small", "good", "large")]
    assert line.get("points").split() == expected


def test_names_do_not_cover_one_another():
    points = [Point(f"name {k}", 50 + k % 2, 35 + 0.01 * k, k) for k in range(6)]
    points.append(Point("far", 90, 36, 9))
    svg = scatter(points, {"original": 35.9}, "kB", "dB")
    places = list(shown(svg, "name").values())
    assert len(places) == 7
    for k, (x, y) in enumerate(places):
        for other_x, other_y in places[k + 1 :]:
            assert abs(x - other_x) > 34 or abs(y - other_y) > 9
    assert inside(svg)


def test_one_point_alone_has_axes():
    svg = scatter([Point("a", 0, 0, 0)], {}, "kB", "dB")
    assert len(shown(svg, "tick")) >= 4
    assert inside(svg)


def test_lines_have_a_dot_at_each_position_and_their_name_at_the_end():
    lines = [
        Line("a", [0.1, 0.2, 0.15], 0),
        Line("b", [0.1, 0.21, 0.15], 9),
        Line("x", [0] * 3, None),
    ]
    svg = line_plot(lines, [22, 27, 37], "QP", "gain, dB")
    assert [kind for *_, kind in dots(svg)] == ["s0"] * 3 + ["s1"] * 3 + ["original"] * 3
    names = shown(svg, "name")
    assert names.keys() == {"a", "b", "x"}
    assert abs(names["a"][1] - names["b"][1]) >= 12.9
    ends = {x for x, _, _ in dots(svg)}
    assert all(x > max(ends) for x, _ in names.values())
    assert {"22", "27", "37"} <= shown(svg, "tick").keys()
    assert inside(svg)


def test_many_lines_that_end_together_keep_their_names_apart_and_inside():
    lines = [Line(f"n{k}", [0, 0.01 * k], k) for k in range(16)]
    svg = line_plot(lines, [22, 37], "QP", "dB")
    heights = sorted(y for _, y in shown(svg, "name").values())
    assert min(b - a for a, b in pairwise(heights)) > 12
    assert inside(svg)


def test_a_spectrum_falls_and_has_its_ranks_marked():
    values = [10 ** (-k / 8) for k in range(17)]
    svg = spectrum(values, [("a: 5", 5, 0), ("b: 17", 17, 1)], "rank", "singular value")
    (curve,) = parsed(svg).iter("polyline")
    places = [tuple(map(float, place.split(","))) for place in curve.get("points").split()]
    assert len(places) == 17
    assert all(b[0] > a[0] and b[1] > a[1] for a, b in pairwise(places))
    drop = places[16][1] - places[0][1]
    assert places[8][1] - places[0][1] == pytest.approx(drop / 2, abs=0.11)  # logarithmic
    assert {(x, y) for x, y, _ in dots(svg)} == {places[4], places[16]}
    assert shown(svg, "name").keys() == {"a: 5", "b: 17"}
    assert {"1", "0.1", "0.01", "0", "8", "16"} <= shown(svg, "tick").keys()
    assert inside(svg)


def test_singular_values_of_nothing_lie_on_the_floor():
    svg = spectrum([1.0, 0.5, 0.0], [("a: 1", 1, 0)], "rank", "singular value")
    assert inside(svg)
    assert not re.search("nan|inf", svg)
    assert inside(spectrum([0.0, 0.0], [], "rank", "singular value"))
    assert inside(spectrum([1.0], [("a: 1", 1, 0)], "rank", "singular value"))


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", '"><b a="', "&amp;", "a" * 80, "网络" * 30]
)
def test_names_are_only_text(name):
    for svg in (
        scatter([Point(name, 1, 1, 0), Point("b", 2, 2, 1)], {name: 1.5}, name, name),
        line_plot([Line(name, [1, 2], 0)], [1, 2], name, name),
        spectrum([1, 0.5], [(name, 1, 0)], name, name),
    ):
        root = parsed(svg)
        kinds = {element.tag for element in root.iter()}
        assert kinds <= {"svg", "text", "line", "polyline", "circle", "title"}
        assert name in [element.text for element in root.iter("title")]
        assert any((element.text or "").startswith(name[:20]) for element in root.iter("text"))
