"""Pictures that are made up.

Photographs are drawn from the dead leaves model (A. B. Lee, D. Mumford, J. Huang, "Occlusion models
for natural images", IJCV 2001): shapes of all sizes that occlude one another, which gives edges,
flat areas and a spectrum like those of photographs, plus some texture.
"""

from __future__ import annotations

import math

import numpy as np

FITTED = ("photograph", "coded", "noisy", "coded")
"""Families to fit to: photographs as they are, coded with a block transform, and with noise. Half
of them are coded, like most pictures that networks process."""

HELD_OUT = ("lines", "gradients", "textures")
"""Families to verify on: text and line art, smooth areas, textures. Half of them have noise that
depends on the brightness, or were coded with other blocks."""

_LEAVES = 150


def picture(family: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return a picture with values of 8 bits, divided by 255.

    Parameters
    ----------
    family : str
        One of `FITTED` or `HELD_OUT`.
    shape : tuple of int
        (channels, height, width)
    rng : numpy.random.Generator

    Returns
    -------
    ndarray
        Whole multiples of 1/255: small differences between machines in sines or sums are rounded
        away.
    """
    match family:
        case "photograph":
            values = _photograph(shape, rng)
        case "coded":
            step, block = 2 ** rng.uniform(2, 7) / 255, int(rng.choice((8, 16)))
            values = _coded(_photograph(shape, rng), step, block)
        case "noisy":
            deviation = 5 * 10 ** rng.uniform(0, 1) / 255
            values = _photograph(shape, rng) + deviation * rng.standard_normal(shape)
        case "lines":
            values = _spoiled(_lines(shape, rng), rng)
        case "gradients":
            values = _spoiled(_gradients(shape, rng), rng)
        case _:
            values = _spoiled(_textures(shape, rng), rng)
    return np.rint(255 * np.clip(values, 0, 1)) / 255


def _photograph(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    channels, height, width = shape
    values = _leaves(channels, height, width, rng)
    for slope, most in ((1.0, 0.08), (0.3, 0.02)):
        values += rng.uniform(0, most) * _texture(height, width, slope, rng)
    share = rng.uniform(0.05, 0.2)  # weight of the neighbours in a slight blur, as of a lens
    for axis in (1, 2):
        before, after = (np.roll(values, shift, axis) for shift in (1, -1))
        values = (1 - 2 * share) * values + share * (before + after)
    return values


def _leaves(channels: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return ellipses and rectangles, more small than large ones, drawn over one another."""
    side = max(height, width)
    picture = np.broadcast_to(
        rng.uniform(0.2, 0.8, (channels, 1, 1)), (channels, height, width)
    ).copy()
    rows, columns = np.ogrid[:height, :width]

    def between(low: float, high: float) -> float:  # rng.uniform takes five times as long
        return low + (high - low) * rng.random()

    for _ in range(_LEAVES):
        radius = min(4.5 / math.sqrt(1 - between(0, 0.999)), side)
        row, column = (between(-radius, size + radius) for size in (height, width))
        angle, squeezed = between(0, np.pi), between(0.3, 1)
        top, left = (max(int(middle - 1.5 * radius), 0) for middle in (row, column))
        bottom, right = (max(int(middle + 1.5 * radius) + 2, 0) for middle in (row, column))
        down, over = rows[top:bottom] - row, columns[:, left:right] - column
        cosine, sine = np.cos(angle), np.sin(angle)
        along = over * cosine + down * sine
        across = (down * cosine - over * sine) / squeezed
        if rng.random() < 0.5:
            inside = np.maximum(np.abs(along), np.abs(across)) < radius
        else:
            inside = along**2 + across**2 < radius**2
        gray, tint = between(0.05, 0.95), 0.1 * rng.standard_normal((channels, 1, 1))
        shade = gray + 0.15 * rng.standard_normal() * along / radius
        part = picture[:, top:bottom, left:right]
        np.copyto(part, shade + tint if channels > 1 else shade, where=inside)
    return picture


def _texture(height: int, width: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise of standard deviation 1 whose amplitude falls with a power of the frequency."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(rng.standard_normal((height, width)))
    noise = np.fft.irfft2(white * frequency**-slope, (height, width))
    return np.asarray(noise / max(float(noise.std()), 1e-12))


def _coded(picture: np.ndarray, step: float, block: int) -> np.ndarray:
    """Quantize the DCT of each block, with a dead zone; incomplete blocks stay as they are."""
    channels, height, width = picture.shape
    rows, columns = height // block, width // block
    k = np.arange(block)
    cosine = np.cos(np.pi * (2 * k + 1) * k[:, None] / (2 * block)) * math.sqrt(2 / block)
    cosine[0] /= math.sqrt(2)
    part = picture[:, : rows * block, : columns * block]
    blocks = part.reshape(channels, rows, block, columns, block)
    coefficients = _transformed(_transformed(blocks, cosine, 2), cosine, 4)
    steps = np.floor(np.abs(coefficients) / step + 0.35)
    coefficients = np.sign(coefficients) * steps * step
    restored = _transformed(_transformed(coefficients, cosine.T, 2), cosine.T, 4)
    coded = picture.copy()
    coded[:, : rows * block, : columns * block] = restored.reshape(part.shape)
    return coded


def _transformed(values: np.ndarray, matrix: np.ndarray, axis: int) -> np.ndarray:
    """Multiply an axis by a matrix, in the same order of additions everywhere."""
    moved = np.moveaxis(values, axis, 0)
    total = np.zeros_like(moved)
    for column, part in zip(matrix.T, moved, strict=True):
        total += column[:, None, None, None, None] * part
    return np.moveaxis(total, 0, axis)


def _spoiled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a picture with noise, or coded, or in half of all cases as it is."""
    way = rng.random()
    if way < 0.5:
        return values
    if way < 0.75:
        deviation = rng.uniform(3, 20) / 255 * np.sqrt(np.clip(values, 0, 1))
        return values + deviation * rng.standard_normal(values.shape)
    return _coded(values, 2 ** rng.uniform(3, 6) / 255, int(rng.choice((4, 32))))


def _lines(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return letters of straight strokes in rows and some long lines, dark on light or inverse."""
    channels, height, width = shape
    size = int(8 * 2 ** rng.uniform(0, 1.3))
    narrow, thickness = max(6 * size // 10, 3), size / 8 * rng.uniform(0.8, 1.6)
    letters = []
    for _ in range(16):
        ends = rng.integers(0, 3, (rng.integers(2, 5), 2, 2)) / 2 * (size - 3, narrow - 3) + 1
        letters.append(np.max([_stroke(size, narrow, a, b, thickness) for a, b in ends], axis=0))
    ink = np.zeros((height, width))
    for top in range(int(rng.integers(0, size)), height, 3 * size // 2):
        for left in range(0, width, narrow + 2):
            if rng.random() < 0.8:  # else a space
                part = ink[top : top + size, left : left + narrow]
                part[:] = letters[rng.integers(16)][: part.shape[0], : part.shape[1]]
    for _ in range(rng.integers(0, 5)):
        a, b = rng.uniform(0, 1, (2, 2)) * (height, width)
        ink = np.maximum(ink, _stroke(height, width, a, b, rng.uniform(1, 4)))
    light = rng.uniform(0.7, 1) + 0.05 * rng.standard_normal((channels, 1, 1))
    dark = rng.uniform(0, 0.3) + 0.05 * rng.standard_normal((channels, 1, 1))
    paper, colour = (light, dark) if rng.random() < 0.75 else (dark, light)
    return paper + ink * (colour - paper)


def _stroke(
    height: int, width: int, start: np.ndarray, end: np.ndarray, thickness: float
) -> np.ndarray:
    """Return how much of each sample a line with round ends covers."""
    rows, columns = np.ogrid[:height, :width]
    down, over = end - start
    along = ((rows - start[0]) * down + (columns - start[1]) * over) / max(down**2 + over**2, 1e-9)
    nearest = np.clip(along, 0, 1)
    distance = np.hypot(rows - start[0] - nearest * down, columns - start[1] - nearest * over)
    return np.clip((thickness + 1) / 2 - distance, 0, 1)


def _gradients(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return waves that are longer than the picture, as sky or walls."""
    channels, height, width = shape
    rows, columns = np.ogrid[:height, :width]
    values = np.zeros(shape)
    for _ in range(4):
        down, over = rng.uniform(-0.8, 0.8, 2) * 2 * np.pi / max(height, width)
        wave = np.cos(down * rows + over * columns + rng.uniform(0, 2 * np.pi))
        values += (1 + 0.2 * rng.standard_normal((channels, 1, 1))) * wave
    return rng.uniform(0.25, 0.75) + rng.uniform(0.02, 0.15) * values


def _textures(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return noise of some spectrum, in half of all cases with stripes."""
    channels, height, width = shape
    contrast = rng.uniform(0.03, 0.12)
    gray = contrast * _texture(height, width, rng.uniform(0.8, 1.6), rng)
    if rng.random() < 0.5:
        rows, columns = np.ogrid[:height, :width]
        angle, length = rng.uniform(0, np.pi), 3 * 8 ** rng.random()
        across = rows * np.sin(angle) + columns * np.cos(angle)
        gray += contrast * np.sin(2 * np.pi * across / length)
    level = rng.uniform(0.3, 0.7) + 0.1 * rng.standard_normal((channels, 1, 1))
    return level + gray
