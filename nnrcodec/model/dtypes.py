"""The dtypes a tensor may have, and their bytes.

Owns the one place where values become little-endian bytes and back. numpy has no bfloat16: its
values are held, exactly, in float32, and narrowed where they leave.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

DTYPES: Mapping[str, np.dtype] = {
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
"""Names as PyTorch has them, and the numpy dtype that holds the values."""


def item_bytes(dtype: str) -> int:
    """Return the bytes that one element takes in a file."""
    return 2 if dtype == "bfloat16" else DTYPES[dtype].itemsize


def is_float(dtype: str) -> bool:
    """Return whether a dtype is one of real numbers."""
    return DTYPES[dtype].kind == "f"


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


def _bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """Round float32 to bfloat16, to nearest, ties to even, and return its bits as uint16.

    What bfloat16 has keeps its bits, NaNs included.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).reshape(values.shape)
    if not np.bitwise_or.reduce(bits, axis=None) & 0xFFFF:
        return (bits >> 16).astype(np.uint16)
    rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
    quiet_nan = bits >> 16 | np.where(bits & 0xFFFF, 0x40, 0)
    return np.where(np.isnan(values), quiet_nan, rounded).astype(np.uint16)
