"""``.pt2``: whole networks, exported with ``torch.export``.

Loading such a file parses the expressions for its symbolic sizes with SymPy, which evaluates
them. So load only files whose maker you trust, as PyTorch says as well. (A ``.nnr`` stream has no
such expressions: it is safe to decode whoever made it.)
"""

from __future__ import annotations

import logging
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats.atomic import write_atomically
from nnrcodec.formats.reading import require_no_key
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model


def load(path: Path, key: str | None = None) -> Model:
    """Read an exported program and take its graph and tensors.

    Raises
    ------
    ModelError
        The file is damaged or not an exported program, or the graph has an operator or a tensor
        that cannot be coded.
    """
    import torch

    from nnrcodec.graph.export import model_of_foreign_program

    require_no_key(path, key)
    try:
        if not zipfile.is_zipfile(path):
            raise ModelError(f"{path} is damaged or was not written by torch.export.save")
        with _quiet():
            program = torch.export.load(path)
    except ModelError:
        raise
    except Exception as error:  # whatever the parsers of torch.export happen to raise
        raise ModelError(
            f"{path} is damaged, was not written by torch.export.save, or needs another version "
            f"of PyTorch than {torch.__version__}"
        ) from error
    return model_of_foreign_program(program)


def save(model: Model, path: Path, limits: Limits | None = None) -> None:
    """Write a network as an exported program that ``torch.export.load`` reads.

    Raises
    ------
    ConfigError
        The model has no graph, or the file cannot be written.
    BitstreamError, UnsupportedFeatureError
        As `nnrcodec.graph.program.program_of_module`.
    """
    import torch

    from nnrcodec.graph.module import build_module
    from nnrcodec.graph.program import cannot_export, program_of_module

    if model.graph is None:
        raise ConfigError(
            f"{path}: there are only tensors here, no graph for a .pt2 file to hold; "
            "write a .safetensors or .pt file"
        )
    program = program_of_module(build_module(model, limits), limits)

    def write(file: BinaryIO) -> None:
        try:
            torch.export.save(program, file)
        except OSError:
            raise
        except Exception as error:  # whatever the serializer of torch.export happens to raise
            raise cannot_export(error) from error

    write_atomically(path, write)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep `torch.export` from logging a traceback for what becomes a `ModelError`."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
