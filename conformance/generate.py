"""Make the conformance streams: each from a documented function, seeded, nothing trained here.

    python conformance/generate.py            those that are not there, beside this script
    python conformance/generate.py NAME ...   only these

A stream that is there already is kept, because decoders must decode forever what was written once;
the script says which ones the encoder writes differently now. Those that are older than
`record_head` were written by 0.1.0 in November 2026 and have records of version 1.0 and 1.1, which
do not check the start of the stream; what made them makes newer records now, of the same tensors.
The streams of the example are made from examples/postfilter/filter.pt2. Those in reference/ are not
made here (see reference/README.md), but their digests in the manifest are, from the output of the
reference decoder.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nnrcodec
from nnrcodec import EncoderConfig, LowRankConfig, UniformConfig
from nnrcodec.config import CabacConfig
from nnrcodec.dtypes import to_little_endian
from nnrcodec.formats import load
from nnrcodec.model import DTYPES, Model, Tensor
from nnrcodec.stream import read_stream
from nnrcodec.syntax.extended_data_unit import ExtendedDataUnit
from nnrcodec.syntax.topology import NnrTopologyUnit
from nnrcodec.syntax.unit import read_units, write_units

FOLDER = Path(__file__).resolve().parent
REFERENCE = FOLDER / "reference"
EXAMPLE = FOLDER.parent / "examples" / "postfilter" / "filter.pt2"

VALID: dict[str, Callable[[], bytes]] = {}
INVALID: dict[str, tuple[Callable[[], bytes], str]] = {}


def valid(make: Callable[[], bytes]) -> Callable[[], bytes]:
    """Register a stream that every decoder must decode."""
    VALID[make.__name__] = make
    return make


def invalid(error: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Register a stream that every decoder must refuse, and how ours does."""

    def register(make: Callable[[], bytes]) -> Callable[[], bytes]:
        INVALID[make.__name__] = (make, error)
        return make

    return register


STATIC = EncoderConfig(entropy="ans")
"""Units of ours, static tables."""

STANDARD = EncoderConfig(profile="nnc")
"""Units of the standard, DeepCABAC."""


def _random(*shape: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(15938).laplace(size=shape, scale=scale).astype(np.float32)


def _convolution() -> torch.nn.Module:
    torch.manual_seed(17)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU()
    ).eval()


@valid
def example_default() -> bytes:
    """The example filter with default step sizes."""
    return nnrcodec.encode(load(EXAMPLE), config=STATIC, calib=None)


@valid
def example_low_rank() -> bytes:
    """The example filter, layers 2 and 3 of rank 32 and 24; the graph has the thin pairs."""
    low_rank = LowRankConfig(ranks={"net.2": 32, "net.4": 24})
    return nnrcodec.encode(load(EXAMPLE), config=replace(STATIC, low_rank=low_rank), calib=None)


@valid
def tiny_graph() -> bytes:
    """A convolution, a batch norm with its counter, a ReLU: every role, a graph, dynamic sizes."""
    return nnrcodec.encode(_convolution(), (torch.zeros(1, 2, 6, 8),), STATIC, calib=None)


@valid
def tiny_low_rank() -> bytes:
    """A strided convolution as two thin ones. A decoder that forgets to split the stride fails."""
    torch.manual_seed(17)
    network = torch.nn.Sequential(torch.nn.Conv2d(8, 12, 3, stride=2, padding=1, dilation=2))
    config = replace(STATIC, low_rank=LowRankConfig(ranks={"0": 4}))
    return nnrcodec.encode(network, (torch.zeros(1, 8, 16, 20),), config, calib=None)


@valid
def zeros() -> bytes:
    """All zero: one level, so no bits at all. A decoder that reads a word anyway fails."""
    return nnrcodec.encode({"w": np.zeros((40, 30), np.float32)}, config=STATIC)


@valid
def single_elements() -> bytes:
    """Tensors of one element, with no, one and four dimensions; and no rows to have classes."""
    return nnrcodec.encode(
        {
            "scalar": np.float32(0.75).reshape(()),
            "one": np.array([-2.5], np.float32),
            "four": np.full((1, 1, 1, 1), 3.0, np.float32),
            "count": np.array(1234567890123, np.int64),
        },
        config=STATIC,
    )


@valid
def dtypes() -> bytes:
    """Every dtype, few elements (stored) and many (coded): bytes, and the conversion at the end."""
    tensors = []
    for name, held in DTYPES.items():
        for count in (5, 300):
            values = _random(count, scale=20.0)
            values = np.abs(values) if held.kind in "ub" else values
            values = values > 10 if held.kind == "b" else values.astype(held)
            if name == "bfloat16":
                values = nnrcodec.dtypes.cast(values, name)
            tensors.append(Tensor.of(f"{name}.{count}", values, name))
    return nnrcodec.encode(Model.of(tensors), config=STATIC)


@valid
def outliers() -> bytes:
    """Levels far outside the tables: escapes, positive and negative, in several classes."""
    values = _random(32, 24, 3)
    values[3, 5, 1], values[30, 1, 0], values[4, 5, 2] = 40000.0, -90000.0, 1500.0
    return nnrcodec.encode({"w": values}, config=replace(STATIC, quantization=UniformConfig(qp=-8)))


@valid
def low_bits() -> bytes:
    """Levels so large that their low bits are sent as they are; negative ones round down."""
    return nnrcodec.encode(
        {"w": _random(40, 25), "b": _random(50)},
        config=replace(STATIC, quantization=UniformConfig(qp=-60, nonweight_qp=-70)),
    )


@valid
def scale_classes() -> bytes:
    """Rows and columns of very different scale: many classes, joined tables."""
    rng = np.random.default_rng(3)
    rows = np.exp2(rng.uniform(-3, 1, (64, 1, 1)))
    columns = np.exp2(rng.uniform(-2, 1, (1, 48, 1)))
    values = (_random(64, 48, 9) * rows * columns).astype(np.float32)
    return nnrcodec.encode({"w": values}, config=STATIC)


@valid
def qp_densities() -> bytes:
    """Density 7 and a qp that is no multiple of anything, negative and odd."""
    quantization = UniformConfig(qp=-611, nonweight_qp=-1001, qp_density=7)
    state = {"w": _random(20, 20), "b": _random(20)}
    return nnrcodec.encode(state, config=replace(STATIC, quantization=quantization))


@valid
def integers() -> bytes:
    """Integer tensors: few values far apart, a wide range, the limits of 32 bits."""
    rng = np.random.default_rng(4)
    return nnrcodec.encode(
        {
            "mask": rng.integers(0, 2, (30, 40)).astype(np.uint8) * 255,
            "wide": rng.integers(-(2**31), 2**31, 200),
            "limits": np.array([-(2**31), 2**31 - 1] * 20, np.int32),
            "beyond": np.array([2**63 - 1, -(2**63)] * 10),
        },
        config=STATIC,
    )


@valid
def nnc_graph() -> bytes:
    """Units of the standard only: a block of kernel, bias and batch norm; a record all the same."""
    return nnrcodec.encode(_convolution(), (torch.zeros(1, 2, 6, 8),), STANDARD, calib=None)


@valid
def nnc_names() -> bytes:
    """Names that other decoders take for parts of a tensor, a scalar, dtypes that NNR_NDU lacks."""
    state = {
        "x_G": _random(6, 5),
        "x_H": _random(5),
        "scalar": np.array(1.5, np.float32),
        "half": _random(7, 3).astype(np.float16),
        "count": np.array(17, np.int64),
        "mask": _random(9, 9) > 0,
    }
    return nnrcodec.encode(state, config=STANDARD)


@valid
def nnc_tiny_doubles() -> bytes:
    """Doubles below the normal numbers of float32: stored as that has them."""
    return nnrcodec.encode({"w": np.full((5, 8), -1e-40)}, config=STANDARD)


@valid
def nnc_blocks_of_levels() -> bytes:
    """Blocks of 8 rows and columns with entry points, cropped at both borders; rows of zeros."""
    values = _random(45, 27)
    values[9:14] = 0
    config = replace(STANDARD, cabac=CabacConfig(scan_order=1))
    return nnrcodec.encode({"w": values}, config=config)


@valid
def nnc_codebook() -> bytes:
    """Few different values, far apart."""
    values = np.array([-3.0, -0.25, 0.0, 1.75, 90.0], np.float32)
    chosen = values[np.random.default_rng(5).integers(0, 5, (30, 20))]
    config = replace(
        STANDARD, dq=False, codebook=True, quantization=UniformConfig(qp=-8, nonweight_qp=-8)
    )
    return nnrcodec.encode({"w": chosen}, config=config)


@valid
def both_coders() -> bytes:
    """Each tensor with the coder that suits it: units of the standard beside ours."""
    rng = np.random.default_rng(6)
    state = {
        "w": _random(60, 50, 3),
        "sparse": np.where(rng.random((80, 90)) < 0.02, rng.normal(size=(80, 90)), 0),
        "few": _random(5),
        "wide": rng.integers(-(2**31), 2**31, 100),
    }
    return nnrcodec.encode(state)


@valid
def record_head() -> bytes:
    """A record of version 1.2, which checks the start of the stream; every role, a graph."""
    return tiny_graph()


@valid
def nnc_record_head() -> bytes:
    """The same in units of the standard, with names that are others there and a scalar."""
    return nnc_names()


@invalid("TruncatedBitstreamError")
def truncated() -> bytes:
    """The last byte is missing."""
    return scale_classes()[:-1]


@invalid("PayloadError")
def damaged_payload() -> bytes:
    """One bit of the coded levels is flipped: only the digest can tell."""
    data = bytearray(scale_classes())
    data[-2000] ^= 0x10
    return bytes(data)


@invalid("UnsupportedFeatureError")
def newer_record() -> bytes:
    """A record of major version 2."""
    return re.sub(rb"nnrcodec \d+\.\d+ ", b"nnrcodec 2.0 ", zeros())


@invalid("PayloadError")
def damaged_start() -> bytes:
    """One bit of NNR_MPS makes an update of it; the tensors are the same, only `head` can tell."""
    data = bytearray(zeros())
    data[_unit_start(data, 1) + 4] ^= 0x08
    return bytes(data)


@invalid("PayloadError")
def nnc_damaged_record() -> bytes:
    """The record is not called one: one bit of its storage format is flipped."""
    data = bytearray(nnc_names())
    data[_unit_start(data, 2) + 3] ^= 0x01
    return bytes(data)


@invalid("LimitExceededError")
def claims_too_much() -> bytes:
    """A few dozen bytes that claim 2^60 elements."""

    def claim(unit: ExtendedDataUnit) -> None:
        unit.tensor_dimensions = [2**30, 2**30]

    return _rewritten(zeros(), claim)


@invalid("SyntaxElementError")
def foreign_operator() -> bytes:
    """A graph that calls what is not in the list of operators."""

    def call(record: Any) -> None:
        text = json.dumps(record["graph"]).replace("aten.relu.default", "os.system")
        record["graph"] = json.loads(text)

    return _with_record(tiny_graph(), call)


@invalid("UnitOrderError")
def missing_tensor() -> bytes:
    """The record names a tensor for which there is no data unit."""

    def add(record: Any) -> None:
        record["tensors"].append(["absent", "00000000"])

    return _with_record(zeros(), add)


@invalid("PayloadError")
def nnc_payload_too_short() -> bytes:
    """The payload of a data unit of the standard lacks its last byte; its size agrees."""
    units = [*read_units((REFERENCE / "p1_2d_dq.nnc").read_bytes())]
    units[-1].payload = units[-1].payload[:-1]
    return b"".join(write_units(units))


@invalid("LimitExceededError")
def nnc_claims_too_much() -> bytes:
    """A few dozen bytes of the standard that claim 2^31 elements."""
    units = [*read_units((REFERENCE / "p1_zeros.nnc").read_bytes())]
    units[-2].body.tensor_dimensions = [2**15, 2**16]
    return b"".join(write_units(units))


@invalid("UnitOrderError")
def nnc_update_alone() -> bytes:
    """An update that depends on the levels of an update before it, which is not there."""
    return (REFERENCE / "upd_tca_2.nnc").read_bytes()


def _unit_start(data: bytes | bytearray, index: int) -> int:
    """Return the byte at which a unit starts."""
    return [*read_units(bytes(data))][index].bit_offset // 8


def _rewritten(data: bytes, change: Callable[[ExtendedDataUnit], None]) -> bytes:
    """Return a stream with its extended data units changed."""
    units = read_stream(data).units
    for unit in units:
        if isinstance(unit.body, ExtendedDataUnit):
            change(unit.body)
    return b"".join(write_units(units, limits=nnrcodec.Limits(max_elements=2**62)))


def _with_record(data: bytes, change: Callable[[Any], None]) -> bytes:
    """Return a stream with the JSON of its record changed."""
    units = read_stream(data).units
    for unit in units:
        body = unit.body
        if isinstance(body, NnrTopologyUnit):
            head, text = bytes(body.topology_data[:-1]).rsplit(b" ", 1)
            content = json.loads(zlib.decompress(base64.b85decode(text)))
            change(content)
            packed = base64.b85encode(zlib.compress(json.dumps(content).encode(), 9))
            body.topology_data = head + b" " + packed + b"\0"
    return b"".join(write_units(units))


def expected(data: bytes) -> dict[str, Any]:
    """Return what decoding a stream must give: shape, dtype and SHA-256 of every tensor."""
    record = read_stream(data).record
    dtypes = {entry.name: entry.dtype for entry in record.tensors} if record else {}
    return {
        name: entry(value, dtypes.get(name, value.dtype.name))
        for name, value in nnrcodec.decode(data).items()
    }


def entry(value: np.ndarray, dtype: str) -> dict[str, Any]:
    """Return shape, dtype and SHA-256 of a tensor."""
    sha256 = hashlib.sha256(to_little_endian(value, dtype).data).hexdigest()
    return {"shape": list(value.shape), "dtype": dtype, "sha256": sha256}


def references() -> dict[str, Any]:
    """Return the cases of the reference software: what its decoder returned, not what ours does.

    An update is given after the streams it needs; what must come out then is the base model with
    all differences so far added in binary32, one update after the other.
    """
    cases = {}
    for case in json.loads((REFERENCE / "index.json").read_text(encoding="utf-8")):
        state: dict[str, np.ndarray] = {}
        for name in (*case["needs"], case["name"]):
            with np.load(REFERENCE / f"{name}.npz") as arrays:
                for key in arrays:
                    if key.startswith("out__"):
                        tensor, value = key.removeprefix("out__"), arrays[key]
                        state[tensor] = state[tensor] + value if tensor in state else value
        cases[f"reference_{case['name']}"] = {
            "file": f"reference/{case['name']}.nnc",
            **({"after": [f"reference/{n}.nnc" for n in case["needs"]]} if case["needs"] else {}),
            "what": case["description"],
            "tensors": {name: entry(value, value.dtype.name) for name, value in state.items()},
        }
    return cases


def main() -> None:
    """Write streams and manifest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help="streams to make [all]")
    names = parser.parse_args().name or [*VALID, *INVALID]

    manifest_path = FOLDER / "manifest.json"
    manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {}
    for name in names:
        make, error = INVALID.get(name, (VALID.get(name), None))
        data = make()
        path = FOLDER / ("invalid" if error else "valid") / f"{name}.nnr"
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            kept = path.read_bytes()
            if kept != data:
                print(f"{name}: kept, {len(kept)} bytes; now it would be other {len(data)}")
            data = kept
        path.write_bytes(data)
        manifest[name] = {
            "file": f"{path.parent.name}/{path.name}",
            "what": make.__doc__,
            **({"error": error} if error else {"tensors": expected(data)}),
        }
        print(f"{name}: {len(data)} bytes")
    manifest |= references()
    manifest_path.write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
