"""The search of dependent quantization, compiled.

`nnrcodec.quant.search.plain_trellis` defines the same search in plain Python; here the surviving
paths are in registers, and the costs in tables that are recomputed for each chunk. All arithmetic
is double precision in a fixed order, and rates are integers: all machines find the same levels.

The tables, all float64:

zero, shape (24,)
    Cost of a level 0, by state and neighbour.
other, shape (48,)
    Cost of a positive level without its magnitude, by state and neighbour; then of a negative one.
magnitude, shape (2 n,)
    Cost of the magnitude of a positive level, then of a negative one.
escape, shape (31 + 2,)
    For larger magnitudes: rate of the remainder, by its logarithm, then of the flags before it.
"""

from __future__ import annotations

import numpy as np

from nnrcodec.entropy.cabac.tables import GREATER, REMAINDERS, SIGN, STATE_TRANSITION
from nnrcodec.entropy.compiled import inlined, kernel
from nnrcodec.quant.search.parameters import NEIGHBOURS, RATE_UNIT, RATES, STATES

NEXT_STATE = STATE_TRANSITION.astype(np.int64)
_PREVIOUS_STATE = np.argsort(NEXT_STATE, axis=0)
"""The previous state, by state and parity of the level."""

CONTEXTS = STATES * NEIGHBOURS
_RATE_UNIT = float(RATE_UNIT)
TABULATED = 128
"""Number of magnitudes with a remainder whose cost is in the table."""
_ODD, _ZERO = 0, 2
"""Kinds of the last level of a path: odd (0), even but not zero (1), or zero (2)."""


@kernel
def _rate(estimates, k, b):
    """Return the rate of a bin."""
    probability = estimates[k, 0] if b else 1 - estimates[k, 0]
    return RATES[min(np.int64(probability * RATES.size), RATES.size - 1)]


@kernel
def make_tables(estimates, unary_length, weight, zero, other, magnitude, escape):
    """Fill the tables; `weight` is the cost of a rate of 1."""
    for k in range(CONTEXTS):
        zero[k] = weight * _rate(estimates, k, 0)
        significant = _rate(estimates, k, 1)
        for negative in range(2):
            sign = _rate(estimates, SIGN + k % NEIGHBOURS, negative)
            other[CONTEXTS * negative + k] = weight * (significant + sign)
    first = GREATER + 4 * unary_length
    flags = 0.0
    for bits in range(REMAINDERS):
        escape[bits] = flags + _rate(estimates, first + bits, 0) + bits * _RATE_UNIT
        flags += _rate(estimates, first + bits, 1)
    size = magnitude.size // 2
    for negative in range(2):
        flags = 0.0
        for m in range(1, unary_length + 1):
            k = GREATER + 2 * (m - 1) + negative
            magnitude[size * negative + m] = weight * (flags + _rate(estimates, k, 0))
            flags += _rate(estimates, k, 1)
        escape[REMAINDERS + negative] = flags
        for m in range(unary_length + 1, size):
            magnitude[size * negative + m] = escape_cost(escape, weight, unary_length, negative, m)


@kernel
def escape_cost(escape, weight, unary_length, negative, m):
    """Return the cost of a magnitude that has a remainder."""
    bits = 0
    remainder = (m - unary_length) >> 1
    while remainder:
        remainder >>= 1
        bits += 1
    return weight * (escape[REMAINDERS + negative] + escape[bits])


@inlined
def candidates(whole):
    """Return the nearest levels above 0: even and odd for even states, then for odd states."""
    return (
        max(2, 2 * ((whole + 2) >> 2)),
        2 * (whole >> 2) + 1,
        max(2, 2 * ((whole + 3) >> 2)),
        2 * ((whole + 1) >> 2) + 1,
    )


@kernel
def _leave(cost, k, zero, other, sign, zero_error, even, odd):
    """Return the costs after an even and an odd level, and whether the even level is zero."""
    stay = cost + (zero[np.uint64(k)] + zero_error)
    move = cost + other[np.uint64(sign + k)]
    is_zero = stay <= move + even
    return (stay if is_zero else move + even), move + odd, np.int64(is_zero)


@kernel
def _arrive(even, is_zero, odd, neighbour):
    """Keep the cheaper of two paths; return its cost, and kind and sign of its last level."""
    is_even = even <= odd
    kind = 1 + is_zero if is_even else np.int64(0)
    return (even if is_even else odd), kind, (np.int64(0) if kind == 2 else neighbour)


@kernel
def _extend(values, step, weight, unary_length, start, stop, state, neighbour, tables, kinds):
    """Extend the paths from one state over values; return the final state of the cheapest."""
    zero, other, magnitude, escape = tables
    size = magnitude.size // 2
    costs = np.full(STATES, np.inf)
    neighbours = np.zeros(STATES, np.int64)
    costs[state] = 0
    neighbours[state] = neighbour
    c0, c1, c2, c3 = costs[0], costs[1], costs[2], costs[3]
    c4, c5, c6, c7 = costs[4], costs[5], costs[6], costs[7]
    n0, n1, n2, n3 = neighbours[0], neighbours[1], neighbours[2], neighbours[3]
    n4, n5, n6, n7 = neighbours[4], neighbours[5], neighbours[6], neighbours[7]
    for i in range(start, stop):
        value = np.float64(values[i]) / step
        negative = np.int64(value < 0)
        here = 2 - negative
        value = abs(value)
        m0, m1, m2, m3 = candidates(np.int64(value))
        if m2 + 1 < size:
            offset = size * negative
            r0 = magnitude[np.uint64(offset + m0)]
            r1 = magnitude[np.uint64(offset + m1)]
            r2 = magnitude[np.uint64(offset + m2)]
            r3 = magnitude[np.uint64(offset + m3)]
        else:
            r0 = escape_cost(escape, weight, unary_length, negative, m0)
            r1 = escape_cost(escape, weight, unary_length, negative, m1)
            r2 = escape_cost(escape, weight, unary_length, negative, m2)
            r3 = escape_cost(escape, weight, unary_length, negative, m3)
        e0 = value - 2 * m0
        e1 = value - 2 * m1
        e2 = value - (2 * m2 - 1)
        e3 = value - (2 * m3 - 1)
        e0 = e0 * e0 + r0
        e1 = e1 * e1 + r1
        e2 = e2 * e2 + r2
        e3 = e3 * e3 + r3
        err = value * value
        sign = CONTEXTS * negative
        a0, b0, z0 = _leave(c0, n0, zero, other, sign, err, e0, e1)
        a1, b1, z1 = _leave(c1, 3 + n1, zero, other, sign, err, e2, e3)
        a2, b2, z2 = _leave(c2, 6 + n2, zero, other, sign, err, e0, e1)
        a3, b3, z3 = _leave(c3, 9 + n3, zero, other, sign, err, e2, e3)
        a4, b4, z4 = _leave(c4, 12 + n4, zero, other, sign, err, e0, e1)
        a5, b5, z5 = _leave(c5, 15 + n5, zero, other, sign, err, e2, e3)
        a6, b6, z6 = _leave(c6, 18 + n6, zero, other, sign, err, e0, e1)
        a7, b7, z7 = _leave(c7, 21 + n7, zero, other, sign, err, e2, e3)
        c0, k0, n0 = _arrive(a0, z0, b4, here)
        c1, k1, n1 = _arrive(a2, z2, b6, here)
        c2, k2, n2 = _arrive(a4, z4, b0, here)
        c3, k3, n3 = _arrive(a6, z6, b2, here)
        c4, k4, n4 = _arrive(a7, z7, b3, here)
        c5, k5, n5 = _arrive(a5, z5, b1, here)
        c6, k6, n6 = _arrive(a3, z3, b7, here)
        c7, k7, n7 = _arrive(a1, z1, b5, here)
        kinds[i - start] = (
            k0 | k1 << 2 | k2 << 4 | k3 << 6 | k4 << 8 | k5 << 10 | k6 << 12 | k7 << 14
        )
    costs[0], costs[1], costs[2], costs[3] = c0, c1, c2, c3
    costs[4], costs[5], costs[6], costs[7] = c4, c5, c6, c7
    return np.argmin(costs)


@kernel
def _trace(values, step, start, decided, stop, state, kinds, levels):
    """Follow the path back from a state, and write its levels up to `decided`."""
    for i in range(stop - 1, start - 1, -1):
        kind = (np.int64(kinds[i - start]) >> (2 * state)) & 3
        state = _PREVIOUS_STATE[state, np.int64(kind == _ODD)]
        if i < decided:
            value = np.float64(values[i]) / step
            m0, m1, m2, m3 = candidates(np.int64(abs(value)))
            if kind == _ZERO:
                q = 0
            elif state & 1:
                q = 2 * (m3 if kind == _ODD else m2) - 1
            else:
                q = 2 * (m1 if kind == _ODD else m0)
            levels[i] = -q if value < 0 else q


@kernel
def count(estimates, memory, k, b):
    """Update the estimate of a context with a bin."""
    bins = estimates[k, 1]
    estimates[k, 0] += (b - estimates[k, 0]) / (bins + 2)
    estimates[k, 1] = min(bins + 1, memory)


@kernel
def learn_level(estimates, memory, unary_length, m, is_negative, state, neighbour):
    """Update the estimates with the bins of a level of magnitude m; return its sign."""
    b = np.int64(m > 0)
    count(estimates, memory, NEIGHBOURS * state + neighbour, b)
    if not b:
        return np.int64(0)
    negative = np.int64(is_negative)
    count(estimates, memory, SIGN + neighbour, negative)
    j = 0
    while b and j < unary_length:
        b = np.int64(m > j + 1)
        count(estimates, memory, GREATER + 2 * j + negative, b)
        j += 1
    remainder = m - unary_length
    bits = 0
    while b:
        b = np.int64(remainder >= 2 << bits)
        count(estimates, memory, GREATER + 4 * unary_length + bits, b)
        bits += 1
    return 2 - negative


@kernel
def _learn(estimates, memory, unary_length, levels, start, stop, state, neighbour):
    """Update the estimates with the bins of levels; return state and neighbour after them."""
    for i in range(start, stop):
        q = np.int64(levels[i])
        m = (abs(q) + 1) >> 1
        neighbour = learn_level(estimates, memory, unary_length, m, q < 0, state, neighbour)
        state = NEXT_STATE[state, m & 1]
    return state, neighbour


@kernel
def search(values, step, lambda_, unary_length, segment, schedule, estimates, levels):
    """Choose levels for values in scan order.

    Parameters
    ----------
    values : ndarray of float32 or float64, shape (n,)
        Finite.
    step : float
        Step size.
    lambda_ : float
        Cost of a bit, in squared steps.
    unary_length : int
        Of the binarization.
    segment : int
        Number of levels after which the neighbour is reset to zero.
    schedule : SearchSchedule
        How often levels are decided and rates estimated.
    estimates : ndarray of float64, shape (contexts, 2)
        See `nnrcodec.quant.search.trellis.estimates_before`; updated.
    levels : ndarray of int32, shape (n,) or longer
        Output: multiples of the step size.
    """
    size = unary_length + TABULATED
    tables = (np.empty(CONTEXTS), np.empty(2 * CONTEXTS), np.zeros(2 * size), np.empty(33))
    kinds = np.empty(schedule.chunk + schedule.lookahead, np.uint16)
    weight = lambda_ / RATE_UNIT
    state = neighbour = np.int64(0)
    for begin in range(0, values.size, segment):
        end = min(begin + segment, values.size)
        neighbour = np.int64(0)
        start = begin
        while start < end:
            decided = min(start + schedule.chunk, end)
            stop = min(decided + schedule.lookahead, end)
            make_tables(estimates, unary_length, weight, *tables)
            last = _extend(
                values, step, weight, unary_length, start, stop, state, neighbour, tables, kinds
            )
            _trace(values, step, start, decided, stop, last, kinds, levels)
            state, neighbour = _learn(
                estimates, schedule.memory, unary_length, levels, start, decided, state, neighbour
            )
            start = decided
