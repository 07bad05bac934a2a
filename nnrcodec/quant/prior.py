"""Quantization for the inputs that layers have in general, where none are known.

A weight is quantized with error feedback (`nnrcodec.quant.search.feedback`) against a prior of the
second moment of its input: positive on the whole, as rectified activations are, alike at
neighbouring positions, and partly white. For channels of unit variance that of a patch is

    I (x) R + mean^2 1 1^T + white I,     R_ij = correlation^|i - j|,

where |i - j| is the distance of two taps of a kernel. Feedback against it keeps the sum of each
kernel and the mean of each output channel, which is most of what rounding spoils without
normalization (the data-free bias correction of Nagel et al., ICCV 2019, has the same aim).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from nnrcodec.quant.quantized import Quantized, squared_error
from nnrcodec.quant.search.feedback import Feedback, quantize_with_feedback
from nnrcodec.quant.second_moment import output_error

MEAN = 0.4
"""Mean of an input, in its deviations: 0.7 for rectified normal numbers, 0 for normalized ones."""

CORRELATION = 0.8
"""Of neighbouring positions."""

WHITE = 0.05

LONGEST = 512
"""Columns of a row that are quantized together, about: means are kept over so many."""

MOST_TAPS = 2048
"""Of a kernel: its second moment has the square of that."""


def prior_moment(channels: int, kernel: tuple[int, ...], mean: float = MEAN) -> np.ndarray:
    """Return the second moment of a patch, float64 (K, K), K = channels * taps.

    Parameters
    ----------
    channels : int
        Input channels.
    kernel : tuple of int
        Taps along each axis; empty for a linear layer.
    mean : float
        Of the inputs, in their deviations.
    """
    taps = np.array(list(np.ndindex(*kernel)), dtype=np.float64)
    distance = np.sqrt(np.square(taps[:, None] - taps[None]).sum(-1))
    moment = np.kron(np.eye(channels), CORRELATION**distance) + mean**2
    moment[np.diag_indices_from(moment)] += WHITE
    return moment


def has_prior(shape: tuple[int, ...]) -> bool:
    """Return whether a shape is like that of a weight: two dimensions at least, no huge kernel."""
    return len(shape) >= 2 and math.prod(shape[2:]) <= MOST_TAPS


def quantize_for_prior(
    values: np.ndarray,
    qp: int,
    qp_density: int,
    *,
    dtype: str,
    name: str,
    lambda_: float | None,
    unary_length: int,
    dq: bool,
) -> Quantized:
    """Find levels of least output error, for inputs as the prior has them.

    Parameters
    ----------
    values : ndarray of float
        A weight for which `has_prior`, output channels first; finite.
    qp, qp_density, dtype, name, lambda_, unary_length, dq
        As in `nnrcodec.quant.search.feedback.quantize_with_feedback`.

    Raises
    ------
    ConfigError
        If the step size is too fine.
    """
    rows, feedback = _parts(values)
    levels = quantize_with_feedback(
        rows,
        feedback,
        qp,
        qp_density,
        lambda_=lambda_,
        dq=dq,
        unary_length=unary_length,
        name=name,
    ).levels
    return Quantized.of(levels.reshape(values.shape), qp, qp_density, dtype, dq=dq)


def expected_error(values: np.ndarray, decoded: np.ndarray) -> float:
    """Return the squared error of a tensor by what it does to the output of its layer.

    Parameters
    ----------
    values, decoded : ndarray of float
        The tensor, and what a decoder makes of it.

    Returns
    -------
    float
        In units of `nnrcodec.quant.quantized.squared_error`, which it is for tensors without a
        prior: by rounding with error feedback both become the same.
    """
    if not has_prior(values.shape):
        return squared_error(values, decoded)
    rows, feedback = _parts(np.subtract(values, decoded, dtype=np.float64))
    return float(output_error(rows, feedback.second_moment).sum()) / feedback.sensitivity


def _parts(values: np.ndarray) -> tuple[np.ndarray, Feedback]:
    """Return a weight in rows of about `LONGEST` columns, (1, N, K), and their feedback."""
    kernel = values.shape[2:]
    taps = math.prod(kernel)
    most = max(LONGEST // taps, 1)
    channels = max(n for n in range(1, most + 1) if values.shape[1] % n == 0)
    rows = values.reshape(1, -1, channels * taps)
    return rows, _feedback(channels, kernel).for_rows(rows.shape[1])


@lru_cache(maxsize=8)
def _feedback(channels: int, kernel: tuple[int, ...]) -> Feedback:
    return Feedback.of(prior_moment(channels, kernel)[None], np.ones((1, 1)), damping=0.0)
