"""From a model to a stream: reduce, quantize, code, and put the units together.

An update goes the same way: it is a model that is coded against a base.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nnrcodec.config import EncoderConfig
from nnrcodec.container.record import MeasuredOn, Measurement, Record, model_digest
from nnrcodec.container.short_names import short_names
from nnrcodec.container.stream import write_stream
from nnrcodec.container.turnover import Turnover
from nnrcodec.encoder.apart import Apart, set_apart
from nnrcodec.encoder.coded import CodedUnit, raw_last, raw_names
from nnrcodec.encoder.differences import Base
from nnrcodec.encoder.exact import with_exact
from nnrcodec.encoder.grouping import Group, coded_names, groups_of
from nnrcodec.encoder.overrides import check_patterns, config_of, kept, without_layers
from nnrcodec.encoder.plain import in_state_dict, names_in_units, say_what_is_lost
from nnrcodec.encoder.profiles import rules_of
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.messages import logger_of
from nnrcodec.model.model import Model
from nnrcodec.parallel import all_torch_threads, in_order
from nnrcodec.progress import Progress, Stages, silently
from nnrcodec.quant.quantized import Quantized
from nnrcodec.reduce.batch_norm import FoldReport, fold_batch_norm
from nnrcodec.reduce.low_rank import LayerReport, decompose
from nnrcodec.units.ndu import Part

if TYPE_CHECKING:
    from nnrcodec.calibration.expectation import Expectation
    from nnrcodec.calibration.synthetic import Inputs
    from nnrcodec.reduce.distillation import DistillationReport

logger = logger_of(__name__)

LEFT_AFTER_DISTILLATION = 0.4
"""Part of the error of low rank that distillation is expected to leave."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """A network that is ready to be quantized, and how it came about.

    Parameters
    ----------
    model : Model
        The network.
    original_bytes, original_elements : int
        Size of the tensors of the model that was given.
    layers : tuple of LayerReport
        What low-rank decomposition did to each layer; empty if it was off.
    folds : tuple of FoldReport
        What batch-norm folding did to each layer; empty if it was off.
    distilled : DistillationReport, optional
        What distillation did, if it was on.
    expected : Expectation, optional
        With calibration inputs: what quantization is expected to do to the original.
    apart : Apart
        What no data unit has.
    """

    model: Model
    original_bytes: int
    original_elements: int
    layers: tuple[LayerReport, ...]
    folds: tuple[FoldReport, ...]
    distilled: DistillationReport | None = None
    expected: Expectation | None = None
    apart: Apart = field(default_factory=Apart)


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
    folds : tuple of FoldReport
        What batch-norm folding did to each layer; empty if it was off.
    coders : mapping of str to int
        How many tensors each of `CODERS` has coded.
    distilled : DistillationReport, optional
        What distillation did, if it was on.
    errors : mapping of str to float
        By name, the relative error of each tensor that was coded, if it has any.
    with_record : bytes
        The stream with its record, if it is without; else the same.
    """

    data: bytes
    original_bytes: int
    original_elements: int
    layers: tuple[LayerReport, ...]
    folds: tuple[FoldReport, ...]
    coders: Mapping[str, int]
    distilled: DistillationReport | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    with_record: bytes = b""


def encode_model(
    model: Model,
    config: EncoderConfig,
    stages: Stages = silently,
    inputs: Inputs | None = None,
) -> Encoded:
    """Encode a model.

    Parameters
    ----------
    model : Model
        Its tensors are read when they are coded, a few at a time.
    config : EncoderConfig
        What to do.
    stages : callable, optional
        Told how far each stage is.
    inputs : sequence of tuple of torch.Tensor, optional
        Calibration inputs: the encoder then looks at what the network does with them, which needs
        a graph.

    Returns
    -------
    Encoded
        With the same bytes for any number of threads.

    Raises
    ------
    ModelError
        If a tensor cannot be coded.
    ConfigError
        If the configuration does not fit the model, or the inputs do not.
    """
    return encode_reduced(reduce_model(model, config, stages, inputs), config, stages, inputs)


def reduce_model(
    model: Model,
    config: EncoderConfig,
    stages: Stages = silently,
    inputs: Inputs | None = None,
) -> Reduced:
    """Make a network smaller before it is quantized.

    Parameters, errors
    ------------------
    As of `encode_model`.

    Returns
    -------
    Reduced
    """
    whole_bytes, whole_elements = model.stored_bytes, model.elements
    model, apart = set_apart(with_exact(model), _untied_because(config))
    if not model.tensors:
        raise ModelError("there are no tensors with elements in this model: nothing to code")
    if config.lambda_ is not None and not config.dq and inputs is None:
        raise ConfigError(
            "lambda weighs bits in dependent quantization, which is off, or with calibration "
            "inputs, of which there are none: omit it"
        )
    reduced, distilled, expected = model, None, None
    layers: tuple[LayerReport, ...] = ()
    folds: tuple[FoldReport, ...] = ()
    unchanged = kept(config, model)
    if config.fold_batch_norm:
        reduced, folds = fold_batch_norm(reduced, unchanged)
        if model.onnx is not None and reduced.onnx is None:
            logger.warning(
                "with batch norms folded the network has no longer the structure of its ONNX file, "
                "which is left out: an .onnx file that is decoded is made anew from the graph"
            )
    whole = reduced
    if inputs is not None:
        from nnrcodec.calibration.amount import in_batches
        from nnrcodec.calibration.expectation import expectation
        from nnrcodec.calibration.sensitivity import sensitivities

        looked_at = in_batches(whole, inputs)
        whole_matrices = None if config.low_rank is None else sensitivities(whole, looked_at)
        expected = expectation(whole, looked_at, config.quantization.qp_density, whole_matrices)
    if config.low_rank is not None:
        low_rank = without_layers(config.low_rank, unchanged)
        if inputs is None or expected is None:
            reduced, layers = decompose(reduced, low_rank)
        else:
            from nnrcodec.reduce.data_aware import Allowance, decompose_with_inputs

            scale = config.quantization.scale
            allowance = Allowance(
                expected.error_per_weight(scale),
                expected.relative_error(scale),
                LEFT_AFTER_DISTILLATION if config.distillation else 1.0,
            )
            with stages("low rank") as progress:
                reduced, layers = decompose_with_inputs(
                    reduced,
                    low_rank,
                    looked_at,
                    allowance,
                    progress,
                    output_sensitivities=expected.output_sensitivities,
                )
    if config.distillation is not None:
        if inputs is None:
            raise ConfigError("distillation learns from calibration inputs: give some")
        from nnrcodec.reduce.training import distill

        by_time = config.distillation.steps is None  # then it is never the same twice
        with (
            stages("distillation") as progress,
            all_torch_threads() if by_time else nullcontext(),
        ):
            reduced, distilled = distill(whole, reduced, inputs, config.distillation, progress)
    check_patterns(config, model, reduced)
    return Reduced(
        reduced,
        whole_bytes,
        whole_elements,
        layers,
        folds,
        distilled,
        expected,
        apart,
    )


def encode_reduced(
    reduced: Reduced,
    config: EncoderConfig,
    stages: Stages = silently,
    inputs: Inputs | None = None,
    base: Base | None = None,
) -> Encoded:
    """Quantize and code a network.

    Parameters, errors
    ------------------
    As of `encode_model`, and

    base : Base, optional
        What the decoder has: the stream is then an update of it.

    Returns
    -------
    Encoded
    """
    model = reduced.model
    known: Mapping[str, Quantized] = {}
    if inputs is not None:
        from nnrcodec.calibration.amount import in_batches
        from nnrcodec.encoder.calibrated import prior_share, quantize_with_inputs

        expected, same = reduced.expected, not reduced.layers and reduced.distilled is None
        with stages("quantizing") as progress:
            calibrated = quantize_with_inputs(
                model,
                in_batches(model, inputs),
                config,
                expected,
                progress,
                output_sensitivities=expected.output_sensitivities if expected and same else None,
                share=prior_share(inputs),
            )
        model, known = calibrated.model, calibrated.quantized
    with stages("coding") as progress:
        coded = _code(model, config, known, base, progress)
        if len(raw := raw_names(coded)) > 1:  # the standard has one in a stream, at its end
            coded = _code(_exact(model, raw[:-1]), config, known, base, progress)
        coded = raw_last(coded)
    by_name = {entry.name: entry for part in coded for entry in part.entries}
    ordered = {name: by_name[name] for name in model.tensors if name in by_name}
    entries = reduced.apart.entries(ordered)
    if base is not None:
        entries = [e for e in entries if e.name in ordered or e.name in base.turnover.new]
    errors = {name: error for part in coded for name, error in part.errors.items()}
    record = Record(
        tuple(entries),
        model.factors,
        model.graph if base is None else None,
        model_digest(base.model) if base is not None else None,
        _measured(errors),
        reduced.apart.wrapper_for(entries) if base is None else base.new_wrapper,
        onnx=model.onnx if base is None else None,
        has_short_names=_has_short_names(config, base),
        turnover=Turnover() if base is None else base.turnover,
    )

    def stream(record: Record | None, parts: Iterable[CodedUnit]) -> bytes:
        return write_stream(
            record,
            config.quantization.qp_density,
            [part.unit for part in parts],
            codebooks=config.codebook or any(own.codebook for own in config.settings.values()),
            parent_signalling=base is not None and not base.is_plain,
            standard_only=config.profile == "nnc",
        )

    data = whole = stream(record, coded)
    if not config.record:
        say_what_is_lost(model, entries, reduced.apart, _names(model, config, base))
        data = stream(None, in_state_dict(coded))
    return Encoded(
        data,
        reduced.original_bytes,
        reduced.original_elements,
        reduced.layers,
        reduced.folds,
        Counter(part.coder for part in coded for _ in part.entries),
        reduced.distilled,
        errors,
        whole,
    )


def _untied_because(config: EncoderConfig) -> str | None:
    """Return why tied tensors are coded each for itself, if they are."""
    if config.low_rank is not None:
        return "low rank may replace one of them and not the other"
    return None if config.record else "without a record nothing says that they are one"


def _exact(model: Model, names: Iterable[str]) -> Model:
    tensors = dict(model.tensors)
    tensors |= {name: replace(tensors[name], exact=True) for name in names}
    return replace(model, tensors=tensors)


def _has_short_names(config: EncoderConfig, base: Base | None) -> bool:
    return config.short_names if base is None else base.has_short_names


def _measured(errors: Mapping[str, float]) -> Measurement:
    """Return what is known of the loss before anything runs."""
    worst = max(errors.values(), default=0.0)
    return Measurement(MeasuredOn.WEIGHTS, 0, -20 * math.log10(worst) if worst else math.inf)


def _names(model: Model, config: EncoderConfig, base: Base | None) -> dict[str, str]:
    """Return what tensors are called in their units, where that is not their name."""
    whole = model if base is None else base.after
    if _has_short_names(config, base):
        return short_names(whole)
    names = coded_names(whole.tensors, rules_of(config, base).reserved_suffixes)
    return names if config.record else names_in_units(whole, names)


def _code(
    model: Model,
    config: EncoderConfig,
    known: Mapping[str, Quantized],
    base: Base | None,
    progress: Progress,
) -> list[CodedUnit]:
    """Code all tensors of a model, in its order."""
    rules = rules_of(config, base)
    whole = model if base is None else base.after
    names = _names(model, config, base)
    groups = groups_of(model, blocks=rules.blocks and config.blocks and not config.codebook)

    of = config_of(config, whole)

    def code(group: Group) -> list[CodedUnit]:
        configs = [of(tensor.name) for tensor in group.tensors.values()]
        if all(own is configs[0] for own in configs):
            return rules.encode_group(group, names, configs[0], known)
        return [
            unit
            for tensor, own in zip(group.tensors.values(), configs, strict=True)
            for unit in rules.encode_group(Group({Part.WEIGHT: tensor}), names, own, known)
        ]

    coded: list[CodedUnit] = []
    done, total = 0, sum(tensor.size for tensor in model.tensors.values())
    for group, units in zip(groups, in_order(code, groups, config.threads), strict=True):
        coded += units
        done += sum(tensor.size for tensor in group.tensors.values())
        progress(done, total)
    return coded
