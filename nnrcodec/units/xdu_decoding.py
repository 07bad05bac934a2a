"""From an extended data unit to its tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from nnrcodec.entropy.ans.payload import decode_levels
from nnrcodec.entropy.lossless.model import Difference
from nnrcodec.entropy.lossless.payload import decode_words
from nnrcodec.errors import PayloadError, SyntaxElementError
from nnrcodec.model.dtypes import from_little_endian, item_bytes
from nnrcodec.quant.step_size import dequantize
from nnrcodec.syntax.extended_data_unit import ExtendedDataUnit
from nnrcodec.syntax.unit import Unit
from nnrcodec.units.located import located
from nnrcodec.units.ndu import DecodedMember, TensorHistory
from nnrcodec.units.xdu import decoded_dtype, member_of, tensor_qp


def decode_extended_unit(
    unit: Unit,
    _histories: Mapping[str, TensorHistory] | None = None,
    *,
    threads: int = 1,
    keep_levels: bool = False,
) -> list[DecodedMember]:
    """Decode the tensor of an extended data unit.

    Parameters
    ----------
    unit : Unit
        An NNR_XDU, its sizes already compared with what is allowed.
    threads, keep_levels
        As for all kinds of units (`nnrcodec.units.kinds.UnitKind`); there are no levels to keep.

    Raises
    ------
    BitstreamError
        If the payload does not hold such a tensor.
    UnsupportedFeatureError
        If it uses what this version does not have.
    """
    del keep_levels
    with located(unit):
        header: ExtendedDataUnit = unit.body
        dtype = decoded_dtype(header)
        member, model = member_of(header), header.lossless_model
        if model is None:
            return [DecodedMember(member, _values(unit, header, dtype), dtype)]
        if model.word_bits != 8 * item_bytes(dtype):
            raise SyntaxElementError(f"bit patterns of {model.word_bits} bits are not {dtype}")
        words = decode_words(model, member.shape, memoryview(unit.payload), threads)
        if model.difference_form == Difference.NONE:
            return [DecodedMember(member, words, dtype, are_words=True)]
        difference = Difference(model.difference_form)
        return [DecodedMember(member, words, words.dtype.name, difference=difference)]


def _values(unit: Unit, header: ExtendedDataUnit, dtype: str) -> np.ndarray:
    shape, payload = tuple(header.tensor_dimensions), memoryview(unit.payload)
    if header.level_model is None:  # RAW
        expected = math.prod(shape) * item_bytes(dtype)
        if len(payload) != expected:
            raise PayloadError(f"{len(payload)} bytes of raw values, expected {expected}")
        return from_little_endian(payload, dtype, shape)
    if dtype != ("float32" if header.quantized_flag else "int32"):
        raise SyntaxElementError(f"coded levels do not decode to {dtype}")
    levels = decode_levels(header.level_model, shape, payload)
    if not header.quantized_flag:
        return levels
    context = unit.context
    qp = tensor_qp(header, context.quantization_parameter, context.qp_density)
    return dequantize(levels, qp, context.qp_density)
