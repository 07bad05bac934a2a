"""From a model to a stream: reduce, quantize, code, and put the units together."""

from __future__ import annotations

from dataclasses import dataclass

from nnrcodec.config import EncoderConfig
from nnrcodec.errors import ModelError
from nnrcodec.model import Model
from nnrcodec.progress import Progress
from nnrcodec.record import Record, TensorEntry, record_to_bytes, tensor_digest
from nnrcodec.reduce.low_rank import LayerReport, decompose
from nnrcodec.stream import write_stream
from nnrcodec.tensor_coding import encode_tensor


@dataclass(frozen=True, slots=True)
class Encoded:
    """A stream and how it came about.

    Parameters
    ----------
    data : bytes
        The stream.
    original_bytes, original_elements : int
        Size of the tensors of the model that was given.
    layers : tuple of LayerReport
        What low-rank decomposition did to each layer; empty if it was off.
    """

    data: bytes
    original_bytes: int
    original_elements: int
    layers: tuple[LayerReport, ...]


def encode_model(model: Model, config: EncoderConfig, progress: Progress | None = None) -> Encoded:
    """Encode a model.

    Parameters
    ----------
    model : Model
        Its tensors are read one by one.
    config : EncoderConfig
        What to do.
    progress : callable, optional
        Called after each tensor.

    Returns
    -------
    Encoded

    Raises
    ------
    ModelError
        If a tensor cannot be coded.
    ConfigError
        If the configuration does not fit the model.
    """
    if not model.tensors:
        raise ModelError("there are no tensors in this model: nothing to code")
    original = model
    layers: tuple[LayerReport, ...] = ()
    if config.low_rank is not None:
        model, layers = decompose(model, config.low_rank)

    quantization = config.quantization
    tensors, entries = [], []
    done, total = 0, sum(tensor.size for tensor in model.tensors.values())
    for tensor in model.tensors.values():
        coded, value = encode_tensor(tensor, quantization)
        digest = tensor_digest(tensor, value)
        entries.append(TensorEntry(tensor.name, digest, tensor.dtype, tensor.role))
        tensors.append(coded)
        done += tensor.size
        if progress is not None:
            progress(done, total)

    record = record_to_bytes(Record(tuple(entries), model.factors, model.graph))
    return Encoded(
        write_stream(record, quantization.qp_density, tensors),
        sum(t.stored_bytes for t in original.tensors.values()),
        sum(t.size for t in original.tensors.values()),
        layers,
    )
