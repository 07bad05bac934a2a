"""MATLAB files of version 7.3, which are HDF5: references for cells, and attributes for classes.

Dimensions of datasets are those of MATLAB in reverse. A struct is a group; an array of structs a
group of datasets of references, without the attribute that says that they are cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats.hdf5_readable import most_bytes_of, require_readable
from nnrcodec.formats.mat.values import (
    CLASSES,
    COMPLEX,
    EMPTY,
    MOST_DIMS,
    Array,
    Cell,
    Counter,
    Other,
    Struct,
    Text,
    Value,
    complex_of,
)

_MOST_CHARACTERS = 2**24


def read(path: Path) -> Struct:
    """Return the variables of a file, as a struct; numbers stay in the file until they are read.

    Raises
    ------
    ModelError
        It is damaged, or has too much in it.
    ConfigError
        h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise ConfigError(
            f"{path} needs h5py, which is not installed: pip install nnrcodec[mat]"
        ) from None
    require_readable(path)
    try:
        with h5py.File(path, "r") as file:
            return _File(path, file).variables()
    except ModelError:
        raise
    except Exception as error:  # h5py raises many kinds for files that are damaged
        raise ModelError(f"{path} is damaged or cut short: {error}") from error


class _File:
    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file
        self._counter = Counter(path)
        self._seen: set[int] = set()
        self._bytes_left = most_bytes_of(path.stat().st_size)

    def variables(self) -> Struct:
        return Struct((1, 1), {name: [value] for name, value in self._members(self._file, 0)})

    def _members(self, group: Any, depth: int) -> Iterator[tuple[str, Value]]:
        import h5py

        names = _field_names(group)
        if set(names) != set(group):
            names = list(group)
        for name in names:
            if name.startswith("#"):
                continue
            if isinstance(group.get(name, getlink=True), h5py.HardLink):
                yield name, self._value(group[name], depth)
            else:
                yield name, Other("a link to somewhere else")

    def _value(self, entry: Any, depth: int) -> Value:
        import h5py

        self._counter.note(depth)
        word = entry.attrs.get("MATLAB_class", b"")
        kind = word.decode("latin-1") if isinstance(word, bytes) else str(word)
        if isinstance(entry, h5py.Group):
            if "MATLAB_sparse" in entry.attrs:
                return Other("a sparse matrix")
            if kind not in ("struct", ""):
                return Other(f"a {kind} object"[:100])
            self._once(entry)
            return self._struct(entry, depth)
        if not isinstance(entry, h5py.Dataset) or entry.shape is None:
            return Other("something without values")
        if len(entry.shape) > MOST_DIMS:
            raise ModelError(f"{self._path} has an array of {len(entry.shape)} dimensions")
        if entry.external or entry.is_virtual:
            return Other("an array in another file")
        if kind == "canonical empty":
            return EMPTY
        if "MATLAB_empty" in entry.attrs:
            return _empty(kind, entry)
        if h5py.check_ref_dtype(entry.dtype) is not None:
            self._once(entry)
            return Cell(_dims(entry), self._targets(entry, depth))
        return self._text(entry) if kind == "char" else self._array(entry, kind)

    def _once(self, entry: Any) -> None:
        """Raise if a struct or cell is in two places, as in a loop; MATLAB writes each once."""
        import h5py

        address = h5py.h5o.get_info(entry.id).addr
        if address in self._seen:
            raise ModelError(f"{self._path} is damaged: it has one struct or cell in two places")
        self._seen.add(address)

    def _struct(self, group: Any, depth: int) -> Struct:
        arrays = [entry for name in group if _is_array_of_structs(entry := group.get(name))]
        if arrays and len(arrays) == len(group) and len({entry.shape for entry in arrays}) == 1:
            names = _field_names(group)
            names = names if set(names) == set(group) else list(group)
            return Struct(
                _dims(arrays[0]), {name: self._targets(group[name], depth) for name in names}
            )
        return Struct((1, 1), {n: [value] for n, value in self._members(group, depth + 1)})

    def _targets(self, entry: Any, depth: int) -> list[Value]:
        self._counter.note(depth, entry.size)
        return [
            self._value(self._file[reference], depth + 1) if reference else EMPTY
            for reference in np.asarray(entry[()]).reshape(-1)
        ]

    def _take(self, entry: Any) -> None:
        """Raise if a file has far more values than bytes."""
        self._bytes_left -= entry.size * entry.dtype.itemsize
        if self._bytes_left < 0:
            raise ModelError(f"{self._path} is damaged: it has far more values than bytes")

    def _text(self, entry: Any) -> Value:
        self._take(entry)
        if entry.dtype.kind not in "iu" or entry.size > _MOST_CHARACTERS:
            return Other("characters of an unknown kind")
        values = np.asarray(entry[()]).reshape(-1)
        text = values.astype("<u2").tobytes().decode("utf-16-le", errors="replace")
        return Text(_dims(entry) if len(text) == values.size else (1, len(text)), text)

    def _array(self, entry: Any, kind: str) -> Value:
        self._take(entry)
        name = _dtype(entry.dtype, kind)
        if name is None:
            return Other(f"an array of the class {kind or entry.dtype}"[:100])
        dims, where, path = _dims(entry), entry.name, self._path

        def values() -> np.ndarray:
            import h5py

            try:
                with h5py.File(path, "r") as file:
                    numbers = np.asarray(file[where][()])
            except Exception as error:  # as in `read`
                raise ModelError(f"{path} is damaged: {error}") from error
            if numbers.dtype.names:
                numbers = complex_of(numbers["real"], numbers["imag"])
            reverse = numbers.T.astype(name)
            return np.ascontiguousarray(reverse.reshape(dims, order="F"))

        return Array(dims, name, values)


def _dtype(stored: np.dtype[Any], kind: str) -> str | None:
    """Return the dtype of numbers of a class, as they are stored; None if they are none."""
    if stored.names == ("real", "imag") and stored["real"] == stored["imag"]:
        return {"float64": "complex128", "float32": "complex64"}.get(stored["real"].name)
    if kind and kind not in CLASSES:
        return None
    if kind == "logical" and stored.kind in "iu":
        return "bool"
    known = stored.name in CLASSES.values() and CLASSES.get(kind, stored.name) == stored.name
    return stored.name if known or stored.name in COMPLEX.values() else None


def _is_array_of_structs(entry: Any) -> bool:
    import h5py

    return (
        isinstance(entry, h5py.Dataset)
        and entry.shape is not None
        and h5py.check_ref_dtype(entry.dtype) is not None
        and "MATLAB_class" not in entry.attrs
    )


def _dims(entry: Any) -> tuple[int, ...]:
    dims = tuple(reversed(entry.shape))
    return dims if len(dims) >= 2 else (*dims, 1, 1)[:2]


def _empty(kind: str, entry: Any) -> Value:
    """Return an array without elements, whose dataset has its dimensions."""
    dims: tuple[int, ...] = (0, 0)
    if 2 <= entry.size <= MOST_DIMS and entry.dtype.kind in "iu":
        dims = tuple(min(int(size), 2**31 - 1) for size in np.asarray(entry[()]).reshape(-1))
    if math.prod(dims):
        dims = (0, 0)
    if kind == "cell":
        return Cell(dims, [])
    if kind == "struct":
        return Struct(dims, {name: [] for name in _field_names(entry)})
    if kind == "char":
        return Text(dims, "")
    return Array(dims, CLASSES.get(kind, "float64"), lambda: np.zeros(dims, CLASSES.get(kind)))


def _field_names(entry: Any) -> list[str]:
    """Return the names of fields in their order, where a file has it; else an empty list."""
    names = entry.attrs.get("MATLAB_fields")
    if not isinstance(names, np.ndarray) or names.dtype != object:
        return []
    return [b"".join(np.asarray(name, "S1").reshape(-1)).decode("latin-1") for name in names.flat]
