"""Probability tables that every machine builds alike.

A table gives each symbol of an alphabet an integer probability; together they make 2**24. A stream
describes it by a few small integers, the codes: logarithms of weights in units of
``2**-code_precision`` octaves, at a few levels, the knots. Between knots the logarithm is
interpolated. All of it is integer arithmetic (spec/extended-data-unit.md), so no two machines can
disagree.

Owns the construction of tables. How codes are written is `nnrcodec.syntax.extended_data_unit`; how
an encoder finds them is `nnrcodec.entropy.ans.fit`; what uses the tables is
`nnrcodec.entropy.ans.payload`.
"""

from __future__ import annotations

import numpy as np

from nnrcodec.entropy.ans.levels import LevelTable
from nnrcodec.errors import PayloadError

PRECISION = 24
"""Probabilities are multiples of 2**-24."""

FRACTION_BITS = 6
"""Logarithms are interpolated in 1/64 octaves."""

MAX_OCTAVES = 16
"""Codes span at most this many octaves, so weights stay below 2**17."""

EXP2 = (
    32768, 33125, 33486, 33850, 34219, 34591, 34968, 35349,
    35734, 36123, 36516, 36914, 37316, 37722, 38133, 38548,
    38968, 39392, 39821, 40255, 40693, 41136, 41584, 42037,
    42495, 42958, 43425, 43898, 44376, 44859, 45348, 45842,
    46341, 46846, 47356, 47871, 48393, 48920, 49452, 49991,
    50535, 51085, 51642, 52204, 52773, 53347, 53928, 54515,
    55109, 55709, 56316, 56929, 57549, 58176, 58809, 59449,
    60097, 60751, 61413, 62081, 62757, 63441, 64132, 64830,
)  # fmt: skip
"""2**(15 + i/64), rounded to the nearest integer."""

_EXP2 = np.array(EXP2, dtype=np.int64)


def probabilities(table: LevelTable) -> np.ndarray:
    """Build the integer probabilities of a table.

    Parameters
    ----------
    table : LevelTable
        A table of at least two symbols.

    Returns
    -------
    ndarray of int64
        Symbol ``i`` is level ``table_lowest_level + i``; the escape symbol, if any, comes last.
        All are at least 1 and their sum is ``2**24``.

    Raises
    ------
    PayloadError
        If a code is out of range.
    """
    return _normalized(weights(table))


def weights(table: LevelTable) -> np.ndarray:
    """Return the weight of each symbol, as `probabilities` takes them; 0 where its code is 0.

    Raises
    ------
    PayloadError
        If a code is out of range.
    """
    return _weights(_logarithms(table))


def _logarithms(table: LevelTable) -> np.ndarray:
    """Return the base-2 logarithm of each symbol's weight in 1/64 octaves; 0 means no weight."""
    knots = np.array(table.knots, dtype=np.int64)
    codes = np.array(table.codes, dtype=np.int64)
    if codes.min() < 0 or codes.max() > MAX_OCTAVES << table.code_precision:
        raise PayloadError(
            f"codes of a table are {codes.min()} to {codes.max()}, expected 0 to "
            f"{MAX_OCTAVES << table.code_precision}"
        )
    codes <<= FRACTION_BITS - table.code_precision
    escape = codes[codes.size - table.table_escape_flag :]
    codes = codes[: codes.size - escape.size]
    if codes.size < knots.size:  # a symmetric table sends the codes of magnitudes
        codes = np.concatenate([codes[:0:-1], codes])
    levels = np.arange(table.table_lowest_level, table.table_highest_level + 1, dtype=np.int64)
    right = np.searchsorted(knots, levels)
    left = np.maximum(right - 1, 0)
    distance = np.maximum(knots[right] - knots[left], 1)
    rise = (codes[right] - codes[left]) * (levels - knots[left])
    return np.concatenate([codes[left] + rise // distance, escape])


def _weights(logarithms: np.ndarray) -> np.ndarray:
    """Return 2**(logarithm/64), truncated to an integer; 0 where the logarithm is 0."""
    octave = logarithms >> FRACTION_BITS
    weights = (_EXP2[logarithms & 63] << octave) >> 15
    weights[logarithms == 0] = 0
    return weights


def _normalized(weights: np.ndarray) -> np.ndarray:
    """Share out 2**24 among symbols, at least 1 each; what is left goes to the first largest."""
    free = (1 << PRECISION) - weights.size
    shares = 1 + weights * free // max(int(weights.sum()), 1)
    shares[int(np.argmax(weights))] += (1 << PRECISION) - int(shares.sum())
    return shares
