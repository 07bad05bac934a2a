"""What is inside a stream, without decoding its payloads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from nnrcodec.container.record import Measurement, Record, TensorEntry
from nnrcodec.container.stream import Stream, read_stream
from nnrcodec.entropy.cabac.plain import PlainDecoder
from nnrcodec.entropy.lossless.model import Difference
from nnrcodec.errors import ConfigError, SyntaxElementError, UnsupportedFeatureError
from nnrcodec.limits import Limits
from nnrcodec.model.dtypes import item_bytes
from nnrcodec.model.model import Factors, SchemeName
from nnrcodec.model.source import LeftOut, left_out_in
from nnrcodec.quant.step_size import step_size
from nnrcodec.syntax.constants import NnrCompressedDataUnitPayloadType, NnrUnitType
from nnrcodec.syntax.data_unit import NnrCompressedDataUnitHeader
from nnrcodec.syntax.extended_data_unit import Coding
from nnrcodec.syntax.parameter_sets import NnrModelParameterSet
from nnrcodec.syntax.trace import TraceSink
from nnrcodec.syntax.unit import Unit
from nnrcodec.units.located import located
from nnrcodec.units.ndu import declared_dtype, members_of
from nnrcodec.units.xdu import decoded_dtype, tensor_qp

_CHANGES = {Difference.XOR: "xor", Difference.INTEGER: "difference", Difference.NEW: "new"}
"""What an update of bit patterns has."""

_BYTES_OF_QP = 4
"""Payload bytes that hold the qp of the first tensor, whatever the density."""


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
        Dimensions, where the header has them and the unit holds one tensor.
    dtype : str or None
        What it decodes to; of a block the weight.
    coder : str
        ``ans``, ``lossless`` or ``raw`` in our units, ``cabac`` or ``raw`` in those of the
        standard.
    qp : int or None
        Quantization parameter of a lone tensor that has one.
    step_size : float or None
        What it stands for.
    rank : int or None
        For a factor of a decomposed layer, the number of channels between the two.
    unit_bytes : int
        Bytes of the whole unit, headers included.
    coding : str or None
        What the levels are: ``integer`` (the values themselves), ``uniform`` multiples of the step
        size, ``dependent`` ones, or indices into a ``codebook``; of a block those of the weight.
        None for raw values, and for bit patterns that are coded without loss; of an update of such
        ``xor``, ``difference`` or ``new``.
    shapes : tuple of tuple of int, or None
        Dimensions of each of `names`, where they are known.
    scheme : "separable", "channel", "linear" or None
        For a factor of a decomposed layer, how it was decomposed.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...] | None
    dtype: str | None
    coder: str
    qp: int | None
    step_size: float | None
    rank: int | None
    unit_bytes: int
    coding: str | None = None
    shapes: tuple[tuple[int, ...], ...] | None = None
    scheme: SchemeName | None = None

    @property
    def elements(self) -> int | None:
        """Number of elements of all its tensors."""
        shapes = (self.shape,) if self.shape is not None else self.shapes
        return None if shapes is None else sum(math.prod(shape) for shape in shapes)

    @property
    def bits_per_weight(self) -> float | None:
        """Bits of the unit for each element."""
        return 8 * self.unit_bytes / self.elements if self.elements else None


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
    is_update : bool
        Whether the tensors are differences to those of a base model.
    new, gone : tuple of str
        Of an update: tensors in it that are whole, no differences, and tensors of the base model
        that it takes out.
    measured : Measurement or None
        What coding has cost, as the encoder has measured it; None if the stream does not say.
    wrapper : str or None
        Of what kind of file the stream keeps what stood around the tensors; None if of none.
    left_out : tuple of LeftOut
        Entries of that file that were not coded.
    ties : mapping of str to str
        Tensors that are the same as another one: names.
    empty : tuple of str
        Names of tensors without elements, which have no units.
    has_short_names : bool
        Whether data units call tensors by their numbers.
    """

    stream_bytes: int
    writer: str | None
    record_bytes: int
    has_graph: bool
    qp_density: int | None
    units: tuple[UnitInfo, ...]
    tensors: tuple[TensorInfo, ...]
    is_update: bool = False
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    measured: Measurement | None = None
    wrapper: str | None = None
    left_out: tuple[LeftOut, ...] = ()
    ties: Mapping[str, str] = field(default_factory=dict)
    empty: tuple[str, ...] = ()
    has_short_names: bool = False


def inspect(
    data: bytes,
    *,
    limits: Limits | None = None,
    trace: TraceSink | None = None,
    require_record: bool = False,
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
    require_record : bool
        Refuse a stream without a container record, which all streams of this package have.

    Returns
    -------
    StreamInfo

    Raises
    ------
    BitstreamError, UnsupportedFeatureError
        If a header is damaged or of a newer version.
    """
    stream = read_stream(data, limits, trace, require_record=require_record)
    record = stream.record
    entries = record.tensors if record else ()
    wrapper = record.wrapper if record else None
    return StreamInfo(
        stream_bytes=len(data),
        writer=record.writer if record else None,
        record_bytes=sum(unit.header.nnr_unit_size for unit in stream.record_units),
        has_graph=record is not None and record.graph is not None,
        qp_density=_qp_density(stream),
        units=tuple(_unit_info(unit) for unit in stream.units),
        tensors=tuple(_tensors(stream, record)),
        is_update=_parameter_set(stream).mps_parent_signalling_enabled_flag == 1,
        new=tuple(record.turnover.new) if record else (),
        gone=record.turnover.gone if record else (),
        measured=record.measured if record else None,
        wrapper=wrapper.kind if wrapper else None,
        left_out=left_out_in(wrapper),
        ties={e.name: e.tied_to for e in entries if e.tied_to is not None},
        empty=tuple(e.name for e in entries if e.empty_shape is not None),
        has_short_names=record is not None and record.has_short_names,
    )


def _unit_info(unit: Unit) -> UnitInfo:
    return UnitInfo(unit.path.partition(" ")[2], unit.bit_offset, unit.header.nnr_unit_size)


def _parameter_set(stream: Stream) -> NnrModelParameterSet:
    (unit,) = stream.of_type(NnrUnitType.NNR_MPS)
    parameter_set: NnrModelParameterSet = unit.body
    return parameter_set


def _qp_density(stream: Stream) -> int | None:
    parameter_set = _parameter_set(stream)
    return parameter_set.mps_qp_density if parameter_set.mps_quantization_method_flags else None


def _tensors(stream: Stream, record: Record | None) -> list[TensorInfo]:
    entries = {e.unit_name: e for e in record.tensors if e.has_unit} if record else {}
    factors = {n: f for f in record.factors for n in (f.u, f.v)} if record else {}
    tensors = []
    for unit in stream.units:
        if unit.header.nnr_unit_type == NnrUnitType.NNR_XDU:
            with located(unit):
                tensors.append(_extended(unit, entries.get(unit.body.topology_elem_id), factors))
        elif unit.header.nnr_unit_type == NnrUnitType.NNR_NDU:
            with located(unit):
                tensors.append(_standard(unit, entries, factors))
    return tensors


def _extended(unit: Unit, entry: TensorEntry | None, factors: Mapping[str, Factors]) -> TensorInfo:
    body, context = unit.body, unit.context
    factor = factors.get(body.topology_elem_id)
    shape = tuple(body.tensor_dimensions)
    if entry is not None:
        shape = _without_words(shape, entry)
    qp, coding = None, None if body.level_model is None else "integer"
    if body.lossless_model is not None:
        coding = _CHANGES.get(body.lossless_model.difference_form)
    if body.quantized_flag:
        qp, coding = tensor_qp(body, context.quantization_parameter, context.qp_density), "uniform"
    return TensorInfo(
        names=(entry.name if entry else body.topology_elem_id,),
        shape=shape,
        dtype=entry.dtype if entry else decoded_dtype(body),
        coder=Coding(body.xdu_coding).name.lower(),
        qp=qp,
        step_size=None if qp is None else step_size(qp, context.qp_density),
        rank=factor.rank if factor else None,
        unit_bytes=unit.header.nnr_unit_size,
        coding=coding,
        shapes=(shape,),
        scheme=factor.scheme if factor else None,
    )


def _standard(
    unit: Unit, entries: Mapping[str, TensorEntry], factors: Mapping[str, Factors]
) -> TensorInfo:
    header: NnrCompressedDataUnitHeader = unit.body
    payload_type = header.nnr_compressed_data_unit_payload_type
    raw = payload_type == NnrCompressedDataUnitPayloadType.NNR_PT_RAW_FLOAT
    names, dtype, factor = _names(header), None, None
    shapes: tuple[tuple[int, ...], ...] | None = None
    try:
        members = {member.name: member for member in members_of(header)}
        declared_dtype(header)
    except UnsupportedFeatureError:  # decoding it fails; what can be said is said
        members = {}
    if members:
        listed = [entries.get(name) for name in names]
        shapes = tuple(
            members[name].shape if entry is None else _without_words(members[name].shape, entry)
            for name, entry in zip(names, listed, strict=True)
        )
        dtype = listed[0].dtype if listed[0] else _dtype(header)
        names = tuple(entry.name if entry else n for n, entry in zip(names, listed, strict=True))
        factor = factors.get(names[0])
    lone = shapes is not None and len(shapes) == 1
    qp = _first_qp(unit) if lone else None
    return TensorInfo(
        names=names,
        shape=shapes[0] if shapes and lone else None,
        dtype=dtype,
        coder="raw" if raw else "cabac",
        qp=qp,
        step_size=None if qp is None else _step_size(qp, unit),
        rank=factor.rank if factor else None,
        unit_bytes=unit.header.nnr_unit_size,
        coding=None if raw else _coding(header),
        shapes=shapes,
        scheme=factor.scheme if factor else None,
    )


def _without_words(shape: tuple[int, ...], entry: TensorEntry) -> tuple[int, ...]:
    """Return the shape of a tensor, given that of its unit."""
    if entry.scalar:
        return ()
    return shape[:-1] if entry.is_pattern and item_bytes(entry.dtype) > 4 else shape


def _dtype(header: NnrCompressedDataUnitHeader) -> str:
    """Return what the weight of a unit decodes to."""
    declared = declared_dtype(header)
    if declared is not None:
        return declared
    payload_type = header.nnr_compressed_data_unit_payload_type
    if payload_type == NnrCompressedDataUnitPayloadType.NNR_PT_INT:
        return "int32"
    return "float64" if header.codebook_present_flag else "float32"


def _coding(header: NnrCompressedDataUnitHeader) -> str:
    payload_type = header.nnr_compressed_data_unit_payload_type
    if payload_type == NnrCompressedDataUnitPayloadType.NNR_PT_INT:
        return "integer"
    if header.codebook_present_flag:
        return "codebook"
    return "dependent" if header.dq_flag else "uniform"


def _first_qp(unit: Unit) -> int | None:
    """Return the qp at the start of a payload, None if there is none."""
    payload_type = unit.body.nnr_compressed_data_unit_payload_type
    context = unit.context
    if (
        payload_type != NnrCompressedDataUnitPayloadType.NNR_PT_FLOAT
        or not context.quantization_method_flags & 3
    ):
        return None
    decoder = PlainDecoder(unit.payload[:_BYTES_OF_QP])
    return context.quantization_parameter + decoder.qp_offset(context.qp_density)


def _step_size(qp: int, unit: Unit) -> float:
    try:
        return step_size(qp, unit.context.qp_density)
    except ConfigError as error:
        raise SyntaxElementError(str(error)) from None


def _names(body: NnrCompressedDataUnitHeader) -> tuple[str, ...]:
    """Return the names in a data unit, or the indices that stand for them."""
    ids = body.topology_elements_ids_list
    if ids is not None:
        indices = tuple(f"#{index}" for index in ids.topology_elem_id_index_list)
        return tuple(ids.topology_elem_id_list) or indices
    if body.topology_elem_id is not None:
        return (body.topology_elem_id,)
    return (f"#{body.topology_elem_id_index}",)
