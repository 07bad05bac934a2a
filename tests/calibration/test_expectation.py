"""What quantization is expected to do, against what it does."""

from __future__ import annotations

import math

import pytest
from networks import error_between, inputs_of, network, with_values

from nnrcodec.calibration.expectation import expectation
from nnrcodec.calibration.outputs import variation
from nnrcodec.graph.layers import find_layers
from nnrcodec.graph.module import build_module
from nnrcodec.quant.step_size import dequantize
from nnrcodec.quant.uniform import UniformConfig, quantize


@pytest.mark.parametrize("name", ["plain_cnn", "transformer"])
def test_the_error_is_about_that_of_rounding_with_default_steps(name: str) -> None:
    chosen = network(name)
    model, inputs = chosen.model(), inputs_of(chosen.shape, 8)
    config = UniformConfig(scale=0.25)  # small errors, which add up
    rounded = {}
    for layer in find_layers(model):
        values = model.tensors[layer.weight].read()
        qp = config.qp_for(values)
        rounded[layer.weight] = dequantize(quantize(values, qp, 2), qp, 2)
    measured = error_between(model, with_values(model, rounded), inputs)
    expected = expectation(model, inputs)
    (variance,) = variation(build_module(model), inputs).variances
    assert expected.elements == sum(math.prod(layer.shape) for layer in find_layers(model))
    assert 0.2 < expected.relative_error(0.25) * variance / measured < 5


def test_errors_grow_with_the_square_of_the_scale() -> None:
    chosen = network("plain_cnn")
    expected = expectation(chosen.model(), inputs_of(chosen.shape, 2))
    assert expected.error_per_weight(3.0) == pytest.approx(9 * expected.error_per_weight(1.0))
    assert expected.relative_error(3.0) == pytest.approx(9 * expected.error)
    assert expected.error_per_weight(1.0) * expected.elements == pytest.approx(expected.error)
