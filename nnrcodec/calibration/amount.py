"""The number of calibration inputs that are used, and how they are put into batches.

The input of a layer of K columns has K (K + 1) / 2 second moments: a few small inputs are not
enough to estimate them. The number of those that are made up, or cut from pictures, grows until it
is enough for that, or until it would take too much time or memory. Those that are given are all
used as far as time and memory allow.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
from torch.utils.flop_counter import FlopCounterMode

from nnrcodec.calibration.inputs import Chosen, Inputs, Source, require_fit, running
from nnrcodec.calibration.outputs import real_tensors
from nnrcodec.calibration.sizes import COUNT, MULTIPLICATIONS
from nnrcodec.calibration.walk import walk
from nnrcodec.graph.graph import Graph
from nnrcodec.graph.module import DecodedModel, build_module
from nnrcodec.messages import logger_of
from nnrcodec.model.model import Model

logger = logger_of(__name__)

MOST = 512
"""Most inputs that are made up, if they have `_LEAST` patches for each column."""

MOST_GIVEN = 2**13
"""Most inputs of those that are given."""

_PATCHES = 64
"""Patches for each column of a layer's weight that are enough."""

_LEAST = 2
"""Patches for each column with fewer of which the second moments say nothing of some directions."""

_POSITIONS = 2**20
"""Most positions in all inputs together, because their activations are in memory at once."""

_AT_ONCE = 2**14
"""Most positions in a batch of inputs."""


def enough(model: Model, example: tuple[torch.Tensor, ...]) -> int:
    """Return how many inputs of the size of an example are enough.

    Raises
    ------
    ConfigError
        If the network does not run with it.
    """
    operations = _operations(model, example)
    patches = [visit.patches_for_each_column() for visit in walk(model, [example])]
    fewest = max(min(patches, default=math.inf), 1e-9)
    by_need, least = (math.ceil(wanted / fewest) for wanted in (_PATCHES, _LEAST))
    by_need = min(by_need, max(MOST, least))
    return _bounded(by_need, operations, _positions(example))


def most(model: Model, inputs: Inputs) -> int:
    """Return how many inputs like these can be looked at in reasonable time and memory.

    Raises
    ------
    ConfigError
        If the network does not run with the first.
    """
    positions = sum(map(_positions, inputs)) / len(inputs)
    operations = _operations(model, inputs[0]) * positions / _positions(inputs[0])
    return _bounded(MOST_GIVEN, int(operations), math.ceil(positions))


def _operations(model: Model, example: tuple[torch.Tensor, ...]) -> int:
    """Return the operations of a network with one input, counted in this thread."""
    with FlopCounterMode(display=False) as counter, running(), torch.inference_mode():
        module = build_module(model)
        require_fit(module._nnr_graph, [example])
        module(*example)
    return int(counter.get_total_flops())


def _bounded(count: int, operations: int, positions: int) -> int:
    """Return a number of inputs, bounded by the operations and positions of each."""
    by_time = 2 * MULTIPLICATIONS // max(operations, 1)
    return max(min(max(min(by_time, count), COUNT), _POSITIONS // positions), 1)


def enough_of(model: Model, make: Callable[[int], Inputs], count: int | None) -> Inputs:
    """Return as many inputs as asked for, or `enough` of them.

    Parameters
    ----------
    model : Model
        With a graph.
    make : callable
        Called with a number; returns at most so many inputs.
    count : int or None
        The number that is asked for.

    Raises
    ------
    ConfigError
        If they cannot be made, or the network does not run with the first.
    """
    return Chosen(make(count or enough(model, make(1)[0])), made_up=True)


def all_of(model: Model, source: Source) -> Inputs:
    """Return inputs with all that a source has, or as much of it as can be looked at.

    Parameters
    ----------
    model : Model
        With a graph.
    source : Source
        Files.

    Raises
    ------
    ConfigError
        If they do not fit the network.
    """
    example = source.example()
    limit = most(model, [example])
    if source.available > limit:
        _log_cut(limit, source.available)
    return Chosen(source.take(max(enough(model, example), min(source.available, limit))))


def in_batches(model: Model, inputs: Inputs) -> Inputs:
    """Return inputs in batches, where that changes no output.

    If there are more than `most`, some are left out, evenly spaced, unless their number was asked
    for (`Chosen.all_of_them`); if they were given, a warning says so.

    Parameters
    ----------
    model : Model
        With a graph.
    inputs : sequence of tuple of Tensor

    Raises
    ------
    ConfigError
        If the network does not run with one of them.
    """
    count, chosen = len(inputs), isinstance(inputs, Chosen)
    if not (isinstance(inputs, Chosen) and inputs.all_of_them):
        count = min(most(model, inputs), count)
    if count < len(inputs):
        _log_cut(count, len(inputs), logging.INFO if chosen else logging.WARNING)
    picked = [inputs[position * len(inputs) // count] for position in range(count)]
    return list(_together(build_module(model), picked))


def _log_cut(count: int, available: int, level: int = logging.WARNING) -> None:
    logger.log(
        level,
        "%d of %d calibration inputs are used, evenly spaced: all would take much time or memory; "
        "--calib-count %d (calib_count=%d in Python) takes all",
        count,
        available,
        available,
        available,
    )


def _together(module: DecodedModel, inputs: Inputs) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield batches of inputs of the same shapes."""
    for _, group in groupby(inputs, lambda values: [value.shape for value in values]):
        alike = list(group)
        most = min(_AT_ONCE // _positions(alike[0]), _most(module._nnr_graph, alike[0]))
        if most > 1 and len(alike) > 1 and _are_independent(module, alike[:2]):
            for start in range(0, len(alike), most):
                yield _joined(alike[start : start + most])
        else:
            yield from alike


def _joined(inputs: Inputs) -> tuple[torch.Tensor, ...]:
    return tuple(torch.cat(values) for values in zip(*inputs, strict=True))


def _most(graph: Graph, example: tuple[torch.Tensor, ...]) -> int:
    """Return how many inputs like an example may be in one batch, along the first axis."""
    most = MOST
    for value, entry in zip(example, graph.inputs, strict=True):
        size = entry.shape[0] if entry.shape else 1
        if isinstance(size, int) or not len(value):
            return 1
        high = graph.dims[size].high
        most = most if high is None else min(most, high // len(value))
    return most


def _are_independent(module: DecodedModel, inputs: Inputs) -> bool:
    """Return whether the outputs of a batch are those of its inputs one by one."""
    with running(), torch.inference_mode():
        separate = [real_tensors(module(*values)) for values in inputs]
    try:
        with torch.inference_mode():
            together = real_tensors(module(*_joined(inputs)))
    except (RuntimeError, IndexError, ValueError) as error:
        _log_one_at_a_time(f"it does not run with several at once: {error}")
        return False
    independent = all(
        batch.ndim > 0 and _are_close(batch, torch.cat(parts))
        for batch, parts in zip(together, zip(*separate, strict=True), strict=True)
    )
    if not independent:
        _log_one_at_a_time("its output for one depends on the others")
    return independent


def _log_one_at_a_time(reason: str) -> None:
    logger.info(
        "calibration inputs go through the network one at a time, which takes longer: %s", reason
    )


def _are_close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).norm() <= 1e-3 * b.norm())


def _positions(example: Sequence[torch.Tensor]) -> int:
    """Return the most positions of a tensor of an input: all axes but that of channels count."""
    sizes = (math.prod((*value.shape[:1], *value.shape[2:])) for value in example)
    return max(sizes, default=1) or 1
