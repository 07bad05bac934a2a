"""Bit patterns as what changes others into them, and as what the fields of a model make up."""

from __future__ import annotations

import numpy as np

from nnrcodec.entropy.lossless.model import Difference, LosslessModel, WordForm
from nnrcodec.errors import PayloadError


def differences(now: np.ndarray, before: np.ndarray, form: Difference) -> np.ndarray:
    """Return what changes bit patterns into others.

    Parameters
    ----------
    now, before : ndarray of uint8, uint16, uint32 or uint64
        Of the same shape.
    form : Difference
        Any but NONE.
    """
    if form == Difference.NEW:
        return now
    return np.bitwise_xor(now, before) if form == Difference.XOR else _sum(now, _negative(before))


def changed(before: np.ndarray, difference: np.ndarray, form: Difference) -> np.ndarray:
    """Return bit patterns that were changed: the inverse of `differences`."""
    if form == Difference.NEW:
        return difference
    if form == Difference.XOR:
        return np.bitwise_xor(before, difference)
    return _sum(before, difference)


def _sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Add words, which wrap around; those of no dimensions, too, without a warning."""
    return (a.reshape(-1) + b.reshape(-1)).reshape(a.shape)


def _negative(words: np.ndarray) -> np.ndarray:
    return (words.dtype.type(0) - words.reshape(-1)).reshape(words.shape)


def mapped(words: np.ndarray, model: LosslessModel) -> np.ndarray:
    """Return what the fields of a model make up.

    Parameters
    ----------
    words : ndarray of uint8, uint16, uint32 or uint64, shape (n,)
    model : LosslessModel
        A palette has all of the words, ascending.
    """
    kind, bits = words.dtype.type, model.word_bits
    if model.word_form == WordForm.ROTATED:
        return words << kind(1) | words >> kind(bits - 1)
    if model.word_form == WordForm.ZIGZAG:
        return words << kind(1) ^ (kind(0) - (words >> kind(bits - 1)))
    if model.word_form == WordForm.PALETTE:
        return np.searchsorted(np.array(model.palette_word, kind), words).astype(kind)
    return words


def unmapped(words: np.ndarray, model: LosslessModel) -> None:
    """Change what the fields make up into bit patterns: the inverse of `mapped`, in place.

    Raises
    ------
    PayloadError
        If an index is not in the palette.
    """
    kind, bits = words.dtype.type, model.word_bits
    if model.word_form == WordForm.ROTATED:
        sign = words << kind(bits - 1)
        words >>= kind(1)
        words |= sign
    elif model.word_form == WordForm.ZIGZAG:
        sign = kind(0) - (words & kind(1))
        words >>= kind(1)
        words ^= sign
    elif model.word_form == WordForm.PALETTE and words.size:
        if int(words.max()) > model.count_palette_minus1:
            raise PayloadError(
                f"index {int(words.max())} into a palette of {model.count_palette_minus1 + 1}"
            )
        words[:] = np.array(model.palette_word, kind)[words]
