"""A network of MatConvNet as a module of PyTorch, from which its graph is taken."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import nn

from nnrcodec.formats.mat.layers import Layer, Network, Residual, UnknownLayerError, axis_of
from nnrcodec.formats.mat.values import string_of

MOST_ELEMENTS, MOST_MULTIPLY_ADDS = 2**26, 2**38
"""Of a value, and of a network in all, for one picture."""

Operation = Callable[["_Holder", list[torch.Tensor]], torch.Tensor]


class MatNetwork(nn.Module):
    """Runs the layers of a network.

    Parameters
    ----------
    network : Network
        Without a problem.
    residual : "none", "subtract" or "add"
        What happens to its output; other than none for one input and one output.

    Raises
    ------
    UnknownLayerError
        A layer has a setting that is not known.
    """

    def __init__(self, network: Network, residual: Residual = "none") -> None:
        super().__init__()
        self._steps = []
        made: dict[int, torch.Tensor] = {}
        self._inputs, self._outputs = tuple(network.inputs), tuple(network.outputs)
        self._residual = residual
        for layer in network.layers:
            holder = _Holder(layer, made)
            _add(self, layer.name, holder)
            self._steps.append(
                (holder, _OPERATIONS[layer.kind](layer), layer.inputs, layer.outputs[0])
            )

        def forward(*inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
            return self._run(inputs)

        # `torch.export` takes the names of inputs, and which axes of each are dynamic, from it
        forward.__signature__ = _signature(self._inputs)  # type: ignore[attr-defined]
        self.forward = forward

    def shapes(self, *inputs: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the outputs for shapes of inputs, before anything is computed.

        Raises
        ------
        UnknownLayerError
            Something would be larger, or take longer, than networks do.
        RuntimeError, ValueError, IndexError
            Inputs of these shapes do not fit.
        """
        self.to("meta")
        results = self._run(tuple(torch.empty(shape, device="meta") for shape in inputs))
        results = results if isinstance(results, tuple) else (results,)
        return tuple(tuple(result.shape) for result in results)

    def _cost(self, holder: _Holder, value: torch.Tensor) -> int:
        """Return the multiply-adds of a layer; raise if what it gives is too large."""
        if value.numel() > MOST_ELEMENTS:
            raise UnknownLayerError(f"a layer gives a value of {tuple(value.shape)}")
        weight = sum(parameter.numel() for parameter in holder.parameters())
        return weight * value.shape[-1] * value.shape[-2]

    def _run(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Run the network on inputs of shape (batch, channels, height, width)."""
        values = dict(zip(self._inputs, inputs, strict=True))
        multiply_adds = 0
        for holder, operation, names, output in self._steps:
            values[output] = operation(holder, [values[name] for name in names])
            if values[output].is_meta:
                multiply_adds += self._cost(holder, values[output])
                if multiply_adds > MOST_MULTIPLY_ADDS:
                    raise UnknownLayerError("it takes more multiply-adds than networks do")
        results = tuple(values[name] for name in self._outputs)
        if self._residual != "none":
            given, result = inputs[0], results[0]
            return given - result if self._residual == "subtract" else given + result
        return results[0] if len(results) == 1 else results


def _signature(names: tuple[str, ...]) -> inspect.Signature:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    inputs = ["input"] if len(names) == 1 else [f"input_{index}" for index in range(len(names))]
    return inspect.Signature([inspect.Parameter(name, kind) for name in inputs])


class _Holder(nn.Module):
    """Holds the tensors of a layer; `made` are those of all layers, some of which share them."""

    def __init__(self, layer: Layer, made: dict[int, torch.Tensor]) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            values = layer.tensors.get(name)
            if values is None:
                continue
            is_buffer = name.startswith("running")
            if id(values) not in made:
                tensor = torch.from_numpy(values.copy())
                made[id(values)] = tensor if is_buffer else nn.Parameter(tensor, False)
            if is_buffer:
                self.register_buffer(name, made[id(values)])
            else:
                self.register_parameter(name, cast(nn.Parameter, made[id(values)]))

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor that the layer has."""
        return cast(torch.Tensor, getattr(self, name))

    @property
    def shift(self) -> torch.Tensor | None:
        """The bias, if there is one."""
        return self.tensor("bias") if hasattr(self, "bias") else None


def _add(module: nn.Module, name: str, holder: nn.Module) -> None:
    """Add a module under a name with points."""
    outer, _, last = name.rpartition(".")
    if outer:
        if outer not in dict(module.named_children()):
            module.add_module(outer, nn.Module())
        module = module.get_submodule(outer)
    module.add_module(last, holder)


def _conv(layer: Layer) -> Operation:
    stride, dilation = layer.pair("stride"), layer.pair("dilate")
    weight = layer.tensors["weight"]
    groups = (layer.channels or 0) // weight.shape[1]
    before, padding = _padding(layer.four("pad"))

    def run(holder: _Holder, values: list[torch.Tensor]) -> torch.Tensor:
        value = F.pad(values[0], before) if any(before) else values[0]
        kernel = holder.tensor("weight")
        return F.conv2d(value, kernel, holder.shift, stride, padding, dilation, groups)

    return run


def _padding(four: tuple[int, int, int, int]) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Return what is padded before a layer, and by it: it can pad two sides only alike."""
    top, bottom, left, right = four
    if top == bottom and left == right:
        return (0, 0, 0, 0), (top, left)
    return (left, right, top, bottom), (0, 0)


def _convt(layer: Layer) -> Operation:
    stride, groups = layer.pair("upsample"), layer.pair("numGroups")[0]
    top, bottom, left, right = layer.four("crop")
    alike = top == bottom and left == right
    padding = (top, left) if alike else (0, 0)

    def run(holder: _Holder, values: list[torch.Tensor]) -> torch.Tensor:
        kernel = holder.tensor("weight")
        value = F.conv_transpose2d(values[0], kernel, holder.shift, stride, padding, 0, groups)
        return value if alike else F.pad(value, (-left, -right, -top, -bottom))

    return run


def _bnorm(layer: Layer) -> Operation:
    epsilon = layer.epsilon

    def run(holder: _Holder, values: list[torch.Tensor]) -> torch.Tensor:
        mean, variance = holder.tensor("running_mean"), holder.tensor("running_var")
        scale = holder.tensor("weight")
        return F.batch_norm(values[0], mean, variance, scale, holder.shift, eps=epsilon)

    return run


def _relu(layer: Layer) -> Operation:
    leak = layer.numbers("leak", default=0)[0]
    if leak:
        return lambda _, values: F.leaky_relu(values[0], leak)
    return lambda _, values: F.relu(values[0])


def _pool(layer: Layer) -> Operation:
    method = (string_of(layer.settings.get("method")) or "max").lower()
    size, stride = layer.pair("pool", "poolSize"), layer.pair("stride")
    top, bottom, left, right = layer.four("pad")
    around = (left, right, top, bottom)
    if method not in ("max", "avg") or 0 in size:
        raise UnknownLayerError(f"layer {layer.name!r} pools by {method!r}")
    if method == "max":

        def largest(_: _Holder, values: list[torch.Tensor]) -> torch.Tensor:
            value = values[0]
            if any(around):
                value = F.pad(value, around, value=float("-inf"))
            return F.max_pool2d(value, size, stride)

        return largest

    def average(_: _Holder, values: list[torch.Tensor]) -> torch.Tensor:
        if not any(around):
            return F.avg_pool2d(values[0], size, stride)
        inside = F.pad(torch.ones_like(values[0][:1, :1]), around)
        padded = F.avg_pool2d(F.pad(values[0], around), size, stride)
        return padded / F.avg_pool2d(inside, size, stride)  # what is padded does not count

    return average


def _lrn(layer: Layer) -> Operation:
    param = layer.numbers("param", default=0)
    if len(param) != 4 or param[0] < 1 or param[0] != int(param[0]):
        raise UnknownLayerError(f"layer {layer.name!r} has param of {param}")
    size, kappa, alpha, beta = param
    return lambda _, values: F.local_response_norm(values[0], int(size), alpha * size, beta, kappa)


def _sum(_: Layer) -> Operation:
    def run(_: _Holder, values: list[torch.Tensor]) -> torch.Tensor:
        result = values[0]
        for value in values[1:]:
            result = result + value
        return result

    return run


def _concat(layer: Layer) -> Operation:
    axis = axis_of(layer)
    return lambda _, values: torch.cat(values, axis)


def _crop(layer: Layer) -> Operation:
    row, column = layer.pair("crop", default=0)
    if len(layer.inputs) != 2:
        raise UnknownLayerError(f"layer {layer.name!r} crops {len(layer.inputs)} inputs")

    def run(_: _Holder, values: list[torch.Tensor]) -> torch.Tensor:
        height, width = values[1].shape[2:]
        return values[0][:, :, row : row + height, column : column + width]

    return run


_OPERATIONS: Mapping[str, Callable[[Layer], Operation]] = {
    "conv": _conv,
    "convt": _convt,
    "bnorm": _bnorm,
    "relu": _relu,
    "sigmoid": lambda _: lambda _, values: torch.sigmoid(values[0]),
    "tanh": lambda _: lambda _, values: torch.tanh(values[0]),
    "softmax": lambda _: lambda _, values: F.softmax(values[0], 1),
    "dropout": lambda _: lambda _, values: values[0],
    "pool": _pool,
    "lrn": _lrn,
    "sum": _sum,
    "concat": _concat,
    "crop": _crop,
}
