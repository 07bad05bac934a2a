"""Tensors bit for bit: whole networks, single tensors, updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nnrcodec
from nnrcodec import ConfigError, EncoderConfig, LowRankConfig, TensorConfig
from nnrcodec.entropy.lossless.model import Difference
from nnrcodec.errors import UnitOrderError
from nnrcodec.model.dtypes import DTYPES, item_bytes, values_of, words_of
from nnrcodec.model.model import Model, Tensor
from nnrcodec.syntax.unit import read_units, write_units

LOSSLESS = EncoderConfig(lossless=True)


def of_bits(dtype: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Return a tensor of any bits: NaNs of any payload, infinities, subnormals, negative zeros."""
    rng = np.random.default_rng(seed)
    most = 1 if dtype == "bool" else 2 ** (8 * item_bytes(dtype)) - 1
    words = rng.integers(0, most, shape, f"u{item_bytes(dtype)}", endpoint=True)
    special = {"float32": 0x7F800001, "float16": 0x7C01, "bfloat16": 0x7F81, "float64": 0x7FF << 52}
    if words.size > 2 and dtype in special:
        words.flat[0] = special[dtype]  # a NaN that signals; for float64 an infinity
        words.flat[1] = 1 << (8 * item_bytes(dtype) - 1)  # -0
        words.flat[2] = 1  # the smallest subnormal
    return Tensor.of("w", values_of(np.asarray(words), dtype), dtype)


def bits(tensor: Tensor) -> np.ndarray:
    return words_of(tensor.read(), tensor.dtype)


REALS = sorted(name for name, dtype in DTYPES.items() if dtype.kind != "c")
SHAPES = st.sampled_from([(), (0,), (3, 0, 2), (1,), (40,), (7, 5), (4, 3, 2, 2)])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(REALS), SHAPES, st.integers(0, 99))
def test_every_dtype_and_shape_comes_back(dtype: str, shape: tuple[int, ...], seed: int) -> None:
    tensor = of_bits(dtype, shape, seed)
    other = Tensor.of("other", np.ones((2, 3)))
    stream = nnrcodec.encode(Model.of([tensor, other]), config=LOSSLESS)
    decoder = nnrcodec.UpdateDecoder()
    decoder.decode(stream)
    decoded = decoder.network().tensors["w"]
    assert (decoded.dtype, decoded.shape) == (dtype, shape)
    assert np.array_equal(bits(decoded), bits(tensor))
    assert stream.report.lossless
    assert {row.relative_error for row in stream.report.tensors} == {0.0}


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_come_back(dtype: str) -> None:
    parts = np.array([np.nan, -0.0, np.inf, 1.5] * 6, f"f{np.dtype(dtype).itemsize // 2}")
    values = parts.view(dtype)
    decoded = nnrcodec.decode(nnrcodec.encode({"w": values}, config=LOSSLESS))["w"]
    assert decoded.tobytes() == values.tobytes()


def test_pytorch_gets_every_bit_of_bfloat16() -> None:
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    layer = torch.nn.Module()
    layer.register_buffer("w", torch.zeros(2**16, dtype=torch.bfloat16))
    state = {"w": patterns.view(torch.bfloat16)}
    nnrcodec.load_into(layer, nnrcodec.encode(state, config=LOSSLESS))
    assert torch.equal(layer.w.view(torch.int16), patterns)


def network() -> torch.nn.Module:
    torch.manual_seed(5)
    layers = (torch.nn.Conv2d(1, 12, 3), torch.nn.BatchNorm2d(12), torch.nn.Conv2d(12, 8, 3))
    return torch.nn.Sequential(*layers).eval()


PICTURE = torch.zeros(1, 1, 9, 9)


def test_a_network_with_its_graph() -> None:
    module = network()
    stream = nnrcodec.encode(module, (PICTURE,), LOSSLESS)
    assert stream.report.fidelity is None
    for name, value in nnrcodec.decode(stream).items():
        assert value.tobytes() == module.state_dict()[name].numpy().tobytes(), name
    assert nnrcodec.inspect(stream).measured.words == "all weights exact"


@pytest.mark.parametrize("calib", [None, "auto"])
def test_kept_tensors_are_exact_whatever_is_done_to_others(calib: str | None) -> None:
    module = network()
    config = EncoderConfig(
        keep=["0.*"],
        tensors={"2.*": TensorConfig(qp=-12), "2.bias": TensorConfig(coder="lossless")},
        fold_batch_norm=True,
        low_rank=LowRankConfig(rank_ratio=0.6),
    )
    stream = nnrcodec.encode(module, (PICTURE,), config, calib=calib)
    state, original = nnrcodec.decode(stream), module.state_dict()
    for name in ("0.weight", "0.bias", "2.bias"):
        assert np.array_equal(state[name], original[name].numpy()), name
    rows = {row.name: row for row in stream.report.tensors}
    assert rows["0.weight"].coder == "lossless"
    assert rows["2.weight"].qp == -12
    assert all("kept" in (layer.reason or "") for layer in stream.report.layers)
    assert stream.report.folds[0].reason == "one of its tensors is kept as it is"
    assert not stream.report.lossless


def test_settings_of_single_tensors() -> None:
    rng = np.random.default_rng(0)
    state = {name: rng.normal(size=(20, 30)).astype(np.float32) for name in "abcd"}
    config = EncoderConfig(
        tensors={
            "[ab]": TensorConfig(qp=-16, dq=False),
            "b": TensorConfig(coder="ans"),
            "c": TensorConfig(scale=4.0, coder="cabac"),
        }
    )
    rows = {row.name: row for row in nnrcodec.encode(state, config=config).report.tensors}
    usual = {row.name: row for row in nnrcodec.encode(state).report.tensors}
    assert (rows["a"].qp, rows["a"].coding) == (-16, "uniform")
    assert (rows["b"].qp, rows["b"].coder) == (-16, "ans")
    assert (rows["c"].qp, rows["c"].coder) == (usual["c"].qp + 8, "cabac")
    assert rows["d"] == usual["d"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lossless": True, "profile": "nnc"}, "use profile 'ext'"),
        ({"keep": ["w"], "profile": "nnc"}, "use profile 'ext'"),
        ({"lossless": True, "qp": -3}, "qp is for coding with loss"),
        ({"lossless": True, "target_bytes": 3}, "target_bytes is for coding with loss"),
        ({"lossless": True, "fold_batch_norm": True}, "fold_batch_norm is for coding"),
        ({"lossless": True, "low_rank": LowRankConfig(energy=0.5)}, "low_rank is for coding"),
        ({"lossless": True, "entropy": "ans"}, "entropy 'ans' is for coding with loss"),
        (
            {"lossless": True, "tensors": {"w": TensorConfig(qp=3)}},
            "'w' is for coding with loss",
        ),
        ({"tensors": {"w": TensorConfig(coder="ans")}, "profile": "nnc"}, "has no rANS"),
        ({"tensors": {"w": 3}}, "expected a TensorConfig by pattern"),
        ({"keep": [3]}, "keep names 3"),
        ({"keep": ["v*"]}, r"no tensor has a name that fits 'v\*'"),
        ({"tensors": {"wx": TensorConfig(qp=3)}}, "do you mean w"),
    ],
)
def test_what_does_not_go_together(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        nnrcodec.encode({"w": np.ones((4, 5), np.float32)}, config=EncoderConfig(**arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"qp": 3, "scale": 2.0}, "qp and scale both decide"),
        ({"coder": "zip"}, "expected one of auto, cabac, ans, lossless or None"),
        ({"scan_order": 9}, "scan_order is 9"),
    ],
)
def test_settings_that_contradict_themselves(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TensorConfig(**arguments)  # type: ignore[arg-type]


def test_lossless_coding_refuses_inputs() -> None:
    with pytest.raises(ConfigError, match="omit calib"):
        nnrcodec.encode(network(), (PICTURE,), LOSSLESS, calib=[PICTURE])


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(REALS), SHAPES, st.integers(0, 99), st.integers(0, 3))
def test_updates_are_exact(dtype: str, shape: tuple[int, ...], seed: int, change: int) -> None:
    old = of_bits(dtype, shape, seed)
    words = bits(old).copy()
    if change == 1 and words.size and dtype != "bool":
        words.reshape(-1)[-1:] += words.dtype.type(1)  # which may wrap around
    new = Tensor.of("w", values_of(words, dtype), dtype) if change < 2 else of_bits(
        dtype, shape, seed + change
    )  # fmt: skip
    other = Tensor.of("same", np.ones((3, 4), np.float32))
    base = nnrcodec.encode(Model.of([old, other]), config=LOSSLESS)
    encoder = nnrcodec.UpdateEncoder(base, config=LOSSLESS)
    first, second = encoder.encode(Model.of([new, other])), encoder.encode(Model.of([old, other]))
    decoder = nnrcodec.UpdateDecoder()
    for stream, tensor in ((base, old), (first, new), (second, old)):
        decoder.decode(stream)
        assert np.array_equal(bits(decoder.network().tensors["w"]), bits(tensor))
    changed = not np.array_equal(bits(old), bits(new))
    assert [row.name for row in first.report.tensors] == ["w"] * changed
    assert first.report.lossless


def test_small_changes_make_small_updates() -> None:
    rng = np.random.default_rng(0)
    old = rng.normal(size=(100, 120)).astype(np.float32)
    new = old + (rng.normal(size=old.shape) * 1e-6).astype(np.float32)
    encoder = nnrcodec.UpdateEncoder(nnrcodec.encode({"w": old}, config=LOSSLESS), config=LOSSLESS)
    update = encoder.encode({"w": new})
    assert update.report.tensors[0].coding == "difference"
    assert len(update) < 0.25 * old.nbytes


def test_a_difference_alone_is_refused_but_in_an_update() -> None:
    values = np.random.default_rng(0).normal(size=600).astype(np.float32)
    data = nnrcodec.encode({"w": values}, config=LOSSLESS)
    units = list(read_units(data))
    for unit in units:
        if getattr(unit.body, "lossless_model", None) is not None:
            unit.body.lossless_model.difference_form = int(Difference.XOR)
            digest_is_of = unit.body
    assert digest_is_of.topology_elem_id == "w"
    with pytest.raises((UnitOrderError, nnrcodec.PayloadError)):
        nnrcodec.decode(b"".join(write_units(units)))


@pytest.mark.parametrize("options", [{"lossless": True}, {"profile": "nnc"}, {}])
def test_zero_bytes_in_names_come_back(options: dict[str, Any]) -> None:
    state = {"a\0b": np.arange(40.0), "a_b": np.ones(40), "\0": np.zeros(40)}
    data = nnrcodec.encode(state, config=EncoderConfig(**options)).data
    assert list(nnrcodec.decode(data)) == list(state)
