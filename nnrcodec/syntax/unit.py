"""Units: their sizes and headers, the table of unit types, and their order in a stream.

`read_units` splits a stream into units and `write_units` writes them. Payloads of data units, and
whole units whose type is not in the table, stay bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nnrcodec.errors import (
    LimitExceededError,
    SyntaxElementError,
    TruncatedBitstreamError,
    UnitOrderError,
)
from nnrcodec.limits import Limits
from nnrcodec.syntax.bitio import BitReader, BitWriter
from nnrcodec.syntax.clauses import clause
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.data_unit import NnrCompressedDataUnitHeader, nnr_compressed_data_unit_header
from nnrcodec.syntax.drivers import Syntax, SyntaxReader, SyntaxWriter
from nnrcodec.syntax.extended_data_unit import ExtendedDataUnit, extended_data_unit
from nnrcodec.syntax.parameter_sets import (
    NnrLayerParameterSet,
    NnrModelParameterSet,
    NnrStartUnit,
    nnr_layer_parameter_set_unit_header,
    nnr_layer_parameter_set_unit_payload,
    nnr_model_parameter_set_unit_payload,
    nnr_start_unit_header,
)
from nnrcodec.syntax.topology import (
    NnrQuantizationUnit,
    NnrTopologyUnit,
    nnr_quantization_unit_header,
    nnr_quantization_unit_payload,
    nnr_topology_unit_header,
    nnr_topology_unit_payload,
)
from nnrcodec.syntax.trace import TraceEvent, TraceSink


@dataclass(slots=True)
class NnrUnitHeader:
    """Size and common header of a unit; writing computes nnr_unit_size.

    A nnr_unit_size_flag of 1 is kept even if the unit is short enough for 0.
    """

    nnr_unit_size_flag: int = 0
    nnr_unit_size: int = 0
    nnr_unit_type: int = NnrUnitType.NNR_STR
    independently_decodable_flag: int = 1
    partial_data_counter_present_flag: int = 0
    partial_data_counter: int = 0


@clause("nnr_unit_size( )")
def nnr_unit_size(s: Syntax, h: NnrUnitHeader, ctx: StreamContext) -> None:
    """Code the number of bytes of the whole unit, including this size."""
    s.flag(h, "nnr_unit_size_flag")
    if h.nnr_unit_size_flag:
        s.u(h, "nnr_unit_size", 31, low=5)
    else:
        s.u(h, "nnr_unit_size", 15, low=3)


@clause("nnr_unit_header( )")
def nnr_unit_header(s: Syntax, h: NnrUnitHeader, ctx: StreamContext) -> None:
    """Code the elements that all units have; the header of the unit type follows."""
    s.u(h, "nnr_unit_type", 6, enum=NnrUnitType)
    s.flag(h, "independently_decodable_flag")
    s.flag(h, "partial_data_counter_present_flag")
    if h.partial_data_counter_present_flag:
        s.u(h, "partial_data_counter", 8)


@dataclass(slots=True)
class OpaqueUnit:
    """A unit of unknown type; all of it is payload."""


@dataclass(frozen=True, slots=True)
class UnitSyntax:
    """The syntax of a unit type.

    Parameters
    ----------
    record : type
        Record of its elements.
    tables : tuple of callable
        The syntax functions that list the elements of the record, in order.
    has_payload : bool
        Whether a payload follows that is not made of syntax elements.
    needs_mps : bool
        Whether an NNR_MPS must precede it.
    """

    record: type[Any]
    tables: tuple[Callable[[Any, Any, Any], None], ...] = ()
    has_payload: bool = False
    needs_mps: bool = True


UNIT_SYNTAX: dict[int, UnitSyntax] = {
    NnrUnitType.NNR_STR: UnitSyntax(NnrStartUnit, (nnr_start_unit_header,), needs_mps=False),
    NnrUnitType.NNR_MPS: UnitSyntax(
        NnrModelParameterSet, (nnr_model_parameter_set_unit_payload,), needs_mps=False
    ),
    NnrUnitType.NNR_LPS: UnitSyntax(
        NnrLayerParameterSet,
        (nnr_layer_parameter_set_unit_header, nnr_layer_parameter_set_unit_payload),
    ),
    NnrUnitType.NNR_TPL: UnitSyntax(
        NnrTopologyUnit, (nnr_topology_unit_header, nnr_topology_unit_payload)
    ),
    NnrUnitType.NNR_QNT: UnitSyntax(
        NnrQuantizationUnit, (nnr_quantization_unit_header, nnr_quantization_unit_payload)
    ),
    NnrUnitType.NNR_NDU: UnitSyntax(
        NnrCompressedDataUnitHeader, (nnr_compressed_data_unit_header,), has_payload=True
    ),
    NnrUnitType.NNR_XDU: UnitSyntax(ExtendedDataUnit, (extended_data_unit,), has_payload=True),
}
"""The unit types that are parsed. All others, such as NNR_AGG, are `OPAQUE`."""

OPAQUE = UnitSyntax(OpaqueUnit, has_payload=True, needs_mps=False)

LONGEST_SHORT_UNIT = 0x7FFF


@dataclass(slots=True)
class Unit:
    """One unit of a stream.

    Parameters
    ----------
    header : NnrUnitHeader
        Size, type and flags.
    body : record
        The record of its type, as in `UNIT_SYNTAX`; `OpaqueUnit` for an unknown type.
    payload : bytes or memoryview
        What follows the elements; a slice of the stream if it was read.
    index : int
        Number of the unit in the stream.
    bit_offset, payload_bit_offset : int
        Where the unit and its payload start.
    context : StreamContext
        Values of earlier units.
    """

    header: NnrUnitHeader
    body: Any
    payload: bytes | memoryview = b""
    index: int = field(default=0, compare=False)
    bit_offset: int = field(default=0, compare=False)
    payload_bit_offset: int = field(default=0, compare=False)
    context: StreamContext = field(default_factory=StreamContext, compare=False, repr=False)

    @property
    def path(self) -> str:
        """Name of the unit in traces and errors, such as ``unit[3] NNR_NDU``."""
        unit_type = self.header.nnr_unit_type
        known = unit_type in NnrUnitType.__members__.values()
        return f"unit[{self.index}] {NnrUnitType(unit_type).name if known else unit_type}"


def read_units(
    data: bytes | bytearray | memoryview,
    limits: Limits | None = None,
    trace: TraceSink | None = None,
    unit_syntax: Mapping[int, UnitSyntax] = UNIT_SYNTAX,
) -> Iterator[Unit]:
    """Yield the units of a stream.

    Parameters
    ----------
    data : bytes or memoryview
        The stream.
    limits : Limits, optional
        Limits of the decoder.
    trace : callable, optional
        Called with a `TraceEvent` for each element.
    unit_syntax : mapping of int to UnitSyntax
        The unit types to parse.

    Yields
    ------
    Unit
        With a payload that is a slice of `data`.

    Raises
    ------
    BitstreamError
        If the stream is invalid; the error has the bit position and the element.
    UnsupportedFeatureError
        If its profile is unknown, or a tensor has no dimensions in its data unit.
    """
    ctx = StreamContext(limits=limits or Limits())
    bits = BitReader(data)
    end = bits.end
    index = 0
    while bits.position < end:
        bits.end = end
        unit = _read_unit(bits, index, ctx, trace, unit_syntax)
        ctx = next_context(ctx, unit)
        index += 1
        yield unit
    if not ctx.mps_present:
        expected = "NNR_STR" if ctx.general_profile_idc < 0 else "NNR_MPS"
        raise UnitOrderError(f"the stream has no {expected}", bit_offset=end, path=f"unit[{index}]")


def _read_unit(
    bits: BitReader,
    index: int,
    ctx: StreamContext,
    trace: TraceSink | None,
    unit_syntax: Mapping[int, UnitSyntax],
) -> Unit:
    unit = Unit(NnrUnitHeader(), OpaqueUnit(), index=index, bit_offset=bits.position, context=ctx)
    s = SyntaxReader(bits, f"unit[{index}]", trace)
    if index >= ctx.limits.max_units:
        raise LimitExceededError(
            f"too many units, {ctx.limits.allowed('units')}",
            bit_offset=bits.position,
            path=s.path,
        )
    nnr_unit_size(s, unit.header, ctx)
    size = unit.header.nnr_unit_size
    if unit.bit_offset + 8 * size > bits.end:
        raise TruncatedBitstreamError(
            f"the unit declares {size} bytes, only {(bits.end - unit.bit_offset) // 8} are left",
            bit_offset=unit.bit_offset,
            path=f"{s.path}/nnr_unit_size",
        )
    bits.end = unit.bit_offset + 8 * size
    nnr_unit_header(s, unit.header, ctx)
    s.path = unit.path
    syntax = unit_syntax.get(unit.header.nnr_unit_type, OPAQUE)
    _check_order(ctx, unit, syntax)
    unit.body = syntax.record()
    s.code(unit.body, syntax.tables, ctx)
    unit.payload_bit_offset = bits.position
    if syntax.has_payload:
        unit.payload = bits.remaining_bytes()
        if trace:
            trace(_payload_event(unit, unit.payload_bit_offset))
    elif bits.bits_left:
        raise SyntaxElementError(
            f"the unit has {bits.bits_left // 8} more bytes than its syntax",
            bit_offset=bits.position,
            path=s.path,
        )
    return unit


def write_unit(
    unit: Unit,
    ctx: StreamContext,
    trace: TraceSink | None = None,
    unit_syntax: Mapping[int, UnitSyntax] = UNIT_SYNTAX,
) -> bytes:
    """Return the bytes of a unit.

    Parameters
    ----------
    unit : Unit
        The unit; its `index` and `bit_offset` are used in traces and errors only.
    ctx : StreamContext
        Values of earlier units.
    trace, unit_syntax : optional
        As in `read_units`.

    Raises
    ------
    EncodingError
        If a value does not fit its element, or an element that is not coded has a value.
    UnitOrderError
        If the unit is not allowed at this place.
    """
    syntax = unit_syntax.get(unit.header.nnr_unit_type, OPAQUE)
    _check_order(ctx, unit, syntax)
    events: list[TraceEvent] = []
    elements = SyntaxWriter(
        BitWriter(unit.bit_offset), f"unit[{unit.index}]", events.append if trace else None
    )
    nnr_unit_header(elements, unit.header, ctx)
    elements.path = unit.path
    elements.code(unit.body, syntax.tables, ctx)
    elements_bytes = elements.bits.to_bytes()

    size = 2 + len(elements_bytes) + len(unit.payload)
    long = unit.header.nnr_unit_size_flag == 1 or size > LONGEST_SHORT_UNIT
    header = replace(unit.header, nnr_unit_size_flag=int(long), nnr_unit_size=size + 2 * long)
    s = SyntaxWriter(BitWriter(unit.bit_offset), f"unit[{unit.index}]", trace)
    nnr_unit_size(s, header, ctx)
    size_bytes = s.bits.to_bytes()

    if trace:
        for event in events:
            trace(replace(event, bit_offset=event.bit_offset + 8 * len(size_bytes)))
        if syntax.has_payload:
            start = elements.bits.position + 8 * len(size_bytes)
            trace(_payload_event(unit, start))
    return b"".join((size_bytes, elements_bytes, unit.payload))


def write_units(
    units: Iterable[Unit],
    limits: Limits | None = None,
    trace: TraceSink | None = None,
    unit_syntax: Mapping[int, UnitSyntax] = UNIT_SYNTAX,
) -> Iterator[bytes]:
    """Yield the bytes of each unit of a stream; the units need no index, offset or context.

    Parameters
    ----------
    units : iterable of Unit
        The units, in order.
    limits, trace, unit_syntax : optional
        As in `read_units`.

    Raises
    ------
    EncodingError, UnitOrderError
        As in `write_unit`.
    """
    ctx = StreamContext(limits=limits or Limits())
    position = 0
    for index, unit in enumerate(units):
        numbered = replace(unit, index=index, bit_offset=position)
        data = write_unit(numbered, ctx, trace, unit_syntax)
        ctx = next_context(ctx, unit)
        position += 8 * len(data)
        yield data


def next_context(ctx: StreamContext, unit: Unit) -> StreamContext:
    """Return the context after a unit."""
    body = unit.body
    if isinstance(body, NnrStartUnit):
        return replace(ctx, general_profile_idc=body.general_profile_idc)
    if isinstance(body, NnrModelParameterSet):
        return replace(
            ctx,
            mps_present=True,
            mps_topology_indexed_reference_flag=body.mps_topology_indexed_reference_flag,
            mps_parent_signalling_enabled_flag=body.mps_parent_signalling_enabled_flag,
            quantization_method_flags=body.mps_quantization_method_flags,
            qp_density=body.mps_qp_density,
            quantization_parameter=body.mps_quantization_parameter,
        )
    if isinstance(body, NnrLayerParameterSet) and body.lps_quantization_method_flags & 3:
        return replace(
            ctx,
            quantization_method_flags=body.lps_quantization_method_flags,
            qp_density=body.lps_qp_density,
            quantization_parameter=body.lps_quantization_parameter,
        )
    return ctx


def _check_order(ctx: StreamContext, unit: Unit, syntax: UnitSyntax) -> None:
    """Raise if a unit is not allowed at its place in the stream."""
    unit_type = unit.header.nnr_unit_type
    started = ctx.general_profile_idc >= 0
    if not started and unit_type != NnrUnitType.NNR_STR:
        problem = "the stream must start with NNR_STR"
    elif started and unit_type == NnrUnitType.NNR_STR:
        problem = "there is only one NNR_STR in a stream"
    elif ctx.mps_present and unit_type == NnrUnitType.NNR_MPS:
        problem = "there is only one NNR_MPS in a stream"
    elif syntax.needs_mps and not ctx.mps_present:
        problem = "NNR_MPS must precede this unit"
    else:
        return
    raise UnitOrderError(problem, bit_offset=unit.bit_offset, path=unit.path)


def _payload_event(unit: Unit, start: int) -> TraceEvent:
    return TraceEvent(start, 8 * len(unit.payload), f"{unit.path}/payload", "payload", None)
