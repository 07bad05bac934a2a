"""Argument checks for operators that do not check their arguments.

Most operators of PyTorch check the shapes of their arguments. A few do not: with tensors that do
not fit together they read or write out of bounds, divide by zero in machine code, or return
uninitialised memory. For a stream that is not trusted this would be a security hole, so the
arguments of every call of them are checked first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch


class ArgumentsError(ValueError):
    """Arguments that do not fit together."""


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ArgumentsError(what)


def _weight_norm(v: torch.Tensor, g: torch.Tensor, dim: int = 0) -> None:
    """Require one length for each index along the axis; the fused kernel does not check it."""
    _require(v.dim() > 0 and -v.dim() <= dim < v.dim(), f"there is no axis {dim} of {v.dim()}")
    _require(v.numel() > 0, "an empty direction has no length")
    _require(v.dtype == g.dtype, f"the dtypes {v.dtype} and {g.dtype} differ")
    if dim in (0, v.dim() - 1):
        expected = [size if axis == dim else 1 for axis, size in enumerate(v.shape)]
        _require(list(g.shape) == expected, f"lengths of shape {list(g.shape)}, not {expected}")


def _statistics(
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    momentum: float,
    eps: float,
) -> None:
    """Require one number for each channel in every statistic."""
    _require(input.dim() > 1, "there are no channels")
    for tensor in (weight, bias, running_mean, running_var):
        if tensor is not None:
            shape = [input.shape[1]]
            _require(list(tensor.shape) == shape, f"statistics of shape {list(tensor.shape)}")


def _sampling(
    input: torch.Tensor,
    grid: torch.Tensor,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> None:
    """Require valid modes, because with others nothing is computed, and shapes that fit."""
    modes = 2 if input.dim() == 5 else 3
    _require(0 <= interpolation_mode < modes, f"no interpolation {interpolation_mode}")
    _require(0 <= padding_mode < 3, f"no padding {padding_mode}")
    _require(input.dim() in (4, 5) and input.dim() == grid.dim(), "axes of input and grid")
    _require(grid.shape[-1] == input.dim() - 2, "a grid has a number for each axis")
    _require(input.shape[0] == grid.shape[0], "batches of input and grid")
    _require(input.dtype == grid.dtype, f"the dtypes {input.dtype} and {grid.dtype} differ")


def _recurrent(gates: int) -> Callable[..., None]:
    """Return the check of a recurrent layer, which splits its weights without checking them."""

    def check(
        input: torch.Tensor,
        hx: torch.Tensor | Sequence[torch.Tensor],
        params: Sequence[torch.Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> None:
        states = [hx] if isinstance(hx, torch.Tensor) else [*hx]
        _require(len(states) == (2 if gates == 4 else 1), f"{len(states)} states")
        _require(input.dim() == 3, f"an input of {input.dim()} axes")
        _require(all(state.dim() == 3 for state in states), "a state without three axes")
        _require(num_layers > 0 and len(params) > 1, "no layers")
        _require(all(p.dtype == input.dtype for p in (*states, *params)), "several dtypes")
        _require(params[0].dim() == 2, "a weight without two axes")
        directions, batch = 1 + bool(bidirectional), input.shape[1 - bool(batch_first)]
        hidden, out = params[0].shape[0] // gates, states[0].shape[2]
        _require(hidden > 0 and out > 0, "no outputs")
        projects = gates == 4 and out != hidden
        expected = [[num_layers * directions, batch, out]]
        if gates == 4:
            expected.append([num_layers * directions, batch, hidden])
        for state, shape in zip(states, expected, strict=True):
            _require(list(state.shape) == shape, f"a state of shape {list(state.shape)}")
        shapes: list[list[int]] = []
        inputs = input.shape[2]
        for _ in range(min(num_layers, len(params))):
            for _ in range(directions):
                shapes += [[gates * hidden, inputs], [gates * hidden, out]]
                shapes += [[gates * hidden]] * 2 * bool(has_biases)
                shapes += [[out, hidden]] * projects
            inputs = out * directions
        _require([list(p.shape) for p in params] == shapes, "weights of shapes that do not fit")

    return check


CHECKS: Mapping[str, Callable[..., None]] = {
    "aten._weight_norm.default": _weight_norm,
    "aten._native_batch_norm_legit_no_training.default": _statistics,
    **dict.fromkeys(
        (
            "aten.grid_sampler.default",
            "aten.grid_sampler_2d.default",
            "aten.grid_sampler_3d.default",
        ),
        _sampling,
    ),
    "aten.lstm.input": _recurrent(4),
    "aten.gru.input": _recurrent(3),
    "aten.rnn_tanh.input": _recurrent(1),
    "aten.rnn_relu.input": _recurrent(1),
}
"""By name in the allow-list; each has the parameters of the operator; raises `ArgumentsError`."""
