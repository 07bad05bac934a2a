"""Low rank that looks at what a network does: factors of least error of its output.

The layers are taken in the order in which they run. What each of them takes is measured behind the
layers that were factorised already, so that later layers make up for the errors of earlier ones as
far as they can; errors of its output count as much as they appear in the output of the network. The
bias is corrected for the mean of the output to stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nnrcodec.calibration.moments import Moments
from nnrcodec.calibration.sensitivity import output_variance, sensitivities
from nnrcodec.calibration.synthetic import Inputs
from nnrcodec.calibration.walk import Stop, walk
from nnrcodec.errors import ConfigError
from nnrcodec.graph.layers import Layer, find_layers
from nnrcodec.model import Model, SchemeName, Tensor
from nnrcodec.progress import Progress
from nnrcodec.reduce.budget import Offer, Selection, selections
from nnrcodec.reduce.candidates import Candidate, candidates
from nnrcodec.reduce.decomposition import Decomposition
from nnrcodec.reduce.least_error import ROUNDS, Objective, best_product, best_separable
from nnrcodec.reduce.low_rank import LayerReport, decompose, own_bias
from nnrcodec.reduce.ranks import Choice, LowRankConfig
from nnrcodec.reduce.schemes import Scheme

_TRIES = 10
"""Ranks of each scheme that are tried for a budget."""

_ROUNDS_OF_TRIES = 6
"""Rounds of alternating least squares in each."""

_WORTH_IT = 0.95
"""Part of the cost of a layer that its factors may have at most."""

_HANDY = 8
"""Ranks above twice this are tried in multiples of it: channels are computed so many at a time."""


@dataclass(frozen=True, slots=True)
class _Solution:
    """The factors of a layer in one scheme."""

    u: np.ndarray
    v: np.ndarray
    bias_change: np.ndarray | None
    error: float


def decompose_with_inputs(
    model: Model, config: LowRankConfig, inputs: Inputs, progress: Progress | None = None
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
    progress : callable, optional
        Called after each layer.

    Returns
    -------
    model : Model
    reports : tuple of LayerReport
        As `nnrcodec.reduce.low_rank.decompose` returns them.

    Raises
    ------
    ConfigError
        If a layer is given a rank and cannot be decomposed, the inputs do not fit the model, or the
        budget is out of reach.
    ModelError
        If the model has no graph.
    """
    if config.target_macs is not None:
        choices = _within(config.target_macs, rank_choices(model, config, inputs)).choices
        if not choices:
            return model, ()
        config = replace(config, ranks=choices, target_macs=None)
    weighting = sensitivities(model, inputs)
    offered = _offered(model, config)
    solutions: dict[tuple[str, SchemeName], _Solution] = {}
    done = 0
    for stop in walk(model, inputs):
        layer = stop.layer
        if layer.name not in offered:
            continue
        weight = model.tensors[layer.weight].read()
        moments = stop.moments()
        objective = _objective(model, layer, weight, moments, weighting[layer.weight])
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
        plain = Decomposition.of(scheme, kernel)  # a layer that runs at several places
        return *plain.factors(rank), None, plain.error(rank)

    return decompose(model, config, factorize)


def rank_choices(
    model: Model, config: LowRankConfig, inputs: Inputs, progress: Progress | None = None
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

    Returns
    -------
    tuple of Selection
        From the network as it is to the cheapest. Costs are parts of that of all layers; errors are
        parts of the variance of the output, estimated layer by layer.
    """
    everything = LowRankConfig(rank_ratio=_WORTH_IT, scheme=config.scheme, optimise=config.optimise)
    weighting = sensitivities(model, inputs)
    offered, layers = _offered(model, everything), find_layers(model)
    offers: dict[str, list[Offer]] = {}
    fixed = 0.0
    for number, stop in enumerate(walk(model, inputs), 1):
        layer = stop.layer
        moments = stop.moments()
        each = _repetitions(layer, moments) if config.optimise == "runtime" else 1.0
        whole = each * math.prod(layer.shape)
        if layer.name in offered:
            weight = model.tensors[layer.weight].read()
            objective = _objective(model, layer, weight, moments, weighting[layer.weight])
            offers[layer.name] = [Offer(whole, 0.0, None)]
            for candidate in offered[layer.name]:
                scheme = candidate.scheme
                for rank in _tried(candidate.rank):
                    cost = each * scheme.cost(rank, config.optimise, layer.stride)
                    *_, error = _fit(layer, scheme, objective, rank, _ROUNDS_OF_TRIES)
                    offers[layer.name].append(Offer(cost, error, Choice(scheme.name, rank)))
        else:
            fixed += whole
        if progress is not None:
            progress(number, len(layers))
    total = fixed + sum(several[0].cost for several in offers.values())
    variance = output_variance(model, inputs)
    return tuple(
        Selection((fixed + cost) / total, error / variance, choices)
        for cost, error, choices in selections(offers)
    )


def _within(target: float, found: Sequence[Selection]) -> Selection:
    """Return the selection of least error that costs no more than a part of the whole."""
    for selection in found:
        if selection.cost <= target:
            return selection
    raise ConfigError(
        f"low rank can bring multiply-adds down to {100 * found[-1].cost:.1f} % of the model's, "
        f"not to {100 * target:g} %"
    )


def _offered(model: Model, config: LowRankConfig) -> dict[str, tuple[Candidate, ...]]:
    """Return the ways in which layers can be decomposed."""
    found = {
        layer.name: candidates(layer.name, model.tensors[layer.weight], model, config)
        for layer in find_layers(model)
    }
    return {name: several for name, several in found.items() if not isinstance(several, str)}


def _objective(
    model: Model, layer: Layer, weight: np.ndarray, moments: Moments, metric: np.ndarray
) -> Objective:
    """Return what factors of a layer shall be good for."""
    if own_bias(model, layer.name) is not None:
        moments = moments.centered()
    target = moments.fitted(layer.matrices(weight))
    return Objective.of(target[0], moments.second[0], metric)


def _solve(
    layer: Layer,
    candidate: Candidate,
    weight: np.ndarray,
    moments: Moments,
    objective: Objective,
    bias: Tensor | None,
) -> _Solution:
    u, v, error = _fit(layer, candidate.scheme, objective, candidate.rank, ROUNDS)
    change = None
    if bias is not None:
        merged = candidate.scheme.merge(u, v)
        change = moments.bias_change(layer.matrices(weight), layer.matrices(merged))
    return _Solution(u, v, change, error)


def _fit(
    layer: Layer, scheme: Scheme, objective: Objective, rank: int, rounds: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return U and V as the scheme wants them, and what error they leave."""
    ordinary = (layer.rows, scheme.inputs, *layer.kernel)
    if scheme.name == "separable":
        u, v, errors = best_separable(objective, ordinary, rank, rounds)  # type: ignore[arg-type]
        error = errors[-1]
    else:
        second, first, error = best_product(objective, rank)
        u = first.reshape(rank, *ordinary[1:])
        v = second.reshape(layer.rows, rank, *(1,) * len(layer.kernel))
    if scheme.transposed:
        axes = tuple(range(2, u.ndim))
        u = np.flip(u.swapaxes(0, 1), axes)
        if scheme.name == "separable":
            v = np.flip(v.swapaxes(0, 1), axes)
    return np.ascontiguousarray(u), np.ascontiguousarray(v), error


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
