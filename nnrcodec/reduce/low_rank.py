"""Low-rank reduction: convolutions replaced by two thin ones, and the way back.

`decompose` replaces a layer ``L`` with kernel ``L.weight`` by ``L.u`` and ``L.v``, whose kernels
come from `nnrcodec.reduce.separable`; `merge` multiplies them out again. Both change tensors and
graph alike and leave their input untouched.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from nnrcodec.dtypes import cast, is_float
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.graph.graph import Graph, Leaf, TensorRef
from nnrcodec.model import Factors, Model, Role, Tensor
from nnrcodec.reduce.convolutions import join, obstacle, split
from nnrcodec.reduce.separable import Separation, factor_elements, maximum_rank, merge_kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankConfig:
    """How many channels to put between the two thin convolutions: exactly one of three rules.

    Parameters
    ----------
    ranks : mapping of str to int, optional
        Rank by layer; all other layers are left alone.
    energy : float, optional
        In (0, 1]: the smallest rank that keeps at least this part of the sum of squared singular
        values, in every layer that gets smaller by it.
    rank_ratio : float, optional
        In (0, 1]: the largest rank, but at least 1, at which the factors have at most this part
        of the elements of the kernel, in every layer that gets smaller by it.

    Raises
    ------
    ConfigError
        Not exactly one of them is given, or one is out of range.
    """

    ranks: Mapping[str, int] | None = None
    energy: float | None = None
    rank_ratio: float | None = None

    def __post_init__(self) -> None:
        given = [rule for rule in (self.ranks, self.energy, self.rank_ratio) if rule is not None]
        if len(given) != 1:
            raise ConfigError("give exactly one of ranks, energy and rank_ratio")
        for name, part in (("energy", self.energy), ("rank_ratio", self.rank_ratio)):
            if part is not None and not 0 < part <= 1:
                raise ConfigError(f"{name} must be above 0 and at most 1, not {part}")
        if self.ranks is not None:
            if not self.ranks:
                raise ConfigError("ranks must name at least one layer")
            for layer, rank in self.ranks.items():
                if type(rank) is not int or rank < 1:
                    raise ConfigError(
                        f"the rank of layer {layer!r} must be an int of 1 or more, not {rank!r}"
                    )


def parse_ranks(text: str) -> dict[str, int]:
    """Read ranks by layer as they are given on the command line.

    Parameters
    ----------
    text : str
        Such as ``net.2=32,net.4=24``.

    Raises
    ------
    ConfigError
        The text has another form or names a layer twice.

    Examples
    --------
    >>> parse_ranks("net.2=32,net.4=24")
    {'net.2': 32, 'net.4': 24}
    """
    ranks: dict[str, int] = {}
    for item in text.split(","):
        layer, _, rank = (part.strip() for part in item.rpartition("="))
        if not layer or not (rank.isascii() and rank.isdigit()):
            raise ConfigError(f"{item!r} is not of the form layer=rank, such as net.2=32")
        if layer in ranks:
            raise ConfigError(f"layer {layer!r} is given two ranks")
        ranks[layer] = int(rank)
    return ranks


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What was done to one layer, and why.

    Parameters
    ----------
    layer : str
        Name of the weight without ``.weight``.
    shape : tuple of int
        Shape of the weight before.
    rank : int or None
        Channels between the two convolutions; None if the layer was left alone.
    energy_kept : float
        Part of the sum of squared singular values that is left, 1 if the layer was left alone.
    parameters_before, parameters_after : int
        Elements of the weight, and of its factors.
    reason : str or None
        Why the layer was left alone; None if it was decomposed.
    """

    layer: str
    shape: tuple[int, ...]
    rank: int | None
    energy_kept: float
    parameters_before: int
    parameters_after: int
    reason: str | None


def decompose(model: Model, config: LowRankConfig) -> tuple[Model, tuple[LayerReport, ...]]:
    """Replace convolutions by a vertical and a horizontal one each.

    The scheme is that of Tai et al., "Convolutional neural networks with low-rank regularization",
    ICLR 2016. Eligible are 2-D convolutions with one group and a kernel of more than one row and
    column, whose weight is used for nothing else. Without a graph it is the shape of the weight
    that decides; what shapes do not tell, that a kernel is grouped or transposed, remains unseen.

    Parameters
    ----------
    model : Model
        With or without a graph.
    config : LowRankConfig
        How to choose ranks.

    Returns
    -------
    model : Model
        ``L.weight`` has become ``L.u.weight`` and ``L.v.weight``, of its dtype and in its place;
        the bias of the layer, ``L.bias``, is called ``L.v.bias``.
    reports : tuple of LayerReport
        One for each float parameter with two or more dimensions, in the order of the model.

    Raises
    ------
    ConfigError
        A layer that is given a rank does not exist, cannot be decomposed, or has no such rank.
    """
    ranks = config.ranks or {}
    weights = {
        tensor.name.removesuffix(".weight"): tensor
        for tensor in model.tensors.values()
        if tensor.role is Role.PARAMETER and is_float(tensor.dtype) and len(tensor.shape) > 1
    }
    for layer in ranks:
        if layer not in weights:
            near = difflib.get_close_matches(layer, weights, n=3, cutoff=0.4)
            hint = f"; do you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"there is no layer {layer!r} with a weight{hint}")
    reports = []
    for layer, weight in weights.items():
        reason = _reason_against(layer, weight, model, config)
        report = LayerReport(layer, weight.shape, None, 1.0, weight.size, weight.size, reason)
        if reason is None:
            model, report = _decompose_layer(layer, weight, model, config, report)
        if layer in ranks and report.reason:
            raise ConfigError(f"layer {layer!r} cannot be decomposed: {report.reason}")
        reports.append(report)
    return model, tuple(reports)


def _reason_against(layer: str, weight: Tensor, model: Model, config: LowRankConfig) -> str | None:
    """Return why a layer must be left alone as far as its values do not matter."""
    shape = weight.shape
    if len(shape) != 4:
        return f"its weight has {len(shape)} dimensions, that of a 2-D convolution has 4"
    if weight.size == 0:
        return "its weight is empty"
    if 1 in shape[2:]:
        return f"its kernel of {shape[2]}x{shape[3]} has nothing to separate"
    if weight.name != f"{layer}.weight":
        return "its weight is not named <layer>.weight"
    names = _factors(layer, weight, 1)
    if not model.tensors.keys().isdisjoint({names.u, names.v, names.v_bias}):
        return f"there already is a tensor {layer}.u.weight, {layer}.v.weight or {layer}.v.bias"
    if model.graph is None:
        if shape[1] == 1 < shape[0] and layer not in (config.ranks or {}):
            return "it may be a depthwise convolution; name it with a rank if it is not"
    else:
        reason = _reason_in_graph(TensorRef(weight.name), model.graph)
        if reason is not None:
            return reason
    if config.ranks is not None and layer not in config.ranks:
        return "it is given no rank"
    return None


def _reason_in_graph(weight: TensorRef, graph: Graph) -> str | None:
    users = graph.users(weight)
    if not users:
        return "the graph does not compute anything with it"
    if graph.is_output(weight):
        return "the graph returns its weight"
    return next(filter(None, (obstacle(graph.nodes[user], weight) for user in users)), None)


def _decompose_layer(
    layer: str, weight: Tensor, model: Model, config: LowRankConfig, report: LayerReport
) -> tuple[Model, LayerReport]:
    kernel = weight.read()
    if not np.isfinite(kernel).all():
        return model, replace(report, reason="its weight has values that are not finite")
    separation = Separation.of(kernel)
    rank = _rank(layer, separation, config)
    factors = _factors(layer, weight, rank)
    after = factor_elements(factors.kernel_shape, rank)
    if config.ranks is None and after >= weight.size:
        reason = f"its factors of rank {rank} would have {after} elements, it has {weight.size}"
        return model, replace(report, reason=reason)
    report = replace(
        report, rank=rank, energy_kept=separation.energy_kept(rank), parameters_after=after
    )
    u, v = (
        Tensor.of(name, cast(values, weight.dtype), weight.dtype)
        for name, values in zip((factors.u, factors.v), separation.factors(rank), strict=True)
    )
    return _with_factors(model, factors, u, v), report


def _rank(layer: str, separation: Separation, config: LowRankConfig) -> int:
    shape = separation.kernel_shape
    highest = maximum_rank(shape)
    if config.energy is not None:
        return separation.rank_for_energy(config.energy)
    if config.rank_ratio is not None:
        elements = int(config.rank_ratio * np.prod(shape, dtype=object))
        return min(max(elements // factor_elements(shape, 1), 1), highest)
    rank = (config.ranks or {})[layer]
    if rank > highest:
        raise ConfigError(f"layer {layer!r} has at most rank {highest}, not {rank}")
    return rank


def _factors(layer: str, weight: Tensor, rank: int) -> Factors:
    n, c, height, width = weight.shape
    return Factors(layer, (n, c, height, width), rank)


def _original_names(factors: Factors) -> tuple[str, str]:
    return f"{factors.layer}.weight", f"{factors.layer}.bias"


def _with_factors(model: Model, factors: Factors, u: Tensor, v: Tensor) -> Model:
    weight, bias = _original_names(factors)
    graph = model.graph
    if graph is None:
        has_bias = bias in model.tensors and model.tensors[bias].shape == (v.shape[0],)
    else:
        users = graph.users(TensorRef(weight))
        has_bias = any(TensorRef(bias) in graph.nodes[user].args for user in users)
        has_bias = has_bias and not graph.is_output(TensorRef(bias))
        for user in reversed(users):
            graph = graph.splice(user, user + 1, split(graph.nodes[user], factors.u, factors.v))
        if has_bias:
            graph = _renamed(graph, bias, factors.v_bias)

    def tensors() -> Iterator[Tensor]:
        for tensor in model.tensors.values():
            if tensor.name == weight:
                yield from (u, v)
            elif tensor.name == bias and has_bias:
                yield replace(tensor, name=factors.v_bias)
            else:
                yield tensor

    return Model.of(tensors(), graph, (*model.factors, factors))


def _renamed(graph: Graph, old: str, new: str) -> Graph:
    def change(leaf: Leaf) -> Leaf:
        return TensorRef(new) if leaf == TensorRef(old) else leaf

    return replace(graph, nodes=tuple(node.replace_leaves(change) for node in graph.nodes))


def merge(model: Model) -> Model:
    """Multiply factors out: the original architecture, names and order.

    Nothing is multiplied before the kernel is read; the shapes can be compared with limits first.

    Parameters
    ----------
    model : Model
        A model that `decompose` made, or one that was decoded from it.

    Returns
    -------
    Model
        Without factors. Kernels are products formed in float64 and rounded to float32, and then
        to their dtype if that is narrower.

    Raises
    ------
    ModelError
        The tensors or the graph do not fit what the factors say.
    """
    for factors in model.factors:
        model = _without_factors(model, factors)
    return replace(model, factors=())


def _without_factors(model: Model, factors: Factors) -> Model:
    weight, bias = _original_names(factors)
    kernel = _merged_kernel(model, factors)
    names = {factors.v_bias: bias} if factors.v_bias in model.tensors else {}
    if not model.tensors.keys().isdisjoint({weight, *names.values()}):
        raise ModelError(f"there already is a weight or bias of layer {factors.layer!r}")

    def tensors() -> Iterator[Tensor]:
        for tensor in model.tensors.values():
            if tensor.name == factors.u:
                yield kernel
            elif tensor.name in names:
                yield replace(tensor, name=names[tensor.name])
            elif tensor.name != factors.v:
                yield tensor

    graph = model.graph and _merged_graph(model.graph, factors, weight)
    if graph and names:
        graph = _renamed(graph, factors.v_bias, bias)
    return Model.of(tensors(), graph, model.factors)


def _merged_kernel(model: Model, factors: Factors) -> Tensor:
    n, c, height, width = factors.kernel_shape
    shapes = {factors.u: (factors.rank, c, height, 1), factors.v: (n, factors.rank, 1, width)}
    for name, shape in shapes.items():
        tensor = model.tensors.get(name)
        if tensor is None or tensor.shape != shape or not is_float(tensor.dtype):
            raise ModelError(f"layer {factors.layer!r} needs a float tensor {name!r} of {shape}")
    u, v = model.tensors[factors.u], model.tensors[factors.v]

    def read() -> np.ndarray:
        return cast(merge_kernel(u.read(), v.read()), u.dtype)

    return Tensor(f"{factors.layer}.weight", u.dtype, factors.kernel_shape, read, u.role)


def _merged_graph(graph: Graph, factors: Factors, weight: str) -> Graph:
    u, v = TensorRef(factors.u), TensorRef(factors.v)
    error = ModelError(f"the graph does not use {u.name!r} and {v.name!r} one after the other")
    for user in reversed(graph.users(v)):
        vertical, horizontal = graph.nodes[user - 1], graph.nodes[user]
        follows = horizontal.args[:2] == (graph.ref(user - 1), v) and vertical.args[1:2] == (u,)
        joined = join(vertical, horizontal, weight) if follows else None
        if joined is None:
            raise error
        try:
            graph = graph.splice(user - 1, user + 1, (joined,))
        except ValueError:  # something else uses what is between the two
            raise error from None
    if not {u.name, v.name}.isdisjoint(graph.tensor_names()):
        raise error
    return graph
