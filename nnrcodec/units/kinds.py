"""The kinds of data units: what each of them can tell of a unit, and do with it.

A kind of unit is one line in `KINDS`, beside the pair of modules that encode and decode it. Who
reads streams goes through here, and knows no kind by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.extended_data_unit import Coding
from nnrcodec.syntax.unit import Unit
from nnrcodec.units.ndu import DecodedMember, Histories, Member, members_of
from nnrcodec.units.ndu_decoding import decode_data_unit
from nnrcodec.units.ndu_encoding import is_raw, unit_bytes
from nnrcodec.units.xdu import member_of
from nnrcodec.units.xdu_decoding import decode_extended_unit
from nnrcodec.units.xdu_encoding import extended_unit_bytes

CODERS = {"cabac": "DeepCABAC", "ans": "rANS", "lossless": "lossless", "raw": "stored"}
"""What a tensor may be coded by: the name for programs, and that for people."""


class Decode(Protocol):
    """Decodes the tensors of a unit, of which the sizes are known to be allowed."""

    def __call__(
        self, unit: Unit, histories: Histories, /, *, threads: int, keep_levels: bool
    ) -> list[DecodedMember]:
        """Return the tensors in the order of the payload.

        Parameters
        ----------
        unit : Unit
            Of the kind.
        histories : mapping of str to TensorHistory
            By name, what earlier updates left.
        threads : int
            How many parts of a tensor to decode at once; the result does not depend on it.
        keep_levels : bool
            Return levels as well.
        """


@dataclass(frozen=True, slots=True)
class UnitKind:
    """A kind of data unit.

    Parameters
    ----------
    is_standard : bool
        Whether every decoder of ISO/IEC 15938-17 knows it.
    members : callable
        Returns the tensors in a unit, in the order of its payload, from the header alone.
    decode : Decode
        Decodes them.
    unit_bytes : callable
        Returns the size of a unit in bytes, without that of its size field.
    coder : callable
        Returns which of `CODERS` has coded a unit.
    """

    is_standard: bool
    members: Callable[[Unit], tuple[Member, ...]]
    decode: Decode
    unit_bytes: Callable[[Unit], int]
    coder: Callable[[Unit], str]


KINDS = {
    NnrUnitType.NNR_NDU: UnitKind(
        is_standard=True,
        members=lambda unit: members_of(unit.body),
        decode=decode_data_unit,
        unit_bytes=unit_bytes,
        coder=lambda unit: "raw" if is_raw(unit) else "cabac",
    ),
    NnrUnitType.NNR_XDU: UnitKind(
        is_standard=False,
        members=lambda unit: (member_of(unit.body),),
        decode=decode_extended_unit,
        unit_bytes=extended_unit_bytes,
        coder=lambda unit: Coding(unit.body.xdu_coding).name.lower(),
    ),
}
"""By nnr_unit_type."""


def kind_of(unit: Unit) -> UnitKind | None:
    """Return the kind of a data unit; None if a unit is none."""
    return KINDS.get(unit.header.nnr_unit_type)  # type: ignore[call-overload]
