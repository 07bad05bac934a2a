"""Uniform quantization: the nearest multiple of the step size.

Also owns the default choice of a step size where the user names none.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from nnrcodec.checks import check_fields
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.quant.step_size import qp_of_step_size, step_size

WEIGHT_STEPS = 8.0
"""Default step size of a weight: the root mean square of its tensor, divided by this."""

LARGE_ELEMENTS = 2**15
"""A tensor with fewer elements gets a finer step size, by the square root of their ratio.

The error that a layer adds to the output depends on its noise relative to its weights, whatever
their number, and bits on the number: so at the best trade the squared step grows with the number.
"""

FINEST_SMALL = 1 / 8
"""But not finer than by this factor."""

RECURRENT_FINER = 4.0
"""The weights of recurrent layers get steps finer by this factor: their errors come back at every
step in time, and add up."""

RECURRENT_INPUT_FINER = 4.0
"""Once more for those that multiply the input of the network, which has any scale: they are few,
and their errors go through all layers."""

_RECURRENT = re.compile(r"(^|\.)weight_[ih]h(_l\d+)?(_reverse)?$")
_RECURRENT_INPUT = re.compile(r"(^|\.)weight_ih(_l0)?(_reverse)?$")

NONWEIGHT_STEPS = 128.0
"""Default step size of a 1-D tensor: its root mean square divided by this."""

POSITIVE_STEPS = 4.0
"""Where all values are positive, as variances are, small ones matter: the step size is at most the
smallest value divided by this."""

FINEST_STEPS = 2.0**14
"""But never less than the root mean square divided by this."""

MAX_LEVEL = 2**24
"""Largest magnitude of a level: up to here every integer is exact in binary32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformConfig:
    """Step sizes of uniform quantization.

    Parameters
    ----------
    qp : int, optional
        Quantization parameter of weights (two dimensions and more). The default follows scale and
        size of each tensor, see `WEIGHT_STEPS` and `LARGE_ELEMENTS`.
    nonweight_qp : int, optional
        The same for 1-D tensors, see `NONWEIGHT_STEPS`. If only `qp` is given, 1-D tensors get a
        step size 16 times finer.
    qp_density : int
        Logarithm of the steps of qp per octave, 0 to 7.
    scale : float
        Factor of default step sizes: more is coarser. Squared errors grow with its square.
    """

    qp: int | None = None
    nonweight_qp: int | None = None
    qp_density: int = 2
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(f"scale is {self.scale}, expected a number above 0")
        for qp in (self.qp, self.nonweight_qp, 0):
            if qp is not None:
                step_size(qp, self.qp_density)

    def asked_qp(self, dimensions: int) -> int | None:
        """Return the qp that the user has given for tensors of so many dimensions, if any."""
        if dimensions >= 2:
            return self.qp
        if self.nonweight_qp is None and self.qp is not None:
            return self.qp - 4 * (1 << self.qp_density)
        return self.nonweight_qp

    def qp_for(self, values: np.ndarray, name: str = "") -> int:
        """Return the qp of a tensor.

        Parameters
        ----------
        values : ndarray of float
            The tensor, any shape, finite.
        name : str
            Of it: weights of recurrent layers are told by it.
        """
        asked = self.asked_qp(values.ndim)
        if asked is not None:
            return asked
        is_weight = values.ndim >= 2
        rms = math.sqrt(float(np.mean(np.square(values, dtype=np.float64))))
        if rms == 0:
            return 0
        if is_weight:
            small = math.sqrt(values.size / LARGE_ELEMENTS)
            step = self.scale * rms / WEIGHT_STEPS * min(max(small, FINEST_SMALL), 1.0)
            if _RECURRENT.search(name):
                step /= RECURRENT_FINER
            if _RECURRENT_INPUT.search(name):
                step /= RECURRENT_INPUT_FINER
        else:
            step = self.scale * rms / NONWEIGHT_STEPS
            smallest = float(values.min())
            if smallest > 0:
                step = max(min(step, smallest / POSITIVE_STEPS), rms / FINEST_STEPS)
        peak = float(np.abs(values).max())
        return qp_of_step_size(max(min(step, 2 * peak), 2 * peak / MAX_LEVEL), self.qp_density)


def quantize(values: np.ndarray, qp: int, qp_density: int, name: str = "tensor") -> np.ndarray:
    """Round values to multiples of the step size, halves away from zero.

    Parameters
    ----------
    values : ndarray of float
        Any shape, finite.
    qp, qp_density : int
        See `nnrcodec.quant.step_size.step_size`.
    name : str
        Named in errors.

    Returns
    -------
    ndarray of int32
        The levels, same shape.

    Raises
    ------
    ConfigError
        If a level would exceed `MAX_LEVEL`; the message names the smallest qp that works.
    ModelError
        If a value is not finite.
    """
    scaled = np.abs(values, dtype=np.float64)
    peak = float(scaled.max())
    if not np.isfinite(peak):
        raise ModelError(f"tensor {name!r} has a value that is not finite and cannot be quantized")
    step = step_size(qp, qp_density)
    if peak > step * MAX_LEVEL:
        smallest = qp_of_step_size(2 * peak / MAX_LEVEL, qp_density)
        raise ConfigError(
            f"tensor {name!r}: qp {qp} (step size {step:g}) is too fine for its largest value "
            f"{peak:g}; qp {smallest} works"
        )
    scaled /= step
    scaled += 0.5
    np.floor(scaled, out=scaled)
    return np.copysign(scaled, values).astype(np.int32)
