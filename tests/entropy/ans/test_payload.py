from __future__ import annotations

import math
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnrcodec.entropy.ans.levels import LevelModel, LevelTable, TableForm
from nnrcodec.entropy.ans.payload import ESCAPE_MAGNITUDE, decode_levels, encode_levels
from nnrcodec.errors import PayloadError
from nnrcodec.formats import load
from nnrcodec.quant.uniform import UniformConfig, quantize
from nnrcodec.syntax.bitio import BitReader, BitWriter
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.drivers import SyntaxReader, SyntaxWriter
from nnrcodec.syntax.level_model import level_model

INT32 = np.iinfo(np.int32)
POSTFILTER = Path(__file__).parents[3] / "examples" / "postfilter" / "filter.safetensors"


# The decoder of spec/extended-data-unit.md, sentence by sentence, in plain integers.

POWERS = [round(2 ** (15 + i / 64)) for i in range(64)]


def plain_knots(highest: int) -> list[int]:
    less = {2**i for i in range(32)} | {3 * 2**i for i in range(32)} | {0}
    return [*sorted(k for k in less if k < highest), highest]


def plain_highest(table: LevelTable) -> int:
    if table.table_form == 0:
        return table.table_lowest_level
    if table.table_form == 3:
        return -table.table_lowest_level
    return table.table_lowest_level + table.table_level_count_minus1


def plain_probabilities(table: LevelTable) -> list[int]:
    lowest, highest = table.table_lowest_level, plain_highest(table)
    codes = list(accumulate([table.first_code, *table.code_delta]))
    assert all(0 <= code <= 2 ** (4 + table.code_precision) for code in codes)
    escape = [codes.pop()] if table.table_escape_flag else []
    if table.table_form == 1:
        knots = list(range(lowest, highest + 1))
    else:
        knots = sorted({-k for k in plain_knots(-lowest)} | set(plain_knots(highest)))
    if table.table_form == 3:
        codes = codes[:0:-1] + codes
    logarithm = {k: c * 2 ** (6 - table.code_precision) for k, c in zip(knots, codes, strict=True)}
    for a, b in pairwise(knots):
        rise = logarithm[b] - logarithm[a]
        for x in range(a + 1, b):
            logarithm[x] = logarithm[a] + rise * (x - a) // (b - a)
    logarithms = [logarithm[x] for x in range(lowest, highest + 1)]
    logarithms += [code * 2 ** (6 - table.code_precision) for code in escape]
    weights = [POWERS[v % 64] * 2 ** (v // 64) // 2**15 if v else 0 for v in logarithms]
    total = sum(weights) or 1
    shares = [1 + w * (2**24 - len(weights)) // total for w in weights]
    shares[weights.index(max(weights))] += 2**24 - sum(shares)
    return shares


class PlainCoder:
    def __init__(self, payload: bytes) -> None:
        padded = payload + bytes(-len(payload) % 4)
        self.words = [int.from_bytes(padded[i : i + 4], "little") for i in range(0, len(padded), 4)]
        self.state = 0
        while self.words and self.state < 2**32:
            self.refill()

    def refill(self) -> None:
        self.state = self.state * 2**32 + self.words.pop()

    def levels(self, table: LevelTable, count: int) -> list[int | None]:
        """Decode levels; None stands for an escape."""
        if table.table_form == 0:
            return [table.table_lowest_level] * count
        if not count:
            return []
        shares = plain_probabilities(table)
        sums = list(accumulate(shares, initial=0))
        found: list[int | None] = []
        for _ in range(count):
            q = self.state % 2**24
            s = next(i for i in range(len(shares)) if sums[i] <= q < sums[i + 1])
            self.state = self.state // 2**24 * shares[s] + q - sums[s]
            if self.state < 2**32 and self.words:
                self.refill()
            level = table.table_lowest_level + s
            found.append(None if level > plain_highest(table) else level)
        return found


def plain_decode(model: LevelModel, shape: tuple[int, ...], payload: bytes) -> list[int]:
    """Return the levels in C order."""
    rows, columns = (shape[0], shape[1]) if len(shape) > 1 else (1, 1)
    elements = math.prod(shape)
    rest = elements // (rows * columns)
    low_bytes = -(-elements * model.low_bits // 8)
    low = "".join(f"{byte:08b}" for byte in payload[:low_bytes])
    coder = PlainCoder(payload[low_bytes:])
    row = coder.levels(model.row_class_table, rows)
    column = coder.levels(model.column_class_table, columns)
    high = [0] * elements
    escapes = iter(model.escape_level)
    classes = plain_highest(model.row_class_table) + plain_highest(model.column_class_table) + 1
    for scale_class in range(classes):
        table = model.table[sum(model.new_table_flag[: scale_class + 1]) - 1]
        places = [
            (r * columns + c) * rest + k
            for row_class in range(scale_class + 1)
            for r in range(rows)
            for c in range(columns)
            for k in range(rest)
            if (row[r], column[c]) == (row_class, scale_class - row_class)
        ]
        for place, level in zip(places, coder.levels(table, len(places)), strict=True):
            high[place] = next(escapes) if level is None else level
    damaged = coder.state or coder.words or payload[low_bytes:].endswith(b"\0")
    assert not damaged
    assert next(escapes, None) is None
    b = model.low_bits
    return [h * 2**b + int(low[i * b : (i + 1) * b] or "0", 2) for i, h in enumerate(high)]


def sent(model: LevelModel) -> tuple[LevelModel, int]:
    """Return the model as a decoder reads it, and its bits."""
    bits = BitWriter()
    SyntaxWriter(bits).code(model, (level_model,), StreamContext())
    length = bits.position
    bits.byte_alignment()
    read = LevelModel()
    SyntaxReader(BitReader(bits.to_bytes())).code(read, (level_model,), StreamContext())
    return read, length


def coded_bits(levels: np.ndarray) -> int:
    model, payload = encode_levels(levels)
    return sent(model)[1] + 8 * len(payload)


def entropy_bits(levels: np.ndarray) -> float:
    _, counts = np.unique(levels, return_counts=True)
    return float(-(counts * np.log2(counts / levels.size)).sum())


def check_round_trip(levels: np.ndarray) -> None:
    model, payload = encode_levels(levels)
    read, _ = sent(model)
    assert read == model
    assert not payload.endswith(b"\0") or model.low_bits
    decoded = decode_levels(read, levels.shape, memoryview(payload))
    assert decoded.dtype == np.int32
    assert decoded.shape == levels.shape
    assert decoded.tolist() == levels.tolist()
    assert plain_decode(read, levels.shape, payload) == levels.reshape(-1).tolist()


def rows_of_many_scales(shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(3)
    scale = np.exp2(rng.integers(-1, 5, size=(shape[0],) + (1,) * (len(shape) - 1)))
    return np.rint(rng.normal(size=shape) * scale).astype(np.int32)


def columns_of_many_scales(shape: tuple[int, int, int]) -> np.ndarray:
    return np.ascontiguousarray(rows_of_many_scales(shape).swapaxes(0, 1))


def with_outliers(levels: np.ndarray, *outliers: int) -> np.ndarray:
    changed = levels.copy()
    places = np.random.default_rng(4).permutation(levels.size)[: len(outliers)]
    changed.reshape(-1)[places] = outliers
    return changed


NORMAL = np.rint(np.random.default_rng(5).normal(size=(20, 6, 3, 3)) * 3).astype(np.int32)
POSITIVE = np.where(np.arange(600) % 20, 200, 200 + np.arange(600)).astype(np.int32)

TENSORS = {
    "zeros": np.zeros((3, 5, 3, 3), np.int32),
    "scalar": np.array(-7, np.int32),
    "scalar zero": np.array(0, np.int32),
    "least integer alone": np.array([INT32.min], np.int32),
    "both ends": np.array([INT32.min, INT32.max], np.int32),
    "one column": np.arange(9, dtype=np.int32).reshape(9, 1),
    "five dimensions": NORMAL.reshape(5, 4, 6, 3, 3),
    "normal": NORMAL,
    "bits": (NORMAL > 0).astype(np.int32),
    "wide": NORMAL * 3000,
    "low bits": NORMAL * 1234 + 77,
    "all positive": POSITIVE,
    "all negative": -POSITIVE,
    "far from zero": POSITIVE + 2_000_000_000,
    "one outlier in zeros": with_outliers(np.zeros(300, np.int32), 123_456),
    "least integer in zeros": with_outliers(np.zeros((30, 10), np.int32), INT32.min),
    "outliers": with_outliers(NORMAL, INT32.min, INT32.max, 1023, -1023, 1024, -1024, 5000),
    "uniform 32 bits": np.random.default_rng(6).integers(
        INT32.min, INT32.max, 400, np.int32, endpoint=True
    ),
    "classes by row": rows_of_many_scales((24, 4, 9)),
    "classes by few rows": rows_of_many_scales((4, 40, 5)),
    "classes by column": columns_of_many_scales((24, 4, 9)),
    "classes by both": rows_of_many_scales((20, 20, 3)) * columns_of_many_scales((20, 20, 3)),
    "classes and outliers": with_outliers(rows_of_many_scales((24, 40)), 10**6, -(10**9)),
}


@pytest.mark.parametrize("name", TENSORS)
def test_levels_come_back_from_both_decoders(name: str) -> None:
    check_round_trip(TENSORS[name])


@pytest.mark.parametrize("dimensions", range(6))
@pytest.mark.parametrize("scale", [0.05, 0.7, 8.0, 300.0, 40_000.0])
def test_levels_of_any_scale_come_back_from_both_decoders(dimensions: int, scale: float) -> None:
    rng = np.random.default_rng(dimensions)
    shape = tuple(rng.integers(1, 5, dimensions).tolist())
    check_round_trip(np.rint(rng.laplace(size=shape) * scale).astype(np.int32))


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(
        np.int32,
        hnp.array_shapes(min_dims=0, max_dims=5, max_side=4),
        elements=st.one_of(
            st.integers(-2, 2),
            st.integers(-2000, 2000),
            st.integers(int(INT32.min), int(INT32.max)),
        ),
    )
)
def test_any_levels_come_back_from_both_decoders(levels: np.ndarray) -> None:
    check_round_trip(levels)


def test_the_tensors_above_use_every_tool() -> None:
    models = {name: encode_levels(levels)[0] for name, levels in TENSORS.items()}
    assert {t.table_form for m in models.values() for t in m.table} == set(TableForm)
    assert models["wide"].low_bits > 0
    assert models["outliers"].count_escapes > 0
    assert models["classes by row"].row_class_table.table_form != TableForm.CONSTANT
    assert models["classes by column"].column_class_table.table_form != TableForm.CONSTANT
    assert models["classes by both"].row_class_table.table_form != TableForm.CONSTANT
    assert models["classes by both"].column_class_table.table_form != TableForm.CONSTANT


def test_escapes_begin_beyond_the_escape_magnitude() -> None:
    levels = with_outliers(NORMAL, ESCAPE_MAGNITUDE, -ESCAPE_MAGNITUDE, ESCAPE_MAGNITUDE + 1)
    assert encode_levels(levels)[0].escape_level == [ESCAPE_MAGNITUDE + 1]


# Sizes.


@pytest.mark.parametrize("shape", ["normal", "laplace", "standard_t"])
@pytest.mark.parametrize("scale", [0.3, 1.3, 4.0, 20.0, 90.0])
def test_big_tensors_take_at_most_3_percent_more_than_their_entropy(
    shape: str, scale: float
) -> None:
    rng = np.random.default_rng(8)
    size = (128, 64, 5, 5)
    draws = rng.standard_t(4, size) if shape == "standard_t" else getattr(rng, shape)(size=size)
    levels = np.rint(draws * scale).astype(np.int32)
    assert coded_bits(levels) <= 1.03 * entropy_bits(levels)


@pytest.mark.parametrize("elements", [16, 64, 300, 2000])
@pytest.mark.parametrize("scale", [0.3, 1.3, 4.0, 20.0, 90.0])
def test_small_tensors_take_little_more_than_their_entropy(elements: int, scale: float) -> None:
    rng = np.random.default_rng(9)
    levels = np.rint(rng.normal(size=elements) * scale).astype(np.int32)
    # the entropy counts no description at all: not even which levels there are
    distinct = np.unique(levels).size
    side_information = 8 * 24 + 4 * distinct
    assert coded_bits(levels) <= 1.03 * entropy_bits(levels) + side_information


def test_rows_of_different_scales_take_less_than_their_entropy() -> None:
    levels = rows_of_many_scales((200, 30, 9))
    assert coded_bits(levels) < 0.95 * entropy_bits(levels)


def test_zeros_take_a_few_bytes_whatever_their_number() -> None:
    assert coded_bits(np.zeros((1000, 1000), np.int32)) <= 8 * 4


def test_uniform_integers_take_hardly_more_than_32_bits() -> None:
    levels = np.random.default_rng(1).integers(INT32.min, INT32.max, 50_000, np.int32)
    assert coded_bits(levels) <= 1.01 * 32 * levels.size


def test_an_outlier_costs_about_what_it_takes_to_say_where_and_how_large_it_is() -> None:
    levels = np.rint(np.random.default_rng(2).normal(size=(300, 300)) * 3).astype(np.int32)
    outliers = with_outliers(levels, INT32.max)
    assert coded_bits(outliers) <= coded_bits(levels) + 200


@pytest.mark.parametrize("qp", [None, -10, -30])
def test_trained_weights_take_at_most_3_percent_more_than_their_entropy(qp: int | None) -> None:
    config = UniformConfig(qp=qp)
    coded, entropy = 0.0, 0.0
    for tensor in load(POSTFILTER).tensors.values():
        values = tensor.read()
        if values.ndim > 1:
            levels = quantize(values, config.qp_for(values), config.qp_density)
            coded += coded_bits(levels)
            entropy += entropy_bits(levels)
    assert coded <= 1.03 * entropy


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_rows_of_other_scales_take_little_more_than_the_entropy_of_their_classes(
    spread: float,
) -> None:
    rng = np.random.default_rng(4)
    scales = np.exp2(np.rint(spread * rng.normal(size=(256, 1))))
    levels = np.rint(rng.normal(size=(256, 512)) * 3 * scales).astype(np.int32)
    entropy = sum(entropy_bits(levels[scales[:, 0] == scale]) for scale in np.unique(scales))
    assert coded_bits(levels) <= 1.02 * entropy


# Damage.


def outcome(model: LevelModel, shape: tuple[int, ...], payload: bytes) -> list[int] | None:
    """Return the levels, or None where the payload is refused."""
    try:
        return decode_levels(model, shape, memoryview(payload)).reshape(-1).tolist()
    except PayloadError:
        return None


@cache
def coded_tensor(name: str) -> tuple[LevelModel, bytes]:
    return encode_levels(TENSORS[name])


DAMAGED = ["normal", "low bits", "outliers", "classes by both", "one outlier in zeros"]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_payload_cut_short_is_not_decoded_to_the_same_levels(name: str) -> None:
    levels = TENSORS[name]
    model, payload = coded_tensor(name)
    assert payload
    for length in range(0, len(payload), 3):
        assert outcome(model, levels.shape, payload[:length]) != levels.reshape(-1).tolist()


@pytest.mark.parametrize("name", DAMAGED)
def test_a_flipped_bit_changes_levels_or_is_refused(name: str) -> None:
    levels = TENSORS[name]
    model, payload = coded_tensor(name)
    low_bits = levels.size * model.low_bits
    unused = range(low_bits, low_bits + -low_bits % 8)
    for bit in range(0, 8 * len(payload), 11):
        if bit in unused:
            continue
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 0x80 >> bit % 8
        assert outcome(model, levels.shape, bytes(damaged)) != levels.reshape(-1).tolist()


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("extra", [b"\0", b"\1", b"\0\0\0\1", b"\xff" * 9])
def test_trailing_bytes_are_refused(name: str, extra: bytes) -> None:
    levels = TENSORS[name]
    model, payload = coded_tensor(name)
    with pytest.raises(PayloadError):
        decode_levels(model, levels.shape, memoryview(payload + extra))


def test_bytes_for_a_tensor_that_needs_none_are_refused() -> None:
    with pytest.raises(PayloadError, match="do not end where the payload ends"):
        decode_levels(encode_levels(np.zeros(9, np.int32))[0], (9,), memoryview(b"\1"))


def test_low_bits_that_are_not_there_are_refused() -> None:
    model, payload = encode_levels(TENSORS["low bits"])
    with pytest.raises(PayloadError, match="its low bits need"):
        decode_levels(model, (10**6,), memoryview(payload))


@pytest.mark.parametrize("count", [-1, 1])
def test_escapes_too_few_or_too_many_are_refused(count: int) -> None:
    levels = TENSORS["outliers"]
    model, payload = encode_levels(levels)
    model.escape_level = (model.escape_level * 2)[: len(model.escape_level) + count]
    with pytest.raises(PayloadError, match="escape"):
        decode_levels(model, levels.shape, memoryview(payload))


def test_levels_beyond_32_bits_are_refused() -> None:
    model, payload = encode_levels(np.array([4, 8], np.int32) << 28 >> 1)
    low_bytes = (2 * model.low_bits + 7) // 8
    model.table = [LevelTable(TableForm.CONSTANT, 0, INT32.max)]
    with pytest.raises(PayloadError, match="does not fit 32 bits"):
        decode_levels(model, (2,), memoryview(payload[:low_bytes]))


def direct(lowest: int, *codes: int, escape: int = 0) -> LevelTable:
    deltas = np.diff(codes).tolist()
    return LevelTable(
        TableForm.DIRECT, len(codes) - 1 - escape, lowest, escape, 0, 0, codes[0], deltas
    )


@pytest.mark.parametrize(
    "table",
    [
        LevelTable(TableForm.CONSTANT, 0, -1),
        LevelTable(TableForm.CONSTANT, 0, 64),
        LevelTable(TableForm.CONSTANT, 0, 5),
        direct(1, 16, 16),
        direct(0, 16, 16, escape=1),
        direct(0, *[16] * 65),
        LevelTable(TableForm.SYMMETRIC, 0, -1, 0, 0, 0, 16, [0]),
    ],
)
@pytest.mark.parametrize("which", ["row_class_table", "column_class_table"])
def test_classes_that_are_not_numbered_from_0_to_63_are_refused(
    table: LevelTable, which: str
) -> None:
    model = LevelModel(table=[LevelTable()])
    setattr(model, which, table)
    model.new_table_flag = [1] + [0] * max(model.class_count - 1, 0)
    with pytest.raises(PayloadError, match=r"classes are .* expected 0 to at most 63"):
        decode_levels(model, (2, 2), memoryview(b""))


def test_a_first_class_without_a_table_is_refused() -> None:
    with pytest.raises(PayloadError, match="first class has no table"):
        decode_levels(LevelModel(new_table_flag=[0]), (2, 2), memoryview(b""))


def test_a_table_of_one_symbol_takes_no_bits_in_any_form() -> None:
    model = LevelModel(new_table_flag=[1], table=[direct(-3, 16)])
    decoded = decode_levels(model, (2, 2), memoryview(b""))
    assert decoded.reshape(-1).tolist() == plain_decode(model, (2, 2), b"") == [-3] * 4


def test_the_greatest_number_of_classes_in_a_great_tensor_is_decoded() -> None:
    table = direct(0, *[16] * 64)
    model = LevelModel(0, table, table, [1] + [0] * 126, [LevelTable()])
    decoded = decode_levels(model, (2000, 2000), memoryview(b""))
    assert not decoded.any()


def plain_encode(symbols: list[tuple[int, list[int]]]) -> bytes:
    """Return the payload from which a decoder pops symbols with the given probabilities."""
    state, words = 0, b""
    for symbol, shares in reversed(symbols):
        if state >= shares[symbol] << 40:
            words += (state % 2**32).to_bytes(4, "little")
            state >>= 32
        state = state // shares[symbol] * 2**24 + sum(shares[:symbol]) + state % shares[symbol]
    return (words + state.to_bytes(8, "little")).rstrip(b"\0")


@st.composite
def tables(draw: st.DrawFn, escape: int) -> LevelTable:
    form = draw(st.sampled_from([TableForm.DIRECT, TableForm.TWO_SIDED, TableForm.SYMMETRIC]))
    table = LevelTable(form, table_escape_flag=escape, code_precision=draw(st.integers(0, 3)))
    if form == TableForm.SYMMETRIC:
        table.table_lowest_level = draw(st.integers(-40, -1))
    else:
        table.table_level_count_minus1 = count = draw(st.integers(1, 40))
        two_sided = form == TableForm.TWO_SIDED
        table.table_lowest_level = draw(st.integers(-count if two_sided else -500, 0))
    code = st.integers(0, 16 << table.code_precision)
    codes = draw(st.lists(code, min_size=table.code_count, max_size=table.code_count))
    table.first_code = codes[0]
    table.code_delta = np.diff(codes).tolist()
    return table


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(0, 1))
def test_both_decoders_agree_on_tables_that_our_encoder_would_not_choose(
    data: st.DataObject, escape: int
) -> None:
    table = data.draw(tables(escape))
    shares = plain_probabilities(table)
    symbols = data.draw(st.lists(st.integers(0, len(shares) - 1), min_size=1, max_size=30))
    escapes = [10**6 + i for i in range(symbols.count(len(shares) - 1) * escape)]
    model = LevelModel(0, new_table_flag=[1], table=[table])
    model.count_escapes, model.escape_order, model.escape_level = len(escapes), 0, escapes
    payload = plain_encode([(symbol, shares) for symbol in symbols])
    decoded = plain_decode(model, (len(symbols),), payload)
    sent_in_order = iter(escapes)
    assert decoded == [
        next(sent_in_order) if escape and s == len(shares) - 1 else s + table.table_lowest_level
        for s in symbols
    ]
    assert outcome(model, (len(symbols),), payload) == decoded


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=20), st.integers(1, 12), st.integers(0, 9))
def test_both_decoders_accept_and_refuse_the_same_payloads(
    payload: bytes, elements: int, low_bits: int
) -> None:
    model = LevelModel(low_bits, new_table_flag=[1], table=[direct(-2, 3, 16, 0, 9)])
    try:
        plain = plain_decode(model, (elements,), payload)
    except AssertionError:
        plain = None
    if len(payload) < (elements * low_bits + 7) // 8:
        plain = None
    assert outcome(model, (elements,), payload) == plain
