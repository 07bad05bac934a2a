"""Singular value decomposition of a weight, reshaped to the matrix of a scheme.

The truncated singular value decomposition is the best approximation of a matrix by one of rank R.
Each singular value is split evenly, its square root going to either side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnrcodec.reduce.schemes import Scheme


@dataclass(frozen=True, slots=True)
class Decomposition:
    """The full decomposition of one weight; any rank can be cut from it.

    Parameters
    ----------
    scheme : Scheme
        How the weight becomes a matrix.
    left : ndarray of float64, shape (rows, K)
        Orthonormal columns; the entry of largest magnitude in each is positive, which makes the
        decomposition unique for distinct singular values.
    singular_values : ndarray of float64, shape (K,)
        Descending; ``K`` is the maximum rank of the scheme.
    right : ndarray of float64, shape (K, columns)
        Orthonormal rows.

    Examples
    --------
    >>> decomposition = Decomposition.of(Scheme("separable", (4, 2, 3, 3)), np.ones((4, 2, 3, 3)))
    >>> u, v = decomposition.factors(rank=1)
    >>> u.shape, v.shape, round(float(decomposition.singular_values[0]), 6)
    ((1, 2, 3, 1), (4, 1, 1, 3), 8.485281)
    """

    scheme: Scheme
    left: np.ndarray
    singular_values: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, scheme: Scheme, kernel: np.ndarray) -> Decomposition:
        """Decompose a weight in float64."""
        matrix = scheme.matrix(kernel.astype(np.float64))
        left, singular_values, right = np.linalg.svd(matrix, full_matrices=False)
        largest = np.abs(left).argmax(axis=0, keepdims=True)
        signs = np.where(np.take_along_axis(left, largest, axis=0) < 0, -1.0, 1.0)
        return cls(scheme, left * signs, singular_values, right * signs.T)

    def factors(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the best factors with `rank` channels between them, in float64.

        Returns
        -------
        u, v : ndarray of float64
            Of the shapes that the scheme says.
        """
        roots = np.sqrt(self.singular_values[:rank])
        return self.scheme.factors(self.left[:, :rank] * roots, self.right[:rank] * roots[:, None])

    def error(self, rank: int) -> float:
        """Return the error of the product of the best factors (Frobenius norm)."""
        return float(np.sqrt(np.sum(self.singular_values[rank:] ** 2)))

    def energy_kept(self, rank: int) -> float:
        """Return the part of the sum of squared singular values that `rank` of them keep."""
        energies = self.singular_values**2
        total = energies.sum()
        return float(energies[:rank].sum() / total) if total > 0 else 1.0

    def rank_for_energy(self, energy: float) -> int:
        """Return the smallest rank that keeps at least the part `energy` of the whole."""
        kept = np.cumsum(self.singular_values**2)
        return min(int(np.searchsorted(kept, energy * kept[-1])) + 1, len(kept))
