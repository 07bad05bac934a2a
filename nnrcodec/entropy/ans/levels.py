"""What a decoder must know of levels that are coded with rANS.

Owns these records, whose members are named as their syntax elements
(`nnrcodec.syntax.extended_data_unit` reads and writes them). What the codes of a table mean is
`nnrcodec.entropy.ans.tables`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate

MAX_LEVELS = 4096
"""Levels of a table."""
MAX_CLASSES = 64
"""Scale classes of a tensor."""


class TableForm(IntEnum):
    """table_form: where a table has its codes."""

    CONSTANT = 0
    """Nowhere: there is one level only, and it costs nothing."""
    DIRECT = 1
    """At every level."""
    TWO_SIDED = 2
    """At knots that grow with the magnitude, negative and positive levels apart."""
    SYMMETRIC = 3
    """The same, mirrored: negative levels are as probable as positive ones."""


@dataclass(slots=True)
class LevelTable:
    """The description of one probability table."""

    table_form: int = TableForm.CONSTANT
    table_level_count_minus1: int = 0
    table_lowest_level: int = 0
    table_escape_flag: int = 0
    code_precision: int = 0
    code_order: int = 0
    first_code: int = 0
    code_delta: list[int] = field(default_factory=list)

    @property
    def table_highest_level(self) -> int:
        """The highest level that is not an escape."""
        if self.table_form == TableForm.SYMMETRIC:
            return -self.table_lowest_level
        return self.table_lowest_level + self.table_level_count_minus1

    @property
    def knots(self) -> list[int]:
        """The levels at which the table has codes, in increasing order."""
        lowest, highest = self.table_lowest_level, self.table_highest_level
        if self.table_form == TableForm.DIRECT:
            return list(range(lowest, highest + 1))
        return [-m for m in knot_magnitudes(-lowest)[:0:-1]] + knot_magnitudes(highest)

    @property
    def code_count(self) -> int:
        """How many codes are sent: one a knot, and one for the escape symbol."""
        symmetric = self.table_form == TableForm.SYMMETRIC
        knots = knot_magnitudes(self.table_highest_level) if symmetric else self.knots
        return len(knots) + self.table_escape_flag

    @property
    def codes(self) -> list[int]:
        """The codes themselves, which are sent as differences."""
        return list(accumulate(self.code_delta, initial=self.first_code))


@dataclass(slots=True)
class LevelModel:
    """The tables of a tensor, and which class of its elements uses which."""

    low_bits: int = 0
    row_class_table: LevelTable = field(default_factory=LevelTable)
    column_class_table: LevelTable = field(default_factory=LevelTable)
    new_table_flag: list[int] = field(default_factory=list)
    table: list[LevelTable] = field(default_factory=list)
    count_escapes: int = 0
    escape_order: int = 0
    escape_level: list[int] = field(default_factory=list)

    @property
    def class_count(self) -> int:
        """Number of classes: an element's class is the sum of its row's and its column's."""
        row, column = self.row_class_table, self.column_class_table
        return row.table_highest_level + column.table_highest_level + 1

    def class_tables(self) -> Iterator[LevelTable]:
        """Yield the table of each class: a new one where its flag says so, else the last one."""
        tables = iter(self.table)
        table = LevelTable()
        for new in self.new_table_flag:
            table = next(tables) if new else table
            yield table


def knot_magnitudes(highest: int) -> list[int]:
    """Return the magnitudes of the knots of a smooth table: 0 1 2 3 4 6 8 12 16 ... `highest`.

    Examples
    --------
    >>> knot_magnitudes(9), knot_magnitudes(0)
    ([0, 1, 2, 3, 4, 6, 8, 9], [0])
    """
    knots = [0]
    power = 1
    while power < highest:
        knots.append(power)
        if power > 1 and power * 3 // 2 < highest:
            knots.append(power * 3 // 2)
        power *= 2
    return [*knots, highest] if highest > 0 else knots
