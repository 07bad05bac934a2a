"""Tensors to data units of profile nnc: those of the standard only.

Owns which tensors share a unit, what they are called there, and how tensors are coded for which
the standard has no room: scalars, other dtypes, values beyond its step sizes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnrcodec.config import EncoderConfig
from nnrcodec.encoder.tensor_coding import (
    FEWEST_ELEMENTS,
    SLOPE,
    Quantized,
    are_quantizable,
    codebook_values,
    quantize_by_search,
    quantize_uniform,
    read_checked,
    squared_error,
)
from nnrcodec.errors import ModelError
from nnrcodec.graph.normalized import NormalizedConvolution, normalized_convolutions
from nnrcodec.model.dtypes import cast, is_float
from nnrcodec.model.model import Model, Tensor
from nnrcodec.quant.search.trellis import dependent_qp
from nnrcodec.quant.step_size import dequantize, qp_of_step_size, step_size
from nnrcodec.quant.uniform import FINEST_STEPS, MAX_LEVEL
from nnrcodec.syntax.unit import Unit
from nnrcodec.units.ndu import Part
from nnrcodec.units.ndu_encoding import (
    QuantizedTensor,
    encode_block,
    encode_codebook_unit,
    encode_float_unit,
    encode_integer_unit,
    encode_raw_unit,
    qp_offset_range,
    require_qp,
    unit_bytes,
)

logger = logging.getLogger(__name__)

_RESERVED_SUFFIXES = ("_G", "_H")
"""Deployed decoders take names that end so for parts of a decomposed tensor."""

_BATCH_NORM = (Part.BETA, Part.GAMMA, Part.MEAN, Part.VARIANCE)


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that are coded together.

    Parameters
    ----------
    tensors : mapping of Part to Tensor
        A weight, which may be any tensor if it is alone.
    """

    tensors: Mapping[Part, Tensor]


def groups_of(model: Model, *, blocks: bool) -> list[Group]:
    """Return what is coded together, in the order of the model.

    Parameters
    ----------
    model : Model
    blocks : bool
        Put a kernel together with its bias, and with its batch norm if the model has a graph.
    """
    if not blocks:
        return [Group({Part.WEIGHT: tensor}) for tensor in model.tensors.values()]
    normalized = normalized_convolutions(model) if model.graph is not None else ()
    names = {found.weight: _names_beside(found) for found in normalized}
    led: dict[str, dict[Part, Tensor]] = {}
    taken: set[str] = set()
    for weight in model.tensors.values():
        if weight.name in taken or not _can_lead_block(weight):
            continue
        layer, dot, last = weight.name.rpartition(".")
        by_name = {Part.BIAS: f"{layer}{dot}bias"} if last == "weight" else {}
        beside = {
            part: model.tensors[name]
            for part, name in (by_name | names.get(weight.name, {})).items()
            if name in model.tensors and name not in taken
            if _fits_block(model.tensors[name], weight)
        }
        if not beside.keys() >= set(_BATCH_NORM):
            beside = {part: tensor for part, tensor in beside.items() if part is Part.BIAS}
        if beside and len({tensor.name for tensor in beside.values()}) == len(beside):
            led[weight.name] = {Part.WEIGHT: weight, **beside}
            taken |= {tensor.name for tensor in led[weight.name].values()}
    return [
        Group(led.get(tensor.name, {Part.WEIGHT: tensor}))
        for tensor in model.tensors.values()
        if tensor.name not in taken or tensor.name in led
    ]


def coded_names(names: Iterable[str]) -> dict[str, str]:
    """Return what tensors are called in their units, where that is not their name."""
    ordered = list(names)
    taken = set(ordered)
    renamed = {}
    for name in ordered:
        if name.endswith(_RESERVED_SUFFIXES):
            coded = f"{name}_"
            while coded in taken:
                coded += "_"
            taken.add(coded)
            renamed[name] = coded
    return renamed


def encode_group(
    group: Group,
    names: Mapping[str, str],
    config: EncoderConfig,
    known: Mapping[str, Quantized] | None = None,
) -> list[tuple[Unit, dict[str, np.ndarray]]]:
    """Code tensors.

    Parameters
    ----------
    group : Group
        What to code.
    names : mapping of str to str
        What tensors are called in their units, where that is not their name.
    config : EncoderConfig
        How.
    known : mapping of str to Quantized, optional
        Tensors of which the levels are known already.

    Returns
    -------
    list of unit and dict
        The units, one unless a block is none, and by name what a decoder will make of the tensors
        in it, of their dtype. A raw unit (`nnrcodec.units.ndu_encoding.is_raw`) must become the
        last of its stream.

    Raises
    ------
    ModelError
        If a tensor is empty, has a NaN, or values that the standard has no syntax for.
    ConfigError
        If a qp or a step size that was asked for does not fit.
    """
    known = known or {}
    if len(group.tensors) > 1:
        block = _encode_block(group.tensors, names, config, known)
        if block is not None:
            return [block]
    coded = []
    for tensor in group.tensors.values():
        name = names.get(tensor.name, tensor.name)
        if tensor.name in known:
            unit, value = _encode_known(known[tensor.name], name, config)
        else:
            unit, value = _encode_lone(tensor, name, config)
        coded.append((unit, {tensor.name: value.reshape(tensor.shape)}))
    return coded


def quantize_reals(
    tensor: Tensor, values: np.ndarray, like: np.ndarray, config: EncoderConfig, *, dq: bool
) -> Quantized | None:
    """Quantize a tensor with a step size that a unit of the standard can carry.

    Parameters
    ----------
    tensor : Tensor
        Gives name and dtype.
    values : ndarray of float
        At least one dimension.
    like : ndarray of float
        The values that the default step size is for; `values` themselves, unless these are a
        difference.
    config : EncoderConfig
        How.
    dq : bool
        Whether to look for levels of dependent quantization.

    Returns
    -------
    Quantized or None
        None if the values are infinite, or too small or large for any step size.

    Raises
    ------
    ConfigError
        If the qp that was asked for does not fit.
    """
    if not are_quantizable(values):
        return None
    density = config.quantization.qp_density
    peak = float(np.abs(values).max())
    if peak > MAX_LEVEL / 2 * step_size(qp_offset_range(density)[-1], density):
        return None
    qp = _qp(tensor, like, peak, config, dq=dq)
    found = (quantize_by_search if dq else quantize_uniform)(tensor, values, config, qp)
    if np.isfinite(found.value).all():
        return found
    rounded = quantize_uniform(tensor, values, config, qp)  # to infinity, where the dtype ends
    return None if dq else _within_dtype(tensor, values, rounded, density)


def int32_levels(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    """Return integers as levels.

    Raises
    ------
    ModelError
        If one does not fit 32 bits; the message names the tensor.
    """
    bounds = np.iinfo(np.int32)
    if int(values.min()) < bounds.min or int(values.max()) > bounds.max:
        raise ModelError(
            f"tensor {tensor.name!r} has integers from {int(values.min())} to "
            f"{int(values.max())}; profile nnc has 32 bits, profile ext stores them"
        )
    return values.astype(np.int32)


def _names_beside(found: NormalizedConvolution) -> dict[Part, str]:
    """Return the names of what may be in a unit with a kernel."""
    names = {
        Part.BIAS: found.bias,
        Part.BETA: found.beta,
        Part.GAMMA: found.gamma,
        Part.MEAN: found.running_mean,
        Part.VARIANCE: found.running_var,
    }
    return {part: name for part, name in names.items() if name is not None}


def _can_lead_block(tensor: Tensor) -> bool:
    return tensor.dtype == "float32" and len(tensor.shape) >= 2 and tensor.size > 0


def _fits_block(tensor: Tensor, weight: Tensor) -> bool:
    return tensor.dtype == weight.dtype and tensor.shape == weight.shape[:1]


def _encode_block(
    tensors: Mapping[Part, Tensor],
    names: Mapping[str, str],
    config: EncoderConfig,
    known: Mapping[str, Quantized],
) -> tuple[Unit, dict[str, np.ndarray]] | None:
    """Code tensors in one unit; None if one of them has no step size."""
    quantized, values = {}, {}
    kinds = {known[tensor.name].dq for tensor in tensors.values() if tensor.name in known}
    if len(kinds) > 1:
        return None
    dq = kinds.pop() if kinds else config.dq
    for part, tensor in tensors.items():
        read = read_checked(tensor)
        found = known.get(tensor.name) or quantize_reals(tensor, read, read, config, dq=dq)
        if found is None:
            return None
        name = names.get(tensor.name, tensor.name)
        quantized[part] = QuantizedTensor(name=name, levels=found.levels, qp=found.qp)
        values[tensor.name] = found.value
    unit = encode_block(quantized, config.quantization.qp_density, config.cabac, dq=dq)
    return unit, values


def _encode_known(found: Quantized, name: str, config: EncoderConfig) -> tuple[Unit, np.ndarray]:
    coded = QuantizedTensor(name=name, levels=found.levels, qp=found.qp)
    unit = encode_float_unit(coded, config.quantization.qp_density, config.cabac, dq=found.dq)
    return unit, found.value


def _encode_lone(tensor: Tensor, name: str, config: EncoderConfig) -> tuple[Unit, np.ndarray]:
    values = np.atleast_1d(read_checked(tensor))
    if not is_float(tensor.dtype):
        return encode_integer_unit(name, int32_levels(tensor, values), config.cabac), values
    ways = list(_ways(tensor, values, name, config))
    if not ways:
        stored = _as_float32(tensor, values)
        return encode_raw_unit(name, stored), cast(stored, tensor.dtype)
    if len(ways) == 1:
        return ways[0]
    step = step_size(config.quantization.qp_for(values), config.quantization.qp_density)
    per_byte = 8 * SLOPE * step**2
    return min(ways, key=lambda w: squared_error(values, w[1]) + per_byte * unit_bytes(w[0]))


def _ways(
    tensor: Tensor, values: np.ndarray, name: str, config: EncoderConfig
) -> Iterator[tuple[Unit, np.ndarray]]:
    """Yield ways to code reals: levels, and a codebook of levels if there shall be one."""
    density = config.quantization.qp_density
    dq = config.dq and values.size >= FEWEST_ELEMENTS
    found = quantize_reals(tensor, values, values, config, dq=dq)
    rounded = None if dq else found
    if found is None or (dq and config.codebook):
        rounded = quantize_reals(tensor, values, values, config, dq=False)
    found = found or rounded
    if found is not None:
        coded = QuantizedTensor(name=name, levels=found.levels, qp=found.qp)
        yield encode_float_unit(coded, density, config.cabac, dq=found.dq), found.value
    if config.codebook and rounded is not None:
        coded = QuantizedTensor(name=name, levels=rounded.levels, qp=rounded.qp)
        listed = encode_codebook_unit(coded, density, config.cabac)
        if listed is not None:
            yield listed, codebook_values(rounded.levels, rounded.qp, density, tensor.dtype)


def _qp(tensor: Tensor, values: np.ndarray, peak: float, config: EncoderConfig, *, dq: bool) -> int:
    """Return the qp of a tensor, one that a unit can carry and that can reach the peak."""
    density = config.quantization.qp_density
    allowed = qp_offset_range(density)
    asked = config.quantization.asked_qp(values.ndim)
    if asked is not None:
        require_qp(tensor.name, asked, density)
        return asked
    qp = config.quantization.qp_for(values)
    if values.size < FEWEST_ELEMENTS:
        rms = math.sqrt(float(np.mean(np.square(values, dtype=np.float64))))
        finest = qp_of_step_size(rms / FINEST_STEPS, density) if rms else 0
        qp = min(qp, finest - finest % (1 << density))  # powers of two: most scalars stay exact
    if peak:
        qp = max(qp, qp_of_step_size(2 * peak / MAX_LEVEL, density))
    if dq:
        qp = dependent_qp(qp, density)
    if qp < allowed[0]:
        logger.warning(
            "tensor %r: its values are small; profile nnc has no step size below %g",
            tensor.name,
            step_size(allowed[0], density),
        )
    return min(max(qp, allowed[0]), allowed[-1])


def _within_dtype(
    tensor: Tensor, values: np.ndarray, rounded: Quantized, qp_density: int
) -> Quantized:
    """Round values towards zero that rounding took out of the range of their dtype."""
    step = step_size(rounded.qp, qp_density)
    towards_zero = np.trunc(values.astype(np.float64) / step).astype(np.int32)
    levels = np.where(np.isfinite(rounded.value), rounded.levels, towards_zero)
    value = cast(dequantize(levels, rounded.qp, qp_density), tensor.dtype)
    return Quantized(levels, rounded.qp, False, value)


def _as_float32(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    """Return values that are stored: exactly, but for what is too small to be a normal float32.

    Raises
    ------
    ModelError
        If float32 does not have them.
    """
    with np.errstate(over="ignore", under="ignore"):
        narrowed = values.astype(np.float32)
    tiny = np.abs(values) < np.finfo(np.float32).tiny
    if not np.array_equal(narrowed[~tiny], values[~tiny]):
        raise ModelError(
            f"tensor {tensor.name!r} has values that are infinite or beyond the step sizes of the "
            f"standard, and {tensor.dtype} cannot be stored in profile nnc; profile ext stores it"
        )
    return narrowed


def require_one_raw(names: Sequence[str]) -> None:
    """Raise unless at most one tensor is stored.

    Raises
    ------
    ModelError
        Naming them.
    """
    if len(names) > 1:
        raise ModelError(
            f"tensors {', '.join(map(repr, names[:5]))} have values that are infinite or beyond "
            "the step sizes of the standard; profile nnc can store one tensor in a stream, profile "
            "ext all of them"
        )
