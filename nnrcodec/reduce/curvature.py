"""The curvature of the error of a network's output, layer by layer, and steps that follow it.

After layers of low rank are fitted, the error is far steeper in some directions than in others: in
that of the mean that activations share, by a factor of thousands. Steps along the gradient have to
be so small for these that nothing is learned in the others. For each layer the second derivative is
about the product of two matrices, the second moment of its input and the sensitivity of the
network's output to its own (J. Martens, R. Grosse, "Optimizing neural networks with
Kronecker-factored approximate curvature", ICML 2015). Both are what calibration measures; the
inverses of both turn a gradient into a step that goes as far in all directions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nnrcodec.calibration.sensitivity import sensitivities
from nnrcodec.calibration.walk import walk
from nnrcodec.graph.layers import Layer
from nnrcodec.model.model import Model

MOST_INPUTS = 32
"""Calibration inputs that the curvature is measured with."""

_WIDEST = 2304
"""Columns and rows of the matrices that are inverted."""

_DAMPING = 2e-3
"""What is added to a matrix before it is inverted, as part of its mean eigenvalue."""


@dataclass(frozen=True, slots=True)
class LayerCurvature:
    """The inverse curvature of a layer.

    Parameters
    ----------
    layer : Layer
    inputs : torch.Tensor
        Inverse of the second moment of its input, shape (groups, K, K); with a bias a one is
        behind each patch, so K is one more.
    outputs : torch.Tensor
        Inverse of the sensitivity to its output, shape (N, N).
    has_bias : bool
        Whether its bias learns, too.
    places : tuple of torch.Tensor
        Which element of the weight is where in its matrices (`Layer.matrices`), and the reverse.
    """

    layer: Layer
    inputs: torch.Tensor
    outputs: torch.Tensor
    has_bias: bool
    places: tuple[torch.Tensor, torch.Tensor]

    def step(
        self, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the steps for the gradients of the weight and the bias."""
        of_weight, of_matrices = self.places
        rows = weight.flatten()[of_weight]
        if self.has_bias and bias is not None:
            rows = torch.cat([rows, bias.reshape(1, -1, 1)], 2)
        steps = rows @ self.inputs
        steps = (self.outputs @ steps.flatten(0, 1)).view(steps.shape)
        if not self.has_bias or bias is None:
            return steps.flatten()[of_matrices], None
        return steps[..., :-1].flatten()[of_matrices], steps[..., -1].reshape(bias.shape)


def curvature_of(
    model: Model, inputs: Sequence[tuple[torch.Tensor, ...]], learned: Mapping[str, torch.Tensor]
) -> dict[str, LayerCurvature]:
    """Measure the curvature of the layers of a network.

    Parameters
    ----------
    model : Model
        With a graph.
    inputs : sequence of tuple of Tensor
        Calibration inputs, of which some are taken.
    learned : mapping of str to Tensor
        The parameters that learn, by name.

    Returns
    -------
    dict of str to LayerCurvature
        By the name of the weight; without layers that are too large, or have no influence.
    """
    probes = inputs[:: max(len(inputs) // MOST_INPUTS, 1)][:MOST_INPUTS]
    of_outputs = sensitivities(model, probes)
    found: dict[str, LayerCurvature] = {}
    for visit in walk(model, probes):
        layer = visit.layer
        sensitivity = of_outputs[layer.weight]
        widest = max(layer.columns, layer.outputs)
        if layer.weight not in learned or widest > _WIDEST or not np.trace(sensitivity) > 0:
            continue
        moments = visit.moments()
        has_bias = layer.groups == 1 and layer.bias in learned
        second = moments.second_moment
        if has_bias:
            mean = moments.mean[:, None]
            second = np.block([[second, mean.swapaxes(1, 2)], [mean, np.ones((1, 1, 1))]])
        found[layer.weight] = LayerCurvature(
            layer, _inverse(second), _inverse(sensitivity), has_bias, _places(layer)
        )
    return found


def _inverse(matrices: np.ndarray) -> torch.Tensor:
    k = matrices.shape[-1]
    means = np.trace(matrices, axis1=-2, axis2=-1)[..., None, None] / k
    damped = matrices + np.where(means > 0, _DAMPING * means, 1.0) * np.eye(k)
    return torch.from_numpy(np.linalg.inv(damped)).float()


def _places(layer: Layer) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which elements of a weight its matrices have, and which of these the weight has."""
    numbers = np.arange(math.prod(layer.shape))
    matrices = layer.matrices(numbers.reshape(layer.shape))
    weight = layer.weight_of(numbers.reshape(matrices.shape))
    return torch.from_numpy(matrices.copy()), torch.from_numpy(weight.copy())
