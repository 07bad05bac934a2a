"""Output sensitivities: how errors of a layer's output change the output of the network.

This is the Gauss-Newton approximation of the second derivatives of the squared error of the output
(B. Hassibi, D. G. Stork, "Second order derivatives for network pruning: optimal brain surgeon",
NIPS 1992), taken with respect to the outputs of layers instead of their weights. Backward passes
from sums of all outputs with random signs estimate it without one pass for each output (M. F.
Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
splines", 1990).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nnrcodec.calibration.inputs import running
from nnrcodec.calibration.outputs import real_tensors, variation
from nnrcodec.graph.layers import Layer, find_layers, weights_outside_layers
from nnrcodec.graph.module import (
    DecodedModel,
    build_module,
    output_of,
    run_node,
    tensor_named,
)
from nnrcodec.model.model import Model


def sensitivities(
    model: Model,
    inputs: Sequence[tuple[torch.Tensor, ...]],
    seed: int = 0,
    *,
    diagonal: bool = False,
) -> Mapping[str, np.ndarray]:
    """Estimate the Gauss-Newton sensitivity of the network's output to layers and other weights.

    For small errors, the squared error of the network's outputs, relative to the variance of each
    (`nnrcodec.calibration.outputs`), is a quadratic form of the error of the layer's output. Its
    matrix is estimated by backward passes from combinations of all outputs with random signs;
    errors at different positions are taken to be independent. For weights outside of layers
    (`nnrcodec.graph.layers.weights_outside_layers`) it is a quadratic form of the errors of their
    values, which are taken to be independent.

    Parameters
    ----------
    model : Model
        With a graph.
    inputs : sequence of tuple of Tensor
        Calibration inputs.
    seed : int
        Of the random signs.
    diagonal : bool
        Whether to keep only the diagonals of the matrices: a layer of N output channels then needs
        N numbers instead of N x N.

    Returns
    -------
    mapping of str to ndarray of float64, shape (N, N), or (N,) with `diagonal`; or ()
        By name of the weight, for a layer of N output channels: with C the second moment of the
        error of the layer's output, ``trace(matrix @ C)`` is the relative squared error of the
        network's. For other weights, shape (): the relative squared error of the network's output
        is this, times the number of values, times the mean squared error of the values. What has
        no influence has zeros.

    Raises
    ------
    ConfigError
        If the network does not run with these inputs.
    """
    layers = {layer.node: layer for layer in find_layers(model)}
    module = build_module(model).requires_grad_(False)
    others = {n: tensor_named(module, n).requires_grad_() for n in weights_outside_layers(model)}
    scales = variation(module, inputs).scales
    largest = max(scales, default=0.0) or 1.0  # left to the end: gradients may have 16 bits
    generator = torch.Generator().manual_seed(seed)
    sums = {
        layer.weight: torch.zeros((layer.outputs,) * (1 if diagonal else 2), dtype=torch.float64)
        for layer in layers.values()
    }
    sums |= {name: torch.zeros((), dtype=torch.float64) for name in others}

    def add(name: str, gradient: torch.Tensor) -> None:
        flat = gradient.reshape(len(gradient), -1)
        product = flat @ flat.T  # also for the diagonal, so that both give the same bits
        sums[name] += (product.diagonal() if diagonal else product).double()

    for values in inputs:
        with running(), torch.autograd.graph.allow_mutation_on_saved_tensors():
            results, first = _run(module, values, layers, add)
            signs = [
                (scale / largest) * (2.0 * torch.randint(2, result.shape, generator=generator) - 1)
                for result, scale in zip(results, scales, strict=True)
            ]
            if not any(result.requires_grad for result in results):
                continue
            total = torch.stack([(r * s).sum() for r, s in zip(results, signs, strict=True)]).sum()
            sources = first | others
            gradients = torch.autograd.grad(total, list(sources.values()), allow_unused=True)
        for name, gradient in zip(sources, gradients, strict=True):
            if gradient is not None and name in first:
                add(name, gradient)
            elif gradient is not None:
                sums[name] += gradient.double().square().mean()
    return {name: (total * largest**2).numpy() for name, total in sums.items()}


def diagonal_of(sensitivity: np.ndarray) -> np.ndarray:
    """Return the diagonal of what `sensitivities` returns for one layer.

    Parameters
    ----------
    sensitivity : ndarray, shape (N, N) or (N,)

    Returns
    -------
    ndarray, shape (N,)
    """
    return np.ascontiguousarray(np.diag(sensitivity)) if sensitivity.ndim == 2 else sensitivity


def _run(
    module: DecodedModel,
    inputs: tuple[torch.Tensor, ...],
    layers: Mapping[int, Layer],
    add: Callable[[str, torch.Tensor], None],
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Run a network; return its real outputs, and the outputs of its first layers.

    Gradients of later layers go to `add` during the backward pass, and are not kept. Channels are
    the first axis of all. First layers are those that have no other layer before them.
    """
    values: list[Any] = [value.clone() for value in inputs]
    firsts = {}
    for position in range(len(module._nnr_graph.nodes)):
        done = run_node(module, position, values)
        if position in layers:
            layer, value = layers[position], values[-1]
            channels = -1 if not layer.kernel else value.ndim - len(layer.kernel) - 1
            moved = value.movedim(channels, 0)
            if moved.requires_grad:
                moved.register_hook(lambda gradient, name=layer.weight: add(name, gradient))
            else:
                moved = moved.detach().requires_grad_()
                firsts[layer.weight] = moved
            values[-1] = moved.movedim(0, channels).clone()  # the next node may write into it
        for number in done:
            values[number] = None
    return list(real_tensors(output_of(module, values))), firsts
