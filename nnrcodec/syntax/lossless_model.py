"""The syntax of lossless models, which is in the header of an extended data unit."""

from __future__ import annotations

from nnrcodec.entropy.lossless.model import (
    MAX_CONTEXTS,
    MAX_PALETTE,
    BitField,
    Difference,
    FieldCoding,
    FieldContext,
    FieldLayout,
    LosslessModel,
    WordForm,
)
from nnrcodec.syntax.clauses import clause
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.drivers import Syntax
from nnrcodec.syntax.level_model import level_table


@clause("Lossless model")
def lossless_model(s: Syntax, h: LosslessModel, ctx: StreamContext) -> None:
    """Code how the bit patterns of a tensor are coded."""
    s.u(h, "log2_word_bytes", 2)
    s.u(h, "difference_form", 2, enum=Difference)
    s.u(h, "word_form", 3, enum=WordForm, high=4)
    if h.word_form == WordForm.PALETTE:
        s.ue(h, "count_palette_minus1", 7, high=MAX_PALETTE - 1)
        s.array(h, "palette_word", h.count_palette_minus1 + 1)
        for j in range(h.count_palette_minus1 + 1):
            s.u(h, "palette_word", h.word_bits, j)
    if h.word_form != WordForm.LZMA:
        s.flag(h, "classes_flag")
        if h.classes_flag:
            s.structure(h, "row_class_table", level_table, ctx)
            s.structure(h, "column_class_table", level_table, ctx)
        s.u(h, "count_layouts_minus1", 2)
        s.array(h, "field_layout", h.count_layouts_minus1 + 1)
        for j in range(h.count_layouts_minus1 + 1):
            s.structure(h, "field_layout", field_layout, ctx, j)
        s.ue(h, "count_chunks_minus1", 0)
        if h.count_layouts_minus1 > 0:
            s.array(h, "chunk_layout", h.count_chunks_minus1 + 1)
            for j in range(h.count_chunks_minus1 + 1):
                s.u(h, "chunk_layout", 2, j)
        s.array(h, "chunk_bytes", h.count_chunks_minus1)
        for j in range(h.count_chunks_minus1):
            s.u(h, "chunk_bytes", 32, j)


@clause("Field layout")
def field_layout(s: Syntax, h: FieldLayout, ctx: StreamContext) -> None:
    """Code the fields that make up patterns."""
    s.ue(h, "count_fields_minus1", 1, high=63)
    s.array(h, "bit_field", h.count_fields_minus1 + 1)
    for j in range(h.count_fields_minus1 + 1):
        s.structure(h, "bit_field", bit_field, ctx, j)


@clause("Bit field")
def bit_field(s: Syntax, h: BitField, ctx: StreamContext) -> None:
    """Code what some bits of each pattern are, most significant first."""
    s.u(h, "field_bits_minus1", 6)
    s.u(h, "field_coding", 2, enum=FieldCoding, high=2)
    if h.field_coding == FieldCoding.CONSTANT:
        s.u(h, "field_value", h.field_bits)
    elif h.field_coding == FieldCoding.CODED:
        s.u(h, "count_contexts_minus1", 4, high=MAX_CONTEXTS - 1)
        if h.count_contexts_minus1 > 0:
            s.u(h, "field_context", 1, enum=FieldContext)
        s.array(h, "new_table_flag", h.count_contexts_minus1 + 1)
        for j in range(h.count_contexts_minus1 + 1):
            s.flag(h, "new_table_flag", j)
        s.array(h, "table", sum(h.new_table_flag))
        for j in range(sum(h.new_table_flag)):
            s.structure(h, "table", level_table, ctx, j)
