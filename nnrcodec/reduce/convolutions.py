"""One convolution of a graph to two thin ones, and back.

A convolution with a separable kernel of d x d' is one of d x 1 followed by one of 1 x d'. Stride,
padding and dilation part along their axes; the bias goes to the second.
"""

from __future__ import annotations

from nnrcodec.graph.graph import Argument, Local, Node, TensorRef, Word

_WITH_SIZES = "aten.conv2d.default"
_WITH_WORD = "aten.conv2d.padding"

# Positions of the arguments of both operators; those from the bias on may be left out at the end.
_INPUT, _WEIGHT, _BIAS, _STRIDE, _PADDING, _DILATION, _GROUPS = range(7)
_WITHOUT_EFFECT = {_STRIDE: 1, _PADDING: 0, _DILATION: 1}


def obstacle(node: Node, weight: TensorRef) -> str | None:
    """Return why a node that uses a weight cannot be split; None if it can."""
    if node.op not in (_WITH_SIZES, _WITH_WORD):
        return f"it is used by {node.op}, which is not a 2-D convolution"
    if node.kwargs:
        return "its convolution has keyword arguments"
    if node.args[_WEIGHT : _WEIGHT + 1] != (weight,) or list(node.leaves()).count(weight) != 1:
        return "it is not just the kernel of a convolution"
    groups = _argument(node, _GROUPS)
    if groups != 1:
        return f"its convolution has {groups} groups"
    for position in _WITHOUT_EFFECT:
        argument = _argument(node, position)
        if not isinstance(argument, Word) and _along_axes(argument) is None:
            return "the stride, padding or dilation of its convolution is not constant"
    return None


def split(node: Node, u: str, v: str) -> tuple[Node, Node]:
    """Return two convolutions, by kernels `u` and `v`, that do the work of one.

    Both have as many arguments as the one, so that `join` gives it back as it was. The second
    refers to the first as ``Local(0)``.
    """
    vertical, horizontal = list(node.args), list(node.args)
    vertical[_WEIGHT], horizontal[_WEIGHT] = TensorRef(u), TensorRef(v)
    horizontal[_INPUT] = Local(0)
    if len(node.args) > _BIAS:
        vertical[_BIAS] = None
    for position, without_effect in _WITHOUT_EFFECT.items():
        axes = _along_axes(_argument(node, position))
        if position < len(node.args) and axes is not None:
            vertical[position] = (axes[0], without_effect)
            horizontal[position] = (without_effect, axes[1])
    return Node(node.op, tuple(vertical)), Node(node.op, tuple(horizontal))


def join(vertical: Node, horizontal: Node, weight: str) -> Node | None:
    """Return the one convolution that does the work of two; None if there is none.

    It is up to the caller that the second takes the value of the first.
    """
    if not vertical.op == horizontal.op in (_WITH_SIZES, _WITH_WORD):
        return None
    if vertical.kwargs or horizontal.kwargs or _argument(vertical, _BIAS) is not None:
        return None
    if (_argument(vertical, _GROUPS), _argument(horizontal, _GROUPS)) != (1, 1):
        return None
    args: list[Argument] = [vertical.args[_INPUT], TensorRef(weight), _argument(horizontal, _BIAS)]
    for position, without_effect in _WITHOUT_EFFECT.items():
        first, second = _argument(vertical, position), _argument(horizontal, position)
        if isinstance(first, Word) and first == second:
            args.append(first)
            continue
        down, across = _along_axes(first), _along_axes(second)
        if down is None or across is None or (down[1], across[0]) != (without_effect,) * 2:
            return None
        args.append((down[0], across[1]))
    args.append(1)
    return Node(vertical.op, tuple(args[: max(len(vertical.args), len(horizontal.args))]))


def _argument(node: Node, position: int) -> Argument:
    """Return an argument or what the operator takes in its place."""
    if position < len(node.args):
        return node.args[position]
    if position == _PADDING and node.op == _WITH_WORD:
        return Word("padding", "valid")
    return {_BIAS: None, _GROUPS: 1}.get(position, _WITHOUT_EFFECT.get(position))


def _along_axes(argument: Argument) -> tuple[int, int] | None:
    """Return a number for either axis; one number stands for both."""
    sizes = argument if isinstance(argument, tuple) else (argument,)
    if len(sizes) not in (1, 2) or not all(type(size) is int for size in sizes):
        return None
    return sizes[0], sizes[-1]  # type: ignore[return-value]
