"""Token sequences that are made up, and the masks beside them."""

from __future__ import annotations

import math

import numpy as np

SHORTEST, LONGEST = 8, 64
"""Lengths of sequences, where these are free."""

ALIKE = 8
"""Inputs one after another that have the same length, so that they can be put into a batch."""

MIDDLE = 24
"""Length of the first: from it the encoder estimates how many there should be."""

PADDING = 0
"""The token where a sequence has ended."""


def length_of(number: int, rng: np.random.Generator) -> int:
    """Return the length of the sequences with a number, of runs of `ALIKE`."""
    drawn = round(SHORTEST * (LONGEST / SHORTEST) ** rng.random())
    return drawn if number else MIDDLE


class Vocabulary:
    """Tokens that stand for words: few of them are frequent, as in text.

    The token at rank r has a probability in proportion to 1 / (r + 2.7) (B. Mandelbrot, "An
    informational theory of the statistical structure of language", 1953).

    Parameters
    ----------
    rows : int
        Number of tokens.
    rng : numpy.random.Generator
        Decides which tokens are frequent, and which two begin and end each sequence.
    held_out : bool
        Whether rare words are more frequent: the probability is then less steep.
    """

    def __init__(self, rows: int, rng: np.random.Generator, *, held_out: bool = False) -> None:
        self._ranked = rng.permutation(rows)
        weights = (np.arange(rows) + 2.7) ** (-0.9 if held_out else -1.0)
        self._cumulative = np.cumsum(weights) / weights.sum()
        self._marks = rng.integers(min(1, rows - 1), rows, 2) if rows > 3 else None

    def sequence(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """Return a sequence of tokens, the first and the last of which are marks."""
        ranks = np.searchsorted(self._cumulative, rng.random(length), side="right")
        tokens = self._ranked[np.minimum(ranks, len(self._ranked) - 1)]
        if self._marks is not None and length > 2:
            tokens[[0, -1]] = self._marks
        return tokens


def used(length: int, rng: np.random.Generator) -> int:
    """Return how much of a sequence is not padding: all of it in half of the cases."""
    shortest = max(1, min(math.ceil(length / 3), length - 1))
    some = int(rng.integers(shortest, length + 1))
    return length if rng.random() < 0.5 else some
