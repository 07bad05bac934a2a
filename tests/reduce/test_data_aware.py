"""Low rank that looks at what a network does, against low rank that does not."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from networks import error_between, inputs_of, model_of, network, outputs_of, values, with_values
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnrcodec.calibration.sensitivity import sensitivities
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.graph.module import build_module
from nnrcodec.model.model import Model
from nnrcodec.reduce.data_aware import Allowance, decompose_with_inputs, rank_choices
from nnrcodec.reduce.decomposition import Decomposition
from nnrcodec.reduce.low_rank import decompose
from nnrcodec.reduce.ranks import LayerRank, LowRankConfig
from nnrcodec.reduce.schemes import Scheme

IMAGES = (2, 3, 16, 16)


def convolutions(bias: bool = True) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1, bias=bias),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, padding=1, bias=bias),
    )


def transposed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(6, 5, 4, 2, 1, output_padding=1)
    )


def signals() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 8, 5, padding=2), nn.Tanh(), nn.ConvTranspose1d(8, 6, 4, 2), nn.Conv1d(6, 2, 3)
    )


def volumes() -> nn.Module:
    return nn.Sequential(nn.Conv3d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, 4, 2))


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 5)
    )


def normalized() -> nn.Module:
    """A first layer without a bias of its own, and a batch norm after it."""
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)
    )
    module[1].running_mean.fill_(0.3)
    return module


@functools.cache
def made(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Model:
    """Return a network as it is exported, which takes a while the first time."""
    torch.manual_seed(0)
    return model_of(make().eval(), shape)


CASES = {
    "separable": (convolutions, IMAGES, {"0": 3, "2": 5, "4": 3}),
    "channel": (
        convolutions,
        IMAGES,
        {"0": LayerRank("channel", 3), "2": LayerRank("channel", 3), "4": LayerRank("channel", 2)},
    ),
    "without a bias": (lambda: convolutions(bias=False), IMAGES, {"0": 3, "2": 5, "4": 3}),
    "linear": (perceptron, (40, 12), {"0": 4, "2": 5, "4": 2}),
    "transposed separable": (transposed, IMAGES, {"2": 4}),
    "transposed channel": (transposed, IMAGES, {"2": LayerRank("channel", 3)}),
    "one axis": (signals, (4, 3, 30), {"0": 3, "2": 3}),
    "three axes": (volumes, (2, 3, 6, 6, 6), {"0": 2, "2": 2}),
    "with batch norm": (normalized, IMAGES, {"0": 3, "3": 3}),
}


@pytest.mark.parametrize("case", CASES)
def test_at_the_same_ranks_the_output_errs_less(case: str) -> None:
    make, shape, ranks = CASES[case]
    model, inputs = made(make, shape), inputs_of(shape, 4)
    plain, plain_reports = decompose(model, LowRankConfig(ranks=ranks))
    found, reports = decompose_with_inputs(model, LowRankConfig(ranks=ranks), inputs)
    assert error_between(model, found, inputs) < 0.97 * error_between(model, plain, inputs)
    assert reports == plain_reports
    assert found.factors == plain.factors
    assert found.graph == plain.graph
    for tensor in plain.tensors.values():
        assert (found.tensors[tensor.name].shape, found.tensors[tensor.name].dtype) == (
            tensor.shape,
            tensor.dtype,
        )


@pytest.mark.parametrize("case", ["separable", "linear", "transposed channel", "one axis"])
def test_inputs_that_were_not_seen_gain_as_well(case: str) -> None:
    make, shape, ranks = CASES[case]
    model, config = made(make, shape), LowRankConfig(ranks=ranks)
    inputs = inputs_of(shape, 12)
    found, _ = decompose_with_inputs(model, config, inputs[:8])
    plain, _ = decompose(model, config)
    rest = inputs[8:]
    assert error_between(model, found, rest) < error_between(model, plain, rest)


def test_diagonals_of_sensitivities_are_not_enough_and_are_measured_again() -> None:
    make, shape, ranks = CASES["separable"]
    model, inputs = made(make, shape), inputs_of(shape, 2)
    config = LowRankConfig(ranks=ranks)
    found, again, known = (
        decompose_with_inputs(model, config, inputs, output_sensitivities=output_sensitivities)[0]
        for output_sensitivities in (
            None,
            sensitivities(model, inputs, diagonal=True),
            sensitivities(model, inputs),
        )
    )
    for name, tensor in found.tensors.items():
        assert tensor.read().tobytes() == again.tensors[name].read().tobytes()
        assert tensor.read().tobytes() == known.tensors[name].read().tobytes()


@pytest.mark.parametrize("case", CASES)
def test_the_same_comes_out_again(case: str) -> None:
    make, shape, ranks = CASES[case]
    model, inputs = made(make, shape), inputs_of(shape, 2)
    before = {tensor.name: tensor.read().copy() for tensor in model.tensors.values()}
    found, again = (
        decompose_with_inputs(model, LowRankConfig(ranks=ranks), inputs)[0] for _ in range(2)
    )
    for tensor in found.tensors.values():
        assert tensor.read().tobytes() == again.tensors[tensor.name].read().tobytes()
    for tensor in model.tensors.values():
        np.testing.assert_array_equal(tensor.read(), before[tensor.name])


@pytest.mark.parametrize(
    ("make", "shape", "rank"),
    [
        (lambda: nn.Conv2d(3, 8, 3, 2, 1), IMAGES, 2),
        (lambda: nn.Conv2d(3, 8, 3), IMAGES, LayerRank("channel", 2)),
        (lambda: nn.ConvTranspose2d(3, 8, 3, 2), IMAGES, 2),
        (lambda: nn.ConvTranspose2d(3, 8, 3, 2), IMAGES, LayerRank("channel", 1)),
        (lambda: nn.Conv1d(3, 8, 3), (4, 3, 30), 2),
        (lambda: nn.Linear(12, 6), (40, 12), 2),
    ],
)
def test_the_bias_keeps_the_mean_of_the_output(
    make: Callable[[], nn.Module], shape: tuple[int, ...], rank: int | LayerRank
) -> None:
    model, inputs = made(lambda: nn.Sequential(make()), shape), inputs_of(shape, 4)
    config = LowRankConfig(ranks={"0": rank})
    plain, _ = decompose(model, config)
    found, _ = decompose_with_inputs(model, config, inputs)
    means = [
        torch.cat([output.double() for (output,) in outputs_of(each, inputs)])
        .movedim(1, 0)
        .flatten(1)
        .mean(1)
        for each in (model, found, plain)
    ]
    torch.testing.assert_close(means[1], means[0], atol=1e-5, rtol=1e-5)
    assert (means[2] - means[0]).abs().max() > 1e-2


def test_a_layer_makes_up_for_the_ones_before_it() -> None:
    """A second layer of full rank could stay as it is, and errs less if it does not."""
    model, inputs = made(convolutions, IMAGES), inputs_of(IMAGES, 4)
    first, _ = decompose_with_inputs(model, LowRankConfig(ranks={"0": 3}), inputs)
    ranks = {"0": 3, "2": LayerRank("channel", 8)}
    both, _ = decompose_with_inputs(model, LowRankConfig(ranks=ranks), inputs)
    assert error_between(model, both, inputs) < 0.9 * error_between(model, first, inputs)


def test_of_full_rank_nothing_changes() -> None:
    model, inputs = made(convolutions, IMAGES), inputs_of(IMAGES, 2)
    ranks = {"0": 9, "2": LayerRank("channel", 8), "4": 12}
    found, _ = decompose_with_inputs(model, LowRankConfig(ranks=ranks), inputs)
    assert error_between(model, found, inputs) < 1e-8


def test_where_the_mean_of_its_inputs_is_does_not_matter_to_a_layer_with_a_bias() -> None:
    model = made(lambda: nn.Sequential(nn.Linear(12, 8)), (60, 12))
    inputs = inputs_of((60, 12), 4)
    moved = [(value + 8,) for (value,) in inputs]
    config = LowRankConfig(ranks={"0": 3})
    weights = []
    for each in (inputs, moved):
        found, _ = decompose_with_inputs(model, config, each)
        u, v = (found.tensors[f"0.{name}.weight"].read() for name in "uv")
        weights.append(v @ u)
    np.testing.assert_allclose(*weights, atol=1e-4)


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(6, 8, 3), lambda: nn.ConvTranspose2d(6, 8, 3)])
def test_of_two_schemes_the_one_is_taken_that_errs_less(make: Callable[[], nn.Module]) -> None:
    shape = (2, 6, 12, 12)
    model, inputs = made(lambda: nn.Sequential(make()), shape), inputs_of(shape, 3)
    weight = model.tensors["0.weight"]
    config = LowRankConfig(rank_ratio=0.5, scheme="auto")
    found, (report,) = decompose_with_inputs(model, config, inputs)
    errors = {}
    for name in ("separable", "channel"):
        scheme = Scheme(name, weight.shape, weight.shape[0] == 6)  # type: ignore[arg-type]
        rank = min(weight.size // (2 * scheme.elements(1)), scheme.maximum_rank)
        one = LowRankConfig(ranks={"0": LayerRank(scheme.name, rank)})
        errors[name] = error_between(model, decompose_with_inputs(model, one, inputs)[0], inputs)
    assert report.scheme == min(errors, key=errors.__getitem__)
    assert error_between(model, found, inputs) == pytest.approx(min(errors.values()), rel=1e-6)
    assert max(errors.values()) > 1.05 * min(errors.values())


def test_a_layer_that_runs_at_several_places_is_decomposed_without_looking(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.relu(self.layer(x)))

    model, inputs = model_of(Twice(), IMAGES), inputs_of(IMAGES, 2)
    config = LowRankConfig(ranks={"layer": 3})
    found, _ = decompose_with_inputs(model, config, inputs)
    u, v = Decomposition.of(
        Scheme("separable", (3, 3, 3, 3)), model.tensors["layer.weight"].read()
    ).factors(3)
    np.testing.assert_allclose(found.tensors["layer.u.weight"].read(), u, atol=1e-6)
    np.testing.assert_allclose(found.tensors["layer.v.weight"].read(), v, atol=1e-6)
    (record,) = [r for r in caplog.records if r.name == "nnrcodec.reduce.data_aware"]
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "layer layer is decomposed by its weight alone, without the calibration inputs: its weight "
        "is used 2 times; if the output changes too much, give it a higher rank"
    )


@pytest.mark.parametrize("flat", [0.0, 0.7])
def test_inputs_that_say_nothing_do_no_harm(flat: float) -> None:
    model = made(perceptron, (40, 12))
    inputs = [(torch.full((40, 12), flat),)] * 2
    found, _ = decompose_with_inputs(model, LowRankConfig(ranks={"0": 8, "2": 8}), inputs)
    assert error_between(model, found, inputs) < 1e-6
    others = inputs_of((40, 12), 2)
    energy = np.mean([float(output.square().mean()) for (output,) in outputs_of(model, others)])
    assert error_between(model, found, others) < energy


def test_dead_layers_do_no_harm() -> None:
    model = made(convolutions, IMAGES)
    dead = {"0.bias": np.full(8, -100, np.float32), "2.weight": np.zeros((8, 8, 3, 3), np.float32)}
    inputs = inputs_of(IMAGES, 2)
    for name, value in dead.items():
        changed = with_values(model, {name: value})
        config = LowRankConfig(ranks={"0": 3, "2": 3, "4": 3})
        found, _ = decompose_with_inputs(changed, config, inputs)
        assert error_between(changed, found, inputs) < 1e-6
        assert all(np.isfinite(t.read()).all() for t in found.tensors.values())


def test_progress_is_told_for_each_layer() -> None:
    told: list[tuple[int, int]] = []
    decompose_with_inputs(
        made(convolutions, IMAGES),
        LowRankConfig(ranks={"0": 3, "4": 3}),
        inputs_of(IMAGES, 1),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 2), (2, 2)]


# Budgets


def multiply_adds(model: Model, shape: tuple[int, ...]) -> int:
    """Count what PyTorch counts."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build_module(model)(values(shape))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("make", "shape"),
    [(convolutions, IMAGES), (perceptron, (40, 12)), (transposed, IMAGES), (signals, (4, 3, 30))],
)
@pytest.mark.parametrize("target", [0.5, 0.7, 0.9])
def test_no_more_multiply_adds_than_the_budget_has(
    make: Callable[[], nn.Module], shape: tuple[int, ...], target: float
) -> None:
    model, inputs = made(make, shape), inputs_of(shape, 2)
    config = LowRankConfig(target_macs=target, scheme="auto", optimise="runtime")
    found, _ = decompose_with_inputs(model, config, inputs)
    part = multiply_adds(found, shape) / multiply_adds(model, shape)
    assert target / 2 < part < target * 1.02  # padding is not in the count


def test_a_larger_budget_errs_less() -> None:
    model, inputs = made(convolutions, IMAGES), inputs_of(IMAGES, 4)
    errors = []
    for target in (0.4, 0.6, 0.8):
        config = LowRankConfig(target_macs=target, scheme="auto", optimise="runtime")
        found, _ = decompose_with_inputs(model, config, inputs)
        errors.append(error_between(model, found, inputs))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2


def test_with_a_budget_for_all_of_it_the_model_is_left_alone() -> None:
    model, inputs = made(convolutions, IMAGES), inputs_of(IMAGES, 1)
    found, _ = decompose_with_inputs(model, LowRankConfig(target_macs=1.0), inputs)
    assert found.graph == model.graph
    assert not found.factors


def test_a_budget_out_of_reach_is_refused() -> None:
    model, inputs = made(convolutions, IMAGES), inputs_of(IMAGES, 1)
    with pytest.raises(ConfigError, match=r"down to \d+\.\d % of the model's, not to 1 %"):
        decompose_with_inputs(model, LowRankConfig(target_macs=0.01, scheme="auto"), inputs)


def test_choices_go_from_the_model_as_it_is_to_the_cheapest() -> None:
    model, inputs = made(convolutions, IMAGES), inputs_of(IMAGES, 2)
    config = LowRankConfig(target_macs=0.5, scheme="auto", optimise="runtime")
    found = rank_choices(model, config, inputs)
    assert found[0].cost == pytest.approx(1)
    assert found[0].error == 0
    assert not found[0].choices
    for before, after in itertools.pairwise(found):
        assert after.cost < before.cost
        assert after.error > before.error
    assert set(found[-1].choices) == {"0", "2", "4"}


def test_estimated_errors_are_near_those_that_are_made() -> None:
    """Of one layer they are exact, but for what is added to moments."""
    shape = (2, 6, 12, 12)
    model, inputs = made(lambda: nn.Sequential(nn.Conv2d(6, 8, 3)), shape), inputs_of(shape, 3)
    outputs = torch.cat([output for (output,) in outputs_of(model, inputs)])
    config = LowRankConfig(target_macs=0.5, scheme="channel")
    for selection in rank_choices(model, config, inputs)[1:]:
        found, _ = decompose_with_inputs(model, LowRankConfig(ranks=selection.choices), inputs)
        part = error_between(model, found, inputs) / float(outputs.var())
        assert selection.error == pytest.approx(part, rel=0.15)


def test_layers_that_are_not_worth_reducing_are_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    model, inputs = made(convolutions, IMAGES), inputs_of(IMAGES, 2)
    found, reports = decompose_with_inputs(model, LowRankConfig(), inputs, Allowance(1e-12, 1e-9))
    assert found is model
    assert reports == ()
    texts = [r.getMessage() for r in caplog.records if r.name == "nnrcodec.reduce.data_aware"]
    assert [text.split(":")[0] for text in texts] == [
        *(f"layer {name} stays as it is" for name in "024"),
        "low rank leaves all layers as they are",
    ]


# What is refused


def test_what_does_not_fit_is_refused() -> None:
    model, inputs = made(convolutions, IMAGES), inputs_of(IMAGES, 1)
    for ranks, reason in (
        ({"0": 99}, "layer '0' has at most rank 9, not 99"),
        ({"1": 2}, "there is no layer '1'"),
    ):
        with pytest.raises(ConfigError, match=reason):
            decompose_with_inputs(model, LowRankConfig(ranks=ranks), inputs)
    grouped = network("depthwise").model()
    with pytest.raises(ConfigError, match="layer '2' cannot be decomposed"):
        decompose_with_inputs(grouped, LowRankConfig(ranks={"2": 2}), inputs)
    with pytest.raises(ConfigError, match="has size 2 in axis 1, the model takes 3"):
        decompose_with_inputs(model, LowRankConfig(ranks={"0": 3}), inputs_of((1, 2, 9, 9), 1))
    with pytest.raises(ConfigError, match="none is given"):
        decompose_with_inputs(model, LowRankConfig(), inputs)
    with pytest.raises(ModelError, match="no graph"):
        decompose_with_inputs(
            Model.of(model.tensors.values()), LowRankConfig(ranks={"0": 3}), inputs
        )
