"""A network in its original architecture, brought onto the low-rank factors of another version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nnrcodec.messages import logger_of
from nnrcodec.model.dtypes import cast, is_float
from nnrcodec.model.model import Model, Tensor
from nnrcodec.reduce.schemes import Scheme

logger = logger_of(__name__)

_SWEEPS = 3


def on_factors(model: Model, base: Model) -> Model:
    """Return a model that has the factors of a base model in place of weights that it has whole.

    Parameters
    ----------
    model : Model
        A later version of the network, with the names of the base model.
    base : Model
        With factors.

    Returns
    -------
    Model
        `model`, if it has no weight whole that is decomposed in the base model. Else without its
        graph; how much of the weights the factors cannot hold is logged as a warning.
    """
    whole = {
        f"{factors.layer}.weight": factors
        for factors in base.factors
        if not {factors.u, factors.v} & model.tensors.keys()
    }
    whole = {
        name: factors
        for name, factors in whole.items()
        if name in model.tensors
        and model.tensors[name].shape == factors.kernel_shape
        and is_float(model.tensors[name].dtype)
    }
    if not whole:
        return model
    left: dict[str, float] = {}
    biases = {f"{factors.layer}.bias": factors.v_bias for factors in whole.values()}

    def tensors() -> Iterator[Tensor]:
        for tensor in model.tensors.values():
            factors = whole.get(tensor.name)
            if factors is None:
                yield replace(tensor, name=biases.get(tensor.name, tensor.name))
                continue
            scheme, weight = Scheme.of(factors), tensor.read().astype(np.float64)
            before = base.tensors[factors.u], base.tensors[factors.v]
            factored = project(scheme, weight, *(t.read() for t in before))
            rest = weight - scheme.merge(*factored)
            left[factors.layer] = float(np.sum(rest**2) / max(np.sum(weight**2), 1e-300))
            for old, value in zip(before, factored, strict=True):
                yield Tensor.of(old.name, cast(value, old.dtype), old.dtype, old.role)

    ties = {name: first for name, first in model.ties.items() if not {name, first} & whole.keys()}
    projected = Model.of(tensors(), ties=ties, source=model.source)
    worst = max(left, key=left.__getitem__)
    logger.warning(
        "%d layers are low rank in the base model and whole here: their weights are projected onto "
        "factors of the same rank, which leave out %.3g %% of their energy at most (%r). To lose "
        "nothing, train the network that the receiver has (UpdateEncoder.start(), or what "
        "nnr-decode writes), or encode a new base model",
        len(whole),
        100 * left[worst],
        worst,
    )
    return projected


def project(
    scheme: Scheme, weight: np.ndarray, u: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return factors whose product is near a weight, and which are near given ones.

    Alternating least squares from the given ones: the first step of each leaves the other as it is.

    Parameters
    ----------
    scheme : Scheme
        Of the factors.
    weight : ndarray of float64, shape ``scheme.kernel_shape``
    u, v : ndarray
        Where to begin, in the shapes of the scheme.

    Returns
    -------
    u, v : ndarray of float64
    """
    matrix = scheme.matrix(weight)
    left, right = scheme.matrices(u.astype(np.float64), v.astype(np.float64))
    for _ in range(_SWEEPS):
        right = np.linalg.lstsq(left, matrix, rcond=None)[0]
        left = np.linalg.lstsq(right.T, matrix.T, rcond=None)[0].T
    return scheme.factors(left, right)
