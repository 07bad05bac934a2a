"""What a MATLAB file holds: structs, cells, texts and arrays within one another.

Everything is an array in MATLAB. Elements of structs and cells are listed in its order, the first
dimension fastest; numbers are read when they are asked for, as arrays of `dims`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from nnrcodec.errors import ModelError

MOST_VALUES = 500_000
"""Values of a file, those within others included."""

MOST_DEPTH = 32
"""Levels of values within one another."""

MOST_DIMS = 32

CLASSES: Mapping[str, str] = {
    "double": "float64",
    "single": "float32",
    "logical": "bool",
    **{name: name for s in (8, 16, 32, 64) for name in (f"int{s}", f"uint{s}")},
}
"""Numeric classes of MATLAB, and the dtypes of their values."""

COMPLEX: Mapping[str, str] = {"double": "complex128", "single": "complex64"}


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """Numbers.

    Parameters
    ----------
    dims : tuple of int
        As MATLAB has them: two at least.
    dtype : str
        Name of the dtype of the values.
    read : callable
        Returns the values, of shape `dims`.
    """

    dims: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @classmethod
    def of(cls, values: np.ndarray) -> Array:
        """Wrap values that are in memory, of two dimensions at least."""
        return cls(tuple(values.shape), values.dtype.name, lambda: values)


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """Characters, in the order of MATLAB; most often a row."""

    dims: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """Any values."""

    dims: tuple[int, ...]
    items: list[Value]


@dataclass(frozen=True, slots=True, eq=False)
class Struct:
    """Values by the names of fields; for each field a list with one value for each element."""

    dims: tuple[int, ...]
    fields: dict[str, list[Value]]

    def get(self, field: str) -> Value | None:
        """Return a field of a struct of one element; None if there is none."""
        values = self.fields.get(field, [])
        return values[0] if len(values) == 1 else None

    def elements(self) -> list[Struct]:
        """Return the elements as structs of one each."""
        count = len(next(iter(self.fields.values()), []))
        return [
            Struct((1, 1), {name: [values[i]] for name, values in self.fields.items()})
            for i in range(count)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Other:
    """What has no values that can be kept, such as a function; `what` is in words."""

    what: str


Value = Array | Text | Cell | Struct | Other

EMPTY = Array((0, 0), "float64", lambda: np.zeros((0, 0)))
"""What MATLAB writes as []."""


class Counter:
    """Counts the values of a file, and how deep they are.

    Raises
    ------
    ModelError
        There are too many, or they are too deep.
    """

    def __init__(self, path: object) -> None:
        self._path, self._count = path, 0

    def note(self, depth: int, count: int = 1) -> None:
        """Note values at a depth."""
        self._count += count
        if depth > MOST_DEPTH:
            raise ModelError(f"{self._path} has more than {MOST_DEPTH} values within one another")
        if self._count > MOST_VALUES:
            raise ModelError(f"{self._path} has more than {MOST_VALUES} values")


def children(value: Value) -> Iterator[tuple[str, Value]]:
    """Yield the values within a value, with what they are called: fields, and numbers from 0."""
    if isinstance(value, Cell):
        yield from ((str(index), item) for index, item in enumerate(value.items))
    elif isinstance(value, Struct):
        if value.dims == (1, 1):
            yield from ((name, values[0]) for name, values in value.fields.items())
        else:
            for name, values in value.fields.items():
                yield from ((f"{index}.{name}", item) for index, item in enumerate(values))


def complex_of(real: np.ndarray, imaginary: np.ndarray) -> np.ndarray:
    """Return complex numbers; infinite parts stay as they are, which no sum would leave so."""
    result = np.empty(real.shape, np.complex128)
    result.real, result.imag = real, imaginary
    return result


def string_of(value: Value | None) -> str:
    """Return a text; empty if it is none."""
    return value.text if isinstance(value, Text) else ""


def numbers_of(value: Value | None) -> tuple[float, ...] | None:
    """Return a few numbers; None if it is something else or there are many."""
    if not isinstance(value, Array) or value.size > 64 or value.dtype.startswith("complex"):
        return None
    return tuple(float(number) for number in value.read().reshape(-1, order="F"))
