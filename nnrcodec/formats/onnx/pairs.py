"""Layers of low rank in an ONNX graph: two nodes with the factors in place of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnrcodec.errors import ModelError
from nnrcodec.formats.onnx.protos import ELEMENT_TYPES, package
from nnrcodec.formats.onnx.slots import slots_of
from nnrcodec.model.model import Factors, Tensor

_NODES = {True: "ConvTranspose", False: "Conv"}
_PER_AXIS = ("strides", "dilations", "output_padding")
_WITHOUT_EFFECT = {"strides": 1, "dilations": 1, "output_padding": 0}


def put_pairs(proto: Any, factors: Mapping[str, Factors], tensors: Mapping[str, Tensor]) -> None:
    """Replace nodes by pairs with the factors of their weights.

    Parameters
    ----------
    proto : ModelProto
        Changed in place: the weights go, the factors come.
    factors : mapping of str to Factors
        By name of the weight in the graph.
    tensors : mapping of str to Tensor
        The model, by name.

    Raises
    ------
    ModelError
        The graph does not use a weight as its factors say.
    """
    graph = proto.graph
    used = factors.keys() & {name for node in graph.node for name in node.input}
    if used != factors.keys():
        raise ModelError(f"the ONNX graph has no weights {sorted(factors.keys() - used)[:5]}")
    names = {value.name for value in slots_of(graph)}
    names |= {name for node in graph.node for name in (*node.input, *node.output)}
    nodes = []
    for node in graph.node:
        weight = next((name for name in node.input if name in factors), None)
        nodes += [node] if weight is None else _pair(node, weight, factors[weight], names)
    nodes = [n for n in nodes if not (n.op_type == "Constant" and n.output[0] in factors)]
    del graph.node[:]
    graph.node.extend(nodes)
    kept = [tensor for tensor in graph.initializer if tensor.name not in factors]
    old_inputs = {value.name for value in graph.input} & factors.keys()
    inputs = [value for value in graph.input if value.name not in factors]
    for layer in factors.values():
        for name in (layer.u, layer.v):
            kept.append(_initializer(tensors[name]))
            if old_inputs:  # before version 4 initializers are inputs, too
                last = kept[-1]
                helper = package().helper
                inputs.append(helper.make_tensor_value_info(name, last.data_type, list(last.dims)))
    del graph.initializer[:]
    graph.initializer.extend(kept)
    if old_inputs:
        del graph.input[:]
        graph.input.extend(inputs)


def _initializer(tensor: Tensor) -> Any:
    numbers = {dtype: number for number, dtype in ELEMENT_TYPES.items()}
    return package().TensorProto(
        name=tensor.name,
        dims=tensor.shape,
        data_type=numbers[tensor.dtype],
        raw_data=tensor.little_endian().tobytes(),
    )


def _pair(node: Any, weight: str, factors: Factors, names: set[str]) -> list[Any]:
    """Return the two nodes that replace one."""
    if node.input[1] != weight or list(node.input).count(weight) != 1:
        raise ModelError(f"node {node.name!r} does not use {weight!r} as a weight")
    middle = f"{node.output[0]}_u"
    while middle in names:
        middle += "_"
    names.add(middle)
    copies = []
    for end, value in (("_u", node.input[0]), ("_v", middle)):
        copy = package().NodeProto()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend([value, factors.u if end == "_u" else factors.v])
        copy.name = f"{node.name}{end}" if node.name else ""
        copies.append(copy)
    first, second = copies
    second.input.extend(node.input[2:])
    del first.output[:]
    first.output.append(middle)
    attributes = {a.name: a for a in node.attribute}
    match factors.scheme:
        case "linear":
            _check_linear(node, attributes)
        case "separable":
            _check_convolution(node, attributes, transposed=factors.transposed)
            height, width = factors.kernel_shape[2:]
            _along(first, 0, (height, 1))
            _along(second, 1, (1, width))
        case _:
            _check_convolution(node, attributes, transposed=factors.transposed)
            second.op_type = "Conv"
            del second.attribute[:]
            axes = len(factors.kernel_shape) - 2
            second.attribute.append(package().helper.make_attribute("kernel_shape", [1] * axes))
    return copies


def _check_linear(node: Any, attributes: Mapping[str, Any]) -> None:
    plain = {"alpha": 1.0, "beta": 1.0}
    others = {name: a for name, a in attributes.items() if name not in ("transB", "broadcast")}
    fits = all(name in plain and a.f == plain[name] for name, a in others.items())
    transposed = "transB" in attributes and attributes["transB"].i == 1
    if node.op_type != "Gemm" or not fits or not transposed:
        raise ModelError(f"node {node.name!r} is no linear layer")


def _check_convolution(node: Any, attributes: Mapping[str, Any], *, transposed: bool) -> None:
    groups = attributes["group"].i if "group" in attributes else 1
    if node.op_type != _NODES[transposed] or groups != 1 or "output_shape" in attributes:
        raise ModelError(f"node {node.name!r} is no {_NODES[transposed]} that factors can replace")


def _along(node: Any, axis: int, kernel: tuple[int, int]) -> None:
    """Keep of the attributes of a node what is along one of two axes."""
    helper, kept = package().helper, []
    for attribute in node.attribute:
        name = attribute.name
        if name in _PER_AXIS:
            values = [_WITHOUT_EFFECT[name]] * 2
            values[axis] = attribute.ints[axis]
            attribute = helper.make_attribute(name, values)
        elif name == "pads":
            pads = list(attribute.ints)
            pads[1 - axis] = pads[3 - axis] = 0
            attribute = helper.make_attribute(name, pads)
        elif name == "kernel_shape":
            continue
        kept.append(attribute)
    kept.append(helper.make_attribute("kernel_shape", list(kernel)))
    del node.attribute[:]
    node.attribute.extend(kept)
