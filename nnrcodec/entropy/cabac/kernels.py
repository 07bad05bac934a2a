"""The inner loops of DeepCABAC, compiled: bins, flags and levels in both directions.

`nnrcodec.entropy.cabac.plain` says the same in plain Python and is the definition; here the
decoder's registers are scaled so that many bits are fetched at once, and the encoder hands out
words whose carries are left for the end. What the loops share is passed in arrays of int64:

engine of the decoder
    ``[range, value, spare, word]``: the offset register is ``value >> spare``, followed by `spare`
    bits already fetched; `word` is the next word to fetch.
engine of the encoder
    ``[range, low, pending, word]``: `low` has 9 + `pending` bits and a carry; `word` words are out.
contexts
    One number each: slow estimator + 2048 in bits 0 to 15, fast estimator + 128 in bits 16 to 31,
    and above them where the rows of the fast and of the slow estimator start in `STEPS`.

Functions marked `inlined` take and return numbers only: numba counts references to arrays at each
call, which takes longer than a bin. The syntax of levels is one text, `_code_levels`, which becomes
a part of the three kernels that decode, encode and list. As against a text for each, on 0.3 million
levels of 0.7 to 5.3 bits, encoding took the same time, decoding 2 % less, listing 5 % more (at most
2**15 levels of a tensor), and compiling all kernels 14.5 s instead of 9.6 s. With functions that
take arrays for what repeats in that text, coding took 15 to 30 % longer.
"""

from __future__ import annotations

import numpy as np

from nnrcodec.entropy.cabac.tables import (
    GREATER,
    PARAMETER_SETS,
    RANGE_LPS,
    REMAINDERS,
    SIGN,
    SIGN_TEMPORAL,
    SIGNIFICANCE_HISTORY,
    SIGNIFICANCE_TEMPORAL,
    STATE_TRANSITION,
    TRANSITION,
)
from nnrcodec.entropy.compiled import inlined, kernel, shared

OK = 0
END_OF_PAYLOAD = 1
"""More bits are needed than there are."""
TOO_LARGE = 2
"""A level does not fit 32 bits."""
BAD_REGISTER = 3
"""The offset register is not below the range."""
BAD_PARITY = 4
"""A level to encode is not a multiple that dependent quantization has in this state."""

UNLIMITED = 1 << 62
"""Limit of the magnitude of levels without a codebook."""

PADDING = 128
"""Words of zeros behind a payload, and of room before a level is encoded: more than a level, at
most 300 bins of 7 bits, can take."""

_LARGEST = 2**31 - 1
_WORD = 32
_SPARE = 21
"""Fewest bits fetched ahead when a bin is decoded: three bins take no more."""

_FAST_BIAS = 128
_SLOW_BIAS = 2048
_ROW = 32

STEPS = np.array([[value >> shift for value in TRANSITION] for shift in range(8)], np.int64).ravel()
"""`TRANSITION` for each shift, one after the other."""

_RENORM = np.array([9 - max(r, 1).bit_length() for r in range(512)], np.int64)
_RANGE_LPS = np.pad(RANGE_LPS, ((0, 0), (0, 32)), mode="edge").astype(np.int64).ravel()
_NEXT_STATE = STATE_TRANSITION.astype(np.int64).ravel()


def context_states(parameter_sets: np.ndarray) -> np.ndarray:
    """Return the initial contexts.

    Parameters
    ----------
    parameter_sets : ndarray of int, shape (n,)
        The parameter set of each.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    fast_shift, slow_shift, fast, slow = PARAMETER_SETS[parameter_sets].astype(np.int64).T
    estimators = slow + _SLOW_BIAS + ((fast + _FAST_BIAS) << 16)
    return estimators + (_ROW * fast_shift << 32) + (_ROW * slow_shift << 48)


@inlined
def _balance(context):
    """Return how far a context is to the side of 1: 16 x fast + slow estimator."""
    return ((context >> 12) & 0xFFFF0) + (context & 0xFFFF) - (16 * _FAST_BIAS + _SLOW_BIAS)


@inlined
def _adapted(context, b):
    """Return a context after a bin."""
    slow = context & 0xFFFF
    fast = (context >> 16) & 0xFFFF
    fast_row = (context >> 32) & 0xFFFF
    slow_row = context >> 48
    if b:
        fast_step = STEPS[np.uint64(fast_row + (fast >> 3))]
        slow_step = STEPS[np.uint64(slow_row + (slow >> 7))]
        return context + (fast_step << 16) + slow_step
    fast_step = STEPS[np.uint64(fast_row + ((2 * _FAST_BIAS - fast) >> 3))]
    slow_step = STEPS[np.uint64(slow_row + ((2 * _SLOW_BIAS - slow) >> 7))]
    return context - (fast_step << 16) - slow_step


@inlined
def _less_probable(width, t):
    """Return the part of the range for the less probable bin."""
    return _RANGE_LPS[np.uint64(((width & 0xE0) << 1) + abs(t >> 7))]


@inlined
def _store(engine, width, value, spare, word):
    """Put the registers back where they came from."""
    engine[0] = width
    engine[1] = value
    engine[2] = spare
    engine[3] = word


# --- The arithmetic decoder ---------------------------------------------------------------------


@inlined
def _decode(context, width, value, spare):
    """Decode one bin; return it, the context after it, and the engine."""
    t = _balance(context)
    lps = _less_probable(width, t)
    width -= lps
    scaled = width << spare
    if value >= scaled:
        shift = _RENORM[np.uint64(lps)]
        b = np.int64(t < 0)
        return b, _adapted(context, b), lps << shift, value - scaled, spare - shift
    shift = np.int64(width < 256)
    b = np.int64(t >= 0)
    return b, _adapted(context, b), width << shift, value, spare - shift


@inlined
def _decode_bit(width, value, spare):
    """Decode one bin without a context."""
    spare -= 1
    scaled = width << spare
    b = np.int64(value >= scaled)
    return b, value - b * scaled, spare


@kernel
def start_decoder(engine, words, width, register, bit):
    """Start with an offset register, at the bit that is shifted in next."""
    word = bit >> 5
    spare = _WORD - (bit & 31)
    value = (register << spare) | (np.int64(words[word]) & ((1 << spare) - 1))
    word += 1
    if spare < _SPARE:
        value = (value << _WORD) | np.int64(words[word])
        spare += _WORD
        word += 1
    _store(engine, width, value, spare, word)


@kernel
def decode_bypass(engine, words, count):
    """Decode `count` bins without a context, at most 20, as an unsigned number."""
    width, value, spare, word = engine[0], engine[1], engine[2], engine[3]
    bits = np.int64(0)
    for _ in range(count):
        b, value, spare = _decode_bit(width, value, spare)
        bits = 2 * bits + b
    if spare < _SPARE:
        value = (value << _WORD) | np.int64(words[word])
        spare += _WORD
        word += 1
    _store(engine, width, value, spare, word)
    return bits


@kernel
def decode_flags(engine, words, contexts, k, flags):
    """Decode flags that share context k."""
    width, value, spare, word = engine[0], engine[1], engine[2], engine[3]
    for i in range(flags.size):
        if word > words.size - PADDING:
            _store(engine, width, value, spare, word)
            return END_OF_PAYLOAD
        flags[i], contexts[k], width, value, spare = _decode(contexts[k], width, value, spare)
        if spare < _SPARE:
            value = (value << _WORD) | np.int64(words[word])
            spare += _WORD
            word += 1
    _store(engine, width, value, spare, word)
    return OK


@kernel
def decode_parameter_sets(engine, words, contexts, k, sets):
    """Decode parameter sets: a flag with context k, then three bypass bins if it is set."""
    width, value, spare, word = engine[0], engine[1], engine[2], engine[3]
    for i in range(sets.size):
        if word > words.size - PADDING:
            _store(engine, width, value, spare, word)
            return END_OF_PAYLOAD
        b, contexts[k], width, value, spare = _decode(contexts[k], width, value, spare)
        sets[i] = 0
        if b:
            for _ in range(3):
                b, value, spare = _decode_bit(width, value, spare)
                sets[i] = 2 * sets[i] + b
            sets[i] += 1
        if spare < _SPARE:
            value = (value << _WORD) | np.int64(words[word])
            spare += _WORD
            word += 1
    _store(engine, width, value, spare, word)
    return OK


@kernel
def decode_terminate(engine):
    """Decode the terminating bin."""
    width, value, spare = engine[0] - 2, engine[1], engine[2]
    if value >= width << spare:
        return 1
    shift = np.int64(width < 256)
    engine[0] = width << shift
    engine[2] = spare - shift
    return 0


# --- The arithmetic encoder ---------------------------------------------------------------------


@kernel
def _with_room(out, word):
    """Return a larger copy of a buffer of words."""
    larger = np.empty(2 * out.size + PADDING, np.int64)
    larger[:word] = out[:word]
    return larger


@inlined
def _split(low, pending):
    """Return the uppermost 32 bits of `low` with their carry, and what remains."""
    rest = pending + 9 - _WORD
    return low >> rest, low & ((1 << rest) - 1), pending - _WORD


@inlined
def _encode(context, b, width, low, pending):
    """Encode one bin; return the context after it, and the engine."""
    t = _balance(context)
    lps = _less_probable(width, t)
    width -= lps
    if b == np.int64(t >= 0):
        shift = np.int64(width < 256)
        return _adapted(context, b), width << shift, low << shift, pending + shift
    shift = _RENORM[np.uint64(lps)]
    return _adapted(context, b), lps << shift, (low + width) << shift, pending + shift


@kernel
def encode_bypass(engine, out, bits, count):
    """Encode the `count` low bits of `bits`, at most 20; return the buffer, perhaps a new one."""
    width, low, pending, word = engine[0], engine[1], engine[2], engine[3]
    if word + PADDING > out.size:
        out = _with_room(out, word)
    for i in range(count - 1, -1, -1):
        low = 2 * low + ((bits >> i) & 1) * width
    pending += count
    if pending >= _WORD:
        out[word], low, pending = _split(low, pending)
        word += 1
    _store(engine, width, low, pending, word)
    return out


@kernel
def encode_flags(engine, out, contexts, k, flags):
    """Encode flags that share context k; return the buffer."""
    width, low, pending, word = engine[0], engine[1], engine[2], engine[3]
    for i in range(flags.size):
        if word + PADDING > out.size:
            out = _with_room(out, word)
        b = np.int64(flags[i])
        contexts[k], width, low, pending = _encode(contexts[k], b, width, low, pending)
        if pending >= _WORD:
            out[word], low, pending = _split(low, pending)
            word += 1
    _store(engine, width, low, pending, word)
    return out


@kernel
def encode_parameter_sets(engine, out, contexts, k, sets):
    """Encode parameter sets as `decode_parameter_sets` reads them; return the buffer."""
    width, low, pending, word = engine[0], engine[1], engine[2], engine[3]
    for i in range(sets.size):
        if word + PADDING > out.size:
            out = _with_room(out, word)
        b = np.int64(sets[i] > 0)
        contexts[k], width, low, pending = _encode(contexts[k], b, width, low, pending)
        if b:
            for j in range(2, -1, -1):
                low = 2 * low + ((sets[i] - 1 >> j) & 1) * width
            pending += 3
        if pending >= _WORD:
            out[word], low, pending = _split(low, pending)
            word += 1
    _store(engine, width, low, pending, word)
    return out


@kernel
def carry(words, last):
    """Add the carry of each word to the one before; `last` is that of what follows them."""
    for i in range(words.size - 1, -1, -1):
        total = words[i] + last
        words[i] = total & 0xFFFFFFFF
        last = total >> _WORD


# --- What levels cost ---------------------------------------------------------------------------


def _costs() -> np.ndarray:
    """Return the cost of a bin in `COST_UNIT` by index into the range table, probable bin first."""
    middle = 256 + 32 * np.arange(8) + 16
    less = (RANGE_LPS / middle[:, None]).mean(axis=0)
    costs = -np.log2(np.stack([1 - less, less]))
    costs = np.pad(costs, ((0, 0), (0, 1)), mode="edge")
    return np.rint(costs * COST_UNIT).astype(np.int64).ravel()


COST_UNIT = 1 << 15
"""Costs are counted in this fraction of a bit, so that all machines count the same."""
COSTS = _costs()
_INDICES = 33

RESET = -1
"""In a list of bins: all contexts return to their initial states."""


@inlined
def bin_cost(context, b):
    """Return the cost of a bin in `COST_UNIT`."""
    t = _balance(context)
    return COSTS[np.uint64(abs(t >> 7) + _INDICES * np.int64(b != np.int64(t >= 0)))]


# --- The syntax of levels -----------------------------------------------------------------------

_DECODE, _ENCODE, _LIST = 0, 1, 2


@inlined
def _coded(direction, context, b, width, value, spare):
    """Decode a bin, or encode `b`; return it, the context after it, and the engine."""
    if direction == _DECODE:
        return _decode(context, width, value, spare)
    context, width, value, spare = _encode(context, b, width, value, spare)
    return b, context, width, value, spare


@inlined
def _coded_bit(direction, b, width, value, spare):
    """Decode a bin without a context, or encode `b`; return it and the engine."""
    if direction == _DECODE:
        return _decode_bit(width, value, spare)
    return b, 2 * value + b * width, spare + 1


@shared
def _code_levels(
    direction,
    engine,
    words,
    contexts,
    initial,
    arrays,
    options,
    block_rows,
    state,
    entry_points,
    most_levels,
):
    """Decode, encode or list the levels of some rows of blocks.

    One text for the three, which differ only where `direction` is asked for. Where it fetches or
    hands out words it calls no function: numba would count references to the arrays.

    Parameters
    ----------
    direction : int
        `_DECODE`, `_ENCODE` or `_LIST`, as a constant.
    engine : tuple of int
        ``(range, value, spare, word)``, or of the encoder ``(range, low, pending, word)``.
    words : ndarray
        What is decoded or encoded, or the list of bins.
    most_levels : int
        How many levels to list.
    contexts, initial, arrays, options, block_rows, state, entry_points
        As of `decode_levels`; what a direction does not need may be None.

    Returns
    -------
    code, state : int
    seen : int
        How many levels were listed.
    words : ndarray
        Perhaps new.
    engine : tuple of int
    """
    levels, base, history, skipped = arrays
    block, dependent, unary_length, codebook_size, codebook_zero = options
    width, value, spare, word = engine
    height, columns = levels.shape
    temporal = base.size > 0
    by_history = history.size > 0
    skipping = skipped.size > 0
    rows_of_block = block if block else height
    columns_of_block = block if block else columns
    several = block > 0 and height > block
    remainder = GREATER + 4 * unary_length
    neighbour = np.int64(0)
    seen = np.int64(0)
    last_word = words.size - PADDING
    for block_row in range(block_rows[0], block_rows[1]):
        if several:
            if block_row:
                neighbour = np.int64(0)
                if direction == _LIST:
                    words[word] = RESET
                    word += 1
                else:
                    contexts[:] = initial
            width = np.int64(256)
            if direction == _DECODE:
                entry_points[block_row, 0] = value >> spare
                entry_points[block_row, 1] = state
                entry_points[block_row, 2] = _WORD * word - 9 - spare
                if value >= width << spare:
                    return BAD_REGISTER, state, seen, words, (width, value, spare, word)
        top = block_row * rows_of_block
        bottom = min(top + rows_of_block, height)
        for left in range(0, columns, columns_of_block):
            right = min(left + columns_of_block, columns)
            for y in range(top, bottom):
                if skipping and skipped[y]:
                    seen += right - left
                    if direction == _DECODE:
                        levels[y, left:right] = 0
                    if dependent:
                        for _ in range(columns & 3):
                            state = _NEXT_STATE[np.uint64(2 * state)]
                    continue
                for x in range(left, right):
                    q = np.int64(0)
                    magnitude = np.int64(0)
                    negative = np.int64(0)
                    if direction == _DECODE:
                        if word > last_word:
                            return END_OF_PAYLOAD, state, seen, words, (width, value, spare, word)
                    else:
                        if direction == _ENCODE:
                            if word + PADDING > words.size:
                                words = _with_room(words, word)
                        else:
                            if seen >= most_levels or word + 3 * PADDING > words.size:
                                return OK, state, seen, words, (width, value, spare, word)
                            seen += 1
                        q = np.int64(levels[y, x])
                        negative = np.int64(q < 0)
                        magnitude = abs(q)
                        if dependent:
                            odd = magnitude & 1
                            if direction == _ENCODE and magnitude and odd != (state & 1):
                                return BAD_PARITY, state, seen, words, (width, value, spare, word)
                            magnitude = (magnitude + odd) >> 1
                    below = np.int64(0)
                    k = 3 * state + neighbour
                    if temporal:
                        below = np.int64(base[y, x])
                        if below:
                            k = SIGNIFICANCE_TEMPORAL + 2 * state + np.int64(abs(below) > 1)
                    if by_history and history[y, x]:
                        k = SIGNIFICANCE_HISTORY + state
                    b = np.int64(magnitude > 0)
                    if codebook_size != 1:
                        if direction == _LIST:
                            words[word] = 2 * k + b
                            word += 1
                        else:
                            b, contexts[k], width, value, spare = _coded(
                                direction, contexts[k], b, width, value, spare
                            )
                    if b:
                        if not codebook_size or 0 < codebook_zero < codebook_size - 1:
                            k = SIGN + neighbour
                            if below:
                                k = SIGN_TEMPORAL + np.int64(below > 0)
                            if direction == _LIST:
                                words[word] = 2 * k + negative
                                word += 1
                            else:
                                negative, contexts[k], width, value, spare = _coded(
                                    direction, contexts[k], negative, width, value, spare
                                )
                        else:
                            negative = np.int64(codebook_zero > 0)
                        limit = np.int64(UNLIMITED)
                        if codebook_size:
                            limit = codebook_zero if negative else codebook_size - 1 - codebook_zero
                        coded = np.int64(1)
                        j = np.int64(0)
                        while b and j < unary_length and coded < limit:
                            if below:
                                k = GREATER + 2 * (unary_length + j) + np.int64(abs(below) < j)
                            else:
                                k = GREATER + 2 * j + negative
                            b = np.int64(magnitude > coded)
                            if direction == _LIST:
                                words[word] = 2 * k + b
                                word += 1
                            else:
                                b, contexts[k], width, value, spare = _coded(
                                    direction, contexts[k], b, width, value, spare
                                )
                            coded += b
                            j += 1
                            if direction == _DECODE and spare < _SPARE:
                                value = (value << _WORD) | np.int64(words[word])
                                spare += _WORD
                                word += 1
                            if direction == _ENCODE and spare >= _WORD:
                                words[word], value, spare = _split(value, spare)
                                word += 1
                        if b and coded < limit:
                            bits = np.int64(0)
                            while b and bits < REMAINDERS and limit - coded >= 1 << bits:
                                k = remainder + bits
                                b = np.int64(magnitude - coded >= 1 << bits)
                                if direction == _LIST:
                                    words[word] = 2 * k + b
                                    word += 1
                                else:
                                    b, contexts[k], width, value, spare = _coded(
                                        direction, contexts[k], b, width, value, spare
                                    )
                                coded += b << bits
                                bits += b
                                if direction == _DECODE and spare < _SPARE:
                                    value = (value << _WORD) | np.int64(words[word])
                                    spare += _WORD
                                    word += 1
                                if direction == _ENCODE and spare >= _WORD:
                                    words[word], value, spare = _split(value, spare)
                                    word += 1
                            if direction != _LIST:
                                for i in range(bits - 1, -1, -1):
                                    b = (magnitude - coded >> i) & 1
                                    b, value, spare = _coded_bit(direction, b, width, value, spare)
                                    coded += b << i
                                    if direction == _DECODE and spare < _SPARE:
                                        value = (value << _WORD) | np.int64(words[word])
                                        spare += _WORD
                                        word += 1
                                    if direction == _ENCODE and spare >= _WORD:
                                        words[word], value, spare = _split(value, spare)
                                        word += 1
                        neighbour = 2 - negative
                        if direction == _DECODE:
                            magnitude = coded
                            q = 2 * magnitude - (state & 1) if dependent else magnitude
                            if q > _LARGEST + negative:
                                return TOO_LARGE, state, seen, words, (width, value, spare, word)
                            if negative:
                                q = -q
                    else:
                        neighbour = np.int64(0)
                    if direction == _DECODE:
                        levels[y, x] = q
                        if spare < _SPARE:
                            value = (value << _WORD) | np.int64(words[word])
                            spare += _WORD
                            word += 1
                    if direction == _ENCODE and spare >= _WORD:
                        words[word], value, spare = _split(value, spare)
                        word += 1
                    if dependent:
                        state = _NEXT_STATE[np.uint64(2 * state + (magnitude & 1))]
    return OK, state, seen, words, (width, value, spare, word)


@kernel
def decode_levels(
    engine, words, contexts, initial, arrays, options, block_rows, state, entry_points
):
    """Decode the levels of some rows of blocks.

    Parameters
    ----------
    engine, words, contexts
        As in the module's description; `contexts` is changed.
    initial : ndarray of int64, shape as `contexts`
        What contexts return to where a row of blocks starts.
    arrays : tuple of ndarray
        Levels of int32, shape (height, width), which are decoded; earlier levels of int32 and
        history of uint8, of the same shape, or (0, 0) if there is none; rows without levels, uint8,
        shape (height,) or (0,).
    options : tuple of int
        Size of blocks, 0 if the scan goes row by row; dq_flag; cabac_unary_length; and entries and
        zero of the codebook, as in `nnrcodec.entropy.cabac.level_syntax.LevelSyntax`.
    block_rows : tuple of int
        The first row of blocks, and the one after the last.
    state : int
        Of dependent quantization, before the first level.
    entry_points : ndarray of int64, shape (all rows of blocks, 3)
        Receives offset register, state and bits shifted in before each row of blocks.

    Returns
    -------
    code : int
    state : int
        After the last level.
    """
    at = engine[0], engine[1], engine[2], engine[3]
    code, state, _, _, at = _code_levels(
        _DECODE,
        at,
        words,
        contexts,
        initial,
        arrays,
        options,
        block_rows,
        state,
        entry_points,
        0,
    )
    _store(engine, at[0], at[1], at[2], at[3])
    return code, state


@kernel
def encode_levels(engine, out, contexts, initial, arrays, options, block_rows):
    """Encode levels; parameters are those of `decode_levels`.

    Returns
    -------
    code : int
    out : ndarray of int64
        The buffer.
    """
    at = engine[0], engine[1], engine[2], engine[3]
    code, _, _, out, at = _code_levels(
        _ENCODE, at, out, contexts, initial, arrays, options, block_rows, np.int64(0), None, 0
    )
    _store(engine, at[0], at[1], at[2], at[3])
    return code, out


@kernel
def list_bins(arrays, options, block_rows, most_levels, bins):
    """List the bins of levels; parameters are those of `decode_levels`.

    Parameters
    ----------
    most_levels : int
        How many levels to look at.
    bins : ndarray of int16
        Receives twice the context plus the bin, or `RESET`; bins without a context are left out.

    Returns
    -------
    count, seen : int
        How many bins there are, and of how many levels; fewer if `bins` is full.
    """
    nothing = np.int64(0)
    at = nothing, nothing, nothing, nothing
    _, _, seen, _, at = _code_levels(
        _LIST, at, bins, None, None, arrays, options, block_rows, nothing, None, most_levels
    )
    return at[3], seen


@kernel
def set_costs(bins, initial, costs):
    """Add up what bins cost in contexts of each parameter set.

    Parameters
    ----------
    bins : ndarray of int16
        As `list_bins` makes them.
    initial : ndarray of int64, shape (sets,)
        Initial context of each set.
    costs : ndarray of int64, shape (contexts, sets)
        Receives them, in `COST_UNIT`.
    """
    sets = initial.size
    contexts = np.empty(costs.size, np.int64)
    for i in range(contexts.size):
        contexts[i] = initial[i % sets]
    for i in range(bins.size):
        listed = np.int64(bins[i])
        if listed == RESET:
            for k in range(contexts.size):
                contexts[k] = initial[k % sets]
            continue
        k, b = listed >> 1, listed & 1
        for s in range(sets):
            context = contexts[k * sets + s]
            costs[k, s] += bin_cost(context, b)
            contexts[k * sets + s] = _adapted(context, b)
