"""Whether the values of a tensor follow a formula, so that it is a table and no weight.

A bare file does not say which of its tensors are weights. Position tables, rotary frequencies,
windows, filter banks, bases of transforms, grids and masks are none: they are cheap to keep, and a
network may depend on their exact values. They are known by what trained values never do: to go on
by a rule over many elements, to be the same from both ends, or to be but two or three numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

_FEWEST = 16
"""Elements of a table."""

_FEWEST_IN_LINE = 12
"""Elements of a line that a rule is seen in; twice as many of a dtype of few bits."""

_TOLERANCE = 3e-2
"""Part of its second differences by which a line may miss a rule: angles of thousands of radians in
binary32 are off by as much."""

_ROUNDINGS = 16
"""Roundings of its peak by which a line may miss a rule in any case."""

_NOTHING = 1e-3
"""Part of the largest range of all lines that is none."""

_FEWEST_OF_SMOOTH = 48
_MOST_OF_SMOOTH = 0.9
"""Part of the differences of a line that has to be small."""

_SAME = 2e-4
"""Part of the peak by which both ends of a line may differ."""

_MILD = 1e-30
_ROUGH = 1e-4
_MASK_VALUES = 3
_SAMPLE = 4096
_ZEROS = 0.7
"""Part of a filter bank that is zero, at least."""


def follows_formula(values: np.ndarray) -> bool:
    """Return whether the values of a tensor are those of a table.

    Parameters
    ----------
    values : ndarray of float, any shape
        Finite or not; a table is finite.
    """
    if values.size < _FEWEST or values.ndim == 0:
        return False
    peak = float(np.abs(values).max())
    if not 0 < peak < np.inf:
        return False
    if has_few_values(values):
        return True
    if not _MILD < peak < 1 / _MILD:  # so that squares are numbers
        return False
    if values.ndim == 2 and _is_filter_bank(values):
        return True
    epsilon = _epsilon(values)
    fewest = _FEWEST_IN_LINE * (1 if epsilon < _ROUGH else 2)
    return any(
        _all_lines(lines, lambda rows: _go_on(rows, epsilon) | _are_smooth(rows, epsilon))
        or _all_lines(lines, _are_symmetric)
        for lines in _lines(values, fewest)
    ) or _is_sinusoidal(values)


def _epsilon(values: np.ndarray) -> float:
    """Return the relative distance of neighbours in the dtype that values have, or have had."""
    if (
        values.dtype == np.float32
        and not (np.ascontiguousarray(values).view(np.uint32) & 0xFFFF).any()
    ):
        return 2.0**-7  # bfloat16, which numpy lacks
    return float(np.finfo(values.dtype).eps)


def _lines(values: np.ndarray, fewest: int) -> Iterator[np.ndarray]:
    """Yield the values as rows of lines, along each axis that is long enough."""
    for axis, length in enumerate(values.shape):
        if length >= fewest:
            yield np.moveaxis(values, axis, -1).reshape(-1, length)


def _all_lines(lines: np.ndarray, test: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Return whether a test holds for all lines that are not constant, of which there is one."""
    nothing = _NOTHING * float(np.ptp(lines[:_SAMPLE], axis=1).max())
    few = lines[:_SAMPLE][np.ptp(lines[:_SAMPLE], axis=1) > nothing][:4]
    if not len(few) or not test(few.astype(np.float64)).all():
        return False
    return all(
        bool(test(block[np.ptp(block, axis=1) > nothing]).all())
        for start in range(0, len(lines), _SAMPLE)
        for block in (lines[start : start + _SAMPLE].astype(np.float64),)
    )


def _go_on(rows: np.ndarray, epsilon: float) -> np.ndarray:
    """Return which rows follow x[k+1] + x[k-1] = c x[k] + d, each with a c and a d of its own.

    Sines, cosines, raised cosines, geometric and arithmetic series do.
    """
    middle, around = rows[:, 1:-1], rows[:, 2:] + rows[:, :-2]
    x = middle - middle.mean(axis=1, keepdims=True)
    y = around - around.mean(axis=1, keepdims=True)
    power = (x * x).sum(axis=1, keepdims=True)
    c = np.divide(
        (x * y).sum(axis=1, keepdims=True), power, out=np.zeros_like(power), where=power > 0
    )
    misses = np.abs(y - c * x).max(axis=1)
    bends = np.abs(around - 2 * middle).max(axis=1)
    roundings = _ROUNDINGS * epsilon * np.abs(rows).max(axis=1)
    return np.asarray(misses <= np.maximum(_TOLERANCE * bends, roundings))


def _are_smooth(rows: np.ndarray, epsilon: float) -> np.ndarray:
    """Return which rows are samples of a smooth function: of their differences, each is small.

    The schedules of diffusion are, and tables of logarithms, powers and the like.
    """
    if rows.shape[1] < _FEWEST_OF_SMOOTH:
        return np.zeros(len(rows), bool)
    second, fourth = (np.abs(np.diff(rows, order, axis=1)) for order in (2, 4))
    roundings = _ROUNDINGS * epsilon * np.abs(rows).max(axis=1)
    # at the ends a function may be steep, as a root is at 0
    inner = np.quantile(fourth, _MOST_OF_SMOOTH, axis=1)
    return np.asarray(
        inner <= np.maximum(_TOLERANCE * np.quantile(second, _MOST_OF_SMOOTH, axis=1), roundings)
    )


def _are_symmetric(rows: np.ndarray) -> np.ndarray:
    """Return which rows are the same from both ends, or the opposite, to the last bits."""
    peak = np.abs(rows).max(axis=1)
    result = np.zeros(len(rows), bool)
    for part in (rows, rows[:, 1:]):  # of a periodic window the first element has no partner
        backwards = part[:, ::-1]
        for sign in (1, -1):
            result |= np.abs(part - sign * backwards).max(axis=1) <= _SAME * peak
    return result


def has_few_values(values: np.ndarray) -> bool:
    """Return whether there are but two or three different values."""
    sample = np.unique(values.reshape(-1)[:_SAMPLE])
    if len(sample) > _MASK_VALUES:
        return False
    found = np.unique(values)
    return 1 < len(found) <= _MASK_VALUES


def _is_filter_bank(values: np.ndarray) -> bool:
    """Return whether values are bands of a matrix that is zero elsewhere, and positive in them."""
    if min(values.shape) < _FEWEST or values.min() < 0:
        return False
    used = values > 0
    if used.mean() > 1 - _ZEROS or not used.any():
        return False
    for bands in (used, used.T):
        edges = np.diff(np.pad(bands, ((0, 0), (1, 1))).astype(np.int8), axis=1) > 0
        if (edges.sum(axis=1) <= 1).all():
            return True
    return False


def _is_sinusoidal(values: np.ndarray) -> bool:
    """Return whether each row has a sine and a cosine of the same angles, in whatever order."""
    length = values.shape[-1]
    if length < _FEWEST or length % 2:
        return False
    rows = values.reshape(-1, length)
    if len(rows) < _FEWEST_IN_LINE or np.abs(rows[:_SAMPLE]).max() > 1:
        return False
    power = np.square(rows.astype(np.float64)).mean(axis=1)
    used = power > 0
    return bool(used.mean() > 0.9 and np.abs(power[used] - 0.5).max() < 2e-3)
