"""The search with error feedback, in plain Python: what it is, for whoever reads it.

`nnrcodec.quant.search.feedback_kernels` does the same, and the same levels come out to the last
bit; so sums are formed in the order in which they are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nnrcodec.entropy.cabac.tables import STATE_TRANSITION
from nnrcodec.quant.search.parameters import PATHS, RATE_UNIT, STATES, WINDOW, Pace
from nnrcodec.quant.search.plain_trellis import Costs, Path, learn, multiple, nearest


@dataclass(frozen=True, slots=True)
class FedPath:
    """A path with errors of its own.

    Parameters
    ----------
    end : Path
        Its cost, and what the next level depends on.
    errors : dict of int to float
        Errors of the levels that are not decided yet, by position.
    """

    end: Path
    errors: dict[int, float]


def levels_to_try(value: float, state: int, dq: bool) -> list[int]:
    """Return zero and the nearest levels of either parity, or on either side of a value."""
    if dq:
        return [0, nearest(value, state, 0), nearest(value, state, 1)]
    low = max(int(value), 1)
    return [0, low, low + 1]


def extend(
    path: FedPath,
    n: int,
    wanted: float,
    value: float,
    importance: float,
    lambda_: float,
    costs: Costs,
    dq: bool,
) -> Iterator[FedPath]:
    """Yield a path made longer by each of the levels to try.

    Parameters
    ----------
    path : FedPath
        What comes before.
    n : int
        Position of the value.
    wanted : float
        What the level should be after the errors before it, in steps.
    value : float
        What the weight is, in steps.
    importance : float
        What a squared error counts.
    lambda_ : float
        What a bit is worth.
    costs : Costs
        Bits of levels.
    dq : bool
        Whether there are the states of dependent quantization.
    """
    end, negative = path.end, int(wanted < 0)
    for level in levels_to_try(abs(wanted), end.state, dq):
        size = multiple(end.state, level) if dq else level
        signed, q = (-level, -size) if negative else (level, size)
        bits = costs.of_zero(end)
        if level:
            bits = costs.of_sign(end, negative) + costs.of_magnitude(signed)
        error = abs(wanted) - size
        cost = end.cost + (lambda_ * bits + importance * (error * error))
        after = int(STATE_TRANSITION[end.state, level & 1]) if dq else 0
        neighbour = 2 - negative if level else 0
        yield FedPath(Path(cost, after, neighbour, signed), path.errors | {n: q - value})


def cheapest_to_each(paths: list[FedPath], dq: bool) -> list[FedPath]:
    """Return the cheapest paths to each state, of equals those that come first."""
    kept = []
    states = STATES if dq else 1
    for state in range(states):
        there = [path for path in paths if path.end.state == state]
        kept += sorted(there, key=lambda path: path.end.cost)[: PATHS // states]
    return kept


def feedback_search(
    values: np.ndarray,
    weights: np.ndarray,
    groups: np.ndarray,
    factors: np.ndarray,
    scales: np.ndarray,
    lambda_: float,
    unary_length: int,
    dq: bool,
    pace: Pace,
    estimates: np.ndarray,
    levels: np.ndarray,
) -> float:
    """Choose levels; see the kernel of the same name for what it takes and returns."""
    rows, columns = values.shape
    paths = [FedPath(Path(0.0, 0, 0), {})]
    last = Path(0.0, 0, 0)
    decided, total = 0, 0.0
    costs = Costs(estimates.copy(), unary_length, 1 / RATE_UNIT)
    for row in range(rows):
        factor, scale = factors[groups[row]], scales[groups[row]]
        begin = row * columns
        wanted = values[row].copy()
        for j in range(columns):
            n = begin + j
            if decided % pace.chunk == 0:
                costs = Costs(estimates.copy(), unary_length, 1 / RATE_UNIT)
            longer: list[FedPath] = []
            for path in paths:
                fed = 0.0
                for i in range(max(decided, begin), n):
                    fed += factor[i - begin, j] * path.errors[i]
                importance = scale[j] * weights[row]
                target = wanted[j] - fed
                longer += extend(path, n, target, values[row, j], importance, lambda_, costs, dq)
            paths = cheapest_to_each(longer, dq)
            while n - decided >= WINDOW - 1 or (n == values.size - 1 and decided <= n):
                best = min(paths, key=lambda path: path.end.cost)
                error = best.errors[decided]
                paths = [path for path in paths if path.errors[decided] == error]
                q = round(error + float(values.flat[decided]))
                levels[decided] = q
                if decided >= begin:
                    for i in range(j + 1, columns):
                        wanted[i] -= factor[decided - begin, i] * error
                level = (abs(q) + 1) >> 1 if dq else abs(q)
                signed = -level if q < 0 else level
                total += costs.of_zero(last) if q == 0 else costs.of_sign(last, int(q < 0))
                total += costs.of_magnitude(signed) if q else 0.0
                learn(last, signed, estimates, pace.memory, unary_length)
                after = int(STATE_TRANSITION[last.state, level & 1]) if dq else 0
                last = Path(0.0, after, 0 if q == 0 else 1 if q < 0 else 2, signed)
                decided += 1
        least = min(path.end.cost for path in paths)
        paths = [replace(path, end=replace(path.end, cost=path.end.cost - least)) for path in paths]
    return total
