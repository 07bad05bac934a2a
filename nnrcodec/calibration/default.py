"""Default calibration inputs, for networks without any of their own."""

from __future__ import annotations

import numpy as np

from nnrcodec.calibration.amount import enough_of
from nnrcodec.calibration.sensitivity import sensitivities
from nnrcodec.calibration.synthetic import Inputs, synthetic_inputs
from nnrcodec.calibration.walk import walk
from nnrcodec.errors import ConfigError
from nnrcodec.model.model import Model

MOST_WEIGHTS = 50_000_000
"""Largest network, in weights, that is calibrated by default: for a larger one calibration takes so
long that it has to be asked for."""


def default_inputs(model: Model, count: int | None = None, seed: int = 0) -> Inputs:
    """Return inputs of `synthetic_inputs` if the network can be calibrated with them.

    Parameters
    ----------
    model : Model
        With a graph.
    count : int, optional
        How many; by default `enough`.
    seed : int

    Raises
    ------
    ConfigError
        If the network has more than `MOST_WEIGHTS` weights, an input cannot be made up, or the
        network does not run with it or returns NaN or infinity; the message says which.
    """
    weights = sum(tensor.size for tensor in model.tensors.values())
    if weights > MOST_WEIGHTS:
        raise ConfigError(f"{weights} weights would take long")
    inputs = enough_of(model, lambda number: synthetic_inputs(model, number, seed), count)
    diagonals = sensitivities(model, inputs[:1], diagonal=True)
    if not all(np.isfinite(diagonal).all() for diagonal in diagonals.values()):
        raise ConfigError("NaN or infinity comes out of the derivatives of the network")
    for visit in walk(model, inputs[:1]):
        visit.moments()
    return inputs
