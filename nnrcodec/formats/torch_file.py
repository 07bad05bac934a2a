"""Files of `torch.save` and TorchScript archives as data, without PyTorch.

Values are mapped into memory, and read when they are asked for: the file may be replaced meanwhile,
but must not be cut short.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnrcodec.errors import ModelError
from nnrcodec.formats.pickled import Name, PickleError, read_pickle
from nnrcodec.formats.reading import open_regular
from nnrcodec.formats.torch_values import Storage, StoredTensor, make
from nnrcodec.model.dtypes import item_bytes

FREE_INFLATED, INFLATED = 2**26, 64
"""Bytes that a compressed entry of an archive may have: that many, or that many times its own."""

MOST_PICKLE_BYTES = 2**29

_MAGIC = 0x1950A86A20F9469CFC6C
_LOCAL_HEADER = struct.Struct("<26xHH")
ZIP_ERRORS = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, NotImplementedError, RuntimeError),
    *(struct.error, ValueError, EOFError, OSError, OverflowError, KeyError, IndexError),
)
"""What `zipfile` raises for archives that are damaged or made to be."""


@dataclass(frozen=True, slots=True)
class TorchFile:
    """What a file of PyTorch holds.

    Parameters
    ----------
    root : object
        Plain values, and `nnrcodec.formats.torch_values` and `nnrcodec.formats.pickled` in place
        of tensors and of objects.
    bytes_of : callable
        Returns the bytes of a storage.
    big_endian : bool
        Whether values are.
    changes : tuple of str
        Sentences on what has another type than in the program that wrote it.
    """

    root: Any
    bytes_of: Callable[[str], np.ndarray]
    big_endian: bool = False
    changes: tuple[str, ...] = ()

    def check(self, name: str, tensor: StoredTensor) -> None:
        """Raise unless the values of a tensor are there.

        Raises
        ------
        ModelError
            With its name.
        """
        try:
            if tensor.storage is not None and tensor.size:
                tensor.check(len(self.bytes_of(tensor.storage.key)))
        except PickleError as error:
            raise ModelError(f"tensor {name!r} is damaged: {error}") from error

    def read(self, tensor: StoredTensor) -> np.ndarray:
        """Return the values of a tensor that was checked."""
        return tensor.read(self.bytes_of, big_endian=self.big_endian)


def read_archive(path: Path) -> TorchFile:
    """Read a zip archive that `torch.save` or `torch.jit.save` wrote.

    Raises
    ------
    ModelError
        It is damaged.
    """
    changes: dict[str, None] = {}
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            entries = {info.filename: info for info in archive.infolist()}
            (pickled,) = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
            prefix = pickled.rpartition("/")[0]
            storages = _Entries(path, _mapped(path), entries, f"{prefix}/data/")
            order = entries.get(f"{prefix}/byteorder")
            big_endian = order is not None and storages.entry(order).tobytes() == b"big"
            if entries[pickled].file_size > MOST_PICKLE_BYTES:
                raise PickleError("its pickle is too large")
            root = read_pickle(storages.entry(entries[pickled]).tobytes(), make, changes)
    except PickleError as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    except ZIP_ERRORS as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    return TorchFile(root, storages.bytes_of, big_endian, tuple(changes))


def read_legacy(path: Path) -> TorchFile:
    """Read what `torch.save` wrote before PyTorch 1.6.

    Raises
    ------
    ModelError
        It is damaged.
    """
    mapped = _mapped(path)
    file = io.BytesIO(mapped.data)
    sizes: dict[str, int] = {}
    changes: dict[str, None] = {}

    def remembering(function: Name, args: tuple[Any, ...]) -> Any:
        made = make(function, args)
        if isinstance(made, Storage):
            sizes[made.key] = item_bytes(made.dtype)
        return made

    try:
        magic, _, system = read_pickle(file), read_pickle(file), read_pickle(file)
        if magic != _MAGIC:
            raise PickleError("it does not begin as files of PyTorch do")
        root, keys = read_pickle(file, remembering, changes), read_pickle(file)
        big_endian = isinstance(system, dict) and system.get("little_endian") is False
        storages, start = {}, file.tell()
        for key in keys:
            (count,) = struct.unpack_from(">q" if big_endian else "<q", mapped.data, start)
            end = start + 8 + count * sizes.get(key, 1)
            if count < 0 or end > len(mapped):
                raise PickleError("it ends before its values do")
            storages[str(key)] = mapped[start + 8 : end]
            start = end
    except (PickleError, struct.error, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error

    def bytes_of(key: str) -> np.ndarray:
        if key not in storages:
            raise ModelError(f"{path} is damaged: the values {key!r} are missing")
        return storages[key]

    return TorchFile(root, bytes_of, big_endian, tuple(changes))


@dataclass(frozen=True, slots=True)
class _Entries:
    """The storages of an archive: parts of the file, or inflated where somebody deflated them."""

    path: Path
    mapped: np.ndarray
    entries: Mapping[str, zipfile.ZipInfo]
    prefix: str
    inflated: dict[str, np.ndarray] = field(default_factory=dict)

    def bytes_of(self, key: str) -> np.ndarray:
        info = self.entries.get(self.prefix + key)
        if info is None:
            raise ModelError(f"{self.path} is damaged: the values {key!r} are missing")
        try:
            return self.entry(info)
        except ZIP_ERRORS as error:
            raise ModelError(f"{self.path} is damaged: {error}") from error

    def entry(self, info: zipfile.ZipInfo) -> np.ndarray:
        if info.compress_type == zipfile.ZIP_STORED:
            names = _LOCAL_HEADER.unpack_from(self.mapped.data, info.header_offset)
            start = info.header_offset + _LOCAL_HEADER.size + sum(names)
            if start + info.file_size > len(self.mapped):
                raise ValueError(f"{info.filename} ends behind the end of the file")
            return self.mapped[start : start + info.file_size]
        if info.filename not in self.inflated:
            if info.file_size > max(FREE_INFLATED, INFLATED * info.compress_size):
                raise ValueError(f"{info.filename} is compressed to far less than its size")
            with zipfile.ZipFile(self.path) as archive:
                data = archive.read(info.filename)
            self.inflated[info.filename] = np.frombuffer(data, np.uint8)
        return self.inflated[info.filename]


def _mapped(path: Path) -> np.ndarray:
    with open_regular(path) as file:
        try:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        except (ValueError, OSError) as error:  # it is empty
            raise ModelError(f"{path} is damaged: {error}") from error
