"""The encoder's side of the tables: which codes describe given counts best.

Nothing here is normative: a decoder reads codes and never asks where they come from. A smooth table
is the maximum-likelihood fit of a piecewise log-linear density, found by Newton's method; the form
and the precision with the fewest bits in all, side information included, win.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nnrcodec.entropy.ans.levels import LevelTable, TableForm
from nnrcodec.entropy.ans.tables import MAX_OCTAVES, PRECISION, probabilities

_NEWTON_STEPS = 40
_LONGEST_STEP = 2.0
"""Newton steps are cut to this length, in units of the natural logarithm."""
_DIRECT_MAX_LEVELS = 512
"""A direct table sends a code for every level, so it is not tried beyond this many."""


@dataclass(frozen=True, slots=True)
class FittedTable:
    """A table and what it costs.

    Parameters
    ----------
    table : LevelTable
        The description.
    bits : float
        Bits of the description and of the levels coded with it.
    """

    table: LevelTable
    bits: float


def fit_table(counts: np.ndarray, lowest_level: int, escapes: int = 0) -> FittedTable:
    """Find the table that codes given counts in the fewest bits.

    Parameters
    ----------
    counts : ndarray of int64, shape (n,)
        How often level ``lowest_level + i`` occurs.
    lowest_level : int
        The level of ``counts[0]``.
    escapes : int
        How many further levels are sent as escapes.

    Returns
    -------
    FittedTable
    """
    used = np.flatnonzero(counts)
    if not used.size:  # escapes only; a table has at least one level
        used = np.zeros(1, np.int64)
    lowest, highest = int(lowest_level + used[0]), int(lowest_level + used[-1])
    if used.size == 1 and not escapes:
        table = LevelTable(TableForm.CONSTANT, 0, lowest)
        return FittedTable(table, table_bits(table))
    candidates = []
    if highest - lowest < _DIRECT_MAX_LEVELS:
        candidates.append((TableForm.DIRECT, lowest, highest))
    candidates.append((TableForm.TWO_SIDED, min(lowest, 0), max(highest, 0)))
    if lowest < 0 <= highest:
        reach = max(-lowest, highest)
        candidates.append((TableForm.SYMMETRIC, -reach, reach))
    return min(
        (
            _fit_form(form, low, high, counts, lowest_level, escapes)
            for form, low, high in candidates
        ),
        key=lambda fitted: fitted.bits,
    )


def _fit_form(
    form: TableForm, lowest: int, highest: int, counts: np.ndarray, counts_lowest: int, escapes: int
) -> FittedTable:
    """Fit the codes of one form of table and choose their precision."""
    count_minus1 = 0 if form == TableForm.SYMMETRIC else highest - lowest
    table = LevelTable(form, count_minus1, lowest, int(escapes > 0))
    padded = np.zeros(highest - lowest + 1 + table.table_escape_flag)
    first = max(lowest, counts_lowest)
    last = min(highest, counts_lowest + counts.size - 1)
    padded[first - lowest : last - lowest + 1] = counts[
        first - counts_lowest : last - counts_lowest + 1
    ]
    if escapes:
        padded[-1] = escapes
    octaves = (
        _direct_octaves(padded) if form == TableForm.DIRECT else _smooth_octaves(table, padded)
    )
    return min(
        (_with_codes(table, octaves, precision, padded) for precision in range(4)),
        key=lambda fitted: fitted.bits,
    )


def _with_codes(
    table: LevelTable, octaves: np.ndarray, precision: int, counts: np.ndarray
) -> FittedTable:
    """Round logarithms (the largest is `MAX_OCTAVES`) to codes and count the bits."""
    codes = np.rint(octaves * (1 << precision)).astype(np.int64)
    lowest_code = 0 if table.table_form == TableForm.DIRECT else 1
    codes = np.clip(codes, lowest_code, MAX_OCTAVES << precision)
    deltas = np.diff(codes)
    described = replace(
        table,
        code_precision=precision,
        code_order=min(range(4), key=lambda order: _ie_bits(deltas, order)),
        first_code=int(codes[0]),
        code_delta=deltas.tolist(),
    )
    bits = table_bits(described) + data_bits(described, counts)
    return FittedTable(described, bits)


def data_bits(table: LevelTable, counts: np.ndarray) -> float:
    """Return the bits that levels with the given counts of symbols take."""
    cost = PRECISION - np.log2(probabilities(table))
    return float(counts @ cost)


def table_bits(table: LevelTable) -> int:
    """Return the bits of the description of a table, as the syntax writes it."""
    bits = 2 + _ie_bits(table.table_lowest_level, 2)
    if table.table_form == TableForm.CONSTANT:
        return bits
    if table.table_form != TableForm.SYMMETRIC:
        bits += _ue_bits(table.table_level_count_minus1, 4)
    return bits + 1 + 2 + 2 + 8 + _ie_bits(np.array(table.code_delta, int), table.code_order)


def _ue_bits(values: np.ndarray | int, order: int) -> int:
    """Return the bits that values take as ue(order), together."""
    _, exponents = np.frexp((np.asarray(values, np.int64) >> order) + 1.0)
    return int((2 * exponents - 1 + order).sum())


def _ie_bits(values: np.ndarray | int, order: int) -> int:
    """Return the bits that values take as ie(order), together."""
    values = np.asarray(values, np.int64)
    return _ue_bits(np.where(values > 0, 2 * values - 1, -2 * values), order)


def _direct_octaves(counts: np.ndarray) -> np.ndarray:
    """Return the logarithms of counts, the largest moved to `MAX_OCTAVES`, empty ones 0."""
    with np.errstate(divide="ignore"):
        octaves = np.log2(counts)
    octaves += MAX_OCTAVES - octaves.max()
    return np.where(counts > 0, np.maximum(octaves, 1), 0)


def _smooth_octaves(table: LevelTable, counts: np.ndarray) -> np.ndarray:
    """Fit the logarithms at the knots by maximum likelihood, the largest moved to `MAX_OCTAVES`."""
    basis = _interpolation(table)
    total = counts.sum()
    prior = 1e-3 + total * 1e-6  # keeps knots that no level touches near their neighbours' scale
    theta = np.zeros(basis.shape[1])
    for _ in range(_NEWTON_STEPS):
        logits = basis @ theta
        share = np.exp(logits - logits.max())
        share /= share.sum()
        mean = basis.T @ share
        gradient = basis.T @ counts - total * mean - prior * theta
        hessian = total * ((basis.T * share) @ basis - np.outer(mean, mean))
        hessian[np.diag_indices_from(hessian)] += prior
        change = np.linalg.solve(hessian, gradient)
        largest = float(np.abs(change).max())
        theta += change * min(1.0, _LONGEST_STEP / max(largest, 1e-12))
        if largest < 1e-3:
            break
    octaves = theta / np.log(2)
    return octaves + (MAX_OCTAVES - octaves.max())


def _interpolation(table: LevelTable) -> np.ndarray:
    """Return the matrix that takes codes at knots to logarithms of symbols."""
    knots = np.array(table.knots)
    levels = np.arange(table.table_lowest_level, table.table_highest_level + 1)
    basis = np.stack([np.interp(levels, knots, row) for row in np.eye(knots.size)], axis=1)
    if table.table_form == TableForm.SYMMETRIC:
        middle = knots.size // 2
        folded = basis[:, middle:].copy()
        folded[:, 1:] += basis[:, :middle][:, ::-1]
        basis = folded
    if table.table_escape_flag:
        basis = np.pad(basis, ((0, 1), (0, 1)))
        basis[-1, -1] = 1
    return basis
