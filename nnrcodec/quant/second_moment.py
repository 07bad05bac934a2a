"""What a second moment says of errors: how later columns can make up for earlier ones.

The output error of a row e of errors is e S e^T, S being the second moment of what the row is
multiplied by. With S = U D U^T, U upper triangular with ones on its diagonal and D diagonal, it is
the sum over columns j of

    D_j (e_j + sum_{i<j} U_ij e_i)^2,

so that column j should err by the negative of what the columns before make of it, and only what
differs from that counts. Rounding so is the method of GPTQ (Frantar et al., 2023), and of Babai's
nearest plane.
"""

from __future__ import annotations

import numpy as np


def feedback_of(second_moment: np.ndarray, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how errors are fed back.

    Parameters
    ----------
    second_moment : ndarray, shape (K, K)
        Symmetric, no negative eigenvalues.
    damping : float
        Added to its diagonal, as part of the mean of that: inputs that were never seen, or only
        together with others, count a little, too.

    Returns
    -------
    factor : ndarray of float64, shape (K, K)
        U.
    scale : ndarray of float64, shape (K,)
        The diagonal of D; ones if the second moment is zero.
    """
    damped = (second_moment + second_moment.T) / 2
    mean = float(np.trace(damped)) / len(damped)
    if not mean > 0:
        return np.eye(len(damped)), np.ones(len(damped))
    damped[np.diag_indices_from(damped)] += damping * mean
    triangle = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    diagonal = np.diag(triangle)
    return np.ascontiguousarray(triangle / diagonal), diagonal**2


def output_error(difference: np.ndarray, second_moment: np.ndarray) -> np.ndarray:
    """Return the squared output error of each row.

    Parameters
    ----------
    difference : ndarray, shape (groups, N, K)
    second_moment : ndarray, shape (groups, K, K)

    Returns
    -------
    ndarray of float64, shape (groups, N)
    """
    return np.asarray(np.einsum("gnk,gnk->gn", difference @ second_moment, difference))
