"""The step size that a quantization parameter stands for.

Owns the two-way relation between `qp`, `qp_density` and `step_size` of ISO/IEC 15938-17; it does
not choose a qp for a tensor (`nnrcodec.quant.uniform`).
"""

from __future__ import annotations

import math

import numpy as np

from nnrcodec.errors import ConfigError

MAX_QP_DENSITY = 7
CHUNK = 1 << 16
"""Elements that are converted at once: what is needed beside the tensor stays in the cache."""
_LOWEST_EXPONENT = -126
_HIGHEST_EXPONENT = 126


def step_size(qp: int, qp_density: int) -> float:
    """Return the step size of a quantization parameter, exactly.

    With ``k = 2**qp_density`` it is ``(k + qp mod k) * 2**(floor(qp / k) - qp_density)``: it
    doubles every `k` steps of qp, and qp 0 gives 1.

    Parameters
    ----------
    qp : int
        Quantization parameter.
    qp_density : int
        Logarithm of the number of steps per octave, 0 to 7.

    Returns
    -------
    float
        The step size; a normal number in binary32 as well, so the conversion is exact.

    Raises
    ------
    ConfigError
        If `qp_density` is out of range, or the step size is outside the normal range of binary32.

    Examples
    --------
    >>> step_size(0, 2), step_size(-8, 2), step_size(-7, 2), step_size(-75, 2)
    (1.0, 0.25, 0.3125, 2.384185791015625e-06)
    """
    if not 0 <= qp_density <= MAX_QP_DENSITY:
        raise ConfigError(f"qp_density is {qp_density}, allowed are 0 to {MAX_QP_DENSITY}")
    k = 1 << qp_density
    octave, part = divmod(qp, k)
    if not _LOWEST_EXPONENT <= octave <= _HIGHEST_EXPONENT:
        raise ConfigError(
            f"qp {qp} at density {qp_density} gives a step size of about 2^{octave}, which float32 "
            f"cannot hold; allowed are {_LOWEST_EXPONENT * k} to {(_HIGHEST_EXPONENT + 1) * k - 1}"
        )
    return math.ldexp(k + part, octave - qp_density)


def qp_of_step_size(target: float, qp_density: int) -> int:
    """Return the largest qp whose step size does not exceed `target`.

    Parameters
    ----------
    target : float
        Step size wanted, greater than 0.
    qp_density : int
        Logarithm of the number of steps per octave, 0 to 7.

    Examples
    --------
    >>> qp_of_step_size(0.3, 2)
    -8
    """
    mantissa, exponent = math.frexp(target)  # target = mantissa * 2**exponent, 0.5 <= mantissa < 1
    k = 1 << qp_density
    octave = min(max(exponent - 1, _LOWEST_EXPONENT), _HIGHEST_EXPONENT)
    part = min(int((math.ldexp(mantissa, 1) - 1) * k), k - 1)
    return octave * k + part


def dequantize(levels: np.ndarray, qp: int, qp_density: int) -> np.ndarray:
    """Reconstruct values: level times step size, in float32.

    The level is converted to binary32 (to nearest, ties to even) and multiplied once by the step
    size, which is exact in binary32.

    Parameters
    ----------
    levels : ndarray of int32
        Quantized integers, any shape.
    qp, qp_density : int
        See `step_size`.

    Returns
    -------
    ndarray of float32
        Same shape.
    """
    return dequantize_in_place(levels.astype(np.int32), step_size(qp, qp_density))


def dequantize_in_place(levels: np.ndarray, step: float) -> np.ndarray:
    """Reconstruct values in the memory of their levels, which are lost.

    Parameters
    ----------
    levels : ndarray of int32
        Quantized integers, any shape, contiguous.
    step : float
        The step size; exact in binary32.

    Returns
    -------
    ndarray of float32
        Same shape and memory.
    """
    flat = levels.reshape(-1)
    values = flat.view(np.float32)
    factor = np.float32(step)
    with np.errstate(over="ignore"):  # inf is what binary32 gives; encoders never send such levels
        for start in range(0, flat.size, CHUNK):
            chunk = slice(start, start + CHUNK)
            values[chunk] = flat[chunk].astype(np.float32) * factor
    return values.reshape(levels.shape)
