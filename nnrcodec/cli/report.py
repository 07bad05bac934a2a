"""What nnr-encode says of what it did: lines for people, an object for programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nnrcodec.cli.table import grouped, printable, table
from nnrcodec.encoder.report import EncodeReport
from nnrcodec.reduce.low_rank import LayerReport
from nnrcodec.units.kinds import CODERS

_LOSSLESS = "; lossless, bit for bit"


def report_of(
    report: EncodeReport,
    output: Path,
    loss_unit: str | None,
    seconds: float,
    *,
    is_update: bool = False,
) -> dict[str, object]:
    """Return what was done as ``nnr-encode --json`` prints it; see its help for the names.

    Parameters
    ----------
    report : EncodeReport
        Of the stream.
    output : Path
        Where the stream is.
    loss_unit : str, optional
        Of the losses of the trials.
    seconds : float
        How long all took, with reading and writing.
    is_update : bool
        Whether the stream is an update.
    """
    values = report.to_json()
    original_bytes = report.original_bytes
    trials = [
        {**trial, "taken": of == report.taken}
        for trial, of in zip(values["trials"], report.trials, strict=True)
    ]
    return {
        "output": str(output),
        "bytes": report.stream_bytes,
        "original_bytes": original_bytes,
        "percent": 100 * report.stream_bytes / original_bytes if original_bytes else None,
        "weights": report.original_elements,
        "bits_per_weight": report.bits_per_weight if report.original_elements else None,
        "seconds": seconds,
        "stage_seconds": values["stage_seconds"],
        "is_update": is_update,
        "lossless": report.lossless,
        "coders": values["coders"],
        "form": values["form"],
        "coded": values["coded"],
        "left_out": values["left_out"],
        "ties": values["ties"],
        "new": values["new"],
        "gone": values["gone"],
        "tensors": values["tensors"],
        "layers": values["layers"],
        "folds": values["folds"],
        "distillation": values["distillation"],
        "trials": trials,
        "fidelity": values["fidelity"],
        "loss": values["loss"],
        "loss_unit": loss_unit,
    }


def line_of_update(report: EncodeReport, output: Path, seconds: float) -> str:
    """Return what was done to an update in a line for people; parameters as of `report_of`."""
    return (
        f"{output}: update of {grouped(report.stream_bytes)} bytes, "
        f"{report.bits_per_weight:.2f} bits per weight, {seconds:.1f} s; "
        f"{len(report.tensors)} tensors in it{_turnover_words(report)}"
        f"{_LOSSLESS if report.lossless else ''}"
    )


def _turnover_words(report: EncodeReport) -> str:
    new = f", {len(report.new)} of them whole" if report.new else ""
    return new + (f", {len(report.gone)} taken out" if report.gone else "")


def lines_of(
    report: EncodeReport, output: Path, loss_unit: str | None, seconds: float
) -> Iterator[str]:
    """Yield what was done in lines for people; parameters as of `report_of`."""
    yield from _fold_lines(report)
    yield from _low_rank_lines(report)
    yield from _distillation_lines(report)
    yield from _trial_lines(report, loss_unit)
    coders = ", ".join(
        f"{report.coders[c]} {name}" for c, name in CODERS.items() if c in report.coders
    )
    yield (
        f"{output}: {grouped(report.original_bytes)} -> {grouped(report.stream_bytes)} bytes "
        f"({100 * report.stream_bytes / report.original_bytes:.1f} %), "
        f"{report.bits_per_weight:.2f} bits per weight, {seconds:.1f} s; tensors: {coders}"
        f"{_loss_words(report)}{_left_out_words(report)}"
    )


def _loss_words(report: EncodeReport) -> str:
    """Return what is known of the loss, to be added to a line."""
    if report.lossless:
        return _LOSSLESS
    if report.fidelity is not None:
        return f"; {report.fidelity.words}"
    worst = max(report.tensors, key=lambda tensor: tensor.relative_error, default=None)
    if worst is None or not worst.relative_error:
        return "; all weights exact"
    return (
        f"; output not measured, weights off by {100 * worst.relative_error:.1f} % at most "
        f"({printable(worst.name)})"
    )


def _left_out_words(report: EncodeReport) -> str:
    """Return how much of the file is not in the stream, to be added to a line."""
    count = len(report.left_out)
    return f"; {count} {'entry' if count == 1 else 'entries'} of the file left out" if count else ""


def _fold_lines(report: EncodeReport) -> Iterator[str]:
    """Say which layers have taken up a batch norm, and why others have not."""
    folds = report.folds
    if folds:
        words = [(f.layer, "folded" if f.folded else f"left as it is: {f.reason}") for f in folds]
        yield from table(
            ("<layer", "<batch norm"), [(printable(layer), what) for layer, what in words]
        )


def _low_rank_lines(report: EncodeReport) -> Iterator[str]:
    """Say what was done to each layer, and why to some nothing."""
    layers = report.layers
    if layers:
        columns = ("<layer", "<shape", "<scheme", ">rank", ">energy", ">weights", ">now", "<")
        yield from table(columns, [_low_rank_row(layer) for layer in layers])


def _low_rank_row(layer: LayerReport) -> tuple[str, ...]:
    decomposed = layer.rank is not None
    return (
        printable(layer.layer),
        "x".join(map(str, layer.shape)),
        layer.scheme or "-",
        str(layer.rank) if decomposed else "-",
        f"{100 * layer.energy_kept:.2f} %" if decomposed else "-",
        grouped(layer.parameters_before),
        grouped(layer.parameters_after),
        f"left as it is: {layer.reason}" if layer.reason else "",
    )


def _distillation_lines(report: EncodeReport) -> Iterator[str]:
    """Say what distillation has done."""
    distilled = report.distillation
    if distilled is not None:
        left = 100 * distilled.error_after / distilled.error_before
        yield (
            f"distillation: {distilled.steps} steps in {distilled.seconds:.0f} s, {left:.0f} % "
            "of the error left on inputs that were held out"
        )


def _trial_lines(report: EncodeReport, loss_unit: str | None) -> Iterator[str]:
    """Say which streams the search has made."""
    if any(trial.fidelity is None for trial in report.trials):
        yield from table(
            ("<step sizes", ">bytes", ">loss", "<"),
            [
                (
                    f"x {trial.scale:.3f}",
                    grouped(trial.bytes),
                    "-" if trial.loss is None else f"{trial.loss:.4f} {loss_unit}",
                    "taken" if trial == report.taken else "",
                )
                for trial in report.trials
            ],
        )
