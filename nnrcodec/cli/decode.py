"""nnr-decode: a stream to a model file."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from nnrcodec.cli.command import (
    check_output,
    is_model_file,
    messages_beside,
    parser,
    progress_bar,
    read_stream,
    run,
)
from nnrcodec.cli.table import counted
from nnrcodec.decoder import decode_stream
from nnrcodec.errors import ConfigError
from nnrcodec.formats import FORMATS, save
from nnrcodec.limits import Limits

DESCRIPTION = """\
Decode an NNR stream to a model file.

With ending .pt2 the result is a whole network that torch.export.load runs,
without model code; it needs a stream that was made from a .pt2 file. With the
other endings it is a state dict. Streams from strangers are safe to decode:
nothing in a stream is ever executed."""

EXAMPLES = """\
examples:
  nnr-decode filter.nnr -o filter.pt2            a network that runs
  nnr-decode filter.nnr -o filter.pt2 --merge    in its original architecture
  nnr-decode net.nnr -o net.safetensors          the state dict"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    made = parser("nnr-decode", DESCRIPTION, EXAMPLES)
    made.add_argument("input", type=Path, metavar="STREAM", help="the stream")
    made.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="MODEL",
        help=f"model file to write, replaced if it is there ({', '.join(FORMATS)})",
    )
    made.add_argument(
        "--merge",
        action="store_true",
        help="multiply low-rank factors out: the original architecture, not the faster one",
    )
    made.add_argument(
        "--max-bytes",
        type=_positive,
        metavar="N",
        help="decode to at most N bytes of tensors, however short the stream is "
        "[256 MiB, or 4096 times the stream]",
    )
    return run(made, _decode, argv)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _decode(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    output: Path = options.output
    if not is_model_file(output):
        raise ConfigError(
            f"{output} does not end as a model file does: give it one of the endings "
            f"{', '.join(FORMATS)}"
        )
    check_output(output, options.input)
    data = read_stream(options.input)
    with progress_bar("decoding") as progress:
        model = decode_stream(data, _limits(options), merge=options.merge, progress=progress)
    save(model, output)
    elements = sum(tensor.size for tensor in model.tensors.values())
    print(
        f"{output}: {counted(len(model.tensors), 'tensor')}, {counted(elements, 'weight')} "
        f"from {counted(len(data), 'byte')}, digests agree, {time.perf_counter() - start:.1f} s",
        file=messages_beside(output),
    )


def _limits(options: argparse.Namespace) -> Limits:
    if options.max_bytes is None:
        return Limits()
    return replace(
        Limits(), max_decoded_bytes=options.max_bytes, free_decoded_bytes=options.max_bytes
    )


if __name__ == "__main__":
    sys.exit(main())
