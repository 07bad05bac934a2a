"""Token sequences that are made up."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nnrcodec.calibration.tokens import LONGEST, MIDDLE, SHORTEST, Vocabulary, length_of, used


@given(st.integers(1, 2000), st.integers(1, 70), st.integers(0, 2**32), st.booleans())
def test_sequences_are_rows_of_the_table_between_the_same_marks(
    rows: int, length: int, seed: int, held_out: bool
) -> None:
    rng = np.random.default_rng(seed)
    vocabulary = Vocabulary(rows, rng, held_out=held_out)
    made = [vocabulary.sequence(length, rng) for _ in range(3)]
    assert all(part.shape == (length,) for part in made)
    assert 0 <= np.min(made) <= np.max(made) < rows
    if rows > 3 and length > 2:
        assert len({(part[0], part[-1]) for part in made}) == 1


def test_few_tokens_are_frequent_and_the_seed_decides_which() -> None:
    counts = []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        words = Vocabulary(30_000, rng).sequence(20_000, rng)
        counts.append(np.bincount(words, minlength=30_000))
        ranked = np.sort(counts[-1])[::-1]
        assert 0.2 < ranked[:20].sum() / 20_000 < 0.5
        assert np.count_nonzero(ranked) > 4000
    assert np.argmax(counts[0]) != np.argmax(counts[1])


def test_lengths_vary_and_the_first_is_in_the_middle() -> None:
    rng = np.random.default_rng(0)
    assert length_of(0, rng) == MIDDLE
    lengths = [length_of(number, rng) for number in range(1, 300)]
    assert min(lengths) == SHORTEST
    assert max(lengths) == LONGEST
    assert SHORTEST < np.median(lengths) < LONGEST / 2


@given(st.integers(1, 100), st.integers(0, 2**32))
def test_some_of_a_sequence_may_be_padding(length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = [used(length, rng) for _ in range(60)]
    assert min(found) >= 1
    assert max(found) == length
    assert length < 4 or min(found) < length
