from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from fuzz import streams

import nnrcodec
from nnrcodec import EncoderConfig
from nnrcodec.config import Profile
from nnrcodec.encoder import ext
from nnrcodec.encoder.ext import encode_tensor
from nnrcodec.entropy.cabac.payload import PayloadDecoder
from nnrcodec.errors import (
    ConfigError,
    ModelError,
    PayloadError,
    SyntaxElementError,
    UnsupportedFeatureError,
)
from nnrcodec.model.dtypes import DTYPES, is_float
from nnrcodec.model.model import Tensor
from nnrcodec.quant.quantized import FEWEST_ELEMENTS, Quantized
from nnrcodec.quant.uniform import WEIGHT_STEPS, UniformConfig
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.extended_data_unit import Coding, ExtendedDataUnit, XduDataFormat
from nnrcodec.syntax.unit import NnrUnitHeader, Unit
from nnrcodec.units.xdu import decoded_dtype, tensor_qp
from nnrcodec.units.xdu_decoding import decode_extended_unit
from nnrcodec.units.xdu_encoding import encode_extended_reals

STATIC = EncoderConfig(entropy="ans")
HEADER = NnrUnitHeader(nnr_unit_type=NnrUnitType.NNR_XDU)
RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=(20, 30))


def coding_of(
    value: np.ndarray, dtype: str | None = None, config: EncoderConfig = STATIC
) -> int | None:
    """Return how a tensor is coded in an extended data unit; None if it is in one of the standard.

    It is checked that an extended data unit decodes to what the encoder says.
    """
    unit, expected = encode_tensor(Tensor.of("w", value, dtype), config)
    if unit.header.nnr_unit_type == NnrUnitType.NNR_NDU:
        return None
    decoded = decoded_value(unit, config.quantization.qp_density)
    assert decoded.shape == value.shape
    assert np.array_equal(decoded.astype(expected.dtype), expected) or dtype == "bfloat16"
    return unit.body.xdu_coding


def decoded_value(unit: Unit, qp_density: int) -> np.ndarray:
    context = StreamContext(qp_density=qp_density)
    (member,) = decode_extended_unit(replace(unit, context=context))
    return member.value


def round_trip(value: np.ndarray, config: EncoderConfig | None = None) -> np.ndarray:
    return nnrcodec.decode(nnrcodec.encode({"w": value}, config=config))["w"]


@pytest.mark.parametrize("dtype", [d for d in DTYPES if is_float(d)])
def test_floats_are_quantized(dtype: str) -> None:
    value = NORMAL.astype(DTYPES[dtype])
    if dtype == "bfloat16":
        value = (value.view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert coding_of(value, dtype) == Coding.ANS


@pytest.mark.parametrize("dtype", [d for d in DTYPES if DTYPES[d].kind in "iub"])
def test_small_integers_are_coded_without_loss(dtype: str) -> None:
    value = (np.arange(600) % 7 == 0).astype(DTYPES[dtype]).reshape(20, 30)
    assert coding_of(value) == Coding.ANS
    decoded = round_trip(value)
    assert decoded.dtype == value.dtype
    assert np.array_equal(decoded, value)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if DTYPES[d].kind in "iub"])
def test_the_ends_of_every_integer_dtype_come_back(dtype: str) -> None:
    held = DTYPES[dtype]
    ends = [False, True] if dtype == "bool" else [np.iinfo(held).min, np.iinfo(held).max]
    value = np.array(ends * 40, held)
    decoded = round_trip(value)
    assert decoded.dtype == held
    assert np.array_equal(decoded, value)


@pytest.mark.parametrize("dtype", ["int64", "uint32", "uint64"])
def test_integers_beyond_32_bits_are_stored(dtype: str) -> None:
    value = np.zeros(1000, DTYPES[dtype])
    value[3] = 2**31
    assert coding_of(value) == Coding.RAW


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bad", [math.inf, -math.inf])
def test_a_tensor_with_an_infinity_is_stored(dtype: str, bad: float) -> None:
    value = NORMAL.astype(dtype)
    value[2, 2] = bad
    assert coding_of(value) == Coding.RAW
    assert np.array_equal(round_trip(value), value)


@pytest.mark.parametrize("shape", [(3, 3), (40, 40)])
def test_a_tensor_with_a_nan_is_named_and_comes_back_bit_for_bit(shape: tuple[int, ...]) -> None:
    value = np.ones(shape, np.float32)
    value.view(np.uint32)[1, 1] = 0x7F800123  # with a payload
    result = nnrcodec.encode({"conv1.weight": value})
    assert nnrcodec.decode(result)["conv1.weight"].tobytes() == value.tobytes()
    (note,) = [note for note in result.report.notes if "conv1.weight" in note]
    assert f"1 of {value.size} values are NaN, the first at [1, 1]" in note
    assert result.report.tensors[0].relative_error == 0


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2)])
def test_an_empty_tensor_comes_back(shape: tuple[int, ...]) -> None:
    state = {"fc.bias": np.zeros(shape, np.float16), "w": NORMAL}
    decoded = nnrcodec.decode(nnrcodec.encode(state))
    assert list(decoded) == list(state)
    assert (decoded["fc.bias"].shape, decoded["fc.bias"].dtype) == (shape, np.float16)
    with pytest.raises(ModelError, match="nothing to code"):
        nnrcodec.encode({"fc.bias": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("shape", [(), (5,), (4, 6)])
@pytest.mark.parametrize("profile", ["ext", "nnc"])
def test_complex_numbers_come_back(dtype: type, shape: tuple[int, ...], profile: Profile) -> None:
    value = np.asarray(RNG.normal(size=shape) + 1j * RNG.normal(size=shape), dtype)
    result = nnrcodec.encode({"w": value}, config=EncoderConfig(profile=profile))
    decoded = nnrcodec.decode(result)["w"]
    assert (decoded.dtype, decoded.shape) == (dtype, shape)
    assert decoded.tobytes() == value.tobytes()
    assert result.report.tensors[0].shape == shape


def test_a_value_far_beyond_all_others_does_not_cost_these() -> None:
    value = NORMAL.astype(np.float32)
    value[3, 1] = 1e20
    result = nnrcodec.encode({"conv.weight": value})
    assert nnrcodec.decode(result)["conv.weight"].tobytes() == value.tobytes()
    (note,) = [note for note in result.report.notes if "conv.weight" in note]
    assert f"1 of {value.size} values are far beyond all others, the first at [3, 1]" in note
    ordinary = np.where(value > 1e10, 10 * NORMAL.std(), value)
    assert nnrcodec.encode({"w": ordinary}).report.tensors[0].relative_error > 0


def test_scales_beside_integers_are_exact() -> None:
    state = {
        "a.q": RNG.integers(-99, 99, (30, 40)).astype(np.int8),
        "a.scale": RNG.normal(size=30).astype(np.float16),
        "b.weight": RNG.integers(0, 255, (30, 40)).astype(np.uint8),
        "b.weight_scale": RNG.normal(size=(30, 1)).astype(np.float32),
        "c.scale": RNG.normal(size=30).astype(np.float32),
    }
    for profile in ("ext", "nnc"):
        decoded = nnrcodec.decode(nnrcodec.encode(state, config=EncoderConfig(profile=profile)))
        same = {name for name in state if np.array_equal(decoded[name], state[name])}
        assert same == {"a.q", "a.scale", "b.weight", "b.weight_scale"}


@pytest.mark.parametrize("dtype", ["U3", object, "datetime64[s]"])
def test_other_dtypes_are_refused_by_name(dtype: type | str) -> None:
    with pytest.raises(ModelError, match=r"'fft.weight' has dtype .* cannot be coded"):
        nnrcodec.encode({"fft.weight": np.zeros(20, dtype)})


@pytest.mark.parametrize("shape", [(), (1,), (FEWEST_ELEMENTS - 1,), (3, 5)])
def test_tiny_float_tensors_are_stored(shape: tuple[int, ...]) -> None:
    value = RNG.normal(size=shape).astype(np.float32)
    value = np.asarray(value, np.float32)
    assert coding_of(value) == Coding.RAW
    assert np.array_equal(round_trip(value), value)


@pytest.mark.parametrize("value", [5, -(2**31), 2**63 - 1, True, 2.5])
def test_scalars_come_back(value: float) -> None:
    decoded = round_trip(np.array(value))
    assert decoded.shape == ()
    assert decoded == value
    assert decoded.dtype == np.array(value).dtype


def test_values_that_quantization_would_push_out_of_float16_are_stored() -> None:
    value = np.full((20, 20), 65504, np.float16)
    coarse = EncoderConfig(entropy="ans", quantization=UniformConfig(qp=4 * 15 + 1))
    assert coding_of(value, config=coarse) == Coding.RAW


def test_float64_beyond_float32_is_stored() -> None:
    for scale in (1e300, 1e-300, 1e35, 1e-35):
        assert coding_of(NORMAL * scale) == Coding.RAW
        assert np.array_equal(round_trip(NORMAL * scale), NORMAL * scale)


@pytest.mark.parametrize("scale", [2.0**-95, 1e-20, 1e20, 2.0**95])
def test_floats_within_the_extremes_are_quantized(scale: float) -> None:
    assert coding_of(NORMAL * scale) == Coding.ANS
    error = np.abs(round_trip(NORMAL * scale, STATIC) - NORMAL * scale).max()
    assert error <= scale * NORMAL.std() / WEIGHT_STEPS


def test_tensors_of_any_scale_keep_the_same_precision() -> None:
    state = {"loud": NORMAL * np.float32(1e25), "soft": NORMAL * np.float32(1e-25)}
    decoded = nnrcodec.decode(nnrcodec.encode(state, config=STATIC))
    for name, value in state.items():
        rms = np.sqrt(np.mean(np.square(value, dtype=np.float64)))
        assert np.abs(decoded[name] - value.astype(np.float64)).max() <= rms / WEIGHT_STEPS / 2


def test_subnormals_among_ordinary_values_become_zero() -> None:
    value = NORMAL.astype(np.float32)
    value[0, 0] = 1e-44
    assert round_trip(value)[0, 0] == 0


def test_zeros_stay_zero_and_take_a_few_bytes() -> None:
    value = np.zeros((1000, 1000), np.float32)
    unit, _ = encode_tensor(Tensor.of("w", value), STATIC)
    assert unit.body.xdu_coding == Coding.ANS
    assert unit.payload == b""
    assert not round_trip(value).any()


def test_noise_is_stored_rather_than_enlarged() -> None:
    value = np.random.default_rng(1).integers(0, 256, 4000).astype(np.uint8)
    assert coding_of(value) == Coding.RAW


@pytest.mark.parametrize("config", [STATIC, EncoderConfig(), EncoderConfig(entropy="cabac")])
@pytest.mark.parametrize("elements", range(1, 60, 3))
def test_a_tensor_never_takes_more_than_its_values_and_a_small_header(
    elements: int, config: EncoderConfig
) -> None:
    rng = np.random.default_rng(elements)
    for value in (rng.normal(size=elements).astype(np.float16), rng.integers(-99, 99, elements)):
        unit, _ = encode_tensor(Tensor.of("w", value), config)
        start = streams.units_of(streams.tensors_only())[:2]
        size = len(streams.stream_of([*start, unit])) - len(streams.stream_of(start))
        assert size <= value.nbytes + 12


def test_a_step_too_fine_is_refused_by_name() -> None:
    quantization = UniformConfig(qp=-120)
    for config in (EncoderConfig(quantization=quantization, dq=dq) for dq in (False, True)):
        with pytest.raises(ConfigError, match=r"tensor 'w': .* is too fine .* works"):
            nnrcodec.encode({"w": NORMAL}, config=config)


def test_arrays_in_any_memory_order_give_the_same_stream() -> None:
    value = NORMAL.astype(np.float32)
    reference = nnrcodec.encode({"w": value})
    assert nnrcodec.encode({"w": np.asfortranarray(value)}) == reference
    assert nnrcodec.encode({"w": value.astype(">f4")}) == reference
    assert nnrcodec.encode({"w": np.repeat(value, 2, axis=1)[:, ::2]}) == reference


def unit_and_size(value: np.ndarray, config: EncoderConfig) -> tuple[Unit, int]:
    unit, _ = encode_tensor(Tensor.of("w", value), config)
    return unit, len(nnrcodec.encode({"w": value}, config=config))


@pytest.mark.parametrize("name", ["normal", "few", "sparse", "integers", "rows"])
def test_auto_takes_the_smaller_coder(name: str) -> None:
    rng = np.random.default_rng(5)
    value = {
        "normal": rng.normal(size=(60, 50)),
        "few": rng.integers(0, 2, (16, 3)) * 1.0,
        "sparse": rng.normal(size=(60, 50)) * (rng.random((60, 50)) < 0.05),
        "integers": rng.integers(-4, 5, (40, 40)),
        "rows": rng.normal(size=(40, 50)) * np.exp2(rng.integers(0, 7, (40, 1))),
    }[name]
    sizes = {
        entropy: unit_and_size(value, EncoderConfig(entropy=entropy, dq=False))[1]
        for entropy in ("auto", "cabac", "ans")
    }
    assert sizes["auto"] == min(sizes.values())


def test_dependent_quantization_is_taken_for_its_better_trade() -> None:
    value = np.random.default_rng(5).laplace(size=(100, 200)).astype(np.float32)
    unit, size = unit_and_size(value, EncoderConfig())
    assert unit.header.nnr_unit_type == NnrUnitType.NNR_NDU
    assert unit.body.dq_flag == 1
    assert size < unit_and_size(value, STATIC)[1]


def test_a_qp_that_is_given_is_the_one_in_the_stream() -> None:
    for config, coded in (
        (EncoderConfig(quantization=UniformConfig(qp=-9)), NnrUnitType.NNR_NDU),
        (EncoderConfig(quantization=UniformConfig(qp=-9), entropy="ans"), NnrUnitType.NNR_XDU),
    ):
        unit, _ = encode_tensor(Tensor.of("w", NORMAL), config)
        assert unit.header.nnr_unit_type == coded
        if coded == NnrUnitType.NNR_XDU:
            assert unit.body.quantization_parameter_offset == -9
        else:
            assert PayloadDecoder(unit.payload).qp_offset(2) == -9


def test_a_tensor_whose_qp_no_unit_of_the_standard_can_carry_goes_through_static_tables() -> None:
    assert coding_of(NORMAL * 1e-15, config=EncoderConfig()) == Coding.ANS
    assert coding_of(NORMAL * 1e-15, config=EncoderConfig(entropy="cabac")) == Coding.RAW


def test_a_qp_that_no_unit_of_the_standard_can_carry_is_refused_or_goes_through_tables() -> None:
    quantization = UniformConfig(qp=-200)
    value = NORMAL * 1e-13
    assert coding_of(value, config=EncoderConfig(quantization=quantization)) == Coding.ANS
    config = EncoderConfig(quantization=quantization, entropy="cabac")
    with pytest.raises(ConfigError, match="'w': qp -200 does not fit"):
        nnrcodec.encode({"w": value}, config=config)


def test_a_codebook_is_kept_where_it_is_smaller() -> None:
    values = np.array([-31.0, 0.25, 3, 100, 1000], np.float32)
    value = values[np.random.default_rng(2).integers(0, 5, (50, 40))]
    unit, size = unit_and_size(value, EncoderConfig(codebook=True, dq=False))
    assert unit.body.codebook_present_flag == 1
    assert size < unit_and_size(value, EncoderConfig(dq=False))[1]
    smooth, _ = unit_and_size(NORMAL, EncoderConfig(codebook=True, dq=False))
    assert not getattr(smooth.body, "codebook_present_flag", 0)


def raw_unit(dtype: XduDataFormat, *dimensions: int) -> ExtendedDataUnit:
    return ExtendedDataUnit(
        topology_elem_id="w",
        xdu_data_format=dtype,
        count_tensor_dimensions=len(dimensions),
        tensor_dimensions=list(dimensions),
    )


@pytest.mark.parametrize("length", [0, 23, 25])
def test_raw_values_of_another_length_are_refused(length: int) -> None:
    unit = Unit(HEADER, raw_unit(XduDataFormat.FLOAT32, 2, 3), bytes(length))
    with pytest.raises(PayloadError, match=f"{length} bytes of raw values, expected 24"):
        decoded_value(unit, 0)


@pytest.mark.parametrize("data_format", [2, 3, 4, 10, 63, 70, 127])
def test_reserved_data_formats_are_not_supported(data_format: int) -> None:
    unit = raw_unit(XduDataFormat.FLOAT32, 1)
    unit.xdu_data_format = data_format
    with pytest.raises(UnsupportedFeatureError, match=f"'w' has xdu_data_format {data_format}"):
        decoded_dtype(unit)


@pytest.mark.parametrize("wrong", [XduDataFormat.INT32, XduDataFormat.FLOAT16, XduDataFormat.BOOL])
def test_quantized_levels_of_another_data_format_are_refused(wrong: XduDataFormat) -> None:
    unit, _ = encode_tensor(Tensor.of("w", NORMAL), STATIC)
    unit.body.xdu_data_format = wrong
    with pytest.raises(SyntaxElementError, match=f"do not decode to {wrong.name.lower()}"):
        decoded_value(unit, 2)


@pytest.mark.parametrize("offset", [-65536, -509, 508, 65535])
def test_a_step_size_that_float32_cannot_hold_is_refused(offset: int) -> None:
    unit, _ = encode_tensor(Tensor.of("w", NORMAL), STATIC)
    unit.body.quantization_parameter_offset = offset
    with pytest.raises(SyntaxElementError, match="which float32 cannot hold"):
        decoded_value(unit, 2)


def test_the_qp_of_a_tensor_is_the_sum_of_both() -> None:
    unit = raw_unit(XduDataFormat.FLOAT32, 1)
    unit.quantization_parameter_offset = -30
    assert tensor_qp(unit, 7, 2) == -23


def test_a_coding_of_a_newer_minor_version_is_not_supported() -> None:
    cases = (0, 2, SyntaxElementError), (0, 3, SyntaxElementError), (1, 3, UnsupportedFeatureError)
    for minor, coding, error in cases:
        data = bytearray(nnrcodec.encode({"w": NORMAL}, config=STATIC))
        start = nnrcodec.inspect(bytes(data)).units[3].bit_offset // 8
        header = data.index(b"w\0", start)  # its version stands before the name, its coding after
        data[header - 1] = data[header - 1] & 0xF0 | minor
        data[header + 2] = data[header + 2] & 0x3F | coding << 6
        with pytest.raises(error):
            nnrcodec.decode(bytes(data))


@pytest.mark.parametrize("shape", [(256,), (64, 64, 3, 3)])
def test_rans_is_tried_only_where_it_may_be_better(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def counted(name: str, quantized: Quantized) -> Unit:
        tried.append(name)
        return encode_extended_reals(name, quantized)

    monkeypatch.setattr(ext, "encode_extended_reals", counted)
    centred = Tensor.of("centred", np.random.default_rng(3).laplace(size=shape).astype(np.float32))
    gains = Tensor.of("gains", (1 + 0.05 * np.asarray(centred.read())).astype(np.float32))
    encode_tensor(centred, EncoderConfig())
    assert tried == []
    unit, _ = encode_tensor(gains, EncoderConfig())
    assert tried == ["gains"]
    assert unit.header.nnr_unit_type == NnrUnitType.NNR_XDU
