"""Tables of 4096 slots for rANS: the same codes as those of levels, in fewer probabilities.

A decoder finds a symbol with one look at a slot, so that it must be few slots. A symbol of code 0
does not occur.
"""

from __future__ import annotations

import numpy as np

from nnrcodec.entropy.ans.fit import table_bits
from nnrcodec.entropy.ans.levels import LevelTable, TableForm
from nnrcodec.entropy.ans.tables import MAX_OCTAVES, weights
from nnrcodec.entropy.lossless import kernels
from nnrcodec.errors import PayloadError

SLOT_BITS, SLOTS = kernels.SLOT_BITS, kernels.SLOTS


def shares(table: LevelTable, symbol_bits: int) -> np.ndarray:
    """Return how many of 4096 slots each symbol has, as `kernels.fill_slots` works it out, too.

    Parameters
    ----------
    table : LevelTable
        CONSTANT or DIRECT.
    symbol_bits : int
        Bits of a symbol.

    Returns
    -------
    ndarray of int64, shape (n,)
        Of symbol ``table_lowest_level + i``; the sum is 4096.

    Raises
    ------
    PayloadError
        If it is no table of such symbols.
    """
    _check(table, symbol_bits)
    if table.table_form == TableForm.CONSTANT:
        return np.array([SLOTS])
    return _shared_out(weights(table))


def _check(table: LevelTable, symbol_bits: int) -> None:
    """Refuse what is no table of such symbols."""
    lowest, highest = table.table_lowest_level, table.table_highest_level
    if (
        table.table_form not in (TableForm.CONSTANT, TableForm.DIRECT)
        or table.table_escape_flag
        or not 0 <= lowest <= highest < 1 << symbol_bits
    ):
        raise PayloadError(
            f"a table of form {int(table.table_form)} has symbols {lowest} to {highest}, expected "
            f"form 0 or 1, no escape, and 0 to {(1 << symbol_bits) - 1}"
        )


def _shared_out(weight: np.ndarray) -> np.ndarray:
    """Share out the slots, at least one for each weight; the first largest gets what is left."""
    used = weight > 0
    total = int(weight.sum())
    if not total:
        raise PayloadError("a table has no symbol that occurs")
    free = SLOTS - int(np.count_nonzero(used))
    if free < 0:
        raise PayloadError(f"a table has {SLOTS - free} symbols that occur, expected {SLOTS}")
    slots = used + weight * free // total
    slots[int(np.argmax(weight))] += SLOTS - int(slots.sum())
    return slots


def slots_of(tables: list[LevelTable], symbol_bits: int) -> np.ndarray:
    """Return the slots of tables, one after the other, as the decoder looks at them.

    Returns
    -------
    ndarray of uint64, shape (4096 * n,)
        Each has the symbol (from bit 32), the slots it has (from bit 16), and which of them this
        is.
    """
    slots = np.empty((len(tables), SLOTS), np.uint64)
    built: dict[int, np.ndarray] = {}
    for row, table in zip(slots, tables, strict=True):
        if id(table) in built:
            row[:] = built[id(table)]
        else:
            _fill_slots(table, symbol_bits, row)
            built[id(table)] = row
    return slots.reshape(-1)


def _fill_slots(table: LevelTable, symbol_bits: int, slots: np.ndarray) -> None:
    """Write the slots of a table; it is refused as `shares` refuses it."""
    _check(table, symbol_bits)
    lowest = table.table_lowest_level
    if table.table_form == TableForm.CONSTANT:
        slots[:] = np.arange(SLOTS, dtype=np.uint64) | np.uint64(lowest << 32 | SLOTS << 16)
        return
    codes = np.array(table.codes, np.int64)
    if not kernels.fill_slots(codes, table.code_precision, lowest, slots):
        shares(table, symbol_bits)  # says why


def coding_of(tables: list[LevelTable], symbol_bits: int) -> np.ndarray:
    """Return the slots of each symbol, as the encoder needs them.

    Returns
    -------
    ndarray of uint32, shape (n, 2 ** symbol_bits, 2)
        By table and symbol: the slots that it has, and the first of them.
    """
    coding = np.zeros((len(tables), 1 << symbol_bits, 2), np.uint32)
    for row, table in zip(coding, tables, strict=True):
        share = shares(table, symbol_bits)
        first = table.table_lowest_level
        row[first : first + share.size, 0] = share
        row[first : first + share.size, 1] = np.cumsum(share) - share
    return coding


def fit(counts: np.ndarray) -> tuple[LevelTable, float]:
    """Return the table that codes symbols in the fewest bits, and these bits, its own included.

    Parameters
    ----------
    counts : ndarray of int64, shape (n,)
        How often each symbol occurs.
    """
    used = np.flatnonzero(counts)
    if used.size < 2:
        table = LevelTable(TableForm.CONSTANT, 0, int(used[0]) if used.size else 0)
        return table, float(table_bits(table))
    lowest, highest = int(used[0]), int(used[-1])
    counts = counts[lowest : highest + 1]
    with np.errstate(divide="ignore"):
        octaves = np.log2(counts)
    octaves = np.where(counts > 0, np.maximum(octaves + MAX_OCTAVES - octaves.max(), 1), 0)
    fitted = (_described(octaves, counts, lowest, precision) for precision in range(4))
    return min(fitted, key=lambda pair: pair[1])


def _described(
    octaves: np.ndarray, counts: np.ndarray, lowest: int, precision: int
) -> tuple[LevelTable, float]:
    codes = np.rint(octaves * (1 << precision)).astype(np.int64)
    table = LevelTable(
        TableForm.DIRECT,
        counts.size - 1,
        lowest,
        code_precision=precision,
        first_code=int(codes[0]),
        code_delta=np.diff(codes).tolist(),
    )
    described = min((_with_order(table, order) for order in range(4)), key=table_bits)
    slots = _shared_out(weights(described))[counts > 0]
    bits = float(counts[counts > 0] @ (SLOT_BITS - np.log2(slots)))
    return described, bits + table_bits(described)


def _with_order(table: LevelTable, order: int) -> LevelTable:
    return LevelTable(
        table.table_form,
        table.table_level_count_minus1,
        table.table_lowest_level,
        code_precision=table.code_precision,
        code_order=order,
        first_code=table.first_code,
        code_delta=table.code_delta,
    )
