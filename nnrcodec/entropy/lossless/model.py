"""What a decoder must know of bit patterns that are coded without loss.

Owns these records, whose members are named as their syntax elements
(`nnrcodec.syntax.lossless_model` reads and writes them); what they mean is in
spec/extended-data-unit.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from nnrcodec.entropy.ans.levels import LevelTable

MAX_CODED_BITS = 12
"""Of a field that is coded: no table has more symbols than it has probabilities to give."""

MAX_RAW_BITS = 32
MAX_CONTEXTS = 16
MAX_PALETTE = 4096
MAX_LAYOUTS = 4
CHUNK_ELEMENTS = 2**16
"""Elements that are coded together: the next chunk can be decoded at the same time."""


class Difference(IntEnum):
    """difference_form: what the bit patterns of a unit are."""

    NONE = 0
    """Those of the tensor."""
    XOR = 1
    """Their exclusive or with those before."""
    INTEGER = 2
    """Their difference to those before, as integers."""
    NEW = 3
    """Those of the tensor, in place of those before."""


class WordForm(IntEnum):
    """word_form: what the fields make up, and how it becomes a bit pattern."""

    PLAIN = 0
    """The bit pattern."""
    ROTATED = 1
    """The bit pattern with its first bit, the sign of a float, moved to its end."""
    ZIGZAG = 2
    """0, -1, 1, -2, 2 ... as 0, 1, 2, 3, 4 ..."""
    PALETTE = 3
    """An index into a list of bit patterns."""
    LZMA = 4
    """There are no fields: what is in all bit patterns is one LZMA2 stream."""


class FieldCoding(IntEnum):
    """field_coding: how the bits of a field are coded."""

    CONSTANT = 0
    RAW = 1
    CODED = 2


class FieldContext(IntEnum):
    """field_context: what chooses the table of a symbol."""

    CLASSES = 0
    """The sum of the classes of its row and its column."""
    HIGHER = 1
    """Whether a coded field before it is not 0."""


@dataclass(slots=True)
class BitField:
    """Some bits of each bit pattern, most significant first."""

    field_bits_minus1: int = 0
    field_coding: int = FieldCoding.CONSTANT
    field_value: int = 0
    count_contexts_minus1: int = 0
    field_context: int = 0
    new_table_flag: list[int] = field(default_factory=list)
    table: list[LevelTable] = field(default_factory=list)

    @property
    def field_bits(self) -> int:
        """Number of bits."""
        return self.field_bits_minus1 + 1

    @property
    def context_tables(self) -> list[LevelTable]:
        """The table of each context: a new one where its flag says so, else the last one."""
        tables, last = iter(self.table), LevelTable()
        found = []
        for new in self.new_table_flag:
            last = next(tables) if new else last
            found.append(last)
        return found


@dataclass(slots=True)
class FieldLayout:
    """The fields of the patterns of some chunks."""

    count_fields_minus1: int = 0
    bit_field: list[BitField] = field(default_factory=list)


@dataclass(slots=True)
class LosslessModel:
    """How the bit patterns of a tensor are coded."""

    log2_word_bytes: int = 0
    difference_form: int = Difference.NONE
    word_form: int = WordForm.PLAIN
    count_palette_minus1: int = 0
    palette_word: list[int] = field(default_factory=list)
    classes_flag: int = 0
    row_class_table: LevelTable = field(default_factory=LevelTable)
    column_class_table: LevelTable = field(default_factory=LevelTable)
    count_layouts_minus1: int = 0
    field_layout: list[FieldLayout] = field(default_factory=list)
    count_chunks_minus1: int = 0
    chunk_layout: list[int] = field(default_factory=list)
    chunk_bytes: list[int] = field(default_factory=list)

    @property
    def word_bits(self) -> int:
        """Bits of a bit pattern."""
        return 8 << self.log2_word_bytes

    @property
    def mapped_bits(self) -> int:
        """Bits that the fields make up."""
        if self.word_form == WordForm.PALETTE:
            return max(self.count_palette_minus1.bit_length(), 1)
        return self.word_bits
