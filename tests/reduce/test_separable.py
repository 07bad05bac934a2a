import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnrcodec.reduce.separable import (
    Separation,
    decompose_kernel,
    factor_elements,
    maximum_rank,
    merge_kernel,
)

SHAPES = st.tuples(*[st.integers(1, 6)] * 2, *[st.integers(1, 5)] * 2)


def kernel_of(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@given(SHAPES, st.integers(0, 2**32 - 1))
def test_full_rank_gives_the_kernel_back(shape, seed):
    kernel = kernel_of(shape, seed)
    u, v, _ = decompose_kernel(kernel, maximum_rank(shape))
    np.testing.assert_allclose(merge_kernel(u, v), kernel, atol=1e-5)


@given(SHAPES, st.integers(0, 2**32 - 1), st.data())
def test_the_error_is_the_root_of_the_discarded_squares(shape, seed, data):
    kernel = kernel_of(shape, seed, np.float64)
    rank = data.draw(st.integers(1, maximum_rank(shape)))
    u, v, singular_values = decompose_kernel(kernel, rank)
    error = np.linalg.norm(merge_kernel(u, v) - kernel)
    np.testing.assert_allclose(error, np.sqrt(np.sum(singular_values[rank:] ** 2)), atol=1e-12)


def test_a_kernel_that_is_separable_needs_rank_one():
    rng = np.random.default_rng(1)
    kernel = np.einsum("ci,nj->ncij", rng.normal(size=(3, 5)), rng.normal(size=(4, 3)))
    u, v, singular_values = decompose_kernel(kernel, 1)
    assert (u.shape, v.shape) == ((1, 3, 5, 1), (4, 1, 1, 3))
    np.testing.assert_allclose(merge_kernel(u, v), kernel, atol=1e-12)
    np.testing.assert_allclose(singular_values[1:], 0, atol=1e-12)


def test_singular_values_are_split_evenly_and_signs_are_fixed():
    kernel = kernel_of((6, 4, 3, 5))
    u, v, singular_values = decompose_kernel(kernel, 7)
    vertical = u.reshape(7, -1)
    horizontal = v.transpose(1, 0, 2, 3).reshape(7, -1)
    np.testing.assert_allclose(np.sum(vertical**2, axis=1), singular_values[:7], rtol=1e-5)
    np.testing.assert_allclose(np.sum(horizontal**2, axis=1), singular_values[:7], rtol=1e-5)
    largest = np.abs(vertical).argmax(axis=1)
    assert (vertical[np.arange(7), largest] > 0).all()


def test_the_same_kernel_gives_the_same_bytes_and_its_negative_the_same_left_factor():
    kernel = kernel_of((8, 5, 3, 3))
    u, v, _ = decompose_kernel(kernel, 9)
    again_u, again_v, _ = decompose_kernel(kernel.copy(), 9)
    assert u.tobytes() == again_u.tobytes()
    assert v.tobytes() == again_v.tobytes()
    negative_u, negative_v, _ = decompose_kernel(-kernel, 9)
    np.testing.assert_allclose(negative_u, u, atol=1e-6)
    np.testing.assert_allclose(negative_v, -v, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "result"), [("float16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
def test_factors_are_float32_unless_the_kernel_is_finer(dtype, result):
    u, v, _ = decompose_kernel(kernel_of((2, 3, 3, 3), dtype=dtype), 2)
    assert (u.dtype.name, v.dtype.name, merge_kernel(u, v).dtype.name) == (result,) * 3
    assert u.flags.c_contiguous
    assert v.flags.c_contiguous


def test_merging_rounds_a_float64_product_once():
    u = np.array([1.0, 2.0**-24, 2.0**-24], np.float32).reshape(3, 1, 1, 1)
    v = np.ones((1, 3, 1, 1), np.float32)
    assert merge_kernel(u, v).item() == np.float32(1 + 2.0**-23)  # 1.0 if summed in float32


@given(SHAPES, st.integers(0, 2**32 - 1), st.floats(0.01, 1.0))
def test_energy_is_reached_by_no_smaller_rank(shape, seed, energy):
    separation = Separation.of(kernel_of(shape, seed))
    rank = separation.rank_for_energy(energy)
    assert 1 <= rank <= maximum_rank(shape)
    assert separation.energy_kept(rank) >= energy * (1 - 1e-12)
    if rank > 1:
        assert separation.energy_kept(rank - 1) < energy * (1 + 1e-12)


def test_a_kernel_of_zeros_has_rank_one():
    separation = Separation.of(np.zeros((3, 3, 3, 3), np.float32))
    assert separation.rank_for_energy(1.0) == 1
    assert separation.energy_kept(1) == 1.0


def test_sizes():
    assert maximum_rank((16, 2, 3, 5)) == 6
    assert factor_elements((16, 2, 3, 5), 4) == 4 * (2 * 3 + 16 * 5)
