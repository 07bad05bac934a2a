from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnrcodec.entropy.ans.levels import LevelTable, TableForm
from nnrcodec.entropy.lossless import choose
from nnrcodec.entropy.lossless.model import (
    CHUNK_ELEMENTS,
    BitField,
    Difference,
    FieldCoding,
    FieldLayout,
    LosslessModel,
    WordForm,
)
from nnrcodec.entropy.lossless.payload import decode_words
from nnrcodec.entropy.lossless.words import changed, differences
from nnrcodec.errors import PayloadError
from nnrcodec.model.dtypes import DTYPES, item_bytes, values_of, words_of
from nnrcodec.syntax.bitio import BitReader, BitWriter
from nnrcodec.syntax.context import StreamContext
from nnrcodec.syntax.drivers import SyntaxReader, SyntaxWriter
from nnrcodec.syntax.lossless_model import lossless_model

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)

REALS = sorted(name for name, dtype in DTYPES.items() if dtype.kind != "c")


def through_bits(model: LosslessModel) -> LosslessModel:
    bits = BitWriter()
    SyntaxWriter(bits, "").code(model, (lossless_model,), StreamContext())
    bits.byte_alignment()
    read = LosslessModel()
    SyntaxReader(BitReader(bits.to_bytes()), "").code(read, (lossless_model,), StreamContext())
    return read


def coded(words: np.ndarray, dtype: str) -> tuple[LosslessModel, bytes]:
    """Return a model and a payload that give the words back."""
    model, payload = choose.encode(words, dtype)
    decoded = decode_words(through_bits(model), words.shape, memoryview(payload))
    assert decoded.dtype == words.dtype
    assert np.array_equal(decoded, words)
    return model, payload


def weights(*shape: int, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.exp2(rng.uniform(-4, 0, (shape[0], *[1] * (len(shape) - 1))))
    return (rng.normal(size=shape) * rows / 20).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([8, 16, 32, 64]))
def test_any_patterns_come_back(data: st.DataObject, width: int) -> None:
    dtype = data.draw(st.sampled_from([d for d in REALS if 8 * item_bytes(d) == width]))
    small = st.integers(0, 5) if data.draw(st.booleans()) else None
    words = data.draw(hnp.arrays(f"u{width // 8}", SHAPES, elements=small))
    coded(words, dtype)
    before = data.draw(hnp.arrays(words.dtype, words.shape))
    for form in (Difference.XOR, Difference.INTEGER, Difference.NEW):
        change = differences(words, before, form)
        model, payload = choose.encode(change, dtype, form)
        decoded = decode_words(through_bits(model), words.shape, memoryview(payload))
        assert np.array_equal(changed(before, decoded, form), words)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(REALS))
def test_values_and_patterns(data: st.DataObject, dtype: str) -> None:
    most = 1 if dtype == "bool" else None
    elements = None if most is None else st.integers(0, most)
    words = data.draw(hnp.arrays(f"u{item_bytes(dtype)}", SHAPES, elements=elements))
    assert np.array_equal(words_of(values_of(words, dtype), dtype), words)


def test_exponents_are_coded_and_mantissas_stored() -> None:
    words = words_of(weights(128, 64), "float32")
    model, payload = coded(words, "float32")
    first, second = model.field_layout[0].bit_field
    assert model.word_form == WordForm.ROTATED
    assert (first.field_coding, second.field_coding) == (FieldCoding.CODED, FieldCoding.RAW)
    assert first.field_bits + second.field_bits == 32
    assert model.classes_flag and first.count_contexts_minus1 > 1
    assert len(payload) < 0.86 * words.nbytes


def test_what_was_narrow_is_stored_so() -> None:
    wide = weights(200, 50)
    for narrow, most in (("bfloat16", 0.36), ("float16", 0.46)):
        bits = wide.view(np.uint32) & np.uint32(0xFFFF0000 if narrow == "bfloat16" else 0xFFFFE000)
        _, payload = coded(bits, "float32")
        assert len(payload) < most * bits.nbytes


def test_few_different_values_are_indices() -> None:
    values = np.random.default_rng(0).choice(weights(12, 1).reshape(-1), (90, 40))
    model, payload = coded(words_of(values, "float32"), "float32")
    assert model.word_form == WordForm.PALETTE
    assert len(payload) < 90 * 40 * 4 / 8


def test_repeated_rows_are_found() -> None:
    table = np.tile(weights(64, 32), (8, 1)) * np.repeat([1, -1], 256)[:, None].astype(np.float32)
    model, payload = coded(words_of(table, "float32"), "float32")
    assert model.word_form == WordForm.LZMA
    assert len(payload) < table.nbytes / 6


def test_small_integers_of_64_bits_are_small() -> None:
    levels = np.random.default_rng(1).integers(-3, 4, 3000)
    _, payload = coded(words_of(levels, "int64"), "int64")
    assert len(payload) < 3000 * 3.1 / 8


def test_chunks_with_more_constant_bits_have_their_own_fields() -> None:
    wide = weights(3 * CHUNK_ELEMENTS // 32, 32)
    words = words_of(wide, "float32").copy()
    words[: CHUNK_ELEMENTS // 32] &= np.uint32(0xFFFFE000)
    model, payload = coded(words, "float32")
    assert model.chunk_layout == [1, 0, 0]
    usual = len(coded(words_of(wide, "float32"), "float32")[1])
    assert len(payload) < usual - 12 * CHUNK_ELEMENTS / 8


@pytest.mark.parametrize("count", [CHUNK_ELEMENTS, CHUNK_ELEMENTS + 1, 2 * CHUNK_ELEMENTS + 77])
def test_chunks_do_not_depend_on_threads(count: int) -> None:
    words = words_of(np.random.default_rng(2).normal(size=(count, 1)).astype(np.float16), "float16")
    model, payload = coded(words, "float16")
    assert model.count_chunks_minus1 == (count - 1) // CHUNK_ELEMENTS
    assert np.array_equal(decode_words(model, words.shape, memoryview(payload), 3), words)


# What contradicts itself.


def plain_model(bit_field: BitField | None = None, **changes: Any) -> LosslessModel:
    fields = [bit_field or BitField(7, FieldCoding.RAW)]
    model = LosslessModel(0, field_layout=[FieldLayout(0, fields)])
    for name, value in changes.items():
        setattr(model, name, value)
    return model


def coded_field(**changes: Any) -> BitField:
    field = BitField(7, FieldCoding.CODED, new_table_flag=[1], table=[LevelTable()])
    for name, value in changes.items():
        setattr(field, name, value)
    return field


@pytest.mark.parametrize(
    ("model", "payload", "message"),
    [
        (plain_model(), bytes(9), "raw bits need 10 bytes, there are 9"),
        (plain_model(), bytes(11), "1 bytes more than the tensor needs"),
        (plain_model(bit_field=BitField(6)), b"", "the fields have 7 bits, expected 8"),
        (plain_model(bit_field=BitField(8)), b"", "the fields have 9 bits, expected 8"),
        (plain_model(count_chunks_minus1=1, chunk_bytes=[5]), bytes(10), "2 chunks of 10 elements"),
        (plain_model(bit_field=coded_field()), b"\0", "ends before the symbols"),
        (plain_model(bit_field=coded_field()), b"\0\0\2\0", "do not end as they began"),
        (plain_model(bit_field=coded_field(new_table_flag=[0], table=[])), b"", "no table"),
        (
            plain_model(bit_field=coded_field(table=[LevelTable(TableForm.SYMMETRIC, 0, -2)])),
            bytes(4),
            "a table of form 3",
        ),
        (
            plain_model(bit_field=coded_field(table=[LevelTable(TableForm.CONSTANT, 0, 256)])),
            bytes(4),
            "expected form 0 or 1, no escape, and 0 to 255",
        ),
        (
            plain_model(
                bit_field=coded_field(table=[LevelTable(TableForm.DIRECT, 1, 0, code_delta=[0])])
            ),
            bytes(4),
            "no symbol that occurs",
        ),
        (
            plain_model(
                bit_field=coded_field(
                    count_contexts_minus1=1, field_context=0, new_table_flag=[1, 0]
                ),
                classes_flag=1,
                column_class_table=LevelTable(TableForm.CONSTANT, 0, 5),
            ),
            b"\0\0\1\0" * 3,
            "a field has 2 contexts, its elements 6",
        ),
        (
            plain_model(
                word_form=WordForm.PALETTE,
                count_palette_minus1=2,
                palette_word=[4, 5, 6],
                bit_field=BitField(1, FieldCoding.CONSTANT, 3),
            ),
            b"",
            "index 3 into a palette of 3",
        ),
        (plain_model(log2_word_bytes=3, bit_field=BitField(63, FieldCoding.RAW)), b"", "64 bits"),
        (
            plain_model(log2_word_bytes=1, bit_field=coded_field(field_bits_minus1=15)),
            b"",
            "a coded field of 16 bits",
        ),
        (
            plain_model(
                word_form=WordForm.PALETTE,
                count_palette_minus1=256,
                palette_word=[0] * 257,
                bit_field=BitField(8, FieldCoding.CONSTANT, 256),
            ),
            b"",
            "indices of 9 bits in words of 8",
        ),
        (plain_model(chunk_layout=[1]), bytes(10), "a chunk has layout 1 of 1"),
        (LosslessModel(word_form=WordForm.LZMA), b"\1\0", "LZMA2"),
        (LosslessModel(word_form=WordForm.LZMA), b"", "LZMA2"),
    ],
)  # fmt: skip
def test_models_that_contradict_themselves(
    model: LosslessModel, payload: bytes, message: str
) -> None:
    with pytest.raises(PayloadError, match=message):
        decode_words(model, (2, 5), memoryview(payload))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_payloads_decode_or_are_refused(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["float32", "int64", "lzma", "palette"]))
    values = {
        "float32": weights(20, 30),
        "int64": np.arange(40) - 17,
        "lzma": np.tile(weights(4, 30), (20, 1)),
        "palette": np.tile(weights(2, 10), (20, 1)),
    }[kind]
    words = words_of(values, values.dtype.name)
    model, payload = choose.encode(words, values.dtype.name)
    damaged = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for part in (damaged, damaged[:cut], damaged + b"\0"):
        try:
            decoded = decode_words(model, words.shape, memoryview(bytes(part)))
        except PayloadError:
            continue
        assert decoded.shape == words.shape
