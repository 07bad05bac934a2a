"""nnr-info: what is inside a stream."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from nnrcodec.cli.command import Parser, Texts, print_json, read_stream, run, say, timed
from nnrcodec.cli.info_config import config_lines
from nnrcodec.cli.table import counted, grouped, printable, table
from nnrcodec.formats import FORMATS
from nnrcodec.inspection import StreamInfo, TensorInfo, inspect
from nnrcodec.syntax.trace import TraceEvent

TEXTS = Texts(
    name="nnr-info",
    usage="STREAM [options]",
    summary="""\
Show what is inside an NNR stream, without decoding its weights. It takes any
stream of ISO/IEC 15938-17, also those of other software.""",
    description="""\
Show what is inside an NNR stream, without decoding its weights.

It takes any stream of ISO/IEC 15938-17, also those of other software. The bytes
of a tensor are those of its whole unit; a block is a unit of several tensors.

column "coder": ans (rANS), lossless and raw are units of nnrcodec, cabac and
  raw those of the standard; raw values are stored as they are.
column "levels": integer: the values themselves; uniform: multiples of the step
  size; dependent: even or odd multiples of it, as the levels before say, which
  saves bits; codebook: multiples from a list of those that occur; of updates
  without loss: xor or difference of bit patterns, or new ones.
columns "scheme", "rank": of the factors of a layer of low rank.
column "qp": the step size is about 2^(qp / 2^density). In a block each tensor
  has its own qp; they are inside the payload and are not shown.""",
    common=("--json", "--formats", "--trace", "--config", "--require-record", "--quiet"),
    examples="""\
examples:
  nnr-info filter.nnr                        tables and a summary
  nnr-info filter.nnr --json | jq .weights   one number
  nnr-info filter.nnr --trace | grep qp      where quantization parameters are""",
    details="""\
--json prints one object; null is what the stream does not tell:
  file, stream_bytes, weights, bits_per_weight, qp_density, writer,
  record_bytes, has_graph, is_update,
  new, gone  of an update: tensors in it that are whole, no differences, and
             those of the base model that it takes out
  measured   what coding has cost, as the encoder says: on (weights: nothing was
             run; made_up_inputs; given_inputs; fitted_inputs), count (of them),
             snr (dB, of the worst output, or the worst tensor), absolute (dB,
             of the range of a picture), change (dB, of what a filter changes)
  wrapper    of what kind of file what stood around the tensors is kept: torch,
             safetensors, hdf5 or mat
  left_out   entries of that file that were not coded, list of objects: name,
             what, reason
  ties       tensors that are another one: name and its name; empty: names of
             tensors without elements
  has_short_names  whether data units call tensors by their numbers
  units      list of objects: name, bit_offset, unit_bytes
  tensors    list of objects: names, shape, shapes, dtype, coder, coding, qp,
             step_size, rank, scheme, unit_bytes, bits_per_weight; "coding" is
             the column "levels", "shapes" are those of "names"
--trace prints lines: bit, bits, unit and element, value, and the name of the
  value if it has one.
--trace --json prints one object in each line: bit, bits, path, descriptor,
  value, name.

examples:
  nnr-info filter.nnr                        tables and a summary
  nnr-info filter.nnr --json | jq .weights   one number
  nnr-info filter.nnr --trace | grep qp      where quantization parameters are""",
)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = Parser(TEXTS)
    parser.add_argument(
        "input", type=Path, nargs="?", metavar="STREAM", help="the stream, or - for standard input"
    )
    parser.add_argument(
        "--formats",
        action="store_true",
        help="list the kinds of model files that are read and written; no stream is needed",
    )
    parser.add_argument("--json", action="store_true", help="print JSON; --help-all describes it")
    parser.add_argument(
        "--trace", action="store_true", help="print each syntax element and its position instead"
    )
    parser.add_argument(
        "--config",
        action="store_true",
        help="print what made the stream, as far as it tells, as a file for nnr-encode --config",
    )
    parser.add_argument(
        "--require-record",
        action="store_true",
        help="refuse a stream without the container record that all streams of nnr-encode have",
    )
    parser.set_defaults(usage_error=parser.error)
    return run(parser, _info, argv)


def _info(options: argparse.Namespace) -> None:
    if options.formats:
        _print_formats(options)
        return
    if options.input is None:
        options.usage_error("the following arguments are required: STREAM (or --formats)")
    data = read_stream(options.input)
    if options.trace:
        event = _print_json_event if options.json else print
        inspect(data, trace=event, require_record=options.require_record)
        return
    with timed("reading"):
        info = inspect(data, require_record=options.require_record)
    if options.config:
        for line in config_lines(info):
            print(line)
        return
    if options.json:
        print_json(_as_dict(options.input, info))
        return
    summary = _summary(options.input, info)
    say(options, (*_unit_lines(info), "", *_tensor_lines(info), "", summary))


def _print_formats(options: argparse.Namespace) -> None:
    """List the kinds of model files."""
    if options.json:
        print_json(
            [
                {
                    "name": form.name,
                    "is_read": form.load is not None,
                    "endings": list(form.endings),
                    "comment": form.advice,
                }
                for form in FORMATS
            ]
        )
        return
    rows = [
        (
            "yes" if form.load is not None else "no",
            " ".join(form.endings) or "no",
            form.name,
            form.advice,
        )
        for form in FORMATS
    ]
    for line in table(
        ("<read", "<written as", "<kind of file", "<what of it; or what to do"), rows
    ):
        print(line)


def _print_json_event(event: TraceEvent) -> None:
    print(json.dumps(event.as_dict()))


def _as_dict(path: Path, info: StreamInfo) -> dict[str, object]:
    """Return what --json prints."""
    tensors = [{**asdict(t), "bits_per_weight": t.bits_per_weight} for t in info.tensors]
    measured = info.measured
    return {
        "file": str(path),
        **asdict(info),
        "tensors": tensors,
        "measured": measured and {**asdict(measured), "on": measured.on.name.lower()},
        "weights": _weights(info),
        "bits_per_weight": _bits_per_weight(info),
    }


def _weights(info: StreamInfo) -> int | None:
    """Return the elements of all tensors, None if the stream does not give all shapes."""
    weights = 0
    for tensor in info.tensors:
        if tensor.elements is None:
            return None
        weights += tensor.elements
    return weights


def _bits_per_weight(info: StreamInfo) -> float | None:
    weights = _weights(info)
    return 8 * info.stream_bytes / weights if weights else None


def _unit_lines(info: StreamInfo) -> Iterator[str]:
    """Sum the units up by type: a network has a unit for each tensor."""
    sizes: dict[str, list[int]] = {}
    for unit in info.units:
        sizes.setdefault(unit.name, []).append(unit.unit_bytes)
    rows = [
        (
            grouped(sum(of_type)),
            f"{100 * sum(of_type) / info.stream_bytes:.1f} %",
            grouped(len(of_type)),
            name,
        )
        for name, of_type in sizes.items()
    ]
    return table((">bytes", ">of all", ">units", "<type"), rows)


def _tensor_lines(info: StreamInfo) -> Iterator[str]:
    """List the tensors, names last: they may be long."""
    columns = (
        *(">bytes", ">bits/weight", "<coder", "<levels", ">qp", ">step size", "<scheme", ">rank"),
        *("<dtype", "<shape", "<tensor"),
    )
    return table(columns, [_tensor_row(tensor) for tensor in info.tensors])


def _tensor_row(tensor: TensorInfo) -> tuple[str, ...]:
    bits, step = tensor.bits_per_weight, tensor.step_size
    shapes = ["x".join(map(str, shape)) or "scalar" for shape in tensor.shapes or ()]
    return (
        grouped(tensor.unit_bytes),
        "-" if bits is None else f"{bits:.2f}",
        tensor.coder,
        tensor.coding or "-",
        "-" if tensor.qp is None else str(tensor.qp),
        "-" if step is None else f"{step:.4g}",
        tensor.scheme or "-",
        "-" if tensor.rank is None else str(tensor.rank),
        tensor.dtype or "-",
        ", ".join(shapes) or "-",
        ", ".join(map(printable, tensor.names)),
    )


def _summary(path: Path, info: StreamInfo) -> str:
    weights, bits = _weights(info), _bits_per_weight(info)
    parts = [
        counted(info.stream_bytes, "byte"),
        counted(sum(len(t.names) for t in info.tensors), "tensor"),
    ]
    if weights is not None:
        parts.append(counted(weights, "weight"))
    if bits is not None:
        parts.append(f"{bits:.2f} bits per weight")
    if info.qp_density is not None:
        parts.append(f"qp density {info.qp_density}")
    if info.is_update:
        parts.append("an update: differences to a base model")
        if info.new:
            parts.append(f"{counted(len(info.new), 'tensor')} whole")
        if info.gone:
            parts.append(f"{counted(len(info.gone), 'tensor')} of the base model taken out")
    else:
        parts.append("a network with its graph" if info.has_graph else "tensors only")
    if info.measured is not None:
        parts.append(f"as its encoder measured: {info.measured.words}")
    if info.ties:
        parts.append(f"{counted(len(info.ties), 'tensor')} tied to others")
    if info.empty:
        parts.append(f"{counted(len(info.empty), 'tensor')} without elements")
    if info.wrapper is not None:
        parts.append(f"with what stood around them in a file of {info.wrapper}")
    if info.left_out:
        names = ", ".join(printable(left.name) for left in info.left_out[:5])
        parts.append(f"without {names}, which its encoder left out")
    parts.append(f"written by {printable(info.writer)}" if info.writer else "writer not known")
    return f"{path}: {', '.join(parts)}"


if __name__ == "__main__":
    sys.exit(main())
