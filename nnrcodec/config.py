"""What an encoder is asked to do, as one frozen record.

Owns `EncoderConfig`, which puts the configurations of the tools together; each tool keeps its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nnrcodec.quant.uniform import UniformConfig
from nnrcodec.reduce.low_rank import LowRankConfig

__all__ = ["EncoderConfig", "LowRankConfig", "UniformConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """All choices of an encoder; a tool whose configuration is None is off.

    Parameters
    ----------
    quantization : UniformConfig
        Step sizes.
    low_rank : LowRankConfig, optional
        Which convolutions become pairs of thin ones, and of which rank.
    """

    quantization: UniformConfig = field(default_factory=UniformConfig)
    low_rank: LowRankConfig | None = None
