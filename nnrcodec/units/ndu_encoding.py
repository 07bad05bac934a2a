"""Levels to data units of the standard: headers and payloads, for profile 1.

Owns what is an encoder's choice in an NNR_NDU; what is in one is `nnrcodec.units.ndu`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nnrcodec.entropy.cabac.config import CabacConfig
from nnrcodec.entropy.cabac.level_costs import choose_parameters
from nnrcodec.entropy.cabac.level_syntax import (
    DEFAULT_UNARY_LENGTH,
    EntryPoint,
    LevelParameters,
    LevelSyntax,
    effective_scan_order,
)
from nnrcodec.entropy.cabac.payload import PayloadDecoder, PayloadEncoder
from nnrcodec.quant.codebook import codebooks
from nnrcodec.quant.policy import require_qp
from nnrcodec.quant.quantized import Quantized
from nnrcodec.syntax.bitio import BitWriter
from nnrcodec.syntax.constants import (
    CompressedParameterTypes,
    NnrCompressedDataUnitPayloadType,
    NnrUnitType,
    ParentNodeIdType,
)
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.data_unit import (
    NnrCompressedDataUnitHeader,
    nnr_compressed_data_unit_header,
)
from nnrcodec.syntax.drivers import SyntaxWriter
from nnrcodec.syntax.topology import TopologyElementsIdsList
from nnrcodec.syntax.unit import NnrUnitHeader, Unit
from nnrcodec.units.ndu import Part, TensorHistory, level_syntax_of, members_of, parts_by_id

_UNARY_LENGTHS = (DEFAULT_UNARY_LENGTH, 1, 2, 4, 16)
_UNARY_LENGTH_BITS = 8

_TYPE_OF_PART = {
    Part.BETA: CompressedParameterTypes.NNR_CPT_BN,
    Part.GAMMA: CompressedParameterTypes.NNR_CPT_BN,
    Part.MEAN: CompressedParameterTypes.NNR_CPT_BN,
    Part.VARIANCE: CompressedParameterTypes.NNR_CPT_BN,
    Part.BIAS: CompressedParameterTypes.NNR_CPT_BI,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What makes a unit an update.

    Parameters
    ----------
    parameter_id : int
        Number of the tensor in its model.
    history : TensorHistory, optional
        What the updates of the tensor before left; None for its first one.
    """

    parameter_id: int
    history: TensorHistory | None = None


@dataclass(frozen=True, slots=True)
class _Variant:
    """Which part of the history of a tensor its coding follows."""

    temporal: bool = False
    history: bool = False


def encode_float_unit(
    name: str,
    tensor: Quantized,
    qp_density: int,
    cabac: CabacConfig,
    *,
    update: Update | None = None,
) -> Unit:
    """Code a tensor of reals.

    Parameters
    ----------
    name : str
        In the stream.
    tensor : Quantized
        Its levels have at least one dimension.
    qp_density : int
        As in `nnrcodec.quant.step_size.step_size`.
    cabac : CabacConfig
        How.
    update : Update, optional
        If the unit is an update; it then follows the updates before it where that is smaller.

    Raises
    ------
    ConfigError
        If the qp does not fit; the message names the tensor.
    """
    require_qp(name, tensor.qp, qp_density)
    header = _header(NnrCompressedDataUnitPayloadType.NNR_PT_FLOAT, tensor.levels.shape)
    header.topology_elem_id = name
    header.dq_flag = int(tensor.dq)
    return _code({Part.WEIGHT: tensor}, header, qp_density, cabac, update)


def encode_integer_unit(
    name: str, levels: np.ndarray, cabac: CabacConfig, *, update: Update | None = None
) -> Unit:
    """Code a tensor of integers without loss.

    Parameters
    ----------
    name : str
        In the stream.
    levels : ndarray of int32
        At least one dimension.
    cabac, update
        As in `encode_float_unit`.
    """
    header = _header(NnrCompressedDataUnitPayloadType.NNR_PT_INT, levels.shape)
    header.topology_elem_id = name
    return _code({Part.WEIGHT: Quantized(levels, 0, False, levels)}, header, None, cabac, update)


def encode_codebook_unit(
    name: str, tensor: Quantized, qp_density: int, cabac: CabacConfig
) -> Unit | None:
    """Code a tensor of reals with a codebook, the best of a few; None if it has too many levels.

    Parameters
    ----------
    name, tensor, qp_density, cabac
        As in `encode_float_unit`; the levels are of uniform quantization.
    """
    require_qp(name, tensor.qp, qp_density)
    units = []
    for codebook, indices in codebooks(tensor.levels):
        header = _header(NnrCompressedDataUnitPayloadType.NNR_PT_FLOAT, indices.shape)
        header.topology_elem_id = name
        header.codebook_present_flag = 1
        header.codebook = codebook
        coded = {Part.WEIGHT: replace(tensor, levels=indices)}
        units.append(_code(coded, header, qp_density, cabac))
    return min(units, key=unit_bytes) if units else None


def encode_block(
    names: Mapping[Part, str],
    tensors: Mapping[Part, Quantized],
    qp_density: int,
    cabac: CabacConfig,
) -> Unit:
    """Code tensors of one layer in one unit.

    Parameters
    ----------
    names : mapping of Part to str
        In the stream.
    tensors : mapping of Part to Quantized
        The weight, of two dimensions and more, and others of one, as long as its first one: a
        bias, or all four of a batch norm, or both. Dependent quantization is for all or none.
    qp_density, cabac
        As in `encode_float_unit`.
    """
    for part, tensor in tensors.items():
        require_qp(names[part], tensor.qp, qp_density)
    header = _header(
        NnrCompressedDataUnitPayloadType.NNR_PT_BLOCK, tensors[Part.WEIGHT].levels.shape
    )
    for part in tensors:
        header.compressed_parameter_types |= _TYPE_OF_PART.get(part, 0)
    ids = [names[part] for part in parts_by_id(header.compressed_parameter_types)]
    header.nnr_multiple_topology_elements_present_flag = 1
    header.topology_elements_ids_list = TopologyElementsIdsList(len(ids) - 2, ids)
    header.dq_flag = int(tensors[Part.WEIGHT].dq)
    return _code(tensors, header, qp_density, cabac)


def encode_raw_unit(name: str, values: np.ndarray) -> Unit:
    """Store a tensor; deployed decoders take such a unit only as the last of a stream.

    Parameters
    ----------
    name : str
        In the stream.
    values : ndarray of float32
        At least one dimension.
    """
    header = _header(NnrCompressedDataUnitPayloadType.NNR_PT_RAW_FLOAT, values.shape)
    header.topology_elem_id = name
    return _unit(header, np.ascontiguousarray(values, "<f4").tobytes())


def is_raw(unit: Unit) -> bool:
    """Return whether a unit must be the last of its stream."""
    return (
        isinstance(unit.body, NnrCompressedDataUnitHeader)
        and unit.body.nnr_compressed_data_unit_payload_type
        == NnrCompressedDataUnitPayloadType.NNR_PT_RAW_FLOAT
    )


def unit_bytes(unit: Unit) -> int:
    """Return the size of a data unit of the standard in bytes, without that of its size field."""
    bits = BitWriter()
    tables = (nnr_compressed_data_unit_header,)
    SyntaxWriter(bits).code(unit.body, tables, _context(unit.body))
    return 1 + bits.position // 8 + len(unit.payload)


def _header(
    payload_type: NnrCompressedDataUnitPayloadType, shape: Sequence[int]
) -> NnrCompressedDataUnitHeader:
    return NnrCompressedDataUnitHeader(
        nnr_compressed_data_unit_payload_type=payload_type,
        input_parameters_present_flag=1,
        tensor_dimensions_flag=1,
        count_tensor_dimensions=len(shape),
        tensor_dimensions=list(shape),
    )


def _unit(header: NnrCompressedDataUnitHeader, payload: bytes) -> Unit:
    return Unit(NnrUnitHeader(nnr_unit_type=NnrUnitType.NNR_NDU), header, payload)


def _context(header: NnrCompressedDataUnitHeader) -> StreamContext:
    """Return what the units before one have set, as far as its syntax needs it."""
    return StreamContext(
        general_profile_idc=1,
        mps_present=True,
        mps_parent_signalling_enabled_flag=header.parent_node_id_present_flag,
    )


def _code(
    tensors: Mapping[Part, Quantized],
    header: NnrCompressedDataUnitHeader,
    qp_density: int | None,
    cabac: CabacConfig,
    update: Update | None = None,
) -> Unit:
    """Code the tensors of a unit, after its history as far as that makes it smaller.

    Without `qp_density` they are integers.
    """
    header.scan_order = effective_scan_order(header.tensor_dimensions, cabac.scan_order)
    history = None
    if update is not None:
        history = update.history
        header.node_id_present_flag = header.parent_node_id_present_flag = 1
        header.parent_node_id_type = ParentNodeIdType.ICNN_NDU_ID
        header.parameter_id = update.parameter_id
        header.put_node_depth = history.put_node_depth + 1 if history else 1
    variants = [_Variant()]
    if history is not None:
        variants += [_Variant(True, False), _Variant(False, True), _Variant(True, True)]
    units = (
        _code_variant(tensors, header, qp_density, cabac, history, variant) for variant in variants
    )
    return min(units, key=unit_bytes)


def _code_variant(
    tensors: Mapping[Part, Quantized],
    header: NnrCompressedDataUnitHeader,
    qp_density: int | None,
    cabac: CabacConfig,
    history: TensorHistory | None,
    variant: _Variant,
) -> Unit:
    header = replace(header, temporal_context_modeling_flag=int(variant.temporal))
    members = members_of(header)
    tried = [
        (tensors[member.part].levels, level_syntax_of(header, _context(header), member, history))
        for member in members
    ]
    unary_length = _choose_unary_length(tried, cabac, history=variant.history)
    if unary_length != DEFAULT_UNARY_LENGTH:
        header.cabac_unary_length_flag = 1
        header.cabac_unary_length_minus1 = unary_length - 1

    encoder = PayloadEncoder()
    syntaxes = []
    for member in members:
        tensor = tensors[member.part]
        syntax = level_syntax_of(header, _context(header), member, history)
        parameters, _ = _parameters(tensor.levels, syntax, cabac, history=variant.history)
        if qp_density is not None:
            encoder.qp_offset(tensor.qp, qp_density)
        encoder.levels(tensor.levels.reshape(syntax.height, syntax.width), syntax, parameters)
        syntaxes.append(syntax)
    payload = encoder.finish()
    if syntaxes[-1].count_block_rows > 1:
        _add_entry_points(header, _entry_points(payload, syntaxes, qp_density))
    return _unit(header, payload)


def _choose_unary_length(
    tensors: Sequence[tuple[np.ndarray, LevelSyntax]], cabac: CabacConfig, *, history: bool
) -> int:
    """Return the unary length asked for, or the best of a few.

    It matters most to small tensors of large levels, where each flag has its own context to learn:
    a quarter of their bytes. For large tensors it is a tenth of a percent.
    """
    if cabac.cabac_unary_length is not None:
        return cabac.cabac_unary_length
    quick = replace(cabac, optimise_parameters=False)
    best, best_bits = DEFAULT_UNARY_LENGTH, math.inf
    for unary_length in _UNARY_LENGTHS:
        bits = float(_UNARY_LENGTH_BITS * (unary_length != DEFAULT_UNARY_LENGTH))
        for levels, syntax in tensors:
            tried = replace(syntax, cabac_unary_length=unary_length)
            bits += _parameters(levels, tried, quick, history=history)[1]
        if bits < best_bits:
            best, best_bits = unary_length, bits
    return best


def _parameters(
    levels: np.ndarray, syntax: LevelSyntax, cabac: CabacConfig, *, history: bool
) -> tuple[LevelParameters, float]:
    return choose_parameters(
        levels.reshape(syntax.height, syntax.width),
        syntax,
        row_skipping=cabac.row_skipping,
        optimise=cabac.optimise_parameters,
        history=history,
    )


def _entry_points(
    payload: bytes, syntaxes: Sequence[LevelSyntax], qp_density: int | None
) -> list[EntryPoint]:
    """Return the entry points of the last tensor, from decoding what was coded."""
    decoder = PayloadDecoder(payload)
    for syntax in syntaxes:
        if qp_density is not None:
            decoder.qp_offset(qp_density)
        decoder.levels(syntax)
    return decoder.entry_points


def _add_entry_points(header: NnrCompressedDataUnitHeader, points: Sequence[EntryPoint]) -> None:
    if not points:
        return
    header.cabac_offset_list = [point.cabac_offset for point in points]
    if header.dq_flag:
        header.dq_state_list = [point.dq_state for point in points]
    distances = [point.bit_offset for point in points]
    header.bit_offset_delta1 = distances[0]
    header.bit_offset_delta2 = np.diff(distances).tolist()
