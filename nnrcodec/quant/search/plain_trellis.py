"""The search of dependent quantization in plain Python: the definition.

`nnrcodec.quant.search.trellis_kernels` returns exactly the same levels and estimates, and so costs
are added in the same order here as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nnrcodec.entropy.cabac.tables import GREATER, SIGN, STATE_TRANSITION
from nnrcodec.quant.search.parameters import NEIGHBOURS, RATE_UNIT, RATES, SearchSchedule


@dataclass(frozen=True, slots=True)
class Path:
    """The cheapest path to a state: its cost, and what the next level depends on.

    Parameters
    ----------
    cost : float
        Of all levels of the chunk so far.
    state : int
        Of dependent quantization.
    neighbour : int
        Sign of the last level: 0 for zero, 1 for negative, 2 for positive.
    level : int
        The last level, as it is coded.
    before : Path, optional
        The path without the last level; None at the start of a chunk.
    """

    cost: float
    state: int
    neighbour: int
    level: int = 0
    before: Path | None = None


def multiple(state: int, level: int) -> int:
    """Return the multiple of the step size to which a level of 0 or more is dequantized."""
    return 2 * level - (state & 1) if level else 0


def nearest(value: float, state: int, parity: int) -> int:
    """Return the level above 0 of a parity that is nearest to a value of 0 or more.

    Of two levels at the same distance, it is the larger one.
    """
    middle = int(value) // 2
    levels = [c for c in range(max(1, middle - 3), middle + 5) if c & 1 == parity]
    return min(levels, key=lambda c: (abs(value - multiple(state, c)), -c))


def magnitude_bins(level: int, unary_length: int) -> Iterator[tuple[int, int]]:
    """Yield context and bin of each greater-than flag, and of the prefix of the remainder."""
    negative = int(level < 0)
    magnitude = abs(level)
    for j in range(unary_length):
        greater = int(magnitude > j + 1)
        yield GREATER + 2 * j + negative, greater
        if not greater:
            return
    bits = remainder_bits(level, unary_length)
    for k in range(bits + 1):
        yield GREATER + 4 * unary_length + k, int(k < bits)


def remainder_bits(level: int, unary_length: int) -> int:
    """Return the number of bins of a level without context."""
    return max(abs(level) - unary_length, 1).bit_length() - 1


def rate(estimates: np.ndarray, context: int, b: int) -> float:
    """Return the rate of a bin, in units of `RATE_UNIT`."""
    of_one = float(estimates[context, 0])
    probability = of_one if b else 1 - of_one
    return float(RATES[min(int(probability * len(RATES)), len(RATES) - 1)])


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of levels for fixed probability estimates.

    Parameters
    ----------
    estimates : ndarray of float64, shape (contexts, 2)
        See `nnrcodec.quant.search.trellis.estimates_before`.
    unary_length : int
        Of the binarization.
    weight : float
        Cost of the unit of rates.
    """

    estimates: np.ndarray
    unary_length: int
    weight: float

    def of_zero(self, path: Path) -> float:
        """Return the cost of a level 0 after a path."""
        return self.weight * rate(self.estimates, NEIGHBOURS * path.state + path.neighbour, 0)

    def of_sign(self, path: Path, negative: int) -> float:
        """Return the cost of a level other than 0, without its magnitude."""
        significant = rate(self.estimates, NEIGHBOURS * path.state + path.neighbour, 1)
        return self.weight * (significant + rate(self.estimates, SIGN + path.neighbour, negative))

    def of_magnitude(self, level: int) -> float:
        """Return the cost of the magnitude of a level other than 0."""
        bins = magnitude_bins(level, self.unary_length)
        total = sum(rate(self.estimates, context, b) for context, b in bins)
        return self.weight * (total + RATE_UNIT * remainder_bits(level, self.unary_length))


def extend(path: Path, value: float, parity: int, costs: Costs) -> Path:
    """Return a path extended by the cheapest level of a parity for a value in steps."""
    negative = int(value < 0)
    value = abs(value)
    level = nearest(value, path.state, parity)
    signed = -level if negative else level
    error = value - multiple(path.state, level)
    cost = path.cost + costs.of_sign(path, negative)
    cost += error * error + costs.of_magnitude(signed)
    after = int(STATE_TRANSITION[path.state, parity])
    if parity == 0:
        cost_of_zero = path.cost + (costs.of_zero(path) + value * value)
        if cost_of_zero <= cost:
            return Path(cost_of_zero, after, 0, 0, path)
    return Path(cost, after, 2 - negative, signed, path)


def cheapest(paths: dict[int, Path]) -> Path:
    """Return the path of lowest cost; among equal costs, the one to the first state."""
    return min(paths.values(), key=lambda path: (path.cost, path.state))


def search_chunk(values: list[float], start: Path, costs: Costs) -> list[tuple[Path, Path]]:
    """Return the cheapest levels for values in steps, as the paths before and after each."""
    paths = {start.state: start}
    for value in values:
        arrivals: dict[int, Path] = {}
        for parity in (0, 1):  # among equal costs, the even level is kept
            for path in paths.values():
                longer = extend(path, value, parity, costs)
                best = arrivals.get(longer.state)
                if best is None or longer.cost < best.cost:
                    arrivals[longer.state] = longer
        paths = arrivals
    steps = []
    path = cheapest(paths)
    while path.before is not None:
        steps.append((path.before, path))
        path = path.before
    return steps[::-1]


def count(estimates: np.ndarray, memory: int, context: int, b: int) -> None:
    """Update the estimate of a context with a bin."""
    probability, bins = estimates[context]
    estimates[context] = probability + (b - probability) / (bins + 2), min(bins + 1, memory)


def learn(before: Path, level: int, estimates: np.ndarray, memory: int, unary_length: int) -> None:
    """Update the estimates with the bins of a level after a path."""
    significant = int(level != 0)
    count(estimates, memory, NEIGHBOURS * before.state + before.neighbour, significant)
    if significant:
        count(estimates, memory, SIGN + before.neighbour, int(level < 0))
        for context, b in magnitude_bins(level, unary_length):
            count(estimates, memory, context, b)


def search(
    values: np.ndarray,
    step: float,
    lambda_: float,
    unary_length: int,
    segment: int,
    schedule: SearchSchedule,
    estimates: np.ndarray,
    levels: np.ndarray,
) -> None:
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
    scaled = [float(value) / step for value in values]
    costs = Costs(estimates, unary_length, lambda_ / RATE_UNIT)
    path = Path(0.0, 0, 0)
    for begin in range(0, len(scaled), segment):
        path = replace(path, neighbour=0)
        end = min(begin + segment, len(scaled))
        for start in range(begin, end, schedule.chunk):
            decided = min(start + schedule.chunk, end)
            stop = min(decided + schedule.lookahead, end)
            path = Path(0.0, path.state, path.neighbour)
            steps = search_chunk(scaled[start:stop], path, costs)
            for i, (before, path) in enumerate(steps[: decided - start], start):
                learn(before, path.level, estimates, schedule.memory, unary_length)
                q = multiple(before.state, abs(path.level))
                levels[i] = -q if path.level < 0 else q
