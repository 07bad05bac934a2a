"""All undocumented functions of PyTorch that this package uses.

Each use checks that the installed version of PyTorch has the function, and raises an error that
names it if not.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from typing import Any

import torch

from nnrcodec.errors import UnsupportedFeatureError
from nnrcodec.messages import logger_of

logger = logger_of(__name__)


def storage_key(tensor: torch.Tensor) -> int:
    """Return a number that is equal for tensors that are views of the same memory.

    Unlike an address, fake tensors without memory have it as well.
    """
    key: int = _attribute(tensor.untyped_storage(), "_cdata")
    return key


def without_memory() -> AbstractContextManager[Any]:
    """Return a context in which tensors have sizes but no memory."""
    fake_mode = _attribute(_module("torch._subclasses.fake_tensor"), "FakeTensorMode")
    environment = _attribute(_module("torch.fx.experimental.symbolic_shapes"), "ShapeEnv")
    context: AbstractContextManager[Any] = fake_mode(
        shape_env=environment(), allow_non_fake_inputs=True
    )
    return context


def quantized_tensor(integers: torch.Tensor, scale: Any, zero_point: Any, *axis: int) -> Any:
    """Return a quantized tensor.

    Parameters
    ----------
    integers : torch.Tensor
        Its values: int8, uint8 or int32.
    scale, zero_point : float and int, or torch.Tensor
        Of all of it, or of each channel.
    axis : int
        That of the channels, if there are several.
    """
    name = f"_make_per_{'channel' if axis else 'tensor'}_quantized_tensor"
    return _attribute(torch, name)(integers, scale, zero_point, *axis)


def expression_of(size: torch.SymInt | torch.SymFloat | torch.SymBool) -> Any:
    """Return the SymPy expression of a size while a network is exported."""
    return _attribute(_attribute(size, "node"), "expr")


def hint_of(size: int | torch.SymInt) -> int:
    """Return the size of an axis in the example with which a network is exported."""
    if isinstance(size, int):
        return size
    return int(_attribute(_attribute(size, "node"), "hint") or 0)


def is_fixed(size: int | torch.SymInt) -> bool:
    """Return whether a size of an exported program is a constant."""
    return isinstance(size, int) or bool(expression_of(size).is_Integer)


def guard_codes_of(program: torch.export.ExportedProgram) -> list[str]:
    """Return what a program asks of the sizes of its inputs, as expressions of Python."""
    return list(_attribute(program, "_guards_code"))


def with_ones_like_others() -> AbstractContextManager[Any]:
    """Return a context in which an export does not ask whether a size is 1 for PyTorch's own sake.

    PyTorch otherwise asks at most layers, for the order in which memory is laid out, and a program
    then holds for inputs with other sizes only. What the network itself asks stays.
    """
    config = _module("torch.fx.experimental._config")
    context: AbstractContextManager[Any] = _attribute(config, "patch")(backed_size_oblivious=True)
    return context


def has_fast_bfloat16() -> bool:
    """Return whether this processor has native bfloat16; False if PyTorch does not report it."""
    try:
        return bool(_attribute(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")())
    except UnsupportedFeatureError as error:
        logger.info("%s; bfloat16 is not used", error)
        return False


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise _lacks(name) from None


def _attribute(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        owned_by = getattr(owner, "__name__", type(owner).__name__)
        raise _lacks(f"{owned_by}.{name}") from None


def _lacks(what: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"PyTorch {torch.__version__} has no {what}, which this version of nnrcodec needs; "
        "it is known to work with PyTorch 2.13",
        feature=what,
    )
