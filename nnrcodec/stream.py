"""A whole stream as units: what an encoder writes and what a decoder finds.

Owns which units our streams have, and in which order; what becomes of the payloads is
`nnrcodec.tensor_coding` and `nnrcodec.ndu_encoding`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from nnrcodec.errors import BitstreamError, UnitOrderError, UnsupportedFeatureError
from nnrcodec.limits import Limits
from nnrcodec.record import Record, is_record, record_from_bytes
from nnrcodec.syntax.constants import NnrUnitType, QuantizationMethodFlags
from nnrcodec.syntax.parameter_sets import NnrModelParameterSet, NnrStartUnit
from nnrcodec.syntax.topology import NnrTopologyUnit
from nnrcodec.syntax.trace import TraceSink
from nnrcodec.syntax.unit import NnrUnitHeader, Unit, read_units, write_units

RECORD_STORAGE_FORMAT = 128
"""topology_storage_format of the container record, the first of the private ones."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The units of a stream, payloads not yet decoded.

    Parameters
    ----------
    units : tuple of Unit
        All of them, in order.
    record : Record or None
        The container record; None in a stream of other software.
    record_unit : Unit or None
        The unit that holds it.
    """

    units: tuple[Unit, ...]
    record: Record | None
    record_unit: Unit | None

    def of_type(self, unit_type: NnrUnitType) -> list[Unit]:
        """Return the units of one type."""
        return [unit for unit in self.units if unit.header.nnr_unit_type == unit_type]


def write_stream(
    record: bytes, qp_density: int, units: Sequence[Unit], *, parent_signalling: bool = False
) -> bytes:
    """Return a stream.

    Parameters
    ----------
    record : bytes
        The container record.
    qp_density : int
        Of all tensors.
    units : sequence of Unit
        The data units in their order.
    parent_signalling : bool
        Whether they are differences to what an earlier stream left.
    """
    methods = QuantizationMethodFlags.NNR_QSU
    if any(getattr(unit.body, "codebook_present_flag", 0) for unit in units):
        methods |= QuantizationMethodFlags.NNR_QCB
    parameters = NnrModelParameterSet(
        topology_carriage_flag=1,
        mps_quantization_method_flags=methods,
        mps_parent_signalling_enabled_flag=int(parent_signalling),
        mps_qp_density=qp_density,
    )
    topology = NnrTopologyUnit(topology_storage_format=RECORD_STORAGE_FORMAT, topology_data=record)
    start = [
        _unit(NnrUnitType.NNR_STR, NnrStartUnit(general_profile_idc=1)),
        _unit(NnrUnitType.NNR_MPS, parameters),
        _unit(NnrUnitType.NNR_TPL, topology),
    ]
    return b"".join(write_units([*start, *units]))


def read_stream(
    data: bytes | memoryview, limits: Limits | None = None, trace: TraceSink | None = None
) -> Stream:
    """Read the units of a stream and its container record.

    Parameters
    ----------
    data : bytes or memoryview
        The stream.
    limits : Limits, optional
        What to accept.
    trace : callable, optional
        Takes a `nnrcodec.syntax.trace.TraceEvent` for each syntax element.

    Raises
    ------
    BitstreamError, UnsupportedFeatureError
        As `nnrcodec.syntax.unit.read_units` and `nnrcodec.record.record_from_bytes`.
    """
    units = tuple(read_units(data, limits, trace))
    records = [unit for unit in units if _holds_record(unit)]
    if len(records) > 1:
        raise UnitOrderError(
            "a second container record", bit_offset=records[1].bit_offset, path=records[1].path
        )
    if not records:
        return Stream(units, None, None)
    (unit,) = records
    return Stream(units, record_from_bytes(unit.body.topology_data, limits), unit)


@contextmanager
def placed(unit: Unit) -> Iterator[None]:
    """Say in errors about the tensor of a data unit which unit they come from."""
    try:
        yield
    except (BitstreamError, UnsupportedFeatureError) as error:
        if error.path is None:
            error.path = f"{unit.path}/payload"
            error.bit_offset = unit.payload_bit_offset
        raise


def _unit(unit_type: NnrUnitType, body: object) -> Unit:
    return Unit(NnrUnitHeader(nnr_unit_type=unit_type), body)


def _holds_record(unit: Unit) -> bool:
    body = unit.body
    return (
        isinstance(body, NnrTopologyUnit)
        and body.topology_storage_format == RECORD_STORAGE_FORMAT
        and is_record(body.topology_data)
    )
