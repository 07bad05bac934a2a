"""Low rank that looks at what a network does: factors of least error of its output.

The layers are taken in the order in which they run. What each of them takes is measured behind the
layers that were factorised already, so that later layers make up for the errors of earlier ones as
far as they can; errors of its output count as much as they appear in the output of the network. The
bias is corrected for the mean of the output to stay.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nnrcodec.calibration.coverage import unmeasured_layers
from nnrcodec.calibration.moments import Moments
from nnrcodec.calibration.sensitivity import output_variance, sensitivities
from nnrcodec.calibration.synthetic import Inputs
from nnrcodec.calibration.walk import Stop, walk
from nnrcodec.errors import ConfigError
from nnrcodec.graph.layers import Layer, find_layers
from nnrcodec.model.model import Model, SchemeName, Tensor
from nnrcodec.progress import Progress
from nnrcodec.reduce.budget import Offer, Selection, selections
from nnrcodec.reduce.candidates import Candidate, candidates
from nnrcodec.reduce.coded_size import bits_of_pair, bits_of_whole
from nnrcodec.reduce.decomposition import Decomposition
from nnrcodec.reduce.least_error import ROUNDS, Objective, best_product, best_separable
from nnrcodec.reduce.low_rank import LayerReport, decompose, own_bias
from nnrcodec.reduce.ranks import Choice, LowRankConfig
from nnrcodec.reduce.schemes import Scheme

logger = logging.getLogger(__name__)

_TRIES = 10
"""Ranks of each scheme that are tried for a budget."""

_ROUNDS_OF_TRIES = 6
"""Rounds of alternating least squares in each."""

_WORTH_IT = 0.95
"""Part of the cost of a layer that its factors may have at most."""

_BIT = 2 * math.log(2)
"""By how many times what a weight adds the error falls with one more bit, at high rates."""

_CLEARLY = 0.7
"""Part of a layer's cost in bits and error that its factors may have to be worth it in bytes.

Both are estimates, and those of the levels' error hold for high rates only: at low ones a layer
that is left whole does better than they say."""

_HANDY = 8
"""Ranks above twice this are tried in multiples of it: channels are computed so many at a time."""


@dataclass(frozen=True, slots=True)
class _Solution:
    """The factors of a layer in one scheme."""

    u: np.ndarray
    v: np.ndarray
    bias_change: np.ndarray | None
    error: float


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much error there may be, and so what low rank may add to it.

    Parameters
    ----------
    each : float
        Squared error of the network's output that quantization lets each weight add.
    total : float
        What it lets all add, as part of the variance of the output.
    left : float
        Part of the error of low rank that is left after distillation; 1 if there is none.
    """

    each: float
    total: float
    left: float = 1.0


def decompose_with_inputs(
    model: Model,
    config: LowRankConfig,
    inputs: Inputs,
    allowance: Allowance | None = None,
    progress: Progress | None = None,
    weighting: Mapping[str, np.ndarray] | None = None,
) -> tuple[Model, tuple[LayerReport, ...]]:
    """Replace layers by two thin ones each, such that the output of the network changes least.

    Parameters
    ----------
    model : Model
        With a graph.
    config : LowRankConfig
        Which layers, and how to choose schemes and ranks.
    inputs : sequence of tuple of Tensor
        Calibration inputs.
    allowance : Allowance, optional
        What ranks are chosen by if `config` has no rule.
    progress : callable, optional
        Called after each layer.
    weighting : mapping of str to ndarray, optional
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
    weighting = _whole(model, inputs, weighting)
    if config.needs_inputs:
        choices = _choices(model, config, inputs, allowance, weighting)
        if not choices:
            logger.info("low rank leaves all layers as they are: for none of them it is worth it")
            return model, ()
        config = LowRankConfig(ranks=choices)
    offered = _offered(model, config)
    solutions: dict[tuple[str, SchemeName], _Solution] = {}
    done = 0
    for stop in walk(model, inputs):
        layer = stop.layer
        if layer.name not in offered:
            continue
        weight = model.tensors[layer.weight].read()
        moments = stop.moments()
        (objective,) = _objectives(model, layer, weight, moments, weighting[layer.weight])
        found = {
            (layer.name, candidate.scheme.name): _solve(
                layer, candidate, weight, moments, objective, own_bias(model, layer.name)
            )
            for candidate in offered[layer.name]
        }
        solutions |= found
        best = min(offered[layer.name], key=lambda c: found[layer.name, c.scheme.name].error)
        _go_on_with(stop, model, best.scheme, found[layer.name, best.scheme.name])
        done += 1
        if progress is not None:
            progress(done, len(offered))

    def factorize(
        name: str, _weight: Tensor, kernel: np.ndarray, scheme: Scheme, rank: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, float]:
        made = solutions.get((name, scheme.name))
        if made is not None:
            return made.u, made.v, made.bias_change, made.error
        logger.warning(
            "layer %s is decomposed by its weight alone, without the calibration inputs: %s; if "
            "the output changes too much, give it a higher rank",
            name,
            unmeasured_layers(model).get(name, "it is not measured"),
        )
        plain = Decomposition.of(scheme, kernel)
        return *plain.factors(rank), None, plain.error(rank)

    return decompose(model, config, factorize)


def rank_choices(
    model: Model,
    config: LowRankConfig,
    inputs: Inputs,
    progress: Progress | None = None,
    weighting: Mapping[str, np.ndarray] | None = None,
) -> tuple[Selection, ...]:
    """Return the best schemes and ranks for all budgets, by what they are measured to do.

    Parameters
    ----------
    model : Model
        With a graph.
    config : LowRankConfig
        Which schemes there are, and what they cost; its ranks do not matter.
    inputs : sequence of tuple of Tensor
        Calibration inputs.
    progress : callable, optional
        Called after each layer.
    weighting : mapping of str to ndarray, optional
        The sensitivities of the model, if they are known already; where only their diagonals are,
        they are measured again, for low rank needs the whole matrices.

    Returns
    -------
    tuple of Selection
        From the network as it is to the cheapest. Costs are parts of that of all layers; errors are
        parts of the variance of the output, estimated layer by layer.
    """

    def cost(layer: Layer, scheme: Scheme | None, rank: int, moments: Moments) -> float:
        each = _repetitions(layer, moments) if config.optimise != "bytes" else 1.0
        if scheme is None:
            return each * math.prod(layer.shape)
        return each * scheme.cost(rank, config.optimise, layer.stride)

    offers = _offers(
        model,
        config,
        inputs,
        _whole(model, inputs, weighting),
        lambda fit, moments: cost(fit.layer, fit.scheme, fit.rank, moments),
        progress,
    )
    total = sum(several[0].cost for several in offers.values()) or 1.0
    variance = output_variance(model, inputs)
    return tuple(
        Selection(spent / total, error / variance, choices)
        for spent, error, choices in selections(offers)
    )


def _whole(
    model: Model, inputs: Inputs, weighting: Mapping[str, np.ndarray] | None
) -> Mapping[str, np.ndarray]:
    """Return the sensitivities as whole matrices; measure them if only diagonals are known."""
    if weighting is None or any(known.ndim == 1 for known in weighting.values()):
        return sensitivities(model, inputs)
    return weighting


def _choices(
    model: Model,
    config: LowRankConfig,
    inputs: Inputs,
    allowance: Allowance | None,
    weighting: Mapping[str, np.ndarray],
) -> Mapping[str, Choice]:
    """Return schemes and ranks: within a budget, or as the allowed error makes worth it."""
    if config.target_macs is not None:
        by_time = replace(config, optimise="runtime")
        found = rank_choices(model, by_time, inputs, weighting=weighting)
        for selection in found:
            if selection.cost <= config.target_macs:
                return selection.choices
        raise ConfigError(
            f"low rank can bring multiply-adds down to {100 * found[-1].cost:.1f} % of the "
            f"model's, not to {100 * config.target_macs:g} %"
        )
    if allowance is None:
        raise ConfigError("ranks are to follow from the error that is allowed, but none is given")
    if config.optimise == "bytes":
        each = allowance.each
        # what quantization makes of a weight counts as well, at the price of bits
        offers = _offers(
            model,
            config,
            inputs,
            weighting,
            lambda fit, _: fit.bits(each) + fit.elements / _BIT,
        )
        price = _BIT * each / allowance.left
        worth = {name: _clearly_best(o, price) for name, o in offers.items()}
        for name, best in worth.items():
            if best.choice is None and len(offers[name]) > 1:
                logger.info(
                    "layer %s stays as it is: no rank is clearly worth its error in bytes; give it "
                    "a rank to reduce it all the same",
                    name,
                )
        return {name: o.choice for name, o in worth.items() if o.choice is not None}
    found = rank_choices(model, config, inputs, weighting=weighting)
    within = [s for s in found if s.error * allowance.left <= allowance.total]
    return within[-1].choices


def _clearly_best(offers: Sequence[Offer], price: float) -> Offer:
    """Return the offer of least cost in bits and error, but the layer as it is if that is near."""

    def together(offer: Offer) -> float:
        return offer.error + price * offer.cost

    whole, best = offers[0], min(offers, key=together)
    return best if together(best) <= _CLEARLY * together(whole) else whole


def _offers(
    model: Model,
    config: LowRankConfig,
    inputs: Inputs,
    weighting: Mapping[str, np.ndarray],
    cost: Callable[[_Fit, Moments], float],
    progress: Progress | None = None,
) -> dict[str, list[Offer]]:
    """Return what each layer could become; the first of its offers is the layer as it is.

    Errors are squared errors of the network's output, if nothing else is changed.
    """
    everything = LowRankConfig(rank_ratio=_WORTH_IT, scheme=config.scheme, optimise=config.optimise)
    offered, layers = _offered(model, everything), find_layers(model)
    offers: dict[str, list[Offer]] = {}
    for number, stop in enumerate(walk(model, inputs), 1):
        layer, moments = stop.layer, stop.moments()
        weight, metric = model.tensors[layer.weight].read(), weighting[layer.weight]
        whole = _Fit.whole(layer, _objectives(model, layer, weight, moments, metric))
        offers[layer.name] = [Offer(cost(whole, moments), 0.0, None)]
        for candidate in offered.get(layer.name, ()):
            for rank in _tried(candidate.rank):
                fit = _Fit.of(layer, candidate.scheme, whole.objectives[0], rank, _ROUNDS_OF_TRIES)
                choice = Choice(candidate.scheme.name, rank)
                offers[layer.name].append(Offer(cost(fit, moments), fit.error, choice))
        if progress is not None:
            progress(number, len(layers))
    return offers


def _offered(model: Model, config: LowRankConfig) -> dict[str, tuple[Candidate, ...]]:
    """Return the ways in which layers can be decomposed."""
    found = {
        layer.name: candidates(layer.name, model.tensors[layer.weight], model, config)
        for layer in find_layers(model)
    }
    return {name: several for name, several in found.items() if not isinstance(several, str)}


def _objectives(
    model: Model, layer: Layer, weight: np.ndarray, moments: Moments, metric: np.ndarray
) -> tuple[Objective, ...]:
    """Return what the weight of a layer shall be good for, by group."""
    if own_bias(model, layer.name) is not None:
        moments = moments.centered()
    targets = moments.fitted(layer.matrices(weight))
    rows = layer.rows
    return tuple(
        Objective.of(target, second, metric[g * rows : (g + 1) * rows, g * rows : (g + 1) * rows])
        for g, (target, second) in enumerate(zip(targets, moments.second, strict=True))
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    """A layer as it is, or two factors of it.

    Parameters
    ----------
    layer : Layer
    objectives : tuple of Objective
        By group; one where there are factors.
    scheme : Scheme, optional
        Of the factors.
    u : ndarray of float64, shape (rank, columns / taps)
        The first factor, as the matrix that multiplies patches.
    v : ndarray of float64, shape (rows, rank, taps)
        The second one; taps are those of a row of the kernel if it is separable, else 1.
    error : float
        Squared error of the network's output.
    """

    layer: Layer
    objectives: tuple[Objective, ...]
    scheme: Scheme | None = None
    u: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    v: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)))
    error: float = 0.0

    @classmethod
    def whole(cls, layer: Layer, objectives: tuple[Objective, ...]) -> _Fit:
        """Return the layer as it is."""
        return cls(layer, objectives)

    @classmethod
    def of(cls, layer: Layer, scheme: Scheme, objective: Objective, rank: int, rounds: int) -> _Fit:
        """Fit factors of a rank."""
        if scheme.name == "separable":
            shape = (layer.rows, scheme.inputs, *layer.kernel)
            u, v, errors = best_separable(objective, shape, rank, rounds)  # type: ignore[arg-type]
            return cls(layer, (objective,), scheme, u.reshape(rank, -1), v[:, :, 0, :], errors[-1])
        v, u, error = best_product(objective, rank)
        return cls(layer, (objective,), scheme, u, v[:, :, None], error)

    @property
    def rank(self) -> int:
        """Channels between the factors; 0 if there are none."""
        return len(self.u)

    @property
    def elements(self) -> int:
        """Weights in all."""
        return self.u.size + self.v.size if self.scheme else math.prod(self.layer.shape)

    def bits(self, each: float) -> float:
        """Return about how many bits it takes if each weight may add so much squared error."""
        if self.scheme is None:
            return sum(bits_of_whole(objective, each) for objective in self.objectives)
        return bits_of_pair(self.objectives[0], self.u, self.v, each)

    def kernels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return U and V as the scheme wants them."""
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


def _go_on_with(stop: Stop, model: Model, scheme: Scheme, solution: _Solution) -> None:
    """Let the rest of the walk see the factorised layer."""
    stop.replace(stop.layer.weight, scheme.merge(solution.u, solution.v))
    bias = own_bias(model, stop.layer.name)
    if bias is not None and solution.bias_change is not None:
        stop.replace(bias.name, bias.read() + solution.bias_change)


def _tried(highest: int) -> list[int]:
    """Return the ranks to try, up to the highest."""
    even = {max(round(highest * part / _TRIES), 1) for part in range(1, _TRIES + 1)}
    return sorted({rank - rank % _HANDY if rank > 2 * _HANDY else rank for rank in even})


def _repetitions(layer: Layer, moments: Moments) -> float:
    """Return how often the layer needs its size in multiply-adds."""
    return moments.positions / math.prod(layer.stride) if layer.transposed else moments.positions
