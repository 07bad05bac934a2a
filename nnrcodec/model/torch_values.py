"""Tensors of PyTorch as tensors of a `Model` and back, value by value the same."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np

from nnrcodec.errors import ModelError
from nnrcodec.model.dtypes import DTYPES, is_pattern
from nnrcodec.model.model import Role, Tensor

if TYPE_CHECKING:
    import torch


def from_torch(name: str, value: torch.Tensor, role: Role = Role.PARAMETER) -> Tensor:
    """Wrap a tensor of PyTorch as a parameter; its values are converted whenever they are read.

    Raises
    ------
    ModelError
        The tensor is not dense, or has a dtype that cannot be coded.
    """
    import torch

    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise ModelError(
            f"tensor {name!r} has dtype {dtype}, which cannot be coded; known are "
            f"{', '.join(DTYPES)}"
        )
    if value.layout != torch.strided or value.is_meta:
        raise ModelError(f"tensor {name!r} is not a dense tensor with values")

    def read() -> np.ndarray:
        dense = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        if is_pattern(dtype):
            bits = {1: torch.uint8, 4: torch.uint32}[dense.element_size()]
            return dense.view(bits).numpy()
        return (dense.float() if dtype == "bfloat16" else dense).numpy()

    return Tensor(name, dtype, tuple(value.shape), read, role)


def to_torch(tensor: Tensor) -> torch.Tensor:
    """Read a tensor into PyTorch, with the dtype it has in the model.

    The result may share memory with the array that was read.
    """
    import torch

    dtype = getattr(torch, tensor.dtype)
    if tensor.dtype == "bfloat16":  # conversion by PyTorch makes one NaN of all
        bits = np.require(tensor.little_endian(), np.uint16, ["C", "W"])
        return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
    values = np.require(tensor.read(), requirements=["C", "W"])
    if is_pattern(tensor.dtype):
        return torch.from_numpy(values).view(dtype)
    return torch.from_numpy(values).to(dtype)


def place_of(value: torch.Tensor) -> Hashable:
    """Return what is equal for two tensors that are the same one in memory; None if it is empty."""
    if value.numel() == 0 or value.is_meta:
        return None
    return value.data_ptr(), value.dtype, tuple(value.shape), value.stride()
