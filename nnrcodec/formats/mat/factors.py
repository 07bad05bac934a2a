"""What coding does to the layers of a network, in the structs of its file.

Two layers of low rank stand for one, a batch norm was multiplied into the layer before it, a layer
has a bias that had none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from nnrcodec.errors import ModelError
from nnrcodec.formats.mat.network import networks_in
from nnrcodec.formats.mat.values import Array, Cell, Struct, Text, Value, numbers_of, string_of
from nnrcodec.graph.names import original_name
from nnrcodec.model.model import Factors, Model, Tensor


class Places(Protocol):
    """Arrays that stand for tensors."""

    tensors: Mapping[str, Tensor]
    places: dict[int, tuple[Array, list[Any]]]

    def placed(self, node: list[Any]) -> Array:
        """Return the array for a node of the wrapper."""


def with_factors(root: Value, places: Places, model: Model) -> Value:
    """Return the variables of a file, whose networks have the layers that the tensors are for.

    Raises
    ------
    ModelError
        A layer has no place for its tensors.
    """
    factors = {original_name(part.layer, model.graph): part for part in model.factors}
    changer = _Changer(places, factors)
    for network in networks_in(root).values():
        changer.change(network)
    missing = factors.keys() - changer.done
    if missing:
        raise ModelError(
            f"{min(missing)!r} is two tensors of low rank, for which the file has no place: decode "
            "with --merge (merge=True)"
        )
    return root


class _Changer:
    def __init__(self, places: Places, factors: Mapping[str, Factors]) -> None:
        self._places, self._factors = places, factors
        self.done: set[str] = set()

    def change(self, network: Struct) -> None:
        """Change the layers of a network in place."""
        layers = network.get("layers")
        if isinstance(layers, Cell):
            items = [
                new
                for layer in layers.items
                for new in (self._simple(layer) if isinstance(layer, Struct) else [layer])
            ]
            is_row = layers.dims[0] == 1
            dims = (1, len(items)) if is_row else (len(items), 1)
            network.fields["layers"] = [Cell(dims, items)]
        elif isinstance(layers, Struct):
            self._dag(network, layers)

    def _layer_of(self, value: Value | None) -> str:
        """Return which layer a filter or scale is of; empty if it is none."""
        entry = self._places.places.get(id(value))
        if entry is None or entry[1][0] not in ("filter", "vector"):
            return ""
        return str(entry[1][1]).rpartition(".")[0]

    def _bias(self, layer: str, name: str = "bias") -> Array:
        return self._places.placed(["vector", f"{layer}.{name}", False])

    def _simple(self, layer: Struct) -> list[Value]:
        weights = layer.get("weights")
        is_cell = isinstance(weights, Cell)
        arrays = list(weights.items) if isinstance(weights, Cell) else [layer.get("filters")]
        name = self._layer_of(arrays[0]) if arrays else ""
        if not name:
            return [layer]

        def with_weights(settings: Struct, filter_: Array, bias: Array) -> Struct:
            if is_cell:
                return _with(settings, weights=Cell((1, 2), [filter_, bias]))
            return _with(settings, filters=filter_, biases=bias)

        factors = self._factors.get(name)
        if factors is not None:
            self.done.add(name)
            u, v, bias = self._halves(name)
            first, second = _split(layer, factors)
            return [with_weights(first, u, _none()), with_weights(second, v, bias)]
        if f"{name}.weight" not in self._places.tensors:
            return []  # a batch norm that is in the layer before it
        old = arrays[1] if is_cell and len(arrays) > 1 else layer.get("biases")
        has_bias = isinstance(old, Array) and old.size > 0
        if f"{name}.bias" in self._places.tensors and not has_bias:
            kernel = self._places.placed(["filter", f"{name}.weight"])
            return [with_weights(layer, kernel, self._bias(name))]
        return [layer]

    def _halves(self, name: str) -> tuple[Array, Array, Array]:
        kernels = [self._places.placed(["filter", f"{name}.{part}.weight"]) for part in "uv"]
        return kernels[0], kernels[1], self._bias(name, "v.bias")

    def _dag(self, network: Struct, layers: Struct) -> None:
        params = network.get("params")
        if not isinstance(params, Struct):
            return
        values = {string_of(p.get("name")): p for p in params.elements()}
        new_layers: list[Struct] = []
        new_values = dict(values)
        renamed: dict[str, str] = {}
        new_vars: list[str] = []
        for layer in layers.elements():
            own = _texts(layer.get("params"))
            first = values.get(own[0]) if own else None
            name = self._layer_of(first.get("value")) if first is not None else ""
            factors = self._factors.get(name)
            if not name or first is None:
                new_layers.append(layer)
            elif factors is not None:
                self.done.add(name)
                new_layers += self._two(layer, name, factors, own, first, new_values, new_vars)
            elif f"{name}.weight" not in self._places.tensors:
                outputs, inputs = _texts(layer.get("outputs")), _texts(layer.get("inputs"))
                renamed.update(zip(outputs, inputs, strict=False))
                for param in own:
                    new_values.pop(param, None)
            elif len(own) == 1 and f"{name}.bias" in self._places.tensors:
                bias = f"{own[0]}_bias"
                new_values[bias] = _with(first, name=_text(bias), value=self._bias(name))
                new_layers.append(_with_params(layer, [own[0], bias]))
            else:
                new_layers.append(layer)
        new_layers = [_with_inputs(layer, renamed) for layer in new_layers]
        network.fields["layers"] = [_joined(new_layers, layers)]
        network.fields["params"] = [_joined(list(new_values.values()), params)]
        variables = network.get("vars")
        if new_vars and isinstance(variables, Struct) and variables.elements():
            like = variables.elements()[0]
            more = [_with(like, name=_text(name)) for name in new_vars]
            network.fields["vars"] = [_joined([*variables.elements(), *more], variables)]

    def _two(
        self,
        layer: Struct,
        name: str,
        factors: Factors,
        own: list[str],
        first: Struct,
        values: dict[str, Struct],
        variables: list[str],
    ) -> list[Struct]:
        """Return two layers of low rank for one, and give them parameters and a variable."""
        block = layer.get("block")
        blocks = _split(block if isinstance(block, Struct) else Struct((1, 1), {}), factors)
        u, v, bias = self._halves(name)
        if isinstance(block, Struct) and "size" in block.fields:
            blocks = _with(blocks[0], size=_row(u.dims)), _with(blocks[1], size=_row(v.dims))
        label = string_of(layer.get("name"))
        between = f"{label}_low_rank"
        variables.append(between)
        for param in own:
            values.pop(param, None)
        for suffix, array in (("u", u), ("v", v), ("v_bias", bias)):
            if array.size:
                key = f"{own[0]}_{suffix}"
                values[key] = _with(first, name=_text(key), value=array)
        second_type = layer.get("type")
        if factors.transposed and factors.scheme == "channel":
            second_type = _text("dagnn.Conv")
        one = _with(layer, name=_text(f"{label}_u"), outputs=_cell([between]), block=blocks[0])
        two = _with(layer, name=_text(f"{label}_v"), inputs=_cell([between]), block=blocks[1])
        two = _with(two, type=second_type if second_type is not None else _text("dagnn.Conv"))
        params = [f"{own[0]}_v", *([f"{own[0]}_v_bias"] if bias.size else [])]
        return [_with_params(one, [f"{own[0]}_u"]), _with_params(two, params)]


def _split(layer: Struct, factors: Factors) -> tuple[Struct, Struct]:
    """Return the settings of the two layers, as `nnrcodec.reduce.schemes` has them."""
    padding = [name for name in layer.fields if name in ("pad", "crop")]
    steps = [name for name in layer.fields if name in ("stride", "dilate", "upsample")]
    first: dict[str, Value] = {}
    second: dict[str, Value] = {}
    for name in padding:
        top, bottom, left, right = ((numbers_of(layer.get(name)) or (0.0,)) * 4)[:4]
        if factors.scheme == "separable":
            first[name] = _row([top, bottom, 0, 0])
            second[name] = _row([0, 0, left, right])
        else:
            second[name] = _row([0])
    for name in steps:
        numbers = numbers_of(layer.get(name)) or (1.0,)
        if factors.scheme == "separable":
            first[name] = _row([numbers[0], 1])
            second[name] = _row([1, numbers[-1]])
        else:
            second[name] = _row([1])
    one, two = _with(layer, **first), _with(layer, **second)
    if "name" in layer.fields:
        label = string_of(layer.get("name"))
        one, two = _with(one, name=_text(f"{label}_u")), _with(two, name=_text(f"{label}_v"))
    if factors.transposed and factors.scheme == "channel":
        kept = {n: v for n, v in two.fields.items() if n not in ("upsample", "crop", "numGroups")}
        two = Struct((1, 1), {**kept, "stride": [_row([1])], "pad": [_row([0])]})
        if "type" in kept:
            two = _with(two, type=_text("conv"))
    if "hasBias" in layer.fields:
        one = _with(one, hasBias=Array.of(np.array([[False]])))
    return one, two


def _with(value: Struct, /, **fields: Value) -> Struct:
    """Return a struct of one element with other fields."""
    return replace(value, fields={**value.fields, **{n: [v] for n, v in fields.items()}})


def _with_params(layer: Struct, names: list[str]) -> Struct:
    block = layer.get("block")
    if isinstance(block, Struct) and "hasBias" in block.fields:
        layer = _with(layer, block=_with(block, hasBias=Array.of(np.array([[len(names) > 1]]))))
    return _with(layer, params=_cell(names))


def _with_inputs(layer: Struct, renamed: Mapping[str, str]) -> Struct:
    """Return a layer that takes what layers took that are no longer there."""
    names = _texts(layer.get("inputs"))
    changed = []
    for name in names:
        for _ in range(len(renamed)):
            name = renamed.get(name, name)
        changed.append(name)
    return layer if changed == names else _with(layer, inputs=_cell(changed))


def _joined(elements: list[Struct], like: Struct) -> Struct:
    dims = (1, len(elements)) if like.dims[0] == 1 else (len(elements), 1)
    fields = {name: [e.fields[name][0] for e in elements] for name in like.fields}
    return Struct(dims, fields)


def _texts(value: Value | None) -> list[str]:
    if isinstance(value, Cell):
        return [string_of(item) for item in value.items]
    return [value.text] if isinstance(value, Text) and value.text else []


def _cell(names: list[str]) -> Cell:
    return Cell((1, len(names)), [_text(name) for name in names])


def _text(text: str) -> Text:
    return Text((1, len(text)), text)


def _row(numbers: Sequence[float]) -> Array:
    return Array.of(np.array([numbers], np.float64))


def _none() -> Array:
    return Array.of(np.zeros((0, 0), np.float32))
