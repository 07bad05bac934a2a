"""The text of the container record (spec/record.md).

It is in two topology units of private storage format, as text without zero bytes that other
decoders accept and ignore. The record stands in front: a name and a version, then JSON, deflated
and in base 85; the graph in it belongs to `nnrcodec.graph.text`. The closing record stands behind
the tensors, with what is known only when they are coded, in base 85: their digests, and what coding
has cost.
"""

from __future__ import annotations

import base64
import bisect
import json
import logging
import math
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nnrcodec.container.record import (
    DIGEST_BYTES,
    MeasuredOn,
    Measurement,
    Record,
    TensorEntry,
    topology_digest,
)
from nnrcodec.container.record_parts import (
    CLAUSE,
    listed,
    require_no_new_members,
    turnover_of,
    with_new_members,
    wrapper_of,
    wrong,
)
from nnrcodec.errors import (
    LimitExceededError,
    PayloadError,
    UnsupportedFeatureError,
    shortened,
)
from nnrcodec.graph import text as graph_text
from nnrcodec.graph.check import check_name
from nnrcodec.graph.graph import Graph
from nnrcodec.graph.names import MAX_NAME_LENGTH, original_name
from nnrcodec.limits import Limits
from nnrcodec.model.dtypes import COMPUTED_DTYPES, DTYPES
from nnrcodec.model.model import Factors, OnnxTopology, Role, SchemeName

RECORD_VERSION = (2, 4)
"""Major and minor version of the latest records that are written: of updates with which tensors
come or go, or with a wrapper."""

_WITH_GUARDS = (2, 3)
"""That of other records whose graph has guards."""

_WITHOUT_GUARDS = (2, 2)
"""That of records whose graph has no guards, or that have none."""

_WITHOUT_NEW_MEMBERS = (2, 1)
"""That of records which need nothing of 2.2 either."""

_HEAD = re.compile(rb"nnrcodec (\d{1,4})\.(\d{1,4}) ")
_DIGEST = re.compile(r"[0-9a-f]{8}")
_LATEST = {1: (1, 2), RECORD_VERSION[0]: RECORD_VERSION}
"""By major version, the latest that this decoder knows; it reads all records of these."""
_SCHEMES: Mapping[str, tuple[SchemeName, bool, tuple[int, ...]]] = {
    "separable": ("separable", False, (4,)),
    "channel": ("channel", False, (3, 4, 5)),
    "linear": ("linear", False, (2,)),
    "separable-transposed": ("separable", True, (4,)),
    "channel-transposed": ("channel", True, (3, 4, 5)),
}
"""By word: scheme, whether it is transposed, and how many dimensions the weight may have."""
_FIRST_SCHEME = "separable"
_NEW_KEYS = {"patterns", "empty", "ties", "wrapper", "onnx"}
_KEYS = {
    *("writer", "head", "tensors", "coded_names", "scalars", "factors", "graph", "names", "base"),
    *("new", "gone"),
    *_NEW_KEYS,
}
_FIRST_WITH_HEAD = (1, 2)
_FIRST_WITH_MEASUREMENT = (2, 1)
_MEASUREMENT = struct.Struct(">BH3h")
"""On what, on how many inputs, and snr, absolute and change in hundredths of a dB."""
_CHECK_BYTES = 3
_MEASUREMENT_BYTES = _MEASUREMENT.size + _CHECK_BYTES
_NOTHING_MEASURED = 0
_INFINITE, _NOT_MEASURED = 2**15 - 1, -(2**15)
_LIKE_A_RECORD = b"nnrcodec "
_MOST_DAMAGED_BYTES = 2
_SEARCHED_BYTES = 32
"""Of a unit, for the start of a record; its longest headers are 8 bytes."""
_MOST_DIGITS = 20
"""Of an integer; one of 64 bits has no more."""

logger = logging.getLogger(__name__)


def record_head(record: Record) -> bytes:
    """Return what the topology data of a record begin with: a name, and the version it needs."""
    if record.turnover or (record.base is not None and record.wrapper is not None):
        return b"nnrcodec %d.%d " % RECORD_VERSION
    if record.graph is not None and record.graph.guards:
        return b"nnrcodec %d.%d " % _WITH_GUARDS
    is_file = record.wrapper is not None or record.onnx is not None
    needs_new = is_file or record.has_short_names
    needs_new |= any(
        entry.is_pattern or not entry.has_unit or entry.dtype not in COMPUTED_DTYPES
        for entry in record.tensors
    )
    return b"nnrcodec %d.%d " % (_WITHOUT_GUARDS if needs_new else _WITHOUT_NEW_MEMBERS)


def record_to_bytes(record: Record, head: str) -> bytes:
    """Return the topology data that carry a record, the final zero byte included.

    Parameters
    ----------
    record : Record
        The record; its digests go into `closing_to_bytes`.
    head : str
        The check of what it relies on in the stream, as eight hexadecimal digits.

    Raises
    ------
    SyntaxElementError
        If there is a graph and a tensor has a name that must not stand beside one.
    """
    content: dict[str, Any] = {
        "writer": record.writer,
        "head": head,
        "tensors": [_entry_to_json(entry) for entry in record.tensors],
    }
    renamed = {e.name: e.coded_name for e in record.tensors if e.coded_name is not None}
    if record.has_short_names:
        content["coded_names"] = [e.unit_name if e.has_unit else None for e in record.tensors]
    elif renamed:
        content["coded_names"] = renamed
    scalars = [entry.name for entry in record.tensors if entry.scalar]
    if scalars:
        content["scalars"] = scalars
    content |= _new_members(record)
    if record.factors:
        content["factors"] = [_factors_to_json(factors) for factors in record.factors]
    if record.graph is not None:
        for entry in record.tensors:
            check_name(entry.name, "record/tensors")
        content["graph"] = graph_text.to_json(record.graph)
        if record.graph.original_names:
            content["names"] = dict(record.graph.original_names)
    if record.base is not None:
        content["base"] = record.base
    if record.turnover.new:
        content["new"] = dict(record.turnover.new)
    if record.turnover.gone:
        content["gone"] = list(record.turnover.gone)
    if record.onnx is not None:
        digest = topology_digest(record.onnx.proto)
        known = _known_names(record)
        names = {n: of_file for n, of_file in record.onnx.names.items() if known.get(n) != of_file}
        content["onnx"] = {"digest": digest, "names": names} if names else {"digest": digest}
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return record_head(record) + base64.b85encode(zlib.compress(text.encode(), 9)) + b"\0"


def _new_members(record: Record) -> dict[str, Any]:
    """Return the members that a record of 2.2 may have."""
    content: dict[str, Any] = {}
    patterns = [entry.name for entry in record.tensors if entry.is_pattern]
    if patterns:
        content["patterns"] = patterns
    empty = {e.name: list(e.empty_shape) for e in record.tensors if e.empty_shape is not None}
    if empty:
        content["empty"] = empty
    ties = {e.name: e.tied_to for e in record.tensors if e.tied_to is not None}
    if ties:
        content["ties"] = ties
    if record.wrapper is not None:
        content["wrapper"] = [record.wrapper.kind, record.wrapper.content]
    return content


def closing_to_bytes(record: Record) -> bytes:
    """Return the topology data that carry a closing record, the final zero byte included.

    Parameters
    ----------
    record : Record
        The record, with the digests of all tensors.
    """
    digests = bytes.fromhex("".join(entry.digest for entry in record.tensors))
    return base64.b85encode(digests) + measurement_to_bytes(record.measured) + b"\0"


def measurement_to_bytes(measured: Measurement | None) -> bytes:
    """Return what a closing record has between the digests and its zero byte.

    Parameters
    ----------
    measured : Measurement, optional
        Ratios are rounded to hundredths of a dB.

    Returns
    -------
    bytes
        As many of any measurement.
    """
    if measured is None:
        packed = _MEASUREMENT.pack(_NOTHING_MEASURED, 0, *(3 * [_NOT_MEASURED]))
    else:
        ratios = map(_hundredths, (measured.snr, measured.absolute, measured.change))
        packed = _MEASUREMENT.pack(measured.on, min(measured.count, 2**16 - 1), *ratios)
    return base64.b85encode(packed + _check_of(packed))


def _check_of(measurement: bytes) -> bytes:
    return zlib.crc32(measurement).to_bytes(4, "big")[-_CHECK_BYTES:]


def _hundredths(decibels: float | None) -> int:
    if decibels is None:
        return _NOT_MEASURED
    return round(min(max(100 * decibels, _NOT_MEASURED + 1), _INFINITE))


def _decibels(hundredths: int) -> float | None:
    if hundredths == _NOT_MEASURED:
        return None
    return math.inf if hundredths == _INFINITE else hundredths / 100


def is_record(topology_data: bytes | memoryview) -> bool:
    """Return whether topology data in private format are a record of ours."""
    return _HEAD.match(topology_data) is not None


def needs_closing(topology_data: bytes | memoryview) -> bool:
    """Return whether a record that this decoder reads has a closing record."""
    head = _HEAD.match(topology_data)
    return head is not None and int(head[1]) == RECORD_VERSION[0]


def head_bytes(topology_data: bytes | memoryview) -> int:
    """Return how many bytes stand before the text of a record."""
    head = _HEAD.match(topology_data)
    return head.end() if head else 0


def was_record(unit: bytes | memoryview, *, holds_names: bool) -> bool:
    """Return whether a unit looks like one that held a record before it was damaged.

    Two bytes of the word that every record begins with may be any others.

    Parameters
    ----------
    unit : bytes
        All of the unit, or its start.
    holds_names : bool
        Whether it may begin with the name of a tensor, which may be similar.
    """
    start = bytes(unit[:_SEARCHED_BYTES])
    if holds_names:
        return _HEAD.search(start) is not None
    return any(
        sum(a != b for a, b in zip(start[first:], _LIKE_A_RECORD, strict=False))
        <= _MOST_DAMAGED_BYTES
        for first in range(len(start) - len(_LIKE_A_RECORD) + 1)
    )


def record_from_bytes(
    topology_data: bytes | memoryview,
    head: str,
    limits: Limits | None = None,
    closing: bytes | memoryview | None = None,
    onnx: Callable[[], bytes | None] = lambda: None,
) -> Record:
    """Read a record.

    Parameters
    ----------
    topology_data : bytes
        The payload of a topology unit, `is_record`.
    head : str
        The check of what it relies on in the stream, as `record_to_bytes` takes it.
    limits : Limits, optional
        Bounds on its size.
    closing : bytes, optional
        The payload of the topology unit with its closing record; those before 2.0 have none.
    onnx : callable, optional
        Returns the ONNX graph in another topology unit, if there is one.

    Returns
    -------
    Record

    Raises
    ------
    UnsupportedFeatureError
        If it has a greater major version.
    PayloadError
        If what it relies on in the stream is damaged, or its closing record is missing.
    BitstreamError
        If anything in it is not as spec/record.md says.
    """
    limits = limits or Limits()
    match = _HEAD.match(topology_data)
    if match is None:
        raise wrong("record", "expected 'nnrcodec MAJOR.MINOR '")
    version = int(match[1]), int(match[2])
    if version[0] not in _LATEST:
        raise UnsupportedFeatureError(
            f"this stream has a record of version {version[0]}.{version[1]}; this decoder reads "
            f"versions {' and '.join(map(str, _LATEST))}. Decode it with a newer nnrcodec",
            feature="record",
        )
    content = _inflate(bytes(topology_data[match.end() :]), limits)
    if not isinstance(content, dict):
        raise wrong("record", "expected an object")
    if (version >= _FIRST_WITH_HEAD or "head" in content) and content.get("head") != head:
        raise damaged_record("the start of the stream is not what it was")
    newer, latest = sorted(content.keys() - _KEYS), _LATEST[version[0]]
    if newer and version <= latest:
        raise wrong("record", f"unknown keys {newer}")
    if version > latest:
        logger.warning(
            "record version %d.%d is newer than %d.%d: %s ignored",
            *version,
            *latest,
            shortened(", ".join(newer)) or "nothing",
        )
    measured = None
    if needs_closing(topology_data):
        if closing is None:
            raise damaged_record("its closing record is missing; was the stream cut short?")
        rest = _add_digests(content, bytes(closing))
        if version >= _FIRST_WITH_MEASUREMENT:
            measured = _measurement(rest[:_MEASUREMENT_BYTES], is_newer=version > latest)
            rest = rest[_MEASUREMENT_BYTES:]
        if rest and version <= latest:
            raise wrong("record/closing", f"{len(rest)} bytes more than there should be")
    record = _from_json(content, limits)
    return replace(record, measured=measured, onnx=_onnx(content, record, onnx))


def _onnx(
    content: dict[str, Any], record: Record, topology: Callable[[], bytes | None]
) -> OnnxTopology | None:
    """Return the ONNX graph of a stream, compared with its digest."""
    if "onnx" not in content:
        return None
    value, path = content["onnx"], "record/onnx"
    if not isinstance(value, dict) or not {"digest"} <= value.keys() <= {"digest", "names"}:
        raise wrong(path, "expected a digest, and maybe names")
    names, digest = value.get("names", {}), value["digest"]
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise wrong(path, "expected names by name")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise wrong(path, "expected eight hexadecimal digits")
    proto = topology()
    if proto is None:
        raise damaged_record("the unit with the ONNX graph is missing")
    if topology_digest(proto) != digest:
        raise damaged_record("the ONNX graph does not agree with its digest")
    return OnnxTopology(proto, {**_known_names(record), **names})


def _known_names(record: Record) -> dict[str, str]:
    """Return what an ONNX graph calls tensors, as far as it follows from the original names."""
    original = {e.name: original_name(e.name, record.graph) for e in record.tensors}
    return {name: old for name, old in original.items() if name != old}


def damaged_record(why: str) -> PayloadError:
    """Return the error of a record that cannot be relied on."""
    return PayloadError(
        f"this looks like a record of nnrcodec that is damaged: {why}",
        path="record",
        clause=CLAUSE,
    )


def _inflate(text: bytes, limits: Limits) -> Any:
    """Undo base 85, deflate and JSON, bounded."""
    if text[-1:] != b"\0":
        raise wrong("record", "expected a zero byte at the end")
    try:
        inflater = zlib.decompressobj()
        inflated = inflater.decompress(base64.b85decode(text[:-1]), limits.max_record_bytes)
        if inflater.unconsumed_tail:
            raise LimitExceededError(
                f"too long when inflated, in bytes {limits.allowed('record_bytes')}",
                path="record",
                clause=CLAUSE,
            )
        if not inflater.eof or inflater.unused_data:
            raise wrong("record", "the deflated data do not end where the record ends")
        _check_values(inflated, limits)
        content = json.loads(
            inflated.decode(), parse_constant=_no_constant, parse_int=_bounded_integer
        )
        if b"\\u" in inflated:  # half of a pair may stand alone, and could not be written
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except (ValueError, zlib.error, RecursionError) as error:
        raise PayloadError(f"cannot read it: {error}", path="record", clause=CLAUSE) from error


def _check_values(text: bytes, limits: Limits) -> None:
    """Bound the values before they are made: what stands between them, and what opens a list."""
    count = 1 + text.count(b",") + text.count(b"[") + text.count(b"{")
    if count > limits.max_record_values:
        raise LimitExceededError(
            f"about {count} values, {limits.allowed('record_values')}",
            path="record",
            clause=CLAUSE,
        )


def _bounded_integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _from_json(content: dict[str, Any], limits: Limits) -> Record:
    writer = content.get("writer")
    if not isinstance(writer, str):
        raise wrong("record/writer", "expected a string")
    entries = [_entry_from_json(i, e) for i, e in enumerate(listed(content, "tensors"))]
    names = {entry.name for entry in entries}
    if len(names) != len(entries):
        raise wrong("record/tensors", "a name occurs twice")
    entries = with_new_members(_with_units(entries, content), content, limits)
    rows = listed(content, "factors")
    if len(rows) > limits.max_factors:
        raise LimitExceededError(
            f"{len(rows)} decomposed layers, {limits.allowed('factors')}",
            path="record/factors",
            clause=CLAUSE,
        )
    factors = [_factors_from_json(i, f) for i, f in enumerate(rows)]
    for factor in factors:
        if not {factor.u, factor.v} <= names:
            raise wrong("record/factors", f"the factors of {factor.layer!r} are not among tensors")
    graph = None
    if "graph" in content:
        graph = _with_names(graph_text.from_json(content["graph"], limits), names, content)
    elif "names" in content:
        raise wrong("record/names", "only a stream with a graph has original names")
    base = content.get("base")
    if base is not None and not (isinstance(base, str) and _DIGEST.fullmatch(base)):
        raise wrong("record/base", "expected eight hexadecimal digits")
    turnover = turnover_of(content, names)
    wrapper = wrapper_of(content, None if base is not None else names)
    if graph is not None:
        require_no_new_members(graph, entries, wrapper)
    return Record(
        tuple(entries),
        tuple(factors),
        graph,
        base,
        wrapper=wrapper,
        writer=writer,
        has_short_names=isinstance(content.get("coded_names"), list),
        turnover=turnover,
    )


def _add_digests(content: dict[str, Any], closing: bytes) -> bytes:
    """Put the digests of a closing record into the rows of tensors; return what follows them."""
    rows = listed(content, "tensors")
    try:
        decoded = base64.b85decode(closing[:-1])
    except ValueError as error:
        raise PayloadError(
            f"cannot read it: {error}", path="record/closing", clause=CLAUSE
        ) from error
    canonical = base64.b85encode(decoded) + b"\0" == closing
    if not canonical or len(decoded) < DIGEST_BYTES * len(rows):
        raise wrong("record/closing", f"expected {DIGEST_BYTES} bytes for each tensor")
    for index, row in enumerate(rows):
        if not (isinstance(row, list) and 1 <= len(row) <= 3):
            raise wrong(f"record/tensors[{index}]", "expected name, dtype, role")
        row.insert(1, decoded[DIGEST_BYTES * index :][:DIGEST_BYTES].hex())
    return decoded[DIGEST_BYTES * len(rows) :]


def _measurement(text: bytes, *, is_newer: bool) -> Measurement | None:
    """Read what coding has cost; None if the writer does not say, or in a newer way."""
    if len(text) != _MEASUREMENT_BYTES:
        raise wrong("record/closing", f"expected {_MEASUREMENT_BYTES} bytes of what was measured")
    packed = text[: _MEASUREMENT.size]
    if text[_MEASUREMENT.size :] != _check_of(packed):
        raise damaged_record("what the encoder measured does not agree with its check")
    on, count, *ratios = _MEASUREMENT.unpack(packed)
    snr, absolute, change = map(_decibels, ratios)
    if on == _NOTHING_MEASURED:
        return None
    if on not in set(MeasuredOn) or snr is None:
        if is_newer:
            return None
        raise wrong("record/closing", f"{packed.hex()} is no measurement")
    return Measurement(MeasuredOn(on), count, snr, absolute, change)


def _with_names(graph: Graph, tensors: set[str], content: dict[str, Any]) -> Graph:
    """Check the names of tensors of a network with a graph, and add what they were before."""
    for name in tensors:
        check_name(name, "record/tensors")
    names = content.get("names", {})
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise wrong("record/names", "expected names by name")
    in_order = sorted(tensors) if names else []
    for name, original in names.items():
        place = bisect.bisect_left(in_order, f"{name}.")
        is_layer = place < len(in_order) and in_order[place].startswith(f"{name}.")
        if not is_layer and name not in tensors:
            raise wrong("record/names", f"there is no tensor or layer {name!r}")
        if len(original) > MAX_NAME_LENGTH or not _is_text(original):
            raise wrong("record/names", f"a name of {MAX_NAME_LENGTH} characters at most expected")
    graph = replace(graph, original_names=names)
    if len({original_name(name, graph) for name in tensors}) != len(tensors):
        raise wrong("record/names", "an original name occurs twice")
    return graph


def _is_text(name: str) -> bool:
    """Return whether a string can be written as UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _with_units(entries: list[TensorEntry], content: dict[str, Any]) -> list[TensorEntry]:
    """Add what their data units call them, and which of them are scalars."""
    names = {entry.name for entry in entries}
    renamed = content.get("coded_names", {})
    if isinstance(renamed, list):  # of all tensors, in their order
        if len(renamed) != len(entries):
            raise wrong("record/coded_names", f"expected {len(entries)} names")
        pairs = zip((entry.name for entry in entries), renamed, strict=True)
        renamed = {name: coded for name, coded in pairs if coded is not None}
    if not isinstance(renamed, dict) or not all(isinstance(n, str) for n in renamed.values()):
        raise wrong("record/coded_names", "expected names by name")
    scalars = listed(content, "scalars")
    if not all(isinstance(name, str) for name in scalars) or len(set(scalars)) != len(scalars):
        raise wrong("record/scalars", "expected names, each of them once")
    for member, given in (("coded_names", renamed.keys()), ("scalars", scalars)):
        for name in given:
            if name not in names:
                raise wrong(f"record/{member}", f"{name!r} is not among tensors")
    without_dimensions = set(scalars)
    entries = [
        replace(e, coded_name=renamed.get(e.name), scalar=e.name in without_dimensions)
        for e in entries
    ]
    if len({entry.unit_name for entry in entries}) != len(entries):
        raise wrong("record/coded_names", "two tensors are in one data unit")
    return entries


def _entry_to_json(entry: TensorEntry) -> list[str]:
    """Return name, dtype and role; what is usual is left off at the end."""
    row = [entry.name, entry.dtype, entry.role.value]
    if entry.role is Role.PARAMETER:
        row.pop()
        if entry.dtype == "float32":
            row.pop()
    return row


def _entry_from_json(index: int, row: Any) -> TensorEntry:
    path = f"record/tensors[{index}]"
    if not (isinstance(row, list) and 2 <= len(row) <= 4 and all(isinstance(s, str) for s in row)):
        raise wrong(path, "expected two to four strings: name, digest, dtype, role")
    name, digest = row[:2]
    dtype = row[2] if len(row) > 2 else "float32"
    role = row[3] if len(row) > 3 else Role.PARAMETER.value
    if not _DIGEST.fullmatch(digest):
        raise wrong(path, f"digest is {digest!r}, expected eight hexadecimal digits")
    if dtype not in DTYPES:
        raise wrong(path, f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    if role not in {r.value for r in Role}:
        raise wrong(path, f"role is {role!r}")
    return TensorEntry(name, digest, dtype, Role(role))


def _factors_to_json(factors: Factors) -> list[Any]:
    """Return layer, shape, rank and scheme, which is left off if it is the first."""
    row = [factors.layer, list(factors.kernel_shape), factors.rank]
    word = f"{factors.scheme}-transposed" if factors.transposed else factors.scheme
    return row if word == _FIRST_SCHEME else [*row, word]


def _factors_from_json(index: int, row: Any) -> Factors:
    path = f"record/factors[{index}]"
    match row:
        case [str(layer), list(shape), int(rank), *rest] if len(rest) < 2:
            word = rest[0] if rest else _FIRST_SCHEME
            if not isinstance(word, str) or word not in _SCHEMES:
                raise wrong(path, f"scheme is {word!r}, expected one of {', '.join(_SCHEMES)}")
            scheme, transposed, dimensions = _SCHEMES[word]
            sizes_are_legal = all(type(n) is int and 1 <= n < 2**31 for n in (*shape, rank))
            if len(shape) in dimensions and sizes_are_legal:
                return Factors(layer, tuple(shape), rank, scheme, transposed)
    raise wrong(path, "expected a layer, the dimensions of its weight, a rank, and maybe a scheme")
