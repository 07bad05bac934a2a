from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnrcodec.model.model import Factors, Model, Tensor
from nnrcodec.reduce.decomposition import Decomposition
from nnrcodec.reduce.projection import on_factors, project
from nnrcodec.reduce.schemes import Scheme

SCHEMES = [
    Scheme("separable", (8, 6, 3, 5)),
    Scheme("channel", (8, 6, 3)),
    Scheme("linear", (9, 7)),
    Scheme("separable", (6, 8, 3, 5), transposed=True),
    Scheme("channel", (6, 8, 3, 3), transposed=True),
]


@given(st.sampled_from(SCHEMES), st.integers(1, 6), st.integers(0, 2**16))
def test_a_weight_of_that_rank_is_found_again(scheme: Scheme, rank: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    u, v = (rng.normal(size=shape) for shape in scheme.factor_shapes(rank))
    changed = u, v + 0.1 * rng.normal(size=v.shape)
    weight = scheme.merge(*changed)
    found = project(scheme, weight, u, v)
    np.testing.assert_allclose(scheme.merge(*found), weight, atol=1e-6)
    np.testing.assert_allclose(found[0], u, atol=1e-6)  # V alone has changed


@pytest.mark.parametrize("scheme", SCHEMES)
def test_any_weight_is_approximated_nearly_as_well_as_can_be(scheme: Scheme) -> None:
    rng = np.random.default_rng(0)
    old = rng.normal(size=scheme.kernel_shape)
    new = old + 0.1 * rng.normal(size=old.shape)
    found = project(scheme, new, *Decomposition.of(scheme, old).factors(4))
    error = np.linalg.norm(new - scheme.merge(*found))
    assert error < 1.05 * Decomposition.of(scheme, new).error(4)


def test_what_is_not_whole_stays(caplog: pytest.LogCaptureFixture) -> None:
    u, v = np.ones((2, 7), np.float16), np.ones((9, 2), np.float16)
    tensors = [Tensor.of("a.u.weight", u), Tensor.of("a.v.weight", v), Tensor.of("b", v)]
    base = Model.of(tensors, factors=(Factors("a", (9, 7), 2, "linear"),))
    for model in (base, Model.of(tensors[2:])):
        assert on_factors(model, base) is model
    wrong = Model.of([Tensor.of("a.weight", np.ones((3, 3), np.float16))])
    assert on_factors(wrong, base) is wrong
    whole = Model.of([*tensors[2:], Tensor.of("a.weight", 2 * np.ones((9, 7), np.float16))])
    projected = on_factors(whole, base)
    assert {n: t.dtype for n, t in projected.tensors.items()} == dict.fromkeys(
        ("b", "a.u.weight", "a.v.weight"), "float16"
    )
    assert "which leave out" in caplog.text
    zero = Model.of([Tensor.of("a.weight", np.zeros((9, 7), np.float16))])
    merged = on_factors(zero, base)
    assert not (merged.tensors["a.v.weight"].read() @ merged.tensors["a.u.weight"].read()).any()
