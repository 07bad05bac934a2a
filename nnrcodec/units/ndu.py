"""What is in a compressed data unit: what its encoder and its decoder have to agree on.

Owns names, order, shapes and codebooks of the tensors of a unit, and what its header says about how
their levels are coded. Payloads are decoded in `nnrcodec.units.ndu_decoding`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from nnrcodec.entropy.cabac.level_syntax import EntryPoint, LevelSyntax, matrix
from nnrcodec.entropy.lossless.model import Difference
from nnrcodec.errors import SyntaxElementError, UnsupportedFeatureError
from nnrcodec.model.dtypes import is_float, values_of
from nnrcodec.syntax.constants import (
    CompressedParameterTypes,
    NnrCompressedDataUnitPayloadType,
    NnrDecompressedDataFormat,
)
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.data_unit import Codebook, NnrCompressedDataUnitHeader


class Part(Enum):
    """What a tensor is in its unit; a lone tensor is a weight."""

    WEIGHT = "weight"
    G = "G"
    H = "H"
    SCALING = "scaling"
    BETA = "beta"
    GAMMA = "gamma"
    MEAN = "mean"
    VARIANCE = "variance"
    BIAS = "bias"


_BATCH_NORM = (Part.BETA, Part.GAMMA, Part.MEAN, Part.VARIANCE)
_WEIGHTS = (Part.WEIGHT, Part.G, Part.H)
_ID_ORDER = (*_WEIGHTS, Part.SCALING, *_BATCH_NORM, Part.BIAS)
_PAYLOAD_ORDER = (Part.SCALING, Part.BIAS, *_BATCH_NORM, *_WEIGHTS)
_SUFFIXES = {Part.G: "_G", Part.H: "_H"}


@dataclass(frozen=True, slots=True)
class Member:
    """A tensor of a data unit.

    Parameters
    ----------
    name : str
        Its topology_elem_id.
    part : Part
        What it is.
    shape : tuple of int
        Its dimensions, none of them 0.
    codebook : Codebook or None
        The values of its levels, if they are not multiples of the step size.
    """

    name: str
    part: Part
    shape: tuple[int, ...]
    codebook: Codebook | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_weight(self) -> bool:
        """Whether scan order, entry points and codebook of the unit are its own."""
        return self.part in _WEIGHTS


@dataclass(frozen=True, slots=True)
class TensorHistory:
    """What the updates of a tensor so far mean for the coding of the next one.

    Parameters
    ----------
    levels : ndarray of int32
        Levels of the last update in which the tensor was.
    nonzero : ndarray of bool
        Where any update had a level other than 0.
    device_id, parameter_id : int
        Of that last update.
    put_node_depth : int
        Number of updates in which the tensor was.
    """

    levels: np.ndarray
    nonzero: np.ndarray
    device_id: int = 0
    parameter_id: int = 0
    put_node_depth: int = 1


Histories = Mapping[str, TensorHistory]
"""By the name in the data unit, what the updates of a tensor so far left."""


@dataclass(frozen=True, slots=True)
class DecodedMember:
    """A tensor of a data unit, decoded.

    Parameters
    ----------
    member : Member
        Its name and shape.
    held : ndarray
        Its values, or their bit patterns; in an NNR_NDU int32, float32, or float64 if they are
        entries of a codebook.
    dtype : str
        What the values are, a key of `nnrcodec.model.dtypes.DTYPES`.
    levels : ndarray of int32 or None
        Its levels; with a codebook indices, 0 for its centre. None unless they were asked for, and
        for raw values.
    difference : Difference or None
        Where the values are not those of a tensor, but what changes the bit patterns of one.
    are_words : bool
        Whether `held` are bit patterns, as `nnrcodec.model.dtypes.words_of` returns them.
    """

    member: Member
    held: np.ndarray
    dtype: str
    levels: np.ndarray | None = None
    difference: Difference | None = None
    are_words: bool = False

    @property
    def value(self) -> np.ndarray:
        """The values, of any of the dtypes of `held`."""
        return values_of(self.held, self.dtype) if self.are_words else self.held


def next_history(
    history: TensorHistory | None, levels: np.ndarray, header: NnrCompressedDataUnitHeader
) -> TensorHistory:
    """Return what is known of a tensor after one more update.

    Parameters
    ----------
    history : TensorHistory or None
        What was known before; None before the first update.
    levels : ndarray of int32
        Levels of the update, in the shape of the tensor. They are kept, not copied.
    header : NnrCompressedDataUnitHeader
        Of the unit with the update.
    """
    nonzero, depth = np.asarray(levels != 0), 1
    if history is not None:
        nonzero = nonzero | history.nonzero
        depth += history.put_node_depth
    return TensorHistory(levels, nonzero, header.device_id, header.parameter_id, depth)


_DTYPE_OF_FORMAT = {
    NnrDecompressedDataFormat.TENSOR_INT32: "int32",
    NnrDecompressedDataFormat.TENSOR_FLOAT32: "float32",
    NnrDecompressedDataFormat.TENSOR_INT8: "int8",
    NnrDecompressedDataFormat.TENSOR_INT16: "int16",
    NnrDecompressedDataFormat.TENSOR_INT64: "int64",
    NnrDecompressedDataFormat.TENSOR_FLOAT16: "float16",
    NnrDecompressedDataFormat.TENSOR_FLOAT64: "float64",
}


def declared_dtype(header: NnrCompressedDataUnitHeader) -> str | None:
    """Return the dtype that a header declares its tensors to have; None if it declares none.

    Raises
    ------
    UnsupportedFeatureError
        If nnr_decompressed_data_format is none that this version has, or does not go with the
        payload: an integer format with reals, or the other way round.
    """
    declared = header.nnr_decompressed_data_format
    if declared is None:
        return None
    dtype = _DTYPE_OF_FORMAT.get(NnrDecompressedDataFormat(declared)) if declared < 10 else None
    payload_type = header.nnr_compressed_data_unit_payload_type
    integers = payload_type == NnrCompressedDataUnitPayloadType.NNR_PT_INT
    if dtype is None or is_float(dtype) == integers:
        raise UnsupportedFeatureError(
            f"nnr_decompressed_data_format is {int(declared)}, which this version does not have "
            f"for {'integers' if integers else 'reals'}",
            feature="nnr_decompressed_data_format",
        )
    return dtype


def parts_by_id(compressed_parameter_types: int) -> tuple[Part, ...]:
    """Return the parts of a block in the order of their names in the header."""
    return _present(_ID_ORDER, compressed_parameter_types)


def parts_in_payload(compressed_parameter_types: int) -> tuple[Part, ...]:
    """Return the parts of a block in the order in which the payload has them."""
    return _present(_PAYLOAD_ORDER, compressed_parameter_types)


def members_of(header: NnrCompressedDataUnitHeader) -> tuple[Member, ...]:
    """Return the tensors of a unit, in the order of its payload.

    Parameters
    ----------
    header : NnrCompressedDataUnitHeader
        As it was read, or is to be written.

    Raises
    ------
    SyntaxElementError
        If its elements contradict one another.
    UnsupportedFeatureError
        If names or shapes of its tensors are not in the header.
    """
    if 0 in header.tensor_dimensions:
        raise SyntaxElementError(
            f"tensor_dimensions are {header.tensor_dimensions}, every one must be at least 1"
        )
    if header.first_tensor_dimension_shift:
        raise UnsupportedFeatureError(
            f"first_tensor_dimension_shift is {header.first_tensor_dimension_shift}; tensors whose "
            "dimensions were reordered for coding cannot be decoded",
            feature="first_tensor_dimension_shift",
        )
    if _is_block(header):
        return _members_of_block(header)
    if header.nnr_multiple_topology_elements_present_flag:
        raise UnsupportedFeatureError(
            "tensors joined into one cannot be taken apart",
            feature="topology_tensor_dimension_mapping",
        )
    return (_lone_member(header),)


def level_syntax_of(
    header: NnrCompressedDataUnitHeader,
    context: StreamContext,
    member: Member,
    history: TensorHistory | None = None,
) -> LevelSyntax:
    """Return how the levels of a tensor are coded.

    Parameters
    ----------
    header : NnrCompressedDataUnitHeader
        Of its unit.
    context : StreamContext
        What the units before have set.
    member : Member
        The tensor.
    history : TensorHistory, optional
        What earlier updates left; needed with temporal_context_modeling_flag.
    """
    height, width = matrix(member.shape)
    integers = (
        header.nnr_compressed_data_unit_payload_type == NnrCompressedDataUnitPayloadType.NNR_PT_INT
    )
    codebook = member.codebook
    base = earlier = None
    if history is not None and header.parent_node_id_present_flag:
        earlier = history.nonzero.reshape(height, width)
        if header.temporal_context_modeling_flag:
            base = history.levels.reshape(height, width)
    return LevelSyntax(
        height=height,
        width=width,
        general_profile_idc=int(context.general_profile_idc == 1),
        dq_flag=0 if integers else header.dq_flag,
        cabac_unary_length=header.cabac_unary_length_minus1 + 1,
        scan_order=header.scan_order if member.is_weight else 0,
        codebook_size=codebook.codebook_size if codebook else 0,
        codebook_zero=codebook.cb_zero_offset if codebook else 0,
        parent_node_id_present_flag=header.parent_node_id_present_flag,
        base=base,
        history=earlier,
    )


def entry_points_of(
    header: NnrCompressedDataUnitHeader, member: Member, syntax: LevelSyntax
) -> list[EntryPoint] | None:
    """Return the entry points of a tensor; None where it is not coded block by block.

    The list in the header is that of the weight, or of G and then of H.

    Parameters
    ----------
    header : NnrCompressedDataUnitHeader
        Of its unit.
    member : Member
        The tensor.
    syntax : LevelSyntax
        As `level_syntax_of` returns it.
    """
    if not (member.is_weight and syntax.block_size):
        return None
    first = 0
    if member.part is Part.H and _is_block(header):
        block = 4 << header.scan_order
        first = max(-(-header.g_number_of_rows // block) - 1, 0)
    points = zip(
        header.cabac_offset_list,
        header.dq_state_list if syntax.dq_flag else [0] * len(header.cabac_offset_list),
        header.bit_offset_list(),
        strict=True,
    )
    return [EntryPoint(*point) for point in points][first : first + syntax.count_block_rows - 1]


def _is_block(header: NnrCompressedDataUnitHeader) -> bool:
    block = NnrCompressedDataUnitPayloadType.NNR_PT_BLOCK
    return header.nnr_compressed_data_unit_payload_type == block


def _present(order: tuple[Part, ...], types: int) -> tuple[Part, ...]:
    present = {Part.WEIGHT}
    if types & CompressedParameterTypes.NNR_CPT_DC:
        present = {Part.G, Part.H}
    if types & CompressedParameterTypes.NNR_CPT_LS:
        present.add(Part.SCALING)
    if types & CompressedParameterTypes.NNR_CPT_BN:
        present |= set(_BATCH_NORM)
    if types & CompressedParameterTypes.NNR_CPT_BI:
        present.add(Part.BIAS)
    return tuple(part for part in order if part in present)


def _members_of_block(header: NnrCompressedDataUnitHeader) -> tuple[Member, ...]:
    ids = header.topology_elements_ids_list
    if ids is None:
        raise SyntaxElementError(
            "a block has several tensors: nnr_multiple_topology_elements_present_flag must be 1"
        )
    if not ids.topology_elem_id_list:
        raise _indexed()
    parts = parts_by_id(header.compressed_parameter_types)
    if len(ids.topology_elem_id_list) != len(parts):
        raise SyntaxElementError(
            f"a block with compressed_parameter_types {int(header.compressed_parameter_types)} has "
            f"{len(parts)} tensors, not {len(ids.topology_elem_id_list)}"
        )
    if not header.tensor_dimensions:
        raise SyntaxElementError("the weight of a block has no dimensions")
    names = dict(zip(parts, ids.topology_elem_id_list, strict=True))
    return tuple(
        Member(names[part], part, _shape(header, part), _codebook(header, part))
        for part in parts_in_payload(header.compressed_parameter_types)
    )


def _lone_member(header: NnrCompressedDataUnitHeader) -> Member:
    name, part = header.topology_elem_id, Part.WEIGHT
    if name is None:
        raise _indexed()
    if header.compressed_parameter_types & CompressedParameterTypes.NNR_CPT_DC:
        parts = [p for p, suffix in _SUFFIXES.items() if name.endswith(suffix)]
        if not parts:
            raise SyntaxElementError(
                f"{name!r} is a part of a decomposed tensor, so its name must end in _G or _H"
            )
        (part,) = parts
    return Member(name, part, _shape(header, part), _codebook(header, part))


def _indexed() -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        "a tensor is named by its index in the topology, which is not looked up",
        feature="mps_topology_indexed_reference_flag",
    )


def _shape(header: NnrCompressedDataUnitHeader, part: Part) -> tuple[int, ...]:
    dimensions = tuple(header.tensor_dimensions)
    if part is Part.WEIGHT:
        return dimensions
    if part not in (Part.G, Part.H):
        return dimensions[:1]
    rank, rows, size = header.decomposition_rank, header.g_number_of_rows, math.prod(dimensions)
    if rank < 1 or rows < 1 or size % rows:
        raise SyntaxElementError(
            f"decomposition_rank {rank} and g_number_of_rows {rows} do not fit {size} elements: "
            "the rank must be at least 1, the rows must divide them"
        )
    return (rows, rank) if part is Part.G else (rank, size // rows)


def _codebook(header: NnrCompressedDataUnitHeader, part: Part) -> Codebook | None:
    if part not in _WEIGHTS:
        return None
    in_block = _is_block(header) and part is Part.H
    return header.codebook_h if in_block else header.codebook
