"""Files of `torch.save`, whatever they are called: state dicts, and checkpoints with more in them.

They are read as data (`nnrcodec.formats.pickled`): nothing in them is run, and no class is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnrcodec.errors import ModelError
from nnrcodec.formats.atomic import write_atomically
from nnrcodec.formats.reading import open_regular
from nnrcodec.formats.torch_file import TorchFile, read_archive, read_legacy
from nnrcodec.formats.torch_values import StoredTensor
from nnrcodec.formats.unwrapping import LEFT_OUT, unwrapped
from nnrcodec.formats.wrapping import pick
from nnrcodec.graph.names import original_name
from nnrcodec.limits import Limits
from nnrcodec.messages import some
from nnrcodec.model.model import Model, Role, Tensor, ties_of
from nnrcodec.model.source import Source, WrapperError, check_wrapper
from nnrcodec.model.torch_values import to_torch


def load(path: Path, key: str | None = None) -> Model:
    """Read a file that PyTorch wrote, as a zip archive or, before version 1.6, otherwise.

    Every tensor gets the role of a parameter: the file does not tell which are buffers.

    Parameters
    ----------
    path : Path
        The file.
    key : str, optional
        Which entry to code, where it has several state dicts; "all" for all of it.

    Raises
    ------
    ModelError
        The file is damaged, or has no tensors or several state dicts.
    ConfigError
        There is no entry of that name.
    """
    with open_regular(path) as start:
        is_archive = start.read(2) == b"PK"
    return _model(read_archive(path) if is_archive else read_legacy(path), path, key)


def _model(file: TorchFile, path: Path, key: str | None) -> Model:
    picked = pick(file.root, key, path)
    changes = () if picked.is_state_of_program else file.changes
    strided = [repr(name) for name, tensor, _ in picked.tensors if not tensor.is_contiguous]
    if strided:
        changes = (*changes, f"tensors become contiguous that have other strides: {some(strided)}")
    notes = (*picked.notes, *(f"on the way back {change}" for change in changes))
    source = Source("PyTorch file", picked.wrapper, picked.left_out, picked.coded, notes)
    tensors = [_tensor(file, name, tensor, beside) for name, tensor, beside in picked.tensors]
    ties = ties_of((name, tensor.place) for name, tensor, _ in picked.tensors)
    return Model.of(tensors, ties=ties, source=source)


def _tensor(file: TorchFile, name: str, stored: StoredTensor, exact: bool) -> Tensor:
    file.check(name, stored)
    return Tensor(name, stored.dtype, stored.shape, lambda: file.read(stored), exact=exact)


def save(model: Model, path: Path, _: Limits | None = None) -> None:
    """Write the parameters and buffers of a model as they stood in the file that it is from.

    Without a wrapper, or with that of a file of another kind, it is a state dict.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    import torch

    content = _content(model, path)
    write_atomically(path, lambda file: torch.save(content, file))


def _content(model: Model, path: Path) -> Any:
    tensors: dict[str, Any] = {}
    for tensor in model.tensors.values():
        if tensor.role is not Role.CONSTANT:
            first = tensors.get(model.ties[tensor.name]) if tensor.name in model.ties else None
            tensors[tensor.name] = to_torch(tensor) if first is None else first
    wrapper = None if model.source is None else model.source.wrapper
    if wrapper is None or wrapper.kind != "torch":
        return {original_name(name, model.graph): value for name, value in tensors.items()}
    try:
        check_wrapper(wrapper, tensors)
        content = unwrapped(wrapper.content, tensors)
    except (WrapperError, RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ModelError(f"the wrapper of the model does not fit its tensors: {error}") from error
    if content is LEFT_OUT:
        raise ModelError("the wrapper of the model has nothing in it")
    return content
