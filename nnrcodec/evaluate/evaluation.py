"""The evaluation: what was measured of each network, side by side."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnrcodec.config import EncoderConfig
from nnrcodec.decoder import decode_stream
from nnrcodec.encoder import encode_model
from nnrcodec.evaluate.measure import example_input, interleaved, peak_memory
from nnrcodec.evaluate.networks import original_of, reconstructed, running, streams_of
from nnrcodec.evaluate.tasks import Score, Task
from nnrcodec.inspection import inspect
from nnrcodec.limits import Limits
from nnrcodec.model import Model
from nnrcodec.progress import Stages, silently
from nnrcodec.reduce.decomposition import Decomposition
from nnrcodec.reduce.schemes import Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkResult:
    """What was measured of one network; None is what was not.

    Parameters
    ----------
    label : str
        What it is called.
    parameters : int
        Elements of all its tensors.
    coded_bytes : int
        Bytes of the stream, of the original those of its tensors.
    ratio : float
        Part of the bytes of the original's tensors.
    score : Score, optional
        Of the task.
    encode_seconds, decode_seconds, run_seconds : float, optional
        Medians. Encoding is that of the original with default options.
    decode_memory, run_memory : int, optional
        Bytes by which the peak of a fresh process grows.
    layer_bytes : mapping of str to int
        Bytes of units, by what they hold.
    """

    label: str
    parameters: int
    coded_bytes: int
    ratio: float
    score: Score | None = None
    encode_seconds: float | None = None
    decode_seconds: float | None = None
    run_seconds: float | None = None
    decode_memory: int | None = None
    run_memory: int | None = None
    layer_bytes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Singular values of a layer that has become two.

    Parameters
    ----------
    layer, scheme : str
        Which layer, and how it became two.
    values : tuple of float
        Descending, as parts of the first.
    ranks : mapping of str to int
        What was chosen, by label of the stream.
    """

    layer: str
    scheme: str
    values: tuple[float, ...]
    ranks: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All that was measured.

    Parameters
    ----------
    networks : tuple of NetworkResult
        The original first.
    spectra : tuple of Spectrum
        Of layers of low rank.
    task : str or None
        Name of the task.
    input_shape : tuple of int
        On which networks ran; empty if they did not.
    rounds, threads : int
        How often, and with how many threads of PyTorch.
    machine : str
        Processor, and versions of Python and PyTorch.
    """

    networks: tuple[NetworkResult, ...]
    spectra: tuple[Spectrum, ...]
    task: str | None
    input_shape: tuple[int, ...]
    rounds: int
    threads: int
    machine: str

    @property
    def original(self) -> NetworkResult:
        """The first of the networks."""
        return self.networks[0]


def evaluate(
    model: Any,
    streams: Mapping[str, bytes | str | Path],
    task: Task | None = None,
    *,
    input_size: Sequence[int] | None = None,
    rounds: int = 5,
    threads: int = 1,
    encode_time: bool = True,
    memory_use: bool = True,
    stages: Stages = silently,
) -> Evaluation:
    """Compare an original network with what streams make of it.

    Parameters
    ----------
    model : path, torch.export.ExportedProgram, Model, ...
        The original. Without a graph (a state dict) only sizes are compared.
    streams : mapping of str to bytes or path
        By label.
    task : Task, optional
        What the network is there for.
    input_size : sequence of int, optional
        Height and width of the input on which networks are timed.
    rounds : int
        How often each is timed, in turn; the median counts.
    threads : int
        Threads of PyTorch.
    encode_time, memory_use : bool
        Whether to measure encoding, and memory; the latter needs the model as a path.
    stages : callable, optional
        Told how far each stage is.

    Returns
    -------
    Evaluation

    Raises
    ------
    ConfigError
        If a stream is not of this model, or the input does not fit it.
    BitstreamError
        If a stream is damaged.
    """
    original, coded = original_of(model), streams_of(streams)
    models = {label: reconstructed(original, stream) for label, stream in coded.items()}
    seconds: dict[str, float] = {}
    scores: dict[str, Score] = {}
    memory: dict[str, tuple[int, int] | None] = {}
    shape: tuple[int, ...] = ()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        actions: dict[str, Any] = {
            f"decode {label}": lambda stream=stream: _decoded(stream)
            for label, stream in coded.items()
        }
        if encode_time:
            actions["encode"] = lambda: encode_model(original, EncoderConfig())
        if original.graph is not None:
            modules = {"": running(original)} | {k: running(m) for k, m in models.items()}
            values = example_input(original, input_size)
            shape = tuple(values[0].shape)
            actions |= {
                f"run {label}": lambda module=module: _run(module, values)
                for label, module in modules.items()
            }
            if task is not None:
                with stages("scoring") as progress:
                    for number, (label, module) in enumerate(modules.items(), 1):
                        scores[label] = task.score(module)
                        progress(number, len(modules))
            if memory_use and isinstance(model, str | Path):
                with stages("memory") as progress:
                    for number, label in enumerate(modules, 1):
                        memory[label] = peak_memory(model, coded.get(label), values, threads)
                        progress(number, len(modules))
        with stages("timing") as progress:
            seconds = interleaved(actions, rounds, progress)
    finally:
        torch.set_num_threads(before)
    whole = sum(tensor.stored_bytes for tensor in original.tensors.values())

    def result(label: str, net: Model, stream: bytes | None) -> NetworkResult:
        decoding, run = memory.get(label) or (None, None)
        size = whole if stream is None else len(stream)
        return NetworkResult(
            label=label or "original",
            parameters=sum(tensor.size for tensor in net.tensors.values()),
            coded_bytes=size,
            ratio=size / whole,
            score=scores.get(label),
            encode_seconds=None if label else seconds.get("encode"),
            decode_seconds=seconds.get(f"decode {label}"),
            run_seconds=seconds.get(f"run {label}"),
            decode_memory=decoding if stream is not None else None,
            run_memory=run,
            layer_bytes={} if stream is None else _layer_bytes(stream),
        )

    return Evaluation(
        networks=(
            result("", original, None),
            *(result(label, net, coded[label]) for label, net in models.items()),
        ),
        spectra=_spectra(original, models),
        task=None if task is None else task.name,
        input_shape=shape,
        rounds=rounds,
        threads=threads,
        machine=_machine(),
    )


def _decoded(stream: bytes) -> None:
    for tensor in decode_stream(stream, Limits()).tensors.values():
        tensor.read()


def _run(module: torch.nn.Module, values: tuple[torch.Tensor, ...]) -> None:
    with torch.inference_mode():
        module(*values)


def _layer_bytes(stream: bytes) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for tensor in inspect(stream).tensors:
        name = tensor.names[0].removesuffix(".weight").removesuffix(".bias")
        sizes[name] = sizes.get(name, 0) + tensor.unit_bytes
    return sizes


def _spectra(original: Model, models: Mapping[str, Model]) -> tuple[Spectrum, ...]:
    chosen: dict[tuple[str, Scheme], dict[str, int]] = {}
    for label, model in models.items():
        for factors in model.factors:
            chosen.setdefault((factors.layer, Scheme.of(factors)), {})[label] = factors.rank
    found = []
    for (layer, scheme), ranks in chosen.items():
        weight = original.tensors.get(f"{layer}.weight")
        if weight is not None and weight.shape == scheme.kernel_shape:
            values = Decomposition.of(scheme, weight.read()).singular_values
            relative = values / max(float(values[0]), np.finfo(np.float64).tiny)
            found.append(Spectrum(layer, scheme.name, tuple(map(float, relative)), ranks))
    return tuple(found)


def _machine() -> str:
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    return (
        f"{processor}, {os.cpu_count()} processors; Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}"
    )
