"""The container record: what a stream says about itself beyond the standard (spec/record.md).

Owns the record and the digests; how it is written is `nnrcodec.container.record_text`.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from nnrcodec.container.turnover import Turnover
from nnrcodec.graph.graph import Graph
from nnrcodec.model.dtypes import to_little_endian
from nnrcodec.model.model import Factors, Model, OnnxTopology, Role, Tensor
from nnrcodec.model.source import Wrapper
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
    is_pattern : bool
        Whether its data unit has the bit patterns of its values, as integers.
    tied_to : str, optional
        The tensor that it is under another name; it has no data unit then.
    empty_shape : tuple of int, optional
        Its dimensions if one of them is 0; it has no data unit then.
    """

    name: str
    digest: str
    dtype: str = "float32"
    role: Role = Role.PARAMETER
    coded_name: str | None = None
    scalar: bool = False
    is_pattern: bool = False
    tied_to: str | None = None
    empty_shape: tuple[int, ...] | None = None

    @property
    def has_unit(self) -> bool:
        """Whether its values are in a data unit of its name."""
        return self.tied_to is None and self.empty_shape is None

    @property
    def unit_name(self) -> str:
        """The name in its data unit."""
        return self.name if self.coded_name is None else self.coded_name


class MeasuredOn(IntEnum):
    """On what the encoder has measured the loss, by its number in the record."""

    WEIGHTS = 1
    """Nothing could be run: the weights themselves are compared."""
    MADE_UP_INPUTS = 2
    GIVEN_INPUTS = 3
    FITTED_INPUTS = 4
    """The inputs that the weights were fitted to; others may have a greater loss."""


INPUT_KINDS = {
    MeasuredOn.MADE_UP_INPUTS: "made-up",
    MeasuredOn.GIVEN_INPUTS: "given",
    MeasuredOn.FITTED_INPUTS: "fitted",
}
"""What inputs that were compared on are called."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What coding has cost, as the encoder has measured it.

    Parameters
    ----------
    on : MeasuredOn
        What was compared.
    count : int
        Number of inputs; 65535 also stands for more.
    snr : float
        Ratio of signal to error of the worst output, or of the worst tensor, in dB; infinite
        without an error.
    absolute : float or None
        Of a network that returns pictures: ratio of the squared range of its outputs to their mean
        squared error, in dB.
    change : float or None
        Of a network that changes pictures: ratio of the power of what it changes to that of the
        error, in dB.
    """

    on: MeasuredOn
    count: int
    snr: float
    absolute: float | None = None
    change: float | None = None

    @property
    def words(self) -> str:
        """What was measured, in words."""
        if self.on is MeasuredOn.WEIGHTS:
            if math.isinf(self.snr):
                return "all weights exact"
            return (
                f"output not measured, weights off by {100 * 10 ** (-self.snr / 20):.1f} % at most"
            )
        kind = INPUT_KINDS[self.on]
        change = f", {self.change:.1f} dB of its change" if self.change is not None else ""
        plural = "" if self.count == 1 else "s"
        return f"output SNR {self.snr:.1f} dB{change}, on {self.count} {kind} input{plural}"


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
    measured : Measurement or None
        What coding has cost, if the writer says so.
    wrapper : Wrapper or None
        What stood around the tensors in the file that they are from.
    writer : str
        Name and version of the software that wrote the stream.
    onnx : OnnxTopology or None
        The ONNX graph in another topology unit, and what it calls the tensors.
    has_short_names : bool
        Whether data units have numbers in place of the names of all tensors.
    turnover : Turnover
        Of an update: which tensors come and go.
    """

    tensors: tuple[TensorEntry, ...]
    factors: tuple[Factors, ...] = ()
    graph: Graph | None = None
    base: str | None = None
    measured: Measurement | None = None
    wrapper: Wrapper | None = None
    writer: str = f"nnrcodec {__version__}"
    onnx: OnnxTopology | None = None
    has_short_names: bool = False
    turnover: Turnover = field(default_factory=Turnover)


def tensor_digest(tensor: Tensor, value: np.ndarray | None = None) -> str:
    """Return the digest of a decoded tensor: of dtype, shape and values.

    It guards against damage and against decoders that differ, not against forgery.

    Parameters
    ----------
    tensor : Tensor
        Gives dtype and shape.
    value : ndarray, optional
        What is decoded, dtype ``DTYPES[tensor.dtype]``; by default the values of the tensor.

    Returns
    -------
    str
        The first 32 bits of a SHA-256, in hexadecimal.
    """
    head = f"{tensor.dtype}{list(tensor.shape)}".encode()
    sha256 = hashlib.sha256(head.replace(b" ", b""))
    stored = tensor.little_endian() if value is None else to_little_endian(value, tensor.dtype)
    sha256.update(stored.data)
    return sha256.digest()[:DIGEST_BYTES].hex()


def topology_digest(proto: bytes) -> str:
    """Return the digest of the ONNX graph of a stream: the first 32 bits of its SHA-256."""
    return hashlib.sha256(proto).digest()[:DIGEST_BYTES].hex()


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
        sha256.update(f"{tensor.name}\0{tensor_digest(tensor)}".encode())
    return sha256.digest()[:DIGEST_BYTES].hex()
