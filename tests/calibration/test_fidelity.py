from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from nnrcodec.calibration.fidelity import TARGETS, Fidelity, HeldBack
from nnrcodec.calibration.inputs import Chosen, with_some_held_back
from nnrcodec.calibration.reference import Reference

PICTURES = [(torch.rand(1, 1, 12, 10, generator=torch.Generator().manual_seed(i)),) for i in (1, 2)]


class Adds(nn.Module):
    """Adds a number to its input, and returns what else it is told to."""

    def __init__(self, number: float, more: Any = None) -> None:
        super().__init__()
        self.number, self.more = number, more

    def forward(self, x: torch.Tensor) -> Any:
        return x + self.number if self.more is None else (x + self.number, self.more)


def compared(a: nn.Module, b: nn.Module, inputs: Any = PICTURES) -> Fidelity:
    return Reference(a, HeldBack(inputs, "the test")).compare(b)


def test_pictures_are_compared_to_their_range_and_to_the_change() -> None:
    found = compared(Adds(0.1), Adds(0.11))
    extent = float(
        torch.cat([x for (x,) in PICTURES]).max() - torch.cat([x for (x,) in PICTURES]).min()
    )
    assert found.change == pytest.approx(20, abs=0.01)
    assert found.absolute == pytest.approx(40 + 20 * math.log10(extent), abs=0.01)
    assert (found.count, found.source) == (2, "the test")
    assert found.margin(TARGETS["transparent"]) == pytest.approx(found.absolute - 58.9)
    assert found.margin(TARGETS["small"]) == pytest.approx(found.absolute - 46.9)


@pytest.mark.parametrize(("number", "is_picture"), [(0.01, True), (5.0, False)])
def test_many_channels_are_a_picture_if_they_resemble_one(number: float, is_picture: bool) -> None:
    packed = [(torch.rand(1, 7, 9, 8, generator=torch.Generator().manual_seed(i)),) for i in (3, 4)]
    found = compared(Adds(number), Adds(1.1 * number), packed)
    assert (found.absolute is not None) == is_picture
    if is_picture:
        assert found.change == pytest.approx(20, abs=0.01)


def test_of_several_outputs_the_worst_counts() -> None:
    small = torch.full((3,), 0.001)
    found = compared(Adds(0.1, small), Adds(0.1, 2 * small))
    assert found.snr == pytest.approx(0)
    assert (found.absolute, found.change) == (None, None)
    assert found.margin(TARGETS["balanced"]) == pytest.approx(-29)


def test_no_error_is_infinitely_near() -> None:
    found = compared(Adds(0.1), Adds(0.1))
    assert found.snr == math.inf
    assert found.margin(TARGETS["transparent"]) == math.inf


def test_broken_outputs_are_infinitely_far() -> None:
    found = compared(Adds(0.1), Adds(math.inf))
    assert found.snr == -math.inf
    found = compared(Adds(0.1), Adds(math.nan))
    assert found.margin(TARGETS["small"]) == -math.inf


def test_integers_are_not_compared() -> None:
    class Counts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x > 0.5).sum()

    assert not Reference(Counts(), HeldBack(PICTURES, "")).has_outputs
    assert Reference(Adds(0.1), HeldBack(PICTURES, "")).has_outputs


@pytest.mark.parametrize(
    ("count", "fitted", "held"),
    [(1, 1, 1), (7, 7, 7), (8, 7, 1), (33, 29, 4), (512, 448, 64), (1000, 938, 62)],
)
def test_every_eighth_input_is_held_back(count: int, fitted: int, held: int) -> None:
    inputs = [(torch.full((1,), float(i)),) for i in range(count)]
    found = with_some_held_back(inputs)
    assert (len(found.inputs), len(found.held_back.inputs)) == (fitted, held)
    both = {float(x) for (x,) in found.inputs} & {float(x) for (x,) in found.held_back.inputs}
    assert bool(both) == (count < 8)
    assert ("also fitted" in found.held_back.source) == (count < 8)


@pytest.mark.parametrize("all_of_them", [True, False])
def test_chosen_inputs_stay_chosen(all_of_them: bool) -> None:
    inputs = Chosen([(torch.zeros(1),)] * 16, all_of_them=all_of_them)
    fitted = with_some_held_back(inputs).inputs
    assert isinstance(fitted, Chosen)
    assert fitted.all_of_them == all_of_them


class WrongNear(nn.Module):
    """Is off for inputs near a number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        is_near = (x.mean() - self.number).abs() < 0.8
        return torch.where(is_near, x + 0.5, x + 1e-4).flatten(1)


@pytest.mark.parametrize(("number", "kind"), [(20.5, "fitted"), (23.5, "given")])
def test_errors_that_few_inputs_have_are_seen(number: float, kind: str) -> None:
    """Of 24 inputs three are held back: 7, 15 and 23; the encoder has seen where it is off."""
    inputs = [(torch.rand(1, 4, 8) + number,) for number in range(24)]
    calibration = with_some_held_back(inputs)
    assert calibration.held_back.fitted is not None
    assert len(calibration.held_back.fitted.inputs) == 21
    found = Reference(nn.Flatten(), calibration.held_back).compare(WrongNear(number))
    assert found.kind == kind
    if kind == "fitted":
        assert "inputs that were fitted, more than on 3 held back" in found.words
    assert with_some_held_back(inputs * 6).held_back.fitted is None
