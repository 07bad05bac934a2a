"""Topology and quantization units, and how data units refer to elements of the topology.

The pruning container is that of published drafts; no software is known that writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nnrcodec.syntax.clauses import clause
from nnrcodec.syntax.constants import CompressionFormat, NnrRepType, TopologyStorageFormat
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.drivers import Syntax


@dataclass(slots=True)
class TopologyElementsIdsList:
    """topology_elements_ids_list()."""

    count_topology_elements_minus2: int = 0
    topology_elem_id_list: list[str] = field(default_factory=list)
    topology_elem_id_index_list: list[int] = field(default_factory=list)


@clause("topology_elements_ids_list( topologyIndexedFlag = 0 )")
def topology_elements_ids_list(s: Syntax, h: TopologyElementsIdsList, ctx: StreamContext) -> None:
    """Refer to elements by name."""
    s.ue(h, "count_topology_elements_minus2", 7)
    s.byte_alignment()
    s.array(h, "topology_elem_id_list", h.count_topology_elements_minus2 + 2)
    for j in range(h.count_topology_elements_minus2 + 2):
        s.st(h, "topology_elem_id_list", j)


@clause("topology_elements_ids_list( topologyIndexedFlag = 1 )")
def topology_elements_index_list(s: Syntax, h: TopologyElementsIdsList, ctx: StreamContext) -> None:
    """Refer to elements by their index in the list of an NNR_TPL_REFLIST topology unit."""
    s.ue(h, "count_topology_elements_minus2", 7)
    s.array(h, "topology_elem_id_index_list", h.count_topology_elements_minus2 + 2)
    for j in range(h.count_topology_elements_minus2 + 2):
        s.ue(h, "topology_elem_id_index_list", 7, j)
    s.byte_alignment()


@dataclass(slots=True)
class BitMask:
    """bit_mask(); its bits are one integer, most significant bit first."""

    count_bits: int = 0
    bit_mask_value: int = 0


@clause("bit_mask( )")
def bit_mask(s: Syntax, h: BitMask, ctx: StreamContext) -> None:
    """State for each element whether it is kept."""
    s.u(h, "count_bits", 32)
    s.u(h, "bit_mask_value", h.count_bits)
    s.byte_alignment()


@dataclass(slots=True)
class PruningDictionaryEntry:
    """The dimensions of one element after pruning."""

    element_id: str = ""
    count_dims: int = 0
    dim: list[int] = field(default_factory=list)


@clause("Entry of a pruning dictionary")
def pruning_dictionary_entry(s: Syntax, h: PruningDictionaryEntry, ctx: StreamContext) -> None:
    """Give the dimensions of one element after pruning."""
    s.st(h, "element_id")
    s.ue(h, "count_dims", 1)
    s.array(h, "dim", h.count_dims)
    for j in range(h.count_dims):
        s.ue(h, "dim", 7, j)
    s.byte_alignment()


@dataclass(slots=True)
class NnrPruningTopologyContainer:
    """nnr_pruning_topology_container()."""

    nnr_rep_type: int = 0
    prune_flag: int = 0
    order_flag: int = 0
    sparse_flag: int = 0
    prune_bit_mask: BitMask | None = None
    count_ids: int = 0
    pruning_dictionary: list[PruningDictionaryEntry] = field(default_factory=list)
    sparse_bit_mask: BitMask | None = None


@clause("nnr_pruning_topology_container( )")
def nnr_pruning_topology_container(
    s: Syntax, h: NnrPruningTopologyContainer, ctx: StreamContext
) -> None:
    """State which elements pruning and sparsification have kept."""
    s.u(h, "nnr_rep_type", 2, high=NnrRepType.NNR_TPL_DICT, enum=NnrRepType)
    s.flag(h, "prune_flag")
    s.flag(h, "order_flag")
    s.flag(h, "sparse_flag")
    s.fixed("nnr_reserved_zero_3bits", 3, 0)
    if h.prune_flag and h.nnr_rep_type == NnrRepType.NNR_TPL_BMSK:
        s.structure(h, "prune_bit_mask", bit_mask, ctx)
    elif h.prune_flag:
        s.u(h, "count_ids", 8)
        s.array(h, "pruning_dictionary", h.count_ids)
        for j in range(h.count_ids):
            s.structure(h, "pruning_dictionary", pruning_dictionary_entry, ctx, j)
    if h.sparse_flag:
        s.structure(h, "sparse_bit_mask", bit_mask, ctx)


@dataclass(slots=True)
class NnrTopologyUnit:
    """NNR_TPL."""

    topology_storage_format: int = 0
    topology_compression_format: int = 0
    nnr_pruning_topology_container: NnrPruningTopologyContainer | None = None
    topology_elements_ids_list: TopologyElementsIdsList | None = None
    topology_data: bytes = b""


@clause("NNR_TPL: nnr_topology_unit_header( )")
def nnr_topology_unit_header(s: Syntax, h: NnrTopologyUnit, ctx: StreamContext) -> None:
    """State the storage and compression format of the topology."""
    s.u(h, "topology_storage_format", 8, enum=TopologyStorageFormat)
    s.u(h, "topology_compression_format", 8, enum=CompressionFormat)


@clause("NNR_TPL: nnr_topology_unit_payload( )")
def nnr_topology_unit_payload(s: Syntax, h: NnrTopologyUnit, ctx: StreamContext) -> None:
    """Hold the topology.

    topology_data extends to the end of the unit; deployed software ends it with a zero byte.
    """
    if h.topology_storage_format == TopologyStorageFormat.NNR_TPL_PRUN:
        s.structure(h, "nnr_pruning_topology_container", nnr_pruning_topology_container, ctx)
    elif h.topology_storage_format == TopologyStorageFormat.NNR_TPL_REFLIST:
        s.structure(h, "topology_elements_ids_list", topology_elements_ids_list, ctx)
    else:
        s.bs(h, "topology_data")


@dataclass(slots=True)
class NnrQuantizationUnit:
    """NNR_QNT."""

    quantization_storage_format: int = 0
    quantization_compression_format: int = 0
    quantization_data: bytes = b""


@clause("NNR_QNT: nnr_quantization_unit_header( )")
def nnr_quantization_unit_header(s: Syntax, h: NnrQuantizationUnit, ctx: StreamContext) -> None:
    """State the storage and compression format of the quantization data."""
    s.u(h, "quantization_storage_format", 8)
    s.u(h, "quantization_compression_format", 8, enum=CompressionFormat)


@clause("NNR_QNT: nnr_quantization_unit_payload( )")
def nnr_quantization_unit_payload(s: Syntax, h: NnrQuantizationUnit, ctx: StreamContext) -> None:
    """Hold bytes up to the end of the unit."""
    s.bs(h, "quantization_data")
