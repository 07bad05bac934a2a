"""Damaged and hostile streams of the standard: each decodes, or is refused with an error.

There are no digests in them, so that whatever is changed gets as far as the payload, and often
through it. The streams to start from are those of the reference software. As in `test_mutations`,
all comes from seeds; for more than the test run does::

    NNRCODEC_FUZZ=20000 python -m pytest tests/fuzz/test_data_units.py
    python tests/fuzz/test_data_units.py 20000 [first seed]
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import sys
import tracemalloc
import warnings
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # for the command line

from fuzz import test_mutations as mutations
from fuzz.test_mutations import ALLOWED_BYTES, INTERESTING, LIMITS, SEEDS

import nnrcodec
from nnrcodec import BitstreamError, EncodingError, UnsupportedFeatureError
from nnrcodec.syntax.data_unit import Codebook, NnrCompressedDataUnitHeader
from nnrcodec.syntax.topology import TopologyElementsIdsList
from nnrcodec.syntax.unit import Unit, read_units, write_units

FOLDER = Path(__file__).parents[2] / "conformance" / "reference"
CASES: list[dict[str, Any]] = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
MOST_ENTRIES = 3000


@cache
def stream(name: str) -> bytes:
    return (FOLDER / f"{name}.nnc").read_bytes()


def data_units(units: list[Unit]) -> list[Unit]:
    return [u for u in units if isinstance(u.body, NnrCompressedDataUnitHeader)]


def try_stream(before: list[bytes], data: bytes) -> None:
    """Decode a stream in every way there is; only the errors of damaged streams may come."""
    for threads in (1, 3):
        decoder = nnrcodec.UpdateDecoder(limits=LIMITS, threads=threads)
        for stream_before in before:
            decoder.decode(stream_before)
        results = []
        for use in (
            partial(decoder.decode, data),
            partial(decoder.network, merge=True),
            partial(nnrcodec.decode, data, limits=LIMITS, threads=threads, merge=True),
            partial(nnrcodec.inspect, data, limits=LIMITS),
        ):
            try:
                use()
                results.append("")
            except (BitstreamError, UnsupportedFeatureError) as error:
                assert str(error)
                results.append(f"{type(error).__name__} in {error.path}")
        if threads == 1:
            alone = results
    assert results == alone  # the first error is in the same unit, however many threads there are


# Changes.


def flip_payload_bits(rng: random.Random, data: bytes) -> bytes:
    units = list(read_units(data))
    found = [unit for unit in data_units(units) if unit.payload]
    unit = rng.choice(found)
    unit.payload = mutations.flip_bits(rng, bytes(unit.payload))
    return b"".join(write_units(units))


def replace_payload(rng: random.Random, data: bytes) -> bytes:
    units = list(read_units(data))
    unit = rng.choice(data_units(units))
    length = rng.choice([0, 1, 2, 3, 10, 100])
    unit.payload = rng.choice([rng.randbytes(length), bytes(length), b"\xfe" + b"\xff" * length])
    return b"".join(write_units(units))


def change_header(rng: random.Random, data: bytes) -> bytes:
    """Change any elements of a data unit."""
    units = list(read_units(data))
    body = rng.choice(data_units(units)).body
    mutations.change_elements(rng, body)
    fit_arrays(rng, body)
    return b"".join(write_units(units))


def change_coding(rng: random.Random, data: bytes) -> bytes:
    """Change how the levels of a data unit are said to be coded, so that it can be written."""
    units = list(read_units(data))
    unit = rng.choice(data_units(units))
    body: NnrCompressedDataUnitHeader = unit.body
    dimension = rng.choice([1, 2, 3, 7, 16, 17, 70])
    choices: dict[str, list[Any]] = {
        "tensor_dimensions": [
            [dimension],
            [dimension, 9],
            [1, dimension],
            [dimension, 1, 1],
            [*body.tensor_dimensions[1:], dimension],
        ],
        "scan_order": [0, 1, 2, 4],
        "dq_flag": [0, 1],
        "cabac_unary_length_minus1": [0, 1, 255],
        "nnr_compressed_data_unit_payload_type": [0, 1, 2],
        "compressed_parameter_types": [0, 1, 2, 4, 8, 15],
        "decomposition_rank": [0, 1, 3, 100],
        "g_number_of_rows": [0, 1, 2, 8, 12],
        "codebook": [None, Codebook(), Codebook(0, 3, 0, 5, [1], [2])],
        "temporal_context_modeling_flag": [0, 1],
        "put_node_depth": [0, 1, 2, 3],
    }
    for element in rng.sample(list(choices), rng.choice([1, 1, 2, 3])):
        setattr(body, element, rng.choice(choices[element]))
    body.codebook_present_flag = int(body.codebook is not None)
    body.cabac_unary_length_flag = 1
    if unit.context.general_profile_idc == 1 and unit.context.mps_parent_signalling_enabled_flag:
        body.parent_node_id_present_flag = body.node_id_present_flag
    fit_arrays(rng, body)
    return b"".join(write_units(units))


def fit_arrays(rng: random.Random, body: NnrCompressedDataUnitHeader) -> None:
    """Make arrays as long as other elements say."""

    def resize(values: list[int], count: int, largest: int) -> list[int]:
        count = min(max(count, 0), MOST_ENTRIES)
        return values[:count] + [rng.randint(0, largest) for _ in range(count - len(values))]

    body.count_tensor_dimensions = len(body.tensor_dimensions)
    if body.compressed_parameter_types % 2 == 0:
        body.decomposition_rank = body.g_number_of_rows = 0
    if body.count_tensor_dimensions < 2:
        body.scan_order = 0
    points = body.num_block_rows_minus1 if 0 < body.scan_order <= 4 else 0
    body.cabac_offset_list = resize(body.cabac_offset_list, points, 255)
    body.dq_state_list = resize(body.dq_state_list, points * body.dq_flag, 7)
    body.bit_offset_delta2 = resize(body.bit_offset_delta2, points - 1, 9)
    body.bit_offset_delta1 = body.bit_offset_delta1 if points else 0
    for codebook in (body.codebook, body.codebook_h):
        if codebook is not None:
            zero = codebook.cb_zero_offset
            codebook.codebook_delta_left = resize(codebook.codebook_delta_left, zero, 3)
            right = codebook.codebook_size - 1 - zero
            codebook.codebook_delta_right = resize(codebook.codebook_delta_right, right, 3)


def change_block(rng: random.Random, data: bytes) -> bytes:
    """Make another block of a data unit, or of none one."""
    units = list(read_units(data))
    unit = rng.choice(data_units(units))
    body: NnrCompressedDataUnitHeader = unit.body
    types = rng.randrange(16)
    count = 1 + (types & 1) + (types >> 1 & 1) + 4 * (types >> 2 & 1) + (types >> 3)
    names = [rng.choice(["w", f"t{i}", f"t{i}_G", f"t{i}_H"]) for i in range(max(count, 2))]
    body.nnr_compressed_data_unit_payload_type = 3
    body.nnr_multiple_topology_elements_present_flag = 1
    body.topology_elem_id = None
    body.topology_elements_ids_list = TopologyElementsIdsList(len(names) - 2, names)
    body.compressed_parameter_types = types
    if types & 1:
        body.decomposition_rank = rng.choice([1, 2, 5, 2**20, 2**31])
        body.g_number_of_rows = rng.choice([1, body.tensor_dimensions[0], 2**16, *INTERESTING[3:6]])
    if body.codebook is not None and types & 1:
        body.codebook_h = copy.deepcopy(body.codebook)
    fit_arrays(rng, body)
    return b"".join(write_units(units))


MUTATIONS = {
    mutate.__name__: mutate
    for mutate in (
        mutations.flip_bits,
        mutations.cut_or_repeat,
        mutations.insert,
        mutations.change_sizes,
        flip_payload_bits,
        replace_payload,
        change_header,
        change_coding,
        change_block,
    )
}


def mutated(mutation: str, seed: int) -> tuple[str, list[bytes], bytes]:
    """Return the stream of a seed, which one it was, and what stands before it."""
    rng = random.Random(f"{mutation}/{seed}")  # noqa: S311 - reproducible, not secret
    for _ in range(1000):
        case = rng.choice(CASES)
        before = [stream(name) for name in case["needs"]]
        try:
            return case["name"], before, MUTATIONS[mutation](rng, stream(case["name"]))
        except (EncodingError, UnsupportedFeatureError, IndexError):  # not so; try another one
            continue
    raise AssertionError(f"{mutation} changes nothing")


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutated_streams_decode_or_are_refused(mutation: str) -> None:
    for seed in range(3 * SEEDS):
        name, before, data = mutated(mutation, seed)
        try:
            try_stream(before, data)
        except BaseException as error:
            pytest.fail(f"{name}, {mutation}, seed {seed}: {error!r}")


def test_mutated_streams_take_no_more_memory_than_allowed() -> None:
    nnrcodec.decode(stream("p1_2d_dq"))
    tracemalloc.start()
    try:
        for mutation in ("change_header", "change_coding", "change_block"):
            for seed in range(SEEDS):
                _, _, data = mutated(mutation, seed)
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
                with contextlib.suppress(BitstreamError, UnsupportedFeatureError):
                    nnrcodec.decode(data, limits=LIMITS)
                _, peak = tracemalloc.get_traced_memory()
                assert peak - before < ALLOWED_BYTES, f"{mutation}, seed {seed}"
    finally:
        tracemalloc.stop()


def test_most_changes_of_the_coding_reach_the_payload() -> None:
    reached = 0
    for seed in range(60):
        _, before, data = mutated("change_coding", seed)
        decoder = nnrcodec.UpdateDecoder(limits=LIMITS)
        try:
            for stream_before in before:
                decoder.decode(stream_before)
            decoder.decode(data)
            reached += 1
        except (BitstreamError, UnsupportedFeatureError) as error:
            reached += "payload" in (error.path or "")
    assert reached > 20


if __name__ == "__main__":
    count, first = (int(argument) for argument in [*sys.argv[1:], "1000", "0"][:2])
    warnings.simplefilter("error")
    for seed in range(first, first + count):
        for mutation in MUTATIONS:
            name, before, data = mutated(mutation, seed)
            try:
                try_stream(before, data)
            except BaseException as error:
                print(f"{name}, {mutation}, seed {seed}: {error!r}", flush=True)  # noqa: T201
                if isinstance(error, KeyboardInterrupt):
                    raise
