"""Reading and writing the bits of headers, with the descriptors of the standard.

`BitReader` and `BitWriter` know descriptors and positions but no syntax elements. Bits are numbered
from the start of the stream, the most significant bit of a byte first. Payloads are not read here;
they stay slices of the stream.

======= ==========================================================================
u(n)    unsigned integer of n bits
i(n)    integer of n bits in two's complement
ue(k)   unsigned integer in an exponential-Golomb code of order k
ie(k)   integer in the same code: v > 0 is coded as 2v - 1, v <= 0 as -2v
flt(32)  IEEE 754 binary32, least significant byte first
st(v)   UTF-8 bytes and one zero byte, starting on a byte boundary
bs(v)   bytes up to the end of the unit, starting on a byte boundary
======= ==========================================================================
"""

from __future__ import annotations

import struct

import numpy as np
from bitstring import BitArray, Bits

from nnrcodec.errors import EncodingError, SyntaxElementError, TruncatedBitstreamError

UE_MAX_LEADING_ZEROS = 64
"""Most leading zeros of an exponential-Golomb code, which bounds its value."""

UE_MAX = 2**64 - 1
"""Largest value of ue(k) that is read or written."""

_WINDOW_BYTES = 256

_LONGEST_CODE = 2 * UE_MAX_LEADING_ZEROS + 64
"""Bits of an exponential-Golomb code at most, for orders up to 63."""

_FEW_LISTED = 4096
"""So many codes of arrays are read by a loop of Python; more of them by one that is compiled."""


class BitReader:
    """Read descriptors from bytes.

    Parameters
    ----------
    data : bytes or memoryview
        The stream. Only a small window around the position is copied.
    position : int
        First bit to read.

    Attributes
    ----------
    position : int
        The next bit to be read, counted from the start of `data`.
    end : int
        The first bit that must not be read; initially the end of `data`.
    """

    def __init__(self, data: bytes | bytearray | memoryview, position: int = 0) -> None:
        self.data = memoryview(data).cast("B")
        self.position = position
        self.end = 8 * len(self.data)
        self._number = self._bits_in_window = self._listed = 0
        self._window_start = self._window_end = 0

    @property
    def bits_left(self) -> int:
        """Number of bits between the position and `end`."""
        return self.end - self.position

    def u(self, n: int) -> int:
        """Read u(n)."""
        if n == 0:
            return 0
        start = self._take(n)
        return self._number >> (self._bits_in_window - start - n) & (1 << n) - 1

    def i(self, n: int) -> int:
        """Read i(n)."""
        value = self.u(n)
        return value - (1 << n) if value >> n - 1 else value

    def ue(self, k: int) -> int:
        """Read ue(k)."""
        first = self.position
        zeros = 0
        while not self.u(1):
            zeros += 1
            if zeros > UE_MAX_LEADING_ZEROS:
                raise SyntaxElementError(
                    f"more than {UE_MAX_LEADING_ZEROS} leading zeros in an exponential-Golomb code",
                    bit_offset=first,
                )
        suffix = self.u(k + zeros) if k + zeros else 0
        value = (((1 << zeros) - 1) << k) + suffix
        if value > UE_MAX:
            raise SyntaxElementError(f"{value} is greater than {UE_MAX}", bit_offset=first)
        return value

    def ie(self, k: int) -> int:
        """Read ie(k)."""
        code = self.ue(k)
        return (code + 1) >> 1 if code & 1 else -(code >> 1)

    def ie_list(self, k: int, count: int) -> list[int] | None:
        """Read several ie(k) at once; None, and nothing is read, if one is damaged or very long.

        Parameters
        ----------
        k : int
            Order of the codes.
        count : int
            How many.
        """
        self._listed += count
        if self._listed > _FEW_LISTED:
            return self._ie_list_compiled(k, count)
        values: list[int] = []
        position, offset = self.position, 1 << k
        text, at = "", 0  # bits from `position` on, of which `at` are read
        while len(values) < count:
            if len(text) - at < _LONGEST_CODE:
                position += at
                text, at = self._digits(position, _LONGEST_CODE + 8 * (count - len(values))), 0
            first = text.find("1", at)
            end = 2 * first - at + 1 + k
            if first < 0 or end > len(text):
                return None
            code = int(text[first:end], 2) - offset
            if code > UE_MAX:
                return None
            values.append(code + 1 >> 1 if code & 1 else -(code >> 1))
            at = end
        self.position = position + at
        return values

    def _ie_list_compiled(self, k: int, count: int) -> list[int] | None:
        """Do the same where there is much to read: the loop takes a moment to load."""
        from nnrcodec.entropy.compiled import announced
        from nnrcodec.syntax.exp_golomb_kernels import read_ie

        values = np.empty(count, np.int64)
        data = np.frombuffer(self.data, np.uint8)
        with announced("the reader of tables"):
            end = int(read_ie(data, self.position, self.end, k, values))
        if end < 0:
            return None
        self.position = end
        found: list[int] = values.tolist()
        return found

    def _digits(self, start: int, most: int) -> str:
        """Return bits as digits: as many as that, or a little more, or up to the end."""
        stop = min(start + most + 7, self.end)
        part = self.data[start // 8 : (stop + 7) // 8]
        digits = f"{int.from_bytes(part):0{8 * len(part)}b}"
        return digits[start % 8 : stop - start // 8 * 8]

    def flt(self, n: int = 32) -> float:
        """Read flt(32); a signalling NaN becomes a quiet one."""
        start = self._take(n)
        bits = self._number >> (self._bits_in_window - start - n) & (1 << n) - 1
        value: float = struct.unpack("<f", bits.to_bytes(4))[0]
        return value

    def st(self) -> str:
        """Read st(v)."""
        start = self._aligned()
        length = 64
        while (size := bytes(self.data[start : start + length]).find(0)) < 0:
            if 8 * (start + length) >= self.end:
                break
            length *= 4
        if size < 0 or 8 * (start + size) >= self.end:
            raise TruncatedBitstreamError(
                "the string has no zero byte at its end", bit_offset=self.position
            )
        try:
            text = str(self.data[start : start + size], "utf-8")
        except UnicodeDecodeError:
            raise SyntaxElementError("the string is not UTF-8", bit_offset=self.position) from None
        self.position += 8 * (size + 1)
        return text

    def bs(self) -> bytes:
        """Read bs(v): the bytes up to `end`."""
        return bytes(self.remaining_bytes())

    def remaining_bytes(self) -> memoryview:
        """Return the bytes up to `end` as a slice of the stream."""
        start = self._aligned()
        self.position = self.end
        return self.data[start : self.end // 8]

    def byte_alignment(self) -> None:
        """Read a 1 and the zeros up to the next byte boundary."""
        first = self.position
        n = 8 - first % 8
        if (value := self.u(n)) != 1 << (n - 1):
            raise SyntaxElementError(
                f"byte_alignment() must be a 1 and {n - 1} zeros, not {value:0{n}b}",
                bit_offset=first,
            )

    def _aligned(self) -> int:
        if self.position % 8:
            raise SyntaxElementError("not on a byte boundary", bit_offset=self.position)
        return self.position // 8

    def _take(self, n: int) -> int:
        """Advance by `n` bits and return where they start in the window."""
        start = self.position
        stop = start + n
        if stop > self.end:
            raise TruncatedBitstreamError(
                f"{n} bits are needed, but only {self.end - start} are left", bit_offset=start
            )
        self.position = stop
        if start < self._window_start or stop > self._window_end:
            first = start // 8
            last = max(first + _WINDOW_BYTES, (stop + 7) // 8)
            part = self.data[first:last]
            self._number, self._bits_in_window = int.from_bytes(part), 8 * len(part)
            self._window_start = 8 * first
            self._window_end = 8 * first + self._bits_in_window
        return start - self._window_start


class BitWriter:
    """Write descriptors to bytes.

    Parameters
    ----------
    position : int
        Position of the first bit in the stream that the bytes will be part of; a multiple of 8.
    """

    def __init__(self, position: int = 0) -> None:
        self._bits = BitArray()
        self._start = position

    @property
    def position(self) -> int:
        """The next bit to be written, counted from the start of the stream."""
        return self._start + len(self._bits)

    def u(self, value: int, n: int) -> None:
        """Write u(n)."""
        if value < 0 or value >> n:
            raise EncodingError(f"{value} is not in u({n})")
        if n:
            self._bits.append(Bits(u=value, length=n))

    def i(self, value: int, n: int) -> None:
        """Write i(n)."""
        if not -(1 << (n - 1)) <= value < 1 << (n - 1):
            raise EncodingError(f"{value} is not in i({n})")
        self._bits.append(Bits(i=value, length=n))

    def ue(self, value: int, k: int) -> None:
        """Write ue(k)."""
        if not 0 <= value <= UE_MAX:
            raise EncodingError(f"{value} is not in 0..{UE_MAX}")
        code = value + (1 << k)  # a 1 and k + m bits, after m zeros
        self.u(code, 2 * code.bit_length() - k - 1)

    def ie(self, value: int, k: int) -> None:
        """Write ie(k)."""
        self.ue(2 * value - 1 if value > 0 else -2 * value, k)

    def flt(self, value: float, n: int = 32) -> None:
        """Write flt(32)."""
        try:
            self._bits.append(Bits(struct.pack("<f", value)))
        except OverflowError:
            raise EncodingError(f"{value} is too large for flt(32)") from None

    def st(self, value: str) -> None:
        """Write st(v)."""
        try:
            text = value.encode("utf-8")
        except UnicodeEncodeError:
            raise EncodingError(f"{value!r} cannot be written as UTF-8") from None
        if 0 in text:
            raise EncodingError(f"{value!r} contains a zero byte, which would end the string")
        self.bs(text + b"\0")

    def bs(self, value: bytes | memoryview) -> None:
        """Write bs(v)."""
        if self.position % 8:
            raise EncodingError("not on a byte boundary")
        self._bits.append(Bits(bytes(value)))

    def byte_alignment(self) -> None:
        """Write a 1 and the zeros up to the next byte boundary."""
        n = 8 - self.position % 8
        self.u(1 << (n - 1), n)

    def to_bytes(self) -> bytes:
        """Return what was written; it must end on a byte boundary."""
        if self.position % 8:
            raise EncodingError("not on a byte boundary")
        return bytes(self._bits.tobytes())
