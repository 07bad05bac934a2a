"""What calibration leaves out or replaces is said once, with a reason."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import inputs_of, model_of, network, with_values
from torch import nn

from nnrcodec.calibration.amount import in_batches
from nnrcodec.calibration.coverage import unmeasured_layers
from nnrcodec.calibration.expectation import expectation
from nnrcodec.calibration.inputs import load_inputs
from nnrcodec.calibration.synthetic import synthetic_inputs
from nnrcodec.graph.graph import Dim, Graph, Input, Node, Ref
from nnrcodec.model.model import Model, Tensor


class Parts(nn.Module):
    """A layer that is measured, one that is too large, and one that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.plain, self.wide = nn.Linear(4, 3), nn.Linear(3, 6145, bias=False)
        self.twice, self.back = nn.Linear(3, 3), nn.ConvTranspose1d(6145, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.twice(self.plain(x)))
        return self.back(self.wide(x)[:, :, None])


@pytest.fixture(scope="module")
def parts() -> Model:
    return model_of(Parts(), (2, 4))


def said(caplog: pytest.LogCaptureFixture, start: str) -> list[tuple[str, str]]:
    """Return level and text of what the package has logged that starts so."""
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name.startswith("nnrcodec.") and record.getMessage().startswith(start)
    ]


def test_the_reason_is_known_of_each_layer_that_is_not_measured(parts: Model) -> None:
    assert unmeasured_layers(parts) == {
        "twice": "its weight is used 2 times",
        "wide": "it is a matrix of 6145 x 3, at most 6144 x 6144 is measured",
        "back": "it is a matrix of 1 x 6145, at most 6144 x 6144 is measured",
    }
    assert unmeasured_layers(network("unet").model()) == {}
    assert unmeasured_layers(Model.of([Tensor.of("w", np.ones(2, np.float32))])) == {}


def test_layers_that_are_not_measured_are_named_once(
    parts: Model, caplog: pytest.LogCaptureFixture
) -> None:
    expectation(parts, inputs_of((2, 4), 2))
    found = said(caplog, "layer ")
    assert [level for level, _ in found] == ["WARNING"] * 3
    assert [text.split()[1] for _, text in found] == ["twice", "wide", "back"]
    assert all("take a smaller scale or qp" in text for _, text in found)


def test_weights_that_are_not_finite_and_outputs_that_do_not_vary_are_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(0)
    model = model_of(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (2, 3))
    expectation(
        with_values(model, {"0.weight": np.full((4, 3), np.nan, np.float32)}),
        inputs_of((2, 3), 1),
    )
    ((level, text),) = said(caplog, "layer 0 has weights that are not finite")
    assert level == "WARNING"
    assert "check the training" in text
    assert [level for level, _ in said(caplog, "an output of the network does not vary")] == [
        "WARNING"
    ]


def test_how_inputs_are_used_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    node = Node("aten.sum.dim_IntList", (Ref(0), (0,), True))
    graph = Graph((Input("x", "float32", ("n", 5, 2048)),), (node,), Ref(1), {"n": Dim(1, None, 2)})
    model = Model.of([Tensor.of("other", np.ones(1, np.float32))], graph)
    in_batches(model, inputs_of((1, 5, 2**11), 600))
    ((level, text),) = said(caplog, "512 of 600 calibration inputs are used")
    assert level == "WARNING"
    assert "--calib-count 600 (calib_count=600 in Python) takes all" in text
    ((level, text),) = said(caplog, "calibration inputs go through the network one at a time")
    assert level == "INFO"
    assert text.endswith("its output for one depends on the others")


def test_samples_that_are_moved_or_left_out_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shape: tuple[int | str, ...] = (1, 3, 8, 8)
    graph = Graph((Input("x", "float32", shape), Input("y", "float32", (1, 2))), (), Ref(0))
    arrays = {"x": np.zeros((4, 8, 8, 3), np.float32), "y": np.zeros((3, 2), np.float32)}
    np.savez(tmp_path / "inputs.npz", **arrays)
    load_inputs(tmp_path / "inputs.npz", graph)
    ((_, text),) = said(caplog, "calibration samples of input 'x' have the shape (8, 8, 3)")
    assert text.endswith("they are moved to the second axis")
    assert said(caplog, str(tmp_path / "inputs.npz"))[0][1].endswith("the first 3 are used")


def test_shapes_of_the_export_are_said_where_they_are_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    synthetic_inputs(network("classifier").model(), 1)
    (level, text), *_ = said(caplog, "calibration inputs have sizes for which the network holds")
    assert level == "INFO"
    assert "'d1': 16, 'd2': 16}: it does not hold for " in text
