"""One tensor to one data unit, and an extended data unit back to its tensor.

Owns the choice among the ways to code a tensor in profile ext, and the quantization that it shares
with profile nnc (`nnrcodec.encoder.standard_coding`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nnrcodec.config import EncoderConfig
from nnrcodec.entropy.ans.payload import decode_levels, encode_levels
from nnrcodec.errors import (
    ConfigError,
    ModelError,
    PayloadError,
    SyntaxElementError,
    UnsupportedFeatureError,
)
from nnrcodec.model.dtypes import cast, from_little_endian, is_float, item_bytes, to_little_endian
from nnrcodec.model.model import Tensor
from nnrcodec.quant.search.trellis import DEFAULT_LAMBDA, dependent_qp, quantize_dependent
from nnrcodec.quant.step_size import dequantize, step_size
from nnrcodec.quant.uniform import quantize
from nnrcodec.syntax.bitio import BitWriter
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.drivers import SyntaxWriter
from nnrcodec.syntax.extended_data_unit import (
    FORMAT_OF_DTYPE,
    Coding,
    ExtendedDataUnit,
    extended_data_unit,
)
from nnrcodec.syntax.unit import NnrUnitHeader, Unit
from nnrcodec.units.ndu_encoding import (
    DEFAULT_UNARY_LENGTH,
    QuantizedTensor,
    effective_scan_order,
    encode_codebook_unit,
    encode_float_unit,
    encode_integer_unit,
    qp_offset_range,
    require_qp,
)
from nnrcodec.units.ndu_encoding import unit_bytes as ndu_bytes

FEWEST_ELEMENTS = 16
"""Float tensors with fewer elements are stored as they are."""

SLOPE = math.log(2) / 6
"""What a bit may cost in squared error, in squared steps: at high rates, halving a step size takes
one bit a weight, and the squared error of a weight is a twelfth of the squared step."""

_LARGEST = 2.0**100
"""Values beyond this, or all below its inverse, are stored: float32 step sizes end soon after."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """A tensor of reals as levels.

    Parameters
    ----------
    levels : ndarray of int32
        Multiples of the step size, in the shape of the tensor.
    qp : int
        Of the step size.
    dq : bool
        Whether the levels are those of dependent quantization.
    value : ndarray
        What a decoder will make of them, dtype as the tensor's.
    """

    levels: np.ndarray
    qp: int
    dq: bool
    value: np.ndarray


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One way to code a tensor, with its size and what a decoder will make of it."""

    unit: Unit
    unit_bytes: int
    value: np.ndarray


def encode_tensor(
    tensor: Tensor, config: EncoderConfig, found: Quantized | None = None
) -> tuple[Unit, np.ndarray]:
    """Code a tensor in the best way that profile ext has, or store it.

    Stored are float tensors of fewer than `FEWEST_ELEMENTS` elements or with infinite or extreme
    values, integers that do not fit 32 bits, and whatever would not become smaller.

    Where the ways have the same levels, as for integers and without dependent quantization, the
    best is the smallest. Otherwise it has the least sum of squared error and size, a bit counted as
    `SLOPE` squared steps of rounding. If the user has given the qp, static tables, which are for
    rounding, do not compete with dependent quantization at the same qp, which is finer.

    Parameters
    ----------
    tensor : Tensor
        What to code.
    config : EncoderConfig
        How.
    found : Quantized, optional
        Its levels, if they are known already.

    Returns
    -------
    unit : Unit
    value : ndarray
        What a decoder will make of it, dtype as the tensor's.

    Raises
    ------
    ModelError
        If the tensor is empty or has a NaN.
    ConfigError
        If the step size asked for is too fine for it, or no unit of DeepCABAC can carry it and
        there is no other coder.
    """
    values = read_checked(tensor)
    if is_float(tensor.dtype):
        coded = (
            _best_of_floats(tensor, values, config)
            if found is None
            else _best_of_known(tensor, found, config)
        )
    else:
        coded = _best_of_integers(tensor, values, config)
    header = _header(tensor, Coding.RAW, tensor.dtype)
    if coded is None or coded.unit_bytes >= _unit_bytes(header) + tensor.stored_bytes:
        return _unit(header, to_little_endian(values, tensor.dtype).tobytes()), values
    return coded.unit, coded.value


def read_checked(tensor: Tensor) -> np.ndarray:
    """Return the values of a tensor.

    Raises
    ------
    ModelError
        If it is empty or has a NaN.
    """
    if tensor.size == 0:
        raise ModelError(
            f"tensor {tensor.name!r} of shape {tensor.shape} is empty: nothing to code"
        )
    values = tensor.read()
    if is_float(tensor.dtype) and np.isnan(values).any():
        raise ModelError(f"tensor {tensor.name!r} has a NaN; a broken tensor is not coded")
    return values


def quantize_uniform(
    tensor: Tensor, values: np.ndarray, config: EncoderConfig, qp: int
) -> Quantized:
    """Round values to multiples of a step size.

    Parameters
    ----------
    tensor : Tensor
        Gives name and dtype.
    values : ndarray of float
        Finite.
    config : EncoderConfig
        Gives the density of qps.
    qp : int
        Of the step size.

    Raises
    ------
    ConfigError
        If the step size is too fine.
    """
    density = config.quantization.qp_density
    levels = quantize(values, qp, density, tensor.name)
    return Quantized(levels, qp, False, cast(dequantize(levels, qp, density), tensor.dtype))


def quantize_by_search(
    tensor: Tensor, values: np.ndarray, config: EncoderConfig, qp: int
) -> Quantized:
    """Find the levels of dependent quantization.

    Parameters
    ----------
    tensor, values, config
        As in `quantize_uniform`.
    qp : int
        Of the step size, as the stream has it.

    Raises
    ------
    ConfigError
        If the step size is too fine.
    """
    density = config.quantization.qp_density
    levels = quantize_dependent(
        values,
        qp,
        density,
        lambda_=DEFAULT_LAMBDA if config.lambda_ is None else config.lambda_,
        unary_length=config.cabac.cabac_unary_length or DEFAULT_UNARY_LENGTH,
        scan_order=effective_scan_order(values.shape, config.cabac.scan_order),
        name=tensor.name,
    )
    return Quantized(levels, qp, True, cast(dequantize(levels, qp, density), tensor.dtype))


def are_quantizable(values: np.ndarray) -> bool:
    """Return whether values are finite and of a size for which there are step sizes."""
    peak = float(np.abs(values).max())
    return peak == 0 or 1 / _LARGEST <= peak <= _LARGEST


def codebook_values(levels: np.ndarray, qp: int, qp_density: int, dtype: str) -> np.ndarray:
    """Return what a decoder makes of levels that are coded with a codebook."""
    return cast(levels.astype(np.float64) * step_size(qp, qp_density), dtype)


def squared_error(values: np.ndarray, decoded: np.ndarray) -> float:
    """Return the sum of squared errors."""
    difference = np.subtract(values, decoded, dtype=np.float64).reshape(-1)
    return float(np.dot(difference, difference))


def decode_tensor(
    unit: ExtendedDataUnit, payload: memoryview, base_qp: int, qp_density: int
) -> np.ndarray:
    """Decode the tensor of a data unit.

    Parameters
    ----------
    unit : ExtendedDataUnit
        Its header, sizes already compared with the decoder's limits.
    payload : memoryview
        What follows the header.
    base_qp, qp_density : int
        ``mps_quantization_parameter`` and ``mps_qp_density``.

    Returns
    -------
    ndarray
        Of the dtype that `decoded_dtype` names.

    Raises
    ------
    BitstreamError
        If the payload does not hold such a tensor.
    """
    shape = tuple(unit.tensor_dimensions)
    dtype = decoded_dtype(unit)
    if unit.level_model is None:  # RAW
        expected = math.prod(shape) * item_bytes(dtype)
        if len(payload) != expected:
            raise PayloadError(f"{len(payload)} bytes of raw values, expected {expected}")
        return from_little_endian(payload, dtype, shape)
    if dtype != ("float32" if unit.quantized_flag else "int32"):
        raise SyntaxElementError(f"coded levels do not decode to {dtype}")
    qp = tensor_qp(unit, base_qp, qp_density) if unit.quantized_flag else None
    levels = decode_levels(unit.level_model, shape, payload)
    return levels if qp is None else dequantize(levels, qp, qp_density)


def decoded_dtype(unit: ExtendedDataUnit) -> str:
    """Return the dtype that a data unit decodes to, before the record's dtype is applied.

    Raises
    ------
    UnsupportedFeatureError
        If its xdu_data_format is reserved.
    """
    for dtype, data_format in FORMAT_OF_DTYPE.items():
        if data_format == unit.xdu_data_format:
            return dtype
    raise UnsupportedFeatureError(
        f"tensor {unit.topology_elem_id!r} has xdu_data_format {unit.xdu_data_format}, which this "
        "version does not know",
        feature="xdu_data_format",
    )


def tensor_qp(unit: ExtendedDataUnit, base_qp: int, qp_density: int) -> int:
    """Return the quantization parameter of a data unit with quantized levels.

    Parameters
    ----------
    unit, base_qp, qp_density
        As in `decode_tensor`.

    Raises
    ------
    SyntaxElementError
        If float32 cannot hold the step size.
    """
    qp = base_qp + unit.quantization_parameter_offset
    try:
        step_size(qp, qp_density)
    except ConfigError as error:
        raise SyntaxElementError(str(error)) from None
    return qp


def _best_of_floats(tensor: Tensor, values: np.ndarray, config: EncoderConfig) -> _Candidate | None:
    if tensor.size < FEWEST_ELEMENTS or not are_quantizable(values):
        return None
    density = config.quantization.qp_density
    qp = config.quantization.qp_for(values)
    asked = config.quantization.asked_qp(values.ndim) is not None
    search = config.dq and config.entropy != "ans"
    search_qp = qp if asked or not search else dependent_qp(qp, density)
    fits = search_qp in qp_offset_range(density)
    if asked and config.entropy == "cabac":
        require_qp(tensor.name, qp, density)

    candidates = []
    tables = config.entropy == "ans" or (
        config.entropy == "auto" and not (search and asked and fits)
    )
    codebook = config.codebook and qp in qp_offset_range(density)
    cabac = config.entropy != "ans" and fits
    if tables or codebook or (cabac and not search):
        rounded = quantize_uniform(tensor, values, config, qp)
        if tables:
            candidates.append(_with_static_tables(tensor, rounded))
        if cabac and not search:
            candidates.append(_with_cabac(tensor, rounded, config))
        if codebook:
            candidates += _with_codebook(tensor, rounded, config)
    if cabac and search:
        found = quantize_by_search(tensor, values, config, search_qp)
        candidates.append(_with_cabac(tensor, found, config))
    candidates = [c for c in candidates if np.isfinite(c.value).all()]
    if not candidates:
        return None
    per_byte = 8 * SLOPE * step_size(qp, density) ** 2
    return min(candidates, key=lambda c: squared_error(values, c.value) + per_byte * c.unit_bytes)


def _best_of_known(tensor: Tensor, found: Quantized, config: EncoderConfig) -> _Candidate:
    """Return the smallest unit that carries given levels."""
    candidates = []
    if config.entropy != "ans":
        candidates.append(_with_cabac(tensor, found, config))
    if config.entropy != "cabac" and not found.dq:
        candidates.append(_with_static_tables(tensor, found))
    return min(candidates, key=lambda c: c.unit_bytes)


def _with_cabac(tensor: Tensor, found: Quantized, config: EncoderConfig) -> _Candidate:
    coded = QuantizedTensor(name=tensor.name, levels=found.levels, qp=found.qp)
    unit = encode_float_unit(coded, config.quantization.qp_density, config.cabac, dq=found.dq)
    return _Candidate(unit, ndu_bytes(unit), found.value)


def _with_codebook(
    tensor: Tensor, rounded: Quantized, config: EncoderConfig
) -> Iterator[_Candidate]:
    """Yield the way with a codebook, unless there are too many levels."""
    density = config.quantization.qp_density
    coded = QuantizedTensor(name=tensor.name, levels=rounded.levels, qp=rounded.qp)
    unit = encode_codebook_unit(coded, density, config.cabac)
    if unit is not None:
        value = codebook_values(rounded.levels, rounded.qp, density, tensor.dtype)
        yield _Candidate(unit, ndu_bytes(unit), value)


def _with_static_tables(tensor: Tensor, rounded: Quantized) -> _Candidate:
    header = _header(tensor, Coding.ANS, "float32")
    header.quantized_flag = 1
    header.quantization_parameter_offset = rounded.qp
    header.level_model, payload = encode_levels(rounded.levels)
    return _Candidate(_unit(header, payload), _unit_bytes(header) + len(payload), rounded.value)


def _best_of_integers(
    tensor: Tensor, values: np.ndarray, config: EncoderConfig
) -> _Candidate | None:
    bounds = np.iinfo(np.int32)
    if int(values.min()) < bounds.min or int(values.max()) > bounds.max:
        return None
    levels = values.astype(np.int32)
    candidates = []
    if config.entropy != "cabac":
        header = _header(tensor, Coding.ANS, "int32")
        header.level_model, payload = encode_levels(levels)
        size = _unit_bytes(header) + len(payload)
        candidates.append(_Candidate(_unit(header, payload), size, values))
    if config.entropy != "ans" and tensor.shape:
        unit = encode_integer_unit(tensor.name, levels, config.cabac)
        candidates.append(_Candidate(unit, ndu_bytes(unit), values))
    return min(candidates, key=lambda c: c.unit_bytes, default=None)


def _unit_bytes(header: ExtendedDataUnit) -> int:
    """Return the bytes of an extended data unit before its payload, without its size field."""
    bits = BitWriter()
    SyntaxWriter(bits, header.topology_elem_id).code(header, (extended_data_unit,), StreamContext())
    return 1 + bits.position // 8


def _unit(header: ExtendedDataUnit, payload: bytes) -> Unit:
    return Unit(NnrUnitHeader(nnr_unit_type=NnrUnitType.NNR_XDU), header, payload)


def _header(tensor: Tensor, coding: Coding, dtype: str) -> ExtendedDataUnit:
    return ExtendedDataUnit(
        topology_elem_id=tensor.name,
        xdu_coding=coding,
        xdu_data_format=FORMAT_OF_DTYPE[dtype],
        count_tensor_dimensions=len(tensor.shape),
        tensor_dimensions=list(tensor.shape),
    )
