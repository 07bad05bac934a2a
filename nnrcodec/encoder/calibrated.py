"""Quantization with calibration inputs: levels for the lowest output error of the network.

Layers are quantized in the order in which they run, each with the input that the already quantized
layers produce:

- The weight is fitted to that input by ridge regression (`Moments.fitted`).
- It is quantized with error feedback, column by column, as in E. Frantar et al., "GPTQ", ICLR 2023
  (`nnrcodec.quant.search.feedback`).
- The bias, or the mean of the batch norm after the layer, is corrected so that the mean output
  stays (bias correction, M. Nagel et al., "Data-free quantization through weight equalization and
  bias correction", ICCV 2019).

Step sizes follow from the output sensitivities: one more bit saves the same output error in every
layer. At high rates this holds if all weights contribute the same error. Weights outside of layers,
such as embedding tables and the gates of recurrent layers, are quantized first, at such step sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from nnrcodec.calibration.expectation import Expectation, expectation
from nnrcodec.calibration.moments import Moments
from nnrcodec.calibration.sensitivity import diagonal_of, sensitivities
from nnrcodec.calibration.synthetic import Inputs
from nnrcodec.calibration.walk import LayerVisit, walk
from nnrcodec.config import EncoderConfig
from nnrcodec.encoder.levels import levels_at
from nnrcodec.encoder.overrides import ConfigOf, config_of, kept
from nnrcodec.entropy.cabac.level_syntax import DEFAULT_UNARY_LENGTH, effective_scan_order
from nnrcodec.graph.graph import TensorRef
from nnrcodec.graph.layers import Layer, find_layers, weights_outside_layers
from nnrcodec.graph.normalized import normalized_convolutions
from nnrcodec.messages import logger_of
from nnrcodec.model.dtypes import cast
from nnrcodec.model.model import Model, Tensor
from nnrcodec.parallel import in_order
from nnrcodec.progress import Progress
from nnrcodec.quant.policy import Policy
from nnrcodec.quant.prior import MEAN as PRIOR_MEAN
from nnrcodec.quant.prior import has_prior, prior_moment
from nnrcodec.quant.quantized import FEWEST_ELEMENTS, Quantized, are_quantizable
from nnrcodec.quant.search.feedback import Feedback, quantize_with_feedback
from nnrcodec.reduce.low_rank import own_bias

logger = logger_of(__name__)

PRIOR_SHARE = 0.5
"""How much inputs in general (`nnrcodec.quant.prior`) count beside those that were made up: a
weight is to work for others as well."""

_PRIOR_INPUTS, _LEAST_SHARE = 1.0, 0.03
"""Beside those that were given they count as one of them, but at least for so much: what is given
may be all of one kind."""


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """A network and the levels of its layers.

    Parameters
    ----------
    model : Model
        The network with corrected biases and means, but with the original weights.
    quantized : mapping of str to Quantized
        Levels by name of the tensor: of weights, and of corrected biases.
    """

    model: Model
    quantized: Mapping[str, Quantized]


def quantize_with_inputs(
    model: Model,
    inputs: Inputs,
    config: EncoderConfig,
    expected: Expectation | None = None,
    progress: Progress | None = None,
    output_sensitivities: Mapping[str, np.ndarray] | None = None,
    share: float = PRIOR_SHARE,
) -> QuantizedModel:
    """Quantize the weights of all layers for the lowest output error of the network.

    Parameters
    ----------
    model : Model
        With a graph.
    inputs : sequence of tuple of Tensor
        Calibration inputs.
    config : EncoderConfig
        If it has a qp, that is used. Otherwise each weight contributes the same output error: the
        mean of what quantization by the weights alone is expected to cause.
    expected : Expectation, optional
        That expected error; by default it is estimated for this model.
    progress : callable, optional
        Called after each layer.
    output_sensitivities : mapping of str to ndarray, optional
        The sensitivities of this model, or their diagonals, if they are known already.
    share : float
        How much inputs in general count beside these (`prior_share`).

    Returns
    -------
    QuantizedModel
        Without the weights that cannot be quantized.

    Raises
    ------
    ConfigError
        If the inputs do not fit the model, or a step size that was asked for does not fit a tensor.
    ModelError
        If the model has no graph.
    """
    if output_sensitivities is None:
        output_sensitivities = sensitivities(model, inputs, diagonal=True)
    layers = []
    of, unchanged = config_of(config, model), kept(config, model)
    for layer in find_layers(model):
        if layer.weight in unchanged:
            logger.info("layer %s is not quantized: its weight is kept as it is", layer.name)
        elif _has_steps(model.tensors[layer.weight]):
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
        expected = expectation(model, inputs, config.quantization.qp_density, output_sensitivities)
    shifts = {
        weight: shift
        for weight, shift in _shifts(model).items()
        if unchanged.isdisjoint({shift.name, shift.variance})
    }
    fixed = [layer.name for layer in layers if layer.weight not in shifts]
    if fixed:
        logger.info(
            "there is no bias correction for %s: no bias is theirs alone, and no batch norm after "
            "them has means that could be corrected, so the means of their outputs may shift",
            ", ".join(fixed),
        )
    quantizer = _LayerQuantizer(
        config, of, expected.error_per_weight(config.quantization.scale), shifts, share
    )
    if not quantizer.error > 0:
        logger.warning(
            "no error is expected for the calibration inputs, so that step sizes follow from the "
            "scale of each weight alone; take inputs that differ"
        )
    tensors = dict(model.tensors)
    quantized = _outside_layers(model, config, quantizer.error, output_sensitivities)
    done = 0
    for visit in walk(model, inputs, {name: coded.value for name, coded in quantized.items()}):
        if visit.layer.weight in weights:
            sensitivity = diagonal_of(output_sensitivities[visit.layer.weight])
            quantized |= quantizer.quantize(tensors, visit, sensitivity)
            done += 1
            if progress is not None:
                progress(done, len(layers))
    return QuantizedModel(replace(model, tensors=tensors), quantized)


def _outside_layers(
    model: Model,
    config: EncoderConfig,
    error: float,
    output_sensitivities: Mapping[str, np.ndarray],
) -> dict[str, Quantized]:
    """Quantize the weights outside of layers at steps by their effect on the output."""
    graph = model.graph
    if graph is None:
        return {}
    of, unchanged = config_of(config, model), kept(config, model)
    names = [
        name
        for name in weights_outside_layers(model)
        if name not in unchanged and _has_steps(model.tensors[name])
    ]
    if unknown := [name for name in names if not output_sensitivities[name] > 0]:
        logger.info(
            "no effect was measured on the output of %s: step sizes follow from the scale of these "
            "weights",
            ", ".join(unknown),
        )
    names = [name for name in names if name not in unknown]

    def coded(name: str) -> Quantized:
        tensor, own = model.tensors[name], of(name)
        dq = own.dq and own.entropy != "ans"
        values, effect = tensor.read(), float(output_sensitivities[name])
        allowed = error * (own.quantization.scale / config.quantization.scale) ** 2
        qp = Policy(own.quantization).by_effect(values, name, effect, allowed, dq=dq)
        users = (graph.nodes[position] for position in graph.users(TensorRef(name)))
        multiplies = any(node.op != _LOOK_UP for node in users)
        return levels_at(tensor, values, own, qp, dq=dq, is_weight=multiplies)

    quantized = zip(names, in_order(coded, names, config.threads), strict=True)
    return {name: levels for name, levels in quantized if np.isfinite(levels.value).all()}


_LOOK_UP = "aten.embedding.default"
"""Rows of its table are taken as they are, so that there are no inputs to fit them to."""


def prior_share(inputs: Inputs) -> float:
    """Return how much inputs in general are to count beside calibration inputs."""
    if getattr(inputs, "made_up", False):
        return PRIOR_SHARE
    return min(max(_PRIOR_INPUTS / max(len(inputs), 1), _LEAST_SHARE), PRIOR_SHARE)


_GAINS = 0.5, 2.0
"""Smallest and largest gain that is put into the batch norm after a layer."""


@dataclass(frozen=True, slots=True)
class _Shift:
    """The tensor that bias correction changes: the bias of a layer, or a batch-norm mean.

    Parameters
    ----------
    name : str
        Name of the bias, or of the running mean of the batch norm after the layer.
    variance : str or None
        Name of the running variance of that batch norm, which corrects the scale of the output.
    eps : float
        What the batch norm adds to the variance.
    """

    name: str
    variance: str | None = None
    eps: float = 0.0

    def corrected(
        self,
        tensors: Mapping[str, Tensor],
        moments: Moments,
        original: np.ndarray,
        quantized: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Return the corrected values, by name.

        Parameters
        ----------
        tensors : mapping of str to Tensor
            The tensors of the model.
        moments : Moments
            Of the input of the layer.
        original, quantized : ndarray, shape (groups, rows, K)
            Its weight before and after quantization.
        """
        value = tensors[self.name].read().astype(np.float64)
        change = moments.bias_change(original, quantized)
        if self.variance is None:
            return {self.name: value + change}
        # for an output y, the batch norm is to return what it returned before for
        # gain * (y - mean of y) + original mean
        wanted = moments.gains(original, quantized)
        gain = np.clip(wanted, *_GAINS)
        if limited := int(np.count_nonzero(gain != wanted)):
            logger.info(
                "the batch norm of %s cannot make up for what quantization does to %d of %d "
                "outputs: the gain they need is not between %g and %g, and is limited to that; "
                "take a smaller scale or qp",
                self.name,
                limited,
                gain.size,
                *_GAINS,
            )
        mean = moments.output_mean(quantized)
        variance = tensors[self.variance].read().astype(np.float64)
        return {
            self.name: mean + (value - mean - change) / gain,
            self.variance: np.maximum((variance + self.eps) / gain**2 - self.eps, 0),
        }


@dataclass(frozen=True, slots=True)
class _LayerQuantizer:
    """Quantizes one layer after the other.

    Parameters
    ----------
    config : EncoderConfig
        The options of the encoder.
    config_of : callable
        Returns those of a tensor.
    error : float
        Squared output error of the network that each weight may contribute.
    shifts : mapping of str to _Shift
        By name of the weight, the tensor for bias correction.
    share : float
        How much inputs in general count.
    """

    config: EncoderConfig
    config_of: ConfigOf
    error: float
    shifts: Mapping[str, _Shift]
    share: float

    def quantize(
        self, tensors: dict[str, Tensor], visit: LayerVisit, sensitivity: np.ndarray
    ) -> dict[str, Quantized]:
        """Quantize the weight of a layer, and correct its bias in `tensors`.

        The walk goes on with the new values. Levels are returned by name of the tensor.
        """
        layer, density = visit.layer, self.config.quantization.qp_density
        tensor = tensors[layer.weight]
        config = self.config_of(tensor.name)
        original = layer.matrices(tensor.read())
        moments = visit.moments()
        shift = self.shifts.get(layer.weight)
        seen = moments if shift is None else moments.centered()
        if has_prior(layer.shape):
            channels = layer.columns // math.prod(layer.kernel)
            mean = PRIOR_MEAN if shift is None else 0.0
            seen = seen.with_prior(prior_moment(channels, layer.kernel, mean), self.share)
        target = seen.fitted(original)
        feedback = Feedback.of(seen.second_moment, sensitivity.reshape(layer.groups, layer.rows))
        dq = _can_depend(layer, config)
        if config.dq and config.entropy != "ans" and not dq:
            logger.info(
                "layer %s gets uniform instead of dependent quantization: its levels are not coded "
                "in the order in which they are searched, row by row",
                layer.name,
            )
        if not sensitivity.any() and config.quantization.asked_qp(original.ndim) is None:
            logger.warning(
                "layer %s has no influence on the output with these calibration inputs and gets "
                "the coarsest step size; take inputs that reach it, or give a qp",
                layer.name,
            )
        effect = feedback.sensitivity if sensitivity.any() else 0.0
        error = self._error_of(config)
        qp = Policy(config.quantization).by_effect(target, tensor.name, effect, error)
        result = quantize_with_feedback(
            target,
            feedback,
            qp,
            density,
            lambda_=config.lambda_,
            dq=dq,
            unary_length=config.cabac.cabac_unary_length or DEFAULT_UNARY_LENGTH,
            name=tensor.name,
        )
        levels = layer.weight_of(result.levels)
        coded = Quantized.of(levels, qp, density, tensor.dtype, dq=dq)
        quantized = {tensor.name: coded}
        visit.replace(tensor.name, coded.value)
        if shift is not None:
            corrected = shift.corrected(tensors, moments, original, layer.matrices(coded.value))
            for name, values in corrected.items():
                tensors[name] = _with_values(tensors[name], values)
                has_steps = values.size >= FEWEST_ELEMENTS and are_quantizable(values)
                if name == shift.name and has_steps:
                    mean = float(sensitivity.mean())
                    quantized[name] = self._moved(tensors[name], mean, dq=dq)
                moved = quantized[name].value if name in quantized else tensors[name].read()
                visit.replace(name, moved)
        return quantized

    def _error_of(self, config: EncoderConfig) -> float:
        """Return the error that each weight of a tensor may contribute."""
        return self.error * (config.quantization.scale / self.config.quantization.scale) ** 2

    def _moved(self, tensor: Tensor, sensitivity: float, *, dq: bool) -> Quantized:
        """Quantize a corrected bias or mean."""
        values, config = tensor.read(), self.config_of(tensor.name)
        if config is not self.config:
            dq = dq and config.dq and config.entropy != "ans"
        error = self._error_of(config)
        qp = Policy(config.quantization).by_effect(values, tensor.name, sensitivity, error, dq=dq)
        return levels_at(tensor, values, config, qp, dq=dq)


def _can_depend(layer: Layer, config: EncoderConfig) -> bool:
    """Return whether dependent quantization is possible: levels are searched as coded."""
    by_row = effective_scan_order(layer.shape, config.cabac.scan_order) == 0
    return config.dq and config.entropy != "ans" and by_row and not layer.transposed


def _has_steps(tensor: Tensor) -> bool:
    """Return whether a weight can be quantized."""
    return not tensor.exact and tensor.size >= FEWEST_ELEMENTS and are_quantizable(tensor.read())


def _shifts(model: Model) -> dict[str, _Shift]:
    """Return the tensors for bias correction, by name of the weight."""
    graph = model.graph
    if graph is None:
        return {}
    shifts = {
        n.weight: _Shift(n.running_mean, n.running_var, n.eps)
        for n in normalized_convolutions(model)
        if all(len(graph.users(TensorRef(name))) == 1 for name in (n.running_mean, n.running_var))
    }
    for layer in find_layers(model):
        bias = own_bias(model, layer.name)
        if bias is not None:
            shifts[layer.weight] = _Shift(bias.name)
    return shifts


def _with_values(tensor: Tensor, values: np.ndarray) -> Tensor:
    return Tensor.of(tensor.name, cast(values, tensor.dtype), tensor.dtype, tensor.role)
