"""Factors of least output error: against brute force, and against the truncated decomposition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnrcodec.reduce.decomposition import Decomposition
from nnrcodec.reduce.least_error import Objective, balanced, best_product, best_separable
from nnrcodec.reduce.schemes import Scheme

SEEDS = st.integers(0, 9999)


def objective_of(
    rows: int, columns: int, seed: int = 0, target: np.ndarray | None = None
) -> Objective:
    """Return an objective of correlated inputs, and of outputs that count differently."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(columns) + 0.5 * rng.normal(size=(columns, columns))
    x = rng.normal(size=(4 * columns, columns)) @ mixing
    after = rng.normal(size=(rows + 2, rows)) * rng.uniform(0.1, 2, rows)
    target = rng.normal(size=(rows, columns)) if target is None else target
    return Objective.of(target, x.T @ x / len(x), after.T @ after)


def product(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the weight that two kernels, of d x 1 and of 1 x d', stand for, as a matrix."""
    kernel = Scheme("separable", (len(v), u.shape[1], u.shape[2], v.shape[3])).merge(u, v)
    return kernel.reshape(len(v), -1)


def least_by_descent(objective: Objective, rank: int, seed: int) -> float:
    """Return the least error of a product that either factor in turn can be improved to."""
    rng = np.random.default_rng(seed)
    rows, columns = objective.target.shape
    metric, second = (
        objective.sensitivity_root @ objective.sensitivity_root,
        objective.second_moment,
    )
    v = rng.normal(size=(rows, rank))
    for _ in range(400):
        u = np.linalg.solve(v.T @ metric @ v, v.T @ metric @ objective.target)
        v = np.linalg.solve(u @ second @ u.T, u @ second @ objective.target.T).T
    assert u.shape == (rank, columns)
    return objective.error(v @ u)


# The objective


@given(SEEDS)
def test_the_error_is_that_of_weighted_outputs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target, weight, after = (rng.normal(size=shape) for shape in ((3, 4), (3, 4), (5, 3)))
    x = rng.normal(size=(50, 4)) + 0.3
    objective = Objective.of(target, x.T @ x / 50, after.T @ after)
    lifted = np.vstack([x, np.sqrt(1e-3 * np.square(x).sum() / 4) * np.eye(4)])
    lifted_after = np.vstack([after, np.sqrt(1e-2 * np.square(after).sum() / 3) * np.eye(3)])
    expected = np.square(lifted @ (weight - target).T @ lifted_after.T).sum() / 50
    assert objective.error(weight) == pytest.approx(expected)
    assert objective.error(target) == 0
    assert objective.energy() == pytest.approx(objective.error(np.zeros((3, 4))))


def test_moments_are_lifted_a_little() -> None:
    """Inputs that are never seen count for something, and so do outputs without influence."""
    target = np.ones((3, 4))
    objective = Objective.of(target, np.diag([0.0, 0.0, 2.0, 2.0]), np.diag([0.0, 3.0, 3.0]))
    np.testing.assert_allclose(objective.second_moment, np.diag([1e-3, 1e-3, 2.001, 2.001]))
    np.testing.assert_allclose(
        objective.sensitivity_root**2, np.diag([0.02, 3.02, 3.02]), atol=1e-12
    )
    np.testing.assert_allclose(
        objective.sensitivity_root @ objective.inverse_sensitivity_root, np.eye(3), atol=1e-12
    )


@pytest.mark.parametrize("metric", [None, np.zeros((3, 3))])
def test_without_a_metric_all_outputs_count_alike(metric: np.ndarray | None) -> None:
    objective = Objective.of(np.ones((3, 4), np.float32), np.eye(4), metric)
    assert objective.error(np.zeros((3, 4))) == pytest.approx(12 * 1.001)
    assert objective.target.dtype == np.float64


def test_without_inputs_it_is_the_error_of_the_weight() -> None:
    rng = np.random.default_rng(0)
    objective = Objective.of(rng.normal(size=(4, 6)), np.zeros((6, 6)))
    found = Decomposition.of(Scheme("linear", (4, 6)), objective.target)
    v, u, error = best_product(objective, 2)
    assert error == pytest.approx(found.error(2) ** 2)
    second, first = found.factors(2)[::-1]
    np.testing.assert_allclose(v @ u, second @ first, atol=1e-9)


# The best product


@given(st.tuples(st.integers(1, 6), st.integers(1, 8)), SEEDS)
def test_of_full_rank_the_product_is_the_target(shape: tuple[int, int], seed: int) -> None:
    objective = objective_of(*shape, seed)
    v, u, error = best_product(objective, min(shape))
    np.testing.assert_allclose(v @ u, objective.target, atol=1e-8)
    assert error == pytest.approx(0, abs=1e-12)


@given(st.tuples(st.integers(1, 6), st.integers(1, 8)), SEEDS, st.data())
def test_a_target_of_low_rank_is_found(
    shape: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    rank, rng = data.draw(st.integers(1, min(shape))), np.random.default_rng(seed)
    target = rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))
    v, u, error = best_product(objective_of(*shape, seed, target), rank)
    assert (v.shape, u.shape) == ((shape[0], rank), (rank, shape[1]))
    np.testing.assert_allclose(v @ u, target, atol=1e-8)
    assert error == pytest.approx(0, abs=1e-12)


@given(st.tuples(st.integers(1, 6), st.integers(1, 8)), SEEDS, st.data())
def test_no_other_product_is_better_than_the_best(
    shape: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(1, min(shape)))
    objective = objective_of(*shape, seed)
    v, u, error = best_product(objective, rank)
    assert error == pytest.approx(objective.error(v @ u), rel=1e-6, abs=1e-9)
    plain_u, plain_v = Decomposition.of(Scheme("linear", shape), objective.target).factors(rank)
    assert error <= objective.error(plain_v @ plain_u) * (1 + 1e-9) + 1e-12
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1e-1, 1.0):
        other = (v + size * rng.normal(size=v.shape)) @ (u + size * rng.normal(size=u.shape))
        assert error <= objective.error(other) + 1e-12


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rank", [1, 2])
def test_descent_from_anywhere_finds_the_same_product(rank: int, seed: int) -> None:
    objective = objective_of(3, 4, seed)
    *_, error = best_product(objective, rank)
    least = min(least_by_descent(objective, rank, start) for start in range(4))
    assert error == pytest.approx(least, rel=1e-6)


def test_more_rank_is_less_error() -> None:
    objective = objective_of(5, 7)
    errors = [best_product(objective, rank)[2] for rank in range(1, 6)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < objective.energy()


@given(SEEDS)
def test_rows_and_columns_of_factors_have_the_same_norm(seed: int) -> None:
    v, u, _ = best_product(objective_of(4, 6, seed), 3)
    np.testing.assert_allclose(np.linalg.norm(u, axis=1), np.linalg.norm(v, axis=0))


def test_balancing_keeps_the_product_and_drops_what_is_zero() -> None:
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(4, 6)), 100 * rng.normal(size=(5, 4))
    u[1], v[:, 2] = 0, 0
    first, last = balanced(u, v)
    np.testing.assert_allclose(last @ first, v @ u)
    norms = np.linalg.norm(first, axis=1), np.linalg.norm(last, axis=0)
    np.testing.assert_allclose(*norms)
    assert not norms[0][1:3].any()
    assert norms[0][[0, 3]].all()


# Separable kernels

SHAPES = st.tuples(*(st.integers(low, 3) for low in (1, 1, 2, 2)))


@settings(deadline=None, max_examples=30)
@given(SHAPES, SEEDS)
def test_of_full_rank_separable_kernels_are_the_target(
    shape: tuple[int, int, int, int], seed: int
) -> None:
    n, c, height, width = shape
    objective = objective_of(n, c * height * width, seed)
    rank = Scheme("separable", shape).maximum_rank
    u, v, errors = best_separable(objective, shape, rank, 2)
    np.testing.assert_allclose(product(u, v), objective.target, atol=1e-6)
    assert max(errors) <= 1e-9 * objective.energy()


@settings(deadline=None, max_examples=30)
@given(SHAPES, SEEDS, st.data())
def test_separable_kernels_are_found(
    shape: tuple[int, int, int, int], seed: int, data: st.DataObject
) -> None:
    scheme, rng = Scheme("separable", shape), np.random.default_rng(seed)
    rank = data.draw(st.integers(1, scheme.maximum_rank))
    first, last = scheme.factor_shapes(rank)
    target = product(rng.normal(size=first), rng.normal(size=last))
    objective = Objective.of(target, objective_of(*target.shape, seed).second_moment)
    u, v, errors = best_separable(objective, shape, rank, 2)
    assert (u.shape, v.shape) == (first, last)
    np.testing.assert_allclose(product(u, v), target, atol=1e-6)
    assert max(errors) <= 1e-9 * objective.energy()


@settings(deadline=None, max_examples=40)
@given(SHAPES, SEEDS, st.data())
def test_no_round_makes_the_error_larger(
    shape: tuple[int, int, int, int], seed: int, data: st.DataObject
) -> None:
    n, c, height, width = shape
    scheme, objective = Scheme("separable", shape), objective_of(n, c * height * width, seed)
    rank = data.draw(st.integers(1, scheme.maximum_rank))
    u, v, errors = best_separable(objective, shape, rank, 8)
    assert len(errors) == 9
    slack = 1e-9 * objective.energy()
    assert all(later <= before + slack for before, later in itertools.pairwise(errors))
    assert errors[-1] == pytest.approx(objective.error(product(u, v)), rel=1e-6, abs=slack)
    *_, errors_of_fewer = best_separable(objective, shape, rank, 3)
    assert errors_of_fewer == pytest.approx(errors[:4])


@pytest.mark.parametrize("seed", range(6))
def test_separable_kernels_err_less_than_the_plain_decomposition(seed: int) -> None:
    shape, rank = (4, 3, 3, 3), 2
    objective = objective_of(4, 27, seed)
    plain = Decomposition.of(Scheme("separable", shape), objective.target.reshape(shape))
    *_, errors = best_separable(objective, shape, rank)
    assert errors[-1] < 0.9 * objective.error(product(*plain.factors(rank)))


def test_with_white_inputs_and_equal_outputs_the_plain_decomposition_is_best() -> None:
    shape = (4, 3, 3, 2)
    objective = Objective.of(np.random.default_rng(0).normal(size=(4, 18)), np.eye(18))
    plain = Decomposition.of(Scheme("separable", shape), objective.target.reshape(shape))
    u, v, errors = best_separable(objective, shape, 2)
    np.testing.assert_allclose(product(u, v), product(*plain.factors(2)), atol=1e-6)
    np.testing.assert_allclose(errors, 1.001 * plain.error(2) ** 2)


@pytest.mark.parametrize("seed", range(4))
def test_rounds_end_where_neither_factor_can_be_improved(seed: int) -> None:
    """At the end no small change of the factors has less error."""
    shape = (3, 2, 3, 3)
    objective, rng = objective_of(3, 18, seed), np.random.default_rng(seed)
    u, v, errors = best_separable(objective, shape, 2, 200)
    for _ in range(50):
        other = product(u + 1e-4 * rng.normal(size=u.shape), v + 1e-4 * rng.normal(size=v.shape))
        assert objective.error(other) > errors[-1] * (1 - 1e-6)


def test_separable_kernels_of_one_column_are_the_best_product() -> None:
    """With a kernel of d x 1, the two are any product of matrices."""
    objective = objective_of(5, 6)
    *_, errors = best_separable(objective, (5, 2, 3, 1), 2)
    *_, least = best_product(objective, 2)
    assert errors[-1] == pytest.approx(least, rel=1e-6)


def test_rows_and_columns_of_separable_kernels_have_the_same_norm() -> None:
    u, v, _ = best_separable(objective_of(4, 18), (4, 2, 3, 3), 3, 5)
    norms = np.linalg.norm(u.reshape(3, -1), axis=1)
    np.testing.assert_allclose(norms, np.sqrt(np.square(v).sum((0, 2, 3))))


@pytest.mark.parametrize("target", [np.zeros((3, 8)), np.ones((3, 8))])
@pytest.mark.parametrize("second", [np.zeros((8, 8)), np.ones((8, 8))])
def test_nothing_is_infinite_where_weights_or_inputs_are_degenerate(
    target: np.ndarray, second: np.ndarray
) -> None:
    objective = Objective.of(target, second, np.diag([1.0, 0.0, 0.0]))
    u, v, errors = best_separable(objective, (3, 2, 2, 2), 3)
    np.testing.assert_allclose(product(u, v), target, atol=1e-5)
    assert errors[-1] == pytest.approx(0, abs=1e-9)
    v, u, error = best_product(objective, 3)
    np.testing.assert_allclose(v @ u, target, atol=1e-8)
    assert error == pytest.approx(0, abs=1e-9)
