"""What is fuzzed: each target makes streams from a seed, and says how they are used."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fuzz import graphs, streams
from fuzz import test_data_units as standard
from fuzz import test_mutations as mutations

from nnrcodec import EncodingError, UnsupportedFeatureError
from nnrcodec.syntax.topology import NnrTopologyUnit

Mutation = Callable[[random.Random, bytes], bytes]


@dataclass(frozen=True)
class Made:
    """Streams to use, the last of them for its own sake; and what they are, for people."""

    streams: list[bytes]
    note: str = ""


@dataclass(frozen=True)
class Target:
    """One thing that is fuzzed.

    Parameters
    ----------
    use : str
        Name in `fuzz.uses.USES`.
    make : callable
        Takes a source of random numbers and streams to start from, if any; returns `Made`.
    """

    use: str
    make: Callable[[random.Random, Sequence[bytes]], Made]


TARGETS: dict[str, Target] = {}


def _mutating(
    several: Sequence[Mutation], begin: Callable[[random.Random], list[bytes]]
) -> Callable[[random.Random, Sequence[bytes]], Made]:
    """Return what changes the last of some streams, one to three times."""

    def make(rng: random.Random, start: Sequence[bytes]) -> Made:
        given = list(start) or begin(rng)
        names = []
        for _ in range(rng.choice([1, 1, 2, 3])):
            for _ in range(50):
                mutation = rng.choice(list(several))
                try:
                    given = [*given[:-1], mutation(rng, given[-1])]
                except TRY_ANOTHER:
                    continue
                names.append(mutation.__name__)
                break
        return Made(given, " ".join(names))

    return make


TRY_ANOTHER = (EncodingError, UnsupportedFeatureError, LookupError, ValueError, TypeError)
TRY_ANOTHER += (AttributeError, StopIteration, OverflowError, struct.error, AssertionError)
TRY_ANOTHER += (RecursionError, mutations.BitstreamError)
"""What mutations raise for streams in which there is nothing for them to change."""


def _one_of_ours(rng: random.Random) -> list[bytes]:
    return [rng.choice(list(streams.STREAMS.values()))()]


def _with_graph(rng: random.Random) -> list[bytes]:
    return [rng.choice([streams.with_graph, streams.low_rank])()]


def _one_of_the_standard(rng: random.Random) -> list[bytes]:
    return [standard.stream(rng.choice([c for c in standard.CASES if not c["needs"]])["name"])]


def _an_update(rng: random.Random) -> list[bytes]:
    case = rng.choice([case for case in standard.CASES if case["needs"]])
    return [standard.stream(name) for name in (*case["needs"], case["name"])]


def _any(rng: random.Random) -> list[bytes]:
    return rng.choice([_one_of_ours, _one_of_the_standard])(rng)


# Changes that are not among those of the tests.


def change_member(rng: random.Random, data: bytes) -> bytes:
    """Change, repeat, rename or multiply members of the record."""
    content = streams.record_content(data)
    rows = content["tensors"]
    row = rng.choice(rows)
    change = rng.randrange(9)
    if change == 0:
        row[:] = [*row, "float32", "parameter"][:4]
        row[rng.randrange(len(row))] = rng.choice(["bool", "constant", "buffer", "uint64", row[0]])
    elif change == 1:
        rows.insert(rng.randrange(len(rows) + 1), list(row))
    elif change == 2:
        rng.shuffle(rows)
    elif change == 3:
        others = content.setdefault("coded_names", {})
        others[row[0]] = rng.choice(rows)[0]
    elif change == 4:
        content.setdefault("scalars", []).append(rng.choice([row[0], "", "nothing"]))
    elif change == 5:
        content["base"] = rng.choice(["00000000", "", 3, None, "0" * 9])
    elif change == 6:
        layer = row[0].rpartition(".")[0]
        shape = [rng.choice([1, 2, 4, 12, 2**31 - 1]) for _ in range(rng.choice([2, 3, 4, 5, 6]))]
        words = ["separable", "channel", "linear", "channel-transposed", "separable-transposed"]
        new = [layer.removesuffix(".u"), shape, rng.choice([1, 2, 3, 2**31]), rng.choice(words)]
        content.setdefault("factors", []).append(new)
    elif change == 7:
        rows += [[f"t{i}", "00000000"] for i in range(rng.choice([1, 100, 20_000]))]
    else:
        content[rng.choice(["new", "graph", "writer", ""])] = rng.choice(mutations.VALUES)
    return streams.with_record(data, content, rng.choice(["1.0", "1.1", "1.1", "1.9"]))


def change_factors(rng: random.Random, data: bytes) -> bytes:
    """Change what the record says of factors."""
    content = streams.record_content(data)
    row = rng.choice(content["factors"])
    words = ["separable", "channel", "linear", "channel-transposed", "separable-transposed"]
    change = rng.randrange(6)
    if change == 0:
        row[1][rng.randrange(len(row[1]))] = rng.choice([1, 2, 3, 4, 8, 12, 2**31 - 1])
    elif change == 1:
        row[2] = rng.choice([1, 2, 3, 5, 7, 100, 2**31 - 1])
    elif change == 2:
        row[3:] = [rng.choice(words)]
    elif change == 3:
        rng.shuffle(row[1])
    elif change == 4:
        content["factors"].append([*row])
    else:
        row[0] = rng.choice(content["factors"])[0]
    return streams.with_record(data, content, "1.1")


ODD_NAMES = [
    *("", ".", "..", "a.", ".a", "a..b", "forward", "training", "__class__", "__dict__", "0", "-1"),
    *("x_G", "x_H", "weight", "_modules", "_parameters", "state_dict", "T_destination", "a b", "é"),
    *(
        "\0",
        "\n",
        "\x1b[2J",
        "\u202e",
        "\u2028",
        "💣",
        "\uff41",
        "x" * 70_000,
        "a." * 101 + "w",
        "%s%n",
    ),
    *(
        "../../x",
        "/dev/null",
        "C:\\x",
        "{0}",
        "${HOME}",
        "`id`",
        "$(id)",
        '"',
        "'",
        "\\",
        '"]',
        "#",
    ),
    'training"), open("{mark}", "w"), ("',
    "x'), open('{mark}', 'w'), ('",
    '"+open("{mark}","w").name+"',
    "a\nopen('{mark}', 'w')\n",
    "None",
    "class",
    "lambda",
    "self",
    "import",
    "__debug__",
]


def odd_name(rng: random.Random) -> str:
    from fuzz.uses import MARK

    return rng.choice(ODD_NAMES).replace("{mark}", str(MARK))


def rename_tensors(rng: random.Random, data: bytes) -> bytes:
    """Give a tensor an odd name wherever it is named."""
    content, units = streams.record_content(data), streams.units_of(data)
    entry = rng.choice(content["tensors"])
    old = entry[0]
    new = rng.choice([odd_name(rng), f"{old}.{odd_name(rng)}", f"{odd_name(rng)}.{old}"])
    for unit in streams.data_units(units):
        if unit.body.topology_elem_id == old:
            unit.body.topology_elem_id = new

    def renamed(value: Any) -> Any:
        if isinstance(value, list):
            return [renamed(item) for item in value]
        if isinstance(value, dict):
            return {key: renamed(item) for key, item in value.items()}
        return new if value == old else value

    return streams.with_record(streams.stream_of(units), renamed(content))


def rename_others(rng: random.Random, data: bytes) -> bytes:
    """Give inputs, dimensions, keys, operators or layers odd names."""
    content = streams.record_content(data)
    graph, new = content["graph"], odd_name(rng)
    change = rng.randrange(5)
    if change == 0:
        rng.choice(graph["inputs"])[0] = new
    elif change == 1:
        graph["dims"][new] = [0, None, 2]
        shape = rng.choice(graph["inputs"])[2]
        shape[rng.randrange(len(shape))] = new
    elif change == 2:
        graph["output"] = {"dict": {new: {"r": 1}, odd_name(rng): {"r": 1}}}
    elif change == 3:
        graph["ops"][rng.randrange(len(graph["ops"]))] = new
    else:
        content["writer"] = new
    return streams.with_record(data, content)


def change_foreign_topology(rng: random.Random, data: bytes) -> bytes:
    """Put other bytes in place of the record."""
    units = streams.units_of(data)
    unit = rng.choice([u for u in units if isinstance(u.body, NnrTopologyUnit)])
    unit.body.topology_data = rng.choice(
        [
            b"\0",
            b"nnrcodec 1.1 \0",
            b"nnrcodec 1.1 x\0",
            rng.randbytes(40).replace(b"\0", b"1") + b"\0",
        ]
    )
    return streams.stream_of(units)


def make_graph(rng: random.Random, start: Sequence[bytes]) -> Made:
    """Make a graph, or change one."""
    if start:
        return _mutating([mutations.change_graph], _with_graph)(rng, start)
    stream, note = graphs.graph_stream(rng)
    return Made([stream], note)


OF_BYTES = [
    mutations.flip_bits,
    mutations.cut_or_repeat,
    mutations.insert,
    mutations.splice_streams,
    mutations.change_sizes,
    mutations.shuffle_units,
]
OF_DATA_UNITS = [
    standard.flip_payload_bits,
    standard.replace_payload,
    standard.change_header,
    standard.change_coding,
    standard.change_block,
]
OF_OURS = [mutations.change_headers, mutations.change_headers_and_sign]

TARGETS |= {
    "graph_build": Target("run", make_graph),
    "pt2": Target("pt2", make_graph),
    "graph_text": Target("run", _mutating([mutations.change_graph], _with_graph)),
    "record": Target(
        "every_way",
        _mutating([mutations.change_record, change_member, change_foreign_topology], _one_of_ours),
    ),
    "names": Target(
        "pt2", _mutating([rename_tensors, rename_others, mutations.change_names], _with_graph)
    ),
    "ans": Target("every_way", _mutating(OF_OURS, _one_of_ours)),
    "lossless": Target("every_way", _mutating(OF_OURS, lambda rng: [streams.lossless()])),
    "lossless_updates": Target(
        "updates",
        _mutating([*OF_OURS, mutations.flip_bits], lambda rng: list(streams.lossless_update())),
    ),
    "cabac": Target("every_way", _mutating(OF_DATA_UNITS, _one_of_the_standard)),
    "updates": Target("updates", _mutating([*OF_DATA_UNITS, mutations.flip_bits], _an_update)),
    "merges": Target(
        "merge",
        _mutating([change_factors, *OF_OURS], lambda rng: [streams.low_rank()]),
    ),
    "blocks": Target(
        "merge", _mutating([standard.change_block, standard.change_coding], _one_of_the_standard)
    ),
    "bytes": Target("every_way", _mutating(OF_BYTES, _any)),
}
