"""Sizes of calibration inputs, where the network leaves them free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nnrcodec.graph.graph import Graph, Input
from nnrcodec.graph.guards import holds
from nnrcodec.messages import logger_of

logger = logger_of(__name__)

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


def meeting_guards(graph: Graph, wanted: Mapping[str, int]) -> dict[str, int]:
    """Return sizes for which a graph holds: those that are wanted, or the nearest of some others.

    Parameters
    ----------
    graph : Graph
        With the guards to meet.
    wanted : mapping of str to int
        Sizes of all dynamic dimensions, within their bounds.
    """
    if _hold(graph, wanted):
        return dict(wanted)
    example = {name: dim.example for name, dim in graph.dims.items()}
    legal = [sizes for sizes in _others(graph, wanted, example) if _hold(graph, sizes)]

    def distance(sizes: Mapping[str, int]) -> int:
        return sum(abs(sizes[name] - wanted[name]) for name in sizes)

    sizes = min(legal, key=distance, default=example)
    logger.info(
        "calibration inputs have sizes for which the network holds, %s: it does not hold for %s",
        sizes,
        dict(wanted),
    )
    return sizes


_STEPS = (64, 32, 16, 8, 4, 2)
_TIMES = 8


def _others(
    graph: Graph, wanted: Mapping[str, int], example: Mapping[str, int]
) -> Iterator[dict[str, int]]:
    """Yield multiples of round numbers, and of the sizes of the export."""
    first = {entry.shape[0] for entry in graph.inputs if entry.shape}  # how many inputs at once
    for step in _STEPS:
        sizes = {
            name: size if name in first else within_bounds(graph, name, max(size // step, 1) * step)
            for name, size in wanted.items()
        }
        yield sizes
    for times in range(1, _TIMES + 1):
        for batch in (wanted, example):
            yield {
                name: batch[name] if name in first else within_bounds(graph, name, times * size)
                for name, size in example.items()
            }


def _hold(graph: Graph, sizes: Mapping[str, int]) -> bool:
    return all(holds(guard, sizes) for guard in graph.guards)
