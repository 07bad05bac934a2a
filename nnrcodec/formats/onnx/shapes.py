"""Operators of ONNX that move elements: views, joins, slices, gathers; and those that make tensors.

Where all inputs are known before the network runs, so are the outputs (`KNOWN`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from nnrcodec.formats.onnx.calls import (
    TORCH_DTYPES,
    Call,
    Known,
    check_size,
    known,
    operator,
    product,
    sym_float,
    sym_int,
    sym_max,
    sym_min,
)
from nnrcodec.formats.onnx.elementwise import dtype_of_cast
from nnrcodec.graph.operators import EQUATION

Tensor = torch.Tensor


@operator("Constant")
def _constant(call: Call) -> Known:
    given = {
        "value": None,
        "value_float": "float32",
        "value_floats": "float32",
        "value_int": "int64",
        "value_ints": "int64",
    }
    for name, dtype in given.items():
        value = call.attribute(name)
        if value is not None:
            return value if dtype is None else known(value, dtype)
    raise call.refuse("its value is no dense tensor of numbers")


@operator("Shape")
def _shape(call: Call) -> Known:
    start, end = call.attribute("start", 0), call.attribute("end")
    value = call.value(0)
    shape = list(value.shape if isinstance(value, Tensor) else value.values.shape)
    return known(shape[slice(start, end)])


@operator("Size")
def _size(call: Call) -> Known:
    value = call.value(0)
    return known(product(value.shape if isinstance(value, Tensor) else value.values.shape))


def _target(call: Call, shape: Sequence[Any]) -> list[Any]:
    """Return the shape that Reshape makes, with -1 where it follows from the others."""
    wanted = call.attribute("shape") if call.opset < 5 else call.ints(1)
    if call.attribute("allowzero", 0):
        return list(wanted)
    zero = [isinstance(size, int) and size == 0 for size in wanted]
    if any(zero[len(shape) :]):
        raise call.refuse("a size 0 without an axis to copy")
    return [shape[axis] if zero[axis] else size for axis, size in enumerate(wanted)]


@operator("Reshape")
def _reshape(call: Call) -> Tensor:
    x = call.tensor(0)
    return torch.reshape(x, _target(call, x.shape))


@operator("Flatten")
def _flatten(call: Call) -> Tensor:
    x, axis = call.tensor(0), call.attribute("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 1 and x.dim() > 1:
        return torch.flatten(x, 1)
    return x.reshape(product(x.shape[:axis]), product(x.shape[axis:]))


def _axes(call: Call, first_as_input: int = 13) -> list[int] | None:
    if call.opset < first_as_input:
        axes: list[int] | None = call.attribute("axes")
        return axes
    return call.fixed_ints(1) if call.has(1) else None


@operator("Squeeze")
def _squeeze(call: Call) -> Tensor:
    x, axes = call.tensor(0), _axes(call)
    if axes is None:
        axes = [axis for axis, size in enumerate(x.shape) if size == 1]
    axes = sorted({call.axis(axis, x.dim()) for axis in axes})
    if any(x.shape[axis] != 1 for axis in axes):
        raise call.refuse("an axis is not of size 1")
    return torch.squeeze(x, axes) if axes else x


@operator("Unsqueeze")
def _unsqueeze(call: Call) -> Tensor:
    x, axes = call.tensor(0), _axes(call) or []
    for axis in sorted(call.axis(axis, x.dim() + len(axes)) for axis in axes):
        x = torch.unsqueeze(x, axis)
    return x


@operator("Transpose")
def _transpose(call: Call) -> Tensor:
    x = call.tensor(0)
    return torch.permute(x, call.attribute("perm", list(reversed(range(x.dim())))))


@operator("Concat")
def _concat(call: Call) -> Tensor:
    tensors = [call.tensor(position) for position in range(len(call.values))]
    return torch.cat(tensors, call.axis(call.attribute("axis", 1), tensors[0].dim()))


@operator("Split")
def _split(call: Call) -> tuple[Tensor, ...]:
    x = call.tensor(0)
    axis = call.axis(call.attribute("axis", 0), x.dim())
    number = call.attribute("num_outputs", call.outputs)
    sizes = call.attribute("split") if call.opset < 13 else None
    if call.opset >= 13 and call.has(1):
        sizes = call.fixed_ints(1)
    if sizes is None:
        total = x.shape[axis]
        if not isinstance(total, int):
            raise call.refuse("an axis of dynamic size into equal parts")
        part = -(-total // number)
        sizes = [min(part, max(total - part * index, 0)) for index in range(number)]
    return tuple(torch.split(x, sizes, axis))


def _bounds(call: Call) -> list[tuple[int, Any, Any, int]]:
    """Return axis, start, end and step of each slice."""
    if call.opset < 10:
        starts, ends = call.attribute("starts"), call.attribute("ends")
        axes, steps = call.attribute("axes"), None
    else:
        starts, ends = call.ints(1), call.ints(2)
        axes = call.fixed_ints(3) if call.has(3) else None
        steps = call.fixed_ints(4) if call.has(4) else None
    axes = axes if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    return list(zip(axes, starts, ends, steps, strict=True))


@operator("Slice")
def _slice(call: Call) -> Tensor:
    x = call.tensor(0)
    for axis, start, end, step in _bounds(call):
        at = call.axis(axis, x.dim())
        x = _sliced(call, x, at, start, end, step)
    return x


def _sliced(call: Call, x: Tensor, axis: int, start: Any, end: Any, step: int) -> Tensor:
    if step > 0:
        return torch.ops.aten.slice.Tensor(x, axis, start, end, step)
    size = x.shape[axis]
    if step == 0:
        raise call.refuse("a step of 0")
    if all(isinstance(number, int) for number in (size, start, end)):
        indices = range(*slice(start, end, step).indices(size))
        if indices == range(size - 1, -1, -1):
            return torch.flip(x, [axis])
        return torch.index_select(x, axis, call.as_tensor(known(list(indices))))
    if step == -1 and start == -1 and isinstance(end, int) and end <= -(2**31) + 1:
        return torch.flip(x, [axis])
    raise call.refuse("a step backwards through an axis of dynamic size")


@operator("Gather")
def _gather(call: Call) -> Tensor:
    x, indices = call.tensor(0), call.value(1)
    axis = call.axis(call.attribute("axis", 0), x.dim())
    if isinstance(indices, Known):
        numbers = indices.numbers()
        if indices.values.ndim == 0:
            return torch.select(x, axis, numbers[0])
        if any(not isinstance(number, int) or number < 0 for number in numbers):
            if not isinstance(x.shape[axis], int) or indices.is_symbolic:
                raise call.refuse("indices from the end of an axis of dynamic size")
            wrapped = np.where(indices.values < 0, indices.values + x.shape[axis], indices.values)
            indices = Known(wrapped.astype(np.int64), "int64")
        at = call.as_tensor(indices).to(torch.int64)
    else:
        at = indices.to(torch.int64)
        if axis == 0 and x.dim() == 2:
            return functional.embedding(at, x)  # which raises for negative indices
        at = _from_the_front(at, x.shape[axis])
    if at.dim() == 1:
        return torch.index_select(x, axis, at)
    rows = torch.index_select(x, axis, at.reshape(-1))
    return rows.reshape((*x.shape[:axis], *at.shape, *x.shape[axis + 1 :]))


def _from_the_front(indices: Tensor, size: Any) -> Tensor:
    return torch.where(indices < 0, indices + size, indices)


@operator("GatherElements")
def _gather_elements(call: Call) -> Tensor:
    x = call.tensor(0)
    axis = call.axis(call.attribute("axis", 0), x.dim())
    return torch.gather(x, axis, _from_the_front(call.tensor(1).to(torch.int64), x.shape[axis]))


@operator("ScatterElements", "Scatter")
def _scatter(call: Call) -> Tensor:
    call.require("reduction", "none")
    x = call.tensor(0)
    axis = call.axis(call.attribute("axis", 0), x.dim())
    at = _from_the_front(call.tensor(1).to(torch.int64), x.shape[axis])
    return torch.scatter(x, axis, at, call.tensor(2))


@operator("Expand")
def _expand(call: Call) -> Tensor:
    x, wanted = call.tensor(0), call.ints(1)
    own = [1] * (len(wanted) - x.dim()) + list(x.shape)
    wanted = [1] * (len(own) - len(wanted)) + wanted
    shape = [o if isinstance(w, int) and w == 1 else w for o, w in zip(own, wanted, strict=True)]
    return x.expand(shape)


@operator("Tile")
def _tile(call: Call) -> Tensor:
    x = call.tensor(0)
    if call.opset < 6:
        times = [1] * x.dim()
        times[call.axis(int(call.number(2)), x.dim())] = int(call.number(1))
        return x.repeat(times)
    return x.repeat(call.ints(1))


@operator("ConstantOfShape")
def _constant_of_shape(call: Call) -> Tensor | Known:
    shape, value = call.ints(0), call.attribute("value")
    fill, dtype = (0.0, "float32") if value is None else (value.numbers()[0], value.dtype)
    if all(isinstance(size, int) for size in shape) and math.prod(shape) <= 64:
        check_size(call, shape)
        return known(np.full(shape, fill, dtype=object), dtype)
    return torch.full(shape, fill, dtype=TORCH_DTYPES[dtype])


@operator("Range")
def _range(call: Call) -> Tensor | Known:
    start, limit, step = (call.number(position) for position in range(3))
    dtype = call.known(0).dtype
    if all(isinstance(number, int | float) for number in (start, limit, step)):
        count = max(math.ceil((limit - start) / step), 0)
        check_size(call, [count])
        return known([start + index * step for index in range(count)], dtype)
    return torch.arange(start, limit, step, dtype=TORCH_DTYPES[dtype])


@operator("OneHot")
def _one_hot(call: Call) -> Tensor:
    indices, depth = call.tensor(0).to(torch.int64), int(call.number(1))
    off, on = call.known(2).numbers()
    dtype = TORCH_DTYPES[call.known(2).dtype]
    axis = call.axis(call.attribute("axis", -1), indices.dim() + 1)
    at = _from_the_front(indices, depth).unsqueeze(axis)
    places = call.as_tensor(known(list(range(depth))))
    hits = at == places.reshape(-1, *(1,) * (indices.dim() - axis))
    return torch.where(hits, on, off).to(dtype)


@operator("EyeLike")
def _eye_like(call: Call) -> Tensor:
    call.require("k", 0)
    x, to = call.tensor(0), call.attribute("dtype")
    dtype = x.dtype if to is None else TORCH_DTYPES[dtype_named(call, to)]
    if x.shape[0] != x.shape[1]:
        raise call.refuse("it is not square")
    return torch.eye(x.shape[0], dtype=dtype)


def dtype_named(call: Call, number: int) -> str:
    """Return the dtype of an element type of ONNX."""
    from nnrcodec.formats.onnx.protos import ELEMENT_TYPES

    if number not in ELEMENT_TYPES:
        raise call.refuse(f"element type {number}")
    return ELEMENT_TYPES[number]


@operator("Trilu")
def _trilu(call: Call) -> Tensor:
    k = int(call.number(1)) if call.has(1) else 0
    return (torch.triu if call.attribute("upper", 1) else torch.tril)(call.tensor(0), k)


@operator("TopK")
def _top_k(call: Call) -> Tensor:
    x = call.tensor(0)
    call.require("sorted", 1)
    if call.outputs > 1:
        raise call.refuse("its indices are used, and PyTorch orders equal values in its own way")
    largest = bool(call.attribute("largest", 1))
    k = call.attribute("k") if call.opset < 10 else call.number(1)
    return torch.topk(x, k, call.axis(call.attribute("axis", -1), x.dim()), largest)[0]


@operator("DepthToSpace")
def _depth_to_space(call: Call) -> Tensor:
    x, block, mode = call.tensor(0), call.attribute("blocksize"), call.attribute("mode", "DCR")
    if mode == "CRD":
        return functional.pixel_shuffle(x, block)
    if mode != "DCR":
        raise call.refuse(f"mode {mode}")
    n, c, h, w = x.shape
    split = x.reshape(n, block, block, c // (block * block), h, w)
    return split.permute(0, 3, 4, 1, 5, 2).reshape(n, c // (block * block), h * block, w * block)


@operator("SpaceToDepth")
def _space_to_depth(call: Call) -> Tensor:
    call.require("mode", "DCR")
    x, block = call.tensor(0), call.attribute("blocksize")
    n, c, h, w = x.shape
    split = x.reshape(n, c, h // block, block, w // block, block)
    return split.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block * block, h // block, w // block)


@operator("Einsum")
def _einsum(call: Call) -> Tensor:
    equation = re.sub(r"\s", "", call.attribute("equation", ""))
    if not EQUATION.fullmatch(equation):
        raise call.refuse(f"equation {equation[:80]!r}")
    return torch.einsum(equation, *(call.tensor(p) for p in range(len(call.values))))


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@operator("Pad")
def _pad(call: Call) -> Tensor:
    x, mode = call.tensor(0), call.attribute("mode", "constant")
    if mode not in _PAD_MODES:
        raise call.refuse(f"mode {mode}")
    if call.opset < 11:
        pads = call.attribute("pads", call.attribute("paddings"))
        value = call.attribute("value", 0.0)
        axes = None
    else:
        pads, value = call.ints(1), call.number(2) if call.has(2) else 0
        axes = call.fixed_ints(3) if call.has(3) else None
    axes = list(range(x.dim())) if axes is None else [call.axis(a, x.dim()) for a in axes]
    around: list[tuple[Any, Any]] = [(0, 0)] * x.dim()
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        around[axis] = begin, end
    return padded(call, x, around, _PAD_MODES[mode], value)


def padded(
    call: Call, x: Tensor, around: Sequence[tuple[Any, Any]], mode: str = "constant", value: Any = 0
) -> Tensor:
    """Return a tensor with so much before and after each axis."""
    first = next((axis for axis, both in enumerate(around) if not _is_nothing(both)), None)
    if first is None:
        return x
    if mode != "constant":
        first = x.dim() - min(x.dim(), 5) + (2 if x.dim() > 2 else 1)
        if not all(map(_is_nothing, around[:first])) or x.dim() > 5:
            raise call.refuse(f"mode {mode} of axes before the last {x.dim() - first}")
        if any(isinstance(n, int) and n < 0 for both in around for n in both):
            raise call.refuse(f"mode {mode} with negative pads")
    flat = [number for both in reversed(around[first:]) for number in both]
    if mode == "constant":
        return functional.pad(x, flat, value=value)
    return functional.pad(x, flat, mode)


def _is_nothing(both: tuple[Any, Any]) -> bool:
    """Return whether nothing is added, whatever the sizes are."""
    return all(isinstance(number, int) and number == 0 for number in both)


# What is known of outputs before the network runs.

_DYADIC = 256
"""Factors of symbolic sizes are multiples of one by this, so that products are exact."""


def _exact(call: Call, *values: Known) -> None:
    """Refuse floats with symbolic sizes where rounding could differ."""
    if not any(value.is_symbolic for value in values):
        return
    for value in values:
        if value.dtype.startswith(("float", "bfloat")) and not value.is_symbolic:
            scaled = value.values.astype(np.float64) * _DYADIC
            if not np.array_equal(scaled, np.rint(scaled)):
                raise call.refuse("sizes times a number that is not exact in binary")


def _shaped(numbers: list[Any], shape: tuple[int, ...], dtype: str) -> Known:
    """Return numbers, maybe symbolic, in a shape."""
    values = np.empty(len(numbers), dtype=object)
    values[:] = numbers
    return known(values.reshape(shape), dtype)


def _combined(function: Callable[[Any, Any], Any]) -> Callable[[Call], Known]:
    def run(call: Call) -> Known:
        left, right = call.known(0), call.known(1)
        _exact(call, left, right)
        shape = np.broadcast_shapes(left.values.shape, right.values.shape)
        check_size(call, shape)
        if left.is_symbolic or right.is_symbolic:
            a, b = np.broadcast_arrays(left.values.astype(object), right.values.astype(object))
            out = [function(x, y) for x, y in zip(a.ravel(), b.ravel(), strict=True)]
            return _shaped(out, shape, left.dtype)
        with np.errstate(all="ignore"):
            return Known(np.asarray(function(left.values, right.values)), left.dtype)

    return run


def _quotient(left: Any, right: Any) -> Any:
    if isinstance(left, np.ndarray):
        if left.dtype.kind == "f":
            return left / right
        quotient = np.abs(left) // np.abs(right)
        return np.where((left < 0) != (right < 0), -quotient, quotient).astype(left.dtype)
    if isinstance(left, torch.SymFloat | float) or isinstance(right, torch.SymFloat | float):
        return left / right
    return left // right  # sizes are not negative


def _compared(function: Callable[[Any, Any], Any]) -> Callable[[Call], Known]:
    combined = _combined(function)

    def run(call: Call) -> Known:
        result = combined(call)
        return Known(np.asarray(result.values).astype(bool), "bool")

    return run


def _same_way(function: Callable[[np.ndarray], Any]) -> Callable[[Call], Known]:
    def run(call: Call) -> Known:
        value = call.known(0)
        return Known(np.asarray(function(value.values)), value.dtype)

    return run


def _known_cast(call: Call) -> Known:
    value, dtype = call.known(0), dtype_of_cast(call)
    call.attribute("saturate")
    if not value.is_symbolic:
        held = np.float32 if dtype == "bfloat16" else np.dtype(dtype)
        with np.errstate(all="ignore"):
            return Known(value.values.astype(held), dtype)
    to_float = dtype.startswith("float")
    convert: Any = sym_float if to_float else sym_int
    numbers = [convert(number) for number in value.numbers()]
    return _shaped(numbers, value.values.shape, dtype)


def _rounded(function: Callable[[Any], Any]) -> Callable[[Call], Known]:
    def run(call: Call) -> Known:
        value = call.known(0)
        if value.is_symbolic:
            numbers = [sym_float(function(number)) for number in value.numbers()]
            return _shaped(numbers, value.values.shape, value.dtype)
        return Known((np.floor if function is math.floor else np.ceil)(value.values), value.dtype)

    return run


def _known_gather(call: Call) -> Known:
    value, indices = call.known(0), call.known(1)
    axis = call.axis(call.attribute("axis", 0), value.values.ndim)
    try:
        taken = np.take(value.values, indices.values.astype(np.int64), axis)
    except IndexError:
        raise call.refuse("an index beyond the end") from None
    return known(taken, value.dtype)


def _known_concat(call: Call) -> Known:
    values = [call.known(position) for position in range(len(call.values))]
    axis = call.axis(call.attribute("axis", 1), values[0].values.ndim)
    return Known(np.concatenate([v.values for v in values], axis), values[0].dtype)


def _known_slice(call: Call) -> Known | None:
    value = call.known(0)
    index = [slice(None)] * value.values.ndim
    for axis, start, end, step in _bounds(call):
        if not isinstance(start, int) or not isinstance(end, int):
            return None
        index[call.axis(axis, value.values.ndim)] = slice(start, end, step)
    return known(value.values[tuple(index)], value.dtype)


def _known_squeeze(call: Call) -> Known:
    value, axes = call.known(0), _axes(call)
    squeezed = np.squeeze(value.values, None if axes is None else tuple(axes))
    return known(squeezed, value.dtype)


def _known_unsqueeze(call: Call) -> Known:
    value, axes = call.known(0), _axes(call) or []
    return Known(np.expand_dims(value.values, tuple(axes)), value.dtype)


def _known_reshape(call: Call) -> Known:
    value = call.known(0)
    return Known(value.values.reshape(_target(call, value.values.shape)), value.dtype)


def _known_reduction(call: Call) -> Known:
    value = call.known(0)
    keep = bool(call.attribute("keepdims", 1))
    axes = call.attribute("axes") if not call.has(1) else call.fixed_ints(1)
    if call.attribute("noop_with_empty_axes", 0) and not axes:
        return value
    functions: Mapping[str, Any] = {"ReduceProd": np.multiply, "ReduceSum": np.add}
    function = functions[call.op]
    result = function.reduce(value.values, axis=tuple(axes) if axes else None, keepdims=keep)
    return known(result, value.dtype)


def _known_expand(call: Call) -> Known:
    value, wanted = call.known(0), call.fixed_ints(1)
    shape = np.broadcast_shapes(value.values.shape, tuple(wanted))
    check_size(call, shape)
    return Known(np.broadcast_to(value.values, shape), value.dtype)


def _known_where(call: Call) -> Known:
    condition, a, b = (call.known(position) for position in range(3))
    shape = np.broadcast_shapes(condition.values.shape, a.values.shape, b.values.shape)
    check_size(call, shape)
    return known(np.where(condition.values.astype(bool), a.values, b.values), a.dtype)


def _smaller(left: Any, right: Any) -> Any:
    if isinstance(left, np.ndarray):
        return np.minimum(left, right)
    return sym_min(left, right)


def _larger(left: Any, right: Any) -> Any:
    if isinstance(left, np.ndarray):
        return np.maximum(left, right)
    return sym_max(left, right)


def _known_mod(call: Call) -> Known | None:
    if call.attribute("fmod", 0):
        return None
    return _combined(lambda a, b: a % b)(call)


KNOWN: Mapping[str, Callable[[Call], Known | None]] = {
    "Add": _combined(lambda a, b: a + b),
    "Sub": _combined(lambda a, b: a - b),
    "Mul": _combined(lambda a, b: a * b),
    "Div": _combined(_quotient),
    "Min": _combined(_smaller),
    "Max": _combined(_larger),
    "Equal": _compared(lambda a, b: a == b),
    "Greater": _compared(lambda a, b: a > b),
    "Less": _compared(lambda a, b: a < b),
    "Mod": _known_mod,
    "Neg": _same_way(lambda x: -x),
    "Transpose": lambda call: Known(
        np.transpose(call.known(0).values, call.attribute("perm")), call.known(0).dtype
    ),
    "Floor": _rounded(math.floor),
    "Ceil": _rounded(math.ceil),
    "Cast": _known_cast,
    "Gather": _known_gather,
    "Concat": _known_concat,
    "Slice": _known_slice,
    "Squeeze": _known_squeeze,
    "Unsqueeze": _known_unsqueeze,
    "Reshape": _known_reshape,
    "ReduceProd": _known_reduction,
    "ReduceSum": _known_reduction,
    "Expand": _known_expand,
    "Where": _known_where,
}
"""Operators whose outputs are known where all inputs are, by name; None where they are not."""

TWO_ONLY = frozenset({"Min", "Max"})
"""Those of them that are computed for two inputs only."""
