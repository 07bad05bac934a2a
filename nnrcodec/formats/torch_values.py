"""What `torch.save` makes tensors of, without PyTorch: storages, and views of them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnrcodec.formats.pickled import Name, PickleError, Thing
from nnrcodec.model.dtypes import DTYPES, from_little_endian, item_bytes
from nnrcodec.model.source import QUANTIZED

FREE_ELEMENTS = 2**24
"""Of a tensor, however few of them its storage has: it may be expanded."""

EXPANDED = 64
"""A tensor has so many times the elements of its storage at most, beyond `FREE_ELEMENTS`."""

_DTYPE_OF_STORAGE = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
    "UntypedStorage": "uint8",
}
_DTYPE_NAMES = {
    **{name: name for name in DTYPES},
    **{"float": "float32", "double": "float64", "half": "float16", "cfloat": "complex64"},
    **{"cdouble": "complex128", "long": "int64", "int": "int32", "short": "int16"},
    **{name: name for name in QUANTIZED},
}

Bytes = Callable[[str], np.ndarray]
"""Returns the bytes of the storage with a key, as uint8."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the values of a tensor are."""

    key: str
    dtype: str
    start: int = 0
    """In bytes, of a view of another storage."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file, or an array of numpy.

    Parameters
    ----------
    dtype : str
        A key of `nnrcodec.model.dtypes.DTYPES`.
    shape, stride : tuple of int
        As PyTorch has them.
    offset : int
        Of the first element, in elements.
    storage : Storage or None
        None for values that are in `data`.
    data : bytes
        Values in C order.
    big_endian : bool
        Whether those of `data` are.
    is_array : bool
        Whether it is an array of numpy.
    quantized : tuple or None
        Of a quantized tensor: dtype, and scale and zero point, or tensors of both and an axis.
    is_conjugate : bool
        Whether what is stored are the conjugates of its values.
    """

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...] = ()
    offset: int = 0
    storage: Storage | None = None
    data: bytes = b""
    big_endian: bool = False
    is_array: bool = False
    quantized: tuple[Any, ...] | None = None
    is_conjugate: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_contiguous(self) -> bool:
        """Whether its values stand one after the other, in the order of its axes."""
        if self.storage is None or not self.size:
            return True
        steps = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        axes = zip(self.shape, self.stride, steps, strict=True)
        return all(n == 1 or own == step for n, own, step in axes)

    @property
    def place(self) -> Hashable:
        """What is equal for tensors that are the same one; None if there are no values."""
        if self.storage is None or not self.size:
            return None
        return self.storage, self.dtype, self.shape, self.stride, self.offset, self.is_conjugate

    def check(self, storage_bytes: int) -> None:
        """Raise unless the storage has the values.

        Raises
        ------
        PickleError
        """
        if self.storage is None or not self.size:
            return
        size = item_bytes(self.dtype)
        spans = zip(self.shape, self.stride, strict=True)
        end = self.offset + sum((n - 1) * step for n, step in spans) + 1
        if self.offset < 0 or min(self.stride, default=0) < 0:
            raise PickleError("a tensor begins before its storage")
        if self.storage.start + end * size > storage_bytes:
            raise PickleError(f"a tensor ends behind its storage of {storage_bytes} bytes")
        if self.size > max(FREE_ELEMENTS, EXPANDED * storage_bytes // size):
            raise PickleError(f"a tensor of {self.size} elements, expanded from far fewer")

    def read(self, bytes_of: Bytes, *, big_endian: bool) -> np.ndarray:
        """Return the values, in C order and memory of their own.

        Parameters
        ----------
        bytes_of : callable
            Returns the bytes of a storage.
        big_endian : bool
            Whether those are.
        """
        size = item_bytes(self.dtype)
        if self.storage is None or not self.size:
            data, swapped = np.frombuffer(self.data, np.uint8), self.big_endian
            if not self.size:
                return np.zeros(self.shape, DTYPES[self.dtype])
        else:
            stored = bytes_of(self.storage.key)
            self.check(len(stored))
            items = np.lib.stride_tricks.as_strided(
                stored[self.storage.start + self.offset * size :],
                (*self.shape, size),
                (*(step * size for step in self.stride), 1),
                writeable=False,
            )
            data, swapped = np.ascontiguousarray(items).reshape(-1), big_endian
        if swapped:
            part = size // 2 if self.dtype.startswith("complex") else size
            data = np.ascontiguousarray(data.reshape(-1, part)[:, ::-1]).reshape(-1)
        values = from_little_endian(memoryview(data), self.dtype, self.shape)  # type: ignore[arg-type]
        return np.conj(values) if self.is_conjugate else values


@dataclass(frozen=True, slots=True)
class Size:
    """A torch.Size."""

    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """A torch.device."""

    name: str


@dataclass(frozen=True, slots=True)
class Dtype:
    """A torch.dtype."""

    name: str


@dataclass(frozen=True, slots=True)
class _NumpyDtype:
    code: str
    order: str = "<"

    def with_state(self, state: Any) -> _NumpyDtype:
        return _NumpyDtype(self.code, state[1])

    @property
    def name(self) -> str:
        """The name in `DTYPES`; raises if there is none."""
        kinds = {"f": "float", "i": "int", "u": "uint", "c": "complex"}
        if self.code in ("b1", "?"):
            return "bool"
        name = f"{kinds.get(self.code[:1])}{8 * int(self.code[1:])}"
        if name not in DTYPES:
            raise PickleError(f"an array of dtype {self.code}")
        return name

    @property
    def is_known(self) -> bool:
        """Whether there is a name."""
        try:
            return bool(self.name)
        except (PickleError, ValueError):
            return False

    @property
    def big_endian(self) -> bool:
        return self.order == ">" or (self.order == "=" and sys.byteorder == "big")


class _NumpyArray:
    """An array before its state is known."""

    def with_state(self, state: Any) -> StoredTensor | Thing:
        try:
            _, shape, dtype, fortran, data = state
            name = dtype.name
        except (PickleError, AttributeError, ValueError):
            return Thing(Name("numpy", "ndarray"))
        if isinstance(data, str):
            data = data.encode("latin1")
        shape = tuple(map(int, shape))
        if len(data) != math.prod(shape) * item_bytes(name):
            raise PickleError("an array has other values than its shape says")
        if fortran and len(shape) > 1:
            array = np.frombuffer(data, f"V{item_bytes(name)}").reshape(shape[::-1]).T
            data = np.ascontiguousarray(array).tobytes()
        return StoredTensor(
            name, shape, data=bytes(data), big_endian=dtype.big_endian, is_array=True
        )


def make(function: Name, args: tuple[Any, ...]) -> Any:
    """Return what stands for the result of a call in a pickle of tensors."""
    builder = _MAKERS.get(str(function))
    return Thing(function, args) if builder is None else builder(*args)


def value_of(name: Name) -> Dtype | None:
    """Return the dtype that a name stands for, if it does."""
    if name.module == "torch" and name.name in _DTYPE_NAMES:
        return Dtype(_DTYPE_NAMES[name.name])
    return None


def _storage(key: Any) -> Any:
    """Return what a persistent key stands for."""
    match key:
        case ("storage", Name() as kind, str(name), _, int(), *view):
            start = 0
            if view and view[0] is not None:
                start = int(view[0][1])
            dtype = _DTYPE_OF_STORAGE.get(kind.name)
            if dtype is not None:
                return Storage(name, dtype, start * item_bytes(dtype))
    return Thing(Name("", "persistent"), (key,))


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Any:
    metadata = rest[2] if len(rest) > 2 and isinstance(rest[2], dict) else {}
    if not isinstance(storage, Storage) or metadata.keys() - {"conj"}:
        return Thing(Name("torch", "Tensor"), (storage,))
    stored = _stored(storage, storage.dtype, offset, shape, stride)
    return replace(stored, is_conjugate=bool(metadata.get("conj")))


def _tensor_with_dtype(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Any:
    dtype = value_of(rest[2]) if len(rest) > 2 and isinstance(rest[2], Name) else None
    if not isinstance(storage, Storage) or dtype is None:
        return Thing(Name("torch", "Tensor"), tuple(rest))
    return _stored(storage, dtype.name, offset, shape, stride)


def _stored(storage: Storage, dtype: str, offset: Any, shape: Any, stride: Any) -> StoredTensor:
    sizes, steps = _ints(shape), _ints(stride)
    if len(sizes) != len(steps) or type(offset) is not int or min(sizes, default=0) < 0:
        raise PickleError("a tensor has a shape that is none")
    return StoredTensor(dtype, sizes, steps, offset, storage)


def _ints(values: Any) -> tuple[int, ...]:
    sizes = values.sizes if isinstance(values, Size) else values
    if not (isinstance(sizes, tuple | list) and all(type(n) is int for n in sizes)):
        raise PickleError("sizes are not whole numbers")
    return tuple(sizes)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _quantized(storage: Any, offset: Any, shape: Any, stride: Any, how: Any, *_: Any) -> Any:
    values = _tensor(storage, offset, shape, stride)
    if isinstance(values, StoredTensor) and isinstance(how, tuple) and len(how) >= 3:
        words = {integers: kind for kind, integers in QUANTIZED.items()}
        return StoredTensor(
            **{name: getattr(values, name) for name in ("dtype", "shape", "stride", "offset")},
            storage=values.storage,
            quantized=(words[values.dtype], *how[1:]),
        )
    return Thing(Name("torch", "Tensor"), (storage,))


def _size(*args: Any) -> Size:
    return Size(_ints(args[0] if args else ()))


def _device(*args: Any) -> Device:
    return Device(":".join(map(str, args)))


def _scalar(dtype: Any, data: Any = b"") -> Any:
    """Return a number of numpy as one of Python, which has the same value."""
    if not isinstance(dtype, _NumpyDtype) or not isinstance(data, bytes | str):
        return Thing(Name("numpy", "scalar"))
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not dtype.is_known:
        return Thing(Name("numpy", f"scalar of dtype {dtype.code}"))
    array = StoredTensor(dtype.name, (), data=raw, big_endian=dtype.big_endian)
    if len(raw) != item_bytes(dtype.name):
        raise PickleError("a number has other bytes than its dtype says")
    return array.read(lambda _: np.zeros(0, np.uint8), big_endian=False).item()


def _numpy_dtype(code: Any, *_: Any) -> _NumpyDtype:
    return _NumpyDtype(str(code))


def _from_type(function: Any, _kind: Any, args: Any, _state: Any) -> Any:
    """Return a tensor of a class derived from that of PyTorch, as one of PyTorch."""
    if isinstance(function, Name) and isinstance(args, tuple):
        return make(function, args)
    return Thing(Name("torch", "Tensor"))


_MAKERS: Mapping[str, Callable[..., Any]] = {
    ".persistent": _storage,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_qtensor": _quantized,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.Size": _size,
    "torch.device": _device,
    "numpy.dtype": _numpy_dtype,
    **{
        f"numpy.{core}.multiarray.{name}": build
        for core in ("core", "_core")
        for name, build in (("_reconstruct", lambda *_: _NumpyArray()), ("scalar", _scalar))
    },
}
"""Calls that tensors, arrays and numbers are made of."""
