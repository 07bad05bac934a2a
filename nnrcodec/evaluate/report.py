"""The report: one self-contained HTML page."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from nnrcodec.errors import ConfigError
from nnrcodec.evaluate.evaluation import Evaluation, NetworkResult, Spectrum
from nnrcodec.evaluate.plots import SERIES, Line, Point, line_plot, scatter, spectrum
from nnrcodec.evaluate.tables import (
    WITHOUT,
    Column,
    Grid,
    conditions,
    cost_columns,
    group_grids,
    headline,
    size_columns,
    titled,
)
from nnrcodec.formats import write_atomically

_COLOURS = (
    ("#0b62a8", "#62b0f0"),
    ("#c2540a", "#f09a58"),
    ("#1b7f4b", "#5fca8f"),
    ("#8a3ab0", "#c58be6"),
    ("#b3243a", "#f2808f"),
    ("#0a7d8c", "#55c6d4"),
    ("#7a6a00", "#d2bf4a"),
    ("#5a5f6b", "#a9b1be"),
)
"""Colours of the networks in the light and in the dark theme."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #566172; --line: #dfe3e8;
  --paper: #fbfbfa; --card: #fff; LIGHT }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #a1acba; --line: #333c48;
  --paper: #14181e; --card: #1b2028; DARK } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 44px 24px 72px; }
h1 { font-size: 28px; line-height: 1.25; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 42px 0 10px; }
p { max-width: 52em; margin: 0 0 12px; overflow-wrap: anywhere; }
.lead { font-size: 18px; } .soft, dd, li { color: var(--soft); font-size: 14px; }
ul { padding-left: 18px; max-width: 62em; } li { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin-bottom: 12px; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums;
  font-size: 15px; }
caption { text-align: left; color: var(--soft); font-size: 14px; padding-bottom: 4px; }
th, td { padding: 6px 14px; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; font-size: 13px; vertical-align: bottom; }
thead th.label { white-space: normal; overflow-wrap: anywhere; min-width: 9em; max-width: 13em; }
th:first-child { text-align: left; padding-left: 0; font-weight: 500; position: sticky; left: 0;
  background: var(--paper); background-clip: padding-box; max-width: 22em;
  overflow: hidden; text-overflow: ellipsis; }
thead th:first-child { font-weight: 600; }
tr.reference td, tr.reference th { color: var(--soft); }
tr.sum td, tr.sum th { font-weight: 600; border-bottom: 0; }
td.barred { min-width: 108px; }
.bar { display: block; height: 3px; margin: 2px 0 0 auto; border-radius: 2px; }
.key { display: inline-block; min-width: 18px; height: 18px; border-radius: 9px; padding: 0 4px;
  margin-right: 8px; vertical-align: 1px; text-align: center;
  font: 600 11px/18px system-ui, sans-serif; color: var(--paper); }
.key.original { background: var(--soft); }
small { color: var(--soft); font-size: 12px; margin-left: 6px; }
.plots { display: grid; gap: 18px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); }
.side { display: flex; flex-wrap: wrap; column-gap: 40px; } .side .scroll { min-width: 0; }
.side th, .side td { padding-left: 10px; padding-right: 10px; }
.side th:first-child { padding-left: 0; }
figure { margin: 0; padding: 14px 16px 10px; background: var(--card); border-radius: 8px;
  border: 1px solid var(--line); min-width: 0; }
figcaption { font-size: 14px; font-weight: 600; margin-bottom: 6px; overflow-wrap: anywhere; }
summary { cursor: pointer; margin: 4px 0 10px; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font: 11.5px system-ui, -apple-system, "Segoe UI", sans-serif; }
svg text.name { fill: var(--ink); } svg .name, svg .note { paint-order: stroke; stroke-width: 4px;
  stroke: var(--card); stroke-linejoin: round; }
.grid, .axis { stroke: var(--line); } .axis { stroke: var(--soft); stroke-opacity: .55; }
.reference { stroke: var(--soft); stroke-dasharray: 5 4; }
.curve, .best { fill: none; stroke: var(--soft); stroke-width: 1.6; } .best { stroke-width: 1;
  stroke-opacity: .6; } .mark { stroke-dasharray: 3 3; } .leader { stroke-opacity: .5; }
.spread { stroke-width: 2.5; stroke-opacity: .45; } .dot.original { fill: var(--soft); }
.spread.original, .curve.original { stroke: var(--soft); }
@media (max-width: 600px) { main { padding: 26px 16px 48px; } h1 { font-size: 23px; }
  .lead { font-size: 16px; } th, td { padding: 6px 9px; } table { font-size: 14px; }
  figure { padding: 12px 10px 8px; } th:first-child { max-width: 9em; } }
@media print { .scroll { overflow: visible; } figure { break-inside: avoid; } }
"""

_MOST_ROWS, _MOST_COLUMNS = 40, 12
"""Largest table that is not collapsed."""

_LONGEST_IN_PLOTS = 10


def write_report(evaluation: Evaluation, folder: str | Path) -> Path:
    """Write a page with tables and plots of an evaluation.

    Parameters
    ----------
    evaluation : Evaluation
        The measurements.
    folder : str or Path
        Created if it does not exist.

    Returns
    -------
    Path
        Path of the page, ``index.html``. It refers to no other files.

    Raises
    ------
    ConfigError
        If the page cannot be written.
    """
    folder = Path(folder)
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from error
    page = folder / "index.html"
    content = "".join(_page(evaluation))
    write_atomically(page, content.encode(errors="backslashreplace"))
    return page


def check_folder(folder: Path) -> None:
    """Raise, before a long evaluation, if a folder cannot be created or written to."""
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from error
    if not existing.is_dir():
        raise ConfigError(f"cannot write a report to {folder}: {existing} is not a folder")
    if not os.access(existing, os.W_OK):
        raise ConfigError(f"cannot write a report to {folder}: {existing} is write-protected")


def _page(evaluation: Evaluation) -> Iterator[str]:
    title = escape(f"{evaluation.name}, coded")
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}</title><style>{_style()}</style></head><body><main>"
    yield f"<h1>{title}</h1>"
    yield f'<p class="lead">{escape(headline(evaluation))}.</p>'
    yield "<h2>Size and quality</h2>" if evaluation.task else "<h2>Size</h2>"
    yield _networks_table(evaluation, size_columns(evaluation))
    plots = list(_quality_plots(evaluation))
    if plots:
        yield f'<div class="plots">{"".join(plots)}</div>'
    yield "<h2>Run time and memory</h2>"
    yield _networks_table(evaluation, cost_columns(evaluation))
    yield from _groups(evaluation)
    yield from _layers(evaluation)
    yield from _spectra(evaluation)
    yield "<h2>How this was measured</h2><ul>"
    yield from (f"<li>{escape(_sentence(text))}</li>" for text in conditions(evaluation))
    yield "</ul></main></body></html>"


def _style() -> str:
    light, dark = (
        " ".join(f"--s{k}: {pair[paper]};" for k, pair in enumerate(_COLOURS)) for paper in (0, 1)
    )
    classes = "".join(
        f".dot.s{k} {{ fill: var(--s{k}); }} .bar.s{k}, .key.s{k} {{ background: var(--s{k}); }} "
        f"line.s{k}, .curve.s{k} {{ stroke: var(--s{k}); }}\n"
        for k in range(SERIES)
    )
    return _STYLE.replace("LIGHT", light).replace("DARK", dark) + classes


def _networks_table(evaluation: Evaluation, columns: Sequence[Column]) -> str:
    (_, name), *other_columns = columns
    rows = [
        _row(
            _key(None if network is evaluation.original else number - 1) + escape(name(network)),
            [escape(column.cell(network)) for column in other_columns],
            "" if number else "reference",
        )
        for number, network in enumerate(evaluation.networks)
    ]
    return _table(_headings([column.title for column in columns]), rows)


def _quality_plots(evaluation: Evaluation) -> Iterator[str]:
    first = evaluation.original.score
    coded = [
        (number, network, network.score.value)
        for number, network in enumerate(evaluation.coded)
        if network.score is not None and math.isfinite(network.score.value)
    ]
    if first is None or len(coded) < 2:
        return
    names = _short_names(evaluation)
    y_title = titled(evaluation.task or "", first.unit)
    values = [value for *_, value in coded]
    size = f"original, {evaluation.original.fp32_bytes / 1000:,.0f} kB"
    marks = _reference_lines(evaluation, values, size)
    sizes = [
        Point(names[number], (network.coded_bytes or 0) / 1000, value, number)
        for number, network, value in coded
    ]
    yield _figure("Quality by size", scatter(sizes, marks, "coded size, kB", y_title))
    original = evaluation.original.run_seconds
    if original is not None:
        points = [
            Point(
                names[number],
                100 * seconds.median / original.median,
                value,
                number,
                _parts_of(seconds.quartiles, original.median),
            )
            for number, network, value in coded
            if (seconds := network.run_seconds) is not None
        ]
        if math.isfinite(first.value):
            spread = _parts_of(original.quartiles, original.median)
            points.append(Point("original", 100.0, first.value, None, spread))
        marks = _reference_lines(evaluation, values, "original")
        yield _figure(
            "Quality by run time, with quartiles",
            scatter(points, marks, "run time, % of the original", y_title),
        )
    yield from _part_plots(evaluation)


def _parts_of(quartiles: tuple[float, float], whole: float) -> tuple[float, float]:
    return 100 * quartiles[0] / whole, 100 * quartiles[1] / whole


def _reference_lines(
    evaluation: Evaluation, values: Sequence[float], original: str
) -> dict[str, float]:
    """Return scores to compare with, without a baseline so far away that it hides the rest."""
    first, baseline = evaluation.original.score, evaluation.baseline
    lines = {}
    if first is not None and math.isfinite(first.value):
        lines[original] = first.value
    if baseline is not None and math.isfinite(baseline.value):
        shown = [*values, *lines.values()]
        if max(*shown, baseline.value) - min(*shown, baseline.value) <= 3 * (
            max(shown) - min(shown)
        ):
            lines[WITHOUT] = baseline.value
    return lines


def _part_plots(evaluation: Evaluation) -> Iterator[str]:
    """Plot the gain in each part of the data, if parts have numbers such as a QP."""
    first = evaluation.baseline or evaluation.original.score
    names = ["original", *_short_names(evaluation)]
    numbers = [None, *range(len(evaluation.coded))]
    for group, parts in first.groups.items() if first is not None else ():
        if len(parts) < 2 or not all(part.isdecimal() for part in parts):
            continue
        lines = [
            Line(name, [n.score.groups[group][part] - parts[part] for part in parts], series)
            for name, series, n in zip(names, numbers, evaluation.networks, strict=True)
            if n.score is not None
        ]
        lines = [line for line in lines if all(map(math.isfinite, line.values))]
        caption = f"Gain over {WITHOUT}" if evaluation.baseline else "Change to the original"
        unit = titled("gain" if evaluation.baseline else "change", first.unit if first else "")
        if lines:
            yield _figure(
                f"{caption}, by {group}", line_plot(lines, [float(p) for p in parts], group, unit)
            )


def _groups(evaluation: Evaluation) -> Iterator[str]:
    grids = list(group_grids(evaluation))
    first = evaluation.original.score
    if not grids or first is None:
        return
    yield f"<h2>{escape(titled(evaluation.task or '', first.unit))}</h2>"
    narrow = [_few_parts(grid) for grid in grids if len(grid.columns) <= _MOST_COLUMNS]
    yield f'<div class="side">{"".join(narrow)}</div>'
    yield from (_many_parts(grid) for grid in grids if len(grid.columns) > _MOST_COLUMNS)


def _few_parts(grid: Grid) -> str:
    """Return a table with a row for each network."""
    before = sum(name == WITHOUT for name, _ in grid.rows[:1])
    rows = []
    for position, (name, cells) in enumerate(grid.rows):
        number = position - before - 1  # the original is before those of the streams
        key = "" if number < -1 else _key(None if number < 0 else number)
        kind = "" if number >= 0 else "reference"
        rows.append(_row(key + escape(name), map(escape, cells), kind))
    return _table(_headings(["network", *grid.columns]), rows, f"by {grid.title}")


def _many_parts(grid: Grid) -> str:
    """Return a collapsed table with a row for each part."""
    rows = [
        _row(escape(part), (escape(cells[k]) for _, cells in grid.rows))
        for k, part in enumerate(grid.columns)
    ]
    table = _table(_headings([grid.title, *(name for name, _ in grid.rows)]), rows)
    return f"<details><summary>by {escape(grid.title)}</summary>{table}</details>"


def _layers(evaluation: Evaluation) -> Iterator[str]:
    layers = list(dict.fromkeys(layer for n in evaluation.networks for layer in n.layer_bytes))
    sizes = [size for n in evaluation.coded for size in (*n.layer_bytes.values(), n.other_bytes)]
    largest = max(sizes, default=1)

    def cell(number: int, network: NetworkResult, size: int | None, layer: str = "") -> str:
        if size is None:
            return ""
        rank = f"<small>R {network.ranks[layer]}</small>" if layer in network.ranks else ""
        width = f"{80 * size / max(largest, 1):.0f}px"
        return f'{size:,}{rank}<span class="bar s{number % SERIES}" style="width:{width}"></span>'

    rows = []
    for layer in layers:
        fp32 = evaluation.original.layer_bytes.get(layer)
        cells = [
            cell(k, n, n.layer_bytes.get(layer), layer) for k, n in enumerate(evaluation.coded)
        ]
        rows.append(_row(escape(layer), ["" if fp32 is None else f"{fp32:,}", *cells]))
    other = [cell(k, n, n.other_bytes) for k, n in enumerate(evaluation.coded)]
    rows.append(_row("graph, headers", ["", *other]))
    total = [f"{n.coded_bytes:,}" for n in evaluation.coded]
    rows.append(_row("together", [f"{evaluation.original.fp32_bytes:,}", *total], "sum"))
    head = _headings(["layer", "original, fp32"])
    head += "".join(_heading(k, n.label) for k, n in enumerate(evaluation.coded))
    yield "<h2>Bytes by layer</h2>"
    if any(n.ranks for n in evaluation.coded):
        yield '<p class="soft">R: rank of a low-rank layer.</p>'
    table = _table(head, rows)
    collapsed = f"<details><summary>{len(rows)} rows</summary>{table}</details>"
    yield collapsed if len(rows) > _MOST_ROWS else table


def _spectra(evaluation: Evaluation) -> Iterator[str]:
    if not evaluation.spectra:
        return
    yield "<h2>Singular values of the low-rank layers</h2>"
    yield (
        '<p class="soft">Of the original, relative to the largest; with the selected ranks, and '
        "the part of the energy (the sum of squares) that they keep.</p>"
    )
    names = {
        n.label: name for n, name in zip(evaluation.coded, _short_names(evaluation), strict=True)
    }
    figures = (
        _figure(
            f"{layer.layer}, {layer.scheme}, {len(layer.values)} values",
            spectrum(layer.values, _rank_marks(layer, names), "rank", "singular value"),
        )
        for layer in evaluation.spectra
    )
    yield f'<div class="plots">{"".join(figures)}</div>'


def _rank_marks(layer: Spectrum, names: Mapping[str, str]) -> list[tuple[str, int, int]]:
    """Return a mark for each rank, with the streams that have it."""
    streams: dict[int, list[str]] = {}
    for label, rank in layer.ranks.items():
        streams.setdefault(rank, []).append(label)
    return [
        (
            f"{_listed([names[label] for label in labels])}: {rank} "
            f"({100 * layer.energy(rank):.1f} %)",
            rank,
            list(names).index(labels[0]),
        )
        for rank, labels in streams.items()
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} more"


def _short_names(evaluation: Evaluation) -> list[str]:
    """Return the names of streams in plots: their labels, or their numbers if labels are long."""
    names = [network.label for network in evaluation.coded]
    if all(len(name) <= _LONGEST_IN_PLOTS for name in names):
        return names
    return [str(number) for number in range(1, len(names) + 1)]


def _key(series: int | None) -> str:
    """Return the number of a network in its colour."""
    colour = "original" if series is None else f"s{series % SERIES}"
    return f'<span class="key {colour}">{"&nbsp;" if series is None else series + 1}</span>'


def _heading(series: int, label: str) -> str:
    return f'<th scope="col" class="label">{_key(series)}{escape(label)}</th>'


def _headings(titles: Sequence[str]) -> str:
    return "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)


def _table(headings: str, rows: Sequence[str], caption: str = "") -> str:
    """Return a table; headings and rows are HTML."""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{title}<thead><tr>{headings}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(name: str, cells: Sequence[str] | Iterator[str], kind: str = "") -> str:
    """Return a row; name and cells are HTML."""
    written = "".join(f"<td>{cell}</td>" for cell in cells)
    attribute = f' class="{kind}"' if kind else ""
    return f'<tr{attribute}><th scope="row">{name}</th>{written}</tr>'


def _figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
