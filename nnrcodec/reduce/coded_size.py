"""How many bits factors will take when they are quantized, before they are.

With a step size of d, a weight of deviation s takes about log2(1 + 5.4 (s / d)^2) / 2 bits: at high
rates one more for half of the step, and none at low ones. The constant is from dependent
quantization with error feedback, of a filter at 0.5, 1.1 and 2.2 bits a weight, where it is right
within a tenth; that is enough to compare ranks.
"""

from __future__ import annotations

import numpy as np

from nnrcodec.quant.second_moment import feedback_of
from nnrcodec.reduce.least_error import Objective

_DAMPING = 0.01
"""That of the quantizer."""

_SPREAD = 5.4


def bits_of(matrix: np.ndarray, sensitivity: float, each: float) -> float:
    """Return about how many bits a weight takes.

    Parameters
    ----------
    matrix : ndarray, shape (N, K)
        Its values.
    sensitivity : float
        What the squared error of the network's output grows by with that of a value.
    each : float
        Squared error that each value may add.
    """
    if not sensitivity > 0:
        return 0.0
    squared_step = 12 * each / sensitivity
    powers = np.mean(np.square(matrix), axis=1)
    return float(matrix.shape[1] * 0.5 * np.sum(np.log2(1 + _SPREAD * powers / squared_step)))


def bits_of_whole(objective: Objective, each: float) -> float:
    """Return about how many bits a layer takes as it is."""
    return bits_of(objective.target, _mean_weight(objective.root) * _left(objective.second), each)


def bits_of_pair(objective: Objective, u: np.ndarray, v: np.ndarray, each: float) -> float:
    """Return about how many bits two factors take.

    Parameters
    ----------
    objective : Objective
        Of the layer, its columns by channel, row and column of the kernel.
    u : ndarray, shape (rank, K / taps)
        The first factor, as the matrix that multiplies patches.
    v : ndarray, shape (N, rank, taps)
        The second one.
    each : float
        Squared error that each value may add.
    """
    rows, rank, taps = v.shape
    second = objective.second.reshape(u.shape[1], taps, u.shape[1], taps)
    between = np.einsum("ra,ajbk,sb->rjsk", u, second, u, optimize=True)
    bits = bits_of(
        v.reshape(rows, -1),
        _mean_weight(objective.root) * _left(between.reshape(rank * taps, -1)),
        each,
    )
    weighted = np.einsum("nm,mrj->nrj", objective.root, v)
    inner = np.einsum("ajbj->ab", second) / taps
    return bits + bits_of(u, float(np.sum(weighted**2)) / rank * _left(inner), each)


def _mean_weight(root: np.ndarray) -> float:
    """Return the mean of the diagonal of the squared matrix."""
    return float(np.sum(root**2)) / len(root)


def _left(second: np.ndarray) -> float:
    """Return what errors in the inputs of a column count on the mean, after feedback."""
    _, scales = feedback_of(second, _DAMPING)
    return float(scales.mean())
