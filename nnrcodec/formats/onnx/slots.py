"""Which tensors of an ONNX graph are coded, and the proto without their values.

A slot is an initializer of the main graph, or the tensor of a node ``Constant``, whose values are
taken out of the proto and coded as a tensor under its name: weights, and exactly what is no weight
but large. All others stay in the proto: numbers that are not weights (shapes, scales of Resize,
integers in small lists), element types that numpy lacks, and what is in subgraphs and functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from nnrcodec.errors import ModelError
from nnrcodec.formats.onnx.protos import (
    EXTERNAL,
    clear_values,
    dtype_of,
    is_empty,
    set_values,
    shape_of,
    values_of,
)
from nnrcodec.model.dtypes import is_float
from nnrcodec.model.model import Role, Tensor

FEWEST_REALS = 16
"""Elements from which on a float tensor is coded wherever it is used."""

FEWEST_INTEGERS = 256
"""Elements from which on a tensor of integers is coded, exactly."""

_PARAMETERS: Mapping[str, frozenset[int]] = {
    **dict.fromkeys(("Conv", "ConvTranspose"), frozenset({1, 2})),
    "Gemm": frozenset({0, 1, 2}),
    "MatMul": frozenset({0, 1}),
    "BatchNormalization": frozenset({1, 2, 3, 4}),
    **dict.fromkeys(
        ("InstanceNormalization", "LayerNormalization", "GroupNormalization"), frozenset({1, 2})
    ),
    "RMSNormalization": frozenset({1}),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), frozenset({1, 2, 3})),
    "PRelu": frozenset({1}),
    "Gather": frozenset({0}),
}
"""By operator, the inputs that are weights however few values they have, unless it is one."""

_COMBINED = frozenset({"Add", "Sub", "Mul", "Div"})
"""Operators with which an initializer is a weight if it is a vector, such as a bias of channels; a
table of numbers, or a number of a node ``Constant``, is not."""

_VIEWS = frozenset(
    {"Transpose", "Reshape", "Identity", "Unsqueeze", "Squeeze", "Flatten", "Cast", "CastLike"}
)
"""Operators after which a weight is still one."""

_NUMBERS: Mapping[str, frozenset[int]] = {
    "Resize": frozenset({1, 2, 3}),
    "Upsample": frozenset({1}),
    **dict.fromkeys(("Clip", "Range", "OneHot", "Pad"), frozenset({1, 2})),
    "ConstantOfShape": frozenset({0}),
    "Dropout": frozenset({1, 2}),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), frozenset({1, 2})),
}
"""By operator, inputs that are never weights."""

_STATISTICS = frozenset({3, 4})
"""Inputs of BatchNormalization that are no parameters, but measured in training."""


class Slot(NamedTuple):
    """A tensor of the proto under the name of its value."""

    name: str
    proto: Any
    is_initializer: bool


def slots_of(graph: Any) -> Iterator[Slot]:
    """Yield what could be a slot: initializers, and tensors of nodes ``Constant``."""
    for tensor in graph.initializer:
        yield Slot(tensor.name, tensor, True)
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and node.output:
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.HasField("t"):
                    yield Slot(node.output[0], attribute.t, False)


def take_weights(graph: Any) -> list[Tensor]:
    """Take the weights out of a GraphProto, in its order.

    Parameters
    ----------
    graph : GraphProto
        Changed in place: what is returned is no longer in it.

    Raises
    ------
    ModelError
        Two values have one name, or a tensor is not what its dimensions say.
    """
    uses = _uses(graph)
    seen: set[str] = set()
    tensors = []
    for slot in slots_of(graph):
        name, proto = slot.name, slot.proto
        if name in seen:
            raise ModelError(f"this ONNX graph has two tensors {name!r}")
        seen.add(name)
        dtype, used = dtype_of(proto), uses.get(name, frozenset())
        if dtype is None or proto.data_location == EXTERNAL:
            continue
        is_weight = _is_weight(slot, dtype, used)
        if not is_weight and not _is_table(proto, dtype, used):
            continue
        values = values_of(proto)
        role = Role.PARAMETER if is_weight else Role.CONSTANT
        if used and all(op == "BatchNormalization" and at in _STATISTICS for op, at in used):
            role = Role.BUFFER
        read = partial(_same, values)
        tensors.append(Tensor(name, dtype, values.shape, read, role, exact=not is_weight))
        clear_values(proto)
    return tensors


def put_weights(graph: Any, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors into a GraphProto from which they were taken.

    Parameters
    ----------
    graph : GraphProto
        Changed in place.
    tensors : mapping of str to Tensor
        By name in the graph.

    Raises
    ------
    ModelError
        A tensor is missing, or is not of the shape and dtype that the graph says.
    """
    for name, proto, _ in slots_of(graph):
        if not is_empty(proto):
            continue
        tensor, dtype, shape = tensors.get(name), dtype_of(proto), shape_of(proto)
        if tensor is None:
            raise ModelError(f"the ONNX graph needs a tensor {name!r}, which is not there")
        if (tensor.dtype, tensor.shape) != (dtype, shape):
            raise ModelError(
                f"tensor {name!r} is {tensor.dtype}{list(tensor.shape)}, in the ONNX graph it is "
                f"{dtype}{list(shape)}"
            )
        set_values(proto, tensor.read(), tensor.dtype)


def _same(values: np.ndarray) -> np.ndarray:
    return values


_Uses = frozenset[tuple[str, int]]


def _uses(graph: Any) -> dict[str, _Uses]:
    """Return by name where values are used, as operators and positions; views are passed."""
    uses: dict[str, set[tuple[str, int]]] = {value.name: {("", 0)} for value in graph.output}
    for node in reversed(graph.node):  # users come behind
        for position, name in enumerate(node.input):
            behind = {(node.op_type, position)}
            if node.op_type in _VIEWS and position == 0 and node.output:
                behind = uses.get(node.output[0], behind)
            uses.setdefault(name, set()).update(behind)
    return {name: frozenset(positions) for name, positions in uses.items()}


def _is_weight(slot: Slot, dtype: str, used: _Uses) -> bool:
    """Return whether a float tensor is a weight, of which values may change a little."""
    shape = shape_of(slot.proto)
    if not is_float(dtype) or math.prod(shape) < 2:
        return False
    if any(position in _PARAMETERS.get(op, ()) for op, position in used):
        return True
    is_vector = sum(size > 1 for size in shape) == 1
    return slot.is_initializer and is_vector and any(op in _COMBINED for op, _ in used)


def _is_table(proto: Any, dtype: str, used: _Uses) -> bool:
    """Return whether a tensor is coded, exactly, though it is no weight."""
    size = math.prod(shape_of(proto))
    if not is_float(dtype):
        return size >= FEWEST_INTEGERS
    numbers = used and all(position in _NUMBERS.get(op, ()) for op, position in used)
    return size >= (FEWEST_INTEGERS if numbers else FEWEST_REALS)
