"""Updates: streams of differences to what the receiver has.

Owns `UpdateEncoder`. It knows what a decoder has by decoding what it sends, so that the errors of
one update are in the difference of the next and do not add up.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from nnrcodec.config import EncoderConfig, as_config
from nnrcodec.container.stream import read_stream
from nnrcodec.decoder.updates import UpdateDecoder, is_update
from nnrcodec.encoder.differences import Base
from nnrcodec.encoder.pipeline import encode_reduced, reduce_model
from nnrcodec.encoder.report import EncodeResult, report_of
from nnrcodec.encoder.trials import SearchResult
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats.sources import model_of
from nnrcodec.graph.names import original_name
from nnrcodec.limits import Limits
from nnrcodec.messages import logger_of, said_once
from nnrcodec.model.dtypes import to_little_endian
from nnrcodec.model.model import Model, Role
from nnrcodec.model.source import Wrapper
from nnrcodec.progress import StageProgress, TimedStages

logger = logger_of(__name__)


class UpdateEncoder:
    """Encode a network that goes on changing, as differences to the streams before.

    A stream it makes is of profile nnc, whatever the base model is, but for tensors that are coded
    without loss. Tensors that do not change, to the step size, are not in it.

    Parameters
    ----------
    base : bytes
        The stream of the base model.
    updates : iterable of bytes
        The updates that were sent since, in their order.
    config : EncoderConfig, optional
        How to code. Without a qp, the step size of a tensor is that of coding it anew; low rank,
        codebooks, blocks and folding are not for updates.
    limits : Limits, optional
        What to accept of the streams.

    Raises
    ------
    BitstreamError, UnsupportedFeatureError
        If a stream cannot be decoded.
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
    """

    def __init__(
        self,
        base: bytes,
        updates: Iterable[bytes] = (),
        config: EncoderConfig | None = None,
        *,
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
        self._config = config if exact else replace(config, profile="nnc")
        self._decoder = UpdateDecoder(limits=limits, threads=config.threads)
        record = read_stream(base, limits).record
        self._has_short_names = record is not None and record.has_short_names
        for index, data in enumerate((base, *updates)):
            if is_update(data, limits) != (index > 0):
                what = "is an update, expected a base model" if index == 0 else "is no update"
                raise ConfigError(f"stream {index + 1} of those to build on {what}")
            self._decoder.decode(data)

    def encode(self, model: Any, *, progress: StageProgress | None = None) -> EncodeResult:
        """Encode the differences to what a decoder has, which then has the result.

        Parameters
        ----------
        model : torch.nn.Module, torch.export.ExportedProgram, mapping or Model
            The network as it is now, with the tensors of the base model.
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
            If its tensors are not those of the base model, or one cannot be coded.
        ConfigError
            If a step size that was asked for does not fit.
        """
        start, stages = time.perf_counter(), TimedStages(progress)
        with said_once() as notes:
            base = self._decoder.network()
            source = _with_names_of(base, model_of(model))
            _require_same_tensors(source, base)
            _require_same_ties(source, base)
            if source.source is not None and source.source.wrapper != _wrapper_of(base):
                logger.warning(
                    "what stands around the tensors in the file has changed: an update has tensors "
                    "only, and the rest stays as it is in the base model"
                )
            _compare_graphs(source, base)
            ordered = Model.of(
                source.tensors[name]
                for name in base.tensors
                if name in source.tensors and name not in base.ties
            )
            encoded = encode_reduced(
                reduce_model(ordered, self._config, stages),
                self._config,
                stages,
                base=Base.of(base, self._decoder.histories, has_short_names=self._has_short_names),
            )
            self._decoder.decode(encoded.data)
            report = report_of(
                SearchResult(encoded),
                base.graph,
                source.source,
                seconds=time.perf_counter() - start,
                stage_seconds=stages.seconds,
                notes=notes,
                lossless=self._config.lossless,
            )
        return EncodeResult.of(encoded.data, report)


def _with_names_of(base: Model, model: Model) -> Model:
    """Return a model with the names that its tensors have in the base model's stream."""
    names = _names_of(base)
    return Model.of(
        (replace(t, name=names.get(t.name, t.name)) for t in model.tensors.values()),
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
    same = (graph.nodes, graph.output) == (base.graph.nodes, base.graph.output)
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
    """Return by original names those of the base model's stream."""
    return {original_name(name, base.graph): name for name in base.tensors}


def _wrapper_of(model: Model) -> Wrapper | None:
    return None if model.source is None else model.source.wrapper


def _require_same_ties(model: Model, base: Model) -> None:
    """Raise unless tensors that are the same one in the base model still are."""
    for name, first in base.ties.items():
        if model.ties.get(name) == first or not {name, first} <= model.tensors.keys():
            continue
        tied, other = (model.tensors[n] for n in (name, first))
        bits = [to_little_endian(t.read(), t.dtype).tobytes() for t in (tied, other)]
        if bits[0] != bits[1]:
            raise ModelError(
                f"tensor {name!r} is the same as {first!r} in the base model, and here it is not: "
                "encode a new base model"
            )


def _require_same_tensors(model: Model, base: Model) -> None:
    """Raise unless a network has the tensors of the base model; constants may be left out."""
    problems = [
        f"{name!r} is not in the base model" for name in model.tensors.keys() - base.tensors
    ]
    for name, old in base.tensors.items():
        new = model.tensors.get(name)
        if new is None:
            if old.role is not Role.CONSTANT:
                problems.append(f"{name!r} is in the base model only")
        elif (new.shape, new.dtype) != (old.shape, old.dtype):
            problems.append(
                f"{name!r} is {new.dtype}{list(new.shape)}, in the base model "
                f"{old.dtype}{list(old.shape)}"
            )
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ModelError(f"this is no update of the base model: {shown}{more}")
