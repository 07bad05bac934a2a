"""The outputs of a network: which of them are compared, and by how much they vary.

An error counts relative to the variance of its output about the means of its channels. What is the
same for all inputs tells nothing: in nearly all places the background of a detector has a score
near 1, and an error of 2 % of that can be as large as all that a face changes. Of several outputs,
all count the same, whatever their units and sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from nnrcodec.calibration.inputs import Inputs, require_fit, running
from nnrcodec.graph.module import DecodedModel
from nnrcodec.messages import logger_of
from nnrcodec.parallel import in_order, torch_threads

logger = logger_of(__name__)

_ENOUGH = 16
"""Values of a channel, at least, for its mean; with few, means follow what varies."""

_ROUNDING = 1e-12
"""Variances below this part of the mean square are errors of rounding."""


def real_tensors(output: Any) -> list[torch.Tensor]:
    """Return all tensors of real numbers in what a network returns."""
    if isinstance(output, torch.Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        output = list(output.values())
    items = output if isinstance(output, list | tuple) else []
    return [tensor for item in items for tensor in real_tensors(item)]


class Variation:
    """How much each output of a network varies, from call to call.

    Parameters
    ----------
    calls : iterable of sequence of Tensor
        All real outputs of one call after the other.

    Attributes
    ----------
    elements : list of int
        Number of values of each output, in all calls.
    variances : list of float
        Variance of each output about the means of its channels; never 0. Channels are the axis, of
        those after the first with `_ENOUGH` values for each mean, whose means explain most, if any
        do. If an output does not vary, its mean square is taken; if that is 0, 1.
    scales : list of float
        Factors for the errors of each output, after which their squares add up to `error`.
    """

    def __init__(self, calls: Iterable[Sequence[torch.Tensor]]) -> None:
        outputs: list[_Sums] = []
        for call in calls:
            if not outputs:
                outputs = [_Sums(output) for output in call]
            for sums, output in zip(outputs, call, strict=True):
                sums.add(output.detach().double())
        self.elements = [sums.elements for sums in outputs]
        self.variances = [sums.variance() for sums in outputs]
        filled = sum(elements > 0 for elements in self.elements)
        self.scales = [
            1 / math.sqrt(filled * elements * variance) if elements else 0.0
            for elements, variance in zip(self.elements, self.variances, strict=True)
        ]

    def error(self, squares: Sequence[float]) -> float:
        """Return the mean squared error relative to the variance, mean over all outputs.

        Parameters
        ----------
        squares : sequence of float
            Of each output, the sum of squared errors.
        """
        return sum(square * scale**2 for square, scale in zip(squares, self.scales, strict=True))


class _Sums:
    """Sums over the values of an output."""

    def __init__(self, first: torch.Tensor) -> None:
        self.elements, self._squares = 0, 0.0
        self._shape = first.shape
        self._by_axis = {
            axis: torch.zeros(size, dtype=torch.float64)
            for axis, size in enumerate(first.shape)
            if axis and size > 1
        }
        self._total = 0.0

    def add(self, output: torch.Tensor) -> None:
        self.elements += output.numel()
        self._total += float(output.sum())
        self._squares += float(output.square().sum())
        for axis, sums in list(self._by_axis.items()):
            if output.ndim == len(self._shape) and output.shape[axis] == len(sums):
                sums += output.movedim(axis, 0).reshape(len(sums), -1).sum(1)
            else:
                del self._by_axis[axis]

    def variance(self) -> float:
        explained = [(self._total**2 / max(self.elements, 1), 1)]
        for sums in self._by_axis.values():
            each = self.elements / len(sums)
            if each >= _ENOUGH:
                explained.append((float(sums.square().sum()) / each, len(sums)))
        variances = [
            (self._squares - part) / (self.elements - means)
            for part, means in explained
            if self.elements > means
        ]
        power = self._squares / max(self.elements, 1)
        for variance in (min(variances, default=0.0), power):
            if variance > _ROUNDING * power and math.isfinite(variance):
                return variance
        logger.warning(
            "an output of the network does not vary: its error is not given as part of its "
            "variance, but as it is; take calibration inputs for which the output varies"
        )
        return 1.0


def variation(module: DecodedModel, inputs: Inputs) -> Variation:
    """Measure how much each output of a network varies.

    Raises
    ------
    ConfigError
        If the network does not run with these inputs.
    """
    require_fit(module._nnr_graph, inputs)

    def run(values: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        with torch.inference_mode():
            return real_tensors(module(*(value.clone() for value in values)))

    with running():
        return Variation(in_order(run, inputs, torch_threads(), ahead=1))
