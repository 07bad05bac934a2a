"""The extended data unit: our private unit for what the standard has no syntax for.

One unit of type 32 holds one tensor, coded with rANS or as raw values; spec/extended-data-unit.md
specifies it. Here are its header and the syntax of level models, which `nnrcodec.entropy.ans` uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from nnrcodec.entropy.ans.levels import MAX_LEVELS, LevelModel, LevelTable, TableForm
from nnrcodec.syntax.clauses import clause
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.drivers import Syntax

XDU_VERSION_MAJOR = 1
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


class Coding(IntEnum):
    """xdu_coding: how the tensor is coded in the payload."""

    RAW = 0
    ANS = 1


class XduDataFormat(IntEnum):
    """xdu_data_format: the values of the standard, and private values from 64 on."""

    INT32 = 0
    FLOAT32 = 1
    INT8 = 5
    INT16 = 6
    INT64 = 7
    FLOAT16 = 8
    FLOAT64 = 9
    BOOL = 64
    UINT8 = 65
    UINT16 = 66
    UINT32 = 67
    UINT64 = 68
    BFLOAT16 = 69


@dataclass(slots=True)
class ExtendedDataUnit:
    """The header of an extended data unit."""

    xdu_version_major: int = XDU_VERSION_MAJOR
    xdu_version_minor: int = 0
    topology_elem_id: str = ""
    xdu_coding: int = Coding.RAW
    xdu_data_format: int = XduDataFormat.FLOAT32
    count_tensor_dimensions: int = 0
    tensor_dimensions: list[int] = field(default_factory=list)
    quantized_flag: int = 0
    quantization_parameter_offset: int = 0
    level_model: LevelModel | None = None


@clause("Extended data unit header")
def extended_data_unit(s: Syntax, h: ExtendedDataUnit, ctx: StreamContext) -> None:
    """Code the header of an extended data unit."""
    s.u(h, "xdu_version_major", 4)
    s.u(h, "xdu_version_minor", 4)
    if h.xdu_version_major != XDU_VERSION_MAJOR:
        s.unsupported("an extended data unit of another major version")
    s.st(h, "topology_elem_id")
    s.u(h, "xdu_coding", 2, enum=Coding, high=1 if h.xdu_version_minor == 0 else 3)
    if h.xdu_coding > Coding.ANS:
        s.unsupported("an xdu_coding of a newer minor version")
    s.u(h, "xdu_data_format", 7, enum=XduDataFormat)
    s.ue(h, "count_tensor_dimensions", 1, limit=ctx.limits.max_dimensions)
    s.array(h, "tensor_dimensions", h.count_tensor_dimensions)
    for j in range(h.count_tensor_dimensions):
        s.ue(h, "tensor_dimensions", 7, j, low=1)
    s.limit_product(h, "tensor_dimensions", ctx.limits.max_elements)
    if h.xdu_coding == Coding.ANS:
        s.flag(h, "quantized_flag")
        if h.quantized_flag:
            s.ie(h, "quantization_parameter_offset", 7, low=-65536, high=65535)
        s.structure(h, "level_model", level_model, ctx)
    s.byte_alignment()


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
        s.array(h, "code_delta", h.code_count - 1)
        for j in range(h.code_count - 1):
            s.ie(h, "code_delta", h.code_order, j, low=-128, high=128)


FORMAT_OF_DTYPE: Mapping[str, XduDataFormat] = {f.name.lower(): f for f in XduDataFormat}
"""The data format of each dtype."""
