"""Quantization with error feedback: lowest output error of a layer plus cost of bits.

Each row of a weight is quantized from its first column to its last, and the errors of earlier
columns shift the values of later ones so that the output error is lowest: the method of GPTQ
(E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, ICLR 2023), which goes back to Optimal Brain
Surgeon (B. Hassibi, D. G. Stork, NIPS 1992). Levels are searched as in
`nnrcodec.quant.search.trellis`, with bits in the cost and, in dependent quantization, its states;
but here each surviving path has its own errors, and so its own values to quantize.

The plain loops in `nnrcodec.quant.search.plain_feedback` define the search, those in
`nnrcodec.quant.search.feedback_kernels` are compiled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from nnrcodec.entropy.cabac.level_syntax import DEFAULT_UNARY_LENGTH
from nnrcodec.errors import ConfigError
from nnrcodec.quant.search.parameters import SCHEDULE, WARMUP_PASSES
from nnrcodec.quant.search.trellis import check_peak, estimates_before, sample_of
from nnrcodec.quant.second_moment import feedback_of, output_error
from nnrcodec.quant.step_size import step_size

DEFAULT_LAMBDA = 0.1
"""Cost of a bit in dependent quantization, in squared steps: lower than without feedback, because
later columns cannot correct the errors that save bits."""

UNIFORM_LAMBDA = 0.05
"""The same in uniform quantization."""

DAMPING = 0.01

_WARMUP_LEVELS = 2**15
"""Number of levels in the rows of the last warm-up pass, which adapts the probability estimates."""


@dataclass(frozen=True, slots=True)
class FeedbackResult:
    """Levels with their output error and bits.

    Parameters
    ----------
    levels : ndarray of int32, shape (groups, N, K)
        Multiples of the step size.
    error : float
        Squared error of the outputs, summed over the rows with their weights.
    bits : float
        Estimated bits of the levels.
    """

    levels: np.ndarray
    error: float
    bits: float


@dataclass(frozen=True, slots=True)
class Feedback:
    """How errors of a weight are fed back, and the output error that they cause.

    Parameters
    ----------
    factors : ndarray of float64, shape (groups, K, K)
    scales : ndarray of float64, shape (groups, K)
        By group, as `nnrcodec.quant.second_moment.feedback_of` returns them.
    row_weights : ndarray of float64, shape (groups, N)
        Weight of the squared error of each output.
    second_moment : ndarray of float64, shape (groups, K, K)
        Second moment of the input of the layer, from which factors and scales follow.
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
        """Derive it from the second moment of the input of the layer.

        Parameters
        ----------
        second_moment : ndarray, shape (groups, K, K)
            Symmetric, without negative eigenvalues, by group.
        row_weights : ndarray, shape (groups, N)
            Not negative.
        damping : float
            Part of its mean that is added to the diagonal, and part of the mean of `row_weights`
            that is the least of each: other inputs may need what these do not use.
        """
        of_groups = [feedback_of(moment.astype(np.float64), damping) for moment in second_moment]
        weights = row_weights.astype(np.float64)
        if not weights.sum() > 0:
            weights = np.ones_like(weights)
        weights = np.maximum(weights, damping * weights.mean())
        factors, scales = (np.stack(part) for part in zip(*of_groups, strict=True))
        return cls(factors, scales, weights, second_moment)

    def for_rows(self, count: int) -> Feedback:
        """Return the same feedback for so many rows that count alike; there is one group."""
        return replace(self, row_weights=np.ones((1, count)))

    @property
    def sensitivity(self) -> float:
        """Mean squared output error for a squared error of 1 in one weight.

        Rounding with feedback and a step size of s causes about s^2 / 12 times this per weight.
        """
        by_group = self.scales.mean(1) * self.row_weights.mean(1)
        return float(by_group.mean())

    def error(self, difference: np.ndarray) -> float:
        """Return the squared output error of a weight error, shape (groups, N, K)."""
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
    """Search levels with the lowest output error plus cost of bits.

    Parameters
    ----------
    values : ndarray of float, shape (groups, N, K)
        Weights as matrices, finite, in coding order.
    feedback : Feedback
        From the second moment of the input of the layer.
    qp, qp_density : int
        See `nnrcodec.quant.step_size.step_size`.
    lambda_ : float, optional
        Cost of a bit, in squared steps of a weight of mean sensitivity; with 0 only the error
        counts. By default `DEFAULT_LAMBDA` or `UNIFORM_LAMBDA`.
    dq : bool
        Whether to use dependent quantization.
    unary_length : int
        Of the binarization with which the levels will be coded.
    name : str
        Name of the tensor in error messages.

    Returns
    -------
    FeedbackResult
        With `lambda_` 0 and without `dq`, the error is never larger than that of rounding.

    Raises
    ------
    ConfigError
        If a level could exceed `MAX_LEVEL` (the message names a qp that works), or `lambda_` is
        out of range.
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

    def run(selected: np.ndarray) -> float:
        return float(
            feedback_search(
                rows[selected],
                weights[selected],
                groups[selected],
                feedback.factors,
                scales,
                lambda_,
                unary_length,
                dq,
                SCHEDULE,
                estimates,
                levels,
            )
        )

    with announced("the search with error feedback"):
        if lambda_:
            if dq:
                sample = sample_of(rows.ravel())
                for _ in range(WARMUP_PASSES):
                    search(
                        sample, 1.0, lambda_, unary_length, sample.size, SCHEDULE, estimates, levels
                    )
            warmup_rows = max(_WARMUP_LEVELS // rows.shape[1], 1)
            run(np.arange(0, len(rows), max(len(rows) // warmup_rows, 1)))
        bits = run(np.arange(len(rows)))
    searched = levels.reshape(values.shape)
    error = feedback.error(searched * step - values)
    if not dq and not lambda_:
        rounded = np.rint(values / step).astype(np.int32)
        rounding_error = feedback.error(rounded * step - values)
        if rounding_error < error:
            searched, error = rounded, rounding_error
    return FeedbackResult(searched, error, bits)
