"""Ways to code a tensor, and which of them is the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nnrcodec.quant.prior import expected_error
from nnrcodec.syntax.unit import Unit
from nnrcodec.units.kinds import KINDS

SLOPE = math.log(2) / 6
"""What a bit may cost in squared error, in squared steps: at high rates, halving a step size takes
one bit a weight, and the squared error of a weight is a twelfth of the squared step."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to code a tensor.

    Parameters
    ----------
    unit : Unit
        A data unit.
    value : ndarray
        What a decoder will make of it, dtype as the tensor's.

    Attributes
    ----------
    unit_bytes : int
        Size of the unit without that of its size field.
    """

    unit: Unit
    value: np.ndarray
    unit_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        kind = KINDS[self.unit.header.nnr_unit_type]  # type: ignore[index]
        object.__setattr__(self, "unit_bytes", kind.unit_bytes(self.unit))


def smallest(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate of the fewest bytes; None if there is none."""
    return min(candidates, key=lambda candidate: candidate.unit_bytes, default=None)


def best(values: np.ndarray, candidates: Sequence[Candidate], step: float) -> Candidate:
    """Return the candidate with the least sum of squared error and size.

    Parameters
    ----------
    values : ndarray of float
        The tensor, in the shape of the candidates' values.
    candidates : sequence of Candidate
        Of the same tensor, at least one. Of two that are as good the first is taken.
    step : float
        Step size of uniform quantization; a bit counts as `SLOPE` times its square.
    """
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda c: cost(values, c.value, c.unit_bytes, step))


def cost(values: np.ndarray, decoded: np.ndarray, size: float, step: float) -> float:
    """Return the sum of squared error (`nnrcodec.quant.prior.expected_error`) and size of a tensor.

    Parameters
    ----------
    values, decoded : ndarray of float
        The tensor, and what a decoder makes of it.
    size : float
        Bytes of its unit.
    step : float
        As in `best`.
    """
    return expected_error(values, decoded) + 8 * SLOPE * step**2 * size
