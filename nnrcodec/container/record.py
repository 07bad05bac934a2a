"""The container record: what a stream says about itself beyond the standard (spec/record.md).

Owns the record and the digests; how it is written is `nnrcodec.container.record_text`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from nnrcodec.graph.graph import Graph
from nnrcodec.model.dtypes import to_little_endian
from nnrcodec.model.model import Factors, Model, Role, Tensor
from nnrcodec.version import __version__

DIGEST_BYTES = 4


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """What the record says of a tensor.

    Parameters
    ----------
    name : str
        Its name in the model.
    digest : str
        `tensor_digest` of the decoded tensor.
    dtype : str
        A key of `nnrcodec.model.model.DTYPES`: what the tensor was before it was coded.
    role : Role
        What it is to the network.
    coded_name : str, optional
        Its name in its data unit, where that is another one.
    scalar : bool
        Whether it has no dimensions; a data unit of the standard gives it one of size 1.
    """

    name: str
    digest: str
    dtype: str = "float32"
    role: Role = Role.PARAMETER
    coded_name: str | None = None
    scalar: bool = False

    @property
    def unit_name(self) -> str:
        """The name in its data unit."""
        return self.name if self.coded_name is None else self.coded_name


@dataclass(frozen=True, slots=True)
class Record:
    """The container record.

    Parameters
    ----------
    tensors : tuple of TensorEntry
        All tensors, in the order of the model.
    factors : tuple of Factors
        Which tensors are factors of which layer.
    graph : Graph or None
        How they are used.
    base : str or None
        `model_digest` of the model that this stream is an update of.
    writer : str
        Name and version of the software that wrote the stream.
    """

    tensors: tuple[TensorEntry, ...]
    factors: tuple[Factors, ...] = ()
    graph: Graph | None = None
    base: str | None = None
    writer: str = f"nnrcodec {__version__}"


def tensor_digest(tensor: Tensor, value: np.ndarray) -> str:
    """Return the digest of a decoded tensor: of dtype, shape and values.

    It guards against damage and against decoders that differ, not against forgery.

    Parameters
    ----------
    tensor : Tensor
        Gives dtype and shape.
    value : ndarray
        Its values, dtype ``DTYPES[tensor.dtype]``.

    Returns
    -------
    str
        The first 32 bits of a SHA-256, in hexadecimal.
    """
    head = f"{tensor.dtype}{list(tensor.shape)}".encode()
    sha256 = hashlib.sha256(head.replace(b" ", b""))
    sha256.update(to_little_endian(value, tensor.dtype).data)
    return sha256.digest()[:DIGEST_BYTES].hex()


def model_digest(model: Model) -> str:
    """Return the digest of a model: of the names and digests of its tensors, in their order.

    Parameters
    ----------
    model : Model
        In memory.

    Returns
    -------
    str
        The first 32 bits of a SHA-256, in hexadecimal.
    """
    sha256 = hashlib.sha256()
    for tensor in model.tensors.values():
        sha256.update(f"{tensor.name}\0{tensor_digest(tensor, tensor.read())}".encode())
    return sha256.digest()[:DIGEST_BYTES].hex()
