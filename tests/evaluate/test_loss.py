"""Losses that need no labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Inputs, inputs_of, model_of, network, with_values
from PIL import Image
from torch import nn

from nnrcodec.calibration.outputs import variation
from nnrcodec.errors import ConfigError
from nnrcodec.evaluate.loss import FILTERED_PSNR, MOST_GAINED, score_for
from nnrcodec.graph.module import build_module
from nnrcodec.model.model import Model


def shifted(model: Model, by: float) -> Model:
    """Return a filter of which all outputs are larger by a constant."""
    (bias,) = (name for name in model.tensors if name.endswith("bias"))
    return with_values(model, {bias: model.tensors[bias].read() + np.float32(by)})


def identity() -> Model:
    """Return a filter that changes nothing."""
    layer = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.bias.zero_()
    return model_of(nn.Sequential(layer).eval(), (1, 1, 8, 8))


@pytest.fixture
def filtering() -> Model:
    torch.manual_seed(0)
    return model_of(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)).eval(), (1, 1, 8, 8))


@pytest.fixture
def inputs() -> Inputs:
    return inputs_of((1, 1, 16, 16), 3)


def test_a_loss_in_per_cent_is_the_error_as_part_of_the_variance(
    filtering: Model, inputs: Inputs
) -> None:
    score = score_for("%", None, filtering, inputs)
    assert score(build_module(filtering)) == 0
    module = build_module(filtering)
    (variance,) = variation(module, inputs).variances
    expected = -100 * 0.1**2 / variance
    assert score(build_module(shifted(filtering, 0.1))) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("gain", [1.0, 255.0])
def test_a_loss_in_db_is_that_of_pictures_at_an_assumed_distance(
    gain: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A filter that changes nothing is assumed to leave an error of 45 dB below the range."""
    model, inputs = identity(), [(gain * x,) for (x,) in inputs_of((1, 1, 16, 16), 3)]
    score = score_for("dB", None, model, inputs)
    assert score(build_module(model)) == 0
    values = torch.cat([x for (x,) in inputs])
    by = 10 ** (-FILTERED_PSNR / 20) * float(values.max() - values.min())
    expected = -10 * np.log10(2)  # as much error again as there is taken to be
    assert score(build_module(shifted(model, by))) == pytest.approx(expected, rel=1e-3)
    assert "the PSNR before coding is taken to be 45.0 dB" in caplog.text


def test_a_filter_that_changes_much_is_assumed_to_leave_more(inputs: Inputs) -> None:
    model = shifted(identity(), 0.9)
    score = score_for("dB", None, model, inputs)
    expected = -10 * np.log10(1 + 0.1**2 / (0.9**2 / (10 ** (MOST_GAINED / 10) - 1)))
    assert score(build_module(shifted(model, 0.1))) == pytest.approx(expected, rel=1e-3)


def test_a_folder_of_pairs_is_measured(filtering: Model, inputs: Inputs, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    original = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(original).save(tmp_path / "a_orig.png")
    Image.fromarray(255 - original).save(tmp_path / "a_qp30_dec.png")
    identity = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(identity.weight)
    score = score_for("dB", str(tmp_path), filtering, inputs)
    error = np.mean((255 - 2 * original.astype(np.float64)) ** 2)
    assert score(identity) == pytest.approx(10 * np.log10(255**2 / error), rel=1e-6)


def test_a_folder_of_pairs_is_read_as_the_network_takes_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    original = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(original).save(tmp_path / "a_orig.png")
    Image.fromarray(255 - original).save(tmp_path / "a_qp30_dec.png")
    identity = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        identity.weight.copy_(torch.eye(3)[..., None, None])
    model = model_of(nn.Sequential(identity).eval(), (1, 3, 8, 8))
    score = score_for("dB", str(tmp_path), model, None)
    error = np.mean((255 - 2 * original.astype(np.float64)) ** 2)
    assert score(identity) == pytest.approx(10 * np.log10(255**2 / error), rel=1e-6)


def test_what_cannot_be_measured_says_so(inputs: Inputs) -> None:
    classifier = network("resnet")
    images = inputs_of(classifier.shape, 2)
    with pytest.raises(ConfigError, match="pictures as input and output"):
        score_for("dB", None, classifier.model(), images)
    with pytest.raises(ConfigError, match="give either"):
        score_for("%", None, classifier.model(), None)
