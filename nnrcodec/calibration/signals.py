"""Signals that are made up: sound, and what is measured of it in frames.

All values are rounded, so that small differences between machines in sines or sums vanish.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

RATE = 16000
"""Samples in a second."""

LENGTH = RATE
"""Samples of a signal of free length."""

FRAMES = 160
"""Frames of features of free length."""

_SHORTEST = RATE // 2
"""A shorter signal is cut from one of this length."""

_WINDOW, _HOP = 400, 160
"""Samples of a frame, and from one to the next."""

_HARMONICS = 24


def sound(length: int, rng: np.random.Generator, *, held_out: bool = False) -> np.ndarray:
    """Return a signal with values of 16 bits, divided by 32 768.

    Parameters
    ----------
    length : int
        Number of samples, at `RATE`.
    rng : numpy.random.Generator
    held_out : bool
        Whether to make, in half of all cases, notes of instruments instead of something like
        speech, and speech of higher voices otherwise. Speech has harmonics with slowly varying
        pitch and formants, hiss, and pauses. All have coloured noise behind them.

    Returns
    -------
    ndarray, shape (length,)
        Root mean square 0.03 to 0.2 over all that it was cut from.
    """
    whole = max(length, _SHORTEST)
    if held_out and rng.random() < 0.5:
        values = _notes(whole, rng)
    else:
        values = _speech(whole, 160 if held_out else 80, rng)
    noise = _coloured(whole, rng.uniform(0, 1), rng)
    values = values / _root_mean_square(values) + 10 ** rng.uniform(-2.5, -0.5) * noise
    values *= 0.03 * 7 ** rng.random() / _root_mean_square(values)
    start = int(rng.integers(whole - length + 1))
    return np.rint(2**15 * np.clip(values[start : start + length], -1, 1 - 2**-15)) / 2**15


def features(
    frames: int, bands: int, rng: np.random.Generator, *, held_out: bool = False
) -> np.ndarray:
    """Return the power of a sound in mel bands, as it is or compressed; never negative.

    Parameters
    ----------
    frames, bands : int
    rng : numpy.random.Generator
    held_out : bool
        As for `sound`; the power is then compressed in another way.

    Returns
    -------
    ndarray, shape (frames, bands)
        Of the precision of float16.
    """
    samples = sound((frames - 1) * _HOP + _WINDOW, rng, held_out=held_out)
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    spectrum = np.fft.rfft(windows * np.hanning(_WINDOW), _transform_size(bands))
    power = np.abs(spectrum) ** 2 @ _mel_filters(bands).T
    if held_out:
        power = np.sqrt(power)
    elif rng.random() < 0.5:
        power = np.log1p(100 * power)
    return power.astype(np.float16).astype(np.float64)


def _root_mean_square(values: np.ndarray) -> float:
    return max(float(np.sqrt(np.mean(values**2))), 1e-9)


def _coloured(length: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise of root mean square 1 whose amplitude falls with a power of the frequency."""
    frequency = np.maximum(np.fft.rfftfreq(length), 20 / RATE)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * frequency**-slope, length)
    return np.asarray(noise / _root_mean_square(noise))


def _track(length: int, step: int, values: np.ndarray) -> np.ndarray:
    """Return a value for each sample, on straight lines between values that are `step` apart."""
    return np.interp(np.arange(length), step * np.arange(len(values)), values)


def _parts(length: int, shortest: float, longest: float, rng: np.random.Generator) -> Iterator[int]:
    """Yield how many samples parts have, until there are enough; times are in seconds."""
    total = 0
    while total < length:
        size = int(rng.uniform(shortest, longest) * RATE)
        yield size
        total += size


def _speech(length: int, lowest: float, rng: np.random.Generator) -> np.ndarray:
    step = RATE // 50
    knots = length // step + 2
    voiced, hissing = np.zeros(knots), np.zeros(knots)
    start = 0
    for size in _parts(length, 0.08, 0.35, rng):
        kind, part = rng.random(), slice(start // step, (start + size) // step)
        if kind < 0.8:  # else a pause
            (voiced if kind < 0.6 else hissing)[part] = rng.uniform(0.3, 1)
        start += size
    slow = 8 * step
    pitch = lowest * 3 ** rng.random() * 2 ** (0.3 * rng.standard_normal(length // slow + 2))
    at_knots = _track(length, slow, pitch)[::step]
    at_knots = np.append(at_knots, at_knots[-1:].repeat(knots - len(at_knots)))
    formants = [
        _track(knots, 6, rng.uniform(low, high, knots // 6 + 2))
        for low, high in ((300, 900), (900, 2500), (2300, 3500))
    ]
    phase = 2 * np.pi * np.cumsum(_track(length, step, at_knots)) / RATE
    values = np.zeros(length)
    for harmonic in range(1, _HARMONICS + 1):
        frequency = harmonic * at_knots
        gain = sum(1 / (1 + ((frequency - middle) / 120) ** 2) for middle in formants)
        gain = np.where(frequency < 0.45 * RATE, gain / (1 + frequency / 1000), 0)
        wave = np.sin(harmonic * phase + rng.uniform(0, 2 * np.pi))
        values += _track(length, step, voiced * gain) * wave
    hiss = np.diff(rng.standard_normal(length + 1))
    return values + 0.1 * _track(length, step, hissing) * hiss


def _notes(length: int, rng: np.random.Generator) -> np.ndarray:
    values, start = np.zeros(length), 0
    for size in _parts(length, 0.1, 0.5, rng):
        time = np.arange(min(size + RATE // 4, length - start)) / RATE
        decay = np.exp(-time * rng.uniform(2, 10)) * np.minimum(time / 0.005, 1)
        for _ in range(rng.integers(0, 4)):  # 0 is a pause
            pitch, falls = 60 * 16 ** rng.random(), rng.uniform(1, 2)
            for harmonic in range(1, min(8, int(0.45 * RATE / pitch)) + 1):
                wave = np.sin(2 * np.pi * harmonic * pitch * time + rng.uniform(0, 2 * np.pi))
                values[start : start + len(time)] += harmonic**-falls * decay * wave
        start += size
    return values


def _transform_size(bands: int) -> int:
    """Return a size with which even the lowest band has a frequency in it."""
    return max(512, 16 * bands)


def _mel_filters(bands: int) -> np.ndarray:
    """Return triangles of equal area, linear below 700 Hz and logarithmic above."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.fft.rfftfreq(_transform_size(bands), 1 / RATE)
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
