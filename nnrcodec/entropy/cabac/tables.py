"""The numbers of DeepCABAC: context states, range table, numbering of contexts.

Owns the tables of the standard and everything computed from them alone, as integer arrays that
compiled and plain code share.
"""

from __future__ import annotations

import numpy as np

TRANSITION = np.array(
    [
        *(2512, 2288, 2064, 1840, 1616, 1392, 1168, 944, 720, 560, 464, 368, 272, 208, 144, 80),
        *(64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 0),
    ],
    np.int32,
)
"""How far an estimator moves, by 16 plus its distance to the bin; before the shift of its set."""

PARAMETER_SETS = np.array(
    [
        (5, 4, 0, 0),
        (5, 4, -41, -654),
        (5, 4, 95, 1519),
        (4, 5, 0, 0),
        (6, 6, 30, 482),
        (6, 6, 95, 1519),
        (6, 6, -21, -337),
        (7, 5, 0, 0),
        (7, 5, 30, 482),
    ],
    np.int32,
)
"""Shift of the fast and of the slow estimator, and their initial values, for each set 0 to 8."""

_RANGE_LPS_ROWS = """
128 112 97 84 74 65 57 50 45 39 34 30 27 23 20 18 15 14 12 11 10 9 7 7 5 5 4 4 3 3 2 2
142 125 108 93 82 72 63 56 50 43 38 33 30 26 22 20 17 16 13 12 11 10 8 8 6 6 5 5 3 3 2 2
156 137 119 103 90 79 70 61 55 48 42 37 33 28 24 22 19 17 15 13 12 11 9 9 6 6 5 5 4 4 2 2
171 150 130 112 99 87 76 67 60 52 46 40 36 31 27 24 21 19 16 15 13 12 10 10 7 7 6 6 4 4 3 3
185 162 141 121 107 94 82 73 65 56 50 43 39 34 29 26 22 21 17 16 14 13 11 11 8 8 6 6 4 4 3 3
199 175 152 131 115 101 89 78 70 61 54 47 42 36 31 28 24 22 19 17 15 14 12 12 8 8 7 7 5 5 3 3
213 187 163 140 123 108 95 84 75 65 58 50 45 39 33 30 26 24 20 18 16 15 13 13 9 9 7 7 5 5 3 3
228 200 174 150 132 116 102 90 80 70 62 54 48 42 36 32 28 26 22 20 18 16 14 14 10 10 8 8 6 6 4 4
"""
RANGE_LPS = np.array(_RANGE_LPS_ROWS.split(), np.int32).reshape(8, 32)
"""Range of the less probable bin, by bits 5 to 7 of the range and by how sure the context is."""

STATE_TRANSITION = np.array(
    [[0, 2], [7, 5], [1, 3], [6, 4], [2, 0], [5, 7], [3, 1], [4, 6]], np.int32
)
"""State of dependent quantization after a level, by state and by parity of the level."""

# Numbering of contexts: those of significance first, then sign, magnitude, and the flags.
SIGNIFICANCE = 0
SIGNIFICANCE_TEMPORAL = 24
SIGNIFICANCE_HISTORY = 40
SIGN = 48
SIGN_TEMPORAL = 51
GREATER = 53
"""Greater-than flags: 2N of them, then 2N temporal ones, then the remainder; N the unary length."""

REMAINDERS = 31
"""Contexts of the prefix of the remainder."""


def remainder_context(unary_length: int) -> int:
    """Return the first context of the remainder."""
    return GREATER + 4 * unary_length


def shift_flag_context(unary_length: int) -> int:
    """Return the context of the flags that say whether a context has a set other than 0."""
    return remainder_context(unary_length) + REMAINDERS + 3


def row_skip_context(unary_length: int) -> int:
    """Return the context of the flags of skipped rows."""
    return remainder_context(unary_length) + REMAINDERS + 5


def count_contexts(unary_length: int) -> int:
    """Return how many contexts there are."""
    return remainder_context(unary_length) + REMAINDERS + 6
