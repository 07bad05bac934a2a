from __future__ import annotations

import logging

import numpy as np
import pytest

from nnrcodec.model.model import Role, Tensor
from nnrcodec.reduce.blocks import Block, block_of_parts, merge_blocks

RNG = np.random.default_rng(3)


def tensor(name: str, *shape: int, dtype: str = "float32") -> Tensor:
    return Tensor.of(name, RNG.normal(size=shape).astype(np.float32), dtype)


def test_blocks_are_what_stands_for_a_weight() -> None:
    assert block_of_parts({"weight": "w", "bias": "b"}, (3, 4)) is None
    assert block_of_parts({"weight": "w", "scaling": "s"}, (3, 4)) == Block(
        "w", (3, 4), scaling="s"
    )
    block = block_of_parts({"G": "w_G", "H": "w_H", "bias": "b"}, (3, 4))
    assert block == Block("w", (3, 4), "w_G", "w_H")
    assert block.parts == ("w_G", "w_H")


def test_scales_are_multiplied_in_binary32() -> None:
    w, s, b = tensor("w", 6, 5, 3), tensor("s", 6), tensor("b", 6)
    merged = merge_blocks([s, b, w], [Block("w", (6, 5, 3), scaling="s")])
    assert [t.name for t in merged] == ["b", "w"]
    assert np.array_equal(merged[1].read(), w.read() * s.read()[:, None, None])
    assert merged[0].read() is b.read()


def test_products_are_rounded_once() -> None:
    g, h, s = tensor("w_G", 12, 3), tensor("w_H", 3, 10), tensor("s", 6)
    block = Block("w", (6, 4, 5), "w_G", "w_H", "s")
    (merged,) = merge_blocks([s, g, h], [block])
    product = (g.read().astype(np.float64) @ h.read().astype(np.float64)).astype(np.float32)
    expected = product.reshape(6, 4, 5) * s.read()[:, None, None]
    assert merged.shape == (6, 4, 5)
    np.testing.assert_allclose(merged.read(), expected, rtol=2e-7)


@pytest.mark.parametrize(("dtype", "result"), [("float64", "float32"), ("bfloat16", "bfloat16")])
def test_the_dtype_is_that_of_the_weight(dtype: str, result: str) -> None:
    w = Tensor.of("w", np.ones((2, 2), np.float32), dtype, Role.BUFFER)
    s = Tensor.of("s", np.array([1, 1.001], np.float32))
    (merged,) = merge_blocks([w, s], [Block("w", (2, 2), scaling="s")])
    assert (merged.dtype, merged.role) == (result, Role.BUFFER)
    if result == "bfloat16":
        assert merged.read().tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    "tensors",
    [
        [tensor("w_G", 12, 3)],
        [tensor("w_G", 12, 3), tensor("w_H", 4, 10), tensor("s", 6)],
        [tensor("w_G", 12, 3), tensor("w_H", 3, 11), tensor("s", 6)],
        [tensor("w_G", 12), tensor("w_H", 3, 10), tensor("s", 6)],
        [tensor("w_G", 12, 3), tensor("w_H", 3, 10), tensor("s", 7)],
        [tensor("w_G", 12, 3), tensor("w_H", 3, 10), tensor("s", 6, 1)],
    ],
)
def test_what_does_not_fit_is_left_alone(
    tensors: list[Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert merge_blocks(tensors, [Block("w", (6, 4, 5), "w_G", "w_H", "s")]) == tensors
    (record,) = caplog.records
    assert record.getMessage().startswith("weight w stays in parts: not all of w_G, w_H, s are")


def test_a_weight_of_another_shape_is_left_alone() -> None:
    tensors = [tensor("w", 4, 5), tensor("s", 4)]
    assert merge_blocks(tensors, [Block("w", (4, 6), scaling="s")]) == tensors
