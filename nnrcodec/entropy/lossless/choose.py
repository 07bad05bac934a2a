"""The encoder's side: which fields, classes and tables describe bit patterns best.

Nothing here is normative. The exponents of weights are far from uniform, and where rows or columns
of a tensor differ in scale, so do theirs; the first bits of mantissas a little, the others not
unless the values were once of another dtype.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from nnrcodec.entropy.ans.levels import LevelTable
from nnrcodec.entropy.ans.scale_classes import Layout
from nnrcodec.entropy.compiled import announced
from nnrcodec.entropy.lossless import kernels
from nnrcodec.entropy.lossless.model import (
    CHUNK_ELEMENTS,
    MAX_CODED_BITS,
    MAX_LAYOUTS,
    MAX_PALETTE,
    MAX_RAW_BITS,
    BitField,
    Difference,
    FieldCoding,
    FieldContext,
    FieldLayout,
    LosslessModel,
    WordForm,
)
from nnrcodec.entropy.lossless.payload import Classes, encode_words
from nnrcodec.entropy.lossless.tables import fit
from nnrcodec.entropy.lossless.words import mapped

EXPONENT_BITS = {"float32": 8, "bfloat16": 8, "float16": 5, "float64": 11}

_MANTISSA_BITS = range(5)
"""Bits of the mantissa that are tried in one symbol with the exponent."""

_BITS_PER_SYMBOL = 3.5
_BITS_OF_TABLE = 30.0
_BITS_OF_FIELD = 12.0
"""About what a table and a field take in the header."""

_PIECE_BITS = 8
_WORTH_CODING = 0.98
"""Bits that are uniform to this part are stored: decoding them is faster."""

_WORTH_A_LAYOUT = 1 << 16
"""Bits that another layout has to save; its tables take some of them."""

_SAMPLE = 1 << 20
_MAX_CLASS = 7
_CLASSES_PER_OCTAVE = 2
_FEWEST_FOR_CLASSES = 512
_BYTES_OF_SAMPLE = 1 << 19
_REPEATED = 1 / 16
"""Part of a sample that occurred before, from which on LZMA is tried."""


def encode(
    words: np.ndarray, dtype: str, difference: Difference = Difference.NONE
) -> tuple[LosslessModel, bytes]:
    """Code bit patterns in the fewest bytes that were found.

    Parameters
    ----------
    words : ndarray of uint8, uint16, uint32 or uint64
        Any shape, also without elements.
    dtype : str
        What they are the bit patterns of, a key of `nnrcodec.model.dtypes.DTYPES`.
    difference : Difference
        What they are.

    Returns
    -------
    model : LosslessModel
        What a decoder must know, for the header of the unit.
    payload : bytes
    """
    forms = [_form_of(dtype, difference)]
    palette = _palette(words)
    if palette is not None:
        forms.append(WordForm.PALETTE)
    if _repeats(words):
        forms.append(WordForm.LZMA)
    coded = []
    for form in forms:
        model = LosslessModel(words.dtype.itemsize.bit_length() - 1, int(difference), form)
        classes = None
        if form == WordForm.PALETTE and palette is not None:
            model.count_palette_minus1 = palette.size - 1
            model.palette_word = palette.tolist()
        if form != WordForm.LZMA:
            exponent = EXPONENT_BITS[dtype] if form == WordForm.ROTATED else 0
            patterns = mapped(words.reshape(-1), model).reshape(words.shape)
            classes = _fill(model, patterns, exponent)
        coded.append((model, encode_words(words, model, classes)))
    return min(coded, key=lambda pair: len(pair[1]) + _palette_bytes(pair[0]))


def _form_of(dtype: str, difference: Difference) -> WordForm:
    """Return the form of words that are neither few nor repeated."""
    if difference == Difference.INTEGER:
        return WordForm.ZIGZAG
    if difference == Difference.XOR:
        return WordForm.PLAIN
    if dtype in EXPONENT_BITS:
        return WordForm.ROTATED
    return WordForm.ZIGZAG if dtype.startswith("int") else WordForm.PLAIN


def _palette_bytes(model: LosslessModel) -> int:
    return len(model.palette_word) << model.log2_word_bytes


def _palette(words: np.ndarray) -> np.ndarray | None:
    """Return the different words if they are few, so that indices are better."""
    flat = words.reshape(-1)
    if flat.size < 64 or words.dtype.itemsize == 1:
        return None
    stride = max(1, flat.size // _SAMPLE)
    most = min(MAX_PALETTE, flat.size // 8)
    if np.unique(flat[::stride][: 1 << 16]).size > most:
        return None
    different = np.unique(flat)
    return different if 2 <= different.size <= most else None


def _repeats(words: np.ndarray) -> bool:
    """Return whether groups of eight bytes occur again in a sample, first bits aside."""
    flat = words.reshape(-1)[: _BYTES_OF_SAMPLE // words.dtype.itemsize]
    flat = flat[: flat.size * words.dtype.itemsize // 8 * 8 // words.dtype.itemsize]
    rest = flat & words.dtype.type((1 << 8 * words.dtype.itemsize - 1) - 1)
    units = np.ascontiguousarray(rest).view(np.uint64)
    return units.size >= 64 and np.unique(units).size < (1 - _REPEATED) * units.size


def _fill(model: LosslessModel, patterns: np.ndarray, exponent: int) -> Classes | None:
    """Choose the fields, and classes if they pay; return these."""
    flat = patterns.reshape(-1)
    bits = model.mapped_bits
    if not flat.size:
        fields = [_raw(min(bits, MAX_RAW_BITS)) for _ in range(-(-bits // MAX_RAW_BITS))]
        model.field_layout = [FieldLayout(len(fields) - 1, fields)]
        return None
    varying = int(np.bitwise_and.reduce(flat)) ^ int(np.bitwise_or.reduce(flat))
    classes, first = None, list[BitField]()
    if exponent and varying >> (bits - exponent):
        field, classes = _first_field(model, patterns, bits, exponent)
        first, bits = [field], bits - field.field_bits
    chunks = [flat[start : start + CHUNK_ELEMENTS] for start in range(0, flat.size, CHUNK_ELEMENTS)]
    layouts, chosen = _layouts(chunks, bits)
    for number in range(layouts):
        parts = [chunk for chunk, layout in zip(chunks, chosen, strict=True) if layout == number]
        some = flat if layouts == 1 else np.concatenate(parts)
        fields = list(_joined([*first, *_others(some, bits, is_float=bool(exponent))]))
        model.field_layout.append(FieldLayout(len(fields) - 1, fields))
    model.count_layouts_minus1 = layouts - 1
    model.chunk_layout = chosen if layouts > 1 else []
    return classes


def _layouts(chunks: Sequence[np.ndarray], bits: int) -> tuple[int, list[int]]:
    """Return how many layouts of the last bits there are to be, and that of each chunk.

    Some chunks may have more bits that are constant than others: rows that were never trained, or
    were once of another dtype.
    """
    low = (1 << bits) - 1
    fixed = [int(np.bitwise_and.reduce(chunk)) & low for chunk in chunks]
    varying = [
        f ^ int(np.bitwise_or.reduce(chunk)) & low for f, chunk in zip(fixed, chunks, strict=True)
    ]
    chosen = [0] * len(chunks)
    widths = [bits] * len(chunks)
    for layout in range(1, MAX_LAYOUTS):
        best, gained = None, 0
        for mask, value in {(v, f & ~v) for v, f in zip(varying, fixed, strict=True)}:
            width = mask.bit_count()
            fit_it = [
                j
                for j in range(len(chunks))
                if not varying[j] & ~mask and fixed[j] & ~mask == value and widths[j] > width
            ]
            gain = sum(chunks[j].size * (widths[j] - width) for j in fit_it)
            if gain > gained and len(fit_it) < len(chunks):
                best, gained = (width, fit_it), gain
        if best is None or gained < _WORTH_A_LAYOUT:
            break
        for j in best[1]:
            chosen[j], widths[j] = layout, best[0]
    used = sorted(set(chosen))
    return len(used), [used.index(layout) for layout in chosen]


def _others(flat: np.ndarray, rest: int, *, is_float: bool) -> Iterable[BitField]:
    """Yield the fields of the last bits of patterns."""
    if not rest:
        return
    fixed = int(np.bitwise_and.reduce(flat))
    varying = fixed ^ int(np.bitwise_or.reduce(flat))
    higher = np.zeros(0, bool)
    for width, constant in _runs(varying, rest, flat.size):
        rest -= width
        if constant:
            value = fixed >> rest & (1 << width) - 1
            yield BitField(width - 1, FieldCoding.CONSTANT, value)
            continue
        for shift, piece in _pieces(rest, width):
            symbols = flat >> flat.dtype.type(shift) & flat.dtype.type((1 << piece) - 1)
            field, higher = _piece(symbols, piece, higher, by_higher=not is_float)
            yield field


def _runs(varying: int, bits: int, elements: int) -> Iterable[tuple[int, bool]]:
    """Yield runs of bits that are the same everywhere, or not, from the highest; with lengths."""
    run, kind = 0, False
    runs: list[tuple[int, bool]] = []
    for bit in range(bits - 1, -1, -1):
        constant = not varying >> bit & 1
        if run and constant != kind:
            runs.append((run, kind))
            run = 0
        run, kind = run + 1, constant
    if run:
        runs.append((run, kind))
    joined: list[tuple[int, bool]] = []
    for width, constant in runs:
        worth = constant and (width * elements > 2 * _BITS_OF_FIELD or len(runs) == 1)
        if joined and not worth and not joined[-1][1]:
            joined[-1] = joined[-1][0] + width, False
        else:
            joined.append((width, worth))
    return joined


def _pieces(shift: int, width: int) -> Iterable[tuple[int, int]]:
    """Yield shift and width of pieces of a run, from the highest."""
    top = shift + width
    while top > shift:
        piece = (top - shift) % _PIECE_BITS or _PIECE_BITS
        top -= piece
        yield top, piece


def _piece(
    symbols: np.ndarray, bits: int, higher: np.ndarray, *, by_higher: bool
) -> tuple[BitField, np.ndarray]:
    """Return the field of a piece, and whether a coded symbol so far is not 0."""
    alone = np.bincount(symbols, minlength=1 << bits)[None]
    counts = alone
    if by_higher and higher.size and higher.any():
        counts = np.stack(
            [np.bincount(symbols[higher == h], minlength=1 << bits) for h in (False, True)]
        )
    cost, apart = _bits_with_table(alone), _bits_with_table(counts)
    if apart >= cost:
        counts, apart = alone, cost
    if apart >= _WORTH_CODING * bits * symbols.size:
        return _raw(bits), higher
    field = _coded_field(bits, counts, FieldContext.HIGHER, (1,) * len(counts))
    now = symbols != 0
    return field, now | higher if higher.size else now


def _first_field(
    model: LosslessModel, patterns: np.ndarray, bits: int, exponent: int
) -> tuple[BitField, Classes | None]:
    """Return the field of the exponents, with how much of the mantissa and which classes pay."""
    layout = Layout.of(patterns.shape)
    kind, patterns = patterns.dtype.type, patterns.reshape(-1)
    widths = [exponent + m for m in _MANTISSA_BITS if exponent + m <= MAX_CODED_BITS]
    widest = widths[-1]
    symbols = (patterns >> kind(bits - widest)).astype(np.uint16)
    shaped = symbols.reshape(layout.rows, layout.columns, layout.rest)
    best: tuple[float, int, Classes | None, np.ndarray, tuple[int, ...]] | None = None
    for classes in _class_candidates(shaped, widest - exponent):
        contexts = np.zeros(symbols.size, np.uint8)
        count = 1
        side = 0.0
        if classes is not None:
            with announced("lossless coding"):
                kernels.fill_contexts(classes.row, classes.column, layout.rest, 0, contexts)
            count = classes.count
            side = sum(_entropy(np.bincount(part)) + 64 for part in (classes.row, classes.column))
        index = contexts.astype(np.int64) << widest | symbols
        counts = np.bincount(index, minlength=count << widest).reshape(count, -1)
        for width in widths:
            narrow = counts.reshape(count, 1 << width, -1).sum(axis=2)
            groups, cost = _merged(narrow)
            cost += side + symbols.size * (widest - width)
            if best is None or cost < best[0]:
                best = cost, width, classes, narrow, groups
    assert best is not None  # noqa: S101 - there is always the candidate without classes
    _, width, classes, counts, groups = best
    if len(groups) == 1:
        classes, counts, groups = None, counts.sum(axis=0, keepdims=True), (1,)
    if classes is not None:
        model.classes_flag = 1
        model.row_class_table = fit(np.bincount(classes.row))[0]
        model.column_class_table = fit(np.bincount(classes.column))[0]
    return _coded_field(width, counts, FieldContext.CLASSES, groups), classes


def _class_candidates(symbols: np.ndarray, mantissa: int) -> Iterable[Classes | None]:
    """Yield ways to class rows and columns by the mean logarithm of their elements."""
    yield None
    rows, columns, _ = symbols.shape
    if symbols.size < _FEWEST_FOR_CLASSES or rows * columns == 1:
        return
    octaves = symbols.mean(axis=2, dtype=np.float64) / (1 << mantissa)
    row, column = octaves.mean(axis=1), octaves.mean(axis=0)
    one_row, one_column = np.zeros(rows, np.uint8), np.zeros(columns, np.uint8)
    by_row, by_column = _classes_of(row), _classes_of(column)
    if by_row.any():
        yield Classes(by_row, one_column)
    if by_column.any():
        yield Classes(one_row, by_column)
    if by_row.any() and by_column.any():
        yield Classes(by_row, by_column)


def _classes_of(octaves: np.ndarray) -> np.ndarray:
    grid = np.rint(octaves * _CLASSES_PER_OCTAVE).astype(np.int64)
    grid = np.maximum(grid, grid.max() - _MAX_CLASS)
    return (grid - grid.min()).astype(np.uint8)


def _merged(counts: np.ndarray) -> tuple[tuple[int, ...], float]:
    """Join neighbouring contexts as long as that saves bits; return their numbers, and all bits."""
    groups = [(1, row, _cost(row)) for row in counts]
    while len(groups) > 1:
        joined = [
            (a[0] + b[0], a[1] + b[1], _cost(a[1] + b[1])) for a, b in itertools.pairwise(groups)
        ]
        saved = [groups[i][2] + groups[i + 1][2] - joined[i][2] for i in range(len(joined))]
        best = int(np.argmax(saved))
        if saved[best] <= 0:
            break
        groups[best : best + 2] = [joined[best]]
    return tuple(size for size, _, _ in groups), sum(bits for _, _, bits in groups)


def _bits_with_table(counts: np.ndarray) -> float:
    return sum(_cost(row) for row in counts)


def _cost(counts: np.ndarray) -> float:
    """Return about how many bits symbols take, with their table."""
    used = np.flatnonzero(counts)
    if used.size < 2:
        return _BITS_OF_FIELD
    span = int(used[-1] - used[0]) + 1
    return _entropy(counts) + _BITS_OF_TABLE + _BITS_PER_SYMBOL * span


def _entropy(counts: np.ndarray) -> float:
    """Return the bits of symbols with the given counts."""
    used = counts[counts > 0].astype(np.float64)
    total = float(used.sum())
    return total * math.log2(total) - float(used @ np.log2(used)) if used.size > 1 else 0.0


def _raw(bits: int) -> BitField:
    return BitField(bits - 1, FieldCoding.RAW)


def _coded_field(
    bits: int, counts: np.ndarray, context: FieldContext, groups: Sequence[int]
) -> BitField:
    """Return a field with tables fitted to the counts of each context; groups share a table."""
    field = BitField(bits - 1, FieldCoding.CODED, 0, len(counts) - 1)
    if len(counts) > 1:
        field.field_context = context
    first = 0
    for group in groups:
        table: LevelTable = fit(counts[first : first + group].sum(axis=0))[0]
        field.table.append(table)
        field.new_table_flag += [1] + [0] * (group - 1)
        first += group
    return field


def _joined(fields: Iterable[BitField]) -> Iterable[BitField]:
    """Join raw fields that follow one another."""
    waiting = 0
    for field in fields:
        if field.field_coding == FieldCoding.RAW and waiting + field.field_bits <= MAX_RAW_BITS:
            waiting += field.field_bits
            continue
        if waiting:
            yield _raw(waiting)
            waiting = 0
        if field.field_coding == FieldCoding.RAW:
            waiting = field.field_bits
        else:
            yield field
    if waiting:
        yield _raw(waiting)
