"""Batch-norm folding: batch norms are multiplied into the convolutions before them.

At inference a batch norm is a factor and an offset for each channel. If its input is the output of
a convolution or a linear layer that no other node uses, the two can become one layer. The graph
decides, not the names of tensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nnrcodec.graph.graph import Graph, Node, Splice, TensorRef
from nnrcodec.graph.names import names_and_layers, without_unused_names
from nnrcodec.graph.normalized import Normalizations, NormalizedConvolution, layer_name
from nnrcodec.model.dtypes import cast
from nnrcodec.model.model import Model, Tensor


@dataclass(frozen=True, slots=True)
class FoldReport:
    """What was done to one convolution or linear layer, and why.

    Parameters
    ----------
    layer : str
        Name of the weight without ``.weight``.
    folded : bool
        Whether a batch norm was multiplied into it.
    reason : str or None
        Why not; None if it was.
    """

    layer: str
    folded: bool
    reason: str | None


def fold_batch_norm(
    model: Model, kept: Collection[str] = ()
) -> tuple[Model, tuple[FoldReport, ...]]:
    """Multiply batch norms into the convolutions and linear layers before them.

    As in Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", CVPR 2018, section 3.2: with the factor
    ``s = gamma / sqrt(running_var + eps)`` of an output channel, its weights become ``s * w`` and
    its bias ``beta + s * (bias - running_mean)``.

    Parameters
    ----------
    model : Model
        With a graph.
    kept : collection of str
        Names of tensors that must not change.

    Returns
    -------
    model : Model
        Without the batch norms that were folded and their tensors. Weights and biases are computed
        in float64 and rounded to the dtype of the weight (bfloat16 by way of float32). A layer
        ``L`` that had no bias has one after its weight, named ``L.bias``, or ``L.bias_1`` and so on
        where that is taken.
    reports : tuple of FoldReport
        One for each weight of a convolution or linear layer, in the order of the graph.

    Raises
    ------
    ModelError
        If the model has no graph.
    """
    search = Normalizations.of(model)
    reports = []
    folds = []
    taken = set(names_and_layers(model))
    for weight, result in search.results().items():
        fold = _fold(result, search, taken) if isinstance(result, NormalizedConvolution) else result
        if isinstance(fold, _Fold) and not set(kept).isdisjoint(_tensors_of(fold, search)):
            fold = "one of its tensors is kept as it is"
        if isinstance(fold, _Fold):
            folds.append(fold)
            taken.add(fold.bias.name)
        reason = None if isinstance(fold, _Fold) else fold
        reports.append(FoldReport(layer_name(weight), reason is None, reason))
    changed: dict[str, tuple[Tensor, ...]] = {}
    gone: set[str] = set()
    for fold in folds:
        is_new = fold.layers.bias is None
        changed[fold.weight.name] = (fold.weight, fold.bias) if is_new else (fold.weight,)
        changed[fold.bias.name] = (fold.bias,)
        gone |= set(_tensors_of_batch_norm(fold.layers, search))
    tensors = (changed.get(t.name, (t,)) for t in model.tensors.values() if t.name not in gone)
    folded = replace(
        model,
        tensors={t.name: t for t in itertools.chain.from_iterable(tensors)},
        graph=_folded_graph(search.graph, folds),
        onnx=None,  # its nodes are other ones
    )
    return without_unused_names(folded), tuple(reports)


@dataclass(frozen=True, slots=True)
class _Fold:
    """A convolution and its tensors after folding."""

    layers: NormalizedConvolution
    weight: Tensor
    bias: Tensor


def _fold(
    layers: NormalizedConvolution, search: Normalizations, taken: Container[str]
) -> _Fold | str:
    tensors = search.model.tensors
    old = tensors[layers.weight]
    groups, _, outputs = layers.channel_shape

    def channels(name: str | None, otherwise: float) -> np.ndarray:
        if name is None:
            return np.full(groups * outputs, otherwise)
        return tensors[name].read().astype(np.float64)

    with np.errstate(all="ignore"):  # what is not finite is seen below
        deviation = np.sqrt(channels(layers.running_var, 1) + layers.eps)
        factor = channels(layers.gamma, 1) / deviation
        centred = channels(layers.bias, 0) - channels(layers.running_mean, 0)
        bias = cast(channels(layers.beta, 0) + factor * centred, old.dtype)
        weight = old.read().astype(np.float64).reshape(*layers.channel_shape, -1)
        weight *= factor.reshape(groups, 1, outputs, 1)
        weight = cast(weight.reshape(old.shape), old.dtype)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        return f"its weight or bias would have values that are not finite in {old.dtype}"
    name = layers.bias or _free_name(layers.weight, taken)
    role = tensors[layers.bias].role if layers.bias else old.role
    return _Fold(
        layers,
        Tensor.of(layers.weight, weight, old.dtype, old.role),
        Tensor.of(name, bias, old.dtype, role),
    )


def _free_name(weight: str, taken: Container[str]) -> str:
    name = ".".join([*weight.split(".")[:-1], "bias"])
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))
    return next(name for name in names if name not in taken)


def _tensors_of(fold: _Fold, search: Normalizations) -> Iterator[str]:
    """Yield the names of all tensors that folding changes."""
    yield from (fold.weight.name, fold.bias.name)
    yield from _tensors_of_batch_norm(fold.layers, search)


def _tensors_of_batch_norm(layers: NormalizedConvolution, search: Normalizations) -> Iterator[str]:
    """Yield the names of the tensors that only the batch norm uses."""
    yield from filter(None, (layers.gamma, layers.beta, layers.running_mean, layers.running_var))
    count = ".".join([*layers.running_mean.split(".")[:-1], "num_batches_tracked"])
    if not search.graph.uses(TensorRef(count)):
        yield count


def _folded_graph(graph: Graph, folds: list[_Fold]) -> Graph:
    splices = {}
    for fold in folds:
        layers = fold.layers
        start = layers.convolution.index - len(graph.inputs)
        node = _with_bias(graph.nodes[start], TensorRef(fold.bias.name))
        splices[start] = Splice(start, start + 1, (node,))
        for removed in {layers.batch_norm, layers.result}:
            position = removed.index - len(graph.inputs)
            splices[position] = Splice(position, position + 1, (), layers.convolution)
    return graph.splice(splices[position] for position in sorted(splices))


def _with_bias(node: Node, bias: TensorRef) -> Node:
    kwargs = tuple((name, value) for name, value in node.kwargs if name != "bias")
    if len(node.args) < 2:
        return Node(node.op, node.args, (*kwargs, ("bias", bias)))
    return Node(node.op, (*node.args[:2], bias, *node.args[3:]), kwargs)
