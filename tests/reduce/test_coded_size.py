"""Estimates of coded bits, against coded bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnrcodec.quant.search.feedback import Feedback, quantize_with_feedback
from nnrcodec.quant.step_size import step_size
from nnrcodec.reduce.coded_size import bits_of, bits_of_pair, bits_of_whole
from nnrcodec.reduce.least_error import Objective, best_product


def correlated(columns: int, seed: int) -> np.ndarray:
    """Return a second moment of correlated inputs."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(columns) + 0.5 * rng.normal(size=(columns, columns)) / math.sqrt(columns)
    return np.asarray(mixing @ mixing.T)


@pytest.mark.parametrize("qp", [-12, -4, 0])
def test_bits_are_about_those_of_the_quantizer(qp: int) -> None:
    rng = np.random.default_rng(1)
    target, second = rng.normal(size=(1, 64, 96)), correlated(96, 2)[None]
    feedback = Feedback.of(second, np.ones((1, 64)))
    coded = quantize_with_feedback(target, feedback, qp, 2)
    each = step_size(qp, 2) ** 2 / 12 * feedback.sensitivity
    estimated = bits_of_whole(Objective.of(target[0], second[0]), each)
    assert estimated == pytest.approx(coded.bits, rel=0.25)


@given(scale=st.floats(1e-3, 1e3), sensitivity=st.floats(1e-3, 1e3), each=st.floats(1e-6, 1e2))
@settings(max_examples=50, deadline=None)
def test_bits_depend_on_what_an_error_does_and_not_on_units(
    scale: float, sensitivity: float, each: float
) -> None:
    matrix = np.random.default_rng(0).normal(size=(4, 6))
    bits = bits_of(matrix, sensitivity, each)
    assert bits >= 0
    assert bits_of(scale * matrix, sensitivity / scale**2, each) == pytest.approx(bits)
    assert bits_of(matrix, sensitivity, 2 * each) < bits
    assert bits_of(matrix, 0.0, each) == 0


@pytest.mark.parametrize("taps", [1, 3])
def test_a_pair_of_low_rank_takes_fewer_bits_at_fine_steps(taps: int) -> None:
    rng = np.random.default_rng(3)
    low = rng.normal(size=(32, 2)) @ rng.normal(size=(2, 48))
    objective = Objective.of(low, correlated(48, 4))
    if taps == 1:
        v, u, _ = best_product(objective, 2)
        second = v[:, :, None]
    else:
        u, second = rng.normal(size=(2, 16)), rng.normal(size=(32, 2, 3))
    assert 0 < bits_of_pair(objective, u, second, 1e-4) < bits_of_whole(objective, 1e-4) / 2
