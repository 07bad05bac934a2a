"""The networks that are compared: the original, and what streams make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nnrcodec.decoder import decode_stream
from nnrcodec.errors import ConfigError
from nnrcodec.formats import load
from nnrcodec.graph.module import DecodedModel, build_module
from nnrcodec.limits import Limits
from nnrcodec.model import Model
from nnrcodec.sources import model_of


def original_of(source: Any) -> Model:
    """Return the original: from a path, or whatever `nnrcodec.encode` takes."""
    return load(Path(source)) if isinstance(source, str | Path) else model_of(source)


def streams_of(streams: Mapping[str, bytes | str | Path]) -> dict[str, bytes]:
    """Return the bytes of streams; a path is read.

    Raises
    ------
    ConfigError
        If there are none, or one cannot be read.
    """
    if not streams:
        raise ConfigError("there are no streams to evaluate")
    found = {}
    for label, stream in streams.items():
        try:
            found[label] = Path(stream).read_bytes() if not isinstance(stream, bytes) else stream
        except OSError as error:
            raise ConfigError(f"cannot read {label}: {error.strerror}") from error
    return found


def reconstructed(original: Model, stream: bytes) -> Model:
    """Return the network of a stream.

    A stream of tensors only gets the graph of the original, its factors multiplied out.
    """
    model = decode_stream(stream, Limits())
    if model.graph is not None or original.graph is None:
        return model
    merged = decode_stream(stream, Limits(), merge=True)
    missing = set(original.graph.tensor_names()) - merged.tensors.keys()
    if missing:
        raise ConfigError(f"the stream lacks tensor {min(missing)!r} of the original model")
    return replace(merged, graph=original.graph)


def running(model: Model) -> DecodedModel:
    """Return a network that runs, convolutions with channels last, which is fast."""
    module = build_module(model).requires_grad_(False)
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
