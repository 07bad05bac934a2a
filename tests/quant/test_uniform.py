from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.quant.step_size import dequantize, step_size
from nnrcodec.quant.uniform import MAX_LEVEL, WEIGHT_STEPS, UniformConfig, quantize

FLOATS = hnp.arrays(
    np.float32, hnp.array_shapes(max_dims=3), elements=st.floats(-1000, 1000, width=32)
)


@given(FLOATS, st.integers(-13, 13), st.integers(0, 3))
def test_error_is_at_most_half_a_step(values: np.ndarray, qp: int, qp_density: int) -> None:
    levels = quantize(values, qp, qp_density)
    step = step_size(qp, qp_density)
    exact = levels.astype(np.float64) * step
    assert np.abs(exact - values).max() <= step / 2
    np.testing.assert_allclose(dequantize(levels, qp, qp_density), exact, rtol=1e-7)


def test_halves_go_away_from_zero() -> None:
    values = np.array([0.5, -0.5, 1.5, -1.5, 2.5, 0.49999997], np.float32)
    assert quantize(values, 0, 2).tolist() == [1, -1, 2, -2, 3, 0]


def test_a_step_too_fine_is_refused_with_one_that_works() -> None:
    values = np.array([1.0, 1e-3], np.float32)
    with pytest.raises(ConfigError, match=r"tensor 'w': qp -120 .* qp (-\d+) works") as caught:
        quantize(values, -120, 2, "w")
    proposed = int(str(caught.value).split("; qp ")[1].split(" ")[0])
    assert abs(quantize(values, proposed, 2)).max() <= MAX_LEVEL


def test_values_that_are_not_finite_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="conv1"):
        quantize(np.array([1, np.inf], np.float32), 0, 2, "conv1")


def test_default_step_of_weights_follows_scale_and_size() -> None:
    values = np.random.default_rng(1).normal(size=(256, 256)).astype(np.float32)
    config = UniformConfig()
    qp = config.qp_for(values)
    assert config.qp_for(values * 4) == qp + 8
    assert config.qp_for(values * 0) == 0
    assert 1 / WEIGHT_STEPS / 1.3 < step_size(qp, 2) < 1 / WEIGHT_STEPS * 1.02
    quarter_of_large = values[:64, :128]
    assert abs(config.qp_for(quarter_of_large) - (qp - 4)) <= 1
    assert abs(config.qp_for(values[:4, :4]) - (qp - 12)) <= 2


def test_default_step_of_vectors_is_finer_and_keeps_small_positive_values() -> None:
    config = UniformConfig()
    variances = np.array([1e-3] + [1.0] * 63)
    signed = variances * np.array([1, -1] * 32)
    coarse, fine = (step_size(config.qp_for(v), 2) for v in (signed, variances))
    assert coarse <= 1 / 128
    assert 1e-3 / 5 <= fine <= 1e-3 / 4
    tiny = np.array([1e-30] + [1.0] * 63)
    assert step_size(config.qp_for(tiny), 2) > 2.0**-15


def test_given_qps_are_taken() -> None:
    weights, bias = np.ones((4, 4)), np.ones(4)
    assert UniformConfig(qp=-30).qp_for(weights) == -30
    assert UniformConfig(qp=-30).qp_for(bias) == -46
    assert UniformConfig(qp=-30, nonweight_qp=-60).qp_for(bias) == -60
    assert UniformConfig(qp=-30, qp_density=3).qp_for(bias) == -62


@pytest.mark.parametrize("wrong", [{"qp_density": 9}, {"qp": 100000}, {"nonweight_qp": -100000}])
def test_impossible_configurations_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        UniformConfig(**wrong)


def test_weights_of_recurrent_layers_are_told_by_their_names() -> None:
    weight = np.random.default_rng(0).normal(size=(256, 256))
    config = UniformConfig()
    plain = config.qp_for(weight, "fc.weight")
    assert config.qp_for(weight, "rnn.weight_hh_l1") == plain - 8
    assert config.qp_for(weight, "weight_ih_l2_reverse") == plain - 8
    for name in ("lstm.weight_ih_l0", "cell.weight_ih", "gru.weight_ih_l0_reverse"):
        assert config.qp_for(weight, name) == plain - 16
    assert config.qp_for(weight, "my_weight_hh") == plain
    assert UniformConfig(qp=-30).qp_for(weight, "rnn.weight_hh_l1") == -30
