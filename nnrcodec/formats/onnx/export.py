"""From a graph of ours to an ONNX file, by the exporter of PyTorch.

The operators of a graph are those of PyTorch, which PyTorch itself translates, with symbolic sizes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from nnrcodec.errors import ConfigError, UnsupportedFeatureError
from nnrcodec.graph.graph import Graph
from nnrcodec.graph.guards import sentence
from nnrcodec.graph.module import build_module, first_line
from nnrcodec.graph.names import original_name
from nnrcodec.graph.program import program_of_module
from nnrcodec.limits import Limits
from nnrcodec.messages import logger_of
from nnrcodec.model.model import Model

logger = logger_of(__name__)


def proto_of_graph(model: Model, limits: Limits | None = None) -> Any:
    """Return a network as a ModelProto.

    Parameters
    ----------
    model : Model
        With a graph.
    limits : Limits, optional
        What exporting may take.

    Raises
    ------
    ConfigError
        A package is missing.
    BitstreamError
        The graph cannot be run, or takes more than `limits` allow.
    UnsupportedFeatureError
        PyTorch cannot export the network.
    """
    if importlib.util.find_spec("onnxscript") is None:
        raise ConfigError(
            "to write a network of PyTorch as ONNX needs onnxscript: pip install 'nnrcodec[onnx]'"
        )
    graph = model.graph
    if graph is None:
        raise ConfigError("there are only tensors here, no graph for an ONNX file to hold")
    if graph.guards:
        logger.warning(
            "an ONNX file cannot say that the network holds only for inputs with %s: it would be "
            "wrong for others",
            sentence(graph.guards, graph.places),
        )
    program = program_of_module(build_module(model, limits), limits)
    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                verbose=False,
                input_names=[value.name for value in graph.inputs],
            )
    except Exception as error:  # whatever the exporter happens to raise
        cause = first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise UnsupportedFeatureError(
            f"PyTorch {torch.__version__} cannot export this network to ONNX ({cause}); a .pt2 "
            "file holds it",
            feature="torch.onnx",
        ) from error
    if exported is None:
        raise UnsupportedFeatureError("PyTorch made no ONNX model of it", feature="torch.onnx")
    proto = exported.model_proto
    _tidy(proto, graph)
    return proto


def _tidy(proto: Any, graph: Graph) -> None:
    """Name sizes as the graph does, and leave out what is about this machine."""
    del proto.metadata_props[:]
    proto.ClearField("doc_string")
    main = proto.graph
    for part in (main, *main.node, *main.input, *main.output, *main.value_info, *main.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    for node in main.node:
        node.ClearField("doc_string")
    names: dict[str, str] = {}
    for value, entry in zip(main.input, graph.inputs, strict=False):
        for dim, size in zip(value.type.tensor_type.shape.dim, entry.shape, strict=False):
            if dim.dim_param and isinstance(size, str):
                names.setdefault(dim.dim_param, size)
    for value in (*main.input, *main.output, *main.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
            elif dim.dim_param:  # an expression
                dim.ClearField("dim_param")
    original = {t.name: original_name(t.name, graph) for t in main.initializer}
    changed = {name: old for name, old in original.items() if name != old}
    taken = {name for node in main.node for name in (*node.input, *node.output)}
    changed = {name: old for name, old in changed.items() if old not in taken}
    for tensor in main.initializer:
        tensor.name = changed.get(tensor.name, tensor.name)
    for node in main.node:
        for position, name in enumerate(node.input):
            if name in changed:
                node.input[position] = changed[name]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter prints and logs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
