"""The compiled loops equal their plain twins."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnrcodec.entropy.ans.levels import LevelTable, TableForm
from nnrcodec.entropy.lossless import kernels, plain
from nnrcodec.entropy.lossless.tables import SLOTS, coding_of, fit, shares, slots_of
from nnrcodec.errors import PayloadError

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([0, 1, 2, 7, 300, 4095, 4096, 4099]), st.integers(1, 5))
def test_symbols(seed: int, count: int, contexts: int) -> None:
    rng = np.random.default_rng(seed)
    bits = int(rng.integers(1, 13))
    symbols = np.minimum(rng.geometric(rng.uniform(0.01, 0.99), count), (1 << bits) - 1)
    symbols = symbols.astype(np.uint16)
    chosen = rng.integers(0, contexts, count).astype(np.uint8)
    tables = [
        fit(np.bincount(symbols[chosen == c], minlength=1 << bits))[0] for c in range(contexts)
    ]
    assert all(shares(table, bits).sum() == SLOTS for table in tables)
    coding, slots = coding_of(tables, bits), slots_of(tables, bits)
    for table, row in zip(tables, slots.reshape(contexts, SLOTS), strict=True):
        expected = plain.slots_of(shares(table, bits).tolist(), table.table_lowest_level)
        assert row.tolist() == expected
    words = np.empty(count + 2 * kernels.LANES, np.uint16)
    start = kernels.encode_symbols(symbols, chosen, coding, words)
    listed = words[start:].tolist()
    assert plain.encode_symbols(symbols.tolist(), chosen.tolist(), coding.tolist()) == listed

    cut = int(rng.integers(0, 4))  # 1 to 3: damaged
    if cut == 1:
        listed = listed[: int(rng.integers(0, len(listed)))]
    elif cut == 2:
        listed[int(rng.integers(0, len(listed)))] ^= 1 << int(rng.integers(0, 16))
    elif cut == 3:
        listed = rng.integers(0, 2**16, len(listed)).tolist()
    decoded = np.zeros(count, np.uint16)
    end = kernels.decode_symbols(np.array(listed, np.uint16), 0, slots, chosen, decoded)
    expected, plainly = plain.decode_symbols(listed, 0, slots.tolist(), chosen.tolist())
    assert end == expected
    if end != kernels.TRUNCATED:
        assert decoded.tolist() == plainly
    if not cut:
        assert end == len(listed)
        assert np.array_equal(decoded, symbols)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 3),
    st.lists(st.one_of(st.sampled_from([0, 16]), st.integers(-1, 130)), min_size=1, max_size=90),
)
def test_slots(precision: int, codes: list[int]) -> None:
    """The compiled slots are those of `shares`, or both refuse the table."""
    table = LevelTable(
        TableForm.DIRECT,
        len(codes) - 1,
        code_precision=precision,
        first_code=codes[0],
        code_delta=np.diff(codes).tolist(),
    )
    try:
        expected = plain.slots_of(shares(table, 7).tolist(), 0)
    except PayloadError as error:
        with pytest.raises(PayloadError, match=re.escape(str(error))):
            slots_of([table], 7)
    else:
        assert slots_of([table], 7).tolist() == expected


def test_more_symbols_than_slots_are_refused() -> None:
    table = LevelTable(TableForm.DIRECT, SLOTS, first_code=1, code_delta=[0] * SLOTS)
    with pytest.raises(PayloadError, match="a table has 4097 symbols that occur, expected 4096"):
        slots_of([table], 13)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from([8, 16, 32, 64]), st.integers(0, 50))
def test_bits(seed: int, width: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    bits = int(rng.integers(1, min(width, 32) + 1))
    shift = int(rng.integers(0, width - bits + 1))
    patterns = rng.integers(0, 2**width, count, np.uint64, endpoint=False) if width < 64 else (
        rng.integers(0, 2**64 - 1, count, np.uint64, endpoint=True)
    )  # fmt: skip
    patterns = patterns.astype(f"u{width // 8}")
    packed = np.zeros((count * bits + 31) // 32, np.uint32)
    kernels.pack_bits(patterns, shift, bits, packed)
    assert packed.tolist() == plain.pack_bits(patterns.tolist(), shift, bits)
    found = np.zeros_like(patterns)
    kernels.unpack_bits(packed, shift, bits, found)
    assert found.tolist() == plain.unpack_bits(packed.tolist(), shift, bits, count)
    assert found.tolist() == [p & ((1 << bits) - 1) << shift for p in patterns.tolist()]


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_join(width: int, rotated: bool) -> None:
    rng = np.random.default_rng(width)
    symbols = rng.integers(0, 2**3, 40, np.uint16)
    packed = rng.integers(0, 2**32, 40, np.uint32)
    patterns = np.zeros(40, f"u{width // 8}")
    kernels.join(symbols, width - 3, packed, 1, 4, 1, rotated, patterns)
    listed = packed.tolist(), 1, 4, 1, rotated, width
    assert patterns.tolist() == plain.join(symbols.tolist(), width - 3, *listed)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 8), st.sampled_from([1, 3, 4, 31, 1023, 1024, 1029, 4096]))
def test_join_of_16_bits(seed: int, bits: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    shift = int(rng.integers(0, 16 - bits + 1))
    above = 16 - bits - shift
    symbols = rng.integers(0, 1 << max(above, shift), count, np.uint16)
    symbol_shift = shift + bits if above >= shift else 0
    constant = int(rng.integers(0, 2**16)) & (1 << min(above, shift)) - 1
    constant <<= 0 if above >= shift else shift + bits
    packed = rng.integers(0, 2**32, (count * bits + 31) // 32, np.uint32)
    for rotated in (False, True):
        given_to_both = symbol_shift, packed, shift, bits, constant, rotated
        patterns = np.zeros(count, np.uint16)
        kernels.join_16(symbols, *given_to_both, patterns)
        listed = symbol_shift, packed.tolist(), shift, bits, constant, rotated, 16
        assert patterns.tolist() == plain.join(symbols.tolist(), *listed)


@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_places(width: int) -> None:
    rng = np.random.default_rng(width)
    symbols = rng.integers(0, 2**7, 40, np.uint16)
    patterns = rng.integers(0, 2, 40).astype(f"u{width // 8}")
    expected = plain.place_symbols(symbols.tolist(), width - 7, patterns.tolist())
    kernels.place_symbols(symbols, width - 7, patterns)
    assert patterns.tolist() == expected


@pytest.mark.parametrize("rest", [1, 3])
@pytest.mark.parametrize("start", [0, 1, 17])
def test_contexts(rest: int, start: int) -> None:
    rng = np.random.default_rng(rest)
    row, column = (rng.integers(0, 8, n).astype(np.uint8) for n in (5, 4))
    contexts = np.zeros(5 * 4 * rest - start, np.uint8)
    kernels.fill_contexts(row, column, rest, start, contexts)
    expected = plain.contexts_of(row.tolist(), column.tolist(), rest, start, contexts.size)
    assert contexts.tolist() == expected
