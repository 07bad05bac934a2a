"""A model as a MATLAB file of version 5: as it stood in the file that it is from, or as matrices.

MATLAB and MatConvNet read this version as well as 7.3.
"""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats.atomic import write_atomically
from nnrcodec.formats.mat.factors import with_factors
from nnrcodec.formats.mat.values import (
    COMPLEX,
    EMPTY,
    Array,
    Cell,
    Struct,
    Text,
    Value,
)
from nnrcodec.formats.widening import widened
from nnrcodec.graph.names import original_name
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.model.source import WrapperError, check_wrapper
from nnrcodec.version import __version__

logger = logging.getLogger(__name__)

_MOST_BYTES = 2**31 - 2**16
"""Of a variable, whose size has 32 bits in this version."""

_HEADER_BYTES = 116
_DTYPES = {
    *("float64", "float32", "bool", *COMPLEX.values()),
    *(f"{u}int{s}" for s in (8, 16, 32, 64) for u in ("", "u")),
}


def save(model: Model, path: Path, _: Limits | None = None) -> None:
    """Write the parameters and buffers of a model.

    Where they are from a MATLAB file, they take their places in what stood around them, and a layer
    of low rank is two layers. Otherwise each is a variable.

    Raises
    ------
    ModelError
        MATLAB has no class for a tensor, there is too much, or a layer of low rank has no place.
    ConfigError
        The file cannot be written, or SciPy is not installed.
    """
    try:
        import scipy.io
    except ImportError:
        raise ConfigError(
            f"{path} needs SciPy, which is not installed: pip install nnrcodec[mat]"
        ) from None
    kept = (t for t in model.tensors.values() if t.role is not Role.CONSTANT)
    tensors = {
        original_name(tensor.name, model.graph): tensor
        for tensor in widened(kept, path, "a MATLAB file", _DTYPES)
    }
    wrapper = None if model.source is None else model.source.wrapper
    if wrapper is not None and wrapper.kind == "mat":
        try:
            check_wrapper(wrapper, tensors)
        except WrapperError as error:
            raise ModelError(f"the wrapper of the model is damaged: {error}") from error
        variables = _variables(wrapper.content, tensors, model)
    else:
        variables = _matrices(tensors, path)
    for name, value in variables.items():
        if _bytes_of(value) > _MOST_BYTES:
            raise ModelError(
                f"{path}: the variable {name!r} has more than the 2 GiB of this kind of file: "
                "write a .h5 or .safetensors file"
            )
    held = io.BytesIO()
    try:
        scipy.io.savemat(held, variables, long_field_names=True, oned_as="column")
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ModelError(f"the tensors do not fit a MATLAB file: {error}") from error
    # the text that SciPy begins a file with has the time of day
    text = f"MATLAB 5.0 MAT-file, written by nnrcodec {__version__}".encode()
    held.seek(0)
    held.write(text.ljust(_HEADER_BYTES)[:_HEADER_BYTES])
    write_atomically(path, lambda file: file.write(held.getbuffer()))


def _matrices(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Return all tensors as variables, under names that MATLAB can have."""
    taken: dict[str, str] = {}
    for name in tensors:
        base = re.sub(r"[^A-Za-z0-9_]", "_", name)
        base = (base if base[:1].isalpha() else f"x{base}")[:50]
        variable, number = base, 0
        while variable in taken:
            number += 1
            variable = f"{base}_{number}"
        taken[variable] = name
    changed = [(variable, name) for variable, name in taken.items() if variable != name]
    if changed:
        logger.warning(
            "%s: %d names are none of MATLAB, such as %r, which is the variable %r",
            path.name,
            len(changed),
            changed[0][1],
            changed[0][0],
        )
    return {variable: np.asarray(tensors[name].read()) for variable, name in taken.items()}


def _variables(content: Any, tensors: dict[str, Tensor], model: Model) -> dict[str, Any]:
    """Return what a wrapper describes, with the tensors in their places."""
    reader = _Reader(tensors)
    root = with_factors(reader.value(content), reader, model)
    if not isinstance(root, Struct) or root.dims != (1, 1):
        raise ModelError("the wrapper of the model is damaged: it has no variables")
    unused = [name for name in tensors if name not in reader.used]
    result = {name: _written(values[0]) for name, values in root.fields.items()}
    if unused:
        rest = _matrices({name: tensors[name] for name in unused}, Path("the file"))
        fresh = {name: value for name, value in rest.items() if name not in result}
        result.update(fresh)
        logger.warning(
            "tensors without a place in the file that was encoded are variables of their own: %s",
            ", ".join(map(repr, unused[:10])),
        )
    return result


class _Reader:
    """Makes values of the nodes of a wrapper, and remembers which array is which tensor."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.used: set[str] = set()
        self.places: dict[int, tuple[Array, list[Any]]] = {}

    def value(self, node: Any) -> Value:
        """Return the value of a checked node."""
        match node:
            case ["struct", dims, names, nodes]:
                count = math.prod(dims)
                return Struct(
                    tuple(dims),
                    {
                        name: [self.value(n) for n in nodes[i * count : (i + 1) * count]]
                        for i, name in enumerate(names)
                    },
                )
            case ["cell", dims, nodes]:
                return Cell(tuple(dims), [self.value(inner) for inner in nodes])
            case ["text", dims, text]:
                return Text(tuple(dims), text)
            case ["numbers", dtype, dims, numbers]:
                return _array(dtype, tuple(dims), numbers)
            case ["tensor" | "filter" | "vector" | "moments", *_]:
                return self.placed(node)
        return EMPTY

    def placed(self, node: list[Any]) -> Array:
        """Return the array for tensors, empty if they are not there."""
        tag, name, *rest = node
        names = [name, rest[0]] if tag == "moments" else [name]
        found = [self.tensors[n] for n in names if n in self.tensors]
        if len(found) < len(names):
            array = Array((0, 0), "float32", lambda: np.zeros((0, 0), np.float32))
        else:
            self.used.update(names)
            values = np.asarray(found[0].read())
            if tag == "filter" and values.ndim == 4:
                values = values.transpose(2, 3, 1, 0)
            elif tag == "vector":
                values = values.reshape((1, -1) if rest[0] else (-1, 1))
            elif tag == "moments":
                values = _moments(found, rest[1])
            array = Array.of(values if values.ndim > 1 else values.reshape(-1, 1))
        self.places[id(array)] = array, node
        return array


def _moments(found: list[Tensor], epsilon: float) -> np.ndarray:
    mean, variance = (tensor.read().reshape(-1) for tensor in found)
    if mean.size != variance.size:
        raise ModelError(f"{found[0].name!r} and {found[1].name!r} differ in size")
    sigma = np.sqrt(np.maximum(variance.astype(np.float64) + epsilon, 0))
    return np.stack([mean, sigma.astype(mean.dtype)], axis=1)


def _array(dtype: str, dims: tuple[int, ...], numbers: list[Any]) -> Array:
    if dtype.startswith(("float", "complex")):
        real = np.array([float(number) for number in numbers], np.float64)
        if dtype.startswith("complex"):
            real = np.ascontiguousarray(real).view(np.complex128)
        values = real.astype(dtype)
    else:
        values = np.array(numbers, dtype)
    return Array(dims, dtype, lambda: values.reshape(dims, order="F"))


def _written(value: Value) -> Any:
    """Return a value as SciPy writes it."""
    if isinstance(value, Array):
        return value.read()
    if isinstance(value, Text):
        if len(value.dims) == 2 and value.dims[0] == 1:
            return np.array([value.text]) if value.text else ""
        rows = np.array(list(value.text), "U1")
        return rows.reshape(value.dims, order="F") if rows.size else np.zeros(value.dims, "U1")
    if isinstance(value, Cell):
        return _objects(value.items, value.dims)
    if isinstance(value, Struct):
        if not value.fields:
            return {}
        result = np.empty(value.dims, [(name, object) for name in value.fields])
        for name, values in value.fields.items():
            result[name] = _objects(values, value.dims)
        return result
    return np.zeros((0, 0))


def _objects(values: list[Value], dims: tuple[int, ...]) -> np.ndarray:
    flat = np.empty(len(values), object)
    for index, value in enumerate(values):
        flat[index] = _written(value)
    return flat.reshape(dims, order="F")


def _bytes_of(value: Any) -> int:
    if isinstance(value, np.ndarray):
        if value.dtype == object or value.dtype.names:
            parts = value.reshape(-1).tolist()
            inner = (part for row in parts for part in (row if isinstance(row, tuple) else (row,)))
            return 64 + sum(map(_bytes_of, inner))
        return 64 + value.nbytes
    return 64 + len(value)
