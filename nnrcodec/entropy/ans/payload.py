"""Levels to bytes by rANS (asymmetric numeral systems) with static tables, and back.

The coder is that of the constriction library: a stack, so the encoder pushes in reverse what the
decoder pops in order. Tables reach it as integers (`nnrcodec.entropy.ans.tables`), 32-bit words
leave it in little-endian order. All levels of a class are coded in one call.
"""

from __future__ import annotations

import constriction
import numpy as np

from nnrcodec.entropy.ans import scale_classes
from nnrcodec.entropy.ans.fit import fit_table
from nnrcodec.entropy.ans.levels import MAX_CLASSES, LevelModel, LevelTable, TableForm
from nnrcodec.entropy.ans.scale_classes import Layout, ScaleClasses
from nnrcodec.entropy.ans.tables import probabilities
from nnrcodec.errors import PayloadError

ESCAPE_MAGNITUDE = 1023
"""Levels beyond this (after `low_bits` are split off) are sent as escapes."""

_COMMON_MAGNITUDE = 255
"""Low bits are split off until nine levels of ten are within this."""


def encode_levels(levels: np.ndarray) -> tuple[LevelModel, bytes]:
    """Code levels.

    Parameters
    ----------
    levels : ndarray of int32
        Any shape, at least one element.

    Returns
    -------
    model : LevelModel
        What the decoder must know, for the unit's header.
    payload : bytes
    """
    model = LevelModel(low_bits=_low_bits(levels))
    layout = Layout.of(levels.shape)
    high = (levels >> model.low_bits).reshape(layout.rows, layout.columns, layout.rest)
    clipped = np.clip(high, -ESCAPE_MAGNITUDE - 1, ESCAPE_MAGNITUDE + 1)
    classes = scale_classes.choose(clipped)
    tables = _fit_tables(model, clipped, classes)

    stack: list[tuple[np.ndarray, LevelTable]] = [
        (classes.row, model.row_class_table),
        (classes.column, model.column_class_table),
    ]
    for scale_class, table in enumerate(tables):
        coded = scale_classes.gather(high, classes, scale_class)
        if table.table_escape_flag:
            escaped = (coded > ESCAPE_MAGNITUDE) | (coded < -ESCAPE_MAGNITUDE)
            model.escape_level.extend(coded[escaped].tolist())
            coded = np.where(escaped, table.table_highest_level + 1, coded)
        stack.append((coded, table))
    model.count_escapes = len(model.escape_level)
    model.escape_order = _escape_order(model.escape_level)

    coder = constriction.stream.stack.AnsCoder()
    for coded, table in reversed(stack):
        if table.table_form != TableForm.CONSTANT and coded.size:
            symbols = (coded - table.table_lowest_level).astype(np.int32)
            coder.encode_reverse(symbols, _categorical(probabilities(table)))
    words = coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
    return model, _pack_low_bits(levels, model.low_bits) + words


def decode_levels(model: LevelModel, shape: tuple[int, ...], payload: memoryview) -> np.ndarray:
    """Decode what `encode_levels` made.

    Parameters
    ----------
    model : LevelModel
        From the unit's header.
    shape : tuple of int
        Dimensions, already compared with the decoder's limits.
    payload : memoryview

    Returns
    -------
    ndarray of int32, shape `shape`

    Raises
    ------
    PayloadError
        If the model is none, or the payload does not end exactly where the levels end.
    """
    _check_classes(model)
    layout = Layout.of(shape)
    elements = layout.rows * layout.columns * layout.rest
    low_bytes = (elements * model.low_bits + 7) // 8
    if len(payload) < low_bytes:
        raise PayloadError(f"payload has {len(payload)} bytes, its low bits need {low_bytes}")
    coder = _coder_of(payload[low_bytes:])
    row = _pop(coder, model.row_class_table, layout.rows)
    column = _pop(coder, model.column_class_table, layout.columns)
    classes = ScaleClasses(row, column)

    high = np.empty((layout.rows, layout.columns, layout.rest), np.int32)
    escapes = iter(model.escape_level)
    for scale_class, table in enumerate(model.class_tables()):
        coded = _pop(coder, table, scale_classes.size(layout, classes, scale_class))
        if table.table_escape_flag:
            for index in np.flatnonzero(coded > table.table_highest_level):
                coded[index] = _next_escape(escapes)
        scale_classes.scatter(coded, high, classes, scale_class)
    if not coder.is_empty():
        raise PayloadError("coded levels do not end where the payload ends")
    if next(escapes, None) is not None:
        raise PayloadError(f"{model.count_escapes} escapes are sent, but fewer are used")
    return _join_low_bits(high.reshape(shape), payload[:low_bytes], model.low_bits)


def _fit_tables(model: LevelModel, high: np.ndarray, classes: ScaleClasses) -> list[LevelTable]:
    """Fit the tables of classes and of levels into `model`; return the table of each class."""
    model.row_class_table = fit_table(np.bincount(classes.row), 0).table
    model.column_class_table = fit_table(np.bincount(classes.column), 0).table
    lowest = int(high.min())
    counts = scale_classes.histograms(high, classes, lowest, int(high.max()) - lowest + 1)
    outside = np.abs(np.arange(lowest, lowest + counts.shape[1])) > ESCAPE_MAGNITUDE
    first = 0
    for group, _ in scale_classes.merged_classes(counts):
        together = counts[first : first + group].sum(axis=0)
        escapes = int(together[outside].sum())
        together[outside] = 0
        model.table.append(fit_table(together, lowest, escapes).table)
        model.new_table_flag.extend([1] + [0] * (group - 1))
        first += group
    return list(model.class_tables())


def _check_classes(model: LevelModel) -> None:
    """Refuse classes that are not numbered from 0, or have no table."""
    for table in (model.row_class_table, model.column_class_table):
        lowest, highest = table.table_lowest_level, table.table_highest_level
        if table.table_escape_flag or lowest != 0 or highest >= MAX_CLASSES:
            raise PayloadError(
                f"classes are {lowest} to {highest}{' or escapes' * table.table_escape_flag}, "
                f"expected 0 to at most {MAX_CLASSES - 1}"
            )
    if not model.new_table_flag[0]:
        raise PayloadError("the first class has no table")


def _categorical(shares: np.ndarray) -> constriction.stream.model.Categorical:
    """Return a constriction model with exactly the given integer probabilities, two at least.

    The library gives every symbol 1 of 2**24 and shares out the rest in proportion to what it is
    given; given integers that make up the rest, there is nothing left to round.
    """
    return constriction.stream.model.Categorical((shares - 1).astype(np.float64), perfect=False)


def _pop(coder: constriction.stream.stack.AnsCoder, table: LevelTable, count: int) -> np.ndarray:
    """Decode `count` levels with one table; an escape is the level after the highest."""
    if table.table_form == TableForm.CONSTANT:
        return np.full(count, table.table_lowest_level, np.int32)
    if not count:
        return np.empty(0, np.int32)
    shares = probabilities(table)
    if shares.size == 1:  # takes no bits either, and constriction has no such model
        return np.full(count, table.table_lowest_level, np.int32)
    symbols: np.ndarray = coder.decode(_categorical(shares), count)
    symbols += np.int32(table.table_lowest_level)
    return symbols


def _coder_of(payload: memoryview) -> constriction.stream.stack.AnsCoder:
    """Return a coder over the words of a payload, whose trailing zero bytes are not sent."""
    if len(payload) and not payload[-1]:
        raise PayloadError("payload ends in a zero byte, which is never sent")
    words = np.frombuffer(bytes(payload) + bytes(-len(payload) % 4), "<u4").astype(np.uint32)
    return constriction.stream.stack.AnsCoder(words)


def _next_escape(escapes: object) -> int:
    level = next(escapes, None)  # type: ignore[call-overload]
    if level is None:
        raise PayloadError("more levels are escaped than escapes are sent")
    return int(level)


def _low_bits(levels: np.ndarray) -> int:
    """Return how many low bits are nearly uniform, so that they need no table."""
    low_bits = 0
    high = levels
    while _uncommon(high) > levels.size // 10:
        low_bits += 1
        high = levels >> low_bits
    return low_bits


def _uncommon(levels: np.ndarray) -> int:
    """Return how many levels have a magnitude beyond the common ones."""
    outside = (levels > _COMMON_MAGNITUDE) | (levels < -_COMMON_MAGNITUDE - 1)
    return int(np.count_nonzero(outside))


def _escape_order(levels: list[int]) -> int:
    """Return the order of the exp-Golomb code of the escapes."""
    if not levels:
        return 0
    middle = sorted(abs(level) for level in levels)[len(levels) // 2]
    return min(middle.bit_length(), 31)


def _pack_low_bits(levels: np.ndarray, low_bits: int) -> bytes:
    """Return the low bits of all levels in C order, most significant bit first."""
    if not low_bits:
        return b""
    shifts = np.arange(low_bits - 1, -1, -1, dtype=np.int32)
    return np.packbits((levels.reshape(-1, 1) >> shifts & 1).astype(np.uint8)).tobytes()


def _join_low_bits(high: np.ndarray, packed: memoryview, low_bits: int) -> np.ndarray:
    """Put the low bits back under the high ones."""
    if not low_bits:
        return high
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=high.size * low_bits)
    weights = 1 << np.arange(low_bits - 1, -1, -1, dtype=np.int64)
    low = bits.reshape(-1, low_bits) @ weights
    levels = (high.astype(np.int64) << low_bits) + low.reshape(high.shape)
    narrow = levels.astype(np.int32)
    if (narrow != levels).any():
        raise PayloadError("a level does not fit 32 bits")
    return narrow
