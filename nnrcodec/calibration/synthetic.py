"""Synthetic calibration inputs, for networks without any data.

What an input is, `kinds` tells from the graph. Each kind has families of values: some to fit to,
and others to verify on, see `pictures`, `signals` and `tokens`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from nnrcodec.calibration import signals, tokens
from nnrcodec.calibration.inputs import Inputs as Inputs
from nnrcodec.calibration.kinds import Kind, Taken, kinds_of
from nnrcodec.calibration.maker import Maker
from nnrcodec.calibration.outputs import real_tensors
from nnrcodec.calibration.ranges import ranges
from nnrcodec.calibration.sizes import (
    COUNT,
    MULTIPLICATIONS,
    free_size,
    meeting_guards,
    within_bounds,
)
from nnrcodec.errors import BitstreamError, ConfigError
from nnrcodec.graph.graph import Graph
from nnrcodec.graph.module import DecodedModel, build_module
from nnrcodec.messages import logger_of
from nnrcodec.model.model import Model

logger = logger_of(__name__)

_LENGTHS = (1000, 2000, 4000, 8000)
"""Lengths of signals that are tried before `signals.LENGTH`."""


def synthetic_inputs(
    model: Model, count: int = COUNT, seed: int = 0, *, held_out: bool = False
) -> Inputs:
    """Return synthetic inputs for a network.

    - Pictures, (n, channels, height, width): photographs as they are, coded and noisy; held out are
      line art, gradients and textures. In half of the inputs, a second picture is a constant plane,
      and so is the last of 2 or of more than 3 channels: which of them is a map, of the strength of
      noise for example, cannot be known.
    - Signals, which a convolution along one axis takes: speech; held out are notes. Where a
      recurrent layer takes the input, or there are many channels, these are mel features.
    - Tokens, which index a table: few frequent and many rare ones, between two marks. A mask beside
      them has ones, and zeros where there is padding.
    - All other real numbers are white noise.

    Pictures are in 0..1 and signals in -1..1, unless the network has constants that tell another
    range (`ranges`). Values depend on the seed only, not on the machine or the number of threads.

    Parameters
    ----------
    model : Model
        With a graph.
    count : int
        Number of inputs; the first of them do not depend on it.
    seed : int
    held_out : bool
        Whether to make other families, to verify on.

    Raises
    ------
    ConfigError
        If the network has an input for which no values are known to be valid.
    """
    graph = model.graph
    if graph is None or not graph.inputs:
        raise ConfigError("a network without a graph or inputs has no calibration inputs")
    kinds = kinds_of(model)
    for entry, taken in zip(graph.inputs, kinds, strict=True):
        if taken.kind is Kind.UNKNOWN:
            raise ConfigError(
                f"input {entry.name!r} is {entry.dtype}, and neither an index into a table nor a "
                "mask beside one: give calibration inputs, or encode without calibration"
            )
    maker = Maker(graph, kinds, seed, _dims(graph, kinds), varies=not graph.guards)
    maker = _that_runs(build_module(model), maker)
    fitted = functools.cache(maker.input)
    in_range = ranges(model, kinds, fitted)
    draw = replace(maker, held_out=True).input if held_out else fitted
    return [
        tuple(change(value) for change, value in zip(in_range, draw(number), strict=True))
        for number in range(count)
    ]


def _dims(graph: Graph, kinds: Sequence[Taken], length: int = signals.LENGTH) -> dict[str, int]:
    """Return sizes for the dynamic dimensions; signals have a length, if that is free."""
    dims: dict[str, int] = {}
    for entry, taken in zip(graph.inputs, kinds, strict=True):
        lengths = {Kind.SIGNAL: length, Kind.FEATURES: signals.FRAMES}
        for axis, size in enumerate(entry.shape):
            if not isinstance(size, str) or size in dims:
                continue
            if axis == taken.time and taken.kind in lengths:
                dims[size] = within_bounds(graph, size, lengths[taken.kind])
            elif axis == 1 and taken.time == 0:
                dims[size] = within_bounds(graph, size, 1)
            else:
                dims[size] = free_size(graph, entry, axis)
    return meeting_guards(graph, dims)


def _that_runs(module: DecodedModel, maker: Maker) -> Maker:
    """Return a maker of sizes with which the network runs, if need be those of the export."""
    graph, kinds = maker.graph, maker.kinds
    lengths = [length for length in _LENGTHS if _dims(graph, kinds, length) != maker.dims]
    longest, most = None, 2 * MULTIPLICATIONS // COUNT
    for length in (*lengths, signals.LENGTH):
        trial = replace(maker, dims=_dims(graph, kinds, length))
        operations = _operations(module, trial)
        if operations is None or (lengths and operations > most):
            break
        longest = trial
        if operations > most / 4:  # twice the length may take four times as long
            break
    if longest is not None:
        return _with_masks_that_work(module, longest)
    exported = {name: dim.example for name, dim in graph.dims.items()}
    firsts = {size for entry in graph.inputs for size in entry.shape[:1] if isinstance(size, str)}
    one = exported | {name: within_bounds(graph, name, 1) for name in firsts}
    alone = replace(maker, dims=one, varies=False)
    if _operations(module, alone) is None:
        alone = replace(alone, dims=exported)
    logger.info(
        "synthetic inputs have sizes of the export, %s: the network does not run with %s, or takes "
        "too long",
        alone.dims,
        maker.dims,
    )
    return _with_masks_that_work(module, alone)


def _operations(module: DecodedModel, maker: Maker) -> int | None:
    """Return how many operations the network needs for an input; None if it does not run."""
    lengths = (tokens.SHORTEST, tokens.LONGEST) if maker.has(Kind.TOKENS) else (None,)
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            for length in lengths:
                module(*maker.input(0, length))
    except (RuntimeError, IndexError, ValueError, BitstreamError):
        return None
    return counter.get_total_flops()


def _with_masks_that_work(module: DecodedModel, maker: Maker) -> Maker:
    """Return a maker whose masks have 0 for what counts, if only so the outputs are finite."""
    other = replace(maker, kept=0)
    if maker.has(Kind.MASK) and not _is_finite(module, maker) and _is_finite(module, other):
        return other
    return maker


def _is_finite(module: DecodedModel, maker: Maker) -> bool:
    try:
        with torch.inference_mode():
            outputs = real_tensors(module(*maker.input(0)))
    except (RuntimeError, IndexError, ValueError, BitstreamError):
        return False
    return all(bool(output.isfinite().all()) for output in outputs)
