"""Decoded models lay kernels out with channels last; values do not depend on it."""

from __future__ import annotations

import pytest
import torch
from networks import NETWORKS, Network, model_of
from torch import nn

import nnrcodec
from nnrcodec.graph.module import build_module, optimized_for_inference


@pytest.mark.parametrize("chosen", NETWORKS, ids=lambda network: network.name)
def test_every_network_computes_the_same_with_channels_last(chosen: Network) -> None:
    plain, fast = (
        build_module(chosen.model()),
        optimized_for_inference(build_module(chosen.model())),
    )
    with torch.inference_mode():
        torch.testing.assert_close(
            fast(chosen.example()), plain(chosen.example()), rtol=1e-4, atol=1e-5
        )


def test_views_of_outputs_with_channels_last_work() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return y.view(y.shape[0], -1).view(y.shape[0], 4, -1)

    torch.manual_seed(0)
    module, x = Viewing().eval(), torch.randn(2, 3, 8, 8)
    decoded = nnrcodec.decode_model(nnrcodec.encode(module, (x,), calib=None))
    assert decoded.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert decoded(x).shape == module(x).shape
    torch.testing.assert_close(decoded(x), module(x), rtol=0.1, atol=0.1)


def test_a_pair_keeps_the_layout_between_its_layers() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)).eval()
    config = nnrcodec.EncoderConfig(low_rank=nnrcodec.LowRankConfig(ranks={"0": 4}))
    x = torch.randn(1, 8, 12, 12)
    decoded = nnrcodec.decode_model(nnrcodec.encode(module, (x,), config))
    assert decoded(x).is_contiguous(memory_format=torch.channels_last)


def test_a_relu_writes_into_what_nothing_else_wants() -> None:
    """But not into what is used again, is a view, or comes from outside."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(torch.relu(x))
            z = torch.relu(y) + y
            w = self.b(z)
            v = w.flatten(1)
            return torch.relu(v).sum() + w.sum() + torch.relu(self.a(z)).sum() + x.sum()

    torch.manual_seed(0)
    model = model_of(Mixed().eval(), (2, 3, 6, 6))
    plain, fast = build_module(model), optimized_for_inference(build_module(model))
    x = torch.randn(2, 3, 6, 6)
    kept = x.clone()
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), plain(x))
    assert torch.equal(x, kept)
    functions = [call.function for call in fast._nnr_calls]
    assert functions.count(torch.ops.aten.relu_.default) == 1
    fast(x).backward()
    assert all(p.grad is not None for p in fast.parameters())
