from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from data_units import (
    FLOAT,
    INT,
    RAW_FLOAT,
    block_of,
    coded,
    header_of,
    stream_of,
    unit_of,
    update_of,
)

from nnrcodec.entropy.cabac.level_syntax import LevelParameters
from nnrcodec.errors import (
    BitstreamError,
    PayloadError,
    SyntaxElementError,
    UnitOrderError,
    UnsupportedFeatureError,
)
from nnrcodec.syntax.data_unit import Codebook
from nnrcodec.syntax.unit import Unit, read_units
from nnrcodec.units.ndu import TensorHistory
from nnrcodec.units.ndu_decoding import DecodedMember, decode_data_unit

RNG = np.random.default_rng(15938)


def decode(
    unit: Unit,
    histories: dict[str, TensorHistory] | None = None,
    *,
    profile: int = 1,
    update: int = 0,
    keep_levels: bool = False,
    threads: int = 1,
    **parameters: int,
) -> list[DecodedMember]:
    """Decode a unit after it went through a stream."""
    *_, read = read_units(stream_of(unit, profile=profile, update=update, **parameters))
    return decode_data_unit(read, histories, keep_levels=keep_levels, threads=threads)


def random_levels(*shape: int, scale: float = 3.0) -> np.ndarray:
    return RNG.laplace(size=shape, scale=scale).round().astype(np.int32)


# Values.


@pytest.mark.parametrize("profile", [0, 1])
def test_uniform_levels(profile: int) -> None:
    levels = random_levels(5, 6, 2)
    (decoded,) = decode(coded(header_of("w", 5, 6, 2), {"w": levels}, -9, profile=profile),
                        profile=profile)  # fmt: skip
    assert decoded.value.dtype == np.float32
    assert np.array_equal(decoded.value, levels.astype(np.float32) * np.float32(0.21875))
    assert decoded.levels is None


def test_the_product_is_rounded_once_in_binary32() -> None:
    levels = np.array([2**24 + 1, 2**24 + 3, 33554435, -(2**31) + 1], np.int32)
    (decoded,) = decode(coded(header_of("w", 4), {"w": levels}, -7))
    assert np.array_equal(decoded.value, levels.astype(np.float32) * np.float32(0.3125))


def test_integers_have_no_quantization_parameter() -> None:
    levels = np.array([-(2**31) + 1, 2**31 - 1, 0, 5], np.int32)
    header = header_of("n", 4, nnr_compressed_data_unit_payload_type=INT)
    (decoded,) = decode(coded(header, {"n": levels}), mps_quantization_method_flags=0,
                        mps_qp_density=0)  # fmt: skip
    assert decoded.value.dtype == np.int32
    assert np.array_equal(decoded.value, levels)


def test_raw_values() -> None:
    values = np.array([[1.5, -0.0], [np.inf, 1e-40]], np.float32)
    header = header_of("w", 2, 2, nnr_compressed_data_unit_payload_type=RAW_FLOAT)
    (decoded,) = decode(unit_of(header, values.astype("<f4").tobytes()), keep_levels=True)
    assert decoded.value.tobytes() == values.tobytes()
    assert decoded.levels is None


def codebook_of(entries: list[int], zero: int) -> Codebook:
    left = [b - a - 1 for a, b in pairwise(entries[: zero + 1])]
    right = [b - a - 1 for a, b in pairwise(entries[zero:])]
    offset = zero - (len(entries) >> 1)
    return Codebook(3, len(entries), offset, entries[zero], left[::-1], right)


@pytest.mark.parametrize("profile", [0, 1])
def test_codebooks(profile: int) -> None:
    entries, zero = [-9, -2, 0, 1, 40], 2
    levels = RNG.integers(-2, 3, (6, 7)).astype(np.int32)
    header = header_of("w", 6, 7, codebook_present_flag=1, codebook=codebook_of(entries, zero))
    unit = coded(header, {"w": levels}, -7, profile=profile)
    (decoded,) = decode(unit, profile=profile, keep_levels=True)
    assert decoded.value.dtype == np.float64
    assert np.array_equal(decoded.value, np.array(entries)[levels + zero] * 0.3125)
    assert decoded.levels is not None
    assert np.array_equal(decoded.levels, levels)


def test_the_quantization_parameter_of_the_stream_is_added() -> None:
    unit = coded(header_of("w", 3), {"w": [1, 2, 3]}, -8)
    (decoded,) = decode(unit, mps_quantization_parameter=12)
    assert decoded.value.tolist() == [2, 4, 6]


def test_blocks_have_a_quantization_parameter_a_tensor() -> None:
    levels = {"w": random_levels(4, 5), "b": random_levels(4), "s": random_levels(4)}
    header = block_of(["w", "s", "b"], 4, 5, types=2 | 8)
    decoded = decode(coded(header, levels, {"w": -8, "b": -12, "s": 4}))
    assert [d.member.name for d in decoded] == ["s", "b", "w"]
    for found, step in zip(decoded, (2.0, 0.125, 0.25), strict=True):
        assert np.array_equal(found.value, levels[found.member.name] * np.float32(step))


def test_decomposed_blocks() -> None:
    levels = {"w_G": random_levels(20, 3), "w_H": random_levels(3, 18), "b": random_levels(20)}
    header = block_of(
        ["w_G", "w_H", "b"],
        *(20, 6, 3),
        types=1 | 8,
        decomposition_rank=3,
        g_number_of_rows=20,
        scan_order=1,
    )
    decoded = decode(coded(header, levels))
    assert [d.value.shape for d in decoded] == [(20,), (20, 3), (3, 18)]
    for found in decoded:
        assert np.array_equal(found.value, levels[found.member.name] * np.float32(0.25))


@pytest.mark.parametrize("scan_order", [1, 2, 3, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_of_levels_in_threads(scan_order: int, threads: int) -> None:
    levels = random_levels(150, 70)
    unit = coded(header_of("w", 150, 70, scan_order=scan_order), {"w": levels})
    (decoded,) = decode(unit, threads=threads)
    assert np.array_equal(decoded.value, levels * np.float32(0.25))


def test_kept_levels_are_a_copy() -> None:
    levels = random_levels(5, 5)
    for payload_type in (INT, FLOAT):
        header = header_of("w", 5, 5, nnr_compressed_data_unit_payload_type=payload_type)
        (decoded,) = decode(coded(header, {"w": levels}), keep_levels=True)
        assert decoded.levels is not None
        assert not np.shares_memory(decoded.levels, decoded.value)
        assert np.array_equal(decoded.levels, levels)


def test_a_tensor_takes_little_more_than_its_own_memory() -> None:
    unit = coded(header_of("w", 1000, 2000), {"w": np.zeros((1000, 2000))})
    decode(unit)
    tracemalloc.start()
    try:
        decode(unit)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * 4 * 1000 * 2000


# Updates.


def history_of(levels: np.ndarray, depth: int = 1, **ids: int) -> dict[str, TensorHistory]:
    return {"w": TensorHistory(levels, levels != 0, put_node_depth=depth, **ids)}


def test_levels_may_depend_on_those_of_the_update_before() -> None:
    before = history_of(random_levels(8, 9), depth=3)
    levels = before["w"].levels + random_levels(8, 9, scale=0.4)
    header = update_of("w", 8, 9, depth=4, temporal=1)
    for parameters in (LevelParameters(), LevelParameters(1, 0)):
        unit = coded(header, {"w": levels}, histories=before, parameters=parameters)
        (decoded,) = decode(unit, before, update=1)
        assert np.array_equal(decoded.value, levels * np.float32(0.25))
        with pytest.raises(BitstreamError, match="tensor 'w' builds on earlier updates"):
            decode(unit, update=1)


def test_the_first_update_may_have_a_history_flag() -> None:
    levels = random_levels(8, 9)
    header = update_of("w", 8, 9)
    unit = coded(header, {"w": levels}, parameters=LevelParameters(1, 0))
    (decoded,) = decode(unit, update=1)
    assert np.array_equal(decoded.value, levels * np.float32(0.25))


def test_a_later_update_with_a_history_flag_needs_the_earlier_ones() -> None:
    header = update_of("w", 8, 9, depth=2)
    zeros, parameters = {"w": np.zeros((8, 9))}, LevelParameters(1, 0)
    with pytest.raises(UnitOrderError, match="'w' builds on earlier updates"):
        decode(coded(header, zeros, parameters=parameters), update=1)
    before = history_of(random_levels(8, 9))
    unit = coded(header, zeros, parameters=parameters, histories=before)
    assert not decode(unit, before, update=1)[0].value.any()


@pytest.mark.parametrize(
    ("elements", "element", "wanted"),
    [
        ({"device_id": 1}, "device_id", 0),
        ({"parent_device_id": 1}, "parent_device_id", 0),
        ({"parameter_id": 6}, "parameter_id", 5),
        ({"put_node_depth": 5}, "put_node_depth", 4),
        ({"put_node_depth": 1}, "put_node_depth", 4),
    ],
)
def test_an_update_must_follow_the_one_before(
    elements: dict[str, int], element: str, wanted: int
) -> None:
    before = history_of(random_levels(4, 4), depth=3, parameter_id=5)
    values = {"parameter_id": 5, "put_node_depth": 4} | elements
    header = update_of("w", 4, 4, temporal=1, **values)
    unit = coded(header, {"w": before["w"].levels}, histories=before)
    with pytest.raises(UnitOrderError, match=f"has {element} .* must have {wanted}: an update is"):
        decode(unit, before, update=1)


def test_an_update_keeps_the_shape() -> None:
    before = history_of(random_levels(4, 4))
    unit = coded(update_of("w", 4, 5), {"w": random_levels(4, 5)})
    with pytest.raises(SyntaxElementError, match=r"\[4, 5\], and had \[4, 4\] in the update"):
        decode(unit, before, update=1)


@pytest.mark.parametrize("parent", [1, 2])
def test_parents_by_digest_are_not_looked_up(parent: int) -> None:
    before = history_of(random_levels(4, 4))
    header = update_of("w", 4, 4, depth=2, temporal=1, parent_node_id_type=parent)
    unit = coded(header, {"w": random_levels(4, 4)}, histories=before)
    with pytest.raises(UnsupportedFeatureError, match="by a digest"):
        decode(unit, before, update=1)
    header.temporal_context_modeling_flag = 0
    decode(coded(header, {"w": random_levels(4, 4)}), before, update=1)


# What is refused, and where.


def partial(unit: Unit) -> None:
    unit.header.partial_data_counter_present_flag = 1


def shorter(unit: Unit) -> None:
    unit.payload = unit.payload[:-1]


def longer(unit: Unit) -> None:
    unit.payload = bytes(unit.payload) + b"\0"


def nothing(unit: Unit) -> None:
    unit.payload = b""


@pytest.mark.parametrize(
    ("change", "error", "path", "message"),
    [
        (partial, UnsupportedFeatureError, "unit[2] NNR_NDU", "several units"),
        (shorter, PayloadError, "unit[2] NNR_NDU/payload", "payload"),
        (longer, PayloadError, "unit[2] NNR_NDU/payload", "expected"),
        (nothing, PayloadError, "unit[2] NNR_NDU/payload", "0 bytes of payload"),
    ],
)
def test_errors_know_their_unit(
    change: Callable[[Unit], None], error: type[BitstreamError], path: str, message: str
) -> None:
    unit = coded(header_of("w", 9, 9), {"w": random_levels(9, 9)})
    change(unit)
    with pytest.raises(error, match=message) as caught:
        decode(unit)
    assert caught.value.path == path
    *_, read = read_units(stream_of(unit))
    assert caught.value.bit_offset is not None
    end = read.payload_bit_offset + 8 * len(read.payload)
    assert read.bit_offset <= caught.value.bit_offset <= end


@pytest.mark.parametrize("length", [0, 44, 47, 49, 52])
def test_raw_values_fill_their_payload(length: int) -> None:
    header = header_of("w", 3, 4, nnr_compressed_data_unit_payload_type=RAW_FLOAT)
    with pytest.raises(PayloadError, match=rf"{length} bytes of raw values, expected 48 .*'w'"):
        decode(unit_of(header, bytes(length)))


def test_floats_need_a_quantization_method() -> None:
    unit = coded(header_of("w", 3), {"w": [1, 2, 3]})
    with pytest.raises(SyntaxElementError, match="mps_quantization_method_flags are 0"):
        decode(unit, mps_quantization_method_flags=0, mps_qp_density=0)


@pytest.mark.parametrize("qp", [4095, -4096])
def test_step_sizes_are_those_of_binary32(qp: int) -> None:
    unit = coded(header_of("w", 3), {"w": [1, 2, 3]})
    with pytest.raises(SyntaxElementError, match=r"tensor 'w': .* float32 cannot hold"):
        decode(unit, mps_quantization_parameter=qp)


def test_dependent_quantization_with_a_codebook_is_not_supported() -> None:
    codebook = codebook_of([0, 1, 2], 1)
    header = header_of("w", 3, codebook_present_flag=1, codebook=codebook, dq_flag=1)
    with pytest.raises(UnsupportedFeatureError, match="codebook and dependent quantization"):
        decode(coded(header, {"w": [0, 0, 0]}))


def test_an_index_must_be_in_the_codebook() -> None:
    header = header_of("w", 3, codebook_present_flag=1, codebook=codebook_of([0, 1, 2], 1))
    unit = coded(header, {"w": [0, 1, 2]}, profile=0)
    with pytest.raises(PayloadError, match="indices from 0 to 2, the codebook has -1 to 1"):
        decode(unit, profile=0)


@pytest.mark.parametrize("entries", [[2**31 - 2, 2**31 - 1, 2**31], [-(2**31) - 1, 0, 1]])
def test_entries_of_a_codebook_have_32_bits(entries: list[int]) -> None:
    header = header_of("w", 3, codebook_present_flag=1, codebook=codebook_of(entries, 1))
    header.codebook.codebook_egk = 15  # type: ignore[union-attr]
    with pytest.raises(SyntaxElementError, match="which 32 bits cannot hold"):
        decode(coded(header, {"w": [0, 0, 0]}))


@pytest.mark.parametrize("element", ["cabac_offset_list", "dq_state_list", "bit_offset_delta2"])
@pytest.mark.parametrize("threads", [1, 4])
def test_wrong_entry_points_are_noticed(element: str, threads: int) -> None:
    header = header_of("w", 60, 30, scan_order=1, dq_flag=1)
    unit = coded(header, {"w": np.zeros((60, 30))})
    decode(unit, threads=threads)
    values = getattr(header, element)
    values[3] ^= 1
    with pytest.raises(PayloadError):
        decode(unit, threads=threads)


# The declared format.


@pytest.mark.parametrize(
    ("data_format", "dtype"), [(0, "int32"), (5, "int8"), (6, "int16"), (7, "int64")]
)
def test_integers_are_of_the_declared_format(data_format: int, dtype: str) -> None:
    levels = np.array([-128, 127, 0, 5], np.int32)
    header = header_of(
        *("n", 4),
        nnr_compressed_data_unit_payload_type=INT,
        nnr_decompressed_data_format_present_flag=1,
        nnr_decompressed_data_format=data_format,
    )
    (decoded,) = decode(coded(header, {"n": levels}), keep_levels=True)
    assert decoded.value.dtype == decoded.dtype == dtype
    assert np.array_equal(decoded.value, levels)
    assert decoded.levels is not None
    assert decoded.levels.dtype == np.int32
    assert np.array_equal(decoded.levels, levels)


@pytest.mark.parametrize(("data_format", "dtype"), [(1, "float32"), (8, "float16"), (9, "float64")])
@pytest.mark.parametrize("payload_type", [FLOAT, RAW_FLOAT])
def test_reals_are_of_the_declared_format(data_format: int, dtype: str, payload_type: int) -> None:
    levels = random_levels(5, 6)
    declared = {
        "nnr_decompressed_data_format_present_flag": 1,
        "nnr_decompressed_data_format": data_format,
    }
    if payload_type == FLOAT:
        unit = coded(header_of("w", 5, 6, **declared), {"w": levels}, -9)
        expected = levels.astype(np.float32) * np.float32(0.21875)
    else:
        header = header_of("w", 5, 6, nnr_compressed_data_unit_payload_type=RAW_FLOAT, **declared)
        expected = levels.astype(np.float32) / 3
        unit = unit_of(header, expected.astype("<f4").tobytes())
    (decoded,) = decode(unit)
    assert decoded.value.dtype == decoded.dtype == dtype
    assert np.array_equal(decoded.value, expected.astype(dtype))


def test_integers_that_do_not_fit_the_declared_format_are_refused() -> None:
    header = header_of(
        *("n", 2),
        nnr_compressed_data_unit_payload_type=INT,
        nnr_decompressed_data_format_present_flag=1,
        nnr_decompressed_data_format=5,
    )
    unit = coded(header, {"n": np.array([3, 128], np.int32)})
    with pytest.raises(PayloadError, match="integers from 3 to 128, which int8 does not hold"):
        decode(unit)


@pytest.mark.parametrize(
    ("payload_type", "data_format"), [(INT, 1), (INT, 2), (FLOAT, 0), (FLOAT, 5), (FLOAT, 99)]
)
def test_other_declared_formats_are_not_supported(payload_type: int, data_format: int) -> None:
    header = header_of(
        *("n", 2),
        nnr_compressed_data_unit_payload_type=payload_type,
        nnr_decompressed_data_format_present_flag=1,
        nnr_decompressed_data_format=data_format,
    )
    unit = coded(header, {"n": np.array([3, 4], np.int32)}, *([] if payload_type == INT else [-9]))
    with pytest.raises(
        UnsupportedFeatureError, match=f"nnr_decompressed_data_format is {data_format}"
    ):
        decode(unit)
