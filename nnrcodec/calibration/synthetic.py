"""Synthetic calibration inputs, for networks without any data.

Pictures are drawn from the dead leaves model (A. B. Lee, D. Mumford, J. Huang, "Occlusion models
for natural images", IJCV 2001): shapes of all sizes that occlude one another, which gives edges,
flat areas and a spectrum like those of photographs, plus some texture. Half of them are coded with
a block transform, like most pictures that networks process. If a batch norm follows the first
layer, its statistics give the range of the input. Indices are uniform over the rows of the table
that they select from; all other inputs are white noise.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nnrcodec.errors import ConfigError
from nnrcodec.graph.graph import Graph, Input, Ref, TensorRef
from nnrcodec.graph.layers import find_layers
from nnrcodec.graph.module import build_module, run_node
from nnrcodec.graph.normalized import normalized_convolutions
from nnrcodec.model.model import Model

logger = logging.getLogger(__name__)

Inputs = Sequence[tuple[torch.Tensor, ...]]
"""Calibration inputs: the arguments of each call of the network."""

SIDE = 96
"""Height and width of pictures where those of the input are dynamic."""

COUNT = 32
"""Default number of inputs."""

_LEAVES = 150
_LENGTH = 64
"""Any other dynamic size, except the first, which is 1."""


def synthetic_inputs(model: Model, count: int = COUNT, seed: int = 0) -> Inputs:
    """Return synthetic inputs for a network.

    Parameters
    ----------
    model : Model
        With a graph.
    count : int
        Number of inputs.
    seed : int

    Raises
    ------
    ConfigError
        If the network has an input for which no values are known to be valid.
    """
    graph = model.graph
    if graph is None or not graph.inputs:
        raise ConfigError("a network without a graph or inputs has no calibration inputs")
    rng = np.random.default_rng(seed)
    shapes = _shapes(model, graph)
    inputs = [
        tuple(_value(index, shape, model, graph, rng) for index, shape in enumerate(shapes))
        for _ in range(count)
    ]
    return _in_range(model, inputs)


def free_size(graph: Graph, entry: Input, axis: int, side: int = SIDE) -> int:
    """Return the size of an axis of an input; where dynamic, the default within its bounds."""
    declared = entry.shape[axis]
    if isinstance(declared, int):
        return declared
    dim = graph.dims[declared]
    default = 1 if axis == 0 else side if len(entry.shape) == 4 and axis > 1 else _LENGTH
    size = max(default, dim.low)
    return size if dim.high is None else min(size, dim.high)


def _shapes(model: Model, graph: Graph) -> list[tuple[int, ...]]:
    """Return shapes of inputs: the default ones, or those of the export if the network needs it."""
    default = [
        tuple(free_size(graph, entry, axis) for axis in range(len(entry.shape)))
        for entry in graph.inputs
    ]
    zeros = (
        torch.zeros(shape, dtype=getattr(torch, entry.dtype))
        for shape, entry in zip(default, graph.inputs, strict=True)
    )
    try:
        with torch.inference_mode():
            build_module(model)(*zeros)
    except (RuntimeError, IndexError) as error:
        exported = [
            tuple(graph.dims[s].example if isinstance(s, str) else s for s in entry.shape)
            for entry in graph.inputs
        ]
        logger.info(
            "synthetic inputs have the shapes of the export, %s: the network does not run with %s "
            "(%s)",
            exported,
            default,
            error,
        )
        return exported
    return default


def _value(
    index: int, shape: tuple[int, ...], model: Model, graph: Graph, rng: np.random.Generator
) -> torch.Tensor:
    entry = graph.inputs[index]
    dtype = getattr(torch, entry.dtype)
    if dtype.is_floating_point:
        picture = len(shape) == 4 and min(shape[2:]) > 1
        values = _pictures(shape, rng) if picture else rng.standard_normal(shape)
        return torch.from_numpy(values).to(dtype)
    rows = _table_rows(index, model)
    if rows is None:
        raise ConfigError(
            f"input {entry.name!r} is {entry.dtype} and not an index into a table: give "
            "calibration inputs, or encode without calibration"
        )
    return torch.from_numpy(rng.integers(rows, size=shape)).to(dtype)


def _pictures(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return pictures with values of 8 bits, divided by 255."""
    batch, channels, height, width = shape
    pictures = np.stack([_picture(channels, height, width, rng) for _ in range(batch)])
    return np.rint(255 * np.clip(pictures, 0, 1)) / 255


def _picture(channels: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    picture = _leaves(channels, height, width, rng)
    for slope, most in ((1.0, 0.08), (0.3, 0.02)):
        picture += rng.uniform(0, most) * _texture(height, width, slope, rng)
    share = rng.uniform(0.05, 0.2)  # weight of the neighbours in a slight blur, as of a lens
    for axis in (1, 2):
        before, after = (np.roll(picture, shift, axis) for shift in (1, -1))
        picture = (1 - 2 * share) * picture + share * (before + after)
    if rng.random() < 0.5:
        return picture
    return _coded(picture, 2 ** rng.uniform(2, 7) / 255, int(rng.choice((8, 16))))


def _leaves(channels: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return ellipses and rectangles, more small than large ones, drawn over one another."""
    side = max(height, width)
    picture = np.broadcast_to(
        rng.uniform(0.2, 0.8, (channels, 1, 1)), (channels, height, width)
    ).copy()
    rows, columns = np.ogrid[:height, :width]

    def between(low: float, high: float) -> float:  # rng.uniform takes five times as long
        return low + (high - low) * rng.random()

    for _ in range(_LEAVES):
        radius = min(4.5 / math.sqrt(1 - between(0, 0.999)), side)
        row, column = (between(-radius, size + radius) for size in (height, width))
        angle, squeezed = between(0, np.pi), between(0.3, 1)
        top, left = (max(int(middle - 1.5 * radius), 0) for middle in (row, column))
        bottom, right = (max(int(middle + 1.5 * radius) + 2, 0) for middle in (row, column))
        down, over = rows[top:bottom] - row, columns[:, left:right] - column
        cosine, sine = np.cos(angle), np.sin(angle)
        along = over * cosine + down * sine
        across = (down * cosine - over * sine) / squeezed
        if rng.random() < 0.5:
            inside = np.maximum(np.abs(along), np.abs(across)) < radius
        else:
            inside = along**2 + across**2 < radius**2
        gray, tint = between(0.05, 0.95), 0.1 * rng.standard_normal((channels, 1, 1))
        shade = gray + 0.15 * rng.standard_normal() * along / radius
        part = picture[:, top:bottom, left:right]
        np.copyto(part, shade + tint if channels > 1 else shade, where=inside)
    return picture


def _texture(height: int, width: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise of standard deviation 1 whose amplitude falls with a power of the frequency."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(rng.standard_normal((height, width)))
    noise = np.fft.irfft2(white * frequency**-slope, (height, width))
    return np.asarray(noise / max(float(noise.std()), 1e-12))


def _coded(picture: np.ndarray, step: float, block: int) -> np.ndarray:
    """Quantize the DCT of each block, with a dead zone; incomplete blocks stay as they are."""
    channels, height, width = picture.shape
    rows, columns = height // block, width // block
    k = np.arange(block)
    cosine = np.cos(np.pi * (2 * k + 1) * k[:, None] / (2 * block)) * math.sqrt(2 / block)
    cosine[0] /= math.sqrt(2)
    part = picture[:, : rows * block, : columns * block]
    blocks = part.reshape(channels, rows, block, columns, block)
    coefficients = np.einsum("ij,crjsk,lk->crisl", cosine, blocks, cosine, optimize=True)
    steps = np.floor(np.abs(coefficients) / step + 0.35)
    coefficients = np.sign(coefficients) * steps * step
    restored = np.einsum("ji,crjsk,kl->crisl", cosine, coefficients, cosine, optimize=True)
    coded = picture.copy()
    coded[:, : rows * block, : columns * block] = restored.reshape(part.shape)
    return coded


def _in_range(model: Model, inputs: list[tuple[torch.Tensor, ...]]) -> Inputs:
    """Scale and shift pictures so that the input of the first batch norm has its statistics.

    One scale, and a shift for each channel, by least squares over the channels of the layer before
    that batch norm.
    """
    norms = {norm.weight: norm for norm in normalized_convolutions(model)}
    layers = [layer for layer in find_layers(model) if layer.weight in norms and layer.value == 0]
    if not layers or layers[0].groups > 1 or inputs[0][0].ndim != 4:
        return inputs
    layer, norm, module = layers[0], norms[layers[0].weight], build_module(model)
    outputs = []
    with torch.inference_mode():
        for given in inputs:
            values: list[Any] = list(given)
            for position in range(layer.node + 1):
                run_node(module, position, values)
            outputs.append(values[-1].movedim(1, 0).flatten(1).double().numpy())
    measured = np.concatenate(outputs, axis=1)
    bias = 0 if norm.bias is None else model.tensors[norm.bias].read().astype(np.float64)
    mean, variance = (
        model.tensors[name].read().astype(np.float64)
        for name in (norm.running_mean, norm.running_var)
    )
    deviation = measured.std(1)
    scale = float(np.sqrt(variance) @ deviation / max(deviation @ deviation, 1e-30))
    sums = layer.matrices(model.tensors[layer.weight].read())[0].reshape(len(mean), -1, 1)
    taps = math.prod(layer.kernel)
    sums = sums.reshape(len(mean), -1, taps).sum(2).astype(np.float64)
    difference = mean - bias - scale * (measured.mean(1) - bias)
    shift, *_ = np.linalg.lstsq(sums, difference, rcond=1e-3)
    offset = torch.from_numpy(shift[:, None, None])
    return [
        ((scale * picture.double() + offset).to(picture.dtype), *others)
        for picture, *others in inputs
    ]


def _table_rows(index: int, model: Model) -> int | None:
    """Return the number of rows of the smallest table that an input indexes; None if none is."""
    graph = model.graph
    rows = [
        model.tensors[node.args[0].name].shape[0]
        for node in (graph.nodes if graph else ())
        if node.op == "aten.embedding.default"
        if isinstance(node.args[0], TensorRef) and node.args[1] == Ref(index)
    ]
    return min(rows, default=None)
