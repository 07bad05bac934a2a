"""nnr-encode: a model file to a stream."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

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
from nnrcodec.config import CabacConfig, EncoderConfig, LowRankConfig, UniformConfig
from nnrcodec.encoder import CODERS, encode_model
from nnrcodec.errors import BitstreamError, ConfigError
from nnrcodec.formats import FORMATS, load, write_atomically
from nnrcodec.quant.trellis import DEFAULT_LAMBDA
from nnrcodec.reduce.batch_norm import FoldReport
from nnrcodec.reduce.low_rank import LayerReport
from nnrcodec.reduce.ranks import SchemeRule, parse_ranks
from nnrcodec.reduce.schemes import Optimise
from nnrcodec.update_encoding import UpdateEncoder

DESCRIPTION = f"""\
Make a model file small: quantize its weights, code them, write an NNR stream.

A .pt2 file (torch.export.save) keeps the graph, so that the receiver needs no
model code. All others are state dicts, tensors only:
{", ".join(sorted(FORMATS.keys() - {".pt2"}))}.

Without options every tensor is quantized in proportion to its own scale, by a
search for the levels that cost least, and goes through the coder that makes it
smaller. The options for low rank replace a layer by two thin ones, such as a
d x d convolution by a d x 1 and a 1 x d one, which also makes the network
faster."""

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
    _add_quantization(made)
    _add_coding(made)
    _add_reduction(made)
    return run(made, _encode, argv)


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
        help="what a bit costs in that search, in squared steps: 0 looks for the least error, more "
        f"for fewer bits [{DEFAULT_LAMBDA:g}]",
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
    low_rank = made.add_argument_group("low rank (one of --rank, --energy, --rank-ratio)")
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
    output = _output(options)
    if options.base:
        _encode_update(options, config, output, start)
        return
    encoded = encode_model(load(options.input), config, progress_bar)
    write_atomically(output, encoded.data)

    messages = messages_beside(output)
    for line in (*_fold_lines(encoded.folds), *_low_rank_lines(encoded.layers)):
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
        threads=options.threads,
    )


def _low_rank(options: argparse.Namespace) -> LowRankConfig | None:
    rules = (options.rank, options.energy, options.rank_ratio)
    if all(rule is None for rule in rules):
        if options.low_rank or options.optimise:
            raise ConfigError(
                "--low-rank and --optimise say how: one of --rank, --energy and --rank-ratio must "
                "say how much"
            )
        return None
    return LowRankConfig(
        ranks=None if options.rank is None else parse_ranks(options.rank),
        energy=options.energy,
        rank_ratio=options.rank_ratio,
        scheme=options.low_rank or "separable",
        optimise=options.optimise or "bytes",
    )


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
