"""Quantization with error feedback: least error of what a layer puts out, for its bits.

Each row of a weight is quantized from its first column to its last; a column is moved by the errors
of those before it, so that together they matter least for the inputs that the layer has seen
(`nnrcodec.quant.second_moment`). Levels are searched as in `nnrcodec.quant.search.trellis`, with
bits as part of the cost and, in dependent quantization, with its states; but here each path that
survives has errors of its own, and so wants values of its own.

The plain loops that define the search are in `nnrcodec.quant.search.plain_feedback`, the compiled
ones in `nnrcodec.quant.search.feedback_kernels`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nnrcodec.entropy.cabac.level_syntax import DEFAULT_UNARY_LENGTH
from nnrcodec.errors import ConfigError
from nnrcodec.quant.search.parameters import PACE, REHEARSALS
from nnrcodec.quant.search.trellis import check_peak, estimates_before, sample_of
from nnrcodec.quant.second_moment import feedback_of, output_error
from nnrcodec.quant.step_size import step_size

DEFAULT_LAMBDA = 0.1
"""Squared steps that a bit is worth in dependent quantization: less than without feedback, for what
is lost to save bits is what later columns cannot make up for."""

UNIFORM_LAMBDA = 0.05
"""The same without."""

DAMPING = 0.01

_REHEARSED = 2**15
"""Levels of rows that are searched once before, to learn estimates."""


@dataclass(frozen=True, slots=True)
class FeedbackResult:
    """Levels, and what they do.

    Parameters
    ----------
    levels : ndarray of int32, shape (groups, N, K)
        Multiples of the step size.
    error : float
        Squared error of the outputs, summed over the rows with their weights.
    bits : float
        What they will take, about.
    """

    levels: np.ndarray
    error: float
    bits: float


@dataclass(frozen=True, slots=True)
class Feedback:
    """How errors in a weight are fed back, and what they count.

    Parameters
    ----------
    factors : ndarray of float64, shape (groups, K, K)
    scales : ndarray of float64, shape (groups, K)
        By group, as `nnrcodec.quant.second_moment.feedback_of` returns them.
    row_weights : ndarray of float64, shape (groups, N)
        What the squared error of each output counts.
    second_moment : ndarray of float64, shape (groups, K, K)
        What it all follows from.
    """

    factors: np.ndarray
    scales: np.ndarray
    row_weights: np.ndarray
    second_moment: np.ndarray

    @classmethod
    def of(
        cls,
        second_moment: np.ndarray,
        row_weights: np.ndarray,
        damping: float = DAMPING,
    ) -> Feedback:
        """Derive it from the second moment of what the layer takes.

        Parameters
        ----------
        second_moment : ndarray, shape (groups, K, K)
            Symmetric, without negative eigenvalues, by group.
        row_weights : ndarray, shape (groups, N)
            Not negative.
        damping : float
            Part of the mean of the diagonal that is added to it, and of the mean of `row_weights`
            that each counts at least: what these inputs do not show may matter to others.
        """
        found = [feedback_of(moment.astype(np.float64), damping) for moment in second_moment]
        weights = row_weights.astype(np.float64)
        if not weights.sum() > 0:
            weights = np.ones_like(weights)
        weights = np.maximum(weights, damping * weights.mean())
        factors, scales = (np.stack(part) for part in zip(*found, strict=True))
        return cls(factors, scales, weights, second_moment)

    @property
    def sensitivity(self) -> float:
        """What the squared error of the outputs grows by with that of a weight.

        With a step size of s, rounding with feedback leaves about s^2 / 12 times this for each
        weight.
        """
        by_group = self.scales.mean(1) * self.row_weights.mean(1)
        return float(by_group.mean())

    def error(self, difference: np.ndarray) -> float:
        """Return the squared error of the outputs, shape of the argument (groups, N, K)."""
        return float(np.sum(self.row_weights * output_error(difference, self.second_moment)))


def quantize_with_feedback(
    values: np.ndarray,
    feedback: Feedback,
    qp: int,
    qp_density: int,
    *,
    lambda_: float | None = None,
    dq: bool = True,
    unary_length: int = DEFAULT_UNARY_LENGTH,
    name: str = "tensor",
) -> FeedbackResult:
    """Search levels of least output error for their bits.

    Parameters
    ----------
    values : ndarray of float, shape (groups, N, K)
        Weights as matrices, finite; they are coded in this order.
    feedback : Feedback
        From the second moment of what they are multiplied by.
    qp, qp_density : int
        See `nnrcodec.quant.step_size.step_size`.
    lambda_ : float, optional
        What a bit is worth, in squared steps of a weight of mean sensitivity; 0 looks for the least
        error. By default `DEFAULT_LAMBDA` or `UNIFORM_LAMBDA`.
    dq : bool
        Whether the levels shall be those of dependent quantization.
    unary_length : int
        Of the binarization that they will be coded with.
    name : str
        Named in errors.

    Returns
    -------
    FeedbackResult
        With `lambda_` 0 and without `dq`, its error is never larger than that of rounding.

    Raises
    ------
    ConfigError
        If a level could exceed the largest there is, the message names a qp that works; or if
        `lambda_` is out of range.
    ModelError
        If a value is not finite.
    """
    if lambda_ is None:
        lambda_ = DEFAULT_LAMBDA if dq else UNIFORM_LAMBDA
    if not (math.isfinite(lambda_) and lambda_ >= 0):
        raise ConfigError(f"lambda is {lambda_}, expected a number not below 0")
    check_peak(values, qp, qp_density, name)
    step = step_size(qp, qp_density)
    rows = values.astype(np.float64).reshape(-1, values.shape[-1]) / step
    scales = feedback.scales / feedback.sensitivity
    weights = feedback.row_weights.reshape(-1)

    from nnrcodec.entropy.compiled import announced  # here, because numba takes a while to import
    from nnrcodec.quant.search.feedback_kernels import feedback_search
    from nnrcodec.quant.search.trellis_kernels import search

    levels = np.empty(rows.size, np.int32)
    estimates = estimates_before(unary_length)
    groups = np.repeat(np.arange(len(values)), values.shape[1])

    def run(picked: np.ndarray) -> float:
        return float(
            feedback_search(
                rows[picked],
                weights[picked],
                groups[picked],
                feedback.factors,
                scales,
                lambda_,
                unary_length,
                dq,
                PACE,
                estimates,
                levels,
            )
        )

    with announced("the search with error feedback"):
        if lambda_:
            if dq:
                sample = sample_of(rows.ravel())
                for _ in range(REHEARSALS):
                    search(sample, 1.0, lambda_, unary_length, sample.size, PACE, estimates, levels)
            few = max(_REHEARSED // rows.shape[1], 1)
            run(np.arange(0, len(rows), max(len(rows) // few, 1)))
        bits = run(np.arange(len(rows)))
    found = levels.reshape(values.shape)
    error = feedback.error(found * step - values)
    if not dq and not lambda_:
        rounded = np.rint(values / step).astype(np.int32)
        plain = feedback.error(rounded * step - values)
        if plain < error:
            found, error = rounded, plain
    return FeedbackResult(found, error, bits)
