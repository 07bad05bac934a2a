"""Error feedback from a second moment: how later columns compensate the errors of earlier ones.

The output error of a row e of weight errors is e S e^T, where S is the second moment of the input.
With S = U D U^T, U upper triangular with ones on its diagonal and D diagonal, it is the sum over
columns j of

    D_j (e_j + sum_{i<j} U_ij e_i)^2,

so that the best error of column j is the negative of that sum, and only the difference from it
counts. This is the error feedback of GPTQ (E. Frantar et al., ICLR 2023), the same as Babai's
nearest plane algorithm (J. Chen et al., "The geometry of LLM quantization", 2025).
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
        Part of the mean of the diagonal that is added to it: so the weights of inputs that were
        always zero or never independent also keep a small influence.

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
