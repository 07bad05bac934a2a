"""The drivers that run a syntax function: a reader and a writer.

A syntax function lists the elements of one table of the standard. It calls the descriptors of a
`Syntax` driver on a record: `SyntaxReader` parses each element into the record, `SyntaxWriter`
writes it from the record. Range checks, trace events and the positions in errors are the same for
both, in `Syntax._element`.

An element that is not coded has the default value of its record, the inferred value of the
standard: a reader keeps it, and a writer requires it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from enum import IntEnum, IntFlag
from typing import Any, NamedTuple, NoReturn, TypedDict, TypeVar, Unpack

from nnrcodec.errors import (
    BitstreamError,
    EncodingError,
    LimitExceededError,
    SyntaxElementError,
    TruncatedBitstreamError,
    UnsupportedFeatureError,
)
from nnrcodec.syntax.bitio import BitReader, BitWriter
from nnrcodec.syntax.clauses import record_of
from nnrcodec.syntax.trace import TraceEvent, TraceSink

R = TypeVar("R")
Subscript = tuple[int, ...]


class Range(TypedDict, total=False):
    """Constraints on a value, and the names of values."""

    low: int
    """Smallest value that the standard allows."""
    high: int
    """Largest value that the standard allows."""
    limit: int
    """Largest value that the caller allows."""
    enum: type[IntEnum] | type[IntFlag]
    """Enumeration with the names of values."""


class Element(NamedTuple):
    """One syntax element, as a syntax function passes it to a driver."""

    h: object
    name: str
    subscript: Subscript
    kind: str
    parameters: tuple[int, ...]
    range: Range

    @property
    def descriptor(self) -> str:
        """The descriptor as it is written in the syntax tables."""
        return f"{self.kind}({self.parameters[0] if self.parameters else 'v'})"


class Syntax:
    """The descriptors that a syntax function calls.

    Their arguments are the record, the name of the element, the parameter of the descriptor if it
    has one, and the subscripts if the element belongs to an array.

    Parameters
    ----------
    bits : BitReader or BitWriter
        Source or destination of the bits.
    path : str
        Prefix of the names in traces and errors.
    trace : callable, optional
        Called with each `TraceEvent`.
    """

    bits: Any

    def __init__(
        self, bits: BitReader | BitWriter, path: str = "", trace: TraceSink | None = None
    ) -> None:
        self.bits = bits
        self.path = path
        self.trace = trace
        self._coded: dict[str, int] = {}  # last first subscript of each coded element

    def u(self, h: object, name: str, n: int, *subscript: int, **values: Unpack[Range]) -> None:
        """Code an unsigned integer of `n` bits."""
        self._element(Element(h, name, subscript, "u", (n,), values))

    def flag(self, h: object, name: str, *subscript: int) -> None:
        """Code a flag, u(1)."""
        self._element(Element(h, name, subscript, "u", (1,), {}))

    def i(self, h: object, name: str, n: int, *subscript: int, **values: Unpack[Range]) -> None:
        """Code an integer of `n` bits in two's complement."""
        self._element(Element(h, name, subscript, "i", (n,), values))

    def ue(self, h: object, name: str, k: int, *subscript: int, **values: Unpack[Range]) -> None:
        """Code an unsigned integer in an exponential-Golomb code of order `k`."""
        self._element(Element(h, name, subscript, "ue", (k,), values))

    def ie(self, h: object, name: str, k: int, *subscript: int, **values: Unpack[Range]) -> None:
        """Code a signed integer in an exponential-Golomb code of order `k`."""
        self._element(Element(h, name, subscript, "ie", (k,), values))

    def flt(self, h: object, name: str, *subscript: int) -> None:
        """Code a binary32 number, flt(32)."""
        self._element(Element(h, name, subscript, "flt", (32,), {}))

    def st(self, h: object, name: str, *subscript: int) -> None:
        """Code a string, st(v)."""
        self._element(Element(h, name, subscript, "st", (), {}))

    def bs(self, h: object, name: str) -> None:
        """Code all bytes up to the end of the unit, bs(v)."""
        self._element(Element(h, name, (), "bs", (), {}))

    def fixed(self, name: str, n: int, value: int) -> None:
        """Code `n` bits of a fixed value, which is in no record."""
        self._element(Element(None, name, (), "u", (n,), {"low": value, "high": value}))

    def byte_alignment(self) -> None:
        """Code a 1 and the zeros up to the next byte boundary."""
        n = 8 - self.bits.position % 8
        self.fixed("byte_alignment()", n, 1 << (n - 1))

    def array(self, h: object, name: str, count: int, *subscript: int) -> None:
        """Begin an array; its `count` elements follow (none if `count` is negative)."""
        if subscript:
            self._coded[name] = subscript[0]
        self._array(Element(h, name, subscript, "", (), {}), max(count, 0))

    def ie_list(self, h: object, name: str, k: int, count: int, **values: Unpack[Range]) -> None:
        """Code an array of ie(k)."""
        self.array(h, name, count)
        for j in range(count):
            self.ie(h, name, k, j, **values)

    def structure(
        self,
        h: object,
        name: str,
        table: Callable[[Any, R, Any], None],
        ctx: object,
        *subscript: int,
    ) -> None:
        """Code a record nested in the record, with its own syntax table."""
        record: R = self._record(Element(h, name, subscript, "", (), {}), record_of(table))
        self._coded[name] = subscript[0] if subscript else 0
        outer, self.path = self.path, self._where(name, subscript)
        self.code(record, (table,), ctx)
        self.path = outer

    def code(self, record: R, tables: Sequence[Callable[[Any, R, Any], None]], ctx: object) -> None:
        """Code a record with the syntax tables that list its elements."""
        outer, self._coded = self._coded, {}
        for table in tables:
            table(self, record, ctx)
        self._check_absent(record)
        self._coded = outer

    def limit_product(self, h: object, name: str, limit: int) -> None:
        """Check the product of an array against a limit, with zeros counted as ones."""
        if (product := math.prod(max(value, 1) for value in getattr(h, name))) > limit:
            message = f"the product {product} exceeds the limit of {limit}"
            self._fail(message, self.bits.position, self._where(name), LimitExceededError)

    def unsupported(self, feature: str) -> None:
        """Raise for a feature that is legal but not implemented."""
        raise UnsupportedFeatureError(
            f"{feature}: not implemented",
            feature=feature,
            bit_offset=self.bits.position,
            path=self.path,
        )

    def _element(self, e: Element) -> None:
        """Code one element; all range checks and positions are here."""
        start = self.bits.position
        try:
            value = self._take(e)
            if e.range:
                value = self._check(e, start, value)
            self._put(e, value)
        except (BitstreamError, EncodingError) as error:
            self._fail(error.args[0], start, self._where(e.name, e.subscript), type(error))
        if e.h is not None:
            self._coded[e.name] = e.subscript[0] if e.subscript else 0
        if self.trace:
            where, length = self._where(e.name, e.subscript), self.bits.position - start
            self.trace(TraceEvent(start, length, where, e.descriptor, value))

    def _check(self, e: Element, start: int, value: int) -> int:
        """Check the range of a value; return it, as a member of its enumeration if named there."""
        low, high, limit = e.range.get("low"), e.range.get("high"), e.range.get("limit")
        if (low is not None and value < low) or (high is not None and value > high):
            expected = f"{low}" if low == high else f"in {low or 0}..{'' if high is None else high}"
            raise SyntaxElementError(f"{value} is not {expected}")
        if limit is not None and value > limit:
            raise LimitExceededError(f"{value} exceeds the limit of {limit}")
        if "enum" in e.range:
            try:
                return e.range["enum"](value)
            except ValueError:
                return value  # reserved or private
        return value

    def _where(self, name: str, subscript: Subscript = ()) -> str:
        return f"{self.path}/{name}" + "".join(f"[{j}]" for j in subscript)

    # Overridden by the drivers.

    def _take(self, e: Element) -> Any:
        """Return the value of an element, from the bits or from the record."""
        raise NotImplementedError

    def _put(self, e: Element, value: Any) -> None:
        """Store the value of an element, in the record or as bits."""
        raise NotImplementedError

    def _array(self, e: Element, count: int) -> None:
        """Begin an array."""
        raise NotImplementedError

    def _record(self, e: Element, record_type: type[R]) -> R:
        """Return the nested record."""
        raise NotImplementedError

    def _check_absent(self, record: object) -> None:
        """Check the elements of the record that were not coded."""

    def _fail(self, message: str, bit_offset: int, path: str, error: type[Exception]) -> NoReturn:
        raise NotImplementedError


class SyntaxReader(Syntax):
    """Parse the elements from a `BitReader`, which ends with the unit, into the record."""

    def _take(self, e: Element) -> Any:
        return getattr(self.bits, e.kind)(*e.parameters)

    def _put(self, e: Element, value: Any) -> None:
        if e.h is not None:
            set_element(e, value)

    def ie_list(self, h: object, name: str, k: int, count: int, **values: Unpack[Range]) -> None:
        """Parse an array of ie(k), all at once unless they are traced, or one of them is wrong."""
        start = self.bits.position
        found = None if self.trace or count < 1 else self.bits.ie_list(k, count)
        low, high = values.get("low"), values.get("high")
        if (
            found is None
            or (low is not None and min(found) < low)
            or (high is not None and max(found) > high)
        ):
            self.bits.position = start
            super().ie_list(h, name, k, count, **values)
        else:
            setattr(h, name, found)
            self._coded[name] = count - 1

    def _array(self, e: Element, count: int) -> None:
        if count > self.bits.bits_left:  # each element takes at least one bit
            message = f"{count} elements are declared, but only {self.bits.bits_left} bits are left"
            where = self._where(e.name, e.subscript)
            self._fail(message, self.bits.position, where, TruncatedBitstreamError)
        set_element(e, [])

    def _record(self, e: Element, record_type: type[R]) -> R:
        record = record_type()
        set_element(e, record)
        return record

    def _fail(self, message: str, bit_offset: int, path: str, error: type[Exception]) -> NoReturn:
        assert issubclass(error, BitstreamError)  # noqa: S101 - reading raises nothing else
        raise error(message, bit_offset=bit_offset, path=path) from None


class SyntaxWriter(Syntax):
    """Write the elements of the record to a `BitWriter`."""

    def _take(self, e: Element) -> Any:
        value = e.range["low"] if e.h is None else get_element(e)
        if not isinstance(value, _TYPES[e.kind]):
            raise EncodingError(f"{value!r} cannot be coded as {e.descriptor}")
        return value

    def _put(self, e: Element, value: Any) -> None:
        getattr(self.bits, e.kind)(value, *e.parameters)

    def _array(self, e: Element, count: int) -> None:
        if (length := len(get_element(e))) != count:
            message = f"{length} elements, but {count} are declared"
            self._fail(message, 0, self._where(e.name, e.subscript), EncodingError)

    def _record(self, e: Element, record_type: type[R]) -> R:
        record = get_element(e)
        if not isinstance(record, record_type):
            message = f"{record!r} is not a {record_type.__name__}"
            self._fail(message, 0, self._where(e.name, e.subscript), EncodingError)
        return record

    def _check_absent(self, record: Any) -> None:
        default = type(record)()
        for name in (field.name for field in fields(record)):
            value, inferred = getattr(record, name), getattr(default, name)
            coded = self._coded.get(name, -1) + 1
            if isinstance(value, list) and len(value) != coded:
                message = f"{len(value)} elements, of which {coded} are coded"
            elif not coded and value != inferred:
                message = f"{value!r} is not coded here, a decoder would infer {inferred!r}"
            else:
                continue
            self._fail(message, 0, self._where(name), EncodingError)

    def _fail(self, message: str, bit_offset: int, path: str, error: type[Exception]) -> NoReturn:
        raise EncodingError(message, path=path) from None


_TYPES: dict[str, type | tuple[type, ...]] = {
    "u": int,
    "i": int,
    "ue": int,
    "ie": int,
    "flt": (float, int),
    "st": str,
    "bs": bytes,
}


def get_element(e: Element) -> Any:
    """Return the value of an element in its record."""
    value = getattr(e.h, e.name)
    try:
        for j in e.subscript:
            value = value[j]
    except IndexError:
        raise EncodingError("the array in the record is too short") from None
    return value


def set_element(e: Element, value: object) -> None:
    """Set the value of an element in its record; elements of arrays are appended."""
    if not e.subscript:
        setattr(e.h, e.name, value)
        return
    array = getattr(e.h, e.name)
    for j in e.subscript[:-1]:
        array = array[j]
    array.append(value)
