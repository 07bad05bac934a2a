"""What callers hand over as a network: modules, exported programs, state dicts.

PyTorch is imported only if the caller has done so.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats.files import is_stream_file, load
from nnrcodec.formats.reading import read_stream_file
from nnrcodec.graph.names import with_safe_names
from nnrcodec.model.dtypes import DTYPES
from nnrcodec.model.model import Model, Role, Tensor, ties_of

if TYPE_CHECKING:
    import torch


def model_of(
    model: Any, example_inputs: tuple[Any, ...] | None = None, dynamic_shapes: Any = None
) -> Model:
    """Return a network in the form in which it is coded.

    Parameters
    ----------
    model, example_inputs, dynamic_shapes
        As `nnrcodec.encode` takes them.

    Raises
    ------
    ModelError
        If a tensor or an operator cannot be coded; the message names it.
    ConfigError
        If it is no network.
    """
    torch = sys.modules.get("torch")
    is_module = torch is not None and isinstance(model, torch.nn.Module)
    if example_inputs is not None and not is_module:
        raise ConfigError(
            f"example_inputs are what a torch.nn.Module is called with, and this is a "
            f"{type(model).__name__}: omit them, or give the module"
        )
    if isinstance(model, Model):
        return with_safe_names(model)
    if isinstance(model, Mapping):
        return _with_ties(model, (_tensor_of(name, value) for name, value in model.items()))
    if torch is not None and isinstance(model, torch.export.ExportedProgram):
        from nnrcodec.graph.export import model_of_foreign_program

        return model_of_foreign_program(model)
    if is_module:
        from nnrcodec.graph.export import model_of_module

        if example_inputs is not None:
            if not isinstance(example_inputs, tuple | list):
                raise ConfigError(
                    f"example_inputs is a {type(example_inputs).__name__}; expected a tuple of "
                    "what the module is called with, such as (x,)"
                )
            return model_of_module(model, tuple(example_inputs), dynamic_shapes)
        from nnrcodec.graph.module import DecodedModel, model_of_decoded

        if isinstance(model, DecodedModel):
            return model_of_decoded(model)
        return _state_dict_of(model)
    raise ConfigError(
        f"cannot encode a {type(model).__name__}; expected a torch.nn.Module, an exported "
        "program, or a mapping of names to tensors"
    )


def base_of(base: Any, key: str | None = None) -> bytes | Model:
    """Return a base model of updates: a stream, or a network that both sides have.

    Parameters
    ----------
    base : bytes, path, or what `model_of` takes
        A stream, the path of one, the path of a model file, or a network.
    key : str, optional
        Which entry of a file with several state dicts, as `nnrcodec.load` takes it.

    Raises
    ------
    ModelError, ConfigError
        As of `nnrcodec.load` and `model_of`.
    """
    if isinstance(base, bytes | bytearray | memoryview):
        return bytes(base)
    if not isinstance(base, str | Path):
        return model_of(base)
    path = Path(base)
    return read_stream_file(path) if is_stream_file(path) else model_of(load(path, key))


def in_memory(model: Model) -> Model:
    """Return a model with values of its own, whatever becomes of the file or arrays of another."""

    def own(tensor: Tensor) -> Tensor:
        return replace(tensor, read=partial(_same, tensor.read().copy()), words=None)

    return replace(model, tensors={name: own(tensor) for name, tensor in model.tensors.items()})


def _same(value: np.ndarray) -> np.ndarray:
    return value


def _state_dict_of(module: torch.nn.Module) -> Model:
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    state = module.state_dict()
    return _with_ties(
        state,
        (
            _tensor_of(name, value, Role.PARAMETER if name in parameters else Role.BUFFER)
            for name, value in state.items()
        ),
    )


def _with_ties(state: Mapping[str, Any], tensors: Iterable[Tensor]) -> Model:
    tensors = list(tensors)
    return Model.of(tensors, ties=ties_of((name, _place_of(v)) for name, v in state.items()))


def _place_of(value: Any) -> Hashable:
    """Return what is equal for values that are the same in memory; None if there are none."""
    if isinstance(value, np.ndarray):
        start, _ = value.__array_interface__["data"]
        place = start, value.dtype.str, value.shape, value.strides
        return place if value.size else None
    if isinstance(value, np.generic):
        return None
    from nnrcodec.model.torch_values import place_of

    return place_of(value)


def _tensor_of(name: Any, value: Any, role: Role = Role.PARAMETER) -> Tensor:
    if not isinstance(name, str):
        raise ModelError(f"the state dict has a key {name!r} that is not a string")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        from nnrcodec.model.torch_values import from_torch

        return from_torch(name, value, role)
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.name not in DTYPES:
            raise ModelError(
                f"tensor {name!r} has dtype {value.dtype.name}, which cannot be coded; known are "
                f"{', '.join(DTYPES)}"
            )
        return Tensor.of(name, np.asarray(value), role=role)
    raise ModelError(
        f"tensor {name!r} is a {type(value).__name__}, not a tensor or an array: give the state "
        "dict of the network, or write all of it with torch.save and give that file to encode_file"
    )
