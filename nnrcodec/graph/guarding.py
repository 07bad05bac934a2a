"""Guards of an exported program, and the graph that has them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from nnrcodec.graph.graph import Graph, Input
from nnrcodec.graph.guard_code import InexpressibleError, SizeOf, guards_of, sizes_in
from nnrcodec.graph.guards import Expression, Guard, dims_of, is_of_ones, is_trivial
from nnrcodec.messages import logger_of

logger = logger_of(__name__)


def with_guards(graph: Graph, codes: Iterable[str], *, is_own: bool = False) -> Graph:
    """Return a graph with what its export asks of sizes.

    Where that cannot be expressed, the sizes that it names are fixed, which is logged.

    Parameters
    ----------
    graph : Graph
        As exported, without guards.
    codes : iterable of str
        Lines as PyTorch writes them, such as ``(L['x'].size()[2] % 8) == 0``.
    is_own : bool
        Whether what is said of 0 and 1 is what the network asks.
    """
    codes, guards = list(codes), None
    while guards is None:
        graph, guards = _tried(graph, codes)
    if not is_own:
        guards = tuple(guard for guard in guards if not is_of_ones(guard))
    return _without_trivial(graph, guards)


def _tried(graph: Graph, codes: list[str]) -> tuple[Graph, tuple[Guard, ...] | None]:
    """Return the graph and its guards, or one with fewer dynamic sizes and None."""
    shapes = {value.name: value.shape for value in graph.inputs}

    def size_of(argument: str, axis: int) -> Expression:
        return shapes[argument][axis]

    guards: dict[Guard, None] = {}
    for code in codes:
        try:
            found = guards_of(code, size_of)
        except InexpressibleError:
            named = list(_named(code, size_of))
            dims = {size for size in named if isinstance(size, str)}
            if (named and not dims) or not graph.dims:
                continue  # all sizes in it are as in the example
            reason = f"it holds only for a condition on sizes that no graph can have: {code[:200]}"
            return with_fixed(graph, dims or set(graph.dims), reason), None
        guards |= {g: None for g in found if dims_of(g)}
    return graph, tuple(guards)


def _without_trivial(graph: Graph, guards: tuple[Guard, ...]) -> Graph:
    """Leave out guards that hold for all sizes; for all but 0, if the graph then refuses 0."""
    left, dims = [], dict(graph.dims)
    bounds = {n: (d.low, math.inf if d.high is None else d.high) for n, d in graph.dims.items()}
    from_1 = {name: (max(low, 1), high) for name, (low, high) in bounds.items()}
    for guard in guards:
        if not is_trivial(guard, from_1):
            left.append(guard)
        elif not is_trivial(guard, bounds):
            dims |= {n: replace(dims[n], low=max(dims[n].low, 1)) for n in dims_of(guard)}
    return replace(graph, dims=dims, guards=tuple(left))


def _named(code: str, size_of: SizeOf) -> Iterator[Expression]:
    """Yield the sizes that a line names, as far as they are known."""
    with contextlib.suppress(InexpressibleError, KeyError, IndexError):
        for argument, axis in sizes_in(code):
            yield size_of(argument, axis)


def with_fixed(graph: Graph, dims: set[str], reason: str | None = None) -> Graph:
    """Return a graph in which dimensions have the size of the example, and log why if known."""

    def shape(value: Input) -> tuple[int | str, ...]:
        return tuple(graph.dims[size].example if size in dims else size for size in value.shape)

    axes = [
        f"axis {axis} of input {value.name!r} to {graph.dims[str(size)].example}"
        for value in graph.inputs
        for axis, size in enumerate(value.shape)
        if size in dims
    ]
    if reason is not None:
        logger.warning("fixed in the graph: %s; %s", ", ".join(axes), reason)
    return replace(
        graph,
        guards=tuple(guard for guard in graph.guards if not dims_of(guard) & dims),
        inputs=tuple(replace(value, shape=shape(value)) for value in graph.inputs),
        dims={name: dim for name, dim in graph.dims.items() if name not in dims},
    )
