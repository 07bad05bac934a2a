"""Sizes of calibration inputs, where the network leaves them free."""

from __future__ import annotations

from nnrcodec.graph.graph import Graph, Input

SIDE = 96
"""Height and width of pictures."""

COUNT = 32
"""Fewest inputs, unless they are large; the default number of those that are made up."""

MULTIPLICATIONS = 2**36
"""Most multiply-adds of one run with all inputs, if there are more inputs than `COUNT`."""

_LENGTH = 64
"""Any other size, except the first, which is 1."""


def free_size(graph: Graph, entry: Input, axis: int, side: int = SIDE) -> int:
    """Return the size of an axis of an input; where dynamic, the default within its bounds."""
    declared = entry.shape[axis]
    if isinstance(declared, int):
        return declared
    default = 1 if axis == 0 else side if len(entry.shape) == 4 and axis > 1 else _LENGTH
    return within_bounds(graph, declared, default)


def within_bounds(graph: Graph, name: str, size: int) -> int:
    """Return the legal size of a dynamic dimension that is nearest to a size."""
    dim = graph.dims[name]
    size = max(size, dim.low)
    return size if dim.high is None else min(size, dim.high)
