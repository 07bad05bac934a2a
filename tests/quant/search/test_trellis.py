from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnrcodec.entropy.cabac.level_costs import choose_parameters
from nnrcodec.entropy.cabac.level_syntax import LevelSyntax
from nnrcodec.entropy.cabac.payload import PayloadEncoder
from nnrcodec.entropy.cabac.tables import STATE_TRANSITION
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.quant import uniform
from nnrcodec.quant.search import plain_trellis, trellis_kernels
from nnrcodec.quant.search.parameters import SearchSchedule
from nnrcodec.quant.search.trellis import dependent_qp, estimates_before, quantize_dependent
from nnrcodec.quant.step_size import step_size
from nnrcodec.quant.uniform import MAX_LEVEL

SMALL = st.floats(-6, 6, width=32)
FLOATS = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    st.integers(1, 120),
    elements=SMALL
    | st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.5, 2.0])
    | st.floats(-4e5, 4e5, width=32),
)
SCHEDULES = st.builds(SearchSchedule, st.integers(1, 50), st.integers(0, 9), st.integers(1, 40))


def bits_of(levels: np.ndarray, dq_flag: int, scan_order: int = 0) -> int:
    syntax = LevelSyntax(
        height=levels.shape[0],
        width=levels[0].size,
        dq_flag=dq_flag,
        cabac_unary_length=11,
        scan_order=scan_order,
    )
    encoder = PayloadEncoder()
    levels = levels.reshape(levels.shape[0], -1)
    encoder.levels(levels, syntax, choose_parameters(levels, syntax)[0])
    return 8 * len(encoder.finish())


def gaussian(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


@settings(deadline=None)  # the first call compiles
@given(
    FLOATS,
    st.sampled_from([1.0, 0.25, 0.375]),
    st.sampled_from([0.0, 0.33, 3.0]),
    st.sampled_from([1, 3, 11]),
    st.integers(1, 130),
    SCHEDULES,
)
def test_compiled_and_plain_search_are_the_same(
    values: np.ndarray,
    step: float,
    lambda_: float,
    unary_length: int,
    segment: int,
    schedule: SearchSchedule,
) -> None:
    results = []
    for search in (trellis_kernels.search, plain_trellis.search):
        levels = np.zeros(values.size, np.int32)
        estimates = estimates_before(unary_length)
        for _ in range(2):
            search(values, step, lambda_, unary_length, segment, schedule, estimates, levels)
        results.append((levels, estimates))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def admissible(length: int, largest: int) -> list[tuple[int, ...]]:
    """Return all sequences of multiples of the step size that dependent quantization has."""
    found = []
    for levels in itertools.product(range(-largest, largest + 1), repeat=length):
        state = 0
        multiples = []
        for c in levels:
            multiples.append(2 * c - (state & 1) * ((c > 0) - (c < 0)))
            state = STATE_TRANSITION[state, c & 1]
        found.append(tuple(multiples))
    return found


SEQUENCES = np.array(admissible(4, 3))


@settings(deadline=None)  # the first call compiles
@given(hnp.arrays(np.float64, 4, elements=st.floats(-4, 4)))
def test_without_lambda_no_sequence_has_less_error(values: np.ndarray) -> None:
    levels = quantize_dependent(values, 0, 2, lambda_=0)
    assert levels.tolist() in SEQUENCES.tolist()
    least = ((SEQUENCES - values) ** 2).sum(axis=1).min()
    np.testing.assert_allclose(((levels - values) ** 2).sum(), least, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scan_order", range(5))
@pytest.mark.parametrize("shape", [(40, 30), (9, 3, 5), (1, 70), (70, 1), (33,), (64, 64)])
def test_levels_can_be_coded_in_their_scan_order(shape: tuple[int, ...], scan_order: int) -> None:
    values = gaussian(*shape)
    levels = quantize_dependent(values, -4, 2, scan_order=scan_order)
    assert levels.shape == shape
    assert levels.dtype == np.int32
    assert np.abs(levels * step_size(-4, 2) - values).max() < 3 * step_size(-4, 2)
    assert bits_of(levels, 1, scan_order) > 0  # levels of the wrong parity are refused


@pytest.mark.parametrize(("uniform_qp", "saved"), [(-12, 0.03), (0, 0.07)])
def test_at_equal_error_it_is_smaller(uniform_qp: int, saved: float) -> None:
    values = gaussian(160, 160)
    rounded = uniform.quantize(values, uniform_qp, 2)
    error = np.square(rounded * step_size(uniform_qp, 2) - values).mean()
    bits, errors = [], []
    for qp in range(uniform_qp - 6, uniform_qp + 1):
        levels = quantize_dependent(values, qp, 2)
        bits.append(bits_of(levels, 1))
        errors.append(np.square(levels * step_size(qp, 2) - values).mean())
    at_equal_error = np.interp(np.log(error), np.log(errors), bits)
    assert at_equal_error < (1 - saved) * bits_of(rounded, 0)


@pytest.mark.parametrize("qp_density", [1, 2, 3])
@pytest.mark.parametrize("uniform_step", [1 / 2, 1 / 8])
def test_error_at_the_dependent_qp_is_about_that_of_rounding(
    qp_density: int, uniform_step: float
) -> None:
    values = gaussian(100, 100)
    qp = int(np.log2(uniform_step)) << qp_density
    found = dependent_qp(qp, qp_density)
    levels = quantize_dependent(values, found, qp_density)
    error = np.square(levels * step_size(found, qp_density) - values).mean()
    assert 0.6 < error / (uniform_step**2 / 12) < 1.7


def test_a_larger_lambda_trades_error_for_bits() -> None:
    values = gaussian(100, 100)
    bits, errors = [], []
    for lambda_ in (0.0, 0.2, 0.5, 2.0):
        levels = quantize_dependent(values, -4, 2, lambda_=lambda_)
        bits.append(bits_of(levels, 1))
        errors.append(np.square(levels * step_size(-4, 2) - values).mean())
    assert bits == sorted(bits, reverse=True)
    assert errors == sorted(errors)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes_and_layouts_do_not_matter(dtype: type) -> None:
    values = gaussian(50, 60).astype(np.float16)
    expected = quantize_dependent(values.astype(np.float64), -4, 2)
    np.testing.assert_array_equal(quantize_dependent(values.astype(dtype), -4, 2), expected)
    turned = np.asfortranarray(values.astype(dtype))
    np.testing.assert_array_equal(quantize_dependent(turned, -4, 2), expected)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 3)])
def test_zeros_stay_zeros(shape: tuple[int, ...]) -> None:
    levels = quantize_dependent(np.zeros(shape, np.float32), -8, 2)
    assert levels.shape == shape
    assert not levels.any()


@pytest.mark.parametrize("lambda_", [0.0, 0.33])
def test_the_largest_levels_are_within_bounds(lambda_: float) -> None:
    values = np.array([1.0, -1.0, 0.3, 1.0], np.float32)
    with pytest.raises(ConfigError, match=r"tensor 'w': qp -120 .* qp (-\d+) works") as caught:
        quantize_dependent(values, -120, 2, lambda_=lambda_, name="w")
    proposed = int(str(caught.value).split("; qp ")[1].split(" ")[0])
    assert np.abs(quantize_dependent(values, proposed, 2, lambda_=lambda_)).max() <= MAX_LEVEL


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    with pytest.raises(ModelError, match="conv1"):
        quantize_dependent(np.array([1, bad], np.float32), 0, 2, name="conv1")


@pytest.mark.parametrize("wrong", [{"lambda_": -0.1}, {"lambda_": np.nan}, {"scan_order": 5}])
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        quantize_dependent(np.ones(3, np.float32), 0, 2, **wrong)  # type: ignore[arg-type]
