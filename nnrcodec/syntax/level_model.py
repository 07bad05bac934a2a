"""The syntax of level models: the probability tables of levels that are coded with rANS."""

from __future__ import annotations

from nnrcodec.entropy.ans.levels import MAX_LEVELS, LevelModel, LevelTable, TableForm
from nnrcodec.syntax.clauses import clause
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.drivers import Syntax

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


@clause("Level model")
def level_model(s: Syntax, h: LevelModel, ctx: StreamContext) -> None:
    """Code the probability tables of a tensor."""
    s.u(h, "low_bits", 5)
    s.structure(h, "row_class_table", level_table, ctx)
    s.structure(h, "column_class_table", level_table, ctx)
    s.array(h, "new_table_flag", h.class_count)
    for j in range(h.class_count):
        s.flag(h, "new_table_flag", j)
    s.array(h, "table", sum(h.new_table_flag))
    for j in range(sum(h.new_table_flag)):
        s.structure(h, "table", level_table, ctx, j)
    s.ue(h, "count_escapes", 1)
    if h.count_escapes > 0:
        s.u(h, "escape_order", 5)
    s.array(h, "escape_level", h.count_escapes)
    for j in range(h.count_escapes):
        s.ie(h, "escape_level", h.escape_order, j, low=INT32_MIN, high=INT32_MAX)


@clause("Level table")
def level_table(s: Syntax, h: LevelTable, ctx: StreamContext) -> None:
    """Code one probability table."""
    s.u(h, "table_form", 2, enum=TableForm)
    if h.table_form == TableForm.CONSTANT:
        s.ie(h, "table_lowest_level", 2, low=INT32_MIN, high=INT32_MAX)
    elif h.table_form == TableForm.DIRECT:
        s.ue(h, "table_level_count_minus1", 4, high=MAX_LEVELS - 1)
        s.ie(
            h,
            "table_lowest_level",
            2,
            low=INT32_MIN,
            high=INT32_MAX - 1 - h.table_level_count_minus1,
        )
    elif h.table_form == TableForm.TWO_SIDED:
        s.ue(h, "table_level_count_minus1", 4, high=MAX_LEVELS - 1)
        s.ie(h, "table_lowest_level", 2, low=-h.table_level_count_minus1, high=0)
    else:
        s.ie(h, "table_lowest_level", 2, low=-(MAX_LEVELS // 2 - 1), high=-1)
    if h.table_form != TableForm.CONSTANT:
        s.flag(h, "table_escape_flag")
        s.u(h, "code_precision", 2)
        s.u(h, "code_order", 2)
        s.u(h, "first_code", 8)
        s.ie_list(h, "code_delta", h.code_order, h.code_count - 1, low=-128, high=128)
