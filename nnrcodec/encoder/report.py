"""What an encoder has done: the stream, and the report beside it."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from nnrcodec.calibration.fidelity import Fidelity
from nnrcodec.container.turnover import Turnover
from nnrcodec.encoder.trials import SearchResult, Trial
from nnrcodec.errors import LimitExceededError
from nnrcodec.graph.graph import Graph
from nnrcodec.graph.names import original_name
from nnrcodec.inspection import StreamInfo, TensorInfo, inspect
from nnrcodec.limits import Limits
from nnrcodec.model.source import LeftOut, Source
from nnrcodec.reduce.batch_norm import FoldReport
from nnrcodec.reduce.distillation import DistillationReport
from nnrcodec.reduce.low_rank import LayerReport

logger = logging.getLogger(__name__)

_OfLayer = TypeVar("_OfLayer", LayerReport, FoldReport)


@dataclass(frozen=True, slots=True)
class TensorReport:
    """How one tensor was coded.

    Parameters
    ----------
    name : str
        Its name in the model that was coded: of the factors, where a layer became two. Where it is
        coded under a safe name, this is the original one.
    shape : tuple of int
        Its dimensions.
    dtype : str
        What it was, and decodes to.
    coder : str
        ``cabac``, ``ans``, ``lossless`` or ``raw``.
    coding : str or None
        ``dependent`` or ``uniform`` levels, indices into a ``codebook``, ``integer`` values; None
        for values that are stored.
    qp : int or None
        Quantization parameter, where the tensor has one of its own in its unit.
    step_size : float or None
        What it stands for.
    unit_bytes : int
        Bytes of the data unit that it is in, which may hold other tensors of its layer.
    bits_per_weight : float
        Bits of that unit for each of its elements.
    relative_error : float
        Root of the squared error of the decoded values over their squares, as against the tensor
        that was coded: after folding, low rank and bias correction. 0 if it is exact.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    coder: str
    coding: str | None
    qp: int | None
    step_size: float | None
    unit_bytes: int
    bits_per_weight: float
    relative_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeReport:
    """What an encoder has done.

    Parameters
    ----------
    stream_bytes, original_bytes : int
        Size of the stream, and of the tensors of the model that was given.
    original_elements : int
        Elements of these tensors.
    tensors : tuple of TensorReport
        How each tensor was coded, in the order of the stream.
    coders : mapping of str to int
        How many tensors each of `nnrcodec.units.kinds.CODERS` has coded.
    layers : tuple of LayerReport
        What low rank did to each layer, and why to some nothing; empty if it was off.
    folds : tuple of FoldReport
        What batch-norm folding did to each layer; empty if it was off.
    distillation : DistillationReport or None
        What distillation did, if it was on.
    trials : tuple of Trial
        The streams that a search for a loss or a size has made.
    taken : Trial or None
        The one that was taken.
    seconds : float
        How long all of it took.
    stage_seconds : mapping of str to float
        How long each stage took; those of a search are summed up.
    fidelity : Fidelity or None
        How near the outputs of the decoded network are to those of the original, if that was
        measured.
    notes : tuple of str
        What was logged as a warning on the way: fallbacks, with their reasons.
    form : str
        What kind of file the model was read from, in words; empty if it was no file.
    coded : str
        The entry of that file that was coded; empty for all of it.
    left_out : tuple of LeftOut
        Entries of that file that were not coded.
    ties : mapping of str to str
        Tensors that are the same as another one, and so were not coded: names.
    lossless : bool
        Whether all tensors were to be coded bit for bit, and so were.
    new, gone : tuple of str
        Of an update: tensors that are whole in it, as they are not in the base model or of another
        shape or dtype there, and tensors of the base model that it takes out.
    """

    stream_bytes: int
    original_bytes: int
    original_elements: int
    tensors: tuple[TensorReport, ...]
    coders: Mapping[str, int]
    layers: tuple[LayerReport, ...] = ()
    folds: tuple[FoldReport, ...] = ()
    distillation: DistillationReport | None = None
    trials: tuple[Trial, ...] = ()
    taken: Trial | None = None
    fidelity: Fidelity | None = None
    seconds: float = 0.0
    stage_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    form: str = ""
    coded: str = ""
    left_out: tuple[LeftOut, ...] = ()
    ties: Mapping[str, str] = dataclasses.field(default_factory=dict)
    lossless: bool = False
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    @property
    def loss(self) -> float | None:
        """The loss of the stream in the unit of the score, if it was measured."""
        return None if self.taken is None else self.taken.loss

    @property
    def bits_per_weight(self) -> float:
        """Bits of the stream for each element of the original."""
        return 8 * self.stream_bytes / self.original_elements

    def to_json(self) -> dict[str, Any]:
        """Return the report as what JSON can hold."""
        values = {
            field.name: _to_json(getattr(self, field.name)) for field in dataclasses.fields(self)
        }
        return {**values, "loss": self.loss, "bits_per_weight": self.bits_per_weight}


class EncodeResult(bytes):
    """A stream: bytes, with the report of how it was made.

    Attributes
    ----------
    report : EncodeReport
        What the encoder has done.
    """

    report: EncodeReport

    @classmethod
    def of(cls, data: bytes, report: EncodeReport) -> EncodeResult:
        """Put a stream and its report together."""
        result = cls(data)
        result.report = report
        return result

    @property
    def data(self) -> bytes:
        """The stream as plain bytes."""
        return bytes(self)


def report_of(
    result: SearchResult,
    graph: Graph | None,
    source: Source | None = None,
    *,
    seconds: float,
    stage_seconds: Mapping[str, float],
    notes: Sequence[str],
    lossless: bool = False,
    turnover: Turnover | None = None,
) -> EncodeReport:
    """Return the report of a stream.

    Parameters
    ----------
    result : SearchResult
        The stream, and the search for it.
    graph : Graph, optional
        Of the model that was given; it knows names that the stream has under safe ones.
    source : Source, optional
        The file that the model is from.
    seconds, stage_seconds, notes, lossless
        As in `EncodeReport`.
    turnover : Turnover, optional
        Of an update.
    """
    turnover = turnover or Turnover()
    encoded, source = result.encoded, source or Source()
    info = _inspected(encoded.data)
    tensors = tuple(_tensors(info.tensors, encoded.errors, graph))
    return EncodeReport(
        stream_bytes=len(encoded.data),
        original_bytes=encoded.original_bytes,
        original_elements=encoded.original_elements,
        tensors=tensors,
        coders=dict(encoded.coders),
        layers=_with_original_names(encoded.layers, graph),
        folds=_with_original_names(encoded.folds, graph),
        distillation=encoded.distilled,
        trials=result.trials,
        taken=result.taken,
        fidelity=result.fidelity,
        seconds=seconds,
        stage_seconds=stage_seconds,
        notes=(*source.notes, *notes),
        form=source.form,
        coded=source.coded,
        left_out=source.left_out,
        ties={original_name(n, graph): original_name(f, graph) for n, f in info.ties.items()},
        lossless=lossless,
        new=tuple(turnover.new),
        gone=turnover.gone,
    )


def _with_original_names(rows: Iterable[_OfLayer], graph: Graph | None) -> tuple[_OfLayer, ...]:
    return tuple(replace(row, layer=original_name(row.layer, graph)) for row in rows)


def _inspected(data: bytes) -> StreamInfo:
    """Return what is in a stream of ours, and warn if decoders refuse it by default."""
    try:
        return inspect(data)
    except LimitExceededError as error:
        logger.warning(
            "by default decoders refuse this stream: %s",
            error,
        )
        return inspect(data, limits=Limits().lifted())


def _tensors(
    units: tuple[TensorInfo, ...], errors: Mapping[str, float], graph: Graph | None
) -> Iterator[TensorReport]:
    for unit in units:
        for name, shape in zip(unit.names, unit.shapes or (), strict=True):
            yield TensorReport(
                name=original_name(name, graph),
                shape=shape,
                dtype=unit.dtype or "float32",
                coder=unit.coder,
                coding=unit.coding,
                qp=unit.qp,
                step_size=unit.step_size,
                unit_bytes=unit.unit_bytes,
                bits_per_weight=unit.bits_per_weight or 0.0,
                relative_error=errors.get(name, 0.0),
            )


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
