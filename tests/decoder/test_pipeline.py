"""Data units of the standard, alone and beside ours; `test_encoder_decoder` has more."""

from __future__ import annotations

import threading
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from data_units import RAW_FLOAT, block_of, coded, header_of, stream_of, unit_of, update_of
from fuzz import streams

import nnrcodec
from nnrcodec.container.record import Record, TensorEntry, tensor_digest
from nnrcodec.decoder import pipeline
from nnrcodec.decoder.pipeline import decode_all, decode_stream
from nnrcodec.errors import (
    BitstreamError,
    LimitExceededError,
    ModelError,
    PayloadError,
    SyntaxElementError,
    UnitOrderError,
    UnsupportedFeatureError,
)
from nnrcodec.limits import Limits
from nnrcodec.model.model import DTYPES, Role, Tensor
from nnrcodec.syntax.data_unit import Codebook
from nnrcodec.syntax.extended_data_unit import ExtendedDataUnit
from nnrcodec.syntax.unit import Unit, read_units

RNG = np.random.default_rng(7)
STEP = np.float32(0.25)


def levels_of(*shape: int) -> np.ndarray:
    return RNG.integers(-3, 4, shape).astype(np.int32)


def lone(name: str, levels: np.ndarray, **elements: Any) -> Unit:
    return coded(header_of(name, *levels.shape, **elements), {name: levels})


def damaged(unit: Unit) -> Unit:
    return Unit(unit.header, unit.body, unit.payload[:-1])


def entry_of(name: str, value: np.ndarray, dtype: str = "float32", **more: Any) -> TensorEntry:
    value = value.astype(DTYPES[dtype])
    tensor = Tensor.of(name, value, dtype)
    return TensorEntry(name, tensor_digest(tensor, value), dtype, **more)


def recorded(entries: list[TensorEntry], *units: Unit, **parameters: Any) -> bytes:
    record = streams.topology_unit(streams.record_data(Record(tuple(entries))))
    return stream_of(record, *units, **parameters)


# Streams of other software.


def test_tensors_come_in_the_order_in_which_they_are_decoded() -> None:
    names = ["w", "s", "b"]
    levels = {"w": levels_of(4, 5), "s": levels_of(4), "b": levels_of(4)}
    block = coded(block_of(names, 4, 5, types=2 | 8), levels)
    found = nnrcodec.decode(stream_of(lone("z", levels_of(3)), block, lone("a", levels_of(2))))
    assert list(found) == ["z", "s", "b", "w", "a"]


def test_a_repeated_name_replaces_the_earlier_tensor() -> None:
    first, second = levels_of(4), levels_of(2, 3)
    data = stream_of(lone("w", first), lone("v", first), lone("w", second))
    found = nnrcodec.decode(data)
    assert list(found) == ["w", "v"]
    assert np.array_equal(found["w"], second * STEP)


def test_a_stream_without_tensors_is_an_empty_model() -> None:
    assert nnrcodec.decode(stream_of()) == {}


def test_private_units_are_nothing_without_a_record() -> None:
    private = streams.data_unit(ExtendedDataUnit(topology_elem_id="x"), bytes(4))
    with pytest.raises(UnitOrderError, match="tensor 'x' is not in the container record"):
        nnrcodec.decode(stream_of(lone("w", levels_of(3)), private))


def g_and_h(**elements: Any) -> tuple[Unit, Unit]:
    values = {"compressed_parameter_types": 1, "decomposition_rank": 2, "g_number_of_rows": 4}
    return tuple(
        coded(header_of(f"w{end}", 4, 3, 2, **values | elements), {f"w{end}": levels_of(*shape)})
        for end, shape in (("_G", (4, 2)), ("_H", (2, 6)))
    )  # type: ignore[return-value]


def test_a_decomposed_tensor_outside_a_block() -> None:
    data = stream_of(lone("a", levels_of(3)), *g_and_h())
    found = nnrcodec.decode(data)
    assert list(found) == ["a", "w_G", "w_H"]
    merged = nnrcodec.decode(data, merge=True)
    assert list(merged) == ["a", "w"]
    assert np.array_equal(merged["w"].reshape(4, 6), found["w_G"] @ found["w_H"])


def test_g_and_h_stand_together() -> None:
    g, h = g_and_h()
    other = lone("a", levels_of(3))
    topology = streams.topology_unit(b"in between\0")
    stranger = header_of("v_H", 4, 3, 2, compressed_parameter_types=1, decomposition_rank=2,
                         g_number_of_rows=4)  # fmt: skip
    for units in (
        (g,),
        (h,),
        (h, g),
        (g, other, h),
        (g, topology, h),
        (g, other),
        (g, g, h),
        (g, h, h),
        (g, coded(stranger, {"v_H": levels_of(2, 6)})),
    ):
        with pytest.raises(UnitOrderError, match="G and H must be in two units") as caught:
            nnrcodec.decode(stream_of(*units))
        assert caught.value.path is not None


def test_merging_scales() -> None:
    levels = {"w": levels_of(4, 5, 2), "s": levels_of(4)}
    data = stream_of(coded(block_of(["w", "s"], 4, 5, 2, types=2), levels))
    merged = nnrcodec.decode(data, merge=True)
    assert list(merged) == ["w"]
    expected = levels["w"] * STEP * (levels["s"] * STEP)[:, None, None]
    assert np.array_equal(merged["w"], expected)


def test_merging_after_a_name_was_reused_leaves_what_does_not_fit() -> None:
    levels = {"w": levels_of(4, 5), "s": levels_of(4)}
    block = coded(block_of(["w", "s"], 4, 5, types=2), levels)
    found = nnrcodec.decode(stream_of(block, lone("s", levels_of(9))), merge=True)
    assert list(found) == ["s", "w"]


# Streams with a record.


def test_both_kinds_of_units_stand_side_by_side() -> None:
    data = streams.tensors_only()
    units = [u for u in streams.units_of(data) if isinstance(u.body, ExtendedDataUnit)]
    content = streams.record_content(data)
    levels = levels_of(6, 7)
    entry = entry_of("new", levels * STEP)
    content["tensors"].insert(3, [entry.name, entry.digest])
    del content["head"]
    record = streams.topology_unit(streams.record_text(content))
    found = nnrcodec.decode(stream_of(*units[::-1], lone("new", levels), record))
    expected = nnrcodec.decode(data)
    names = list(expected)
    assert list(found) == [*names[:3], "new", *names[3:]]
    assert np.array_equal(found["new"], levels * STEP)
    assert all(np.array_equal(found[name], expected[name]) for name in names)


def test_names_and_scalars_of_the_record() -> None:
    levels = levels_of(3, 4)
    entries = [
        entry_of("w_G", levels * STEP, coded_name="w_G.0"),
        entry_of("s", np.float32(0.75).reshape(()), scalar=True),
        entry_of("b", np.array([1, 2], np.float32), "bfloat16"),
    ]
    units = (
        lone("b", np.array([4, 8])),
        lone("s", np.array([3])),
        lone("w_G.0", levels),
    )
    found = nnrcodec.decode(recorded(entries, *units))
    assert list(found) == ["w_G", "s", "b"]
    assert found["s"].shape == ()
    assert found["s"] == 0.75
    assert np.array_equal(found["w_G"], levels * STEP)


def test_a_scalar_has_one_element() -> None:
    entries = [TensorEntry("s", "00000000", scalar=True)]
    with pytest.raises(PayloadError, match="'s' is a scalar, but has 2 elements"):
        nnrcodec.decode(recorded(entries, lone("s", levels_of(2))))


def test_dtypes_of_the_record() -> None:
    levels = levels_of(5)
    codebook = Codebook(0, 7, 0, 0, [0, 0, 0], [0, 0, 0])
    header = header_of("c", 5, codebook_present_flag=1, codebook=codebook)
    unit = coded(header, {"c": levels})
    integers = coded(header_of("n", 5, nnr_compressed_data_unit_payload_type=0), {"n": levels})
    value = levels * STEP
    entries = [entry_of("c", value), entry_of("n", levels.astype(np.int8), "int8")]
    found = nnrcodec.decode(recorded(entries, unit, integers))
    assert found["c"].dtype == np.float32
    assert found["n"].dtype == np.int8
    for dtype in ("float16", "bool"):
        entries[1] = TensorEntry("n", "00000000", dtype)
        with pytest.raises(PayloadError, match=f"do not become {dtype}"):
            nnrcodec.decode(recorded(entries, unit, integers))


def test_members_of_a_block_are_in_the_record() -> None:
    levels = {"w": levels_of(4, 5), "b": levels_of(4)}
    block = coded(block_of(["w", "b"], 4, 5, types=8), levels)
    entries = [entry_of(name, value * STEP) for name, value in levels.items()]
    assert list(nnrcodec.decode(recorded(entries, block))) == ["w", "b"]
    with pytest.raises(UnitOrderError, match="'b' is not in the container record"):
        nnrcodec.decode(recorded(entries[:1], block))
    entries[1] = TensorEntry("b", "00000000")
    with pytest.raises(PayloadError, match="tensor 'b' decodes to digest"):
        nnrcodec.decode(recorded(entries, block))


def test_a_tensor_of_the_record_is_there_once() -> None:
    unit = lone("w", levels_of(3))
    with pytest.raises(UnitOrderError, match="a second tensor 'w'"):
        nnrcodec.decode(recorded([TensorEntry("w", "00000000")], unit, unit))


# Updates alone.


def test_an_update_that_needs_nothing_decodes_to_its_differences() -> None:
    levels = levels_of(4, 5)
    data = stream_of(coded(update_of("w", 4, 5), {"w": levels}), update=1)
    assert np.array_equal(nnrcodec.decode(data)["w"], levels * STEP)
    assert decode_all(data, Limits()).is_update
    assert not decode_all(data, Limits()).histories


def test_differences_are_not_loaded_as_weights() -> None:
    torch = pytest.importorskip("torch")
    data = stream_of(coded(update_of("weight", 4, 5), {"weight": levels_of(4, 5)}), update=1)
    with pytest.raises(ModelError, match="this stream is an update"):
        nnrcodec.load_into(torch.nn.Linear(5, 4, bias=False), data)


def test_a_tensor_has_one_update_in_a_stream() -> None:
    unit = coded(update_of("w", 4), {"w": levels_of(4)})
    with pytest.raises(UnitOrderError, match="a second tensor 'w'"):
        nnrcodec.decode(stream_of(unit, unit, update=1))


# Threads.


def many() -> tuple[bytes, dict[str, np.ndarray]]:
    levels = {f"t{i}": levels_of(5 + i, 9) for i in range(30)}
    levels["large"] = levels_of(200, 90)
    units = [lone(name, value, scan_order=int(name == "large")) for name, value in levels.items()]
    return stream_of(*units), levels


@pytest.mark.parametrize("threads", [None, 1, 2, 3, 16])
def test_the_result_does_not_depend_on_threads(threads: int | None) -> None:
    data, levels = many()
    seen: list[tuple[int, int]] = []
    model = decode_stream(data, Limits(), threads=threads, progress=lambda *now: seen.append(now))
    assert list(model.tensors) == list(levels)
    for name, value in levels.items():
        assert np.array_equal(model.tensors[name].read(), value * STEP)
    done = np.cumsum([value.size for value in levels.values()])
    assert seen == [(int(count), int(done[-1])) for count in done]


def test_no_more_threads_than_asked_for_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, lock = 0, 0, threading.Lock()
    decode = pipeline._members

    def slow(*arguments: Any, **options: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        try:
            return decode(*arguments, **options)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(pipeline, "_members", slow)
    data = stream_of(*(lone(f"t{i}", levels_of(3)) for i in range(20)))
    decode_stream(data, Limits(), threads=3)
    assert most == 3


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_first_error_is_the_one_that_is_raised(threads: int) -> None:
    units = [lone(f"t{i}", levels_of(9, 9)) for i in range(12)]
    for index in (8, 4, 11):
        units[index] = damaged(units[index])
    data = stream_of(*units)
    for _ in range(5):
        with pytest.raises(PayloadError, match=r"unit\[6\] NNR_NDU/payload"):
            decode_stream(data, Limits(), threads=threads)


# Hostile sizes.


def claims(*shape: int, payload: bytes = bytes(8), **elements: Any) -> bytes:
    return stream_of(unit_of(header_of("w", *shape, **elements), payload))


GREAT_BLOCK = block_of(
    ["a_G", "a_H"], 2**10, 2**10, types=1, decomposition_rank=2**25, g_number_of_rows=2**10
)


@pytest.mark.parametrize(
    "data",
    [
        claims(2**60),
        claims(2**30, 2**30),
        claims(2**31),
        claims(2**15, 2**16),
        claims(2**27),
        claims(2**26 + 1),
        claims(*(2,) * 16, 2**11),
        claims(2**25 + 1, codebook_present_flag=1, codebook=Codebook()),
        claims(2**27, nnr_compressed_data_unit_payload_type=RAW_FLOAT),
        claims(2**27, nnr_compressed_data_unit_payload_type=0),
        stream_of(unit_of(GREAT_BLOCK, bytes(8))),
        stream_of(*(unit_of(header_of(f"{i}", 2**24), bytes(8)) for i in range(5))),
    ],
    ids=range(12),
)
@pytest.mark.parametrize("use", [nnrcodec.decode, nnrcodec.UpdateDecoder().decode])
def test_a_tiny_stream_that_declares_huge_tensors_is_refused(data: bytes, use: Any) -> None:
    assert len(data) < 200
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceededError):
            use(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_what_updates_remember_counts() -> None:
    data = stream_of(coded(update_of("w", 100, 100), {"w": np.zeros((100, 100))}), update=1)
    limits = Limits(free_decoded_bytes=50_000, decoded_bytes_per_byte=1)
    nnrcodec.decode(data, limits=limits)
    with pytest.raises(LimitExceededError):
        decode_all(data, limits, histories={})


def test_what_is_merged_counts() -> None:
    block = block_of(
        ["w_G", "w_H"], 2**13, 2**13, types=1, decomposition_rank=1, g_number_of_rows=2**13
    )
    zeros = {"w_G": np.zeros((2**13, 1)), "w_H": np.zeros((1, 2**13))}
    data = stream_of(coded(block, zeros))
    assert len(nnrcodec.decode(data)) == 2
    with pytest.raises(LimitExceededError):
        nnrcodec.decode(data, merge=True)


# What is not supported.


@pytest.mark.parametrize(
    ("header", "error", "path"),
    [
        (header_of("w", 3, 4, first_tensor_dimension_shift=1), UnsupportedFeatureError, ""),
        (header_of("w", 4, compressed_parameter_types=1), SyntaxElementError, ""),
        (block_of(["a", "b", "c"], 4, types=8), SyntaxElementError, ""),
        (header_of("w", 4, nnr_compressed_data_unit_payload_type=RAW_FLOAT), PayloadError,
         "/payload"),
    ],
)  # fmt: skip
def test_errors_have_a_place(header: Any, error: type[BitstreamError], path: str) -> None:
    data = stream_of(lone("a", levels_of(3)), unit_of(header, b"xyz"))
    with pytest.raises(error) as caught:
        nnrcodec.decode(data)
    assert caught.value.path == f"unit[3] NNR_NDU{path}"
    *_, unit = read_units(data)
    assert caught.value.bit_offset == (unit.payload_bit_offset if path else unit.bit_offset)


def test_indexed_elements_are_not_supported() -> None:
    header = header_of("w", 4, topology_elem_id=None, topology_elem_id_index=3)
    data = stream_of(unit_of(header, b"xyz"), mps_topology_indexed_reference_flag=1)
    with pytest.raises(UnsupportedFeatureError, match="index in the topology"):
        nnrcodec.decode(data)
    (tensor,) = nnrcodec.inspect(data).tensors
    assert tensor.names == ("#3",)


def test_constants_are_not_in_the_state() -> None:
    levels = levels_of(4)
    entries = [entry_of("w", levels * STEP), entry_of("c", levels * STEP, role=Role.CONSTANT)]
    data = recorded(entries, lone("w", levels), lone("c", levels))
    assert list(nnrcodec.decode(data)) == ["w"]
    assert list(decode_stream(data, Limits()).tensors) == ["w", "c"]
