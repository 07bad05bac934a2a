"""What is inside a stream, without decoding its payloads."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nnrcodec.limits import Limits
from nnrcodec.quant.step_size import step_size
from nnrcodec.record import Record, TensorEntry
from nnrcodec.stream import Stream, placed, read_stream
from nnrcodec.syntax.constants import NnrCompressedDataUnitPayloadType, NnrUnitType
from nnrcodec.syntax.data_unit import NnrCompressedDataUnitHeader
from nnrcodec.syntax.extended_data_unit import Coding
from nnrcodec.syntax.trace import TraceSink
from nnrcodec.syntax.unit import Unit
from nnrcodec.tensor_coding import decoded_dtype, tensor_qp


@dataclass(frozen=True, slots=True)
class UnitInfo:
    """A unit of a stream.

    Parameters
    ----------
    name : str
        Name of its nnr_unit_type; the number where there is none.
    bit_offset : int
        Where it starts.
    unit_bytes : int
        Its size.
    """

    name: str
    bit_offset: int
    unit_bytes: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a data unit holds: a tensor, or a block of tensors.

    Parameters
    ----------
    names : tuple of str
        Its name; those of all its tensors for a block.
    shape : tuple of int or None
        Dimensions, where the header has them for all that the unit holds.
    dtype : str or None
        What it decodes to, where the stream says so.
    coder : str
        ``ans`` or ``raw`` in our units, ``cabac`` or ``raw`` in those of the standard.
    qp : int or None
        Quantization parameter, where the header has it.
    step_size : float or None
        What it stands for.
    rank : int or None
        For a factor of a decomposed layer, the number of channels between the two.
    unit_bytes : int
        Bytes of the whole unit, headers included.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...] | None
    dtype: str | None
    coder: str
    qp: int | None
    step_size: float | None
    rank: int | None
    unit_bytes: int

    @property
    def bits_per_weight(self) -> float | None:
        """Bits of the unit for each element."""
        elements = math.prod(self.shape or (0,)) if self.shape != () else 1
        return 8 * self.unit_bytes / elements if elements else None


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a stream holds.

    Parameters
    ----------
    stream_bytes : int
        Its size.
    writer : str or None
        Software that wrote it, from the container record.
    record_bytes : int
        Size of the unit of the container record, 0 if there is none.
    has_graph : bool
        Whether it decodes to a network that runs.
    qp_density : int or None
        Logarithm of the steps of qp per octave, where the stream has quantized tensors.
    units : tuple of UnitInfo
        All units, in order.
    tensors : tuple of TensorInfo
        What the data units hold, in order.
    """

    stream_bytes: int
    writer: str | None
    record_bytes: int
    has_graph: bool
    qp_density: int | None
    units: tuple[UnitInfo, ...]
    tensors: tuple[TensorInfo, ...]


def inspect(
    data: bytes, *, limits: Limits | None = None, trace: TraceSink | None = None
) -> StreamInfo:
    """Look into a stream without decoding its payloads.

    Parameters
    ----------
    data : bytes
        Any stream of ISO/IEC 15938-17.
    limits : Limits, optional
        What to accept.
    trace : callable, optional
        Takes an event for each syntax element, with its position, name and value.

    Returns
    -------
    StreamInfo

    Raises
    ------
    BitstreamError, UnsupportedFeatureError
        If a header is damaged or of a newer version.
    """
    stream = read_stream(data, limits, trace)
    record = stream.record
    return StreamInfo(
        stream_bytes=len(data),
        writer=record.writer if record else None,
        record_bytes=stream.record_unit.header.nnr_unit_size if stream.record_unit else 0,
        has_graph=record is not None and record.graph is not None,
        qp_density=_qp_density(stream),
        units=tuple(_unit_info(unit) for unit in stream.units),
        tensors=tuple(_tensors(stream, record)),
    )


def _unit_info(unit: Unit) -> UnitInfo:
    return UnitInfo(unit.path.partition(" ")[2], unit.bit_offset, unit.header.nnr_unit_size)


def _qp_density(stream: Stream) -> int | None:
    (parameters,) = stream.of_type(NnrUnitType.NNR_MPS)
    return parameters.body.mps_qp_density if parameters.body.mps_quantization_method_flags else None


def _tensors(stream: Stream, record: Record | None) -> list[TensorInfo]:
    entries = {entry.name: entry for entry in record.tensors} if record else {}
    ranks = {n: f.rank for f in record.factors for n in (f.u, f.v)} if record else {}
    found = []
    for unit in stream.units:
        if unit.header.nnr_unit_type == NnrUnitType.NNR_XDU:
            with placed(unit):
                found.append(_extended(unit, entries.get(unit.body.topology_elem_id), ranks))
        elif unit.header.nnr_unit_type == NnrUnitType.NNR_NDU:
            found.append(_standard(unit))
    return found


def _extended(unit: Unit, entry: TensorEntry | None, ranks: dict[str, int]) -> TensorInfo:
    body, context = unit.body, unit.context
    qp = None
    if body.quantized_flag:
        qp = tensor_qp(body, context.quantization_parameter, context.qp_density)
    return TensorInfo(
        names=(body.topology_elem_id,),
        shape=tuple(body.tensor_dimensions),
        dtype=entry.dtype if entry else decoded_dtype(body),
        coder=Coding(body.xdu_coding).name.lower(),
        qp=qp,
        step_size=None if qp is None else step_size(qp, context.qp_density),
        rank=ranks.get(body.topology_elem_id),
        unit_bytes=unit.header.nnr_unit_size,
    )


def _standard(unit: Unit) -> TensorInfo:
    body = unit.body
    payload_type = body.nnr_compressed_data_unit_payload_type
    names = _names(body)
    raw = payload_type == NnrCompressedDataUnitPayloadType.NNR_PT_RAW_FLOAT
    return TensorInfo(
        names=names,
        shape=tuple(body.tensor_dimensions) if len(names) == 1 else None,
        dtype=None,
        coder="raw" if raw else "cabac",
        qp=None,
        step_size=None,
        rank=None,
        unit_bytes=unit.header.nnr_unit_size,
    )


def _names(body: NnrCompressedDataUnitHeader) -> tuple[str, ...]:
    """Return the names in a data unit, or the indices that stand for them."""
    ids = body.topology_elements_ids_list
    if ids is not None:
        indices = tuple(f"#{index}" for index in ids.topology_elem_id_index_list)
        return tuple(ids.topology_elem_id_list) or indices
    if body.topology_elem_id is not None:
        return (body.topology_elem_id,)
    return (f"#{body.topology_elem_id_index}",)
