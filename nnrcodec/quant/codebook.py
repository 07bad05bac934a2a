"""Codebooks: a list of the levels that occur in a tensor, so that indices are coded instead.

Owns which list and which entry in its middle; whether it pays is found by coding
(`nnrcodec.units.ndu_encoding`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nnrcodec.syntax.data_unit import Codebook

LONGEST = 4096
"""Entries of a codebook that is tried; a longer one never pays."""

_LARGEST_ORDER = 15


def codebooks(levels: np.ndarray) -> Iterator[tuple[Codebook, np.ndarray]]:
    """Yield codebooks of the levels of a tensor, each with the indices to code.

    They differ in the entry that is coded as level 0: the one that occurs most often, level 0
    itself, and the ends of the list, which save the sign of all others.

    Parameters
    ----------
    levels : ndarray of int32
        Any shape, at least one element.

    Yields
    ------
    codebook : Codebook
    indices : ndarray of int32
        Distances of each level's entry to that entry, same shape as `levels`.
    """
    entries, positions, counts = np.unique(levels, return_inverse=True, return_counts=True)
    if entries.size > LONGEST:
        return
    positions = positions.reshape(levels.shape).astype(np.int32)
    zeros = [int(np.argmax(counts)), *np.flatnonzero(entries == 0).tolist(), 0, entries.size - 1]
    for zero in dict.fromkeys(zeros):
        yield codebook_of(entries, zero), positions - np.int32(zero)


def codebook_of(entries: np.ndarray, zero: int) -> Codebook:
    """Return the shortest codebook of entries.

    Parameters
    ----------
    entries : ndarray of int
        Increasing.
    zero : int
        Index of the entry that is coded as level 0.
    """
    gaps = np.diff(entries.astype(np.int64)) - 1
    orders = range(_LARGEST_ORDER + 1)
    return Codebook(
        codebook_egk=min(orders, key=lambda k: _code_bits(gaps, k)),
        codebook_size=entries.size,
        codebook_centre_offset=zero - (entries.size >> 1),
        codebook_zero_value=int(entries[zero]),
        codebook_delta_left=gaps[:zero][::-1].tolist(),
        codebook_delta_right=gaps[zero:].tolist(),
    )


def values_of_levels(levels: np.ndarray, step: float) -> np.ndarray:
    """Return the values that entries of a codebook stand for: one product in binary64.

    Parameters
    ----------
    levels : ndarray of int
        Entries, any shape.
    step : float
        The step size.

    Returns
    -------
    ndarray of float64
        Same shape.
    """
    return levels.astype(np.float64) * step


def _code_bits(values: np.ndarray, k: int) -> int:
    """Return the bits of values in ue(k)."""
    octaves = np.frexp((values >> k) + 1)[1] - 1  # exact up to 2**53
    return int(np.sum(2 * octaves + 1 + k))
