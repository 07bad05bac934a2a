"""The search for an operating point: the smallest stream within a loss, or the best within a size.

What is searched is one number, the scale of all step sizes (`UniformConfig.scale`). The steps of
single tensors, and ranks that are left open, follow from it such that a bit is worth the same
everywhere, so that no other choice has to be searched for. Each trial codes the network, and
decodes and scores it if it is the loss that is limited.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nnrcodec.config import EncoderConfig
from nnrcodec.decoder.pipeline import decode_stream
from nnrcodec.encoder.pipeline import (
    LEFT_AFTER_DISTILLATION,
    Encoded,
    Reduced,
    encode_model,
    encode_reduced,
    reduce_model,
)
from nnrcodec.errors import ConfigError
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model
from nnrcodec.progress import Stages, silently

if TYPE_CHECKING:
    from nnrcodec.calibration.synthetic import Inputs

ScoreOf = Callable[[Any], float]
"""How well a network does, as a module of PyTorch that runs; more is better."""

TRIALS = 8
"""Streams that are made at most."""

NEAR = 0.02
"""A result this near its limit, as part of it, is good enough."""

QP_DENSITY = 4
"""The least in a search: coarser steps of qp would miss a target by several per cent."""

_LOSS_SLOPE, _BYTES_SLOPE = 2.0, -0.6
"""By how much logarithms of loss and bytes change, about, with that of the scale."""

_FARTHEST = math.log(8)
_LEAST_LOSS = 1e-3
"""A loss below this part of its limit counts as that: what is measured is noise, or a gain."""

_SHARE_OF_RANKS = 0.5
"""Part of the loss that low rank may take, if it is chosen before quantization."""

_TRIES_OF_RANKS = 4


@dataclass(frozen=True, slots=True)
class Trial:
    """One stream that the search has made.

    Parameters
    ----------
    scale : float
        Of step sizes.
    bytes : int
        Of the stream.
    loss : float or None
        By how much the score is lower than that of the original, if it was measured.
    """

    scale: float
    bytes: int
    loss: float | None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The stream that was encoded, and the search for it.

    Parameters
    ----------
    encoded : Encoded
        The stream.
    trials : tuple of Trial
        All trials of the search; empty if there was no target.
    taken : Trial or None
        The trial of the stream.
    """

    encoded: Encoded
    trials: tuple[Trial, ...] = ()
    taken: Trial | None = None


def encode_best(
    model: Model,
    config: EncoderConfig,
    stages: Stages = silently,
    inputs: Inputs | None = None,
    score: ScoreOf | None = None,
) -> SearchResult:
    """Encode a model, within a loss or a size if the configuration says so.

    Parameters
    ----------
    model, config, stages, inputs
        As `nnrcodec.encoder.pipeline.encode_model` takes them.
    score : callable, optional
        Scores a network, for `EncoderConfig.max_loss`.

    Returns
    -------
    SearchResult

    Raises
    ------
    ConfigError
        If the target is out of reach, or there is no score or graph to measure a loss with.
    ModelError
        If a tensor cannot be coded.
    """
    if not config.has_target:
        return SearchResult(encode_model(model, config, stages, inputs))
    return _TargetSearch(model, config, stages, inputs, score).run()


class _NothingBetweenError(Exception):
    """Scales so near one another that all steps are the same: qp are whole numbers."""


class _TargetSearch:
    """The search for one model and target."""

    def __init__(
        self,
        model: Model,
        config: EncoderConfig,
        stages: Stages,
        inputs: Inputs | None,
        score: ScoreOf | None,
    ) -> None:
        self._model, self._config, self._inputs = model, config, inputs
        self._stages = stages
        self._score: ScoreOf = score or (lambda _: 0.0)
        self._best = 0.0
        self._trials: list[Trial] = []
        if config.max_loss is not None:
            if score is None or model.graph is None:
                raise ConfigError(
                    "max_loss needs a network that runs (a .pt2 file, or example inputs), and a "
                    "score to measure its loss by"
                )
            self._best = self._scored(model)

    def run(self) -> SearchResult:
        """Look for the stream."""
        low_rank = self._config.low_rank
        reduced: Reduced | None = None
        if low_rank is None or low_rank.rule is not None:
            reduced = reduce_model(
                self._model, _scaled(self._config, 1.0), self._stages, self._inputs
            )
        elif self._config.distillation is not None:
            reduced = self._distilled()
        kept: dict[float, Encoded] = {}

        def attempt(scale: float) -> float:
            config = _scaled(self._config, scale)
            if reduced is None:
                encoded = encode_model(self._model, config, self._stages, self._inputs)
            else:
                encoded = encode_reduced(reduced, config, self._stages, self._inputs)
            kept[scale] = encoded
            loss = None
            if self._config.max_loss is not None:
                decoded = decode_stream(encoded.data, Limits())
                loss = self._best - self._scored(decoded)
            self._trials.append(Trial(scale, len(encoded.data), loss))
            same = any(encoded.data == other.data for at, other in kept.items() if at != scale)
            if same:
                raise _NothingBetweenError
            return self._excess(len(encoded.data), loss)

        _solve(attempt, self._slope, NEAR, TRIALS)
        within = [trial for trial in self._trials if self._excess(trial.bytes, trial.loss) <= 0]
        if not within:
            raise ConfigError(self._out_of_reach())
        best = max if self._config.max_loss is None else min
        taken = best(within, key=lambda trial: trial.bytes)
        return SearchResult(kept[taken.scale], tuple(self._trials), taken)

    def _distilled(self) -> Reduced:
        """Return a distilled network of low rank, of ranks with which the target is likely."""
        untrained = replace(self._config, distillation=None)
        kept: dict[float, Reduced] = {}

        def attempt(scale: float) -> float:
            config = _scaled(untrained, scale)
            kept[scale] = reduce_model(self._model, config, self._stages, self._inputs)
            if self._config.max_loss is None:
                encoded = encode_reduced(kept[scale], config, self._stages, self._inputs)
                return self._excess(len(encoded.data), None)
            loss = self._best - self._scored(kept[scale].model)
            return self._excess(0, loss * LEFT_AFTER_DISTILLATION / _SHARE_OF_RANKS)

        scale = _solve(attempt, self._slope, 0.2, _TRIES_OF_RANKS)
        if scale is None:
            raise ConfigError(f"low rank alone costs too much: {self._out_of_reach()}")
        return reduce_model(self._model, _scaled(self._config, scale), self._stages, self._inputs)

    @property
    def _slope(self) -> float:
        return _BYTES_SLOPE if self._config.max_loss is None else _LOSS_SLOPE

    def _excess(self, size: int, loss: float | None) -> float:
        """Return the logarithm of what was measured as part of its limit."""
        if self._config.max_loss is not None and loss is not None:
            return math.log(max(loss / self._config.max_loss, _LEAST_LOSS))
        return math.log(size / (self._config.target_bytes or 1))

    def _scored(self, model: Model) -> float:
        from nnrcodec.graph.module import build_module, optimized_for_inference

        score = float(self._score(optimized_for_inference(build_module(model))))
        if not math.isfinite(score):
            raise ConfigError(f"the score of the network is {score}; a loss cannot be measured")
        return score

    def _out_of_reach(self) -> str:
        if self._config.max_loss is not None:
            losses = [trial.loss for trial in self._trials if trial.loss is not None]
            least = f"; the least that was found is {min(losses):.4g}" if losses else ""
            return f"a loss of at most {self._config.max_loss:g} is out of reach{least}"
        smallest = min((trial.bytes for trial in self._trials), default=None)
        nearest = f"; the smallest stream that was found has {smallest}" if smallest else ""
        return f"{self._config.target_bytes} bytes are out of reach{nearest}"


def _scaled(config: EncoderConfig, scale: float) -> EncoderConfig:
    """Return a configuration with other default steps, of which there are many."""
    density = max(config.quantization.qp_density, QP_DENSITY)
    quantization = replace(config.quantization, scale=scale, qp_density=density)
    return replace(config, quantization=quantization)


def _solve(
    excess: Callable[[float], float], slope: float, near: float, trials: int
) -> float | None:
    """Return the scale nearest to a positive excess, of those that are tried.

    Parameters
    ----------
    excess : callable
        Of the scale; monotone but for noise. It raises `_NothingBetweenError` to end the search.
    slope : float
        Of it, about, by the logarithm of the scale; its sign is relied on.
    near : float
        An excess between minus this and zero ends the search.
    trials : int
        Calls at most.

    Returns
    -------
    float or None
        None if no excess is zero or below.
    """
    below: tuple[float, float] | None = None  # the last that kept to the limit
    above: tuple[float, float] | None = None
    at = 0.0
    for _ in range(trials):
        try:
            value = excess(math.exp(at))
        except _NothingBetweenError:
            break
        if value <= 0:
            below = at, value
        else:
            above = at, value
        if -near <= value <= 0:
            break
        if below is None or above is None:
            move = -(value + near / 2) / slope
            at += math.copysign(min(max(abs(move), 0.1), _FARTHEST), move)
        else:
            part = (below[1] + near / 2) / (below[1] - above[1])
            at = below[0] + min(max(part, 0.1), 0.9) * (above[0] - below[0])
            if abs(above[0] - below[0]) < near / 4:
                break
    return None if below is None else math.exp(below[0])
