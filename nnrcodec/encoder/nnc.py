"""Profile nnc: units of the standard only.

Owns how tensors are coded for which the standard has no room: scalars, other dtypes, values beyond
its step sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from nnrcodec.config import EncoderConfig
from nnrcodec.encoder.candidates import Candidate, best
from nnrcodec.encoder.coded import CodedUnit
from nnrcodec.encoder.grouping import Group
from nnrcodec.encoder.levels import int32_levels, quantize_reals, read_checked
from nnrcodec.errors import ModelError
from nnrcodec.messages import logger_of
from nnrcodec.model.dtypes import cast, is_float
from nnrcodec.model.model import Tensor
from nnrcodec.quant.policy import Policy
from nnrcodec.quant.quantized import (
    FEWEST_ELEMENTS,
    Quantized,
    are_quantizable,
    codebook_values,
    quantize_uniform,
)
from nnrcodec.quant.step_size import step_size
from nnrcodec.units.ndu import Part
from nnrcodec.units.ndu_encoding import (
    encode_block,
    encode_codebook_unit,
    encode_float_unit,
    encode_integer_unit,
    encode_raw_unit,
)

logger = logger_of(__name__)


def encode_group(
    group: Group,
    names: Mapping[str, str],
    config: EncoderConfig,
    known: Mapping[str, Quantized],
) -> list[CodedUnit]:
    """Code tensors; as `nnrcodec.encoder.profiles.EncodeGroup`.

    A raw unit (`nnrcodec.units.ndu_encoding.is_raw`) must become the last of its stream.

    Raises
    ------
    ModelError
        If a tensor is empty, has a NaN, or values that the standard has no syntax for.
    ConfigError
        If a qp or a step size that was asked for does not fit.
    """
    if len(group.tensors) > 1:
        block = _block(group.tensors, names, config, known)
        if block is not None:
            return [block]
    coded = []
    for tensor in group.tensors.values():
        name = names.get(tensor.name, tensor.name)
        candidate = _encode(tensor, name, config, known.get(tensor.name))
        value = candidate.value.reshape(tensor.shape)
        coded.append(CodedUnit.of(candidate.unit, [(tensor, value)], names))
    return coded


def _block(
    tensors: Mapping[Part, Tensor],
    names: Mapping[str, str],
    config: EncoderConfig,
    known: Mapping[str, Quantized],
) -> CodedUnit | None:
    """Code tensors in one unit; None if one of them has no step size."""
    kinds = {known[tensor.name].dq for tensor in tensors.values() if tensor.name in known}
    if len(kinds) > 1:
        return None
    dq = kinds.pop() if kinds else config.dq
    quantized = {}
    for part, tensor in tensors.items():
        read = read_checked(tensor)
        levels = known.get(tensor.name) or quantize_reals(tensor, read, read, config, dq=dq)
        if levels is None:
            return None
        quantized[part] = levels
    coded = {part: names.get(tensor.name, tensor.name) for part, tensor in tensors.items()}
    unit = encode_block(coded, quantized, config.quantization.qp_density, config.cabac)
    values = [(tensor, quantized[part].value) for part, tensor in tensors.items()]
    return CodedUnit.of(unit, values, names)


def _encode(tensor: Tensor, name: str, config: EncoderConfig, known: Quantized | None) -> Candidate:
    """Code a tensor in a unit of its own."""
    density = config.quantization.qp_density
    if known is not None:
        return Candidate(encode_float_unit(name, known, density, config.cabac), known.value)
    values = np.atleast_1d(read_checked(tensor))
    if not is_float(tensor.dtype):
        levels = int32_levels(values, f"tensor {tensor.name!r}", "profile ext stores them")
        return Candidate(encode_integer_unit(name, levels, config.cabac), values)
    candidates = list(_reals(tensor, values, name, config))
    if not candidates:
        stored = _as_float32(tensor, values)
        return Candidate(encode_raw_unit(name, stored), cast(stored, tensor.dtype))
    step = step_size(Policy(config.quantization).by_scale(values, tensor.name), density)
    return best(values, candidates, step)


def _reals(
    tensor: Tensor, values: np.ndarray, name: str, config: EncoderConfig
) -> Iterator[Candidate]:
    """Yield ways to code reals: levels, and a codebook of levels if there shall be one."""
    density = config.quantization.qp_density
    if tensor.exact and are_quantizable(values):
        finest = _finest(tensor, values, config)
        yield Candidate(encode_float_unit(name, finest, density, config.cabac), finest.value)
        return
    dq = config.dq and values.size >= FEWEST_ELEMENTS
    levels = quantize_reals(tensor, values, values, config, dq=dq)
    rounded = None if dq else levels
    if levels is None or (dq and config.codebook):
        rounded = quantize_reals(tensor, values, values, config, dq=False)
    levels = levels or rounded
    if levels is not None:
        yield Candidate(encode_float_unit(name, levels, density, config.cabac), levels.value)
    if config.codebook and rounded is not None:
        listed = encode_codebook_unit(name, rounded, density, config.cabac)
        if listed is not None:
            value = codebook_values(rounded.levels, rounded.qp, density, tensor.dtype)
            yield Candidate(listed, value)


def _finest(tensor: Tensor, values: np.ndarray, config: EncoderConfig) -> Quantized:
    """Round a tensor that should stay exact as little as a unit of the standard can."""
    qp = Policy(config.quantization).finest(values)
    density = config.quantization.qp_density
    levels = quantize_uniform(values, qp, density, dtype=tensor.dtype, name=tensor.name)
    if not np.array_equal(levels.value, values):
        logger.warning(
            "tensor %r is no weight and should stay exact, which profile nnc cannot do: it is "
            "rounded to 24 bits of its largest value; profile ext keeps it",
            tensor.name,
        )
    return levels


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
