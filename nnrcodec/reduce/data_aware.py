"""Data-aware low rank: factors and ranks for the lowest output error of the network.

Layers are decomposed in the order in which they run, each with the input that the already
decomposed layers produce, so that later layers correct the errors of earlier ones as far as they
can (asymmetric reconstruction, X. Zhang, J. Zou, K. He, J. Sun, "Accelerating very deep
convolutional networks for classification and detection", TPAMI 2016). Errors of a layer's output
are weighted by the output sensitivities of `nnrcodec.calibration.sensitivity`. The bias is
corrected so that the mean output stays.

Ranks are selected for the lowest error under a MAC budget, or by the error that is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nnrcodec.calibration.coverage import unmeasured_layers
from nnrcodec.calibration.moments import Moments
from nnrcodec.calibration.sensitivity import sensitivities
from nnrcodec.calibration.synthetic import Inputs
from nnrcodec.calibration.walk import LayerVisit, walk
from nnrcodec.errors import ConfigError
from nnrcodec.graph.layers import Layer, find_layers
from nnrcodec.messages import logger_of
from nnrcodec.model.model import Model, SchemeName, Tensor
from nnrcodec.progress import Progress
from nnrcodec.reduce.budget import RankOption, Selection, selections
from nnrcodec.reduce.candidates import Candidate, candidates
from nnrcodec.reduce.coded_size import bits_of_pair, bits_of_whole
from nnrcodec.reduce.decomposition import Decomposition
from nnrcodec.reduce.least_error import ROUNDS, Objective, best_product, best_separable
from nnrcodec.reduce.low_rank import LayerReport, decompose, own_bias
from nnrcodec.reduce.ranks import LayerRank, LowRankConfig
from nnrcodec.reduce.schemes import Scheme

logger = logger_of(__name__)

_TRIES = 10
"""Number of ranks that are tried for each scheme of a layer."""

_ROUNDS_OF_TRIES = 6
"""Rounds of alternating least squares for each of them."""

_WORTH_IT = 0.95
"""Largest cost of factors that are tried, relative to the cost of the layer."""

_BIT = 2 * math.log(2)
"""The output error falls by so many times the error of one weight with one more bit of it, at high
rates: the derivative of 2^(-2 bits)."""

_CLEARLY = 0.7
"""A layer is decomposed for bytes only if bits and error together fall below this part.

Both are estimates. That of the quantization error holds for high rates: at low rates, a layer that
is not decomposed has a lower error than estimated."""

_HANDY = 8
"""Ranks above twice this are tried in multiples of it, because processors compute so many channels
at once."""


@dataclass(frozen=True, slots=True)
class _Solution:
    """The factors of a layer with one scheme and rank."""

    u: np.ndarray
    v: np.ndarray
    bias_change: np.ndarray | None
    error: float


@dataclass(frozen=True, slots=True)
class Allowance:
    """The expected error of quantization, from which the error of low rank follows.

    Parameters
    ----------
    error_per_weight : float
        Relative output error of the network that quantization causes for each weight.
    relative_error : float
        Relative output error that it causes for all weights.
    left_after_distillation : float
        Part of the error of low rank that is left after distillation; 1 without distillation.
    """

    error_per_weight: float
    relative_error: float
    left_after_distillation: float = 1.0


def decompose_with_inputs(
    model: Model,
    config: LowRankConfig,
    inputs: Inputs,
    allowance: Allowance | None = None,
    progress: Progress | None = None,
    output_sensitivities: Mapping[str, np.ndarray] | None = None,
) -> tuple[Model, tuple[LayerReport, ...]]:
    """Replace layers by two thin ones each, for the lowest output error of the network.

    Parameters
    ----------
    model : Model
        With a graph.
    config : LowRankConfig
        Which layers, and how to choose schemes and ranks.
    inputs : sequence of tuple of Tensor
        Calibration inputs.
    allowance : Allowance, optional
        From which ranks follow if `config` has no rule.
    progress : callable, optional
        Called after each layer.
    output_sensitivities : mapping of str to ndarray, optional
        The sensitivities of the model, if they are known already; where only their diagonals are,
        they are measured again, for low rank needs the whole matrices.

    Returns
    -------
    model : Model
    reports : tuple of LayerReport
        As `nnrcodec.reduce.low_rank.decompose` returns them.

    Raises
    ------
    ConfigError
        If a layer is given a rank and cannot be decomposed, the inputs do not fit the model, the
        budget is out of reach, or there is neither a rule nor an allowance.
    ModelError
        If the model has no graph.
    """
    output_sensitivities = _whole(model, inputs, output_sensitivities)
    if config.needs_inputs:
        choices = _choices(model, config, inputs, allowance, output_sensitivities)
        if not choices:
            logger.info("low rank leaves all layers as they are: for none of them it is worth it")
            return model, ()
        config = LowRankConfig(ranks=choices)
    candidates_of = _candidates(model, config)
    solutions: dict[tuple[str, SchemeName], _Solution] = {}
    done = 0
    for visit in walk(model, inputs):
        layer = visit.layer
        if layer.name not in candidates_of:
            continue
        weight = model.tensors[layer.weight].read()
        moments = visit.moments()
        sensitivity = output_sensitivities[layer.weight]
        (objective,) = _objectives(model, layer, weight, moments, sensitivity)
        of_layer = {
            candidate.scheme.name: _solve(
                layer, candidate, weight, moments, objective, own_bias(model, layer.name)
            )
            for candidate in candidates_of[layer.name]
        }
        solutions |= {(layer.name, scheme): solution for scheme, solution in of_layer.items()}
        best = min(candidates_of[layer.name], key=lambda c: of_layer[c.scheme.name].error)
        _go_on_with(visit, model, best.scheme, of_layer[best.scheme.name])
        done += 1
        if progress is not None:
            progress(done, len(candidates_of))

    def factorize(
        name: str, _weight: Tensor, kernel: np.ndarray, scheme: Scheme, rank: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, float]:
        solution = solutions.get((name, scheme.name))
        if solution is not None:
            return solution.u, solution.v, solution.bias_change, solution.error
        logger.warning(
            "layer %s is decomposed by its weight alone, without the calibration inputs: %s; if "
            "the output changes too much, give it a higher rank",
            name,
            unmeasured_layers(model).get(name, "it is not measured"),
        )
        plain = Decomposition.of(scheme, kernel)
        u, v = plain.factors(rank)
        return u, v, None, plain.error(rank)

    return decompose(model, config, factorize)


def rank_choices(
    model: Model,
    config: LowRankConfig,
    inputs: Inputs,
    progress: Progress | None = None,
    output_sensitivities: Mapping[str, np.ndarray] | None = None,
) -> tuple[Selection, ...]:
    """Return the lowest-error schemes and ranks for all budgets.

    Parameters
    ----------
    model : Model
        With a graph.
    config : LowRankConfig
        Which schemes are allowed, and what is counted as cost; its ranks do not matter.
    inputs : sequence of tuple of Tensor
        Calibration inputs.
    progress : callable, optional
        Called after each layer.
    output_sensitivities : mapping of str to ndarray, optional
        The sensitivities of the model, if they are known already; where only their diagonals are,
        they are measured again, for low rank needs the whole matrices.

    Returns
    -------
    tuple of Selection
        From the original network to the cheapest one. Costs are relative to that of all layers,
        errors to the variance of the output. Errors are estimated for each layer alone and added.
    """

    def cost(layer: Layer, scheme: Scheme | None, rank: int, moments: Moments) -> float:
        repetitions = _repetitions(layer, moments) if config.optimise != "bytes" else 1.0
        if scheme is None:
            return repetitions * math.prod(layer.shape)
        return repetitions * scheme.cost(rank, config.optimise, layer.stride)

    options = _options(
        model,
        config,
        inputs,
        _whole(model, inputs, output_sensitivities),
        lambda fit, moments: cost(fit.layer, fit.scheme, fit.rank, moments),
        progress,
    )
    total = sum(of_layer[0].cost for of_layer in options.values()) or 1.0
    return tuple(
        Selection(spent / total, error, choices) for spent, error, choices in selections(options)
    )


def _whole(
    model: Model, inputs: Inputs, output_sensitivities: Mapping[str, np.ndarray] | None
) -> Mapping[str, np.ndarray]:
    """Return the sensitivities as whole matrices; measure them if only diagonals are known."""
    known = output_sensitivities
    if known is None or any(sensitivity.ndim == 1 for sensitivity in known.values()):
        return sensitivities(model, inputs)
    return known


def _choices(
    model: Model,
    config: LowRankConfig,
    inputs: Inputs,
    allowance: Allowance | None,
    output_sensitivities: Mapping[str, np.ndarray],
) -> Mapping[str, LayerRank]:
    """Return the lowest-error ranks under a MAC budget, or ranks for the allowed error."""
    if config.target_macs is not None:
        by_time = replace(config, optimise="runtime")
        by_cost = rank_choices(model, by_time, inputs, output_sensitivities=output_sensitivities)
        for selection in by_cost:
            if selection.cost <= config.target_macs:
                return selection.choices
        raise ConfigError(
            f"low rank can bring multiply-adds down to {100 * by_cost[-1].cost:.1f} % of the "
            f"model's, not to {100 * config.target_macs:g} %"
        )
    if allowance is None:
        raise ConfigError("ranks are to follow from the error that is allowed, but none is given")
    if config.optimise == "bytes":
        error_per_weight = allowance.error_per_weight
        # the quantization error of each weight counts as well, at the price of bits
        options = _options(
            model,
            config,
            inputs,
            output_sensitivities,
            lambda fit, _: fit.bits(error_per_weight) + fit.elements / _BIT,
        )
        price = _BIT * error_per_weight / allowance.left_after_distillation
        worth = {name: _clearly_best(o, price) for name, o in options.items()}
        for name, best in worth.items():
            if best.choice is None and len(options[name]) > 1:
                logger.info(
                    "layer %s stays as it is: no rank is clearly worth its error in bytes; give it "
                    "a rank to reduce it all the same",
                    name,
                )
        return {name: o.choice for name, o in worth.items() if o.choice is not None}
    by_cost = rank_choices(model, config, inputs, output_sensitivities=output_sensitivities)
    within = [
        selection
        for selection in by_cost
        if selection.error * allowance.left_after_distillation <= allowance.relative_error
    ]
    return within[-1].choices


def _clearly_best(options: Sequence[RankOption], price: float) -> RankOption:
    """Return the option of lowest error plus price of bits, unless that saves too little."""

    def together(option: RankOption) -> float:
        return option.error + price * option.cost

    whole, best = options[0], min(options, key=together)
    return best if together(best) <= _CLEARLY * together(whole) else whole


def _options(
    model: Model,
    config: LowRankConfig,
    inputs: Inputs,
    output_sensitivities: Mapping[str, np.ndarray],
    cost: Callable[[_Fit, Moments], float],
    progress: Progress | None = None,
) -> dict[str, list[RankOption]]:
    """Return the options for each layer, first the layer as it is.

    Errors are squared output errors of the network if only this layer is changed.
    """
    everything = LowRankConfig(
        rank_ratio=_WORTH_IT,
        scheme=config.scheme,
        optimise=config.optimise,
        left_out=config.left_out,
    )
    candidates_of, layers = _candidates(model, everything), find_layers(model)
    options: dict[str, list[RankOption]] = {}
    for number, visit in enumerate(walk(model, inputs), 1):
        layer, moments = visit.layer, visit.moments()
        weight, sensitivity = model.tensors[layer.weight].read(), output_sensitivities[layer.weight]
        whole = _Fit.whole(layer, _objectives(model, layer, weight, moments, sensitivity))
        options[layer.name] = [RankOption(cost(whole, moments), 0.0, None)]
        for candidate in candidates_of.get(layer.name, ()):
            for rank in _tried(candidate.rank):
                fit = _Fit.of(layer, candidate.scheme, whole.objectives[0], rank, _ROUNDS_OF_TRIES)
                choice = LayerRank(candidate.scheme.name, rank)
                options[layer.name].append(RankOption(cost(fit, moments), fit.error, choice))
        if progress is not None:
            progress(number, len(layers))
    return options


def _candidates(model: Model, config: LowRankConfig) -> dict[str, tuple[Candidate, ...]]:
    """Return the candidates of all layers that can be decomposed."""
    results = {
        layer.name: candidates(layer.name, model.tensors[layer.weight], model, config)
        for layer in find_layers(model)
    }
    return {name: result for name, result in results.items() if not isinstance(result, str)}


def _objectives(
    model: Model, layer: Layer, weight: np.ndarray, moments: Moments, sensitivity: np.ndarray
) -> tuple[Objective, ...]:
    """Return the quadratic output error of a layer, for each group."""
    if own_bias(model, layer.name) is not None:
        moments = moments.centered()
    targets = moments.fitted(layer.matrices(weight))
    rows = layer.rows
    return tuple(
        Objective.of(
            target, second, sensitivity[g * rows : (g + 1) * rows, g * rows : (g + 1) * rows]
        )
        for g, (target, second) in enumerate(zip(targets, moments.second_moment, strict=True))
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    """A layer that is not decomposed, or its two factors.

    Parameters
    ----------
    layer : Layer
    objectives : tuple of Objective
        For each group; a decomposed layer has one group.
    scheme : Scheme, optional
        Of the factors.
    u : ndarray of float64, shape (rank, columns / taps)
        The first factor, as the matrix that multiplies patches.
    v : ndarray of float64, shape (rows, rank, taps)
        The second one; taps are those of a row of the kernel if it is separable, else 1.
    error : float
        Squared output error of the network.
    """

    layer: Layer
    objectives: tuple[Objective, ...]
    scheme: Scheme | None = None
    u: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    v: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)))
    error: float = 0.0

    @classmethod
    def whole(cls, layer: Layer, objectives: tuple[Objective, ...]) -> _Fit:
        """Return the layer that is not decomposed."""
        return cls(layer, objectives)

    @classmethod
    def of(cls, layer: Layer, scheme: Scheme, objective: Objective, rank: int, rounds: int) -> _Fit:
        """Return the factors with the lowest error for a scheme and rank."""
        if scheme.name == "separable":
            shape = (layer.rows, scheme.inputs, *layer.kernel)
            u, v, errors = best_separable(objective, shape, rank, rounds)  # type: ignore[arg-type]
            return cls(layer, (objective,), scheme, u.reshape(rank, -1), v[:, :, 0, :], errors[-1])
        v, u, error = best_product(objective, rank)
        return cls(layer, (objective,), scheme, u, v[:, :, None], error)

    @property
    def rank(self) -> int:
        """Channels between the factors; 0 if the layer is not decomposed."""
        return len(self.u)

    @property
    def elements(self) -> int:
        """Number of weights."""
        return self.u.size + self.v.size if self.scheme else math.prod(self.layer.shape)

    def bits(self, error_per_weight: float) -> float:
        """Return the estimated bits if each weight may contribute this squared output error."""
        if self.scheme is None:
            return sum(bits_of_whole(objective, error_per_weight) for objective in self.objectives)
        return bits_of_pair(self.objectives[0], self.u, self.v, error_per_weight)

    def kernels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return U and V in the shapes of the scheme."""
        scheme, layer = self.scheme, self.layer
        if scheme is None:
            raise TypeError("there are no factors")
        if scheme.name == "separable":
            u = self.u.reshape(self.rank, scheme.inputs, -1, 1)
            v = self.v[:, :, None, :]
        else:
            u = self.u.reshape(self.rank, scheme.inputs, *layer.kernel)
            v = self.v.reshape(layer.rows, self.rank, *(1,) * len(layer.kernel))
        if scheme.transposed:
            axes = tuple(range(2, u.ndim))
            u = np.flip(u.swapaxes(0, 1), axes)
            if scheme.name == "separable":
                v = np.flip(v.swapaxes(0, 1), axes)
        return np.ascontiguousarray(u), np.ascontiguousarray(v)


def _solve(
    layer: Layer,
    candidate: Candidate,
    weight: np.ndarray,
    moments: Moments,
    objective: Objective,
    bias: Tensor | None,
) -> _Solution:
    fit = _Fit.of(layer, candidate.scheme, objective, candidate.rank, ROUNDS)
    u, v = fit.kernels()
    change = None
    if bias is not None:
        merged = candidate.scheme.merge(u, v)
        change = moments.bias_change(layer.matrices(weight), layer.matrices(merged))
    return _Solution(u, v, change, fit.error)


def _go_on_with(visit: LayerVisit, model: Model, scheme: Scheme, solution: _Solution) -> None:
    """Use the decomposed layer for the rest of the walk."""
    visit.replace(visit.layer.weight, scheme.merge(solution.u, solution.v))
    bias = own_bias(model, visit.layer.name)
    if bias is not None and solution.bias_change is not None:
        visit.replace(bias.name, bias.read() + solution.bias_change)


def _tried(highest: int) -> list[int]:
    """Return the ranks to try, up to the highest."""
    even = {max(round(highest * part / _TRIES), 1) for part in range(1, _TRIES + 1)}
    return sorted({rank - rank % _HANDY if rank > 2 * _HANDY else rank for rank in even})


def _repetitions(layer: Layer, moments: Moments) -> float:
    """Return the multiply-adds of a layer divided by the number of its weights."""
    return moments.positions / math.prod(layer.stride) if layer.transposed else moments.positions
