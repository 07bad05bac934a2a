"""nnr-encode: a model file to a stream."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from nnrcodec.api import calibration_inputs
from nnrcodec.cli.command import (
    check_output,
    is_model_file,
    messages_beside,
    parser,
    progress_bar,
    read_stream,
    run,
)
from nnrcodec.cli.table import grouped, printable, table
from nnrcodec.cli.task import add_task, check_task, task_of
from nnrcodec.config import (
    CabacConfig,
    DistillationConfig,
    EncoderConfig,
    LowRankConfig,
    UniformConfig,
)
from nnrcodec.encoder.pipeline import Encoded
from nnrcodec.encoder.search import Found, ScoreOf, encode_best
from nnrcodec.encoder.updates import UpdateEncoder
from nnrcodec.errors import BitstreamError, ConfigError
from nnrcodec.formats import FORMATS, load, write_atomically
from nnrcodec.model.model import Model
from nnrcodec.progress import Progress
from nnrcodec.quant.search.feedback import DEFAULT_LAMBDA as FEEDBACK_LAMBDA
from nnrcodec.quant.search.trellis import DEFAULT_LAMBDA
from nnrcodec.reduce.batch_norm import FoldReport
from nnrcodec.reduce.low_rank import LayerReport
from nnrcodec.reduce.ranks import SchemeRule, parse_ranks
from nnrcodec.reduce.schemes import Optimise
from nnrcodec.units.kinds import CODERS

if TYPE_CHECKING:
    from nnrcodec.calibration.synthetic import Inputs

UNITS = {"psnr": "dB", "accuracy": "%"}
"""Tasks of which a loss can be limited, and their units."""

DESCRIPTION = f"""\
Make a model file small: quantize its weights, code them, write an NNR stream.

A .pt2 file (torch.export.save) keeps the graph, so that the receiver needs no
model code. All others are state dicts, tensors only:
{", ".join(sorted(FORMATS.keys() - {".pt2"}))}.

The encoder looks at what a network does with calibration inputs, and chooses step
sizes and levels such that its output changes least for the bytes. Give it inputs
of the kind that the network sees (--calib): a few dozen suffice, no labels are
needed. Otherwise it makes some up. Of a state dict it knows the weights alone:
every tensor is quantized in proportion to its own scale.

The options for low rank replace a layer by two thin ones, such as a d x d
convolution by a d x 1 and a 1 x d one, which also makes the network faster. Ranks
and step sizes can be found for a loss or a size."""

EXAMPLES = """\
examples:
  nnr-encode filter.pt2                           writes filter.nnr
  nnr-encode filter.pt2 -o small.nnr --qp -16     step size 1/16 for all weights
  nnr-encode filter.pt2 --rank net.2=32,net.4=24  two layers of low rank, named
  nnr-encode filter.pt2 --rank net.2=channel:20   d x d to 20 channels, then 1 x 1
  nnr-encode filter.pt2 --energy 0.98             all layers, 98 % of their energy
  nnr-encode net.safetensors --rank-ratio 0.5     all layers, half of their weights
  nnr-encode net.pt2 --rank-ratio 0.5 --low-rank auto --optimise runtime
      the better scheme for each layer, half of its multiply-adds; linear too
  nnr-encode filter.pt2 --calib pictures          what the network does with pictures
  nnr-encode filter.pt2 --calib none              by the weights alone, and at once
  nnr-encode filter.pt2 --calib pairs --max-loss 0.03dB --low-rank auto
      as small as a loss of 0.03 dB allows, with the ranks that this takes
  nnr-encode filter.pt2 --calib pairs --target-macs 30% --distill 10
      three times fewer multiply-adds, and ten minutes of distillation
  nnr-encode net.pt2 --calib train.npz --max-loss 0.5% --task accuracy --data test.npz
  nnr-encode net.pt --target-bytes 1000000        any network, within a size
  nnr-encode net.pt --profile nnc -o net.nnc      for any decoder of the standard
  nnr-encode new.pt --base net.nnc -o 1.nnc       only what has changed since
  nnr-encode newer.pt --base net.nnc --base 1.nnc -o 2.nnc   and again"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    made = parser("nnr-encode", DESCRIPTION, EXAMPLES)
    made.add_argument(
        "input", type=Path, metavar="MODEL", help=f"model file ({', '.join(FORMATS)})"
    )
    made.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="STREAM",
        help="stream to write, replaced if it is there [MODEL with ending .nnr]",
    )
    made.add_argument(
        "--profile",
        choices=("ext", "nnc"),
        default="ext",
        help="nnc: only what all decoders of ISO/IEC 15938-17 know; ext: also units of our own, "
        "for tensors that are smaller with another coder or have to be stored [%(default)s]",
    )
    made.add_argument(
        "--base",
        type=Path,
        action="append",
        metavar="STREAM",
        help="write an update: the differences to this stream. Give the option once for the base "
        "model and once for each update that was sent since, in their order",
    )
    made.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="tensors to code at once; the stream does not depend on it [number of processors]",
    )
    _add_targets(made)
    _add_calibration(made)
    _add_quantization(made)
    _add_coding(made)
    _add_reduction(made)
    return run(made, _encode, argv)


def _add_targets(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("targets (instead of a qp)")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--max-loss",
        metavar="X[dB|%]",
        help="make the stream as small as this loss allows, in the unit of --task. Without a task: "
        "dB of PSNR, if --calib is a folder of pairs NAME_orig.png and NAME_qp37_dec.png, or for "
        "filters of pictures, whose originals are then taken to be 45 dB away; %% of the variance "
        "of the outputs for all networks",
    )
    either.add_argument(
        "--target-bytes",
        type=int,
        metavar="N",
        help="make the stream as good as so many bytes allow",
    )
    add_task(group, tuple(UNITS))


def _add_calibration(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("calibration inputs (for .pt2 files)")
    group.add_argument(
        "--calib",
        metavar="PATH",
        help="a folder of pictures, or a .npy, .npz or .pt file with inputs; 'synthetic' makes "
        "some up; 'none' goes by the weights alone, which is faster [made up where that can be "
        "done]",
    )
    group.add_argument(
        "--calib-count",
        type=int,
        metavar="N",
        help="inputs at most [32 to 512: more if they are small; 512 with --distill]",
    )
    group.add_argument(
        "--distill",
        type=float,
        metavar="MINUTES",
        help="after low rank, train the network to do what the original does",
    )
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of everything that is chosen at random [%(default)s]",
    )


def _add_quantization(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("quantization")
    group.add_argument(
        "--qp",
        type=int,
        help="quantization parameter of weights: larger is coarser; the step size is 1 at qp 0 and "
        "doubles every 2^DENSITY [from the root mean square of each tensor]",
    )
    group.add_argument(
        "--nonweight-qp",
        type=int,
        metavar="QP",
        help="the same for biases and other 1-D tensors [16 times finer than weights]",
    )
    group.add_argument(
        "--qp-density",
        type=int,
        default=2,
        metavar="DENSITY",
        help="logarithm of the steps of qp per octave, 0 to 7 [%(default)s]",
    )
    group.add_argument(
        "--dq",
        action=argparse.BooleanOptionalAction,
        help="dependent quantization: search for the best path of levels through two interleaved "
        "grids, instead of rounding each weight; smaller at the same error, and slower. With a qp "
        "of your own, take one that is lower by 3/4 of an octave for about the same error [on]",
    )
    group.add_argument(
        "--lambda",
        dest="lambda_",
        type=float,
        metavar="L",
        help="what a bit costs in that search, and in that with calibration inputs, in squared "
        "steps: 0 looks for the least error, more for fewer bits "
        f"[{FEEDBACK_LAMBDA:g} with calibration inputs, {DEFAULT_LAMBDA:g} without]",
    )


def _add_coding(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("entropy coding")
    group.add_argument(
        "--entropy",
        choices=("auto", "cabac", "ans"),
        default="auto",
        help="cabac: DeepCABAC, the coder of the standard, which learns as it goes; ans: static "
        "tables, for rounded weights; auto: the better one for each tensor [%(default)s]",
    )
    group.add_argument(
        "--codebook",
        action="store_true",
        help="try a list of the levels that occur; helps weights with few different values",
    )
    group.add_argument(
        "--scan-order",
        type=int,
        default=0,
        metavar="S",
        help="0: row by row; 1 to 4: by blocks of 8 to 64 rows and columns, so that several "
        "threads can decode a large tensor [%(default)s]",
    )
    group.add_argument(
        "--unary-length",
        type=int,
        metavar="N",
        help="flags that tell a magnitude before its remainder does, 1 to 256 [suits each tensor]",
    )
    group.add_argument(
        "--no-row-skipping",
        action="store_true",
        help="do not look whether flags for rows of zeros pay",
    )


def _add_reduction(made: argparse.ArgumentParser) -> None:
    made.add_argument_group("batch norm").add_argument(
        "--fold-batch-norm",
        action="store_true",
        help="multiply batch norms into the convolutions before them; needs a .pt2 file",
    )
    low_rank = made.add_argument_group(
        "low rank (one of --rank, --energy, --rank-ratio, --target-macs; or --low-rank alone, for "
        "the ranks that the allowed error makes worth it)"
    )
    rules = low_rank.add_mutually_exclusive_group()
    rules.add_argument(
        "--rank",
        metavar="LAYER=[SCHEME:]R,...",
        help="these layers, these ranks, with the scheme separable, channel or linear [the first "
        "of them that fits the layer]",
    )
    rules.add_argument(
        "--energy",
        type=float,
        metavar="E",
        help="all layers that get smaller by it, lowest ranks that keep this part of their energy",
    )
    rules.add_argument(
        "--rank-ratio",
        type=float,
        metavar="Q",
        help="all layers that get smaller by it, factors with at most this part of their weights, "
        "or of what --optimise says",
    )
    rules.add_argument(
        "--target-macs",
        type=_part,
        metavar="P",
        help="schemes and ranks of least error for so many multiply-adds: a part of those of the "
        "model, such as 0.4 or 40%%",
    )
    low_rank.add_argument(
        "--low-rank",
        choices=get_args(SchemeRule),
        help="separable: d x 1 and 1 x d for ordinary 2-D convolutions; channel: d x d to R "
        "channels and 1 x 1 for all convolutions, and linear layers in two; auto: what has the "
        "lower error at the same cost, or the lower cost at the same energy [separable]",
    )
    low_rank.add_argument(
        "--optimise",
        choices=get_args(Optimise),
        help="what a layer costs: weights, multiply-adds, or the larger part of both [bytes]",
    )


def _encode(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    config = _config(options)
    check_task(options)
    output = _output(options)
    if options.base:
        if options.calib not in (None, "none"):
            raise ConfigError("--calib is for the base model: updates are coded without inputs")
        _encode_update(options, config, output, start)
        return
    model = load(options.input)
    inputs = _inputs(options, config, model)
    score = _score(options, model, inputs)
    found = encode_best(model, config, _stage, inputs, score)
    encoded = found.encoded
    write_atomically(output, encoded.data)

    messages = messages_beside(output)
    for line in (
        *_fold_lines(encoded.folds),
        *_low_rank_lines(encoded.layers),
        *_distillation_lines(encoded),
        *_trial_lines(found, options.max_loss),
    ):
        print(line, file=messages)
    size = len(encoded.data)
    coders = ", ".join(f"{encoded.coders[c]} {c}" for c in CODERS if c in encoded.coders)
    print(
        f"{output}: {grouped(encoded.original_bytes)} -> {grouped(size)} bytes "
        f"({100 * size / encoded.original_bytes:.1f} %), "
        f"{8 * size / encoded.original_elements:.2f} bits per weight, "
        f"{time.perf_counter() - start:.1f} s; tensors: {coders}",
        file=messages,
    )


def _stage(name: str) -> AbstractContextManager[Progress]:
    """Show how far a stage is."""
    return progress_bar(name, unit={"coding": " weights", "distillation": ""}.get(name, " layers"))


def _inputs(options: argparse.Namespace, config: EncoderConfig, model: Model) -> Inputs | None:
    """Return calibration inputs, if there are to be any."""
    calib, low_rank = options.calib, config.low_rank
    needed = config.distillation is not None or (low_rank is not None and low_rank.needs_inputs)
    if calib == "none" and needed:
        raise ConfigError("--distill, --target-macs and open ranks need calibration inputs")
    if calib is None:
        calib = "synthetic" if needed else "auto"
    count = options.calib_count or (512 if config.distillation is not None else None)
    return calibration_inputs(model, None if calib == "none" else calib, count, options.seed)


def _score(options: argparse.Namespace, model: Model, inputs: Inputs | None) -> ScoreOf | None:
    """Return what a loss is measured by, if one is limited."""
    if options.max_loss is None:
        if options.task or options.data:
            raise ConfigError("--task and --data measure the loss that --max-loss limits: give it")
        return None
    if model.graph is None:
        raise ConfigError(f"--max-loss needs a network that runs; {options.input} has no graph")
    from nnrcodec.evaluate.loss import score_for

    unit = _loss(options.max_loss)[1]
    if options.task:
        if unit not in ("", UNITS[options.task]):
            raise ConfigError(f"--max-loss is in {unit}, the task has {UNITS[options.task]}")
        task = task_of(options, model)
        return None if task is None else lambda module: task.score(module).value
    return score_for(unit, options.calib, model, inputs)


def _encode_update(
    options: argparse.Namespace, config: EncoderConfig, output: Path, start: float
) -> None:
    base, *updates = (read_stream(path) for path in options.base)
    try:
        encoder = UpdateEncoder(base, updates, config)
    except BitstreamError as error:
        raise ConfigError(f"the streams of --base do not decode: {error}") from error
    model = load(options.input)
    with progress_bar("encoding") as progress:
        data = encoder.encode(model, progress=progress)
    write_atomically(output, data)
    elements = sum(tensor.size for tensor in model.tensors.values())
    print(
        f"{output}: update of {grouped(len(data))} bytes, {8 * len(data) / elements:.2f} bits per "
        f"weight, {time.perf_counter() - start:.1f} s",
        file=messages_beside(output),
    )


def _config(options: argparse.Namespace) -> EncoderConfig:
    return EncoderConfig(
        profile=options.profile,
        entropy=options.entropy,
        quantization=UniformConfig(
            qp=options.qp, nonweight_qp=options.nonweight_qp, qp_density=options.qp_density
        ),
        dq=options.dq is not False,
        lambda_=options.lambda_,
        codebook=options.codebook,
        cabac=CabacConfig(
            scan_order=options.scan_order,
            cabac_unary_length=options.unary_length,
            row_skipping=not options.no_row_skipping,
        ),
        fold_batch_norm=options.fold_batch_norm,
        low_rank=_low_rank(options),
        distillation=(
            None
            if options.distill is None
            else DistillationConfig(minutes=options.distill, seed=options.seed)
        ),
        max_loss=None if options.max_loss is None else _loss(options.max_loss)[0],
        target_bytes=options.target_bytes,
        threads=options.threads,
    )


def _low_rank(options: argparse.Namespace) -> LowRankConfig | None:
    rules = (options.rank, options.energy, options.rank_ratio, options.target_macs)
    if all(rule is None for rule in rules):
        if options.optimise and not options.low_rank:
            raise ConfigError("--optimise is for low rank: give --low-rank or a rule, too")
        if options.low_rank is None:
            return None
    return LowRankConfig(
        ranks=None if options.rank is None else parse_ranks(options.rank),
        energy=options.energy,
        rank_ratio=options.rank_ratio,
        target_macs=options.target_macs,
        scheme=options.low_rank or ("auto" if options.target_macs is not None else "separable"),
        optimise=options.optimise or "bytes",
    )


def _loss(text: str) -> tuple[float, str]:
    """Return a loss and its unit, empty if there is none."""
    found = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(dB|%)?\s*", text)
    try:
        return float(found[1] if found else text), (found[2] or "") if found else ""
    except ValueError:
        raise ConfigError(
            f"--max-loss {text}: expected a number, with a unit if you like, such as 0.03dB or 0.5%"
        ) from None


def _part(text: str) -> float:
    """Return a part of the whole, which may be given in per cent."""
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def _output(options: argparse.Namespace) -> Path:
    output: Path = options.output or options.input.with_suffix(".nnr")
    if is_model_file(output):
        raise ConfigError(
            f"{output} has the ending of a model file, but nnr-encode writes a stream: "
            f"give it another ending, such as {output.with_suffix('.nnr').name}"
        )
    if is_model_file(options.input):  # else `load` refuses it, and says which endings there are
        check_output(output, options.input)
    for base in options.base or ():
        if base.exists():
            check_output(output, base)
    return output


def _fold_lines(folds: Sequence[FoldReport]) -> Iterator[str]:
    """Say which layers have taken up a batch norm, and why others have not."""
    if not folds:
        return
    columns = ("<layer", "<batch norm")
    rows = [
        (printable(f.layer), "folded" if f.folded else f"left as it is: {f.reason}") for f in folds
    ]
    yield from table(columns, rows)


def _low_rank_lines(layers: Sequence[LayerReport]) -> Iterator[str]:
    """Say what was done to each layer, and why to some nothing."""
    if not layers:
        return
    columns = ("<layer", "<shape", "<scheme", ">rank", ">energy", ">weights", ">now", "<")
    yield from table(columns, [_low_rank_row(layer) for layer in layers])


def _distillation_lines(encoded: Encoded) -> Iterator[str]:
    """Say what distillation has done."""
    distilled = encoded.distilled
    if distilled is not None:
        left = 100 * distilled.error_after / distilled.error_before
        yield (
            f"distillation: {distilled.steps} steps in {distilled.seconds:.0f} s, {left:.0f} % "
            "of the error left on inputs that were held out"
        )


def _trial_lines(found: Found, max_loss: str | None) -> Iterator[str]:
    """Say which streams the search has made."""
    if not found.trials:
        return
    unit = _loss(max_loss)[1] if max_loss else ""
    columns = ("<step sizes", ">bytes", ">loss", "<")
    yield from table(
        columns,
        [
            (
                f"x {trial.scale:.3f}",
                grouped(trial.bytes),
                "-" if trial.loss is None else f"{trial.loss:.4f} {unit}".strip(),
                "taken" if trial == found.taken else "",
            )
            for trial in found.trials
        ],
    )


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


if __name__ == "__main__":
    sys.exit(main())
