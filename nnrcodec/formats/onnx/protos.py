"""ONNX files as protos: the package, reading with bounds, external data, and the values of tensors.

Parsing a proto runs no code. Files that it names are read only from its own folder.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats.reading import open_regular
from nnrcodec.model.dtypes import DTYPES, from_little_endian, item_bytes, to_little_endian

MAX_PROTO_BYTES = 2**31 - 1
"""The largest proto that can be written or read."""

MAX_DIMENSIONS = 16
"""Most dimensions of a tensor."""

ELEMENT_TYPES: Mapping[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
"""TensorProto.DataType, by number, of the dtypes that tensors of a model may have."""

_CHUNK = 2**16

EXTERNAL = 1
"""TensorProto.DataLocation of values in another file."""

_TYPED_FIELDS = (
    *("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data"),
)
_FIELD_OF = {
    "float32": "float_data",
    "float64": "double_data",
    "int64": "int64_data",
    "uint32": "uint64_data",
    "uint64": "uint64_data",
}
"""Where typed values of a dtype stand; those of all others in int32_data."""


def package() -> Any:
    """Return the onnx package.

    Raises
    ------
    ConfigError
        It is not installed.
    """
    try:
        return importlib.import_module("onnx")
    except ImportError:
        raise ConfigError(
            "ONNX files need the onnx package: pip install 'nnrcodec[onnx]'"
        ) from None


def parse(data: bytes, what: object) -> Any:
    """Return the ModelProto in `data`.

    Raises
    ------
    ModelError
        It is none.
    """
    proto = package().ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # whatever the parser of protobuf happens to raise
        raise ModelError(f"{what} is damaged or not an ONNX file: {error}") from error
    if not proto.HasField("graph") or not proto.opset_import:
        raise ModelError(f"{what} is damaged or not an ONNX file: it has no graph")
    return proto


def read(path: Path) -> tuple[Any, bytes]:
    """Return the ModelProto in a file, and the bytes of the file.

    Raises
    ------
    ConfigError, ModelError
        The file cannot be read, is too large, or is none of ONNX.
    """
    with open_regular(path) as file:
        try:
            data = file.read(MAX_PROTO_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_PROTO_BYTES:
        raise ModelError(f"{path} has more than {MAX_PROTO_BYTES} bytes, as no ONNX file can have")
    return parse(data, path), data


def serialized(proto: Any) -> bytes:
    """Return the bytes of a proto, always the same for the same content.

    Raises
    ------
    ModelError
        There are more than a proto can have.
    """
    try:
        return bytes(proto.SerializeToString(deterministic=True))
    except Exception as error:  # protobuf has several for a proto that is too large
        raise ModelError(f"this ONNX model cannot be written as one file: {error}") from error


def dtype_of(tensor: Any) -> str | None:
    """Return the dtype of a TensorProto, None for one that the model cannot have."""
    return ELEMENT_TYPES.get(tensor.data_type)


def shape_of(tensor: Any) -> tuple[int, ...]:
    """Return the dimensions of a TensorProto.

    Raises
    ------
    ModelError
        They are those of no tensor.
    """
    shape = tuple(tensor.dims)
    if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape) or math.prod(shape) >= 2**63:
        raise ModelError(f"tensor {tensor.name!r} has dimensions {list(shape)[:20]}")
    return shape


def is_empty(tensor: Any) -> bool:
    """Return whether a TensorProto has no values, though its shape needs some."""
    has_values = tensor.raw_data or any(getattr(tensor, field) for field in _TYPED_FIELDS)
    return not has_values and tensor.data_location != EXTERNAL and math.prod(tensor.dims) > 0


def values_of(tensor: Any) -> np.ndarray:
    """Return the values of a TensorProto of one of `ELEMENT_TYPES`, dtype as in `DTYPES`.

    Raises
    ------
    ModelError
        There are more or fewer than its dimensions say.
    """
    dtype, shape = dtype_of(tensor), shape_of(tensor)
    if dtype is None:
        raise ModelError(f"tensor {tensor.name!r} has the element type {tensor.data_type}")
    if tensor.data_location == EXTERNAL:
        raise ModelError(f"the values of tensor {tensor.name!r} are in another file")
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) == math.prod(shape) * item_bytes(dtype):
            return from_little_endian(memoryview(tensor.raw_data), dtype, shape)
    else:
        typed = getattr(tensor, _FIELD_OF.get(dtype, "int32_data"))
        if len(typed) == math.prod(shape):
            return _of_typed(np.array(typed), dtype).reshape(shape)
    raise ModelError(f"tensor {tensor.name!r} has not as many values as its shape {list(shape)}")


def _of_typed(typed: np.ndarray, dtype: str) -> np.ndarray:
    if dtype in ("float16", "bfloat16"):  # the bits, in integers
        bits = typed.astype(np.uint16).astype("<u2").tobytes()
        return from_little_endian(memoryview(bits), dtype, typed.shape)
    return typed.astype(DTYPES[dtype])


def clear_values(tensor: Any) -> None:
    """Take the values out of a TensorProto; an empty raw_data says that they were there."""
    was_raw = tensor.HasField("raw_data")
    for field in ("raw_data", *_TYPED_FIELDS):
        tensor.ClearField(field)
    if was_raw:
        tensor.raw_data = b""


def set_values(tensor: Any, values: np.ndarray, dtype: str) -> None:
    """Put values into a TensorProto that `clear_values` has emptied, in the field of before."""
    data = to_little_endian(values, dtype)
    if tensor.HasField("raw_data"):
        tensor.raw_data = data.tobytes()
        return
    field = getattr(tensor, _FIELD_OF.get(dtype, "int32_data"))
    if dtype == "float16":
        data = data.view("<u2")
    flat = data.ravel()
    for start in range(0, flat.size, _CHUNK):  # numbers of Python take many times their memory
        field.extend(flat[start : start + _CHUNK].tolist())


def load_external(tensors: Iterable[Any], path: Path) -> int:
    """Put the values of tensors that are in other files into the proto; return how many there are.

    Parameters
    ----------
    tensors : iterable of TensorProto
        Of the file.
    path : Path
        The file. Only files in its own folder are read.

    Raises
    ------
    ModelError
        Values are to be read from elsewhere, or are not there.
    """
    count = 0
    for tensor in tensors:
        if tensor.data_location != EXTERNAL:
            continue
        tensor.raw_data = _external_values(tensor, path)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        count += 1
    return count


def _external_values(tensor: Any, path: Path) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    dtype = dtype_of(tensor)
    if dtype is None:
        raise ModelError(
            f"tensor {tensor.name!r} has the element type {tensor.data_type} and its values in "
            "another file; put them into the ONNX file (onnx.save without external data)"
        )
    if location in ("", ".", "..") or not set("/\\:\0").isdisjoint(location):
        raise ModelError(
            f"tensor {tensor.name!r} has its values in {location!r}; only files in the folder of "
            f"{path} are read"
        )
    beside = path.parent / location
    if beside.is_symlink():
        raise ModelError(f"tensor {tensor.name!r} has its values in {location!r}, which is a link")
    size = math.prod(shape_of(tensor)) * item_bytes(dtype)
    offset, length = (_whole(entries, key, tensor) for key in ("offset", "length"))
    if length not in (None, size):
        raise ModelError(f"tensor {tensor.name!r} needs {size} bytes, {length} are declared")
    try:
        with open_regular(beside) as file:
            end = file.seek(0, 2)
            if (offset or 0) + size > end:
                raise ModelError(f"{beside} ends before the values of tensor {tensor.name!r}")
            file.seek(offset or 0)
            return file.read(size)
    except OSError as error:
        raise ConfigError(f"cannot read {beside}: {error.strerror}") from error


def _whole(entries: Mapping[str, str], key: str, tensor: Any) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ModelError(f"tensor {tensor.name!r} has the {key} {text[:40]!r} in another file")
    return int(text)


def tensors_in(proto: Any) -> Iterator[Any]:
    """Yield all dense tensors of a ModelProto, those of subgraphs and functions included."""
    stack: list[Any] = [proto.graph, *proto.functions]
    while stack:
        graph = stack.pop()
        yield from getattr(graph, "initializer", ())
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                if attribute.HasField("g"):
                    stack.append(attribute.g)
                stack.extend(attribute.graphs)
