"""``.safetensors``: bare named tensors."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open

from nnrcodec.errors import ModelError
from nnrcodec.formats.atomic import write_atomically
from nnrcodec.graph.names import original_name
from nnrcodec.limits import Limits
from nnrcodec.model.dtypes import item_bytes, to_little_endian
from nnrcodec.model.model import Model, Role, Tensor

_CODES = {
    "float32": "F32",
    "float64": "F64",
    "float16": "F16",
    "bfloat16": "BF16",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "bool": "BOOL",
}
_DTYPES = {code: dtype for dtype, code in _CODES.items()}


def load(path: Path) -> Model:
    """Read the header of a safetensors file; tensors are read one by one when asked for.

    Raises
    ------
    ModelError
        The file is damaged, or a tensor has a dtype that cannot be coded.
    """

    @cache
    def opened(framework: str) -> Any:
        return safe_open(path, framework=framework)

    def tensor(name: str, code: str, shape: tuple[int, ...]) -> Tensor:
        if code not in _DTYPES:
            raise ModelError(
                f"tensor {name!r} of {path} has dtype {code}, which cannot be coded; known are "
                f"{', '.join(_DTYPES)}"
            )
        if code == "BF16":  # numpy has none: PyTorch reads it and widens it, exactly
            return Tensor(
                name, "bfloat16", shape, lambda: opened("pt").get_tensor(name).float().numpy()
            )
        return Tensor(name, _DTYPES[code], shape, lambda: opened("np").get_tensor(name))

    try:
        headers = {name: opened("np").get_slice(name) for name in opened("np").keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged or not a safetensors file: {error}") from error
    return Model.of(
        tensor(name, header.get_dtype(), tuple(header.get_shape()))
        for name, header in headers.items()
    )


def save(model: Model, path: Path, _: Limits | None = None) -> None:
    """Write the parameters and buffers of a model, holding one tensor in memory at a time.

    (The writer of the safetensors package holds them all, and refuses arrays that share memory.)

    Raises
    ------
    ConfigError
        The file cannot be written.
    ModelError
        A tensor has a name that the format keeps for itself.
    """
    tensors = [
        replace(tensor, name=original_name(tensor.name, model.graph))
        for tensor in model.tensors.values()
        if tensor.role is not Role.CONSTANT
    ]
    # Wide elements first, as the format advises: then every tensor is aligned.
    tensors.sort(key=lambda tensor: -item_bytes(tensor.dtype))
    write_atomically(path, lambda file: _write(file, tensors))


def _write(file: BinaryIO, tensors: list[Tensor]) -> None:
    header: dict[str, object] = {}
    end = 0
    for tensor in tensors:
        if tensor.name == "__metadata__":
            raise ModelError("a safetensors file cannot hold a tensor named '__metadata__'")
        start, end = end, end + tensor.stored_bytes
        header[tensor.name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for tensor in tensors:
        file.write(to_little_endian(tensor.read(), tensor.dtype).data)
