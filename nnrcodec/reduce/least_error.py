"""Data-aware SVD: low-rank factors for the lowest output error.

A truncated singular value decomposition (SVD) has the lowest error of the *weight*. Here the error
of the output counts, as in X. Zhang, J. Zou, K. He, J. Sun, "Accelerating very deep convolutional
networks for classification and detection", TPAMI 2016. With S the second moment of the input and G
the sensitivity of the network's output to the output of the layer, the error of a weight Q in place
of W is, up to a constant,

    trace(G (Q - T) S (Q - T)^T).

The target T is W, or, if earlier layers have changed the input, the weight that fits best to the
changed input. `best_product` returns the best product of two matrices, by an SVD of T that is
whitened with the roots of G and S. For separable kernels (C. Tai et al., "Convolutional neural
networks with low-rank regularization", ICLR 2016) there is no closed form: `best_separable` starts
from an SVD and improves one factor after the other by least squares; no step increases the error.

All arithmetic is float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnrcodec.reduce.decomposition import Decomposition
from nnrcodec.reduce.schemes import Scheme

_RIDGE = 1e-3
"""Ridge that is added to second moments, relative to their mean: it keeps weights near the target
in directions in which the inputs hardly vary."""

_DAMPING = 1e-2
"""The same for the sensitivities."""

ROUNDS = 40
"""Rounds of alternating least squares; more rounds lower the error by less than 1 %."""

_STEPS = 20
"""Conjugate-gradient steps for the first factor in one round."""


@dataclass(frozen=True, slots=True)
class Objective:
    """The quadratic output error that low-rank factors minimize.

    Parameters
    ----------
    target : ndarray, shape (N, K)
        The best weight of full rank.
    second_moment : ndarray, shape (K, K)
        Second moment of the input patches; positive definite.
    sensitivity_root, inverse_sensitivity_root : ndarray, shape (N, N)
        Square root of the output sensitivity, and the inverse of that; symmetric.
    """

    target: np.ndarray
    second_moment: np.ndarray
    sensitivity_root: np.ndarray
    inverse_sensitivity_root: np.ndarray

    @classmethod
    def of(
        cls,
        target: np.ndarray,
        second: np.ndarray,
        sensitivity: np.ndarray | None = None,
    ) -> Objective:
        """Return the objective for measured moments.

        Parameters
        ----------
        target : ndarray, shape (N, K)
            The best weight of full rank, as a matrix.
        second : ndarray, shape (K, K)
            Mean of x x^T, where x is an input patch of the layer.
        sensitivity : ndarray, shape (N, N), optional
            Output sensitivity of the layer; by default all outputs count the same.
        """
        target = target.astype(np.float64)
        rows, columns = target.shape
        ridge = _RIDGE * np.trace(second) / columns or 1.0
        second = second + ridge * np.eye(columns)
        if sensitivity is None or not np.trace(sensitivity) > 0:
            return cls(target, second, np.eye(rows), np.eye(rows))
        values, vectors = np.linalg.eigh(sensitivity)
        lifted = np.maximum(values, 0) + _DAMPING * np.trace(sensitivity) / rows
        roots = np.sqrt(lifted)
        return cls(target, second, (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T)

    def error(self, weight: np.ndarray) -> float:
        """Return the squared output error of a weight, shape (N, K)."""
        difference = self.sensitivity_root @ (weight - self.target)
        return float(np.sum(difference * (difference @ self.second_moment)))

    def energy(self) -> float:
        """Return the error of a weight of zeros."""
        return self.error(np.zeros_like(self.target))


def best_product(objective: Objective, rank: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the best weight of a rank, as two matrices.

    Parameters
    ----------
    objective : Objective
    rank : int
        Inner dimension, ``1 <= rank <= min(N, K)``.

    Returns
    -------
    v : ndarray, shape (N, rank)
    u : ndarray, shape (rank, K)
        The weight is ``v @ u``; a row of one and its column of the other have the same norm.
    error : float
        `Objective.error` of it.
    """
    triangle = np.linalg.cholesky(objective.second_moment)
    left, values, right = np.linalg.svd(
        objective.sensitivity_root @ objective.target @ triangle, full_matrices=False
    )
    v = objective.inverse_sensitivity_root @ (left[:, :rank] * values[:rank])
    u = np.linalg.solve(triangle.T, right[:rank].T).T
    u, v = balanced(u, v)
    return v, u, float(np.sum(values[rank:] ** 2))


def best_separable(
    objective: Objective, kernel_shape: tuple[int, int, int, int], rank: int, rounds: int = ROUNDS
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Return kernels of d x 1 and 1 x d' that replace one of d x d'.

    Parameters
    ----------
    objective : Objective
        Columns go by channel, then row, then column of the kernel.
    kernel_shape : tuple of int
        (N, C, d, d').
    rank : int
        Channels between the two.
    rounds : int
        How often both factors are improved.

    Returns
    -------
    u : ndarray, shape (rank, C, d, 1)
    v : ndarray, shape (N, rank, 1, d')
    errors : tuple of float
        `Objective.error` of the decomposition of the target and after each round.
    """
    n, c, height, width = kernel_shape
    weighted = objective.sensitivity_root @ objective.target
    scheme = Scheme("separable", kernel_shape)
    start_u, start_v = Decomposition.of(scheme, weighted.reshape(kernel_shape)).factors(rank)
    u, v = start_u.reshape(rank, c * height), start_v[:, :, 0, :]
    second = objective.second_moment.reshape(c * height, width, c * height, width)
    wanted = (weighted @ objective.second_moment).reshape(n, c * height, width)

    def error() -> float:
        kernel = np.einsum("nrj,ra->naj", v, u, optimize=True).reshape(n, -1)
        return objective.error(objective.inverse_sensitivity_root @ kernel)

    errors = [error()]
    for _ in range(rounds):
        v = _best_second(u, second, wanted)
        u = _better_first(u, v, second, wanted)
        errors.append(error())
    v = np.einsum("nm,mrj->nrj", objective.inverse_sensitivity_root, v)
    first, last = balanced(u, v.transpose(0, 2, 1).reshape(n * width, rank))
    return (
        first.reshape(rank, c, height, 1),
        last.reshape(n, width, rank).transpose(0, 2, 1)[:, :, None, :],
        tuple(errors),
    )


def balanced(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale the rows of `u`, shape (rank, K), and the columns of `v`, (N, rank), to equal norms."""
    first, last = np.linalg.norm(u, axis=1), np.linalg.norm(v, axis=0)
    alive = (first > 0) & (last > 0)
    factor = np.sqrt(np.divide(last, first, out=np.ones_like(first), where=alive))
    factor[~alive] = 0
    inverse = np.divide(1, factor, out=np.zeros_like(factor), where=alive)
    return u * factor[:, None], v * inverse


def _best_second(u: np.ndarray, second: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the best second factor, shape (N, rank, d'), for a first one, shape (rank, C*d)."""
    rank, width = len(u), second.shape[1]
    half = np.tensordot(u, second, (1, 0))  # rank, d', C*d, d'
    normal = np.einsum("rjbk,sb->rjsk", half, u, optimize=True).reshape(rank * width, -1)
    normal = (normal + normal.T) / 2
    right = np.einsum("naj,ra->nrj", wanted, u, optimize=True).reshape(-1, rank * width)
    solution, *_ = np.linalg.lstsq(normal, right.T, rcond=1e-12)
    return solution.T.reshape(-1, rank, width)


def _better_first(
    u: np.ndarray, v: np.ndarray, second: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Return a better first factor: some steps of conjugate gradients from the last one."""
    width = v.shape[2]
    gram = np.einsum("nrj,nsk->jkrs", v, v, optimize=True)
    by_column = np.ascontiguousarray(second.transpose(1, 3, 0, 2))  # d', d', C*d, C*d

    def normal(x: np.ndarray) -> np.ndarray:
        total = np.zeros_like(x)
        for j in range(width):
            for k in range(width):
                total += gram[j, k] @ (x @ by_column[k, j])
        return total

    scale = np.einsum("jjrr,jjaa->ra", gram, by_column)
    scale[scale <= 0] = 1.0
    x = u.copy()
    residual = np.einsum("nrj,naj->ra", v, wanted, optimize=True) - normal(x)
    direction = residual / scale
    size = float(np.sum(residual * direction))
    for _ in range(_STEPS):
        if size <= 0:
            break
        image = normal(direction)
        curvature = float(np.sum(direction * image))
        if curvature <= 0:
            break
        step = size / curvature
        x += step * direction
        residual -= step * image
        scaled = residual / scale
        size, before = float(np.sum(residual * scaled)), size
        direction = scaled + size / before * direction
    return x
