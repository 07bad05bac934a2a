from __future__ import annotations

from typing import Any

import networks
import numpy as np
import pytest
from data_units import coded, header_of, stream_of, update_of
from fuzz import streams

import nnrcodec
from nnrcodec import UpdateDecoder
from nnrcodec.container.record import Record, TensorEntry, tensor_digest
from nnrcodec.entropy.cabac.level_syntax import LevelParameters
from nnrcodec.errors import (
    BitstreamError,
    LimitExceededError,
    PayloadError,
    SyntaxElementError,
    UnitOrderError,
)
from nnrcodec.graph.module import build_module
from nnrcodec.limits import Limits
from nnrcodec.model.model import DTYPES, Model, Role, Tensor

RNG = np.random.default_rng(11)
STEP = np.float32(0.25)


def levels_of(*shape: int) -> np.ndarray:
    return RNG.integers(-3, 4, shape).astype(np.int32)


def base_of(**tensors: np.ndarray) -> bytes:
    return stream_of(*(coded(header_of(n, *v.shape), {n: v}) for n, v in tensors.items()))


def update(**tensors: np.ndarray) -> bytes:
    units = (coded(update_of(n, *v.shape), {n: v}) for n, v in tensors.items())
    return stream_of(*units, update=1)


def recorded_update(name: str, value: np.ndarray, dtype: str, **elements: Any) -> bytes:
    """Return an update with a record, whose values are levels of step size 1."""
    header = update_of(name, *value.shape, **elements)
    levels = value.astype(np.int32)
    entry = TensorEntry(name, tensor_digest(Tensor.of(name, value, dtype), value), dtype)
    record = streams.topology_unit(streams.record_data(Record((entry,))))
    return stream_of(record, coded(header, {name: levels}, 0), update=1)


def test_updates_are_differences_and_the_state_is_their_sum() -> None:
    w, b, first, second = levels_of(4, 5), levels_of(4), levels_of(4, 5), levels_of(4, 5)
    decoder = UpdateDecoder()
    assert decoder.state == {}
    decoder.decode(base_of(w=w, b=b))
    assert np.array_equal(decoder.decode(update(w=first))["w"], first * STEP)
    assert list(decoder.decode(update(w=second))) == ["w"]
    assert list(decoder.state) == ["w", "b"]
    assert np.array_equal(decoder.state["w"], w * STEP + first * STEP + second * STEP)
    assert np.array_equal(decoder.state["b"], b * STEP)


def test_a_base_model_starts_a_new_sequence() -> None:
    decoder = UpdateDecoder()
    decoder.decode(base_of(w=levels_of(4, 5)))
    decoder.decode(update(w=levels_of(4, 5)))
    assert decoder.histories
    other = levels_of(3)
    decoder.decode(base_of(v=other))
    assert not decoder.histories
    assert list(decoder.state) == ["v"]


def test_an_update_needs_a_base_model() -> None:
    decoder = UpdateDecoder()
    with pytest.raises(UnitOrderError, match="has to be decoded first"):
        decoder.decode(update(w=levels_of(3)))
    with pytest.raises(UnitOrderError, match="decode a base model first"):
        decoder.network()


def test_levels_are_remembered_from_update_to_update() -> None:
    decoder = UpdateDecoder()
    decoder.decode(base_of(w=levels_of(6, 7), v=levels_of(3)))
    total = decoder.state["w"]
    for depth in range(1, 5):
        levels = levels_of(6, 7)
        header = update_of("w", 6, 7, depth=depth, temporal=int(depth > 1))
        unit = coded(
            header,
            {"w": levels},
            parameters=LevelParameters(1, 0),
            histories=decoder.histories,
        )
        decoder.decode(stream_of(unit, update=1))
        assert np.array_equal(decoder.histories["w"].levels, levels)
        assert decoder.histories["w"].put_node_depth == depth
        total = total + levels * STEP
        assert np.array_equal(decoder.state["w"], total)
        decoder.decode(update())  # one in which all tensors were zero
    assert "v" not in decoder.histories


def damaged_second(first: np.ndarray) -> bytes:
    good = coded(update_of("w", *first.shape), {"w": first})
    bad = coded(update_of("v", 3), {"v": levels_of(3)})
    bad.payload = bad.payload[:-1]
    return stream_of(good, bad, update=1)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (damaged_second(levels_of(4, 5)), BitstreamError),
        (update(w=levels_of(4, 5), x=levels_of(3)), UnitOrderError),
        (update(v=levels_of(3), w=levels_of(5, 4)), SyntaxElementError),
        (base_of(w=levels_of(2))[:-1], BitstreamError),
        (b"", BitstreamError),
    ],
)
def test_a_stream_that_is_refused_changes_nothing(data: bytes, error: type[Exception]) -> None:
    decoder = UpdateDecoder()
    decoder.decode(base_of(w=levels_of(4, 5), v=levels_of(3)))
    decoder.decode(update(w=levels_of(4, 5)))
    state, histories = decoder.state, decoder.histories
    with pytest.raises(error):
        decoder.decode(data)
    assert decoder.state.keys() == state.keys()
    assert all(np.array_equal(decoder.state[name], state[name]) for name in state)
    assert decoder.histories == histories


def test_what_does_not_fit_the_base_model_is_named() -> None:
    decoder = UpdateDecoder()
    decoder.decode(base_of(w=levels_of(4, 5)))
    with pytest.raises(UnitOrderError, match="tensor 'x', which the base model does not have"):
        decoder.decode(update(x=levels_of(3)))
    with pytest.raises(
        SyntaxElementError, match=r"dimensions \[5, 4\], the base model has \[4, 5\]"
    ):
        decoder.decode(update(w=levels_of(5, 4)))


@pytest.mark.parametrize(
    ("dtype", "base", "difference", "expected"),
    [
        ("float16", 2048.0, 1.0, 2048.0),
        ("float16", 2048.0, 3.0, 2052.0),
        ("bfloat16", 256.0, 1.0, 256.0),
        ("float32", 2.0**24, 1.0, 2.0**24),
        ("float64", 2.0**24, 1.0, 2.0**24 + 1),
        ("float64", 1e-300, 3.0, 3.0),
    ],
)
def test_floats_are_added_in_their_own_precision(
    dtype: str, base: float, difference: float, expected: float
) -> None:
    value = np.full(3, base, DTYPES[dtype])  # so few that they are stored
    decoder = UpdateDecoder()
    decoder.decode(nnrcodec.encode(Model.of([Tensor.of("w", value, dtype)])))
    decoder.decode(recorded_update("w", np.full(3, difference, np.float32), "float32"))
    assert decoder.state["w"].dtype == DTYPES[dtype]
    assert decoder.state["w"].tolist() == [expected] * 3
    assert decoder.network().tensors["w"].dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "base", "difference", "fits"),
    [
        ("int8", 100, 27, True),
        ("int8", 100, 28, False),
        ("uint8", 3, -3, True),
        ("uint8", 3, -4, False),
        ("bool", 1, -1, True),
        ("bool", 1, 1, False),
        ("int32", 2**31 - 1, -5, True),
        ("int32", 2**31 - 1, 1, False),
        ("int64", 2**40, 7, True),
        ("int64", 2**63 - 1, 1, True),
        ("uint64", 2**63 + 5, -6, True),
    ],
)
def test_integers_stay_in_their_range(dtype: str, base: int, difference: int, fits: bool) -> None:
    decoder = UpdateDecoder()
    decoder.decode(nnrcodec.encode({"n": np.array([base] * 20, dtype)}))
    change = np.full(20, difference, np.int32)
    data = recorded_update("n", change, "int32", nnr_compressed_data_unit_payload_type=0)
    if not fits:
        with pytest.raises(PayloadError, match=f"leads tensor 'n' out of {dtype}"):
            decoder.decode(data)
        return
    decoder.decode(data)
    bits = np.iinfo(dtype).bits if dtype != "bool" else 1
    wrapped = (base + difference) % 2**64 if bits == 64 else base + difference
    assert decoder.state["n"].dtype == np.dtype(dtype)
    assert int(decoder.state["n"][0]) % 2**64 == wrapped % 2**64


def test_integers_and_floats_are_not_added() -> None:
    decoder = UpdateDecoder()
    decoder.decode(nnrcodec.encode({"n": np.arange(20)}))
    with pytest.raises(SyntaxElementError, match="is of dtype float32, the base model is of int64"):
        decoder.decode(update(n=levels_of(20)))


def test_scalars_stay_arrays() -> None:
    decoder = UpdateDecoder()
    decoder.decode(nnrcodec.encode({"n": np.array(7, np.int64), "s": np.array(1.5, np.float32)}))
    value = np.array(2, np.int32)
    entry = TensorEntry("n", tensor_digest(Tensor.of("n", value), value), "int32", scalar=True)
    record = streams.topology_unit(streams.record_data(Record((entry,))))
    header = update_of("n", 1, nnr_compressed_data_unit_payload_type=0)
    decoder.decode(stream_of(record, coded(header, {"n": [2]}), update=1))
    assert isinstance(decoder.state["n"], np.ndarray)
    assert (decoder.state["n"], decoder.state["n"].shape) == (9, ())


def test_digests_of_an_update_are_those_of_the_differences() -> None:
    decoder = UpdateDecoder()
    decoder.decode(base_of(w=levels_of(20), v=levels_of(3)))
    change = np.ones(20, np.float32)
    data = recorded_update("w", change, "float32")
    assert list(decoder.decode(data)) == ["w"]
    wrong = streams.with_record(data, {"writer": "", "tensors": [["w", "00000000"]]}, "1.1")
    with pytest.raises(PayloadError, match="tensor 'w' decodes to digest"):
        decoder.decode(wrong)


def test_a_network_with_its_graph_is_updated() -> None:
    network = networks.Network("small", networks.plain_cnn, (1, 1, 6, 6))
    data = nnrcodec.encode(network.module(), (network.example(),))
    decoder = UpdateDecoder()
    decoder.decode(data)
    shape = decoder.state["0.weight"].shape
    change = np.ones(shape, np.float32)
    decoder.decode(recorded_update("0.weight", change, "float32"))
    module = build_module(decoder.network(), Limits())
    before = nnrcodec.decode(data)["0.weight"]
    assert np.array_equal(module.state_dict()["0.weight"].numpy(), before + change)
    assert module(network.example()).shape == nnrcodec.decode_model(data)(network.example()).shape
    constants = {t.name for t in decoder.network().tensors.values() if t.role is Role.CONSTANT}
    assert not constants & decoder.state.keys()


def test_merging_is_done_after_all_updates() -> None:
    decoder = UpdateDecoder()
    decoder.decode(streams.low_rank())
    name = "2.u.weight"
    change = np.ones(decoder.state[name].shape, np.float32)
    decoder.decode(recorded_update(name, change, "float32"))
    merged = decoder.network(merge=True)
    assert "2.weight" in merged.tensors
    u, v = (decoder.state[f"2.{part}.weight"].astype(np.float64) for part in "uv")
    expected = np.einsum("rci,nrj->ncij", u[..., 0], v[:, :, 0])
    np.testing.assert_allclose(merged.tensors["2.weight"].read(), expected, rtol=1e-5, atol=1e-6)


def test_limits_are_those_of_the_caller() -> None:
    decoder = UpdateDecoder(limits=Limits(free_decoded_bytes=100, decoded_bytes_per_byte=1))
    with pytest.raises(LimitExceededError):
        decoder.decode(base_of(w=np.zeros((100, 100), np.int32)))


def test_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    UpdateDecoder(threads=2).decode(
        base_of(w=levels_of(4, 5), v=levels_of(3)), progress=lambda *now: seen.append(now)
    )
    assert seen == [(20, 23), (23, 23)]


def test_an_update_of_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    decoder = UpdateDecoder()
    decoder.decode(base_of(w=levels_of(4, 5)))
    assert decoder.decode(stream_of(update=1)) == {}
    assert "neither tensors nor a record" in caplog.text
