"""What a file is, by its content: what each kind of file begins with, or has in it."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nnrcodec.formats.reading import open_regular
from nnrcodec.formats.torch_file import ZIP_ERRORS

HEAD_BYTES = 4096

_LARGEST_JSON = 2**27
_LARGEST_SAFETENSORS_HEADER = 100_000_000
_LEGACY_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_TORCH_TEXT = b"L119547037146038801333356L\n"  # protocol 1
_ONNX_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
_ONNX_GRAPH = 7
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Look:
    """What a short look at a file shows.

    Parameters
    ----------
    path : Path
        The file.
    size : int
        Its bytes.
    head : bytes
        The first of them, `HEAD_BYTES` at most.
    names : tuple of str or None
        Entries of a zip archive; None if it is none, or cannot be read.
    """

    path: Path
    size: int
    head: bytes
    names: tuple[str, ...] | None

    @classmethod
    def at(cls, path: Path) -> Look:
        """Look at a file.

        Raises
        ------
        ConfigError
            There is no such file, or it is something else.
        """
        names = None
        with open_regular(path) as file:
            size, head = os.fstat(file.fileno()).st_size, file.read(HEAD_BYTES)
            if head.startswith(b"PK"):
                try:
                    with zipfile.ZipFile(file) as archive:
                        names = tuple(archive.namelist())
                except ZIP_ERRORS:
                    names = None
        return cls(path, size, head, names)

    @property
    def stems(self) -> set[str]:
        """The entries of an archive without the folder around all of them."""
        return {name.partition("/")[2] for name in self.names or ()}


Test = Callable[[Look], bool]
"""Whether a file is of a kind."""


def begins(*starts: bytes) -> Test:
    """Return a test of how a file begins."""
    return lambda look: look.head.startswith(starts)


def is_empty(look: Look) -> bool:
    """Return whether there is nothing in a file."""
    return look.size == 0


def is_pt2(look: Look) -> bool:
    """Return whether a file is from `torch.export.save`."""
    names = look.names or ()
    old = any(name.endswith("serialized_exported_program.json") for name in names)
    return old or any(name.startswith("models/") for name in look.stems)


def is_torch_script(look: Look) -> bool:
    """Return whether a file is a TorchScript archive."""
    return "data.pkl" in look.stems and "constants.pkl" in look.stems


def is_torch_zip(look: Look) -> bool:
    """Return whether a file is from `torch.save`."""
    return "data.pkl" in look.stems


def is_torch_legacy(look: Look) -> bool:
    """Return whether a file is from `torch.save` before PyTorch 1.6."""
    binary = look.head[2 + 9 * (look.head[2:3] == b"\x95") :]  # a frame from protocol 4 on
    in_binary = look.head[:1] == b"\x80" and binary.startswith(_LEGACY_TORCH)
    return in_binary or look.head.startswith(_LEGACY_TORCH_TEXT)


def is_torch_tar(look: Look) -> bool:
    """Return whether a file is from `torch.save` before PyTorch 0.1.10."""
    return look.head[257:262] == b"ustar" and look.head[:8] in (b"sys_info", b"storages")


def is_tar(look: Look) -> bool:
    """Return whether a file is a tar archive."""
    return look.head[257:262] == b"ustar"


def is_bare_pickle(look: Look) -> bool:
    """Return whether a file is the pickle out of an archive of PyTorch."""
    return _is_pickle(look) and b"_rebuild_tensor" in look.head and b"storage" in look.head


def _is_pickle(look: Look) -> bool:
    return look.head[:1] == b"\x80" and 2 <= (look.head[1:2] or b"\0")[0] <= 5


def is_pickle(look: Look) -> bool:
    """Return whether a file is a pickle."""
    return _is_pickle(look)


def is_keras_zip(look: Look) -> bool:
    """Return whether a file is a .keras archive."""
    return "model.weights.h5" in (look.names or ())


def is_npz(look: Look) -> bool:
    """Return whether a file is from `numpy.savez`."""
    return bool(look.names) and all(name.endswith(".npy") for name in look.names or ())


def is_zip(look: Look) -> bool:
    """Return whether a file is a zip archive that can be read."""
    return look.names is not None


def is_cut_zip(look: Look) -> bool:
    """Return whether a file begins as a zip archive, but cannot be read as one."""
    return look.names is None and look.head.startswith(b"PK\x03\x04")


def is_safetensors(look: Look) -> bool:
    """Return whether a file is of safetensors, or begins so."""
    length = int.from_bytes(look.head[:8], "little")
    plausible = 2 <= length <= _LARGEST_SAFETENSORS_HEADER
    return plausible and re.match(rb"\{\s*(\"|\})", look.head[8:]) is not None


def is_mat_7_3(look: Look) -> bool:
    """Return whether a file is a MATLAB file in HDF5."""
    return look.head.startswith(b"MATLAB 7.3 MAT-file")


def is_mat_5(look: Look) -> bool:
    """Return whether a file is a MATLAB file of versions 5 to 7."""
    return look.head.startswith(b"MATLAB 5.0 MAT-file")


def is_hdf5(look: Look) -> bool:
    """Return whether a file is of HDF5."""
    signature, start = b"\x89HDF\r\n\x1a\n", 0
    while start < len(look.head):
        if look.head[start:].startswith(signature):
            return True
        start = max(512, 2 * start)
    return False


def is_tflite(look: Look) -> bool:
    """Return whether a file is a TFLite model."""
    return look.head[4:8] == b"TFL3"


def is_page(look: Look) -> bool:
    """Return whether a file is a web page."""
    start = look.head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    is_html = b"<html" in look.head.lower() or b"<!doctype html" in look.head.lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or (
        start.startswith(b"<?xml") and is_html
    )


def is_xml(look: Look) -> bool:
    """Return whether a file is XML, but for a web page."""
    return look.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<?xml", b"<net "))


def is_index(look: Look) -> bool:
    """Return whether a file is the index of a checkpoint in shards."""
    if not look.head.lstrip().startswith(b"{") or look.size > _LARGEST_JSON:
        return False
    try:
        content = json.loads(look.path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get("weight_map"), dict)


def is_json(look: Look) -> bool:
    """Return whether a file looks like JSON."""
    return re.match(rb"\s*[\[{]\s*[\"\[{}\]0-9]", look.head) is not None


def is_tf_checkpoint(look: Look) -> bool:
    """Return whether a file is part of a checkpoint of TensorFlow."""
    name = look.path.name
    data = re.search(r"\.data-\d{5}-of-\d{5}$", name) is not None
    return data or (name.endswith(".index") and b"checkpoint" in look.head) or name == "checkpoint"


def is_onnx(look: Look) -> bool:
    """Return whether a file is an ONNX model: a message with a graph, up to its end."""
    if look.head[:1] not in (b"\x08", b"\x12", b"\x3a") or look.size == 0:
        return False
    seen: set[int] = set()
    with look.path.open("rb") as file:
        position = 0
        while position < look.size and len(seen) < 100:
            file.seek(position)
            tag, start = _varint(file.read(10))
            field, wire = tag >> 3, tag & 7
            if not start or field not in _ONNX_FIELDS:
                return False
            position += start
            file.seek(position)
            if wire == _BYTES:
                length, used = _varint(file.read(10))
                position += used + length
            elif wire == _VARINT:
                _, used = _varint(file.read(10))
                position += used
            else:
                used = {_FIXED64: 8, _FIXED32: 4}.get(wire, 0)
                position += used
            if not used:
                return False
            seen.add(field)
    return position == look.size and _ONNX_GRAPH in seen


def _varint(data: bytes) -> tuple[int, int]:
    """Return a number in base 128 and the bytes that it takes; 0 bytes if it is none."""
    value = 0
    for index, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, index + 1
    return 0, 0
