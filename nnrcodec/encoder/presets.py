"""Presets: the coarsest steps with which the measured error of the output stays within a target."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from nnrcodec.calibration.fidelity import TARGETS
from nnrcodec.config import EncoderConfig
from nnrcodec.decoder.pipeline import decode_stream
from nnrcodec.encoder.pipeline import Encoded, encode_model, encode_reduced, reduce_model
from nnrcodec.encoder.trials import SearchResult, Trial, require_new, scaled, solve
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model
from nnrcodec.progress import Stages

if TYPE_CHECKING:
    from nnrcodec.calibration.fidelity import Fidelity, HeldBack
    from nnrcodec.calibration.reference import Reference
    from nnrcodec.calibration.synthetic import Inputs
    from nnrcodec.graph.module import DecodedModel

TRIALS = 3
"""Streams that are made at most: error and steps grow together, so that two are mostly enough."""

NEAR = 1.0
"""A result this near its target, in dB, is good enough."""

_COARSER = {"transparent": 1.0, "balanced": 2.0, "small": 4.0}
"""Scale of the steps at first, and where nothing can be measured: targets are 6 dB apart."""

_BLIND = 0.8
"""Times this where there are no inputs either."""

_NEPER = 20 / math.log(10)
"""In dB: what the logarithm of a ratio of amplitudes is multiplied by."""

COARSEST = 4.0
"""Largest scale, times that of the preset: inputs on which even coarser steps show no error do not
say much."""

_MOST = 60.0
"""Margins beyond this say no more, in dB."""

logger = logging.getLogger(__name__)


def encode_preset(
    model: Model,
    config: EncoderConfig,
    stages: Stages,
    inputs: Inputs | None,
    held_back: HeldBack | None,
) -> SearchResult:
    """Encode a model so that it comes as near to the original as a preset says.

    If the caller has given a qp or a scale, that is taken, and the error only measured. Without a
    graph or inputs, nothing can be measured, and steps follow from the weights alone.

    Parameters
    ----------
    model, config, stages, inputs
        As `nnrcodec.encoder.pipeline.encode_model` takes them.
    held_back : HeldBack, optional
        Inputs to measure with.

    Returns
    -------
    SearchResult
    """
    quantization = config.quantization
    is_open = quantization.qp is None and quantization.scale == 1.0
    if inputs is None or held_back is None:
        if is_open and not config.lossless:
            scale = _COARSER[config.preset] * (_BLIND if inputs is None else 1.0)
            quantization = replace(quantization, scale=scale)
            config = replace(config, quantization=quantization)
        return SearchResult(encode_model(model, config, stages, inputs))
    reduced = reduce_model(model, config, stages, inputs)
    original = _reference(model, held_back)
    if not original.has_outputs:
        logger.warning(
            "the error of the output is not measured: the network returns no real numbers; step "
            "sizes follow from the weights"
        )
        return SearchResult(encode_reduced(reduced, config, stages, inputs))
    if not is_open:
        encoded = encode_reduced(reduced, config, stages, inputs)
        return SearchResult(encoded, fidelity=original.compare(_decoded(encoded)))
    smaller = reduced.layers or reduced.distilled is not None
    quantized = _reference(reduced.model, held_back) if smaller else original
    target = TARGETS[config.preset]
    kept: dict[float, Encoded] = {}
    trials: list[Trial] = []

    def attempt(scale: float) -> float:
        kept[scale] = encode_reduced(reduced, scaled(config, scale), stages, inputs)
        with stages("measuring"):
            fidelity = quantized.compare(_decoded(kept[scale]))
        trials.append(Trial(scale, len(kept[scale].data), fidelity=fidelity))
        require_new(kept, scale)
        margin = fidelity.margin(target)
        return -min(max(margin, -_MOST), _MOST) / _NEPER

    coarser = _COARSER[config.preset]
    solve(attempt, 1.0, NEAR / _NEPER, TRIALS, COARSEST * coarser, start=coarser)
    margins = {trial: trial.fidelity.margin(target) for trial in trials if trial.fidelity}
    within = [trial for trial, margin in margins.items() if margin >= 0]
    taken = min(within, key=lambda t: t.bytes) if within else max(margins, key=margins.__getitem__)
    if not within:
        logger.warning(
            "the target of preset %r is missed by %.1f dB: %s; give inputs of the kind that the "
            "network sees, or a finer scale or qp",
            config.preset,
            -margins[taken],
            taken.fidelity.words if taken.fidelity else "",
        )
    fidelity = original.compare(_decoded(kept[taken.scale])) if smaller else taken.fidelity
    return SearchResult(kept[taken.scale], tuple(trials), taken, fidelity)


def measured(model: Model, encoded: Encoded, held_back: HeldBack) -> Fidelity | None:
    """Return how near the outputs of a stream are to those of a model; None if there are none."""
    reference = _reference(model, held_back)
    return reference.compare(_decoded(encoded)) if reference.has_outputs else None


def _reference(model: Model, held_back: HeldBack) -> Reference:
    from nnrcodec.calibration.reference import Reference
    from nnrcodec.graph.module import build_module

    return Reference(build_module(model), held_back)


def _decoded(encoded: Encoded) -> DecodedModel:
    """Return the network that a decoder makes of a stream."""
    from nnrcodec.graph.module import build_module

    return build_module(decode_stream(encoded.with_record, Limits().lifted()))
