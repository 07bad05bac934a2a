"""Split one convolution or linear layer of a graph into two thin ones, and join them again.

With the separable scheme a convolution of d x d' becomes one of d x 1 followed by one of 1 x d',
each with stride, padding, output padding and dilation of its axis. With the other schemes the first
layer has all of these, and the second only mixes channels. The second has the bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nnrcodec.graph.graph import Argument, Local, Node, TensorRef, Word
from nnrcodec.reduce.schemes import Scheme

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = (*_CONVOLUTION[:5], "output_padding", "groups", "dilation")
_INPUT, _WEIGHT, _BIAS = range(3)
_WITHOUT_EFFECT = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}


@dataclass(frozen=True, slots=True)
class Kind:
    """The kind of layer that an operator computes.

    Parameters
    ----------
    axes : int
        Number of axes of its kernel; 0 for a linear layer.
    transposed : bool
        Whether it is a transposed convolution.
    arguments : tuple of str
        Its arguments by position; the bias and those after it may be omitted.
    pointwise : str
        The operator for a layer that only mixes channels, with the same number of axes.
    padding : Argument
        Default of its padding.
    """

    axes: int
    transposed: bool
    arguments: tuple[str, ...]
    pointwise: str
    padding: Argument = 0


def _kinds() -> dict[str, Kind]:
    linear = "aten.linear.default"
    kinds = {linear: Kind(0, False, _CONVOLUTION[:3], linear)}
    for axes, overload in ((1, "default"), (2, "input"), (3, "input")):
        plain, word = f"aten.conv{axes}d.default", f"aten.conv{axes}d.padding"
        kinds[plain] = Kind(axes, False, _CONVOLUTION, plain)
        kinds[word] = Kind(axes, False, _CONVOLUTION, plain, Word("padding", "valid"))
        transposed = f"aten.conv_transpose{axes}d.{overload}"
        kinds[transposed] = Kind(axes, True, _TRANSPOSED, plain)
    return kinds


KINDS: Mapping[str, Kind] = _kinds()
"""The operators that can be split."""


def obstacle(node: Node, weight: TensorRef) -> str | None:
    """Return why a node that uses a weight cannot be split; None if it can."""
    if node.op not in KINDS:
        return f"it is used by {node.op}, which is not a convolution or linear layer"
    kind = KINDS[node.op]
    layer = "convolution" if kind.axes else "linear layer"
    if node.kwargs:
        return f"its {layer} has keyword arguments"
    if node.args[_WEIGHT : _WEIGHT + 1] != (weight,) or list(node.leaves()).count(weight) != 1:
        return f"it is not only the weight of a {layer}"
    groups = _argument(node, "groups")
    if groups != 1:
        return f"its convolution has {groups} groups"
    for name in kind.arguments:
        argument = _argument(node, name)
        constant = isinstance(argument, Word) or _along_axes(argument, kind.axes) is not None
        if name in _WITHOUT_EFFECT and not constant:
            return "the stride, padding or dilation of its convolution is not constant"
    return None


def stride(node: Node) -> tuple[int, ...]:
    """Return the stride of a node, which has no `obstacle`, along each of its axes."""
    return _along_axes(_argument(node, "stride"), KINDS[node.op].axes) or ()


def split(node: Node, u: str, v: str, scheme: Scheme) -> tuple[Node, Node]:
    """Return the nodes of two layers, with weights `u` and `v`, that replace one layer.

    They keep its arguments, so that `join` restores the same node. The second refers to the first
    as ``Local(0)``.
    """
    kind = KINDS[node.op]
    first, second = list(node.args), list(node.args)
    first[_WEIGHT], second[_WEIGHT] = TensorRef(u), TensorRef(v)
    second[_INPUT] = Local(0)
    if len(node.args) > _BIAS:
        first[_BIAS] = None
    if scheme.name != "separable":
        return Node(node.op, tuple(first)), Node(kind.pointwise, tuple(second[: _BIAS + 1]))
    for position, (name, argument) in enumerate(zip(kind.arguments, node.args, strict=False)):
        axes = _along_axes(argument, kind.axes)
        if name in _WITHOUT_EFFECT and axes is not None:
            first[position] = (axes[0], _WITHOUT_EFFECT[name])
            second[position] = (_WITHOUT_EFFECT[name], axes[1])
    return Node(node.op, tuple(first)), Node(node.op, tuple(second))


def join(first: Node, second: Node, weight: str, scheme: Scheme) -> Node | None:
    """Return the node of one layer that replaces two; None if they cannot be joined.

    The caller ensures that the input of the second is the output of the first.
    """
    kind = KINDS.get(first.op)
    if kind is None or second.op not in KINDS or first.kwargs or second.kwargs:
        return None
    if (kind.axes, kind.transposed) != (len(scheme.kernel_shape) - 2, scheme.transposed):
        return None
    if _argument(first, "bias") is not None:
        return None
    if (_argument(first, "groups"), _argument(second, "groups")) != (1, 1):
        return None
    if scheme.name == "separable":
        return _join_separable(first, second, weight)
    if second.op != kind.pointwise or not _only_mixes_channels(second):
        return None
    args = [first.args[_INPUT], TensorRef(weight), *first.args[_BIAS:]]
    if max(len(first.args), len(second.args)) > _BIAS:
        args[_BIAS : _BIAS + 1] = [_argument(second, "bias")]
    return Node(first.op, tuple(args))


def _join_separable(vertical: Node, horizontal: Node, weight: str) -> Node | None:
    if vertical.op != horizontal.op:
        return None
    args: list[Argument] = [vertical.args[_INPUT], TensorRef(weight)]
    for name in KINDS[vertical.op].arguments[_BIAS:]:
        first, second = _argument(vertical, name), _argument(horizontal, name)
        if name not in _WITHOUT_EFFECT or (isinstance(first, Word) and first == second):
            args.append(second)
            continue
        down, across = _along_axes(first, 2), _along_axes(second, 2)
        if down is None or across is None or (down[1], across[0]) != (_WITHOUT_EFFECT[name],) * 2:
            return None
        args.append((down[0], across[1]))
    return Node(vertical.op, tuple(args[: max(len(vertical.args), len(horizontal.args))]))


def _only_mixes_channels(node: Node) -> bool:
    """Return whether a layer with a kernel of size 1 has no stride, padding or dilation."""
    kind = KINDS[node.op]
    return all(
        _along_axes(_argument(node, name), kind.axes) == (_WITHOUT_EFFECT[name],) * kind.axes
        for name in kind.arguments
        if name in _WITHOUT_EFFECT
    )


def _argument(node: Node, name: str) -> Argument:
    """Return an argument, or its default if it is omitted."""
    kind = KINDS[node.op]
    position = kind.arguments.index(name) if name in kind.arguments else len(node.args)
    if position < len(node.args):
        return node.args[position]
    if name == "padding":
        return kind.padding
    return {"bias": None, "groups": 1}.get(name, _WITHOUT_EFFECT.get(name))


def _along_axes(argument: Argument, axes: int) -> tuple[int, ...] | None:
    """Return a number for each axis; a single number is repeated for all axes."""
    sizes = argument if isinstance(argument, tuple) else (argument,)
    if len(sizes) not in (1, axes) or not all(type(size) is int for size in sizes):
        return None
    return sizes if len(sizes) == axes else sizes * axes  # type: ignore[return-value]
