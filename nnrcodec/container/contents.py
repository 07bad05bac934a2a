"""What a stream holds: its data units, and what the record says of their tensors.

Owns the rules that span several units; no payload is decoded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnrcodec.container.record import TensorEntry
from nnrcodec.container.stream import Stream
from nnrcodec.errors import UnitOrderError
from nnrcodec.model.dtypes import item_bytes
from nnrcodec.reduce.blocks import Block, block_of_parts
from nnrcodec.syntax.constants import NnrDecompressedDataFormat
from nnrcodec.syntax.extended_data_unit import FORMAT_OF_DTYPE
from nnrcodec.syntax.unit import Unit
from nnrcodec.units.kinds import UnitKind, kind_of
from nnrcodec.units.located import located
from nnrcodec.units.ndu import Member, Part

_WIDE = {f for dtype, f in FORMAT_OF_DTYPE.items() if item_bytes(dtype) == 8}
_OF_8_BYTES = {NnrDecompressedDataFormat.TENSOR_INT64, NnrDecompressedDataFormat.TENSOR_FLOAT64}


@dataclass(frozen=True, slots=True)
class Content:
    """A data unit.

    Parameters
    ----------
    unit : Unit
        The unit.
    kind : UnitKind
        What it is.
    members : tuple of Member
        The tensors in it, in the order of its payload.
    entries : tuple of (TensorEntry or None)
        What the record says of each; None without a record.
    """

    unit: Unit
    kind: UnitKind
    members: tuple[Member, ...]
    entries: tuple[TensorEntry | None, ...]

    @property
    def size(self) -> int:
        """Elements of all its tensors."""
        return sum(member.size for member in self.members)

    @property
    def decoded_bytes(self) -> int:
        """Memory that its tensors take while they are decoded, and afterwards."""
        dtypes = [entry.dtype if entry else "float32" for entry in self.entries]
        body = self.unit.body
        declared = getattr(body, "nnr_decompressed_data_format", None)
        wide = declared in _OF_8_BYTES or getattr(body, "xdu_data_format", None) in _WIDE
        return sum(
            member.size * max(item_bytes(dtype), 8 if member.codebook or wide else 4)
            for member, dtype in zip(self.members, dtypes, strict=True)
        )

    @property
    def has_entry_points(self) -> bool:
        """Whether several threads can decode one of its tensors."""
        lossless = getattr(self.unit.body, "lossless_model", None)
        return bool(
            getattr(self.unit.body, "cabac_offset_list", None)
            or (lossless is not None and lossless.count_chunks_minus1)
        )


def contents_of(stream: Stream) -> list[Content]:
    """Return the data units of a stream.

    Parameters
    ----------
    stream : Stream
        Its units and its record.

    Raises
    ------
    BitstreamError
        If they are not those of the record, or must not stand as they do.
    UnsupportedFeatureError
        If names or shapes of tensors are not in the headers.
    """
    record = stream.record
    entries = {e.unit_name: e for e in record.tensors if e.has_unit} if record else {}
    contents = []
    for unit in stream.units:
        kind = kind_of(unit)
        if kind is not None:
            with located(unit):
                members = kind.members(unit)
            recorded = tuple(entries.get(member.name) for member in members)
            contents.append(Content(unit, kind, members, recorded))
    _check_pairs(contents)
    _check_names(stream, contents)
    return contents


def blocks_of(contents: Sequence[Content]) -> tuple[Block, ...]:
    """Return which tensors stand for a weight, by their names in the model.

    Parameters
    ----------
    contents : sequence of Content
        The data units of a stream, in their order.
    """
    blocks = []
    parts: dict[str, str] = {}
    for content in contents:
        first, *others = content.members
        if others or first.part is not Part.H:  # a lone H goes with the G before it
            parts = {}
        for member, entry in zip(content.members, content.entries, strict=True):
            parts[member.part.value] = entry.name if entry else member.name
        if not others and first.part is Part.G:
            continue
        block = block_of_parts(parts, tuple(content.unit.body.tensor_dimensions))
        if block is not None:
            blocks.append(block)
    return tuple(blocks)


def _check_pairs(contents: Sequence[Content]) -> None:
    """Refuse a G outside a block unless its H is in the next unit, and an H without its G."""
    waiting: tuple[Unit, Member] | None = None
    for content in contents:
        unit, (first, *others) = content.unit, content.members
        lone_part = None if others else first.part
        if waiting or lone_part is Part.H:
            g_unit, g = waiting or (None, None)
            follows = g_unit is not None and unit.index == g_unit.index + 1
            if not (g and follows and lone_part is Part.H and _is_pair(g, first)):
                raise _unpaired(g_unit or unit, g or first)
        waiting = (unit, first) if lone_part is Part.G else None
    if waiting:
        raise _unpaired(*waiting)


def _is_pair(g: Member, h: Member) -> bool:
    return g.name.removesuffix("_G") == h.name.removesuffix("_H") and g.shape[1] == h.shape[0]


def _unpaired(unit: Unit, member: Member) -> UnitOrderError:
    return UnitOrderError(
        f"{member.name!r} is part {member.part.value} of a decomposed tensor: G and H must be in "
        "two units, one after the other",
        bit_offset=unit.bit_offset,
        path=unit.path,
    )


def _check_names(stream: Stream, contents: Sequence[Content]) -> None:
    """Refuse tensors that the record does not have, or has and are missing; and doubled ones.

    In streams of other software, which have no record, a later tensor replaces an earlier one.
    """
    record = stream.record
    holders: dict[str, Content] = {}
    for content in contents:
        unit = content.unit
        for member in content.members:
            once = record is not None or unit.context.mps_parent_signalling_enabled_flag
            if once and member.name in holders:
                raise UnitOrderError(
                    f"a second tensor {member.name!r}", bit_offset=unit.bit_offset, path=unit.path
                )
            holders[member.name] = content
    if record is None:
        extra = {name for name, content in holders.items() if not content.kind.is_standard}
    else:
        recorded = {entry.unit_name for entry in record.tensors if entry.has_unit}
        for entry in record.tensors:
            if entry.has_unit and entry.unit_name not in holders:
                raise UnitOrderError(
                    f"there is no data unit for tensor {entry.name!r} of the record"
                )
        extra = holders.keys() - recorded
    for name in sorted(extra):
        raise UnitOrderError(
            f"tensor {name!r} is not in the container record",
            bit_offset=holders[name].unit.bit_offset,
            path=holders[name].unit.path,
        )
