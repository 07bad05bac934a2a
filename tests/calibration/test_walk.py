"""A walk through a network, against hooks in the network itself."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import Inputs, Network, inputs_of, model_of, network, values
from torch import nn

from nnrcodec.calibration.moments import Moments, measure
from nnrcodec.calibration.walk import LayerVisit, walk
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.graph.export import model_of_module
from nnrcodec.graph.layers import find_layers
from nnrcodec.model.model import Model, Tensor

NAMES = ["resnet", "unet", "pad_to_multiple", "super_resolution", "transformer", "conv3d"]


def inputs_for(chosen: Network) -> Inputs:
    """Return inputs of different sizes where the network takes them."""
    shapes = (chosen.shape, *chosen.other_shapes)
    return [each for shape in shapes for each in inputs_of(shape, 2, len(shapes))]


def taken(module: nn.Module, inputs: Inputs) -> dict[str, list[torch.Tensor]]:
    """Return what each layer of a network takes, by the name of its weight."""
    found: dict[str, list[torch.Tensor]] = {}
    handles = [
        part.register_forward_pre_hook(
            lambda _, given, name=name: found.setdefault(f"{name}.weight", []).append(
                given[0].clone()
            )
        )
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear | nn.modules.conv._ConvNd)
    ]
    with torch.no_grad():
        for each in inputs:
            module(*each)
    for handle in handles:
        handle.remove()
    return found


def perturbed(weight: np.ndarray, seed: int) -> np.ndarray:
    """Return another weight."""
    rng = np.random.default_rng(seed)
    return (weight + 0.3 * weight.std() * rng.normal(size=weight.shape)).astype(np.float32)


def moments_with(model: Model, inputs: Inputs, changes: dict[str, np.ndarray]) -> list[Moments]:
    """Replace tensors at the first layer; return the moments of all."""
    found = []
    for visit in walk(model, inputs):
        found.append(visit.moments())
        if len(found) == 1:
            for name, value in changes.items():
                visit.replace(name, value)
    return found


def assert_same(found: Moments, expected: Moments) -> None:
    for name in ("second_moment", "mean", "cross", "original_square", "original_mean"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_measured_behind_all_that_was_changed_before_them(name: str) -> None:
    chosen = network(name)
    model, inputs = chosen.model(), inputs_for(chosen)
    before = {tensor.name: tensor.read().copy() for tensor in model.tensors.values()}
    given = [[value.clone() for value in each] for each in inputs]
    changes = {
        layer.weight: perturbed(before[layer.weight], seed)
        for seed, layer in enumerate(find_layers(model))
    }
    module = chosen.module()
    original = taken(module, inputs)
    state = module.state_dict()
    module.load_state_dict({**state, **{n: torch.from_numpy(v) for n, v in changes.items()}})
    changed = taken(module, inputs)
    walked = []
    for visit in walk(model, inputs):
        weight = visit.layer.weight
        moments = visit.moments()
        same = original[weight] if not walked else changed[weight]
        assert_same(moments, measure(visit.layer, original[weight], same))
        visit.replace(weight, changes[weight])
        walked.append(visit.layer)
    assert walked == list(find_layers(model))
    for tensor in model.tensors.values():
        np.testing.assert_array_equal(tensor.read(), before[tensor.name])
    for each, expected in zip(inputs, given, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(each, expected, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_without_a_change_both_networks_are_the_same(name: str) -> None:
    chosen = network(name)
    inputs = inputs_for(chosen)
    expected = taken(chosen.module(), inputs)
    for visit in walk(chosen.model(), inputs):
        moments = visit.moments()
        assert moments.cross is moments.second_moment
        original = expected[visit.layer.weight]
        assert_same(moments, measure(visit.layer, original, original))


def test_only_what_lies_behind_a_change_is_measured_twice() -> None:
    """The skip connection of the first layers of a U-Net does not know of the change."""
    chosen = network("unet")
    seen = {}
    for visit in walk(chosen.model(), inputs_for(chosen)):
        moments = visit.moments()
        seen[visit.layer.name] = moments.cross is not moments.second_moment
        if visit.layer.name == "down.1":
            visit.replace("down.1.weight", np.zeros(visit.layer.shape, np.float32))
    assert [name for name, twice in seen.items() if twice] == [
        "up.0", "join.0", "up.1", "join.1", "leave",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["conv1.bias", "bn.running_mean"])
def test_other_tensors_may_be_replaced_as_well(name: str) -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv1, self.bn = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)
            self.conv2 = nn.Conv2d(3, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv2(self.bn(self.conv1(x)))

    module = Normalized().eval()
    model, inputs = model_of(module, (2, 2, 8, 6)), inputs_of((2, 2, 8, 6), 3)
    first, last = moments_with(model, inputs, {name: np.full(3, 2, np.float32)})
    sign = -1 if "mean" in name else 1
    shift = sign * (2 - dict(module.state_dict())[name].numpy()) / np.sqrt(1 + 1e-5)
    assert first.cross is first.second_moment
    np.testing.assert_allclose((last.mean - last.original_mean)[0], shift, rtol=1e-4)


def test_a_replacement_takes_the_dtype_of_its_tensor() -> None:
    module = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 1, 1)).to(torch.bfloat16)
    inputs = [(value.to(torch.bfloat16),) for (value,) in inputs_of((1, 2, 4, 4), 2)]
    model = model_of_module(module, inputs[0])
    third = torch.full((2, 2, 1, 1), 1 / 3)
    found = []
    for value in (third, third.double(), third.bfloat16().float()):
        _, last = moments_with(model, inputs, {"0.weight": value.numpy()})
        found.append(last)
    assert_same(found[0], found[2])
    assert_same(found[1], found[2])


# Memory


@pytest.mark.parametrize("change", [False, True])
def test_what_a_layer_takes_is_freed_after_its_last_use(change: bool) -> None:
    """In both networks; the inputs themselves belong to the caller."""
    layers = (nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1))
    model = model_of(nn.Sequential(*layers), (1, 2, 4, 4))
    seen: list[weakref.ref[torch.Tensor]] = []
    for visit in walk(model, inputs_of((1, 2, 4, 4), 2)):
        if seen:
            assert all(ref() is None for ref in seen[4:])
        seen += [weakref.ref(value) for value in (*visit._original, *visit._changed)]
        if change:
            weight = model.tensors[visit.layer.weight].read()
            visit.replace(visit.layer.weight, perturbed(weight, 0))
    assert len(seen) == 12


# Operators that write in place


class Between(nn.Module):
    """A layer, what is done with its result, and a layer that takes that."""

    def __init__(self, between: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.between = nn.Conv2d(2, 2, 3, padding=1), between
        self.last = nn.Conv2d(2, 1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(x, self.first(x)))


def add_to_a_part(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    whole = torch.tanh(x)
    whole[:, :, :4] += y[:, :, :4]
    return whole


def multiply_a_piece(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    whole = torch.tanh(x)
    whole.chunk(2, 2)[0].mul_(y.chunk(2, 2)[1])
    return whole


def add_twice(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    whole = torch.tanh(x)
    part = whole.view(-1)
    part.add_(y.reshape(-1))
    whole.mul_(y)
    return part.view_as(whole) + whole


def add_both_ways(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The original must not see what the changed network writes either."""
    whole = torch.tanh(x)
    kept = whole.transpose(2, 3)
    whole += y
    return torch.relu_(y) + kept.transpose(2, 3) - torch.tanh(x)


def write_where_both_are_the_same(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    whole = torch.tanh(x)
    whole[:, 1:].add_(1)
    return whole + y


@pytest.mark.parametrize(
    "between",
    [
        lambda x, y: y.add_(x),
        lambda x, y: torch.tanh(x).add_(y),
        add_to_a_part,
        multiply_a_piece,
        add_twice,
        add_both_ways,
        write_where_both_are_the_same,
    ],
)
@pytest.mark.parametrize("changes", [{}, {"first.weight": np.zeros((2, 2, 3, 3), np.float32)}])
def test_what_is_written_in_place_stays_in_its_network(
    between: Callable[..., torch.Tensor], changes: dict[str, np.ndarray]
) -> None:
    module = Between(between).eval()
    inputs = inputs_of((2, 2, 8, 6), 3)
    original = taken(module, inputs)["last.weight"]
    model = model_of(module, (2, 2, 8, 6))
    _, last = moments_with(model, inputs, changes)
    with torch.no_grad():
        for name, value in changes.items():
            module.get_parameter(name).copy_(torch.from_numpy(value))
    changed = taken(module, inputs)["last.weight"]
    assert_same(last, measure(find_layers(model)[1], original, changed))
    assert bool(changes) == (not torch.equal(original[0], changed[0]))


# Stops


def first_visit(module: nn.Module, inputs: Inputs) -> LayerVisit:
    return next(walk(model_of(module, tuple(inputs[0][0].shape)), inputs))


@pytest.mark.parametrize(
    ("module", "shape", "channels"),
    [
        (nn.Conv2d(3, 1, 1), (2, 3, 5, 4), 1),
        (nn.Conv1d(3, 1, 1), (3, 9), 0),
        (nn.Linear(4, 2), (2, 5, 4), 2),
    ],
)
def test_variance_of_inputs_is_the_mean_over_channels(
    module: nn.Module, shape: tuple[int, ...], channels: int
) -> None:
    inputs = [(values(shape) * scale + 3,) for scale in (1, 2)]
    visit = first_visit(module, inputs)
    joined = np.concatenate(
        [
            np.moveaxis(value.numpy(), channels, 0).reshape(shape[channels], -1)
            for (value,) in inputs
        ],
        axis=1,
    )
    expected = joined.astype(np.float64).var(1).mean()
    assert visit.input_variance() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("constant", [0.0, 0.1, -30.0])
def test_what_does_not_vary_has_no_variance(constant: float) -> None:
    visit = first_visit(nn.Conv2d(3, 1, 1), [(torch.full((1, 3, 7, 9), constant),)] * 3)
    assert visit.input_variance() == 0


def test_a_model_without_a_graph_is_refused() -> None:
    with pytest.raises(ModelError, match="no graph"):
        next(walk(Model.of([Tensor.of("w", np.ones(2, np.float32))]), []))


def test_inputs_that_do_not_fit_are_refused_before_the_first_visit() -> None:
    model = network("classifier").model()
    good = values((1, 1, 16, 16))
    for bad, reason in (
        ((good, good), "there are 2 inputs, the model takes 1"),
        ((good.double(),), "input 'x' is float64, the model takes float32"),
        ((good[0],), "input 'x' has 3 axes, the model takes 4"),
        ((good[:, :, :3],), "input 'x' has size 3 in axis 2, the model takes 6.."),
    ):
        with pytest.raises(ConfigError, match=f"does not fit the model: .*{reason}"):
            next(walk(model, [(good,), bad]))


def test_inputs_with_which_the_network_does_not_run_are_refused() -> None:
    model = network("classifier").model()
    bad = [(values((1, 1, 20, 20)),)]
    with pytest.raises(ConfigError, match="does not fit the model: this network holds only for"):
        list(walk(model, bad))
    assert model.graph is not None
    unguarded = replace(model, graph=replace(model.graph, guards=()))
    with pytest.raises(ConfigError, match="does not run with a calibration input: mat1 and mat2"):
        list(walk(unguarded, bad))
