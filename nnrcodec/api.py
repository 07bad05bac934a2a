"""The public functions: networks to bytes and back.

PyTorch is imported only when a function needs it, so that ``import nnrcodec`` is quick.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnrcodec.calibration.fidelity import Calibration, HeldBack
from nnrcodec.checks import check_whole
from nnrcodec.config import EncoderConfig, as_config
from nnrcodec.decoder.pipeline import decode_all, decode_stream, merged_model
from nnrcodec.decoder.updates import UpdateDecoder, runnable, state_of
from nnrcodec.encoder.report import EncodeResult, report_of
from nnrcodec.encoder.search import ScoreOf, encode_best
from nnrcodec.encoder.trials import stream_of
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats import (
    check_output,
    is_model_file,
    load,
    read_stream_file,
    save,
    write_atomically,
)
from nnrcodec.formats.sources import base_of, model_of
from nnrcodec.limits import Limits
from nnrcodec.messages import said_once
from nnrcodec.parallel import one_torch_thread
from nnrcodec.progress import StageProgress, TimedStages

if TYPE_CHECKING:
    import torch

    from nnrcodec.calibration.synthetic import Inputs
    from nnrcodec.graph.graph import Graph
    from nnrcodec.graph.module import DecodedModel
    from nnrcodec.model.model import Model

Calib = str | Path | Iterable[Any] | Calibration
"""Where calibration inputs are from."""

_MEASURED = 6
"""Made-up inputs to measure with: so many of the kinds that are fitted, and of others."""

logger = logging.getLogger(__name__)


def encode(
    model: Any,
    example_inputs: tuple[Any, ...] | None = None,
    config: EncoderConfig | None = None,
    *,
    calib: Calib | None = "auto",
    score: ScoreOf | None = None,
    dynamic_shapes: Any = None,
    calib_count: int | None = None,
    seed: int = 0,
    progress: StageProgress | None = None,
) -> EncodeResult:
    """Encode a trained network.

    Parameters
    ----------
    model : torch.nn.Module, torch.export.ExportedProgram, mapping or Model
        The network; a mapping is a state dict, name to tensor or array.
    example_inputs : tuple of torch.Tensor, optional
        Inputs on which a module runs. With them its graph is coded too, so that the receiver
        needs no model code; without them only its state dict is. A decoded model has its graph.
    config : EncoderConfig, optional
        What to do; the default quantizes weights finely enough for most networks.
    calib : iterable, path, "auto", "synthetic" or None
        Calibration inputs, of a network with a graph: what it is called with each time, a tensor or
        a tuple of them; or a path that `nnrcodec.calibration.inputs.load_inputs` reads; or
        "synthetic" for inputs that are made up. The encoder then looks at what the network does
        with them, which makes streams far smaller at the same quality. A few dozen inputs suffice;
        distillation profits from some hundreds. "auto" makes inputs up where that can be done, and
        None goes by the weights alone, which is faster. Lossless coding takes none.
    score : callable, optional
        Takes a network, a `torch.nn.Module` with the signature of the original, and returns how
        well it does; more is better. `EncoderConfig.max_loss` is in its unit.
    dynamic_shapes : optional
        As in `torch.export.export`; by default every size of the inputs that can vary may.
    calib_count : int, optional
        How many calibration inputs there are at most; all of them are then looked at. By default
        32 to 512 are made up, fewer if they are large, and more if these are too few. Of those that
        are given, all are looked at as far as time and memory allow; a warning says if not.
    seed : int
        Of the inputs that are chosen or made up at random.
    progress : callable, optional
        Called with the name of a stage, how much of it is done, and how much there is.

    Returns
    -------
    EncodeResult
        The stream: bytes, with a `report` of what was done to each tensor and layer, what it cost,
        how long it took, and what could not be done.

    Raises
    ------
    ModelError
        If a tensor or an operator cannot be coded; the message names it.
    ConfigError
        If the configuration does not fit the network.

    Examples
    --------
    >>> import numpy as np
    >>> import nnrcodec
    >>> state = {"fc.weight": np.eye(40, dtype=np.float32)}
    >>> stream = nnrcodec.encode(state)
    >>> len(stream) < state["fc.weight"].nbytes // 10
    True
    >>> decoded = nnrcodec.decode(stream)["fc.weight"]
    >>> bool(abs(decoded - state["fc.weight"]).max() < 0.03)
    True
    """
    start, stages, config = time.perf_counter(), TimedStages(progress), as_config(config)
    with said_once() as notes, ExitStack() as stack:
        source = model_of(model, example_inputs, dynamic_shapes)
        if config.lossless:
            _refuse_inputs(calib)
            calib = None
        if source.graph is not None and not (calib is None and score is None):
            stack.enter_context(one_torch_thread())
        with stages("calibration inputs"):
            calibration = calibration_inputs(source, calib, calib_count, seed)
        inputs = None if calibration is None else calibration.inputs
        held_back = None if calibration is None else calibration.held_back
        result = encode_best(source, config, stages, inputs, score, held_back)
        seconds = time.perf_counter() - start
        report = report_of(
            result,
            source.graph,
            source.source,
            seconds=seconds,
            stage_seconds=stages.seconds,
            notes=notes,
            lossless=config.lossless,
        )
    return EncodeResult.of(stream_of(result, config), report)


def encode_file(
    source: str | Path,
    target: str | Path | None = None,
    config: EncoderConfig | None = None,
    *,
    key: str | None = None,
    residual: str | None = None,
    calib: Calib | None = "auto",
    score: ScoreOf | None = None,
    calib_count: int | None = None,
    seed: int = 0,
    progress: StageProgress | None = None,
) -> EncodeResult:
    """Encode a model file, as ``nnr-encode`` does.

    Parameters
    ----------
    source : str or Path
        A model file that `nnrcodec.load` reads.
    target : str or Path, optional
        The stream to write, replaced atomically if it is there; by default beside the model file,
        with the ending ``.nnr``.
    key : str, optional
        Which entry of a file with several state dicts, as `nnrcodec.load` takes it.
    residual : "none", "subtract" or "add", optional
        What is done with the output of a network of MatConvNet, as `nnrcodec.load` takes it.
    config, calib, score, calib_count, seed, progress
        As for `encode`.

    Returns
    -------
    EncodeResult
        What was written.

    Raises
    ------
    ModelError, ConfigError
        As for `encode`, or if a file cannot be read or written.
    """
    source = Path(source)
    target = source.with_suffix(".nnr") if target is None else Path(target)
    if is_model_file(target):
        raise ConfigError(
            f"{target} has the ending of a model file: give the stream another, such as .nnr"
        )
    model = load(source, key, residual=residual)
    check_output(target, source)
    result = encode(
        model,
        config=config,
        calib=calib,
        score=score,
        calib_count=calib_count,
        seed=seed,
        progress=progress,
    )
    write_atomically(target, result.data)
    return result


def calibration_inputs(
    model: Model, calib: Calib | None, count: int | None = None, seed: int = 0
) -> Calibration | None:
    """Return calibration inputs for a network, and others to measure with.

    Parameters
    ----------
    model : Model
        With a graph, if inputs are asked for.
    calib : iterable, path, "auto", "synthetic", Calibration or None
        As for `encode`; a calibration is returned as it is.
    count : int, optional
        How many there are at most, as for `encode`.
    seed : int
        Of what is chosen at random.

    Returns
    -------
    Calibration or None
        None if `calib` is, or if it is "auto" and there are none to be had; why is logged.

    Raises
    ------
    ConfigError
        If there are none, or the model has no graph.
    """
    if count is not None:
        check_whole("calib_count", count, 1)
    check_whole("seed", seed, 0)
    if isinstance(calib, Calibration):
        return calib
    automatic = isinstance(calib, str) and calib == "auto"
    if calib is None or (automatic and model.graph is None):
        return None
    if model.graph is None:
        raise ConfigError(
            "calibration inputs need a network that runs: a .pt2 file, an .onnx file that could be "
            "translated, or a module with example inputs"
        )
    with one_torch_thread():
        return _inputs_for(model, model.graph, calib, count, seed)


def _refuse_inputs(calib: Calib | None) -> None:
    """Refuse calibration inputs where there is no loss to measure."""
    if calib is not None and not (isinstance(calib, str) and calib == "auto"):
        raise ConfigError("lossless coding looks at no inputs: omit calib")


def _inputs_for(
    model: Model, graph: Graph, calib: str | Path | Iterable[Any], count: int | None, seed: int
) -> Calibration | None:
    from nnrcodec.calibration.amount import all_of, enough_of
    from nnrcodec.calibration.inputs import (
        Chosen,
        given_inputs,
        load_inputs,
        open_inputs,
        with_some_held_back,
    )
    from nnrcodec.calibration.synthetic import synthetic_inputs

    if isinstance(calib, str) and calib == "auto":
        from nnrcodec.calibration.default import default_inputs

        try:
            return _made_up(model, default_inputs(model, count, seed), seed)
        except ConfigError as error:
            logger.warning("going by the weights alone, without calibration inputs: %s", error)
            return None
    if isinstance(calib, str) and calib == "synthetic":
        inputs = enough_of(model, lambda number: synthetic_inputs(model, number, seed), count)
        return _made_up(model, inputs, seed)
    if isinstance(calib, str | Path):
        if count is None:
            return with_some_held_back(all_of(model, open_inputs(calib, graph, seed)))
        return with_some_held_back(Chosen(load_inputs(calib, graph, count, seed)))
    return with_some_held_back(given_inputs(calib, count))


def _made_up(model: Model, inputs: Inputs, seed: int) -> Calibration:
    """Add inputs of other families to measure with."""
    from nnrcodec.calibration.synthetic import synthetic_inputs

    alike = synthetic_inputs(model, _MEASURED, seed + 1)
    others = synthetic_inputs(model, _MEASURED, seed + 1, held_out=True)
    source = f"{2 * _MEASURED} made-up inputs that were not fitted, half of them of other kinds"
    return Calibration(inputs, HeldBack([*alike, *others], source))


def decode(
    data: bytes,
    *,
    merge: bool = False,
    limits: Limits | None = None,
    threads: int | None = None,
    require_record: bool = False,
) -> dict[str, np.ndarray]:
    """Decode the tensors of a stream, ours or any other of ISO/IEC 15938-17.

    Parameters
    ----------
    data : bytes
        The stream.
    merge : bool
        Multiply out what stands for a weight (low-rank factors, scales of rows) and return the
        weights of the original architecture.
    limits : Limits, optional
        What to accept from strangers; by default less of a short stream than of a long one.
    threads : int, optional
        How many tensors to decode at once, by default one for each processor, 8 at most. The
        result does not depend on it.
    require_record : bool
        Refuse a stream without a container record. All streams of this package have one, with the
        digests of their tensors; where no other streams are expected, damage cannot pass for one.

    Returns
    -------
    dict of str to ndarray
        The state dict, each array of the dtype it had before coding; bfloat16, which numpy lacks,
        as float32. A stream of other software does not tell that dtype: its tensors are int32,
        float32, or float64 if they have a codebook. Of an update these are the differences to its
        base model; `UpdateDecoder` adds them up.

    Raises
    ------
    BitstreamError
        If the stream is damaged; the message says where.
    UnsupportedFeatureError
        If it uses what this version does not have.
    """
    model = decode_stream(
        data, limits or Limits(), merge=merge, threads=threads, require_record=require_record
    )
    return state_of(model, threads)


def decode_file(
    source: str | Path | Iterable[str | Path],
    target: str | Path,
    *,
    key: str | None = None,
    merge: bool = False,
    limits: Limits | None = None,
    threads: int | None = None,
    require_record: bool = False,
) -> Model:
    """Decode a stream to a model file, as ``nnr-decode`` does.

    Parameters
    ----------
    source : str, Path or iterable of them
        The stream; or a base model, which is a stream or a model file, and its updates, in their
        order.
    target : str or Path
        The model file to write; its ending says the format.
    key : str, optional
        Which entry of a base model that is a file with several state dicts.
    merge, limits, threads, require_record : optional
        As for `decode`.

    Returns
    -------
    Model
        What was written.

    Raises
    ------
    ConfigError
        If a file cannot be read or written, or there is no graph for a ``.pt2`` file.
    BitstreamError, UnsupportedFeatureError
        As for `decode`.
    """
    limits = limits or Limits()
    paths = [source] if isinstance(source, str | Path) else list(source)
    if not paths:
        raise ConfigError("there is no stream to decode")
    sizes = sum(Path(path).stat().st_size for path in paths if Path(path).is_file())
    if len(paths) == 1:
        data = read_stream_file(Path(paths[0]))
        model = decode_stream(
            data, limits, merge=merge, threads=threads, require_record=require_record
        )
    else:
        base = base_of(paths[0], key)
        decoder = UpdateDecoder(base, limits=limits, threads=threads, require_record=require_record)
        for path in paths[1:]:
            decoder.decode_update(read_stream_file(Path(path)), path)
        model = decoder.network(merge=merge)
    save(model, target, limits.for_stream(sizes))
    return model


def decode_model(
    data: bytes,
    *,
    merge: bool = False,
    limits: Limits | None = None,
    threads: int | None = None,
    require_record: bool = False,
) -> DecodedModel:
    """Decode a network that runs at once, without its model code.

    Parameters
    ----------
    data : bytes
        A stream with a graph.
    merge : bool
        Return the original architecture instead of low-rank factors.
    limits, threads, require_record : optional
        As for `decode`.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, on the CPU; kernels of 2-D convolutions with channels last, which is
        fast.

    Raises
    ------
    ModelError
        If the stream has tensors only; use `load_into`.
    BitstreamError, UnsupportedFeatureError
        As for `decode`.
    """
    limits = limits or Limits()
    model = decode_stream(data, limits, merge=merge, threads=threads, require_record=require_record)
    return runnable(model, limits.for_stream(len(data)))


def load_into(
    module: torch.nn.Module,
    data: bytes,
    *,
    merge: bool = False,
    limits: Limits | None = None,
    threads: int | None = None,
    require_record: bool = False,
) -> torch.nn.Module:
    """Load a stream into a module of the original class.

    Parameters
    ----------
    module : torch.nn.Module
        The receiver; changed in place. A layer that was coded as two factors is replaced by a
        `torch.nn.Sequential` of two thin ones, ``u`` and ``v``, which runs faster.
    data : bytes
        The stream.
    merge : bool
        Keep the original layers and multiply the factors out instead. Needed where a network reads
        the weight of such a layer instead of calling it (`torch.nn.TransformerEncoderLayer` does).
    limits, threads, require_record : optional
        As for `decode`.

    Returns
    -------
    torch.nn.Module
        `module`.

    Raises
    ------
    ModelError
        If names or shapes of module and stream do not agree, or the stream is an update, which
        has only differences; the module is then unchanged.
    BitstreamError, UnsupportedFeatureError
        As for `decode`.
    """
    import torch

    from nnrcodec.decoder.loading import load_tensors

    if not isinstance(module, torch.nn.Module):
        raise ConfigError(f"module is a {type(module).__name__}, expected a torch.nn.Module")
    limits = limits or Limits()
    decoded = decode_all(data, limits, threads=threads, require_record=require_record)
    if decoded.is_update:
        raise ModelError(
            "this stream is an update, so its tensors are differences to those of a base model: "
            "decode both with nnrcodec.UpdateDecoder and load its state"
        )
    load_tensors(module, merged_model(decoded, limits) if merge else decoded.model)
    return module
