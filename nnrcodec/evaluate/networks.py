"""The networks that are compared: the original, and those that streams decode to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnrcodec.decoder.pipeline import Decoded, decode_all, merged_model
from nnrcodec.errors import BitstreamError, ConfigError, UnsupportedFeatureError
from nnrcodec.formats import load, read_stream_file
from nnrcodec.formats.sources import model_of
from nnrcodec.graph.graph import Graph
from nnrcodec.graph.module import DecodedModel, build_module, optimized_for_inference
from nnrcodec.inspection import inspect
from nnrcodec.limits import Limits
from nnrcodec.model.dtypes import cast, is_float
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.quant.quantized import relative_error

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Network:
    """One of the networks that are compared.

    Parameters
    ----------
    label : str
        Name of the network.
    model : Model
        Its tensors, with low-rank factors as they are in the stream.
    stream : bytes or None
        The stream that it was decoded from; None for the original.
    runnable : Model or None
        The model to run, with the graph of the stream or of the original; None without a graph.
    weight_errors : mapping of str to float
        By name, the relative error of tensors that the original has as well, factors multiplied
        out: root of the sum of squared errors, over that of the squared values.
    """

    label: str
    model: Model
    stream: bytes | None
    runnable: Model | None
    weight_errors: Mapping[str, float] = field(default_factory=dict)


def original_of(
    source: Any, example_inputs: tuple[Any, ...] | None = None, dynamic_shapes: Any = None
) -> Model:
    """Return the original: from a path, or from anything that `nnrcodec.encode` accepts."""
    if isinstance(source, str | Path):
        return load(Path(source))
    return model_of(source, example_inputs, dynamic_shapes)


def original_network(original: Model) -> Network:
    """Return the first of the networks."""
    if not original.tensors:
        raise ConfigError("there are no tensors in this model: nothing to compare with")
    return Network("original", original, None, original if original.graph is not None else None)


def coded_network(label: str, stream: bytes, original: Model) -> Network:
    """Return the network of a stream.

    A stream without a graph gets the graph of the original, and its factors are merged.

    Raises
    ------
    ConfigError
        If it is an update, or of another model than the original.
    BitstreamError, UnsupportedFeatureError
        If it does not decode; a note has the label of the stream.
    """
    limits = limits_for(original)
    try:
        if inspect(stream, limits=limits).is_update:
            raise ConfigError(
                f"{label} is an update, differences to a base model: write the whole model first "
                "(nnr-decode BASE UPDATE -o NEW.pt2, nnr-encode NEW.pt2)"
            )
        decoded = decode_all(stream, limits)
        _require_same(label, decoded, original)
        merged = merged_model(decoded, limits)
        runnable: Model | None = decoded.model
        if original.graph is None:
            runnable = None
        elif decoded.model.graph is None:
            runnable = _with_graph(label, merged, original, original.graph)
    except (BitstreamError, UnsupportedFeatureError) as error:
        error.add_note(f"in the stream {label!r}")
        raise
    return Network(label, decoded.model, stream, runnable, dict(_weight_errors(original, merged)))


def _weight_errors(original: Model, decoded: Model) -> Iterator[tuple[str, float]]:
    for name, tensor in original.tensors.items():
        other = decoded.tensors.get(name)
        if other is not None and other.shape == tensor.shape and is_float(tensor.dtype):
            error = relative_error(tensor.read(), other.read())
            if math.isfinite(error):
                yield name, error


def limits_for(original: Model) -> Limits:
    """Return limits that allow a stream to decode to a model as large as the original."""
    default = Limits()
    needed = 2 * sum(8 * tensor.size for tensor in original.tensors.values())
    return replace(
        default,
        free_decoded_bytes=max(default.free_decoded_bytes, needed),
        max_decoded_bytes=max(default.max_decoded_bytes, needed),
    )


def streams_of(streams: Mapping[str, bytes | str | Path]) -> dict[str, bytes]:
    """Return the bytes of streams; paths are read.

    Raises
    ------
    ConfigError
        If there are no streams, or a file cannot be read.
    """
    if not streams:
        raise ConfigError("there are no streams to evaluate")
    return {
        label: stream if isinstance(stream, bytes) else read_stream_file(stream)
        for label, stream in streams.items()
    }


def running(model: Model) -> DecodedModel:
    """Return a network that runs, optimized as for a receiver."""
    return optimized_for_inference(build_module(model).requires_grad_(False))


def picture_channels(model: Model) -> int:
    """Return the number of channels of the pictures that a network takes: 1 or 3.

    Raises
    ------
    ConfigError
        If its input is not a picture.
    """
    if model.graph is None:
        raise ConfigError(NO_GRAPH)
    inputs = model.graph.inputs
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or not is_float(inputs[0].dtype):
        raise ConfigError(
            "this network does not take pictures: expected one input (n, channels, height, width)"
        )
    channels = inputs[0].shape[1]
    if isinstance(channels, int) and channels not in (1, 3):
        raise ConfigError(f"this network takes {channels} channels; pictures have 1 or 3")
    return channels if isinstance(channels, int) else 1


NO_GRAPH = (
    "the original has tensors only, no graph, so it does not run: give a .pt2 file "
    "(torch.export.save), or example_inputs with a module"
)


def _require_same(label: str, decoded: Decoded, original: Model) -> None:
    """Raise if names, shapes or inputs show that a stream is not of the original."""
    decoded_shapes = _original_shapes(decoded)
    shapes = {t.name: t.shape for t in _weights(original)}
    for name, shape in decoded_shapes.items():
        if name in shapes and not _is_same_shape(shape, shapes[name]):
            raise ConfigError(
                f"{label} is of another model: its tensor {name!r} has shape {list(shape)}, "
                f"that of the original has {list(shapes[name])}"
            )
    norms = {_parent(name) for name in shapes if name.endswith("running_mean")}
    missing = [name for name in shapes if name not in decoded_shapes and _parent(name) not in norms]
    parents = {_parent(name) for name in shapes}
    extra = [
        name
        for name in decoded_shapes
        if name not in shapes  # folding a batch norm gives a layer a bias
        and not (name.rpartition(".")[2].startswith("bias") and _parent(name) in parents)
    ]
    if missing:
        raise ConfigError(
            f"{label} is of another model: the stream lacks tensor {missing[0]!r} of the original"
        )
    if extra:
        raise ConfigError(
            f"{label} is of another model: its tensor {extra[0]!r} is not in the original"
        )
    graphs = [graph for graph in (decoded.model.graph, original.graph) if graph is not None]
    inputs = [[(entry.dtype, len(entry.shape)) for entry in graph.inputs] for graph in graphs]
    if len(inputs) == 2 and inputs[0] != inputs[1]:
        raise ConfigError(f"{label} is of another model: it takes other inputs")


def _original_shapes(decoded: Decoded) -> Shapes:
    """Return names and shapes of the tensors, low-rank layers as they were in the original."""
    shapes = {tensor.name: tensor.shape for tensor in _weights(decoded.model)}
    for factors in decoded.model.factors:
        for name in (factors.u, factors.v):
            shapes.pop(name, None)
        shapes[f"{factors.layer}.weight"] = factors.kernel_shape
        if factors.v_bias in shapes:
            shapes[f"{factors.layer}.bias"] = shapes.pop(factors.v_bias)
    for block in decoded.blocks:
        for name in block.parts:
            shapes.pop(name, None)
        shapes[block.weight] = block.shape
    return shapes


def _weights(model: Model) -> list[Tensor]:
    """Return the tensors that identify a network: not its counters, nor constants of its graph."""
    tensors = model.tensors.values()
    return [t for t in tensors if t.role is not Role.CONSTANT and is_float(t.dtype)]


def _is_same_shape(left: tuple[int, ...], right: tuple[int, ...]) -> bool:
    """Compare shapes; streams of the standard have no tensors without dimensions."""
    return left == right or {left, right} == {(), (1,)}


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _with_graph(label: str, merged: Model, original: Model, graph: Graph) -> Model:
    """Return the decoded tensors in shapes and dtypes of the original, with its graph."""
    used = set(graph.tensor_names())
    tensors = []
    for own in original.tensors.values():
        if own.name in merged.tensors:
            value = cast(merged.tensors[own.name].read(), own.dtype)
            tensors.append(Tensor.of(own.name, np.reshape(value, own.shape), own.dtype, own.role))
        elif own.role is Role.CONSTANT or not is_float(own.dtype):
            tensors.append(own)
        elif own.name in used:
            raise ConfigError(f"{label}: the stream lacks tensor {own.name!r} of the original")
    return Model.of(tensors, graph)
