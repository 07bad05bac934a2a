"""The search with error feedback, compiled.

`nnrcodec.quant.search.plain_feedback` defines the same search in plain Python. All arithmetic is
double precision in a fixed order: the same values and moments give the same levels.
"""

from __future__ import annotations

import numpy as np

from nnrcodec.entropy.compiled import inlined, kernel
from nnrcodec.quant.search.parameters import MAX_UNDECIDED, NEIGHBOURS, PATHS, RATE_UNIT, STATES
from nnrcodec.quant.search.trellis_kernels import (
    CONTEXTS,
    NEXT_STATE,
    TABULATED,
    candidates,
    escape_cost,
    learn_level,
    make_tables,
)


@kernel
def _bits(table, unary_length, k, negative, m):
    """Return the bits of a level of magnitude m; `table` joins the tables of `trellis_kernels`."""
    if m == 0:
        return table[k]
    size = unary_length + TABULATED
    bits = table[CONTEXTS * (1 + negative) + k]
    if m < size:
        return bits + table[3 * CONTEXTS + size * negative + m]
    escape = table[3 * CONTEXTS + 2 * size :]
    return bits + escape_cost(escape, 1 / RATE_UNIT, unary_length, negative, m)


@inlined
def _nearest(whole, dq):
    """Return the levels above 0 to try: two for even states, then two for odd ones."""
    if dq:
        return candidates(whole)
    low = max(whole, 1)
    return low, low + 1, low, low + 1


@kernel
def feedback_search(
    values,
    weights,
    groups,
    factors,
    scales,
    lambda_,
    unary_length,
    dq,
    schedule,
    estimates,
    levels,
):
    """Choose levels, row by row, so that later columns compensate the errors of earlier ones.

    Parameters
    ----------
    values : ndarray of float64, shape (R, K)
        Rows in steps.
    weights : ndarray of float64, shape (R,)
        Weight of the squared errors of each row.
    groups : ndarray of int64, shape (R,)
        Group of each row.
    factors : ndarray of float64, shape (groups, K, K)
        How errors of columns (first index) shift the values of later ones (second index).
    scales : ndarray of float64, shape (groups, K)
        Weight of the remaining squared error of each column.
    lambda_ : float
        Cost of a bit.
    unary_length : int
        Of the binarization.
    dq : bool
        Whether there are the states of dependent quantization, or only one.
    schedule : SearchSchedule
        Its `chunk` is the number of levels between two updates of the rates.
    estimates : ndarray of float64, shape (contexts, 2)
        See `nnrcodec.quant.search.trellis.estimates_before`; updated.
    levels : ndarray of int32, shape (R * K,)
        Output: multiples of the step size.

    Returns
    -------
    float
        Estimated bits of the levels.
    """
    rows, columns = values.shape
    states = STATES if dq else 1
    survivors = PATHS // states
    size = unary_length + TABULATED
    table = np.zeros(3 * CONTEXTS + 2 * size + 33)
    zero, other = table[:CONTEXTS], table[CONTEXTS : 3 * CONTEXTS]
    magnitude, escape = table[3 * CONTEXTS : -33], table[-33:]
    total = 0.0
    costs, arrivals = np.full(PATHS, np.inf), np.empty(PATHS)
    neighbours = np.zeros(PATHS, np.int64)
    parents, multiples = np.zeros(PATHS, np.uint64), np.zeros(PATHS, np.int64)
    errors = np.zeros(MAX_UNDECIDED * PATHS)
    reordered, feedback = np.empty(PATHS), np.empty(PATHS)
    target = np.empty(columns)
    costs[0] = 0
    state = neighbour = np.int64(0)
    decided = np.int64(0)
    for row in range(rows):
        factor, scale = factors[groups[row]], scales[groups[row]]
        begin = row * columns
        target[:] = values[row]
        for j in range(columns):
            n = begin + j
            if decided % schedule.chunk == 0:
                make_tables(estimates, unary_length, 1 / RATE_UNIT, zero, other, magnitude, escape)
            feedback[:] = 0
            for i in range(max(decided, begin), n):
                feedback_factor = factor[i - begin, j]
                slot = np.uint64(PATHS * (i % MAX_UNDECIDED))
                for p in range(PATHS):
                    feedback[p] += feedback_factor * errors[slot + np.uint64(p)]
            arrivals[:] = np.inf
            importance = scale[j] * weights[row]
            for p in range(PATHS):
                if costs[p] == np.inf:
                    continue
                value = target[j] - feedback[p]
                negative = np.int64(value < 0)
                value = abs(value)
                before = p // survivors
                k = NEIGHBOURS * before + neighbours[p]
                offset = 2 * (before & 1)
                nearest = _nearest(np.int64(value), dq)
                for choice in range(3):  # zero, the nearest of each parity, or the two neighbours
                    m = nearest[offset + choice - 1] if choice else np.int64(0)
                    multiple = 2 * m - (before & 1) if dq and choice else m
                    bits = _bits(table, unary_length, k, negative, m)
                    error = value - multiple
                    cost = costs[p] + (lambda_ * bits + importance * (error * error))
                    first = survivors * NEXT_STATE[before, m & 1] if dq else 0
                    at = first + survivors
                    if cost >= arrivals[at - 1]:
                        continue
                    at -= 1
                    while at > first and cost < arrivals[at - 1]:
                        arrivals[at] = arrivals[at - 1]
                        parents[at] = parents[at - 1]
                        multiples[at] = multiples[at - 1]
                        at -= 1
                    arrivals[at] = cost
                    parents[at] = p
                    multiples[at] = -multiple if negative else multiple
            for i in range(decided, n):
                slot = np.uint64(PATHS * (i % MAX_UNDECIDED))
                for p in range(PATHS):
                    reordered[p] = errors[slot + parents[p]]
                for p in range(PATHS):
                    errors[slot + np.uint64(p)] = reordered[p]
            slot = np.uint64(PATHS * (n % MAX_UNDECIDED))
            for p in range(PATHS):
                errors[slot + np.uint64(p)] = multiples[p] - values[row, j]
                neighbours[p] = 0 if multiples[p] == 0 else (1 if multiples[p] < 0 else 2)
            costs, arrivals = arrivals, costs
            last = n == rows * columns - 1
            while n - decided >= MAX_UNDECIDED - 1 or (last and decided <= n):
                oldest = np.uint64(PATHS * (decided % MAX_UNDECIDED))
                error = errors[oldest + np.uint64(np.argmin(costs))]
                for p in range(PATHS):
                    if errors[oldest + np.uint64(p)] != error:
                        costs[p] = np.inf
                q = np.int64(np.rint(error + values[decided // columns, decided % columns]))
                levels[decided] = q
                if decided >= begin:
                    of_column = factor[decided - begin]
                    for i in range(j + 1, columns):
                        target[i] -= of_column[i] * error
                m = (abs(q) + 1) >> 1 if dq else abs(q)
                k = NEIGHBOURS * state + neighbour
                total += _bits(table, unary_length, k, np.int64(q < 0), m)
                neighbour = learn_level(
                    estimates, schedule.memory, unary_length, m, q < 0, state, neighbour
                )
                if dq:
                    state = NEXT_STATE[state, m & 1]
                decided += 1
        least = costs.min()
        for p in range(PATHS):
            costs[p] -= least
    return total
