"""Layers that calibration leaves out, and why.

`nnrcodec.graph.layers.find_layers` returns the layers that are measured. All other convolutions and
linear layers get a step size by their effect on the output, and are not fitted to inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

from nnrcodec.graph.graph import Argument, Graph, TensorRef
from nnrcodec.graph.layers import MAX_MATRIX_SIDE, find_layers
from nnrcodec.graph.operators import OPERATORS
from nnrcodec.model.dtypes import is_float
from nnrcodec.model.model import Model, Tensor


def unmeasured_layers(model: Model) -> dict[str, str]:
    """Return why convolutions and linear layers are not measured.

    Parameters
    ----------
    model : Model
        Without a graph there are none.

    Returns
    -------
    dict of str to str
        The reason, by the name of the layer: that of its weight without ``.weight``.
    """
    graph = model.graph
    if graph is None:
        return {}
    measured = {layer.weight for layer in find_layers(model)}
    reasons: dict[str, str] = {}
    for node in graph.nodes:
        if not node.op.startswith(("aten.conv", "aten.linear.")):
            continue
        names = (parameter.name for parameter in OPERATORS[node.op].positional)
        arguments = {**dict(zip(names, node.args, strict=False)), **dict(node.kwargs)}
        weight = arguments.get("weight")
        if isinstance(weight, TensorRef) and weight.name not in measured:
            tensor = model.tensors[weight.name]
            transposed = "transpose" in node.op
            reason = _reason(tensor, graph, arguments, transposed=transposed)
            reasons[weight.name.removesuffix(".weight")] = reason
    return reasons


def _reason(
    tensor: Tensor, graph: Graph, arguments: Mapping[str, Argument], *, transposed: bool
) -> str:
    uses = len(graph.uses(TensorRef(tensor.name)))
    if uses > 1:
        return f"its weight is used {uses} times"
    if tensor.size == 0 or not is_float(tensor.dtype):
        return "its weight has no floating-point values"
    groups = arguments.get("groups", 1)
    outputs = tensor.shape[0]
    if transposed and isinstance(groups, int):
        outputs = groups * tensor.shape[1]
    columns = tensor.size // outputs
    if max(columns, outputs) > MAX_MATRIX_SIDE:
        largest = f"{MAX_MATRIX_SIDE} x {MAX_MATRIX_SIDE}"
        return f"it is a matrix of {outputs} x {columns}, at most {largest} is measured"
    return "its stride, padding, groups, input or bias is not known from the graph"
