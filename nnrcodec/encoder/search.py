"""The search for an operating point: the smallest stream within a loss, or the best within a size.

What is searched is one number, the scale of all step sizes (`UniformConfig.scale`). The steps of
single tensors, and ranks that are left open, follow from it such that a bit is worth the same
everywhere, so that no other choice has to be searched for. Each trial codes the network, and
decodes and scores it if it is the loss that is limited.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
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
from nnrcodec.encoder.presets import encode_preset, measured
from nnrcodec.encoder.trials import SearchResult, Trial, require_new, scaled, solve
from nnrcodec.errors import ConfigError
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model
from nnrcodec.progress import Stages, silently

if TYPE_CHECKING:
    from nnrcodec.calibration.fidelity import HeldBack
    from nnrcodec.calibration.synthetic import Inputs

ScoreOf = Callable[[Any], float]
"""How well a network does, as a module of PyTorch that runs; more is better."""

TRIALS = 8
"""Streams that are made at most."""

START = 2.0
"""Scale of the first stream: targets are mostly coarser than the default, which shows no loss."""

NEAR = 0.02
"""A result this near its limit, as part of it, is good enough."""

_LOSS_SLOPE, _BYTES_SLOPE = 2.0, -0.6
"""By how much logarithms of loss and bytes change, about, with that of the scale."""

_LEAST_LOSS = 1e-3
"""A loss below this part of its limit counts as that: what is measured is noise, or a gain."""

_SHARE_OF_RANKS = 0.5
"""Part of the loss that low rank may take, if it is chosen before quantization."""

_TRIES_OF_RANKS = 4


def encode_best(
    model: Model,
    config: EncoderConfig,
    stages: Stages = silently,
    inputs: Inputs | None = None,
    score: ScoreOf | None = None,
    held_back: HeldBack | None = None,
) -> SearchResult:
    """Encode a model, within a loss or a size if the configuration says so, else as a preset does.

    Parameters
    ----------
    model, config, stages, inputs
        As `nnrcodec.encoder.pipeline.encode_model` takes them.
    score : callable, optional
        Scores a network, for `EncoderConfig.max_loss`.
    held_back : HeldBack, optional
        Inputs to measure with that are not used to fit anything.

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
        return encode_preset(model, config, stages, inputs, held_back)
    result = _TargetSearch(model, config, stages, inputs, score).run()
    if held_back is None:
        return result
    with stages("measuring"):
        return replace(result, fidelity=measured(model, result.encoded, held_back))


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
                self._model, scaled(self._config, 1.0), self._stages, self._inputs
            )
        elif self._config.distillation is not None:
            reduced = self._distilled()
        kept: dict[float, Encoded] = {}

        def attempt(scale: float) -> float:
            config = scaled(self._config, scale)
            if reduced is None:
                encoded = encode_model(self._model, config, self._stages, self._inputs)
            else:
                encoded = encode_reduced(reduced, config, self._stages, self._inputs)
            kept[scale] = encoded
            loss = None
            if self._config.max_loss is not None:
                decoded = decode_stream(encoded.with_record, Limits().lifted())
                loss = self._best - self._scored(decoded)
            self._trials.append(Trial(scale, len(encoded.data), loss))
            require_new(kept, scale)
            return self._excess(len(encoded.data), loss)

        solve(attempt, self._slope, NEAR, TRIALS, start=START)
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
            config = scaled(untrained, scale)
            kept[scale] = reduce_model(self._model, config, self._stages, self._inputs)
            if self._config.max_loss is None:
                encoded = encode_reduced(kept[scale], config, self._stages, self._inputs)
                return self._excess(len(encoded.data), None)
            loss = self._best - self._scored(kept[scale].model)
            return self._excess(0, loss * LEFT_AFTER_DISTILLATION / _SHARE_OF_RANKS)

        scale = solve(attempt, self._slope, 0.2, _TRIES_OF_RANKS, start=START)
        if scale is None:
            raise ConfigError(f"low rank alone costs too much: {self._out_of_reach()}")
        return reduce_model(self._model, scaled(self._config, scale), self._stages, self._inputs)

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
