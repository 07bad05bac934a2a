"""``.safetensors``: named tensors, and texts by name."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open

from nnrcodec.errors import ModelError
from nnrcodec.formats.atomic import write_atomically
from nnrcodec.formats.reading import require_no_key
from nnrcodec.graph.names import original_name
from nnrcodec.limits import Limits
from nnrcodec.model.dtypes import COMPUTED_DTYPES, item_bytes
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.model.source import MOST_BYTES, LeftOut, Source, Wrapper
from nnrcodec.model.torch_values import from_torch

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
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "complex64": "C64",
}
_MOST_DIMENSIONS = 64
"""Of arrays of NumPy."""

_DTYPES = {code: dtype for dtype, code in _CODES.items()}


def load(path: Path, key: str | None = None) -> Model:
    """Read the header of a safetensors file; tensors are read one by one when asked for.

    Raises
    ------
    ModelError
        The file is damaged.
    ConfigError
        A key is given: there are no entries to choose from.
    """
    require_no_key(path, key)

    @cache
    def opened(framework: str) -> Any:
        return safe_open(path, framework=framework)

    def tensor(name: str, code: str, shape: tuple[int, ...]) -> Tensor:
        dtype = _DTYPES[code]
        if dtype not in COMPUTED_DTYPES or dtype == "bfloat16":  # numpy has none of them
            return replace(
                from_torch(name, opened("pt").get_tensor(name).cpu()),
                read=lambda: from_torch(name, opened("pt").get_tensor(name)).read(),
            )
        return Tensor(name, dtype, shape, lambda: opened("np").get_tensor(name))

    try:
        headers = {name: opened("np").get_slice(name) for name in opened("np").keys()}  # noqa: SIM118
        metadata = opened("np").metadata()
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or cut short: {error}") from error
    for name, header in headers.items():
        if len(header.get_shape()) > _MOST_DIMENSIONS:
            raise ModelError(
                f"{path}: tensor {name!r} has {len(header.get_shape())} dimensions, at most "
                f"{_MOST_DIMENSIONS} are possible"
            )
    known = {name: header for name, header in headers.items() if header.get_dtype() in _DTYPES}
    left_out = tuple(
        LeftOut(
            name,
            f"a tensor of dtype {header.get_dtype()}",
            "this version does not know it",
        )
        for name, header in headers.items()
        if name not in known
    )
    if not known:
        raise ModelError(f"{path} holds no tensors of a known dtype")
    wrapper = None if metadata is None else Wrapper("safetensors", dict(sorted(metadata.items())))
    if len(json.dumps(metadata)) > MOST_BYTES:
        reason = f"more than the {MOST_BYTES} bytes that are kept"
        left_out += (LeftOut("__metadata__", "metadata", reason),)
        wrapper = None
    return Model.of(
        (
            tensor(name, header.get_dtype(), tuple(header.get_shape()))
            for name, header in known.items()
        ),
        source=Source(wrapper=wrapper, left_out=left_out),
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
    wrapper = None if model.source is None else model.source.wrapper
    metadata = wrapper.content if wrapper is not None and wrapper.kind == "safetensors" else None
    write_atomically(path, lambda file: _write(file, tensors, metadata))


def _write(file: BinaryIO, tensors: list[Tensor], metadata: object) -> None:
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for tensor in tensors:
        if tensor.name == "__metadata__":
            raise ModelError("a safetensors file cannot hold a tensor named '__metadata__'")
        if tensor.dtype not in _CODES:
            raise ModelError(
                f"a safetensors file cannot hold tensor {tensor.name!r} of {tensor.dtype}: a .pt "
                "file can"
            )
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
        file.write(tensor.little_endian().data)
