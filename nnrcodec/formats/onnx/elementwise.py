"""Operators of ONNX that work on each element, or reduce axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from nnrcodec.formats.onnx.calls import TORCH_DTYPES, TRANSLATIONS, Call, Known, operator

Tensor = torch.Tensor

_UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": functional.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": functional.softplus,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}


def _register_unary(name: str, function: Callable[[Tensor], Tensor]) -> None:
    TRANSLATIONS[name] = lambda call: function(call.tensor(0))


for _name, _function in _UNARY.items():
    _register_unary(_name, _function)


def _operands(call: Call) -> tuple[Any, Any]:
    """Return two operands, aligned as old versions of ONNX say."""
    left, right = call.value(0), call.value(1)
    if call.opset < 7 and call.attribute("broadcast", 0):
        x, y, axis = call.as_tensor(left), call.as_tensor(right), call.attribute("axis")
        start = x.dim() - y.dim() if axis is None else call.axis(axis, x.dim())
        return x, y.reshape((*y.shape, *(1,) * (x.dim() - start - y.dim())))
    if isinstance(left, Tensor):
        return left, call.operand(1, left)
    return call.as_tensor(left), call.as_tensor(right)


_BINARY: Mapping[str, Callable[[Any, Any], Tensor]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
}


def _register_binary(name: str, function: Callable[[Any, Any], Tensor]) -> None:
    TRANSLATIONS[name] = lambda call: function(*_operands(call))


for _name, _binary in _BINARY.items():
    _register_binary(_name, _binary)


@operator("And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor")
def _logical(call: Call) -> Tensor:
    functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "And": torch.logical_and,
        "Or": torch.logical_or,
        "Xor": torch.logical_xor,
        "BitwiseAnd": torch.bitwise_and,
        "BitwiseOr": torch.bitwise_or,
        "BitwiseXor": torch.bitwise_xor,
    }
    left, right = _operands(call)
    if not isinstance(right, Tensor):
        right = call.tensor(1)
    return functions[call.op](left, right)


@operator("Div")
def _div(call: Call) -> Tensor:
    left, right = _operands(call)
    if not left.dtype.is_floating_point:
        return torch.div(left, right, rounding_mode="trunc")
    return torch.div(left, right)


@operator("Mod")
def _mod(call: Call) -> Tensor:
    fmod = call.attribute("fmod", 0)
    left, right = _operands(call)
    if not fmod and left.dtype.is_floating_point:
        raise call.refuse("the modulus of floats without fmod")
    return torch.fmod(left, right) if fmod else torch.remainder(left, right)


@operator("Pow")
def _pow(call: Call) -> Tensor:
    base = call.tensor(0)
    if call.opset < 7 and call.attribute("broadcast", 0):
        base, exponent = _operands(call)
        return torch.pow(base, exponent)
    value = call.value(1)
    if isinstance(value, Known) and value.values.size == 1 and not value.is_symbolic:
        (number,) = value.numbers()
        if value.values.ndim <= base.dim() and (base.dtype.is_floating_point or number >= 0):
            whole = float(number).is_integer() and base.dtype.is_floating_point
            return torch.pow(base, int(number) if whole else number).to(base.dtype)
    exponent = call.as_tensor(value)
    if not base.dtype.is_floating_point:
        raise call.refuse("powers of integers that are computed while the network runs")
    return torch.pow(base, exponent).to(base.dtype)


@operator("Min", "Max", "Sum", "Mean")
def _variadic(call: Call) -> Tensor:
    tensors = [call.tensor(position) for position in range(len(call.values))]
    if call.op in ("Min", "Max"):
        return reduce(torch.minimum if call.op == "Min" else torch.maximum, tensors)
    total = reduce(torch.add, tensors)
    return total / len(tensors) if call.op == "Mean" else total


@operator("Where")
def _where(call: Call) -> Tensor:
    return torch.where(call.tensor(0), call.tensor(1), call.tensor(2))


@operator("Identity")
def _identity(call: Call) -> Any:
    return call.value(0)


@operator("Dropout")
def _dropout(call: Call) -> Any:
    for name in ("ratio", "seed", "is_test", "consumed_inputs"):
        call.attribute(name)
    if call.has(2) and any(call.ints(2)):
        raise call.refuse("training_mode")
    if call.opset < 7 and not call.attribute("is_test", 0):
        raise call.refuse("it is in training mode")
    if call.outputs > 1:
        raise call.refuse("its mask is used")
    return call.value(0)


@operator("LeakyRelu")
def _leaky_relu(call: Call) -> Tensor:
    return functional.leaky_relu(call.tensor(0), call.attribute("alpha", 0.01))


@operator("PRelu")
def _prelu(call: Call) -> Tensor:
    x, slope = call.tensor(0), call.tensor(1)
    if call.opset < 7 and slope.dim() == 1 and x.dim() > 1:
        slope = slope.reshape((-1, *(1,) * (x.dim() - 2)))
    if slope.dim() == x.dim() - 1 and x.dim() > 1 and slope.numel() == slope.shape[0]:
        return torch.prelu(x, slope.reshape(-1))
    return torch.where(x < 0, slope * x, x)


@operator("Elu", "Selu", "Celu", "ThresholdedRelu", "HardSigmoid", "Shrink")
def _activation(call: Call) -> Tensor:
    x = call.tensor(0)
    if call.op == "Elu":
        return functional.elu(x, call.attribute("alpha", 1.0))
    if call.op == "Selu":
        alpha = call.attribute("alpha", 1.67326319217681884765625)
        return torch.ops.aten.elu.default(
            x, alpha, call.attribute("gamma", 1.05070102214813232421875)
        )
    if call.op == "Celu":
        return functional.celu(x, call.attribute("alpha", 1.0))
    if call.op == "ThresholdedRelu":
        return functional.threshold(x, call.attribute("alpha", 1.0), 0)
    if call.op == "HardSigmoid":
        return torch.clamp(x * call.attribute("alpha", 0.2) + call.attribute("beta", 0.5), 0, 1)
    bias, limit = call.attribute("bias", 0.0), call.attribute("lambd", 0.5)
    zero = torch.zeros_like(x)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, zero))


@operator("HardSwish", "Softsign", "Gelu", "Swish")
def _smooth(call: Call) -> Tensor:
    x = call.tensor(0)
    if call.op == "HardSwish":
        return functional.hardswish(x)
    if call.op == "Swish":
        alpha = call.attribute("alpha", 1.0)
        return functional.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)
    if call.op == "Softsign":
        return x / (1 + torch.abs(x))
    return functional.gelu(x, approximate=call.attribute("approximate", "none"))


@operator("Clip")
def _clip(call: Call) -> Tensor:
    x = call.tensor(0)
    if call.opset < 11:
        return (
            torch.clamp(x, call.attribute("min"), call.attribute("max")) if call.attributes else x
        )
    bounds = [call.operand(position, x) if call.has(position) else None for position in (1, 2)]
    if bounds == [None, None]:
        return x
    low, high = bounds
    if not any(isinstance(bound, Tensor) for bound in bounds):
        return torch.clamp(x, low, high)
    return torch.clamp(
        x,
        None if low is None else torch.as_tensor(low, dtype=x.dtype),
        None if high is None else torch.as_tensor(high, dtype=x.dtype),
    )


@operator("IsInf")
def _is_inf(call: Call) -> Tensor:
    call.require("detect_negative", 1)
    call.require("detect_positive", 1)
    return torch.isinf(call.tensor(0))


@operator("Cast")
def _cast(call: Call) -> Tensor:
    call.attribute("saturate")
    call.require("round_mode", "up")
    return _converted(call, call.tensor(0), dtype_of_cast(call))


@operator("CastLike")
def _cast_like(call: Call) -> Tensor:
    call.attribute("saturate")
    call.require("round_mode", "up")
    like = call.value(1)
    dtype = str(like.dtype).removeprefix("torch.")
    if dtype not in TORCH_DTYPES:
        raise call.refuse(f"to {dtype}")
    return _converted(call, call.tensor(0), dtype)


def dtype_of_cast(call: Call) -> str:
    """Return the dtype that a node ``Cast`` makes."""
    from nnrcodec.formats.onnx.protos import ELEMENT_TYPES

    to = call.attribute("to")
    if isinstance(to, str):  # of the first version
        to = {name.upper(): number for number, name in ELEMENT_TYPES.items()}.get(to, 1)
    if to not in ELEMENT_TYPES:
        raise call.refuse(f"to element type {to}")
    return ELEMENT_TYPES[to]


def _converted(call: Call, x: Tensor, dtype: str) -> Tensor:
    return x.to(TORCH_DTYPES[dtype])


@operator("Softmax", "LogSoftmax", "Hardmax")
def _softmax(call: Call) -> Tensor:
    x = call.tensor(0)
    axis = call.axis(call.attribute("axis", 1 if call.opset < 13 else -1), x.dim())
    if call.opset < 13 and axis != x.dim() - 1:  # all axes from this one on are one
        flat = x.flatten(axis)
        return _along(call, flat, axis).reshape(x.shape)
    return _along(call, x, axis)


def _along(call: Call, x: Tensor, axis: int) -> Tensor:
    if call.op == "Softmax":
        return torch.softmax(x, axis)
    if call.op == "LogSoftmax":
        return torch.log_softmax(x, axis)
    first = torch.argmax(x, axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, first, 1.0)


@operator("ArgMax", "ArgMin")
def _arg(call: Call) -> Tensor:
    x, keep = call.tensor(0), bool(call.attribute("keepdims", 1))
    axis = call.axis(call.attribute("axis", 0), x.dim())
    function = torch.argmax if call.op == "ArgMax" else torch.argmin
    if not call.attribute("select_last_index", 0):
        return function(x, axis, keep)
    return x.shape[axis] - 1 - function(torch.flip(x, [axis]), axis, keep)


@operator("CumSum")
def _cumsum(call: Call) -> Tensor:
    x = call.tensor(0)
    axis = call.axis(int(call.number(1)), x.dim())
    reverse, exclusive = call.attribute("reverse", 0), call.attribute("exclusive", 0)
    x = torch.flip(x, [axis]) if reverse else x
    result = torch.cumsum(x, axis, dtype=x.dtype)
    result = result - x if exclusive and not x.dtype.is_floating_point else result
    if exclusive and x.dtype.is_floating_point:
        first = torch.zeros_like(x.narrow(axis, 0, 1))
        result = torch.cat([first, result.narrow(axis, 0, x.shape[axis] - 1)], axis)
    return torch.flip(result, [axis]) if reverse else result


_AXES_AS_INPUT = {"ReduceSum": 13}
"""From which version on the axes are an input; 18 for the others."""


@operator(
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
)
def _reduce(call: Call) -> Tensor:
    x, keep = call.tensor(0), bool(call.attribute("keepdims", 1))
    noop = call.attribute("noop_with_empty_axes", 0)
    if call.opset >= _AXES_AS_INPUT.get(call.op, 18):
        axes = call.fixed_ints(1) if call.has(1) else []
    else:
        axes = call.attribute("axes", [])
    if not axes and noop:
        return _elementwise_part(call.op, x)
    axes = sorted({call.axis(axis, x.dim()) for axis in axes}) or list(range(x.dim()))
    return _reduced(call, x, axes, keep)


def _elementwise_part(op: str, x: Tensor) -> Tensor:
    """Return what a reduction over no axis does to each element."""
    if op in ("ReduceL1", "ReduceL2"):
        return torch.abs(x)
    if op == "ReduceSumSquare":
        return x * x
    return torch.log(x) if op == "ReduceLogSum" else x


def _reduced(call: Call, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    op = call.op
    if not axes:
        return _elementwise_part(op, x)
    if op in ("ReduceMax", "ReduceMin"):
        return (torch.amax if op == "ReduceMax" else torch.amin)(x, axes, keep)
    if op == "ReduceProd":
        for axis in reversed(axes):
            x = torch.prod(x, axis, keep, dtype=x.dtype)
        return x
    if op == "ReduceMean":
        if not x.dtype.is_floating_point:
            raise call.refuse("the mean of integers")
        return torch.mean(x, axes, keep)
    if op == "ReduceLogSumExp":
        return torch.logsumexp(x, axes, keep)
    if op in ("ReduceL2", "ReduceSumSquare"):
        x = x * x
    elif op == "ReduceL1":
        x = torch.abs(x)
    total = torch.sum(x, axes, keep, dtype=x.dtype)
    if op == "ReduceL2":
        return torch.sqrt(total)
    return torch.log(total) if op == "ReduceLogSum" else total


@operator("QuantizeLinear")
def _quantize_linear(call: Call) -> Tensor:
    x = call.tensor(0)
    for name, default in (("block_size", 0), ("output_dtype", 0), ("precision", 0)):
        call.require(name, default)
    call.attribute("saturate")
    zero = call.tensor(2) if call.has(2) else None
    dtype = torch.uint8 if zero is None else zero.dtype
    if dtype not in (torch.uint8, torch.int8, torch.int16, torch.uint16):
        raise call.refuse(f"to {dtype}")
    levels = torch.round(x / _along_axis(call, call.tensor(1), x))
    if zero is not None:
        levels = levels + _along_axis(call, zero, x).to(x.dtype)
    bounds = np.iinfo(str(dtype).removeprefix("torch."))
    return torch.clamp(levels, int(bounds.min), int(bounds.max)).to(dtype)


@operator("DequantizeLinear")
def _dequantize_linear(call: Call) -> Tensor:
    x, scale = call.tensor(0), call.tensor(1)
    for name, default in (("block_size", 0), ("output_dtype", 0)):
        call.require(name, default)
    along = _along_axis(call, scale, x)
    levels = x.to(torch.float32)
    if call.has(2):
        levels = levels - _along_axis(call, call.tensor(2), x).to(torch.float32)
    return levels.to(scale.dtype) * along


def _along_axis(call: Call, factor: Tensor, x: Tensor) -> Tensor:
    axis = call.attribute("axis", 1)
    if factor.dim() == 0 or factor.numel() == 1:
        return factor.reshape(())
    if factor.dim() != 1:
        raise call.refuse("scales by blocks")
    return factor.reshape(-1, *(1,) * (x.dim() - 1 - call.axis(axis, x.dim())))
