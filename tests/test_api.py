from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import NETWORKS, plain_cnn
from torch import nn

import nnrcodec
from nnrcodec import ConfigError, EncoderConfig, LowRankConfig, ModelError, UniformConfig
from nnrcodec.container.record import MeasuredOn
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
        most = 2.0 if value.ndim > 1 else 0.5  # error feedback moves weights beyond half a step
        np.testing.assert_allclose(decoded[name], value, rtol=1e-6, atol=most * steps[name])


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
        (Behind(torch.Tensor.float), torch.ones(1, 1, 8, 8).int(), "neither an index into a table"),
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
        ({"w": torch.zeros(3, 3).to_sparse()}, ModelError, "'w' is not a dense"),
        ({"w": torch.zeros(3, device="meta")}, ModelError, "'w' is not a dense"),
    ],
)
def test_what_cannot_be_encoded_is_refused(model: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        nnrcodec.encode(model)


@pytest.mark.parametrize("network", [{"w": np.eye(4)}, Model.of([])])
def test_example_inputs_without_a_module_are_refused(network: Any) -> None:
    with pytest.raises(ConfigError, match="omit them, or give the module"):
        nnrcodec.encode(network, (np.eye(4),))


def test_example_inputs_that_are_no_tuple_are_refused_with_a_hint() -> None:
    with pytest.raises(ConfigError, match=r"example_inputs is a Tensor; .* such as \(x,\)"):
        nnrcodec.encode(FILTER.module(), FILTER.example())


def test_a_name_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(nnrcodec.EncodingError, match="topology_elem_id"):
        nnrcodec.encode({"\ud800": np.zeros(3, np.float32)})


@pytest.mark.parametrize("name", ["", "a\0b", "größe", "a b\n", "x" * 40_000, "weight", "数"])
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


# What encode tells


def test_a_stream_is_bytes_with_a_report() -> None:
    module, stages = FILTER.module(), []
    low_rank = LowRankConfig(rank_ratio=0.6)
    result = nnrcodec.encode(
        module,
        (FILTER.example(),),
        EncoderConfig(low_rank=low_rank),
        calib_count=4,
        progress=lambda stage, done, total: stages.append((stage, done, total)),
    )
    assert isinstance(result, bytes)
    assert result.data == result
    assert type(result.data) is bytes
    report = result.report
    assert report.stream_bytes == len(result)
    assert report.original_bytes == sum(v.numpy().nbytes for v in module.state_dict().values())
    assert [t.name for t in report.tensors] == [
        t.names[0] for t in nnrcodec.inspect(result).tensors
    ]
    state = nnrcodec.decode(result)
    assert {t.name: t.shape for t in report.tensors} == {n: v.shape for n, v in state.items()}
    assert sum(report.coders.values()) == len(report.tensors)
    assert any(layer.rank for layer in report.layers)
    assert {"calibration inputs", "low rank", "quantizing", "coding"} <= report.stage_seconds.keys()
    assert report.seconds >= sum(report.stage_seconds.values()) * 0.99
    for stage in ("low rank", "quantizing", "coding"):
        done = [(d, t) for s, d, t in stages if s == stage]
        assert done[-1][0] == done[-1][1]
    json.dumps(report.to_json(), allow_nan=False)


def test_the_error_of_a_tensor_is_that_of_its_decoded_values() -> None:
    values = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    exact = np.arange(3, dtype=np.float32)
    result = nnrcodec.encode({"w": values, "b": exact})
    errors = {t.name: t.relative_error for t in result.report.tensors}
    decoded = nnrcodec.decode(result)["w"]
    expected = np.linalg.norm(decoded - values) / np.linalg.norm(values)
    assert errors["w"] == pytest.approx(float(expected), rel=1e-5)
    assert errors["b"] == 0.0


def test_a_fallback_is_in_the_report_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_args: object) -> None:
        raise ConfigError("no inputs can be made up here")

    monkeypatch.setattr("nnrcodec.calibration.default.default_inputs", none)
    report = nnrcodec.encode(FILTER.module(), (FILTER.example(),)).report
    assert [note for note in report.notes if "no inputs can be made up here" in note]


def test_trials_of_a_search_are_in_the_report() -> None:
    values = np.random.default_rng(0).normal(size=(80, 50)).astype(np.float32)
    report = nnrcodec.encode({"w": values}, config=EncoderConfig(target_bytes=1500)).report
    assert report.taken in report.trials
    assert report.stream_bytes <= 1500
    assert report.loss is None


def _fail(*_progress: object) -> None:
    pytest.fail("work has begun")


def test_files_to_files(tmp_path: Path) -> None:
    model = nnrcodec.Model.of([Tensor.of("w", np.eye(40, dtype=np.float32))])
    nnrcodec.save(model, tmp_path / "net.safetensors")
    result = nnrcodec.encode_file(tmp_path / "net.safetensors")
    assert (tmp_path / "net.nnr").read_bytes() == result
    decoded = nnrcodec.decode_file(tmp_path / "net.nnr", tmp_path / "back.safetensors")
    assert np.array_equal(
        nnrcodec.load(tmp_path / "back.safetensors").tensors["w"].read(),
        decoded.tensors["w"].read(),
    )
    for target, hint in (("net.safetensors", "ending of a model file"), ("a/b.nnr", "no folder")):
        with pytest.raises(ConfigError, match=hint):  # before long work
            nnrcodec.encode_file(tmp_path / "net.safetensors", tmp_path / target, progress=_fail)
    with pytest.raises(ConfigError, match="no stream to decode"):
        nnrcodec.decode_file([], tmp_path / "back.safetensors")


def test_a_base_model_and_its_update_run(tmp_path: Path) -> None:
    module, x = FILTER.module(), FILTER.example()
    base = nnrcodec.encode(module, (x,), calib=None)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05)
    update = nnrcodec.UpdateEncoder(base).encode(module)
    decoder = nnrcodec.UpdateDecoder()
    decoder.decode(base)
    before = decoder.model()
    decoder.decode(update)
    with torch.no_grad():
        torch.testing.assert_close(before(x), nnrcodec.decode_model(base)(x))
        torch.testing.assert_close(decoder.model()(x), module(x), atol=0.05, rtol=0.05)
    for name, data in (("base.nnr", base), ("update.nnc", update)):
        (tmp_path / name).write_bytes(data)
    paths = [tmp_path / "base.nnr", tmp_path / "update.nnc"]
    model = nnrcodec.decode_file(paths, tmp_path / "updated.safetensors")
    assert set(model.tensors) == set(decoder.network().tensors)
    with pytest.raises(ConfigError, match="is a base model, not an update"):
        nnrcodec.decode_file([paths[0], paths[0]], tmp_path / "updated.safetensors")


def test_updates_of_tensors_only_do_not_run() -> None:
    decoder = nnrcodec.UpdateDecoder()
    decoder.decode(nnrcodec.encode({"w": np.eye(5, dtype=np.float32)}))
    with pytest.raises(ModelError, match="no graph"):
        decoder.model()


@pytest.mark.parametrize(
    ("count", "on"),
    [
        (None, MeasuredOn.MADE_UP_INPUTS),
        (3, MeasuredOn.FITTED_INPUTS),
        (16, MeasuredOn.GIVEN_INPUTS),
    ],
)
def test_the_stream_says_what_was_measured(count: int | None, on: MeasuredOn) -> None:
    given = "auto" if count is None else [FILTER.example() for _ in range(count)]
    result = nnrcodec.encode(FILTER.module(), (FILTER.example(),), calib=given, calib_count=count)
    measured, fidelity = nnrcodec.inspect(result).measured, result.report.fidelity
    assert measured is not None
    assert fidelity is not None
    assert (measured.on, measured.count) == (on, fidelity.count)
    assert measured.snr == pytest.approx(fidelity.snr, abs=0.01)
    assert result.report.stream_bytes == len(result)


def test_the_stream_of_a_state_dict_says_how_far_weights_are_off() -> None:
    result = nnrcodec.encode(FILTER.module().state_dict())
    measured = nnrcodec.inspect(result).measured
    worst = max(tensor.relative_error for tensor in result.report.tensors)
    assert measured is not None
    assert (measured.on, measured.count) == (MeasuredOn.WEIGHTS, 0)
    assert 10 ** (-measured.snr / 20) == pytest.approx(worst, rel=0.01)
    assert "weights off by" in measured.words
    exact = nnrcodec.inspect(nnrcodec.encode({"n": np.arange(40)})).measured
    assert exact is not None
    assert exact.words == "all weights exact"


def test_threads_of_pytorch_change_nothing() -> None:
    """Where operators round otherwise with more threads, they are not given more."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 40, 3, padding=1), nn.ReLU(), nn.Conv2d(40, 12, 3, stride=2)]
    example, before, seen = (torch.rand(1, 3, 97, 95),), torch.get_num_threads(), set()

    def encoded(threads: int) -> bytes:
        torch.set_num_threads(threads)
        module = nn.Sequential(*layers).eval()

        def score(decoded: nn.Module) -> float:
            seen.add(torch.get_num_threads())
            with torch.inference_mode():
                return -float((decoded(*example) - module(*example)).square().mean())

        config = EncoderConfig(max_loss=1e-4)
        return nnrcodec.encode(module, example, config, calib_count=6, score=score).data

    try:
        first, second = encoded(1), encoded(3)
    finally:
        torch.set_num_threads(before)
    assert seen == {1}
    assert first == second


def test_a_decoded_model_keeps_its_graph_without_example_inputs() -> None:
    first = nnrcodec.encode(FILTER.module(), (FILTER.example(),), calib=None)
    decoded = nnrcodec.decode_model(first)
    again = nnrcodec.decode_model(nnrcodec.encode(decoded, calib=None))
    assert again._nnr_graph == decoded._nnr_graph
    assert again.state_dict().keys() == decoded.state_dict().keys()


def test_a_stream_that_decoders_refuse_by_default_is_made_and_said() -> None:
    few = np.arange(3, dtype=np.float32)
    result = nnrcodec.encode({f"t{number}": few.copy() for number in range(33_000)})
    assert len(result.report.tensors) == 33_000
    (note,) = result.report.notes
    assert note.startswith("by default decoders refuse this stream: ")
    with pytest.raises(nnrcodec.LimitExceededError):
        nnrcodec.decode(result)
