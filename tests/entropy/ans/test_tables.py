from __future__ import annotations

from decimal import Decimal, getcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnrcodec.entropy.ans.fit import data_bits, fit_table, table_bits
from nnrcodec.entropy.ans.levels import LevelTable, TableForm, knot_magnitudes
from nnrcodec.entropy.ans.tables import EXP2, PRECISION, probabilities
from nnrcodec.errors import PayloadError

SPECIFIED_KNOTS = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768]


def test_powers_of_two_are_rounded_to_the_nearest_integer() -> None:
    getcontext().prec = 40
    exact = [Decimal(2) ** (15 + Decimal(i) / 64) for i in range(64)]
    assert [int(power.to_integral_value()) for power in exact] == list(EXP2)


@pytest.mark.parametrize("highest", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 100, 768, 1000])
def test_knots_are_the_specified_ones(highest: int) -> None:
    assert knot_magnitudes(highest) == [k for k in SPECIFIED_KNOTS if k < highest] + [highest]


def plain_probabilities(table: LevelTable) -> list[int]:
    """The specification in plain integers, level by level."""
    magnitudes = dict(zip(knot_magnitudes(table.table_highest_level), table.codes, strict=False))
    knots = table.knots
    codes = list(table.codes)
    escape = [codes.pop()] if table.table_escape_flag else []
    if table.table_form == TableForm.SYMMETRIC:
        codes = [magnitudes[abs(k)] for k in knots]
    at = {k: c << (6 - table.code_precision) for k, c in zip(knots, codes, strict=True)}
    logarithms = []
    for level in range(table.table_lowest_level, table.table_highest_level + 1):
        if level not in at:
            a = max(k for k in knots if k < level)
            b = min(k for k in knots if k > level)
            logarithms.append(at[a] + (at[b] - at[a]) * (level - a) // (b - a))
        else:
            logarithms.append(at[level])
    logarithms += [c << (6 - table.code_precision) for c in escape]
    weights = [0 if not v else (EXP2[v % 64] << (v // 64)) // 2**15 for v in logarithms]
    n, total = len(weights), sum(weights) or 1
    shares = [1 + w * (2**24 - n) // total for w in weights]
    shares[weights.index(max(weights))] += 2**24 - sum(shares)
    return shares


@st.composite
def tables(draw: st.DrawFn) -> LevelTable:
    form = draw(st.sampled_from([TableForm.DIRECT, TableForm.TWO_SIDED, TableForm.SYMMETRIC]))
    table = LevelTable(form)
    if form == TableForm.SYMMETRIC:
        table.table_lowest_level = draw(st.integers(-2047, -1))
    else:
        count = draw(st.integers(1, 60 if form == TableForm.DIRECT else 4095))
        table.table_level_count_minus1 = count
        table.table_lowest_level = draw(
            st.integers(-1000, 1000) if form == TableForm.DIRECT else st.integers(-count, 0)
        )
    table.table_escape_flag = draw(st.integers(0, 1))
    table.code_precision = draw(st.integers(0, 3))
    highest = 16 << table.code_precision
    codes = draw(
        st.lists(st.integers(0, highest), min_size=table.code_count, max_size=table.code_count)
    )
    table.first_code = codes[0]
    table.code_delta = np.diff(codes).tolist()
    return table


@settings(deadline=None)
@given(tables())
def test_every_table_is_complete_and_as_specified(table: LevelTable) -> None:
    shares = probabilities(table)
    assert shares.min() >= 1
    assert shares.sum() == 1 << PRECISION
    assert shares.tolist() == plain_probabilities(table)


def test_codes_out_of_range_are_refused() -> None:
    table = LevelTable(TableForm.DIRECT, 1, 0, first_code=16, code_delta=[1])
    with pytest.raises(PayloadError, match="codes of a table are 16 to 17, expected 0 to 16"):
        probabilities(table)


def empirical_bits(counts: np.ndarray) -> float:
    used = counts[counts > 0]
    return float(-(used * np.log2(used / used.sum())).sum())


@pytest.mark.parametrize(
    ("scale", "elements"),
    [(s, n) for s in (0.4, 2.0, 9.0, 60.0) for n in (2_000, 50_000, 1_000_000) if n > 500 * s],
)
@pytest.mark.parametrize("shape", ["normal", "laplace", "standard_t"])
def test_fitted_tables_are_within_side_information_of_the_entropy(
    shape: str, scale: float, elements: int
) -> None:
    rng = np.random.default_rng(7)
    draws = (
        rng.standard_t(4, elements) if shape == "standard_t" else getattr(rng, shape)(size=elements)
    )
    levels = np.clip(np.rint(draws * scale), -1023, 1023).astype(int)
    counts = np.bincount(levels - levels.min())
    fitted = fit_table(counts, int(levels.min()))
    assert fitted.bits >= empirical_bits(counts) * 0.999
    assert fitted.bits <= empirical_bits(counts) * 1.004 + 50 * 8


def test_bits_are_those_of_table_and_data() -> None:
    counts = np.array([3, 0, 40, 7, 1])
    fitted = fit_table(counts, -2, escapes=2)
    table = fitted.table
    padded = np.zeros(table.table_highest_level - table.table_lowest_level + 2)
    first = -2 - table.table_lowest_level
    padded[first : first + counts.size] = counts
    padded[-1] = 2
    assert fitted.bits == pytest.approx(table_bits(table) + data_bits(table, padded))
    exact = [Fraction(int(p), 2**24) for p in probabilities(table)]
    assert sum(exact) == 1


def test_one_level_alone_needs_no_codes() -> None:
    table = fit_table(np.array([0, 9, 0]), 4).table
    assert (table.table_form, table.table_lowest_level) == (TableForm.CONSTANT, 5)


def test_nothing_but_escapes() -> None:
    table = fit_table(np.zeros(3, int), -1, escapes=5).table
    assert table.table_escape_flag == 1
    assert probabilities(table).size == 2
