"""Candidates: the layers that low rank can decompose, with their schemes and ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnrcodec.errors import ConfigError
from nnrcodec.graph.graph import Graph, Node, TensorRef
from nnrcodec.model.model import Factors, Model, Tensor
from nnrcodec.reduce.convolutions import KINDS, obstacle, stride
from nnrcodec.reduce.decomposition import Decomposition
from nnrcodec.reduce.ranks import LayerRank, LowRankConfig
from nnrcodec.reduce.schemes import SCHEMES, Scheme, misfit


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to decompose a layer.

    Parameters
    ----------
    scheme : Scheme
        How the layer becomes two.
    rank : int
        Channels between the two.
    decomposition : Decomposition
        The singular values and vectors of its weight, for this scheme.
    """

    scheme: Scheme
    rank: int
    decomposition: Decomposition


def candidates(
    layer: str, weight: Tensor, model: Model, config: LowRankConfig
) -> tuple[Candidate, ...] | str:
    """Return the candidates for a layer; the one with the lowest error is to be used.

    Parameters
    ----------
    layer : str
        Its name.
    weight : Tensor
        Its weight.
    model : Model
        With or without a graph.
    config : LowRankConfig
        Which layers to decompose, and how.

    Returns
    -------
    tuple of Candidate, or str
        At least one candidate, or the reason why there is none.

    Raises
    ------
    ConfigError
        The layer is given a rank that it does not have.
    """
    reason = _reason_against(layer, weight, model, config)
    if reason is not None:
        return reason
    nodes = _users(weight, model.graph) if model.graph else ()
    schemes = _schemes(layer, weight, any(KINDS[node.op].transposed for node in nodes), config)
    if isinstance(schemes, str):
        return schemes
    if model.graph is None and layer not in (config.ranks or {}):
        reason = _reason_in_shape(weight.shape)
        if reason is not None:
            return reason
    kernel = weight.read()
    if not np.isfinite(kernel).all():
        return "its weight has values that are not finite"
    choice = (config.ranks or {}).get(layer)
    if choice is None:
        return _by_rule(kernel, schemes, stride(nodes[0]) if nodes else (), config)
    scheme, rank = schemes[0], choice.rank if isinstance(choice, LayerRank) else choice
    if rank > scheme.maximum_rank:
        raise ConfigError(f"layer {layer!r} has at most rank {scheme.maximum_rank}, not {rank}")
    return (Candidate(scheme, rank, Decomposition.of(scheme, kernel)),)


def _reason_against(layer: str, weight: Tensor, model: Model, config: LowRankConfig) -> str | None:
    """Return why a layer cannot be decomposed with any scheme, whatever its values are."""
    if config.ranks is not None and layer not in config.ranks:
        return "it is given no rank"
    if layer in config.left_out:
        return "its weight or bias is kept as it is"
    if weight.size == 0:
        return "its weight is empty"
    if weight.name != f"{layer}.weight":
        return "its weight is not named <layer>.weight"
    names = Factors(layer, weight.shape, 1)
    if not model.tensors.keys().isdisjoint({names.u, names.v, names.v_bias}):
        return f"there already is a tensor {names.u}, {names.v} or {names.v_bias}"
    if model.graph is not None:
        return _reason_in_graph(weight, model.graph)
    return None


def _reason_in_graph(weight: Tensor, graph: Graph) -> str | None:
    nodes, named = _users(weight, graph), TensorRef(weight.name)
    if not nodes:
        return "the graph does not compute anything with it"
    if graph.is_output(named):
        return "the graph returns its weight"
    for node in nodes:
        reason = obstacle(node, named)
        if reason is not None:
            return reason
    if len({KINDS[node.op].transposed for node in nodes}) > 1:
        return "it is used by ordinary and by transposed convolutions"
    return None


def _reason_in_shape(shape: tuple[int, ...]) -> str | None:
    """Return why a weight may not be that of a layer to decompose, if there is no graph to tell."""
    if len(shape) == 2:
        return "it may be an embedding; name it with a rank if it is not"
    if shape[1] == 1 < shape[0]:
        return "it may be a depthwise convolution; name it with a rank if it is not"
    return None


def _users(weight: Tensor, graph: Graph) -> tuple[Node, ...]:
    return tuple(graph.nodes[user] for user in graph.users(TensorRef(weight.name)))


def _schemes(
    layer: str, weight: Tensor, transposed: bool, config: LowRankConfig
) -> tuple[Scheme, ...] | str:
    """Return the allowed schemes in the order of `SCHEMES`, or why there are none."""
    choice = (config.ranks or {}).get(layer)
    names = SCHEMES
    if isinstance(choice, LayerRank):
        names = (choice.scheme,)
    elif config.scheme == "channel":
        names = ("channel", "linear")
    elif config.scheme == "separable" and choice is None:
        names = ("separable",)
        if transposed and len(weight.shape) == 4:
            return "its convolution is transposed; take scheme auto, or name it with a rank"
    reasons = {name: misfit(name, weight.shape) for name in names}
    fitting = tuple(
        Scheme(name, weight.shape, transposed) for name, reason in reasons.items() if not reason
    )
    return fitting or reasons[names[0]] or ""


def _by_rule(
    kernel: np.ndarray, schemes: tuple[Scheme, ...], stride: tuple[int, ...], config: LowRankConfig
) -> tuple[Candidate, ...] | str:
    """Return the smallest candidate for an energy, or all candidates within a cost ratio."""

    def cost(candidate: Candidate) -> int:
        return candidate.scheme.cost(candidate.rank, config.optimise, stride)

    budget = int((config.rank_ratio or 1) * kernel.size)
    fitted = []
    for scheme in schemes:
        decomposition = Decomposition.of(scheme, kernel)
        if config.energy is not None:
            rank = decomposition.rank_for_energy(config.energy)
        else:
            fitting = budget // scheme.cost(1, config.optimise, stride)
            rank = min(max(fitting, 1), scheme.maximum_rank)
        fitted.append(Candidate(scheme, rank, decomposition))
    smaller = [candidate for candidate in fitted if cost(candidate) < kernel.size]
    if not smaller:
        return _too_large(fitted[0], cost(fitted[0]), kernel.size)
    if config.energy is None and any(cost(candidate) <= budget for candidate in smaller):
        return tuple(candidate for candidate in smaller if cost(candidate) <= budget)
    return (min(smaller, key=cost),)


def _too_large(candidate: Candidate, cost: int, size: int) -> str:
    factors = f"its factors of rank {candidate.rank} would"
    elements = candidate.scheme.elements(candidate.rank)
    if elements == cost:
        return f"{factors} have {elements} elements, it has {size}"
    return f"{factors} take {cost} multiply-adds at each position, it takes {size}"
