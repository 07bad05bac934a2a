"""Performance maps: the accuracy of the network at several operating points.

They do not change decoding. A count of N is followed by N - 1 entries, as in deployed software;
whether the standard means N entries is not known here. So 0 and 1 both mean no entries, and the
count is kept as it is. A count of N classes is followed by N entries.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nnrcodec.syntax.clauses import clause
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.drivers import Syntax


@dataclass(slots=True)
class SparsificationPerformanceMap:
    """sparsification_performance_map()."""

    spm_count_thresholds: int = 0
    sparsification_threshold: list[float] = field(default_factory=list)
    non_zero_ratio: list[float] = field(default_factory=list)
    spm_nn_accuracy: list[float] = field(default_factory=list)
    spm_count_classes: list[int] = field(default_factory=list)
    spm_class_bitmask: list[int] = field(default_factory=list)
    spm_nn_class_accuracy: list[list[float]] = field(default_factory=list)


@clause("sparsification_performance_map( )")
def sparsification_performance_map(
    s: Syntax, h: SparsificationPerformanceMap, ctx: StreamContext
) -> None:
    """Give the accuracy by threshold; a count of N thresholds means N - 1 entries."""
    s.u(h, "spm_count_thresholds", 8)
    for i in range(h.spm_count_thresholds - 1):
        s.flt(h, "sparsification_threshold", i)
        s.flt(h, "non_zero_ratio", i)
        s.flt(h, "spm_nn_accuracy", i)
        s.u(h, "spm_count_classes", 8, i)
        s.ue(h, "spm_class_bitmask", 7, i)
        s.array(h, "spm_nn_class_accuracy", h.spm_count_classes[i], i)
        for j in range(h.spm_count_classes[i]):
            s.flt(h, "spm_nn_class_accuracy", i, j)


@dataclass(slots=True)
class PruningPerformanceMap:
    """pruning_performance_map()."""

    ppm_count_pruning_ratios: int = 0
    pruning_ratio: list[float] = field(default_factory=list)
    ppm_nn_accuracy: list[float] = field(default_factory=list)
    ppm_count_classes: list[int] = field(default_factory=list)
    ppm_class_bitmask: list[int] = field(default_factory=list)
    ppm_nn_class_accuracy: list[list[float]] = field(default_factory=list)


@clause("pruning_performance_map( )")
def pruning_performance_map(s: Syntax, h: PruningPerformanceMap, ctx: StreamContext) -> None:
    """Give the accuracy by pruning ratio; a count of N ratios means N - 1 entries."""
    s.u(h, "ppm_count_pruning_ratios", 8)
    for i in range(h.ppm_count_pruning_ratios - 1):
        s.flt(h, "pruning_ratio", i)
        s.flt(h, "ppm_nn_accuracy", i)
        s.u(h, "ppm_count_classes", 8, i)
        s.ue(h, "ppm_class_bitmask", 7, i)
        s.array(h, "ppm_nn_class_accuracy", h.ppm_count_classes[i], i)
        for j in range(h.ppm_count_classes[i]):
            s.flt(h, "ppm_nn_class_accuracy", i, j)


@dataclass(slots=True)
class UnificationPerformanceMap:
    """unification_performance_map()."""

    upm_count_thresholds: int = 0
    count_reshaped_tensor_dimension: list[int] = field(default_factory=list)
    reshaped_tensor_dimensions: list[list[int]] = field(default_factory=list)
    count_super_block_dimension: list[int] = field(default_factory=list)
    super_block_dimensions: list[list[int]] = field(default_factory=list)
    count_block_dimension: list[int] = field(default_factory=list)
    block_dimensions: list[list[int]] = field(default_factory=list)
    unification_threshold: list[float] = field(default_factory=list)
    upm_nn_accuracy: list[float] = field(default_factory=list)
    upm_count_classes: list[int] = field(default_factory=list)
    upm_class_bitmask: list[int] = field(default_factory=list)
    upm_nn_class_accuracy: list[list[float]] = field(default_factory=list)


@clause("unification_performance_map( )")
def unification_performance_map(
    s: Syntax, h: UnificationPerformanceMap, ctx: StreamContext
) -> None:
    """Give the accuracy by unification threshold; a count of N means N - 1 entries.

    Deployed software repeats upm_nn_class_accuracy by the value of the bit mask; here it is
    repeated by the count of classes, as in the other maps.
    """
    s.u(h, "upm_count_thresholds", 8)
    for i in range(h.upm_count_thresholds - 1):
        s.ue(h, "count_reshaped_tensor_dimension", 1, i)
        s.array(h, "reshaped_tensor_dimensions", h.count_reshaped_tensor_dimension[i] - 1, i)
        for j in range(h.count_reshaped_tensor_dimension[i] - 1):
            s.ue(h, "reshaped_tensor_dimensions", 7, i, j)
        s.byte_alignment()
        s.u(h, "count_super_block_dimension", 8, i)
        s.array(h, "super_block_dimensions", h.count_super_block_dimension[i] - 1, i)
        for j in range(h.count_super_block_dimension[i] - 1):
            s.u(h, "super_block_dimensions", 8, i, j)
        s.u(h, "count_block_dimension", 8, i)
        s.array(h, "block_dimensions", h.count_block_dimension[i] - 1, i)
        for j in range(h.count_block_dimension[i] - 1):
            s.u(h, "block_dimensions", 8, i, j)
        s.flt(h, "unification_threshold", i)
        s.flt(h, "upm_nn_accuracy", i)
        s.u(h, "upm_count_classes", 8, i)
        s.ue(h, "upm_class_bitmask", 7, i)
        s.array(h, "upm_nn_class_accuracy", h.upm_count_classes[i], i)
        for j in range(h.upm_count_classes[i]):
            s.flt(h, "upm_nn_class_accuracy", i, j)


@dataclass(slots=True)
class DecompositionPerformanceMap:
    """decomposition_performance_map()."""

    dpm_count_thresholds: int = 0
    mse_threshold: list[float] = field(default_factory=list)
    dpm_nn_accuracy: list[float] = field(default_factory=list)
    nn_reduction_ratio: list[float] = field(default_factory=list)
    dpm_count_classes: list[int] = field(default_factory=list)
    dpm_nn_class_accuracy: list[list[float]] = field(default_factory=list)


@clause("decomposition_performance_map( )")
def decomposition_performance_map(
    s: Syntax, h: DecompositionPerformanceMap, ctx: StreamContext
) -> None:
    """Give the accuracy by mean squared error threshold; a count of N means N - 1 entries."""
    s.u(h, "dpm_count_thresholds", 8)
    for i in range(h.dpm_count_thresholds - 1):
        s.flt(h, "mse_threshold", i)
        s.flt(h, "dpm_nn_accuracy", i)
        s.flt(h, "nn_reduction_ratio", i)
        s.u(h, "dpm_count_classes", 16, i)
        s.array(h, "dpm_nn_class_accuracy", h.dpm_count_classes[i], i)
        for j in range(h.dpm_count_classes[i]):
            s.flt(h, "dpm_nn_class_accuracy", i, j)
