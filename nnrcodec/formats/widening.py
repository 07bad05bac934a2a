"""Tensors for kinds of files that lack their dtypes: as wider ones, which have all their values."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from nnrcodec.errors import ModelError
from nnrcodec.messages import logger_of
from nnrcodec.model.dtypes import DTYPES
from nnrcodec.model.model import Tensor

logger = logger_of(__name__)

OF_NUMPY = frozenset(dtype for dtype, held in DTYPES.items() if held.name == dtype)
"""Dtypes that numpy has."""

_WIDER = {"float16": "float32", "bfloat16": "float32"}


def widened(
    tensors: Iterable[Tensor], path: Path, kind: str, held: Collection[str] = OF_NUMPY
) -> list[Tensor]:
    """Return tensors of dtypes that a file can hold, and say which have become wider.

    Parameters
    ----------
    tensors : iterable of Tensor
        Of any dtypes.
    path : Path
        The file.
    kind : str
        Of file, with its article.
    held : collection of str
        Dtypes that files of this kind have.

    Raises
    ------
    ModelError
        A tensor has a dtype that no other one of them stands for.
    """
    result, wider = [], []
    for tensor in tensors:
        if tensor.dtype in held:
            result.append(tensor)
            continue
        dtype = _WIDER.get(tensor.dtype, tensor.dtype)
        if dtype not in held:
            raise ModelError(
                f"{kind} cannot hold tensor {tensor.name!r} of {tensor.dtype}: a .pt or "
                ".safetensors file can"
            )
        wider.append(tensor)
        value = np.asarray(tensor.read(), DTYPES[dtype])
        result.append(Tensor.of(tensor.name, value, dtype, tensor.role))
    if wider:
        logger.warning(
            "%s: %d of %d tensors are float32 in the file, which has all their values, such as %r "
            "of %s: %s has no such dtype",
            path.name,
            len(wider),
            len(result),
            wider[0].name,
            wider[0].dtype,
            kind,
        )
    return result
