from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnrcodec.errors import ConfigError
from nnrcodec.quant.step_size import dequantize, qp_of_step_size, step_size


@given(st.integers(-126 * 8, 127 * 8 - 1), st.integers(0, 7))
def test_step_size_is_the_formula_of_the_standard_exactly(qp: int, qp_density: int) -> None:
    k = 2**qp_density
    if not -126 * k <= qp < 127 * k:
        return
    mul = k + (qp & (k - 1))
    shift = qp // k
    assert Fraction(step_size(qp, qp_density)) == mul * Fraction(2) ** (shift - qp_density)
    assert float(np.float32(step_size(qp, qp_density))) == step_size(qp, qp_density)


@pytest.mark.parametrize(
    ("qp", "qp_density", "expected"),
    [(0, 2, 1.0), (-8, 2, 0.25), (-32, 2, 2.0**-8), (-75, 2, 1.25 * 2.0**-19), (1, 0, 2.0)],
)
def test_known_step_sizes(qp: int, qp_density: int, expected: float) -> None:
    assert step_size(qp, qp_density) == expected


@given(st.integers(-400, 400), st.integers(0, 7))
def test_qp_of_step_size_inverts(qp: int, qp_density: int) -> None:
    k = 2**qp_density
    if not -120 * k <= qp < 120 * k:
        return
    step = step_size(qp, qp_density)
    assert qp_of_step_size(step, qp_density) == qp
    between = (step + step_size(qp + 1, qp_density)) / 2
    assert qp_of_step_size(between, qp_density) == qp


@pytest.mark.parametrize(("qp", "qp_density"), [(508, 2), (-505, 2), (0, 8), (0, -1)])
def test_step_sizes_outside_float32_are_refused(qp: int, qp_density: int) -> None:
    with pytest.raises(ConfigError):
        step_size(qp, qp_density)


def test_dequantize_rounds_the_level_then_multiplies_once() -> None:
    levels = np.array([2**24 + 1, -3, 0], np.int32)
    expected = np.array([np.float32(2**24) * np.float32(0.3125), -0.9375, 0], np.float32)
    values = dequantize(levels, -7, 2)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, expected)
