"""From a stream to a model: read the units, decode the tensors, check them against the record."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from nnrcodec.checks import check_whole
from nnrcodec.container.contents import Content, blocks_of, contents_of
from nnrcodec.container.record import Measurement, TensorEntry, model_digest, tensor_digest
from nnrcodec.container.stream import Stream, read_stream
from nnrcodec.container.turnover import Turnover
from nnrcodec.decoder.merging import check_factors
from nnrcodec.decoder.merging import merge as merge_factors
from nnrcodec.entropy.lossless.model import Difference
from nnrcodec.errors import (
    LimitExceededError,
    ModelError,
    PayloadError,
    SyntaxElementError,
    UnitOrderError,
)
from nnrcodec.limits import Limits
from nnrcodec.model.dtypes import DTYPES, cast, is_float, of_bit_pattern
from nnrcodec.model.model import Model, Tensor
from nnrcodec.model.source import Source, Wrapper
from nnrcodec.progress import Progress
from nnrcodec.reduce.blocks import Block, merge_blocks
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.unit import Unit
from nnrcodec.units.located import located
from nnrcodec.units.ndu import (
    DecodedMember,
    Histories,
    Member,
    Part,
    TensorHistory,
    next_history,
)

MOST_THREADS = 8
"""Tensors that are decoded at once unless the caller says how many."""

_MOST_STARTED = 1024
"""Units that wait to be decoded or to be fetched; each takes some memory."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a stream decodes to.

    Parameters
    ----------
    model : Model
        In memory, every tensor checked against its digest if there is one.
    is_update : bool
        Whether the tensors are differences to those of an earlier stream.
    has_digests : bool
        Whether the stream has a container record.
    stream_bytes : int
        Size of the stream.
    blocks : tuple of Block
        Which tensors stand for a weight.
    histories : mapping of str to TensorHistory
        By the name in the data unit, what the next update of a tensor may build on; of an update,
        where it was asked for.
    measured : Measurement or None
        What coding has cost, if the stream says so.
    differences : mapping of str to Difference
        Of an update: which tensors are no differences of values, but what changes bit patterns.
    turnover : Turnover
        Of an update: which tensors come, and so are no differences either, and which go.
    wrapper : Wrapper or None
        Of an update: what stands around the tensors of the model after it, if that has changed.
    """

    model: Model
    is_update: bool
    has_digests: bool
    stream_bytes: int
    blocks: tuple[Block, ...] = ()
    histories: Histories = field(default_factory=dict)
    measured: Measurement | None = None
    differences: Mapping[str, Difference] = field(default_factory=dict)
    turnover: Turnover = field(default_factory=Turnover)
    wrapper: Wrapper | None = None


def decode_stream(
    data: bytes | memoryview,
    limits: Limits,
    *,
    merge: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    require_record: bool = False,
) -> Model:
    """Decode the model in a stream; of an update the differences.

    Parameters
    ----------
    data, limits, threads, progress, require_record
        As in `decode_all`.
    merge : bool
        Multiply out what stands for a weight: the original architecture.
    """
    decoded = decode_all(
        data, limits, threads=threads, progress=progress, require_record=require_record
    )
    return merged_model(decoded, limits) if merge else decoded.model


def decode_all(
    data: bytes | memoryview,
    limits: Limits,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    histories: Histories | None = None,
    before: Model | None = None,
    require_record: bool = False,
) -> Decoded:
    """Decode a stream.

    Parameters
    ----------
    data : bytes or memoryview
        The stream.
    limits : Limits
        What to accept of a stream of any size.
    threads : int, optional
        How many tensors, or parts of a tensor, to decode at once; the result does not depend on
        it. By default the number of processors, `MOST_THREADS` at most.
    progress : callable, optional
        Called after each data unit.
    histories : mapping of str to TensorHistory, optional
        What the updates before this one left; an empty one to begin with. Without it nothing is
        kept for the next update.
    before : Model, optional
        What an update is an update of, as far as the caller knows.
    require_record : bool
        Refuse a stream without a container record.

    Raises
    ------
    BitstreamError
        If the stream is damaged, builds on an update that is not in `histories`, or is an update of
        another model than `before`.
    UnsupportedFeatureError
        If it uses what this version does not have.
    """
    if threads is not None:
        check_whole("threads", threads, 1)
    limits = limits.for_stream(len(data))
    stream = read_stream(data, limits, require_record=require_record)
    (parameter_set,) = stream.of_type(NnrUnitType.NNR_MPS)
    is_update = parameter_set.body.mps_parent_signalling_enabled_flag == 1
    _check_base(stream, before, is_update=is_update)
    contents = contents_of(stream)
    keep_levels = is_update and histories is not None
    kept_bytes = 6 * sum(content.size for content in contents) if keep_levels else 0
    decoded_bytes = sum(content.decoded_bytes for content in contents) + _tied_bytes(
        contents, stream
    )
    _check_total(decoded_bytes + kept_bytes, limits)

    tensors: dict[str, Tensor] = {}
    later: dict[str, TensorHistory] = {}
    differences: dict[str, Difference] = {}
    done, total = 0, sum(content.size for content in contents)
    turnover = Turnover() if stream.record is None else stream.record.turnover
    known = {} if turnover or histories is None else histories  # a name may be of another tensor
    decoded = _decode_contents(contents, known, keep_levels, threads or default_threads())
    for content, members in zip(contents, decoded, strict=True):
        for tensor, member in members:
            tensors[tensor.name] = tensor
            if member.difference is not None:
                if not is_update or tensor.name in turnover.new:
                    raise _no_base(tensor.name, content.unit)
                differences[tensor.name] = member.difference
            if member.levels is not None:
                name = member.member.name
                later[name] = next_history(known.get(name), member.levels, content.unit.body)
        done += content.size
        if progress is not None:
            progress(done, total)

    record = stream.record
    if record is None:
        model = Model.of(tensors.values())
    else:
        ordered = [_recorded(entry, tensors) for entry in record.tensors]
        ties = {e.name: e.tied_to for e in record.tensors if e.tied_to is not None}
        source = None if record.wrapper is None or is_update else Source(wrapper=record.wrapper)
        model = Model.of(
            ordered, record.graph, record.factors, ties=ties, source=source, onnx=record.onnx
        )
    try:
        check_factors(model)
    except ModelError as error:
        raise SyntaxElementError(str(error), path="record/factors") from error
    return Decoded(
        model,
        is_update,
        record is not None,
        len(data),
        blocks_of(contents),
        later,
        None if record is None else record.measured,
        differences,
        turnover,
        record.wrapper if record is not None and is_update else None,
    )


def _recorded(entry: TensorEntry, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return a tensor of the record, which may have no data unit of its own."""
    if entry.tied_to is not None:
        return replace(tensors[entry.tied_to], name=entry.name, role=entry.role)
    if entry.empty_shape is None:
        return tensors[entry.name]
    value = np.zeros(entry.empty_shape, DTYPES[entry.dtype])
    tensor = Tensor.of(entry.name, value, entry.dtype, entry.role)
    _check_digest(tensor, entry)
    return tensor


def _tied_bytes(contents: Sequence[Content], stream: Stream) -> int:
    """Return the bytes of tensors that are others under a second name, in a file without ties."""
    sizes = {
        entry.name: 8 * member.size
        for content in contents
        for member, entry in zip(content.members, content.entries, strict=True)
        if entry is not None
    }
    entries = () if stream.record is None else stream.record.tensors
    return sum(sizes[entry.tied_to] for entry in entries if entry.tied_to is not None)


def default_threads() -> int:
    """Return how many tensors to decode at once."""
    return min(os.cpu_count() or 1, MOST_THREADS)


def merged_model(decoded: Decoded, limits: Limits) -> Model:
    """Return a model with what stands for a weight multiplied out: the original architecture.

    Parameters
    ----------
    decoded : Decoded
        What a stream decoded to.
    limits : Limits
        What to accept of a stream of any size.

    Raises
    ------
    BitstreamError
        If the factors do not fit, or their products are too large.
    """
    limits = limits.for_stream(decoded.stream_bytes)
    _check_merge_macs(decoded, limits)
    try:
        merged = merge_factors(decoded.model)
    except ModelError as error:
        raise SyntaxElementError(str(error), path="record/factors") from error
    blocks = decoded.blocks
    weights = sum(8 * Member(b.weight, Part.WEIGHT, b.shape).size for b in blocks)
    merged_bytes = sum(t.stored_bytes for t in merged.tensors.values())
    _check_total(merged_bytes + weights, limits)
    tensors = (Tensor.of(t.name, t.read(), t.dtype, t.role) for t in merged.tensors.values())
    whole = {t.name: t for t in merge_blocks(tensors, blocks)}
    ties = {name: first for name, first in decoded.model.ties.items() if first in whole}
    return replace(merged, tensors=whole, ties=ties, source=decoded.model.source)


def _check_base(stream: Stream, before: Model | None, *, is_update: bool) -> None:
    """Raise if the record says that the stream is an update of another model, or of one at all."""
    base = stream.record.base if stream.record is not None else None
    if base is not None and not is_update:
        raise SyntaxElementError("only an update has a base model", path="record/base")
    if base is None or before is None:
        return
    digest = model_digest(before)
    if digest != base:
        raise UnitOrderError(
            f"this is an update of the model with digest {base}; what was decoded before has "
            f"{digest}. Streams are missing, or in another order, or of another model; of a model "
            "file, the order of its tensors counts, too",
            path="record/base",
        )


def _no_base(name: str, unit: Unit) -> UnitOrderError:
    return UnitOrderError(
        f"tensor {name!r} is a difference of bit patterns, but there is none that it is added to",
        bit_offset=unit.bit_offset,
        path=unit.path,
    )


def _check_total(decoded_bytes: int, limits: Limits) -> None:
    """Compare what will be allocated with the limits, before anything is."""
    if decoded_bytes > limits.max_decoded_bytes:
        raise LimitExceededError(
            f"the stream declares tensors of {decoded_bytes} bytes, "
            f"{limits.allowed('decoded_bytes')} (nnr-decode --max-bytes)"
        )


def _check_merge_macs(decoded: Decoded, limits: Limits) -> None:
    """Compare what will be multiplied with the limits, before anything is."""
    tensors = decoded.model.tensors
    macs = sum(math.prod(f.kernel_shape) * f.rank for f in decoded.model.factors)
    for block in decoded.blocks:
        g = tensors.get(block.g) if block.g is not None else None
        macs += math.prod(block.shape) * (g.shape[-1] if g is not None and g.shape else 1)
    if macs > limits.max_merge_macs:
        raise LimitExceededError(
            f"it takes {macs} multiply-adds to merge the weights of the stream, "
            f"{limits.allowed('merge_macs')}"
        )


def _decode_contents(
    contents: Sequence[Content],
    histories: Histories,
    keep_levels: bool,
    threads: int,
) -> Iterator[list[tuple[Tensor, DecodedMember]]]:
    """Yield the tensors of each unit in turn, decoding several units, or one in parts, at once.

    Large units come first, so that what cannot be done in parts is done beside others. The first
    error in the order of units is the one that is raised.
    """
    if threads == 1:
        for content in contents:
            yield _checked(content, _members(content, histories, keep_levels))
        return
    least = sum(content.size for content in contents) // threads
    pool = ThreadPoolExecutor(threads)

    def decode(content: Content) -> list[tuple[Tensor, DecodedMember]]:
        return _checked(content, _members(content, histories, keep_levels))

    def in_parts(content: Content) -> Future[list[tuple[Tensor, DecodedMember]]]:
        try:
            members = _members(content, histories, keep_levels, threads)
        except Exception as error:  # to be raised in its turn
            failed: Future[list[tuple[Tensor, DecodedMember]]] = Future()
            failed.set_exception(error)
            return failed
        return pool.submit(_checked, content, members)

    try:
        large = {
            position: in_parts(content)
            for position, content in enumerate(contents)
            if content.has_entry_points and content.size >= least
        }
        started = deque[Future[list[tuple[Tensor, DecodedMember]]]]()
        for position, content in enumerate(contents):
            if position >= _MOST_STARTED:
                yield started.popleft().result()
            started.append(large[position] if position in large else pool.submit(decode, content))
        for future in started:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _members(
    content: Content, histories: Histories, keep_levels: bool, threads: int = 1
) -> list[DecodedMember]:
    """Decode the tensors of a unit."""
    return content.kind.decode(content.unit, histories, threads=threads, keep_levels=keep_levels)


def _checked(
    content: Content, members: Sequence[DecodedMember]
) -> list[tuple[Tensor, DecodedMember]]:
    """Return the tensors of a unit as the record has them, compared with their digests."""
    with located(content.unit):
        return [
            (_tensor(member, entry), member)
            for member, entry in zip(members, content.entries, strict=True)
        ]


def _tensor(decoded: DecodedMember, entry: TensorEntry | None) -> Tensor:
    """Return a decoded tensor as the record has it, compared with its digest."""
    if entry is None:
        return Tensor.of(decoded.member.name, decoded.value)
    are_words = decoded.are_words and decoded.dtype == entry.dtype and not entry.is_pattern
    if are_words:
        value = decoded.held
    elif entry.is_pattern:
        value = _of_pattern(decoded, entry)
    else:
        value = _converted(decoded.value, decoded.dtype, entry.dtype)
    if entry.scalar:
        if value.size != 1:
            raise PayloadError(f"tensor {entry.name!r} is a scalar, but has {value.size} elements")
        value = value.reshape(())
    wrap = Tensor.of_words if are_words else Tensor.of
    tensor = wrap(entry.name, value, entry.dtype, entry.role)
    _check_digest(tensor, entry)
    return tensor


def _check_digest(tensor: Tensor, entry: TensorEntry) -> None:
    digest = tensor_digest(tensor)
    if digest != entry.digest:
        raise PayloadError(
            f"tensor {entry.name!r} decodes to digest {digest}, the record says {entry.digest}"
        )


def _of_pattern(decoded: DecodedMember, entry: TensorEntry) -> np.ndarray:
    """Return the values of a tensor whose bits were coded."""
    if is_float(decoded.dtype):
        raise PayloadError(f"the bit pattern of {entry.name!r} is coded as reals")
    try:
        return of_bit_pattern(decoded.value, entry.dtype)
    except ValueError as error:
        raise PayloadError(f"tensor {entry.name!r}: {error}") from error


def _converted(value: np.ndarray, decoded: str, dtype: str) -> np.ndarray:
    """Return a tensor in the dtype that the record gives it; integers must not change."""
    if decoded == dtype:
        return value
    if is_float(decoded) == is_float(dtype):
        converted = cast(value, dtype)
        if is_float(dtype) or np.array_equal(converted, value):
            return converted
    raise PayloadError(f"values of dtype {decoded} do not become {dtype}, which the record says")
