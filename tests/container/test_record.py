from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
import struct
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fuzz.streams import (
    closing_unit,
    json_of,
    record_content,
    record_data,
    record_text,
    record_unit,
    stream_of,
    tensors_only,
    units_of,
    with_graph,
)
from hypothesis import given
from hypothesis import strategies as st

import nnrcodec
from nnrcodec.container.record import (
    MeasuredOn,
    Measurement,
    Record,
    TensorEntry,
    tensor_digest,
)
from nnrcodec.container.record_text import (
    closing_to_bytes,
    is_record,
    record_from_bytes,
    record_to_bytes,
    was_record,
)
from nnrcodec.container.stream import read_stream, with_measurement
from nnrcodec.errors import (
    BitstreamError,
    LimitExceededError,
    PayloadError,
    SyntaxElementError,
    UnitOrderError,
    UnsupportedFeatureError,
)
from nnrcodec.limits import Limits
from nnrcodec.model.model import Factors, Role, Tensor

DIGEST = "0123abcd"
HEAD = "89abcdef"
MINIMAL: dict[str, Any] = {"writer": "somebody 1", "tensors": [["w", DIGEST]]}
FULL = Record(
    (
        TensorEntry("a.u.weight", DIGEST),
        TensorEntry("a.v.weight", DIGEST, "float16"),
        TensorEntry("steps", DIGEST, "int64", Role.BUFFER),
        TensorEntry("größe/\u0000\n", DIGEST, "float32", Role.CONSTANT),
    ),
    (Factors("a", (8, 4, 3, 5), 2),),
)


def read(content: Any, version: str = "1.0", limits: Limits | None = None) -> Record:
    return record_from_bytes(record_text(content, version), HEAD, limits)


def again(record: Record, head: str = HEAD) -> Record:
    return record_from_bytes(record_to_bytes(record, HEAD), head, closing=closing_to_bytes(record))


def read_parts(content: Any, closing: bytes, version: str = "2.0") -> Record:
    return record_from_bytes(record_text(content, version), HEAD, closing=closing)


def test_a_record_comes_back() -> None:
    assert again(FULL) == FULL


def test_a_minimal_record_of_somebody_else_is_read() -> None:
    assert read(MINIMAL) == Record((TensorEntry("w", DIGEST),), writer="somebody 1")


@pytest.mark.parametrize(
    "text",
    [
        record_to_bytes(FULL, HEAD),
        closing_to_bytes(FULL),
        record_text(record_content(with_graph())),
    ],
)
def test_the_text_has_no_zero_byte_but_the_last(text: bytes) -> None:
    assert text.find(0) == len(text) - 1
    text.decode("ascii")


def test_what_is_usual_is_not_written() -> None:
    record = Record((TensorEntry("w", DIGEST),), writer="x")
    written = json_of(record_to_bytes(record, HEAD))
    assert written == {"writer": "x", "head": HEAD, "tensors": [["w"]]}
    unmeasured = base64.b85encode(checked("000000800080008000"))
    assert closing_to_bytes(record) == base64.b85encode(bytes.fromhex(DIGEST)) + unmeasured + b"\0"


def test_the_digest_is_the_specified_one() -> None:
    value = np.array([[1.5, -2]], np.float32)
    text = b"float32[1,2]" + bytes.fromhex("0000c03f000000c0")
    assert tensor_digest(Tensor.of("w", value), value) == hashlib.sha256(text).hexdigest()[:8]


def test_the_digest_of_bfloat16_is_that_of_two_bytes_an_element() -> None:
    value = np.array(1.5, np.float32)
    text = b"bfloat16[]" + bytes.fromhex("c03f")
    digest = tensor_digest(Tensor.of("w", value, "bfloat16"), value)
    assert digest == hashlib.sha256(text).hexdigest()[:8]


# Versions.


def test_a_greater_minor_version_is_read_and_what_is_new_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "nnrcodec"):
        record = read(MINIMAL | {"head": HEAD, "zeta": 1, "colour": "red"}, "1.3")
    assert record.writer == "somebody 1"
    assert caplog.messages == ["record version 1.3 is newer than 1.2: colour, zeta ignored"]


def test_our_own_version_is_read_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "nnrcodec"):
        read(MINIMAL)
    assert not caplog.messages


@pytest.mark.parametrize("version", ["3.0", "3.5", "0.9", "9999.9999"])
def test_another_major_version_is_refused_with_all_versions(version: str) -> None:
    with pytest.raises(UnsupportedFeatureError, match=rf"version {version}; .* versions 1 and 2\b"):
        read(MINIMAL, version)


# The closing record.


def test_a_record_of_2_0_needs_its_closing_record() -> None:
    with pytest.raises(PayloadError, match="its closing record is missing"):
        record_from_bytes(record_to_bytes(FULL, HEAD), HEAD)


ONE = {"writer": "w", "head": HEAD, "tensors": [["w"]]}
CLOSING = base64.b85encode(bytes.fromhex(DIGEST)) + b"\0"


@pytest.mark.parametrize(
    "closing",
    [
        *(b"", b"\0", CLOSING[:-1], CLOSING + b"\0", CLOSING[1:], CLOSING[:-1] * 2 + b"\0"),
        *(b'"""""\0', CLOSING[:-1] + b"0\0"),
    ],
)
def test_a_wrong_closing_record_is_refused(closing: bytes) -> None:
    with pytest.raises(BitstreamError, match="record/closing"):
        read_parts(ONE, closing)


def test_a_closing_record_of_a_newer_minor_version_may_have_more() -> None:
    measured = checked("020003010080008000")
    longer = base64.b85encode(bytes.fromhex(DIGEST) + measured + b"more") + b"\0"
    record = read_parts(ONE, longer, "2.5")
    assert record.tensors == (TensorEntry("w", DIGEST),)
    assert record.measured == Measurement(MeasuredOn.MADE_UP_INPUTS, 3, 2.56)
    for version in ("2.0", "2.1", "2.2", "2.3", "2.4"):
        with pytest.raises(SyntaxElementError, match="more than there should be"):
            read_parts(ONE, longer, version)


def checked(measurement: str) -> bytes:
    """Return a measurement and its check."""
    data = bytes.fromhex(measurement)
    return data + struct.pack(">I", zlib.crc32(data))[1:]


@given(st.integers(0, 14), st.integers(1, 80))
def test_a_damaged_measurement_is_refused(place: int, change: int) -> None:
    characters = sorted({base64.b85encode(bytes([value]))[0] for value in range(256)})
    measured = bytearray(base64.b85encode(checked("020003010080008000")))
    number = characters.index(measured[place])
    measured[place] = characters[(number + change) % len(characters)]
    with pytest.raises(BitstreamError):
        read_parts(ONE, CLOSING[:-1] + bytes(measured) + b"\0", "2.1")


def test_a_closing_record_of_2_0_has_no_measurement() -> None:
    assert read_parts(ONE, CLOSING).measured is None
    with pytest.raises(SyntaxElementError, match="expected 12 bytes of what was measured"):
        read_parts(ONE, CLOSING, "2.1")


_RATIOS = st.integers(-32767, 32766).map(lambda n: n / 100) | st.just(math.inf)


@given(st.sampled_from(MeasuredOn), st.integers(0, 65535), _RATIOS, _RATIOS | st.none(), _RATIOS)
def test_a_measurement_comes_back(
    on: MeasuredOn, count: int, snr: float, absolute: float | None, change: float
) -> None:
    record = replace(FULL, measured=Measurement(on, count, snr, absolute, change))
    assert again(record) == record


def test_a_measurement_beyond_what_can_be_said_is_limited() -> None:
    record = replace(FULL, measured=Measurement(MeasuredOn.WEIGHTS, 10**6, -math.inf, 400.0))
    assert again(record).measured == Measurement(MeasuredOn.WEIGHTS, 65535, -327.67, math.inf)


@pytest.mark.parametrize("measured", ["050003010080008000", "020003800080008000"])
def test_what_is_no_measurement_is_refused_and_of_a_newer_version_ignored(measured: str) -> None:
    closing = base64.b85encode(bytes.fromhex(DIGEST) + checked(measured)) + b"\0"
    with pytest.raises(SyntaxElementError, match="is no measurement"):
        read_parts(ONE, closing, "2.1")
    assert read_parts(ONE, closing, "2.5").measured is None


def test_a_stream_gets_another_measurement_in_its_place() -> None:
    data = tensors_only()
    measured = Measurement(MeasuredOn.GIVEN_INPUTS, 7, 31.5, None, 12.25)
    changed = with_measurement(data, measured)
    assert len(changed) == len(data)
    assert nnrcodec.inspect(changed).measured == measured
    assert with_measurement(changed, nnrcodec.inspect(data).measured) == data


@pytest.mark.parametrize("row", ["w", [], 3, ["w", DIGEST], ["w", "float32", "buffer", "x"]])
def test_a_wrong_row_of_2_0_is_refused(row: Any) -> None:
    with pytest.raises(SyntaxElementError, match=r"record/tensors\[0\]"):
        read_parts(ONE | {"tensors": [row]}, CLOSING)


def test_a_stream_has_one_closing_record_wherever_it_stands() -> None:
    data = tensors_only()
    units = units_of(data)
    end = closing_unit(units)
    assert end is units[-1]
    others = units[:-1]
    decoded = nnrcodec.decode(data)
    for place in range(3, len(units)):
        moved = nnrcodec.decode(stream_of([*others[:place], end, *others[place:]]))
        assert list(moved) == list(decoded)
    with pytest.raises(PayloadError, match="closing record is missing"):
        nnrcodec.decode(stream_of(others))
    with pytest.raises(UnitOrderError, match="a second container record"):
        nnrcodec.decode(stream_of([*units, end]))


def test_units_of_format_129_beside_an_older_record_belong_to_somebody_else() -> None:
    units = units_of(tensors_only())
    end, record = closing_unit(units), read_stream(tensors_only()).record
    assert end is not None
    assert record is not None
    units.remove(end)
    front = record_unit(units)
    front.body.topology_data = record_data(record)
    decoded = nnrcodec.decode(stream_of(units))
    for others in ([end], [end, end]):
        assert list(nnrcodec.decode(stream_of([*units, *others]))) == list(decoded)
    record_bytes = len(stream_of(units)) - len(stream_of([u for u in units if u is not front]))
    assert nnrcodec.inspect(stream_of([*units, end])).record_bytes == record_bytes


def test_the_closing_record_stands_before_a_raw_unit() -> None:
    state = {"w": np.ones((4, 4), np.float32), "r": np.array([np.inf, 1], np.float32)}
    data = nnrcodec.encode(state, config=nnrcodec.EncoderConfig(profile="nnc"))
    units = units_of(data)
    assert closing_unit(units) is units[-2]
    assert nnrcodec.decode(data)["r"][0] == np.inf


def test_unknown_members_in_our_own_version_are_refused() -> None:
    with pytest.raises(SyntaxElementError, match=r"unknown keys \['colour'\]"):
        read(MINIMAL | {"colour": "red"})


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"nnrcodec", b"nnrcodec 1 x\0", b"nnrcodec 1.0\0", b"nnrcodec 10000.0 x\0"],
)
def test_what_does_not_begin_like_a_record_is_none(data: bytes) -> None:
    assert not is_record(data)
    with pytest.raises(SyntaxElementError, match="expected 'nnrcodec MAJOR"):
        record_from_bytes(data, HEAD)


# Damage.


def entry(*row: Any) -> dict[str, Any]:
    return MINIMAL | {"tensors": [list(row)]}


def factors(*row: Any) -> dict[str, Any]:
    names = [["a.u.weight", DIGEST], ["a.v.weight", DIGEST]]
    return MINIMAL | {"tensors": names, "factors": [list(row)]}


WRONG: dict[str, tuple[Any, str]] = {
    "a list": ([], "expected an object"),
    "a number": (3, "expected an object"),
    "no writer": ({"tensors": []}, "record/writer"),
    "writer is a number": (MINIMAL | {"writer": 3}, "record/writer"),
    "tensors is an object": (MINIMAL | {"tensors": {}}, "record/tensors"),
    "a tensor is a string": (MINIMAL | {"tensors": ["abcd"]}, r"record/tensors\[0\]"),
    "a tensor without digest": (entry("w"), r"record/tensors\[0\]"),
    "a tensor of five": (entry("w", DIGEST, "int8", "buffer", "x"), r"record/tensors\[0\]"),
    "a name that is a number": (entry(1, DIGEST), r"record/tensors\[0\]"),
    "a short digest": (entry("w", "0123abc"), "digest is '0123abc'"),
    "a digest in capitals": (entry("w", "0123ABCD"), "digest is '0123ABCD'"),
    "a digest with a line feed": (entry("w", "0123abcd\n"), "digest is"),
    "an unknown dtype": (entry("w", DIGEST, "quaternion"), "dtype is 'quaternion'"),
    "an unknown role": (entry("w", DIGEST, "int8", "spare"), "role is 'spare'"),
    "a name twice": (MINIMAL | {"tensors": [["w", DIGEST]] * 2}, "a name occurs twice"),
    "factors is null": (MINIMAL | {"factors": None}, "record/factors"),
    "factors of no tensors": (
        MINIMAL | {"factors": [["b", [1, 1, 1, 1], 1]]},
        "factors of 'b' are not among tensors",
    ),
    "factors without rank": (factors("a", [1, 1, 1, 1]), r"record/factors\[0\]"),
    "factors of three dimensions": (factors("a", [1, 1, 1], 1), r"record/factors\[0\]"),
    "factors of rank 0": (factors("a", [1, 1, 1, 1], 0), r"record/factors\[0\]"),
    "factors of rank true": (factors("a", [1, 1, 1, 1], True), r"record/factors\[0\]"),
    "factors with a negative size": (factors("a", [1, -1, 1, 1], 1), r"record/factors\[0\]"),
    "factors that are huge": (factors("a", [2**31, 1, 1, 1], 1), r"record/factors\[0\]"),
    "graph is null": (MINIMAL | {"graph": None}, "graph"),
    "graph is empty": (MINIMAL | {"graph": {}}, "graph"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_record_is_refused_with_the_place(name: str) -> None:
    content, message = WRONG[name]
    with pytest.raises(BitstreamError, match=message):
        read(content)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"hello",
        b'{"writer": "x", "tensors": []} {}',
        b'{"writer": "x", "tensors": [NaN]}',
        b'{"writer": "x", "tensors": [-Infinity]}',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 100_000,
    ],
)
def test_text_that_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(PayloadError, match=r"record.*cannot read it"):
        read(text)


def test_text_without_a_zero_byte_at_its_end_is_refused() -> None:
    with pytest.raises(SyntaxElementError, match="zero byte at the end"):
        record_from_bytes(record_text(MINIMAL)[:-1], HEAD)


@pytest.mark.parametrize("text", [b"\x80\x80", b" spaces ", b"~~~~~", b"\0"])
def test_text_that_is_not_base_85_is_refused(text: bytes) -> None:
    with pytest.raises(PayloadError):
        record_from_bytes(b"nnrcodec 1.0 " + text + b"\0", HEAD)


@pytest.mark.parametrize(
    "change", [lambda d: d[:-3], lambda d: d + b"x", lambda d: b"", bytes.upper]
)
def test_deflated_data_that_are_damaged_are_refused(change: Any) -> None:
    deflated = change(zlib.compress(json.dumps(MINIMAL).encode()))
    with pytest.raises(BitstreamError):
        record_from_bytes(b"nnrcodec 1.0 " + base64.b85encode(deflated) + b"\0", HEAD)


def test_a_record_that_inflates_beyond_the_limit_is_refused_before_it_is_inflated() -> None:
    bomb = record_text(b" " * 2**26)
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceededError, match="at most 1048576 allowed"):
            record_from_bytes(bomb, HEAD, Limits(max_record_bytes=2**20))
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_the_record_of_a_stream_says_what_is_in_it() -> None:
    content = record_content(tensors_only())
    assert [row[0] for row in content["tensors"]][:2] == ["conv.weight", "conv.bias"]
    assert content["tensors"][1][2] == "float16"
    assert "graph" not in content


# Names and scalars.


RENAMED = Record(
    (
        TensorEntry("w_G", DIGEST, coded_name="w_G_"),
        TensorEntry("steps", DIGEST, "int64", Role.BUFFER, scalar=True),
        TensorEntry("x", DIGEST),
    )
)


def test_names_in_units_and_scalars_come_back() -> None:
    assert again(RENAMED) == RENAMED
    assert [entry.unit_name for entry in RENAMED.tensors] == ["w_G_", "steps", "x"]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"coded_names": [["w", "v"]]}, "record/coded_names"),
        ({"coded_names": {"w": 1}}, "record/coded_names"),
        ({"coded_names": {"v": "w"}}, "record/coded_names"),
        ({"scalars": {"w": True}}, "record/scalars"),
        ({"scalars": ["v"]}, "record/scalars"),
        ({"scalars": ["w", "w"]}, "record/scalars"),
        ({"scalars": [["w"]]}, "record/scalars"),
        (
            {"tensors": [["a", DIGEST], ["b", DIGEST]], "coded_names": {"a": "b"}},
            "record/coded_names",
        ),
    ],
)
def test_names_and_scalars_that_cannot_be_are_refused(change: dict[str, Any], path: str) -> None:
    with pytest.raises(SyntaxElementError, match=path):
        read(MINIMAL | change, "1.1")


# The head.


def test_a_record_with_another_head_is_refused() -> None:
    with pytest.raises(PayloadError, match="looks like a record of nnrcodec that is damaged"):
        again(RENAMED, "89abcdee")


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "1.3"])
@pytest.mark.parametrize("head", ["01234567", 3, None, [], "89ABCDEF"])
def test_a_head_is_compared_whatever_the_version(version: str, head: Any) -> None:
    with pytest.raises(PayloadError, match="damaged"):
        read(MINIMAL | {"head": head}, version)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_newer_record_has_a_head(version: str) -> None:
    with pytest.raises(PayloadError, match="damaged"):
        read(MINIMAL, version)


@pytest.mark.parametrize("damage", [1, 2])
def test_a_record_is_known_by_its_start_when_bytes_of_it_are_damaged(damage: int) -> None:
    unit = b"\x00\x50\x0e\x80\x00" + record_to_bytes(RENAMED, HEAD)
    for first in range(2, 5 + len(b"nnrcodec")):
        damaged = bytearray(unit)
        for byte in range(first, first + damage):
            damaged[byte] ^= 0xFF
        assert was_record(damaged, holds_names=False)


def test_names_that_are_similar_are_no_record() -> None:
    unit = b"\x00\x50\x12\x80nnrcodec.weight\0"
    assert was_record(unit, holds_names=False)
    assert not was_record(unit, holds_names=True)
    assert was_record(b"\x00\x50\x12\x80\x00nnrcodec 1.2 x\0", holds_names=True)
    assert not was_record(b"", holds_names=False)


# What takes long, or cannot be written.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[" + b"[]," * 1000 + b"[]]", "about 2003 values, at most 1000 allowed"),
        (b'{"writer": ' + b"9" * 21 + b"}", "an integer of 21 digits"),
        (rb'{"writer": "\ud800", "tensors": []}', "surrogates not allowed"),
        (b'{"writer": "\xed\xa0\x80", "tensors": []}', "cannot read it"),
        ('{"writer": "x"}'.encode("utf-16"), "cannot read it"),
    ],
)
def test_values_that_are_too_many_or_too_strange_are_refused(text: bytes, message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        read(text, limits=Limits(max_record_values=1000))


def test_pairs_of_surrogates_are_a_character() -> None:
    name = "\U0001f600"
    assert read(entry(name, DIGEST)).tensors[0].name == name


def test_a_long_name_is_not_in_the_error() -> None:
    with pytest.raises(SyntaxElementError) as caught:
        read(MINIMAL | {"n" * 10**6: 1})
    assert len(str(caught.value)) < 2000


def test_a_long_name_is_not_in_the_warning(caplog: pytest.LogCaptureFixture) -> None:
    read(MINIMAL | {"head": HEAD, "n" * 10**6: 1}, "1.3")
    assert len(caplog.text) < 2000


def test_short_names_are_numbers_in_the_units_and_names_in_the_record() -> None:
    state = {f"a.long.name.{i}": np.full(20 + i, i, np.float32) for i in range(40)}
    for profile in ("ext", "nnc"):
        config = nnrcodec.EncoderConfig(profile=profile, short_names=True)
        data = nnrcodec.encode(state, config=config)
        content = json_of(record_unit(units_of(data)).body.topology_data)
        assert content["coded_names"][:3] == ["0", "1", "2"]
        assert content["coded_names"][-4:] == ["10", "11", "12", "13"]
        assert bytes(record_unit(units_of(data)).body.topology_data).startswith(b"nnrcodec 2.2 ")
        assert nnrcodec.decode(data).keys() == state.keys()
        assert len(data) < len(nnrcodec.encode(state, config=replace(config, short_names=False)))


def test_an_update_calls_tensors_as_its_base_does() -> None:
    state = {f"a.long.name.{i}": np.full(20, i, np.float32) for i in range(12)}
    changed = {name: value + np.arange(20, dtype=np.float32) for name, value in state.items()}
    sizes = []
    for short in (False, True):
        base = nnrcodec.encode(state, config=nnrcodec.EncoderConfig(short_names=short))
        update = nnrcodec.UpdateEncoder(base).encode(changed)
        sizes.append(len(update))
        decoder = nnrcodec.UpdateDecoder()
        decoder.decode(base)
        decoder.decode(update)
        np.testing.assert_allclose(decoder.state["a.long.name.11"], np.arange(11, 31), atol=0.2)
        names = [unit.body.topology_elem_id for unit in units_of(update) if unit.payload]
        assert names[-2:] == (["a", "b"] if short else ["a.long.name.10", "a.long.name.11"])
    assert sizes[1] < sizes[0]


def test_short_names_pass_over_tensors_without_data_units() -> None:
    shared = np.arange(40, dtype=np.float32)
    state = {
        "first": shared,
        "none": np.zeros((0, 3), np.float32),
        "second": shared,
        "last": np.full(30, 2, np.float32),
    }
    data = nnrcodec.encode(state, config=nnrcodec.EncoderConfig(short_names=True))
    content = json_of(record_unit(units_of(data)).body.topology_data)
    assert content["ties"] == {"second": "first"}
    assert content["coded_names"] == ["0", None, None, "1"]
    assert nnrcodec.decode(data)["none"].shape == (0, 3)
    update = nnrcodec.UpdateEncoder(data).encode({**state, "last": np.arange(30, dtype=np.float32)})
    assert [unit.body.topology_elem_id for unit in units_of(update) if unit.payload][-1] == "1"
    decoder = nnrcodec.UpdateDecoder()
    for stream in (data, update):
        decoder.decode(stream)
    np.testing.assert_allclose(decoder.state["last"], np.arange(30), atol=0.2)
    np.testing.assert_array_equal(decoder.state["second"], decoder.state["first"])


def test_a_short_name_cannot_be_left_out_of_a_tensor_with_a_data_unit() -> None:
    content = MINIMAL | {"coded_names": [None], "head": HEAD}
    with pytest.raises(SyntaxElementError, match="has a data unit, but no name there"):
        record_from_bytes(record_text(content, "1.2"), HEAD)


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", 3], ["a", "b", "c"], ["a", ["b"]]])
def test_a_wrong_list_of_short_names_is_refused(names: list[Any]) -> None:
    two = MINIMAL | {"tensors": [["v", DIGEST], ["w", DIGEST]], "coded_names": names}
    with pytest.raises(SyntaxElementError, match="coded_names"):
        record_from_bytes(record_text({**two, "head": HEAD}, "1.2"), HEAD)


@pytest.mark.parametrize(
    "onnx",
    [{}, [], "x", {"digest": 3}, {"digest": DIGEST, "more": 1}, {"digest": DIGEST, "names": []}],
)
def test_a_wrong_onnx_member_is_refused(onnx: Any) -> None:
    content = MINIMAL | {"onnx": onnx, "head": HEAD}
    with pytest.raises(SyntaxElementError, match="record/onnx"):
        record_from_bytes(record_text(content, "1.2"), HEAD)
