"""The layers of a network of MatConvNet, as far as they are understood."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from nnrcodec.formats.mat.values import Struct, numbers_of

Residual = Literal["none", "subtract", "add"]
"""What is done with the output of a network: nothing, or it is taken from or added to the input."""

KINDS: Mapping[str, str] = {
    "conv": "conv",
    "convt": "convt",
    "convtranspose": "convt",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "bnorm": "bnorm",
    "batchnorm": "bnorm",
    "pool": "pool",
    "pooling": "pool",
    "softmax": "softmax",
    "dropout": "dropout",
    "sum": "sum",
    "concat": "concat",
    "crop": "crop",
    "lrn": "lrn",
    "normalize": "lrn",
}
"""Types of layers, in lower case and without ``dagnn.``, and what they are here."""


class UnknownLayerError(ValueError):
    """A network cannot be run; the message says why."""


@dataclass(slots=True)
class Layer:
    """A layer.

    Parameters
    ----------
    name : str
        What its tensors are called; safe in a graph.
    kind : str
        One of the values of `KINDS`, or the type in the file if that is not known.
    inputs, outputs : list of str
        Names of variables.
    settings : Struct
        What the file says of it.
    tensors : dict of str to ndarray
        By the names that PyTorch has for them.
    channels : int or None
        Of its input.
    epsilon : float
        What a batch norm adds to the variance.
    """

    name: str
    kind: str
    inputs: list[str]
    outputs: list[str]
    settings: Struct
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    channels: int | None = None
    epsilon: float = 0.0

    def numbers(self, *names: str, default: float) -> tuple[float, ...]:
        """Return a setting, under the first of its names that is there."""
        for name in names:
            value = numbers_of(self.settings.get(name))
            if value and not all(map(math.isfinite, value)):
                raise UnknownLayerError(f"layer {self.name!r} has {name} of {value}")
            if value:
                return value
        return (default,)

    def pair(self, *names: str, default: float = 1) -> tuple[int, int]:
        """Return a setting for height and width."""
        numbers = self.numbers(*names, default=default)
        lowest = min(1, default)
        if len(numbers) > 2 or any(n != int(n) or n < lowest for n in numbers):
            raise UnknownLayerError(f"layer {self.name!r} has {names[0]} of {numbers}")
        return int(numbers[0]), int(numbers[-1])

    def four(self, *names: str) -> tuple[int, int, int, int]:
        """Return a setting for top, bottom, left and right."""
        numbers = self.numbers(*names, default=0)
        if len(numbers) not in (1, 4) or any(n != int(n) or n < 0 for n in numbers):
            raise UnknownLayerError(f"layer {self.name!r} has {names[0]} of {numbers}")
        top, bottom, left, right = (int(n) for n in (numbers * 4)[:4])
        return top, bottom, left, right


@dataclass(slots=True)
class Network:
    """A network.

    Parameters
    ----------
    layers : list of Layer
        In the order in which they run.
    inputs : dict of str to int
        Variables that are given, and their channels.
    outputs : list of str
    size : tuple of int or None
        Height and width of the input, if the file says them.
    places : dict of int to list
        For arrays that became tensors, by their identity: nodes of the wrapper.
    shared : dict of int to dict
        The tensors that each array became, since several layers may have it.
    notes : list of str
        What a user should know.
    problem : str
        Why it cannot be run; empty if it can.
    """

    layers: list[Layer] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    places: dict[int, list[Any]] = field(default_factory=dict)
    shared: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problem: str = ""


def axis_of(layer: Layer) -> int:
    """Return the axis along which a layer joins its inputs."""
    dim = layer.numbers("dim", default=3)[0]
    if dim not in (1, 2, 3, 4):
        raise UnknownLayerError(f"layer {layer.name!r} joins inputs along dimension {dim}")
    return {1: 2, 2: 3, 3: 1, 4: 0}[int(dim)]
