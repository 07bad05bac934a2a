"""The public functions: networks to bytes and back.

PyTorch is imported only when a function needs it, so that ``import nnrcodec`` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nnrcodec.config import EncoderConfig
from nnrcodec.decoder import decode_stream
from nnrcodec.dtypes import DTYPES
from nnrcodec.encoder import encode_model
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.limits import Limits
from nnrcodec.model import Model, Role, Tensor

if TYPE_CHECKING:
    import torch

    from nnrcodec.graph.module import DecodedModel


def encode(
    model: Any,
    example_inputs: tuple[Any, ...] | None = None,
    config: EncoderConfig | None = None,
    *,
    dynamic_shapes: Any = None,
) -> bytes:
    """Encode a trained network.

    Parameters
    ----------
    model : torch.nn.Module, torch.export.ExportedProgram, mapping or Model
        The network; a mapping is a state dict, name to tensor or array.
    example_inputs : tuple of torch.Tensor, optional
        Inputs on which a module runs. With them its graph is coded too, so that the receiver
        needs no model code; without them only its state dict is.
    config : EncoderConfig, optional
        What to do; the default quantizes weights finely enough for most networks.
    dynamic_shapes : optional
        As in `torch.export.export`; by default every size of the inputs that can vary may.

    Returns
    -------
    bytes
        The stream.

    Raises
    ------
    ModelError
        If a tensor or an operator cannot be coded; the message names it.
    ConfigError
        If the configuration does not fit the network.

    Examples
    --------
    >>> import numpy as np
    >>> import nnrcodec
    >>> state = {"fc.weight": np.eye(40, dtype=np.float32)}
    >>> stream = nnrcodec.encode(state)
    >>> len(stream) < state["fc.weight"].nbytes // 10
    True
    >>> decoded = nnrcodec.decode(stream)["fc.weight"]
    >>> bool(abs(decoded - state["fc.weight"]).max() < 0.03)
    True
    """
    source = _model_of(model, example_inputs, dynamic_shapes)
    return encode_model(source, config or EncoderConfig()).data


def decode(
    data: bytes, *, merge: bool = False, limits: Limits | None = None
) -> dict[str, np.ndarray]:
    """Decode the tensors of a stream.

    Parameters
    ----------
    data : bytes
        The stream.
    merge : bool
        Multiply low-rank factors out and return the kernels of the original architecture.
    limits : Limits, optional
        What to accept from strangers.

    Returns
    -------
    dict of str to ndarray
        The state dict, each array of the dtype it had before coding; bfloat16, which numpy lacks,
        as float32.

    Raises
    ------
    BitstreamError
        If the stream is damaged; the message says where.
    UnsupportedFeatureError
        If it uses what this version does not have.
    """
    model = decode_stream(data, limits or Limits(), merge=merge)
    return {
        tensor.name: tensor.read()
        for tensor in model.tensors.values()
        if tensor.role is not Role.CONSTANT
    }


def decode_model(data: bytes, *, merge: bool = False, limits: Limits | None = None) -> DecodedModel:
    """Decode a network that runs at once, without its model code.

    Parameters
    ----------
    data : bytes
        A stream with a graph.
    merge : bool
        Return the original architecture instead of low-rank factors.
    limits : Limits, optional
        What to accept from strangers.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, on the CPU.

    Raises
    ------
    ModelError
        If the stream has tensors only; use `load_into`.
    BitstreamError, UnsupportedFeatureError
        As for `decode`.
    """
    from nnrcodec.graph.module import build_module

    limits = limits or Limits()
    model = decode_stream(data, limits, merge=merge)
    if model.graph is None:
        raise ModelError(
            "this stream has tensors only, no graph: use nnrcodec.load_into(module, data), or "
            "encode the network from a .pt2 file or with example inputs"
        )
    return build_module(model, limits)


def load_into(
    module: torch.nn.Module, data: bytes, *, merge: bool = False, limits: Limits | None = None
) -> torch.nn.Module:
    """Load a stream into a module of the original class.

    Parameters
    ----------
    module : torch.nn.Module
        The receiver; changed in place. A convolution that was coded as two factors is replaced by
        a `torch.nn.Sequential` of two thin ones, ``u`` and ``v``, which runs faster.
    data : bytes
        The stream.
    merge : bool
        Keep the original convolutions and multiply the factors out instead.
    limits : Limits, optional
        What to accept from strangers.

    Returns
    -------
    torch.nn.Module
        `module`.

    Raises
    ------
    ModelError
        If names or shapes of module and stream do not agree; the module is then unchanged.
    BitstreamError, UnsupportedFeatureError
        As for `decode`.
    """
    from nnrcodec.loading import load_tensors

    load_tensors(module, decode_stream(data, limits or Limits(), merge=merge))
    return module


def _model_of(model: Any, example_inputs: tuple[Any, ...] | None, dynamic_shapes: Any) -> Model:
    """Return the network in the form in which it is coded."""
    if isinstance(model, Model):
        return model
    if isinstance(model, Mapping):
        return Model.of(_tensor_of(name, value) for name, value in model.items())
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.export.ExportedProgram):
        from nnrcodec.graph.export import model_of_program

        return model_of_program(model)
    if torch is not None and isinstance(model, torch.nn.Module):
        from nnrcodec.graph.export import model_of_module

        if example_inputs is not None:
            if not isinstance(example_inputs, tuple | list):
                raise ConfigError(
                    f"example_inputs is a {type(example_inputs).__name__}; expected a tuple of "
                    "what the module is called with, such as (x,)"
                )
            return model_of_module(model, tuple(example_inputs), dynamic_shapes)
        return _state_dict_of(model)
    raise ConfigError(
        f"cannot encode a {type(model).__name__}; expected a torch.nn.Module, an exported "
        "program, or a mapping of names to tensors"
    )


def _state_dict_of(module: torch.nn.Module) -> Model:
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    return Model.of(
        _tensor_of(name, value, Role.PARAMETER if name in parameters else Role.BUFFER)
        for name, value in module.state_dict().items()
    )


def _tensor_of(name: Any, value: Any, role: Role = Role.PARAMETER) -> Tensor:
    if not isinstance(name, str):
        raise ModelError(f"the state dict has a key {name!r} that is not a string")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        from nnrcodec.torch_values import from_torch

        return from_torch(name, value, role)
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.name not in DTYPES:
            raise ModelError(
                f"tensor {name!r} has dtype {value.dtype.name}, which cannot be coded; known are "
                f"{', '.join(DTYPES)}"
            )
        return Tensor.of(name, np.asarray(value), role=role)
    raise ModelError(f"tensor {name!r} is a {type(value).__name__}, not a tensor or an array")
