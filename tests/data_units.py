"""Streams of the standard, built element by element, so that any of them can be wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnrcodec.entropy.cabac.level_syntax import LevelParameters
from nnrcodec.entropy.cabac.payload import PayloadDecoder, PayloadEncoder
from nnrcodec.limits import Limits
from nnrcodec.syntax.constants import NnrCompressedDataUnitPayloadType, NnrUnitType
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.data_unit import NnrCompressedDataUnitHeader
from nnrcodec.syntax.parameter_sets import NnrModelParameterSet, NnrStartUnit
from nnrcodec.syntax.topology import TopologyElementsIdsList
from nnrcodec.syntax.unit import NnrUnitHeader, Unit, write_units
from nnrcodec.units.ndu import TensorHistory, level_syntax_of, members_of

INT = NnrCompressedDataUnitPayloadType.NNR_PT_INT
FLOAT = NnrCompressedDataUnitPayloadType.NNR_PT_FLOAT
RAW_FLOAT = NnrCompressedDataUnitPayloadType.NNR_PT_RAW_FLOAT
BLOCK = NnrCompressedDataUnitPayloadType.NNR_PT_BLOCK
DENSITY = 2


def header_of(name: str, *shape: int, **elements: Any) -> NnrCompressedDataUnitHeader:
    """Return the header of a lone float tensor, changed by `elements`."""
    values = {
        "nnr_compressed_data_unit_payload_type": FLOAT,
        "topology_elem_id": name,
        "input_parameters_present_flag": 1,
        "tensor_dimensions_flag": 1,
        "count_tensor_dimensions": len(shape),
        "tensor_dimensions": list(shape),
    }
    return NnrCompressedDataUnitHeader(**values | elements)


def block_of(names: Sequence[str], *shape: int, types: int, **elements: Any) -> Any:
    """Return the header of a block."""
    ids = TopologyElementsIdsList(len(names) - 2, list(names))
    return header_of(
        "",
        *shape,
        nnr_compressed_data_unit_payload_type=BLOCK,
        nnr_multiple_topology_elements_present_flag=1,
        topology_elem_id=None,
        topology_elements_ids_list=ids,
        compressed_parameter_types=types,
        **elements,
    )


def update_of(name: str, *shape: int, depth: int = 1, temporal: int = 0, **elements: Any) -> Any:
    """Return the header of an update."""
    values = {
        "node_id_present_flag": 1,
        "put_node_depth": depth,
        "parent_node_id_present_flag": 1,
        "temporal_context_modeling_flag": temporal,
    }
    return header_of(name, *shape, **values | elements)


def unit_of(header: NnrCompressedDataUnitHeader, payload: bytes = b"") -> Unit:
    """Return a unit."""
    return Unit(NnrUnitHeader(nnr_unit_type=NnrUnitType.NNR_NDU), header, payload)


def coded(
    header: NnrCompressedDataUnitHeader,
    levels: Mapping[str, Any],
    qps: Mapping[str, int] | int = -8,
    *,
    profile: int = 1,
    parameters: LevelParameters | None = None,
    histories: Mapping[str, TensorHistory] | None = None,
) -> Unit:
    """Return a unit with levels by name, which must be those of dependent quantization with dq."""
    context = StreamContext(general_profile_idc=profile, qp_density=DENSITY)
    encoder = PayloadEncoder()
    points = []
    for member in members_of(header):
        if header.nnr_compressed_data_unit_payload_type != INT:
            encoder.qp_offset(qps if isinstance(qps, int) else qps[member.name], DENSITY)
        syntax = level_syntax_of(header, context, member, (histories or {}).get(member.name))
        values = np.asarray(levels[member.name], np.int32).reshape(syntax.height, syntax.width)
        encoder.levels(values, syntax, parameters or LevelParameters())
    payload = encoder.finish()
    if header.scan_order:
        decoder = PayloadDecoder(payload)
        for member in members_of(header):
            decoder.qp_offset(DENSITY)
            context = StreamContext(general_profile_idc=profile)
            decoder.levels(level_syntax_of(header, context, member))
            points += decoder.entry_points
        distances = [point.bit_offset for point in points]
        header.cabac_offset_list = [point.cabac_offset for point in points]
        header.dq_state_list = [point.dq_state for point in points] if header.dq_flag else []
        header.bit_offset_delta1 = distances[0] if distances else 0
        header.bit_offset_delta2 = np.diff(distances).tolist()
    return unit_of(header, payload)


def stream_of(*units: Unit, profile: int = 1, update: int = 0, **parameters: Any) -> bytes:
    """Return the stream of data units."""
    values = {
        "mps_quantization_method_flags": 1,
        "mps_qp_density": DENSITY,
        "mps_parent_signalling_enabled_flag": update,
    }
    start = [
        Unit(
            NnrUnitHeader(nnr_unit_type=NnrUnitType.NNR_STR),
            NnrStartUnit(general_profile_idc=profile),
        ),
        Unit(
            NnrUnitHeader(nnr_unit_type=NnrUnitType.NNR_MPS),
            NnrModelParameterSet(**values | parameters),
        ),
    ]
    limits = Limits(max_elements=2**62, max_dimensions=64)
    return b"".join(write_units([*start, *units], limits))
