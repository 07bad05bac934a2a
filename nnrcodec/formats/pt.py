"""``.pt`` and ``.pth``: state dicts saved with ``torch.save``.

They are read with ``weights_only=True``: nothing in the file is run.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from nnrcodec.errors import ModelError
from nnrcodec.formats.atomic import write_atomically
from nnrcodec.graph.names import original_name
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model, Role
from nnrcodec.model.torch_values import from_torch, to_torch

if TYPE_CHECKING:
    import torch

_HINT = (
    "a state dict is expected: write module.state_dict() with torch.save, or the whole network "
    "to a .pt2 file with torch.export"
)


def load(path: Path) -> Model:
    """Map a state dict, which is all of the file or the only one among its entries.

    Every tensor gets the role of a parameter: the file does not tell which are buffers.

    Raises
    ------
    ModelError
        The file is damaged, holds something else (a pickled module, a TorchScript archive, an
        exported program) or a tensor that cannot be coded.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:  # torch.load raises whatever its unpickler happens to raise
        raise ModelError(f"{path} is damaged or holds more than tensors; {_HINT}") from error
    return Model.of(from_torch(name, value) for name, value in _state_dict(content, path).items())


def _state_dict(content: object, path: Path) -> Mapping[str, torch.Tensor]:
    if _is_state_dict(content):
        return content
    entries = content if isinstance(content, Mapping) else {}
    nested = {key: value for key, value in entries.items() if _is_state_dict(value)}
    if not nested:
        raise ModelError(f"{path} holds no state dict; {_HINT}")
    if len(nested) > 1:
        names = ", ".join(repr(key) for key in nested)
        raise ModelError(f"{path} holds several state dicts ({names}): save the one you mean alone")
    (state,) = nested.values()
    return state


def _is_state_dict(value: object) -> TypeGuard[Mapping[str, torch.Tensor]]:
    import torch

    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) for key in value)
        and all(isinstance(entry, torch.Tensor) for entry in value.values())
    )


def save(model: Model, path: Path, _: Limits | None = None) -> None:
    """Write the parameters and buffers of a model as a state dict.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    import torch

    state = {
        original_name(tensor.name, model.graph): to_torch(tensor)
        for tensor in model.tensors.values()
        if tensor.role is not Role.CONSTANT
    }
    write_atomically(path, lambda file: torch.save(state, file))
