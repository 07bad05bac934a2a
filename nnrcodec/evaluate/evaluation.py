"""Evaluation: measurements of all networks, for comparison."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnrcodec.config import EncoderConfig
from nnrcodec.decoder.pipeline import decode_stream
from nnrcodec.encoder.pipeline import encode_model
from nnrcodec.errors import ConfigError
from nnrcodec.evaluate.measure import (
    Seconds,
    Values,
    channels_last,
    example_input,
    interleaved,
    multiply_adds,
    run,
)
from nnrcodec.evaluate.memory import decoding_memory, peak_is_available, running_memory
from nnrcodec.evaluate.networks import (
    NO_GRAPH,
    Network,
    coded_network,
    limits_for,
    original_network,
    original_of,
    running,
    streams_of,
)
from nnrcodec.evaluate.tasks import CallableTask, Score, Task
from nnrcodec.inspection import inspect
from nnrcodec.model.model import Model
from nnrcodec.parallel import threads_of_torch
from nnrcodec.progress import Stages, silently
from nnrcodec.reduce.schemes import Scheme

ROUNDS = 7
"""Default number of rounds in which times are measured."""

_ENDINGS = (".weight", ".bias", ".running_mean", ".running_var", ".num_batches_tracked")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkResult:
    """Measurements of one network; None where something was not measured or does not apply.

    Parameters
    ----------
    label : str
        Name of the network.
    parameters : int
        Number of elements of all its tensors.
    fp32_bytes : int
        Size of these elements in float32.
    coded_bytes : int or None
        Size of the stream.
    ratio : float or None
        Size of the stream relative to the fp32 bytes of the original.
    score : Score, optional
        Score of the task.
    multiply_adds : int, optional
        Multiply-adds of one run on the input.
    encode_seconds, decode_seconds, run_seconds : Seconds, optional
        Encoding is that of the original without calibration inputs.
    decode_memory, run_memory : int, optional
        Bytes by which the peak memory of a new process grows; running includes the tensors.
    layer_bytes : mapping of str to int
        Bytes of units by layer, both factors of a low-rank layer together; of the original in fp32.
    other_bytes : int
        Bytes of the rest of the stream: the graph, names and headers.
    ranks : mapping of str to int
        Ranks of the low-rank layers.
    weight_errors : mapping of str to float
        By name, the relative error of each tensor of real numbers that the original has as well,
        factors multiplied out.
    """

    label: str
    parameters: int
    fp32_bytes: int
    coded_bytes: int | None
    ratio: float | None
    score: Score | None = None
    multiply_adds: int | None = None
    encode_seconds: Seconds | None = None
    decode_seconds: Seconds | None = None
    run_seconds: Seconds | None = None
    decode_memory: int | None = None
    run_memory: int | None = None
    layer_bytes: Mapping[str, int]
    other_bytes: int
    ranks: Mapping[str, int]
    weight_errors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Singular values of a low-rank layer.

    Parameters
    ----------
    layer, scheme : str
        Name of the layer, and the scheme of its factors.
    values : tuple of float
        Descending, relative to the first.
    ranks : mapping of str to int
        The selected ranks, by label of the stream.
    """

    layer: str
    scheme: str
    values: tuple[float, ...]
    ranks: Mapping[str, int]

    def energy(self, rank: int) -> float:
        """Return the part of the sum of squares that the first `rank` values have."""
        squares = [value**2 for value in self.values]
        return sum(squares[:rank]) / (sum(squares) or 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All measurements.

    Parameters
    ----------
    name : str
        Name of the original.
    networks : tuple of NetworkResult
        The original first.
    spectra : tuple of Spectrum
        Singular values that low-rank layers have in the original.
    task : str or None
        Name of the task.
    baseline : Score or None
        Score without any network, if the task has one.
    input_shapes : tuple of tuple of int
        Shapes of the inputs on which networks ran; empty if they did not.
    rounds, threads : int
        Number of rounds in which times were measured, and of threads.
    machine : str
        Processor, and versions of Python and PyTorch.
    notes : tuple of str
        What could not be measured, and why.
    """

    name: str
    networks: tuple[NetworkResult, ...]
    spectra: tuple[Spectrum, ...]
    task: str | None
    baseline: Score | None
    input_shapes: tuple[tuple[int, ...], ...]
    rounds: int
    threads: int
    machine: str
    notes: tuple[str, ...]

    @property
    def original(self) -> NetworkResult:
        """The first of the networks."""
        return self.networks[0]

    @property
    def coded(self) -> tuple[NetworkResult, ...]:
        """The coded networks."""
        return self.networks[1:]

    def as_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON; numbers that are not finite become None."""
        values: dict[str, Any] = _finite(asdict(self))
        return values


def evaluate(
    model: Any,
    streams: Mapping[str, bytes | str | Path],
    task: Task | Callable[[torch.nn.Module], float] | None = None,
    *,
    example_inputs: tuple[Any, ...] | None = None,
    dynamic_shapes: Any = None,
    input_size: Sequence[int] | None = None,
    rounds: int = ROUNDS,
    threads: int = 1,
    encode_time: bool = True,
    memory_use: bool = True,
    stages: Stages = silently,
) -> Evaluation:
    """Compare an original network with the networks that streams decode to.

    Parameters
    ----------
    model : path, torch.nn.Module, torch.export.ExportedProgram, mapping, ...
        The original. Without a graph (a state dict) only sizes and decoding are compared.
    streams : mapping of str to bytes or path
        By label.
    task : Task or callable, optional
        Quality metric; a function takes a network and returns a number, higher is better.
    example_inputs, dynamic_shapes
        With a module, to export it as `nnrcodec.encode` does. Networks are then timed on these.
    input_size : sequence of int, optional
        Height and width of the input on which networks are timed.
    rounds : int
        Number of rounds in which times are measured; the median is reported.
    threads : int
        Number of threads of PyTorch, encoder and decoder.
    encode_time, memory_use : bool
        Whether to measure encoding time and memory.
    stages : callable, optional
        Receives the progress of each stage.

    Returns
    -------
    Evaluation

    Raises
    ------
    ConfigError
        If a stream is an update or not of this model, or the input or the task does not fit.
    BitstreamError, UnsupportedFeatureError
        If a stream does not decode.
    """
    original = original_of(model, example_inputs, dynamic_shapes)
    coded = [
        coded_network(label, stream, original) for label, stream in streams_of(streams).items()
    ]
    return compare(
        [original_network(original), *coded],
        task,
        name=Path(model).name if isinstance(model, str | Path) else "network",
        values=None if example_inputs is None else tuple(map(torch.as_tensor, example_inputs)),
        input_size=input_size,
        rounds=rounds,
        threads=threads,
        encode_time=encode_time,
        memory_use=memory_use,
        stages=stages,
    )


def compare(
    networks: Sequence[Network],
    task: Task | Callable[[torch.nn.Module], float] | None,
    *,
    name: str,
    values: Values | None = None,
    input_size: Sequence[int] | None = None,
    rounds: int = ROUNDS,
    threads: int = 1,
    encode_time: bool = True,
    memory_use: bool = True,
    stages: Stages = silently,
) -> Evaluation:
    """Compare networks, the original first.

    Parameters
    ----------
    networks : sequence of Network
        Networks of `nnrcodec.evaluate.networks`.
    name : str
        Name of the original.
    values : tuple of Tensor, optional
        Input on which networks are timed.

    Other parameters, errors
    ------------------------
    As for `evaluate`.
    """
    if rounds < 1 or threads < 1:
        raise ConfigError("rounds and threads are at least 1")
    if task is not None and not isinstance(task, Task):
        task = CallableTask(task, getattr(task, "__name__", "score"))
    original = networks[0]
    notes = []
    if original.runnable is None:
        notes.append(
            "networks did not run: the original has tensors only, no graph; weights are compared: "
            "root of the sum of squared errors, over that of squared values, of the worst tensor"
        )
    if original.runnable is None and (task is not None or input_size is not None):
        raise ConfigError(NO_GRAPH)
    if memory_use and not peak_is_available():
        notes.append("memory was not measured: this system does not report the peak of a process")
    with threads_of_torch(threads):
        modules = [running(network.runnable) if network.runnable else None for network in networks]
        values = _input(original, values, input_size, notes)
        scores = _scores(modules, task, stages)
        memory = _memory(networks, values, threads, stages) if memory_use else {}
        actions = _actions(networks, modules, values, threads, encode_time)
        with stages("timing") as progress:
            seconds = interleaved(actions, rounds, progress)
        computed = [
            multiply_adds(module, values) if module and values else None for module in modules
        ]
    return Evaluation(
        name=name,
        networks=tuple(
            NetworkResult(
                **_sizes(network, original.model),
                score=scores.get(number),
                multiply_adds=computed[number],
                encode_seconds=seconds.get(f"encode {number}"),
                decode_seconds=seconds.get(f"decode {number}"),
                run_seconds=seconds.get(f"run {number}"),
                decode_memory=memory.get(f"decode {number}"),
                run_memory=memory.get(f"run {number}"),
            )
            for number, network in enumerate(networks)
        ),
        spectra=tuple(_spectra(networks)),
        task=None if task is None else task.name,
        baseline=getattr(task, "baseline", None),
        input_shapes=tuple(tuple(value.shape) for value in values or ()),
        rounds=rounds,
        threads=threads,
        machine=_machine(),
        notes=tuple(notes),
    )


def _input(
    original: Network, values: Values | None, size: Sequence[int] | None, notes: list[str]
) -> Values | None:
    """Return the input on which to run networks; None, and a note why, if there is none."""
    if original.runnable is None:
        return None
    if values is not None and size is None:
        return channels_last(values)
    try:
        return example_input(original.runnable, size)
    except ConfigError as error:
        if size is not None:
            raise
        notes.append(f"run time was not measured: {error}")
        return None


def _scores(
    modules: Sequence[torch.nn.Module | None], task: Task | None, stages: Stages
) -> dict[int, Score]:
    scores = {}
    if task is not None:
        with stages("scoring") as progress:
            for number, module in enumerate(modules):
                if module is not None:
                    scores[number] = task.score(module)
                progress(number + 1, len(modules))
    return scores


def _memory(
    networks: Sequence[Network], values: Values | None, threads: int, stages: Stages
) -> dict[str, int | None]:
    memory = {}
    with stages("memory") as progress:
        for number, network in enumerate(networks):
            if network.stream is not None:
                memory[f"decode {number}"] = decoding_memory(network.stream, threads)
            if network.runnable is not None and values is not None:
                memory[f"run {number}"] = running_memory(network.runnable, values, threads)
            progress(number + 1, len(networks))
    return memory


def _actions(
    networks: Sequence[Network],
    modules: Sequence[torch.nn.Module | None],
    values: Values | None,
    threads: int,
    encode_time: bool,
) -> dict[str, Callable[[], object]]:
    """Return the actions whose time is measured, in order."""
    original, limits = networks[0].model, limits_for(networks[0].model)
    config = EncoderConfig(threads=threads)
    actions: dict[str, Callable[[], object]] = {}
    if encode_time:
        actions["encode 0"] = lambda: encode_model(original, config)
    for number, network in enumerate(networks):
        if network.stream is not None:
            actions[f"decode {number}"] = lambda data=network.stream: decode_stream(  # type: ignore[misc]
                data, limits, threads=threads
            )
    for number, module in enumerate(modules):
        if module is not None and values is not None:
            actions[f"run {number}"] = lambda module=module: run(module, values)  # type: ignore[misc]
    return actions


def _sizes(network: Network, original: Model) -> dict[str, Any]:
    """Return the results for which a network need not run."""
    parameters = sum(tensor.size for tensor in network.model.tensors.values())
    whole = 4 * sum(tensor.size for tensor in original.tensors.values())
    coded = None if network.stream is None else len(network.stream)
    layers = _layer_bytes(network)
    return {
        "label": network.label,
        "parameters": parameters,
        "fp32_bytes": 4 * parameters,
        "coded_bytes": coded,
        "ratio": None if coded is None else coded / max(whole, 1),
        "layer_bytes": layers,
        "other_bytes": 0 if coded is None else coded - sum(layers.values()),
        "ranks": {factors.layer: factors.rank for factors in network.model.factors},
        "weight_errors": network.weight_errors,
    }


def _layer_bytes(network: Network) -> dict[str, int]:
    """Return bytes by layer, in the order of the tensors."""
    thin = {name: f.layer for f in network.model.factors for name in (f.u, f.v, f.v_bias)}
    tensors = network.model.tensors.values()
    sizes = {thin.get(tensor.name, _layer(tensor.name)): 0 for tensor in tensors}
    if network.stream is None:
        for tensor in tensors:
            sizes[_layer(tensor.name)] += 4 * tensor.size
        return sizes
    for unit in inspect(network.stream, limits=limits_for(network.model)).tensors:
        layer = thin.get(unit.names[0], _layer(unit.names[0]))
        sizes[layer] = sizes.get(layer, 0) + unit.unit_bytes
    return {layer: size for layer, size in sizes.items() if size}


def _layer(name: str) -> str:
    return next((name.removesuffix(e) for e in _ENDINGS if name.endswith(e)), name)


def _spectra(networks: Sequence[Network]) -> Iterator[Spectrum]:
    """Yield the singular values of layers of low rank, in the order of the layers."""
    original = networks[0].model
    chosen: dict[tuple[str, Scheme], dict[str, int]] = {}
    for network in networks[1:]:
        for factors in network.model.factors:
            key = factors.layer, Scheme.of(factors)
            chosen.setdefault(key, {})[network.label] = factors.rank
    names = list(original.tensors)
    for (layer, scheme), ranks in sorted(
        chosen.items(), key=lambda item: names.index(f"{item[0][0]}.weight")
    ):
        weight = original.tensors[f"{layer}.weight"]
        values = _singular_values(scheme.matrix(weight.read().astype(np.float64)))
        relative = values / max(float(values[0]), np.finfo(np.float64).tiny)
        word = f"{scheme.name}, transposed" if scheme.transposed else scheme.name
        yield Spectrum(layer, word, tuple(map(float, relative)), ranks)


def _singular_values(matrix: np.ndarray) -> np.ndarray:
    """Return singular values, descending, with the accuracy that a plot needs."""
    small = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    squares = np.linalg.eigvalsh(small @ small.T)[::-1]
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def _finite(value: Any) -> Any:
    """Return dictionaries and lists with None for numbers that JSON cannot represent."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
