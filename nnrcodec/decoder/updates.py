"""A base model and updates of it: what has to be remembered from one stream to the next.

A stream whose mps_parent_signalling_enabled_flag is 0 is a base model; with 1 it is an update: its
tensors are differences, and those that are not in it do not change. The base model may also be a
model file that the receiver has. Owns that state; the streams themselves are decoded by
`nnrcodec.decoder.pipeline`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nnrcodec.container.short_names import short_names
from nnrcodec.container.stream import read_stream
from nnrcodec.decoder.pipeline import Decoded, decode_all, merged_model
from nnrcodec.entropy.lossless.model import Difference
from nnrcodec.entropy.lossless.words import changed
from nnrcodec.errors import (
    ConfigError,
    ModelError,
    PayloadError,
    SyntaxElementError,
    UnitOrderError,
)
from nnrcodec.formats.sources import base_of, in_memory
from nnrcodec.graph.names import original_name
from nnrcodec.limits import Limits
from nnrcodec.messages import logger_of
from nnrcodec.model.dtypes import DTYPES, cast, is_float, item_bytes, words_of
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.model.source import Source, WrapperError, check_wrapper
from nnrcodec.parallel import in_order
from nnrcodec.progress import Progress
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.units.ndu import TensorHistory

if TYPE_CHECKING:
    from nnrcodec.graph.module import DecodedModel

logger = logger_of(__name__)


class UpdateDecoder:
    """Decode a base model and its updates, in their order.

    Parameters
    ----------
    base : path, torch.nn.Module, torch.export.ExportedProgram, mapping or Model, optional
        A base model that the receiver has without decoding it: the same one that the encoder of the
        updates had, as its tensors have to agree bit for bit. Without it the first stream is the
        base model. A path is that of a model file or of a stream.
    limits : Limits, optional
        What to accept of each stream.
    threads : int, optional
        How many tensors to decode at once; the results do not depend on it.
    require_record : bool
        Refuse a stream without a container record, which all streams of this package have.

    Examples
    --------
    >>> import numpy as np
    >>> import nnrcodec
    >>> decoder = nnrcodec.UpdateDecoder()
    >>> base = nnrcodec.encode({"w": np.arange(40, dtype=np.float32)})
    >>> list(decoder.decode(base)), decoder.state["w"].shape
    (['w'], (40,))
    """

    def __init__(
        self,
        base: Any = None,
        *,
        limits: Limits | None = None,
        threads: int | None = None,
        require_record: bool = False,
    ) -> None:
        self._limits = limits or Limits()
        self._require_record = require_record
        self._threads = threads
        self._decoded: Decoded | None = None
        self._has_file = False
        self._histories: dict[str, TensorHistory] = {}
        if base is not None:
            self._start(base_of(base))

    def _start(self, base: bytes | Model) -> None:
        """Begin with a base model, which may be a stream."""
        if isinstance(base, Model):
            self._decoded = Decoded(in_memory(base), False, True, base.stored_bytes)
            self._has_file = True
            return
        if is_update(base, self._limits):
            raise ConfigError(
                "the base is an update, whose tensors are differences: give the base model, and "
                "decode its updates in their order"
            )
        self.decode(base)

    def decode(
        self, data: bytes, *, progress: Progress | None = None, is_difference: bool = False
    ) -> dict[str, np.ndarray]:
        """Decode the next stream.

        A base model starts a new sequence. What is remembered changes only if all of the stream
        was decoded.

        Parameters
        ----------
        data : bytes
            The stream.
        progress : callable, optional
            Called after each data unit with elements done and elements in all.
        is_difference : bool
            Whether it is a plain stream of differences, which does not say so itself: its tensors
            are added to those of the same names. It must not have a container record.

        Returns
        -------
        dict of str to ndarray
            The tensors of this stream; of an update they are differences, but for new tensors.

        Raises
        ------
        BitstreamError
            If the stream is damaged, or is no update of what was decoded before.
        UnsupportedFeatureError
            If it uses what this version does not have.
        """
        decoded = decode_all(
            data,
            self._limits,
            threads=self._threads,
            progress=progress,
            histories=self._histories,
            before=None if self._decoded is None else self._decoded.model,
            require_record=self._require_record,
        )
        if is_difference:
            decoded = _as_difference(decoded, self._decoded)
        if not decoded.is_update:
            self._histories, self._decoded, self._has_file = {}, decoded, False
        elif self._decoded is None:
            raise UnitOrderError(
                "this stream is an update: its tensors are differences to those of a base model, "
                "which has to be decoded first"
            )
        else:
            if not decoded.has_digests and not decoded.model.tensors:
                logger.warning(
                    "this update has neither tensors nor a record, so that nothing changes: was it "
                    "cut short?"
                )
            model = _updated(self._decoded.model, decoded)
            stream_bytes = self._decoded.stream_bytes + decoded.stream_bytes
            self._decoded = replace(self._decoded, model=model, stream_bytes=stream_bytes)
            self._histories = {**self._histories, **decoded.histories}
            if decoded.turnover:  # the same name may be of another tensor
                self._histories = {}
        return state_of(replace(decoded.model, graph=self._decoded.model.graph))

    def decode_update(self, data: bytes, name: object, *, progress: Progress | None = None) -> None:
        """Decode a stream that follows a base model: it must not be one itself.

        One without a container record that follows a model file, and does not say that it is an
        update, is taken for a plain stream of differences, which a warning says: it is by other
        software, or was made to be added, and no stream could be in place of the file.

        Parameters
        ----------
        data : bytes
            The stream.
        name : object
            What it is called in messages.
        progress : callable, optional
            As for `decode`.

        Raises
        ------
        ConfigError
            It is a base model.
        BitstreamError, UnsupportedFeatureError
            As for `decode`.
        """
        is_difference = not is_update(data, self._limits)
        if is_difference:
            if not self._has_file or read_stream(data, self._limits).record is not None:
                raise ConfigError(
                    f"{name} is a base model, not an update: give one base model, then its "
                    "updates in their order"
                )
            logger.warning(
                "%s does not say that it is an update, and has no record: its tensors are taken "
                "for differences, and are added to those of the base model",
                name,
            )
        self.decode(data, progress=progress, is_difference=is_difference)

    @property
    def state(self) -> dict[str, np.ndarray]:
        """The state dict: the base model with all updates so far."""
        return {} if self._decoded is None else state_of(self._decoded.model)

    @property
    def histories(self) -> Mapping[str, TensorHistory]:
        """By name in the data unit, what the next update of a tensor may build on."""
        return dict(self._histories)

    def network(self, *, merge: bool = False) -> Model:
        """Return the tensors of the base model with all updates so far, and its graph if any.

        Parameters
        ----------
        merge : bool
            Multiply low-rank factors out: the original architecture.

        Raises
        ------
        UnitOrderError
            If nothing was decoded yet.
        """
        if self._decoded is None:
            raise UnitOrderError("there is no model yet: decode a base model first")
        return merged_model(self._decoded, self._limits) if merge else self._decoded.model

    def model(self, *, merge: bool = False) -> DecodedModel:
        """Return the base model with all updates so far, as a network that runs.

        Parameters
        ----------
        merge : bool
            As in `network`.

        Returns
        -------
        torch.nn.Module
            As `nnrcodec.decode_model` returns it. It does not change with later updates, nor do
            they if it is trained.

        Raises
        ------
        UnitOrderError
            If nothing was decoded yet.
        ModelError
            If the base model has tensors only, no graph.
        """
        network = self.network(merge=merge)
        stream_bytes = self._decoded.stream_bytes if self._decoded is not None else 0
        return runnable(in_memory(network), self._limits.for_stream(stream_bytes))


def is_update(data: bytes, limits: Limits | None = None) -> bool:
    """Return whether a stream is an update, from its headers.

    Parameters
    ----------
    data : bytes
        The stream.
    limits : Limits, optional
        What to accept of it.
    """
    (parameters,) = read_stream(data, limits).of_type(NnrUnitType.NNR_MPS)
    return bool(parameters.body.mps_parent_signalling_enabled_flag == 1)


def _as_difference(decoded: Decoded, before: Decoded | None) -> Decoded:
    """Return what a plain stream of differences says as an update.

    Raises
    ------
    ConfigError
        It is something else.
    """
    if decoded.is_update or decoded.has_digests:
        raise ConfigError(
            "this stream says itself what it is, a base model or an update, and is no plain stream "
            "of differences"
        )
    if before is None:
        return replace(decoded, is_update=True)
    base, tensors = before.model, decoded.model.tensors
    names = {original_name(name, base.graph): name for name in base.tensors}
    if not tensors.keys() <= names.keys():
        numbers = {number: name for name, number in short_names(base).items()}
        names = numbers if tensors.keys() <= numbers.keys() else names
    named = Model.of(replace(t, name=names.get(t.name, t.name)) for t in tensors.values())
    return replace(decoded, model=named, is_update=True)


def runnable(model: Model, limits: Limits) -> DecodedModel:
    """Return a decoded network as a module of PyTorch that runs.

    Parameters
    ----------
    model : Model
        Decoded.
    limits : Limits
        For a stream of its size.

    Raises
    ------
    ModelError
        If it has no graph.
    """
    from nnrcodec.graph.module import build_module, optimized_for_inference

    if model.graph is None:
        raise ModelError(
            "this stream has tensors only, no graph: use nnrcodec.load_into(module, data), or "
            "encode the network from a .pt2 file or with example inputs"
        )
    return optimized_for_inference(build_module(model, limits))


def state_of(model: Model, threads: int | None = 1) -> dict[str, np.ndarray]:
    """Return the tensors of a decoded model that belong to its state dict, by original names.

    Parameters
    ----------
    model : Model
        Decoded.
    threads : int, optional
        How many tensors to read at once, by default one for each processor: bfloat16 becomes wider.
    """
    tensors = [t for t in model.tensors.values() if t.role is not Role.CONSTANT]
    names = (original_name(tensor.name, model.graph) for tensor in tensors)
    has_wider = any(t.words is not None and t.dtype == "bfloat16" for t in tensors)
    values = in_order(lambda tensor: tensor.read(), tensors, threads if has_wider else 1)
    return dict(zip(names, values, strict=True))


def _updated(model: Model, update: Decoded) -> Model:
    """Add differences to a model, and change which tensors it has."""
    turnover, coded = update.turnover, update.model
    try:
        order = turnover.order(model.tensors)
    except ValueError as error:
        raise UnitOrderError(str(error), path="record/new") from None
    if turnover:
        _require_alike_with_graph(model, update)
    tensors = dict(model.tensors)
    for name, difference in coded.tensors.items():
        if name in turnover.new:
            if coded.ties.get(name, name) not in turnover.new:
                raise UnitOrderError(f"new tensor {name!r} is tied to one that is not new")
            tensors[name] = difference
            continue
        if name not in tensors:
            raise UnitOrderError(
                f"an update of tensor {name!r}, which the base model does not have"
            )
        form = update.differences.get(name)
        if form is None:
            tensors[name] = _sum(tensors[name], difference)
        else:
            tensors[name] = _changed(tensors[name], difference, form)
    left = {*turnover.gone, *turnover.new}
    ties = {
        name: first
        for name, first in model.ties.items()
        if name not in coded.tensors and left.isdisjoint((name, first))
    }
    for name, first in ties.items():
        tensors[name] = replace(tensors[first], name=name, role=tensors[name].role)
    tensors = {name: tensors[name] for name in order}
    ties |= {name: first for name, first in coded.ties.items() if name in turnover.new}
    source = _source_after(model, update, tensors)
    return replace(model, tensors=tensors, ties=ties, source=source)


def _require_alike_with_graph(model: Model, update: Decoded) -> None:
    """Raise if other tensors come or go and a model is more than tensors, which they do not fit."""
    if model.graph is None and model.onnx is None and not model.factors:
        return

    def form(owner: Model, name: str) -> object:
        tensor = owner.tensors.get(name)
        return tensor and (tensor.shape, tensor.dtype, tensor.role, name in owner.ties)

    new = update.turnover.new
    if update.turnover.gone or any(form(model, n) != form(update.model, n) for n in new):
        raise UnitOrderError(
            "an update with other tensors than the base model has, which has a graph that they do "
            "not fit",
            path="record/new",
        )


def _source_after(model: Model, update: Decoded, tensors: Mapping[str, Tensor]) -> Source | None:
    """Return what stands around the tensors of a model after an update.

    Raises
    ------
    SyntaxElementError
        The update has something else that does not fit them.
    """
    own = None if model.source is None else model.source.wrapper
    wrapper = update.wrapper or own
    if wrapper is None or (wrapper is own and not update.turnover):
        return model.source
    try:
        check_wrapper(wrapper, tensors)
    except WrapperError as error:
        if wrapper is update.wrapper:
            raise SyntaxElementError(str(error), path="record/wrapper") from None
        logger.warning("what stands around the tensors in the file is not kept: %s", error)
        return Source()
    return Source(wrapper=wrapper)


def _changed(base: Tensor, difference: Tensor, form: Difference) -> Tensor:
    """Change the bit patterns of a tensor."""
    patterns = difference.read()
    if base.shape != difference.shape or item_bytes(base.dtype) != patterns.dtype.itemsize:
        raise SyntaxElementError(
            f"an update of tensor {base.name!r} has {list(difference.shape)} patterns of "
            f"{8 * patterns.dtype.itemsize} bits, the base model is {base.dtype}{list(base.shape)}"
        )
    words = changed(words_of(base.read(), base.dtype), patterns, form)
    return Tensor.of_words(base.name, words, base.dtype, base.role)


def _sum(base: Tensor, difference: Tensor) -> Tensor:
    """Add a difference to a tensor.

    Floats are added in binary32, or in binary64 where the base is of that, and rounded to the
    dtype of the base. Integers of 64 bits wrap around; others must stay in their range.
    """
    if base.shape != difference.shape:
        raise SyntaxElementError(
            f"an update of tensor {base.name!r} has dimensions {list(difference.shape)}, the base "
            f"model has {list(base.shape)}"
        )
    complex_numbers = "c" in (DTYPES[base.dtype].kind, DTYPES[difference.dtype].kind)
    if complex_numbers or is_float(base.dtype) != is_float(difference.dtype):
        raise SyntaxElementError(
            f"an update of tensor {base.name!r} is of dtype {difference.dtype}, the base model is "
            f"of {base.dtype}"
        )
    held: type = np.int64
    if is_float(base.dtype):
        held = np.float64 if base.dtype == "float64" else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        total: np.ndarray = np.asarray(base.read().astype(held) + difference.read().astype(held))
    rounded = cast(total, base.dtype)
    must_fit = held is np.int64 and DTYPES[base.dtype].itemsize < 8
    if must_fit and not np.array_equal(rounded, total):
        raise PayloadError(f"an update leads tensor {base.name!r} out of {base.dtype}")
    return Tensor.of(base.name, rounded, base.dtype, base.role)
