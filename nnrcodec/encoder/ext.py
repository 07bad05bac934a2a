"""Profile ext: each tensor in a unit of its own, of the standard or ours, or stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from nnrcodec.config import EncoderConfig
from nnrcodec.encoder.candidates import SLOPE, Candidate, best, cost, smallest
from nnrcodec.encoder.coded import CodedUnit
from nnrcodec.encoder.exact import exact_levels, has_outliers, is_kept
from nnrcodec.encoder.grouping import Group
from nnrcodec.encoder.levels import fit_int32, levels_at, read_checked
from nnrcodec.model.dtypes import DTYPES, bit_pattern, is_float, words_of
from nnrcodec.model.model import Tensor
from nnrcodec.quant.policy import Policy, require_qp
from nnrcodec.quant.quantized import (
    FEWEST_ELEMENTS,
    Quantized,
    are_quantizable,
    codebook_values,
    scale_gain,
    zero_order_entropy,
)
from nnrcodec.quant.step_size import step_size
from nnrcodec.quant.uniform import quantize
from nnrcodec.syntax.unit import Unit
from nnrcodec.units.ndu_encoding import (
    encode_codebook_unit,
    encode_float_unit,
    encode_integer_unit,
)
from nnrcodec.units.xdu_encoding import (
    encode_extended_integers,
    encode_extended_reals,
    encode_lossless,
    store,
    stored_unit_bytes,
)

# Found with random tensors of 16 to 262144 values of five distributions: the least that headers and
# tables took beyond the zero-order entropy, but for the rare levels, where it is about the mean.
_BYTES_OF_TABLE = 20.0
_BYTES_PER_LEVEL = 0.12
_BYTES_PER_RARE_LEVEL = 0.5


def encode_group(
    group: Group,
    names: Mapping[str, str],
    config: EncoderConfig,
    known: Mapping[str, Quantized],
) -> list[CodedUnit]:
    """Code the tensor of a group; as `nnrcodec.encoder.profiles.EncodeGroup`."""
    (tensor,) = group.tensors.values()
    written = tensor
    if "\0" in tensor.name:  # which no unit can have, not even while sizes are compared
        written = replace(tensor, name=names[tensor.name])
    if config.lossless:
        unit, value = encode_exactly(written, config)
    else:
        unit, value = encode_tensor(written, config, known.get(tensor.name))
    if tensor.name in names:
        unit.body.topology_elem_id = names[tensor.name]
    is_pattern = DTYPES[tensor.dtype].kind == "c"
    return [CodedUnit.of(unit, [(tensor, value)], names, is_pattern=is_pattern)]


def encode_tensor(
    tensor: Tensor, config: EncoderConfig, known: Quantized | None = None
) -> tuple[Unit, np.ndarray]:
    """Code a tensor in the best way that profile ext has, or store it.

    Stored are float tensors of fewer than `FEWEST_ELEMENTS` elements or with infinite or extreme
    values, integers that do not fit 32 bits, and whatever would not become smaller. What must not
    change (`nnrcodec.encoder.exact`) is coded by `encode_exactly`.

    Where the ways have the same levels, as for integers and without dependent quantization, the
    best is the smallest. Otherwise it has the least sum of squared error and size
    (`nnrcodec.encoder.candidates.best`). If the user has given the qp, rANS, which is for rounded
    levels, does not compete with dependent quantization at the same qp, which is finer.

    Parameters
    ----------
    tensor : Tensor
        What to code.
    config : EncoderConfig
        How.
    known : Quantized, optional
        Its levels, if they are known already.

    Returns
    -------
    unit : Unit
    value : ndarray
        What a decoder will make of it, dtype as the tensor's.

    Raises
    ------
    ModelError
        If the tensor is empty.
    ConfigError
        If the step size asked for is too fine for it, or no unit of DeepCABAC can carry it and
        there is no other coder.
    """
    values = read_checked(tensor)
    if known is None and is_kept(tensor, values):
        return encode_exactly(tensor, config)
    if known is not None:
        coded = smallest(list(_known(tensor, known, config)))
    elif not is_float(tensor.dtype):
        coded = smallest(list(_integers(tensor, values, config)))
    elif not _has_steps(tensor, values, config):
        coded = None
    else:
        finite = [c for c in _reals(tensor, values, config) if np.isfinite(c.value).all()]
        qp = Policy(config.quantization).by_scale(values, tensor.name)
        step = step_size(qp, config.quantization.qp_density)
        coded = best(values, finite, step) if finite else None
    size = stored_unit_bytes(tensor.name, tensor.shape, tensor.dtype)
    if coded is None or coded.unit_bytes >= size:
        return store(tensor.name, values, tensor.dtype), values
    return coded.unit, coded.value


def _has_steps(tensor: Tensor, values: np.ndarray, config: EncoderConfig) -> bool:
    """Return whether reals are to be quantized."""
    if tensor.size < FEWEST_ELEMENTS or not are_quantizable(values):
        return False
    return Policy(config.quantization).asked(values) is not None or not has_outliers(tensor, values)


def encode_exactly(tensor: Tensor, config: EncoderConfig) -> tuple[Unit, np.ndarray]:
    """Code a tensor bit for bit, whatever its values and its shape are.

    Parameters
    ----------
    tensor : Tensor
        What to code; it may have NaNs, and no elements. Complex numbers are coded as the integers
        that hold their bits.
    config : EncoderConfig
        How.

    Returns
    -------
    unit : Unit
        The smallest of those that are exact.
    value : ndarray
        That of the tensor.
    """
    values, dtype = tensor.read(), tensor.dtype
    carried = values
    if DTYPES[dtype].kind == "c":
        carried, dtype = bit_pattern(values, dtype), "int32"
    unit = encode_lossless(tensor.name, words_of(carried, dtype), dtype)
    candidates = [Candidate(unit, values)]
    if tensor.size == 0:
        return unit, values
    if is_float(dtype) and tensor.size >= FEWEST_ELEMENTS:
        levels = exact_levels(tensor, values, config.quantization.qp_density)
        candidates += [] if levels is None else _known(tensor, levels, config)
    elif carried is values and not is_float(dtype):
        candidates += _integers(tensor, values, config)
    coded = min(candidates, key=lambda candidate: candidate.unit_bytes)
    if coded.unit_bytes >= stored_unit_bytes(tensor.name, carried.shape, dtype):
        return store(tensor.name, carried, dtype), values
    return coded.unit, coded.value


def _reals(tensor: Tensor, values: np.ndarray, config: EncoderConfig) -> Iterator[Candidate]:
    """Yield the ways to code reals that can be quantized."""
    policy, density = Policy(config.quantization), config.quantization.qp_density
    qp = policy.by_scale(values, tensor.name)
    asked = policy.asked(values) is not None
    search = config.dq and config.entropy != "ans"
    search_qp = policy.by_scale(values, tensor.name, dq=search)
    fits = search_qp in policy.carried_qps
    if asked and config.entropy == "cabac":
        require_qp(tensor.name, qp, density)

    ans = config.entropy == "ans" or (config.entropy == "auto" and not (search and asked and fits))
    codebook = config.codebook and qp in policy.carried_qps
    cabac = config.entropy != "ans" and fits
    by_cabac = None
    if cabac:
        by_cabac = _cabac(tensor, levels_at(tensor, values, config, search_qp, dq=search), config)
    if ans and by_cabac is not None:
        ans = _rans_may_be_better(tensor, values, qp, by_cabac, density)
    rounded = levels_at(tensor, values, config, qp, dq=False) if ans or codebook else None
    if rounded is not None and ans:
        yield Candidate(encode_extended_reals(tensor.name, rounded), rounded.value)
    if by_cabac is not None:
        yield by_cabac
    if rounded is not None and codebook:
        unit = encode_codebook_unit(tensor.name, rounded, density, config.cabac)
        if unit is not None:
            value = codebook_values(rounded.levels, rounded.qp, density, tensor.dtype)
            yield Candidate(unit, value)


def _rans_may_be_better(
    tensor: Tensor, values: np.ndarray, qp: int, by_cabac: Candidate, qp_density: int
) -> bool:
    """Return whether rANS is worth a trial, which takes far longer than this estimate.

    rANS takes about the zero-order entropy of the levels, less where rows or columns differ in
    scale, and the description of its tables, which grows with the number of different levels. Where
    most levels occur once, the entropy says too little of what they will take.
    """
    levels = quantize(values, qp, qp_density, tensor.name)
    bits, different = zero_order_entropy(levels)
    per_level = _BYTES_PER_RARE_LEVEL if 2 * different > values.size else _BYTES_PER_LEVEL
    least = (bits - scale_gain(levels)) / 8 + _BYTES_OF_TABLE + per_level * different
    step = step_size(qp, qp_density)
    by_rans = values.size * step**2 / 12 + 8 * SLOPE * step**2 * least
    return by_rans < cost(values, by_cabac.value, by_cabac.unit_bytes, step)


def _known(tensor: Tensor, known: Quantized, config: EncoderConfig) -> Iterator[Candidate]:
    """Yield the units that can carry given levels."""
    carried = known.qp in Policy(config.quantization).carried_qps and tensor.shape != ()
    if config.entropy != "ans" and carried:
        yield _cabac(tensor, known, config)
    if config.entropy != "cabac" and not known.dq:
        yield Candidate(encode_extended_reals(tensor.name, known), known.value)


def _integers(tensor: Tensor, values: np.ndarray, config: EncoderConfig) -> Iterator[Candidate]:
    """Yield the ways to code integers; none if they do not fit 32 bits."""
    if not fit_int32(values):
        return
    levels = values.astype(np.int32)
    if config.entropy != "cabac":
        yield Candidate(encode_extended_integers(tensor.name, levels), values)
    if config.entropy != "ans" and tensor.shape:
        yield Candidate(encode_integer_unit(tensor.name, levels, config.cabac), values)


def _cabac(tensor: Tensor, quantized: Quantized, config: EncoderConfig) -> Candidate:
    density = config.quantization.qp_density
    unit = encode_float_unit(tensor.name, quantized, density, config.cabac)
    return Candidate(unit, quantized.value)
