"""nnr-eval: an original network against what streams make of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from nnrcodec.cli.command import Parser, Texts, print_json, progress_bar, read_stream, run, say
from nnrcodec.cli.table import printable, table
from nnrcodec.cli.task import add_task, check_task, task_of
from nnrcodec.cli.values import at_least
from nnrcodec.errors import ConfigError
from nnrcodec.formats import load
from nnrcodec.formats.mat.layers import Residual

if TYPE_CHECKING:
    from nnrcodec.evaluate import Evaluation
    from nnrcodec.evaluate.tables import Column

TASKS = ("psnr", "accuracy", "outputs")

TEXTS = Texts(
    name="nnr-eval",
    usage="MODEL STREAM [STREAM ...] [options]",
    summary="""\
Compare a network with the networks in its streams: size, memory, run time, and
quality, if --task and --data say how to measure it. Tasks:
  psnr      folder of NAME_orig.png and NAME_qp37_dec.png: PSNR of the output
  accuracy  .npz file with images and labels: top-1 accuracy
  outputs   .npy, .npz or .pt file, or pictures: how near the outputs are""",
    description="""\
Compare a network with the networks in its streams: size, memory, run time, and
how well they do their task.

Times are medians over rounds: in each round everything is measured once, in one
process, after one round to warm up. Memory is by how much the peak of a fresh
process grows. A model without a graph (a state dict) does not run: then sizes,
decoding and weights are compared.

tasks:
  psnr      DIR with NAME_orig.png and NAME_qp37_dec.png, 8 bits: PSNR of what
            the network makes of decoded pictures, clipped and rounded
  accuracy  .npz with images and labels: top-1 accuracy
  outputs   .npy, .npz or .pt with inputs, or pictures: signal-to-noise ratio
            of the outputs, against those of the original
(in Python any function of a network can be the task: nnrcodec.evaluate)""",
    common=(
        *("--task", "--data", "--input-size", "--rounds", "--threads", "--no-encode"),
        *("--no-memory", "--json", "--report"),
    ),
    examples="""\
examples:
  nnr-eval filter.pt2 filter.nnr
  nnr-eval filter.pt2 a.nnr b.nnr --task psnr --data pictures --report page
  nnr-eval net.pt2 net.nnr --task accuracy --data test.npz --mean 0.5 --std 0.2""",
    details="""\
--json prints one object; null is what was not measured, and a score that is
infinite (no error at all):
  name, task, baseline (the score without a network), input_shapes, rounds,
  threads, machine, notes
  networks   list of objects, the original first: label, parameters, fp32_bytes,
             coded_bytes, ratio, score, multiply_adds, encode_seconds,
             decode_seconds, run_seconds (median, quartiles), decode_memory,
             run_memory, layer_bytes, other_bytes, ranks, weight_errors (by
             name, relative, factors multiplied out)
             "score" has value, unit, groups, more; for psnr the groups are
             "QP", "picture" and "picture, QP"
  spectra    list of objects: layer, scheme, values, ranks

examples:
  nnr-eval filter.pt2 filter.nnr
  nnr-eval filter.pt2 a.nnr b.nnr --task psnr --data pictures --report page
  nnr-eval net.pt2 net.nnr --task accuracy --data test.npz --mean 0.48,0.46,0.41
  nnr-eval filter.pt2 a.nnr --input-size 720x1280 --json | jq .networks""",
)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = Parser(TEXTS)
    parser.add_argument("model", type=Path, metavar="MODEL", help="the original, a model file")
    parser.add_argument("streams", type=Path, metavar="STREAM", nargs="+", help="streams of it")
    parser.add_argument(
        "--key",
        metavar="NAME",
        help="which entry of a checkpoint the streams are of, as nnr-encode takes it",
    )
    parser.add_argument(
        "--residual",
        choices=get_args(Residual),
        help="what the output of a network of MatConvNet is, as nnr-encode takes it",
    )
    add_task(parser, TASKS)
    parser.add_argument(
        "--input-size",
        type=_size,
        metavar="HxW",
        help="size of the pictures to time networks on [96x96, or what the network takes]",
    )
    parser.add_argument(
        "--rounds",
        type=at_least(1),
        metavar="N",
        default=7,
        help="how many times to measure [%(default)s]",
    )
    parser.add_argument(
        "--threads",
        type=at_least(1),
        metavar="N",
        default=1,
        help="threads to run, encode and decode with, also those of PyTorch [%(default)s]",
    )
    parser.add_argument(
        "--no-encode", action="store_true", help="do not time encoding (by the weights alone)"
    )
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    parser.add_argument("--json", action="store_true", help="print JSON; --help-all describes it")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="write a page with plots, DIR/index.html"
    )
    parser.set_defaults(input=Path())  # the file at hand, for messages
    return run(parser, _evaluate, argv)


def _evaluate(options: argparse.Namespace) -> None:
    options.input = options.model
    check_task(options)
    from nnrcodec.evaluate.evaluation import compare
    from nnrcodec.evaluate.networks import coded_network, original_network
    from nnrcodec.evaluate.report import check_folder, write_report

    if options.report is not None:
        check_folder(options.report)
    streams = {path: read_stream(path) for path in options.streams}
    original = load(options.model, options.key, residual=options.residual)
    networks = [original_network(original)]
    for (path, data), label in zip(streams.items(), _labels(options.streams), strict=True):
        options.input = path
        networks.append(coded_network(label, data, original))
    options.input = options.model
    evaluation = compare(
        networks,
        task_of(options, original),
        name=options.model.name,
        input_size=options.input_size,
        rounds=options.rounds,
        threads=options.threads,
        encode_time=not options.no_encode,
        memory_use=not options.no_memory,
        stages=partial(progress_bar, unit=" steps", quiet=options.quiet),
    )
    page = None if options.report is None else write_report(evaluation, options.report)
    if options.json:
        print_json(evaluation.as_dict())
        return
    say(options, _lines(evaluation))
    if page is not None:
        say(options, [f"report: {page}"])


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return what to call streams: as little of their paths as tells them apart."""
    if len(set(paths)) < len(paths):
        raise ConfigError("a stream is given twice")
    for labels in ([path.stem for path in paths], [path.name for path in paths]):
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]


def _lines(evaluation: Evaluation) -> Iterator[str]:
    from nnrcodec.evaluate.tables import (
        conditions,
        cost_columns,
        group_grids,
        headline,
        size_columns,
    )

    yield from _networks(evaluation, size_columns(evaluation))
    costs = cost_columns(evaluation)
    if len(costs) > 1:
        yield ""
        yield from _networks(evaluation, costs)
    for grid in group_grids(evaluation):
        if grid.title != "picture, QP":  # long; it is in the JSON and on the page
            yield ""
            titles = [f"<{grid.title}", *(f">{printable(column)}" for column in grid.columns)]
            yield from table(titles, [[printable(name), *cells] for name, cells in grid.rows])
    yield ""
    yield from map(printable, conditions(evaluation))
    yield ""
    yield printable(headline(evaluation))


def _networks(evaluation: Evaluation, columns: Sequence[Column]) -> Iterator[str]:
    titles = [f"{'>' if number else '<'}{title}" for number, (title, _) in enumerate(columns)]
    return table(titles, [[printable(cell(n)) for _, cell in columns] for n in evaluation.networks])


def _size(text: str) -> tuple[int, ...]:
    return tuple(at_least(1)(part) for part in text.lower().split("x"))


if __name__ == "__main__":
    sys.exit(main())
