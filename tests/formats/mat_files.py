"""MATLAB files for tests: values of Python written as MATLAB writes them, in both kinds of files.

Structs are dicts, arrays of structs lists of dicts, cells tuples.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

_NUMBERS = itertools.count()


def write(path: Path, variables: dict[str, Any], version: str = "5") -> Path:
    """Write a file of version 5 (SciPy), 7 (with compression) or 7.3 (h5py)."""
    if version == "7.3":
        _write_hdf5(path, variables)
    else:
        values = {name: _for_scipy(value) for name, value in variables.items()}
        scipy.io.savemat(path, values, do_compression=version == "7", long_field_names=True)
    return path


def _is_array_of_structs(value: Any) -> bool:
    return isinstance(value, list) and isinstance(value[0], dict)


def _for_scipy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _for_scipy(part) for name, part in value.items()}
    if _is_array_of_structs(value):
        array = np.empty((1, len(value)), [(name, object) for name in value[0]])
        for index, element in enumerate(value):
            for name, part in element.items():
                array[0, index][name] = _for_scipy(part)
        return array
    if isinstance(value, tuple):
        cell = np.empty((1, len(value)), object)
        for index, part in enumerate(value):
            cell[0, index] = _for_scipy(part)
        return cell
    return value if isinstance(value, str) else np.atleast_2d(value)


def _write_hdf5(path: Path, variables: dict[str, Any]) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            _store(file, name, value)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def _store(group: Any, name: str, value: Any) -> None:
    if isinstance(value, dict):
        struct = group.create_group(name)
        struct.attrs["MATLAB_class"] = np.bytes_("struct")
        letters = np.empty(len(value), object)
        for index, field in enumerate(value):
            letters[index] = np.array([c.encode() for c in field], "S1")
            _store(struct, field, value[field])
        struct.attrs.create("MATLAB_fields", letters, dtype=h5py.vlen_dtype(np.dtype("S1")))
    elif _is_array_of_structs(value):
        struct = group.create_group(name)
        struct.attrs["MATLAB_class"] = np.bytes_("struct")
        for field in value[0]:
            parts = [_referred(group.file, element[field]) for element in value]
            struct.create_dataset(field, data=np.array([[p] for p in parts], h5py.ref_dtype))
    elif isinstance(value, tuple) and value:
        parts = [[_referred(group.file, part)] for part in value]
        cell = group.create_dataset(name, data=np.array(parts, h5py.ref_dtype))
        cell.attrs["MATLAB_class"] = np.bytes_("cell")
    else:
        _store_array(group, name, value)


def _referred(file: Any, value: Any) -> Any:
    refs = file.require_group("#refs#")
    name = f"r{next(_NUMBERS)}"
    _store(refs, name, value)
    return refs[name].ref


def _store_array(group: Any, name: str, value: Any) -> None:
    if isinstance(value, str):
        kind, array = "char", np.frombuffer(value.encode("utf-16-le"), "<u2").reshape(1, -1)
    else:
        array = np.atleast_2d(() if isinstance(value, tuple) else value)
        kind = {"float64": "double", "float32": "single", "bool": "logical"}.get(
            array.dtype.name, array.dtype.name
        )
        kind = "cell" if isinstance(value, tuple) else kind
    if array.dtype.kind == "c":
        kind, parts = "double", [("real", "f8"), ("imag", "f8")]
        array = np.ascontiguousarray(array).view(parts)
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.size == 0:
        entry = group.create_dataset(name, data=np.array(array.shape, "u8"))
        entry.attrs["MATLAB_empty"] = np.uint8(1)
    else:
        stored = array.astype("u1") if kind == "logical" else array
        entry = group.create_dataset(name, data=stored.T)
    entry.attrs["MATLAB_class"] = np.bytes_(kind)
