from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import nnrcodec
from nnrcodec import EncoderConfig, EncodeResult, UniformConfig
from nnrcodec.calibration.fidelity import TARGETS
from nnrcodec.calibration.outputs import Variation
from nnrcodec.encoder.presets import COARSEST, TRIALS


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(7),
    ).eval()


EXAMPLE = (torch.rand(1, 3, 12, 12),)
INPUTS = [(torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(i)),) for i in range(9)]


@pytest.fixture(scope="module", autouse=True)
def sizes(network: nn.Module) -> None:
    network(*EXAMPLE)  # makes the last layer


@pytest.fixture(scope="module")
def by_preset(network: nn.Module) -> dict[str, EncodeResult]:
    return {
        preset: nnrcodec.encode(network, EXAMPLE, EncoderConfig(preset=preset), calib=INPUTS)
        for preset in ("transparent", "balanced", "small")
    }


@pytest.mark.parametrize("preset", ["transparent", "balanced", "small"])
def test_the_target_is_kept_as_measured(by_preset: dict[str, EncodeResult], preset: str) -> None:
    report = by_preset[preset].report
    assert report.fidelity is not None
    margin = report.fidelity.margin(TARGETS[preset])
    assert 0 <= margin < 6
    assert report.fidelity.count == 1
    assert 1 <= len(report.trials) <= TRIALS
    assert report.taken in report.trials
    assert not [note for note in report.notes if "target" in note]


def test_what_is_said_is_what_a_decoder_gets(
    network: nn.Module, by_preset: dict[str, EncodeResult]
) -> None:
    decoded = nnrcodec.decode_model(by_preset["small"])
    with torch.inference_mode():
        wanted, found = network(*INPUTS[7]), decoded(*INPUTS[7])
    signal = Variation([(wanted,)]).variances[0] * wanted.numel()
    snr = 10 * math.log10(signal / float((wanted - found).square().sum()))
    assert by_preset["small"].report.fidelity.snr == pytest.approx(snr, abs=0.01)


def test_a_coarser_preset_takes_fewer_bytes(by_preset: dict[str, EncodeResult]) -> None:
    small, balanced, transparent = (len(by_preset[p]) for p in ("small", "balanced", "transparent"))
    assert small < balanced < transparent


def test_the_same_input_gives_the_same_bytes(
    network: nn.Module, by_preset: dict[str, EncodeResult]
) -> None:
    again = nnrcodec.encode(
        network, EXAMPLE, EncoderConfig(preset="balanced", threads=1), calib=INPUTS
    )
    assert again == by_preset["balanced"]


@pytest.mark.parametrize("quantization", [UniformConfig(qp=-12), UniformConfig(scale=3.0)])
def test_what_the_caller_gives_is_taken_and_measured(
    network: nn.Module, quantization: UniformConfig
) -> None:
    result = nnrcodec.encode(network, EXAMPLE, EncoderConfig(quantization=quantization))
    assert result.report.trials == ()
    assert result.report.fidelity is not None
    assert "made-up inputs" in result.report.fidelity.source


def test_a_network_without_real_outputs_is_not_measured() -> None:
    class Decides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).argmax(1)

    result = nnrcodec.encode(Decides().eval(), (torch.rand(1, 1, 9, 9),))
    assert result.report.fidelity is None
    assert any("no real numbers" in note for note in result.report.notes)


def test_an_output_that_says_nothing_does_not_make_steps_coarse() -> None:
    """A network whose output is the same whatever its weights are."""

    class Saturated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.clamp(self.layer(x) - 100, min=-1.0)

    module = Saturated().eval()
    result = nnrcodec.encode(module, (torch.rand(1, 1, 9, 9),))
    assert all(trial.scale <= COARSEST * 1.001 for trial in result.report.trials)
    weight = next(t for t in result.report.tensors if t.name == "layer.weight")
    assert weight.relative_error < 0.5


def test_a_state_dict_gets_steps_by_preset() -> None:
    state = {"w": np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)}
    results = [
        nnrcodec.encode(state, config=EncoderConfig(preset=preset))
        for preset in ("transparent", "balanced", "small")
    ]
    sizes = [len(result) for result in results]
    errors = [result.report.tensors[0].relative_error for result in results]
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert errors[0] < 0.08
    assert all(result.report.fidelity is None for result in results)


def test_reports_are_json_without_infinities(by_preset: dict[str, EncodeResult]) -> None:
    text = json.dumps(by_preset["small"].report.to_json(), allow_nan=False)
    assert json.loads(text)["fidelity"]["count"] == 1
