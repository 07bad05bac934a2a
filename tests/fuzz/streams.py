"""Streams to start from, and ways to take one apart and put it together again, changed.

Only what a test changes is changed: digests stay as they were unless a test asks for `resigned`.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import networks
import numpy as np

import nnrcodec
from nnrcodec.container.record import Record
from nnrcodec.container.record_text import (
    RECORD_VERSION,
    closing_to_bytes,
    is_record,
    measurement_to_bytes,
    record_to_bytes,
)
from nnrcodec.container.stream import (
    CLOSING_STORAGE_FORMAT,
    RECORD_STORAGE_FORMAT,
    head_check,
)
from nnrcodec.decoder.pipeline import decode_stream
from nnrcodec.errors import BitstreamError, UnsupportedFeatureError
from nnrcodec.limits import Limits
from nnrcodec.syntax.constants import NnrUnitType
from nnrcodec.syntax.extended_data_unit import ExtendedDataUnit
from nnrcodec.syntax.topology import NnrTopologyUnit
from nnrcodec.syntax.unit import NnrUnitHeader, Unit, read_units, write_units

STATIC = nnrcodec.EncoderConfig(entropy="ans")
"""Static tables for all tensors: units of ours only."""


@cache
def tensors_only() -> bytes:
    """Return a stream of tensors of all kinds."""
    rng = np.random.default_rng(0)
    rows = np.exp2(rng.integers(0, 5, (12, 1, 1, 1)))
    outliers = np.zeros(200, np.int64)
    outliers[7], outliers[70] = 10**6, -(10**9)
    state = {
        "conv.weight": (rng.normal(size=(12, 8, 3, 3)) * rows).astype(np.float32),
        "conv.bias": rng.normal(size=12).astype(np.float16),
        "scale": np.float64(1.5),
        "counts": outliers,
        "wide": rng.integers(-(2**31), 2**31, 40),
        "mask": rng.random((5, 9)) < 0.3,
        "zeros": np.zeros((30, 30), np.float32),
    }
    return nnrcodec.encode(state, config=STATIC)


@cache
def with_graph() -> bytes:
    """Return a stream of a network that runs."""
    network = networks.Network("small", networks.plain_cnn, (1, 1, 6, 6))
    return nnrcodec.encode(network.module(), (network.example(),), STATIC)


@cache
def low_rank() -> bytes:
    """Return a stream of a network with two decomposed layers."""
    network = networks.Network("small", networks.plain_cnn, (1, 1, 6, 6))
    config = replace(STATIC, low_rank=nnrcodec.LowRankConfig(ranks={"2": 3, "4": 5}))
    return nnrcodec.encode(network.module(), (network.example(),), config)


@cache
def lossless() -> bytes:
    """Return a stream of bit patterns in all forms."""
    rng = np.random.default_rng(1)
    rows = np.exp2(rng.integers(0, 5, (16, 1, 1)))
    normal = (rng.normal(size=(16, 8, 6)) * rows).astype(np.float32)
    state = {
        "classes": normal,
        "half": normal.astype(np.float16),
        "palette": rng.choice(normal.reshape(-1)[:5], (20, 30)),
        "repeated": np.tile(normal[:2], (8, 1, 1)),
        "counts": rng.integers(-9, 9, (30, 20)),
        "empty": np.zeros((0, 3), np.float32),
        "constant": np.full((40, 40), np.float32(-0.0)),
    }
    return nnrcodec.encode(state, config=nnrcodec.EncoderConfig(lossless=True))


@cache
def lossless_update() -> tuple[bytes, bytes]:
    """Return a stream of bit patterns and an update of it."""
    base = lossless()
    state = nnrcodec.decode(base)
    state["classes"] = state["classes"] * np.float32(1.001)
    state["counts"] = state["counts"][::-1].copy()
    encoder = nnrcodec.UpdateEncoder(base, config=nnrcodec.EncoderConfig(lossless=True))
    return base, encoder.encode(state).data


STREAMS: dict[str, Callable[[], bytes]] = {
    "tensors only": tensors_only,
    "with graph": with_graph,
    "low rank": low_rank,
    "lossless": lossless,
}


def units_of(data: bytes) -> list[Unit]:
    """Return the units of a stream."""
    return list(read_units(data))


def stream_of(units: list[Unit]) -> bytes:
    """Return the stream of units."""
    return b"".join(write_units(units))


def data_unit(body: ExtendedDataUnit, payload: bytes = b"") -> Unit:
    """Return the unit of a tensor."""
    return Unit(NnrUnitHeader(nnr_unit_type=NnrUnitType.NNR_XDU), body, payload)


def topology_unit(data: bytes) -> Unit:
    """Return a topology unit in private format."""
    body = NnrTopologyUnit(topology_storage_format=RECORD_STORAGE_FORMAT, topology_data=data)
    return Unit(NnrUnitHeader(nnr_unit_type=NnrUnitType.NNR_TPL), body)


def record_unit(units: list[Unit]) -> Unit:
    """Return the unit of the container record."""
    return next(
        u for u in units if isinstance(u.body, NnrTopologyUnit) and is_record(u.body.topology_data)
    )


def closing_unit(units: list[Unit]) -> Unit | None:
    """Return the unit of the closing record, if there is one."""
    topologies = (u for u in units if isinstance(u.body, NnrTopologyUnit))
    closing = (u for u in topologies if u.body.topology_storage_format == CLOSING_STORAGE_FORMAT)
    return next(closing, None)


def data_units(units: list[Unit]) -> list[Unit]:
    """Return the units of tensors."""
    return [u for u in units if isinstance(u.body, ExtendedDataUnit)]


def record_text(content: Any, version: str = "1.1") -> bytes:
    """Return the topology data of a record that says `content`; bytes are taken as they are."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return b"nnrcodec %s %s\0" % (version.encode(), base64.b85encode(zlib.compress(text)))


def record_data(record: Record) -> bytes:
    """Return the topology data of a record of 1.1, which checks nothing and has no other."""
    content = _joined(json_of(record_to_bytes(record, "")), closing_to_bytes(record))
    del content["head"]
    return record_text(content)


def json_of(topology_data: bytes) -> Any:
    """Return what a record says."""
    text = topology_data.split(b" ", 2)[2]
    return json.loads(zlib.decompress(base64.b85decode(text.rstrip(b"\0"))))


def _joined(content: Any, closing: bytes) -> Any:
    """Return a record with its digests in the rows, as they were before 2.0."""
    digests = base64.b85decode(bytes(closing[:-1])).hex()
    rows = [
        [name, digests[8 * i : 8 * i + 8], *more]
        for i, (name, *more) in enumerate(content["tensors"])
    ]
    return content | {"tensors": rows}


def _parted(content: Any, version: str) -> tuple[Any, bytes]:
    """Return record and closing record; where rows are no rows, something that is wrong as well."""
    rows = content.get("tensors")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        return content, b"\0"
    digests = [row[1] if len(row) > 1 else "" for row in rows]
    valid = all(isinstance(d, str) and re.fullmatch("[0-9a-f]{8}", d) for d in digests)
    packed = base64.b85encode(bytes.fromhex("".join(digests))) if valid else b""
    measured = b"" if version == "2.0" else measurement_to_bytes(None)
    return content | {"tensors": [row[:1] + row[2:] for row in rows]}, packed + measured + b"\0"


def record_content(data: bytes) -> Any:
    """Return what the record of a stream says, digests in the rows as they were before 2.0."""
    units = units_of(data)
    content, closing = json_of(record_unit(units).body.topology_data), closing_unit(units)
    return content if closing is None else _joined(content, closing.body.topology_data)


def with_record(data: bytes, content: Any, version: str = "{}.{}".format(*RECORD_VERSION)) -> bytes:
    """Return a stream with another record, and the check of what stands before it made anew."""
    units = units_of(data)
    record_unit(units).body.topology_data = record_text("", version)
    closing = closing_unit(units)
    if isinstance(content, dict):
        if closing is not None and not version.startswith("1."):
            content, closing.body.topology_data = _parted(content, version)
        content = {k: v for k, v in content.items() if k != "head"}
        if version not in ("1.0", "1.1"):
            before = stream_of(units)
            content["head"] = head_check(before, units_of(before))
    record_unit(units).body.topology_data = record_text(content, version)
    return stream_of(units)


def resigned(data: bytes) -> bytes:
    """Return a stream with the digests that its tensors have, if they decode."""
    content = record_content(data)
    data = with_record(data, content)
    for _ in content["tensors"]:
        try:
            decode_stream(data, Limits(free_decoded_bytes=2**22, decoded_bytes_per_byte=1))
        except (BitstreamError, UnsupportedFeatureError) as error:
            if "decodes to digest" not in error.message:
                break
            name, found = error.message.split("'")[1], error.message.split("digest ")[1][:8]
            for entry in content["tensors"]:
                if entry[0] == name:
                    entry[1] = found
            data = with_record(data, content)
        else:
            break
    return data
