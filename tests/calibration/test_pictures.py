"""Families of pictures that are made up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnrcodec.calibration.pictures import FITTED, HELD_OUT, picture


def several(family: str, channels: int = 1, count: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([picture(family, (channels, 64, 64), rng) for _ in range(count)])


def noise_of(made: np.ndarray) -> np.ndarray:
    """Return how much neighbours differ for the most part, for each picture."""
    steps = np.abs(
        made[..., 1:, 1:] - made[..., :-1, 1:] - made[..., 1:, :-1] + made[..., :-1, :-1]
    )
    return np.median(steps, axis=(1, 2, 3))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FITTED + HELD_OUT),
    st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 2**32),
)
def test_pictures_of_any_size_have_values_of_8_bits(
    family: str, shape: tuple[int, ...], seed: int
) -> None:
    made = picture(family, shape, np.random.default_rng(seed))
    assert made.shape == shape
    np.testing.assert_array_equal(made, np.rint(255 * made) / 255)
    assert 0 <= made.min() <= made.max() <= 1
    np.testing.assert_array_equal(made, picture(family, shape, np.random.default_rng(seed)))


@pytest.mark.parametrize("family", ["photograph", "coded"])
def test_photographs_are_smooth_and_have_edges(family: str) -> None:
    made = several(family)
    steps = np.diff(made, axis=3).ravel()
    assert np.corrcoef(made[..., 1:].ravel(), made[..., :-1].ravel())[0, 1] > 0.9
    kurtosis = np.mean(steps**4) / np.mean(steps**2) ** 2
    assert kurtosis > 6  # that of noise is 3


def test_noisy_ones_have_noise_and_the_others_less() -> None:
    noise = {family: noise_of(several(family)) for family in FITTED}
    assert np.median(noise["noisy"]) > 2 * np.median(noise["photograph"])
    assert np.median(noise["noisy"]) > 2 * np.median(noise["coded"])


def test_text_is_of_two_brightnesses_and_gradients_are_smooth() -> None:
    lines = several("lines")
    dark, light = lines.min((1, 2, 3)), lines.max((1, 2, 3))
    between = (lines - dark[:, None, None, None]) / (light - dark)[:, None, None, None]
    assert np.mean((between < 0.2) | (between > 0.8)) > 0.75
    assert np.median(noise_of(several("gradients"))) <= 2 / 255
    assert several("gradients").std((1, 2, 3)).min() > 0.01


@pytest.mark.parametrize("family", FITTED + HELD_OUT)
def test_none_is_extreme(family: str) -> None:
    made = several(family, channels=3)
    assert 0.15 < made.mean() < 0.85
    assert np.mean((made == 0) | (made == 1)) < 0.2
    assert 0.02 < made.std() < 0.4
