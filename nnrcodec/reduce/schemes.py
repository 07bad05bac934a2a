"""Schemes: how the weight of one layer becomes the product of the weights of two thin layers.

Each scheme reshapes the weight to a matrix, with the inputs of the layer along its rows and its
outputs along its columns. R channels between the two layers are a product of rank R. The schemes
differ in where the axes of the kernel go. For a convolution from C to N channels with a kernel of
d x d':

========= ===================== ====================== ======================================
scheme    matrix                first weight, U        second weight, V
========= ===================== ====================== ======================================
separable (C*d, N*d')           (R, C, d, 1)           (N, R, 1, d')
channel   (C*d*d', N)           (R, C, d, d')          (N, R, 1, 1)
linear    (C, N)                (R, C)                 (N, R)
========= ===================== ====================== ======================================

Separable is the scheme of C. Tai, T. Xiao, Y. Zhang, X. Wang, W. E, "Convolutional neural networks
with low-rank regularization", ICLR 2016, for two-dimensional kernels: stride, padding and dilation
part along the axes. Channel takes kernels of one, two or three axes: U has stride, padding and
dilation of the layer, V mixes channels. Linear is for linear layers. V has the bias.

The weight of a transposed convolution is (C, N, d, d'). Separable makes two transposed convolutions
of it, U of shape (C, R, d, 1) and V of shape (R, N, 1, d'), whose output padding parts along the
axes as well. Channel makes a transposed one, U of shape (C, R, d, d'), and an ordinary one after
it, V of shape (N, R, 1, 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnrcodec.model.model import Factors, SchemeName

Optimise = Literal["bytes", "runtime", "both"]
"""What is to be small: elements, multiply-adds, or the larger of both."""

_DIMENSIONS: Mapping[SchemeName, tuple[tuple[int, ...], str]] = {
    "separable": ((4,), "that of a 2-D convolution has 4"),
    "channel": ((3, 4, 5), "that of a convolution has 3 to 5"),
    "linear": ((2,), "that of a linear layer has 2"),
}

SCHEMES: tuple[SchemeName, ...] = tuple(_DIMENSIONS)
"""Their names, in the order in which they are tried."""


def misfit(name: SchemeName, kernel_shape: tuple[int, ...]) -> str | None:
    """Return why a weight of this shape is not for a scheme; None if it is."""
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
        Which it is.
    kernel_shape : tuple of int
        Shape of the weight, with as many dimensions as the scheme is for.
    transposed : bool
        Whether it is that of a transposed convolution, whose first axis is its inputs.

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
        """Return the scheme by which factors were made."""
        return cls(factors.scheme, factors.kernel_shape, factors.transposed)

    @property
    def inputs(self) -> int:
        """Channels that the layer takes."""
        return self.kernel_shape[0 if self.transposed else 1]

    @property
    def outputs(self) -> int:
        """Channels that the layer makes."""
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
        """The rank at which every weight of this shape is represented in full."""
        return min(self.rows, self.columns)

    def factor_shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of U and V with `rank` channels between them."""
        first, second = self._kernel_sizes
        u = (self.inputs, rank) if self.transposed else (rank, self.inputs)
        v = (rank, self.outputs) if self._v_is_transposed else (self.outputs, rank)
        return (*u, *first), (*v, *second)

    def elements(self, rank: int) -> int:
        """Return how many elements both factors have together."""
        return rank * (self.rows + self.columns)

    def multiply_adds(self, rank: int, stride: tuple[int, ...] = ()) -> int:
        """Return how much both layers compute, in the unit in which the one layer needs its size.

        That is multiply-adds for each output position of a convolution, and for each input position
        of a transposed one. The vertical convolution of a separable pair has the columns of its
        input, stride[1] times as many as the output. The horizontal one of a transposed pair
        takes stride[0] times the rows that the layer takes, and the 1 x 1 convolution after a
        transposed one has all output positions.

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
        """Return elements, multiply-adds or the larger of both; of the one layer, all are its size.

        Parameters
        ----------
        rank : int
            Channels between the two.
        optimise : "bytes", "runtime" or "both"
            Which it is.
        stride : tuple of int
            As for `multiply_adds`.
        """
        if optimise == "bytes":
            return self.elements(rank)
        multiply_adds = self.multiply_adds(rank, stride)
        return multiply_adds if optimise == "runtime" else max(self.elements(rank), multiply_adds)

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """Return a weight as the matrix whose rank counts."""
        left, right = self._axes
        return kernel.transpose(left + right).reshape(self.rows, self.columns)

    def kernel(self, matrix: np.ndarray) -> np.ndarray:
        """Return the weight that a matrix is: the inverse of `matrix`."""
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
            Of the shapes that `factor_shapes` says.
        """
        rank = len(right)
        first, second = self._kernel_sizes
        u = left.T.reshape(rank, self.inputs, *first)
        v = right.reshape(rank, self.outputs, *second)
        u = u.swapaxes(0, 1) if self.transposed else u
        v = v if self._v_is_transposed else v.swapaxes(0, 1)
        return np.ascontiguousarray(u), np.ascontiguousarray(v)

    def matrices(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the two matrices that U and V are: the inverse of `factors`."""
        u = u.swapaxes(0, 1) if self.transposed else u
        v = v if self._v_is_transposed else v.swapaxes(0, 1)
        return u.reshape(len(u), self.rows).T, v.reshape(len(v), self.columns)

    def merge(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Multiply U and V out: the weight that does the work of both.

        The sums are formed in float64 and rounded once, to float32, or float64 if a factor is.
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
