"""Schemes: how the weight of a layer is decomposed into the weights of two thin layers.

Each scheme reshapes the weight to a matrix with the inputs of the layer along its rows and the
outputs along its columns; a product of rank R is two layers with R channels between them. The
schemes differ in the placement of the kernel axes. For a convolution from C to N channels with a
kernel of d x d':

========= ===================== ====================== ======================================
scheme    matrix                first weight, U        second weight, V
========= ===================== ====================== ======================================
separable (C*d, N*d')           (R, C, d, 1)           (N, R, 1, d')
channel   (C*d*d', N)           (R, C, d, d')          (N, R, 1, 1)
linear    (C, N)                (R, C)                 (N, R)
========= ===================== ====================== ======================================

Separable is the scheme of C. Tai, T. Xiao, Y. Zhang, X. Wang, W. E, "Convolutional neural networks
with low-rank regularization", ICLR 2016, for two-dimensional kernels: each factor has stride,
padding and dilation of its own axis. Channel is for kernels of one, two or three axes: U has
stride, padding and dilation of the layer, V only mixes channels. Linear is for linear layers. V
has the bias.

The weight of a transposed convolution is (C, N, d, d'). Separable replaces it by two transposed
convolutions, U of shape (C, R, d, 1) and V of shape (R, N, 1, d'), each with the output padding of
its axis. Channel replaces it by a transposed convolution, U of shape (C, R, d, d'), followed by an
ordinary one, V of shape (N, R, 1, 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnrcodec.model.model import Factors, SchemeName

Optimise = Literal["bytes", "runtime", "both"]
"""What low rank reduces: number of elements, of multiply-adds, or the larger of both."""

_DIMENSIONS: Mapping[SchemeName, tuple[tuple[int, ...], str]] = {
    "separable": ((4,), "that of a 2-D convolution has 4"),
    "channel": ((3, 4, 5), "that of a convolution has 3 to 5"),
    "linear": ((2,), "that of a linear layer has 2"),
}

SCHEMES: tuple[SchemeName, ...] = tuple(_DIMENSIONS)
"""Names of the schemes, in the order in which they are tried."""


def misfit(name: SchemeName, kernel_shape: tuple[int, ...]) -> str | None:
    """Return why a weight of this shape does not fit a scheme; None if it fits."""
    dimensions, expected = _DIMENSIONS[name]
    if len(kernel_shape) not in dimensions:
        return f"its weight has {len(kernel_shape)} dimensions, {expected}"
    if name == "separable" and 1 in kernel_shape[2:]:
        return f"its kernel of {kernel_shape[2]}x{kernel_shape[3]} has nothing to separate"
    return None


@dataclass(frozen=True, slots=True)
class Scheme:
    """A scheme for a weight of a given shape.

    Parameters
    ----------
    name : "separable", "channel" or "linear"
        Name of the scheme.
    kernel_shape : tuple of int
        Shape of the weight.
    transposed : bool
        Whether it is the weight of a transposed convolution, whose first axis is its inputs.

    Examples
    --------
    >>> scheme = Scheme("separable", (64, 32, 3, 3))
    >>> scheme.maximum_rank, scheme.elements(8), scheme.factor_shapes(8)
    (96, 2304, ((8, 32, 3, 1), (64, 8, 1, 3)))
    """

    name: SchemeName
    kernel_shape: tuple[int, ...]
    transposed: bool = False

    @classmethod
    def of(cls, factors: Factors) -> Scheme:
        """Return the scheme of the factors."""
        return cls(factors.scheme, factors.kernel_shape, factors.transposed)

    @property
    def inputs(self) -> int:
        """Input channels of the layer."""
        return self.kernel_shape[0 if self.transposed else 1]

    @property
    def outputs(self) -> int:
        """Output channels of the layer."""
        return self.kernel_shape[1 if self.transposed else 0]

    @property
    def rows(self) -> int:
        """Rows of the matrix."""
        return math.prod(self.kernel_shape[axis] for axis in self._axes[0])

    @property
    def columns(self) -> int:
        """Columns of the matrix."""
        return math.prod(self.kernel_shape[axis] for axis in self._axes[1])

    @property
    def maximum_rank(self) -> int:
        """The full rank, at which every weight of this shape is represented exactly."""
        return min(self.rows, self.columns)

    def factor_shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of U and V with `rank` channels between them."""
        first, second = self._kernel_sizes
        u = (self.inputs, rank) if self.transposed else (rank, self.inputs)
        v = (rank, self.outputs) if self._v_is_transposed else (self.outputs, rank)
        return (*u, *first), (*v, *second)

    def elements(self, rank: int) -> int:
        """Return the number of elements of both factors together."""
        return rank * (self.rows + self.columns)

    def multiply_adds(self, rank: int, stride: tuple[int, ...] = ()) -> int:
        """Return the multiply-adds of both layers per position, where the whole layer has its size.

        Positions are those of the output of a convolution, and of the input of a transposed one.
        The output of the vertical convolution of a separable pair has the columns of its input,
        stride[1] times those of the pair. The input of the horizontal one of a transposed pair has
        stride[0] times the rows of the input of the pair, and the 1 x 1 convolution after a
        transposed one runs at all output positions.

        Parameters
        ----------
        rank : int
            Channels between the two.
        stride : tuple of int
            Stride of the layer along each axis of its kernel, by default 1.
        """
        stride = stride or (1,) * (len(self.kernel_shape) - 2)
        u, v = rank * self.rows, rank * self.columns
        if self.name == "separable":
            return u + v * stride[0] if self.transposed else u * stride[1] + v
        return u + v * math.prod(stride) if self.transposed else u + v

    def cost(self, rank: int, optimise: Optimise, stride: tuple[int, ...] = ()) -> int:
        """Return elements, multiply-adds or the larger of both; for the whole layer, all its size.

        Parameters
        ----------
        rank : int
            Channels between the two.
        optimise : "bytes", "runtime" or "both"
            What is counted.
        stride : tuple of int
            As for `multiply_adds`.
        """
        if optimise == "bytes":
            return self.elements(rank)
        multiply_adds = self.multiply_adds(rank, stride)
        return multiply_adds if optimise == "runtime" else max(self.elements(rank), multiply_adds)

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """Return a weight as the matrix that is decomposed."""
        left, right = self._axes
        return kernel.transpose(left + right).reshape(self.rows, self.columns)

    def kernel(self, matrix: np.ndarray) -> np.ndarray:
        """Return a matrix as the weight: the inverse of `matrix`."""
        axes = self._axes[0] + self._axes[1]
        shape = [self.kernel_shape[axis] for axis in axes]
        return np.ascontiguousarray(matrix.reshape(shape).transpose(np.argsort(axes)))

    def factors(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return U and V for a product of two matrices.

        Parameters
        ----------
        left : ndarray, shape (rows, R)
        right : ndarray, shape (R, columns)

        Returns
        -------
        u, v : ndarray
            In the shapes that `factor_shapes` returns.
        """
        rank = len(right)
        first, second = self._kernel_sizes
        u = left.T.reshape(rank, self.inputs, *first)
        v = right.reshape(rank, self.outputs, *second)
        u = u.swapaxes(0, 1) if self.transposed else u
        v = v if self._v_is_transposed else v.swapaxes(0, 1)
        return np.ascontiguousarray(u), np.ascontiguousarray(v)

    def matrices(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return U and V as two matrices: the inverse of `factors`."""
        u = u.swapaxes(0, 1) if self.transposed else u
        v = v if self._v_is_transposed else v.swapaxes(0, 1)
        return u.reshape(len(u), self.rows).T, v.reshape(len(v), self.columns)

    def merge(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return the weight of the single layer that equals the two layers.

        The product is computed in float64 and rounded once: to float64 if a factor is float64, else
        to float32.
        """
        left, right = self.matrices(u.astype(np.float64), v.astype(np.float64))
        return self.kernel((left @ right).astype(np.result_type(u, v, np.float32)))

    @property
    def _axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Axes of the weight along the rows of the matrix, and along its columns."""
        inputs, outputs = (0, 1) if self.transposed else (1, 0)
        if self.name == "separable":
            return (inputs, 2), (outputs, 3)
        return (inputs, *range(2, len(self.kernel_shape))), (outputs,)

    @property
    def _kernel_sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sizes of the kernels of U and V."""
        sizes = self.kernel_shape[2:]
        if self.name == "separable":
            return (sizes[0], 1), (1, sizes[1])
        return sizes, (1,) * len(sizes)

    @property
    def _v_is_transposed(self) -> bool:
        return self.transposed and self.name == "separable"
