"""What has become of tensors: units, and what record and report say of what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnrcodec.container.record import TensorEntry, tensor_digest
from nnrcodec.errors import ModelError
from nnrcodec.model.model import Tensor
from nnrcodec.quant.quantized import relative_error
from nnrcodec.syntax.unit import Unit
from nnrcodec.units.kinds import KINDS
from nnrcodec.units.ndu_encoding import is_raw


@dataclass(frozen=True, slots=True)
class CodedUnit:
    """A data unit.

    Parameters
    ----------
    unit : Unit
        The unit.
    entries : tuple of TensorEntry
        What the record says of each tensor in it.
    errors : mapping of str to float
        By name, the relative error of each.
    """

    unit: Unit
    entries: tuple[TensorEntry, ...]
    errors: Mapping[str, float]

    @classmethod
    def of(
        cls,
        unit: Unit,
        tensors: Iterable[tuple[Tensor, np.ndarray]],
        names: Mapping[str, str],
        *,
        is_pattern: bool = False,
    ) -> CodedUnit:
        """Describe the tensors in a unit.

        Parameters
        ----------
        unit : Unit
            The unit.
        tensors : iterable of (Tensor, ndarray)
            What was coded, and what a decoder will make of it.
        names : mapping of str to str
            What tensors are called in their units, where that is not their name.
        is_pattern : bool
            Whether the unit has the bit patterns of their values.
        """
        tensors = list(tensors)
        kind = KINDS[unit.header.nnr_unit_type]  # type: ignore[index]
        entries = tuple(
            TensorEntry(
                tensor.name,
                tensor_digest(tensor, value),
                tensor.dtype,
                tensor.role,
                names.get(tensor.name),
                scalar=kind.is_standard and not tensor.shape,
                is_pattern=is_pattern,
            )
            for tensor, value in tensors
        )
        return cls(unit, entries, {t.name: relative_error(t.read(), v) for t, v in tensors})

    @property
    def coder(self) -> str:
        """Which of `nnrcodec.units.kinds.CODERS` has coded it."""
        kind = KINDS[self.unit.header.nnr_unit_type]  # type: ignore[index]
        return kind.coder(self.unit)


def raw_names(coded: Sequence[CodedUnit]) -> list[str]:
    """Return the names of tensors in units that must be the last of their stream."""
    return [entry.name for part in coded if is_raw(part.unit) for entry in part.entries]


def raw_last(coded: Sequence[CodedUnit]) -> list[CodedUnit]:
    """Move the unit to the end that must be the last, if there is one.

    Raises
    ------
    ModelError
        If there are several.
    """
    raw = [part for part in coded if is_raw(part.unit)]
    if len(raw) > 1:
        names = [entry.name for part in raw for entry in part.entries]
        raise ModelError(
            f"tensors {', '.join(map(repr, names[:5]))} have values that are infinite or beyond "
            "the step sizes of the standard, which can store one such tensor in a stream"
        )
    return [part for part in coded if not is_raw(part.unit)] + raw
