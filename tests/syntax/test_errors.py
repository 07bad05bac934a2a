"""Wrong streams: the error, its bit and its path."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syntax.streams import CODEBOOK, DEPENDENT, MPS, STR, STREAMS, TPL, UNIFORM, stream

from nnrcodec.errors import (
    BitstreamError,
    LimitExceededError,
    SyntaxElementError,
    TruncatedBitstreamError,
    UnitOrderError,
    UnsupportedFeatureError,
)
from nnrcodec.limits import Limits
from nnrcodec.syntax.unit import read_units

HEAD = STR[1] + MPS
MANY_UNITS = Limits(max_units=2)
FEW_DIMENSIONS = Limits(max_dimensions=1)
FEW_ELEMENTS = Limits(max_elements=8)


@pytest.mark.parametrize(
    ("units", "error", "bit", "path"),
    [
        ([""], UnitOrderError, 0, "unit[0]"),
        ([STR[1]], UnitOrderError, 32, "unit[1]"),
        ([MPS], UnitOrderError, 0, "unit[0] NNR_MPS"),
        ([STR[1], STR[1]], UnitOrderError, 32, "unit[1] NNR_STR"),
        ([STR[1], TPL], UnitOrderError, 32, "unit[1] NNR_TPL"),
        ([STR[1], UNIFORM], UnitOrderError, 32, "unit[1] NNR_NDU"),
        ([HEAD, MPS], UnitOrderError, 96, "unit[2] NNR_MPS"),
        (["00 00 02 01"], SyntaxElementError, 1, "unit[0]/nnr_unit_size"),
        (["80 00 00 04 02 01"], SyntaxElementError, 1, "unit[0]/nnr_unit_size"),
        (["00 05 02 01"], TruncatedBitstreamError, 0, "unit[0]/nnr_unit_size"),
        (["00 03 02"], TruncatedBitstreamError, 24, "unit[0] NNR_STR/general_profile_idc"),
        (["00"], TruncatedBitstreamError, 1, "unit[0]/nnr_unit_size"),
        (["00 05 02 01 00"], SyntaxElementError, 32, "unit[0] NNR_STR"),
        (["00 04 02 02"], UnsupportedFeatureError, 32, "unit[0] NNR_STR"),
        (
            [STR[0], "00 08 06 81 01 40 00 80"],
            SyntaxElementError,
            65,
            "unit[1] NNR_MPS/nnr_reserved_zero_7bits",
        ),
        (
            [STR[1], "00 08 06 81 04 40 00 80"],
            SyntaxElementError,
            69,
            "unit[1] NNR_MPS/nnr_reserved_zero_1bit",
        ),
        (
            [STR[1], "00 08 06 81 00 40 00 81"],
            SyntaxElementError,
            88,
            "unit[1] NNR_MPS/byte_alignment()",
        ),
        (
            [HEAD, UNIFORM.replace("16 09", "16 21")],
            SyntaxElementError,
            120,
            "unit[2] NNR_NDU/nnr_compressed_data_unit_payload_type",
        ),
        (
            [HEAD, UNIFORM.replace("62 00", "ff 00")],
            SyntaxElementError,
            128,
            "unit[2] NNR_NDU/topology_elem_id",
        ),
        (
            [HEAD, "00 07 16 09 62 62 62"],
            TruncatedBitstreamError,
            128,
            "unit[2] NNR_NDU/topology_elem_id",
        ),
        (
            [HEAD, UNIFORM.replace("16 09", "16 08")],
            UnsupportedFeatureError,
            160,
            "unit[2] NNR_NDU",
        ),
        (
            [HEAD, DEPENDENT.replace("c0 20 80", "c0 2a 80")],
            SyntaxElementError,
            196,
            "unit[2] NNR_NDU/scan_order",
        ),
        (
            [HEAD, CODEBOOK.replace("48 d0", "48 f0")],
            SyntaxElementError,
            168,
            "unit[2] NNR_NDU/codebook/codebook_centre_offset",
        ),
        (
            [HEAD, "00 0b 16 09 77 00 d0 42 00 00 0f"],
            TruncatedBitstreamError,
            163,
            "unit[2] NNR_NDU/codebook/codebook_size",
        ),
    ],
)
def test_wrong_streams(units, error, bit, path):
    with pytest.raises(error) as caught:
        list(read_units(stream(*units)))
    assert (caught.value.path, caught.value.bit_offset) == (path, bit)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("limits", "bit", "path"),
    [
        (MANY_UNITS, 96, "unit[2]"),
        (FEW_DIMENSIONS, 166, "unit[2] NNR_NDU/count_tensor_dimensions"),
        (FEW_ELEMENTS, 186, "unit[2] NNR_NDU/tensor_dimensions"),
    ],
)
def test_limits(limits, bit, path):
    with pytest.raises(LimitExceededError) as caught:
        list(read_units(stream(HEAD, DEPENDENT), limits))
    assert (caught.value.path, caught.value.bit_offset) == (path, bit)


def test_a_long_codebook_is_refused():
    # codebook_size is ue(2): 15 zeros, a one and 17 bits
    bits = f"{0x16097700D041:048b}"[:-2] + "1" + "0010" + "0" * 15 + "1" + "0" * 17
    data = int(bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big")
    with pytest.raises(LimitExceededError, match="65536") as caught:
        list(read_units(stream(HEAD) + (2 + len(data)).to_bytes(2, "big") + data))
    assert caught.value.path == "unit[2] NNR_NDU/codebook/codebook_size"


def test_an_array_longer_than_the_unit_is_refused_before_it_is_read():
    # count_topology_elements_minus2 is 2**40, and no name follows
    ids = f"{(1 << 40) + (1 << 7):0{2 * 41 - 8}b}"
    bits = "0000001000100000" + "000101" + "10" + "00011" + "101" + ids + "1"
    bits = "0" * 16 + bits[16:] + "0" * (-len(bits) % 8)
    size = len(bits) // 8
    unit = (int(bits, 2) | size << (8 * size - 16)).to_bytes(size, "big")
    with pytest.raises(TruncatedBitstreamError, match="elements are declared"):
        list(read_units(stream(HEAD) + unit))


@pytest.mark.parametrize("name", STREAMS)
def test_truncated_streams(name):
    data = STREAMS[name]
    ends = {u.bit_offset // 8 for u in read_units(data)}
    for length in range(len(data)):
        if length in ends:
            continue
        with pytest.raises(TruncatedBitstreamError) as caught:
            list(read_units(data[:length]))
        assert caught.value.bit_offset is not None
        assert caught.value.path


def consume(data):
    try:
        for unit in read_units(data):
            assert unit.payload_bit_offset % 8 == 0
    except (BitstreamError, UnsupportedFeatureError) as error:
        assert error.path
        assert 0 <= error.bit_offset <= 8 * len(data)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes(data):
    consume(data)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(STREAMS)),
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), max_size=4),
)
def test_damaged_streams(name, changes):
    data = bytearray(STREAMS[name])
    for position, change in changes:
        data[position % len(data)] ^= change
    consume(bytes(data))


@settings(deadline=None)
@given(st.sampled_from([0, 1]), st.integers(1, 63), st.binary(max_size=80))
def test_random_bodies(profile, unit_type, body):
    size = (3 + len(body)).to_bytes(2, "big")
    mps = MPS if unit_type != 1 else ""
    consume(stream(STR[profile], mps) + size + bytes([unit_type << 2]) + body)
