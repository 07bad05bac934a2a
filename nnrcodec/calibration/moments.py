"""Second moments of the input of a layer.

A layer multiplies its weight, as a matrix, by patches of its input. The squared error of its output
is therefore a quadratic form of the error of the weight, and the matrix of that form is the second
moment of the patches: up to a factor, the Hessian of the layer-wise error in E. Frantar, S. P.
Singh, D. Alistarh, "Optimal brain compression", NeurIPS 2022. Two inputs of the same layer are
compared: that in the original network, and that in the changed network, where earlier layers have
other weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from nnrcodec.graph.layers import Layer
from nnrcodec.messages import logger_of
from nnrcodec.parallel import in_order, torch_threads

logger = logger_of(__name__)

RIDGE = 1e-3
"""Smallest ridge of `Moments.fitted`, relative to the mean of the second moments: it keeps a weight
near the original in directions in which the calibration inputs hardly vary."""

_BATCH = 8192
"""Patches whose products are summed in float32 before the sum is added in float64."""

_OPERATIONS = 3e10
"""Most multiply-adds for the moments of one layer; above that, a random part of the patches is
measured."""

_FEWEST_PER_COLUMN = 4

ROUNDING = 1e-12
"""A variance below this part of the mean square is the rounding error of a constant in float32."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of the input patches of a layer, for each group of channels; a patch has K elements.

    Parameters
    ----------
    count : int
        Number of patches that were measured.
    positions : int
        Number of all patches: how often the layer multiplies by its weight.
    second_moment : ndarray of float64, shape (groups, K, K)
        Mean of x x^T, where x is a patch in the changed network.
    mean : ndarray of float64, shape (groups, K)
        Mean of x.
    cross : ndarray of float64, shape (groups, K, K)
        Mean of x_original x^T.
    original_mean : ndarray of float64, shape (groups, K)
        Mean of x_original, a patch in the original network.
    original_square : ndarray of float64, shape (groups,)
        Mean square of it, summed over the columns.
    """

    count: int
    positions: int
    second_moment: np.ndarray
    mean: np.ndarray
    cross: np.ndarray
    original_mean: np.ndarray
    original_square: np.ndarray

    def centered(self) -> Moments:
        """Return the central moments: they are enough where the bias corrects the mean."""
        mean, original = self.mean, self.original_mean
        covariance = self.second_moment - _outer(mean, mean)
        variance, square = (
            np.trace(matrix, axis1=1, axis2=2) for matrix in (covariance, self.second_moment)
        )
        varies = _vary(variance, square)
        covariance[~varies] = 0
        cross, square = covariance, self.original_square - np.sum(original**2, axis=1)
        if self.cross is not self.second_moment:
            cross = self.cross - _outer(original, mean)
            cross[~(varies & _vary(square, self.original_square))] = 0
        zeros = np.zeros_like(mean)
        return Moments(self.count, self.positions, covariance, zeros, cross, zeros, square)

    def with_prior(self, prior: np.ndarray, share: float) -> Moments:
        """Return the moments of these inputs and of some others, for which the layer is as it was.

        Parameters
        ----------
        prior : ndarray, shape (K, K)
            Second moment of the others; its scale does not matter.
        share : float
            How much they count, as part of the mean of the second moments of each group.
        """
        k = prior.shape[0]
        means = np.trace(self.second_moment, axis1=1, axis2=2) / k
        others = share * means[:, None, None] * (prior * (k / np.trace(prior)))
        second = self.second_moment + others
        cross = second if self.cross is self.second_moment else self.cross + others
        return replace(self, second_moment=second, cross=cross)

    def fitted(self, matrices: np.ndarray, ridge: float | None = None) -> np.ndarray:
        """Return the weight with which the changed network comes nearest to the original output.

        This is a ridge regression of the original output of the layer on its changed input.

        Parameters
        ----------
        matrices : ndarray, shape (groups, rows, K)
            The original weight.
        ridge : float, optional
            Strength of the ridge, relative to the mean of the second moments: by default the
            number of columns for each patch, which is about the sampling error of these moments.

        Returns
        -------
        ndarray of float64, shape (groups, rows, K)
        """
        matrices = matrices.astype(np.float64)
        if self.cross is self.second_moment:
            return matrices
        k = matrices.shape[2]
        ridge = max(RIDGE, k / self.count) if ridge is None else ridge
        means = np.trace(self.second_moment, axis1=1, axis2=2) / k
        lift = np.where(means > 0, ridge * means, 1.0)[:, None, None] * np.eye(k)
        right = np.swapaxes(self.cross + lift, 1, 2) @ np.swapaxes(matrices, 1, 2)
        return np.swapaxes(np.linalg.solve(self.second_moment + lift, right), 1, 2)

    def gains(self, original: np.ndarray, changed: np.ndarray) -> np.ndarray:
        """Return the gain for each output with which it comes nearest to the original one.

        Parameters
        ----------
        original, changed : ndarray, shape (groups, rows, K)
            Weights as matrices.

        Returns
        -------
        ndarray of float64, shape (groups * rows,)
            By least squares about the means; 1 for an output that does not vary.
        """
        central = self.centered()
        cross = np.einsum("grk,gkl,grl->gr", original, central.cross, changed, optimize=True)
        power = np.einsum("grk,gkl,grl->gr", changed, central.second_moment, changed, optimize=True)
        varies = power > ROUNDING * np.maximum(np.abs(cross), np.finfo(np.float64).tiny)
        return np.divide(cross, power, out=np.ones_like(cross), where=varies).reshape(-1)

    def output_mean(self, changed: np.ndarray) -> np.ndarray:
        """Return the mean output of a weight in the changed network, float64 (N,)."""
        return np.einsum("grk,gk->gr", changed, self.mean).reshape(-1)

    def bias_change(self, original: np.ndarray, changed: np.ndarray) -> np.ndarray:
        """Return the change of the bias that keeps the mean output, float64 (N,).

        This is the bias correction of M. Nagel, M. van Baalen, T. Blankevoort, M. Welling,
        "Data-free quantization through weight equalization and bias correction", ICCV 2019, with
        means from calibration inputs.
        """
        change = np.einsum("grk,gk->gr", original, self.original_mean)
        change -= np.einsum("grk,gk->gr", changed, self.mean)
        return change.reshape(-1)


def _vary(variance: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Return which variances are larger than the rounding error of a constant."""
    return variance > np.maximum(ROUNDING * square, np.finfo(np.float32).tiny)


def measure(
    layer: Layer, original: list[torch.Tensor], changed: list[torch.Tensor], seed: int = 0
) -> Moments:
    """Measure the moments of the input of a layer.

    Parameters
    ----------
    layer : Layer
    original, changed : list of Tensor
        Its input in the original and in the changed network, one for each calibration input; the
        same list if no earlier change affects it.
    seed : int
        Of the choice of patches, if only a part of them is measured.

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
    every = min(int(1 / share), lines.length)  # distant patches are less correlated
    x_sums, y_sums = _Sums(_Lines.of(layer, changed[0])), _Sums(lines)
    second = torch.zeros(groups, k, k, dtype=torch.float64)
    both = torch.zeros(groups, k, k, dtype=torch.float64)
    if share < 1:
        logger.info(
            "the second moments of layer %s are measured at about %d of %d positions, picked at "
            "random: all of them would take too long",
            layer.name,
            round(share * total_positions),
            total_positions,
        )
    total = 0

    def parts() -> Iterator[tuple[_Lines, _Lines, torch.Tensor, int]]:
        for value, changed_value in zip(original, changed, strict=True):
            lines = _Lines.of(layer, value)  # a padded copy: of few inputs at a time
            changed_lines = lines if changed is original else _Lines.of(layer, changed_value)
            picked, phase = torch.arange(lines.count), 0
            if share < 1:
                wanted = math.ceil(min(share * every, 1) * lines.count)
                picked = torch.randperm(lines.count, generator=generator)[:wanted].sort().values
                phase = int(torch.randint(min(every, lines.length), (1,), generator=generator))
            for part in torch.split(picked, max(_BATCH * every // lines.length, 1)):
                yield lines, changed_lines, part, phase

    def products(of: tuple[_Lines, _Lines, torch.Tensor, int]) -> list[_Part]:
        lines, changed_lines, part, phase = of
        with torch.inference_mode():
            x = x_sums.relative(changed_lines.patches(part, every, phase))
            measured = [_Part.of(x, x)]
            if changed_lines is not lines:
                y = y_sums.relative(lines.patches(part, every, phase))
                measured.append(_Part.of(y, x))
            return measured

    for x_part, *y_parts in in_order(products, parts(), torch_threads(), ahead=1):
        total += x_part.number
        second += x_part.product.double()
        x_sums.add(x_part)
        for y_part in y_parts:
            both += y_part.product.double()
            y_sums.add(y_part)
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
    """Return the number of patches of an input: how often the layer multiplies for it."""
    return _Lines.of(layer, value.to("meta")).positions  # from the shape alone


class _Part(NamedTuple):
    """Sums over some patches: of products with others, of values and of squares; their number."""

    product: torch.Tensor
    first: torch.Tensor
    squares: torch.Tensor
    number: int

    @classmethod
    def of(cls, patches: torch.Tensor, others: torch.Tensor) -> _Part:
        """Sum over patches, both of shape (groups, K, patches)."""
        return cls(
            patches @ others.transpose(1, 2),
            patches.sum(2, dtype=torch.float64),
            torch.linalg.vector_norm(patches, dim=(1, 2), dtype=torch.float64).square(),
            patches.shape[2],
        )


class _Sums:
    """Sums over patches, relative to a point near their mean, which keeps float32 accurate."""

    def __init__(self, lines: _Lines) -> None:
        first_lines = max(_BATCH // lines.length, 1)
        first = lines.patches(torch.arange(min(lines.count, first_lines)))
        self._point = first.mean(2, keepdim=True)
        self.point: np.ndarray = self._point[:, :, 0].double().numpy()
        self._first = torch.zeros(self.point.shape, dtype=torch.float64)
        self._squares = torch.zeros(len(self.point), dtype=torch.float64)

    def relative(self, patches: torch.Tensor) -> torch.Tensor:
        """Move patches, shape (groups, K, patches), so that they are relative to the point."""
        return patches.sub_(self._point)

    def add(self, part: _Part) -> None:
        """Add the sums of some patches, which are relative to the point."""
        self._first += part.first
        self._squares += part.squares

    def means(self, total: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean relative to the point, and the mean itself."""
        first = (self._first / total).numpy()
        return first, first + self.point

    def mean_square(self, total: int) -> np.ndarray:
        """Return the mean square, summed over the columns."""
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
        The first row that each line of the output is computed from.
    further : tuple of int
        All rows that it is computed from, counted from the first.
    taps : int
        Size of the last axis of the kernel.
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
        """Return the lines of one input of a layer."""
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
            further = further.index_select(axis, dilation[axis] * torch.arange(taps[axis]))
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
            Distance of the samples that are taken from each line, and position of the first.
        """
        channels, begin = self.rows.shape[1], self.first[picked]
        length = len(range(phase, self.length, every))
        shape = channels, len(self.further), self.taps, len(picked), length
        patches = torch.empty(shape, dtype=torch.float32)
        step = self.stride * every
        reach = step * (length - 1) + 1
        for position, ahead in enumerate(self.further):
            rows = self.rows.index_select(0, begin + ahead).transpose(0, 1)
            for tap in range(self.taps):
                start = tap * self.dilation + self.stride * phase
                patches[:, position, tap] = rows[:, :, start : start + reach : step]
        return patches.reshape(self.groups, -1, len(picked) * length)


def _stretched(value: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    """Put zeros between the samples, as a transposed convolution of this stride does."""
    sizes = [(n - 1) * s + 1 for n, s in zip(value.shape[2:], stride, strict=True)]
    result = value.new_zeros(*value.shape[:2], *sizes)
    samples: Any = (..., *(slice(None, None, s) for s in stride))
    result[samples] = value
    return result
