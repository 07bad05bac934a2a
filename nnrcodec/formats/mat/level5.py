"""MATLAB files of versions 5 to 7: elements, each with a type and a size, some of them compressed.

Source: "MAT-File Format", The MathWorks, chapter 1, level 5. (SciPy reads such files too, but its
reader recurses without a bound and allocates what a file says, so that a file can end the process.)
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nnrcodec.errors import ModelError
from nnrcodec.formats.mat.values import (
    CLASSES,
    COMPLEX,
    EMPTY,
    MOST_DIMS,
    Array,
    Cell,
    Counter,
    Other,
    Struct,
    Text,
    Value,
    complex_of,
)
from nnrcodec.formats.reading import open_regular
from nnrcodec.formats.torch_file import FREE_INFLATED, INFLATED

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS: Mapping[int, str] = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"},
    **{12: "i8", 13: "u8"},
}
_ENCODINGS: Mapping[int, str] = {
    **{1: "latin-1", 2: "latin-1", 3: "utf-16", 4: "utf-16", 16: "utf-8"},
    **{17: "utf-16", 18: "utf-32"},
}
_CELL, _STRUCT, _OBJECT, _CHAR = 1, 2, 3, 4
_NUMERIC: Mapping[int, str] = {
    **{6: "double", 7: "single", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16"},
    **{12: "int32", 13: "uint32", 14: "int64", 15: "uint64"},
}
_OTHERS = {5: "a sparse matrix", 16: "a function", 17: "an object", 18: "an object"}
_IS_COMPLEX, _IS_LOGICAL = 0x800, 0x200
_ERRORS = (struct.error, ValueError, OverflowError, IndexError, UnicodeError, zlib.error)


def read(path: Path) -> Struct:
    """Return the variables of a file, as a struct.

    Raises
    ------
    ModelError
        It is damaged, or has too much in it.
    """
    with open_regular(path) as file:
        data = memoryview(file.read())
    try:
        return _File(path, data).variables()
    except _ERRORS as error:
        raise ModelError(f"{path} is damaged or cut short: {error}") from error


class _File:
    def __init__(self, path: Path, data: memoryview) -> None:
        self._data = data
        self._counter = Counter(path)
        self._inflated = 0
        mark = bytes(data[126:128])
        if mark not in (b"IM", b"MI"):
            raise ValueError("its header does not say the order of bytes")
        self._order = "<" if mark == b"IM" else ">"

    def variables(self) -> Struct:
        result: dict[str, list[Value]] = {}
        position = _HEADER_BYTES
        while position < len(self._data):
            kind, size, start = self._tag(self._data, position)
            body = _part(self._data, start, size)
            if kind == _COMPRESSED:
                position = start + size
                inner = self._inflate(body)
                kind, size, start = self._tag(inner, 0)
                body = _part(inner, start, size)
            else:
                position = start + size + -size % 8
            if kind != _MATRIX:
                raise ValueError(f"a variable of type {kind}")
            name, value = self._matrix(body, 0)
            if name:  # without a name it is what objects are kept in
                result[name] = [value]
        return Struct((1, 1), result)

    def _inflate(self, body: memoryview) -> memoryview:
        allowed = max(FREE_INFLATED, INFLATED * len(self._data)) - self._inflated
        stream = zlib.decompressobj()
        inflated = stream.decompress(body, allowed)
        if not stream.eof:
            raise ValueError("a compressed variable is cut, or far larger than it is compressed")
        self._inflated += len(inflated)
        return memoryview(inflated)

    def _tag(self, data: memoryview, position: int) -> tuple[int, int, int]:
        """Return type, bytes and start of the element at a position."""
        kind, size = struct.unpack_from(f"{self._order}II", data, position)
        if kind >> 16:  # a small one: four bytes at most, in the place of the size
            if kind >> 16 > 4:
                raise ValueError("a small element of more than 4 bytes")
            return kind & 0xFFFF, kind >> 16, position + 4
        return kind, size, position + 8

    def _element(self, data: memoryview, position: int) -> tuple[int, memoryview, int]:
        """Return type and bytes of an element, and where the next one begins."""
        kind, size, start = self._tag(data, position)
        end = start + size
        if start == position + 4:
            end = position + 8
        else:
            end += -size % 8
        return kind, _part(data, start, size), end

    def _numbers(self, data: memoryview, position: int) -> tuple[np.ndarray, int]:
        kind, body, end = self._element(data, position)
        if kind not in _NUMBERS:
            raise ValueError(f"numbers of type {kind}")
        return np.frombuffer(body, self._order + _NUMBERS[kind]), end

    def _matrix(self, data: memoryview, depth: int) -> tuple[str, Value]:
        """Return the name and the value of an array, whatever it is of."""
        self._counter.note(depth)
        if not data:
            return "", EMPTY
        words, position = self._numbers(data, 0)
        flags = int(words[0])
        kind = flags & 0xFF
        if kind == 17:  # it has no dimensions
            letters, _ = self._numbers(data, position)
            return bytes(letters.astype("u1")).decode("latin-1"), Other(_OTHERS[kind])
        sizes, position = self._numbers(data, position)
        dims = tuple(map(int, sizes))
        if not 2 <= len(dims) <= MOST_DIMS or min(dims) < 0:
            raise ValueError(f"an array of dimensions {dims[:10]}")
        _, name_bytes, position = self._element(data, position)
        name = bytes(name_bytes).decode("latin-1")
        return name, self._value(kind, flags, dims, data, position, depth)

    def _value(
        self,
        kind: int,
        flags: int,
        dims: tuple[int, ...],
        data: memoryview,
        position: int,
        depth: int,
    ) -> Value:
        if kind in _NUMERIC:
            return self._array(_NUMERIC[kind], flags, dims, data, position)
        if kind == _CHAR:
            return self._text(dims, data, position)
        if kind == _CELL:
            items = []
            for _ in range(math.prod(dims)):
                value, position = self._inner(data, position, depth)
                items.append(value)
            return Cell(dims, items)
        if kind == _STRUCT:
            return self._struct(dims, data, position, depth)
        if kind == _OBJECT:
            return Other("an object")
        if kind in _OTHERS:
            return Other(_OTHERS[kind])
        raise ValueError(f"an array of class {kind}")

    def _inner(self, data: memoryview, position: int, depth: int) -> tuple[Value, int]:
        kind, body, end = self._element(data, position)
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} in a cell or struct")
        return self._matrix(body, depth + 1)[1], end

    def _struct(self, dims: tuple[int, ...], data: memoryview, position: int, depth: int) -> Struct:
        length, position = self._numbers(data, position)
        _, body, position = self._element(data, position)
        width = int(length[0])
        if width <= 0:
            raise ValueError("a struct with names of no length")
        names = [
            bytes(body[i : i + width]).split(b"\0")[0].decode("latin-1")
            for i in range(0, len(body) // width * width, width)
        ]
        fields: dict[str, list[Value]] = {name: [] for name in names}
        if len(fields) != len(names):
            raise ValueError("a struct with two fields of one name")
        for _ in range(math.prod(dims) if names else 0):
            for values in fields.values():
                value, position = self._inner(data, position, depth)
                values.append(value)
        return Struct(dims, fields)

    def _array(
        self, name: str, flags: int, dims: tuple[int, ...], data: memoryview, position: int
    ) -> Value:
        real, position = self._numbers(data, position)
        parts = [real]
        dtype = CLASSES["logical" if flags & _IS_LOGICAL else name]
        if flags & _IS_COMPLEX:
            if name not in COMPLEX:
                return Other("complex integers")
            parts.append(self._numbers(data, position)[0])
            dtype = COMPLEX[name]
        size = math.prod(dims)
        if any(part.size != size for part in parts):
            raise ValueError(f"an array of dimensions {dims} with {real.size} numbers")

        def values() -> np.ndarray:
            numbers = complex_of(*parts) if len(parts) == 2 else parts[0]
            with np.errstate(all="ignore"):  # a damaged file may store floats for integers
                return np.ascontiguousarray(numbers.astype(dtype).reshape(dims, order="F"))

        return Array(dims, dtype, values)

    def _text(self, dims: tuple[int, ...], data: memoryview, position: int) -> Text:
        if math.prod(dims) == 0:
            return Text(dims, "")
        kind, body, _ = self._element(data, position)
        if kind not in _ENCODINGS:
            raise ValueError(f"characters of type {kind}")
        encoding = _ENCODINGS[kind]
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self._order == "<" else "-be"
        text = bytes(body).decode(encoding, errors="replace")
        return Text(dims if math.prod(dims) == len(text) else (1, len(text)), text)


def _part(data: memoryview, start: int, size: int) -> memoryview:
    if start + size > len(data):
        raise ValueError("an element ends after the file")
    return data[start : start + size]
