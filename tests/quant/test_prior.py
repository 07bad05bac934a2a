from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnrcodec.quant.prior import (
    MOST_TAPS,
    expected_error,
    has_prior,
    prior_moment,
    quantize_for_prior,
)
from nnrcodec.quant.quantized import squared_error
from nnrcodec.quant.step_size import step_size

SHAPES = [(8, 6), (5, 7, 3), (4, 6, 3, 3), (1, 1), (2, 1031), (3, 2, 1, 5, 2)]


def levels_for(values: np.ndarray, qp: int = -8, *, dq: bool = True) -> np.ndarray:
    result = quantize_for_prior(
        values, qp, 2, dtype="float32", name="w", lambda_=0.0, unary_length=10, dq=dq
    )
    assert result.dq == dq
    return result.value


@pytest.mark.parametrize("kernel", [(), (1,), (5,), (3, 3), (1, 7), (2, 2, 2)])
@pytest.mark.parametrize("channels", [1, 4])
def test_the_prior_is_a_second_moment(channels: int, kernel: tuple[int, ...]) -> None:
    moment = prior_moment(channels, kernel)
    assert moment.shape == (channels * int(np.prod(kernel, dtype=int)),) * 2
    assert np.array_equal(moment, moment.T)
    assert np.linalg.eigvalsh(moment).min() > 0.01
    assert np.allclose(np.diag(moment), moment[0, 0])


@pytest.mark.parametrize("dq", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_stay_within_some_steps(shape: tuple[int, ...], dq: bool) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert np.abs(levels_for(values, dq=dq) - values).max() < 3 * step_size(-8, 2)


@pytest.mark.parametrize("dq", [True, False])
def test_sums_of_kernels_and_means_of_outputs_are_kept(dq: bool) -> None:
    values = np.random.default_rng(1).normal(size=(16, 32, 3, 3)).astype(np.float32)
    step = step_size(-4, 2)
    rounded = np.rint(values / step) * step
    fed_back = levels_for(values, -4, dq=dq)

    def spoiled(decoded: np.ndarray, axes: tuple[int, ...]) -> float:
        return float(np.square((decoded - values).sum(axes, dtype=np.float64)).mean())

    assert spoiled(fed_back, (2, 3)) < 0.5 * spoiled(rounded, (2, 3))
    assert spoiled(fed_back, (1, 2, 3)) < 0.1 * spoiled(rounded, (1, 2, 3))
    assert expected_error(values, fed_back) < 0.9 * expected_error(values, rounded)


@given(st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_vectors_and_huge_kernels_have_their_squared_error(dimensions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (5,) if dimensions == 1 else (1,) * (dimensions - 1) + (1, MOST_TAPS + 1)
    values, decoded = rng.normal(size=shape), rng.normal(size=shape)
    if has_prior(values.shape):
        assert dimensions == 2
        return
    assert expected_error(values, decoded) == squared_error(values, decoded)


def test_an_error_that_is_white_counts_about_as_it_is() -> None:
    """Feedback makes errors less harmful than white ones, so that a white one counts more."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=(64, 32, 3, 3))
    decoded = values + 0.1 * rng.normal(size=values.shape)
    ratio = expected_error(values, decoded) / squared_error(values, decoded)
    assert 1 < ratio < 4
