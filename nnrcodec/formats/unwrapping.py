"""A wrapper with tensors in it as values of Python and PyTorch, as they stood in the file."""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nnrcodec.model.source import WrapperError, members_of, prefixes_of, tensors_named

if TYPE_CHECKING:
    import torch

LEFT_OUT = object()
"""Stands for an entry that was not coded."""


def unwrapped(content: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Return the values that a wrapper of kind torch describes.

    Parameters
    ----------
    content : JSON value
        Of the wrapper, checked.
    tensors : mapping of str to torch.Tensor
        All tensors, by the names that the wrapper uses.

    Raises
    ------
    WrapperError
        Bytes in it are damaged.
    """
    alone = set(tensors_named(content))
    members = members_of(prefixes_of(content), (name for name in tensors if name not in alone))
    return _Builder(tensors, members).build(content)


class _Builder:
    def __init__(
        self, tensors: Mapping[str, torch.Tensor], members: Mapping[str, list[str]]
    ) -> None:
        self._tensors, self._members = tensors, members

    def build(self, node: Any) -> Any:
        """Return the value of a node."""
        if not isinstance(node, list):
            return node
        tag, *items = node
        return _BUILDERS[tag](self, items)

    def items(self, items: list[Any]) -> list[Any]:
        """Return values, without those that were left out."""
        built = (self.build(item) for item in items)
        return [value for value in built if value is not LEFT_OUT]

    def mapping(self, items: list[Any]) -> dict[Any, Any]:
        pairs = (
            (self.build(k), self.build(v)) for k, v in zip(items[::2], items[1::2], strict=True)
        )
        return {key: value for key, value in pairs if value is not LEFT_OUT}

    def ordered(self, items: list[Any]) -> OrderedDict[Any, Any]:
        return _with_versions(OrderedDict(self.mapping(items[1:])), items[0])

    def tensors(self, items: list[Any]) -> dict[str, torch.Tensor]:
        kind, prefix, versions = items
        state = {name[len(prefix) :]: self._tensors[name] for name in self._members[prefix]}
        return state if kind == "dict" else _with_versions(OrderedDict(state), versions)

    def tensor(self, items: list[Any]) -> torch.Tensor:
        return self._tensors[items[0]]

    def array(self, items: list[Any]) -> Any:
        return self._tensors[items[0]].numpy()

    def parts(self, items: list[Any]) -> list[Any]:
        """Return items with tensors in place of their names."""
        return [self._tensors[item] if isinstance(item, str) else item for item in items]

    def quantized(self, items: list[Any]) -> Any:
        from nnrcodec.graph.torch_internals import quantized_tensor

        values, *how = self.parts(items[1:])
        return quantized_tensor(values, *how)


def _with_versions(
    state: OrderedDict[Any, Any], versions: Mapping[str, int] | None
) -> OrderedDict[Any, Any]:
    if versions is not None:
        state._metadata = OrderedDict(  # type: ignore[attr-defined]
            (name, {"version": version}) for name, version in versions.items()
        )
    return state


def _bytes(_: _Builder, items: list[Any]) -> bytes:
    try:
        return base64.b64decode(items[0], validate=True)
    except binascii.Error as error:
        raise WrapperError(f"bytes that are damaged: {error}") from error


def _torch(make: str) -> Callable[[_Builder, list[Any]], Any]:
    def build(_: _Builder, items: list[Any]) -> Any:
        import torch

        if make == "Size":
            return torch.Size(items)
        return torch.device(items[0]) if make == "device" else getattr(torch, items[0])

    return build


_BUILDERS: Mapping[str, Callable[[_Builder, list[Any]], Any]] = {
    "list": _Builder.items,
    "tuple": lambda builder, items: tuple(builder.items(items)),
    "set": lambda builder, items: set(builder.items(items)),
    "dict": _Builder.mapping,
    "OrderedDict": _Builder.ordered,
    "tensors": _Builder.tensors,
    "tensor": _Builder.tensor,
    "array": _Builder.array,
    "quantized": _Builder.quantized,
    "float": lambda _, items: float(items[0]),
    "complex": lambda _, items: complex(*items),
    "bytes": _bytes,
    "Size": _torch("Size"),
    "dtype": _torch("dtype"),
    "device": _torch("device"),
    "left_out": lambda _, __: LEFT_OUT,
}
