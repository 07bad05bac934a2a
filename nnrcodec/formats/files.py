"""Choosing the format of a model file by the ending of its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from nnrcodec.errors import ConfigError
from nnrcodec.formats import onnx, pt, pt2, safetensors
from nnrcodec.formats.reading import open_regular
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model


class FileFormat(Protocol):
    """What every format module offers."""

    def load(self, path: Path) -> Model:
        """Read a model file."""

    def save(self, model: Model, path: Path, limits: Limits) -> None:
        """Write a model file."""


FORMATS: Mapping[str, FileFormat] = {
    ".pt2": pt2,
    ".pt": pt,
    ".pth": pt,
    ".safetensors": safetensors,
    ".onnx": onnx,
}
"""The formats, by the ending of the file name in lower case."""


def is_model_file(path: Path) -> bool:
    """Return whether the ending of a file name is that of a model file."""
    return path.suffix.lower() in FORMATS


def load(path: str | Path) -> Model:
    """Read a model file; its format is known by its ending.

    Parameters
    ----------
    path : str or Path
        A file with one of the endings in `FORMATS`.

    Returns
    -------
    Model
        With a graph if the format has one; values are read when they are asked for, so the file
        has to stay in place until then.

    Raises
    ------
    ConfigError
        There is no such file, it is something else than a file, or its ending is unknown.
    ModelError
        The file is damaged, is not of the format its ending says, or holds something that cannot
        be coded.
    """
    path = Path(path)
    file_format = _format_of(path)
    open_regular(path).close()
    return file_format.load(path)


def save(model: Model, path: str | Path, limits: Limits | None = None) -> None:
    """Write a model file; its format is chosen by its ending.

    Parameters
    ----------
    model : Model
        What to write. Every tensor keeps its dtype.
    path : str or Path
        A file with one of the endings in `FORMATS`; it is replaced atomically.
    limits : Limits, optional
        What a network may take to be written, where `model` comes from a stranger's stream: those
        for a stream of its size.

    Raises
    ------
    ConfigError
        The ending is unknown, the format needs a graph that `model` lacks, or the file cannot be
        written.
    BitstreamError
        The graph cannot be run, or takes more than `limits` allow.
    UnsupportedFeatureError
        PyTorch cannot export the network.
    """
    path = Path(path)
    _format_of(path).save(model, path, limits or Limits())


def _format_of(path: Path) -> FileFormat:
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise ConfigError(
            f"{path}: no model file has the ending {path.suffix!r}; known are {', '.join(FORMATS)}"
        ) from None
