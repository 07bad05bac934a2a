"""Opening what a user names for reading: regular files only, however they are called.

A pipe without a writer would wait for ever, and a device has no end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from nnrcodec.errors import ConfigError

MAX_STREAM_BYTES = 2**32
"""The largest stream that is read into memory."""

_HINT = "; to read a stream from a pipe, give - in its place"
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file for reading if it is a regular one; a link is followed.

    Raises
    ------
    ConfigError
        There is no such file, it cannot be read, or it is something else.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # a zero byte in the name
        raise ConfigError(f"cannot read {str(path)!r}: {error}") from error
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        hint = _HINT if kind == stat.S_IFIFO else ""
        raise ConfigError(f"{path} is {_KINDS.get(kind, 'something else')}, not a file{hint}")
    return os.fdopen(descriptor, "rb")


def read_stream_file(path: str | Path) -> bytes:
    """Return the bytes of a stream in a file, after a look at its size.

    Raises
    ------
    ConfigError
        As `open_regular`, or there are more than `MAX_STREAM_BYTES`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_STREAM_BYTES:
            raise ConfigError(f"{path} has {size} bytes, at most {MAX_STREAM_BYTES} are read")
        try:
            return file.read(MAX_STREAM_BYTES)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def require_no_key(path: object, key: str | None) -> None:
    """Raise if an entry was asked for of a file that has none, but for all of it.

    Raises
    ------
    ConfigError
    """
    if key not in (None, "all"):
        raise ConfigError(f"{path} has no entries to choose from: omit --key {key}")
