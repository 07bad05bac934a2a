"""Dependent quantization (trellis-coded quantization): search for levels of lowest cost.

A state machine with eight states selects the multiples of the step size that the next value may
take: even ones, or odd ones and zero (P. Haase et al., "Dependent scalar quantization for neural
network compression", ICIP 2020; trellis-coded quantization is of M. W. Marcellin, T. R. Fischer,
IEEE Trans. Commun. 1990). The search is the Viterbi algorithm: of all paths to a state it keeps
that of lowest cost, the squared error plus `lambda_` times bits. Bits are estimated from the
decided levels: the frequency of ones in each context of DeepCABAC.

The loops in `nnrcodec.quant.search.plain_trellis` define the search, those in
`nnrcodec.quant.search.trellis_kernels` are compiled. Here is what surrounds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nnrcodec.entropy.cabac.level_syntax import DEFAULT_UNARY_LENGTH
from nnrcodec.entropy.cabac.tables import count_contexts
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.quant.search.parameters import SCHEDULE, WARMUP_PASSES
from nnrcodec.quant.step_size import qp_of_step_size, step_size
from nnrcodec.quant.uniform import MAX_LEVEL

DEFAULT_LAMBDA = 0.33
"""Cost of a bit, in squared steps.

Measured with examples/speed/trellis_curve.py on the example filter and a ResNet-20: at equal error
0.4 gives the same size within 0.3 % from 2 to 7 bits per weight; 0.2 loses 1 % near 2 bits.
"""

SAMPLE_PIECES = 32
"""Number of pieces of a sample, evenly spaced over the tensor."""

SAMPLE_PIECE = 1024

FINER_OCTAVES = 0.86
"""Octaves by which the step is finer than in uniform quantization of about the same error."""

_MARGIN = 2
"""Distance from the nearest multiple that the search may choose at most."""


def dependent_qp(uniform_qp: int, qp_density: int) -> int:
    """Return the qp at which the squared error is about that of uniform quantization.

    Parameters
    ----------
    uniform_qp : int
        Quantization parameter of uniform quantization.
    qp_density : int
        Logarithm of the steps of qp per octave, 0 to 7.
    """
    return uniform_qp - round(FINER_OCTAVES * (1 << qp_density))


def estimates_before(unary_length: int) -> np.ndarray:
    """Return the probability estimates with which the search starts, from no bins.

    Returns
    -------
    ndarray of float64, shape (contexts, 2)
        For each context the probability of a 1, and the number of bins from which it is estimated,
        at most the memory of the `SearchSchedule`.
    """
    estimates = np.zeros((count_contexts(unary_length), 2))
    estimates[:, 0] = 0.5
    return estimates


def quantize_dependent(
    values: np.ndarray,
    qp: int,
    qp_density: int,
    *,
    lambda_: float = DEFAULT_LAMBDA,
    unary_length: int = DEFAULT_UNARY_LENGTH,
    scan_order: int = 0,
    name: str = "tensor",
) -> np.ndarray:
    """Search levels for dependent quantization.

    Parameters
    ----------
    values : ndarray of float
        Any shape, finite; rows are along the first dimension.
    qp, qp_density : int
        See `nnrcodec.quant.step_size.step_size`; `dependent_qp` gives the qp for about the error
        of uniform quantization.
    lambda_ : float
        Cost of a bit, in squared steps. With 0 only the squared error counts.
    unary_length : int
        Of the binarization with which the levels will be coded.
    scan_order : int
        Scan order in which they will be coded, 0 to 4.
    name : str
        Name of the tensor in error messages.

    Returns
    -------
    ndarray of int32
        Multiples of the step size, same shape.

    Raises
    ------
    ConfigError
        If a level could exceed `MAX_LEVEL` (the message names a qp that works), or `lambda_` or
        `scan_order` is out of range.
    ModelError
        If a value is not finite.
    """
    if not (math.isfinite(lambda_) and lambda_ >= 0):
        raise ConfigError(f"lambda is {lambda_}, expected a number not below 0")
    if not 0 <= scan_order <= 4:
        raise ConfigError(f"scan_order is {scan_order}, allowed are 0 to 4")
    step = step_size(qp, qp_density)
    if not values.size:
        return np.zeros(values.shape, np.int32)
    check_peak(values, qp, qp_density, name)
    matrix = values.reshape(values.shape[0] if values.ndim else 1, -1)
    block = 4 << scan_order if scan_order and min(matrix.shape) > 1 else 0
    ordered = _in_scan_order(matrix, block)
    segment = block * matrix.shape[1] if block else ordered.size

    from nnrcodec.entropy.compiled import announced  # here, because numba takes a while to import
    from nnrcodec.quant.search.trellis_kernels import search

    levels = np.empty(ordered.size, np.int32)
    estimates = estimates_before(unary_length)
    with announced("the search of dependent quantization"):
        if lambda_:
            sample = sample_of(ordered)
            for _ in range(WARMUP_PASSES):
                search(
                    sample, step, lambda_, unary_length, sample.size, SCHEDULE, estimates, levels
                )
        search(ordered, step, lambda_, unary_length, segment, SCHEDULE, estimates, levels)
    if not block:
        return levels.reshape(values.shape)
    restored = np.empty(matrix.shape, np.int32)
    start = 0
    for part in _parts(restored, block):
        part[...] = levels[start : start + part.size].reshape(part.shape)
        start += part.size
    return restored.reshape(values.shape)


def check_peak(values: np.ndarray, qp: int, qp_density: int, name: str) -> None:
    """Raise if a value is not finite, or too large for its level."""
    peak = max(abs(float(values.max())), abs(float(values.min())))
    if not math.isfinite(peak):
        raise ModelError(f"tensor {name!r} has a value that is not finite and cannot be quantized")
    step = step_size(qp, qp_density)
    if peak > step * (MAX_LEVEL - _MARGIN):
        smallest = qp_of_step_size(2 * peak / MAX_LEVEL, qp_density)
        raise ConfigError(
            f"tensor {name!r}: qp {qp} (step size {step:g}) is too fine for its largest value "
            f"{peak:g}; qp {smallest} works"
        )


def _parts(matrix: np.ndarray, block: int) -> Iterator[np.ndarray]:
    """Yield views of a matrix whose elements, view by view, are in scan order."""
    height, width = matrix.shape
    full = width // block * block
    for top in range(0, height, block):
        rows = matrix[top : top + block]
        yield rows[:, :full].reshape(len(rows), full // block, block).transpose(1, 0, 2)
        yield rows[:, full:]


def _in_scan_order(matrix: np.ndarray, block: int) -> np.ndarray:
    """Return the elements in scan order: float64 if they are float64, else float32."""
    dtype = np.float64 if matrix.dtype == np.float64 else np.float32
    if not block:
        return np.ascontiguousarray(matrix, dtype).ravel()
    return np.concatenate([part.ravel() for part in _parts(matrix, block)]).astype(dtype)


def sample_of(ordered: np.ndarray) -> np.ndarray:
    """Return evenly spaced pieces of the values, or all values if they are few."""
    if ordered.size <= SAMPLE_PIECES * SAMPLE_PIECE:
        return ordered
    starts = [
        (ordered.size - SAMPLE_PIECE) * i // (SAMPLE_PIECES - 1) for i in range(SAMPLE_PIECES)
    ]
    return np.concatenate([ordered[start : start + SAMPLE_PIECE] for start in starts])
