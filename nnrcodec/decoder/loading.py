"""Decoded tensors into a module of the receiver's own class.

Owns the exchange of layers for pairs of thin ones; needs PyTorch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from nnrcodec.errors import ModelError
from nnrcodec.graph.names import original_name
from nnrcodec.model.model import Factors, Model, Role
from nnrcodec.model.torch_values import to_torch
from nnrcodec.reduce.schemes import Scheme

_LAYERS: Mapping[tuple[int, bool], Any] = {
    (0, False): torch.nn.Linear,
    (1, False): torch.nn.Conv1d,
    (2, False): torch.nn.Conv2d,
    (3, False): torch.nn.Conv3d,
    (1, True): torch.nn.ConvTranspose1d,
    (2, True): torch.nn.ConvTranspose2d,
    (3, True): torch.nn.ConvTranspose3d,
}
"""By the number of axes, and whether it is transposed."""

_READ_BY_THEIR_OWNERS = {torch.nn.modules.linear.NonDynamicallyQuantizableLinear}
"""Layers whose weight `torch.nn.MultiheadAttention` reads, so that they must stay one."""

_WITHOUT_EFFECT = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}


def load_tensors(module: torch.nn.Module, model: Model) -> None:
    """Load decoded tensors into a module, all of them or none.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place: factorised layers are replaced by their two factors.
    model : Model
        Decoded.

    Raises
    ------
    ModelError
        If names or shapes do not agree, or a layer that was decomposed is not an ordinary
        convolution or linear layer here; the module is then unchanged.
    """
    state = {
        original_name(tensor.name, model.graph): to_torch(tensor)
        for tensor in model.tensors.values()
        if tensor.role is not Role.CONSTANT
    }
    layers = dict(module.named_modules(remove_duplicate=False))
    pairs = {}
    for factors in model.factors:
        layer = original_name(factors.layer, model.graph)
        pairs[layer] = _thin_pair(layer, layers.get(layer), factors)
    for layer, pair in pairs.items():
        _put(layers, layer, pair)
    try:
        _require_agreement(module, state)
        module.load_state_dict(state)
    except Exception:
        for layer in pairs:
            _put(layers, layer, layers[layer])
        raise


def _thin_pair(name: str, layer: torch.nn.Module | None, factors: Factors) -> torch.nn.Sequential:
    """Return the two thin layers that replace a layer, without their values."""
    axes = len(factors.kernel_shape) - 2
    expected = _LAYERS[axes, factors.transposed]
    ordinary = getattr(type(layer), "forward", None) is expected.forward
    if not isinstance(layer, expected) or not ordinary or type(layer) in _READ_BY_THEIR_OWNERS:
        kind = "not there" if layer is None else f"a {type(layer).__name__}"
        raise ModelError(
            f"layer {name!r} was coded as two thin layers, but in this module it is "
            f"{kind}; expected a torch.nn.{expected.__name__}, or load with merge=True"
        )
    if tuple(layer.weight.shape) != factors.kernel_shape:
        raise ModelError(
            f"layer {name!r} has a kernel of shape {tuple(layer.weight.shape)}, the "
            f"stream has factors for {factors.kernel_shape}"
        )
    if axes and (layer.groups != 1 or layer.padding_mode != "zeros"):
        raise ModelError(
            f"layer {name!r} has groups={layer.groups}, "
            f"padding_mode={layer.padding_mode!r}: two thin layers cannot replace it; "
            "load with merge=True"
        )
    scheme, bias = Scheme.of(factors), layer.bias is not None
    names = _WITHOUT_EFFECT if axes else ()
    options = {name: getattr(layer, name) for name in names}
    if not factors.transposed:
        options.pop("output_padding", None)
    if scheme.name == "separable":
        down, across = _along_axes(options)
        height, width = layer.kernel_size
        u = expected(scheme.inputs, factors.rank, (height, 1), bias=False, **down)
        v = expected(factors.rank, scheme.outputs, (1, width), bias=bias, **across)
    else:
        sizes = (layer.kernel_size,) if axes else ()
        u = expected(scheme.inputs, factors.rank, *sizes, bias=False, **options)
        ones = (1,) if axes else ()
        v = _LAYERS[axes, False](factors.rank, scheme.outputs, *ones, bias=bias)
    pair = torch.nn.Sequential(OrderedDict(u=u, v=v))
    return pair.to(layer.weight).train(layer.training)


def _along_axes(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of the vertical and of the horizontal convolution."""
    down, across = dict(options), dict(options)
    for name, value in options.items():
        if not isinstance(value, str):  # else it is a padding such as "same"
            down[name] = (value[0], _WITHOUT_EFFECT[name])
            across[name] = (_WITHOUT_EFFECT[name], value[1])
    return down, across


def _put(layers: Mapping[str, torch.nn.Module], name: str, layer: torch.nn.Module) -> None:
    """Exchange a layer that is there; no name from a stream becomes an attribute."""
    parent, _, child = name.rpartition(".")
    layers[parent].register_module(child, layer)


def _require_agreement(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Raise unless `state` fits the module's own state dict."""
    own = module.state_dict()
    problems = [f"{name!r} is in the module only" for name in own.keys() - state.keys()]
    problems += [f"{name!r} is in the stream only" for name in state.keys() - own.keys()]
    problems += [
        f"{name!r} has shape {tuple(own[name].shape)} in the module, {tuple(value.shape)} in the "
        "stream"
        for name, value in state.items()
        if name in own and own[name].shape != value.shape
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ModelError(f"stream and module do not agree: {shown}{more}")
