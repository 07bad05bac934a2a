"""Sensitivities of networks where they are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from networks import inputs_of, model_of, network, values
from torch import nn

from nnrcodec.calibration.inputs import Inputs
from nnrcodec.calibration.outputs import variation
from nnrcodec.calibration.sensitivity import diagonal_of, sensitivities
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.graph.export import model_of_module
from nnrcodec.graph.module import build_module
from nnrcodec.model.model import Model, Tensor


class Function(nn.Module):
    """A convolution, what is made of its result and its input, and another convolution."""

    def __init__(self, between: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1)
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self.first(x), x))


def linear_pair(outputs: int, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5, bias=bias), nn.Linear(5, outputs)).eval()


def weights_of(model: Model) -> dict[str, np.ndarray]:
    return {name: tensor.read().astype(np.float64) for name, tensor in model.tensors.items()}


def of_squared_error(model: Model, inputs: Inputs) -> dict[str, np.ndarray]:
    """Return those of the squared error of the only output, not relative to its variance."""
    (variance,) = variation(build_module(model), inputs).variances
    return {name: variance * value for name, value in sensitivities(model, inputs).items()}


def test_of_one_linear_output_they_are_exact() -> None:
    model = model_of(linear_pair(1), (4, 3))
    found = of_squared_error(model, inputs_of((4, 3), 3))
    (row,) = weights_of(model)["1.weight"]
    assert list(found) == ["0.weight", "1.weight"]
    np.testing.assert_allclose(found["0.weight"], np.outer(row, row), rtol=1e-5)
    np.testing.assert_allclose(found["1.weight"], [[1]])
    assert found["0.weight"].dtype == np.float64


def test_of_many_linear_outputs_they_are_right_on_the_mean() -> None:
    """Errors of a layer of weight A before one of weight B come out as B A, in B^T B."""
    model = model_of(linear_pair(4), (10, 3))
    found = of_squared_error(model, inputs_of((4000, 3), 3))
    after = weights_of(model)["1.weight"]
    np.testing.assert_allclose(found["0.weight"], after.T @ after / 4, atol=0.02)
    np.testing.assert_allclose(found["1.weight"], np.eye(4) / 4, atol=0.01)
    np.testing.assert_allclose(np.diag(found["1.weight"]), 0.25)


@pytest.mark.parametrize("name", ["plain_cnn", "resnet", "unet", "conv1d", "transformer"])
def test_they_foretell_what_small_errors_of_a_layer_do(name: str) -> None:
    """Errors of a layer's output are those of a bias that differs at every position."""
    chosen = network(name)
    module, model = chosen.module(), chosen.model()
    shape = (16, *chosen.shape[1:])
    inputs = inputs_of(shape, 6)
    found = of_squared_error(model, inputs)
    generator = torch.Generator().manual_seed(7)
    for weight in list(found)[1::2]:
        layer = module.get_submodule(weight.removesuffix(".weight"))

        def disturb(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
            return output + 1e-3 * torch.randn(output.shape, generator=generator)

        total, count = 0.0, 0
        for (value,) in inputs:
            with torch.no_grad():
                clean = module(value).double()
                handle = layer.register_forward_hook(disturb)
                difference = module(value).double() - clean
                handle.remove()
            total += float(difference.square().sum())
            count += difference.numel()
        assert 1e-6 * np.trace(found[weight]) == pytest.approx(total / count, rel=0.3)


def test_they_foretell_what_small_errors_of_other_weights_do() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table, self.gates = nn.Embedding(50, 8), nn.LSTM(8, 8, batch_first=True)
            self.twice = nn.Linear(8, 8)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            y, _ = self.gates(self.table(ids))
            return self.twice(torch.tanh(self.twice(y)))

    module, generator = Words().eval().requires_grad_(False), torch.Generator().manual_seed(7)
    inputs = [(torch.randint(50, (16, 9), generator=generator),) for _ in range(20)]
    model = model_of_module(module, inputs[0])
    found = of_squared_error(model, inputs)
    assert found.keys() == {
        "table.weight",
        "gates.weight_ih_l0",
        "gates.weight_hh_l0",
        "twice.weight",
    }
    clean = [module(ids) for (ids,) in inputs]
    for name, sensitivity in found.items():
        weight = module.get_parameter(name)
        before, errors = weight.clone(), []
        for _ in range(20):
            weight.copy_(before + 1e-3 * torch.randn(before.shape, generator=generator))
            outputs = [module(ids) for (ids,) in inputs]
            errors += [float((a - b).square().mean()) for a, b in zip(outputs, clean, strict=True)]
            weight.copy_(before)
        assert sensitivity.shape == ()
        assert 1e-6 * weight.numel() * sensitivity == pytest.approx(np.mean(errors), rel=0.3)


@pytest.mark.parametrize("name", ["plain_cnn", "resnet", "unet", "transformer"])
def test_diagonals_are_those_of_the_matrices_to_the_last_bit(name: str) -> None:
    chosen = network(name)
    model, inputs = chosen.model(), inputs_of(chosen.shape, 3)
    whole = sensitivities(model, inputs)
    diagonals = sensitivities(model, inputs, diagonal=True)
    assert list(diagonals) == list(whole)
    for weight, diagonal in diagonals.items():
        np.testing.assert_array_equal(diagonal, np.diag(whole[weight]))
        np.testing.assert_array_equal(diagonal_of(whole[weight]), diagonal)
        np.testing.assert_array_equal(diagonal_of(diagonal), diagonal)


def test_layers_without_influence_have_zeros() -> None:
    module = linear_pair(1)
    with torch.no_grad():
        module[0].bias.fill_(-100)
    model = model_of(nn.Sequential(module[0], nn.ReLU(), module[1]), (4, 3))
    found = sensitivities(model, inputs_of((4, 3), 2))
    assert not found["0.weight"].any()
    assert found["2.weight"].all()


def test_of_several_outputs_those_of_reals_count() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = linear_pair(1), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> dict[str, object]:
            y = self.a(x)
            return {"y": y, "rest": (y.argmax(1), 7, [self.b(x)])}

    model, inputs = model_of(Several(), (4, 3)), inputs_of((400, 3), 2)
    found = sensitivities(model, inputs)
    a, b = variation(build_module(model), inputs).variances  # each output counts half
    (row,) = weights_of(model)["a.1.weight"]
    np.testing.assert_allclose(found["a.0.weight"], np.outer(row, row) / (2 * a), rtol=1e-5)
    np.testing.assert_allclose(found["b.weight"], np.eye(2) / (4 * b), atol=0.05 / b)


def test_a_network_of_integers_has_none() -> None:
    class LayerRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).argmax(1)

    found = sensitivities(model_of(LayerRank(), (4, 3)), inputs_of((4, 3), 2))
    assert not found["layer.weight"].any()


@pytest.mark.parametrize(
    ("in_place", "plain"),
    [
        (lambda y, x: torch.sigmoid(y).add_(x), lambda y, x: torch.sigmoid(y) + x),
        (lambda y, x: y.mul_(x), lambda y, x: y * x),
        (lambda y, x: torch.exp(y).relu_().mul_(2), lambda y, x: 2 * torch.relu(torch.exp(y))),
    ],
    ids=["after what saves its result", "on the result of a layer", "twice"],
)
def test_writing_in_place_makes_no_difference(
    in_place: Callable[..., torch.Tensor], plain: Callable[..., torch.Tensor]
) -> None:
    inputs = inputs_of((2, 2, 6, 5), 3)
    before = [value.clone() for (value,) in inputs]
    found, expected = (
        sensitivities(model_of(Function(between), (2, 2, 6, 5)), inputs)
        for between in (in_place, plain)
    )
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5)
    assert all(torch.equal(a, b) for a, (b,) in zip(before, inputs, strict=True))


def test_the_seed_decides() -> None:
    model, inputs = model_of(linear_pair(4), (4, 3)), inputs_of((4, 3), 2)
    found, again, other = (sensitivities(model, inputs, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(found["0.weight"], again["0.weight"])
    assert not np.array_equal(found["0.weight"], other["0.weight"])


def test_layers_may_take_inputs_without_a_batch() -> None:
    torch.manual_seed(0)
    model = model_of(nn.Sequential(nn.Conv1d(2, 3, 3), nn.Conv1d(3, 1, 1)), (2, 9))
    found = of_squared_error(model, inputs_of((2, 9), 3))
    (row,) = weights_of(model)["1.weight"][:, :, 0]
    np.testing.assert_allclose(found["0.weight"], np.outer(row, row), rtol=1e-5)


@pytest.mark.parametrize(
    "measured", [sensitivities, lambda model, inputs: variation(build_module(model), inputs)]
)
def test_inputs_that_do_not_fit_are_refused(measured: Callable[..., object]) -> None:
    model = model_of(linear_pair(1), (4, 3))
    with pytest.raises(ConfigError, match="has size 2 in axis 1, the model takes 3"):
        measured(model, inputs_of((4, 2), 1))
    with pytest.raises(ConfigError, match="there are 2 inputs, the model takes 1"):
        measured(model, [(values((4, 3)), values((4, 3)))])
    with pytest.raises(ConfigError, match="is float64, the model takes float32"):
        measured(model, [(values((4, 3)).double(),)])
    with pytest.raises(ConfigError, match="does not fit the model: this network holds"):
        measured(network("classifier").model(), inputs_of((1, 1, 20, 20), 1))
    with pytest.raises(ModelError, match="no graph"):
        measured(Model.of([Tensor.of("w", np.ones(2, np.float32))]), [])
