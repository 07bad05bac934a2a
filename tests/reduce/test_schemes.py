import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnrcodec.model.model import Factors
from nnrcodec.reduce.decomposition import Decomposition
from nnrcodec.reduce.schemes import SCHEMES, Scheme, misfit


@st.composite
def schemes(draw):
    name = draw(st.sampled_from(SCHEMES))
    axes = {"separable": 2, "linear": 0}.get(name)
    axes = draw(st.integers(1, 3)) if axes is None else axes
    channels = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    sizes = draw(st.tuples(*[st.integers(1, 4)] * axes))
    return Scheme(name, channels + sizes, bool(axes) and draw(st.booleans()))


SEEDS = st.integers(0, 2**32 - 1)


def values_of(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def decomposition(scheme, seed=0, dtype=np.float32):
    return Decomposition.of(scheme, values_of(scheme.kernel_shape, seed, dtype))


# The product


@given(schemes(), SEEDS)
def test_a_matrix_is_the_weight_and_back(scheme, seed):
    kernel = values_of(scheme.kernel_shape, seed)
    matrix = scheme.matrix(kernel)
    assert matrix.shape == (scheme.rows, scheme.columns)
    np.testing.assert_array_equal(scheme.kernel(matrix), kernel)


@given(schemes(), SEEDS, st.integers(1, 5))
def test_matrices_are_the_factors_and_back(scheme, seed, rank):
    left, right = values_of((scheme.rows, rank), seed), values_of((rank, scheme.columns), seed)
    u, v = scheme.factors(left, right)
    assert (u.shape, v.shape) == scheme.factor_shapes(rank)
    assert u.flags.c_contiguous
    assert v.flags.c_contiguous
    assert u.size + v.size == scheme.elements(rank)
    for found, expected in zip(scheme.matrices(u, v), (left, right), strict=True):
        np.testing.assert_array_equal(found, expected)
    product = scheme.kernel(left.astype(np.float64) @ right.astype(np.float64))
    np.testing.assert_allclose(scheme.merge(u, v), product, atol=1e-6)


@pytest.mark.parametrize(
    ("scheme", "equation"),
    [
        (Scheme("separable", (5, 4, 3, 2)), "rciz,nrzj->ncij"),
        (Scheme("separable", (4, 5, 3, 2), transposed=True), "criz,rnzj->cnij"),
        (Scheme("channel", (5, 4, 3, 2)), "rcij,nryz->ncij"),
        (Scheme("channel", (4, 5, 3, 2), transposed=True), "crij,nryz->cnij"),
        (Scheme("channel", (5, 4, 3)), "rci,nrz->nci"),
        (Scheme("channel", (4, 5, 3), transposed=True), "cri,nrz->cni"),
        (Scheme("linear", (5, 4)), "rc,nr->nc"),
    ],
)
def test_the_product_is_the_specified_sum(scheme, equation):
    u, v = (values_of(shape, dtype=np.float64) for shape in scheme.factor_shapes(2))
    np.testing.assert_allclose(scheme.merge(u, v), np.einsum(equation, u, v), atol=1e-12)


def test_merging_rounds_a_float64_product_once():
    u = np.array([1.0, 2.0**-24, 2.0**-24], np.float32).reshape(3, 1, 1, 1)
    v = np.ones((1, 3, 1, 1), np.float32)
    merged = Scheme("separable", (1, 1, 1, 1)).merge(u, v)
    assert merged.item() == np.float32(1 + 2.0**-23)  # 1.0 if summed in float32


@pytest.mark.parametrize(
    ("dtype", "result"), [("float16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
def test_a_product_is_float32_unless_a_factor_is_finer(dtype, result):
    scheme = Scheme("channel", (2, 3, 3, 3))
    u, v = (values_of(shape, dtype=dtype) for shape in scheme.factor_shapes(2))
    assert scheme.merge(u, v).dtype.name == result


# The decomposition


@given(schemes(), SEEDS)
def test_full_rank_gives_the_weight_back(scheme, seed):
    kernel = values_of(scheme.kernel_shape, seed)
    u, v = Decomposition.of(scheme, kernel).factors(scheme.maximum_rank)
    np.testing.assert_allclose(
        scheme.merge(u.astype(np.float32), v.astype(np.float32)), kernel, atol=1e-5
    )


@given(schemes(), SEEDS, st.data())
def test_the_error_is_the_root_of_the_discarded_squares(scheme, seed, data):
    kernel = values_of(scheme.kernel_shape, seed, np.float64)
    rank = data.draw(st.integers(1, scheme.maximum_rank))
    found = Decomposition.of(scheme, kernel)
    error = np.linalg.norm(scheme.merge(*found.factors(rank)) - kernel)
    discarded = np.sqrt(np.sum(found.singular_values[rank:] ** 2))
    np.testing.assert_allclose([error, found.error(rank)], discarded, atol=1e-12)


@given(schemes(), SEEDS, st.data())
def test_a_product_of_low_rank_is_found_at_its_rank(scheme, seed, data):
    rank = data.draw(st.integers(1, scheme.maximum_rank))
    u, v = (values_of(shape, seed, np.float64) for shape in scheme.factor_shapes(rank))
    kernel = scheme.merge(u, v)
    found = Decomposition.of(scheme, kernel)
    np.testing.assert_allclose(scheme.merge(*found.factors(rank)), kernel, atol=1e-9)
    np.testing.assert_allclose(found.singular_values[rank:], 0, atol=1e-9)


@given(schemes(), SEEDS)
def test_singular_values_are_split_evenly_and_signs_are_fixed(scheme, seed):
    found = decomposition(scheme, seed)
    rank = scheme.maximum_rank
    left, right = scheme.matrices(*found.factors(rank))
    np.testing.assert_allclose(np.sum(left**2, axis=0), found.singular_values, atol=1e-9)
    np.testing.assert_allclose(np.sum(right**2, axis=1), found.singular_values, atol=1e-9)
    largest = np.abs(found.left).argmax(axis=0)
    assert (left[largest, np.arange(rank)] >= 0).all()


@pytest.mark.parametrize("name", ["separable", "channel"])
def test_the_same_kernel_gives_the_same_bytes_and_its_negative_the_same_left_factor(name):
    scheme = Scheme(name, (8, 5, 3, 3))
    kernel = values_of(scheme.kernel_shape)
    u, v = Decomposition.of(scheme, kernel).factors(7)
    again_u, again_v = Decomposition.of(scheme, kernel.copy()).factors(7)
    assert u.tobytes() == again_u.tobytes()
    assert v.tobytes() == again_v.tobytes()
    negative_u, negative_v = Decomposition.of(scheme, -kernel).factors(7)
    np.testing.assert_allclose(negative_u, u, atol=1e-6)
    np.testing.assert_allclose(negative_v, -v, atol=1e-6)


@given(schemes(), SEEDS, st.floats(0.01, 1.0))
def test_energy_is_reached_by_no_smaller_rank(scheme, seed, energy):
    found = decomposition(scheme, seed)
    rank = found.rank_for_energy(energy)
    assert 1 <= rank <= scheme.maximum_rank
    assert found.energy_kept(rank) >= energy * (1 - 1e-12)
    if rank > 1:
        assert found.energy_kept(rank - 1) < energy * (1 + 1e-12)


def test_a_weight_of_zeros_has_rank_one():
    found = Decomposition.of(Scheme("channel", (3, 3, 3)), np.zeros((3, 3, 3), np.float32))
    assert found.rank_for_energy(1.0) == 1
    assert found.energy_kept(1) == 1.0
    assert found.error(1) == 0


# Sizes and costs


def test_sizes():
    assert Scheme("separable", (16, 2, 3, 5)).maximum_rank == 6
    assert Scheme("separable", (16, 2, 3, 5)).elements(4) == 4 * (2 * 3 + 16 * 5)
    assert Scheme("channel", (16, 2, 3, 5)).maximum_rank == 16
    assert Scheme("channel", (16, 2, 3, 5)).elements(4) == 4 * (2 * 3 * 5 + 16)
    assert Scheme("channel", (16, 2, 3, 5), transposed=True).elements(4) == 4 * (16 * 3 * 5 + 2)
    assert Scheme("linear", (10, 7)).elements(3) == 3 * (10 + 7)


def multiply_adds(kernel, positions):
    """Count those of a layer: each weight is used at each position."""
    return math.prod(kernel) * math.prod(positions)


@pytest.mark.parametrize("name", ["separable", "channel"])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_multiply_adds_of_a_convolution_are_those_at_each_position_of_its_output(name, stride):
    scheme, outputs = Scheme(name, (6, 4, 3, 5)), (20, 30)
    between = (20, 30 * stride[1]) if name == "separable" else outputs
    u, v = scheme.factor_shapes(4)
    counted = multiply_adds(u, between) + multiply_adds(v, outputs)
    assert scheme.multiply_adds(4, stride) * math.prod(outputs) == counted


@pytest.mark.parametrize("name", ["separable", "channel"])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_multiply_adds_of_a_transposed_one_are_those_at_each_position_of_its_input(name, stride):
    scheme, inputs = Scheme(name, (4, 6, 3, 5), transposed=True), (20, 30)
    after = (20 * stride[0], 30 if name == "separable" else 30 * stride[1])
    u, v = scheme.factor_shapes(4)
    counted = multiply_adds(u, inputs) + multiply_adds(v, after)
    assert scheme.multiply_adds(4, stride) * math.prod(inputs) == counted


def test_costs():
    scheme = Scheme("separable", (8, 8, 3, 3))
    assert scheme.cost(2, "bytes", (2, 2)) == scheme.elements(2) == 2 * 48
    assert scheme.cost(2, "runtime", (2, 2)) == scheme.multiply_adds(2, (2, 2)) == 2 * 72
    assert scheme.cost(2, "both", (2, 2)) == 2 * 72
    assert scheme.cost(2, "runtime") == 2 * 48
    assert Scheme("linear", (8, 8)).cost(2, "both") == 2 * 16


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("separable", (8, 4, 3), "its weight has 3 dimensions, that of a 2-D convolution has 4"),
        ("separable", (8, 4, 3, 1), "its kernel of 3x1 has nothing to separate"),
        ("channel", (8, 4), "its weight has 2 dimensions, that of a convolution has 3 to 5"),
        ("linear", (8, 4, 3), "its weight has 3 dimensions, that of a linear layer has 2"),
        ("separable", (8, 4, 2, 2), None),
        ("channel", (8, 4, 1, 1), None),
        ("channel", (8, 4, 3), None),
        ("channel", (8, 4, 3, 3, 3), None),
        ("linear", (8, 4), None),
    ],
)
def test_which_weights_a_scheme_is_for(name, shape, reason):
    assert misfit(name, shape) == reason


def test_the_scheme_of_factors():
    factors = Factors("a", (4, 8, 3), 2, "channel", transposed=True)
    assert Scheme.of(factors) == Scheme("channel", (4, 8, 3), transposed=True)


# Two layers compute what the merged one does

CONVOLUTIONS = torch.nn.functional


@st.composite
def layers(draw):
    """Return a scheme and the arguments of its layer."""
    scheme = draw(schemes().filter(lambda s: len(s.kernel_shape) > 2))
    axes = len(scheme.kernel_shape) - 2
    each = {name: draw(st.tuples(*[st.integers(1, 3)] * axes)) for name in ("stride", "dilation")}
    each["padding"] = draw(st.tuples(*[st.integers(0, 2)] * axes))
    if scheme.transposed:
        limits = [max(s, d) - 1 for s, d in zip(each["stride"], each["dilation"], strict=True)]
        each["output_padding"] = tuple(draw(st.integers(0, limit)) for limit in limits)
    return scheme, each


def parted(scheme, options):
    """Return the arguments of the first layer and of the second."""
    if scheme.name != "separable":
        return options, {}
    one = {"stride": 1, "dilation": 1, "padding": 0, "output_padding": 0}
    down = {name: (value[0], one[name]) for name, value in options.items()}
    return down, {name: (one[name], value[1]) for name, value in options.items()}


@given(layers(), SEEDS)
def test_two_layers_compute_what_the_merged_one_does(layer, seed):
    scheme, options = layer
    axes = len(scheme.kernel_shape) - 2
    plain = getattr(CONVOLUTIONS, f"conv{axes}d")
    whole = getattr(CONVOLUTIONS, f"conv_transpose{axes}d") if scheme.transposed else plain
    second = whole if scheme.name == "separable" else plain
    u, v = (values_of(shape, seed, np.float64) for shape in scheme.factor_shapes(2))
    image = torch.from_numpy(values_of((2, scheme.inputs, *[10] * axes), seed, np.float64))
    bias = torch.from_numpy(values_of(scheme.outputs, seed, np.float64))
    down, across = parted(scheme, options)
    two = second(whole(image, torch.from_numpy(u), **down), torch.from_numpy(v), bias, **across)
    one = whole(image, torch.from_numpy(scheme.merge(u, v)), bias, **options)
    torch.testing.assert_close(two, one, atol=1e-9, rtol=1e-9)
