"""The range of made-up inputs, as constants of a network tell it."""

from __future__ import annotations

import pytest
import torch
from networks import model_of
from torch import nn

from nnrcodec.calibration.synthetic import synthetic_inputs


class Prepared(nn.Module):
    """Does something to its input before a convolution."""

    def __init__(self, before, axes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before = before
        self.register_buffer("mean", torch.tensor([103.9, 116.8, 123.7]))
        self.conv = nn.Conv2d(3, 4, 3) if axes == 2 else nn.Conv1d(1, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.before(self, x))


@pytest.mark.parametrize(
    ("before", "largest"),
    [
        (lambda self, x: x, 1),
        (lambda self, x: x - 127, 255),
        (lambda self, x: (x - 127.5) / 128, 255),
        (lambda self, x: x / 255, 255),
        (lambda self, x: x * (1 / 127.5) - 1, 255),
        (lambda self, x: (x - 0.45) / 0.22, 1),
        (lambda self, x: 2 * x - 1, 1),
        (lambda self, x: 1 - x, 1),
        (lambda self, x: 255 * x - 104, 1),
        (lambda self, x: x - self.mean.view(1, 3, 1, 1), 255),
        (lambda self, x: (x.clone().float() - self.mean[:, None, None]).contiguous(), 255),
        (lambda self, x: x - x.mean(), 1),
        (lambda self, x: x * x / 255, 1),
        (lambda self, x: 200 / (1 + x), 1),
        (lambda self, x: x.clone().sub_(127), 255),
    ],
)
def test_constants_tell_the_range_of_pictures(before, largest: int) -> None:
    model = model_of(Prepared(before).eval(), (1, 3, 20, 20))
    made = torch.cat([each[0] for each in synthetic_inputs(model, 3)])
    assert made.min() >= 0
    assert 0.8 * largest < made.max() <= largest
    torch.testing.assert_close(made * 255 / largest, (made * 255 / largest).round())


@pytest.mark.parametrize(
    ("before", "largest"), [(lambda self, x: x / 32768, 32768), (lambda self, x: 2 * x, 1)]
)
def test_constants_tell_signals_of_16_bits(before, largest: int) -> None:
    model = model_of(Prepared(before, axes=1).eval(), (1, 1, 500))
    made = torch.cat([each[0].flatten() for each in synthetic_inputs(model, 8)])
    assert 0.05 * largest < made.std() < 0.2 * largest


@pytest.mark.parametrize("scale", [2**-3, 1, 2**10])
def test_a_batch_norm_tells_the_scale_of_signals(scale: float) -> None:
    torch.manual_seed(0)
    first, norm = nn.Conv1d(1, 8, 9), nn.BatchNorm1d(8, momentum=None)
    plain = synthetic_inputs(model_of(nn.Sequential(first, nn.ReLU()), (1, 1, 500)), 16, seed=7)
    module = nn.Sequential(first, nn.ReLU(), norm)
    with torch.no_grad():
        module(scale * torch.cat([each[0] for each in plain]))
    made = synthetic_inputs(model_of(module.eval(), (1, 1, 500)), 4)
    expected = synthetic_inputs(model_of(nn.Sequential(first, nn.ReLU()), (1, 1, 500)), 4)
    ratio = made[0][0].std() / expected[0][0].std()
    assert scale / 2 <= ratio <= 2 * scale
