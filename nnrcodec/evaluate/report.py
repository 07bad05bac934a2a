"""The report: one HTML page that holds everything it shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path

from nnrcodec.errors import ConfigError
from nnrcodec.evaluate.evaluation import Evaluation, NetworkResult
from nnrcodec.evaluate.plots import curves, scatter
from nnrcodec.formats import write_atomically

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6675; --line: #dde2e8;
  --paper: #fbfbfa; --card: #fff; --blue: #0b62a8; --orange: #c4590a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa5b4; --line: #313945;
  --paper: #14181e; --card: #1b2028; --blue: #66b2ee; --orange: #f0995a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 48px 24px 72px; }
h1 { font-size: 30px; line-height: 1.25; margin: 0 0 8px; max-width: 26em; }
h2 { font-size: 19px; margin: 44px 0 12px; }
p { max-width: 46em; } .soft { color: var(--soft); font-size: 14px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 15px; }
th, td { padding: 7px 14px; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; } th { color: var(--soft); font-weight: 600; font-size: 13px; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.reference td { color: var(--soft); }
.plots { display: grid; gap: 20px; grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)); }
figure { margin: 0; padding: 16px; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; } figcaption { font-size: 14px; font-weight: 600; margin-bottom: 6px; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft);
  font: 12px system-ui, sans-serif; } svg text.name { fill: var(--ink); font-size: 12.5px; }
.grid { stroke: var(--line); } .curve { fill: none; stroke: var(--blue); stroke-width: 1.8; }
.mark { stroke: var(--orange); stroke-dasharray: 3 4; } .dot { fill: var(--blue); }
.dot.reference { fill: var(--orange); }
.bar { display: inline-block; height: 11px; border-radius: 2px; background: var(--blue);
  vertical-align: middle; }
"""


def write_report(evaluation: Evaluation, folder: str | Path) -> Path:
    """Write a page with tables and plots of an evaluation.

    Parameters
    ----------
    evaluation : Evaluation
        What to show.
    folder : str or Path
        Made if it is not there.

    Returns
    -------
    Path
        Of the page, ``index.html``. It refers to nothing outside itself.

    Raises
    ------
    ConfigError
        If the folder cannot be made.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from error
    page = folder / "index.html"
    write_atomically(page, "".join(_page(evaluation)).encode())
    return page


def headline(evaluation: Evaluation) -> str:
    """Return what came out, in a sentence: of the smallest stream."""
    best = min(evaluation.networks[1:], key=lambda network: network.coded_bytes)
    said = [f"{best.label}: {100 * best.ratio:.1f} % of the size"]
    if best.run_seconds and evaluation.original.run_seconds:
        said.append(f"{100 * best.run_seconds / evaluation.original.run_seconds:.0f} % run time")
    change = score_change(evaluation, best)
    if change is not None:
        said.append(change)
    return ", ".join(said)


def score_change(evaluation: Evaluation, network: NetworkResult) -> str | None:
    """Return by how much a score differs from that of the original."""
    first, score = evaluation.original.score, network.score
    if first is None or score is None or not math.isfinite(score.value):
        return None
    if not math.isfinite(first.value):  # agreement of the original with itself
        return f"{score.value:.2f} {score.unit}"
    return f"{score.value - first.value:+.3f} {score.unit}"


def columns(evaluation: Evaluation) -> list[tuple[str, Callable[[NetworkResult], str]]]:
    """Return headings and cells of the table of networks, of what was measured."""
    first = evaluation.original
    score = first.score
    every: list[tuple[str, Callable[[NetworkResult], str], bool]] = [
        ("network", lambda n: n.label, True),
        ("parameters", lambda n: f"{n.parameters:,}", True),
        ("bytes", lambda n: f"{n.coded_bytes:,}", True),
        ("of original", lambda n: f"{100 * n.ratio:.2f} %", True),
        (f"{evaluation.task}", lambda n: _score(n), score is not None),
        (
            "change",
            lambda n: (n is not first and score_change(evaluation, n)) or "",
            score is not None,
        ),
        ("run", lambda n: _seconds(n.run_seconds), first.run_seconds is not None),
        (
            "of original",
            lambda n: _part(n.run_seconds, first.run_seconds),
            first.run_seconds is not None,
        ),
        ("encode", lambda n: _seconds(n.encode_seconds), first.encode_seconds is not None),
        ("decode", lambda n: _seconds(n.decode_seconds), True),
        ("memory, run", lambda n: _megabytes(n.run_memory), first.run_memory is not None),
        ("decode", lambda n: _megabytes(n.decode_memory), first.run_memory is not None),
    ]
    return [(title, cell) for title, cell, there in every if there]


def _page(evaluation: Evaluation) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Coded networks</title><style>{_STYLE}</style></head><body><main>"
    yield f"<h1>{escape(headline(evaluation))}</h1>"
    yield f'<p class="soft">{escape(conditions(evaluation))}</p>'
    yield "<h2>All networks</h2>" + _networks_table(evaluation)
    plots = list(_plots(evaluation))
    if plots:
        yield f'<h2>What it costs</h2><div class="plots">{"".join(plots)}</div>'
    yield from _parts_table(evaluation)
    yield from _layers_table(evaluation)
    if evaluation.spectra:
        yield "<h2>Singular values of the layers of low rank</h2>"
        yield "<p>How fast they fall, as parts of the first, and which rank was chosen.</p>"
        yield f'<div class="plots">{"".join(_spectra(evaluation))}</div>'
    yield "</main></body></html>"


def conditions(evaluation: Evaluation) -> str:
    """Return how all was measured."""
    said = [evaluation.machine]
    if evaluation.input_shape:
        shape = " x ".join(map(str, evaluation.input_shape))
        threads = f"{evaluation.threads} thread{'s' if evaluation.threads > 1 else ''}"
        said.append(
            f"run time on an input of {shape}, {threads}, channels last, networks in turn, "
            f"median of {evaluation.rounds} rounds after one to warm up"
        )
    if evaluation.original.run_memory is not None:
        said.append("memory: growth of the peak of a fresh process")
    if evaluation.original.encode_seconds is not None:
        said.append("encoding: the original with default options")
    return "; ".join(said) + "."


def _networks_table(evaluation: Evaluation) -> str:
    shown = columns(evaluation)
    head = "".join(f"<th>{escape(title)}</th>" for title, _ in shown)
    rows = "".join(
        f"<tr{'' if number else ' class=reference'}>"
        + "".join(f"<td>{escape(cell(network))}</td>" for _, cell in shown)
        + "</tr>"
        for number, network in enumerate(evaluation.networks)
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _plots(evaluation: Evaluation) -> Iterator[str]:
    scored = [n for n in evaluation.networks if n.score and math.isfinite(n.score.value)]
    if len(scored) < 2 or evaluation.original.score is None:
        return
    unit = f"{evaluation.task}, {evaluation.original.score.unit}"
    sized = [(n.label, n.coded_bytes / 1000, n.score.value) for n in scored if n.score]
    if len(sized) > 2:
        sized = sized[1:]  # the original is far away, and would press the others together
    yield _figure("Quality by size", scatter(sized, "size, kB", unit, reference=len(sized) == 2))
    timed = [
        (n.label, 100 * n.run_seconds / evaluation.original.run_seconds, n.score.value)
        for n in scored
        if n.score and n.run_seconds and evaluation.original.run_seconds
    ]
    if len(timed) > 1:
        yield _figure(
            "Quality by run time", scatter(timed, "run time, % of the original", unit, line=False)
        )


def _parts_table(evaluation: Evaluation) -> Iterator[str]:
    first = evaluation.original.score
    if first is None or not first.parts:
        return
    names = "".join(f"<th>{escape(part)}</th>" for part in first.parts)
    rows = "".join(
        f"<tr><td>{escape(n.label)}</td>"
        + "".join(f"<td>{n.score.parts[part]:.3f}</td>" for part in first.parts)
        + "</tr>"
        for n in evaluation.networks
        if n.score
    )
    yield f"<h2>{escape(evaluation.task or '')} in parts, {escape(first.unit)}</h2>"
    yield f'<div class="scroll"><table><tr><th>network</th>{names}</tr>{rows}</table></div>'


def _layers_table(evaluation: Evaluation) -> Iterator[str]:
    coded = evaluation.networks[1:]
    layers = list(dict.fromkeys(layer for n in coded for layer in n.layer_bytes))
    largest = max((b for n in coded for b in n.layer_bytes.values()), default=1)
    yield '<h2>Bytes by layer</h2><div class="scroll"><table><tr><th>layer</th>'
    yield "".join(f"<th>{escape(n.label)}</th>" for n in coded) + "</tr>"
    for layer in layers:
        yield f"<tr><td>{escape(layer)}</td>"
        for network in coded:
            size = network.layer_bytes.get(layer)
            bar = f'<span class="bar" style="width:{60 * (size or 0) / largest:.0f}px"></span>'
            yield f"<td>{f'{size:,} {bar}' if size is not None else ''}</td>"
        yield "</tr>"
    yield "</table></div>"


def _spectra(evaluation: Evaluation) -> Iterator[str]:
    for spectrum in evaluation.spectra:
        yield _figure(
            f"{spectrum.layer}, {spectrum.scheme}",
            curves(spectrum.values, spectrum.ranks, "number", "singular value"),
        )


def _figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def _score(network: NetworkResult) -> str:
    if network.score is None:
        return ""
    value = network.score.value
    return f"{value:.3f} {network.score.unit}" if math.isfinite(value) else "equal"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f} s"


def _part(value: float | None, whole: float | None) -> str:
    return f"{100 * value / whole:.1f} %" if value and whole else ""


def _megabytes(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:.1f} MB"
