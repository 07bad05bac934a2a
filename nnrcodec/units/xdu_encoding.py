"""Tensors to extended data units: levels with rANS, values as they are, or without loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nnrcodec.entropy.ans.payload import encode_levels
from nnrcodec.entropy.lossless.choose import encode as encode_words
from nnrcodec.entropy.lossless.model import Difference
from nnrcodec.model.dtypes import item_bytes, stored_dtype, to_little_endian
from nnrcodec.quant.quantized import Quantized
from nnrcodec.syntax.bitio import BitWriter
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.drivers import SyntaxWriter
from nnrcodec.syntax.extended_data_unit import (
    FORMAT_OF_DTYPE,
    XDU_VERSION_MINOR_LOSSLESS,
    Coding,
    ExtendedDataUnit,
    extended_data_unit,
)
from nnrcodec.syntax.unit import NnrUnitHeader, Unit


def encode_extended_reals(name: str, tensor: Quantized) -> Unit:
    """Code a tensor of reals with rANS.

    Parameters
    ----------
    name : str
        In the stream.
    tensor : Quantized
        Rounded; any shape.
    """
    header = _header(name, tensor.levels.shape, Coding.ANS, "float32")
    header.quantized_flag = 1
    header.quantization_parameter_offset = tensor.qp
    header.level_model, payload = encode_levels(tensor.levels)
    return _unit(header, payload)


def encode_extended_integers(name: str, levels: np.ndarray) -> Unit:
    """Code a tensor of integers with rANS, without loss.

    Parameters
    ----------
    name : str
        In the stream.
    levels : ndarray of int32
        Any shape.
    """
    header = _header(name, levels.shape, Coding.ANS, "int32")
    header.level_model, payload = encode_levels(levels)
    return _unit(header, payload)


def encode_lossless(
    name: str, words: np.ndarray, dtype: str, difference: Difference = Difference.NONE
) -> Unit:
    """Code the bit patterns of a tensor without loss.

    Parameters
    ----------
    name : str
        In the stream.
    words : ndarray of uint8, uint16, uint32 or uint64
        As `nnrcodec.model.dtypes.words_of` makes them; any shape, also without elements.
    dtype : str
        What they are the bit patterns of, a key of `nnrcodec.model.dtypes.DTYPES`.
    difference : Difference
        What the patterns are, if not those of the tensor.
    """
    header = _header(name, words.shape, Coding.LOSSLESS, dtype)
    header.xdu_version_minor = XDU_VERSION_MINOR_LOSSLESS
    header.lossless_model, payload = encode_words(words, dtype, difference)
    return _unit(header, payload)


def store(name: str, values: np.ndarray, dtype: str) -> Unit:
    """Store the values of a tensor as they are.

    Parameters
    ----------
    name : str
        In the stream.
    values : ndarray
        Any shape, of ``DTYPES[dtype]``.
    dtype : str
        A key of `nnrcodec.model.dtypes.DTYPES`, of real numbers; those that the unit lacks are
        stored as the integers that hold their bits.
    """
    header = _header(name, values.shape, Coding.RAW, dtype)
    return _unit(header, to_little_endian(values, stored_dtype(dtype)).tobytes())


def extended_unit_bytes(unit: Unit) -> int:
    """Return the size of an extended data unit in bytes, without that of its size field."""
    return _header_bytes(unit.body) + len(unit.payload)


def stored_unit_bytes(name: str, shape: Sequence[int], dtype: str) -> int:
    """Return the `extended_unit_bytes` of what `store` makes, without making it."""
    return _header_bytes(_header(name, shape, Coding.RAW, dtype)) + math.prod(shape) * item_bytes(
        dtype
    )


def _header_bytes(header: ExtendedDataUnit) -> int:
    bits = BitWriter()
    SyntaxWriter(bits, header.topology_elem_id).code(header, (extended_data_unit,), StreamContext())
    return 1 + bits.position // 8


def _unit(header: ExtendedDataUnit, payload: bytes) -> Unit:
    return Unit(NnrUnitHeader(nnr_unit_type=NnrUnitType.NNR_XDU), header, payload)


def _header(name: str, shape: Sequence[int], coding: Coding, dtype: str) -> ExtendedDataUnit:
    return ExtendedDataUnit(
        topology_elem_id=name,
        xdu_coding=coding,
        xdu_data_format=FORMAT_OF_DTYPE[stored_dtype(dtype)],
        count_tensor_dimensions=len(shape),
        tensor_dimensions=list(shape),
    )
