"""Which outputs of a network are compared, and by how much they vary."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from networks import inputs_of, model_of
from torch import nn

from nnrcodec.calibration.outputs import Variation, real_tensors, variation
from nnrcodec.graph.module import build_module


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_real_tensors_are_found_in_any_containers() -> None:
    a, b, c = (torch.full((2,), float(number)) for number in range(3))
    found = real_tensors({"a": a, "more": [(b, 3, None, torch.ones(2, dtype=torch.int64)), [c]]})
    assert [id(tensor) for tensor in found] == [id(a), id(b), id(c)]
    assert real_tensors(3) == []


def test_each_output_of_a_network_has_a_variance() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + 5, 3 * x[:, :1]

    inputs = inputs_of((40, 3), 5)
    found = variation(build_module(model_of(Two(), (4, 3))), inputs)
    both = torch.cat([value for (value,) in inputs]).double()
    wanted = [float(both.var()), 9 * float(both[:, 0].var())]
    assert found.elements == [600, 200]
    assert found.variances == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_means_of_channels_do_not_count_whatever_axis_they_are(axis: int) -> None:
    shape = [1, 1, 1, 1]
    shape[axis] = 5
    means = 100 * noise(*shape)
    calls = [(noise(2, 5, 5, 5) + means + 1000,), (noise(7, 5, 5, 5) + means + 1000,)]
    within = torch.cat([call[0] - 1000 - means for call in calls])
    (found,) = Variation(calls).variances
    assert found == pytest.approx(float(within.var()), rel=0.02)


def test_a_background_that_is_nearly_always_sure_counts_for_little() -> None:
    scores = torch.zeros(4, 1000, 2)
    scores[:, ::100, 1] = 0.9
    scores[..., 0] = 1 - scores[..., 1]
    (found,) = Variation([(scores,)]).variances
    assert found == pytest.approx(0.9**2 * 0.01 * 0.99, rel=0.01)
    assert found < 0.02 * float(scores.square().mean())


def test_sizes_may_change_from_call_to_call() -> None:
    means = 10 * noise(1, 3, 1, 1)
    calls = [(noise(1, 3, *size) + means,) for size in ((4, 9), (6, 5), (20, 20))]
    (found,) = Variation(calls).variances
    assert found == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("shape", [(1, 1000), (1000,), (), (1, 1), (0, 4)])
def test_one_call_has_no_means_of_its_own(shape: Sequence[int]) -> None:
    """With one value for each channel, their means would explain everything."""
    value = noise(*shape)
    (found,) = Variation([(value,)]).variances
    if value.numel() > 1:
        assert found == pytest.approx(float(value.var()))
    else:
        assert found == pytest.approx(float(value.square().mean()) if value.numel() else 1)


def test_an_output_that_does_not_vary_counts_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    same, nothing = torch.full((4, 3), 7.0), torch.zeros(4, 3)
    assert Variation([(same,)] * 2).variances == pytest.approx([49])
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert Variation([(nothing,)] * 2).variances == [1]
        assert Variation([(nothing * np.nan,)]).variances == [1]
    assert "does not vary" in caplog.text


def test_all_outputs_count_the_same() -> None:
    calls = [(noise(4, 3), 100 * noise(4, 3, 8, 8), torch.zeros(0, 3))]
    found = Variation(calls)
    errors = [0.1 * output * scale for output, scale in zip(calls[0], found.scales, strict=True)]
    shares = [float(error.square().sum()) for error in errors]
    wanted = [
        0.005 * float(output.square().mean()) / variance
        for output, variance in zip(calls[0][:2], found.variances, strict=False)
    ]
    assert shares == pytest.approx([*wanted, 0])
    assert found.error([float((0.1 * o).square().sum()) for o in calls[0]]) == pytest.approx(
        sum(shares)
    )
    assert Variation([()]).error([]) == 0
