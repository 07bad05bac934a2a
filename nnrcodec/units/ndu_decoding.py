"""From a compressed data unit to its tensors.

Owns the arithmetic of reconstruction; what is in a unit is `nnrcodec.units.ndu`, what is in a
payload `nnrcodec.entropy.cabac.payload`.

====================  ============================================================================
integer tensors       the levels, int32
uniform, dependent    level converted to binary32 (to nearest, ties to even), times the step size,
                      which is exact in binary32: one product in binary32
codebook              entry times step size: one product in binary64, where both are exact
raw                   the binary32 values that are in the payload
====================  ============================================================================

Where a header has nnr_decompressed_data_format, the values are then converted to it: reals rounded
to nearest, integers only if they fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from nnrcodec.entropy.cabac.payload import PayloadDecoder
from nnrcodec.errors import (
    ConfigError,
    PayloadError,
    SyntaxElementError,
    UnitOrderError,
    UnsupportedFeatureError,
)
from nnrcodec.model.dtypes import cast, from_little_endian, is_float
from nnrcodec.quant.codebook import values_of_levels
from nnrcodec.quant.step_size import CHUNK, dequantize_in_place, step_size
from nnrcodec.syntax.constants import NnrCompressedDataUnitPayloadType, ParentNodeIdType
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.data_unit import Codebook, NnrCompressedDataUnitHeader
from nnrcodec.syntax.unit import Unit
from nnrcodec.units.located import located
from nnrcodec.units.ndu import (
    DecodedMember,
    Member,
    TensorHistory,
    declared_dtype,
    entry_points_of,
    level_syntax_of,
    members_of,
)


def decode_data_unit(
    unit: Unit,
    histories: Mapping[str, TensorHistory] | None = None,
    *,
    threads: int = 1,
    keep_levels: bool = False,
) -> list[DecodedMember]:
    """Decode the tensors of a compressed data unit.

    Parameters
    ----------
    unit : Unit
        An NNR_NDU, its sizes already compared with what is allowed.
    histories : mapping of str to TensorHistory, optional
        By name, what earlier updates left.
    threads : int
        How many parts of a tensor to decode at once, if it has entry points. The result does not
        depend on it.
    keep_levels : bool
        Return levels as well; they take as much memory as the values.

    Returns
    -------
    list of DecodedMember
        In the order of the payload.

    Raises
    ------
    BitstreamError
        If the unit is damaged, or builds on an update that is not in `histories`.
    UnsupportedFeatureError
        If it uses what this version does not have.
    """
    header: NnrCompressedDataUnitHeader = unit.body
    with located(unit):
        if unit.header.partial_data_counter_present_flag:
            raise UnsupportedFeatureError(
                "a tensor in several units cannot be put together",
                feature="partial_data_counter_present_flag",
            )
        members, declared = members_of(header), declared_dtype(header)
        payload_type = header.nnr_compressed_data_unit_payload_type
    if payload_type == NnrCompressedDataUnitPayloadType.NNR_PT_RAW_FLOAT:
        with located(unit):
            (member,) = members
            decoded = [DecodedMember(member, _raw_values(unit.payload, member), "float32")]
    else:
        payload = _Payload(unit, histories or {}, threads, keep_levels)
        decoded = [payload.next_tensor(member) for member in members]
        payload.finish()
    if declared is None:
        return decoded
    with located(unit):
        return [_as_declared(member, declared) for member in decoded]


def _as_declared(decoded: DecodedMember, dtype: str) -> DecodedMember:
    """Return a tensor with values of the dtype that its header declares.

    Raises
    ------
    PayloadError
        If an integer does not fit it.
    """
    value = cast(decoded.value, dtype)
    if not is_float(dtype) and not np.array_equal(value, decoded.value):
        raise PayloadError(
            f"tensor {decoded.member.name!r} has integers from {decoded.value.min()} to "
            f"{decoded.value.max()}, which {dtype} does not hold"
        )
    return replace(decoded, held=value, dtype=dtype)


class _Payload:
    """The arithmetic-coded payload of a unit, tensor by tensor."""

    def __init__(
        self, unit: Unit, histories: Mapping[str, TensorHistory], threads: int, keep_levels: bool
    ) -> None:
        self._unit = unit
        self._header: NnrCompressedDataUnitHeader = unit.body
        self._context: StreamContext = unit.context
        self._histories = histories
        self._threads = threads
        self._keep_levels = keep_levels
        with located(unit):
            self._decoder = PayloadDecoder(unit.payload)

    def next_tensor(self, member: Member) -> DecodedMember:
        """Decode the next tensor."""
        payload_type = self._header.nnr_compressed_data_unit_payload_type
        with located(self._unit, self._decoder):
            if member.codebook is not None and self._header.dq_flag:
                raise UnsupportedFeatureError(
                    f"tensor {member.name!r} has a codebook and dependent quantization",
                    feature="codebook with dq_flag 1",
                )
            if payload_type == NnrCompressedDataUnitPayloadType.NNR_PT_INT:
                levels = self._levels(member)
                kept = levels.copy() if self._keep_levels else None
                return DecodedMember(member, levels, "int32", kept)
            step = self._step_size(member)
            levels = self._levels(member)
            kept = None
            if member.codebook is not None:
                kept, values = levels, _codebook_values(levels, member.codebook, step)
            else:
                if self._keep_levels:
                    kept = levels.copy()
                values = dequantize_in_place(levels, step)
            return DecodedMember(
                member, values, values.dtype.name, kept if self._keep_levels else None
            )

    def finish(self) -> None:
        """Check that the payload ends."""
        with located(self._unit, self._decoder):
            self._decoder.finish()

    def _step_size(self, member: Member) -> float:
        """Decode the qp of a tensor; return the step size it stands for."""
        context = self._context
        if not context.quantization_method_flags & 3:
            raise SyntaxElementError(
                f"tensor {member.name!r} is quantized, but mps_quantization_method_flags are 0, so "
                "there is no mps_qp_density"
            )
        qp = context.quantization_parameter + self._decoder.qp_offset(context.qp_density)
        try:
            return step_size(qp, context.qp_density)
        except ConfigError as error:
            raise SyntaxElementError(f"tensor {member.name!r}: {error}") from None

    def _levels(self, member: Member) -> np.ndarray:
        """Decode the levels of a tensor, in its shape and in memory of its own."""
        history = self._histories.get(member.name)
        if self._header.temporal_context_modeling_flag:
            _check_parent(self._header, member, history)
        if history is not None and history.levels.shape != member.shape:
            raise SyntaxElementError(
                f"tensor {member.name!r} has dimensions {list(member.shape)}, and had "
                f"{list(history.levels.shape)} in the update before"
            )
        syntax = level_syntax_of(self._header, self._context, member, history)
        points = entry_points_of(self._header, member, syntax)
        missing = history is None and self._header.put_node_depth > 1
        try:
            levels, parameters = self._decoder.levels(syntax, points, self._threads)
        except PayloadError as error:
            if missing and self._header.parent_node_id_present_flag:
                raise PayloadError(f"{error.message}; {_needs_updates(member)}") from None
            raise
        if missing and parameters.hist_dep_sig_prob_enabled_flag:
            raise UnitOrderError(_needs_updates(member))
        return levels.reshape(member.shape)


def _check_parent(
    header: NnrCompressedDataUnitHeader, member: Member, history: TensorHistory | None
) -> None:
    """Refuse an update unless it builds on the update that came before it."""
    if header.parent_node_id_type != ParentNodeIdType.ICNN_NDU_ID:
        raise UnsupportedFeatureError(
            f"tensor {member.name!r} names the update it builds on by a digest",
            feature="parent_node_id_type",
        )
    if history is None:
        raise UnitOrderError(_needs_updates(member))
    expected = {
        "device_id": history.device_id,
        "parent_device_id": history.device_id,
        "parameter_id": history.parameter_id,
        "put_node_depth": history.put_node_depth + 1,
    }
    for element, value in expected.items():
        if getattr(header, element) != value:
            raise UnitOrderError(
                f"tensor {member.name!r} has {element} {getattr(header, element)}, but to follow "
                f"the update before it must have {value}: an update is missing, or not in its "
                "place"
            )


def _needs_updates(member: Member) -> str:
    return (
        f"tensor {member.name!r} builds on earlier updates, which were not decoded here: decode "
        "the base model and all updates in their order (nnrcodec.UpdateDecoder, or nnr-decode "
        "BASE UPDATE ...)"
    )


def _raw_values(payload: bytes | memoryview, member: Member) -> np.ndarray:
    expected = 4 * member.size
    if len(payload) != expected:
        raise PayloadError(
            f"{len(payload)} bytes of raw values, expected {expected} for tensor {member.name!r} "
            f"with dimensions {list(member.shape)}"
        )
    return from_little_endian(memoryview(payload), "float32", member.shape)


def _codebook_values(levels: np.ndarray, codebook: Codebook, step: float) -> np.ndarray:
    """Return the values that indices into a codebook, 0 for its centre, stand for."""
    bounds = np.iinfo(np.int32)
    entries = codebook.entries()
    if entries[0] < bounds.min or entries[-1] > bounds.max:
        raise SyntaxElementError(
            f"the codebook goes from {entries[0]} to {entries[-1]}, which 32 bits cannot hold"
        )
    lowest = -codebook.cb_zero_offset
    highest = lowest + codebook.codebook_size - 1
    if int(levels.min()) < lowest or int(levels.max()) > highest:
        raise PayloadError(
            f"indices from {levels.min()} to {levels.max()}, the codebook has {lowest} to {highest}"
        )
    table = values_of_levels(np.array(entries), step)
    flat = levels.reshape(-1)
    values = np.empty(flat.size, np.float64)
    for start in range(0, flat.size, CHUNK):
        chunk = slice(start, start + CHUNK)
        values[chunk] = table[flat[chunk] - lowest]
    return values.reshape(levels.shape)
