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
from nnrcodec.encoder.exact import (
    exact_levels,
    finest_levels,
    has_outliers,
    is_kept,
    is_table,
    must_be_exact,
)
from nnrcodec.encoder.formulas import has_few_values
from nnrcodec.encoder.grouping import Group
from nnrcodec.encoder.levels import fit_int32, quantize_reals, read_checked
from nnrcodec.messages import logger_of
from nnrcodec.model.dtypes import bit_pattern, cast, is_float
from nnrcodec.model.model import Tensor
from nnrcodec.quant.policy import Policy
from nnrcodec.quant.quantized import FEWEST_ELEMENTS, Quantized, codebook_values
from nnrcodec.quant.step_size import step_size
from nnrcodec.quant.uniform import MAX_LEVEL
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
        If a tensor is empty.
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
        is_pattern = candidate is None
        if candidate is None:
            candidate = _pattern(tensor, name, config)
        value = candidate.value.reshape(tensor.shape)
        coded.append(CodedUnit.of(candidate.unit, [(tensor, value)], names, is_pattern=is_pattern))
    return coded


def _pattern(tensor: Tensor, name: str, config: EncoderConfig) -> Candidate:
    """Code the bits of a tensor that the standard has no other syntax for."""
    logger.warning(
        "tensor %r (%s) is coded as the bit patterns of its values, which profile nnc can carry "
        "exactly: decoders other than nnrcodec take them for integers; profile ext stores it",
        tensor.name,
        tensor.dtype,
    )
    values = tensor.read()
    levels = np.atleast_1d(bit_pattern(values, tensor.dtype)).astype(np.int32)
    return Candidate(encode_integer_unit(name, levels, config.cabac), values)


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
        if tensor.name not in known and is_kept(tensor, read):
            return None
        levels = known.get(tensor.name) or quantize_reals(tensor, read, read, config, dq=dq)
        if levels is None:
            return None
        quantized[part] = levels
    coded = {part: names.get(tensor.name, tensor.name) for part, tensor in tensors.items()}
    unit = encode_block(coded, quantized, config.quantization.qp_density, config.cabac)
    values = [(tensor, quantized[part].value) for part, tensor in tensors.items()]
    return CodedUnit.of(unit, values, names)


def _encode(
    tensor: Tensor, name: str, config: EncoderConfig, known: Quantized | None
) -> Candidate | None:
    """Code a tensor in a unit of its own; None if the standard has no syntax for its values."""
    density = config.quantization.qp_density
    if known is not None:
        return Candidate(encode_float_unit(name, known, density, config.cabac), known.value)
    values = np.atleast_1d(read_checked(tensor))
    if must_be_exact(tensor, values):
        exact = None if np.iscomplexobj(values) else exact_levels(tensor, values, density)
        if exact is None or exact.qp not in Policy(config.quantization).carried_qps:
            return None
        return Candidate(encode_float_unit(name, exact, density, config.cabac), exact.value)
    if not is_float(tensor.dtype):
        if not fit_int32(values):
            return None
        levels = values.astype(np.int32)
        return Candidate(encode_integer_unit(name, levels, config.cabac), values)
    asked = Policy(config.quantization).asked(values) is not None
    if not asked and is_table(tensor, values):
        fine = _table(tensor, values, density)
        if fine is not None and fine.qp in Policy(config.quantization).carried_qps:
            return Candidate(encode_float_unit(name, fine, density, config.cabac), fine.value)
    candidates = list(_reals(tensor, values, name, config))
    if candidates and not asked and tensor.size >= FEWEST_ELEMENTS and has_outliers(tensor, values):
        candidates = []
    if not candidates:
        stored = _as_float32(values)
        if stored is None:
            return None
        return Candidate(encode_raw_unit(name, stored), cast(stored, tensor.dtype))
    step = step_size(Policy(config.quantization).by_scale(values, tensor.name), density)
    return best(values, candidates, step)


def _table(tensor: Tensor, values: np.ndarray, qp_density: int) -> Quantized | None:
    """Return levels of a table, with which nothing changes, or as little as can be."""
    exact = exact_levels(tensor, values, qp_density)
    if exact is not None or has_few_values(values):  # which a codebook has
        return exact
    fine = finest_levels(tensor, values, qp_density)
    if fine is not None:
        logger.warning(
            "tensor %r is a table by its values or its name: profile nnc has no exact code for it "
            "that all decoders read, so it is rounded to %g of its peak; profile ext keeps it",
            tensor.name,
            0.5 / MAX_LEVEL,
        )
    return fine


def _reals(
    tensor: Tensor, values: np.ndarray, name: str, config: EncoderConfig
) -> Iterator[Candidate]:
    """Yield ways to code reals: levels, and a codebook of levels if there shall be one."""
    density = config.quantization.qp_density
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


def _as_float32(values: np.ndarray) -> np.ndarray | None:
    """Return values that are stored: exactly, but for what is too small to be a normal float32.

    None if float32 does not have them.
    """
    with np.errstate(over="ignore", under="ignore"):
        narrowed = values.astype(np.float32)
    tiny = np.abs(values) < np.finfo(np.float32).tiny
    if not np.array_equal(narrowed[~tiny], values[~tiny]):
        return None
    return narrowed
