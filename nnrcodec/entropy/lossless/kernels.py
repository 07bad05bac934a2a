"""The loops of lossless coding, compiled; `nnrcodec.entropy.lossless.plain` is their plain twin.

rANS with states of 32 bits, words of 16 bits and tables of 4096 slots. Four states take turns, so
that the processor works on four symbols at once; a few symbols have one state.
"""

from __future__ import annotations

import numpy as np

from nnrcodec.entropy.ans.tables import EXP2, FRACTION_BITS, MAX_OCTAVES
from nnrcodec.entropy.compiled import inlined, kernel

LANES = 4
FEWEST_OF_LANES = 4096
"""Symbols that have more than one state."""

SLOT_BITS = 12
SLOTS = 1 << SLOT_BITS
LEAST_STATE = 1 << 16
"""States are this and more between two symbols, and this at the start of coding."""

TRUNCATED, WRONG_STATE = -1, -2
"""What `decode_symbols` returns instead of a position."""

_AT_ONCE = 1024
"""Patterns that `join_16` makes in one step: they stay in the cache."""

_U16, _U32, _U64 = np.uint16, np.uint32, np.uint64
_MASK = np.uint32(SLOTS - 1)
_EXP2 = np.array(EXP2, np.int64)


@kernel
def fill_slots(codes, precision, lowest, slots):
    """Write the slots of a table as `decode_symbols` looks at them.

    Parameters
    ----------
    codes : ndarray of int64, shape (n,)
        Of its symbols, in units of ``2**-precision`` octaves.
    precision : int
        0 to 3.
    lowest : int
        The first symbol.
    slots : ndarray of uint64, shape (4096,)
        Filled: the symbol (from bit 32), the slots it has (from bit 16), which of them this is.

    Returns
    -------
    bool
        Whether that is a table; `nnrcodec.entropy.lossless.tables.shares` says why not.
    """
    weights = np.zeros(codes.size, np.int64)
    free, total, largest = np.int64(SLOTS), np.int64(0), 0
    for i in range(codes.size):
        if codes[i] < 0 or codes[i] > MAX_OCTAVES << precision:
            return False
        logarithm = codes[i] << (FRACTION_BITS - precision)
        if logarithm:
            weights[i] = _EXP2[logarithm & 63] << (logarithm >> FRACTION_BITS) >> 15
            free -= 1
            total += weights[i]
            if weights[i] > weights[largest]:
                largest = i
    if total == 0 or free < 0:
        return False
    left = free
    for i in range(codes.size):
        left -= weights[i] * free // total
    position = 0
    for i in range(codes.size):
        if weights[i]:
            share = 1 + weights[i] * free // total + (left if i == largest else 0)
            entry = _U64(lowest + i) << _U64(32) | _U64(share) << _U64(16)
            for j in range(share):
                slots[position] = entry | _U64(j)
                position += 1
    return True


@kernel
def encode_symbols(symbols, contexts, coding, words):
    """Code symbols from the last to the first, into the end of `words`.

    Parameters
    ----------
    symbols : ndarray of uint16, shape (n,)
    contexts : ndarray of uint8, shape (n,)
    coding : ndarray of uint32
        As `nnrcodec.entropy.lossless.tables.coding_of` makes it.
    words : ndarray of uint16
        At least n + 8.

    Returns
    -------
    int
        The first word that was written.
    """
    n = symbols.size
    lanes = LANES if n >= FEWEST_OF_LANES else 1
    states = np.full(lanes, LEAST_STATE, _U64)
    position = words.size
    for i in range(n - 1, -1, -1):
        lane = i % lanes
        share = _U64(coding[contexts[i], symbols[i], 0])
        first = _U64(coding[contexts[i], symbols[i], 1])
        state = states[lane]
        if state >= share << _U64(32 - SLOT_BITS):
            position -= 1
            words[position] = _U16(state & _U64(0xFFFF))
            state >>= _U64(16)
        states[lane] = ((state // share) << _U64(SLOT_BITS)) + state % share + first
    for lane in range(lanes - 1, -1, -1):
        position -= 1
        words[position] = _U16(states[lane] >> _U64(16))
        position -= 1
        words[position] = _U16(states[lane] & _U64(0xFFFF))
    return position


@inlined
def _advanced(slot, state):
    share = _U32(slot >> _U64(16)) & _U32(0xFFFF)
    return share * (state >> _U32(SLOT_BITS)) + _U32(slot & _U64(0xFFFF))


@inlined
def _refilled(state, word):
    """Return a state with a word more if it is low, and whether it was; nothing to predict."""
    low = _U32(state < _U32(LEAST_STATE))
    return (state << (low << _U32(4))) | (_U32(word) & (_U32(0) - low)), low


@kernel
def decode_symbols(words, position, slots, contexts, symbols):
    """Decode what `encode_symbols` made.

    Parameters
    ----------
    words : ndarray of uint16
    position : int
        The first word.
    slots : ndarray of uint64
        As `nnrcodec.entropy.lossless.tables.slots_of` makes it.
    contexts : ndarray of uint8, shape (n,)
        Each less than the number of tables.
    symbols : ndarray of uint16, shape (n,)
        Filled.

    Returns
    -------
    int
        The word after the last one; `TRUNCATED` if there are too few, `WRONG_STATE` if what is left
        is not what coding began with.
    """
    n = symbols.size
    lanes = LANES if n >= FEWEST_OF_LANES else 1
    if position + 2 * lanes > words.size:
        return TRUNCATED
    states = np.empty(LANES, _U32)
    for lane in range(lanes):
        states[lane] = _U32(words[position]) | _U32(words[position + 1]) << _U32(16)
        position += 2
    i = 0
    if lanes == LANES:
        s0, s1, s2, s3 = states[0], states[1], states[2], states[3]
        while i + LANES <= n and position + LANES <= words.size:
            slot = slots[(_U32(contexts[i]) << _U32(SLOT_BITS)) | (s0 & _MASK)]
            symbols[i] = _U16(slot >> _U64(32))
            s0 = _advanced(slot, s0)
            s0, low = _refilled(s0, words[_U64(position)])
            position += low
            slot = slots[(_U32(contexts[i + 1]) << _U32(SLOT_BITS)) | (s1 & _MASK)]
            symbols[i + 1] = _U16(slot >> _U64(32))
            s1 = _advanced(slot, s1)
            s1, low = _refilled(s1, words[_U64(position)])
            position += low
            slot = slots[(_U32(contexts[i + 2]) << _U32(SLOT_BITS)) | (s2 & _MASK)]
            symbols[i + 2] = _U16(slot >> _U64(32))
            s2 = _advanced(slot, s2)
            s2, low = _refilled(s2, words[_U64(position)])
            position += low
            slot = slots[(_U32(contexts[i + 3]) << _U32(SLOT_BITS)) | (s3 & _MASK)]
            symbols[i + 3] = _U16(slot >> _U64(32))
            s3 = _advanced(slot, s3)
            s3, low = _refilled(s3, words[_U64(position)])
            position += low
            i += LANES
        states[0], states[1], states[2], states[3] = s0, s1, s2, s3
    while i < n:
        lane = i % lanes
        state = states[lane]
        slot = slots[(_U32(contexts[i]) << _U32(SLOT_BITS)) | (state & _MASK)]
        symbols[i] = _U16(slot >> _U64(32))
        state = _advanced(slot, state)
        if state < _U32(LEAST_STATE):
            if position >= words.size:
                return TRUNCATED
            state = (state << _U32(16)) | _U32(words[position])
            position += 1
        states[lane] = state
        i += 1
    for lane in range(lanes):
        if states[lane] != _U32(LEAST_STATE):
            return WRONG_STATE
    return position


@kernel
def fill_contexts(row, column, rest, start, contexts):
    """Write the sum of the classes of row and column for elements from `start` on, in C order.

    Parameters
    ----------
    row, column : ndarray of uint8
        Class of each row and column.
    rest : int
        Elements of each row and column.
    start : int
        First element.
    contexts : ndarray of uint8, shape (n,)
        Filled.
    """
    place = start // rest
    left = rest - start % rest
    r, c = place // column.size, place % column.size
    i = 0
    while i < contexts.size:
        if rest == 1:
            run = min(column.size - c, contexts.size - i)
            part, source, of_row = contexts[i : i + run], column[c : c + run], row[r]
            for j in range(run):
                part[j] = source[j] + of_row
            c += run
        else:
            run = min(left, contexts.size - i)
            contexts[i : i + run] = row[r] + column[c]
            left = rest
            c += 1
        i += run
        if c == column.size:
            c = 0
            r += 1


@kernel
def join(symbols, symbol_shift, packed, shift, bits, constant, rotated, patterns):
    """Write patterns that are made of symbols, bits that `pack_bits` wrote, and what is constant.

    Parameters
    ----------
    symbols, symbol_shift
        As `place_symbols` takes them.
    packed, shift, bits
        As `unpack_bits` takes them.
    constant : int
        Bits that are the same in all patterns.
    rotated : bool
        Move the last bit of each to its start.
    patterns : ndarray of uint8, uint16, uint32 or uint64, shape (n,)
        Filled.
    """
    mask = (_U64(1) << _U64(bits)) - _U64(1)
    last = _U64(8 * patterns.itemsize - 1)
    waiting, have, position = _U64(0), _U64(0), 0
    for i in range(patterns.size):
        if have < _U64(bits):
            waiting |= _U64(packed[position]) << have
            position += 1
            have += _U64(32)
        pattern = _U64(constant) | _U64(symbols[i]) << _U64(symbol_shift)
        pattern |= (waiting & mask) << _U64(shift)
        waiting >>= _U64(bits)
        have -= _U64(bits)
        if rotated:
            pattern = pattern >> _U64(1) | (pattern & _U64(1)) << last
        patterns[i] = pattern


@kernel
def join_16(symbols, symbol_shift, packed, shift, bits, constant, rotated, patterns):
    """Do what `join` does where patterns have 16 bits, in steps that work on several at once.

    Parameters
    ----------
    symbols, symbol_shift, packed, shift, constant, rotated
        As `join` takes them.
    bits : int
        1 to 8.
    patterns : ndarray of uint16, shape (n,)
        Filled.
    """
    fixed, of_symbol, of_bits, size = _U32(constant), _U32(symbol_shift), _U32(shift), _U64(bits)
    mask, last = (_U64(1) << size) - _U64(1), packed.size - 1
    unpacked = np.empty(_AT_ONCE, np.uint16)
    for start in range(0, patterns.size, _AT_ONCE):
        count = min(_AT_ONCE, patterns.size - start)
        at, i = _U64(start) * size, 0
        while i + 4 <= count and np.int64(at >> _U64(5)) < last:
            position = at >> _U64(5)
            waiting = _U64(packed[position]) | _U64(packed[position + _U64(1)]) << _U64(32)
            waiting >>= at & _U64(31)
            unpacked[i] = _U16(waiting & mask)
            unpacked[i + 1] = _U16(waiting >> size & mask)
            waiting >>= size << _U64(1)
            unpacked[i + 2] = _U16(waiting & mask)
            unpacked[i + 3] = _U16(waiting >> size & mask)
            at += size << _U64(2)
            i += 4
        while i < count:
            waiting = _U64(packed[at >> _U64(5)])
            if np.int64(at >> _U64(5)) < last:
                waiting |= _U64(packed[(at >> _U64(5)) + _U64(1)]) << _U64(32)
            unpacked[i] = _U16(waiting >> (at & _U64(31)) & mask)
            at += size
            i += 1
        symbol, pattern = symbols[start : start + count], patterns[start : start + count]
        if rotated:
            for j in range(count):
                joined = fixed | _U32(symbol[j]) << of_symbol | _U32(unpacked[j]) << of_bits
                pattern[j] = _U16(joined >> _U32(1) | joined << _U32(15))
        else:
            for j in range(count):
                joined = fixed | _U32(symbol[j]) << of_symbol | _U32(unpacked[j]) << of_bits
                pattern[j] = _U16(joined)


@kernel
def place_symbols(symbols, shift, patterns):
    """Add symbols to patterns.

    Parameters
    ----------
    symbols : ndarray of uint16, shape (n,)
    shift : int
        Where: their first bit is bit `shift`. These bits are 0 in `patterns`.
    patterns : ndarray of uint8, uint16, uint32 or uint64, shape (n,)
        Changed.
    """
    for i in range(patterns.size):
        patterns[i] |= _U64(symbols[i]) << _U64(shift)


@kernel
def pack_bits(patterns, shift, bits, packed):
    """Write some bits of each pattern, the first ones lowest.

    Parameters
    ----------
    patterns : ndarray of uint8, uint16, uint32 or uint64, shape (n,)
    shift, bits : int
        Which: 1 to 32 of them from bit `shift` on.
    packed : ndarray of uint32
        Filled; as many as hold n times `bits`.
    """
    mask = (_U64(1) << _U64(bits)) - _U64(1)
    waiting, have, position = _U64(0), _U64(0), 0
    for i in range(patterns.size):
        waiting |= ((_U64(patterns[i]) >> _U64(shift)) & mask) << have
        have += _U64(bits)
        if have >= _U64(32):
            packed[position] = _U32(waiting & _U64(0xFFFFFFFF))
            position += 1
            waiting >>= _U64(32)
            have -= _U64(32)
    if have > _U64(0):
        packed[position] = _U32(waiting & _U64(0xFFFFFFFF))


@kernel
def unpack_bits(packed, shift, bits, patterns):
    """Add what `pack_bits` wrote to patterns.

    Parameters
    ----------
    packed : ndarray of uint32
        As many as hold n times `bits`.
    shift, bits : int
        Where: 1 to 32 bits from bit `shift` on.
    patterns : ndarray of uint8, uint16, uint32 or uint64, shape (n,)
        These bits are 0 in it, and are set.
    """
    mask = (_U64(1) << _U64(bits)) - _U64(1)
    waiting, have, position = _U64(0), _U64(0), 0
    for i in range(patterns.size):
        if have < _U64(bits):
            waiting |= _U64(packed[position]) << have
            position += 1
            have += _U64(32)
        patterns[i] |= (waiting & mask) << _U64(shift)
        waiting >>= _U64(bits)
        have -= _U64(bits)
