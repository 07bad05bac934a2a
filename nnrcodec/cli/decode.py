"""nnr-decode: a stream to a model file."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from nnrcodec.cli.command import (
    Parser,
    Texts,
    is_standard_input,
    progress_bar,
    read_stream,
    run,
    say,
    timed,
)
from nnrcodec.cli.per_shard import decode_shards
from nnrcodec.cli.table import counted, printable
from nnrcodec.cli.values import at_least
from nnrcodec.decoder.pipeline import MOST_THREADS, decode_all, merged_model
from nnrcodec.decoder.updates import UpdateDecoder
from nnrcodec.errors import ConfigError
from nnrcodec.formats import SAVERS, check_output, is_model_file, is_stream_file, save
from nnrcodec.formats.sources import base_of
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model
from nnrcodec.model.source import left_out_in

TEXTS = Texts(
    name="nnr-decode",
    usage="STREAM [UPDATE ...] -o MODEL [options]",
    summary="""\
Decode an NNR stream to a model file. With ending .pt2 the result is a network
that torch.export.load runs, with .onnx one for onnxruntime, if the stream has a
graph. With the other endings it is a state dict. Streams from strangers are
safe to decode.""",
    description="""\
Decode an NNR stream (ISO/IEC 15938-17) to a model file.

With ending .pt2 the result is a whole network that torch.export.load runs,
without model code; it needs a stream that nnr-encode made from a .pt2 file, or
from an .onnx file that it could translate. With ending .onnx it is the file
that the stream was made from, with decoded weights, or the network of a .pt2
file as one. With the other endings it is a state dict, from any stream, also
from those of other software. Streams from strangers are safe to decode: nothing
in a stream is ever executed.

Several streams are a base model and its updates, in the order in which they
were made; the result is the base model with all of them applied. Where updates
were made with a model file as the base model, that file comes first. An update
given alone decodes to its differences, unless it builds on earlier ones. A
stream without a container record that follows a model file, and is no update by
its own words, is taken for a plain stream of differences and added, too.""",
    common=("--output", "--merge", "--threads", "--require-record", "--trust", "--quiet"),
    examples="""\
examples:
  nnr-decode filter.nnr -o filter.pt2            a network that runs
  nnr-decode filter.nnr -o filter.pt2 --merge    in its original architecture
  nnr-decode foreign.nnc -o net.safetensors      the state dict
  nnr-decode base.nnc 1.nnc 2.nnc -o net.pt      the model after two updates""",
    details="""\
examples:
  nnr-decode filter.nnr -o filter.pt2            a network that runs
  nnr-decode filter.nnr -o filter.pt2 --merge    in its original architecture
  nnr-decode foreign.nnc -o net.safetensors      the state dict
  nnr-decode base.nnc 1.nnc 2.nnc -o net.pt      the model after two updates
  nnr-decode old.pt 1.nnc -o new.pt              a model file, then an update
  nnr-decode old.pt plain.nnc -o new.pt          or plain differences
  nnr-decode filter.nnr -o filter.onnx           for onnxruntime and others
  nnr-decode - -o net.pt2 < filter.nnr           from standard input""",
)

_FREE_MIB = Limits().free_decoded_bytes >> 20
_PER_BYTE = round(Limits().decoded_bytes_per_byte)
_MOST_GIB = Limits().max_decoded_bytes >> 30


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = Parser(TEXTS)
    parser.add_argument(
        "streams",
        type=Path,
        nargs="+",
        metavar="STREAM",
        help="the stream, or - for standard input; or a base model (a stream or a model file), "
        "then its updates in their order; or a folder that nnr-encode --per-shard wrote",
    )
    parser.add_argument(
        "--key",
        metavar="NAME",
        help="which entry of a base model that is a checkpoint, as for nnr-encode",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="MODEL",
        help=f"model file to write ({', '.join(SAVERS)}); an old file is replaced",
    )
    parser.add_argument(
        "--merge",
        action="store_true",
        help="multiply factors of low rank (and scales) out: the original architecture, not the "
        "faster one",
    )
    parser.add_argument(
        "--threads",
        type=at_least(1),
        metavar="N",
        help="threads at most, also those of PyTorch; the result does not depend on it [number of "
        f"processors, {MOST_THREADS} at most]",
    )
    parser.add_argument(
        "--max-bytes",
        type=at_least(1),
        metavar="N",
        help="decode each stream to at most N bytes of tensors, however short it is "
        f"[{_FREE_MIB} MiB and {_PER_BYTE} bytes for each byte of the stream, "
        f"{_MOST_GIB} GiB at most]",
    )
    parser.add_argument(
        "--require-record",
        action="store_true",
        help="refuse a stream without the container record that all streams of nnr-encode have",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="the streams are from somebody you trust: lift limits that depend on their size, such "
        "as that of the graph in a .pt2 file",
    )
    parser.set_defaults(input=Path())  # the stream at hand, for messages
    return run(parser, _decode, argv)


def _decode(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    output: Path = options.output
    if options.key is not None and len(options.streams) == 1:
        raise ConfigError("--key is of a model file that updates follow: a stream has one model")
    if len(options.streams) == 1 and any(options.streams[0].glob("*.index.json")):
        decode_shards(options, options.streams[0], _limits(options), start)
        return
    if not is_model_file(output):
        raise ConfigError(
            f"{output} does not have the ending of a model file: use one of the endings "
            f"{', '.join(SAVERS)}"
        )
    for path in options.streams:
        check_output(output, None if is_standard_input(path) else path)
    several = len(options.streams) > 1
    model, notes, stream_bytes = (_decode_several if several else _decode_one)(options)
    with timed("writing"):
        save(model, output, _limits(options).for_stream(stream_bytes))
    elements = sum(tensor.size for tensor in model.tensors.values())
    tensors = f"{counted(len(model.tensors), 'tensor')}, {counted(elements, 'weight')}"
    line = (
        f"{output}: {tensors} from {counted(stream_bytes, 'byte')}, {', '.join(notes)}, "
        f"{time.perf_counter() - start:.1f} s"
    )
    say(options, [line], output)


def _decode_one(options: argparse.Namespace) -> tuple[Model, list[str], int]:
    """Decode a lone stream; return also what to say of it, and its size."""
    (options.input,) = options.streams
    data, limits = read_stream(options.input), _limits(options)
    with progress_bar("decoding", quiet=options.quiet) as progress:
        decoded = decode_all(
            data,
            limits,
            threads=options.threads,
            progress=progress,
            require_record=options.require_record,
        )
        model = merged_model(decoded, limits) if options.merge else decoded.model
    notes = ["digests agree" if decoded.has_digests else "no digests to compare with"]
    if decoded.measured is not None:
        notes.append(f"as its encoder measured: {decoded.measured.words}")
    wrapper = None if model.source is None else model.source.wrapper
    left_out = [left.name for left in left_out_in(wrapper)]
    if left_out:
        names = ", ".join(map(printable, left_out[:5]))
        notes.append(f"without {names}, which its encoder left out")
    if decoded.differences:
        raise ConfigError(
            f"{options.input} is an update that changes the bits of tensors, which says nothing "
            "without them: give the base model, then its updates in their order"
        )
    if decoded.is_update:
        notes.append("an update: these are differences to its base model")
    return model, notes, len(data)


def _decode_several(options: argparse.Namespace) -> tuple[Model, list[str], int]:
    """Decode a base model and its updates; return also what to say of them, and their size."""
    base_path, *paths = options.streams
    options.input, base = base_path, None
    if not (is_standard_input(base_path) or is_stream_file(base_path)):
        with timed("loading"):
            base = base_of(base_path, options.key)
    else:
        paths = options.streams
    decoder = UpdateDecoder(
        base,
        limits=_limits(options),
        threads=options.threads,
        require_record=options.require_record,
    )
    stream_bytes = 0 if base is None else base_path.stat().st_size
    for index, path in enumerate(paths):
        options.input = path
        data = read_stream(path)
        stream_bytes += len(data)
        with progress_bar(f"decoding {path.name}", quiet=options.quiet) as progress:
            if index or base is not None:
                decoder.decode_update(data, path, progress=progress)
            else:
                decoder.decode(data, progress=progress)
    notes = [f"a base model and {counted(len(options.streams) - 1, 'update')}"]
    return decoder.network(merge=options.merge), notes, stream_bytes


def _limits(options: argparse.Namespace) -> Limits:
    limits = Limits().trusting() if options.trust else Limits()
    if options.max_bytes is None:
        return limits
    return replace(
        limits, max_decoded_bytes=options.max_bytes, free_decoded_bytes=options.max_bytes
    )


if __name__ == "__main__":
    sys.exit(main())
