"""From a stream to a model: read the units, decode the tensors, check them against the record."""

from __future__ import annotations

import math

import numpy as np

from nnrcodec.dtypes import cast, is_float, item_bytes
from nnrcodec.errors import (
    LimitExceededError,
    ModelError,
    PayloadError,
    SyntaxElementError,
    UnitOrderError,
    UnsupportedFeatureError,
)
from nnrcodec.limits import Limits
from nnrcodec.model import Model, Tensor
from nnrcodec.progress import Progress
from nnrcodec.record import Record, TensorEntry, tensor_digest
from nnrcodec.reduce.low_rank import merge as merge_factors
from nnrcodec.stream import Stream, placed, read_stream
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.unit import Unit
from nnrcodec.tensor_coding import decode_tensor, decoded_dtype


def decode_stream(
    data: bytes | memoryview,
    limits: Limits,
    *,
    merge: bool = False,
    progress: Progress | None = None,
) -> Model:
    """Decode a stream.

    Parameters
    ----------
    data : bytes or memoryview
        The stream.
    limits : Limits
        What to accept.
    merge : bool
        Multiply low-rank factors out: the original architecture.
    progress : callable, optional
        Called after each tensor.

    Returns
    -------
    Model
        In memory, every tensor checked against its digest.

    Raises
    ------
    BitstreamError
        If the stream is damaged.
    UnsupportedFeatureError
        If it uses what this version does not have.
    """
    stream = read_stream(data, limits)
    record = stream.record or Record(())
    units = _units_by_name(stream)
    _check_sizes(units, record, limits, len(data))

    tensors = []
    done, total = 0, sum(_elements(unit) for unit in units.values())
    for entry in record.tensors:
        tensor = _decode(entry, units[entry.name])
        tensors.append(tensor)
        done += tensor.size
        if progress is not None:
            progress(done, total)

    model = Model.of(tensors, record.graph, record.factors)
    return _merged(model, limits, len(data)) if merge else model


def _units_by_name(stream: Stream) -> dict[str, Unit]:
    """Return the data units; raise unless they are those of the record."""
    foreign = stream.of_type(NnrUnitType.NNR_NDU)
    if foreign:
        raise UnsupportedFeatureError(
            "decoding NNR_NDU payloads is not implemented in this version; nnr-info shows what "
            "the stream holds",
            feature="NNR_NDU",
            bit_offset=foreign[0].bit_offset,
            path=foreign[0].path,
        )
    units: dict[str, Unit] = {}
    for unit in stream.of_type(NnrUnitType.NNR_XDU):
        name = unit.body.topology_elem_id
        if name in units:
            raise UnitOrderError(
                f"a second tensor {name!r}", bit_offset=unit.bit_offset, path=unit.path
            )
        units[name] = unit
    recorded = [entry.name for entry in stream.record.tensors] if stream.record else []
    for name in recorded:
        if name not in units:
            raise UnitOrderError(f"there is no data unit for tensor {name!r} of the record")
    for name in sorted(units.keys() - set(recorded)):
        unit = units[name]
        raise UnitOrderError(
            f"tensor {name!r} is not in the container record",
            bit_offset=unit.bit_offset,
            path=unit.path,
        )
    return units


def _check_sizes(units: dict[str, Unit], record: Record, limits: Limits, stream_bytes: int) -> None:
    """Compare what will be allocated with the limits, before anything is."""
    dtypes = {entry.name: entry.dtype for entry in record.tensors}
    sizes = (_elements(u) * max(item_bytes(dtypes[n]), 4) for n, u in units.items())
    _check_total(sum(sizes), limits, stream_bytes)


def _check_total(decoded_bytes: int, limits: Limits, stream_bytes: int) -> None:
    allowed = limits.decoded_bytes_allowed(stream_bytes)
    if decoded_bytes > allowed:
        raise LimitExceededError(
            f"{stream_bytes} bytes declare tensors of {decoded_bytes} bytes, {allowed} are allowed "
            "here; if you trust the stream, raise the limit (nnr-decode --max-bytes)"
        )


def _elements(unit: Unit) -> int:
    return math.prod(unit.body.tensor_dimensions)


def _decode(entry: TensorEntry, unit: Unit) -> Tensor:
    """Decode one tensor and compare it with its digest."""
    context = unit.context
    with placed(unit):
        value = decode_tensor(
            unit.body, memoryview(unit.payload), context.quantization_parameter, context.qp_density
        )
        value = _converted(value, decoded_dtype(unit.body), entry.dtype)
        tensor = Tensor.of(entry.name, value, entry.dtype, entry.role)
        digest = tensor_digest(tensor, value)
        if digest != entry.digest:
            raise PayloadError(
                f"tensor {entry.name!r} decodes to digest {digest}, the record says {entry.digest}"
            )
    return tensor


def _converted(value: np.ndarray, decoded: str, dtype: str) -> np.ndarray:
    """Return a tensor in the dtype that the record gives it; integers must not change."""
    if decoded == dtype:
        return value
    if is_float(decoded) == is_float(dtype):
        converted = cast(value, dtype)
        if is_float(dtype) or np.array_equal(converted, value):
            return converted
    raise PayloadError(f"values of dtype {decoded} do not become {dtype}, which the record says")


def _merged(model: Model, limits: Limits, stream_bytes: int) -> Model:
    """Multiply factors out, after a look at how large the kernels will be."""
    try:
        merged = merge_factors(model)
    except ModelError as error:
        raise SyntaxElementError(str(error), path="record/factors") from error
    _check_total(sum(t.stored_bytes for t in merged.tensors.values()), limits, stream_bytes)
    tensors = merged.tensors.values()
    return Model.of((Tensor.of(t.name, t.read(), t.dtype, t.role) for t in tensors), merged.graph)
