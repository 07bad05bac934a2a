"""Networks of MatConvNet in a file: which there are, and their layers with tensors as in PyTorch.

A SimpleNN is a struct with a cell of layers, each of which takes what the one before it gives. A
DagNN is a struct with arrays of structs: layers with the names of their inputs, outputs and
parameters, and the parameters. Source: A. Vedaldi, K. Lenc, "MatConvNet: Convolutional Neural
Networks for MATLAB", and its functions vl_simplenn_tidy and dagnn.DagNN.loadobj.

Filters are (height, width, inputs, outputs) there, and (outputs, inputs, height, width) here;
MATLAB drops dimensions of 1 at the end.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from nnrcodec.formats.mat.values import (
    Array,
    Cell,
    Struct,
    Text,
    Value,
    children,
    numbers_of,
    string_of,
)

Path = tuple[str, ...]

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

_DOUBLE = "weights of class double are coded as single, with which MatConvNet runs"
_LOSS = re.compile(r"loss|error|pdist|regression|objective")
_KEEP_CHANNELS = {"relu", "sigmoid", "tanh", "bnorm", "pool", "softmax", "dropout", "crop", "lrn"}
_SEVERAL = {"sum", "concat", "crop"}


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


def networks_in(root: Value) -> dict[Path, Struct]:
    """Return the networks in a file, by their paths; those within others are not looked for."""
    found: dict[Path, Struct] = {}

    def look(value: Value, path: Path) -> None:
        if isinstance(value, Struct) and value.dims == (1, 1) and _is_network(value):
            found[path] = value
            return
        for name, child in children(value):
            look(child, (*path, *name.split(".")))

    look(root, ())
    return found


def _is_network(value: Struct) -> bool:
    layers = value.get("layers")
    if isinstance(layers, Cell):
        return bool(layers.items) and all(
            isinstance(layer, Struct) and isinstance(layer.get("type"), Text)
            for layer in layers.items
        )
    return isinstance(layers, Struct) and {"type", "inputs", "outputs"} <= layers.fields.keys()


def network_of(value: Struct) -> Network:
    """Return a network, as far as it can be understood."""
    network = Network(size=_size(value))
    layers = value.get("layers")
    try:
        if isinstance(layers, Cell):
            _simple(layers, network)
        else:
            _dag(value, network)
        _leave_out_losses(network)
        unknown = [layer for layer in network.layers if layer.kind not in KINDS.values()]
        if unknown:
            first = unknown[0]
            more = f", and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise UnknownLayerError(
                f"layer {first.name!r} is of type {first.kind!r}, not known here{more}"
            )
        _order(network)
        _find_channels(network)
    except UnknownLayerError as error:
        network.problem = str(error)
    return network


def _size(value: Struct) -> tuple[int, int] | None:
    meta = value.get("meta")
    for holder in (meta, value):
        if not isinstance(holder, Struct):
            continue
        normalization = holder.get("normalization")
        sizes = [holder.get("inputSize")]
        if isinstance(normalization, Struct):
            sizes.append(normalization.get("imageSize"))
        for numbers in map(numbers_of, sizes):
            if numbers and len(numbers) >= 2 and all(1 <= n <= 1024 for n in numbers[:2]):
                return int(numbers[0]), int(numbers[1])
    return None


class _Names:
    """Names for layers that a module of PyTorch and a graph can have."""

    def __init__(self) -> None:
        from torch.nn import Module

        self._module = Module()
        self._taken = {"layers"}  # that of layers without names

    def safe(self, name: str, otherwise: str) -> str:
        base = re.sub(r"[^A-Za-z0-9_]", "_", name)[:100] or otherwise
        if keyword.iskeyword(base) or hasattr(self._module, base) or base.startswith("_"):
            base = f"layer_{base}"
        safe, number = base, 0
        while safe in self._taken:
            number += 1
            safe = f"{base}_{number}"
        self._taken.add(safe)
        return safe


def _kind(text: str) -> str:
    word = text.lower().removeprefix("dagnn.")
    return KINDS.get(word, text)


def _simple(layers: Cell, network: Network) -> None:
    names = _Names()
    problems = []
    for index, settings in enumerate(layers.items):
        if not isinstance(settings, Struct):  # `_is_network` has seen to it
            continue
        name = string_of(settings.get("name"))
        # a number would be the path of a layer only in a list of them
        layer = Layer(
            names.safe(name, f"layers.{index}") if name else f"layers.{index}",
            _kind(string_of(settings.get("type"))),
            [str(index)],
            [str(index + 1)],
            settings,
        )
        weights = settings.get("weights")
        if isinstance(weights, Cell):
            arrays = list(weights.items)
        else:
            old = ("filters", "biases") if "filters" in settings.fields else ("weights",)
            arrays = [v for f in old if (v := settings.get(f)) is not None]
        moments = settings.get("moments")
        if layer.kind == "bnorm" and len(arrays) == 2 and moments is not None:
            arrays.append(moments)
        problems.append(_take_tensors(layer, arrays, network))
        network.layers.append(layer)
    if network.layers:
        network.outputs = list(network.layers[-1].outputs)
    if any(problems):
        raise UnknownLayerError(next(filter(None, problems)))


def _dag(value: Struct, network: Network) -> None:
    layers, params = value.get("layers"), value.get("params")
    values: dict[str, Value] = {}
    if isinstance(params, Struct):
        for param in params.elements():
            content = param.get("value")
            if content is not None:
                values[string_of(param.get("name"))] = content
    names = _Names()
    problems = []
    for index, entry in enumerate(layers.elements() if isinstance(layers, Struct) else []):
        block = entry.get("block")
        name = string_of(entry.get("name"))
        layer = Layer(
            names.safe(name, f"layers.{index}") if name else f"layers.{index}",
            _kind(string_of(entry.get("type"))),
            _texts(entry.get("inputs")),
            _texts(entry.get("outputs")),
            block if isinstance(block, Struct) else Struct((1, 1), {}),
        )
        own = _texts(entry.get("params"))
        missing = [param for param in own if param not in values]
        if missing:
            problems.append(f"layer {layer.name!r} has no parameter {missing[0]!r}")
        problems.append(_take_tensors(layer, [values[p] for p in own if p in values], network))
        network.layers.append(layer)
    if any(problems):
        raise UnknownLayerError(next(filter(None, problems)))


def _texts(value: Value | None) -> list[str]:
    if isinstance(value, Cell):
        return [string_of(item) for item in value.items]
    return [value.text] if isinstance(value, Text) and value.text else []


def _take_tensors(layer: Layer, arrays: list[Value], network: Network) -> str:
    """Give a layer its tensors, and note their places; return why it cannot be, if so."""
    if layer.kind not in ("conv", "convt", "bnorm"):
        return ""
    numbers = [a for a in arrays if isinstance(a, Array) and a.dtype.startswith("float")]
    if not numbers or len(numbers) < len(arrays):
        return f"layer {layer.name!r} has no numbers for weights"
    if any(array.dtype == "float64" for array in numbers) and _DOUBLE not in network.notes:
        network.notes.append(_DOUBLE)
    if not numbers[0].size:
        return f"layer {layer.name!r} has no weights yet: it was not initialised"
    if layer.kind == "bnorm":
        return _take_norm(layer, numbers, network)
    bias = numbers[1] if len(numbers) > 1 else None
    weight = _kernel(numbers[0], bias, transposed=layer.kind == "convt")
    if weight is None:
        return f"layer {layer.name!r} has a filter of dimensions {numbers[0].dims}"
    _place(layer, numbers[0], ["filter"], {"weight": weight}, network)
    if bias is not None:
        _take_vector(layer, "bias", bias, network)
    return ""


def _place(
    layer: Layer,
    array: Array,
    node: list[Any],
    tensors: dict[str, np.ndarray],
    network: Network,
    *rest: Any,
) -> None:
    """Give a layer the tensors of an array, those of another layer if that has it too."""
    tensors = network.shared.setdefault(id(array), tensors)
    layer.tensors.update(tensors)
    names = [f"{layer.name}.{name}" for name in tensors]
    network.places.setdefault(id(array), [*node, *names, *rest])


def _take_vector(layer: Layer, name: str, array: Array, network: Network) -> None:
    is_row = array.dims[0] == 1 and array.size != 1
    if array.size:
        vector = _narrow(array).reshape(-1, order="F")
        _place(layer, array, ["vector"], {name: vector}, network, is_row)
    else:
        network.places[id(array)] = ["vector", f"{layer.name}.{name}", is_row]


def _take_norm(layer: Layer, arrays: list[Array], network: Network) -> str:
    if len(arrays) < 3 or arrays[2].dims != (arrays[0].size, 2):
        return f"layer {layer.name!r} is a batch norm without moments, which depends on the batch"
    scale, shift, moments = arrays[:3]
    if shift.size != scale.size:
        return f"layer {layer.name!r} has {scale.size} scales and {shift.size} shifts"
    for name, array in (("weight", scale), ("bias", shift)):
        _take_vector(layer, name, array, network)
    with np.errstate(all="ignore"):
        return _take_moments(layer, moments, network)


def _take_moments(layer: Layer, moments: Array, network: Network) -> str:
    mean, sigma = np.moveaxis(moments.read().astype(np.float64), 1, 0)
    epsilon = layer.numbers("epsilon", default=1e-5)[0]
    # the second moment is the square root of variance + epsilon
    if not 0 < epsilon < 0.5 * float(np.min(sigma**2, initial=1.0)):
        epsilon = 1e-12
    layer.epsilon = epsilon
    variance = np.maximum(sigma**2 - epsilon, 0)
    tensors = {"running_mean": mean, "running_var": variance}
    narrow = {name: values.astype(np.float32) for name, values in tensors.items()}
    _place(layer, moments, ["moments"], narrow, network, epsilon)
    return ""


def _narrow(array: Array) -> np.ndarray:
    """Return values as float32, which is what networks of MatConvNet run with."""
    with np.errstate(over="ignore"):
        return array.read().astype(np.float32)


def _kernel(array: Array, bias: Array | None, *, transposed: bool) -> np.ndarray | None:
    dims = array.dims
    if len(dims) > 4:
        return None
    if (
        len(dims) == 3
        and not transposed
        and bias is not None
        and bias.size == dims[2]
        and bias.size > 1
    ):
        dims = (*dims[:2], 1, dims[2])  # one input, whose dimension was dropped as well
    dims = (*dims, 1, 1)[:4]
    values = _narrow(array).reshape(dims, order="F").transpose(3, 2, 0, 1)
    if not transposed and bias is not None and bias.size not in (0, values.shape[0]):
        return None
    return np.ascontiguousarray(values)


def _leave_out_losses(network: Network) -> None:
    """Take layers off the end that only compare an output with what it should be."""
    kept, left_out = list(network.layers), []
    while True:
        used = {name for layer in kept for name in layer.inputs}
        at_end = [layer for layer in kept if not used & {*layer.outputs}]
        losses = [layer for layer in at_end if _is_loss(layer)]
        if not losses:
            break
        left_out += losses
        kept = [layer for layer in kept if not any(layer is loss for loss in losses)]
    if left_out:
        names = ", ".join(f"{layer.name!r} ({layer.kind})" for layer in left_out)
        network.notes.append(
            f"the graph has no layers that compare the output with a label: {names}; they stay in "
            "the file that is written back"
        )
    network.layers = kept
    used = {name for layer in kept for name in layer.inputs}
    network.outputs = [name for layer in kept for name in layer.outputs if name not in used]


def _is_loss(layer: Layer) -> bool:
    return not layer.tensors and _LOSS.search(layer.kind.lower()) is not None


def _order(network: Network) -> None:
    """Put layers in the order in which they can run, and find what has to be given."""
    made = [name for layer in network.layers for name in layer.outputs]
    if not network.layers or len(set(made)) != len(made):
        raise UnknownLayerError("it has no layers, or two of them give one variable")
    for layer in network.layers:
        several = layer.kind in _SEVERAL
        if len(layer.outputs) != 1 or not (layer.inputs and (several or len(layer.inputs) == 1)):
            raise UnknownLayerError(f"layer {layer.name!r} has {len(layer.inputs)} inputs")
    network.inputs = {
        name: 0 for layer in network.layers for name in layer.inputs if name not in set(made)
    }
    waiting: dict[int, set[str]] = {
        index: set(layer.inputs) - network.inputs.keys()
        for index, layer in enumerate(network.layers)
    }
    users: dict[str, list[int]] = {}
    for index, names in waiting.items():
        for name in names:
            users.setdefault(name, []).append(index)
    ready = [index for index, names in waiting.items() if not names]
    order = []
    while ready:
        index = ready.pop(0)
        order.append(index)
        for name in network.layers[index].outputs:
            for user in users.get(name, []):
                waiting[user].discard(name)
                if not waiting[user]:
                    ready.append(user)
    if len(order) != len(network.layers):
        raise UnknownLayerError("its layers need one another in a circle")
    network.layers = [network.layers[index] for index in order]


def _find_channels(network: Network) -> None:
    """Find the channels of every input, by the first filters that take it."""
    channels: dict[str, int] = {}
    for name in network.inputs:
        depth = _needed(name, network)
        if depth is None:
            raise UnknownLayerError(f"how many channels its input {name!r} has is not known")
        network.inputs[name] = channels[name] = depth
    for layer in network.layers:
        counts = [channels[name] for name in layer.inputs]
        layer.channels = counts[0]
        channels[layer.outputs[0]] = _channels_of(layer, counts)


def _needed(name: str, network: Network) -> int | None:
    names = {name}
    for layer in network.layers:
        if not names & {*layer.inputs}:
            continue
        if layer.kind == "conv":
            return int(layer.tensors["weight"].shape[1])
        if layer.kind == "convt":
            return int(layer.tensors["weight"].shape[0])
        if layer.kind == "bnorm":
            return int(layer.tensors["weight"].size)
        if layer.kind in _KEEP_CHANNELS or layer.kind == "sum":
            names.update(layer.outputs)
    return None


def _channels_of(layer: Layer, counts: list[int]) -> int:
    """Return the channels of what a layer gives."""
    weight = layer.tensors.get("weight")
    if layer.kind == "conv" and weight is not None:
        outputs, depth = weight.shape[:2]
        if counts[0] % depth or outputs % (counts[0] // depth or 1):
            raise UnknownLayerError(
                f"layer {layer.name!r} takes {depth} channels, and gets {counts[0]}"
            )
        return int(outputs)
    if layer.kind == "convt" and weight is not None:
        if weight.shape[0] != counts[0]:
            raise UnknownLayerError(
                f"layer {layer.name!r} takes {weight.shape[0]} channels, and gets {counts[0]}"
            )
        return int(weight.shape[1]) * layer.pair("numGroups")[0]
    if layer.kind == "bnorm" and weight is not None and weight.size != counts[0]:
        raise UnknownLayerError(
            f"layer {layer.name!r} takes {weight.size} channels, and gets {counts[0]}"
        )
    if layer.kind == "concat":
        return sum(counts) if axis_of(layer) == 1 else counts[0]
    return counts[0]


def axis_of(layer: Layer) -> int:
    """Return the axis along which a layer joins its inputs."""
    dim = layer.numbers("dim", default=3)[0]
    if dim not in (1, 2, 3, 4):
        raise UnknownLayerError(f"layer {layer.name!r} joins inputs along dimension {dim}")
    return {1: 2, 2: 3, 3: 1, 4: 0}[int(dim)]
