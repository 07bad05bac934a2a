"""What errors of a layer's output do to the output of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nnrcodec.calibration.inputs import require_fit, running
from nnrcodec.graph.layers import Layer, find_layers
from nnrcodec.graph.module import DecodedModel, build_module, output_of, run_node
from nnrcodec.model.model import Model


def sensitivities(
    model: Model, inputs: Sequence[tuple[torch.Tensor, ...]], seed: int = 0
) -> Mapping[str, np.ndarray]:
    """Measure how errors of each layer's output appear in the output of the network.

    For small errors, the squared error of the network's output is a quadratic form of the error
    of the layer's. Its matrix is estimated by going back from random combinations of all outputs;
    errors at different positions are taken to be independent.

    Parameters
    ----------
    model : Model
        With a graph.
    inputs : sequence of tuple of Tensor
        Calibration inputs.
    seed : int
        Of the random combinations.

    Returns
    -------
    mapping of str to ndarray of float64, shape (N, N)
        By name of the weight, for a layer of N output channels: with C the second moment of the
        error of the layer's output, ``trace(matrix @ C)`` is the mean squared error of the
        network's. Layers without influence have zeros.

    Raises
    ------
    ConfigError
        If the network does not run with these inputs.
    """
    layers = {layer.node: layer for layer in find_layers(model)}
    module = build_module(model).requires_grad_(False)
    require_fit(module._nnr_graph, inputs)
    generator = torch.Generator().manual_seed(seed)
    sums = {
        layer.weight: torch.zeros(*2 * (layer.outputs,), dtype=torch.float64)
        for layer in layers.values()
    }
    elements = 0
    for values in inputs:
        with running(), torch.autograd.graph.allow_mutation_on_saved_tensors():
            results, tracked = _run(module, values, layers)
            signs = [2.0 * torch.randint(2, r.shape, generator=generator) - 1 for r in results]
            elements += sum(result.numel() for result in results)
            if not tracked or not any(result.requires_grad for result in results):
                continue
            total = torch.stack([(r * s).sum() for r, s in zip(results, signs, strict=True)]).sum()
            gradients = torch.autograd.grad(total, list(tracked.values()), allow_unused=True)
        for name, gradient in zip(tracked, gradients, strict=True):
            if gradient is not None:
                flat = gradient.reshape(len(gradient), -1)
                sums[name] += (flat @ flat.T).double()
    return {name: (total / max(elements, 1)).numpy() for name, total in sums.items()}


def _run(
    module: DecodedModel, inputs: tuple[torch.Tensor, ...], layers: Mapping[int, Layer]
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Run a network; return its real outputs, and those of its layers with channels first."""
    values: list[Any] = [value.clone() for value in inputs]
    tracked = {}
    for position in range(len(module._nnr_graph.nodes)):
        done = run_node(module, position, values)
        if position in layers:
            layer, value = layers[position], values[-1]
            channels = -1 if not layer.kernel else value.ndim - len(layer.kernel) - 1
            first = value.movedim(channels, 0)
            if not first.requires_grad:
                first = first.detach().requires_grad_()
            tracked[layer.weight] = first
            values[-1] = first.movedim(0, channels).clone()  # the next node may write into it
        for number in done:
            values[number] = None
    return list(real_tensors(output_of(module, values))), tracked


def real_tensors(output: Any) -> list[torch.Tensor]:
    """Return all tensors of real numbers in what a network returns."""
    if isinstance(output, torch.Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        output = list(output.values())
    items = output if isinstance(output, list | tuple) else []
    return [tensor for item in items for tensor in real_tensors(item)]


def output_variance(model: Model, inputs: Sequence[tuple[torch.Tensor, ...]]) -> float:
    """Return the mean variance of the real outputs for one input; 1 if they do not vary.

    Raises
    ------
    ConfigError
        If the network does not run with these inputs.
    """
    module = build_module(model)
    require_fit(module._nnr_graph, inputs)
    with running(), torch.inference_mode():
        outputs = [real for each in inputs for real in real_tensors(module(*each))]
    elements = sum(real.numel() for real in outputs)
    total = sum(float((real.double() - real.double().mean()).square().sum()) for real in outputs)
    return total / elements if total > 0 else 1.0
