"""``.onnx``: networks of the Open Neural Network Exchange.

The values of weights are taken out of the proto, and coded as tensors under their names; the rest
of the proto goes beside them as it is, so that the same file comes back with decoded weights. Where
all nodes can be translated exactly there is a graph of ours as well.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nnrcodec.errors import (
    ConfigError,
    LimitExceededError,
    ModelError,
    SyntaxElementError,
    UnsupportedFeatureError,
    shortened,
)
from nnrcodec.formats.atomic import write_atomically
from nnrcodec.formats.onnx.protos import (
    EXTERNAL,
    load_external,
    package,
    parse,
    read,
    serialized,
    tensors_in,
)
from nnrcodec.formats.onnx.slots import put_weights, take_weights
from nnrcodec.formats.reading import require_no_key
from nnrcodec.graph.names import original_name
from nnrcodec.limits import Limits
from nnrcodec.messages import logger_of
from nnrcodec.model.model import Model, OnnxTopology

__all__ = ["load", "save"]

logger = logger_of(__name__)

_CLAUSE = "spec/record.md"


def load(path: Path, key: str | None = None) -> Model:
    """Read an ONNX file.

    Returns
    -------
    Model
        Its weights, and its proto without them; with a graph if all nodes can be translated.
        Otherwise a warning names those that cannot.

    Raises
    ------
    ConfigError
        The file cannot be read, the onnx package is missing, or a key is given.
    ModelError
        The file is damaged, has no weights, or names files outside its folder.
    """
    require_no_key(path, key)
    proto, data = read(path)
    external = load_external(tensors_in(proto), path)
    if external:
        logger.warning(
            "%s has the values of %d tensors in other files; an .onnx file that is decoded has "
            "them inside",
            path,
            external,
        )
    elif serialized(proto) != data:
        logger.warning(
            "%s was not written as protobuf writes it: what is decoded has the same content, but "
            "not the same order of bytes",
            path,
        )
    tensors = take_weights(proto.graph)
    if not tensors:
        raise ModelError(f"{path} has no weights to code")
    skeleton = serialized(proto)
    try:
        from nnrcodec.formats.onnx.translation import translate

        model = translate(proto, tensors)
    except ModelError as error:
        logger.warning(
            "%s is coded whole, but without a graph of ours, so that there are no calibration "
            "inputs, and it runs only as an .onnx file: %s",
            path,
            error,
        )
        return replace(Model.of(tensors), onnx=OnnxTopology(skeleton))
    of_file = {tensor.name for tensor in tensors}
    names = {name: original_name(name, model.graph) for name in model.tensors}
    changed = {name: old for name, old in names.items() if name != old and old in of_file}
    return replace(model, onnx=OnnxTopology(skeleton, changed))


def save(model: Model, path: Path, limits: Limits) -> None:
    """Write an ONNX file: that from which the model came with its tensors, or its graph.

    Raises
    ------
    ConfigError
        The model has neither, a package is missing, or the file cannot be written.
    BitstreamError
        The proto or the graph does not fit the tensors, or takes more than `limits` allow.
    UnsupportedFeatureError
        PyTorch cannot export the network.
    """
    if model.onnx is not None:
        proto = _with_tensors(model, model.onnx)
    elif model.graph is not None:
        from nnrcodec.formats.onnx.export import proto_of_graph

        proto = proto_of_graph(model, limits)
    else:
        raise ConfigError(
            f"{path}: there are only tensors here, no graph for an .onnx file to hold; "
            "write a .safetensors or .pt file"
        )
    data = _checked(proto, of_file=model.onnx is not None)
    write_atomically(path, lambda file: file.write(data))


def _with_tensors(model: Model, topology: OnnxTopology) -> Any:
    """Return the proto of a topology with the tensors of a model."""
    from nnrcodec.formats.onnx.pairs import put_pairs

    names = topology.names
    try:
        proto = parse(topology.proto, "the ONNX graph of this stream")
        if any(tensor.data_location == EXTERNAL for tensor in tensors_in(proto)):
            raise ModelError("a tensor of the ONNX graph is in another file")
        factors = {}
        tensors = {names.get(t.name, t.name): t for t in model.tensors.values()}
        for layer in model.factors:
            weight, bias = f"{layer.layer}.weight", f"{layer.layer}.bias"
            factors[names.get(weight, weight)] = layer
            if layer.v_bias in model.tensors:
                tensors[names.get(bias, bias)] = model.tensors[layer.v_bias]
        if factors:
            put_pairs(proto, factors, model.tensors)
        put_weights(proto.graph, tensors)
    except ModelError as error:
        raise SyntaxElementError(str(error), path="topology", clause=_CLAUSE) from error
    return proto


def _checked(proto: Any, *, of_file: bool) -> bytes:
    """Return the bytes of a proto, and say what the onnx package has against it.

    A file that came so goes so; a network of PyTorch has to be valid.
    """
    try:
        data = serialized(proto)
    except ModelError as error:
        raise LimitExceededError(str(error), path="topology") from error
    try:
        package().checker.check_model(data)
    except Exception as error:  # whatever the checker happens to raise
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not of_file:
            raise UnsupportedFeatureError(
                f"PyTorch made an ONNX model that is not valid ({line}); a .pt2 file holds it",
                feature="torch.onnx",
            ) from error
        logger.warning(
            "the ONNX graph is written as it came, though onnx.checker refuses it: %s",
            shortened(line),
        )
    return data
