"""Profile nnc: what its streams may have, and how what the standard has no room for gets in."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, Network

import nnrcodec
from nnrcodec import EncoderConfig, UniformConfig
from nnrcodec.container.stream import CLOSING_STORAGE_FORMAT, RECORD_STORAGE_FORMAT, read_stream
from nnrcodec.decoder.pipeline import decode_stream
from nnrcodec.encoder.grouping import coded_names
from nnrcodec.encoder.pipeline import encode_model
from nnrcodec.entropy.cabac.config import CabacConfig
from nnrcodec.entropy.cabac.level_syntax import effective_scan_order
from nnrcodec.errors import ConfigError
from nnrcodec.limits import Limits
from nnrcodec.model.dtypes import DTYPES, is_float
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.syntax.constants import NnrCompressedDataUnitPayloadType as PayloadType
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.data_unit import NnrCompressedDataUnitHeader
from nnrcodec.units.ndu import members_of

RNG = np.random.default_rng(0)
NNC = EncoderConfig(profile="nnc")


def headers_of(data: bytes) -> list[NnrCompressedDataUnitHeader]:
    return [unit.body for unit in read_stream(data).of_type(NnrUnitType.NNR_NDU)]


def check_stream(data: bytes) -> None:
    """Check everything that deployed decoders need of a stream."""
    stream = read_stream(data)
    types = [unit.header.nnr_unit_type for unit in stream.units]
    assert types[:3] == [NnrUnitType.NNR_STR, NnrUnitType.NNR_MPS, NnrUnitType.NNR_TPL]
    start, parameters, topology, *units = stream.units
    (closing,) = (unit for unit in units if unit.header.nnr_unit_type == NnrUnitType.NNR_TPL)
    units.remove(closing)
    assert {unit.header.nnr_unit_type for unit in units} <= {NnrUnitType.NNR_NDU}
    assert start.body.general_profile_idc == 1
    assert parameters.body.mps_quantization_method_flags & 3
    assert parameters.body.mps_quantization_parameter == 0
    assert topology.body.topology_storage_format == RECORD_STORAGE_FORMAT
    assert closing.body.topology_storage_format == CLOSING_STORAGE_FORMAT
    for data in (topology.body.topology_data, closing.body.topology_data):
        assert data.find(b"\0") == len(data) - 1
    names = []
    for unit in units:
        header = unit.body
        assert (header.input_parameters_present_flag, header.tensor_dimensions_flag) == (1, 1)
        assert 0 not in header.tensor_dimensions
        assert header.count_tensor_dimensions >= 1
        assert header.scan_order == effective_scan_order(
            header.tensor_dimensions, header.scan_order
        )
        raw = header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_RAW_FLOAT
        assert not raw or unit is stream.units[-1]
        assert not (header.codebook_present_flag and header.dq_flag)
        if parameters.body.mps_parent_signalling_enabled_flag:
            assert header.nnr_compressed_data_unit_payload_type != PayloadType.NNR_PT_BLOCK
        names += [member.name for member in members_of(header)]
    assert not any(name.endswith(("_G", "_H")) for name in names)
    assert len(set(names)) == len(names)


def round_trip(
    state: dict[str, np.ndarray], config: EncoderConfig = NNC
) -> tuple[dict[str, np.ndarray], list[NnrCompressedDataUnitHeader]]:
    data = nnrcodec.encode(state, config=config)
    check_stream(data)
    decoded = nnrcodec.decode(data)
    assert list(decoded) == list(state)
    for name, value in state.items():
        assert decoded[name].dtype == np.asarray(value).dtype
        assert decoded[name].shape == np.shape(value)
    return decoded, headers_of(data)


CONFIGS = st.builds(
    EncoderConfig,
    profile=st.sampled_from(["nnc", "ext"]),
    entropy=st.sampled_from(["auto", "cabac"]),
    quantization=st.sampled_from([UniformConfig(), UniformConfig(qp=-12, qp_density=3)]),
    dq=st.booleans(),
    codebook=st.booleans(),
    blocks=st.booleans(),
    cabac=st.builds(
        CabacConfig,
        scan_order=st.integers(0, 4),
        cabac_unary_length=st.sampled_from([None, 1, 11]),
        row_skipping=st.booleans(),
        optimise_parameters=st.booleans(),
    ),
    threads=st.sampled_from([1, 2]),
)
SHAPES = st.lists(st.integers(1, 9), max_size=4).map(tuple)
NAMES = st.sampled_from(
    ["a.weight", "a.bias", "b_G", "b_H", "b_G_", "x", "größe", "weight", "bias"]
)
KINDS = st.sampled_from(["normal", "zeros", "tiny", "huge", "sparse", "rows", "ends", "denormal"])


def values_of(kind: str, dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return values, nasty ones among them, that profile nnc can have."""
    rng = np.random.default_rng(seed)
    held = DTYPES[dtype]
    if dtype == "bool":
        return rng.random(shape) < 0.3
    if held.kind == "c":
        return np.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape), held)
    if not is_float(dtype):
        info = np.iinfo(held)
        low, high = max(info.min, -(2**31)), min(info.max, 2**31 - 1)
        if kind in ("ends", "huge"):
            return rng.choice(np.array([low, high, 0]), shape).astype(held)
        return np.clip(rng.integers(-9, 9, shape), low, high).astype(held)
    normal = rng.normal(size=shape)
    scaled = {
        "normal": normal,
        "zeros": normal * 0,
        "tiny": normal * 1e-6,
        "huge": normal * 1e4,
        "sparse": normal * (rng.random(shape) < 0.1),
        "rows": normal * (rng.random(shape[:1] + (1,) * (len(shape) - 1)) < 0.4),
        "ends": rng.choice(np.array([6e4, -6e4, 1, 0]), shape),
        "denormal": np.where(rng.random(shape) < 0.5, 1e-40, normal),
    }[kind]
    return np.asarray(scaled, held)


@settings(max_examples=120, deadline=None)
@given(
    st.dictionaries(
        NAMES,
        st.tuples(SHAPES, st.sampled_from([d for d in DTYPES if d != "bfloat16"]), KINDS),
        min_size=1,
        max_size=4,
    ),
    CONFIGS,
    st.integers(0, 10**6),
)
def test_tensors_come_back(
    tensors: dict[str, tuple[tuple[int, ...], str, str]], config: EncoderConfig, seed: int
) -> None:
    state = {
        name: values_of(kind, dtype, shape, seed) for name, (shape, dtype, kind) in tensors.items()
    }
    data = nnrcodec.encode(state, config=config)
    if config.profile == "nnc":
        check_stream(data)
    decoded = nnrcodec.decode(data)
    assert list(decoded) == list(state)
    for name, value in state.items():
        assert decoded[name].dtype == value.dtype
        assert decoded[name].shape == value.shape
        if value.dtype.kind != "f":
            assert np.array_equal(decoded[name], value)
            continue
        assert np.isfinite(decoded[name]).all()
        if config.quantization.qp is None:
            rms = math.sqrt(np.mean(np.square(value, dtype=np.float64)))
            error = np.abs(value.astype(np.float64) - decoded[name].astype(np.float64)).max()
            assert error <= 0.75 * rms + 2.0**-14


def test_scalars_have_one_dimension_in_the_stream_and_none_outside() -> None:
    state = {"steps": np.array(12345), "scale": np.float32(0.5), "on": np.array(True)}
    decoded, headers = round_trip(state)
    assert [header.tensor_dimensions for header in headers] == [[1], [1], [1]]
    assert all(decoded[name] == value for name, value in state.items())


@pytest.mark.parametrize("value", [0.5, -3.0, 1e-3, 65504.0, 0.1, 1 / 3, 2.0**-30])
def test_scalars_are_exact_or_nearly_so(value: float) -> None:
    decoded, _ = round_trip({"s": np.float32(value)})
    assert decoded["s"] == pytest.approx(value, rel=2**-13)
    if math.log2(abs(value)).is_integer():
        assert decoded["s"] == value


@pytest.mark.parametrize("size", [1, 40])
def test_numbers_below_those_of_float32_come_back_nearly(size: int) -> None:
    decoded, _ = round_trip({"s": np.full(size, 1e-40)})
    assert decoded["s"].dtype == np.float64
    np.testing.assert_allclose(decoded["s"], 1e-40, rtol=1e-4)


def test_all_dtypes_come_back() -> None:
    tensors = []
    for dtype in DTYPES:
        value = (np.arange(40) % 7 % 2).astype(DTYPES[dtype])
        tensors.append(Tensor.of(dtype, value, dtype, Role.BUFFER))
    data = encode_model(Model.of(tensors), NNC).data
    check_stream(data)
    found = decode_stream(data, Limits()).tensors
    assert [(t.name, t.dtype, t.role) for t in found.values()] == [
        (t.name, t.dtype, t.role) for t in tensors
    ]
    for tensor in tensors:
        assert np.abs(found[tensor.name].read() * 1.0 - tensor.read()).max() < 0.01


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**62])
def test_integers_beyond_32_bits_are_coded_as_patterns(value: int) -> None:
    assert_pattern(np.array([0, value]))


# Names.


def test_names_that_decoders_take_for_parts_are_changed_in_the_stream_only() -> None:
    state = {name: RNG.normal(size=(5, 4)).astype(np.float32) for name in ("w_G", "w_H", "w_G_")}
    _, headers = round_trip(state)
    assert [header.topology_elem_id for header in headers] == ["w_G__", "w_H_", "w_G_"]


def test_coded_names_do_not_depend_on_luck() -> None:
    assert coded_names(["a_G", "a_G_", "a_H", "b"], ("_G", "_H")) == {"a_G": "a_G__", "a_H": "a_H_"}
    assert coded_names(["G", "weight", "_G"], ("_G", "_H")) == {"_G": "_G_"}


# Values without a step size.


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_one_tensor_with_an_infinity_is_stored_at_the_end(dtype: str) -> None:
    state = {
        "a": np.array([0, -np.inf, 7], dtype),
        "b": RNG.normal(size=(5, 5)).astype(np.float32),
    }
    decoded, headers = round_trip(state)
    assert headers[-1].topology_elem_id == "a"
    assert np.array_equal(decoded["a"], state["a"])


def test_of_two_tensors_with_infinities_one_is_stored_and_the_other_coded_as_patterns() -> None:
    state = {name: np.float32([0, np.inf]) for name in ("mask", "other")}
    decoded, headers = round_trip(state)
    types = [header.nnr_compressed_data_unit_payload_type for header in headers]
    assert types == [PayloadType.NNR_PT_INT, PayloadType.NNR_PT_RAW_FLOAT]
    assert all(np.array_equal(decoded[name], state[name]) for name in state)


def test_doubles_beyond_float32_are_coded_as_patterns() -> None:
    assert_pattern(np.array([1e300, 1]))


def test_nan_are_coded_as_patterns() -> None:
    assert_pattern(np.float32([1, np.nan]))
    assert_pattern(np.float16([[1, np.nan]]))
    assert_pattern(np.array(np.nan))


def assert_pattern(value: np.ndarray) -> None:
    """Check that a tensor comes back bit for bit, and that it is said how."""
    result = nnrcodec.encode({"w": value}, config=NNC)
    assert any("'w'" in note and "bit patterns" in note for note in result.report.notes)
    check_stream(result)
    decoded = nnrcodec.decode(result)["w"]
    assert (decoded.dtype, decoded.shape) == (value.dtype, value.shape)
    assert decoded.tobytes() == value.tobytes()


def test_a_block_with_an_infinity_is_no_block() -> None:
    state = {
        "c.weight": RNG.normal(size=(5, 5)).astype(np.float32),
        "c.bias": np.float32([1, 2, 3, 4, np.inf]),
    }
    decoded, headers = round_trip(state)
    assert [header.topology_elem_id for header in headers] == ["c.weight", "c.bias"]
    assert np.array_equal(decoded["c.bias"], state["c.bias"])


def test_values_below_all_step_sizes_become_zero_and_this_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    value = np.float32(1e-20) * RNG.normal(size=(20, 20)).astype(np.float32)
    with caplog.at_level(logging.WARNING, "nnrcodec"):
        decoded, _ = round_trip({"w": value})
    assert not decoded["w"].any()
    assert "'w': its values are small" in caplog.text


@pytest.mark.parametrize("qp", [-129, 128, 300])
def test_a_qp_that_does_not_fit_is_refused_by_name(qp: int) -> None:
    config = EncoderConfig(profile="nnc", quantization=UniformConfig(qp=qp))
    with pytest.raises(ConfigError, match=f"'w': qp {qp} does not fit"):
        nnrcodec.encode({"w": np.eye(9, dtype=np.float32)}, config=config)


@pytest.mark.parametrize("dq", [False, True])
def test_values_at_the_end_of_float16_stay_finite(dq: bool) -> None:
    config = EncoderConfig(profile="nnc", dq=dq, quantization=UniformConfig(qp=4 * 15 + 1))
    decoded, _ = round_trip({"w": np.full((20, 20), 65504, np.float16)}, config)
    assert np.isfinite(decoded["w"]).all()


# Blocks.


def test_a_kernel_and_its_bias_share_a_unit() -> None:
    state = {
        "a.weight": RNG.normal(size=(8, 4, 3, 3)).astype(np.float32),
        "a.bias": RNG.normal(size=8).astype(np.float32),
        "ln.weight": RNG.normal(size=8).astype(np.float32),
        "ln.bias": RNG.normal(size=8).astype(np.float32),
        "t.weight": RNG.normal(size=(4, 6)).astype(np.float32),
        "t.bias": RNG.normal(size=6).astype(np.float32),
        "h.weight": RNG.normal(size=(4, 6)).astype(np.float16),
        "h.bias": RNG.normal(size=4).astype(np.float16),
    }
    _, headers = round_trip(state)
    first, *others = headers
    assert first.topology_elements_ids_list is not None
    assert first.topology_elements_ids_list.topology_elem_id_list == ["a.weight", "a.bias"]
    assert all(header.topology_elements_ids_list is None for header in others)
    _, lone = round_trip(state, EncoderConfig(profile="nnc", blocks=False))
    assert len(lone) == len(state)


def test_batch_norms_of_a_graph_share_the_unit_of_their_convolution() -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU()
    ).eval()
    data = nnrcodec.encode(module, (torch.zeros(1, 2, 8, 8),), NNC)
    check_stream(data)
    blocks = [h for h in headers_of(data) if h.topology_elements_ids_list is not None]
    assert [h.topology_elements_ids_list.topology_elem_id_list for h in blocks] == [  # type: ignore[union-attr]
        ["0.weight", "1.bias", "1.weight", "1.running_mean", "1.running_var", "0.bias"]
    ]
    decoded = nnrcodec.decode(data)
    assert list(decoded) == list(module.state_dict())
    assert decoded["1.num_batches_tracked"].shape == ()


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.name)
def test_networks_run_after_profile_nnc(network: Network) -> None:
    original = network.module()
    data = nnrcodec.encode(original, (network.example(),), NNC)
    check_stream(data)
    decoded = nnrcodec.decode_model(data)
    nnrcodec.load_into(original, data)
    example = network.example()
    # channels are last in one of them, so that sums may be taken in another order
    torch.testing.assert_close(decoded(example), original(example), atol=1e-5, rtol=1e-5)


# The whole stream.


@pytest.mark.parametrize("profile", ["ext", "nnc"])
def test_the_stream_does_not_depend_on_threads(profile: str) -> None:
    state = {
        f"{i}.{name}": value
        for i in range(6)
        for name, value in {
            "weight": RNG.normal(size=(12, 9 + i)).astype(np.float32),
            "bias": RNG.normal(size=12).astype(np.float32),
            "mask": RNG.random((9, 9)) < 0.5,
        }.items()
    }
    streams = {
        nnrcodec.encode(state, config=EncoderConfig(profile=profile, threads=threads))  # type: ignore[arg-type]
        for threads in (1, 4)
    }
    assert len(streams) == 1


def test_codebooks_are_signalled() -> None:
    config = EncoderConfig(profile="nnc", codebook=True, dq=False)
    values = np.float32([0, 0.25, -7, 1000])
    state = {"w": values[RNG.integers(0, 4, (60, 40))]}
    data = nnrcodec.encode(state, config=config)
    check_stream(data)
    (header,) = headers_of(data)
    assert header.codebook_present_flag == 1
    (parameters,) = read_stream(data).of_type(NnrUnitType.NNR_MPS)
    assert parameters.body.mps_quantization_method_flags == 3
    assert nnrcodec.decode(data)["w"].dtype == np.float32
