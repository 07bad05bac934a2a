"""The dtypes a tensor may have, and their bytes.

Owns the one place where values become little-endian bytes and back. numpy has no bfloat16: its
values are held, exactly, in float32, and narrowed where they leave. Other formats that numpy lacks
are held as bit patterns, and never computed with.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

COMPUTED_DTYPES: Mapping[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.float32),
    "int8": np.dtype(np.int8),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "uint8": np.dtype(np.uint8),
    "uint16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
    "bool": np.dtype(np.bool_),
}
"""Dtypes that a network with a graph may have; names as PyTorch has them, and what holds them."""

_PATTERNS: Mapping[str, np.dtype] = {
    "float8_e4m3fn": np.dtype(np.uint8),
    "float8_e5m2": np.dtype(np.uint8),
    "float8_e4m3fnuz": np.dtype(np.uint8),
    "float8_e5m2fnuz": np.dtype(np.uint8),
    "float8_e8m0fnu": np.dtype(np.uint8),
    "float4_e2m1fn_x2": np.dtype(np.uint8),
    "complex32": np.dtype(np.uint32),
}
"""Dtypes that numpy lacks: held as bit patterns."""

DTYPES: Mapping[str, np.dtype] = {
    **COMPUTED_DTYPES,
    **_PATTERNS,
    "complex64": np.dtype(np.complex64),
    "complex128": np.dtype(np.complex128),
}
"""All dtypes a tensor may have: names as PyTorch has them, and the numpy dtype of the values."""


def item_bytes(dtype: str) -> int:
    """Return the bytes that one element takes in a file."""
    return 2 if dtype == "bfloat16" else DTYPES[dtype].itemsize


def is_float(dtype: str) -> bool:
    """Return whether a dtype is one of real numbers."""
    return DTYPES[dtype].kind == "f"


def is_pattern(dtype: str) -> bool:
    """Return whether values of a dtype are held as bit patterns, which numpy has no numbers for."""
    return dtype in _PATTERNS


def stored_dtype(dtype: str) -> str:
    """Return the dtype of `COMPUTED_DTYPES` whose values have the same bytes; itself if it is one.

    Those of complex numbers are integers: see `bit_pattern`.
    """
    return dtype if dtype in COMPUTED_DTYPES else DTYPES[dtype].name


def bit_pattern(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return values as integers with the same bits, none of them wider than 32 bits.

    Parameters
    ----------
    values : ndarray
        Any shape, dtype ``DTYPES[dtype]``.
    dtype : str
        A key of `DTYPES`.

    Returns
    -------
    ndarray of uint8, uint16 or int32
        In the same shape; with one more axis, the last, where a value takes several of 32 bits.
    """
    packed = to_little_endian(values, dtype)
    size = item_bytes(dtype)
    held = {1: np.uint8, 2: np.uint16}.get(size, np.int32)
    shape = values.shape if size <= 4 else (*values.shape, size // 4)
    return (
        np.frombuffer(packed.tobytes(), np.dtype(held).newbyteorder("<"))
        .astype(held)
        .reshape(shape)
    )


def of_bit_pattern(pattern: np.ndarray, dtype: str) -> np.ndarray:
    """Return the values of a bit pattern: the inverse of `bit_pattern`.

    Parameters
    ----------
    pattern : ndarray of integers
        As `bit_pattern` returns it, of any integer dtype that holds the numbers.
    dtype : str
        A key of `DTYPES`.

    Raises
    ------
    ValueError
        If it is no pattern of this dtype.
    """
    size = item_bytes(dtype)
    held = {1: np.uint8, 2: np.uint16}.get(size, np.int32)
    narrowed = pattern.astype(held)
    shape = pattern.shape
    if size > 4:
        if shape[-1:] != (size // 4,):
            raise ValueError(f"bit patterns of {dtype} have a last axis of {size // 4}")
        shape = shape[:-1]
    if not np.array_equal(narrowed, pattern):
        raise ValueError(f"numbers that are too large for {size} bytes of {dtype}")
    data = narrowed.astype(np.dtype(held).newbyteorder("<")).tobytes()
    return from_little_endian(memoryview(data), dtype, shape)


def cast(values: np.ndarray, dtype: str) -> np.ndarray:
    """Convert decoded values to the dtype a tensor had, to nearest, ties to even.

    Parameters
    ----------
    values : ndarray
        Any shape.
    dtype : str
        A key of `DTYPES`.

    Returns
    -------
    ndarray
        Same shape, dtype ``DTYPES[dtype]``; for bfloat16 only values that bfloat16 has.
    """
    if dtype == "bfloat16":
        narrowed = _bfloat16_bits(np.asarray(values, np.float32)).astype(np.uint32) << 16
        return narrowed.view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(DTYPES[dtype], copy=False)


def to_little_endian(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return the values as they stand in files: contiguous, little-endian, bfloat16 in two bytes.

    Parameters
    ----------
    values : ndarray
        Any shape, dtype ``DTYPES[dtype]``.
    dtype : str
        A key of `DTYPES`.
    """
    if dtype == "bfloat16":
        values = _bfloat16_bits(values)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(values.shape)


def from_little_endian(data: memoryview, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the values that stand in bytes: the inverse of `to_little_endian`.

    Parameters
    ----------
    data : memoryview
        Exactly as many bytes as the shape needs.
    dtype : str
        A key of `DTYPES`.
    shape : tuple of int
        Dimensions.

    Returns
    -------
    ndarray
        In native byte order, its memory its own.
    """
    if dtype == "bfloat16":
        bits = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape)
    held = DTYPES[dtype]
    if dtype == "bool":
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    return np.frombuffer(data, held.newbyteorder("<")).astype(held).reshape(shape)


def words_of(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return the bit patterns of values.

    Parameters
    ----------
    values : ndarray
        Any shape, of ``DTYPES[dtype]``.
    dtype : str
        A key of `DTYPES`, of real numbers.

    Returns
    -------
    ndarray of uint8, uint16, uint32 or uint64
        Same shape.
    """
    stored = to_little_endian(values, dtype)
    words = stored.view(f"<u{item_bytes(dtype)}")
    return words.astype(words.dtype.newbyteorder("="), copy=False)


def values_of(words: np.ndarray, dtype: str) -> np.ndarray:
    """Return the values of bit patterns: the inverse of `words_of`."""
    if dtype == "bfloat16":
        return (words.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "bool":
        stored = words.astype(words.dtype.newbyteorder("<"), copy=False)
        return from_little_endian(memoryview(stored.tobytes()), dtype, words.shape)
    return words.view(DTYPES[dtype])


_BLOCK = 2**16
"""Elements whose intermediate values fit a cache."""


def _upper_halves(bits: np.ndarray) -> np.ndarray:
    """Return the upper 16 bits of uint32, in blocks: memory that is new takes longer than this."""
    halves = np.empty(bits.size, np.uint16)
    shifted = np.empty(min(_BLOCK, bits.size), np.uint32)
    for start in range(0, bits.size, _BLOCK):
        block = bits[start : start + _BLOCK]
        halves[start : start + _BLOCK] = np.right_shift(block, 16, out=shifted[: block.size])
    return halves


def _bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """Round float32 to bfloat16, to nearest, ties to even, and return its bits as uint16.

    What bfloat16 has keeps its bits, NaNs included.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).reshape(values.shape)
    if not np.bitwise_or.reduce(bits, axis=None) & 0xFFFF:
        return _upper_halves(bits.reshape(-1)).reshape(values.shape)
    rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
    nan = bits >> 16 | np.where(bits & 0xFFFF, 0x40, 0)  # one that bfloat16 has stays what it is
    return np.where(np.isnan(values), nan, rounded).astype(np.uint16)
