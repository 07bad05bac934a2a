"""Updates: streams of differences to what the receiver has.

Owns `UpdateEncoder`. It knows what a decoder has by decoding what it sends, so that the errors of
one update are in the difference of the next and do not add up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nnrcodec.config import EncoderConfig, as_config
from nnrcodec.container.stream import read_stream
from nnrcodec.container.turnover import Turnover
from nnrcodec.decoder.merging import merge
from nnrcodec.decoder.updates import UpdateDecoder, is_update
from nnrcodec.encoder.differences import Base, can_be_differed, has_same_bits
from nnrcodec.encoder.overrides import ConfigOf, config_of
from nnrcodec.encoder.pipeline import encode_reduced, reduce_model
from nnrcodec.encoder.report import EncodeResult, report_of
from nnrcodec.encoder.trials import SearchResult
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats.sources import base_of, in_memory, model_of
from nnrcodec.graph.names import original_name
from nnrcodec.limits import Limits
from nnrcodec.messages import logger_of, said_once, some
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.model.source import PLAIN, Wrapper, places_tensors_alike
from nnrcodec.progress import StageProgress, TimedStages
from nnrcodec.reduce.projection import on_factors

if TYPE_CHECKING:
    import torch

logger = logger_of(__name__)


class UpdateEncoder:
    """Encode a network that goes on changing, as differences to the streams before.

    A stream it makes is of profile nnc, whatever the base model is, but for tensors that are coded
    without loss. Tensors that do not change, to the step size, are not in it. If the base model has
    no graph, tensors may come, go, or change shape: they are then coded whole, which a warning
    says.

    Parameters
    ----------
    base : bytes, path, torch.nn.Module, torch.export.ExportedProgram, mapping or Model
        The base model: its stream, or a network that the receiver has without decoding it, such as
        a model file that was published. A path is that of a stream or of a model file.
    updates : iterable of bytes
        The updates that were sent since, in their order.
    config : EncoderConfig, optional
        How to code. Without a qp, the step size of a tensor is that of coding it anew; low rank,
        codebooks, blocks and folding are not for updates.
    difference : bool
        Make a plain stream of the standard whose tensors are differences, as codec prototypes add
        them up: nothing in it says that it is an update, or of what.
    limits : Limits, optional
        What to accept of the streams.

    Raises
    ------
    BitstreamError, UnsupportedFeatureError
        If a stream cannot be decoded.
    ModelError
        If a network cannot be read.
    ConfigError
        If the configuration is not for updates, or a stream is not what it should be.

    Examples
    --------
    >>> import numpy as np
    >>> import nnrcodec
    >>> weights = np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)
    >>> base = nnrcodec.encode({"w": weights})
    >>> encoder = nnrcodec.UpdateEncoder(base)
    >>> weights[7, 7] += 1
    >>> update = encoder.encode({"w": weights})
    >>> decoder = nnrcodec.UpdateDecoder()
    >>> for stream in (base, update):
    ...     _ = decoder.decode(stream)
    >>> bool(abs(decoder.state["w"] - weights).max() < 0.3)
    True

    A receiver that has the base model already needs the update only:

    >>> base = {"w": weights.copy()}
    >>> weights[7, 7] += 1
    >>> update = nnrcodec.UpdateEncoder(base).encode({"w": weights})
    >>> decoder = nnrcodec.UpdateDecoder(base)
    >>> bool(abs(decoder.decode(update)["w"]).max() > 0.9)
    True
    """

    def __init__(
        self,
        base: Any,
        updates: Iterable[bytes] = (),
        config: EncoderConfig | None = None,
        *,
        difference: bool = False,
        limits: Limits | None = None,
    ) -> None:
        config = as_config(config)
        if config.low_rank or config.fold_batch_norm or config.codebook:
            raise ConfigError(
                "an update has the tensors of its base model: low rank, batch-norm folding and "
                "codebooks are for the base model only"
            )
        if config.has_target:
            raise ConfigError("max_loss and target_bytes are for the base model only")
        if isinstance(updates, bytes | bytearray | memoryview):
            raise ConfigError("updates is one stream, expected a list of them")
        exact = config.lossless or config.kept_patterns
        if exact and difference:
            raise ConfigError(
                "lossless updates change bit patterns, and a plain difference is added to values: "
                "omit one of the two"
            )
        self._is_plain = difference
        self._config = config if exact else replace(config, profile="nnc")
        if difference:
            self._config = replace(self._config, record=False)
        base = base_of(base)
        self._bytes_of_lossy_base = 0
        if isinstance(base, bytes):
            if is_update(base, limits):
                raise ConfigError(
                    "stream 1 of those to build on is an update, expected a base model"
                )
            record = read_stream(base, limits).record
            self._has_short_names = record is not None and record.has_short_names
            measured = None if record is None else record.measured
            if measured is not None and math.isfinite(measured.snr):
                self._bytes_of_lossy_base = len(base)
        else:
            self._has_short_names = config.short_names
        if difference:
            self._has_short_names = config.short_names
        elif self._has_short_names and not self._config.record:
            raise ConfigError("short names of updates need the record, which says whose they are")
        self._decoder = UpdateDecoder(base, limits=limits, threads=config.threads)
        for index, data in enumerate(updates):
            if not is_update(data, limits):
                raise ConfigError(f"stream {index + 2} of those to build on is no update")
            self._decoder.decode(data)

    @property
    def state(self) -> dict[str, np.ndarray]:
        """The state dict that the receiver has: what the next update is a difference to."""
        return self._decoder.state

    def start(self, module: torch.nn.Module | None = None) -> torch.nn.Module:
        """Return the network that the receiver has, to be trained and given to `encode`.

        What is trained from the original instead differs from it in all weights, by the errors of
        coding, and its update is large.

        Parameters
        ----------
        module : torch.nn.Module, optional
            Loaded with the weights that the receiver has. Needed if the base model has no graph.

        Returns
        -------
        torch.nn.Module
            `module`, or a network made of the graph of the base model.

        Raises
        ------
        ModelError
            If there is neither a module nor a graph, or `module` has other tensors.
        """
        network = self._decoder.network()
        if module is not None:
            from nnrcodec.decoder.loading import load_tensors

            load_tensors(module, network)
            return module
        if network.graph is None:
            raise ModelError(
                "the base model has tensors only, no graph: give start() the module to load"
            )
        from nnrcodec.graph.module import build_module

        return build_module(in_memory(network))

    def encode(self, model: Any, *, progress: StageProgress | None = None) -> EncodeResult:
        """Encode the differences to what a decoder has, which then has the result.

        Parameters
        ----------
        model : torch.nn.Module, torch.export.ExportedProgram, mapping or Model
            The network as it is now. If layers of the base model are low rank, it may have them
            whole: they are then projected onto factors of the same rank, which a warning says.
        progress : callable, optional
            Called with the name of a stage, how much of it is done, and how much there is.

        Returns
        -------
        EncodeResult
            The stream: bytes, with a `report` as that of `nnrcodec.encode`. Errors in it are those
            of the differences; tensors that are not in the stream did not change.

        Raises
        ------
        ModelError
            If its tensors do not fit those of the base model, or one cannot be coded.
        ConfigError
            If a step size that was asked for does not fit.
        """
        start, stages = time.perf_counter(), TimedStages(progress)
        with said_once() as notes:
            before = self._decoder.network()
            given = _with_names_of(before, model_of(model))
            _compare_graphs(given, before)
            now = on_factors(given, before)
            turnover = _turnover(now, before, config_of(self._config, before))
            if turnover and not self._config.record:
                raise ModelError(
                    "tensors come or go with the update, which only a record tells: keep the record"
                )
            base = Base.of(
                before,
                {} if turnover or self._is_plain else self._decoder.histories,
                now,
                turnover,
                has_short_names=self._has_short_names,
                new_wrapper=_new_wrapper(now, before, turnover, lossless=self._config.lossless),
                is_plain=self._is_plain,
            )
            if not turnover and before.graph is None:
                _say_what_stays(now, before)
            encoded = encode_reduced(
                reduce_model(_to_code(now, base), self._config, stages),
                self._config,
                stages,
                base=base,
            )
            self._decoder.decode(encoded.data, is_difference=self._is_plain)
            if 2 * len(encoded.data) > self._bytes_of_lossy_base > 0 and not turnover:
                logger.warning(
                    "the update is more than half as large as its base model. If the network was "
                    "trained from the original, and not from what the receiver has, most of it is "
                    "the errors of coding the base model: train what UpdateEncoder.start() returns "
                    "or nnr-decode writes"
                )
            report = report_of(
                SearchResult(encoded),
                before.graph,
                given.source,
                seconds=time.perf_counter() - start,
                stage_seconds=stages.seconds,
                notes=notes,
                lossless=self._config.lossless,
                turnover=turnover,
            )
        return EncodeResult.of(encoded.data, report)


def _to_code(now: Model, base: Base) -> Model:
    """Return the tensors that may be in an update, in the order after it."""
    new = base.turnover.new
    return Model.of(
        (
            now.tensors[name]
            for name in base.after.tensors
            if name in now.tensors and (name in new or name not in base.after.ties)
        ),
        ties={name: first for name, first in now.ties.items() if {name, first} <= new.keys()},
    )


def _new_wrapper(
    now: Model, before: Model, turnover: Turnover, *, lossless: bool
) -> Wrapper | None:
    """Return what stands around the tensors, if an update is to say so.

    It is, where tensors have other places or kinds, and in an update without loss. Else values that
    have changed stay as they are, which a warning says.
    """
    old = _wrapper_of(before)
    if now.source is None or now.source.wrapper == old:
        return None
    new = now.source.wrapper
    if new is None and old is not None and old.kind in PLAIN:
        new = Wrapper(old.kind, PLAIN[old.kind])
    if new is None or (before.graph is not None and new.kind == "torch"):
        return None
    is_of_kind = new.kind == ("torch" if old is None else old.kind)
    if lossless or turnover or (is_of_kind and not places_tensors_alike(new, old)):
        return new
    logger.warning(
        "what stands around the tensors in the file has changed: an update has tensors only, and "
        "the rest stays as it is in the base model; lossless updates have it"
    )
    return None


def _with_names_of(base: Model, model: Model) -> Model:
    """Return a model with the names and roles that its tensors have in the base model's stream."""
    names = _names_of(base)

    def named(tensor: Tensor) -> Tensor:
        name = names.get(tensor.name, tensor.name)
        return replace(tensor, name=name, role=base.tensors.get(name, tensor).role)

    return Model.of(
        map(named, model.tensors.values()),
        model.graph,
        onnx=model.onnx,
        ties={names.get(n, n): names.get(first, first) for n, first in model.ties.items()},
        source=model.source,
    )


def _compare_graphs(model: Model, base: Model) -> None:
    """Warn if a network does something else than the base model."""
    if model.graph is None or base.graph is None:
        return
    graph = model.graph.rename({**_names_of(base), **model.ties})
    known = [base.graph, merge(base).graph] if base.factors else [base.graph]
    same = (graph.nodes, graph.output) in [(g.nodes, g.output) for g in known if g is not None]
    proto, before = (m.onnx.proto if m.onnx is not None else None for m in (model, base))
    if same and (proto is None or before is None or proto == before):
        return
    logger.warning(
        "%s: an update has tensors only, and %s; if the network itself has changed, encode a new "
        "base model",
        "the graph of the network is not that of the base model"
        if not same
        else "the ONNX file has changed, and not only its weights",
        "the receiver keeps the graph that it has",
    )


def _names_of(base: Model) -> dict[str, str]:
    """Return by original names those of the base model's stream; of low-rank layers whole, too."""
    whole = [f"{f.layer}.{part}" for f in base.factors for part in ("weight", "bias")]
    return {original_name(name, base.graph): name for name in (*whole, *base.tensors)}


def _wrapper_of(model: Model) -> Wrapper | None:
    return None if model.source is None else model.source.wrapper


def _turnover(now: Model, before: Model, config_for: ConfigOf) -> Turnover:
    """Return which tensors come and go, and say so.

    Constants of a graph may be left out, and then stay. A tensor of the same shape and dtype is new
    if there can be no difference, such as one that has become infinite.

    Raises
    ------
    ModelError
        The base model is more than tensors, which others would not fit.
    """
    shared = before.tensors.keys() & now.tensors
    constants = [
        n for n, t in before.tensors.items() if t.role is Role.CONSTANT and n not in shared
    ]
    others = {name: words for name in shared if (words := _change_of(name, now, before))}
    others |= {
        name: others.get(name, f"{name!r} is the same as that")
        for name, first in before.ties.items()
        if first in others and name in shared
    }
    incomparable = {
        name
        for name in shared - before.ties.keys() - others.keys()
        if not can_be_differed(now.tensors[name], before.tensors[name], config_for(name))
    }
    turnover = Turnover.between(
        before.tensors, [*now.tensors, *constants], others.keys() | incomparable
    )
    words = "; ".join(_words_of(turnover, before, list(others.values())))
    if words and (before.graph is not None or before.onnx is not None):
        raise ModelError(
            f"this is no update of the base model, which has a graph that other tensors do not "
            f"fit: {words}. Encode a new base model, or take a base model of tensors only"
        )
    if words:
        logger.warning("the update changes which tensors the model has: %s", words)
    return turnover


def _say_what_stays(now: Model, before: Model) -> None:
    """Warn of the order of tensors and of ties, which an update without new tensors cannot tell."""
    if list(now.tensors) != list(before.tensors):
        logger.warning(
            "the tensors of the model are in another order than those of the base model, which an "
            "update does not tell: the receiver keeps the order that it has"
        )
    changed = [n for n in before.tensors if now.ties.get(n) != before.ties.get(n)]
    if changed:
        logger.warning(
            "which tensors are one and the same has changed, but not their values, which an update "
            "does not tell: the receiver keeps %s as they are in the base model",
            some(map(repr, changed)),
        )


def _change_of(name: str, now: Model, before: Model) -> str | None:
    """Return in words why a tensor is another one than before; None if it is not."""
    new, old = now.tensors[name], before.tensors[name]
    if (new.shape, new.dtype) != (old.shape, old.dtype):
        return (
            f"{name!r} is {new.dtype}{list(new.shape)}, in the base model "
            f"{old.dtype}{list(old.shape)}"
        )
    first = before.ties.get(name)
    if first is None or first not in now.tensors or now.ties.get(name) == first:
        return None
    if has_same_bits(new, now.tensors[first]):
        return None
    return f"{name!r} is no longer the same as {first!r}"


def _words_of(turnover: Turnover, before: Model, others: list[str]) -> Iterator[str]:
    """Yield what comes and goes, a few of each by name."""
    come = [repr(name) for name in turnover.new if name not in before.tensors]
    go = [repr(name) for name in turnover.gone]
    for names, what in ((come, "not in the base model"), (go, "in the base model only")):
        if names:
            yield f"{some(names)} {'is' if len(names) == 1 else 'are'} {what}"
    if others:
        yield some(others)
