"""The search with error feedback in plain Python: the definition.

`nnrcodec.quant.search.feedback_kernels` returns exactly the same levels, and so sums are formed in
the same order here as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nnrcodec.entropy.cabac.tables import STATE_TRANSITION
from nnrcodec.quant.search.parameters import MAX_UNDECIDED, PATHS, RATE_UNIT, STATES, SearchSchedule
from nnrcodec.quant.search.plain_trellis import Costs, Path, learn, multiple, nearest


@dataclass(frozen=True, slots=True)
class PathWithErrors:
    """A path and the errors of its undecided levels.

    Parameters
    ----------
    end : Path
        Its cost, and what the next level depends on.
    errors : dict of int to float
        Errors of the undecided levels, by position.
    """

    end: Path
    errors: dict[int, float]


def levels_to_try(value: float, state: int, dq: bool) -> list[int]:
    """Return zero and the nearest levels of each parity, or those below and above a value."""
    if dq:
        return [0, nearest(value, state, 0), nearest(value, state, 1)]
    low = max(int(value), 1)
    return [0, low, low + 1]


def extend(
    path: PathWithErrors,
    n: int,
    target: float,
    value: float,
    importance: float,
    lambda_: float,
    costs: Costs,
    dq: bool,
) -> Iterator[PathWithErrors]:
    """Yield a path extended by each of the levels to try.

    Parameters
    ----------
    path : PathWithErrors
        Path up to the value.
    n : int
        Position of the value.
    target : float
        The value to quantize, corrected for the errors before it, in steps.
    value : float
        The weight, in steps.
    importance : float
        Weight of a squared error.
    lambda_ : float
        Cost of a bit.
    costs : Costs
        Bits of levels.
    dq : bool
        Whether there are the states of dependent quantization.
    """
    end, negative = path.end, int(target < 0)
    for level in levels_to_try(abs(target), end.state, dq):
        size = multiple(end.state, level) if dq else level
        signed, q = (-level, -size) if negative else (level, size)
        bits = costs.of_zero(end)
        if level:
            bits = costs.of_sign(end, negative) + costs.of_magnitude(signed)
        error = abs(target) - size
        cost = end.cost + (lambda_ * bits + importance * (error * error))
        after = int(STATE_TRANSITION[end.state, level & 1]) if dq else 0
        neighbour = 2 - negative if level else 0
        yield PathWithErrors(Path(cost, after, neighbour, signed), path.errors | {n: q - value})


def cheapest_by_state(paths: list[PathWithErrors], dq: bool) -> list[PathWithErrors]:
    """Return the cheapest paths to each state; among equal costs, the first ones."""
    survivors = []
    states = STATES if dq else 1
    for state in range(states):
        in_state = [path for path in paths if path.end.state == state]
        survivors += sorted(in_state, key=lambda path: path.end.cost)[: PATHS // states]
    return survivors


def feedback_search(
    values: np.ndarray,
    weights: np.ndarray,
    groups: np.ndarray,
    factors: np.ndarray,
    scales: np.ndarray,
    lambda_: float,
    unary_length: int,
    dq: bool,
    schedule: SearchSchedule,
    estimates: np.ndarray,
    levels: np.ndarray,
) -> float:
    """Choose levels; parameters and result are those of the kernel of the same name."""
    rows, columns = values.shape
    paths = [PathWithErrors(Path(0.0, 0, 0), {})]
    last = Path(0.0, 0, 0)
    decided, total = 0, 0.0
    costs = Costs(estimates.copy(), unary_length, 1 / RATE_UNIT)
    for row in range(rows):
        factor, scale = factors[groups[row]], scales[groups[row]]
        begin = row * columns
        targets = values[row].copy()
        for j in range(columns):
            n = begin + j
            if decided % schedule.chunk == 0:
                costs = Costs(estimates.copy(), unary_length, 1 / RATE_UNIT)
            longer: list[PathWithErrors] = []
            for path in paths:
                feedback = 0.0
                for i in range(max(decided, begin), n):
                    feedback += factor[i - begin, j] * path.errors[i]
                importance = scale[j] * weights[row]
                target = targets[j] - feedback
                longer += extend(path, n, target, values[row, j], importance, lambda_, costs, dq)
            paths = cheapest_by_state(longer, dq)
            while n - decided >= MAX_UNDECIDED - 1 or (n == values.size - 1 and decided <= n):
                best = min(paths, key=lambda path: path.end.cost)
                error = best.errors[decided]
                paths = [path for path in paths if path.errors[decided] == error]
                q = round(error + float(values.flat[decided]))
                levels[decided] = q
                if decided >= begin:
                    for i in range(j + 1, columns):
                        targets[i] -= factor[decided - begin, i] * error
                level = (abs(q) + 1) >> 1 if dq else abs(q)
                signed = -level if q < 0 else level
                total += costs.of_zero(last) if q == 0 else costs.of_sign(last, int(q < 0))
                total += costs.of_magnitude(signed) if q else 0.0
                learn(last, signed, estimates, schedule.memory, unary_length)
                after = int(STATE_TRANSITION[last.state, level & 1]) if dq else 0
                last = Path(0.0, after, 0 if q == 0 else 1 if q < 0 else 2, signed)
                decided += 1
        least = min(path.end.cost for path in paths)
        paths = [replace(path, end=replace(path.end, cost=path.end.cost - least)) for path in paths]
    return total
