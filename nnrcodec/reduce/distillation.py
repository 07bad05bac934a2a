"""What distillation is asked for, and what it did; `nnrcodec.reduce.training` does it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nnrcodec.checks import check_fields
from nnrcodec.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationConfig:
    """How long a reduced network is trained to do what the original does.

    Parameters
    ----------
    minutes : float, optional
        How long.
    steps : int, optional
        How many steps, which makes the result the same every time on a machine.
    seed : int
        Of the order of the inputs; 0 or more.

    Raises
    ------
    ConfigError
        If both lengths or none are given, or something is out of range.
    """

    minutes: float | None = None
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        given = [length for length in (self.minutes, self.steps) if length is not None]
        if len(given) != 1:
            raise ConfigError("give either minutes or steps of distillation")
        if not (math.isfinite(given[0]) and given[0] > 0):
            raise ConfigError(
                f"distillation cannot take {given[0]} minutes or steps, expected more than 0"
            )
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, expected at least 0")


@dataclass(frozen=True, slots=True)
class DistillationReport:
    """What distillation has done.

    Parameters
    ----------
    steps : int
        Steps that were made.
    seconds : float
        How long they took.
    error_before, error_after : float
        Weighted squared error of the outputs on inputs that were held out, before as 1. If there
        is none, nothing is learned.
    """

    steps: int
    seconds: float
    error_before: float
    error_after: float
