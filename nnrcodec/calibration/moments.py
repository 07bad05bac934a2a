"""Second moments of what layers take, as their weights see it.

The output error of a layer is a quadratic form of the error of its weight; `Moments` holds its
matrix, the second moment of the input patches. Two inputs are compared: the one that the layer of
the original network takes, and the one that it takes behind layers that were changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nnrcodec.graph.layers import Layer

RIDGE = 1e-3
"""How near a fitted weight stays to the original one at least, as part of the mean of second
moments: it changes little where the calibration inputs say little."""

_BATCH = 8192
"""Patches that are summed up in float32 before they are added in float64."""

_OPERATIONS = 3e10
"""Multiply-adds that the moments of a layer may take; patches are left out beyond that."""

_FEWEST_PER_COLUMN = 4

ROUNDING = 1e-12
"""Variance below this part of the mean square is what float32 makes of a constant."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of the input patches of a layer, by group; K columns each.

    Parameters
    ----------
    count : int
        Patches they are from.
    positions : int
        Patches that there are: how often the layer multiplies.
    second : ndarray of float64, shape (groups, K, K)
        Mean of x x^T, x being what the layer takes behind changed layers.
    mean : ndarray of float64, shape (groups, K)
        Mean of x.
    cross : ndarray of float64, shape (groups, K, K)
        Mean of x_original x^T.
    original_mean : ndarray of float64, shape (groups, K)
        Mean of x_original, what the layer of the original network takes.
    original_square : ndarray of float64, shape (groups,)
        Mean square of it, summed over the columns.
    """

    count: int
    positions: int
    second: np.ndarray
    mean: np.ndarray
    cross: np.ndarray
    original_mean: np.ndarray
    original_square: np.ndarray

    def centered(self) -> Moments:
        """Return the moments about the means: what counts where a bias can make up for them."""
        mean, original = self.mean, self.original_mean
        second = self.second - _outer(mean, mean)
        varies = _vary(np.trace(second, axis1=1, axis2=2), np.trace(self.second, axis1=1, axis2=2))
        second[~varies] = 0
        cross, square = second, self.original_square - np.sum(original**2, axis=1)
        if self.cross is not self.second:
            cross = self.cross - _outer(original, mean)
            cross[~(varies & _vary(square, self.original_square))] = 0
        nothing = np.zeros_like(mean)
        return Moments(self.count, self.positions, second, nothing, cross, nothing, square)

    def fitted(self, matrices: np.ndarray, ridge: float | None = None) -> np.ndarray:
        """Return the weight that, behind the changed layers, comes nearest to the original output.

        Parameters
        ----------
        matrices : ndarray, shape (groups, rows, K)
            The original weight.
        ridge : float, optional
            How much to stay near it, as part of the mean of the second moment: by default as much
            as there are columns for each patch, which is about what chance makes of that moment.

        Returns
        -------
        ndarray of float64, shape (groups, rows, K)
        """
        matrices = matrices.astype(np.float64)
        if self.cross is self.second:
            return matrices
        k = matrices.shape[2]
        ridge = max(RIDGE, k / self.count) if ridge is None else ridge
        means = np.trace(self.second, axis1=1, axis2=2) / k
        lift = np.where(means > 0, ridge * means, 1.0)[:, None, None] * np.eye(k)
        right = np.swapaxes(self.cross + lift, 1, 2) @ np.swapaxes(matrices, 1, 2)
        return np.swapaxes(np.linalg.solve(self.second + lift, right), 1, 2)

    def gains(self, original: np.ndarray, changed: np.ndarray) -> np.ndarray:
        """Return what outputs would have to be multiplied by to come nearest to the original ones.

        Parameters
        ----------
        original, changed : ndarray, shape (groups, rows, K)
            Weights as matrices.

        Returns
        -------
        ndarray of float64, shape (groups * rows,)
            By least squares about the means; 1 for an output that does not vary.
        """
        about = self.centered()
        both = np.einsum("grk,gkl,grl->gr", original, about.cross, changed, optimize=True)
        power = np.einsum("grk,gkl,grl->gr", changed, about.second, changed, optimize=True)
        varies = power > ROUNDING * np.maximum(np.abs(both), np.finfo(np.float64).tiny)
        return np.divide(both, power, out=np.ones_like(both), where=varies).reshape(-1)

    def output_mean(self, changed: np.ndarray) -> np.ndarray:
        """Return the mean of what a weight puts out behind changed layers, float64 (N,)."""
        return np.einsum("grk,gk->gr", changed, self.mean).reshape(-1)

    def bias_change(self, original: np.ndarray, changed: np.ndarray) -> np.ndarray:
        """Return what has to be added to the bias for the mean output to stay, float64 (N,)."""
        change = np.einsum("grk,gk->gr", original, self.original_mean)
        change -= np.einsum("grk,gk->gr", changed, self.mean)
        return change.reshape(-1)


def _vary(variance: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Return whether variances are more than what rounding makes of constants."""
    return variance > np.maximum(ROUNDING * square, np.finfo(np.float32).tiny)


def measure(
    layer: Layer, original: list[torch.Tensor], changed: list[torch.Tensor], seed: int = 0
) -> Moments:
    """Measure the moments of the input of a layer.

    Parameters
    ----------
    layer : Layer
    original, changed : list of Tensor
        Its input in the original network and behind changed layers, one for each calibration
        input; the same list if nothing before it was changed.
    seed : int
        Of the choice of patches, where not all are taken.

    Returns
    -------
    Moments
    """
    k, groups = layer.columns, layer.groups
    total_positions = sum(positions(layer, value) for value in original)
    most = max(_FEWEST_PER_COLUMN * k, int(_OPERATIONS / (groups * k * k)), _BATCH)
    share = min(1.0, most / total_positions)
    generator = torch.Generator().manual_seed(seed)
    lines = _Lines.of(layer, original[0])
    every = min(int(1 / share), lines.length)  # far apart, they say more
    x_sums, y_sums = _Sums(_Lines.of(layer, changed[0])), _Sums(lines)
    second = torch.zeros(groups, k, k, dtype=torch.float64)
    both = torch.zeros(groups, k, k, dtype=torch.float64)
    total = 0
    for value, changed_value in zip(original, changed, strict=True):
        lines = _Lines.of(layer, value)  # a padded copy: of one input at a time
        changed_lines = lines if changed is original else _Lines.of(layer, changed_value)
        picked, phase = torch.arange(lines.count), 0
        if share < 1:
            wanted = math.ceil(min(share * every, 1) * lines.count)
            picked = torch.randperm(lines.count, generator=generator)[:wanted].sort().values
            phase = int(torch.randint(min(every, lines.length), (1,), generator=generator))
        for part in torch.split(picked, max(_BATCH * every // lines.length, 1)):
            x = x_sums.add(changed_lines.patches(part, every, phase))
            total += x.shape[2]
            second += (x @ x.transpose(1, 2)).double()
            if changed_lines is not lines:
                y = y_sums.add(lines.patches(part, every, phase))
                both += (y @ x.transpose(1, 2)).double()
    first, mean = x_sums.means(total)
    moment = (second / total).numpy() + _outer(first, x_sums.point) + _outer(x_sums.point, mean)
    if changed is original:
        square = np.trace(moment, axis1=1, axis2=2)
        return Moments(total, total_positions, moment, mean, moment, mean, square)
    first, original_mean = y_sums.means(total)
    cross = (both / total).numpy() + _outer(first, x_sums.point) + _outer(y_sums.point, mean)
    square = y_sums.mean_square(total)
    return Moments(total, total_positions, moment, mean, cross, original_mean, square)


def positions(layer: Layer, value: torch.Tensor) -> int:
    """Return how often a layer multiplies for an input: the patches that it makes of it."""
    return _Lines.of(layer, value.to("meta")).positions  # from the shape alone


class _Sums:
    """Sums over patches, taken about a point near their mean: about zero, float32 is too coarse."""

    def __init__(self, lines: _Lines) -> None:
        few = max(_BATCH // lines.length, 1)
        first = lines.patches(torch.arange(min(lines.count, few)))
        self._point = first.mean(2, keepdim=True)
        self.point: np.ndarray = self._point[:, :, 0].double().numpy()
        self._first = torch.zeros(self.point.shape, dtype=torch.float64)
        self._squares = torch.zeros(len(self.point), dtype=torch.float64)

    def add(self, x: torch.Tensor) -> torch.Tensor:
        """Add patches, shape (groups, K, patches); return them about the point."""
        x = x.sub_(self._point)
        self._first += x.sum(2, dtype=torch.float64)
        self._squares += torch.linalg.vector_norm(x, dim=(1, 2), dtype=torch.float64).square()
        return x

    def means(self, total: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean about the point, and about zero."""
        first = (self._first / total).numpy()
        return first, first + self.point

    def mean_square(self, total: int) -> np.ndarray:
        """Return the mean square about zero, summed over the columns."""
        first, mean = self.means(total)
        squares = (self._squares / total).numpy()
        return squares + np.sum(first * self.point + self.point * mean, axis=1)


def _outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, :, None] * b[:, None, :]


@dataclass(frozen=True, slots=True)
class _Lines:
    """All patches of an input, line by line of the output.

    Parameters
    ----------
    rows : Tensor, shape (rows, C, samples)
        The input by rows along its last axis; of a linear layer there is one sample in each.
    first : Tensor of int64, shape (lines,)
        The first row that each line of the output sees.
    further : tuple of int
        Which rows it sees, counted from that one.
    taps : int
        Samples of a row that make one of the output, by the last axis of the kernel.
    stride, dilation : int
        Along that axis.
    length : int
        Samples in a line of the output.
    groups : int
    """

    rows: torch.Tensor
    first: torch.Tensor
    further: tuple[int, ...]
    taps: int
    stride: int
    dilation: int
    length: int
    groups: int

    @classmethod
    def of(cls, layer: Layer, value: torch.Tensor) -> _Lines:
        """Return those of what a layer takes."""
        axes = len(layer.kernel)
        if axes == 0:
            flat = value.reshape(-1, value.shape[-1], 1)
            return cls(flat, torch.arange(len(flat)), (0,), 1, 1, 1, 1, 1)
        if value.ndim == axes + 1:  # without an axis for the batch
            value = value[None]
        if layer.transposed:
            value = _stretched(value, layer.stride)
        stride = (1,) * axes if layer.transposed else layer.stride
        around = [size for pair in reversed(layer.padding) for size in pair]
        value = torch.nn.functional.pad(value, around).movedim(1, -2)
        taps, dilation = layer.kernel, layer.dilation
        out = [
            (n - d * (k - 1) - 1) // s + 1
            for n, d, k, s in zip(
                (*value.shape[1:-2], value.shape[-1]), dilation, taps, stride, strict=True
            )
        ]
        number = torch.arange(math.prod(value.shape[:-2])).reshape(value.shape[:-2])
        first, further = number, number[0]
        for axis in range(axes - 1):
            first = first.narrow(axis + 1, 0, stride[axis] * (out[axis] - 1) + 1)
            first = first.index_select(
                axis + 1, torch.arange(0, first.shape[axis + 1], stride[axis])
            )
            seen = dilation[axis] * torch.arange(taps[axis])
            further = further.index_select(axis, seen)
        return cls(
            value.reshape(-1, *value.shape[-2:]),
            first.flatten(),
            tuple(further.flatten().tolist()),
            taps[-1],
            stride[-1],
            dilation[-1],
            out[-1],
            layer.groups,
        )

    @property
    def count(self) -> int:
        """Number of lines."""
        return len(self.first)

    @property
    def positions(self) -> int:
        """Number of patches in all lines."""
        return self.count * self.length

    def patches(self, picked: torch.Tensor, every: int = 1, phase: int = 0) -> torch.Tensor:
        """Return patches of some lines: float32, shape (groups, K, patches).

        Parameters
        ----------
        picked : Tensor of int64
            Numbers of the lines.
        every, phase : int
            Which samples of each: every so many, from the one at the phase.
        """
        channels, begin = self.rows.shape[1], self.first[picked]
        length = len(range(phase, self.length, every))
        shape = channels, len(self.further), self.taps, len(picked), length
        made = torch.empty(shape, dtype=torch.float32)
        step = self.stride * every
        reach = step * (length - 1) + 1
        for position, ahead in enumerate(self.further):
            rows = self.rows.index_select(0, begin + ahead).transpose(0, 1)
            for tap in range(self.taps):
                start = tap * self.dilation + self.stride * phase
                made[:, position, tap] = rows[:, :, start : start + reach : step]
        return made.reshape(self.groups, -1, len(picked) * length)


def _stretched(value: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    """Put zeros between the samples, as a transposed convolution of that stride does."""
    sizes = [(n - 1) * s + 1 for n, s in zip(value.shape[2:], stride, strict=True)]
    result = value.new_zeros(*value.shape[:2], *sizes)
    samples: Any = (..., *(slice(None, None, s) for s in stride))
    result[samples] = value
    return result
