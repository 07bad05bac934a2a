"""Decoded tensors into a module of the receiver's own class.

Owns the exchange of convolutions for pairs of thin ones; needs PyTorch.
"""

from __future__ import annotations

from collections import OrderedDict

import torch

from nnrcodec.errors import ModelError
from nnrcodec.model import Factors, Model, Role
from nnrcodec.torch_values import to_torch


def load_tensors(module: torch.nn.Module, model: Model) -> None:
    """Load decoded tensors into a module, all of them or none.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place: factorised convolutions are replaced by their two factors.
    model : Model
        Decoded.

    Raises
    ------
    ModelError
        If names or shapes do not agree, or a layer that was decomposed is not an ordinary
        two-dimensional convolution here; the module is then unchanged.
    """
    state = {t.name: to_torch(t) for t in model.tensors.values() if t.role is not Role.CONSTANT}
    pairs = {factors.layer: _thin_pair(module, factors) for factors in model.factors}
    replaced = {layer: module.get_submodule(layer) for layer in pairs}
    for layer, pair in pairs.items():
        _put(module, layer, pair)
    try:
        _require_agreement(module, state)
        module.load_state_dict(state)
    except Exception:
        for layer, original in replaced.items():
            _put(module, layer, original)
        raise


def _thin_pair(module: torch.nn.Module, factors: Factors) -> torch.nn.Sequential:
    """Return the two thin convolutions that replace a layer, without their values."""
    try:
        layer = module.get_submodule(factors.layer)
    except AttributeError:
        layer = None
    ordinary = getattr(type(layer), "forward", None) is torch.nn.Conv2d.forward
    if not isinstance(layer, torch.nn.Conv2d) or not ordinary:
        kind = "not there" if layer is None else f"a {type(layer).__name__}"
        raise ModelError(
            f"layer {factors.layer!r} was coded as two thin convolutions, but in this module it "
            f"is {kind}; expected a torch.nn.Conv2d"
        )
    columns, rows = layer.in_channels, layer.out_channels
    if (rows, columns // layer.groups, *layer.kernel_size) != factors.kernel_shape:
        raise ModelError(
            f"layer {factors.layer!r} has a kernel of shape {tuple(layer.weight.shape)}, the "
            f"stream has factors for {factors.kernel_shape}"
        )
    if layer.groups != 1 or layer.padding_mode != "zeros":
        raise ModelError(
            f"layer {factors.layer!r} has groups={layer.groups}, "
            f"padding_mode={layer.padding_mode!r}: two thin convolutions cannot replace it; "
            "load with merge=True"
        )
    first, second = _split(layer.padding)
    u = torch.nn.Conv2d(
        columns,
        factors.rank,
        (layer.kernel_size[0], 1),
        stride=(layer.stride[0], 1),
        padding=first,
        dilation=(layer.dilation[0], 1),
        bias=False,
    )
    v = torch.nn.Conv2d(
        factors.rank,
        rows,
        (1, layer.kernel_size[1]),
        stride=(1, layer.stride[1]),
        padding=second,
        dilation=(1, layer.dilation[1]),
        bias=layer.bias is not None,
    )
    pair = torch.nn.Sequential(OrderedDict(u=u, v=v))
    return pair.to(layer.weight).train(layer.training)


def _split(padding: str | tuple[int, ...]) -> tuple[str | tuple[int, int], str | tuple[int, int]]:
    """Return the padding of the vertical and of the horizontal convolution."""
    if isinstance(padding, str):
        return padding, padding
    return (padding[0], 0), (0, padding[1])


def _put(module: torch.nn.Module, name: str, layer: torch.nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)


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
