"""Moments of what layers take, against patches that PyTorch itself cuts out."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import SingleLayer, single_layers

from nnrcodec.calibration import moments as module_of_moments
from nnrcodec.calibration.moments import Moments, measure

CONVOLUTION = SingleLayer(
    "aten.conv2d.default",
    (6, 2, 3, 3),
    (2, 4, 9, 8),
    (("stride", (2, 1)), ("padding", (1, 1)), ("groups", 2)),
)
LINEAR = SingleLayer("aten.linear.default", (4, 6), (500, 6))


def patches_of(single: SingleLayer, value: torch.Tensor) -> np.ndarray:
    """Return what the weight is multiplied by at each position, shape (groups, patches, K).

    With a weight that is one in a single column, that column comes out.
    """
    layer = single.layer()
    columns = []
    for unit in np.eye(layer.columns, dtype=np.float32):
        matrices = np.zeros((layer.groups, layer.rows, layer.columns), np.float32)
        matrices[:, 0] = unit
        made = single.output(torch.from_numpy(layer.weight_of(matrices)), value)
        columns.append(made.reshape(-1, layer.groups, layer.rows)[:, :, 0].double())
    return torch.stack(columns, 2).transpose(0, 1).numpy()


def second_moment(x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
    return np.asarray(x.swapaxes(1, 2) @ (x if y is None else y) / x.shape[1])


def moments_of(
    original: np.ndarray, changed: np.ndarray | None = None, single: SingleLayer = LINEAR
) -> Moments:
    """Measure moments of one input in either network."""
    before = [torch.from_numpy(original)]
    behind = before if changed is None else [torch.from_numpy(changed)]
    return measure(single.layer(), before, behind)


def inputs_to_linear(seed: int = 0, mean: float = 0.5, deviation: float = 1.0) -> np.ndarray:
    """Return correlated inputs of `LINEAR`."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(500, 6)) @ (np.eye(6) + 0.4 * rng.normal(size=(6, 6)))
    return (mean + deviation * mixed).astype(np.float32)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(deadline=None, max_examples=60)
@given(single_layers())
def test_moments_are_those_of_all_patches(single: SingleLayer) -> None:
    before, behind = [single.input(1), single.input(2)], [single.input(3), single.input(4)]
    x, y = (
        np.concatenate([patches_of(single, value) for value in values], axis=1)
        for values in (behind, before)
    )
    found = measure(single.layer(), before, behind)
    assert (found.count, found.positions) == (x.shape[1], x.shape[1])
    for value, expected in (
        (found.second_moment, second_moment(x)),
        (found.cross, second_moment(y, x)),
        (found.original_square, np.trace(second_moment(y), axis1=1, axis2=2)),
        (found.mean, x.mean(1)),
        (found.original_mean, y.mean(1)),
    ):
        assert value.dtype == np.float64
        np.testing.assert_allclose(value, expected, atol=1e-5, rtol=1e-5)


def test_an_input_that_did_not_change_is_measured_once() -> None:
    value = [CONVOLUTION.input()]
    once = measure(CONVOLUTION.layer(), value, value)
    twice = measure(CONVOLUTION.layer(), value, [value[0].clone()])
    assert once.cross is once.second_moment
    for name in ("second_moment", "mean", "cross", "original_square", "original_mean"):
        np.testing.assert_allclose(getattr(once, name), getattr(twice, name), atol=1e-6)


def test_they_do_not_depend_on_how_patches_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    before, behind = [CONVOLUTION.input(1)], [CONVOLUTION.input(2)]
    whole = measure(CONVOLUTION.layer(), before, behind)
    monkeypatch.setattr(module_of_moments, "_BATCH", 7)
    parts = measure(CONVOLUTION.layer(), before, behind)
    for name in ("second_moment", "mean", "cross", "original_square", "original_mean"):
        np.testing.assert_allclose(getattr(whole, name), getattr(parts, name), atol=1e-6)
    assert parts.count == whole.count


def test_of_too_many_patches_some_are_taken_by_the_seed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    layer = CONVOLUTION.layer()
    many = [CONVOLUTION.input(seed) for seed in range(40)]
    whole = measure(layer, many, many)
    assert not caplog.messages
    monkeypatch.setattr(module_of_moments, "_BATCH", 50)
    monkeypatch.setattr(module_of_moments, "_OPERATIONS", layer.groups * layer.columns**2 * 1000)
    found, again, other = (measure(layer, many, many, seed) for seed in (1, 1, 2))
    assert found.positions == whole.positions == whole.count
    said = f"layer {layer.name} are measured at about 1000 of {whole.count} positions"
    assert [said in message for message in caplog.messages] == [True] * 3
    assert 1000 <= found.count <= 1000 + 8 * len(many)  # whole lines of the output, of 8 each
    np.testing.assert_array_equal(found.second_moment, again.second_moment)
    assert not np.array_equal(found.second_moment, other.second_moment)
    np.testing.assert_allclose(found.mean, whole.mean, atol=0.2)
    np.testing.assert_allclose(found.second_moment, whole.second_moment, atol=0.4)


def test_the_same_patches_of_either_network_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a changed input that is twice the original, the moments are multiples."""
    layer = CONVOLUTION.layer()
    many = [CONVOLUTION.input(seed) for seed in range(10)]
    monkeypatch.setattr(module_of_moments, "_BATCH", 50)
    monkeypatch.setattr(module_of_moments, "_OPERATIONS", 1.0)
    found = measure(layer, many, [2 * value for value in many])
    assert found.count < found.positions
    np.testing.assert_allclose(found.second_moment, 2 * found.cross, atol=1e-5)
    traces = np.trace(found.second_moment, axis1=1, axis2=2)
    np.testing.assert_allclose(traces, 4 * found.original_square, rtol=1e-5)


# About the means


def test_centred_moments_are_covariances() -> None:
    original, changed = inputs_to_linear(1), inputs_to_linear(2, mean=-2)
    found = moments_of(original, changed).centered()
    x, y = changed - changed.mean(0, dtype=float), original - original.mean(0, dtype=float)
    np.testing.assert_allclose(found.second_moment[0], x.T @ x / 500, atol=1e-5)
    np.testing.assert_allclose(found.cross[0], y.T @ x / 500, atol=1e-5)
    np.testing.assert_allclose(found.original_square[0], np.trace(y.T @ y) / 500, rtol=1e-5)
    assert not found.mean.any()
    assert not found.original_mean.any()
    alone = moments_of(original).centered()
    assert alone.cross is alone.second_moment
    np.testing.assert_allclose(alone.second_moment[0], y.T @ y / 500, atol=1e-5)


@pytest.mark.parametrize("mean", [0.0, 10.0, 3000.0])
def test_covariances_are_right_wherever_the_mean_is(mean: float) -> None:
    changed = inputs_to_linear(2, mean, 0.01 + mean / 1e5)
    x = changed.astype(np.float64) - changed.mean(0, dtype=np.float64)
    covariance = x.T @ x / 500
    for found in (moments_of(inputs_to_linear(1), changed), moments_of(changed)):
        size = np.trace(covariance)
        np.testing.assert_allclose(found.centered().second_moment[0], covariance, atol=1e-4 * size)
        assert np.linalg.eigvalsh(found.centered().second_moment[0]).min() > 0


@pytest.mark.parametrize("constant", [0.0, 0.1, 1.7, 100.0])
def test_what_does_not_vary_has_no_variance(constant: float) -> None:
    flat = np.full((500, 6), constant, np.float32)
    flat[::2] = np.nextafter(flat[::2], np.float32(1e9))  # as the rounding of a kernel does
    varied, matrices = inputs_to_linear(), np.random.default_rng(0).normal(size=(1, 4, 6))
    assert moments_of(varied).centered().second_moment.all()
    assert not moments_of(flat).centered().second_moment.any()
    for original in (flat.copy(), varied):
        found = moments_of(original, flat).centered()
        assert not found.second_moment.any()
        assert not found.cross.any()
        np.testing.assert_array_equal(found.fitted(matrices), matrices)
    found = moments_of(flat, varied).centered()
    assert not found.cross.any()
    assert found.second_moment.all()
    assert np.abs(found.fitted(matrices, 1e-3)).max() < 0.2  # what comes out shall not vary either


# What they say


def layer_output(matrices: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return outputs of patches, shape (groups, patches, rows)."""
    return np.asarray(x @ matrices.swapaxes(1, 2))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999))
def test_changes_of_mean_and_scale_are_those_of_the_outputs(seed: int) -> None:
    single, rng = CONVOLUTION, np.random.default_rng(seed)
    before, behind = single.input(seed), single.input(seed) + 0.3 * single.input(seed + 1)
    y, x = patches_of(single, before), patches_of(single, behind)
    found = measure(single.layer(), [before], [behind])
    original = single.layer().matrices(single.weight()).astype(np.float64)
    changed = original + rng.normal(size=original.shape)
    wanted, made = layer_output(original, y), layer_output(changed, x)
    change = (wanted.mean(1) - made.mean(1)).reshape(-1)
    np.testing.assert_allclose(found.bias_change(original, changed), change, atol=1e-5)
    np.testing.assert_allclose(found.output_mean(changed), made.mean(1).reshape(-1), atol=1e-5)
    wanted, made = wanted - wanted.mean(1, keepdims=True), made - made.mean(1, keepdims=True)
    gains = np.sum(wanted * made, axis=1) / np.sum(made * made, axis=1)
    np.testing.assert_allclose(found.gains(original, changed), gains.reshape(-1), rtol=1e-3)


def test_nothing_changed_changes_nothing() -> None:
    matrices = np.random.default_rng(0).normal(size=(1, 4, 6))
    found = moments_of(inputs_to_linear())
    assert not found.bias_change(matrices, matrices).any()
    np.testing.assert_allclose(found.gains(matrices, matrices), 1)
    np.testing.assert_array_equal(found.gains(0 * matrices, 0 * matrices), 1)


def test_the_fitted_weight_is_that_of_least_squares() -> None:
    original, changed = inputs_to_linear(1), inputs_to_linear(1) ** 2
    matrices = np.random.default_rng(0).normal(size=(1, 4, 6))
    found = moments_of(original, changed).fitted(matrices, ridge=1e-9)
    wanted = original.astype(np.float64) @ matrices[0].T
    solution, *_ = np.linalg.lstsq(changed.astype(np.float64), wanted, rcond=None)
    np.testing.assert_allclose(found[0], solution.T, atol=1e-3)


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
def test_a_ridge_keeps_the_fitted_weight_near_the_original(ridge: float) -> None:
    """It has the least sum of the output error and the squared distance, in every group."""
    single, rng = CONVOLUTION, np.random.default_rng(0)
    before, behind = single.input(1), single.input(1) + 0.5 * single.input(2)
    moments = measure(single.layer(), [before], [behind])
    original = single.layer().matrices(single.weight()).astype(np.float64)
    means = np.trace(moments.second_moment, axis1=1, axis2=2) / original.shape[2]

    def objective(matrices: np.ndarray) -> float:
        distance = np.square(matrices - original).sum((1, 2))
        error = np.einsum("grk,gkl,grl->", matrices, moments.second_moment, matrices)
        error -= 2 * np.einsum("grk,gkl,grl->", original, moments.cross, matrices)
        return float(error + ridge * means @ distance)

    found = moments.fitted(original, ridge)
    least = objective(found)
    assert least < objective(original)
    for _ in range(20):
        other = found + 1e-3 * rng.normal(size=found.shape)
        assert objective(other) > least


def test_without_a_change_the_fitted_weight_is_the_original() -> None:
    matrices = np.random.default_rng(0).normal(size=(1, 4, 6)).astype(np.float32)
    found = moments_of(inputs_to_linear()).fitted(matrices)
    np.testing.assert_array_equal(found, matrices)
    assert found.dtype == np.float64


def test_inputs_that_are_never_seen_leave_their_weights_alone() -> None:
    original, changed = inputs_to_linear(1), inputs_to_linear(1) + inputs_to_linear(2)
    original[:, 3:] = changed[:, 3:] = 0
    matrices = np.random.default_rng(0).normal(size=(1, 4, 6))
    found = moments_of(original, changed).fitted(matrices)
    np.testing.assert_allclose(found[:, :, 3:], matrices[:, :, 3:], atol=1e-12)
    assert np.abs(found[:, :, :3] - matrices[:, :, :3]).max() > 0.1


def test_few_patches_change_a_weight_less_than_many_like_them() -> None:
    original, changed = inputs_to_linear(1), inputs_to_linear(1) + inputs_to_linear(2)
    matrices = np.random.default_rng(0).normal(size=(1, 4, 6))
    few = moments_of(original[:10], changed[:10])
    many = replace(few, count=10_000)
    near, far = (np.abs(each.fitted(matrices) - matrices).sum() for each in (few, many))
    assert near < 0.8 * far


def test_inputs_may_have_any_float_dtype() -> None:
    value = CONVOLUTION.input()
    found = measure(CONVOLUTION.layer(), [value.to(torch.bfloat16)], [value.double()])
    exact = measure(CONVOLUTION.layer(), [value.bfloat16().float()], [value])
    np.testing.assert_array_equal(found.cross, exact.cross)
