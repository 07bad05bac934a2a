"""Writing a file so that it is either there in full or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from nnrcodec.errors import ConfigError


def write_atomically(path: str | Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file in full, or leave what was there untouched.

    The content goes to a temporary file beside the target, which is on the disk before it takes the
    target's name. A link is followed. What is not a regular file, such as ``/dev/stdout``, is
    written directly.

    Parameters
    ----------
    path : str or Path
        The file to write.
    content : bytes or callable
        The bytes, or a function that writes them to the open binary file it is given.

    Raises
    ------
    ConfigError
        The file cannot be written; whatever stood there before is still there.
    """
    target = Path(path)
    try:
        if is_device(target):
            with target.open("wb") as file:
                _write(file, content)
        else:
            _replace(target.resolve(), content)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def check_output(output: Path, source: Path | None) -> None:
    """Refuse, before long work, an output that is the input or cannot be written.

    Parameters
    ----------
    output : Path
        The file to write.
    source : Path or None
        The file that is read; None for standard input.

    Raises
    ------
    ConfigError
        With the reason.
    """
    try:
        if output.is_dir():
            raise ConfigError(f"cannot write {output}: it is a folder; give the name of a file")
        if source is not None and output.exists() and output.samefile(source):
            raise ConfigError(f"{output} is the input as well; give the output another name")
        if is_device(output):
            return
        folder = output.resolve().parent
        if not folder.is_dir():
            raise ConfigError(f"cannot write {output}: there is no folder {folder}")
        if not os.access(folder, os.W_OK):
            raise ConfigError(f"cannot write {output}: the folder {folder} is write-protected")
    except OSError as error:
        raise ConfigError(f"cannot open {error.filename}: {error.strerror}") from error


def is_device(path: Path) -> bool:
    """Return whether a path is something else than a file, such as ``/dev/stdout``."""
    return path.exists() and not path.is_file()


class _Remembering(io.RawIOBase):
    """A file for writers that must not see an error; the first one is kept.

    PyTorch's writer of zip files ends the process when a file refuses what it writes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


def _replace(target: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            _write(file, content)
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _keep_name(target.parent)


def _write(file: BinaryIO, content: bytes | Callable[[BinaryIO], object]) -> None:
    if not callable(content):
        file.write(content)
    else:
        remembering = _Remembering(file)
        try:
            content(cast(BinaryIO, remembering))
        finally:
            if remembering.error is not None:
                raise remembering.error
    file.flush()


def _keep_name(folder: Path) -> None:
    """Put the new name on the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
