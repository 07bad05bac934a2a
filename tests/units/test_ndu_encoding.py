from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnrcodec.container.record import Record
from nnrcodec.container.stream import read_stream, write_stream
from nnrcodec.entropy.cabac.config import CabacConfig
from nnrcodec.entropy.cabac.level_syntax import effective_scan_order
from nnrcodec.entropy.cabac.payload import PayloadDecoder
from nnrcodec.errors import ConfigError
from nnrcodec.quant.policy import qp_offset_range
from nnrcodec.quant.quantized import Quantized
from nnrcodec.quant.step_size import step_size
from nnrcodec.syntax.constants import NnrCompressedDataUnitPayloadType, NnrUnitType
from nnrcodec.syntax.unit import Unit
from nnrcodec.units.ndu import (
    DecodedMember,
    Part,
    TensorHistory,
    level_syntax_of,
    members_of,
    next_history,
)
from nnrcodec.units.ndu_decoding import decode_data_unit
from nnrcodec.units.ndu_encoding import (
    Update,
    encode_block,
    encode_codebook_unit,
    encode_float_unit,
    encode_integer_unit,
    encode_raw_unit,
    is_raw,
    unit_bytes,
)

RNG = np.random.default_rng(0)
CABAC = CabacConfig()
TRANSITION = [[0, 2], [7, 5], [1, 3], [6, 4], [2, 0], [5, 7], [3, 1], [4, 6]]


def quantized(levels: np.ndarray, qp: int, *, dq: bool = False) -> Quantized:
    return Quantized(levels, qp, dq, levels)  # what they decode to does not matter here


def written(unit: Unit, qp_density: int = 2, *, update: bool = False) -> Unit:
    """Return a unit as a decoder finds it, after checking its size."""
    data = write_stream(Record(()), qp_density, [unit], parent_signalling=update)
    (found,) = read_stream(data).of_type(NnrUnitType.NNR_NDU)
    size_field = 4 if found.header.nnr_unit_size_flag else 2
    assert found.header.nnr_unit_size == size_field + unit_bytes(unit)
    return found


def decoded(
    unit: Unit,
    qp_density: int = 2,
    histories: dict[str, TensorHistory] | None = None,
    *,
    update: bool = False,
) -> list[DecodedMember]:
    found = written(unit, qp_density, update=update)
    alone = decode_data_unit(found, histories, keep_levels=True)
    threaded = decode_data_unit(found, histories, threads=3)
    for one, other in zip(alone, threaded, strict=True):
        assert np.array_equal(one.value, other.value)
    return alone


def dependent_levels(rng: np.random.Generator, shape: tuple[int, ...], order: int) -> np.ndarray:
    """Return levels that dependent quantization can have."""
    height, width = shape[0], math.prod(shape[1:])
    order = effective_scan_order(shape, order)
    block = 4 << order if order else max(height, width)
    corners = product(range(0, height, block), range(0, width, block))
    levels, state = np.zeros((height, width), np.int32), 0
    for top, left in corners:
        for i, j in product(
            range(top, min(top + block, height)), range(left, min(left + block, width))
        ):
            coded = round(rng.laplace(scale=1.5)) if i % 3 else 0
            levels[i, j] = 2 * coded - np.sign(coded) * (state & 1)
            state = TRANSITION[state][coded & 1]
    return levels.reshape(shape)


CONFIGS = st.builds(
    CabacConfig,
    scan_order=st.integers(0, 4),
    cabac_unary_length=st.sampled_from([None, 1, 2, 10, 11, 256]),
    row_skipping=st.booleans(),
    optimise_parameters=st.booleans(),
)
SHAPES = st.one_of(
    st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
MAGNITUDES = st.sampled_from([0, 1, 3, 200, 2**24])


@settings(max_examples=80, deadline=None)
@given(SHAPES, CONFIGS, MAGNITUDES, st.integers(0, 7), st.integers(0, 10**6))
def test_levels_come_back(
    shape: tuple[int, ...], cabac: CabacConfig, magnitude: int, density: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.integers(-magnitude, magnitude + 1, shape).astype(np.int32)
    levels *= rng.random((shape[0],) + (1,) * (len(shape) - 1)) < 0.7
    qp = int(rng.choice(qp_offset_range(density)))
    tensor = quantized(levels, qp)
    (member,) = decoded(encode_float_unit("w", tensor, density, cabac), density)
    assert member.member.name == "w"
    assert np.array_equal(member.levels, levels)
    expected = levels.astype(np.float32) * np.float32(step_size(qp, density))
    assert np.array_equal(member.value, expected)


@settings(max_examples=60, deadline=None)
@given(SHAPES, CONFIGS, st.integers(0, 10**6))
def test_levels_of_dependent_quantization_come_back(
    shape: tuple[int, ...], cabac: CabacConfig, seed: int
) -> None:
    levels = dependent_levels(np.random.default_rng(seed), shape, cabac.scan_order)
    tensor = quantized(levels, -20, dq=True)
    (member,) = decoded(encode_float_unit("w", tensor, 2, cabac))
    assert np.array_equal(member.levels, levels)


@settings(max_examples=40, deadline=None)
@given(SHAPES, CONFIGS, st.integers(0, 31), st.integers(0, 10**6))
def test_integers_come_back(
    shape: tuple[int, ...], cabac: CabacConfig, bits: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.integers(-(2**bits), 2**bits, shape).astype(np.int32)
    (member,) = decoded(encode_integer_unit("n", levels, cabac))
    assert member.value.dtype == np.int32
    assert np.array_equal(member.value, levels)


@settings(max_examples=40, deadline=None)
@given(SHAPES, CONFIGS, st.integers(1, 50), st.integers(0, 10**6))
def test_levels_of_a_codebook_come_back(
    shape: tuple[int, ...], cabac: CabacConfig, entries: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    listed = rng.integers(-2000, 2000, entries)
    levels = rng.choice(listed, shape).astype(np.int32)
    unit = encode_codebook_unit("w", quantized(levels, -9), 2, cabac)
    assert unit is not None
    (member,) = decoded(unit)
    assert member.value.dtype == np.float64
    assert np.array_equal(member.value, levels * step_size(-9, 2))


def test_a_tensor_of_too_many_levels_has_no_codebook() -> None:
    levels = np.arange(5000, dtype=np.int32)
    assert encode_codebook_unit("w", quantized(levels, 0), 2, CABAC) is None


BATCH_NORM = (Part.BETA, Part.GAMMA, Part.MEAN, Part.VARIANCE)


@pytest.mark.parametrize("scan_order", [0, 1, 3])
@pytest.mark.parametrize("others", [(Part.BIAS,), BATCH_NORM, (Part.BIAS, *BATCH_NORM)])
@pytest.mark.parametrize("dq", [False, True])
def test_a_block_comes_back(others: tuple[Part, ...], scan_order: int, dq: bool) -> None:
    rng = np.random.default_rng(scan_order)
    tensors = {Part.WEIGHT: quantized(dependent_levels(rng, (20, 3, 3, 3), scan_order), -10, dq=dq)}
    for index, part in enumerate(others):
        levels = dependent_levels(rng, (20,), 0)
        tensors[part] = quantized(levels, -40 - index, dq=dq)
    names = {part: f"c.{part.value}" for part in tensors}
    unit = encode_block(names, tensors, 2, CabacConfig(scan_order=scan_order))
    found = decoded(unit)
    assert {member.member.part for member in found} == set(tensors)
    for member in found:
        tensor = tensors[member.member.part]
        assert member.member.name == names[member.member.part]
        assert np.array_equal(member.levels, tensor.levels)
        step = np.float32(step_size(tensor.qp, 2))
        assert np.array_equal(member.value, tensor.levels.astype(np.float32) * step)


# Updates.


@pytest.mark.parametrize("shape", [(25, 30), (64,), (1,)])
@pytest.mark.parametrize("dq", [False, True])
@pytest.mark.parametrize("scan_order", [0, 1])
def test_updates_come_back_in_sequence(shape: tuple[int, ...], dq: bool, scan_order: int) -> None:
    rng = np.random.default_rng(1)
    cabac = CabacConfig(scan_order=scan_order)
    sent = None
    history: TensorHistory | None = None
    temporal = set()
    for depth in range(1, 6):
        levels = dependent_levels(rng, shape, scan_order)
        if history is not None:  # as the update before, but for a few
            same = rng.random(shape) < 0.95
            levels = np.where(same, sent, levels) if not dq else sent
        tensor = quantized(levels, -20, dq=dq)
        update = Update(parameter_id=3, history=history)
        unit = encode_float_unit("w", tensor, 2, cabac, update=update)
        header = unit.body
        assert (header.parameter_id, header.put_node_depth) == (3, depth)
        assert header.parent_node_id_present_flag == 1
        known = {"w": history} if history else {}
        (member,) = decoded(unit, 2, known, update=True)
        assert np.array_equal(member.levels, levels)
        temporal.add(header.temporal_context_modeling_flag)
        sent, history = levels, next_history(history, levels, header)
    if len(shape) > 1:
        assert temporal == {0, 1}


def test_a_first_update_follows_nothing() -> None:
    tensor = quantized(np.ones((5, 5), np.int32), 0)
    unit = encode_float_unit("w", tensor, 2, CABAC, update=Update(parameter_id=0))
    assert unit.body.temporal_context_modeling_flag == 0


# What deployed decoders need.


def header_of(shape: tuple[int, ...], cabac: CabacConfig, *, dq: bool = True) -> object:
    levels = dependent_levels(np.random.default_rng(0), shape, cabac.scan_order)
    return encode_float_unit("w", quantized(levels, 0, dq=dq), 2, cabac).body


@pytest.mark.parametrize("shape", [(40,), (40, 1), (1, 40), (1,), (1, 1, 1), (40, 1, 1)])
def test_a_single_row_or_column_has_no_blocks(shape: tuple[int, ...]) -> None:
    header = header_of(shape, CabacConfig(scan_order=1))
    assert header.scan_order == 0
    assert header.cabac_offset_list == []


@pytest.mark.parametrize(("rows", "points"), [(8, 0), (9, 1), (40, 4), (41, 5)])
def test_there_is_an_entry_point_for_each_row_of_blocks_but_the_first(
    rows: int, points: int
) -> None:
    header = header_of((rows, 5), CabacConfig(scan_order=1))
    assert header.scan_order == 1
    assert len(header.cabac_offset_list) == len(header.dq_state_list) == points
    assert all(0 <= offset < 256 for offset in header.cabac_offset_list)


@pytest.mark.parametrize(
    ("width", "dq", "skipped"), [(21, True, 0), (20, True, 1), (7, True, 1), (21, False, 1)]
)
def test_rows_are_not_skipped_where_decoders_lose_the_state(
    width: int, dq: bool, skipped: int
) -> None:
    levels = np.zeros((300, width), np.int32)
    levels[0, 0] = 2
    unit = encode_float_unit("w", quantized(levels, 0, dq=dq), 2, CabacConfig(scan_order=1))
    decoder = PayloadDecoder(unit.payload)
    decoder.qp_offset(2)
    (member,) = members_of(unit.body)
    context = written(unit).context
    found, parameters = decoder.levels(level_syntax_of(unit.body, context, member))
    assert np.array_equal(found, levels)
    assert parameters.row_skip_flag == skipped


@pytest.mark.parametrize("density", range(8))
def test_a_qp_that_would_wrap_around_is_refused_by_name(density: int) -> None:
    allowed = qp_offset_range(density)
    assert (allowed[0], allowed[-1]) == (-(2 ** (5 + density)), 2 ** (5 + density) - 1)
    for qp in (allowed[0] - 1, allowed[-1] + 1):
        tensor = quantized(np.ones(3, np.int32), qp)
        with pytest.raises(ConfigError, match=rf"'conv.weight': qp {qp} does not fit"):
            encode_float_unit("conv.weight", tensor, density, CABAC)


def test_headers_are_those_of_deployed_encoders_without_what_is_not_needed() -> None:
    unit = encode_integer_unit("n", np.int32([7, -2, 0, 1]), CabacConfig(cabac_unary_length=1))
    header = unit.body
    assert header.nnr_compressed_data_unit_payload_type == (
        NnrCompressedDataUnitPayloadType.NNR_PT_INT
    )
    assert (header.input_parameters_present_flag, header.tensor_dimensions_flag) == (1, 1)
    assert (header.node_id_present_flag, header.dq_flag) == (0, 0)
    assert header.nnr_decompressed_data_format_present_flag == 0


def test_the_payload_of_the_worked_example_is_the_known_one() -> None:
    """Integers 7, -2, 0, 1 with one greater-than flag and no parameter sets."""
    cabac = CabacConfig(cabac_unary_length=1, optimise_parameters=False)
    unit = encode_integer_unit("n", np.int32([7, -2, 0, 1]), cabac)
    assert unit.payload.hex() == "8d00669c3b"


def test_raw_values_come_back() -> None:
    value = np.float32([[1, np.inf], [-np.inf, 3e38]])
    unit = encode_raw_unit("w", value)
    assert is_raw(unit)
    (member,) = decode_data_unit(written(unit))
    assert np.array_equal(member.value, value)
