"""A whole stream as units: what an encoder writes and what a decoder finds.

Owns which units our streams have, and in which order; what becomes of the payloads is
`nnrcodec.units`.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nnrcodec.container.record import Measurement, Record
from nnrcodec.container.record_text import (
    closing_to_bytes,
    damaged_record,
    head_bytes,
    is_record,
    measurement_to_bytes,
    needs_closing,
    record_from_bytes,
    record_head,
    record_to_bytes,
    was_record,
)
from nnrcodec.errors import LimitExceededError, ModelError, PayloadError, UnitOrderError
from nnrcodec.limits import Limits
from nnrcodec.syntax.constants import (
    CompressionFormat,
    NnrUnitType,
    QuantizationMethodFlags,
    TopologyStorageFormat,
)
from nnrcodec.syntax.parameter_sets import NnrModelParameterSet, NnrStartUnit
from nnrcodec.syntax.topology import NnrTopologyUnit
from nnrcodec.syntax.trace import TraceSink
from nnrcodec.syntax.unit import NnrUnitHeader, Unit, read_units, write_units
from nnrcodec.units.kinds import kind_of
from nnrcodec.units.ndu_encoding import is_raw

RECORD_STORAGE_FORMAT = 128
"""topology_storage_format of the container record, the first of the private ones."""

CLOSING_STORAGE_FORMAT = 129
"""That of the closing record."""

ONNX_STORAGE_FORMAT = 130
"""That of an ONNX graph in profile nnc: deployed decoders refuse format NNR_TPL_ONNX."""

_START = {NnrUnitType.NNR_STR, NnrUnitType.NNR_MPS}
_ONNX_FORMATS = {TopologyStorageFormat.NNR_TPL_ONNX, ONNX_STORAGE_FORMAT}
_LISTS_OF_NAMES = {TopologyStorageFormat.NNR_TPL_PRUN, TopologyStorageFormat.NNR_TPL_REFLIST}


@dataclass(frozen=True, slots=True)
class Stream:
    """The units of a stream, payloads not yet decoded.

    Parameters
    ----------
    units : tuple of Unit
        All of them, in order.
    record : Record or None
        The container record, with the ONNX graph of the stream if it has one; None in a stream of
        other software.
    record_units : tuple of Unit
        The units that hold it, its closing record included.
    """

    units: tuple[Unit, ...]
    record: Record | None = None
    record_units: tuple[Unit, ...] = ()

    def of_type(self, unit_type: NnrUnitType) -> list[Unit]:
        """Return the units of one type."""
        return [unit for unit in self.units if unit.header.nnr_unit_type == unit_type]


def write_stream(
    record: Record | None,
    qp_density: int,
    units: Iterable[Unit],
    *,
    codebooks: bool = False,
    parent_signalling: bool = False,
    standard_only: bool = False,
) -> bytes:
    """Return a stream.

    Parameters
    ----------
    record : Record or None
        The container record; None for a stream of the standard and no more.
    qp_density : int
        Of all tensors.
    units : iterable of Unit
        The data units in their order.
    codebooks : bool
        Whether some of them may have a codebook.
    parent_signalling : bool
        Whether they are differences to what an earlier stream left.
    standard_only : bool
        Whether deployed decoders of the standard are to read it.

    Raises
    ------
    ModelError
        An ONNX graph is too large.
    """
    start = stream_start(record, qp_density, codebooks, parent_signalling)
    parts = [*start, *units]
    if record is None:
        return b"".join(write_units(parts))
    end = len(parts) - is_raw(parts[-1])  # deployed decoders read nothing behind a raw unit
    parts.insert(end, _topology(CLOSING_STORAGE_FORMAT, closing_to_bytes(record)))
    if record.onnx is not None:
        parts.insert(len(start), _onnx_unit(record.onnx.proto, standard_only=standard_only))
    data = b"".join(write_units(parts))
    if record.onnx is not None:
        _check_onnx_size(len(record.onnx.proto), len(data))
    return data


def with_measurement(data: bytes, measured: Measurement) -> bytes:
    """Return a stream of `write_stream` with another measurement in its record, of the same size.

    Parameters
    ----------
    data : bytes
        The stream.
    measured : Measurement
        What coding has cost.
    """
    units = read_units(data, Limits().lifted())
    closing = next(unit for unit in units if _storage_format(unit) == CLOSING_STORAGE_FORMAT)
    text = measurement_to_bytes(measured)
    stop = closing.bit_offset // 8 + closing.header.nnr_unit_size - 1
    return data[: stop - len(text)] + text + data[stop:]


def stream_start(
    record: Record | None, qp_density: int, codebooks: bool, parent_signalling: bool
) -> list[Unit]:
    """Return the units that stand before the data units, for which no digest is needed yet.

    Parameters
    ----------
    record, qp_density, codebooks, parent_signalling
        As in `write_stream`.
    """
    methods = QuantizationMethodFlags.NNR_QSU
    if codebooks:
        methods |= QuantizationMethodFlags.NNR_QCB
    parameters = NnrModelParameterSet(
        topology_carriage_flag=int(record is not None),
        mps_quantization_method_flags=methods,
        mps_parent_signalling_enabled_flag=int(parent_signalling),
        mps_qp_density=qp_density,
    )
    start = [
        _unit(NnrUnitType.NNR_STR, NnrStartUnit(general_profile_idc=1)),
        _unit(NnrUnitType.NNR_MPS, parameters),
    ]
    if record is None:
        return start
    without_text = b"".join(
        write_units([*start, _topology(RECORD_STORAGE_FORMAT, record_head(record))])
    )
    head = head_check(without_text, [*read_units(without_text)])
    return [*start, _topology(RECORD_STORAGE_FORMAT, record_to_bytes(record, head))]


def head_check(data: bytes | memoryview, units: Sequence[Unit]) -> str:
    """Return the check of what a record relies on: of NNR_STR, NNR_MPS and its own start.

    Sizes of units are left out: with a wrong one nothing that follows is in its place.

    Parameters
    ----------
    data : bytes or memoryview
        The stream.
    units : sequence of Unit
        Its units as `read_units` returns them, one of them with a record.

    Returns
    -------
    str
        A CRC-32, as eight hexadecimal digits.
    """
    view, crc = memoryview(data), 0
    for unit in units:
        start = unit.bit_offset // 8
        stop = start + unit.header.nnr_unit_size
        if _holds_record(unit):
            topology_data = unit.body.topology_data
            stop -= len(topology_data) - head_bytes(topology_data)
        elif unit.header.nnr_unit_type not in _START:
            continue
        crc = zlib.crc32(view[start + (4 if unit.header.nnr_unit_size_flag else 2) : stop], crc)
    return f"{crc:08x}"


def read_stream(
    data: bytes | memoryview,
    limits: Limits | None = None,
    trace: TraceSink | None = None,
    *,
    require_record: bool = False,
) -> Stream:
    """Read the units of a stream and its container record.

    Parameters
    ----------
    data : bytes or memoryview
        The stream.
    limits : Limits, optional
        What to accept of a stream of any size.
    trace : callable, optional
        Takes a `nnrcodec.syntax.trace.TraceEvent` for each syntax element.
    require_record : bool
        Refuse a stream without a record.

    Raises
    ------
    UnitOrderError
        If there is no record and one is required, or there are two.
    PayloadError
        If there is something that looks like a damaged record.
    BitstreamError, UnsupportedFeatureError
        As `nnrcodec.syntax.unit.read_units` and `nnrcodec.container.record.record_from_bytes`.
    """
    limits = (limits or Limits()).for_stream(len(data))
    units = tuple(read_units(data, limits, trace))
    front = _single(unit for unit in units if _holds_record(unit))
    if front is None:
        _check_not_damaged(data, units)
        if require_record:
            raise UnitOrderError(
                "there is no container record of nnrcodec in this stream, and one is required"
            )
        return Stream(units)
    text, end = front.body.topology_data, None
    if needs_closing(text):  # with an older record units of that format are somebody else's
        end = _single(unit for unit in units if _storage_format(unit) == CLOSING_STORAGE_FORMAT)
    closing = None if end is None else end.body.topology_data
    onnx: list[Unit] = []

    def graph_of_onnx() -> bytes | None:
        onnx.extend(unit for unit in units if _storage_format(unit) in _ONNX_FORMATS)
        unit = _single(onnx, "ONNX graph")
        return None if unit is None else _onnx_graph(unit, limits)

    record = record_from_bytes(text, head_check(data, units), limits, closing, graph_of_onnx)
    return Stream(units, record, tuple(u for u in (front, end, *onnx) if u is not None))


def _unit(unit_type: NnrUnitType, body: object) -> Unit:
    return Unit(NnrUnitHeader(nnr_unit_type=unit_type), body)


def _topology(storage_format: int, data: bytes) -> Unit:
    body = NnrTopologyUnit(topology_storage_format=storage_format, topology_data=data)
    return _unit(NnrUnitType.NNR_TPL, body)


def _onnx_unit(proto: bytes, *, standard_only: bool) -> Unit:
    """Return the topology unit that holds an ONNX graph, deflated."""
    deflated = zlib.compress(proto, 9)
    if standard_only:
        return _topology(ONNX_STORAGE_FORMAT, base64.b85encode(deflated) + b"\0")
    body = NnrTopologyUnit(
        topology_storage_format=TopologyStorageFormat.NNR_TPL_ONNX,
        topology_compression_format=CompressionFormat.NNR_DFL,
        topology_data=deflated,
    )
    return _unit(NnrUnitType.NNR_TPL, body)


def _check_onnx_size(proto_bytes: int, stream_bytes: int) -> None:
    most = Limits().for_stream(stream_bytes).max_onnx_bytes
    if proto_bytes > most:
        raise ModelError(
            f"the ONNX graph has {proto_bytes} bytes without its weights; decoders accept {most} "
            f"with a stream of {stream_bytes}. Code its weights from a .safetensors file"
        )


def _onnx_graph(unit: Unit, limits: Limits) -> bytes:
    """Return the ONNX graph in a topology unit, inflated within limits."""
    data = bytes(unit.body.topology_data)
    if unit.body.topology_storage_format == ONNX_STORAGE_FORMAT:
        try:
            data = base64.b85decode(data.removesuffix(b"\0"))
        except ValueError as error:
            raise _damaged_onnx(unit, str(error)) from error
    elif unit.body.topology_compression_format == CompressionFormat.NNR_PT_RAW:
        return data
    try:
        inflater = zlib.decompressobj()
        inflated = inflater.decompress(data, limits.max_onnx_bytes)
    except zlib.error as error:
        raise _damaged_onnx(unit, str(error)) from error
    if inflater.unconsumed_tail:
        raise LimitExceededError(
            f"the ONNX graph is too long when inflated, in bytes {limits.allowed('onnx_bytes')}",
            bit_offset=unit.bit_offset,
            path=unit.path,
        )
    if not inflater.eof or inflater.unused_data:
        raise _damaged_onnx(unit, "the deflated data do not end where the unit ends")
    return inflated


def _damaged_onnx(unit: Unit, why: str) -> PayloadError:
    return PayloadError(
        f"the ONNX graph is damaged: {why}", bit_offset=unit.bit_offset, path=unit.path
    )


def _storage_format(unit: Unit) -> int | None:
    return getattr(unit.body, "topology_storage_format", None)


def _holds_record(unit: Unit) -> bool:
    return _storage_format(unit) == RECORD_STORAGE_FORMAT and is_record(unit.body.topology_data)


def _single(units: Iterable[Unit], what: str = "container record") -> Unit | None:
    """Return the only unit, None if there is none.

    Raises
    ------
    UnitOrderError
        If there are two.
    """
    only = None
    for unit in units:
        if only is not None:
            raise UnitOrderError(f"a second {what}", bit_offset=unit.bit_offset, path=unit.path)
        only = unit
    return only


def _check_not_damaged(data: bytes | memoryview, units: Sequence[Unit]) -> None:
    """Raise if one of the units of a stream without a record was one."""
    view = memoryview(data)
    for unit in units:
        start = unit.bit_offset // 8
        if was_record(
            view[start : start + unit.header.nnr_unit_size], holds_names=_holds_names(unit)
        ):
            error = damaged_record("its unit does not begin as that of a record does")
            error.bit_offset, error.path = unit.bit_offset, unit.path
            raise error


def _holds_names(unit: Unit) -> bool:
    return kind_of(unit) is not None or _storage_format(unit) in _LISTS_OF_NAMES
