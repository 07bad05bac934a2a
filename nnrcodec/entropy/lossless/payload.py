"""Bit patterns to a payload and back, as a model says."""

from __future__ import annotations

import lzma
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from nnrcodec.entropy.ans.scale_classes import Layout
from nnrcodec.entropy.compiled import announced
from nnrcodec.entropy.lossless import kernels
from nnrcodec.entropy.lossless.model import (
    CHUNK_ELEMENTS,
    MAX_CODED_BITS,
    MAX_RAW_BITS,
    BitField,
    FieldCoding,
    FieldContext,
    FieldLayout,
    LosslessModel,
    WordForm,
)
from nnrcodec.entropy.lossless.tables import coding_of, slots_of
from nnrcodec.entropy.lossless.words import mapped, unmapped
from nnrcodec.errors import PayloadError

_CLASS_BITS = 3
"""Of the class of a row or a column."""

_MAX_DICTIONARY = 1 << 24


@dataclass(frozen=True, slots=True)
class Classes:
    """The class of each row and each column of a tensor.

    Parameters
    ----------
    row, column : ndarray of uint8
        0 to 7.
    """

    row: np.ndarray
    column: np.ndarray

    @property
    def count(self) -> int:
        """Number of classes of elements."""
        return int(self.row.max()) + int(self.column.max()) + 1


@dataclass(frozen=True, slots=True)
class _PlacedField:
    """A field, where it is, and what its symbols are coded with."""

    field: BitField
    shift: int
    tables: np.ndarray


def dictionary_bytes(size: int) -> int:
    """Return the size of the dictionary of an LZMA2 stream of so many bytes."""
    return min(max(1 << (size - 1).bit_length(), 4096), _MAX_DICTIONARY)


def chunk_count(elements: int) -> int:
    """Return in how many chunks the elements of a tensor are coded."""
    return max(-(-elements // CHUNK_ELEMENTS), 1)


def encode_words(words: np.ndarray, model: LosslessModel, classes: Classes | None) -> bytes:
    """Code bit patterns.

    Parameters
    ----------
    words : ndarray of uint8, uint16, uint32 or uint64
        Any shape.
    model : LosslessModel
        How; its `chunk_bytes` are filled in.
    classes : Classes, optional
        If it has classes.

    Returns
    -------
    bytes
        The payload.
    """
    if model.word_form == WordForm.LZMA:
        return _compressed(words, model)
    patterns = mapped(words.reshape(-1), model)
    layout = Layout.of(words.shape)
    layouts = [list(_placed(model, layout, coding_of)) for layout in model.field_layout]
    parts = []
    with announced("lossless coding"):
        if classes is not None:
            for part, table in (
                (classes.row, model.row_class_table),
                (classes.column, model.column_class_table),
            ):
                coding = coding_of([table], _CLASS_BITS)
                parts.append(_coded(part.astype(np.uint16), np.zeros(part.size, np.uint8), coding))
        chunks = [
            _encode_chunk(
                patterns[start : start + CHUNK_ELEMENTS],
                layouts[_layout_of(model, number)],
                _contexts(classes, layout, start, min(CHUNK_ELEMENTS, patterns.size - start)),
            )
            for number, start in enumerate(_starts(patterns.size))
        ]
    model.count_chunks_minus1 = len(chunks) - 1
    model.chunk_bytes = [len(chunk) for chunk in chunks[:-1]]
    return b"".join([*parts, *chunks])


def decode_words(
    model: LosslessModel, shape: tuple[int, ...], payload: memoryview, threads: int = 1
) -> np.ndarray:
    """Decode what `encode_words` made.

    Parameters
    ----------
    model : LosslessModel
        From the header of the unit.
    shape : tuple of int
        Dimensions, already compared with the limits of the decoder.
    payload : memoryview
    threads : int
        Chunks to decode at once; the result does not depend on it.

    Returns
    -------
    ndarray of uint8, uint16, uint32 or uint64, shape `shape`

    Raises
    ------
    PayloadError
        If the model contradicts itself, or the payload does not end where the tensor ends.
    """
    layout = Layout.of(shape)
    elements = layout.rows * layout.columns * layout.rest
    if model.word_form == WordForm.LZMA:
        return _decompressed(model, elements, payload).reshape(shape)
    layouts = [list(_placed(model, layout, slots_of)) for layout in model.field_layout]
    if max(model.chunk_layout, default=0) > model.count_layouts_minus1:
        raise PayloadError(
            f"a chunk has layout {max(model.chunk_layout)} of {model.count_layouts_minus1 + 1}"
        )
    chunks = model.count_chunks_minus1 + 1
    if chunks != chunk_count(elements):
        raise PayloadError(f"{chunks} chunks of {elements} elements, expected "
                           f"{chunk_count(elements)}")  # fmt: skip
    with announced("lossless decoding"):
        classes, start = None, 0
        if model.classes_flag and elements:
            classes, start = _decode_classes(model, layout, payload)
        _check_contexts(model, classes)
        ends = start + np.cumsum([0, *model.chunk_bytes])
        if ends[-1] > len(payload):
            raise PayloadError(f"chunks of {ends[-1]} bytes in a payload of {len(payload)}")
        bounds = [*ends.tolist(), len(payload)]
        words = np.empty(elements, _dtype_of(model))

        def decode(number: int) -> None:
            first = number * CHUNK_ELEMENTS
            part = words[first : first + CHUNK_ELEMENTS]
            _decode_chunk(
                model,
                layouts[_layout_of(model, number)],
                _contexts(classes, layout, first, part.size),
                part,
                payload[bounds[number] : bounds[number + 1]],
            )

        if threads == 1 or chunks == 1:
            for number in range(chunks):
                decode(number)
        else:
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(decode, range(chunks)):
                    pass
    return words.reshape(shape)


def _dtype_of(model: LosslessModel) -> np.dtype:
    return np.dtype(f"u{1 << model.log2_word_bytes}")


def _starts(elements: int) -> range:
    return range(0, max(elements, 1), CHUNK_ELEMENTS)


def _layout_of(model: LosslessModel, chunk: int) -> int:
    return model.chunk_layout[chunk] if model.chunk_layout else 0


def _placed(model: LosslessModel, layout: FieldLayout, tables_of: object) -> Iterator[_PlacedField]:
    """Yield the fields with where they are, most significant first.

    Raises
    ------
    PayloadError
        If they are not what makes up a pattern.
    """
    shift = model.mapped_bits
    if shift > model.word_bits:
        raise PayloadError(f"indices of {shift} bits in words of {model.word_bits}")
    for field in layout.bit_field:
        shift -= field.field_bits
        tables = np.empty(0)
        if field.field_coding == FieldCoding.RAW and field.field_bits > MAX_RAW_BITS:
            raise PayloadError(f"a raw field of {field.field_bits} bits")
        if field.field_coding == FieldCoding.CODED:
            if field.field_bits > MAX_CODED_BITS:
                raise PayloadError(f"a coded field of {field.field_bits} bits")
            if not field.new_table_flag[0]:
                raise PayloadError("the first context of a field has no table")
            tables = tables_of(field.context_tables, field.field_bits)  # type: ignore[operator]
        yield _PlacedField(field, shift, tables)
    if shift:
        raise PayloadError(
            f"the fields have {model.mapped_bits - shift} bits, expected {model.mapped_bits}"
        )


def _check_contexts(model: LosslessModel, classes: Classes | None) -> None:
    """Refuse fields that have fewer tables than contexts."""
    for field in (field for layout in model.field_layout for field in layout.bit_field):
        count = field.count_contexts_minus1 + 1
        if field.field_coding != FieldCoding.CODED or count == 1:
            continue
        needed = 2
        if field.field_context == FieldContext.CLASSES:
            needed = 1 if classes is None else classes.count
        if count < needed:
            raise PayloadError(f"a field has {count} contexts, its elements {needed}")


def _contexts(classes: Classes | None, layout: Layout, start: int, count: int) -> np.ndarray:
    contexts = np.zeros(count, np.uint8)
    if classes is not None and count:
        kernels.fill_contexts(classes.row, classes.column, layout.rest, start, contexts)
    return contexts


def _encode_chunk(
    patterns: np.ndarray, placed: Sequence[_PlacedField], classes: np.ndarray
) -> bytes:
    """Code the coded fields, then pack the raw ones."""
    parts = []
    higher = np.zeros(patterns.size, np.uint8)
    for place in placed:
        field = place.field
        if field.field_coding == FieldCoding.CODED:
            symbols = _bits_of(patterns, place).astype(np.uint16)
            parts.append(_coded(symbols, _chosen(field, classes, higher), place.tables))
            higher |= symbols != 0
    for place in placed:
        if place.field.field_coding == FieldCoding.RAW:
            bits = patterns.size * place.field.field_bits
            packed = np.zeros((bits + 31) // 32, np.uint32)
            kernels.pack_bits(patterns, place.shift, place.field.field_bits, packed)
            parts.append(packed.astype("<u4").tobytes()[: (bits + 7) // 8])
    return b"".join(parts)


def _decode_chunk(
    model: LosslessModel,
    placed: Sequence[_PlacedField],
    classes: np.ndarray,
    words: np.ndarray,
    data: memoryview,
) -> None:
    """Decode a chunk into words, whatever they are."""
    constant = sum(
        place.field.field_value << place.shift
        for place in placed
        if place.field.field_coding == FieldCoding.CONSTANT
    )
    coded = [place for place in placed if place.field.field_coding == FieldCoding.CODED]
    raw = [place for place in placed if place.field.field_coding == FieldCoding.RAW]
    raw_bytes = [(words.size * place.field.field_bits + 7) // 8 for place in raw]
    start = len(data) - sum(raw_bytes)
    if start < 0:
        raise PayloadError(f"raw bits need {sum(raw_bytes)} bytes, there are {len(data)}")
    if not coded and start:
        raise PayloadError(f"{start} bytes more than the tensor needs")
    at_once = len(coded) == len(raw) == 1
    if not at_once:
        words[:] = constant
    numbers = _numbers(data[: start // 2 * 2], np.uint16)
    position = 0
    higher = np.zeros(words.size if len(coded) > 1 else 0, np.uint8)
    symbols = np.empty(words.size, np.uint16)
    for place in coded:
        contexts = _chosen(place.field, classes, higher)
        position = _decoded(numbers, position, place.tables, contexts, symbols)
        if not at_once:
            kernels.place_symbols(symbols, place.shift, words)
        if higher.size:
            higher |= symbols != 0
    if 2 * position != start:
        raise PayloadError(f"{start - 2 * position} bytes more than the tensor needs")
    rotated = model.word_form == WordForm.ROTATED
    for place, size in zip(raw, raw_bytes, strict=True):
        bits, packed = place.field.field_bits, _numbers(data[start : start + size], np.uint32)
        start += size
        if at_once:
            join = kernels.join_16 if words.itemsize == 2 and bits <= 8 else kernels.join
            shift = coded[0].shift
            join(symbols, shift, packed, place.shift, bits, constant, rotated, words)
        else:
            kernels.unpack_bits(packed, place.shift, bits, words)
    if not (at_once and rotated):
        unmapped(words, model)


def _numbers(data: memoryview, kind: type[np.unsignedinteger]) -> np.ndarray:
    """Return little-endian numbers, aligned in memory, zeros after the last byte."""
    numbers = np.zeros(-(-len(data) // kind().itemsize), kind)
    numbers.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
    return numbers if sys.byteorder == "little" else numbers.byteswap()


def _bits_of(patterns: np.ndarray, place: _PlacedField) -> np.ndarray:
    kind = patterns.dtype.type
    return patterns >> kind(place.shift) & kind((1 << place.field.field_bits) - 1)


def _chosen(field: BitField, classes: np.ndarray, higher: np.ndarray) -> np.ndarray:
    """Return the context of each symbol of a field."""
    if field.count_contexts_minus1 and field.field_context == FieldContext.CLASSES:
        return classes
    return higher if field.count_contexts_minus1 and higher.size else np.zeros_like(classes)


def _coded(symbols: np.ndarray, contexts: np.ndarray, coding: np.ndarray) -> bytes:
    words = np.empty(symbols.size + 2 * kernels.LANES, np.uint16)
    start = kernels.encode_symbols(symbols, contexts, coding, words)
    return words[start:].astype("<u2").tobytes()


def _decoded(
    coded: np.ndarray,
    position: int,
    slots: np.ndarray,
    contexts: np.ndarray,
    symbols: np.ndarray,
) -> int:
    """Decode symbols; return the position after them."""
    end = int(kernels.decode_symbols(coded, position, slots, contexts, symbols))
    if end == kernels.TRUNCATED:
        raise PayloadError("the payload ends before the symbols of a field do")
    if end == kernels.WRONG_STATE:
        raise PayloadError("the symbols of a field do not end as they began")
    return end


def _decode_classes(
    model: LosslessModel, layout: Layout, payload: memoryview
) -> tuple[Classes, int]:
    """Return the classes, and how many bytes they take."""
    most = 2 * (layout.rows + layout.columns + 4)
    coded = _numbers(payload[: min(len(payload), most) // 2 * 2], np.uint16)
    position, found = 0, []
    for table, count in (
        (model.row_class_table, layout.rows),
        (model.column_class_table, layout.columns),
    ):
        symbols = np.empty(count, np.uint16)
        slots, contexts = slots_of([table], _CLASS_BITS), np.zeros(count, np.uint8)
        position = _decoded(coded, position, slots, contexts, symbols)
        found.append(symbols.astype(np.uint8))
    return Classes(*found), 2 * position


def _filters(model: LosslessModel, size: int) -> list[dict[str, int]]:
    position_bits = min(model.log2_word_bytes, 2)
    return [
        {
            "id": lzma.FILTER_LZMA2,
            "dict_size": dictionary_bytes(size),
            "lc": 2,
            "lp": position_bits,
            "pb": 2,
        }
    ]


def _compressed(words: np.ndarray, model: LosslessModel) -> bytes:
    """Compress bit patterns without their first bits, then these."""
    flat, kind = words.reshape(-1), words.dtype.type
    first = (flat >> kind(model.word_bits - 1)).astype(np.uint8)
    rest = flat & kind((1 << model.word_bits - 1) - 1)
    data = rest.astype(rest.dtype.newbyteorder("<")).tobytes() + np.packbits(first).tobytes()
    filters = _filters(model, len(data))
    filters[0]["preset"] = 6
    return lzma.compress(data, lzma.FORMAT_RAW, filters=filters)


def _decompressed(model: LosslessModel, elements: int, payload: memoryview) -> np.ndarray:
    dtype = _dtype_of(model)
    size = elements * dtype.itemsize + (elements + 7) // 8
    try:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters(model, size))
        data = decoder.decompress(payload, size + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise PayloadError(f"the LZMA2 stream is damaged: {error}") from None
    if len(data) != size or not decoder.eof or decoder.unused_data:
        raise PayloadError("the LZMA2 stream does not end where the tensor ends")
    words = np.frombuffer(data, dtype.newbyteorder("<"), elements).astype(dtype)
    first = np.unpackbits(np.frombuffer(data, np.uint8)[words.nbytes :], count=elements)
    words ^= first.astype(dtype) << dtype.type(model.word_bits - 1)
    return words
