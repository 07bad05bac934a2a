"""Exponential-Golomb codes of whole arrays, compiled; `BitReader.ie` is the plain twin."""

from __future__ import annotations

import numpy as np

from nnrcodec.entropy.compiled import kernel

LONGEST_CODE = 62
"""Bits after the leading zeros: what is longer does not fit."""


@kernel
def read_ie(data, position, end, k, values):
    """Read several ie(k).

    Parameters
    ----------
    data : ndarray of uint8, shape (n,)
        The stream.
    position, end : int
        First bit to read, and first that must not be read.
    k : int
        Order of the codes.
    values : ndarray of int64, shape (m,)
        Filled.

    Returns
    -------
    int
        The bit after the last code; -1 if there is one that is damaged or longer than
        `LONGEST_CODE`.
    """
    for i in range(values.size):
        zeros = 0
        while position < end and not data[position >> 3] >> (7 - (position & 7)) & 1:
            zeros += 1
            position += 1
        length = 1 + zeros + k
        if length > LONGEST_CODE or position + length > end:
            return -1
        code = np.int64(0)
        for _ in range(length):
            code = code << 1 | np.int64(data[position >> 3] >> (7 - (position & 7)) & 1)
            position += 1
        code -= np.int64(1) << k
        values[i] = (code + 1) >> 1 if code & 1 else -(code >> 1)
    return position
