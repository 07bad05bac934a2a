"""The start unit and the parameter sets of the model and of a layer."""

from __future__ import annotations

from dataclasses import dataclass

from nnrcodec.syntax.clauses import clause
from nnrcodec.syntax.constants import QuantizationMethodFlags
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.drivers import Syntax
from nnrcodec.syntax.performance_maps import (
    DecompositionPerformanceMap,
    PruningPerformanceMap,
    SparsificationPerformanceMap,
    UnificationPerformanceMap,
    decomposition_performance_map,
    pruning_performance_map,
    sparsification_performance_map,
    unification_performance_map,
)


@dataclass(slots=True)
class NnrStartUnit:
    """NNR_STR."""

    general_profile_idc: int = 0


@clause("NNR_STR: nnr_start_unit_header( )")
def nnr_start_unit_header(s: Syntax, h: NnrStartUnit, ctx: StreamContext) -> None:
    """Name the profile; 0 and 1 are supported."""
    s.u(h, "general_profile_idc", 8)
    if h.general_profile_idc > 1:
        s.unsupported("general_profile_idc above 1")


@dataclass(slots=True)
class NnrModelParameterSet:
    """NNR_MPS."""

    topology_carriage_flag: int = 0
    mps_sparsification_flag: int = 0
    mps_pruning_flag: int = 0
    mps_unification_flag: int = 0
    mps_decomposition_performance_map_flag: int = 0
    mps_quantization_method_flags: int = 0
    mps_topology_indexed_reference_flag: int = 0
    base_model_id_present_flag: int = 0
    validation_set_performance_present_flag: int = 0
    metric_type_performance_map_valid_flag: int = 0
    mps_parent_signalling_enabled_flag: int = 0
    nnr_pre_flag: int = 0
    base_model_id: str | None = None
    performance_metric_type: str | None = None
    mps_qp_density: int = 0
    mps_quantization_parameter: int = 0
    sparsification_performance_map: SparsificationPerformanceMap | None = None
    pruning_performance_map: PruningPerformanceMap | None = None
    unification_performance_map: UnificationPerformanceMap | None = None
    decomposition_performance_map: DecompositionPerformanceMap | None = None
    validation_set_performance: float | None = None


@clause("NNR_MPS: nnr_model_parameter_set_unit_payload( )")
def nnr_model_parameter_set_unit_payload(
    s: Syntax, h: NnrModelParameterSet, ctx: StreamContext
) -> None:
    """Set the parameters of the whole model; this unit type has no header."""
    s.flag(h, "topology_carriage_flag")
    s.flag(h, "mps_sparsification_flag")
    s.flag(h, "mps_pruning_flag")
    s.flag(h, "mps_unification_flag")
    s.flag(h, "mps_decomposition_performance_map_flag")
    s.u(h, "mps_quantization_method_flags", 3, enum=QuantizationMethodFlags)
    s.flag(h, "mps_topology_indexed_reference_flag")
    if ctx.general_profile_idc == 1:
        s.flag(h, "base_model_id_present_flag")
        s.flag(h, "validation_set_performance_present_flag")
        s.flag(h, "metric_type_performance_map_valid_flag")
        s.flag(h, "mps_parent_signalling_enabled_flag")
        if h.mps_parent_signalling_enabled_flag:
            s.flag(h, "nnr_pre_flag")
        else:
            s.fixed("nnr_reserved_zero_1bit", 1, 0)
        s.fixed("nnr_reserved_zero_2bits", 2, 0)
        if h.base_model_id_present_flag:
            s.st(h, "base_model_id")
        if h.validation_set_performance_present_flag or h.metric_type_performance_map_valid_flag:
            s.st(h, "performance_metric_type")
    else:
        s.fixed("nnr_reserved_zero_7bits", 7, 0)
    if h.mps_quantization_method_flags & 3:
        s.u(h, "mps_qp_density", 3)
        s.i(h, "mps_quantization_parameter", 13)
    if h.mps_sparsification_flag:
        s.structure(h, "sparsification_performance_map", sparsification_performance_map, ctx)
    if h.mps_pruning_flag:
        s.structure(h, "pruning_performance_map", pruning_performance_map, ctx)
    if h.mps_unification_flag:
        s.structure(h, "unification_performance_map", unification_performance_map, ctx)
    if h.mps_decomposition_performance_map_flag:
        s.structure(h, "decomposition_performance_map", decomposition_performance_map, ctx)
    if h.validation_set_performance_present_flag:
        s.flt(h, "validation_set_performance")
    s.byte_alignment()


@dataclass(slots=True)
class NnrLayerParameterSet:
    """NNR_LPS."""

    lps_self_contained_flag: int = 0
    lps_sparsification_flag: int = 0
    lps_pruning_flag: int = 0
    lps_unification_flag: int = 0
    lps_quantization_method_flags: int = 0
    lps_qp_density: int = 0
    lps_quantization_parameter: int = 0
    sparsification_performance_map: SparsificationPerformanceMap | None = None
    pruning_performance_map: PruningPerformanceMap | None = None
    unification_performance_map: UnificationPerformanceMap | None = None


@clause("NNR_LPS: nnr_layer_parameter_set_unit_header( )")
def nnr_layer_parameter_set_unit_header(
    s: Syntax, h: NnrLayerParameterSet, ctx: StreamContext
) -> None:
    """State whether the units that refer to this one can be decoded without others."""
    s.flag(h, "lps_self_contained_flag")
    s.fixed("nnr_reserved_zero_7bits", 7, 0)


@clause("NNR_LPS: nnr_layer_parameter_set_unit_payload( )")
def nnr_layer_parameter_set_unit_payload(
    s: Syntax, h: NnrLayerParameterSet, ctx: StreamContext
) -> None:
    """Replace the quantization parameters of NNR_MPS in the units that follow."""
    s.fixed("nnr_reserved_zero_1_bits", 1, 0)
    s.flag(h, "lps_sparsification_flag")
    s.flag(h, "lps_pruning_flag")
    s.flag(h, "lps_unification_flag")
    s.u(h, "lps_quantization_method_flags", 3, enum=QuantizationMethodFlags)
    s.fixed("nnr_reserved_zero_1bit", 1, 0)
    if h.lps_quantization_method_flags & 3:
        s.u(h, "lps_qp_density", 3)
        s.i(h, "lps_quantization_parameter", 13)
    if h.lps_sparsification_flag:
        s.structure(h, "sparsification_performance_map", sparsification_performance_map, ctx)
    if h.lps_pruning_flag:
        s.structure(h, "pruning_performance_map", pruning_performance_map, ctx)
    if h.lps_unification_flag:
        s.structure(h, "unification_performance_map", unification_performance_map, ctx)
    s.byte_alignment()
