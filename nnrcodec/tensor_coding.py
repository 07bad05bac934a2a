"""One tensor to one data unit and back.

Owns the choice between coding levels and storing values, which is where quantization, entropy
coding and syntax meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nnrcodec.bitio import BitWriter
from nnrcodec.dtypes import cast, from_little_endian, is_float, item_bytes, to_little_endian
from nnrcodec.entropy.ans import decode_levels, encode_levels
from nnrcodec.errors import (
    ConfigError,
    ModelError,
    PayloadError,
    SyntaxElementError,
    UnsupportedFeatureError,
)
from nnrcodec.model import Tensor
from nnrcodec.quant.step_size import dequantize, step_size
from nnrcodec.quant.uniform import UniformConfig, quantize
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.drivers import SyntaxWriter
from nnrcodec.syntax.extended_data_unit import (
    FORMAT_OF_DTYPE,
    Coding,
    ExtendedDataUnit,
    extended_data_unit,
)

FEWEST_ELEMENTS = 16
"""Float tensors with fewer elements are stored as they are."""

_LARGEST = 2.0**100
"""Values beyond this, or all below its inverse, are stored: float32 step sizes end soon after."""


@dataclass(frozen=True, slots=True)
class CodedTensor:
    """A tensor ready to be written.

    Parameters
    ----------
    unit : ExtendedDataUnit
        The header of its data unit.
    payload : bytes
        What follows the header.
    """

    unit: ExtendedDataUnit
    payload: bytes


def encode_tensor(tensor: Tensor, config: UniformConfig) -> tuple[CodedTensor, np.ndarray]:
    """Quantize and code a tensor, or store it where that is not worth while.

    Stored are float tensors of fewer than `FEWEST_ELEMENTS` elements or with infinite or extreme
    values, integers that do not fit 32 bits, and whatever would not become smaller.

    Parameters
    ----------
    tensor : Tensor
        What to code.
    config : UniformConfig
        Step sizes.

    Returns
    -------
    coded : CodedTensor
    value : ndarray
        What a decoder will make of it, dtype as the tensor's.

    Raises
    ------
    ModelError
        If the tensor is empty or has a NaN.
    ConfigError
        If the step size asked for is too fine for it.
    """
    if tensor.size == 0:
        raise ModelError(
            f"tensor {tensor.name!r} of shape {tensor.shape} is empty: nothing to code"
        )
    values = tensor.read()
    if is_float(tensor.dtype):
        if np.isnan(values).any():
            raise ModelError(f"tensor {tensor.name!r} has a NaN; a broken tensor is not coded")
        attempt = _encode_floats(tensor, values, config)
    else:
        attempt = _encode_integers(tensor, values)
    raw = _unit(tensor, Coding.RAW, tensor.dtype)
    if attempt is not None:
        coded, _ = attempt
        coded_bytes = _header_bytes(coded.unit) + len(coded.payload)
        if coded_bytes < _header_bytes(raw) + tensor.stored_bytes:
            return attempt
    return CodedTensor(raw, to_little_endian(values, tensor.dtype).tobytes()), values


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


def _header_bytes(unit: ExtendedDataUnit) -> int:
    """Return the bytes of the header of a data unit."""
    header = BitWriter()
    SyntaxWriter(header, unit.topology_elem_id).code(unit, (extended_data_unit,), StreamContext())
    return header.position // 8


def _encode_floats(
    tensor: Tensor, values: np.ndarray, config: UniformConfig
) -> tuple[CodedTensor, np.ndarray] | None:
    if tensor.size < FEWEST_ELEMENTS or not _in_range(values):
        return None
    qp = config.qp_for(values)
    levels = quantize(values, qp, config.qp_density, tensor.name)
    value = cast(dequantize(levels, qp, config.qp_density), tensor.dtype)
    if not np.isfinite(value).all():
        return None
    unit = _unit(tensor, Coding.ANS, "float32")
    unit.quantized_flag = 1
    unit.quantization_parameter_offset = qp
    unit.level_model, payload = encode_levels(levels)
    return CodedTensor(unit, payload), value


def _encode_integers(tensor: Tensor, values: np.ndarray) -> tuple[CodedTensor, np.ndarray] | None:
    bounds = np.iinfo(np.int32)
    if int(values.min()) < bounds.min or int(values.max()) > bounds.max:
        return None
    unit = _unit(tensor, Coding.ANS, "int32")
    unit.level_model, payload = encode_levels(values.astype(np.int32))
    return CodedTensor(unit, payload), values


def _in_range(values: np.ndarray) -> bool:
    """Return whether values are finite and of a size for which there are step sizes."""
    peak = float(np.abs(values).max())
    return peak == 0 or 1 / _LARGEST <= peak <= _LARGEST


def _unit(tensor: Tensor, coding: Coding, dtype: str) -> ExtendedDataUnit:
    return ExtendedDataUnit(
        topology_elem_id=tensor.name,
        xdu_coding=coding,
        xdu_data_format=FORMAT_OF_DTYPE[dtype],
        count_tensor_dimensions=len(tensor.shape),
        tensor_dimensions=list(tensor.shape),
    )
