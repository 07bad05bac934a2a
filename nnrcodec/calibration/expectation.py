"""What quantization is expected to do to a network, before anything is quantized."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from nnrcodec.calibration.coverage import unmeasured_layers
from nnrcodec.calibration.sensitivity import diagonal_of, output_variance, sensitivities
from nnrcodec.calibration.synthetic import Inputs
from nnrcodec.calibration.walk import walk
from nnrcodec.model.model import Model
from nnrcodec.quant.step_size import step_size
from nnrcodec.quant.uniform import UniformConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Expectation:
    """The error of a network's output that default step sizes are expected to make.

    Parameters
    ----------
    variance : float
        Of the output; what errors are parts of.
    error : float
        Mean squared error of the output with the default steps of scale 1, not as a part.
    elements : int
        Weights that add to it.
    weighting : mapping of str to ndarray
        The sensitivities that it was estimated with, by default the diagonals alone.
    """

    variance: float
    error: float
    elements: int
    weighting: Mapping[str, np.ndarray] = field(repr=False, compare=False)

    def each(self, scale: float) -> float:
        """Return the squared error that each weight may add if all add the same."""
        return self.error * scale**2 / max(self.elements, 1)

    def part(self, scale: float) -> float:
        """Return the error as part of the variance."""
        return self.error * scale**2 / self.variance


def expectation(
    model: Model,
    inputs: Inputs,
    qp_density: int = 2,
    weighting: Mapping[str, np.ndarray] | None = None,
) -> Expectation:
    """Estimate the error of the output that quantization without inputs makes.

    Steps then follow the scale of each tensor; errors of rounding are independent, and of a twelfth
    of the squared step.

    Parameters
    ----------
    model : Model
        With a graph.
    inputs : sequence of tuple of Tensor
        Calibration inputs.
    qp_density : int
        See `nnrcodec.quant.step_size.step_size`.
    weighting : mapping of str to ndarray, optional
        The sensitivities of the model, or their diagonals, if they are known already.
    """
    for name, reason in unmeasured_layers(model).items():
        logger.warning(
            "layer %s is coded by its weights alone, without the calibration inputs: %s; if the "
            "output changes too much, take a smaller scale or qp",
            name,
            reason,
        )
    if weighting is None:
        weighting = sensitivities(model, inputs, diagonal=True)
    config = replace(UniformConfig(), qp_density=qp_density)
    error, elements = 0.0, 0
    for stop in walk(model, inputs):
        layer = stop.layer
        values = model.tensors[layer.weight].read()
        if not np.isfinite(values).all():
            logger.warning(
                "layer %s has weights that are not finite: it is stored as it is, and does not "
                "count in the expected error; check the training",
                layer.name,
            )
            continue
        step = step_size(config.qp_for(values), qp_density)
        noise = step**2 / 12 * layer.columns * stop.input_variance()
        error += float(diagonal_of(weighting[layer.weight]).sum()) * noise
        elements += math.prod(layer.shape)
    return Expectation(output_variance(model, inputs), error, elements, weighting)
