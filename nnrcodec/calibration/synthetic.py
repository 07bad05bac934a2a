"""Inputs made up where there are none: nothing is known of a network but its graph.

Pictures are noise with the spectrum of photographs, whose power falls with the square of the
frequency; indices go evenly over the rows of the table that they select from; everything else is
white noise.
"""

from __future__ import annotations

import numpy as np
import torch

from nnrcodec.errors import ConfigError
from nnrcodec.graph.graph import Graph, Input, Ref, TensorRef
from nnrcodec.model import Model

SIDE = 96
"""Height and width of pictures where the network leaves them free."""

_LENGTH = 64
"""Any other size that is free, but for the first, which is 1."""


def synthetic_inputs(
    model: Model, count: int = 32, seed: int = 0
) -> list[tuple[torch.Tensor, ...]]:
    """Make inputs that a network takes.

    Parameters
    ----------
    model : Model
        With a graph.
    count : int
        How many.
    seed : int

    Raises
    ------
    ConfigError
        If the network has an input that cannot be made up.
    """
    graph = model.graph
    if graph is None or not graph.inputs:
        raise ConfigError("a network without a graph or inputs has no calibration inputs")
    rng = np.random.default_rng(seed)
    return [
        tuple(_value(entry, index, model, rng) for index, entry in enumerate(graph.inputs))
        for _ in range(count)
    ]


def free_size(graph: Graph, entry: Input, axis: int) -> int:
    """Return the size to choose for an axis of an input."""
    declared = entry.shape[axis]
    if isinstance(declared, int):
        return declared
    dim = graph.dims[declared]
    wanted = 1 if axis == 0 else SIDE if len(entry.shape) == 4 and axis > 1 else _LENGTH
    highest = wanted if dim.high is None else dim.high
    return min(max(wanted, dim.low), highest)


def _value(entry: Input, index: int, model: Model, rng: np.random.Generator) -> torch.Tensor:
    graph = model.graph
    if graph is None:
        raise ConfigError("there is no graph")
    shape = tuple(free_size(graph, entry, axis) for axis in range(len(entry.shape)))
    dtype = getattr(torch, entry.dtype)
    if dtype.is_floating_point:
        picture = len(shape) == 4 and min(shape[2:]) > 1
        values = _picture(shape, rng) if picture else rng.standard_normal(shape)
        return torch.from_numpy(values).to(dtype)
    rows = _table_rows(index, model)
    if rows is None:
        raise ConfigError(
            f"input {entry.name!r} is {entry.dtype} and not an index into a table: give "
            "calibration inputs, or go without"
        )
    return torch.from_numpy(rng.integers(rows, size=shape)).to(dtype)


def _picture(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return noise with falling spectrum, from 0 to 1, its channels alike as those of colours."""
    batch, channels, height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    falling = 1 / np.maximum(frequency, 1 / max(height, width))
    falling[0, 0] = 0

    def noise(count: int) -> np.ndarray:
        white = np.fft.rfft2(rng.standard_normal((batch, count, height, width)))
        smooth = np.fft.irfft2(white * falling, (height, width))
        deviation = smooth.std(axis=(2, 3), keepdims=True)
        return np.asarray(smooth / np.where(deviation > 0, deviation, 1))

    mean, contrast = rng.uniform(0.3, 0.7), rng.uniform(0.05, 0.3)
    return np.clip(mean + contrast * (0.9 * noise(1) + 0.4 * noise(channels)), 0, 1)


def _table_rows(index: int, model: Model) -> int | None:
    """Return the rows of the smallest table that an input selects from; None if there is none."""
    graph = model.graph
    rows = [
        model.tensors[node.args[0].name].shape[0]
        for node in (graph.nodes if graph else ())
        if node.op == "aten.embedding.default"
        if isinstance(node.args[0], TensorRef) and node.args[1] == Ref(index)
    ]
    return min(rows, default=None)
