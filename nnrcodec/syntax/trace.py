"""Trace events, one for each syntax element, and how they are printed.

A sink is any callable that takes a `TraceEvent`, such as ``list.append``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

Value = int | float | str | bytes | None


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One syntax element of a stream.

    Parameters
    ----------
    bit_offset, bit_length : int
        Position from the start of the stream, and length.
    path : str
        Unit, structures, name and subscripts, such as ``unit[3] NNR_NDU/tensor_dimensions[1]``.
    descriptor : str
        How it is coded, such as ``ue(7)``.
    value : int, float, str, bytes or None
        Its value; an enumerator where the standard names one; None for a payload.
    """

    bit_offset: int
    bit_length: int
    path: str
    descriptor: str
    value: Value

    def as_dict(self) -> dict[str, int | float | str | None]:
        """Return the event as plain values for JSON; bytes become hexadecimal digits."""
        value = self.value
        return {
            "bit": self.bit_offset,
            "bits": self.bit_length,
            "path": self.path,
            "descriptor": self.descriptor,
            "value": value.hex() if isinstance(value, bytes) else _plain(value),
            "name": _name(value),
        }

    def __str__(self) -> str:
        """Return the event as a line: bit, bits, path, value and its name."""
        name = _name(self.value)
        line = f"{self.bit_offset:>9} {self.bit_length:>5}  {self.path:<64} {_text(self.value)}"
        return f"{line} ({name})" if name else line.rstrip()


TraceSink = Callable[[TraceEvent], None]


def _name(value: Value) -> str | None:
    return value.name if isinstance(value, Enum) else None


def _plain(value: int | float | str | None) -> int | float | str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no number for it
    return int(value) if isinstance(value, int) else value


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:d}" if abs(value) < 1 << 64 else f"{value:#x}"  # hex has no digit limit
    if isinstance(value, bytes):
        return f"{len(value)} bytes {value[:16].hex()}{'...' if len(value) > 16 else ''}"
    return repr(value)
