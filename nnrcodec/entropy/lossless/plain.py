"""The loops of `nnrcodec.entropy.lossless.kernels` in plain Python, as the spec states them."""

from __future__ import annotations

from collections.abc import Sequence

from nnrcodec.entropy.lossless.kernels import (
    FEWEST_OF_LANES,
    LANES,
    LEAST_STATE,
    SLOT_BITS,
    TRUNCATED,
    WRONG_STATE,
)


def slots_of(share: Sequence[int], lowest: int) -> list[int]:
    """Return the slots of a table: symbol, how many it has, which of them this is."""
    return [
        (lowest + i) << 32 | count << 16 | j for i, count in enumerate(share) for j in range(count)
    ]


def encode_symbols(
    symbols: Sequence[int],
    contexts: Sequence[int],
    coding: Sequence[Sequence[tuple[int, int]]],
) -> list[int]:
    """Return the words of symbols; `coding` has share and first slot by context and symbol."""
    lanes = LANES if len(symbols) >= FEWEST_OF_LANES else 1
    states, words = [LEAST_STATE] * lanes, list[int]()
    for i in reversed(range(len(symbols))):
        share, first = coding[contexts[i]][symbols[i]]
        state = states[i % lanes]
        if state >= share << 32 - SLOT_BITS:
            words.append(state & 0xFFFF)
            state >>= 16
        states[i % lanes] = (state // share << SLOT_BITS) + state % share + first
    for state in reversed(states):
        words += [state >> 16, state & 0xFFFF]
    return words[::-1]


def decode_symbols(
    words: Sequence[int], position: int, slots: Sequence[int], contexts: Sequence[int]
) -> tuple[int, list[int]]:
    """Return the word after the last, or what is wrong, and the symbols, one for each context."""
    lanes = LANES if len(contexts) >= FEWEST_OF_LANES else 1
    symbols: list[int] = []
    if position + 2 * lanes > len(words):
        return TRUNCATED, symbols
    states = []
    for _ in range(lanes):
        states.append(words[position] | words[position + 1] << 16)
        position += 2
    for i, context in enumerate(contexts):
        state = states[i % lanes]
        slot = slots[(context << SLOT_BITS) + state % (1 << SLOT_BITS)]
        symbols.append(slot >> 32)
        state = (slot >> 16 & 0xFFFF) * (state >> SLOT_BITS) + (slot & 0xFFFF)
        if state < LEAST_STATE:
            if position >= len(words):
                return TRUNCATED, symbols
            state = state << 16 | words[position]
            position += 1
        states[i % lanes] = state
    return (position if set(states) == {LEAST_STATE} else WRONG_STATE), symbols


def contexts_of(
    row: Sequence[int], column: Sequence[int], rest: int, start: int, count: int
) -> list[int]:
    """Return the sum of the classes of row and column of elements from `start` on."""
    return [
        row[i // rest // len(column)] + column[i // rest % len(column)]
        for i in range(start, start + count)
    ]


def join(
    symbols: Sequence[int],
    symbol_shift: int,
    packed: Sequence[int],
    shift: int,
    bits: int,
    constant: int,
    rotated: bool,
    width: int,
) -> list[int]:
    """Return patterns of so many bits: symbols, bits that were packed, and what is constant."""
    stored = unpack_bits(packed, shift, bits, len(symbols))
    patterns = place_symbols(symbols, symbol_shift, [constant | part for part in stored])
    return [p >> 1 | (p & 1) << width - 1 for p in patterns] if rotated else patterns


def place_symbols(symbols: Sequence[int], shift: int, patterns: Sequence[int]) -> list[int]:
    """Return patterns with symbols in them."""
    return [p | s << shift for p, s in zip(patterns, symbols, strict=True)]


def pack_bits(patterns: Sequence[int], shift: int, bits: int) -> list[int]:
    """Return some bits of each pattern, the first ones lowest, in numbers of 32 bits."""
    together = 0
    for i, pattern in enumerate(patterns):
        together |= (pattern >> shift) % (1 << bits) << i * bits
    count = (len(patterns) * bits + 31) // 32
    return [together >> 32 * i & 0xFFFFFFFF for i in range(count)]


def unpack_bits(packed: Sequence[int], shift: int, bits: int, count: int) -> list[int]:
    """Return what `pack_bits` was given, zeros elsewhere."""
    together = sum(number << 32 * i for i, number in enumerate(packed))
    return [(together >> i * bits) % (1 << bits) << shift for i in range(count)]
