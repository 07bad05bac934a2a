"""The compressed data unit: the header before the payload of a tensor or a block of tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate

from nnrcodec.syntax.clauses import clause
from nnrcodec.syntax.constants import (
    CompressedParameterTypes,
    NnrCompressedDataUnitPayloadType,
    NnrDecompressedDataFormat,
    ParentNodeIdType,
)
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.drivers import Syntax
from nnrcodec.syntax.topology import (
    TopologyElementsIdsList,
    topology_elements_ids_list,
    topology_elements_index_list,
)

LONGEST_CODEBOOK = 1 << 16
"""Largest codebook that is read: an entry can cost a sender one bit, but takes time to read."""


@dataclass(slots=True)
class Codebook:
    """codebook(); the deltas are in the order of the stream, outwards from the centre."""

    codebook_egk: int = 0
    codebook_size: int = 1
    codebook_centre_offset: int = 0
    codebook_zero_value: int = 0
    codebook_delta_left: list[int] = field(default_factory=list)
    codebook_delta_right: list[int] = field(default_factory=list)

    @property
    def cb_zero_offset(self) -> int:
        """CbZeroOffset: the index of the entry that is coded as level 0."""
        return (self.codebook_size >> 1) + self.codebook_centre_offset

    def entries(self) -> list[int]:
        """Return the entries: increasing integers."""
        zero = self.codebook_zero_value
        left = accumulate(self.codebook_delta_left, lambda v, delta: v - 1 - delta, initial=zero)
        right = accumulate(self.codebook_delta_right, lambda v, delta: v + 1 + delta, initial=zero)
        return [*reversed(list(left)), *list(right)[1:]]


@clause("codebook( )")
def codebook(s: Syntax, h: Codebook, ctx: StreamContext) -> None:
    """List levels outwards from the entry cb_zero_offset, which is coded as level 0.

    cb_zero_offset = (codebook_size >> 1) + codebook_centre_offset.
    """
    s.u(h, "codebook_egk", 4)
    s.ue(h, "codebook_size", 2, low=1, limit=LONGEST_CODEBOOK)
    s.ie(
        h,
        "codebook_centre_offset",
        2,
        low=-(h.codebook_size >> 1),
        high=h.codebook_size - 1 - (h.codebook_size >> 1),
    )
    s.ie(h, "codebook_zero_value", 7)
    s.array(h, "codebook_delta_left", h.cb_zero_offset)
    for j in range(h.cb_zero_offset):
        s.ue(h, "codebook_delta_left", h.codebook_egk, j)
    s.array(h, "codebook_delta_right", h.codebook_size - 1 - h.cb_zero_offset)
    for j in range(h.codebook_size - 1 - h.cb_zero_offset):
        s.ue(h, "codebook_delta_right", h.codebook_egk, j)


@dataclass(slots=True)
class NnrCompressedDataUnitHeader:
    """The header of NNR_NDU."""

    nnr_compressed_data_unit_payload_type: int = 0
    nnr_multiple_topology_elements_present_flag: int = 0
    nnr_decompressed_data_format_present_flag: int = 0
    input_parameters_present_flag: int = 0
    topology_elements_ids_list: TopologyElementsIdsList | None = None
    topology_elem_id: str | None = None
    topology_elem_id_index: int | None = None
    node_id_present_flag: int = 0
    device_id: int = 0
    parameter_id: int = 0
    put_node_depth: int = 0
    parent_node_id_present_flag: int = 0
    parent_node_id_type: int = 0
    temporal_context_modeling_flag: int = 0
    parent_device_id: int = 0
    parent_node_payload_sha256: int = 0
    parent_node_payload_sha512: int = 0
    codebook_present_flag: int = 0
    codebook: Codebook | None = None
    dq_flag: int = 0
    nnr_decompressed_data_format: int | None = None
    tensor_dimensions_flag: int = 0
    cabac_unary_length_flag: int = 0
    compressed_parameter_types: int = 0
    decomposition_rank: int = 0
    g_number_of_rows: int = 0
    count_tensor_dimensions: int = 0
    tensor_dimensions: list[int] = field(default_factory=list)
    concatenation_axis_index: int = 0
    split_index: list[int] = field(default_factory=list)
    number_of_shifts: list[int] = field(default_factory=list)
    shift_index: list[list[int]] = field(default_factory=list)
    shift_value: list[list[int]] = field(default_factory=list)
    cabac_unary_length_minus1: int = 9
    codebook_h: Codebook | None = None
    first_tensor_dimension_shift: int = 0
    scan_order: int = 0
    cabac_offset_list: list[int] = field(default_factory=list)
    dq_state_list: list[int] = field(default_factory=list)
    bit_offset_delta1: int = 0
    bit_offset_delta2: list[int] = field(default_factory=list)

    @property
    def count_topology_elements(self) -> int:
        """The number of elements in the unit."""
        ids = self.topology_elements_ids_list
        return ids.count_topology_elements_minus2 + 2 if ids else 1

    @property
    def num_block_rows_minus1(self) -> int:
        """NumBlockRowsMinus1: the number of entry points.

        A decomposed block has the entry points of G and of H. A factor of a decomposed tensor
        outside a block has its own; as in deployed software, its name ends in _G or _H.
        """
        block = 4 << self.scan_order
        decomposed = self.compressed_parameter_types & CompressedParameterTypes.NNR_CPT_DC
        rows = [self.tensor_dimensions[0]]
        if decomposed and self.nnr_multiple_topology_elements_present_flag:
            rows = [self.g_number_of_rows, self.decomposition_rank]
        elif decomposed and (self.topology_elem_id or "").endswith("_G"):
            rows = [self.g_number_of_rows]
        elif decomposed and (self.topology_elem_id or "").endswith("_H"):
            rows = [self.decomposition_rank]
        return sum(max(-(-n // block) - 1, 0) for n in rows)

    def bit_offset_list(self) -> list[int]:
        """Return BitOffsetList: the distances in bits between entry points."""
        if not self.cabac_offset_list:
            return []
        return list(accumulate(self.bit_offset_delta2, initial=self.bit_offset_delta1))


@clause("NNR_NDU: nnr_compressed_data_unit_header( )")
def nnr_compressed_data_unit_header(
    s: Syntax, h: NnrCompressedDataUnitHeader, ctx: StreamContext
) -> None:
    """Describe the payload, which follows up to the end of the unit.

    Without tensor_dimensions, the number of dimensions is known from the topology only, and with it
    which of the last elements are present. Such units are not supported.
    """
    s.u(
        h,
        "nnr_compressed_data_unit_payload_type",
        5,
        high=NnrCompressedDataUnitPayloadType.NNR_PT_BLOCK,
        enum=NnrCompressedDataUnitPayloadType,
    )
    s.flag(h, "nnr_multiple_topology_elements_present_flag")
    s.flag(h, "nnr_decompressed_data_format_present_flag")
    s.flag(h, "input_parameters_present_flag")
    if h.nnr_multiple_topology_elements_present_flag:
        if ctx.mps_topology_indexed_reference_flag:
            s.structure(h, "topology_elements_ids_list", topology_elements_index_list, ctx)
        else:
            s.structure(h, "topology_elements_ids_list", topology_elements_ids_list, ctx)
    elif ctx.mps_topology_indexed_reference_flag:
        s.ue(h, "topology_elem_id_index", 7)
    else:
        s.st(h, "topology_elem_id")
    if ctx.general_profile_idc == 1:
        node_identifiers(s, h, ctx)
    if h.nnr_compressed_data_unit_payload_type in (
        NnrCompressedDataUnitPayloadType.NNR_PT_FLOAT,
        NnrCompressedDataUnitPayloadType.NNR_PT_BLOCK,
    ):
        s.flag(h, "codebook_present_flag")
        if h.codebook_present_flag:
            s.structure(h, "codebook", codebook, ctx)
    if h.nnr_compressed_data_unit_payload_type != NnrCompressedDataUnitPayloadType.NNR_PT_RAW_FLOAT:
        s.flag(h, "dq_flag")
    if h.nnr_decompressed_data_format_present_flag:
        s.u(h, "nnr_decompressed_data_format", 7, enum=NnrDecompressedDataFormat)
    if h.input_parameters_present_flag:
        s.flag(h, "tensor_dimensions_flag")
        s.flag(h, "cabac_unary_length_flag")
        s.u(h, "compressed_parameter_types", 4, enum=CompressedParameterTypes)
        if h.compressed_parameter_types & CompressedParameterTypes.NNR_CPT_DC:
            s.ue(h, "decomposition_rank", 3, limit=ctx.limits.max_elements)
            s.ue(h, "g_number_of_rows", 3, limit=ctx.limits.max_elements)
    if h.tensor_dimensions_flag:
        s.ue(h, "count_tensor_dimensions", 1, limit=ctx.limits.max_dimensions)
        s.array(h, "tensor_dimensions", h.count_tensor_dimensions)
        for j in range(h.count_tensor_dimensions):
            s.ue(h, "tensor_dimensions", 7, j, limit=ctx.limits.max_elements)
        s.limit_product(h, "tensor_dimensions", ctx.limits.max_elements)
    else:
        s.unsupported("tensor dimensions outside the data unit")
    if (
        h.nnr_compressed_data_unit_payload_type != NnrCompressedDataUnitPayloadType.NNR_PT_BLOCK
        and h.nnr_multiple_topology_elements_present_flag
    ):
        topology_tensor_dimension_mapping(s, h, ctx)
    if h.cabac_unary_length_flag:
        s.u(h, "cabac_unary_length_minus1", 8)
    if (
        h.nnr_compressed_data_unit_payload_type == NnrCompressedDataUnitPayloadType.NNR_PT_BLOCK
        and h.compressed_parameter_types & CompressedParameterTypes.NNR_CPT_DC
        and h.codebook_present_flag
    ):
        s.structure(h, "codebook_h", codebook, ctx)
    if h.count_tensor_dimensions > 1:
        if ctx.general_profile_idc == 1:
            s.ue(h, "first_tensor_dimension_shift", 1)
        s.u(h, "scan_order", 4, high=4)
        if h.scan_order > 0:
            entry_points(s, h, ctx)
    s.byte_alignment()


@clause("Node identifiers in nnr_compressed_data_unit_header( )")
def node_identifiers(s: Syntax, h: NnrCompressedDataUnitHeader, ctx: StreamContext) -> None:
    """Identify the tensor and its update, and the update on which it is based."""
    s.flag(h, "node_id_present_flag")
    if h.node_id_present_flag:
        s.ue(h, "device_id", 1)
        s.ue(h, "parameter_id", 5)
        s.ue(h, "put_node_depth", 4)
    if ctx.mps_parent_signalling_enabled_flag:
        s.flag(h, "parent_node_id_present_flag")
        if h.parent_node_id_present_flag:
            s.u(
                h,
                "parent_node_id_type",
                2,
                high=ParentNodeIdType.ICNN_NDU_PL_SHA512,
                enum=ParentNodeIdType,
            )
            s.flag(h, "temporal_context_modeling_flag")
            if h.parent_node_id_type == ParentNodeIdType.ICNN_NDU_ID:
                s.ue(h, "parent_device_id", 1)
                if not h.node_id_present_flag:
                    s.ue(h, "parameter_id", 5)
                    s.ue(h, "put_node_depth", 4)
            elif h.parent_node_id_type == ParentNodeIdType.ICNN_NDU_PL_SHA256:
                s.u(h, "parent_node_payload_sha256", 256)
            else:
                s.u(h, "parent_node_payload_sha512", 512)


@clause("topology_tensor_dimension_mapping( )")
def topology_tensor_dimension_mapping(
    s: Syntax, h: NnrCompressedDataUnitHeader, ctx: StreamContext
) -> None:
    """Describe how tensors were concatenated along an axis, as in published drafts."""
    s.u(h, "concatenation_axis_index", 8)
    s.array(h, "split_index", h.count_topology_elements - 1)
    for i in range(h.count_topology_elements - 1):
        s.ue(h, "split_index", 7, i)
    s.array(h, "number_of_shifts", h.count_topology_elements)
    for i in range(h.count_topology_elements):
        s.ue(h, "number_of_shifts", 1, i)
        s.array(h, "shift_index", h.number_of_shifts[i], i)
        s.array(h, "shift_value", h.number_of_shifts[i], i)
        for j in range(h.number_of_shifts[i]):
            s.ue(h, "shift_index", 7, i, j)
            s.ie(h, "shift_value", 1, i, j)


@clause("Entry points in nnr_compressed_data_unit_header( )")
def entry_points(s: Syntax, h: NnrCompressedDataUnitHeader, ctx: StreamContext) -> None:
    """List where each row of blocks after the first starts."""
    s.array(h, "cabac_offset_list", h.num_block_rows_minus1)
    for j in range(h.num_block_rows_minus1):
        s.u(h, "cabac_offset_list", 8, j)
        if h.dq_flag:
            s.u(h, "dq_state_list", 3, j)
        if j == 0:
            s.ue(h, "bit_offset_delta1", 11)
        else:
            s.ie(h, "bit_offset_delta2", 7, j - 1)
