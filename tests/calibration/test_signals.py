"""Sound that is made up, and features of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnrcodec.calibration.signals import features, sound


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20_000), st.integers(0, 2**32), st.booleans())
def test_sound_of_any_length_has_values_of_16_bits(length: int, seed: int, held_out: bool) -> None:
    made, again = (sound(length, np.random.default_rng(seed), held_out=held_out) for _ in range(2))
    assert made.shape == (length,)
    np.testing.assert_array_equal(made, np.rint(2**15 * made) / 2**15)
    assert -1 <= made.min() <= made.max() < 1
    np.testing.assert_array_equal(made, again)


@pytest.mark.parametrize("held_out", [False, True])
def test_sound_is_about_as_loud_as_speech_with_pauses_and_low_frequencies(held_out: bool) -> None:
    rng = np.random.default_rng(0)
    made = np.stack([sound(32_000, rng, held_out=held_out) for _ in range(16)])
    assert 0.05 < np.sqrt(np.mean(made**2)) < 0.2
    levels = np.sqrt(np.mean(made.reshape(16, -1, 320) ** 2, axis=2))
    assert np.mean(levels < 0.3 * levels.mean(1, keepdims=True)) > 0.1
    spectrum = np.mean(np.abs(np.fft.rfft(made)) ** 2, axis=0)
    assert spectrum[: len(spectrum) // 4].sum() > 0.8 * spectrum.sum()


def test_speech_has_harmonics() -> None:
    """A signal of slowly varying pitch is like itself one period ago; noise is not."""
    rng = np.random.default_rng(1)
    best = []
    for _ in range(8):
        for part in sound(32_000, rng).reshape(-1, 1600):
            later = [np.corrcoef(part[lag:], part[:-lag])[0, 1] for lag in range(50, 200, 2)]
            best.append(max(later))
    assert np.mean(np.array(best) > 0.6) > 0.25


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 50), st.integers(1, 300), st.integers(0, 2**32), st.booleans())
def test_features_are_never_negative_and_no_band_is_empty(
    frames: int, bands: int, seed: int, held_out: bool
) -> None:
    made = features(frames, bands, np.random.default_rng(seed), held_out=held_out)
    assert made.shape == (frames, bands)
    assert np.isfinite(made).all()
    assert made.min() >= 0
    assert frames < 10 or (made.max(0) > 0).all()
    np.testing.assert_array_equal(made, made.astype(np.float16))


def test_features_change_slowly() -> None:
    rng = np.random.default_rng(0)
    made = np.log(np.stack([features(160, 40, rng) for _ in range(8)]) + 1e-3)
    made -= made.mean((1, 2), keepdims=True)
    assert np.corrcoef(made[:, 1:].ravel(), made[:, :-1].ravel())[0, 1] > 0.7
