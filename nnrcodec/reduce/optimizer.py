"""Steps of distillation: along the curvature of the output's error where that is known.

All other parameters have Adam, with rates relative to the scale of each tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from nnrcodec.reduce.curvature import LayerCurvature

RATE = 0.05
"""Part of the whole error that the first step along the curvature would take away, were the error
linear."""

_MOMENTUM = 0.9

_OTHERS = 3e-3
"""Step of all other parameters, relative to the root mean square of each tensor."""

_CLIPPED = 1.0
"""Norm of all gradients of others at most."""

_TINY = 1e-30


class Optimizer:
    """Both kinds of steps as one.

    Parameters
    ----------
    parameters : mapping of str to torch.nn.Parameter
        By name.
    curvature : mapping of str to LayerCurvature
        By the names of weights.
    error : float
        The loss at the start.
    """

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        curvature: Mapping[str, LayerCurvature],
        error: float,
    ) -> None:
        self._parameters, self._curvature, self._error = parameters, curvature, error
        biases = {own.layer.bias for own in curvature.values() if own.has_bias}
        self._others = [
            p for name, p in parameters.items() if name not in curvature and name not in biases
        ]
        self._adam: torch.optim.Adam | None = None
        if self._others:
            groups = [{"params": [p], "base": _OTHERS * _scale_of(p)} for p in self._others]
            self._adam = torch.optim.Adam(groups, betas=(0.9, 0.99))
        self._momentum: dict[str, torch.Tensor] = {}
        self._scale: float | None = None

    def step(self, loss: Callable[[], torch.Tensor], rate: float) -> None:
        """Take a step that makes a loss smaller.

        Parameters
        ----------
        loss : callable
            Computes it with the parameters.
        rate : float
            What all rates are multiplied by.
        """
        for parameter in self._parameters.values():
            parameter.grad = None
        with torch.autograd.graph.allow_mutation_on_saved_tensors():  # by what writes in place
            loss().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self._along_curvature(rate)
        if self._adam is not None:
            torch.nn.utils.clip_grad_norm_(self._others, _CLIPPED)
            for group in self._adam.param_groups:
                group["lr"] = rate * group["base"]
            self._adam.step()

    def forget(self) -> None:
        """Forget the steps before."""
        self._momentum.clear()
        if self._adam is not None:
            self._adam.state.clear()

    def _along_curvature(self, rate: float) -> None:
        steps = self._steps()
        if self._scale is None:
            gain = sum(
                float((step * _gradient(self._parameters[name])).sum())
                for name, step in steps.items()
            )
            self._scale = self._error / max(gain, _TINY)
        for name, step in steps.items():
            before = self._momentum.get(name)
            momentum = step if before is None else step + _MOMENTUM * before
            self._momentum[name] = momentum
            self._parameters[name].sub_(momentum, alpha=RATE * rate * self._scale)

    def _steps(self) -> dict[str, torch.Tensor]:
        """Return the natural steps, by the names of parameters."""
        steps: dict[str, torch.Tensor] = {}
        for name, own in self._curvature.items():
            bias = self._parameters[own.layer.bias] if own.has_bias and own.layer.bias else None
            of_weight, of_bias = own.step(
                _gradient(self._parameters[name]), None if bias is None else _gradient(bias)
            )
            steps[name] = of_weight
            if of_bias is not None and own.layer.bias is not None:
                steps[own.layer.bias] = of_bias
        return steps


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _scale_of(value: torch.Tensor) -> float:
    return float(value.detach().square().mean().sqrt().clamp_min(1e-8))
