"""The convolutions and linear layers of a graph, and their geometry.

A convolution, a transposed convolution and a linear layer all multiply a matrix, their weight, by
vectors from their input: for a convolution patches of all channels, for a transposed one patches
after zeros were put between the samples. `Layer` describes the matrix and the vectors. This module
does not use PyTorch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nnrcodec.graph.graph import Argument, Node, Ref, TensorRef, Word
from nnrcodec.graph.operators import OPERATORS
from nnrcodec.model.dtypes import is_float
from nnrcodec.model.model import Model, Role

_AXES = {
    "aten.conv1d.default": 1,
    "aten.conv1d.padding": 1,
    "aten.conv2d.default": 2,
    "aten.conv2d.padding": 2,
    "aten.conv3d.default": 3,
    "aten.conv3d.padding": 3,
    "aten.conv_transpose1d.default": 1,
    "aten.conv_transpose2d.input": 2,
    "aten.conv_transpose3d.input": 3,
    "aten.linear.default": 0,
}

MAX_MATRIX_SIDE = 6144
"""Most rows or columns of the weight matrix of a layer that is measured: there are several matrices
of second moments with the square of this number of elements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer that multiplies by a weight.

    Parameters
    ----------
    weight : str
        Name of its weight.
    bias : str or None
        Name of its bias.
    node : int
        Position of its node in the graph.
    value : int
        Number of the value that is its input.
    shape : tuple of int
        Shape of the weight: (N, C/groups, ...), transposed (C, N/groups, ...).
    transposed : bool
        Whether it is a transposed convolution.
    groups : int
        Number of groups of channels.
    stride, dilation : tuple of int
        One number for each axis of the kernel; empty for a linear layer.
    padding : tuple of (int, int)
        Samples added before and after each axis. For a transposed convolution these are for the
        stretched input, and may be negative.
    """

    weight: str
    bias: str | None
    node: int
    value: int
    shape: tuple[int, ...]
    transposed: bool
    groups: int
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    @property
    def name(self) -> str:
        """Name of the weight without ``.weight``."""
        return self.weight.removesuffix(".weight")

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of the kernel along its axes."""
        return self.shape[2:]

    @property
    def rows(self) -> int:
        """Output channels of each group."""
        return self.shape[1] if self.transposed else self.shape[0] // self.groups

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.groups * self.rows

    @property
    def columns(self) -> int:
        """Inputs of each output: channels of a group times taps."""
        channels = self.shape[0] // self.groups if self.transposed else self.shape[1]
        return channels * math.prod(self.kernel)

    def matrices(self, weight: np.ndarray) -> np.ndarray:
        """Return a weight as matrices that multiply patches of the input.

        Parameters
        ----------
        weight : ndarray, shape `shape`

        Returns
        -------
        ndarray, shape (groups, rows, columns)
            Columns are ordered by channel, then by kernel position.
        """
        if self.transposed:
            split = weight.reshape(self.groups, -1, *self.shape[1:])
            taps = tuple(range(3, split.ndim))
            weight = np.flip(np.swapaxes(split, 1, 2), taps)
        return weight.reshape(self.groups, self.rows, self.columns)

    def weight_of(self, matrices: np.ndarray) -> np.ndarray:
        """Return the weight from its matrices: the inverse of `matrices`."""
        if not self.transposed:
            return matrices.reshape(self.shape)
        split = matrices.reshape(self.groups, self.rows, -1, *self.kernel)
        taps = tuple(range(3, split.ndim))
        return np.ascontiguousarray(np.swapaxes(np.flip(split, taps), 1, 2)).reshape(self.shape)


def find_layers(model: Model) -> tuple[Layer, ...]:
    """Return the layers of a model that can be measured, in the order in which they run.

    Omitted are layers whose weight is used more than once or is not of a float dtype, whose
    geometry is not constant, or whose weight matrix is larger than `MAX_MATRIX_SIDE`.

    Parameters
    ----------
    model : Model
        Without a graph there are none.
    """
    graph = model.graph
    if graph is None:
        return ()
    layers = []
    for position, node in enumerate(graph.nodes):
        if node.op in _AXES:
            layer = _layer_of(position, node, model)
            if layer is None or len(graph.uses(TensorRef(layer.weight))) != 1:
                continue
            if max(layer.columns, layer.outputs) > MAX_MATRIX_SIDE:
                continue
            layers.append(layer)
    return tuple(layers)


def weights_outside_layers(model: Model) -> tuple[str, ...]:
    """Return the weights of a model that are not those of its `find_layers`, in its order.

    Such are embedding tables, the gates of recurrent layers, and what is used more than once;
    constants, such as masks, are no weights.

    Parameters
    ----------
    model : Model
        Without a graph there are none.

    Returns
    -------
    tuple of str
        Names of tensors of a float dtype and at least two dimensions that the graph uses.
    """
    if model.graph is None:
        return ()
    measured = {layer.weight for layer in find_layers(model)}
    return tuple(
        name
        for name, tensor in model.tensors.items()
        if len(tensor.shape) >= 2 and tensor.size and is_float(tensor.dtype)
        if tensor.role is not Role.CONSTANT
        if name not in measured and model.graph.uses(TensorRef(name))
    )


def _layer_of(position: int, node: Node, model: Model) -> Layer | None:
    names = (parameter.name for parameter in OPERATORS[node.op].positional)
    arguments = {**dict(zip(names, node.args, strict=False)), **dict(node.kwargs)}
    value, weight, bias = arguments["input"], arguments["weight"], arguments.get("bias")
    if not isinstance(value, Ref) or not isinstance(weight, TensorRef):
        return None
    if not isinstance(bias, TensorRef | None):
        return None
    tensor = model.tensors[weight.name]
    axes = _AXES[node.op]
    if len(tensor.shape) != axes + 2 or tensor.size == 0 or not is_float(tensor.dtype):
        return None
    transposed = "transpose" in node.op
    groups = arguments.get("groups", 1)
    stride, dilation = (_sizes(arguments.get(name, 1), axes) for name in ("stride", "dilation"))
    if not isinstance(groups, int) or stride is None or dilation is None:
        return None
    reach = [d * (k - 1) for d, k in zip(dilation, tensor.shape[2:], strict=True)]
    padding = arguments.get("padding", 0)
    if isinstance(padding, Word):
        around = [(r // 2, r - r // 2) if padding.value == "same" else (0, 0) for r in reach]
    else:
        sizes = _sizes(padding, axes)
        extra = _sizes(arguments.get("output_padding", 0), axes)
        if sizes is None or extra is None:
            return None
        if transposed:
            around = [(r - p, r - p + e) for r, p, e in zip(reach, sizes, extra, strict=True)]
        else:
            around = [(p, p) for p in sizes]
    return Layer(
        weight=weight.name,
        bias=None if bias is None else bias.name,
        node=position,
        value=value.index,
        shape=tensor.shape,
        transposed=transposed,
        groups=groups,
        stride=stride,
        dilation=dilation,
        padding=tuple(around),
    )


def _sizes(argument: Argument, axes: int) -> tuple[int, ...] | None:
    """Return a size for each axis; a single size is repeated for all axes."""
    sizes = argument if isinstance(argument, tuple) else (argument,)
    if len(sizes) == 1:
        sizes *= axes
    if not all(type(size) is int for size in sizes):
        return None
    return sizes[:axes]  # type: ignore[return-value]
