"""Streams of the reference software: decoded to its bits, coded again to its bytes, cut short."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnrcodec
from nnrcodec.container.stream import read_stream
from nnrcodec.decoder.pipeline import decode_all
from nnrcodec.entropy.cabac.payload import PayloadDecoder, PayloadEncoder
from nnrcodec.errors import BitstreamError
from nnrcodec.limits import Limits
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.data_unit import NnrCompressedDataUnitHeader
from nnrcodec.syntax.unit import Unit, write_units
from nnrcodec.units.ndu import TensorHistory, entry_points_of, level_syntax_of, members_of
from nnrcodec.units.ndu_decoding import decode_data_unit

FOLDER = Path(__file__).parents[2] / "conformance" / "reference"
CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
}
CODED = [name for name in CASES if not name.endswith("_raw")]
MOST_CUTS = 120


def stream(name: str) -> bytes:
    return (FOLDER / f"{name}.nnc").read_bytes()


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as stored:
        return dict(stored)


def expected(name: str, kind: str) -> dict[str, np.ndarray]:
    found = arrays(name).items()
    return {key.removeprefix(kind): value for key, value in found if key.startswith(kind)}


def decoder_before(name: str) -> nnrcodec.UpdateDecoder:
    decoder = nnrcodec.UpdateDecoder(threads=1)
    for needed in CASES[name]["needs"]:
        decoder.decode(stream(needed))
    return decoder


def data_units(name: str) -> list[Unit]:
    return read_stream(stream(name)).of_type(NnrUnitType.NNR_NDU)


def assert_same(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> None:
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        assert found[name].tobytes() == value.tobytes(), name


def test_all_streams_are_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.nnc")} == set(CASES)
    assert {path.stem for path in FOLDER.glob("*.npz")} == set(CASES)
    assert len(CASES) == 66


@pytest.mark.parametrize("name", CASES)
def test_tensors_have_the_bits_of_the_reference_decoder(name: str) -> None:
    assert_same(decoder_before(name).decode(stream(name)), expected(name, "out__"))


@pytest.mark.parametrize("name", CASES)
def test_the_number_of_threads_changes_nothing(name: str) -> None:
    histories = decoder_before(name).histories
    for threads in (2, 5):
        decoded = decode_all(stream(name), Limits(), threads=threads, histories=histories)
        found = {tensor.name: tensor.read() for tensor in decoded.model.tensors.values()}
        assert_same(found, expected(name, "out__"))


@pytest.mark.parametrize("name", CODED)
def test_levels_are_those_of_the_reference_decoder(name: str) -> None:
    histories = decoder_before(name).histories
    found = [
        (decoded.member.name, decoded.levels)
        for unit in data_units(name)
        for decoded in decode_data_unit(unit, histories, keep_levels=True)
    ]
    assert_same({n: levels for n, levels in found if levels is not None}, expected(name, "q__"))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["needs"]])
def test_updates_leave_what_the_reference_decoder_remembers(name: str) -> None:
    histories = decoder_before(name).histories
    for tensor, levels in expected(name, "tcabase__").items():
        assert np.array_equal(histories[tensor].levels, levels)
    for tensor, nonzero in expected(name, "hist__").items():
        assert np.array_equal(histories[tensor].nonzero, nonzero.astype(bool))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["needs"]])
def test_the_state_is_the_sum_of_base_and_differences(name: str) -> None:
    decoder = decoder_before(name)
    state = {}
    for needed in CASES[name]["needs"]:
        for tensor, value in expected(needed, "out__").items():
            state[tensor] = state[tensor] + value if tensor in state else value
    assert_same(decoder.state, state)


def coded_again(unit: Unit, histories: Mapping[str, TensorHistory]) -> bytes:
    """Return the payload that our encoder makes of what is in a payload."""
    header: NnrCompressedDataUnitHeader = unit.body
    decoder, encoder = PayloadDecoder(unit.payload), PayloadEncoder()
    density = unit.context.qp_density
    for member in members_of(header):
        if header.nnr_compressed_data_unit_payload_type:
            encoder.qp_offset(decoder.qp_offset(density), density)
        syntax = level_syntax_of(header, unit.context, member, histories.get(member.name))
        points = entry_points_of(header, member, syntax)
        levels, parameters = decoder.levels(syntax, points)
        encoder.levels(levels, syntax, parameters)
    decoder.finish()
    return encoder.finish()


@pytest.mark.parametrize("name", CODED)
def test_levels_are_coded_to_the_bytes_of_the_reference_encoder(name: str) -> None:
    histories = decoder_before(name).histories
    for unit in data_units(name):
        assert coded_again(unit, histories) == bytes(unit.payload)


def cuts(name: str) -> Iterator[int]:
    """Yield where to cut a stream: everywhere, or in as many places as there is time for."""
    length = len(stream(name))
    yield from range(0, length, -(-length // MOST_CUTS))
    yield length - 1


@pytest.mark.parametrize("name", CASES)
def test_a_stream_cut_short_is_refused(name: str) -> None:
    data, histories = stream(name), decoder_before(name).histories
    starts = {unit.bit_offset // 8 for unit in read_stream(data).units[2:]}
    for length in cuts(name):
        if length in starts:  # a stream of fewer tensors
            continue
        with pytest.raises(BitstreamError):
            decode_all(data[:length], Limits(), threads=1, histories=histories)


@pytest.mark.parametrize("name", CASES)
def test_a_payload_cut_short_is_refused(name: str) -> None:
    histories = decoder_before(name).histories
    units = read_stream(stream(name)).units
    for unit in data_units(name):
        whole = bytes(unit.payload)
        for length in {*range(0, len(whole), -(-len(whole) // 20)), len(whole) - 1}:
            cut = [u if u.index != unit.index else _with_payload(u, whole[:length]) for u in units]
            with pytest.raises(BitstreamError) as caught:
                decode_all(b"".join(write_units(cut)), Limits(), threads=1, histories=histories)
            assert caught.value.path == f"{unit.path}/payload"


def _with_payload(unit: Unit, payload: bytes) -> Unit:
    return Unit(unit.header, unit.body, payload)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["needs"]])
def test_an_update_alone_says_what_it_needs(name: str) -> None:
    if len(CASES[name]["needs"]) == 1:
        assert_same(nnrcodec.decode(stream(name)), expected(name, "out__"))
        return
    with pytest.raises(BitstreamError, match="builds on earlier updates, which were not decoded"):
        nnrcodec.decode(stream(name))


def test_blocks_are_merged_on_request() -> None:
    merged = nnrcodec.decode(stream("p1_torch_bnf"), merge=True)
    parts = expected("p1_torch_bnf", "out__")
    assert list(merged) == ["0.weight.bias", "0.weight", "3.bias", "3.weight", "6.bias", "6.weight"]
    scale = parts["0.weight_scaling"].reshape(-1, 1, 1, 1)
    assert np.array_equal(merged["0.weight"], parts["0.weight"] * scale)

    merged = nnrcodec.decode(stream("p0_block_dc_scan1"), merge=True)
    parts = expected("p0_block_dc_scan1", "out__")
    assert list(merged) == ["l.bias", "l.weight"]
    assert merged["l.weight"].dtype == np.float32
    assert merged["l.weight"].shape == arrays("p0_block_dc_scan1")["in__l.weight"].shape
    product = parts["l.weight_G"] @ parts["l.weight_H"]
    np.testing.assert_allclose(merged["l.weight"].reshape(product.shape), product, rtol=1e-5)
