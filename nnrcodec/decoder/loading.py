"""Decoded tensors into a module of the receiver's own class.

Owns the exchange of layers for pairs of thin ones; needs PyTorch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from nnrcodec.decoder.receivers import fitting_names, require_agreement, tensors_beside
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

    Names that differ by a prefix, as those of wrapped modules do, are recognised, which is logged.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place: factorised layers are replaced by their two factors.
    model : Model
        Decoded.

    Raises
    ------
    ModelError
        If names or shapes do not agree, the module raises an error of its own, or a layer that was
        decomposed is not an ordinary convolution or linear layer here; the module is then
        unchanged.
    """
    beside = tensors_beside(model)
    own = module.state_dict()
    names = fitting_names(own, [n for n in _original_names(model) if n not in beside])
    layers = dict(module.named_modules(remove_duplicate=False))
    pairs = {}
    for factors in model.factors:
        layer = original_name(factors.layer, model.graph)
        weight = names.get(f"{layer}.weight", f"{layer}.weight")
        receiver = weight.removesuffix(".weight")
        pairs[receiver] = _thin_pair(receiver, layers.get(receiver), factors)
        for part in ("u.weight", "v.weight", "v.bias"):
            names[f"{layer}.{part}"] = f"{receiver}.{part}"
    state = OrderedDict(
        (names.get(original_name(t.name, model.graph), original_name(t.name, model.graph)), t)
        for t in model.tensors.values()
        if t.role is not Role.CONSTANT and t.name not in beside
    )
    for layer, pair in pairs.items():
        _put(layers, layer, pair)
    try:
        _load(module, OrderedDict((name, to_torch(t)) for name, t in state.items()))
    except Exception:
        for layer in pairs:
            _put(layers, layer, layers[layer])
        raise


def _load(module: torch.nn.Module, state: OrderedDict[str, torch.Tensor]) -> None:
    """Load a state dict; every error is one of ours."""
    try:
        own = module.state_dict()
        require_agreement(own, state)
        # without versions, some layers take a state dict for one of a version before there were any
        state._metadata = getattr(own, "_metadata", None)  # type: ignore[attr-defined]
        module.load_state_dict(state)
    except ModelError:
        raise
    except Exception as error:  # whatever the code of a module raises as it is loaded
        raise ModelError(
            f"the module does not take the state dict: {type(error).__name__}: {error}"
        ) from error


def _original_names(model: Model) -> list[str]:
    """Return the names that tensors had before low rank."""
    names = {t.name: t.name for t in model.tensors.values() if t.role is not Role.CONSTANT}
    for factors in model.factors:
        names.pop(factors.v, None)
        names[factors.u] = f"{factors.layer}.weight"
        if factors.v_bias in names:
            names[factors.v_bias] = f"{factors.layer}.bias"
    return [original_name(name, model.graph) for name in names.values()]


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
