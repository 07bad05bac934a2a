from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz import streams
from networks import NETWORKS, Network

import nnrcodec
from nnrcodec import EncoderConfig, Limits, LowRankConfig
from nnrcodec.decoder.pipeline import decode_stream
from nnrcodec.encoder.pipeline import encode_model
from nnrcodec.entropy.ans.levels import LevelModel, LevelTable
from nnrcodec.errors import (
    BitstreamError,
    LimitExceededError,
    ModelError,
    PayloadError,
    SyntaxElementError,
    UnitOrderError,
    UnsupportedFeatureError,
)
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.progress import Progress
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.data_unit import NnrCompressedDataUnitHeader
from nnrcodec.syntax.extended_data_unit import Coding, ExtendedDataUnit, XduDataFormat
from nnrcodec.syntax.unit import NnrUnitHeader, OpaqueUnit, Unit

FOREIGN = Path(__file__).parents[1] / "conformance" / "reference" / "p1_2d_dq.nnc"

STATE = {
    "fc.weight": np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32),
    "fc.bias": np.linspace(-1, 1, 30, dtype=np.float32),
    "steps": np.array(12345),
}


# Whole networks.


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.name)
def test_a_decoded_network_computes_what_the_original_does_with_the_decoded_weights(
    network: Network,
) -> None:
    original = network.module()
    data = nnrcodec.encode(original, (network.example(),))
    decoded = nnrcodec.decode_model(data)
    before = sum(t.nbytes for t in (*decoded.parameters(), *decoded.buffers()))
    assert len(data) < 0.7 * before + 3000
    nnrcodec.load_into(original, data)
    for shape in (network.shape, *network.other_shapes):
        inputs = torch.randn(shape, generator=torch.Generator().manual_seed(5))
        # with gradients, for without them PyTorch runs a fused transformer layer in the original
        # channels are last in one of them, so that sums may be taken in another order
        torch.testing.assert_close(decoded(inputs), original(inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("merge", [False, True])
def test_a_decomposed_network_computes_the_same_with_and_without_a_graph(merge: bool) -> None:
    (network,) = (n for n in NETWORKS if n.name == "residual_filter")
    config = EncoderConfig(low_rank=LowRankConfig(ranks={"body.2": 3, "body.4": 6}))
    original = network.module()
    data = nnrcodec.encode(original, (network.example(),), config)
    decoded = nnrcodec.decode_model(data, merge=merge)
    nnrcodec.load_into(original, data, merge=merge)
    with torch.no_grad():
        expected = original(network.example())
        torch.testing.assert_close(decoded(network.example()), expected, rtol=1e-6, atol=1e-6)


def test_tensors_keep_names_order_dtypes_and_roles() -> None:
    tensors = [
        Tensor.of("z", STATE["fc.weight"]),
        Tensor.of("a", np.array(3), role=Role.BUFFER),
        Tensor.of("m", STATE["fc.bias"].astype(np.float16), role=Role.CONSTANT),
        Tensor.of("b", np.float32([[0.5] * 9] * 3), "bfloat16"),
    ]
    data = encode_model(Model.of(tensors), EncoderConfig()).data
    found = decode_stream(data, Limits()).tensors.values()
    assert [(t.name, t.dtype, t.shape, t.role) for t in found] == [
        (t.name, t.dtype, t.shape, t.role) for t in tensors
    ]
    assert list(nnrcodec.decode(data)) == ["z", "a", "b"]


def test_sizes_and_progress_are_reported() -> None:
    seen: list[tuple[int, int]] = []

    @contextmanager
    def stages(name: str) -> Iterator[Progress]:
        assert name == "coding"
        yield lambda *now: seen.append(now)

    model = Model.of(Tensor.of(name, value) for name, value in STATE.items())
    encoded = encode_model(model, EncoderConfig(), stages)
    assert encoded.original_elements == 1231
    assert encoded.original_bytes == 4 * 1230 + 8
    assert seen == [(1200, 1231), (1230, 1231), (1231, 1231)]
    again: list[tuple[int, int]] = []
    decode_stream(encoded.data, Limits(), progress=lambda *now: again.append(now))
    assert again == seen


def test_a_model_without_tensors_is_refused() -> None:
    with pytest.raises(ModelError, match="no tensors"):
        nnrcodec.encode({})


# Determinism.


def test_the_same_input_gives_the_same_bytes() -> None:
    first = nnrcodec.encode(STATE)
    assert nnrcodec.encode({name: value.copy() for name, value in STATE.items()}) == first


def test_the_same_input_gives_the_same_bytes_in_another_process() -> None:
    script = (
        "import sys; from fuzz import streams; "
        "sys.stdout.write((streams.tensors_only() + streams.low_rank()).hex())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": str(Path(__file__).parent)}
    output = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert bytes.fromhex(output) == streams.tensors_only() + streams.low_rank()


# Digests.


@pytest.mark.parametrize("name", ["conv.weight", "conv.bias", "scale", "counts", "wide", "mask"])
def test_a_flipped_payload_bit_is_noticed_and_placed(name: str) -> None:
    data = streams.tensors_only()
    (unit,) = (u for u in streams.units_of(data) if getattr(u.body, "topology_elem_id", 0) == name)
    start = unit.payload_bit_offset
    for bit in range(start, start + 8 * len(unit.payload), 37):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 0x80 >> bit % 8
        with pytest.raises(PayloadError) as caught:
            nnrcodec.decode(bytes(damaged))
        assert caught.value.bit_offset == start
        assert caught.value.path == f"unit[{unit.index}] NNR_XDU/payload"


def test_a_wrong_digest_is_reported_with_the_name_of_the_tensor() -> None:
    content = streams.record_content(streams.tensors_only())
    content["tensors"][1][1] = "00000000"
    data = streams.with_record(streams.tensors_only(), content)
    with pytest.raises(
        PayloadError,
        match=r"unit\[4\] NNR_XDU/payload, bit \d+: tensor 'conv.bias' decodes to digest "
        r"[0-9a-f]{8}, the record says 00000000",
    ):
        nnrcodec.decode(data)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("conv.weight", "int32"),
        ("conv.weight", "bool"),
        ("counts", "float32"),
        ("counts", "uint16"),
        ("counts", "bool"),
        ("conv.bias", "int64"),
        ("mask", "float64"),
    ],
)
def test_a_dtype_that_the_values_do_not_have_is_refused(name: str, dtype: str) -> None:
    content = streams.record_content(streams.tensors_only())
    for row in content["tensors"]:
        if row[0] == name:
            row[2:] = [dtype]
    with pytest.raises(PayloadError, match=f"do not become {dtype}"):
        nnrcodec.decode(streams.with_record(streams.tensors_only(), content))


# Units.


def changed(change: object) -> bytes:
    units = streams.units_of(streams.tensors_only())
    change(units)  # type: ignore[operator]
    return streams.stream_of(units)


def test_units_after_the_parameter_set_may_stand_in_any_order() -> None:
    data = streams.tensors_only()
    expected = nnrcodec.decode(data)
    units = streams.units_of(data)
    found = nnrcodec.decode(streams.stream_of(units[:2] + units[:1:-1]))
    assert list(found) == list(expected)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_private_reserved_and_foreign_units_are_skipped() -> None:
    units = streams.units_of(streams.tensors_only())
    for unit_type in (NnrUnitType.NNR_AGG, 7, 31, 33, 63):
        header = NnrUnitHeader(nnr_unit_type=unit_type)
        units.append(Unit(header, OpaqueUnit(), b"whatever"))
    units.insert(2, streams.topology_unit(b"somebody else's\0"))
    units.append(streams.topology_unit(b"nnrcodecs are fun\0"))
    assert len(nnrcodec.decode(streams.stream_of(units))) == 7


def test_a_missing_tensor_is_named() -> None:
    with pytest.raises(UnitOrderError, match="no data unit for tensor 'scale'"):
        nnrcodec.decode(changed(lambda units: units.pop(5)))


def test_a_doubled_tensor_is_named_and_placed() -> None:
    with pytest.raises(UnitOrderError, match=r"unit\[11\] NNR_XDU, .*a second tensor 'scale'"):
        nnrcodec.decode(changed(lambda units: units.append(units[5])))


def test_an_extra_tensor_is_named_and_placed() -> None:
    body = ExtendedDataUnit(topology_elem_id="extra")
    extra = streams.data_unit(body, bytes(4))
    with pytest.raises(UnitOrderError, match=r"unit\[11\] NNR_XDU.*'extra' is not in the contain"):
        nnrcodec.decode(changed(lambda units: units.append(extra)))


def test_tensors_without_a_record_are_refused() -> None:
    with pytest.raises(UnitOrderError, match="is not in the container record"):
        nnrcodec.decode(changed(lambda units: units.pop(2)))


def test_a_second_record_is_refused() -> None:
    with pytest.raises(UnitOrderError, match=r"unit\[3\] NNR_TPL, .*a second container record"):
        nnrcodec.decode(changed(lambda units: units.insert(2, units[2])))


def test_data_units_without_dimensions_are_not_supported_and_placed() -> None:
    body = NnrCompressedDataUnitHeader(topology_elem_id="w")
    foreign = Unit(NnrUnitHeader(nnr_unit_type=NnrUnitType.NNR_NDU), body)
    with pytest.raises(UnsupportedFeatureError, match=r"unit\[11\] NNR_NDU, bit"):
        nnrcodec.decode(changed(lambda units: units.append(foreign)))


@pytest.mark.parametrize("length", [0, 1, 2, 5, 50, 300])
def test_a_stream_cut_short_is_refused(length: int) -> None:
    with pytest.raises(BitstreamError):
        nnrcodec.decode(streams.tensors_only()[:length])


# Hostile sizes.


def hostile(*dimensions: int, names: int = 1, dtype: str = "float32") -> bytes:
    """Return a short stream of all-zero tensors."""
    start = streams.units_of(streams.tensors_only())[:2]
    content = {
        "writer": "",
        "tensors": [[str(i), "00000000", dtype] for i in range(names)],
    }
    units = [
        streams.data_unit(
            ExtendedDataUnit(
                topology_elem_id=str(i),
                xdu_coding=Coding.ANS,
                xdu_data_format=XduDataFormat.INT32,
                count_tensor_dimensions=len(dimensions),
                tensor_dimensions=list(dimensions),
                level_model=LevelModel(new_table_flag=[1], table=[LevelTable()]),
            )
        )
        for i in range(names)
    ]
    limits = Limits(max_elements=2**64, max_dimensions=64)
    from nnrcodec.syntax.unit import write_units

    record = streams.topology_unit(streams.record_text(content))
    return b"".join(write_units([*start, record, *units], limits))


@pytest.mark.parametrize(
    "dimensions",
    [(2**60,), (2**31, 2**29), (2**20, 2**20, 2**20), (2, 2, 2) * 7, (2**31 - 1,), (2**27,)],
)
@pytest.mark.parametrize("use", [nnrcodec.decode, nnrcodec.decode_model])
def test_a_tiny_stream_that_declares_a_huge_tensor_is_refused(
    dimensions: tuple[int, ...], use: object
) -> None:
    data = hostile(*dimensions, dtype="int32")
    assert len(data) < 200
    with pytest.raises(LimitExceededError):
        use(data)  # type: ignore[operator]


def test_limits_are_for_all_tensors_together() -> None:
    nnrcodec.inspect(hostile(2**25, names=2, dtype="int32"))
    with pytest.raises(LimitExceededError, match=r"of 335544320 bytes, at most 1342\d{5} all"):
        nnrcodec.decode(hostile(2**24, names=5, dtype="int32"))


@pytest.mark.parametrize("dtype", ["bool", "int8", "float16"])
def test_narrow_dtypes_count_as_what_decoding_them_takes(dtype: str) -> None:
    with pytest.raises(LimitExceededError):
        nnrcodec.decode(hostile(2**26 + 1, dtype=dtype))


def test_more_units_than_allowed_are_refused() -> None:
    with pytest.raises(LimitExceededError, match="too many units, at most 4 allowed"):
        nnrcodec.decode(streams.tensors_only(), limits=Limits(max_units=4))


def test_a_great_tensor_of_zeros_takes_a_few_bytes() -> None:
    value = np.zeros((2000, 3000), np.float32)
    data = nnrcodec.encode({"w": value})
    assert len(data) < 180
    assert np.array_equal(nnrcodec.decode(data)["w"], value)


# Merging what a hostile record says.


def with_factors(*rows: object) -> bytes:
    content = streams.record_content(streams.low_rank())
    content["factors"] = list(rows)
    return streams.with_record(streams.low_rank(), content)


@pytest.mark.parametrize(
    "rows",
    [
        [["2", [2**30, 2**30, 2**30, 2**30], 2**30]],
        [["2", [8, 8, 3, 3], 4]],
        [["2", [8, 8, 3, 3], 3]] * 2,
        [["4", [8, 8, 3, 5], 5]],
    ],
)
def test_factors_that_do_not_fit_are_refused(rows: list[object]) -> None:
    data = with_factors(*rows)
    with pytest.raises(SyntaxElementError, match="record/factors"):
        nnrcodec.decode(data, merge=True)


def test_factors_whose_product_is_huge_are_refused() -> None:
    rank_one = {
        "a.u.weight": np.zeros((1, 2**14, 1, 1), np.float32),
        "a.v.weight": np.zeros((2**14, 1, 1, 1), np.float32),
    }
    data = nnrcodec.encode(rank_one)
    content = streams.record_content(data) | {"factors": [["a", [2**14, 2**14, 1, 1], 1]]}
    data = streams.with_record(data, content)
    assert len(nnrcodec.decode(data)) == 2
    with pytest.raises(LimitExceededError, match="tensors of 1073741824 bytes"):
        nnrcodec.decode(data, merge=True)


# The record must be there.


def test_a_record_can_be_required() -> None:
    foreign = FOREIGN.read_bytes()
    message = "there is no container record of nnrcodec in this stream, and one is required"
    for use in (
        nnrcodec.decode,
        nnrcodec.decode_model,
        nnrcodec.inspect,
        partial(nnrcodec.load_into, torch.nn.Linear(2, 1)),
        lambda data, **options: nnrcodec.UpdateDecoder(**options).decode(data),
    ):
        with pytest.raises(UnitOrderError, match=message):
            use(foreign, require_record=True)
    assert nnrcodec.decode(foreign)
    assert nnrcodec.decode(streams.tensors_only(), require_record=True)


@pytest.mark.parametrize("change", [lambda b: b ^ 0x01, lambda b: 0])
@pytest.mark.parametrize("place", [3, 5, 9])
def test_a_damaged_record_is_not_taken_for_a_foreign_unit(place: int, change: Any) -> None:
    data = bytearray(nnrcodec.encode({"w": np.eye(4)}, config=EncoderConfig(profile="nnc")))
    start = streams.record_unit(streams.units_of(bytes(data))).bit_offset // 8
    data[start + place] = change(data[start + place])
    with pytest.raises(PayloadError, match="looks like a record of nnrcodec that is damaged"):
        nnrcodec.decode(bytes(data))


# Merging.


def test_what_takes_too_long_to_merge_is_refused_before_it_is_merged() -> None:
    data = streams.low_rank()
    assert nnrcodec.decode(data, merge=True)
    few = nnrcodec.Limits(max_merge_macs=1000)
    assert nnrcodec.decode(data, limits=few)
    with pytest.raises(LimitExceededError, match="at most 1000 allowed"):
        nnrcodec.decode(data, merge=True, limits=few)
