from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from networks import NETWORKS, plain_cnn
from torch import nn

import nnrcodec
from nnrcodec import ConfigError, EncoderConfig, LowRankConfig, ModelError, UniformConfig
from nnrcodec.formats.sources import model_of
from nnrcodec.model.model import Model, Tensor

(FILTER,) = (n for n in NETWORKS if n.name == "residual_filter")


def steps_of(data: bytes) -> dict[str, float]:
    return {t.names[0]: t.step_size or 0.0 for t in nnrcodec.inspect(data).tensors}


def assert_decodes_near(data: bytes, expected: dict[str, Any]) -> None:
    decoded = nnrcodec.decode(data)
    steps = steps_of(data)
    assert list(decoded) == list(expected)
    for name, value in expected.items():
        value = np.asarray(value)
        assert decoded[name].dtype == value.dtype
        np.testing.assert_allclose(decoded[name], value, rtol=1e-6, atol=steps[name] / 2)


def test_a_module_without_inputs_is_encoded_as_its_state_dict() -> None:
    module = FILTER.module()
    data = nnrcodec.encode(module)
    assert_decodes_near(data, {k: v.numpy() for k, v in module.state_dict().items()})
    with pytest.raises(ModelError, match=r"no graph: use nnrcodec\.load_into"):
        nnrcodec.decode_model(data)


def test_a_module_with_inputs_is_encoded_with_its_graph() -> None:
    module = FILTER.module()
    data = nnrcodec.encode(module, (FILTER.example(),), calib=None)
    assert nnrcodec.inspect(data).has_graph
    assert_decodes_near(data, {k: v.numpy() for k, v in module.state_dict().items()})


def test_inputs_are_made_up_for_what_runs_unless_there_shall_be_none() -> None:
    model = model_of(FILTER.module(), (FILTER.example(),))
    streams = {calib: nnrcodec.encode(model, calib=calib) for calib in ("auto", "synthetic", None)}
    assert streams["auto"] == streams["synthetic"] == nnrcodec.encode(model) != streams[None]
    state = FILTER.module().state_dict()
    assert nnrcodec.encode(state) == nnrcodec.encode(state, calib=None)


class Behind(nn.Module):
    """A convolution of what a function makes of the input."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(1, 8, 3), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.function(x))


@pytest.mark.parametrize(
    ("module", "example", "reason"),
    [
        (Behind(lambda x: torch.log(x - 2)), torch.full((1, 1, 8, 8), 3.0), "NaN or infinity"),
        (Behind(torch.Tensor.float), torch.ones(1, 1, 8, 8).int(), "not an index into a table"),
    ],
)
def test_where_inputs_cannot_be_made_up_weights_alone_do(
    module: nn.Module, example: torch.Tensor, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(module, (example,))
    data = nnrcodec.encode(model)
    assert reason in caplog.text
    assert data == nnrcodec.encode(model, calib=None)
    with pytest.raises(ConfigError):
        nnrcodec.encode(model, calib="synthetic")


def test_a_decoded_module_is_in_evaluation_mode_and_has_the_state_dict_of_the_original() -> None:
    module = FILTER.module()
    decoded = nnrcodec.decode_model(nnrcodec.encode(module, (FILTER.example(),), calib=None))
    assert not decoded.training
    assert decoded.state_dict().keys() == module.state_dict().keys()


def test_an_exported_program_is_encoded_with_its_graph() -> None:
    program = torch.export.export(FILTER.module(), (FILTER.example(),))
    decoded = nnrcodec.decode_model(nnrcodec.encode(program))
    assert decoded(FILTER.example()).shape == FILTER.shape


def test_state_dicts_of_pytorch_and_of_numpy_give_the_same_tensors() -> None:
    state = FILTER.module().state_dict()
    of_torch = nnrcodec.encode(state)
    of_numpy = nnrcodec.encode({name: value.numpy() for name, value in state.items()})
    assert of_torch == of_numpy
    assert_decodes_near(of_torch, {k: v.numpy() for k, v in state.items()})


def test_a_model_is_encoded_as_it_is() -> None:
    model = Model.of([Tensor.of("w", np.eye(2, dtype=np.float32))])
    assert nnrcodec.decode(nnrcodec.encode(model))["w"].tolist() == [[1, 0], [0, 1]]


def test_tensors_of_pytorch_of_all_kinds_are_taken() -> None:
    base = torch.arange(600, dtype=torch.float32).reshape(20, 30) - 300
    state = {
        "transposed": base.T,
        "parameter": nn.Parameter(base),
        "bfloat16": base.bfloat16(),
        "expanded": base[:1].expand(40, 30),
        "scalar": torch.tensor(7),
        "numpy scalar": np.float32(2.5),
    }
    decoded = nnrcodec.decode(nnrcodec.encode(state))
    for name, value in state.items():
        expected = torch.as_tensor(value).detach().double().numpy()
        np.testing.assert_allclose(decoded[name], expected, atol=40)
        assert decoded[name].shape == expected.shape
    assert decoded["scalar"] == 7


def test_a_configuration_changes_the_step_size() -> None:
    state = {"w": np.random.default_rng(0).normal(size=(30, 30)).astype(np.float32)}
    config = EncoderConfig(quantization=UniformConfig(qp=-24))
    assert steps_of(nnrcodec.encode(state, config=config)) == {"w": 2.0**-6}


def test_low_rank_is_reported_and_can_be_merged() -> None:
    module = FILTER.module()
    config = EncoderConfig(low_rank=LowRankConfig(ranks={"body.2": 3}))
    data = nnrcodec.encode(module, config=config)
    assert "body.2.u.weight" in nnrcodec.decode(data)
    merged = nnrcodec.decode(data, merge=True)
    assert list(merged) == list(module.state_dict())
    assert merged["body.2.weight"].shape == (8, 8, 3, 3)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (3, ConfigError, "cannot encode a int"),
        ("filter.pt2", ConfigError, "cannot encode a str"),
        ([np.zeros(3)], ConfigError, "cannot encode a list"),
        ({}, ModelError, "no tensors"),
        ({1: np.zeros(3)}, ModelError, "key 1 that is not a string"),
        ({"lr": 0.1}, ModelError, "'lr' is a float"),
        ({"w": None}, ModelError, "'w' is a NoneType"),
        ({"w": [1.0, 2.0]}, ModelError, "'w' is a list"),
        ({"w": torch.zeros(3, dtype=torch.complex64)}, ModelError, "'w' has dtype complex64"),
        ({"w": torch.zeros(3, 3).to_sparse()}, ModelError, "'w' is not a dense"),
        ({"w": torch.zeros(3, device="meta")}, ModelError, "'w' is not a dense"),
    ],
)
def test_what_cannot_be_encoded_is_refused(model: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        nnrcodec.encode(model)


def test_example_inputs_that_are_no_tuple_are_refused_with_a_hint() -> None:
    with pytest.raises(ConfigError, match=r"example_inputs is a Tensor; .* such as \(x,\)"):
        nnrcodec.encode(FILTER.module(), FILTER.example())


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_cannot_be_written_is_refused(name: str) -> None:
    with pytest.raises(nnrcodec.EncodingError, match="topology_elem_id"):
        nnrcodec.encode({name: np.zeros(3, np.float32)})


@pytest.mark.parametrize("name", ["", "größe", "a b\n", "x" * 40_000, "weight", "数"])
def test_any_other_name_comes_back(name: str) -> None:
    assert list(nnrcodec.decode(nnrcodec.encode({name: np.zeros(3, np.float32)}))) == [name]


@pytest.mark.parametrize("convert", [bytes, bytearray, memoryview])
def test_any_bytes_are_decoded(convert: Any) -> None:
    data = nnrcodec.encode({"w": np.ones(3)})
    assert nnrcodec.decode(convert(data))["w"].tolist() == [1, 1, 1]


def test_decoded_arrays_can_be_written_to() -> None:
    state = {"coded": np.ones((9, 9)), "stored": np.ones(3), "flags": np.ones(50, bool)}
    for value in nnrcodec.decode(nnrcodec.encode(state)).values():
        value[...] = 0


def test_encoding_leaves_the_module_as_it_was() -> None:
    module = nn.Sequential(plain_cnn(), nn.BatchNorm2d(1)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    nnrcodec.encode(module.eval(), (torch.zeros(2, 1, 8, 8),))
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_numpy_alone_is_enough_for_tensors() -> None:
    script = (
        "import sys, numpy as np, nnrcodec; "
        "d = nnrcodec.encode({'w': np.zeros((9, 9), np.float32)}); "
        "assert nnrcodec.decode(d)['w'].shape == (9, 9); nnrcodec.inspect(d); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


MODULES = [m.name for m in pkgutil.walk_packages(nnrcodec.__path__, "nnrcodec.")]


@pytest.mark.parametrize("name", ["nnrcodec", *(m for m in MODULES if not m.endswith("__main__"))])
def test_examples_in_docstrings_are_true(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


@pytest.mark.parametrize("name", ["encode"])
def test_public_functions_have_examples(name: str) -> None:
    assert doctest.DocTestFinder().find(getattr(nnrcodec, name))[0].examples
