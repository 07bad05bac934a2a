"""Which tensors are no weights, so that their values must not change.

Where there is a graph, it says so: constants and buffers that are neither weights of layers nor
statistics of batch norms, such as position tables, windows and rotary frequencies. In a bare file
they are the scales and zero points beside integers that were quantized before, and what is a table
by its values (`nnrcodec.encoder.formulas`) or by its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nnrcodec.encoder.formulas import follows_formula
from nnrcodec.graph.graph import Graph, TensorRef
from nnrcodec.graph.layers import find_layers
from nnrcodec.graph.operators import OPERATORS
from nnrcodec.messages import logger_of
from nnrcodec.model.dtypes import DTYPES, is_float, is_pattern
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.quant.quantized import Quantized
from nnrcodec.quant.step_size import step_size
from nnrcodec.quant.uniform import MAX_LEVEL, NONWEIGHT_STEPS, WEIGHT_STEPS

_OUTLIERS = 1000
"""One value in so many may be one."""

_SCALE = re.compile(r"scale|zero|absmax|amax|step|quant|codebook|offset", re.IGNORECASE)
_TABLE = re.compile(
    r"^(priors?|anchors?|anchor_grid|grid|inv_freq|freqs(_cis|_cos|_sin)?|(cos|sin)_cached|"
    r"window|mel_basis|mel_filters|fbank|filterbank|attn_mask|(pixel|image)_(mean|std))$"
)
logger = logger_of(__name__)

_STATISTICS = ("running_mean", "running_var")
_WEIGHTS = ("weight", "bias")


def with_exact(model: Model) -> Model:
    """Return a model in which those tensors are marked that are no weights."""
    graph = model.graph
    names = {*(_constants(model, graph) if graph is not None else _scales(model))}
    if not names:
        return model
    tensors = {
        name: replace(t, exact=True) if name in names else t for name, t in model.tensors.items()
    }
    return replace(model, tensors=tensors)


def must_be_exact(tensor: Tensor, values: np.ndarray) -> bool:
    """Return whether a tensor cannot be quantized, or must not.

    Parameters
    ----------
    tensor : Tensor
        Gives the dtype, and what is known of it.
    values : ndarray
        Its values.
    """
    if DTYPES[tensor.dtype].kind == "c":
        return True
    if not is_float(tensor.dtype):
        return False
    return tensor.exact or bool(np.isnan(values).any())


def is_table(tensor: Tensor, values: np.ndarray) -> bool:
    """Return whether a tensor is no weight, by its values or its name.

    Parameters
    ----------
    tensor : Tensor
        Gives the name and the dtype.
    values : ndarray
        Its values.
    """
    if not is_float(tensor.dtype) or DTYPES[tensor.dtype].kind == "c":
        return False
    return follows_formula(values) or _TABLE.search(tensor.name.rpartition(".")[2]) is not None


def is_kept(tensor: Tensor, values: np.ndarray) -> bool:
    """Return whether a tensor is coded bit for bit where there is a code for that."""
    return must_be_exact(tensor, values) or is_table(tensor, values)


def has_outliers(tensor: Tensor, values: np.ndarray) -> bool:
    """Return whether a few values are so large that step sizes by scale would lose all others.

    Which they are is logged as a warning.

    Parameters
    ----------
    tensor : Tensor
        Gives the name.
    values : ndarray of float
        Its values, finite.
    """
    magnitudes = np.abs(values.reshape(-1).astype(np.float64))
    count = max(1, magnitudes.size // _OUTLIERS)
    if magnitudes.size <= count:
        return False
    order = np.argpartition(magnitudes, -count)
    rest = magnitudes[order[:-count]]
    peak = float(magnitudes.max())
    rest_rms = math.sqrt(float(np.mean(np.square(rest / peak)))) if peak else 0.0
    rms = math.sqrt(float(np.mean(np.square(magnitudes / peak)))) if peak else 0.0
    steps = WEIGHT_STEPS if values.ndim >= 2 else NONWEIGHT_STEPS
    if not 0 < rest_rms < rms / (2 * steps):
        return False
    large = magnitudes > rms * peak
    first = np.unravel_index(int(np.argmax(large)), values.shape)
    logger.warning(
        "tensor %r: %d of %d values are far beyond all others, the first at %s; at a step size for "
        "these the others would be lost, so it is carried bit for bit",
        tensor.name,
        int(np.count_nonzero(large)),
        values.size,
        list(map(int, first)),
    )
    return True


def exact_levels(tensor: Tensor, values: np.ndarray, qp_density: int) -> Quantized | None:
    """Return levels at a step size that is a power of two, with which nothing changes.

    Parameters
    ----------
    tensor : Tensor
        Of a float dtype.
    values : ndarray
        Its values.
    qp_density : int
        Logarithm of the number of steps per octave.

    Returns
    -------
    Quantized or None
        None if there are no such levels: binary32 has not all of them.
    """
    finest = _finest(values)
    if finest is None:
        return None
    scaled = np.ldexp(values.astype(np.float64), -finest)
    if not np.array_equal(scaled, np.rint(scaled)) or np.signbit(values[values == 0]).any():
        return None
    bits = np.bitwise_or.reduce(np.abs(scaled.reshape(-1)).astype(np.int64))
    shift = (int(bits) & -int(bits)).bit_length() - 1
    qp = (finest + shift) << qp_density
    levels = np.rint(np.ldexp(scaled, -shift)).astype(np.int32)
    if int(np.abs(levels).max()) > MAX_LEVEL or step_size(qp, qp_density) != 2.0 ** (
        finest + shift
    ):
        return None
    coded = Quantized.of(levels, qp, qp_density, tensor.dtype)
    return coded if np.array_equal(coded.value, values) else None


def finest_levels(tensor: Tensor, values: np.ndarray, qp_density: int) -> Quantized | None:
    """Return levels at the finest step size that is a power of two.

    Parameters, returns
    -------------------
    As of `exact_levels`, but what binary32 has no levels for is rounded.
    """
    finest = _finest(values)
    if finest is None or step_size(finest << qp_density, qp_density) != 2.0**finest:
        return None
    levels = np.rint(np.ldexp(values.astype(np.float64), -finest)).astype(np.int32)
    return Quantized.of(levels, finest << qp_density, qp_density, tensor.dtype)


def _finest(values: np.ndarray) -> int | None:
    """Return the logarithm of the finest step at which levels are in range."""
    peak = float(np.abs(values).max()) if np.isfinite(values).all() else math.inf
    if not 0 < peak < 2.0**100:
        return None
    return max(math.frexp(peak)[1] - int(math.log2(MAX_LEVEL)), -100)


def _constants(model: Model, graph: Graph) -> Iterator[str]:
    """Yield the names of constants and buffers that are neither weights nor statistics."""
    weights = {layer.weight for layer in find_layers(model)}
    for node in graph.nodes:
        names = (p.name for p in OPERATORS[node.op].positional) if node.op in OPERATORS else ()
        given = {**dict(zip(names, node.args, strict=False)), **dict(node.kwargs)}
        for name, value in given.items():
            if name in (*_WEIGHTS, *_STATISTICS) and isinstance(value, TensorRef):
                weights.add(value.name)
    for tensor in model.tensors.values():
        if tensor.role is Role.PARAMETER or tensor.name in weights or not is_float(tensor.dtype):
            continue
        yield tensor.name


def _scales(model: Model) -> Iterator[str]:
    """Yield the names of floats that belong to integers of the same layer, by their names."""
    layers: dict[str, int] = {}
    for tensor in model.tensors.values():
        if tensor.size > 1 and (is_pattern(tensor.dtype) or DTYPES[tensor.dtype].kind in "iu"):
            for layer in (tensor.name, tensor.name.rpartition(".")[0]):
                layers[layer] = max(layers.get(layer, 0), tensor.size)
    for tensor in model.tensors.values():
        layer, _, last = tensor.name.rpartition(".")
        if is_float(tensor.dtype) and tensor.size < layers.get(layer, 0) and _SCALE.search(last):
            yield tensor.name
