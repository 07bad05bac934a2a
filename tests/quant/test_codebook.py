from __future__ import annotations

import numpy as np
import pytest

from nnrcodec.quant.codebook import LONGEST, codebook_of, codebooks
from nnrcodec.syntax.bitio import BitReader, BitWriter
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.data_unit import Codebook, codebook
from nnrcodec.syntax.drivers import SyntaxReader, SyntaxWriter

RNG = np.random.default_rng(0)
LEVELS = {
    "one": np.full((3, 4), -7, np.int32),
    "two": RNG.choice(np.int32([0, 1]), 30),
    "without zero": RNG.choice(np.int32([-50, -3, 2, 1000]), (5, 6)),
    "positive": RNG.choice(np.int32([4, 5, 6, 9]), 99),
    "far apart": np.int32([-(2**24), 2**24, 0, 1]),
    "many": RNG.integers(-300, 300, (50, 50)).astype(np.int32),
}


def bits_of(listed: Codebook) -> int:
    bits = BitWriter()
    SyntaxWriter(bits).code(listed, (codebook,), StreamContext())
    return bits.position


@pytest.mark.parametrize("name", LEVELS)
def test_indices_stand_for_the_levels(name: str) -> None:
    levels = LEVELS[name]
    found = list(codebooks(levels))
    assert 1 <= len(found) <= 4
    for listed, indices in found:
        entries = np.array(listed.entries())
        assert indices.dtype == np.int32
        assert np.array_equal(entries[indices + listed.cb_zero_offset], levels)
        assert set(entries.tolist()) == set(levels.ravel().tolist())


@pytest.mark.parametrize("name", LEVELS)
def test_a_codebook_comes_back_from_its_bits(name: str) -> None:
    for listed, _ in codebooks(LEVELS[name]):
        bits = BitWriter()
        SyntaxWriter(bits).code(listed, (codebook,), StreamContext())
        bits.byte_alignment()
        again = Codebook()
        SyntaxReader(BitReader(bits.to_bytes())).code(again, (codebook,), StreamContext())
        assert again == listed


@pytest.mark.parametrize("name", LEVELS)
def test_the_order_of_the_code_is_the_best(name: str) -> None:
    entries = np.unique(LEVELS[name])
    listed = codebook_of(entries, entries.size // 2)
    sizes = []
    for order in range(16):
        other = codebook_of(entries, entries.size // 2)
        other.codebook_egk = order
        sizes.append(bits_of(other))
    assert bits_of(listed) == min(sizes)


def test_a_list_that_never_pays_is_not_tried() -> None:
    assert not list(codebooks(np.arange(LONGEST + 1, dtype=np.int32)))
