"""Resize and Upsample of ONNX, as far as PyTorch computes the same.

Sizes that are fixed can also be resized to the nearest sample by a list of indices, in every mode.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from nnrcodec.formats.onnx.calls import Call, Known, known, operator

Tensor = torch.Tensor

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_CENTRES = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")


@operator("Upsample")
def _upsample(call: Call) -> Tensor:
    x = call.tensor(0)
    mode = call.attribute("mode", "nearest")
    if mode != "nearest":
        raise call.refuse(f"mode {mode}")
    if call.opset < 7:
        scales = [1.0, 1.0, call.attribute("height_scale"), call.attribute("width_scale")]
    else:
        scales = call.attribute("scales") if call.opset < 9 else _numbers(call, 1)
    return _nearest(call, x, list(scales), None, "asymmetric", "floor")


@operator("Resize")
def _resize(call: Call) -> Tensor:
    x, mode = call.tensor(0), call.attribute("mode", "nearest")
    call.attribute("extrapolation_value")
    if call.opset < 11:
        if mode != "nearest":
            raise call.refuse(f"mode {mode} of version 10")
        return _nearest(call, x, _numbers(call, 1), None, "asymmetric", "floor")
    centre = call.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = call.attribute("nearest_mode", "round_prefer_floor")
    call.require("keep_aspect_ratio_policy", "stretch")
    call.require("antialias", 0)
    scales, sizes = _by_axis(call, x)
    if mode == "nearest":
        for name in ("cubic_coeff_a", "exclude_outside"):
            call.attribute(name)
        return _nearest(call, x, scales, sizes, centre, rounding)
    return _interpolated(call, x, scales, sizes, centre, mode)


def _numbers(call: Call, position: int) -> list[Any]:
    return call.known(position).numbers() if call.has(position) else []


def _by_axis(call: Call, x: Tensor) -> tuple[list[Any] | None, list[Any] | None]:
    """Return scales or sizes of all axes, the other is None."""
    axes = call.attribute("axes")
    axes = range(x.dim()) if axes is None else [call.axis(axis, x.dim()) for axis in axes]
    scales, sizes = _numbers(call, 2), _numbers(call, 3)
    if sizes:
        given = dict(zip(axes, sizes, strict=True))
        return None, [given.get(axis, x.shape[axis]) for axis in range(x.dim())]
    if not scales:
        raise call.refuse("neither scales nor sizes")
    given = dict(zip(axes, scales, strict=True))
    return [given.get(axis, 1.0) for axis in range(x.dim())], None


def _whole_scales(x: Tensor, scales: list[Any] | None, sizes: list[Any] | None) -> list[int] | None:
    """Return scales that are whole numbers, at any size."""
    whole = []
    for axis, size in enumerate(x.shape):
        if scales is not None:
            scale = scales[axis]
        else:
            target: Any = (sizes or [])[axis]
            if isinstance(size, int) and isinstance(target, int) and size:
                scale = target / size
            else:
                scale = next((n for n in range(1, 9) if _is_same(target, n * size)), 0.5)
        if not isinstance(scale, int | float) or scale < 1 or scale != int(scale):
            return None
        whole.append(int(scale))
    return whole


def _is_same(left: Any, right: Any) -> bool:
    """Return whether two symbolic sizes are the same expression."""
    from nnrcodec.graph.torch_internals import expression_of

    if isinstance(left, int) or isinstance(right, int):
        return isinstance(left, int) and isinstance(right, int) and left == right
    return bool(expression_of(left) == expression_of(right))


def _nearest(
    call: Call,
    x: Tensor,
    scales: list[Any] | None,
    sizes: list[Any] | None,
    centre: str,
    rounding: str,
) -> Tensor:
    whole = _whole_scales(x, scales, sizes)
    repeats = (centre, rounding) == ("asymmetric", "floor") or (
        centre in _CENTRES and rounding.startswith("round_")
    )
    if whole is not None and repeats:
        spatial = x.dim() - 2
        if whole[:2] == [1, 1] and spatial in _LINEAR and set(whole) <= {1, 2, 4, 8}:
            return functional.interpolate(x, scale_factor=[float(s) for s in whole[2:]])
        for axis, scale in enumerate(whole):
            x = torch.repeat_interleave(x, scale, axis) if scale > 1 else x
        return x
    for axis, size in enumerate(x.shape):
        indices = _indices(call, size, axis, scales, sizes, centre, rounding)
        if indices is not None:
            x = torch.index_select(x, axis, call.as_tensor(indices))
    return x


def _indices(
    call: Call,
    size: Any,
    axis: int,
    scales: list[Any] | None,
    sizes: list[Any] | None,
    centre: str,
    rounding: str,
) -> Known | None:
    """Return where along an axis each sample comes from; None if the axis stays as it is."""
    scale, target = (None if n is None else n[axis] for n in (scales, sizes))
    if scale == 1 or (isinstance(target, int) and isinstance(size, int) and target == size):
        return None
    fixed = isinstance(size, int) and not isinstance(target, torch.SymInt)
    if not fixed or not isinstance(scale, int | float | None):
        raise call.refuse(f"{centre}, {rounding} of an axis of dynamic size")
    if scale is None:
        target = int(target or 0)
        scale = np.float32(target) / np.float32(size)
    else:
        scale, target = np.float32(scale), int(np.floor(np.float32(scale) * np.float32(size)))
    at: Any = np.arange(target, dtype=np.float32)
    match centre:
        case "asymmetric":
            source = at / scale
        case "half_pixel":
            source = (at + np.float32(0.5)) / scale - np.float32(0.5)
        case "pytorch_half_pixel":
            source = (at + np.float32(0.5)) / scale - np.float32(0.5) if target > 1 else at * 0
        case "align_corners":
            source = at * np.float32(size - 1) / np.float32(target - 1) if target > 1 else at * 0
        case _:
            raise call.refuse(f"{centre}, {rounding} with scale {scale}")
    match rounding:
        case "floor":
            index = np.floor(source)
        case "ceil":
            index = np.ceil(source)
        case "round_prefer_floor":
            index = np.ceil(source - np.float32(0.5))
        case "round_prefer_ceil":
            index = np.floor(source + np.float32(0.5))
        case _:
            raise call.refuse(f"nearest_mode {rounding}")
    return known(np.clip(index, 0, size - 1).astype(np.int64))


def _interpolated(
    call: Call,
    x: Tensor,
    scales: list[Any] | None,
    sizes: list[Any] | None,
    centre: str,
    mode: str,
) -> Tensor:
    spatial = x.dim() - 2
    names = _LINEAR if mode == "linear" else {2: "bicubic"} if mode == "cubic" else {}
    if mode == "cubic":
        call.require("exclude_outside", 0)
        a = call.attribute("cubic_coeff_a", -0.75)
        if a != -0.75:
            raise call.refuse(f"cubic_coeff_a {a}")
    else:
        for name in ("cubic_coeff_a", "exclude_outside"):
            call.attribute(name)
    if spatial not in names:
        raise call.refuse(f"mode {mode} of {x.dim()} axes")
    first = (scales or [])[:2] if scales is not None else None
    if first not in (None, [1, 1]) or (sizes and list(x.shape[:2]) != sizes[:2]):
        raise call.refuse("it resizes the first two axes")
    align = centre == "align_corners"
    if centre == "half_pixel_symmetric" and _whole_scales(x, scales, sizes) is None:
        raise call.refuse(f"{centre} with scales that are not whole")
    if not align and centre not in _CENTRES:
        raise call.refuse(f"coordinate_transformation_mode {centre}")
    if scales is not None and not all(isinstance(s, int | float) for s in scales):
        raise call.refuse("scales that depend on sizes")
    targets = sizes or [s * f for s, f in zip(x.shape, scales or [], strict=True)]
    if centre == "pytorch_half_pixel" and any(t == 1 for t in targets[2:] if isinstance(t, int)):
        raise call.refuse(f"{centre} to a single sample")
    if align and scales is not None:
        sizes = [_floor_size(call, s, f) for s, f in zip(x.shape, scales, strict=True)]
    if sizes is not None:
        return functional.interpolate(x, sizes[2:], mode=names[spatial], align_corners=align)
    factors = [float(s) for s in (scales or [])[2:]]
    return functional.interpolate(x, scale_factor=factors, mode=names[spatial], align_corners=align)


def _floor_size(call: Call, size: Any, scale: float) -> Any:
    if isinstance(size, int) and (size * scale).is_integer():
        return int(size * scale)
    if scale != int(scale):
        raise call.refuse("align_corners with a scale that leads between two sizes")
    return size * int(scale)
