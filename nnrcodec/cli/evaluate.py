"""nnr-eval: an original network against what streams make of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from nnrcodec.cli.command import parser, progress_bar, run
from nnrcodec.cli.table import printable, table
from nnrcodec.errors import ConfigError

if TYPE_CHECKING:
    from nnrcodec.evaluate import Evaluation, Task

TASKS = ("psnr", "accuracy", "outputs")

DESCRIPTION = """\
Compare a network with what streams make of it: size, memory, run time, and how
well it does what it is there for.

Networks run in turn in one process, round after round, after one round to warm
up; what counts is the median. Memory is the growth of the peak of a fresh
process for each network. A model without a graph (a state dict) does not run:
only sizes and decoding are compared.

tasks:
  psnr      DIR with NAME_orig.png and NAME_qp37_dec.png, 8 bits: PSNR of what
            the network makes of decoded pictures, clipped and rounded
  accuracy  .npz with images and labels: top-1 accuracy
  outputs   .npy, .npz or .pt with inputs, or pictures: signal-to-noise ratio
            of the outputs, against those of the original"""

DETAILS = """\
examples:
  nnr-eval filter.pt2 filter.nnr
  nnr-eval filter.pt2 a.nnr b.nnr --task psnr --data pictures --report page
  nnr-eval net.pt2 net.nnr --task accuracy --data test.npz --mean 0.485,0.456,0.406
  nnr-eval filter.pt2 a.nnr --input-size 720x1280 --json | jq .networks"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    made = parser("nnr-eval", DESCRIPTION, DETAILS)
    made.add_argument("model", type=Path, metavar="MODEL", help="the original, a model file")
    made.add_argument("streams", type=Path, metavar="STREAM", nargs="+", help="what was coded")
    made.add_argument("--task", choices=TASKS, help="what the network is there for")
    made.add_argument("--data", type=Path, metavar="PATH", help="what the task needs, see above")
    made.add_argument(
        "--mean", type=_numbers, default=(0.0,), help="taken off 8-bit images after / 255 [0]"
    )
    made.add_argument(
        "--std", type=_numbers, default=(1.0,), help="that they are divided by then [1]"
    )
    made.add_argument(
        "--input-size", type=_size, metavar="HxW", help="pictures to time networks on [96x96]"
    )
    made.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="timings of each [%(default)s]"
    )
    made.add_argument(
        "--threads", type=int, default=1, metavar="N", help="threads of PyTorch [%(default)s]"
    )
    made.add_argument(
        "--no-encode", action="store_true", help="do not time encoding (with default options)"
    )
    made.add_argument("--no-memory", action="store_true", help="do not measure memory")
    made.add_argument("--json", action="store_true", help="print JSON")
    made.add_argument(
        "--report", type=Path, metavar="DIR", help="write a page with plots, DIR/index.html"
    )
    return run(made, _evaluate, argv)


def task_of(
    name: str | None,
    data: Path | None,
    model: Path,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
) -> Task | None:
    """Return the task that options ask for.

    Parameters
    ----------
    name : str, optional
        Of `TASKS`.
    data : Path, optional
        What it needs.
    model : Path
        The original network.
    mean, std : tuple of float
        For 8-bit images of a classifier.

    Raises
    ------
    ConfigError
        If one is given without the other, or the data is not what the task needs.
    """
    if (name is None) != (data is None):
        raise ConfigError("--task and --data go together: what is measured, and on what")
    if name is None or data is None:
        return None
    from nnrcodec.evaluate import AccuracyTask, OutputsTask, PsnrTask
    from nnrcodec.evaluate.networks import original_of, running

    if name == "psnr":
        return PsnrTask(data)
    if name == "accuracy":
        return AccuracyTask(data, mean, std)
    original = original_of(model)
    if original.graph is None:
        raise ConfigError(f"{model} has no graph, so there are no outputs to compare")
    return OutputsTask(data, original.graph, running(original))


def _evaluate(options: argparse.Namespace) -> None:
    if options.rounds < 1 or options.threads < 1:
        raise ConfigError("--rounds and --threads are at least 1")
    from nnrcodec.evaluate import evaluate, write_report

    task = task_of(options.task, options.data, options.model, options.mean, options.std)
    labels = [path.stem for path in options.streams]
    if len(set(labels)) < len(labels):
        labels = [str(path) for path in options.streams]
    if len(set(labels)) < len(labels):
        raise ConfigError("a stream is given twice")
    evaluation = evaluate(
        options.model,
        dict(zip(labels, options.streams, strict=True)),
        task,
        input_size=options.input_size,
        rounds=options.rounds,
        threads=options.threads,
        encode_time=not options.no_encode,
        memory_use=not options.no_memory,
        stages=progress_bar,
    )
    page = write_report(evaluation, options.report) if options.report else None
    if options.json:
        print(json.dumps(asdict(evaluation), indent=2))
        return
    for line in _lines(evaluation):
        print(line)
    if page is not None:
        print(f"report: {page}")


def _lines(evaluation: Evaluation) -> Iterator[str]:
    from nnrcodec.evaluate.report import columns, conditions, headline

    shown = columns(evaluation)
    titles = [("<" if not number else ">") + title for number, (title, _) in enumerate(shown)]
    rows = [[printable(cell(n)) for _, cell in shown] for n in evaluation.networks]
    yield from table(titles, rows)
    score = evaluation.original.score
    if score is not None and score.parts:
        yield ""
        parts = list(score.parts)
        rows = [
            [printable(n.label), *(f"{n.score.parts[part]:.3f}" for part in parts)]
            for n in evaluation.networks
            if n.score
        ]
        yield from table([f"<{evaluation.task}", *(f">{printable(p)}" for p in parts)], rows)
    yield ""
    yield conditions(evaluation)
    yield printable(headline(evaluation))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _size(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.lower().split("x"))


if __name__ == "__main__":
    sys.exit(main())
