"""The extended data unit: our private unit for what the standard has no syntax for.

One unit of type 32 holds one tensor: levels coded with rANS, raw values, or bit patterns coded
without loss; spec/extended-data-unit.md specifies it. Here is its header. Level models, which
`nnrcodec.entropy.ans` uses, and lossless ones have their own modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from nnrcodec.entropy.ans.levels import LevelModel
from nnrcodec.entropy.lossless.model import LosslessModel
from nnrcodec.syntax.clauses import clause
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.drivers import Syntax
from nnrcodec.syntax.level_model import level_model
from nnrcodec.syntax.lossless_model import lossless_model

XDU_VERSION_MAJOR = 1
XDU_VERSION_MINOR_LOSSLESS = 1
"""The first xdu_version_minor that has xdu_coding LOSSLESS; units without it have 0."""


class Coding(IntEnum):
    """xdu_coding: how the tensor is coded in the payload."""

    RAW = 0
    ANS = 1
    LOSSLESS = 2


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
    lossless_model: LosslessModel | None = None


@clause("Extended data unit header")
def extended_data_unit(s: Syntax, h: ExtendedDataUnit, ctx: StreamContext) -> None:
    """Code the header of an extended data unit."""
    s.u(h, "xdu_version_major", 4)
    s.u(h, "xdu_version_minor", 4)
    if h.xdu_version_major != XDU_VERSION_MAJOR:
        s.unsupported("an extended data unit of another major version")
    s.st(h, "topology_elem_id")
    s.u(h, "xdu_coding", 2, enum=Coding, high=1 if h.xdu_version_minor == 0 else 3)
    if h.xdu_coding > Coding.LOSSLESS:
        s.unsupported("an xdu_coding of a newer minor version")
    s.u(h, "xdu_data_format", 7, enum=XduDataFormat)
    s.ue(h, "count_tensor_dimensions", 1, limit=ctx.limits.max_dimensions)
    s.array(h, "tensor_dimensions", h.count_tensor_dimensions)
    for j in range(h.count_tensor_dimensions):
        s.ue(h, "tensor_dimensions", 7, j, low=0 if h.xdu_coding == Coding.LOSSLESS else 1)
    s.limit_product(h, "tensor_dimensions", ctx.limits.max_elements)
    if h.xdu_coding == Coding.ANS:
        s.flag(h, "quantized_flag")
        if h.quantized_flag:
            s.ie(h, "quantization_parameter_offset", 7, low=-65536, high=65535)
        s.structure(h, "level_model", level_model, ctx)
    elif h.xdu_coding == Coding.LOSSLESS:
        s.structure(h, "lossless_model", lossless_model, ctx)
    s.byte_alignment()


FORMAT_OF_DTYPE: Mapping[str, XduDataFormat] = {f.name.lower(): f for f in XduDataFormat}
"""The data format of each dtype."""
