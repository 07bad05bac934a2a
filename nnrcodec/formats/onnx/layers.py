"""Operators of ONNX with weights or windows: convolutions, products, pools, normalisations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from nnrcodec.formats.onnx.calls import Call, operator, sym_max
from nnrcodec.formats.onnx.shapes import padded

Tensor = torch.Tensor

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
_MAX_POOLS = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE_POOLS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def _spatial(call: Call, x: Tensor) -> int:
    axes = x.dim() - 2
    if axes not in _CONVOLUTIONS:
        raise call.refuse(f"an input of {x.dim()} axes")
    return axes


def _ints(call: Call, name: str, axes: int, default: int) -> list[int]:
    values = call.attribute(name)
    values = [default] * axes if values is None else list(values)
    if len(values) != axes:
        raise call.refuse(f"{name} {values} for {axes} axes")
    return values


def _pads(
    call: Call,
    sizes: Sequence[Any],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[tuple[Any, Any]]:
    """Return what is added before and after each axis."""
    auto, pads = call.attribute("auto_pad", "NOTSET"), call.attribute("pads")
    axes = len(kernel)
    if auto == "NOTSET":
        pads = [0] * (2 * axes) if pads is None else list(pads)
        if len(pads) != 2 * axes or min(pads, default=0) < 0:
            raise call.refuse(f"pads {pads}")
        return list(zip(pads[:axes], pads[axes:], strict=True))
    if auto == "VALID":
        return [(0, 0)] * axes
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise call.refuse(f"auto_pad {auto}")
    around: list[tuple[Any, Any]] = []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (k - 1) * dilation + 1
        if stride == 1:
            total: Any = reach - 1
        else:
            total = sym_max(((size + stride - 1) // stride - 1) * stride + reach - size, 0)
        less, more = total // 2, total - total // 2
        around.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return around


def _is_symmetric(around: Sequence[tuple[Any, Any]]) -> bool:
    return all(isinstance(b, int) and isinstance(e, int) and b == e for b, e in around)


@operator("Conv")
def _conv(call: Call) -> Tensor:
    x, weight, bias = call.tensor(0), call.tensor(1), call.optional(2)
    axes = _spatial(call, x)
    kernel = [int(size) for size in weight.shape[2:]]
    if _ints(call, "kernel_shape", axes, 0) not in ([0] * axes, kernel):
        raise call.refuse("kernel_shape is not that of the weight")
    strides, dilations = (_ints(call, name, axes, 1) for name in ("strides", "dilations"))
    around = _pads(call, x.shape[2:], kernel, strides, dilations)
    groups = call.attribute("group", 1)
    padding = [begin for begin, _ in around]
    if not _is_symmetric(around):
        x, padding = padded(call, x, [(0, 0), (0, 0), *around]), [0] * axes
    return _CONVOLUTIONS[axes](x, weight, bias, strides, padding, dilations, groups)


@operator("ConvTranspose")
def _conv_transpose(call: Call) -> Tensor:
    x, weight, bias = call.tensor(0), call.tensor(1), call.optional(2)
    axes = _spatial(call, x)
    kernel = [int(size) for size in weight.shape[2:]]
    if _ints(call, "kernel_shape", axes, 0) not in ([0] * axes, kernel):
        raise call.refuse("kernel_shape is not that of the weight")
    strides, dilations = (_ints(call, name, axes, 1) for name in ("strides", "dilations"))
    extra = _ints(call, "output_padding", axes, 0)
    around = _transposed_pads(call, x.shape[2:], kernel, strides, dilations, extra)
    groups, transposed = call.attribute("group", 1), _TRANSPOSED[axes]
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        raise call.refuse(f"output_padding {extra}")
    if _is_symmetric(around):
        padding = [begin for begin, _ in around]
        return transposed(x, weight, bias, strides, padding, extra, groups, dilations)
    y = transposed(x, weight, bias, strides, [0] * axes, extra, groups, dilations)
    for axis, (begin, end) in enumerate(around, 2):
        y = torch.narrow(y, axis, begin, y.shape[axis] - begin - end)
    return y


def _transposed_pads(
    call: Call,
    sizes: Sequence[Any],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    extra: Sequence[int],
) -> list[tuple[int, int]]:
    """Return what is cut before and after each axis."""
    auto, shape = call.attribute("auto_pad", "NOTSET"), call.attribute("output_shape")
    if shape is None and not auto.startswith("SAME"):
        return _pads(call, sizes, kernel, strides, dilations)
    call.attribute("pads")
    cut = []
    for axis, size in enumerate(sizes):
        stride = strides[axis]
        whole = stride * (size - 1) + extra[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        total = whole - (size * stride if shape is None else shape[len(shape) - len(sizes) + axis])
        if not isinstance(total, int):
            if shape is not None:
                raise call.refuse("output_shape with dynamic sizes")
            total = extra[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - stride
        if total < 0:
            raise call.refuse("an output that is larger than what the kernel reaches")
        less, more = total // 2, total - total // 2
        cut.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return cut


@operator("Gemm")
def _gemm(call: Call) -> Tensor:
    a, b, c = call.tensor(0), call.tensor(1), call.optional(2)
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    call.attribute("broadcast")
    a = a.t() if call.attribute("transA", 0) else a
    transposed = call.attribute("transB", 0)
    plain = alpha == 1 and (beta == 1 or c is None)
    if transposed and plain and (c is None or (c.dim() == 1 and c.shape[0] == b.shape[0])):
        return functional.linear(a, b, c)
    y = torch.matmul(a, b.t() if transposed else b)
    y = y if alpha == 1 else y * alpha
    return y if c is None else y + (c if beta == 1 else c * beta)


@operator("MatMul")
def _matmul(call: Call) -> Tensor:
    return torch.matmul(call.tensor(0), call.tensor(1))


@operator("MaxPool")
def _max_pool(call: Call) -> Tensor:
    x = call.tensor(0)
    axes = _spatial(call, x)
    if call.outputs > 1:
        raise call.refuse("its indices are used")
    call.attribute("storage_order")
    kernel, strides = _ints(call, "kernel_shape", axes, 0), _ints(call, "strides", axes, 1)
    dilations, ceil_mode = _ints(call, "dilations", axes, 1), bool(call.attribute("ceil_mode", 0))
    around = _pads(call, x.shape[2:], kernel, strides, dilations)
    padding = [begin for begin, _ in around]
    fits = all(2 * p <= k for p, k in zip(padding, kernel, strict=True) if isinstance(p, int))
    if not (_is_symmetric(around) and fits):
        if ceil_mode or not x.dtype.is_floating_point:
            raise call.refuse(f"pads {around} of {x.dtype} with ceil_mode {int(ceil_mode)}")
        x, padding = padded(call, x, [(0, 0), (0, 0), *around], value=-math.inf), [0] * axes
    return _MAX_POOLS[axes](x, kernel, strides, padding, dilations, ceil_mode)


@operator("AveragePool")
def _average_pool(call: Call) -> Tensor:
    x = call.tensor(0)
    axes = _spatial(call, x)
    kernel, strides = _ints(call, "kernel_shape", axes, 0), _ints(call, "strides", axes, 1)
    if any(d != 1 for d in _ints(call, "dilations", axes, 1)):
        raise call.refuse("dilations")
    ceil_mode = bool(call.attribute("ceil_mode", 0))
    counts_pads = bool(call.attribute("count_include_pad", 0))
    around = _pads(call, x.shape[2:], kernel, strides, [1] * axes)
    padding = [begin for begin, _ in around]
    pool = _AVERAGE_POOLS[axes]
    fits = all(2 * p <= k for p, k in zip(padding, kernel, strict=True) if isinstance(p, int))
    if _is_symmetric(around) and fits:
        return pool(x, kernel, strides, padding, ceil_mode, counts_pads)
    if ceil_mode:
        raise call.refuse(f"pads {around} with ceil_mode")
    whole = [(0, 0), (0, 0), *around]
    total = pool(padded(call, x, whole), kernel, strides)
    if counts_pads:
        return total
    return total / pool(padded(call, torch.ones_like(x), whole), kernel, strides)


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(call: Call) -> Tensor:
    x = call.tensor(0)
    axes = list(range(2, x.dim()))
    if call.op == "GlobalMaxPool":
        return torch.amax(x, axes, keepdim=True)
    return torch.mean(x, axes, keepdim=True)


@operator("BatchNormalization")
def _batch_norm(call: Call) -> Tensor:
    call.require("training_mode", 0)
    call.require("spatial", 1)
    for name in ("momentum", "consumed_inputs"):
        call.attribute(name)
    if call.opset < 7 and not call.attribute("is_test", 0):
        raise call.refuse("it is in training mode")
    if call.outputs > 1:
        raise call.refuse("it has outputs of training")
    x, weight, bias, mean, variance = (call.tensor(position) for position in range(5))
    eps = call.attribute("epsilon", 1e-5)
    return functional.batch_norm(x, mean, variance, weight, bias, False, 0.1, eps)


@operator("InstanceNormalization")
def _instance_norm(call: Call) -> Tensor:
    x, weight, bias = (call.tensor(position) for position in range(3))
    call.attribute("consumed_inputs")
    eps = call.attribute("epsilon", 1e-5)
    return torch.instance_norm(x, weight, bias, None, None, True, 0.1, eps, False)


@operator("LayerNormalization", "RMSNormalization")
def _layer_norm(call: Call) -> Any:
    x, weight = call.tensor(0), call.tensor(1)
    bias = call.optional(2)
    call.require("stash_type", 1)
    eps = call.attribute("epsilon", 1e-5)
    shape = list(x.shape[call.axis(call.attribute("axis", -1), x.dim()) :])
    fits = len(weight.shape) == len(shape)
    if call.op == "RMSNormalization":
        return functional.rms_norm(x, shape, None, eps) * weight
    if fits and weight.shape[-1] != 1 and (bias is None or bias.shape == weight.shape):
        y = functional.layer_norm(x, [int(s) for s in weight.shape], weight, bias, eps)
    else:
        y = functional.layer_norm(x, shape, None, None, eps) * weight
        y = y if bias is None else y + bias
    return _with_statistics(call, x, y, shape, eps)


def _with_statistics(call: Call, x: Tensor, y: Tensor, shape: Sequence[Any], eps: float) -> Any:
    """Return a normalised tensor, and mean and deviation where they are used."""
    if call.outputs == 1:
        return y
    axes = list(range(x.dim() - len(shape), x.dim()))
    mean = torch.mean(x, axes, keepdim=True)
    centred = x - mean
    return y, mean, torch.rsqrt(torch.mean(centred * centred, axes, keepdim=True) + eps)


@operator("GroupNormalization")
def _group_norm(call: Call) -> Tensor:
    x, weight, bias = (call.tensor(position) for position in range(3))
    groups = call.attribute("num_groups")
    call.require("stash_type", 1)
    if call.opset < 21:  # one factor for each group
        per_group = int(x.shape[1]) // groups
        weight = torch.repeat_interleave(weight, per_group)
        bias = torch.repeat_interleave(bias, per_group)
    return functional.group_norm(x, groups, weight, bias, call.attribute("epsilon", 1e-5))


@operator("LRN")
def _lrn(call: Call) -> Tensor:
    x, size = call.tensor(0), call.attribute("size")
    alpha, beta = call.attribute("alpha", 1e-4), call.attribute("beta", 0.75)
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = functional.pad((x * x).flatten(2).transpose(1, 2), (before, after))
    means = functional.avg_pool1d(squares, size, 1).transpose(1, 2).reshape(x.shape)
    return x / torch.pow(means * alpha + call.attribute("bias", 1.0), beta)


@operator("LpNormalization")
def _lp_normalization(call: Call) -> Tensor:
    x, p = call.tensor(0), call.attribute("p", 2)
    axis = call.axis(call.attribute("axis", -1), x.dim())
    if p not in (1, 2):
        raise call.refuse(f"p {p}")
    powers = torch.abs(x) if p == 1 else x * x
    total = torch.sum(powers, [axis], keepdim=True)
    norm = total if p == 1 else torch.sqrt(total)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


@operator("MeanVarianceNormalization")
def _mean_variance(call: Call) -> Tensor:
    x, axes = call.tensor(0), list(call.attribute("axes", [0, 2, 3]))
    mean = torch.mean(x, axes, keepdim=True)
    variance = torch.mean(x * x, axes, keepdim=True) - mean * mean
    return (x - mean) / (torch.sqrt(variance) + 1e-9)


@operator("GridSample")
def _grid_sample(call: Call) -> Tensor:
    mode = call.attribute("mode", "bilinear" if call.opset < 20 else "linear")
    modes = {"linear": "bilinear", "cubic": "bicubic"}
    padding = call.attribute("padding_mode", "zeros")
    align = bool(call.attribute("align_corners", 0))
    x = call.tensor(0)
    mode = modes.get(mode, mode)
    if mode not in ("bilinear", "nearest") or (mode == "nearest" and x.dim() == 5):
        raise call.refuse(f"mode {mode} of {x.dim() - 2} axes")
    return functional.grid_sample(x, call.tensor(1), mode, padding, align)
