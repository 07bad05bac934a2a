"""Streams without a container record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nnrcodec
from nnrcodec import EncoderConfig, UpdateDecoder, UpdateEncoder
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.inspection import inspect
from nnrcodec.model.model import Model, Tensor

PLAIN = EncoderConfig(profile="nnc", record=False)
WEIGHTS = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)


def names_of_units(data: bytes) -> list[str]:
    return [unit.name for unit in inspect(data).units]


def test_only_units_of_the_standard_are_in_it(caplog: pytest.LogCaptureFixture) -> None:
    state = {"a": WEIGHTS, "n": np.arange(40, dtype=np.int32), "h": WEIGHTS[0].astype(np.float16)}
    data = nnrcodec.encode(state, config=PLAIN).data
    assert names_of_units(data) == ["NNR_STR", "NNR_MPS", *["NNR_NDU"] * 3]
    assert "record the stream does not have digests; dtypes other than float32 and int32: 'h' of " \
        "float16" in caplog.text  # fmt: skip
    decoded = nnrcodec.decode(data)
    assert {name: value.dtype.name for name, value in decoded.items()} == {
        "a": "float32", "n": "int32", "h": "float32"
    }  # fmt: skip
    np.testing.assert_array_equal(decoded["n"], state["n"])
    with_record = nnrcodec.decode(nnrcodec.encode(state, config=EncoderConfig(profile="nnc")).data)
    np.testing.assert_array_equal(decoded["a"], with_record["a"])
    with pytest.raises(nnrcodec.BitstreamError, match="no container record"):
        nnrcodec.decode(data, require_record=True)


class Net(torch.nn.Module):
    """A convolution, and a table that only the graph has."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = torch.linspace(0, 1, x.shape[1])
        result: torch.Tensor = self.net(x * (table + torch.tensor([1.0, 2.0, 4.0]))[:, None, None])
        return result


def test_a_network_is_measured_with_its_graph(caplog: pytest.LogCaptureFixture) -> None:
    module = Net().eval()
    example = (torch.rand(1, 3, 16, 16),)
    result = nnrcodec.encode(module, example, config=PLAIN)
    assert result.report.fidelity is not None
    assert "does not have digests; the graph" in caplog.text
    decoded = nnrcodec.decode(result.data)
    assert set(decoded) == set(module.state_dict())
    whole = nnrcodec.encode(module, example, config=EncoderConfig(profile="nnc"))
    in_record = inspect(whole.data).tensors
    assert len(in_record) > len(inspect(result.data).tensors)  # constants of the graph
    for name, value in nnrcodec.decode(whole.data).items():
        np.testing.assert_array_equal(decoded[name], value)
    assert nnrcodec.load_into(Net().eval(), result.data) is not None


def test_factors_and_short_names_are_said(caplog: pytest.LogCaptureFixture) -> None:
    low_rank = nnrcodec.LowRankConfig(ranks={"a": 3})
    config = EncoderConfig(profile="nnc", record=False, low_rank=low_rank, short_names=True)
    data = nnrcodec.encode({"a.weight": np.ones((8, 8, 3, 3), np.float32)}, config=config).data
    assert "which tensors are factors of low rank: 'a.u.weight'" in caplog.text
    assert "names: 'a.u.weight' is '0', 'a.v.weight' is '1'" in caplog.text
    assert list(nnrcodec.decode(data)) == ["0", "1"]


def test_tied_and_empty_tensors(caplog: pytest.LogCaptureFixture) -> None:
    tied = torch.from_numpy(WEIGHTS)
    state = {"a": tied, "b": tied, "e": torch.zeros(0, 3), "s": torch.tensor(2.0)}
    data = nnrcodec.encode(state, config=PLAIN).data
    assert "such as 'b', are coded each for itself: without a record nothing says" in caplog.text
    assert "tensors without elements: 'e'" in caplog.text
    assert "that tensors are scalars and not of one element: 's'" in caplog.text
    decoded = nnrcodec.decode(data)
    assert list(decoded) == ["a", "b", "s"]
    np.testing.assert_array_equal(decoded["a"], decoded["b"])
    assert decoded["s"].shape == (1,)


@pytest.mark.parametrize(
    ("dtype", "held"), [("float8_e5m2", np.uint8), ("complex64", np.complex64)]
)
def test_bit_patterns_are_refused(dtype: str, held: type) -> None:
    model = Model.of([Tensor.of("p", np.ones(40, held), dtype)])
    with pytest.raises(ModelError, match=f"'p' of {dtype} is coded as the bit patterns"):
        nnrcodec.encode(model, config=PLAIN)


@pytest.mark.parametrize("options", [{}, {"profile": "ext"}, {"profile": "nnc", "lossless": True}])
def test_what_needs_a_record_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        EncoderConfig(record=False, **options)


def test_updates_without_a_record(caplog: pytest.LogCaptureFixture) -> None:
    now = WEIGHTS.copy()
    now[3] += 1
    update = UpdateEncoder({"a": WEIGHTS}, config=PLAIN).encode({"a": now}).data
    assert names_of_units(update) == ["NNR_STR", "NNR_MPS", "NNR_NDU"]
    decoder = UpdateDecoder({"a": WEIGHTS})
    decoder.decode(update)
    assert abs(decoder.state["a"] - now).max() < 0.1
    with pytest.raises(ModelError, match="tensors come or go"):
        UpdateEncoder({"a": WEIGHTS}, config=PLAIN).encode({"b": now})
    short = nnrcodec.encode({"a": WEIGHTS}, config=EncoderConfig(short_names=True)).data
    with pytest.raises(ConfigError, match="short names of updates need the record"):
        UpdateEncoder(short, config=PLAIN)


@pytest.mark.parametrize("short_names", [False, True])
def test_differences_are_plain_streams(
    short_names: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = {"net.a": WEIGHTS, "net.b": WEIGHTS[0], "net.n": np.arange(40, dtype=np.int32)}
    now = {**base, "net.b": WEIGHTS[0] + 0.5, "net.n": base["net.n"] * 2}
    config = EncoderConfig(qp=-24, nonweight_qp=-24, short_names=short_names)
    encoder = UpdateEncoder(base, config=config, difference=True)
    data = encoder.encode(now).data
    assert names_of_units(data) == ["NNR_STR", "NNR_MPS", "NNR_NDU", "NNR_NDU"]
    plain = nnrcodec.decode(data)  # as any decoder of the standard does
    assert list(plain) == (["1", "2"] if short_names else ["net.b", "net.n"])
    assert abs(plain["1" if short_names else "net.b"] - 0.5).max() < 2**-6

    decoder = UpdateDecoder(base)
    decoder.decode(data, is_difference=True)
    for name, value in decoder.state.items():
        np.testing.assert_array_equal(value, encoder.state[name])
    assert abs(decoder.state["net.b"] - now["net.b"]).max() < 2**-6
    np.testing.assert_array_equal(decoder.state["net.n"], now["net.n"])
    np.testing.assert_array_equal(decoder.state["net.a"], WEIGHTS)

    model_file, stream, output = (tmp_path / name for name in ("b.npz", "d.nnc", "o.npz"))
    np.savez(model_file, **base)
    stream.write_bytes(data)
    caplog.clear()
    nnrcodec.decode_file([model_file, stream], output)
    assert "d.nnc does not say that it is an update, and has no record: its tensors are" \
        in caplog.text  # fmt: skip
    with np.load(output) as written:
        for name in base:
            np.testing.assert_array_equal(written[name], decoder.state[name])

    again = encoder.encode({**now, "net.a": WEIGHTS + 1}).data
    decoder.decode(again, is_difference=True)
    assert abs(decoder.state["net.a"] - WEIGHTS - 1).max() < 2**-5


def test_differences_of_a_network_have_the_names_of_its_state_dict() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3)).eval()
    base = nnrcodec.encode(module, (torch.rand(1, 3, 8, 8),)).data
    encoder = UpdateEncoder(base, difference=True)
    trained = encoder.start()
    with torch.no_grad():
        trained.get_parameter("0.bias").add_(1)
    data = encoder.encode(trained).data
    assert list(nnrcodec.decode(data)) == ["0.bias"]
    decoder = UpdateDecoder(base)
    decoder.decode(data, is_difference=True)
    for name, value in trained.state_dict().items():
        assert abs(decoder.state[name] - value.numpy()).max() < 0.02


def test_what_is_no_plain_difference_is_refused() -> None:
    base = nnrcodec.encode({"a": WEIGHTS}).data
    decoder = UpdateDecoder({"a": WEIGHTS})
    update = UpdateEncoder({"a": WEIGHTS}).encode({"a": WEIGHTS + 1}).data
    for stream in (base, update):
        with pytest.raises(ConfigError, match="says itself what it is"):
            decoder.decode(stream, is_difference=True)
    other = UpdateEncoder({"b": WEIGHTS}, difference=True).encode({"b": WEIGHTS + 1}).data
    with pytest.raises(nnrcodec.BitstreamError, match="tensor 'b', which the base model does not"):
        decoder.decode(other, is_difference=True)
    with pytest.raises(nnrcodec.BitstreamError, match="has to be decoded first"):
        UpdateDecoder().decode(other, is_difference=True)
    with pytest.raises(ConfigError, match="omit one of the two"):
        UpdateEncoder({"a": WEIGHTS}, config=EncoderConfig(lossless=True), difference=True)
    np.testing.assert_array_equal(decoder.state["a"], WEIGHTS)
