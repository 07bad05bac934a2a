"""nnr-encode: a model file to a stream."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from nnrcodec.api import calibration_inputs, encode
from nnrcodec.calibration.fidelity import TARGETS, Calibration
from nnrcodec.cli.command import (
    Parser,
    StageBars,
    Texts,
    is_standard_input,
    print_json,
    read_stream,
    run,
    say,
    timed,
)
from nnrcodec.cli.config_file import add_config, with_config
from nnrcodec.cli.memory import reuse_freed_memory
from nnrcodec.cli.per_shard import encode_shards
from nnrcodec.cli.report import line_of_update, lines_of, report_of
from nnrcodec.cli.task import add_task, check_task, task_of
from nnrcodec.cli.tensor_options import KEYS, parse_settings
from nnrcodec.cli.values import at_least, loss, part
from nnrcodec.config import (
    CabacConfig,
    DistillationConfig,
    EncoderConfig,
    LowRankConfig,
    UniformConfig,
)
from nnrcodec.encoder.search import ScoreOf
from nnrcodec.encoder.updates import UpdateEncoder
from nnrcodec.errors import BitstreamError, ConfigError
from nnrcodec.formats import (
    check_output,
    is_model_file,
    is_stream_file,
    load,
    write_atomically,
)
from nnrcodec.formats.mat.layers import Residual
from nnrcodec.formats.sources import base_of
from nnrcodec.model.model import Model
from nnrcodec.quant.search.feedback import DEFAULT_LAMBDA as FEEDBACK_LAMBDA
from nnrcodec.quant.search.trellis import DEFAULT_LAMBDA
from nnrcodec.reduce.ranks import SchemeRule, parse_ranks
from nnrcodec.reduce.schemes import Optimise

if TYPE_CHECKING:
    from nnrcodec.calibration.synthetic import Inputs

TASK_UNITS = {"psnr": "dB", "accuracy": "%"}
"""Tasks of which a loss can be limited, and their units."""

LOSSES = """\
A loss is in dB or in %:
  dB  of PSNR, for networks that make pictures of pictures. It is measured if
      --calib is a folder of pairs NAME_orig.png and NAME_qp37_dec.png.
      Otherwise it is estimated from what is assumed, which a warning says.
  %   the squared error of the outputs as a part of their variance. For all
      networks.
With --task and --data it is the loss of the task, in dB for psnr and in % for
accuracy; only then may the unit be omitted."""

TEXTS = Texts(
    name="nnr-encode",
    usage="MODEL [-o STREAM] [options]",
    summary="""\
Make a model file small: quantize its weights, code them, write an NNR stream.
A .pt2 file (torch.export.save) or an .onnx file keeps the graph, so that the
receiver needs no model code. Of other files (nnr-info --formats) tensors are
coded.""",
    description="""\
Make a model file small: quantize its weights, code them, write an NNR stream.

A .pt2 file (torch.export.save), an .onnx file and a network of MatConvNet keep
the graph, so that the receiver needs no model code. With nodes or layers that
are not translated they are coded whole, but cannot be run here. Of other files
the tensors are coded, and what stands around them: checkpoints of PyTorch under
any name, safetensors, shards with their index, NumPy, HDF5, MATLAB. What kind
of file it is, its content says; nnr-info --formats lists them. The state of an
optimizer is left out, which a warning says.

The encoder runs the network with calibration inputs. It then chooses step sizes
and levels that change the output of the network least for their bytes. Give it
inputs of the kind that the network sees in use (--calib): a few dozen are
enough, and no labels are needed. Without --calib it makes inputs up. A state
dict does not run: the step size of each tensor then follows from its values.

The options for low rank replace a layer by two thin ones, such as a d x d
convolution by a d x 1 and a 1 x d one. This also makes the network faster.
Ranks and step sizes can be found for a given loss or size.""",
    common=(
        *("--output", "--calib", "--preset", "--max-loss", "--target-bytes", "--low-rank"),
        *("--target-macs", "--distill", "--qp", "--lossless", "--profile", "--base"),
    ),
    examples="""\
examples:
  nnr-encode filter.pt2                              writes filter.nnr
  nnr-encode filter.pt2 --calib pictures             better: with real inputs
  nnr-encode filter.pt2 --calib pairs --max-loss 0.03dB --low-rank auto
  nnr-encode net.safetensors --target-bytes 1000000  any network, within a size""",
    details="""\
--json prints one object; null is what does not apply:
  output, bytes, original_bytes, percent, weights, bits_per_weight, seconds,
  stage_seconds (by stage), is_update, lossless, coders (how many tensors each
  of them coded), warnings (list of strings), loss (of the stream, if measured),
  form (what kind of file the model is), coded (the entry of it that was coded,
  empty for all), ties (tensors that are another one: name and its name),
  new, gone  of an update that changes which tensors there are: those that are
             whole in it, and those of the base model that it takes out
  left_out   entries of the file that are not coded, list of objects: name,
             what, reason
  tensors    list of objects: name, shape, dtype, coder, coding, qp, step_size,
             unit_bytes, bits_per_weight, relative_error
  layers     of low rank, list of objects: layer, shape, rank, energy_kept,
             parameters_before, parameters_after, reason (why it is as it was),
             scheme
  folds      of batch norms, list of objects: layer, folded, reason (why not)
  distillation  object: steps, seconds, error_before, error_after
  trials     streams that were tried for a target, list of objects: scale (of
             the step sizes), bytes, loss, taken (true for one)
  loss_unit  of the losses: dB or %
  shards     with --per-shard instead of all others: list of such objects, with
             bytes and original_bytes of all beside it
  fidelity   how near the output is to that of the original: snr (dB, of the
             worst output), absolute and change (of pictures: to their range and
             to what the network changes), count and source of the inputs

examples:
  nnr-encode filter.pt2                           writes filter.nnr
  nnr-encode filter.pt2 -o small.nnr --qp -16     step size 1/16 for all weights
  nnr-encode filter.pt2 --rank net.2=32,net.4=24  low rank for two named layers
  nnr-encode filter.pt2 --rank net.2=channel:20   d x d to 20 channels, 1 x 1
  nnr-encode filter.pt2 --energy 0.98             98 % of each layer's energy
  nnr-encode net.safetensors --rank-ratio 0.5     half of each layer's weights
  nnr-encode net.pt2 --rank-ratio 0.5 --low-rank auto --optimise runtime
      the better scheme for each layer, half of its multiply-adds; linear too
  nnr-encode filter.pt2 --calib pictures          with pictures as inputs
  nnr-encode filter.pt2 --calib none              by the weights alone: fast
  nnr-encode filter.pt2 --calib pairs --max-loss 0.03dB --low-rank auto
      as small as a loss of 0.03 dB allows; the ranks are found, too
  nnr-encode filter.pt2 --calib pairs --target-macs 30% --distill 10
      30 % of the multiply-adds, and ten minutes of distillation
  nnr-encode net.pt2 --calib train.npz --max-loss 0.5% --task accuracy \\
      --data test.npz                             at most 0.5 % less accuracy
  nnr-encode net.pt --target-bytes 1000000        any network, within a size
  nnr-encode net.pt --lossless                    every bit comes back
  nnr-encode llm --per-shard -o llm-small         a folder of shards, one by one
  nnr-encode net.pt --keep 'fc.*' --set 'conv1.*:qp=-20'   single tensors
  nnr-encode net.pt --config options.toml         options from a file
  nnr-encode net.pt --profile nnc -o net.nnc      for decoders of the standard
  nnr-encode new.pt --base net.nnc -o 1.nnc       only what has changed since
  nnr-encode newer.pt --base net.nnc --base 1.nnc -o 2.nnc   and again
  nnr-encode new.pt --base old.pt -o 1.nnc        for who has the file old.pt
  nnr-encode new.pt --base old.pt --difference -o d.nnc   for who adds them up
  nnr-encode net.pt --json | jq .bytes            one number for a script""",
)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = Parser(TEXTS)
    parser.add_argument("input", type=Path, metavar="MODEL", help="model file, or folder of shards")
    parser.add_argument(
        "--key",
        metavar="NAME",
        help="which entry of a checkpoint to code, where it has several state dicts, such as "
        "params_ema; all: all of its tensors, the state of an optimizer too",
    )
    parser.add_argument(
        "--per-shard",
        action="store_true",
        help="MODEL is a checkpoint in shards, STREAM a folder: write a stream for each shard, and "
        "the index; nnr-decode FOLDER turns them into shards again",
    )
    parser.add_argument(
        "--residual",
        choices=get_args(Residual),
        help="for a network of MatConvNet, whose file does not say what its output is: subtract: "
        "the network gives noise, the result is input - output; add: input + output; none: the "
        "output is the result",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="STREAM",
        help="stream to write, replacing an old file [MODEL.nnr]",
    )
    parser.add_argument(
        "--profile",
        choices=("ext", "nnc"),
        default="ext",
        help="nnc: readable for all decoders of ISO/IEC 15938-17; ext: also units of our own, "
        "which are smaller for some tensors [%(default)s]",
    )
    parser.add_argument(
        "--base",
        type=Path,
        action="append",
        metavar="FILE",
        help="write an update: what changed since this stream or model file; once more for each "
        "update since",
    )
    parser.add_argument(
        "--difference",
        action="store_true",
        help="with --base: write a plain stream of the standard whose tensors are differences, "
        "without a record, for prototypes that add them up; nnr-decode FILE STREAM adds them, too",
    )
    parser.add_argument(
        "--threads",
        type=at_least(1),
        metavar="N",
        help="threads at most, also those of PyTorch. Without calibration inputs the stream does "
        "not depend on it [number of processors]",
    )
    parser.add_argument(
        "--json", action="store_true", help="print a report as JSON; it is described below"
    )
    _add_lossless(parser)
    add_config(parser)
    _add_targets(parser)
    _add_calibration(parser)
    _add_quantization(parser)
    _add_coding(parser)
    _add_reduction(parser)
    return run(parser, _encode, with_config(parser, argv))


def _add_lossless(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "single tensors, and no loss",
        "A PATTERN is of names of tensors, as those of files are: * ? [...]. One that\n"
        "fits no tensor is an error.",
    )
    group.add_argument(
        "--lossless",
        action="store_true",
        help="code all tensors bit for bit",
    )
    group.add_argument(
        "--keep",
        action="append",
        metavar="PATTERN",
        help="code these tensors bit for bit; may be given several times",
    )
    group.add_argument(
        "--set",
        action="append",
        metavar="PATTERN:KEY=VALUE,...",
        help="for these tensors only, such as layer4.*:qp=-20; may be given several times, of "
        f"which later ones come first. Keys: {KEYS}",
    )


def _add_targets(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "targets (instead of a qp)",
        LOSSES,
    )
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--preset",
        choices=tuple(TARGETS),
        metavar="NAME",
        help="measured error: transparent, balanced (twice that) or small (four times) "
        "[transparent]",
    )
    either.add_argument(
        "--max-loss",
        type=loss,
        metavar="X",
        help="smallest stream within this loss, as 0.03dB or 0.5%%",
    )
    either.add_argument(
        "--target-bytes", type=at_least(1), metavar="N", help="best stream of at most N bytes"
    )
    add_task(group, tuple(TASK_UNITS))


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("calibration inputs (for .pt2 and .onnx files)")
    group.add_argument(
        "--calib",
        metavar="PATH",
        help="inputs of the kind that the network sees: a folder of pictures of any size, or a "
        ".npy, .npz or .pt file; labels are not needed. 'synthetic': made-up pictures, sound or "
        "text; 'none': no inputs, faster [made up where possible]",
    )
    group.add_argument(
        "--calib-count",
        type=at_least(1),
        metavar="N",
        help="inputs at most [made up: 32 to 512, more if they are small; given: all that time and "
        "memory allow; 512 with --distill]",
    )
    group.add_argument(
        "--distill",
        type=float,
        metavar="MINUTES",
        help="after low rank, train the network to do what the original does",
    )
    group.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        metavar="N",
        help="seed of all random choices [%(default)s]",
    )


def _add_quantization(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("quantization")
    group.add_argument(
        "--qp",
        type=int,
        help="quantization parameter of weights: more is coarser; the step size is 1 at qp 0 and "
        "doubles every 4 qp (2^DENSITY) [chosen for each tensor]",
    )
    group.add_argument(
        "--nonweight-qp",
        type=int,
        metavar="QP",
        help="the same for biases and other 1-D tensors [16 times finer than weights]",
    )
    group.add_argument(
        "--qp-density",
        type=int,
        default=2,
        metavar="DENSITY",
        help="base-2 logarithm of the number of qp steps in which the step size doubles, 0 to 7 "
        "[%(default)s]",
    )
    group.add_argument(
        "--dq",
        action=argparse.BooleanOptionalAction,
        help="dependent quantization: search for the best path of levels through two interleaved "
        "grids, instead of rounding each weight; smaller at the same error, and slower. With your "
        "own qp, lower it by 3/4 of an octave for about the same error [on]",
    )
    group.add_argument(
        "--lambda",
        dest="lambda_",
        type=float,
        metavar="L",
        help="cost of a bit, in squared steps, in the search for levels (with --dq, or with "
        "calibration inputs): 0 looks for the least error, more for fewer bits "
        f"[{FEEDBACK_LAMBDA:g} with calibration inputs, {DEFAULT_LAMBDA:g} without]",
    )


def _add_coding(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("entropy coding")
    group.add_argument(
        "--entropy",
        choices=("auto", "cabac", "ans"),
        default="auto",
        help="cabac: DeepCABAC, the adaptive coder of the standard; ans: rANS (static tables), for "
        "rounded weights; auto: the better one for each tensor [%(default)s]",
    )
    group.add_argument(
        "--codebook",
        action="store_true",
        help="try a list of the levels that occur; helps weights with few different values",
    )
    group.add_argument(
        "--scan-order",
        type=int,
        default=0,
        metavar="S",
        help="0: row by row; 1 to 4: by blocks of 8 to 64 rows and columns, so that several "
        "threads can decode a large tensor [%(default)s]",
    )
    group.add_argument(
        "--unary-length",
        type=int,
        metavar="N",
        help="flags that code a magnitude before its remainder, 1 to 256 [chosen for each tensor]",
    )
    group.add_argument(
        "--no-record",
        action="store_true",
        help="with --profile nnc: leave the container record out, for decoders that know the "
        "standard only. Graph, digests and dtypes are lost; what else is, a warning says",
    )
    group.add_argument(
        "--short-names",
        action="store_true",
        help="call tensors by their numbers in data units; the record has their names. Makes small "
        "updates smaller, which call tensors as their base model does",
    )
    group.add_argument(
        "--no-row-skipping",
        action="store_true",
        help="do not try flags that skip rows of zeros",
    )


def _add_reduction(parser: argparse.ArgumentParser) -> None:
    parser.add_argument_group("batch norm").add_argument(
        "--fold-batch-norm",
        action="store_true",
        help="multiply batch norms into the convolutions before them; needs a .pt2 file",
    )
    low_rank = parser.add_argument_group(
        "low rank",
        "Give one of --rank, --energy, --rank-ratio and --target-macs; or --low-rank\n"
        "alone, which finds the ranks that are worth their error.",
    )
    rules = low_rank.add_mutually_exclusive_group()
    rules.add_argument(
        "--rank",
        metavar="LAYER=[SCHEME:]R,...",
        help="these layers, these ranks, with the scheme separable, channel or linear [the first "
        "of them that fits the layer]",
    )
    rules.add_argument(
        "--energy",
        type=float,
        metavar="E",
        help="in all layers that get smaller by it: the lowest rank that keeps this part of the "
        "energy (the sum of squared singular values)",
    )
    rules.add_argument(
        "--rank-ratio",
        type=float,
        metavar="Q",
        help="in all layers that get smaller by it: the highest rank with at most this part of "
        "the weights, or of the cost that --optimise says",
    )
    rules.add_argument(
        "--target-macs",
        type=part,
        metavar="P",
        help="lowest-error ranks under a MAC budget: this part of the multiply-adds of the model, "
        "such as 0.4 or 40%%",
    )
    low_rank.add_argument(
        "--low-rank",
        choices=get_args(SchemeRule),
        help="replace layers by two thin ones each. separable: d x 1 and 1 x d convolutions; "
        "channel: fewer channels, then 1 x 1, and linear layers too; auto: the better one "
        "[separable; auto with --target-macs]",
    )
    low_rank.add_argument(
        "--optimise",
        choices=get_args(Optimise),
        help="what a layer costs: weights, multiply-adds, or the larger part of both [bytes]",
    )


def _encode(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    reuse_freed_memory()
    config = _config(options)
    check_task(options)
    _check_loss(options)
    if options.per_shard:
        encode_shards(options, config, start)
        return
    output = _output(options)
    if options.base:
        if options.calib not in (None, "none"):
            raise ConfigError("--calib is for the base model: updates are coded without inputs")
        _encode_update(options, config, output, start)
        return
    if options.difference:
        raise ConfigError("--difference is one to a base model: give --base, too")
    with timed("loading"):
        model = load(options.input, options.key, residual=options.residual)
    before = time.perf_counter()
    with timed("calibration inputs"):
        calibration = _calibration(options, config, model)
    seconds_of_inputs = {"calibration inputs": time.perf_counter() - before}
    measured_on = None if calibration is None else calibration.held_back.inputs
    score = _score(options, model, measured_on)
    with StageBars(_UNITS_OF_STAGES, quiet=options.quiet) as progress:
        result = encode(model, config=config, calib=calibration, score=score, progress=progress)
    write_atomically(output, result.data)
    report = replace(
        result.report, stage_seconds={**result.report.stage_seconds, **seconds_of_inputs}
    )
    done = report, output, _loss_unit(options), time.perf_counter() - start
    if options.json:
        print_json({**report_of(*done), "warnings": options.warnings})
    else:
        say(options, lines_of(*done), output)


_UNITS_OF_STAGES = {"coding": " weights", "distillation": ""}
"""What a stage counts, where that is not layers."""


def _calibration(
    options: argparse.Namespace, config: EncoderConfig, model: Model
) -> Calibration | None:
    """Return calibration inputs, if there are to be any."""
    calib, low_rank = options.calib, config.low_rank
    if config.lossless:
        if calib not in (None, "none"):
            raise ConfigError("--lossless looks at no inputs: omit --calib")
        return None
    needed = config.distillation is not None or (low_rank is not None and low_rank.needs_inputs)
    if calib == "none" and needed:
        raise ConfigError(
            "--distill, --target-macs and --low-rank without ranks need calibration inputs, but "
            "--calib is none"
        )
    if calib is None:
        calib = "synthetic" if needed else "auto"
    count = options.calib_count or (512 if config.distillation is not None else None)
    source = None if calib == "none" else calib
    calibration = calibration_inputs(model, source, count, options.seed)
    if calibration is None or options.calib_count or count is None:
        return calibration
    from nnrcodec.calibration.inputs import Chosen

    # only distillation looks at so many
    made_up = calibration.held_back.kind == "made-up"
    chosen = Chosen(calibration.inputs, all_of_them=False, made_up=made_up)
    return replace(calibration, inputs=chosen)


def _check_loss(options: argparse.Namespace) -> None:
    """Refuse a loss whose unit is not known or not that of the task, before anything is read."""
    if options.preset is not None and options.qp is not None:
        raise ConfigError("--preset looks for step sizes: give no --qp with it")
    if options.max_loss is None:
        if options.task:
            raise ConfigError(
                "--task and --data measure the loss that --max-loss limits: give --max-loss, too"
            )
        return
    value, unit = options.max_loss
    if options.task is None:
        if not unit:
            raise ConfigError(
                f"--max-loss {value:g} has no unit: give {value:g}dB (of PSNR) or {value:g}% (of "
                "the variance of the outputs); only with --task may the unit be omitted"
            )
    elif unit not in ("", TASK_UNITS[options.task]):
        raise ConfigError(
            f"--max-loss is in {unit}, but the loss of --task {options.task} is in "
            f"{TASK_UNITS[options.task]}"
        )


def _loss_unit(options: argparse.Namespace) -> str | None:
    """Return the unit of the loss, if one is limited."""
    if options.max_loss is None:
        return None
    unit: str = options.max_loss.unit
    return unit or TASK_UNITS[options.task]


def _score(options: argparse.Namespace, model: Model, inputs: Inputs | None) -> ScoreOf | None:
    """Return what a loss is measured by, if one is limited."""
    unit = _loss_unit(options)
    if unit is None:
        return None
    if model.graph is None:
        raise ConfigError(f"--max-loss needs a network that runs; {options.input} has no graph")
    from nnrcodec.evaluate.loss import score_for

    task = task_of(options, model)
    if task is not None:
        return _timed(lambda module: task.score(module).value)
    return _timed(score_for(unit, options.calib, model, inputs))


def _timed(score: ScoreOf) -> ScoreOf:
    """Return a score that logs how long it takes."""

    def timed_score(module: object) -> float:
        with timed("measuring the loss"):
            return score(module)

    return timed_score


def _encode_update(
    options: argparse.Namespace, config: EncoderConfig, output: Path, start: float
) -> None:
    first, *others = options.base
    is_file = not is_standard_input(first)
    updates = [read_stream(path) for path in others]
    try:
        with timed("decoding the base"):
            base = base_of(first, options.key) if is_file else read_stream(first)
            encoder = UpdateEncoder(base, updates, config, difference=options.difference)
    except BitstreamError as error:
        raise ConfigError(f"the streams of --base do not decode: {error}") from error
    with timed("loading"):
        model = load(options.input, options.key, residual=options.residual)
    with StageBars(_UNITS_OF_STAGES, quiet=options.quiet) as progress:
        result = encoder.encode(model, progress=progress)
    write_atomically(output, result.data)
    report, seconds = result.report, time.perf_counter() - start
    if options.json:
        values = report_of(report, output, None, seconds, is_update=True)
        print_json({**values, "warnings": options.warnings})
    else:
        say(options, [line_of_update(report, output, seconds)], output)


def _config(options: argparse.Namespace) -> EncoderConfig:
    return EncoderConfig(
        profile=options.profile,
        entropy=options.entropy,
        quantization=UniformConfig(
            qp=options.qp, nonweight_qp=options.nonweight_qp, qp_density=options.qp_density
        ),
        dq=options.dq is not False,
        lambda_=options.lambda_,
        codebook=options.codebook,
        cabac=CabacConfig(
            scan_order=options.scan_order,
            cabac_unary_length=options.unary_length,
            row_skipping=not options.no_row_skipping,
        ),
        short_names=options.short_names,
        record=not options.no_record,
        fold_batch_norm=options.fold_batch_norm,
        low_rank=_low_rank(options),
        distillation=(
            None
            if options.distill is None
            else DistillationConfig(minutes=options.distill, seed=options.seed)
        ),
        preset=options.preset or "transparent",
        max_loss=None if options.max_loss is None else options.max_loss.value,
        target_bytes=options.target_bytes,
        lossless=options.lossless,
        keep=options.keep or (),
        tensors=parse_settings(options.set or ()),
        threads=options.threads,
    )


def _low_rank(options: argparse.Namespace) -> LowRankConfig | None:
    rules = (options.rank, options.energy, options.rank_ratio, options.target_macs)
    if all(rule is None for rule in rules):
        if options.optimise and not options.low_rank:
            raise ConfigError("--optimise is for low rank: give --low-rank or --rank-ratio, too")
        if options.low_rank is None:
            return None
    return LowRankConfig(
        ranks=None if options.rank is None else parse_ranks(options.rank),
        energy=options.energy,
        rank_ratio=options.rank_ratio,
        target_macs=options.target_macs,
        scheme=options.low_rank or ("auto" if options.target_macs is not None else "separable"),
        optimise=options.optimise or "bytes",
    )


def _output(options: argparse.Namespace) -> Path:
    output: Path = options.output or options.input.with_suffix(".nnr")
    if is_model_file(output):
        raise ConfigError(
            f"{output} has the ending of a model file, but nnr-encode writes a stream: "
            f"give it another ending, such as {output.with_suffix('.nnr').name}"
        )
    if options.json and output == Path("/dev/stdout"):
        raise ConfigError("--json prints to standard output, so the stream cannot go there, too")
    if options.input.exists():  # else `load` says that there is no such file
        if options.input.is_file() and is_stream_file(options.input):
            load(options.input)  # which says what to do with a stream
        check_output(output, options.input)
    for base in options.base or ():
        if base.exists():
            check_output(output, base)
    return output


if __name__ == "__main__":
    sys.exit(main())
