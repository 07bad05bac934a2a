"""How many calibration inputs are looked at, and what is put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Inputs, inputs_of, model_of, network, outputs_of
from torch import nn

from nnrcodec.calibration.amount import MOST, MOST_GIVEN, all_of, enough, in_batches, most
from nnrcodec.calibration.inputs import Chosen, open_inputs
from nnrcodec.calibration.sizes import COUNT
from nnrcodec.errors import ConfigError
from nnrcodec.graph.graph import Dim, Graph, Input, Node, Ref
from nnrcodec.model.model import Model, Tensor
from nnrcodec.parallel import threads_of_torch

SMALL = (1, 3, 8, 8)


def convolution(kernel: int = 3) -> Model:
    torch.manual_seed(0)
    side = max(kernel, 9)
    return model_of(nn.Sequential(nn.Conv2d(3, 8, kernel)), (2, 3, side, side))


def sum_over(axis: int, shape: tuple[int | str, ...], high: int | None = None) -> Model:
    """Return a network that sums along an axis, which stays."""
    node = Node("aten.sum.dim_IntList", (Ref(0), (axis,), True))
    dims = {"n": Dim(1, high, 2)}
    graph = Graph((Input("x", "float32", shape),), (node,), Ref(1), dims)
    return Model.of([Tensor.of("other", np.ones(1, np.float32))], graph)


def vectors(count: int) -> Inputs:
    return inputs_of((1, 5), count)


@pytest.mark.parametrize(
    ("kernel", "shape", "count"),
    [
        (3, SMALL, 64 * 27 // 6**2),  # 27 columns, 6 x 6 patches
        (8, SMALL, MOST),  # one patch, 192 columns
        (20, (1, 3, 20, 20), 2 * 1200),  # one patch, 1200 columns
        (8, (1, 3, 1024, 8), COUNT),
        (3, (1, 3, 400, 400), 2**20 // 400**2),
        (3, (2, 3, 400, 400), 2**20 // (2 * 400**2)),
        (3, (1, 3, 1100, 1000), 1),
    ],
)
def test_as_many_are_enough_as_say_something(
    kernel: int, shape: tuple[int, ...], count: int
) -> None:
    assert enough(convolution(kernel), (torch.zeros(shape),)) == count


@pytest.mark.parametrize("threads", [1, 2])
def test_no_more_are_enough_than_take_a_reasonable_time(threads: int) -> None:
    model = model_of(nn.Sequential(nn.Conv2d(3, 6000, 12)), (2, 3, 13, 13))
    columns, patches = 3 * 12**2, 9**2
    count = 2**36 // (6000 * columns * patches)
    with threads_of_torch(threads):
        assert enough(model, (torch.zeros(1, 3, 20, 20),)) == count == 327
    assert count < 64 * columns // patches


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        enough(convolution(), (torch.zeros(1, 2, 8, 8),))


def test_of_long_and_short_inputs_the_mean_length_counts() -> None:
    model = network("plain_cnn").model()
    inputs = [(torch.zeros(1, 1, size, 512),) for size in (1024, 256, 256, 256)]
    assert most(model, inputs) == most(model, inputs[::-1]) == 2**20 // (448 * 512)


def test_what_is_given_is_used_even_where_less_would_be_enough() -> None:
    model, inputs = convolution(), inputs_of(SMALL, 300)
    assert enough(model, inputs[0]) == 48
    assert sum(len(value) for (value,) in in_batches(model, inputs)) == 300


def test_what_was_asked_for_is_used_whatever_it_takes() -> None:
    model, inputs = convolution(), inputs_of((1, 3, 64, 64), 300)
    for given, count in ((inputs, 256), (Chosen(inputs), 300)):
        assert sum(len(value) for (value,) in in_batches(model, given)) == count
    few = Chosen(inputs, all_of_them=False)
    assert sum(len(value) for (value,) in in_batches(model, few)) == 256


def test_no_more_than_thousands_of_tiny_ones_are_used() -> None:
    assert most(sum_over(1, ("n", 5)), vectors(3)) == MOST_GIVEN


def test_of_a_file_as_much_is_used_as_time_allows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = convolution()
    assert model.graph is not None
    for count, used, warnings in ((256, 256, 0), (300, 256, 1)):
        np.save(tmp_path / "a.npy", np.zeros((count, 3, 64, 64), np.float32))
        found = all_of(model, open_inputs(tmp_path / "a.npy", model.graph))
        assert sum(len(value) for (value,) in in_batches(model, found)) == len(found) == used
        assert caplog.text.count("256 of 300 calibration inputs are used") == warnings


@pytest.mark.parametrize("count", [2, 9, 300])
def test_small_inputs_are_put_together_without_a_change_of_the_outputs(count: int) -> None:
    model, inputs = convolution(kernel=8), inputs_of(SMALL, count)
    found = in_batches(model, inputs)
    sizes = [len(value) for (value,) in found]
    assert sum(sizes) == count
    assert sizes == [256] * (count // 256) + [count % 256]
    made, wanted = (torch.cat([o for (o,) in outputs_of(model, e)]) for e in (found, inputs))
    torch.testing.assert_close(made, wanted)


def test_of_too_many_some_are_taken_evenly() -> None:
    inputs = [(torch.full((1, 3, 64, 64), float(number)),) for number in range(2**9)]
    (first, *rest) = in_batches(convolution(kernel=8), inputs)
    seen = torch.cat([first[0], *(value for (value,) in rest)])[:, 0, 0, 0]
    assert seen.tolist() == list(range(0, 2**9, 2))


def test_only_inputs_of_the_same_sizes_are_put_together() -> None:
    shapes = [(1, 1, *size) for size in ((8, 8), (8, 8), (9, 8), (8, 8), (400, 8), (400, 8))]
    inputs = [inputs_of(shape, 1)[0] for shape in shapes]
    found = [tuple(value.shape) for (value,) in in_batches(network("plain_cnn").model(), inputs)]
    assert found == [(2, 1, 8, 8), (1, 1, 9, 8), (1, 1, 8, 8), (2, 1, 400, 8)]


def test_large_inputs_stay_as_they_are() -> None:
    model, inputs = convolution(), inputs_of((1, 3, 96, 96), 3)
    assert all(a[0] is b[0] for a, b in zip(in_batches(model, inputs), inputs, strict=True))


def test_what_a_network_mixes_is_not_put_together() -> None:
    inputs = vectors(6)
    assert [len(x) for (x,) in in_batches(sum_over(1, ("n", 5)), inputs)] == [6]
    assert [len(x) for (x,) in in_batches(sum_over(0, ("n", 5)), inputs)] == [1] * 6


def test_no_more_are_put_together_than_the_network_takes() -> None:
    assert [len(x) for (x,) in in_batches(sum_over(1, ("n", 5), 4), vectors(6))] == [4, 2]
    assert [len(x) for (x,) in in_batches(sum_over(1, (1, 5)), vectors(3))] == [1] * 3
