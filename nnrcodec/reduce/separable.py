"""Convolution kernels as products of a vertical and a horizontal one.

The scheme of C. Tai, T. Xiao, Y. Zhang, X. Wang, W. E, "Convolutional neural networks with
low-rank regularization", ICLR 2016: a kernel of shape (N, C, d, d') is rearranged into a matrix of
C*d rows and N*d' columns, whose truncated singular value decomposition is the best approximation
by R filters of shape d x 1 followed by filters of shape 1 x d'. Each singular value is split
evenly, its square root going to either side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Separation:
    """The full decomposition of one kernel; any rank can be cut from it.

    Parameters
    ----------
    kernel_shape : tuple of int
        Shape (N, C, d, d') of the kernel.
    left : ndarray of float64, shape (C*d, K)
        Orthonormal columns; the entry of largest magnitude in each is positive, which makes the
        decomposition unique for distinct singular values.
    singular_values : ndarray of float64, shape (K,)
        Descending; ``K = min(C*d, N*d')``.
    right : ndarray of float64, shape (K, N*d')
        Orthonormal rows.
    """

    kernel_shape: tuple[int, int, int, int]
    left: np.ndarray
    singular_values: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, kernel: np.ndarray) -> Separation:
        """Decompose a kernel of shape (N, C, d, d') in float64."""
        n, c, height, width = kernel.shape
        matrix = kernel.astype(np.float64).transpose(1, 2, 0, 3).reshape(c * height, n * width)
        left, singular_values, right = np.linalg.svd(matrix, full_matrices=False)
        largest = np.abs(left).argmax(axis=0, keepdims=True)
        signs = np.where(np.take_along_axis(left, largest, axis=0) < 0, -1.0, 1.0)
        return cls((n, c, height, width), left * signs, singular_values, right * signs.T)

    def factors(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the best kernels with `rank` channels between them, in float64.

        Returns
        -------
        u : ndarray of float64, shape (rank, C, d, 1)
        v : ndarray of float64, shape (N, rank, 1, d')
        """
        n, c, height, width = self.kernel_shape
        roots = np.sqrt(self.singular_values[:rank])
        u = (self.left[:, :rank] * roots).T.reshape(rank, c, height, 1)
        v = (self.right[:rank] * roots[:, None]).reshape(rank, n, 1, width).transpose(1, 0, 2, 3)
        return np.ascontiguousarray(u), np.ascontiguousarray(v)

    def energy_kept(self, rank: int) -> float:
        """Return which part of the sum of squared singular values `rank` of them keep."""
        energies = self.singular_values**2
        total = energies.sum()
        return float(energies[:rank].sum() / total) if total > 0 else 1.0

    def rank_for_energy(self, energy: float) -> int:
        """Return the smallest rank that keeps at least the part `energy` of the whole."""
        kept = np.cumsum(self.singular_values**2)
        return min(int(np.searchsorted(kept, energy * kept[-1])) + 1, len(kept))


def maximum_rank(kernel_shape: tuple[int, int, int, int]) -> int:
    """Return the rank at which a kernel of this shape is represented in full."""
    n, c, height, width = kernel_shape
    return min(c * height, n * width)


def factor_elements(kernel_shape: tuple[int, int, int, int], rank: int) -> int:
    """Return how many elements the two factors of a kernel of this shape have together."""
    n, c, height, width = kernel_shape
    return rank * (c * height + n * width)


def decompose_kernel(kernel: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Approximate a kernel by a vertical and a horizontal one.

    Parameters
    ----------
    kernel : ndarray of float, shape (N, C, d, d')
        A kernel of a convolution from C to N channels.
    rank : int
        Channels between the two, ``1 <= rank <= min(C*d, N*d')``.

    Returns
    -------
    u : ndarray of float32, shape (rank, C, d, 1)
        Kernel of the first convolution; float64 if `kernel` is.
    v : ndarray of float32, shape (N, rank, 1, d')
        Kernel of the second convolution; float64 if `kernel` is.
    singular_values : ndarray of float64, shape (min(C*d, N*d'),)
        All of them, descending. The approximation is off by the root of the sum of the squares of
        those from index `rank` on (Frobenius norm).

    Examples
    --------
    >>> u, v, singular_values = decompose_kernel(np.ones((4, 2, 3, 3), np.float32), rank=1)
    >>> u.shape, v.shape, round(float(singular_values[0]), 6)
    ((1, 2, 3, 1), (4, 1, 1, 3), 8.485281)
    """
    separation = Separation.of(kernel)
    u, v = separation.factors(rank)
    dtype = np.result_type(kernel, np.float32)
    return u.astype(dtype), v.astype(dtype), separation.singular_values


def merge_kernel(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Multiply two factors out: the kernel that does the work of both.

    The sums are formed in float64 and rounded once.

    Parameters
    ----------
    u : ndarray of float, shape (R, C, d, 1)
    v : ndarray of float, shape (N, R, 1, d')

    Returns
    -------
    ndarray of float32, shape (N, C, d, d')
        float64 if a factor is.
    """
    rank, c, height, _ = u.shape
    n, _, _, width = v.shape
    left = u.astype(np.float64).reshape(rank, c * height).T
    right = v.astype(np.float64).transpose(1, 0, 2, 3).reshape(rank, n * width)
    kernel = (left @ right).reshape(c, height, n, width).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(kernel, np.result_type(u, v, np.float32))
