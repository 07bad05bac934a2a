"""The descriptors, with worked values."""

import struct
from unittest import mock

import pytest
from bitstring import Bits
from hypothesis import given, settings
from hypothesis import strategies as st

from nnrcodec.errors import (
    BitstreamError,
    EncodingError,
    SyntaxElementError,
    TruncatedBitstreamError,
)
from nnrcodec.syntax import bitio
from nnrcodec.syntax.bitio import UE_MAX, BitReader, BitWriter

UE = [
    (0, {0: "1", 1: "010", 2: "011", 3: "00100", 6: "00111", 7: "0001000"}),
    (1, {0: "10", 1: "11", 2: "0100", 5: "0111", 6: "001000"}),
    (2, {0: "100", 3: "111", 4: "01000", 11: "01111", 12: "0010000"}),
    (7, {0: "10000000", 5: "10000101", 127: "11111111", 128: "0100000000"}),
    (7, {383: "0111111111", 384: "001000000000"}),
    (11, {18: "100000010010"}),
]
IE = [
    (2, {0: "100", 1: "101", -1: "110", 2: "111", -2: "01000"}),
    (7, {-17: "10100010", 100: "0101000111"}),
]


def codes(table):
    return [(k, value, bits) for k, row in table for value, bits in row.items()]


def written(write):
    writer = BitWriter()
    write(writer)
    length = writer.position
    writer.u(0, -length % 8)
    return Bits(writer.to_bytes()).bin[:length]


def reader(bits):
    return BitReader(Bits(bin=bits + "0" * (-len(bits) % 8)).tobytes())


@pytest.mark.parametrize(("k", "value", "bits"), codes(UE))
def test_ue(k, value, bits):
    assert written(lambda w: w.ue(value, k)) == bits
    r = reader(bits)
    assert (r.ue(k), r.position) == (value, len(bits))


@pytest.mark.parametrize(("k", "value", "bits"), codes(IE))
def test_ie(k, value, bits):
    assert written(lambda w: w.ie(value, k)) == bits
    r = reader(bits)
    assert (r.ie(k), r.position) == (value, len(bits))


def test_fields_straddle_bytes_most_significant_bit_first():
    assert written(lambda w: (w.u(5, 3), w.u(0x155, 9))) == "101101010101"
    assert written(lambda w: w.i(-8, 13)) == "1111111111000"
    assert reader("1111111111000").i(13) == -8


def test_flt_is_little_endian_at_any_bit():
    assert written(lambda w: (w.u(1, 1), w.flt(1.0))) == "1" + "0" * 16 + "1000000000111111"
    r = BitReader(b"\0\0\x80\x3f")
    assert r.flt() == 1.0


def test_byte_alignment_of_an_aligned_position_is_a_byte():
    assert written(lambda w: w.byte_alignment()) == "10000000"
    assert written(lambda w: (w.u(0, 5), w.byte_alignment())) == "00000100"
    r = BitReader(b"\x80\x05")
    r.byte_alignment()
    r.u(5)
    with pytest.raises(SyntaxElementError) as caught:
        r.byte_alignment()
    assert caught.value.bit_offset == 13


@pytest.mark.parametrize("text", ["", "b", "layer.ä漢", "x" * 1000])
def test_st(text):
    writer = BitWriter()
    writer.st(text)
    data = writer.to_bytes()
    assert data == text.encode() + b"\0"
    r = BitReader(memoryview(b"\xff" + data + b"rest"), 8)
    assert (r.st(), r.position) == (text, 8 + 8 * len(data))


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_st_that_cannot_be_written(text):
    with pytest.raises(EncodingError):
        BitWriter().st(text)


def test_st_errors():
    with pytest.raises(SyntaxElementError, match="UTF-8"):
        BitReader(b"\xff\0").st()
    with pytest.raises(TruncatedBitstreamError):
        BitReader(b"abc").st()
    within = BitReader(b"abc\0")
    within.end = 24
    with pytest.raises(TruncatedBitstreamError):
        within.st()
    with pytest.raises(SyntaxElementError, match="byte boundary"):
        BitReader(b"abc\0", 1).st()


def test_truncation_knows_the_bit():
    r = BitReader(b"\0\0")
    r.u(10)
    with pytest.raises(TruncatedBitstreamError) as caught:
        r.u(7)
    assert caught.value.bit_offset == 10
    assert r.position == 10


def test_long_codes_are_refused():
    with pytest.raises(SyntaxElementError):
        BitReader(bytes(100)).ue(0)
    with pytest.raises(SyntaxElementError):
        BitReader(bytes(8) + b"\xff" * 20).ue(7)
    with pytest.raises(EncodingError):
        BitWriter().ue(UE_MAX + 1, 0)


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.u(4, 2),
        lambda w: w.u(-1, 2),
        lambda w: w.i(4096, 13),
        lambda w: w.i(-4097, 13),
        lambda w: w.flt(1e300),
        lambda w: (w.u(0, 1), w.st("a")),
        lambda w: (w.u(0, 1), w.to_bytes()),
    ],
)
def test_values_that_do_not_fit(write):
    with pytest.raises(EncodingError):
        write(BitWriter())


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["u", "i", "ue", "ie", "flt"]), st.integers(0, UE_MAX))))
def test_what_is_written_is_read(fields):
    writer = BitWriter(16)
    expected = []
    for kind, value in fields:
        n = 64 if kind in "ui" else 32 if kind == "flt" else value % 16
        if kind in ("i", "ie"):
            value -= 2**63 - (kind == "ie")
        if kind == "flt":
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        getattr(writer, kind)(value, n)
        expected.append((kind, n, value))
    writer.byte_alignment()
    r = BitReader(b"ab" + writer.to_bytes(), 16)
    for kind, n, value in expected:
        assert getattr(r, kind)(n) == value
    r.byte_alignment()
    assert r.position == r.end == writer.position


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, 320), st.integers(0, 15))
def test_random_bytes_raise_nothing_else(data, position, n):
    for kind in ("u", "i", "ue", "ie", "flt", "st", "bs", "byte_alignment"):
        r = BitReader(data, min(position, 8 * len(data)))
        arguments = () if kind in ("st", "bs", "byte_alignment", "flt") else (n + (kind == "i"),)
        try:
            getattr(r, kind)(*arguments)
        except BitstreamError as error:
            assert error.bit_offset is not None


@pytest.mark.parametrize("compiled", [False, True])
@given(
    k=st.integers(0, 31),
    values=st.lists(st.integers(-(2**40), 2**40), max_size=300),
    before=st.integers(0, 7),
)
def test_lists_of_integers_are_read_as_one_after_the_other(compiled, k, values, before):
    bits = BitWriter()
    bits.u(0, before)
    for value in values:
        bits.ie(value, k)
    end = bits.position
    bits.byte_alignment()
    few = -1 if compiled else bitio._FEW_LISTED
    with mock.patch.object(bitio, "_FEW_LISTED", few):
        _check_list(bits.to_bytes(), k, values, before, end)


def _check_list(data, k, values, before, end):
    reader = BitReader(data, before)
    assert reader.ie_list(k, len(values)) == values
    assert reader.position == end
    reader = BitReader(data, before)
    reader.end = max(end - 1, 0)
    if values:
        assert reader.ie_list(k, len(values)) is None
        assert reader.position == before
