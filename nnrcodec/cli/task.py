"""The options of quality metrics: ``--task`` and ``--data``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnrcodec.errors import ConfigError

if TYPE_CHECKING:
    from nnrcodec.evaluate import Task
    from nnrcodec.model.model import Model


def add_task(group: argparse._ActionsContainer, tasks: tuple[str, ...]) -> None:
    """Add the options of a task, one of those named."""
    group.add_argument("--task", choices=tasks, help="how to measure the quality of the network")
    group.add_argument("--data", type=Path, metavar="PATH", help="the data that the task needs")
    group.add_argument(
        "--mean",
        type=_numbers,
        metavar="M[,M,M]",
        help="for accuracy: subtracted from 8-bit images after division by 255 [0]",
    )
    group.add_argument(
        "--std",
        type=_numbers,
        metavar="S[,S,S]",
        help="for accuracy: the images are then divided by this [1]",
    )


def check_task(options: argparse.Namespace) -> None:
    """Refuse options that do not go together, before anything is read."""
    if (options.task is None) != (options.data is None):
        raise ConfigError("--task and --data go together: what is measured, and on what")
    if options.task != "accuracy" and (options.mean is not None or options.std is not None):
        raise ConfigError("--mean and --std are for the images of --task accuracy")
    if options.data is not None and "*" not in options.data.name and not options.data.exists():
        raise ConfigError(f"cannot read {options.data}: No such file or directory")


def task_of(options: argparse.Namespace, original: Model) -> Task | None:
    """Return the task that options ask for, if they do."""
    from nnrcodec.evaluate import AccuracyTask, OutputsTask, PsnrTask
    from nnrcodec.evaluate.networks import picture_channels

    if options.task == "psnr":
        return PsnrTask(options.data, picture_channels(original))
    if options.task == "accuracy":
        return AccuracyTask(options.data, options.mean or (0.0,), options.std or (1.0,))
    return OutputsTask(original, options.data) if options.task == "outputs" else None


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text} is not allowed, expected numbers with commas between them"
        ) from None
