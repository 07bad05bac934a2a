"""What is a table by its values, and what is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import nnrcodec
from nnrcodec.encoder.formulas import follows_formula
from nnrcodec.model.model import Model, Tensor


def sinusoidal(count: int, size: int) -> torch.Tensor:
    angles = torch.arange(count).float()[:, None] * torch.exp(
        torch.arange(0, size, 2).float() * (-math.log(10000.0) / size)
    )
    return torch.stack([angles.sin(), angles.cos()], -1).reshape(count, size)


def rotary(count: int, size: int) -> torch.Tensor:
    frequencies = 1 / 10000 ** (torch.arange(0, size, 2).float() / size)
    angles = torch.outer(torch.arange(count).float(), frequencies)
    return torch.cat([angles, angles], -1)


def triangles(bins: int, bands: int) -> torch.Tensor:
    places = torch.arange(bins).float()[:, None]
    edges = torch.linspace(0, bins, bands + 2)
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (places - left) / (middle - left), (right - places) / (right - middle)
    return torch.minimum(rising, falling).clamp(min=0)


def fourier(size: int) -> torch.Tensor:
    angles = torch.outer(torch.arange(size // 2 + 1), torch.arange(size)) * 2 * math.pi / size
    return torch.cat([angles.cos(), -angles.sin()]) * torch.hann_window(size)


def shifted_mask() -> torch.Tensor:
    mask = torch.zeros(4, 49, 49)
    mask[1:, :20, 20:] = -100
    return mask


def grid_of_both() -> torch.Tensor:
    line = sinusoidal(14, 32)
    both = torch.cat([line.repeat(14, 1), line.repeat_interleave(14, 0)], 1)
    return torch.cat([torch.zeros(1, 64), both])[None]


def offsets() -> torch.Tensor:
    line = torch.arange(-7.0, 8) * 8 / 7
    both = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)[None]
    return both.sign() * (both.abs() + 1).log2() / 3


TABLES = {
    "sinusoidal": sinusoidal(500, 64)[None],
    "sinusoidal in binary16": sinusoidal(500, 64).half(),
    "sinusoidal in bfloat16": sinusoidal(500, 64).bfloat16(),
    "two sinusoidal ones and a class": grid_of_both(),
    "rotary frequencies": 1 / 10000 ** (torch.arange(0, 64, 2).float() / 64),
    "rotary cosines": rotary(2048, 64).cos()[None, None],
    "rotary sines": rotary(300, 32).sin(),
    "hann": torch.hann_window(400),
    "hamming": torch.hamming_window(400, periodic=False),
    "kaiser": torch.kaiser_window(400),
    "filter bank": triangles(201, 20),
    "filter bank, transposed": triangles(201, 20).T.contiguous(),
    "short-time Fourier transform": fourier(256)[:, None],
    "mask": shifted_mask(),
    "grid": torch.linspace(-1, 1, 33),
    "relative offsets": offsets(),
    "ternary weights": torch.tensor([-0.37, 0, 0.37]).repeat(40).reshape(12, 10),
}

RNG = torch.Generator().manual_seed(3)
WEIGHTS = {
    "convolution": torch.randn(64, 32, 3, 3, generator=RNG),
    "large kernel": torch.randn(8, 1, 31, generator=RNG),
    "linear": torch.randn(64, 512, generator=RNG),
    "bias": torch.randn(64, generator=RNG),
    "ones": torch.ones(64),
    "nearly ones": 1 + torch.randn(64, generator=RNG) * 1e-4,
    "one peak": torch.cat([torch.ones(1), torch.randn(63, generator=RNG) * 1e-4]),
    "pruned": torch.randn(64, 64, generator=RNG).clamp(min=1.5) - 1.5,
    "smooth": torch.randn(300, 16, generator=RNG).cumsum(0) / 20,
    "very smooth": torch.randn(300, generator=RNG).cumsum(0).cumsum(0),
    "not a number": torch.full((40,), math.nan),
    "beyond squares": torch.linspace(0, 1e38, 40),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_come_back_bit_for_bit(name: str) -> None:
    state = {"x": TABLES[name], "w": WEIGHTS["linear"]}
    stream = nnrcodec.encode(state)
    decoded = nnrcodec.decode(stream)["x"]
    assert np.array_equal(decoded, TABLES[name].float().numpy())
    (row,) = (row for row in stream.report.tensors if row.name == "x")
    assert row.relative_error == 0


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_no_tables(name: str) -> None:
    assert not follows_formula(WEIGHTS[name].numpy())


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_random_values_follow_no_formula(seed: int, shape: list[int]) -> None:
    values = np.random.default_rng(seed).laplace(size=shape).astype(np.float32)
    assert not follows_formula(values)


@pytest.mark.parametrize("name", ["inv_freq", "priors", "attn.window", "preprocess.pixel_mean"])
def test_tables_are_known_by_their_names(name: str) -> None:
    values = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    stream = nnrcodec.encode(Model.of([Tensor.of(name, values), Tensor.of("w", values)]))
    decoded = nnrcodec.decode(stream)
    assert np.array_equal(decoded[name], values)
    assert not np.array_equal(decoded["w"], values)


def test_other_decoders_can_read_tables(caplog: pytest.LogCaptureFixture) -> None:
    """Profile nnc has no code for any real, so a table is as fine as levels can be."""
    state = {name: TABLES[name].float() for name in ("hann", "ternary weights", "mask")}
    stream = nnrcodec.encode(state, config=nnrcodec.EncoderConfig(profile="nnc", codebook=True))
    assert {row.coding for row in stream.report.tensors} <= {"dependent", "uniform", "codebook"}
    decoded = nnrcodec.decode(stream)
    assert np.abs(decoded["hann"] - state["hann"].numpy()).max() <= 2.0**-24
    assert np.array_equal(decoded["mask"], state["mask"].numpy())
    assert "'hann' is a table by its values" in caplog.text
    assert "mask" not in caplog.text


STEPS = torch.linspace(1e-4, 0.02, 1000)
KEPT = torch.cumprod(1 - STEPS, 0)
SCHEDULES = {
    "kept": KEPT,
    "roots": (1 - KEPT).sqrt(),
    "logarithms": (1 - KEPT).log(),
    "variances": STEPS[1:] * (1 - KEPT[:-1]) / (1 - KEPT[1:]),
    "cosines": 1 - torch.cos(torch.linspace(0, 1.5, 1000)),
    "powers": torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 100) ** 7,
    "gamma": torch.linspace(0, 1, 256) ** 2.2,
    "logistic": torch.linspace(-6, 6, 128).sigmoid(),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_diffusion_are_tables(name: str) -> None:
    assert follows_formula(SCHEDULES[name].numpy())


def test_sorted_values_and_walks_are_no_tables() -> None:
    values = torch.randn(512, generator=RNG)
    for weights in (values, values.sort()[0], values.cumsum(0)):
        assert not follows_formula(weights.numpy())
