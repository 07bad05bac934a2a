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
"""How near a fitted weight stays to the original one, as part of the mean of second moments: it
changes little where the calibration inputs say little."""

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

    def fitted(self, matrices: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
        """Return the weight that, behind the changed layers, comes nearest to the original output.

        Parameters
        ----------
        matrices : ndarray, shape (groups, rows, K)
            The original weight.
        ridge : float
            How much to stay near it, as part of the mean of the second moment.

        Returns
        -------
        ndarray of float64, shape (groups, rows, K)
        """
        matrices = matrices.astype(np.float64)
        if self.cross is self.second:
            return matrices
        k = matrices.shape[2]
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
    views = [_windows(layer, value) for value in original]
    changed_views = views if changed is original else [_windows(layer, v) for v in changed]
    counts = [view.positions for view in views]
    most = max(_FEWEST_PER_COLUMN * k, int(_OPERATIONS / (groups * k * k)), _BATCH)
    share = min(1.0, most / sum(counts))
    generator = torch.Generator().manual_seed(seed)
    x_sums, y_sums = _Sums(changed_views[0]), _Sums(views[0])
    second = torch.zeros(groups, k, k, dtype=torch.float64)
    both = torch.zeros(groups, k, k, dtype=torch.float64)
    total = 0
    for view, changed_view in zip(views, changed_views, strict=True):
        picked = torch.arange(view.positions)
        if share < 1:
            wanted = math.ceil(share * view.positions)
            picked = torch.randperm(view.positions, generator=generator)[:wanted].sort().values
        total += len(picked)
        for part in torch.split(picked, _BATCH):
            x = x_sums.add(changed_view.patches(part))
            second += (x.transpose(1, 2) @ x).double()
            if changed_view is not view:
                y = y_sums.add(view.patches(part))
                both += (y.transpose(1, 2) @ x).double()
    first, mean = x_sums.means(total)
    moment = (second / total).numpy() + _outer(first, x_sums.point) + _outer(x_sums.point, mean)
    if changed_views is views:
        square = np.trace(moment, axis1=1, axis2=2)
        return Moments(total, sum(counts), moment, mean, moment, mean, square)
    first, original_mean = y_sums.means(total)
    cross = (both / total).numpy() + _outer(first, x_sums.point) + _outer(y_sums.point, mean)
    square = y_sums.mean_square(total)
    return Moments(total, sum(counts), moment, mean, cross, original_mean, square)


class _Sums:
    """Sums over patches, taken about a point near their mean: about zero, float32 is too coarse."""

    def __init__(self, view: _Windows) -> None:
        first = view.patches(torch.arange(min(view.positions, _BATCH)))
        self._point = first.mean(1, keepdim=True)
        self.point: np.ndarray = self._point[:, 0].double().numpy()
        self._first = torch.zeros(self.point.shape, dtype=torch.float64)
        self._squares = torch.zeros(len(self.point), dtype=torch.float64)

    def add(self, x: torch.Tensor) -> torch.Tensor:
        """Add patches, shape (groups, patches, K); return them about the point."""
        x = x - self._point
        self._first += x.double().sum(1)
        self._squares += torch.stack([part.flatten().double().square().sum() for part in x])
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
class _Windows:
    """All patches of an input, as a view of it: shape (batch, *positions, groups, C, *taps)."""

    view: torch.Tensor
    axes: int
    groups: int

    @property
    def positions(self) -> int:
        """Number of patches."""
        return math.prod(self.view.shape[: self.axes + 1])

    def patches(self, picked: torch.Tensor) -> torch.Tensor:
        """Return patches by their number: float32, shape (groups, patches, K)."""
        index = torch.unravel_index(picked, self.view.shape[: self.axes + 1])
        values = self.view[index].reshape(len(picked), self.groups, -1)
        return values.float().transpose(0, 1)


def _windows(layer: Layer, value: torch.Tensor) -> _Windows:
    axes = len(layer.kernel)
    if axes == 0:
        flat = value.reshape(-1, value.shape[-1])
        return _Windows(flat[:, None, :], 0, 1)
    if value.ndim == axes + 1:  # without an axis for the batch
        value = value[None]
    if layer.transposed:
        value = _stretched(value, layer.stride)
    stride = (1,) * axes if layer.transposed else layer.stride
    around = [size for pair in reversed(layer.padding) for size in pair]
    value = torch.nn.functional.pad(value, around).contiguous()
    batch, channels, *sizes = value.shape
    steps = value.stride()
    taps, dilation = layer.kernel, layer.dilation
    out = [
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(sizes, dilation, taps, stride, strict=True)
    ]
    view = value.as_strided(
        (batch, *out, layer.groups, channels // layer.groups, *taps),
        (
            steps[0],
            *(step * s for step, s in zip(steps[2:], stride, strict=True)),
            steps[1] * (channels // layer.groups),
            steps[1],
            *(step * d for step, d in zip(steps[2:], dilation, strict=True)),
        ),
    )
    return _Windows(view, axes, layer.groups)


def _stretched(value: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    """Put zeros between the samples, as a transposed convolution of that stride does."""
    sizes = [(n - 1) * s + 1 for n, s in zip(value.shape[2:], stride, strict=True)]
    result = value.new_zeros(*value.shape[:2], *sizes)
    samples: Any = (..., *(slice(None, None, s) for s in stride))
    result[samples] = value
    return result
