"""Steps of distillation: matrices in all directions alike, with rates relative to each tensor.

After layers of low rank are fitted, what is left to gain lies in many directions, while an error of
the mean that activations share costs much. The sign of each gradient alone, as Adam takes it, adds
up in just that direction; steps with orthogonal rows do not (K. Jordan et al., "Muon: an optimizer
for hidden layers in neural networks", 2024). Vectors have Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

RATE = 0.01
"""Root mean square of a step, relative to that of the tensor."""

_VECTORS = 0.1
"""Part of that for vectors: a bias moves all of its channel."""

_CLIPPED = 1.0
"""Norm of all gradients at most."""

_TINY = 1e-8


class Optimizer:
    """Both optimizers as one.

    Parameters
    ----------
    parameters : sequence of torch.nn.Parameter
        Of any shape; those of two and more axes are matrices, of an output channel in each row.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._parameters = parameters
        self._matrices = [
            (p, torch.nn.Parameter(_flat(p.detach()))) for p in parameters if p.ndim > 1
        ]
        groups = [{"params": [m], "base": _rate(m) * _size(m)} for _, m in self._matrices]
        vectors = [{"params": [p], "base": _VECTORS * _rate(p)} for p in parameters if p.ndim < 2]
        self._optimizers: list[torch.optim.Optimizer] = []
        if groups:
            self._optimizers.append(torch.optim.Muon(groups, weight_decay=0.0, momentum=0.9))
        if vectors:
            self._optimizers.append(torch.optim.Adam(vectors, betas=(0.9, 0.99)))

    def step(self, loss: Callable[[], torch.Tensor], rate: float) -> None:
        """Take a step that makes a loss smaller.

        Parameters
        ----------
        loss : callable
            Computes it with the parameters.
        rate : float
            What all rates are multiplied by.
        """
        for parameter in self._parameters:
            parameter.grad = None
        with torch.autograd.graph.allow_mutation_on_saved_tensors():  # by what writes in place
            loss().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters, _CLIPPED)
        for parameter, matrix in self._matrices:
            gradient = parameter.grad
            matrix.data = _flat(parameter.detach())
            matrix.grad = None if gradient is None else _flat(gradient)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["base"]
            optimizer.step()
        with torch.no_grad():
            for parameter, matrix in self._matrices:
                parameter.copy_(matrix.view(parameter.shape))

    def forget(self) -> None:
        """Forget the steps before."""
        for optimizer in self._optimizers:
            optimizer.state.clear()


def _flat(value: torch.Tensor) -> torch.Tensor:
    return value.contiguous().view(len(value), -1).clone()


def _rate(value: torch.Tensor) -> float:
    return RATE * float(value.detach().square().mean().sqrt().clamp_min(_TINY))


def _size(matrix: torch.Tensor) -> float:
    """Return what makes the root mean square of Muon's step 1, whose rows are orthogonal."""
    rows, columns = matrix.shape
    return math.sqrt(max(rows, columns) / max(1, rows / columns))
