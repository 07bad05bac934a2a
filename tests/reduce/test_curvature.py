"""Steps along the curvature of the error of a network's output."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import inputs_of, model_of, network, values
from torch import nn

from nnrcodec.calibration.sensitivity import sensitivities
from nnrcodec.calibration.walk import walk
from nnrcodec.graph.layers import find_layers
from nnrcodec.graph.module import build_module
from nnrcodec.reduce import curvature
from nnrcodec.reduce.curvature import _places, curvature_of
from nnrcodec.reduce.optimizer import Optimizer


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter]:
    return dict(module.named_parameters())


@pytest.mark.parametrize(
    "name", ["plain_cnn", "super_resolution", "depthwise", "conv1d", "conv3d", "pad_to_multiple"]
)
def test_weights_are_matrices_as_in_calibration(name: str) -> None:
    model = network(name).model()
    for layer in find_layers(model):
        weight = model.tensors[layer.weight].read()
        of_weight, of_matrices = _places(layer)
        found = torch.from_numpy(weight.copy()).flatten()[of_weight]
        np.testing.assert_array_equal(found.numpy(), layer.matrices(weight))
        np.testing.assert_array_equal(found.flatten()[of_matrices].numpy(), weight)


def test_a_step_is_the_gradient_between_both_inverses() -> None:
    torch.manual_seed(0)
    model = model_of(nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3)), (9, 4))
    inputs = inputs_of((9, 4), 5)
    module = build_module(model)
    found = curvature_of(model, inputs, parameters_of(module))
    assert set(found) == {"0.weight", "2.weight"}
    of_outputs = sensitivities(model, inputs)
    moments = {visit.layer.weight: visit.moments() for visit in walk(model, inputs)}

    def inverse(matrix: np.ndarray) -> np.ndarray:
        k = len(matrix)
        return np.linalg.inv(matrix + curvature._DAMPING * np.trace(matrix) / k * np.eye(k))

    gradient = values((6, 4)).numpy()
    step, none = found["0.weight"].step(torch.from_numpy(gradient), None)
    wanted = inverse(of_outputs["0.weight"]) @ gradient
    wanted = wanted @ inverse(moments["0.weight"].second_moment[0])
    assert none is None
    np.testing.assert_allclose(step.numpy(), wanted, rtol=1e-3)
    second, mean = moments["2.weight"].second_moment[0], moments["2.weight"].mean[0]
    with_one = np.block([[second, mean[:, None]], [mean[None], np.ones((1, 1))]])
    gradient, bias = values((3, 6)).numpy(), np.float32([1, -2, 3])
    step, of_bias = found["2.weight"].step(torch.from_numpy(gradient), torch.from_numpy(bias))
    wanted = np.concatenate([gradient, bias[:, None]], 1) @ inverse(with_one)
    wanted = inverse(of_outputs["2.weight"]) @ wanted
    assert of_bias is not None
    np.testing.assert_allclose(step.numpy(), wanted[:, :-1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(of_bias.numpy(), wanted[:, -1], rtol=1e-3, atol=1e-4)


def test_layers_that_are_too_large_or_do_not_learn_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = network("plain_cnn").model()
    inputs = inputs_of((1, 1, 16, 16), 3)
    module = build_module(model)
    parameters = parameters_of(module)
    every = curvature_of(model, inputs, parameters)
    first = next(iter(every))
    rest = {name: p for name, p in parameters.items() if name != first}
    assert set(curvature_of(model, inputs, rest)) == set(every) - {first}
    monkeypatch.setattr(curvature, "_WIDEST", 4)
    assert not curvature_of(model, inputs, parameters)


def test_steep_and_flat_directions_are_learned_alike() -> None:
    """A shared mean makes one direction a thousand times as steep as the others."""
    torch.manual_seed(0)
    teacher = nn.Linear(8, 5)
    x = torch.randn(400, 8) * 0.1 + 3
    model = model_of(nn.Linear(8, 5), (400, 8))
    module = build_module(model)
    parameters = parameters_of(module)

    def loss() -> torch.Tensor:
        return (module(x) - teacher(x)).square().mean()

    start = loss().item()
    optimizer = Optimizer(parameters, curvature_of(model, [(x,)], parameters), start)
    for _ in range(150):
        optimizer.step(loss, 1.0)
    assert loss().item() < 1e-3 * start
    error = (next(iter(parameters.values())) - teacher.weight).detach()
    assert float(error.square().mean()) < 0.05
