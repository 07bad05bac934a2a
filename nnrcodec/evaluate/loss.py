"""Scores of networks without labels, so that their loss can also be limited."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nnrcodec.calibration.inputs import is_folder_of_pairs
from nnrcodec.calibration.outputs import Variation, real_tensors
from nnrcodec.errors import ConfigError
from nnrcodec.evaluate.networks import picture_channels
from nnrcodec.evaluate.tasks import PsnrTask
from nnrcodec.graph.module import build_module
from nnrcodec.messages import logger_of
from nnrcodec.model.model import Model
from nnrcodec.parallel import one_torch_thread

if TYPE_CHECKING:
    from nnrcodec.calibration.synthetic import Inputs

logger = logger_of(__name__)

ScoreOf = Callable[[torch.nn.Module], float]

FILTERED_PSNR = 45.0
"""PSNR of filtered pictures, in dB, where their originals are not known: it is assumed to be no
higher, so that an error of the output may cost less than estimated, but not more."""

MOST_GAINED = 10.0
"""By how many dB a filter improves the PSNR at most, as is assumed where originals are not known.

What it changes is then at most nine times the error that it leaves, if the two are orthogonal, as
they are for a filter that cannot be improved by doing more or less of the same."""


def score_for(unit: str, calib: str | None, model: Model, inputs: Inputs | None) -> ScoreOf:
    """Return a score by which the loss of a network can be measured without a task.

    Parameters
    ----------
    unit : str
        Unit of the loss: "dB" is PSNR of filtered pictures, "%" the squared error of the outputs
        relative to the variance of each, on the inputs.
    calib : str, optional
        Source of the calibration inputs; for a folder of pairs, gray or RGB as the network takes
        them, the PSNR is measured.
    model : Model
        The original, with a graph.
    inputs : sequence of tuple of Tensor, optional
        Inputs to measure with, best those that nothing was fitted to.

    Raises
    ------
    ConfigError
        If there are no inputs, or the unit is dB and the network is not a filter of pictures.
    """
    if unit == "dB" and calib is not None and is_folder_of_pairs(Path(calib)):
        task = PsnrTask(calib, picture_channels(model))
        return lambda module: task.score(module).value
    if inputs is None:
        raise ConfigError("a loss is measured on calibration inputs, or by a task: give either")
    with one_torch_thread():  # as in the encoder, where other outputs are compared with these
        original = _outputs(build_module(model), inputs)
    if unit != "dB":
        signals = Variation(original)
        return lambda module: (
            -100 * signals.error(_squared_errors(original, _outputs(module, inputs)))
        )
    for values, outputs in zip(inputs, original, strict=True):
        if len(outputs) != 1 or outputs[0].ndim != 4 or outputs[0].shape != values[0].shape:
            raise ConfigError(
                "a loss in dB is for networks with pictures as input and output: give --task and "
                "--data, or a loss in %"
            )
    left = _left_errors(original, inputs)
    logger.warning(
        "the loss in dB is estimated, as the originals of the pictures are not known: it is "
        "assumed that the network gains %g dB at most, and that what it returns has a PSNR of %g "
        "dB at most; so the PSNR before coding is taken to be %.1f dB. Give a folder of pairs to "
        "measure the loss",
        MOST_GAINED,
        FILTERED_PSNR,
        -10 * math.log10(sum(left) / len(left) / _range(original) ** 2),
    )
    return lambda module: _estimated(original, _outputs(module, inputs), left)


def _left_errors(original: list[list[torch.Tensor]], inputs: Inputs) -> list[float]:
    """Return the mean squared error that a filter is assumed to leave, of each of its outputs."""
    least = 10 ** (-FILTERED_PSNR / 10) * _range(original) ** 2
    changes = (
        _error([[values[0]]], [outputs]) for values, outputs in zip(inputs, original, strict=True)
    )
    return [max(least, change / (10 ** (MOST_GAINED / 10) - 1)) for change in changes]


def _range(outputs: list[list[torch.Tensor]]) -> float:
    """Return the largest difference of two values; 1 if there is none."""
    values = [value for parts in outputs for value in parts]
    extent = max(float(v.max()) for v in values) - min(float(v.min()) for v in values)
    return extent if extent > 0 else 1.0


def _estimated(
    original: list[list[torch.Tensor]], changed: list[list[torch.Tensor]], left: list[float]
) -> float:
    """Return the negative loss of PSNR, in dB; mean over all pictures."""
    pictures = zip(original, changed, left, strict=True)
    losses = [10 * math.log10(1 + _error([a], [b]) / error) for a, b, error in pictures]
    return -sum(losses) / len(losses)


def _outputs(module: torch.nn.Module, inputs: Inputs) -> list[list[torch.Tensor]]:
    with torch.inference_mode():
        return [[real.clone() for real in real_tensors(module(*values))] for values in inputs]


def _squared_errors(
    original: list[list[torch.Tensor]], changed: list[list[torch.Tensor]]
) -> list[float]:
    """Return the sum of squared errors of each output."""
    return [
        sum(
            float((a.double() - b.double()).square().sum())
            for a, b in zip(reference, other, strict=True)
        )
        for reference, other in zip(
            zip(*original, strict=True), zip(*changed, strict=True), strict=True
        )
    ]


def _error(original: list[list[torch.Tensor]], changed: list[list[torch.Tensor]]) -> float:
    elements = sum(value.numel() for outputs in original for value in outputs)
    return sum(_squared_errors(original, changed)) / max(elements, 1)
