"""Quantization that looks at what a network does: levels of least error of its output.

The layers are taken in the order in which they run. What each of them takes is measured behind the
layers that were quantized already; its weight is first fitted to that, then quantized with error
feedback, and its bias is corrected for the mean of its output to stay. Steps follow from one
condition, that a bit saves the same error of the output of the network wherever it is spent: at
high rates all weights then add the same to that error.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from nnrcodec.calibration.expectation import Expectation, expectation
from nnrcodec.calibration.moments import Moments
from nnrcodec.calibration.sensitivity import diagonal_of, sensitivities
from nnrcodec.calibration.synthetic import Inputs
from nnrcodec.calibration.walk import Stop, walk
from nnrcodec.config import EncoderConfig
from nnrcodec.encoder.tensor_coding import (
    FEWEST_ELEMENTS,
    Quantized,
    are_quantizable,
    quantize_by_search,
    quantize_uniform,
)
from nnrcodec.graph.graph import TensorRef
from nnrcodec.graph.layers import Layer, find_layers
from nnrcodec.graph.normalized import normalized_convolutions
from nnrcodec.model.dtypes import cast
from nnrcodec.model.model import Model, Tensor
from nnrcodec.progress import Progress
from nnrcodec.quant.search.feedback import Feedback, quantize_with_feedback
from nnrcodec.quant.search.trellis import dependent_qp
from nnrcodec.quant.step_size import dequantize, qp_of_step_size, step_size
from nnrcodec.quant.uniform import MAX_LEVEL
from nnrcodec.reduce.low_rank import own_bias
from nnrcodec.units.ndu_encoding import (
    DEFAULT_UNARY_LENGTH,
    effective_scan_order,
    qp_offset_range,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """A network of which the weights of layers are quantized.

    Parameters
    ----------
    model : Model
        With corrected biases and means; weights are the original ones.
    quantized : mapping of str to Quantized
        By name: weights, and biases that were corrected.
    """

    model: Model
    quantized: Mapping[str, Quantized]


def quantize_with_inputs(
    model: Model,
    inputs: Inputs,
    config: EncoderConfig,
    expected: Expectation | None = None,
    progress: Progress | None = None,
    weighting: Mapping[str, np.ndarray] | None = None,
) -> QuantizedModel:
    """Quantize the weights of all layers, such that the output of the network changes least.

    Parameters
    ----------
    model : Model
        With a graph.
    inputs : sequence of tuple of Tensor
        Calibration inputs.
    config : EncoderConfig
        Its qp is kept to, if there is one; else steps are such that each weight adds what one adds
        on the mean with the steps of quantization without inputs.
    expected : Expectation, optional
        What these do; by default to this model.
    progress : callable, optional
        Called after each layer.
    weighting : mapping of str to ndarray, optional
        The sensitivities of this model, or their diagonals, if they are known already.

    Returns
    -------
    QuantizedModel
        Layers of which the weight is used more than once, or cannot be quantized, are left out.

    Raises
    ------
    ConfigError
        If the inputs do not fit the model, or a step size that was asked for does not fit a tensor.
    ModelError
        If the model has no graph.
    """
    if weighting is None:
        weighting = sensitivities(model, inputs, diagonal=True)
    layers = []
    for layer in find_layers(model):
        if _has_steps(model.tensors[layer.weight]):
            layers.append(layer)
        else:
            logger.info(
                "layer %s is not quantized with calibration inputs: it has fewer than %d weights, "
                "or values so large, small or not finite that there is no step size for them",
                layer.name,
                FEWEST_ELEMENTS,
            )
    weights = {layer.weight for layer in layers}
    if expected is None:
        expected = expectation(model, inputs, config.quantization.qp_density, weighting)
    way = _Way(config, expected.each(config.quantization.scale), _shifts(model))
    if not way.error > 0:
        logger.warning(
            "no error is expected for the calibration inputs, so that step sizes follow from the "
            "scale of each weight alone; take inputs that differ"
        )
    tensors = dict(model.tensors)
    quantized: dict[str, Quantized] = {}
    done = 0
    for stop in walk(model, inputs):
        if stop.layer.weight in weights:
            quantized |= way.quantize(tensors, stop, diagonal_of(weighting[stop.layer.weight]))
            done += 1
            if progress is not None:
                progress(done, len(layers))
    return QuantizedModel(replace(model, tensors=tensors), quantized)


_GAINS = 0.5, 2.0
"""By how much the batch norm after a layer may be turned down or up."""


@dataclass(frozen=True, slots=True)
class _Shift:
    """A tensor that moves the output of a layer: up by its value, or down if it is a mean.

    Parameters
    ----------
    name : str
        Of the bias, or of the mean of the batch norm after the layer.
    variance : str or None
        Of that batch norm, which can make up for the scale of the output as well.
    eps : float
        Added to the variance.
    """

    name: str
    variance: str | None = None
    eps: float = 0.0

    def corrected(
        self,
        tensors: Mapping[str, Tensor],
        moments: Moments,
        original: np.ndarray,
        made: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Return the values with which the output of a weight comes nearest to the original one.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            As they are.
        moments : Moments
            Of what the layer takes.
        original, made : ndarray, shape (groups, rows, K)
            Its weight, and what has become of it.
        """
        value = tensors[self.name].read().astype(np.float64)
        change = moments.bias_change(original, made)
        if self.variance is None:
            return {self.name: value + change}
        # the batch norm shall give of y what it gave of gain * (y - mean of y) + original mean
        gain = np.clip(moments.gains(original, made), *_GAINS)
        mean = moments.output_mean(made)
        variance = tensors[self.variance].read().astype(np.float64)
        return {
            self.name: mean + (value - mean - change) / gain,
            self.variance: np.maximum((variance + self.eps) / gain**2 - self.eps, 0),
        }


@dataclass(frozen=True, slots=True)
class _Way:
    """How layers are quantized.

    Parameters
    ----------
    config : EncoderConfig
    error : float
        Squared error of the network's output that each weight may add.
    shifts : mapping of str to _Shift
        By weight, what can correct the mean of the output.
    """

    config: EncoderConfig
    error: float
    shifts: Mapping[str, _Shift]

    def quantize(
        self, tensors: dict[str, Tensor], stop: Stop, sensitivity: np.ndarray
    ) -> dict[str, Quantized]:
        """Quantize a weight, and what is corrected in `tensors`; return them by name.

        The walk goes on with what they become.
        """
        layer, density = stop.layer, self.config.quantization.qp_density
        tensor = tensors[layer.weight]
        original = layer.matrices(tensor.read())
        moments = stop.moments()
        shift = self.shifts.get(layer.weight)
        seen = moments if shift is None else moments.centered()
        target = seen.fitted(original)
        feedback = Feedback.of(seen.second, sensitivity.reshape(layer.groups, layer.rows))
        dq = self._can_depend(layer)
        if self.config.dq and self.config.entropy != "ans" and not dq:
            logger.info(
                "layer %s gets uniform instead of dependent quantization: its levels are not coded "
                "in the order in which they are searched, row by row",
                layer.name,
            )
        if not sensitivity.any() and self.config.quantization.asked_qp(original.ndim) is None:
            logger.warning(
                "layer %s has no influence on the output with these calibration inputs and gets "
                "the coarsest step size; take inputs that reach it, or give a qp",
                layer.name,
            )
        qp = self._qp(target, feedback.sensitivity if sensitivity.any() else 0.0)
        found = quantize_with_feedback(
            target,
            feedback,
            qp,
            density,
            lambda_=self.config.lambda_,
            dq=dq,
            unary_length=self.config.cabac.cabac_unary_length or DEFAULT_UNARY_LENGTH,
            name=tensor.name,
        )
        levels = layer.weight_of(found.levels)
        value = cast(dequantize(levels, qp, density), tensor.dtype)
        quantized = {tensor.name: Quantized(levels, qp, dq, value)}
        stop.replace(tensor.name, value)
        if shift is not None:
            made = layer.matrices(value)
            for name, values in shift.corrected(tensors, moments, original, made).items():
                tensors[name] = _with_values(tensors[name], values)
                has_steps = values.size >= FEWEST_ELEMENTS and are_quantizable(values)
                if name == shift.name and has_steps:
                    mean = float(sensitivity.mean())
                    quantized[name] = self._moved(tensors[name], mean, dq=dq)
                moved = quantized[name].value if name in quantized else tensors[name].read()
                stop.replace(name, moved)
        return quantized

    def _can_depend(self, layer: Layer) -> bool:
        """Return whether levels are searched in the order in which they are coded."""
        config = self.config
        by_row = effective_scan_order(layer.shape, config.cabac.scan_order) == 0
        return config.dq and config.entropy != "ans" and by_row and not layer.transposed

    def _moved(self, tensor: Tensor, sensitivity: float, *, dq: bool) -> Quantized:
        """Quantize what moves the output of a layer."""
        values, config = tensor.read(), self.config.quantization
        qp = self._qp(values, sensitivity)
        if dq and config.asked_qp(values.ndim) is None:
            least = qp_offset_range(config.qp_density)[0]
            qp = max(dependent_qp(qp, config.qp_density), least)
        return (quantize_by_search if dq else quantize_uniform)(tensor, values, self.config, qp)

    def _qp(self, values: np.ndarray, sensitivity: float) -> int:
        """Return the qp at which rounding would have each weight add the error that it may.

        It is taken for dependent quantization with feedback as well, which then adds less.
        """
        config, allowed = (
            self.config.quantization,
            qp_offset_range(self.config.quantization.qp_density),
        )
        asked = config.asked_qp(values.ndim)
        if asked is not None:
            return asked
        density, peak = config.qp_density, float(np.abs(values).max())
        step = coarsest = max(peak, step_size(allowed[0], density))
        if not self.error > 0:  # nothing varies that could tell
            step = step_size(config.qp_for(values), density)
        elif sensitivity > 0:
            step = min(math.sqrt(12 * self.error / sensitivity), coarsest)
        step = max(step, 2 * peak / MAX_LEVEL, step_size(allowed[0], density))
        return qp_of_step_size(step, density)


def _has_steps(tensor: Tensor) -> bool:
    """Return whether a weight is one that can be quantized."""
    return tensor.size >= FEWEST_ELEMENTS and are_quantizable(tensor.read())


def _shifts(model: Model) -> dict[str, _Shift]:
    """Return by weight what can correct the mean of a layer's output."""
    graph = model.graph
    if graph is None:
        return {}
    found = {
        n.weight: _Shift(n.running_mean, n.running_var, n.eps)
        for n in normalized_convolutions(model)
        if all(len(graph.users(TensorRef(name))) == 1 for name in (n.running_mean, n.running_var))
    }
    for layer in find_layers(model):
        bias = own_bias(model, layer.name)
        if bias is not None:
            found[layer.weight] = _Shift(bias.name)
    return found


def _with_values(tensor: Tensor, values: np.ndarray) -> Tensor:
    return Tensor.of(tensor.name, cast(values, tensor.dtype), tensor.dtype, tensor.role)
