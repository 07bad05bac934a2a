"""The range of an input, as far as constants of the network tell it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from nnrcodec.calibration.kinds import Kind, Taken
from nnrcodec.graph.graph import Graph, Node, Ref
from nnrcodec.graph.layers import Layer, find_layers
from nnrcodec.graph.module import DecodedModel, build_module, run_node
from nnrcodec.graph.normalized import NormalizedConvolution, normalized_convolutions
from nnrcodec.model.model import Model

Change = Callable[[torch.Tensor], torch.Tensor]
"""What puts an input in its range."""

_SUMS = frozenset(("add", "add_", "sub", "sub_", "subtract", "rsub"))
_PRODUCTS = frozenset(("mul", "mul_", "multiply", "div", "div_", "divide"))
_PLAIN = frozenset(["alias", "clone", "contiguous", "detach", "to", "_to_copy"])
_OVERLOADS = frozenset(("Tensor", "Scalar", "default", "dtype"))
_BATCH_NORMS = ("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default")

_MOST_OF_SOUND = 2**15
_PICTURES, _SIGNALS = 16, 4
"""Inputs that are looked at to compare them with the statistics of a batch norm."""


def ranges(
    model: Model, kinds: Sequence[Taken], example: Callable[[int], tuple[torch.Tensor, ...]]
) -> list[Change]:
    """Return, for each input, what changes values in 0..1 (signals: -1..1) to the range it has.

    Constants that are subtracted from the input, or that multiply it, tell whether pictures are in
    0..255, and whether signals are of 16 bits. The statistics of a batch norm after the first layer
    tell scale and mean of pictures, and after the first layers the scale of signals.

    Parameters
    ----------
    model : Model
        With a graph that runs with the examples.
    kinds : sequence of Taken
        What the inputs are.
    example : callable
        Returns an input in 0..1 by its number.

    Returns
    -------
    list of callable
        Their numbers are rounded, so that they are the same on all machines.
    """
    graph = model.graph
    changes: list[Change] = [lambda value: value for _ in kinds]
    if graph is None:
        return changes
    module = build_module(model)
    for index, taken in enumerate(kinds):
        if taken.kind not in (Kind.PICTURE, Kind.SIGNAL):
            continue
        if not example(0)[index].is_floating_point():
            continue  # bytes
        largest = _largest(module, graph, index, example(0), taken.kind)
        if largest > 1:
            changes[index] = functools.partial(torch.mul, other=largest)
        elif index == 0:
            changes[index] = _normalized(model, module, taken.kind, example)
    return changes


def _largest(
    module: DecodedModel,
    graph: Graph,
    index: int,
    example: tuple[torch.Tensor, ...],
    kind: Kind,
) -> int:
    """Return the end of the range of an input by the constants after it; 1 if they do not tell."""
    last = _last_constant(graph, index)
    if last is None:
        return 1
    ends = []
    for constant in (0.0, 1.0):
        values: list[Any] = [value.clone() for value in example]
        values[index] = torch.full_like(values[index], constant)
        with torch.inference_mode():
            for position in range(last + 1):
                run_node(module, position, values)
        ends.append(values[-1].double())
    at_zero, slope = ends[0], ends[1] - ends[0]
    middle = float((-at_zero / slope).median())  # of the range: it becomes 0
    factor = float(slope.abs().median())
    if kind is Kind.SIGNAL:
        return _MOST_OF_SOUND if factor < 1 / 1000 else 1
    if middle == 0:
        return 255 if factor < 1 / 32 else 1
    return 255 if 1 < middle < 255 else 1


def _last_constant(graph: Graph, index: int) -> int | None:
    """Return the node up to which an input is only multiplied by constants and added to them."""
    depends = set(range(len(graph.inputs)))
    for position, node in enumerate(graph.nodes):
        if not depends.isdisjoint(_refs(node)):
            depends.add(graph.ref(position).index)
    value, last = Ref(index), None
    while True:
        after = [
            position
            for position in graph.users(value)
            if _is_linear(graph.nodes[position], value, depends)
        ]
        if not after:
            return last
        last, value = after[0], graph.ref(after[0])


def _refs(node: Node) -> list[int]:
    return [leaf.index for leaf in node.leaves() if isinstance(leaf, Ref)]


def _is_linear(node: Node, value: Ref, depends: set[int]) -> bool:
    """Return whether a node adds constants to a value, or multiplies it by them."""
    library, name, *overload = node.op.split(".")
    if library != "aten" or name not in _SUMS | _PRODUCTS | _PLAIN or overload[0] not in _OVERLOADS:
        return False
    if [index for index in _refs(node) if index in depends] != [value.index]:
        return False
    return node.args[0] == value or name not in ("div", "div_", "divide")


def _normalized(
    model: Model,
    module: DecodedModel,
    kind: Kind,
    example: Callable[[int], tuple[torch.Tensor, ...]],
) -> Change:
    """Return what gives the input the scale (and pictures the mean) that a batch norm has seen."""
    if kind is Kind.SIGNAL:
        scale = _scale(model, module, [example(number) for number in range(_SIGNALS)])
        return lambda value: scale * value
    norms = {norm.weight: norm for norm in normalized_convolutions(model)}
    layers = [layer for layer in find_layers(model) if layer.weight in norms and layer.value == 0]
    if not layers or layers[0].groups > 1:
        return lambda value: value
    examples = [example(number) for number in range(_PICTURES)]
    scale, offset = _scale_and_offset(model, layers[0], norms[layers[0].weight], module, examples)
    return lambda value: (scale * value.double() + offset).to(value.dtype)


def _scale_and_offset(
    model: Model,
    layer: Layer,
    norm: NormalizedConvolution,
    module: DecodedModel,
    examples: Sequence[tuple[torch.Tensor, ...]],
) -> tuple[float, torch.Tensor]:
    """Return one scale, and a shift for each channel.

    By least squares over the channels of the layer before a batch norm.
    """
    measured = np.concatenate([_at(module, layer.node, inputs) for inputs in examples], axis=1)
    bias = 0 if norm.bias is None else model.tensors[norm.bias].read().astype(np.float64)
    mean, variance = (
        model.tensors[name].read().astype(np.float64)
        for name in (norm.running_mean, norm.running_var)
    )
    deviation = measured.std(1)
    scale = float(np.sqrt(variance) @ deviation / max(deviation @ deviation, 1e-30))
    scale = float(f"{scale:.3g}")
    sums = layer.matrices(model.tensors[layer.weight].read())[0].reshape(len(mean), -1, 1)
    taps = math.prod(layer.kernel)
    sums = sums.reshape(len(mean), -1, taps).sum(2).astype(np.float64)
    difference = mean - bias - scale * (measured.mean(1) - bias)
    shift, *_ = np.linalg.lstsq(sums, difference, rcond=1e-3)
    shift = np.rint(shift / max(scale, 1e-30) * 100) / 100 * scale
    return scale, torch.from_numpy(shift[:, None, None])


def _scale(
    model: Model, module: DecodedModel, examples: Sequence[tuple[torch.Tensor, ...]]
) -> float:
    """Return the power of 2 with which the input of the first batch norm is most like it has seen.

    That is the one of least divergence of normal distributions with these means and variances.
    """
    graph = module._nnr_graph
    position = next((p for p, node in enumerate(graph.nodes) if node.op in _BATCH_NORMS), None)
    if position is None:
        return 1.0
    node = graph.nodes[position]
    names = [getattr(argument, "name", None) for argument in node.args[3:5]]
    if None in names or not isinstance(node.args[0], Ref):
        return 1.0
    mean, variance = (model.tensors[str(name)].read().astype(np.float64) for name in names)
    before = node.args[0].index - len(graph.inputs)

    def divergence(scale: float) -> float:
        outputs = np.concatenate(
            [_at(module, before, (scale * first, *rest)) for first, *rest in examples], axis=1
        )
        spread = outputs.var(1) + 1e-6 * variance + 1e-30
        distance = (spread + (outputs.mean(1) - mean) ** 2) / np.maximum(variance, 1e-30)
        return float((distance - np.log(spread)).mean())

    return min((2.0**k for k in range(-6, 18)), key=divergence)


def _at(module: DecodedModel, position: int, inputs: tuple[torch.Tensor, ...]) -> np.ndarray:
    """Return what a node computes, channels along axis 0."""
    values: list[Any] = [value.clone() for value in inputs]
    with torch.inference_mode():
        for before in range(position + 1):
            run_node(module, before, values)
    moved: torch.Tensor = values[-1].movedim(1, 0)
    return moved.flatten(1).double().numpy()
