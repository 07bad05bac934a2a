"""The expected output error of quantization, before anything is quantized."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from nnrcodec.calibration.coverage import unmeasured_layers
from nnrcodec.calibration.sensitivity import diagonal_of, sensitivities
from nnrcodec.calibration.synthetic import Inputs
from nnrcodec.calibration.walk import walk
from nnrcodec.graph.layers import weights_outside_layers
from nnrcodec.messages import logger_of
from nnrcodec.model.model import Model
from nnrcodec.quant.step_size import step_size
from nnrcodec.quant.uniform import UniformConfig

logger = logger_of(__name__)


@dataclass(frozen=True, slots=True)
class Expectation:
    """The expected error of a network's output with default step sizes.

    Parameters
    ----------
    error : float
        Relative squared error of the outputs (`nnrcodec.calibration.outputs`) with default step
        sizes of scale 1.
    elements : int
        Number of weights that contribute to it.
    output_sensitivities : mapping of str to ndarray
        The Gauss-Newton output sensitivities that it was estimated with, by weight name; by default
        only their diagonals.
    """

    error: float
    elements: int
    output_sensitivities: Mapping[str, np.ndarray] = field(repr=False, compare=False)

    def error_per_weight(self, scale: float) -> float:
        """Return the relative output error for one weight, if all weights contribute the same."""
        return self.relative_error(scale) / max(self.elements, 1)

    def relative_error(self, scale: float) -> float:
        """Return the relative squared error of the outputs with steps of another scale."""
        return self.error * scale**2


def expectation(
    model: Model,
    inputs: Inputs,
    qp_density: int = 2,
    output_sensitivities: Mapping[str, np.ndarray] | None = None,
) -> Expectation:
    """Estimate the output error of quantization by the weights alone.

    Its step sizes follow from the scale of each tensor. Rounding errors are taken to be
    independent, with a variance of a twelfth of the squared step size.

    Parameters
    ----------
    model : Model
        With a graph.
    inputs : sequence of tuple of Tensor
        Calibration inputs.
    qp_density : int
        See `nnrcodec.quant.step_size.step_size`.
    output_sensitivities : mapping of str to ndarray, optional
        The output sensitivities of the model, or their diagonals, if they are known already.
    """
    for name, reason in unmeasured_layers(model).items():
        logger.warning(
            "layer %s is not fitted to the calibration inputs, which only tell its step size: %s; "
            "if the output changes too much, take a smaller scale or qp",
            name,
            reason,
        )
    if output_sensitivities is None:
        output_sensitivities = sensitivities(model, inputs, diagonal=True)
    config = replace(UniformConfig(), qp_density=qp_density)
    error, elements = 0.0, 0
    for visit in walk(model, inputs):
        layer = visit.layer
        values = model.tensors[layer.weight].read()
        if not np.isfinite(values).all():
            logger.warning(
                "layer %s has weights that are not finite: it is stored as it is, and does not "
                "count in the expected error; check the training",
                layer.name,
            )
            continue
        step = step_size(config.qp_for(values, layer.weight), qp_density)
        noise = step**2 / 12 * layer.columns * visit.input_variance()
        error += float(diagonal_of(output_sensitivities[layer.weight]).sum()) * noise
        elements += math.prod(layer.shape)
    for name in weights_outside_layers(model):
        values = model.tensors[name].read()
        sensitivity = float(output_sensitivities[name])
        if sensitivity > 0 and np.isfinite(values).all():
            step = step_size(config.qp_for(values, name), qp_density)
            error += sensitivity * values.size * step**2 / 12
            elements += values.size
    return Expectation(error, elements, output_sensitivities)
