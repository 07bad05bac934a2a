"""Scores of networks for which there are no labels, so that a loss can be limited all the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nnrcodec.calibration.inputs import is_folder_of_pairs
from nnrcodec.calibration.sensitivity import output_variance, real_tensors
from nnrcodec.errors import ConfigError
from nnrcodec.evaluate.networks import picture_channels
from nnrcodec.evaluate.tasks import PsnrTask
from nnrcodec.graph.module import build_module
from nnrcodec.model.model import Model

if TYPE_CHECKING:
    from nnrcodec.calibration.synthetic import Inputs

ScoreOf = Callable[[torch.nn.Module], float]

FILTERED_PSNR = 45.0
"""PSNR in dB that a filter of pictures is taken to reach where their originals are not known. Where
it reaches less, an error of its output costs less as well."""


def score_for(unit: str, calib: str | None, model: Model, inputs: Inputs | None) -> ScoreOf:
    """Return a score by which the loss of a network can be measured without a task.

    Parameters
    ----------
    unit : str
        Of the loss: "dB" is PSNR of filtered pictures, "%" the squared error of the outputs as part
        of their variance, on calibration inputs.
    calib : str, optional
        Where the calibration inputs are from; of a folder of pairs, gray or RGB as the network
        takes them, the PSNR is measured.
    model : Model
        The original, with a graph.
    inputs : sequence of tuple of Tensor, optional
        Calibration inputs.

    Raises
    ------
    ConfigError
        If there are no inputs, or the network is no filter of pictures and the unit is dB.
    """
    if unit == "dB" and calib is not None and is_folder_of_pairs(Path(calib)):
        task = PsnrTask(calib, picture_channels(model))
        return lambda module: task.score(module).value
    if inputs is None:
        raise ConfigError("a loss is measured on calibration inputs, or by a task: give either")
    wanted = _outputs(build_module(model), inputs)
    if unit != "dB":
        variance = output_variance(model, inputs)
        return lambda module: -100 * _error(wanted, _outputs(module, inputs)) / variance
    for values, made in zip(inputs, wanted, strict=True):
        if len(made) != 1 or made[0].ndim != 4 or made[0].shape != values[0].shape:
            raise ConfigError(
                "a loss in dB is for networks that make pictures of pictures: give --task and "
                "--data, or a loss in %"
            )
    floor = 10 ** (-FILTERED_PSNR / 10)
    return lambda module: _estimated(wanted, _outputs(module, inputs), floor)


def _estimated(
    wanted: list[list[torch.Tensor]], made: list[list[torch.Tensor]], floor: float
) -> float:
    """Return the negative loss of PSNR, in dB, of pictures from 0 to 1; mean over all."""
    losses = [
        10 * math.log10(1 + _error([a], [b]) / floor) for a, b in zip(wanted, made, strict=True)
    ]
    return -sum(losses) / len(losses)


def _outputs(module: torch.nn.Module, inputs: Inputs) -> list[list[torch.Tensor]]:
    with torch.inference_mode():
        return [[real.clone() for real in real_tensors(module(*each))] for each in inputs]


def _error(wanted: list[list[torch.Tensor]], made: list[list[torch.Tensor]]) -> float:
    total, elements = 0.0, 0
    for a, b in zip(wanted, made, strict=True):
        for left, right in zip(a, b, strict=True):
            total += float((left.double() - right.double()).square().sum())
            elements += left.numel()
    return total / max(elements, 1)
