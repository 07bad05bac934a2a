"""Which elements of a tensor share a probability table.

A tensor is seen as rows (first dimension), columns (second dimension) and the rest. Each row and
each column may have a scale class; an element belongs to the class that is the sum of the two, so
a row that is twice as loud, or a singular vector that matters less, gets a wider or a narrower
table. Owns the order in which classes are coded (normative) and the search for good classes (not).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

MAX_CLASS = 7
"""Largest class of a row or a column that this encoder uses."""

_CLASSES_PER_OCTAVE = 2
_SEARCH_ELEMENTS = 1 << 20
_TABLE_BITS = 45.0
_CLASS_BITS = 2.3
_FEWEST_ELEMENTS = 256


@dataclass(frozen=True, slots=True)
class Layout:
    """A tensor as rows, columns and the rest.

    Parameters
    ----------
    rows, columns, rest : int
        Their product is the number of elements.
    """

    rows: int
    columns: int
    rest: int

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Layout:
        """Return the layout of a shape: with fewer than two dimensions all is the rest."""
        if len(shape) < 2:
            return cls(1, 1, int(np.prod(shape, dtype=np.int64)))
        return cls(shape[0], shape[1], int(np.prod(shape[2:], dtype=np.int64)))


@dataclass(frozen=True, slots=True)
class ScaleClasses:
    """The class of each row and of each column.

    Parameters
    ----------
    row : ndarray of int, shape (rows,)
    column : ndarray of int, shape (columns,)
        Classes are within 0 and 255.

    Attributes
    ----------
    rows, columns : list of ndarray
        The rows and columns of each class, ascending.
    """

    row: np.ndarray
    column: np.ndarray
    rows: list[np.ndarray] = field(init=False, repr=False)
    columns: list[np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", _members(self.row))
        object.__setattr__(self, "columns", _members(self.column))

    @classmethod
    def none(cls, layout: Layout) -> ScaleClasses:
        """Put everything into class 0."""
        return cls(np.zeros(layout.rows, np.int64), np.zeros(layout.columns, np.int64))

    @property
    def count(self) -> int:
        """Number of classes."""
        return len(self.rows) + len(self.columns) - 1

    def rectangles(self, scale_class: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows and columns that make up a class, in coding order.

        Row classes ascend; inside one, rows and columns ascend.
        """
        for row_class, rows in enumerate(self.rows[: scale_class + 1]):
            column_class = scale_class - row_class
            columns = self.columns[column_class] if column_class < len(self.columns) else rows[:0]
            if rows.size and columns.size:
                yield rows, columns


def _members(classes: np.ndarray) -> list[np.ndarray]:
    """Return the positions of each class, ascending."""
    narrow = classes.astype(np.uint8)
    order = np.argsort(narrow, kind="stable")
    starts = np.searchsorted(narrow[order], np.arange(1, int(narrow.max()) + 1))
    return np.split(order, starts)


def gather(levels: np.ndarray, classes: ScaleClasses, scale_class: int) -> np.ndarray:
    """Return the levels of a class in coding order.

    Parameters
    ----------
    levels : ndarray, shape (rows, columns, rest)
    classes : ScaleClasses
    scale_class : int

    Returns
    -------
    ndarray, shape (n,)
    """
    parts = [
        levels[np.ix_(rows, cols)].reshape(-1) for rows, cols in classes.rectangles(scale_class)
    ]
    return np.concatenate(parts) if parts else levels[:0].reshape(-1)


def size(layout: Layout, classes: ScaleClasses, scale_class: int) -> int:
    """Return how many elements a class has."""
    rectangles = classes.rectangles(scale_class)
    return layout.rest * sum(rows.size * columns.size for rows, columns in rectangles)


def scatter(coded: np.ndarray, levels: np.ndarray, classes: ScaleClasses, scale_class: int) -> None:
    """Put the levels of a class where they belong: the inverse of `gather`."""
    start = 0
    for rows, columns in classes.rectangles(scale_class):
        stop = start + rows.size * columns.size * levels.shape[2]
        block = coded[start:stop].reshape(rows.size, columns.size, levels.shape[2])
        if rows.size == levels.shape[0] and columns.size == levels.shape[1]:
            levels[...] = block
        else:
            levels[np.ix_(rows, columns)] = block
        start = stop


def choose(levels: np.ndarray) -> ScaleClasses:
    """Choose classes that save more bits than they cost.

    Tried are none, rows, columns and both, on at most about a million elements.

    Parameters
    ----------
    levels : ndarray of int, shape (rows, columns, rest)

    Returns
    -------
    ScaleClasses
    """
    layout = Layout(*levels.shape)
    none = ScaleClasses.none(layout)
    if levels.size < _FEWEST_ELEMENTS or layout.rows * layout.columns == 1:
        return none
    row_scale, column_scale = _scales(levels)
    by_row = ScaleClasses(_classes_of(row_scale), none.column)
    by_column = ScaleClasses(none.row, _classes_of(column_scale))
    both_row, both_column = _scales(levels, together=True)
    both = ScaleClasses(_classes_of(both_row), _classes_of(both_column))
    return min(
        (none, by_row, by_column, both), key=lambda classes: _estimated_bits(levels, classes)
    )


def _scales(levels: np.ndarray, *, together: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean magnitude of rows and columns; together, each freed from the other."""
    energy = np.abs(levels).mean(axis=2, dtype=np.float64) + 1 / 32
    row, column = energy.mean(axis=1), energy.mean(axis=0)
    if together:
        for _ in range(6):
            row = (energy / column).mean(axis=1)
            column = (energy / row[:, None]).mean(axis=0)
    return row, column


def _classes_of(scale: np.ndarray) -> np.ndarray:
    """Return classes on a logarithmic grid, smallest scale first, the far tail cut off."""
    grid = np.rint(np.log2(scale) * _CLASSES_PER_OCTAVE).astype(np.int64)
    grid = np.maximum(grid, grid.max() - MAX_CLASS)
    return grid - grid.min()


def histograms(levels: np.ndarray, classes: ScaleClasses, lowest: int, count: int) -> np.ndarray:
    """Return the counts of levels in each class.

    Parameters
    ----------
    levels : ndarray of int, shape (rows, columns, rest)
        Values ``lowest`` to ``lowest + count - 1``.

    Returns
    -------
    ndarray of int64, shape (classes, count)
    """
    counts = np.zeros((classes.count, count), np.int64)
    for scale_class in range(classes.count):
        coded = gather(levels, classes, scale_class)
        counts[scale_class] = np.bincount(coded - lowest, minlength=count)
    return counts


def _estimated_bits(levels: np.ndarray, classes: ScaleClasses) -> float:
    """Return about how many bits a tensor takes with given classes, side information included."""
    stride = max(1, levels.size // _SEARCH_ELEMENTS)
    levels = levels[::stride]
    classes = ScaleClasses(classes.row[::stride], classes.column)
    lowest = int(levels.min())
    counts = histograms(levels, classes, lowest, int(levels.max()) - lowest + 1)
    side = sum(_CLASS_BITS * part.size for part in (classes.row, classes.column) if part.any())
    return sum(bits for _, bits in merged_classes(counts)) * stride + side


def merged_classes(counts: np.ndarray) -> list[tuple[int, float]]:
    """Join neighbouring classes as long as that saves bits.

    Parameters
    ----------
    counts : ndarray of int64, shape (classes, levels)

    Returns
    -------
    list of (int, float)
        For each group of classes, in order: how many classes it joins, and its estimated bits.
    """
    groups = [(1, row, _entropy_bits(row)) for row in counts]
    while len(groups) > 1:
        joined = [
            (a[0] + b[0], a[1] + b[1], _entropy_bits(a[1] + b[1]))
            for a, b in itertools.pairwise(groups)
        ]
        saved = [groups[i][2] + groups[i + 1][2] - joined[i][2] for i in range(len(joined))]
        best = int(np.argmax(saved))
        if saved[best] <= 0:
            break
        groups[best : best + 2] = [joined[best]]
    return [(size, bits) for size, _, bits in groups]


def _entropy_bits(counts: np.ndarray) -> float:
    """Return the bits of levels with given counts under a table fitted to them, table included.

    The empirical entropy is too low for few samples; the Miller-Madow term makes up for it.
    """
    used = counts[counts > 0]
    total = float(used.sum())
    if used.size <= 1:
        return 5.0
    bits = float(total * np.log2(total) - (used * np.log2(used)).sum())
    return bits + (used.size - 1) / 2 * float(np.log2(np.e)) + _TABLE_BITS
