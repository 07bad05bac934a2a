"""``.npz`` and ``.npy``: arrays of NumPy, such as weights of other frameworks.

Arrays of objects, which are pickles, are never read.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from nnrcodec.errors import ModelError
from nnrcodec.formats.atomic import write_atomically
from nnrcodec.formats.reading import open_regular, require_no_key
from nnrcodec.formats.torch_file import FREE_INFLATED, INFLATED
from nnrcodec.formats.widening import widened
from nnrcodec.graph.names import original_name
from nnrcodec.limits import Limits
from nnrcodec.messages import some
from nnrcodec.model.dtypes import DTYPES
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.model.source import LeftOut, Source


def load_archive(path: Path, key: str | None = None) -> Model:
    """Read the arrays of a ``.npz`` file, by their names.

    Raises
    ------
    ModelError
        It is damaged, or has no arrays of numbers.
    ConfigError
        A key is given.
    """
    require_no_key(path, key)
    tensors, left_out, otherwise = [], [], list[str]()
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if info.file_size > max(FREE_INFLATED, INFLATED * info.compress_size):
                    raise ValueError(f"{info.filename} is compressed to far less than its size")
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as entry:
                    read = _reader(path, info.filename)
                    tensor = _tensor(name, entry, read, info.file_size, otherwise)
                if isinstance(tensor, LeftOut):
                    left_out.append(tensor)
                else:
                    tensors.append(tensor)
    except Exception as error:  # whatever the parser of headers happens to raise
        raise ModelError(f"{path} is damaged: {error}") from error
    return _model(path, tensors, left_out, otherwise)


def load_array(path: Path, key: str | None = None) -> Model:
    """Read the array of a ``.npy`` file, named ``array``; errors as of `load_archive`."""
    require_no_key(path, key)

    def read() -> np.ndarray:
        with open_regular(path) as again:
            return npy.read_array(again, allow_pickle=False)

    otherwise = list[str]()
    try:
        with open_regular(path) as file:
            tensor = _tensor("array", file, read, path.stat().st_size, otherwise)
    except Exception as error:  # whatever the parser of headers happens to raise
        raise ModelError(f"{path} is damaged: {error}") from error
    if isinstance(tensor, LeftOut):
        return _model(path, [], [tensor], otherwise)
    return _model(path, [tensor], [], otherwise)


def save_archive(model: Model, path: Path, _: Limits | None = None) -> None:
    """Write the parameters and buffers of a model as a ``.npz`` file.

    Raises
    ------
    ModelError
        A tensor has a dtype that NumPy lacks.
    ConfigError
        The file cannot be written.
    """
    kept = (t for t in model.tensors.values() if t.role is not Role.CONSTANT)
    tensors = widened(kept, path, "a NumPy file")

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for tensor in tensors:
                held = io.BytesIO()
                npy.write_array(held, np.asarray(tensor.read()), allow_pickle=False)
                name = f"{original_name(tensor.name, model.graph)}.npy"
                archive.writestr(zipfile.ZipInfo(name), held.getvalue())

    write_atomically(path, write)


def save_array(model: Model, path: Path, _: Limits | None = None) -> None:
    """Write the one tensor of a model as a ``.npy`` file.

    Raises
    ------
    ModelError
        There are several, or it has a dtype that NumPy lacks.
    ConfigError
        The file cannot be written.
    """
    tensors = [t for t in model.tensors.values() if t.role is not Role.CONSTANT]
    if len(tensors) != 1:
        raise ModelError(
            f"a .npy file holds one array, and there are {len(tensors)} tensors: a .npz file can "
            "hold them"
        )
    (tensor,) = widened(tensors, path, "a NumPy file")

    def write(file: BinaryIO) -> None:
        npy.write_array(file, np.asarray(tensor.read()), allow_pickle=False)

    write_atomically(path, write)


def _model(
    path: Path, tensors: list[Tensor], left_out: list[LeftOut], otherwise: list[str]
) -> Model:
    if not tensors:
        raise ModelError(f"{path} holds no arrays of numbers")
    notes = []
    if otherwise:
        notes.append(
            "what is big-endian or in Fortran order comes back little-endian and in C order, with "
            f"the same values: {some(otherwise)}"
        )
    return Model.of(tensors, source=Source(left_out=tuple(left_out), notes=tuple(notes)))


def _reader(path: Path, name: str) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with zipfile.ZipFile(path) as archive, archive.open(name) as entry:
            return npy.read_array(entry, allow_pickle=False)

    return read


def _tensor(
    name: str,
    file: Any,
    read: Callable[[], np.ndarray],
    file_bytes: int,
    otherwise: list[str],
) -> Tensor | LeftOut:
    """Return the tensor of an array; where it is stored otherwise than written, add its name."""
    version = npy.read_magic(file)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = header(file)
    if dtype.hasobject or dtype.name not in DTYPES:
        return LeftOut(name, f"an array of dtype {dtype.name}", "only numbers are coded")
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > file_bytes:
        raise ValueError(f"{name} ends before its values do")

    is_big_endian = dtype.newbyteorder("<") != dtype
    if is_big_endian or (is_fortran and len(shape) > 1):
        otherwise.append(repr(name))

    def native() -> np.ndarray:
        try:
            values = read()
        except Exception as error:  # as above
            raise ModelError(f"{name!r} is damaged: {error}") from error
        return np.ascontiguousarray(values, dtype.newbyteorder("=")).reshape(shape)

    return Tensor(name, dtype.name, tuple(shape), native)
