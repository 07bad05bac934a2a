"""Distillation: a reduced network learns what the original does."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from networks import Inputs, error_between, inputs_of, model_of, network, outputs_of, with_values
from torch import nn

from nnrcodec.config import DistillationConfig
from nnrcodec.errors import ConfigError
from nnrcodec.graph.export import model_of_module
from nnrcodec.graph.module import build_module
from nnrcodec.model.model import Model, Role
from nnrcodec.reduce import optimizer
from nnrcodec.reduce import training as module_of_training
from nnrcodec.reduce.low_rank import decompose
from nnrcodec.reduce.ranks import LowRankConfig
from nnrcodec.reduce.training import distill

SHAPE = (1, 1, 16, 16)


def filter_and_reduced() -> tuple[Model, Model]:
    """Return a network, and the same with factors of low rank."""
    model = network("plain_cnn").model()
    reduced, _ = decompose(model, LowRankConfig(ranks={"2": 4, "4": 5}))
    return model, reduced


def bytes_of(model: Model) -> dict[str, bytes]:
    return {name: tensor.read().tobytes() for name, tensor in model.tensors.items()}


def perceptron(outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, outputs))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what distillation has logged."""
    name = module_of_training.__name__
    return [record.getMessage() for record in caplog.records if record.name == name]


# What it does


def test_the_output_errs_less_than_before() -> None:
    model, reduced = filter_and_reduced()
    inputs = inputs_of(SHAPE, 24)
    found, report = distill(model, reduced, inputs, DistillationConfig(steps=80))
    assert report.steps == 80
    assert report.error_before == 1
    assert report.error_after < 0.7
    assert error_between(model, found, inputs) < 0.7 * error_between(model, reduced, inputs)
    others = inputs_of(SHAPE, 8, seed=5)
    assert error_between(model, found, others) < error_between(model, reduced, others)
    assert found.graph == reduced.graph
    assert found.factors == reduced.factors
    assert list(found.tensors) == list(reduced.tensors)


def test_the_same_steps_give_the_same_bits() -> None:
    model, reduced = filter_and_reduced()
    before = bytes_of(model), bytes_of(reduced)
    inputs = inputs_of(SHAPE, 6)
    given = [value.clone() for (value,) in inputs]
    found, again, other = (
        distill(model, reduced, inputs, DistillationConfig(steps=10, seed=seed))[0]
        for seed in (0, 0, 1)
    )
    assert bytes_of(found) == bytes_of(again)
    assert bytes_of(found) != bytes_of(other)
    assert bytes_of(found) != bytes_of(reduced)
    assert (bytes_of(model), bytes_of(reduced)) == before
    assert all(torch.equal(a, b) for a, (b,) in zip(given, inputs, strict=True))


def test_only_parameters_are_learned() -> None:
    model = network("resnet").model()
    reduced, _ = decompose(model, LowRankConfig(ranks={"4.conv1": 4, "5.conv2": 6}))
    found, _ = distill(model, reduced, inputs_of((1, 3, 24, 24), 4), DistillationConfig(steps=12))
    changed = {name for name, value in bytes_of(reduced).items() if bytes_of(found)[name] != value}
    parameters = {t.name for t in reduced.tensors.values() if t.role is Role.PARAMETER}
    assert changed
    assert changed <= parameters
    for name, tensor in reduced.tensors.items():
        other = found.tensors[name]
        assert (other.shape, other.dtype, other.role) == (tensor.shape, tensor.dtype, tensor.role)


def test_tensors_keep_their_dtype() -> None:
    class Half(nn.Module):
        """Weights of 16 bits that are used in 32."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.weight = nn.Parameter(torch.randn(4, 6).bfloat16())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.weight.float()).tanh()

    model = model_of(Half(), (5, 6))
    weight = model.tensors["weight"].read()
    reduced = with_values(model, {"weight": np.zeros_like(weight) + 0.25})
    found, report = distill(model, reduced, inputs_of((5, 6), 9), DistillationConfig(steps=300))
    assert found.tensors["weight"].dtype == "bfloat16"
    assert report.error_after < 0.9
    learned = torch.from_numpy(found.tensors["weight"].read())
    assert torch.equal(learned.bfloat16().float(), learned)


def test_inputs_that_are_held_out_are_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, judged = set(), set()
    loss, judge = module_of_training._Lesson.loss, module_of_training._Lesson._judged

    def spied_loss(lesson: Any, student: Any, picked: Sequence[int]) -> torch.Tensor:
        seen.update(picked)
        return loss(lesson, student, picked)

    def spied_judge(lesson: Any, student: Any, index: int) -> torch.Tensor:
        judged.add(index)
        return judge(lesson, student, index)

    monkeypatch.setattr(module_of_training._Lesson, "loss", spied_loss)
    monkeypatch.setattr(module_of_training._Lesson, "_judged", spied_judge)
    model, reduced = filter_and_reduced()
    distill(model, reduced, inputs_of(SHAPE, 18), DistillationConfig(steps=10))
    assert judged == {0, 8, 16}
    assert seen == set(range(18)) - judged


@pytest.mark.parametrize("count", [2, 3])
def test_two_inputs_are_enough(count: int) -> None:
    model, reduced = filter_and_reduced()
    _, report = distill(model, reduced, inputs_of(SHAPE, count), DistillationConfig(steps=40))
    assert report.error_after < 1


def test_inputs_may_have_different_sizes() -> None:
    model, reduced = filter_and_reduced()
    inputs = inputs_of(SHAPE, 4) + inputs_of((1, 1, 9, 20), 4)
    found, report = distill(model, reduced, inputs, DistillationConfig(steps=40))
    assert report.error_after < 1
    assert error_between(model, found, inputs) < error_between(model, reduced, inputs)


def test_a_batch_of_a_fixed_size_is_learned_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    model = model_of_module(perceptron(), (torch.zeros(4, 6),), dynamic_shapes=({},))
    assert model.graph is not None
    assert model.graph.inputs[0].shape == (4, 6)
    reduced, _ = decompose(model, LowRankConfig(ranks={"0": 3, "2": 2}))
    inputs = inputs_of((4, 6), 9)
    _, report = distill(model, reduced, inputs, DistillationConfig(steps=60))
    assert report.error_after < 0.8
    assert "distillation takes one calibration input at each step" in caplog.text


def test_inputs_of_large_errors_do_not_drown_the_others() -> None:
    """Each input counts by what part of its error is left, but for very small errors."""
    model = model_of(perceptron(), (5, 6))
    reduced, _ = decompose(model, LowRankConfig(ranks={"0": 3}))
    inputs = [(scale * value,) for scale in (1e-2, 1, 5) for (value,) in inputs_of((5, 6), 2)]
    lesson = module_of_training._Lesson.of(
        build_module(model), module_of_training._trainable(reduced), inputs
    )
    errors = np.array([error_between(model, reduced, [each]) for each in inputs])
    assert errors.min() < 1e-2 * errors.max()
    np.testing.assert_allclose(lesson._weights, 1 / (errors + 0.1 * errors.mean()), rtol=0.2)


def test_several_outputs_are_learned_and_integers_are_not() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = perceptron(), perceptron(5)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            y = self.a(x)
            return {"a": y, "choice": y.argmax(1), "b": self.b(x)}

    model = model_of(Several(), (5, 6))
    reduced, _ = decompose(model, LowRankConfig(ranks={"a.0": 2, "b.0": 2}))
    inputs = inputs_of((5, 6), 16)
    found, _ = distill(model, reduced, inputs, DistillationConfig(steps=100))
    for position in range(2):
        before, after = (
            sum(
                float((made[position] - wanted[position]).square().mean())
                for made, wanted in zip(
                    outputs_of(each, inputs), outputs_of(model, inputs), strict=True
                )
            )
            for each in (reduced, found)
        )
        assert after < 0.8 * before


def test_networks_that_write_in_place_are_trained() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 1, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.sigmoid(self.first(x)).mul_(2).sub_(1))

    model = model_of(Gated(), SHAPE)
    reduced, _ = decompose(model, LowRankConfig(ranks={"first": 1}))
    _, report = distill(model, reduced, inputs_of(SHAPE, 9), DistillationConfig(steps=40))
    assert report.error_after < 0.9


# In which precision


class Rounding(nn.Module):
    """A layer whose output is large, and cannot be told in bfloat16 from one a little off."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 64), nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x) + 5)


@pytest.mark.parametrize("fast", [True, False])
def test_small_errors_are_learned_whatever_the_processor_has(
    fast: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module_of_training, "has_fast_bfloat16", lambda: fast)
    model = model_of(Rounding(), (50, 6))
    weight = model.tensors["last.weight"].read()
    noise = np.random.default_rng(0).normal(size=weight.shape).astype(np.float32)
    reduced = with_values(model, {"last.weight": weight * (1 + 1e-3 * noise)})
    with caplog.at_level(logging.INFO, module_of_training.__name__):
        _, report = distill(model, reduced, inputs_of((50, 6), 9), DistillationConfig(steps=400))
    assert report.error_after < 0.5
    assert [text for text in said(caplog) if "float32" in text] == (
        ["distillation is in float32: bfloat16 is not exact enough for its error"] if fast else []
    )


# How long it takes


def test_progress_is_told_after_each_step() -> None:
    told: list[tuple[int, int]] = []
    model, reduced = filter_and_reduced()
    distill(
        model,
        reduced,
        inputs_of(SHAPE, 2),
        DistillationConfig(steps=8),
        lambda done, total: told.append((done, total)),
    )
    assert len(told) == 8
    assert [done / total for done, total in told] == pytest.approx([n / 8 for n in range(1, 9)])


def test_minutes_that_are_over_end_it() -> None:
    model, reduced = filter_and_reduced()
    _, report = distill(model, reduced, inputs_of(SHAPE, 2), DistillationConfig(minutes=1e-9))
    assert report.steps == 1


def test_what_gets_no_better_is_ended_early_and_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(optimizer, "RATE", 1e5)
    model, reduced = filter_and_reduced()
    with caplog.at_level(logging.INFO, module_of_training.__name__):
        found, report = distill(model, reduced, inputs_of(SHAPE, 2), DistillationConfig(steps=200))
    early, warning = said(caplog)
    assert early == f"distillation stops early, after {report.steps} steps"
    assert report.steps < 200
    assert warning.startswith("distillation has won back only 0 % of the squared error of low rank")
    assert report.error_after == 1
    assert bytes_of(found) == bytes_of(reduced)


def test_rates_that_are_too_high_are_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer, "RATE", 0.3)
    model, reduced = filter_and_reduced()
    _, report = distill(model, reduced, inputs_of(SHAPE, 8), DistillationConfig(steps=200))
    assert report.error_after < 0.7


def test_what_becomes_better_is_not_ended_early(caplog: pytest.LogCaptureFixture) -> None:
    model, reduced = filter_and_reduced()
    with caplog.at_level(logging.INFO, module_of_training.__name__):
        _, report = distill(model, reduced, inputs_of(SHAPE, 8), DistillationConfig(steps=60))
    assert report.steps == 60
    assert not said(caplog)


def test_without_an_error_there_is_nothing_to_learn(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    model = model_of(nn.Sequential(nn.Linear(6, 3)), (5, 6))
    found, report = distill(model, model, inputs_of((5, 6), 4), DistillationConfig(steps=10))
    assert bytes_of(found) == bytes_of(model)
    assert (report.steps, report.error_before, report.error_after) == (0, 1, 1)
    (message,) = said(caplog)
    assert message.startswith("distillation has nothing to do: the reduced network")


# What is refused


@pytest.mark.parametrize("inputs", [[], inputs_of(SHAPE, 1)])
def test_too_few_inputs_are_refused(inputs: Inputs) -> None:
    model, reduced = filter_and_reduced()
    with pytest.raises(ConfigError, match="at least two calibration inputs"):
        distill(model, reduced, inputs, DistillationConfig(steps=1))


def test_inputs_that_do_not_fit_are_refused() -> None:
    model, reduced = filter_and_reduced()
    with pytest.raises(ConfigError, match="has size 2 in axis 1, the model takes 1"):
        distill(model, reduced, inputs_of((1, 2, 9, 9), 2), DistillationConfig(steps=1))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "give either minutes or steps"),
        ({"seed": 3}, "give either minutes or steps"),
        ({"minutes": 1, "steps": 1}, "give either minutes or steps"),
        ({"minutes": 0}, "cannot take 0 minutes or steps"),
        ({"minutes": -1.5}, "cannot take -1.5 minutes or steps"),
        ({"minutes": float("nan")}, "cannot take nan minutes or steps"),
        ({"minutes": float("inf")}, "cannot take inf minutes or steps"),
        ({"steps": 0}, "cannot take 0 minutes or steps"),
        ({"steps": -3}, "cannot take -3 minutes or steps"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(
    options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        DistillationConfig(**options)
    assert DistillationConfig(minutes=0.5).steps is None
    assert DistillationConfig(steps=5).minutes is None
