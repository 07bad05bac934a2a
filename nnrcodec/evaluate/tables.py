"""Tables and sentences of an evaluation, for a terminal and for a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from nnrcodec.evaluate.evaluation import Evaluation, NetworkResult
from nnrcodec.evaluate.measure import Seconds
from nnrcodec.evaluate.tasks import Score


class Column(NamedTuple):
    """A column of a table of networks.

    Parameters
    ----------
    title : str
        Heading, with the unit if all cells have the same.
    cell : callable
        Returns the text of the cell of a network; empty if there is no value.
    """

    title: str
    cell: Callable[[NetworkResult], str]


class Grid(NamedTuple):
    """A table of numbers with headings.

    Parameters
    ----------
    title : str
        Name of the grouping criterion of the columns.
    columns : list of str
        Headings of the columns.
    rows : list of (str, list of str)
        Name and cells of each row.
    """

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


def size_columns(evaluation: Evaluation) -> list[Column]:
    """Return size and quality of each network."""
    columns = [
        Column("network", lambda n: n.label),
        Column("parameters", lambda n: f"{n.parameters:,}"),
        Column("fp32 bytes", lambda n: f"{n.fp32_bytes:,}"),
        Column("coded bytes", lambda n: "" if n.coded_bytes is None else f"{n.coded_bytes:,}"),
        Column("ratio", lambda n: "" if n.ratio is None else f"{100 * n.ratio:.2f} %"),
    ]
    first = evaluation.original.score
    if first is None:
        worst = Column("weights off by", _worst_weight)
        return columns if evaluation.input_shapes else [*columns, worst]
    columns.append(
        Column(
            titled(evaluation.task or "", first.unit),
            lambda n: "" if n.score is None else number(n.score.value),
        )
    )
    if math.isfinite(first.value):
        columns.append(Column("change", lambda n: change(evaluation, n)))
    for name in first.more:
        columns.append(Column(name, lambda n, name=name: _more(n, name)))  # type: ignore[misc]
    return columns


def _worst_weight(network: NetworkResult) -> str:
    """Return the greatest relative error of a tensor, and its name; empty if none was compared."""
    errors = network.weight_errors
    if not errors:
        return ""
    name = max(errors, key=errors.__getitem__)
    return f"{100 * errors[name]:.3g} % ({name})" if errors[name] else "0 %"


def cost_columns(evaluation: Evaluation) -> list[Column]:
    """Return computation, run time and memory of each network, where they were measured."""
    columns = [
        Column(*_computation(evaluation)),
        Column("run", lambda n: duration(n.run_seconds)),
        Column("quartiles", lambda n: _quartiles(n.run_seconds)),
        Column("of original", lambda n: _percent(run_ratio(evaluation, n))),
        Column("encode", lambda n: duration(n.encode_seconds)),
        Column("decode", lambda n: duration(n.decode_seconds)),
        Column("memory, run", lambda n: _megabytes(n.run_memory)),
        Column("memory, decode", lambda n: _megabytes(n.decode_memory)),
    ]
    measured = [column for column in columns if any(map(column.cell, evaluation.networks))]
    return [Column("network", lambda n: n.label), *measured]


def group_grids(evaluation: Evaluation) -> Iterator[Grid]:
    """Yield the scores of parts of the data, by grouping criterion."""
    first = evaluation.original.score
    if first is None:
        return
    scored: list[tuple[str, Score]] = [(n.label, n.score) for n in evaluation.networks if n.score]
    if evaluation.baseline is not None:
        scored.insert(0, (WITHOUT, evaluation.baseline))
    for group, parts in first.groups.items():
        rows = [
            (label, [number(s.groups[group][p]) for p in parts] + [number(s.value)])
            for label, s in scored
        ]
        yield Grid(group, [*parts, "mean"], rows)


WITHOUT = "no filter"
"""Name of the baseline."""


def headline(evaluation: Evaluation) -> str:
    """Return the results of the smallest stream in a sentence."""
    best = min(evaluation.coded, key=lambda network: network.coded_bytes or 0)
    subject = best.label if len(evaluation.coded) == 1 else f"{best.label}, the smallest"
    phrases = [f"{subject}: {100 * (best.ratio or 0):.1f} % of the bytes in fp32"]
    ratio = run_ratio(evaluation, best)
    if ratio is not None:
        phrases.append(f"{100 * ratio:.0f} % of the run time")
    first, score = evaluation.original.score, best.score
    if not evaluation.input_shapes and (worst := _worst_weight(best)):
        phrases.append(f"weights off by {worst} at most")
    if first is not None and score is not None:
        changed = change(evaluation, best)
        unit = first.unit.replace("%", "points")
        phrases.append(f"{evaluation.task} {changed} {unit}" if changed else _agreement(score))
        if evaluation.baseline is not None and math.isfinite(first.value):
            gain = first.value - evaluation.baseline.value
            phrases.append(f"where the original gains {gain:.3f} {first.unit}")
    return ", ".join(phrases)


def conditions(evaluation: Evaluation) -> Iterator[str]:
    """Yield the conditions of the measurements, and what was not measured."""
    networks = evaluation.networks
    threads = f"{evaluation.threads} thread{'s' if evaluation.threads > 1 else ''}"
    timed = any(n.decode_seconds or n.run_seconds for n in networks)
    yield evaluation.machine
    if timed:
        yield (
            f"times: median of {evaluation.rounds}, {threads}, in one process, all in turn, after "
            "one warm-up round"
        )
    if evaluation.original.run_seconds is not None:
        shapes = " and ".join("x".join(map(str, shape)) for shape in evaluation.input_shapes)
        yield f"run: one input of {shapes}, channels last"
    if evaluation.original.encode_seconds is not None:
        yield "encode: the original, without calibration inputs"
    if any(n.run_memory is not None or n.decode_memory is not None for n in networks):
        yield "memory: growth of the peak of a new process; running includes the tensors"
    yield "ratio: coded bytes to the fp32 bytes of the original"
    yield from evaluation.notes


def run_ratio(evaluation: Evaluation, network: NetworkResult) -> float | None:
    """Return the run time relative to that of the original."""
    first, own = evaluation.original.run_seconds, network.run_seconds
    return None if first is None or own is None else own.median / first.median


def change(evaluation: Evaluation, network: NetworkResult) -> str:
    """Return the difference of a score to that of the original; empty if there is none."""
    first, score = evaluation.original.score, network.score
    if first is None or score is None or network is evaluation.original:
        return ""
    difference = score.value - first.value
    return f"{difference:+.3f}" if math.isfinite(difference) else ""


def number(value: float) -> str:
    """Return the text of a score in a table."""
    if math.isfinite(value):
        return f"{value:,.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.3g}"
    return "not a number" if math.isnan(value) else "equal" if value > 0 else "-infinite"


def duration(seconds: Seconds | None) -> str:
    """Return the text of a median time; empty if it was not measured."""
    return "" if seconds is None else _time(seconds.median)


def titled(name: str, unit: str) -> str:
    """Return a name with its unit, if any."""
    return f"{name}, {unit}" if unit else name


def _computation(evaluation: Evaluation) -> tuple[str, Callable[[NetworkResult], str]]:
    """Return heading and cells of multiply-adds, per sample for pictures."""
    shapes = evaluation.input_shapes
    pictures = len(shapes) == 1 and len(shapes[0]) == 4
    samples = shapes[0][0] * math.prod(shapes[0][2:]) if pictures else 1000
    title = "kMAC/pixel" if pictures else "MMAC"
    return (
        title,
        lambda n: "" if n.multiply_adds is None else f"{n.multiply_adds / samples / 1000:,.1f}",
    )


def _agreement(score: Score) -> str:
    return f"{number(score.value)} {score.unit}" if math.isfinite(score.value) else "equal outputs"


def _more(network: NetworkResult, name: str) -> str:
    score = network.score
    return number(score.more[name]) if score is not None and name in score.more else ""


def _quartiles(seconds: Seconds | None) -> str:
    if seconds is None:
        return ""
    first, last = map(_time, seconds.quartiles)
    return f"{first.removesuffix(' ms')} to {last}" if last.endswith("ms") else f"{first} to {last}"


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    digits = 2 if seconds < 0.01 else 1 if seconds < 0.1 else 0
    return f"{1000 * seconds:.{digits}f} ms"


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.1f} %"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f} MB"
