"""A tensor of reals as levels: rounded, or found by a search."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nnrcodec.model.dtypes import cast
from nnrcodec.quant.codebook import values_of_levels
from nnrcodec.quant.search.trellis import DEFAULT_LAMBDA, quantize_dependent
from nnrcodec.quant.step_size import dequantize, step_size
from nnrcodec.quant.uniform import quantize

FEWEST_ELEMENTS = 16
"""Float tensors with fewer elements are not worth a search, or a step size of their own scale."""

_LARGEST = 2.0**100
"""Values beyond this, or all below its inverse, are stored: float32 step sizes end soon after."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """A tensor of reals as levels.

    Parameters
    ----------
    levels : ndarray of int32
        Multiples of the step size, in the shape of the tensor.
    qp : int
        Of the step size.
    dq : bool
        Whether the levels are those of dependent quantization.
    value : ndarray
        What a decoder will make of them, dtype as the tensor's.
    """

    levels: np.ndarray
    qp: int
    dq: bool
    value: np.ndarray

    @classmethod
    def of(
        cls, levels: np.ndarray, qp: int, qp_density: int, dtype: str, *, dq: bool = False
    ) -> Quantized:
        """Return levels with what a decoder will make of them.

        Parameters
        ----------
        levels : ndarray of int32
            Any shape.
        qp, qp_density : int
            See `nnrcodec.quant.step_size.step_size`.
        dtype : str
            That of the tensor, a key of `nnrcodec.model.dtypes.DTYPES`.
        dq : bool
            Whether the levels are those of dependent quantization.
        """
        return cls(levels, qp, dq, cast(dequantize(levels, qp, qp_density), dtype))


def quantize_uniform(
    values: np.ndarray, qp: int, qp_density: int, *, dtype: str, name: str
) -> Quantized:
    """Round values to multiples of a step size.

    Parameters
    ----------
    values : ndarray of float
        Finite.
    qp, qp_density : int
        See `nnrcodec.quant.step_size.step_size`.
    dtype, name : str
        Of the tensor.

    Raises
    ------
    ConfigError
        If the step size is too fine.
    """
    return Quantized.of(quantize(values, qp, qp_density, name), qp, qp_density, dtype)


def quantize_by_search(
    values: np.ndarray,
    qp: int,
    qp_density: int,
    *,
    dtype: str,
    name: str,
    lambda_: float | None,
    unary_length: int,
    scan_order: int,
) -> Quantized:
    """Find the levels of dependent quantization.

    Parameters
    ----------
    values, qp_density, dtype, name
        As in `quantize_uniform`.
    qp : int
        Of the step size, as the stream has it.
    lambda_ : float or None
        Squared steps that a bit is worth; None is `nnrcodec.quant.search.trellis.DEFAULT_LAMBDA`.
    unary_length, scan_order : int
        ``cabac_unary_length`` and ``scan_order`` with which the levels will be coded.

    Raises
    ------
    ConfigError
        If the step size is too fine.
    """
    levels = quantize_dependent(
        values,
        qp,
        qp_density,
        lambda_=DEFAULT_LAMBDA if lambda_ is None else lambda_,
        unary_length=unary_length,
        scan_order=scan_order,
        name=name,
    )
    return Quantized.of(levels, qp, qp_density, dtype, dq=True)


def are_quantizable(values: np.ndarray) -> bool:
    """Return whether values are finite and of a size for which there are step sizes."""
    peak = float(np.abs(values).max())
    return peak == 0 or 1 / _LARGEST <= peak <= _LARGEST


def codebook_values(levels: np.ndarray, qp: int, qp_density: int, dtype: str) -> np.ndarray:
    """Return what a decoder makes of levels that are coded with a codebook.

    Parameters
    ----------
    levels : ndarray of int32
        Any shape.
    qp, qp_density : int
        See `nnrcodec.quant.step_size.step_size`.
    dtype : str
        That of the tensor.
    """
    return cast(values_of_levels(levels, step_size(qp, qp_density)), dtype)


def zero_order_entropy(levels: np.ndarray) -> tuple[float, int]:
    """Return the bits that levels take if each costs what its frequency says.

    Parameters
    ----------
    levels : ndarray of int32
        Any shape, at least one element.

    Returns
    -------
    bits : float
    different : int
        How many different levels there are.
    """
    lowest = int(levels.min())
    spread = int(levels.max()) - lowest
    if spread < 4 * levels.size:
        counts = np.bincount(levels.reshape(-1).astype(np.int64) - lowest)
        counts = counts[counts > 0]
    else:
        counts = np.unique(levels, return_counts=True)[1]
    return float(np.dot(counts, np.log2(levels.size / counts))), counts.size


def scale_gain(levels: np.ndarray) -> float:
    """Return about how many bits it saves to know the scale of each row, or of each column.

    The rate of a value at high rates is the logarithm of its scale, but for a constant: what is
    saved is the difference of that of the whole and the mean of those of the rows.

    Parameters
    ----------
    levels : ndarray of int32
        Its first dimension are the rows, its second one the columns.
    """
    if levels.ndim < 2:
        return 0.0
    powers = np.square(levels.reshape(*levels.shape[:2], -1), dtype=np.float64).mean(axis=2)
    noise = 1 / 12
    whole = math.log2(float(powers.mean()) + noise)
    gains = (whole - float(np.log2(powers.mean(axis=axis) + noise).mean()) for axis in (0, 1))
    return levels.size / 2 * max(*gains, 0.0)


def squared_error(values: np.ndarray, decoded: np.ndarray | float) -> float:
    """Return the sum of squared errors."""
    difference = np.subtract(values, decoded, dtype=np.float64).reshape(-1)
    return float(np.dot(difference, difference))


def relative_error(original: np.ndarray, decoded: np.ndarray) -> float:
    """Return the root of the squared error over the squares; 0 if there is no error."""
    different = original != decoded
    different &= (original == original) | (decoded == decoded)  # the same NaN is no error
    if not different.any():
        return 0.0
    squares = squared_error(original[np.isfinite(original)], 0)
    error = squared_error(original[different], decoded[different])
    return math.sqrt(error / squares) if squares else math.inf
