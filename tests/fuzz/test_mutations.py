"""Damaged and hostile streams: each decodes, or is refused with an error that says so.

Bytes are changed at random, which the checks of the record mostly stop early; so are unit headers,
the record, the graph in it and the tables of tensors, which leads further in. All mutations come
from fixed seeds. The test run does a few dozen of each kind; for more, run by hand::

    NNRCODEC_FUZZ=20000 python -m pytest tests/fuzz
    python tests/fuzz/test_mutations.py 20000 [first seed]

A failure names stream, kind and seed, which is all that is needed to repeat it.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import os
import random
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # for the command line

from fuzz import streams

import nnrcodec
from nnrcodec import BitstreamError, EncodingError, Limits, UnsupportedFeatureError
from nnrcodec.entropy.ans.levels import LevelTable
from nnrcodec.syntax.extended_data_unit import ExtendedDataUnit
from nnrcodec.syntax.unit import Unit

LIMITS = Limits(free_decoded_bytes=2**22, decoded_bytes_per_byte=1, max_record_bytes=2**20)
ALLOWED_BYTES = 10 * 2**22
"""Of Python and numpy together: the decoded tensors, what is needed on the way, the record."""

SEEDS = int(os.environ.get("NNRCODEC_FUZZ", "20"))
INTERESTING = [0, 1, -1, 2, 7, 63, 64, 255, 2**15, 2**24, 2**31 - 1, -(2**31), 2**32, 2**60]
VALUES: list[Any] = [*INTERESTING, 0.5, 1e308, True, None, "", "a.b", "x" * 300, [], [[]], {}]


def try_stream(data: bytes) -> None:
    """Decode a stream in every way there is; only the errors of damaged streams may come."""
    for use in (
        nnrcodec.inspect,
        nnrcodec.decode,
        lambda d, limits: nnrcodec.decode(d, limits=limits, merge=True),
        nnrcodec.decode_model,
    ):
        try:
            use(data, limits=LIMITS)
        except (BitstreamError, UnsupportedFeatureError) as error:
            assert str(error)
        except nnrcodec.ModelError as error:
            assert "no graph" in str(error)


# Bytes.


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 20])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut_or_repeat(rng: random.Random, data: bytes) -> bytes:
    a, b = sorted(rng.choices(range(len(data) + 1), k=2))
    return rng.choice(
        [data[:a], data[b:], data[:a] + data[b:], data[:b] + data[a:], data[:a] + data + data[a:]]
    )


def insert(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + rng.randbytes(rng.randrange(1, 9)) + data[place:]


def splice_streams(rng: random.Random, data: bytes) -> bytes:
    other = rng.choice(list(streams.STREAMS.values()))()
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def change_sizes(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    start = rng.choice(streams.units_of(data)).bit_offset // 8
    changed[start : start + 2] = rng.choice(
        [rng.randbytes(2), rng.randrange(12).to_bytes(2, "big"), b"\xff\xff", b"\x80\x00"]
    )
    return bytes(changed)


# Structure.


def shuffle_units(rng: random.Random, data: bytes) -> bytes:
    def slices(data: bytes) -> list[bytes]:
        starts = [unit.bit_offset // 8 for unit in streams.units_of(data)]
        return [data[a:b] for a, b in itertools.pairwise([*starts, len(data)])]

    units = slices(data)
    other = slices(rng.choice(list(streams.STREAMS.values()))())
    first = rng.randrange(4)
    rest = units[first:] + rng.choices(units + other, k=rng.randrange(3))
    rng.shuffle(rest)
    return b"".join(units[:first] + rest[: rng.randrange(len(rest) + 1)])


def change_json(rng: random.Random, value: Any) -> Any:
    """Return a JSON value with one place in it changed."""
    if rng.random() < 0.8 and isinstance(value, list | dict) and value:
        value = copy.copy(value)
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        chance = rng.random()
        if chance < 0.05:
            del value[key]
        elif chance < 0.1 and isinstance(value, list):
            value.insert(key, rng.choice([*value, *VALUES]))
        elif chance < 0.15 and isinstance(value, dict):
            value[rng.choice(["", "r", "k", "f", "list", "dict", "weight"])] = value.pop(key)
        else:
            value[key] = change_json(rng, value[key])
        return value
    if type(value) is int and rng.random() < 0.6:
        return value + rng.choice([-1, 1, 2, 1000])
    return rng.choice(VALUES)


def change_record(rng: random.Random, data: bytes) -> bytes:
    content = streams.record_content(data)
    for _ in range(rng.choice([1, 1, 3])):
        content = change_json(rng, content)
    return streams.with_record(data, content, rng.choice(["1.1", "1.2", "1.7"]))


def change_graph(rng: random.Random, data: bytes) -> bytes:
    content = streams.record_content(streams.with_graph())
    if "graph" in streams.record_content(data):
        content = streams.record_content(data)
    key = rng.choice(list(content["graph"]))
    content["graph"][key] = change_json(rng, content["graph"][key])
    return streams.with_record(data, content)


def change_names(rng: random.Random, data: bytes) -> bytes:
    """Rename tensors in the units and in the record alike."""
    names = ["", ".", "a..b", "forward", "0", "2", "2.u", "2.u.weight", "training", "x.0.weight"]
    content = streams.record_content(data)
    units = streams.units_of(data)
    entry = rng.choice(content["tensors"])
    new = rng.choice([*names, entry[0] + ".x", entry[0].rpartition(".")[0]])
    for unit in streams.data_units(units):
        if unit.body.topology_elem_id == entry[0]:
            unit.body.topology_elem_id = new
    entry[0] = new
    return streams.with_record(streams.stream_of(units), content)


def records_within(body: Any) -> list[Any]:
    """Return a record of the syntax and all records in it."""
    found = [body]
    for field in fields(body):
        value = getattr(body, field.name)
        for item in value if isinstance(value, list) else [value]:
            if is_dataclass(item):
                found += records_within(item)
    return found


def change_elements(rng: random.Random, body: Any) -> None:
    """Change integers in a record of the syntax, and make arrays as long as they must be."""
    record = rng.choice(records_within(body))
    name = rng.choice([f.name for f in fields(record)])
    value = getattr(record, name)
    if isinstance(value, list) and value and all(isinstance(v, int) for v in value):
        value[rng.randrange(len(value))] = rng.choice([*INTERESTING, value[0] + 1])
    elif isinstance(value, int):
        near = [value + 1, value - 1, value ^ 1, value ^ 64]
        setattr(record, name, rng.choice([*INTERESTING, *near, *near]))
    if isinstance(body, ExtendedDataUnit):
        fit_arrays(rng, body)


def fit_arrays(rng: random.Random, body: ExtendedDataUnit) -> None:
    def resize(values: list[Any], count: int, new: Callable[[], Any]) -> list[Any]:
        count = min(max(count, 0), 5000)
        return values[:count] + [new() for _ in range(count - len(values))]

    def dimension() -> int:
        return rng.choice([1, 2, 3, 1000])

    if body.level_model is None and body.xdu_coding:
        donor = rng.choice(streams.data_units(streams.units_of(streams.tensors_only())))
        body.level_model = donor.body.level_model
    dimensions = resize(body.tensor_dimensions, body.count_tensor_dimensions, dimension)
    body.tensor_dimensions = dimensions
    model = body.level_model
    if model is None:
        return
    model.new_table_flag = resize(model.new_table_flag, model.class_count, lambda: 0)
    table = model.table[0] if model.table else None
    model.table = resize(
        model.table, sum(model.new_table_flag), lambda: copy.deepcopy(table or LevelTable())
    )
    model.escape_level = resize(model.escape_level, model.count_escapes, lambda: 2000)
    for table in (model.row_class_table, model.column_class_table, *model.table):
        if table.table_form and table.table_level_count_minus1 < 5000:
            table.code_delta = resize(table.code_delta, table.code_count - 1, lambda: 0)


def change_headers(rng: random.Random, data: bytes) -> bytes:
    """Change elements of units through the syntax writer; half the time the payload as well."""
    units = streams.units_of(data)
    for unit in rng.choices(units, k=rng.choice([1, 1, 2])):
        change_elements(rng, unit.body)
        if unit.payload and rng.random() < 0.5:
            unit.payload = change_payload(rng, unit)
    return streams.stream_of(units)


def change_payload(rng: random.Random, unit: Unit) -> bytes:
    payload = bytes(unit.payload)
    return rng.choice([flip_bits, cut_or_repeat, insert])(rng, payload).rstrip(b"\0")


def change_headers_and_sign(rng: random.Random, data: bytes) -> bytes:
    """Let the digests agree with what decodes, so that the decoder accepts it."""
    changed = change_headers(rng, data)
    return streams.resigned(changed)


MUTATIONS = {
    mutate.__name__: mutate
    for mutate in (
        flip_bits,
        cut_or_repeat,
        insert,
        splice_streams,
        change_sizes,
        shuffle_units,
        change_record,
        change_graph,
        change_names,
        change_headers,
        change_headers_and_sign,
    )
}


def mutated(stream: str, mutation: str, seed: int) -> bytes:
    """Return the stream of a seed."""
    rng = random.Random(f"{stream}/{mutation}/{seed}")  # noqa: S311 - reproducible, not secret
    for _ in range(100):
        try:
            return MUTATIONS[mutation](rng, streams.STREAMS[stream]())
        except (EncodingError, UnsupportedFeatureError):  # by the writer; try another one
            continue
    raise AssertionError(f"{mutation} cannot change {stream}")


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("stream", streams.STREAMS)
def test_mutated_streams_decode_or_are_refused(stream: str, mutation: str) -> None:
    for seed in range(SEEDS):
        try:
            try_stream(mutated(stream, mutation, seed))
        except BaseException as error:  # a panic in constriction is not an Exception
            pytest.fail(f"{stream}, {mutation}, seed {seed}: {error!r}")


def test_mutated_streams_take_no_more_memory_than_allowed() -> None:
    tracemalloc.start()
    try:
        for mutation in ("change_headers", "change_record"):
            for seed in range(SEEDS):
                data = mutated("tensors only", mutation, seed)
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
                with contextlib.suppress(BitstreamError, UnsupportedFeatureError):
                    nnrcodec.decode(data, limits=LIMITS)
                _, peak = tracemalloc.get_traced_memory()
                assert peak - before < ALLOWED_BYTES, f"{mutation}, seed {seed}"
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    count, first = (int(argument) for argument in [*sys.argv[1:], "1000", "0"][:2])
    warnings.simplefilter("error")
    logging.disable()
    for seed in range(first, first + count):
        for stream in streams.STREAMS:
            for mutation in MUTATIONS:
                try:
                    try_stream(mutated(stream, mutation, seed))
                except BaseException as error:
                    print(f"{stream}, {mutation}, seed {seed}: {error!r}", flush=True)  # noqa: T201
                    if isinstance(error, KeyboardInterrupt):
                        raise
