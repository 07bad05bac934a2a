"""The calibration inputs that there are when nobody gives any."""

from __future__ import annotations

import numpy as np

from nnrcodec.calibration.amount import enough_of
from nnrcodec.calibration.sensitivity import sensitivities
from nnrcodec.calibration.synthetic import Inputs, synthetic_inputs
from nnrcodec.calibration.walk import walk
from nnrcodec.errors import ConfigError
from nnrcodec.model.model import Model

MOST_WEIGHTS = 50_000_000
"""Weights of a network beyond which inputs are not made up unless somebody asks for it: to look at
what such a network does takes longer than one who asked for nothing expects."""


def default_inputs(model: Model, count: int | None = None, seed: int = 0) -> Inputs:
    """Make inputs as `synthetic_inputs` does, if they are of use without being asked for.

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
        If the network is large, an input cannot be made up, or the network does not run with it or
        makes nothing finite of it; the message says which.
    """
    weights = sum(tensor.size for tensor in model.tensors.values())
    if weights > MOST_WEIGHTS:
        raise ConfigError(f"{weights} weights would take long")
    inputs = enough_of(model, lambda number: synthetic_inputs(model, number, seed), count)
    found = sensitivities(model, inputs[:1], diagonal=True)
    if not all(np.isfinite(diagonal).all() for diagonal in found.values()):
        raise ConfigError("NaN or infinity comes out of the derivatives of the network")
    for stop in walk(model, inputs[:1]):
        stop.moments()
    return inputs
