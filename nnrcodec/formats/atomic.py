"""Writing a file so that it is either there in full or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from nnrcodec.errors import ConfigError


def write_atomically(path: str | Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file in full, or leave what was there untouched.

    The content goes to a temporary file beside the target, which then takes the target's name. A
    link is followed. What is not a regular file, such as ``/dev/stdout``, is written directly.

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
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                _write(file, content)
        else:
            _replace(target.resolve(), content)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def _replace(target: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            _write(file, content)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write(file: BinaryIO, content: bytes | Callable[[BinaryIO], object]) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content)
