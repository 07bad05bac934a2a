"""Make the conformance streams: each from a documented function, seeded, nothing trained here.

    python conformance/generate.py            those that are not there, beside this script
    python conformance/generate.py NAME ...   only these

A stream that is there already is kept, because decoders must decode forever what was written once;
the script says which ones the encoder writes differently now. Those that are older than
`record_head` were written by 0.1.0 in November 2026 and have records of version 1.0 and 1.1, which
do not check the start of the stream; `record_head`, `nnc_record_head` and what was made with them
have records of 1.2, with all digests in front; `closing_record`, `nnc_closing_record` and what was
made with them have records of 2.0, without a measurement; most others have records of 2.1;
`whole_file`, streams with an ONNX graph or with short names, and what was made with these have
records of 2.2. What made them makes newer records now,
of the same tensors; streams of records before 2.1 cannot be made any more.
The streams of the example are made from examples/postfilter/filter.pt2. Those in reference/ are not
made here (see reference/README.md), but their digests in the manifest are, from the output of the
reference decoder. Those in hostile/ ask for more than they have a right to, or for what makes no
sense: whatever may come of each, it must come soon and take little memory.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nnrcodec
from nnrcodec import EncoderConfig, LowRankConfig, UniformConfig
from nnrcodec.container.record import MeasuredOn, Measurement
from nnrcodec.container.stream import read_stream, with_measurement
from nnrcodec.entropy.ans.levels import LevelTable, TableForm
from nnrcodec.entropy.cabac.config import CabacConfig
from nnrcodec.entropy.lossless.model import (
    BitField,
    FieldCoding,
    FieldLayout,
    LosslessModel,
    WordForm,
)
from nnrcodec.entropy.lossless.payload import encode_words
from nnrcodec.formats import load
from nnrcodec.graph.graph import Argument, Dim, Graph, Input, Node, Output, Ref, TensorRef, Word
from nnrcodec.graph.text import to_json
from nnrcodec.model.dtypes import to_little_endian
from nnrcodec.model.model import DTYPES, Model, Tensor
from nnrcodec.model.source import Source, Wrapper
from nnrcodec.syntax.extended_data_unit import ExtendedDataUnit
from nnrcodec.syntax.unit import Unit, read_units, write_units

FOLDER = Path(__file__).resolve().parent
REFERENCE = FOLDER / "reference"
EXAMPLE = FOLDER.parent / "examples" / "postfilter" / "filter.pt2"

VALID: dict[str, Callable[[], bytes]] = {}
INVALID: dict[str, tuple[Callable[[], bytes], str]] = {}
HOSTILE: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {}


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


def hostile(*may: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Register a stream with what may come of it: classes of errors, or "decodes"."""

    def register(make: Callable[[], bytes]) -> Callable[[], bytes]:
        HOSTILE[make.__name__] = (make, may)
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
                values = nnrcodec.model.dtypes.cast(values, name)
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


@valid
def closing_record() -> bytes:
    """A record of version 2.0: digests in a unit behind the tensors; every role, a graph."""
    return tiny_graph()


@valid
def nnc_closing_record() -> bytes:
    """The same in units of the standard, before the raw unit, which has to be the last."""
    state = {"w_G": _random(6, 5), "s": np.float32(0.25), "r": np.array([np.inf, 1.5], np.float32)}
    return nnrcodec.encode(state, config=EncoderConfig(profile="nnc"))


@valid
def measurement() -> bytes:
    """A record of version 2.1, which says what coding has cost: the SNR of outputs, on 9 inputs."""
    measured = Measurement(MeasuredOn.GIVEN_INPUTS, 9, 41.25, None, 18.5)
    return with_measurement(tiny_graph(), measured)


WHOLE_FILE = [
    *(
        "dict",
        "epoch",
        3,
        "rate",
        ["float", "inf"],
        "optimizer",
        ["left_out", "state", "not asked"],
    ),
    *("mean", ["array", "mean"], "model", ["tensors", "OrderedDict", "", {"": 1, "a": 2}]),
]


def _whole_file() -> Model:
    """A model with everything that a record of 2.2 has."""
    table = _random(24, 20)
    bits = np.array([0x7F800123, 0xFFC00000, 0x80000000, 0x3F800000], np.uint32)
    tensors = [
        Tensor.of("a.weight", table),
        Tensor.of("empty", np.zeros((0, 3), np.float16)),
        Tensor.of("b.weight", table),
        Tensor.of("nan", bits.view(np.float32)),
        Tensor.of("single", np.array(np.nan)),
        Tensor.of("float8", np.arange(256, dtype=np.uint8).reshape(16, 16), "float8_e4m3fn"),
        Tensor.of("complex", (_random(3, 4) + 1j * _random(3, 4)).astype(np.complex64)),
        Tensor.of("mean", np.array([0.485, 0.456, 0.406], np.float32)),
    ]
    source = Source(wrapper=Wrapper("torch", WHOLE_FILE))
    return Model.of(tensors, ties={"b.weight": "a.weight"}, source=source)


@valid
def whole_file() -> bytes:
    """A wrapper, tied and empty tensors, NaN with payloads, float8, complex numbers."""
    return nnrcodec.encode(_whole_file(), config=STATIC)


@valid
def nnc_whole_file() -> bytes:
    """The same in units of the standard: what these lack is carried as bit patterns."""
    return nnrcodec.encode(_whole_file(), config=STANDARD)


def _with_member(name: str, value: Any) -> bytes:
    return _with_record(whole_file(), lambda content: content.update({name: value}))


@invalid("SyntaxElementError")
def tied_to_a_tie() -> bytes:
    """Two tensors that are tied to one another: none of them has values."""
    return _with_member("ties", {"a.weight": "b.weight", "b.weight": "a.weight"})


@invalid("SyntaxElementError")
def empty_with_elements() -> bytes:
    """A tensor without a data unit whose dimensions are not 0."""
    return _with_member("empty", {"empty": [2, 3]})


@invalid("SyntaxElementError")
def wrapper_with_a_class() -> bytes:
    """A wrapper with a tag that would be a call."""
    return _with_member("wrapper", ["torch", ["call", "os.system", "ls"]])


@hostile("SyntaxElementError", "PayloadError")
def deep_wrapper() -> bytes:
    """A wrapper of 900 levels."""
    return _with_member("wrapper", ["torch", json.loads('["list",' * 900 + "1" + "]" * 900)])


@hostile("LimitExceededError")
def one_tensor_under_many_names() -> bytes:
    """A tensor that takes few bytes, under 2000 names: a file without ties would take gigabytes."""
    zeros = np.zeros((1000, 1000), np.float32)
    tensors = [Tensor.of(f"t{i}", zeros) for i in range(2000)]
    return nnrcodec.encode(Model.of(tensors, ties={t.name: "t0" for t in tensors[1:]}))


LOSSLESS = EncoderConfig(lossless=True)
"""Bit patterns as they are."""


def _bits(dtype: str, count: int) -> np.ndarray:
    """Return random bit patterns as values: NaNs of any payload, infinities, subnormals."""
    words = np.random.default_rng(7).integers(0, 2**64 - 1, count, np.uint64, endpoint=True)
    return (words >> np.uint64(1)).astype(f"u{np.dtype(dtype).itemsize}").view(dtype)


@valid
def lossless() -> bytes:
    """Classes of rows and columns, one and four states of the coder, bits that are constant."""
    rng = np.random.default_rng(8)
    rows, columns = np.exp2(rng.uniform(-3, 1, (40, 1, 1))), np.exp2(rng.uniform(-2, 1, (1, 36, 1)))
    normal = (_random(40, 36, 3) * rows * columns).astype(np.float32)
    bfloat16 = nnrcodec.model.dtypes.cast(normal, "bfloat16")
    tensors = [
        Tensor.of("classes", normal),
        Tensor.of("few", normal[:9, :7, 0]),
        Tensor.of("half", normal.astype(np.float16)),
        Tensor.of("narrow", bfloat16, "bfloat16"),
        Tensor.of("was_narrow", bfloat16),
        Tensor.of("double", normal[:10].astype(np.float64)),
        Tensor.of("negative_zeros", np.full((30, 20), np.float32(-0.0))),
        Tensor.of("positive", np.abs(normal)),
    ]
    return nnrcodec.encode(Model.of(tensors), config=LOSSLESS)


@valid
def lossless_forms() -> bytes:
    """The other forms: zigzag integers, a palette, LZMA2 with signs aside, no elements, scalars."""
    rng = np.random.default_rng(9)
    values = _random(20, 12)
    signs = np.repeat([1, -1, 1], 20)[:, None].astype(np.float32)
    tensors = [
        Tensor.of("integers", (rng.laplace(size=(50, 30)) * 300).astype(np.int64)),
        Tensor.of("bytes", (rng.laplace(size=(60, 20)) * 9).astype(np.int8)),
        Tensor.of("mask", rng.random((60, 50)) < 0.1),
        Tensor.of("palette", rng.choice(values[0], (40, 30))),
        Tensor.of("repeated", np.tile(values, (3, 1)) * signs),
        Tensor.of("empty", np.zeros((3, 0, 2), np.float64)),
        Tensor.of("scalar", np.float32(-0.0).reshape(())),
        Tensor.of("nans", _bits("float32", 300)),
        Tensor.of("half_nans", _bits("float16", 300)),
    ]
    return nnrcodec.encode(Model.of(tensors), config=LOSSLESS)


@valid
def lossless_chunks() -> bytes:
    """More elements than are coded together: chunks of other fields, the last with one state."""
    values = (np.random.default_rng(10).random((10_091, 13)) < 0.002).astype(np.float16)
    values[6000:] *= np.float16(1.5)
    values[:, 3] = np.random.default_rng(11).integers(0, 4, 10_091) * np.float16(0.25)
    return nnrcodec.encode({"w": values}, config=LOSSLESS)


def _before_update() -> dict[str, np.ndarray]:
    return {
        "xor": np.arange(600, dtype=np.uint16),
        "difference": _random(40, 30),
        "new": _random(30, 30),
        "same": _random(5, 5),
    }


@valid
def lossless_base() -> bytes:
    """What the next stream is an update of."""
    return nnrcodec.encode(_before_update(), config=LOSSLESS)


@valid
def lossless_update() -> bytes:
    """An update of bit patterns: exclusive ors, differences, new patterns, a tensor left out."""
    old = _before_update()
    new = {
        "xor": old["xor"] ^ np.uint16(0x4000),
        "difference": old["difference"] * np.float32(1 + 1e-5),
        "new": np.random.default_rng(11).normal(size=(30, 30)).astype(np.float32),
        "same": old["same"],
    }
    encoder = nnrcodec.UpdateEncoder(lossless_base(), config=LOSSLESS)
    return encoder.encode(new).data


@valid
def turnover_base() -> bytes:
    """What the next stream is an update of."""
    return nnrcodec.encode(_before_turnover())


def _before_turnover() -> dict[str, np.ndarray]:
    table = _random(8, 9)
    return {
        "stays": _random(5, 5),
        "goes": _random(3, 3),
        "grows": _random(4),
        "tied": table,
        "table": table,
        "half": _random(6, 7),
    }


@valid
def turnover_update() -> bytes:
    """Tensors come and go, become longer and of another dtype; one is no longer tied, one is."""
    old = _before_turnover()
    new = {
        "first": np.arange(3),
        "stays": old["stays"] + np.float32(1),
        "grows": _random(9),
        "scalar": np.float32(3),
        "again": (again := _random(30, 20)),
        "twin": again,
        "empty": np.zeros((0, 4), np.float32),
        "tied": old["tied"],
        "table": old["table"] + np.float32(1),
        "half": old["half"].astype(np.float16),
    }
    return nnrcodec.UpdateEncoder(turnover_base()).encode(new).data


def _other_turnover(member: str, value: Any) -> bytes:
    return _with_record(turnover_update(), lambda content: content.update({member: value}))


@invalid("UnitOrderError")
def new_tensor_beyond_the_end() -> bytes:
    """The place of a new tensor leaves a gap in the order of the model."""
    return _with_record(turnover_update(), lambda content: content["new"].update(first=99))


@invalid("UnitOrderError")
def new_tensors_in_one_place() -> bytes:
    """Two new tensors have one place."""
    return _with_record(turnover_update(), lambda content: content["new"].update(first=2, grows=2))


@invalid("UnitOrderError")
def gone_tensor_that_never_was() -> bytes:
    """A tensor is to go that the base model does not have."""
    return _other_turnover("gone", ["goes", "never"])


@invalid("SyntaxElementError")
def gone_tensor_that_is_there() -> bytes:
    """A tensor is to go, and has a data unit."""
    return _other_turnover("gone", ["goes", "grows"])


@invalid("SyntaxElementError")
def new_tensor_that_is_not_there() -> bytes:
    """A new tensor is not in the stream."""
    return _other_turnover("new", {"goes": 0})


@invalid("SyntaxElementError")
def new_tensor_without_a_base() -> bytes:
    """Tensors come with a stream that is no update."""
    return _with_record(
        lossless_base(), lambda content: content.update(new={content["tensors"][0][0]: 0})
    )


@invalid("SyntaxElementError")
def base_of_no_update() -> bytes:
    """A stream that is no update has the digest of a base model."""
    return _with_record(lossless_base(), lambda content: content.update(base="01234567"))


_UPDATES = ("new_tensor_beyond_the_end", "new_tensors_in_one_place", "gone_tensor_that_never_was")

AFTER = {
    "lossless_update": ("lossless_base",),
    "turnover_update": ("turnover_base",),
    **dict.fromkeys(_UPDATES, ("turnover_base",)),
}
"""Updates, and the streams that they need."""


def _lossless_changed(data: bytes, name: str, change: Callable[[Unit], None]) -> bytes:
    """Return a stream with one of its data units changed."""
    units = [*read_units(data)]
    (unit,) = (u for u in units if getattr(u.body, "topology_elem_id", None) == name)
    change(unit)


def _onnx_file() -> Path:
    """Write an ONNX file with a convolution, its batch norm, and a name that is no identifier."""
    from onnx import TensorProto, helper, numpy_helper

    tensors = {
        "onnx::Conv_1": _random(16, 2, 3, 3, scale=0.2),
        **{name: _random(16, scale=0.2) for name in ("gamma", "beta", "mean")},
        "var": np.full(16, 1.5, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "onnx::Conv_1"], ["a"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", *list(tensors)[1:]], ["b"], "bn"),
        helper.make_node("Relu", ["b"], ["y"], "relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16, "h", "w"])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    path = Path(tempfile.mkdtemp()) / "net.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )
    return path


@valid
def onnx_graph() -> bytes:
    """An ONNX graph in the topology unit of the standard, of one thin pair, and a graph of ours."""
    config = replace(STATIC, low_rank=LowRankConfig(ranks={"onnx__Conv_1": 4}))
    return nnrcodec.encode(load(_onnx_file()), config=config, calib=None)


@valid
def nnc_onnx_graph() -> bytes:
    """An ONNX graph in a private topology unit, which deployed decoders pass over."""
    return nnrcodec.encode(load(_onnx_file()), config=STANDARD, calib=None)


@valid
def short_names() -> bytes:
    """Forty tensors under their numbers, in both kinds of data units."""
    state = {f"layers.{i}.weight": _random(4, 5 + i) for i in range(40)}
    config = EncoderConfig(short_names=True)
    return nnrcodec.encode(state, config=config)


def _with_onnx_unit(change: Callable[[list[Any], int], None]) -> bytes:
    units = list(read_units(onnx_graph()))
    (index,) = (
        i for i, u in enumerate(units) if getattr(u.body, "topology_storage_format", None) == 2
    )
    change(units, index)
    return b"".join(write_units(units))


@invalid("PayloadError")
def lossless_too_short() -> bytes:
    """The last byte of the bits that are stored is missing."""

    def cut(unit: Unit) -> None:
        unit.payload = unit.payload[:-1]

    return _lossless_changed(lossless(), "classes", cut)


@invalid("PayloadError")
def lossless_wrong_state() -> bytes:
    """The first state of the coder is another one, so that the symbols do not end as they began."""

    def flip(unit: Unit) -> None:
        unit.payload = bytes([unit.payload[0] ^ 1]) + bytes(unit.payload[1:])

    return _lossless_changed(lossless(), "half", flip)


@invalid("PayloadError")
def lossless_palette_too_small() -> bytes:
    """The last word of the palette is missing, but there are indices to it."""

    def shorten(unit: Unit) -> None:
        unit.body.lossless_model.count_palette_minus1 -= 1
        unit.body.lossless_model.palette_word.pop()

    return _lossless_changed(lossless_forms(), "palette", shorten)


@invalid("PayloadError")
def lossless_fields_of_too_few_bits() -> bytes:
    """The fields make up 31 of 32 bits."""

    def narrow(unit: Unit) -> None:
        unit.body.lossless_model.field_layout[0].bit_field[-1].field_bits_minus1 -= 1

    return _lossless_changed(lossless(), "classes", narrow)


@invalid("SyntaxElementError")
def lossless_of_other_width() -> bytes:
    """Bit patterns of 32 bits that claim to be those of float16."""

    def claim(unit: Unit) -> None:
        unit.body.xdu_data_format = 8

    return _lossless_changed(lossless(), "classes", claim)


@invalid("PayloadError")
def lossless_damaged_lzma() -> bytes:
    """A byte in the middle of an LZMA2 stream is another one."""

    def damage(unit: Unit) -> None:
        payload = bytearray(unit.payload)
        payload[len(payload) // 2] ^= 0xFF
        unit.payload = bytes(payload)

    return _lossless_changed(lossless_forms(), "repeated", damage)


@invalid("PayloadError")
def lossless_difference_of_nothing() -> bytes:
    """A difference of bit patterns in a stream that is no update."""

    def mark(unit: Unit) -> None:
        unit.body.lossless_model.difference_form = 1

    return _lossless_changed(lossless(), "classes", mark)


@hostile("decodes", "LimitExceededError")
def lossless_constant() -> bytes:
    """Fifteen million doubles in a few bytes: all bits are constant."""
    return nnrcodec.encode({"w": np.full((3000, 5000), -1.5)}, config=LOSSLESS)


@hostile("decodes", "LimitExceededError", "PayloadError")
def lossless_lzma_of_zeros() -> bytes:
    """An LZMA2 stream of a few kilobytes that makes a hundred megabytes."""
    words = np.zeros(25_000_000, np.uint32)
    model = LosslessModel(2, word_form=WordForm.LZMA)
    payload = encode_words(words, model, None)

    def claim(unit: Unit) -> None:
        unit.body.tensor_dimensions = [words.size]
        unit.body.count_tensor_dimensions = 1
        unit.body.lossless_model = model
        unit.payload = payload

    return _lossless_changed(lossless(), "classes", claim)


@hostile("decodes", "LimitExceededError", "PayloadError", "TruncatedBitstreamError")
def lossless_many_tables() -> bytes:
    """Sixty tensors of a few bytes, each with sixteen tables of two hundred symbols."""
    tables = [LevelTable(TableForm.DIRECT, 199, 0, first_code=16, code_delta=[0] * 199)] * 16
    coded = BitField(7, FieldCoding.CODED, 0, 15, 0, [1] * 16, tables)
    model = LosslessModel(0, field_layout=[FieldLayout(0, [coded])])
    state = {f"t{i}": np.full(100, 7, np.uint8) for i in range(60)}
    units = [*read_units(nnrcodec.encode(state, config=LOSSLESS))]
    for unit in units:
        if isinstance(unit.body, ExtendedDataUnit):
            unit.body.xdu_version_minor, unit.body.xdu_coding = 1, 2
            unit.body.xdu_data_format = 65
            unit.body.level_model, unit.body.lossless_model = None, model
    return b"".join(write_units(units))


def onnx_graph_missing() -> bytes:
    """The record speaks of an ONNX graph that is not there."""
    return _with_onnx_unit(lambda units, index: units.pop(index))


@invalid("PayloadError")
def onnx_graph_of_another() -> bytes:
    """The ONNX graph is another one than the record says."""

    def change(units: list[Any], index: int) -> None:
        units[index].body.topology_data = zlib.compress(b"\x08\x08")

    return _with_onnx_unit(change)


@invalid("UnitOrderError")
def onnx_graph_twice() -> bytes:
    """There are two ONNX graphs."""
    return _with_onnx_unit(lambda units, index: units.insert(index, units[index]))


@hostile("LimitExceededError")
def onnx_graph_that_explodes() -> bytes:
    """An ONNX graph of a hundred million bytes when it is inflated."""

    def change(units: list[Any], index: int) -> None:
        units[index].body.topology_data = zlib.compress(bytes(10**8), 9)

    return _with_onnx_unit(change)


@invalid("PayloadError")
def damaged_measurement() -> bytes:
    """One bit of the measurement in the closing record is flipped."""
    data = bytearray(measurement())
    data[-3] ^= 0x01
    return bytes(data)


@invalid("PayloadError")
def no_closing_record() -> bytes:
    """The unit with the digests, which is the last, is missing."""
    data = closing_record()
    return data[: _unit_start(data, len(read_stream(data).units) - 1)]


@invalid("PayloadError")
def damaged_digest() -> bytes:
    """One bit of the digests in the closing record is flipped."""
    data = bytearray(closing_record())
    data[-20] ^= 0x01
    return bytes(data)


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
    """A record of a later major version."""
    return re.sub(rb"nnrcodec \d+\.\d+ ", b"nnrcodec 9.0 ", zeros())


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
        record["tensors"].append(["absent"])

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


REFUSED = ("SyntaxElementError", "LimitExceededError")
"""Hostile graphs for which either is right: that depends on which check comes first."""


class _Graph:
    """A graph being written: call it with an operator and its arguments, get the value."""

    def __init__(self, *inputs: Input, **dims: Dim) -> None:
        self.inputs, self.dims, self.nodes = inputs, dims, list[Node]()

    def __call__(self, op: str, *arguments: Argument, **named: Argument) -> Ref:
        self.nodes.append(Node(op, arguments, tuple(named.items())))
        return Ref(len(self.inputs) + len(self.nodes) - 1)

    def stream(self, output: Output, **state: Any) -> bytes:
        """Return a stream with this graph and these tensors, or one tensor that is not used."""
        graph = Graph(self.inputs, tuple(self.nodes), output, self.dims)
        return _graph_stream(to_json(graph), state)


def _graph_stream(graph: Any, state: dict[str, Any] | None = None) -> bytes:
    """Return a stream with a graph as JSON."""

    def add(record: Any) -> None:
        record["graph"] = graph

    return _with_record(
        nnrcodec.encode(state or {"w": np.zeros(1, np.float32)}, config=STATIC), add
    )


def _x(*shape: int | str, name: str = "x") -> Input:
    return Input(name, "float32", shape)


X = Ref(0)
DYNAMIC = Dim(2, None, 2)


@hostile("decodes", "LimitExceededError")
def many_relus() -> bytes:
    """Two thousand pairs of an addition and a ReLU: time that grows with the square."""
    graph, value = _Graph(_x(2)), X
    for _ in range(2000):
        value = graph("aten.relu.default", graph("aten.add.Tensor", value, 1.0))
    return graph.stream((value,))


@hostile(*REFUSED)
def number_squared_often() -> bytes:
    """2^62, squared thirty times: a number of 2^36 bits."""
    graph = _Graph(_x(2))
    value: Argument = 2**62
    for _ in range(31):
        value = graph("operator.mul", value, value)
    return graph.stream((value,))


@hostile(*REFUSED)
def five_million_lists() -> bytes:
    """The record says nothing but empty lists: sixteen megabytes from twenty kilobytes."""

    def fill(record: Any) -> None:
        record["tensors"] = [[]] * (2**22 - 100)

    return _with_record(zeros(), fill)


@hostile("decodes", *REFUSED)
def input_of_8_gigabytes() -> bytes:
    """An input of 2^31 elements: there is no need to make one."""
    graph = _Graph(_x(2**31))
    return graph.stream((graph("aten.relu.default", X),))


def _input_named(name: str) -> bytes:
    graph = _Graph(_x(2, name=name))
    return graph.stream((graph("aten.relu.default", X),))


@hostile("SyntaxElementError")
def input_named_none() -> bytes:
    """An identifier that is a constant of Python."""
    return _input_named("None")


@hostile("SyntaxElementError")
def input_named_class() -> bytes:
    """An identifier that is a keyword of Python."""
    return _input_named("class")


@hostile("SyntaxElementError", "decodes")
def input_named_debug() -> bytes:
    """An identifier that is no keyword, and still nothing may be assigned to it."""
    return _input_named("__debug__")


@hostile("SyntaxElementError", "decodes")
def input_named_self() -> bytes:
    """An argument of the same name is there already in any method."""
    return _input_named("self")


@hostile("SyntaxElementError", "decodes")
def inputs_named_as_made_code_names_things() -> bytes:
    """Names that source made from a graph uses for itself."""
    names = ("self", "torch", "device", "inf", "nan", "args", "kwargs", "fx_pytree", "relu", "p_w")
    names += ("b_w", "c_w", "print", "match", "_", "operator", "math", "pytree", "forward")
    graph = _Graph(*(_x(2, name=name) for name in names))
    w = TensorRef("w")
    values = [graph("aten.add.Tensor", Ref(i), w) for i in range(len(names))]
    return graph.stream(tuple(values))


@hostile("SyntaxElementError")
def view_of_unknown_sizes() -> bytes:
    """A view with two sizes to be found out."""
    graph = _Graph(_x(2))
    return graph.stream((graph("aten.view.default", X, (-1, -1)),))


@hostile("SyntaxElementError")
def divided_by_zero() -> bytes:
    """A size divided by zero."""
    graph = _Graph(_x(2))
    return graph.stream((graph("operator.floordiv", 1, 0),))


@hostile("SyntaxElementError")
def number_of_nan() -> bytes:
    """A whole number made from one that is none."""
    graph = _Graph(_x(2))
    return graph.stream((graph("torch.sym_int", float("nan")), graph("math.floor", float("inf"))))


@hostile("SyntaxElementError")
def number_too_large_for_a_float() -> bytes:
    """Quotients and floats that overflow."""
    graph = _Graph(_x(2))
    large = graph("operator.mul", 2**62, 2**62)
    for _ in range(5):
        large = graph("operator.mul", large, large)
    return graph.stream((graph("operator.truediv", large, 3), graph("torch.sym_float", large)))


@hostile("decodes", *REFUSED)
def ten_million_tensors() -> bytes:
    """An input of one element, expanded, and taken apart."""
    graph = _Graph(_x(1))
    whole = graph("aten.expand.default", X, (10**7,))
    graph("aten.unbind.int", whole)
    return graph.stream((X,))


@hostile("decodes", *REFUSED)
def ten_million_parts() -> bytes:
    """A tensor split into parts of one element, in every way there is."""
    graph = _Graph(_x(1))
    whole = graph("aten.zeros.default", (10**7,))
    graph("aten.split.Tensor", whole, 1)
    graph("aten.chunk.default", whole, 10**7)
    graph("aten.tensor_split.sections", whole, 10**7)
    return graph.stream((X,))


@hostile("decodes", *REFUSED)
def mesh_of_many_axes() -> bytes:
    """A grid of four thousand axes: as many tensors, each of as many dimensions."""
    graph = _Graph(_x(1))
    graph("aten.meshgrid.default", (X,) * 4000)
    return graph.stream((X,))


@hostile("decodes", *REFUSED)
def broadcast_of_many_axes() -> bytes:
    """A hundred lists of a hundred tensors of ten thousand dimensions each."""
    graph = _Graph(_x(1))
    wide = graph("aten.zeros.default", (1,) * 10_000)
    for _ in range(100):
        graph("aten.broadcast_tensors.default", (wide,) * 100)
    return graph.stream((X,))


@hostile("decodes", *REFUSED)
def many_axes() -> bytes:
    """Twenty thousand axes of size 1, through two thousand operators."""
    graph = _Graph(_x(1))
    value = graph("aten.zeros.default", (1,) * 20_000)
    for _ in range(2000):
        value = graph("aten.alias.default", value)
    return graph.stream((X,))


@hostile("decodes", *REFUSED)
def growing_axes() -> bytes:
    """Three thousand times one axis more."""
    graph, value = _Graph(_x(1)), X
    for _ in range(3000):
        value = graph("aten.unsqueeze.default", value, 0)
    return graph.stream((value,))


@hostile("decodes", *REFUSED)
def long_recurrence() -> bytes:
    """An LSTM over a million steps, which nobody has to take one by one to know the shapes."""
    graph = _Graph(_x(1, 1, 1))
    steps = graph("aten.expand.default", X, (10**6, 1, 1))
    state = graph("aten.zeros.default", (1, 1, 1))
    weight = graph("aten.zeros.default", (4, 1))
    graph(
        "aten.lstm.input",
        steps,
        (state, state),
        (weight, weight),
        False,
        1,
        0.0,
        False,
        False,
        False,
    )
    return graph.stream((X,))


@hostile("decodes", *REFUSED)
def long_gru() -> bytes:
    """A GRU over a million steps."""
    graph = _Graph(_x(1, 1, 1))
    steps = graph("aten.expand.default", X, (10**6, 1, 1))
    state = graph("aten.zeros.default", (1, 1, 1))
    weight = graph("aten.zeros.default", (3, 1))
    graph("aten.gru.input", steps, state, (weight, weight), False, 1, 0.0, False, False, False)
    return graph.stream((X,))


@hostile("decodes", *REFUSED)
def recurrence_of_many_layers() -> bytes:
    """A recurrent network that says it has 2^40 layers."""
    graph = _Graph(_x(1, 1, 1))
    state = graph("aten.zeros.default", (1, 1, 1))
    graph("aten.rnn_tanh.input", X, state, (state,), False, 2**40, 0.0, False, False, False)
    return graph.stream((X,))


@hostile("decodes", *REFUSED)
def einsum_of_many() -> bytes:
    """An einsum of a hundred operands over fifty letters."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWX"
    graph = _Graph(_x(1))
    graph("aten.einsum.default", Word("equation", ",".join(letters * 2)[:199]), (X,) * 100)
    return graph.stream((X,))


@hostile("decodes", *REFUSED)
def many_dims() -> bytes:
    """Names of dimensions that nothing uses."""
    value = to_json(Graph((_x(2),), (), (X,)))
    value["dims"] = {f"d{i}": [0, None, 1] for i in range(30_000)}
    return _graph_stream(value)


@hostile("decodes", *REFUSED)
def many_inputs() -> bytes:
    """Thirty thousand inputs."""
    return _Graph(*(Input(f"x{i}", "bool", ()) for i in range(30_000))).stream((X,))


@hostile("decodes", *REFUSED)
def many_dynamic_inputs() -> bytes:
    """A thousand inputs of eight dimensions that may change, all of them different."""
    graph = _Graph(*(_x(*(f"d{i}_{a}" for a in range(8)), name=f"x{i}") for i in range(1000)))
    graph.dims = {f"d{i}_{a}": DYNAMIC for i in range(1000) for a in range(8)}
    return graph.stream(tuple(Ref(i) for i in range(1000)))


@hostile("decodes", *REFUSED)
def wide_output() -> bytes:
    """One value, returned a million times."""
    value = to_json(Graph((_x(2),), (), (X,)))
    value["output"] = [{"r": 1}] * 1_000_000
    return _graph_stream(value)


@hostile("decodes", *REFUSED)
def long_argument_list() -> bytes:
    """One value, joined to itself a million times."""
    value = to_json(Graph((_x(2),), (), (X,)))
    value["ops"], value["nodes"] = ["aten.cat.default"], [[0, [{"r": 1}] * 1_000_000]]
    return _graph_stream(value)


@hostile("decodes", *REFUSED)
def long_list_of_numbers() -> bytes:
    """Operators that walk through their axes, with a list of ten thousand."""
    graph = _Graph(_x(1))
    many = (1,) * 10_000
    graph("aten.tile.default", X, many)
    graph("aten.repeat.default", X, many)
    graph("aten.roll.default", X, many, (0,) * 10_000)
    return graph.stream((X,))


@hostile("SyntaxElementError", "LimitExceededError", "PayloadError")
def many_names_of_operators() -> bytes:
    """A million operators in the list, most of them unknown."""
    value = to_json(Graph((_x(2),), (), (X,)))
    value["ops"] = ["aten.relu.default", *["os.system"] * 1_000_000]
    value["nodes"] = [[1, {"r": 1}]]
    return _graph_stream(value)


@hostile("SyntaxElementError", "LimitExceededError")
def huge_string() -> bytes:
    """An operator with a name of ten million letters; the message need not repeat it."""
    value = to_json(Graph((_x(2),), (), (X,)))
    value["ops"], value["nodes"] = ["a" * 10_000_000], [[0, {"r": 1}]]
    return _graph_stream(value)


@hostile("SyntaxElementError", "LimitExceededError", "UnitOrderError")
def huge_name() -> bytes:
    """A tensor of the record with a name of ten million letters, which is in no data unit."""

    def add(record: Any) -> None:
        record["tensors"].append(["a" * 10_000_000])

    return _with_record(zeros(), add)


@hostile("decodes", *REFUSED)
def sizes_as_powers() -> bytes:
    """A size that is squared five times: what is known of it is a power of a symbol."""
    graph, value = _Graph(_x("d"), d=DYNAMIC), X
    for _ in range(5):
        value = graph("aten.reshape.default", graph("aten.outer.default", value, value), (-1,))
    return graph.stream((value,))


@hostile("decodes", *REFUSED)
def sizes_as_polynomials() -> bytes:
    """The sixth power of the sum of forty sizes: ten million terms when multiplied out."""
    count = 40
    inputs = tuple(_x(f"d{i}", name=f"x{i}") for i in range(count))
    graph = _Graph(*inputs, **{f"d{i}": DYNAMIC for i in range(count)})
    whole = graph("aten.cat.default", tuple(Ref(i) for i in range(count)))
    value = whole
    for _ in range(5):
        value = graph("aten.reshape.default", graph("aten.outer.default", value, whole), (-1,))
    return graph.stream((value,))


@hostile("decodes", *REFUSED)
def shared_quotients() -> bytes:
    """Quotients of quotients, each used twice: a small graph, as an expression 2^40 terms."""
    graph = _Graph(_x("d"), d=Dim(2, None, 100))
    value = graph("aten.sym_size.int", X, 0)
    for i in range(40):
        half = graph("operator.floordiv", graph("operator.add", value, i), 2)
        third = graph("operator.floordiv", graph("operator.mul", value, 3), 4)
        value = graph("operator.add", half, third)
    return graph.stream((graph("aten.zeros.default", (value,)),))


@hostile("decodes", *REFUSED)
def shared_maxima() -> bytes:
    """The same with maxima, minima and remainders of two sizes."""
    graph = _Graph(_x("d", "e"), d=Dim(2, None, 100), e=Dim(2, None, 90))
    a, b = graph("aten.sym_size.int", X, 0), graph("aten.sym_size.int", X, 1)
    for i in range(2, 32):
        top, low = graph("torch.sym_max", a, b), graph("torch.sym_min", a, b)
        a = graph("operator.add", top, graph("operator.mod", low, i))
        b = graph("operator.mul", low, 1 + i % 2)
    return graph.stream((graph("aten.zeros.default", (a,)),))


@hostile("decodes", *REFUSED)
def many_guards() -> bytes:
    """Two hundred inputs whose sizes turn out to be equal, one after the other."""
    count = 200
    inputs = tuple(_x(f"d{i}", name=f"x{i}") for i in range(count))
    graph = _Graph(*inputs, **{f"d{i}": Dim(2, None, 7) for i in range(count)})
    value = X
    for i in range(1, count):
        value = graph("aten.add.Tensor", value, Ref(i))
    return graph.stream((value,))


@hostile("decodes", *REFUSED)
def many_views() -> bytes:
    """Three hundred views whose sizes are quotients and products of sizes."""
    graph = _Graph(_x("d", "e"), d=Dim(2, None, 24), e=Dim(2, None, 36))
    value = X
    d, e = graph("aten.sym_size.int", X, 0), graph("aten.sym_size.int", X, 1)
    for i in range(300):
        rows = graph("operator.floordiv", graph("operator.mul", d, e), 2 + i % 11)
        rest = graph("operator.floordiv", graph("operator.mul", d, e), rows)
        graph("aten.slice.Tensor", value, 0, rest, rows)
        value = graph("aten.view.default", X, (e, d))
    return graph.stream((value,))


@hostile("decodes", *REFUSED)
def many_convolutions_of_unknown_size() -> bytes:
    """Two hundred times a smaller and a larger picture: sizes as nested quotients."""
    graph = _Graph(_x(1, 1, "h", "w"), h=Dim(2, None, 64), w=Dim(2, None, 64))
    value = X
    for _ in range(200):
        value = graph("aten.max_pool2d.default", value, (3, 3), (2, 2), (1, 1))
        size = tuple(
            graph("operator.mul", graph("aten.sym_size.int", value, axis), 2) for axis in (2, 3)
        )
        value = graph("aten.upsample_nearest2d.default", value, size)
        value = graph("aten.add.Tensor", value, value)
    return graph.stream((value,))


@hostile("decodes", *REFUSED)
def one_symbol_many_operators() -> bytes:
    """Four thousand operators on one input of unknown size."""
    graph, value = _Graph(_x("d", "e"), d=DYNAMIC, e=DYNAMIC), X
    for i in range(4000):
        value = (
            graph("aten.transpose.int", value, 0, 1)
            if i % 2
            else graph("aten.mul.Tensor", value, 0.5)
        )
    return graph.stream((value,))


@hostile("decodes", *REFUSED)
def tensors_out_of_nothing() -> bytes:
    """Terabytes that a network would make when it runs; nobody runs it here."""
    graph, huge = _Graph(_x(1)), 2**40
    values = [
        graph("aten.zeros.default", (huge,)),
        graph("aten.full.default", (huge, 8), 1.5),
        graph("aten.arange.default", huge),
        graph("aten.eye.default", 2**20),
        graph("aten.repeat.default", X, (huge,)),
        graph("aten.tile.default", X, (huge,)),
        graph("aten.constant_pad_nd.default", X, (huge, huge)),
        graph("aten.repeat_interleave.self_int", X, huge),
        graph("aten.linspace.default", 0.0, 1.0, huge),
        graph("aten.contiguous.default", graph("aten.expand.default", X, (huge,))),
        graph("aten.diag_embed.default", graph("aten.expand.default", X, (2**20,))),
    ]
    picture = graph("aten.zeros.default", (1, 1, 2**15, 2**15))
    values.append(graph("aten.im2col.default", picture, (99, 99), (1, 1), (0, 0), (1, 1)))
    return graph.stream(tuple(values))


@hostile("decodes", *REFUSED)
def sizes_beyond_64_bits() -> bytes:
    """Shapes whose product overflows."""
    graph, huge = _Graph(_x(1)), 2**62
    graph("aten.expand.default", X, (huge, huge, huge, 1))
    graph("aten.zeros.default", (huge, huge))
    return graph.stream((X,))


@hostile("decodes", *REFUSED)
def network_of_one_class_per_atom() -> bytes:
    """One_hot of an index, with 2^60 classes."""
    graph = _Graph(Input("x", "int64", (1,)))
    return graph.stream((graph("aten.one_hot.default", X, 2**60),))


@hostile("decodes", *REFUSED)
def deep_names() -> bytes:
    """Three hundred tensors, each below ninety-nine layers of its own."""
    state = {".".join(["a"] * 97 + [f"b{i}", "w"]): np.zeros(1, np.float32) for i in range(300)}
    graph = _Graph(_x(1))
    return graph.stream((graph("aten.relu.default", X),), **state)


MARK = "/tmp/nnrcodec-fuzz-code-has-run"  # noqa: S108 - looked for by the tests
CODE = f'training"), open("{MARK}", "w"), ("'


@hostile("SyntaxElementError")
def name_with_code() -> bytes:
    """A name that ends a string in source made from the network, and goes on as code."""
    return _with_name(CODE)


@hostile("SyntaxElementError")
def layer_with_code() -> bytes:
    """The same in the name of a layer."""
    return _with_name(f"layer.{CODE}.weight")


@hostile("SyntaxElementError")
def names_with_code() -> bytes:
    """Names with quotes, line ends and backslashes; code between them."""
    call = f'open("{MARK}","w")'
    names = (
        f'a"]); {call} #',
        f"a')\n    {call}\n",
        f'a\\"+{call}+"',
        f"{{{call}}}",
        f'"+{call}+"',
    )
    graph = _Graph(_x(1))
    values = tuple(graph("aten.add.Tensor", X, TensorRef(name)) for name in names)
    return graph.stream(values, **{name: np.zeros(1, np.float32) for name in names})


@hostile("SyntaxElementError", "decodes")
def layers_named_as_keywords() -> bytes:
    """Layers whose names are words of Python: source made from the network is none."""
    return _with_name("None.0.class.weight")


def _with_name(name: str) -> bytes:
    graph = _Graph(_x(1))
    value = graph("aten.add.Tensor", X, TensorRef(name))
    return graph.stream((value,), **{name: np.zeros(1, np.float32)})


@hostile("SyntaxElementError", "decodes")
def name_with_terminal_codes() -> bytes:
    """A name that would clear the terminal on which it is shown."""
    return _with_name("w\x1b[2J\x1b]0;title\x07\r")


@hostile("SyntaxElementError", "decodes")
def names_of_modules_own() -> bytes:
    """A tensor named as something that every module has."""
    return _with_name("__class__")


@hostile("decodes", "UnsupportedFeatureError")
def tensor_named_graph() -> bytes:
    """A tensor named as something that every module has which PyTorch makes of a .pt2 file."""
    return _with_name("graph")


@hostile("SyntaxElementError", "decodes", "PayloadError")
def odd_keys() -> bytes:
    """A dictionary that is returned, with lone surrogates, quotes and code as keys."""
    value = to_json(Graph((_x(2),), (), (X,)))
    keys = ("\ud800", "\0", CODE, "", "a.b", "self", "\n")
    value["output"] = {"dict": {key: {"r": 1} for key in keys}}
    return _graph_stream(value)


@hostile("decodes", "SyntaxElementError", "LimitExceededError")
def thousand_factors() -> bytes:
    """As many decomposed layers as there may be, in a graph of three thousand nodes."""
    state, rows, graph, value = {}, [], _Graph(_x(1, 2)), X
    for i in range(1000):
        state[f"l{i}.u.weight"] = np.zeros((1, 2), np.float32)
        state[f"l{i}.v.weight"] = np.zeros((2, 1), np.float32)
        rows.append([f"l{i}", [2, 2], 1, "linear"])
        thin = graph("aten.linear.default", value, TensorRef(f"l{i}.u.weight"))
        value = graph("aten.linear.default", thin, TensorRef(f"l{i}.v.weight"))
    data = graph.stream((value,), **state)

    def add(record: Any) -> None:
        record["factors"] = rows

    return _with_record(data, add)


@hostile("decodes", "SyntaxElementError", "LimitExceededError")
def large_factors() -> bytes:
    """Two factors of zeros, of 64 MB each: a product of 2^37 multiplications from 500 bytes."""
    state = {name: np.zeros((4000, 4000), np.float32) for name in ("l.u.weight", "l.v.weight")}

    def add(record: Any) -> None:
        record["factors"] = [["l", [4000, 4000], 4000, "linear"]]

    return _with_record(nnrcodec.encode(state, config=STATIC), add)


@hostile("decodes", "LimitExceededError")
def zeros_of_the_standard() -> bytes:
    """Sixty million zeros, one bin each."""
    return nnrcodec.encode({"w": np.zeros((6000, 10_000), np.float32)}, config=STANDARD)


@hostile("decodes", "LimitExceededError")
def zeros_of_ours() -> bytes:
    """Sixty million zeros of no bits at all; to make them a digest is taken of them."""
    return nnrcodec.encode({"w": np.zeros((6000, 10_000), np.float32)}, config=STATIC)


@hostile("decodes", *REFUSED, "PayloadError", "UnitOrderError")
def many_tensors_in_the_record() -> bytes:
    """Thirty thousand tensors in the record, none of them in the stream."""

    def fill(record: Any) -> None:
        record["tensors"] = [[str(i)] for i in range(30_000)]

    return _with_record(zeros(), fill)


@hostile("SyntaxElementError", "PayloadError", "LimitExceededError")
def many_coded_names() -> bytes:
    """Names of names that are not there, and a scalar half a million times."""

    def fill(record: Any) -> None:
        record["coded_names"] = {str(i): "w" for i in range(30_000)}
        record["scalars"] = ["w"] * 500_000

    return _with_record(both_coders(), fill)


@hostile("decodes", "SyntaxElementError")
def statistics_of_other_memory() -> bytes:
    """A batch norm of a thousand channels with one mean: the rest would be read from beside it."""
    graph = _Graph(_x(1, 1000, 2, 2))
    one = graph("aten.ones.default", (1,))
    values = graph(
        "aten._native_batch_norm_legit_no_training.default", X, one, one, one, one, 0.1, 1e-5
    )
    return graph.stream((graph("operator.getitem", values, 0),))


@hostile("decodes", "SyntaxElementError")
def norm_of_other_memory() -> bytes:
    """A weight norm whose lengths are of another shape: read, and written, beyond its tensors."""
    graph = _Graph(_x(64, 2), _x(1, name="g"))
    return graph.stream((graph("aten._weight_norm.default", X, Ref(1), 0),))


@hostile("decodes", "SyntaxElementError")
def norm_of_nothing() -> bytes:
    """A weight norm of an empty tensor divides by zero in machine code."""
    graph = _Graph(_x(0, 3, 2))
    return graph.stream((graph("aten._weight_norm.default", X, X, 0),))


@hostile("decodes", "SyntaxElementError")
def recurrence_with_too_many_axes() -> bytes:
    """An LSTM whose input and states have four axes, and whose weights are empty."""
    graph = _Graph(_x(4, 2, 8, 2), _x(0, name="w"))
    weights = (Ref(1), Ref(1))
    arguments = (False, 1, 0.0, False, True, True)
    values = graph("aten.lstm.input", X, (X, X), weights, *arguments)
    return graph.stream((graph("operator.getitem", values, 0),))


@hostile("decodes", "SyntaxElementError")
def sampler_without_a_mode() -> bytes:
    """Sampling of a grid in a way that is none: the result is memory that nobody wrote to."""
    graph = _Graph(_x(1, 2, 64, 64), _x(1, 64, 64, 2, name="grid"))
    return graph.stream((graph("aten.grid_sampler.default", X, Ref(1), 4, 0, False),))


@hostile("decodes", "SyntaxElementError", "UnsupportedFeatureError")
def nothing_returned() -> bytes:
    """A network that returns an empty tuple."""
    graph = _Graph(_x(2))
    graph("aten.relu.default", X)
    return graph.stream(())


@hostile("decodes", "SyntaxElementError", "UnsupportedFeatureError")
def nan_returned() -> bytes:
    """A network that returns a number that is not equal to itself."""
    graph = _Graph(_x(2))
    return graph.stream((graph("operator.add", float("nan"), 1), X, float("inf")))


@hostile("decodes", "SyntaxElementError", "UnsupportedFeatureError")
def taken_apart_into_nothing() -> bytes:
    """An empty tensor, and so an empty list of tensors."""
    graph = _Graph(_x(0, 2))
    graph("aten.unbind.int", X)
    return graph.stream((X,))


@hostile("decodes", *REFUSED)
def inputs_without_number() -> bytes:
    """No inputs, no nodes; a tensor is returned as it is."""
    return _Graph().stream((TensorRef("w"), None, 1, {"": [TensorRef("w")]}))


@hostile("decodes", "LimitExceededError")
def bins_that_cost_nothing() -> bytes:
    """Sixty million levels of zero, of which no row is skipped: a bin each, and hardly a bit."""
    values = np.zeros((6000, 10_000), np.float32)
    values[:, 0] = 1
    config = replace(STANDARD, quantization=UniformConfig(qp=0), dq=False)
    return nnrcodec.encode({"w": values}, config=config)


@hostile("decodes", *REFUSED)
def changed_through_an_alias() -> bytes:
    """A tensor of the model, changed in place behind the back of the check."""
    graph = _Graph(_x(2))
    alias = graph("aten.view.default", TensorRef("w"), (2,))
    graph("aten.relu_.default", alias)
    return graph.stream((graph("aten.add.Tensor", X, alias),), w=np.array([-1, 1], np.float32))


@hostile("decodes", *REFUSED)
def input_changed_in_place() -> bytes:
    """An input, written to where it overlaps itself."""
    graph = _Graph(_x(1))
    wide = graph("aten.expand.default", X, (5,))
    return graph.stream((graph("aten.relu_.default", wide),))


@hostile("decodes", *REFUSED)
def operators_that_divide() -> bytes:
    """Groups, steps and factors of zero, and below."""
    graph = _Graph(_x(1, 4, 4, 4))
    for number in (0, -1, -(2**63)):
        graph("aten.channel_shuffle.default", X, number)
        graph("aten.pixel_shuffle.default", X, number)
        graph("aten.unfold.default", X, 1, 1, number)
        graph("aten.max_pool2d.default", X, (2, 2), (number, number))
    return graph.stream((X,))


def _rewritten(data: bytes, change: Callable[[ExtendedDataUnit], None]) -> bytes:
    """Return a stream with its extended data units changed."""
    units = read_stream(data).units
    for unit in units:
        if isinstance(unit.body, ExtendedDataUnit):
            change(unit.body)
    return b"".join(write_units(units, limits=nnrcodec.Limits(max_elements=2**62)))


def _with_record(data: bytes, change: Callable[[Any], None]) -> bytes:
    """Return a stream with the JSON of its record changed, and a digest for each tensor in it."""
    stream = read_stream(data)
    front, closing = (unit.body for unit in stream.record_units)
    head, text = bytes(front.topology_data[:-1]).rsplit(b" ", 1)
    content = json.loads(zlib.decompress(base64.b85decode(text)))
    change(content)
    packed = base64.b85encode(zlib.compress(json.dumps(content).encode(), 9))
    front.topology_data = head + b" " + packed + b"\0"
    decoded = base64.b85decode(bytes(closing.topology_data[:-1]))
    digests, measured = decoded[:-12], decoded[-12:]
    size = 4 * len(content["tensors"])
    digests = digests[:size].ljust(size, b"\0")
    closing.topology_data = base64.b85encode(digests + measured) + b"\0"
    return b"".join(write_units(stream.units))


def expected(*streams: bytes) -> dict[str, Any]:
    """Return what decoding streams must give: shape, dtype and SHA-256 of every tensor."""
    record = read_stream(streams[0]).record
    dtypes = {entry.name: entry.dtype for entry in record.tensors} if record else {}
    decoder = nnrcodec.UpdateDecoder()
    for data in streams:
        decoder.decode(data)
    return {
        name: entry(value, dtypes.get(name, value.dtype.name))
        for name, value in decoder.state.items()
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


def _registered(name: str) -> tuple[Callable[[], bytes], str, dict[str, Any]]:
    """Return how a stream is made, its folder, and what the manifest says must come of it."""
    if name in HOSTILE:
        make, may = HOSTILE[name]
        return make, "hostile", {"may": list(may)}
    if name in INVALID:
        make, error = INVALID[name]
        return make, "invalid", {"error": error}
    return VALID[name], "valid", {}


def main() -> None:
    """Write streams and manifest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help="streams to make [all]")
    names = parser.parse_args().name or [*VALID, *INVALID, *HOSTILE]

    manifest_path = FOLDER / "manifest.json"
    manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {}
    for name in names:
        make, folder, outcome = _registered(name)
        data = make()
        path = FOLDER / folder / f"{name}.nnr"
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            kept = path.read_bytes()
            if kept != data:
                print(f"{name}: kept, {len(kept)} bytes; now it would be other {len(data)}")
            data = kept
        path.write_bytes(data)
        after = [FOLDER / _registered(o)[1] / f"{o}.nnr" for o in AFTER.get(name, ())]
        before = [other.read_bytes() for other in after]
        manifest[name] = {
            "file": f"{path.parent.name}/{path.name}",
            **({"after": [f"{o.parent.name}/{o.name}" for o in after]} if after else {}),
            "what": make.__doc__,
            **(outcome or {"tensors": expected(*before, data)}),
        }
        print(f"{name}: {len(data)} bytes")
    manifest |= references()
    manifest_path.write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
