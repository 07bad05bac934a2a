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
import re
from typing import Any

import numpy as np

from nnrcodec.formats.mat.flow import find_channels, leave_out_losses, order
from nnrcodec.formats.mat.layers import KINDS, Layer, Network, UnknownLayerError
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

_DOUBLE = "weights of class double are coded as single, with which MatConvNet runs"


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
        leave_out_losses(network)
        unknown = [layer for layer in network.layers if layer.kind not in KINDS.values()]
        if unknown:
            first = unknown[0]
            more = f", and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise UnknownLayerError(
                f"layer {first.name!r} is of type {first.kind!r}, not known here{more}"
            )
        order(network)
        find_channels(network)
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
