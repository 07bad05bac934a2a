"""nnr-encode: a model file to a stream."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from nnrcodec.cli.command import (
    check_output,
    is_model_file,
    messages_beside,
    parser,
    progress_bar,
    run,
)
from nnrcodec.cli.table import grouped, printable, table
from nnrcodec.config import EncoderConfig, LowRankConfig, UniformConfig
from nnrcodec.encoder import encode_model
from nnrcodec.errors import ConfigError
from nnrcodec.formats import FORMATS, load, write_atomically
from nnrcodec.reduce.low_rank import LayerReport, parse_ranks

DESCRIPTION = f"""\
Make a model file small: quantize its weights, code them, write an NNR stream.

A .pt2 file (torch.export.save) keeps the graph, so that the receiver needs no
model code. All others are state dicts, tensors only:
{", ".join(sorted(FORMATS.keys() - {".pt2"}))}.

Without options every tensor is quantized in proportion to its own scale. The
options for low rank replace d x d convolutions by a d x 1 and a 1 x d one, which
also makes the network faster."""

EXAMPLES = """\
examples:
  nnr-encode filter.pt2                           writes filter.nnr
  nnr-encode filter.pt2 -o small.nnr --qp -16     step size 1/16 for all weights
  nnr-encode filter.pt2 --rank net.2=32,net.4=24  two layers of low rank, named
  nnr-encode filter.pt2 --energy 0.98             all layers, 98 % of their energy
  nnr-encode net.safetensors --rank-ratio 0.5     all layers, half of their weights"""


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
    quantization = made.add_argument_group("quantization")
    quantization.add_argument(
        "--qp",
        type=int,
        help="quantization parameter of weights: larger is coarser; the step size is 1 at qp 0 and "
        "doubles every 2^DENSITY [from the root mean square of each tensor]",
    )
    quantization.add_argument(
        "--nonweight-qp",
        type=int,
        metavar="QP",
        help="the same for biases and other 1-D tensors [16 times finer than weights]",
    )
    quantization.add_argument(
        "--qp-density",
        type=int,
        default=2,
        metavar="DENSITY",
        help="logarithm of the steps of qp per octave, 0 to 7 [%(default)s]",
    )
    low_rank = made.add_argument_group("low rank (one of)").add_mutually_exclusive_group()
    low_rank.add_argument("--rank", metavar="LAYER=R,...", help="these layers, these ranks")
    low_rank.add_argument(
        "--energy",
        type=float,
        metavar="E",
        help="all layers that get smaller by it, lowest ranks that keep this part of their energy",
    )
    low_rank.add_argument(
        "--rank-ratio",
        type=float,
        metavar="Q",
        help="all layers that get smaller by it, factors with at most this part of their weights",
    )
    return run(made, _encode, argv)


def _encode(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    config = _config(options)
    output = _output(options)
    with progress_bar("encoding") as progress:
        encoded = encode_model(load(options.input), config, progress)
    write_atomically(output, encoded.data)

    messages = messages_beside(output)
    for line in _low_rank_lines(encoded.layers):
        print(line, file=messages)
    size = len(encoded.data)
    print(
        f"{output}: {grouped(encoded.original_bytes)} -> {grouped(size)} bytes "
        f"({100 * size / encoded.original_bytes:.1f} %), "
        f"{8 * size / encoded.original_elements:.2f} bits per weight, "
        f"{time.perf_counter() - start:.1f} s",
        file=messages,
    )


def _config(options: argparse.Namespace) -> EncoderConfig:
    low_rank = None
    if options.rank is not None:
        low_rank = LowRankConfig(ranks=parse_ranks(options.rank))
    elif options.energy is not None:
        low_rank = LowRankConfig(energy=options.energy)
    elif options.rank_ratio is not None:
        low_rank = LowRankConfig(rank_ratio=options.rank_ratio)
    quantization = UniformConfig(
        qp=options.qp, nonweight_qp=options.nonweight_qp, qp_density=options.qp_density
    )
    return EncoderConfig(quantization=quantization, low_rank=low_rank)


def _output(options: argparse.Namespace) -> Path:
    output: Path = options.output or options.input.with_suffix(".nnr")
    if is_model_file(output):
        raise ConfigError(
            f"{output} has the ending of a model file, but nnr-encode writes a stream: "
            f"give it another ending, such as {output.with_suffix('.nnr').name}"
        )
    if is_model_file(options.input):  # else `load` refuses it, and says which endings there are
        check_output(output, options.input)
    return output


def _low_rank_lines(layers: Sequence[LayerReport]) -> Iterator[str]:
    """Say what was done to each layer, and why to some nothing."""
    if not layers:
        return
    columns = ("<layer", "<shape", ">rank", ">energy", ">weights", ">now", "<")
    yield from table(columns, [_low_rank_row(layer) for layer in layers])


def _low_rank_row(layer: LayerReport) -> tuple[str, ...]:
    decomposed = layer.rank is not None
    return (
        printable(layer.layer),
        "x".join(map(str, layer.shape)),
        str(layer.rank) if decomposed else "-",
        f"{100 * layer.energy_kept:.2f} %" if decomposed else "-",
        grouped(layer.parameters_before),
        grouped(layer.parameters_after),
        f"left as it is: {layer.reason}" if layer.reason else "",
    )


if __name__ == "__main__":
    sys.exit(main())
