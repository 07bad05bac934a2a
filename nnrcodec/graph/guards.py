"""Conditions on the sizes of inputs: a graph holds only for inputs that meet its guards.

A network may look at a size and go one way or another; an exported graph has the way that the
example went. What it found out about sizes there is kept as expressions of arithmetic on them, with
operators of numbers that graphs have. This module does not use PyTorch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

from nnrcodec.graph.scalars import FUNCTIONS, ScalarError, fits

Expression = int | float | str | tuple[Any, ...]
"""A number, the name of a dimension, or the name of an operator and its arguments."""

Guard = tuple[Any, ...]
"""An expression that is true where a graph holds."""

Bounds = tuple[float, float]
"""The least and the greatest value of an expression."""

MAX_DEPTH = 32
"""Operators of an expression within one another."""

SYMBOLS: Mapping[str, str] = {
    "operator.add": "+",
    "operator.sub": "-",
    "operator.mul": "*",
    "operator.truediv": "/",
    "operator.floordiv": "//",
    "operator.mod": "%",
    "operator.eq": "==",
    "operator.ne": "!=",
    "operator.lt": "<",
    "operator.le": "<=",
    "operator.gt": ">",
    "operator.ge": ">=",
}
"""Operators of two arguments, with what they look like."""

CALLS: Mapping[str, int] = {
    "operator.neg": 1,
    "torch.sym_max": 2,
    "torch.sym_min": 2,
    "math.trunc": 1,
    "math.floor": 1,
    "math.ceil": 1,
    "torch.sym_float": 1,
    "torch.sym_not": 1,
    "torch.sym_ite": 3,
}
"""Other operators, with the number of their arguments."""

TRUTHS = (
    *("operator.eq", "operator.ne", "operator.lt", "operator.le", "operator.gt"),
    *("operator.ge", "torch.sym_not", "torch.sym_ite"),
)
"""Operators that a guard may begin with."""


def parts(expression: Expression) -> Iterator[Expression]:
    """Yield an expression and all within it."""
    yield expression
    if isinstance(expression, tuple):
        for part in expression[1:]:
            yield from parts(part)


def dims_of(expression: Expression) -> frozenset[str]:
    """Return the names of the dimensions in an expression."""
    return frozenset(part for part in parts(expression) if isinstance(part, str))


def misfit_of(expression: object, dims: Container[str], depth: int = 0) -> str | None:
    """Return what is wrong with an expression from anywhere; None if nothing is."""
    if isinstance(expression, str):
        return None if expression in dims else f"there is no dimension {expression[:50]!r}"
    if not isinstance(expression, tuple):
        is_integer = type(expression) is int and fits(expression)
        is_legal = is_integer or (isinstance(expression, float) and math.isfinite(expression))
        return None if is_legal else f"{str(expression)[:50]} is no number of 64 bits"
    name = expression[0] if expression and isinstance(expression[0], str) else ""
    count = 2 if name in SYMBOLS else CALLS.get(name)
    if count is None:
        return f"{str(name)[:50]!r} is no operator of guards"
    if len(expression) != 1 + count:
        return f"{name} takes {count} arguments"
    if depth == MAX_DEPTH:
        return f"more than {MAX_DEPTH} operators within one another"
    found = (misfit_of(part, dims, depth + 1) for part in expression[1:])
    return next((misfit for misfit in found if misfit is not None), None)


def value_of(
    expression: Expression,
    sizes: Mapping[str, Any],
    function_of: Callable[[str], Callable[..., Any]] = FUNCTIONS.__getitem__,
) -> Any:
    """Return the value of a legal expression.

    Parameters
    ----------
    expression : Expression
        Checked by `misfit_of`.
    sizes : mapping of str to int
        By the names of dimensions.
    function_of : callable
        Returns what computes an operator; by default on integers of 64 bits.

    Raises
    ------
    ScalarError
        It is undefined, or does not fit in 64 bits.
    """
    if isinstance(expression, str):
        return sizes[expression]
    if not isinstance(expression, tuple):
        return expression
    name, *arguments = expression
    if name == "torch.sym_ite":  # of two ways one is computed
        condition, *ways = arguments
        return value_of(ways[not value_of(condition, sizes, function_of)], sizes, function_of)
    return function_of(name)(*(value_of(part, sizes, function_of) for part in arguments))


def holds(
    guard: Guard,
    sizes: Mapping[str, Any],
    function_of: Callable[[str], Callable[..., Any]] = FUNCTIONS.__getitem__,
) -> bool:
    """Return whether sizes meet a guard, as `value_of` computes it; what is undefined does not."""
    try:
        return bool(value_of(guard, sizes, function_of))
    except ScalarError:
        return False


def sentence(guards: Sequence[Guard], names: Mapping[str, str]) -> str:
    """Return what some guards ask for, in words, cut where it is long."""
    text = " and ".join(words(guard, names) for guard in guards)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def either(regions: Sequence[Sequence[Guard]]) -> tuple[Guard, ...]:
    """Return guards that hold where those of one of several regions do."""
    if len(regions) == 1:
        return tuple(regions[0])
    regions = _merged(list(map(list, regions)))
    if len(regions) == 1:
        return tuple(regions[0])
    if not all(regions):
        return ()
    common = [guard for guard in regions[0] if all(guard in region for region in regions)]
    rest = [[guard for guard in region if guard not in common] for region in regions]
    if not all(rest):
        return tuple(common)
    alternatives = [_balanced(region, lambda a, b: ("torch.sym_ite", a, b, 0)) for region in rest]
    return (*common, _balanced(alternatives, lambda a, b: ("torch.sym_ite", a, 1, b)))


_OPPOSITES = {
    "operator.eq": "operator.ne",
    "operator.ne": "operator.eq",
    "operator.lt": "operator.ge",
    "operator.ge": "operator.lt",
    "operator.gt": "operator.le",
    "operator.le": "operator.gt",
}
_TURNED = {
    "operator.lt": "operator.gt",
    "operator.gt": "operator.lt",
    "operator.le": "operator.ge",
    "operator.ge": "operator.le",
}


def _merged(regions: list[list[Guard]]) -> list[list[Guard]]:
    """Return regions of which no two differ in one guard only, which one has and one denies."""
    for first in regions:
        for second in regions:
            alone = [guard for guard in first if guard not in second]
            denied = [guard for guard in second if guard not in first]
            if len(alone) == len(denied) == 1 and denied[0] in _opposites(alone[0]):
                rest = [r for r in regions if r is not first and r is not second]
                return _merged([[guard for guard in first if guard in second], *rest])
    return regions


def _opposites(guard: Guard) -> list[Guard]:
    """Return the guards that hold where this one does not, of which one may be at hand."""
    name, *rest = guard
    if name not in _OPPOSITES:
        return []
    opposite = _OPPOSITES[name]
    return [(opposite, *rest), (_TURNED.get(opposite, opposite), *reversed(rest))]


def _balanced(guards: Sequence[Guard], join: Callable[[Guard, Guard], Guard]) -> Guard:
    """Return guards joined in pairs, so that they are not deep within one another."""
    if len(guards) == 1:
        return guards[0]
    half = len(guards) // 2
    return join(_balanced(guards[:half], join), _balanced(guards[half:], join))


def words(expression: Expression, names: Mapping[str, str], *, outer: bool = True) -> str:
    """Return an expression as people write it.

    Parameters
    ----------
    expression : Expression
        Legal.
    names : mapping of str to str
        What to call dimensions.
    """
    if isinstance(expression, str):
        return names[expression]
    if not isinstance(expression, tuple):
        return str(expression)
    name, *rest = expression
    texts = [words(part, names, outer=False) for part in rest]
    if name in SYMBOLS:
        text = f" {SYMBOLS[name]} ".join(texts)
        return text if outer else f"({text})"
    match name:
        case "operator.neg":
            return f"-{texts[0]}"
        case "torch.sym_not":
            return f"not {texts[0]}"
        case "torch.sym_ite" if rest[1] == 1:
            text = f"{texts[0]} or {texts[2]}"
            return text if outer else f"({text})"
        case "torch.sym_ite" if rest[2] == 0:
            text = f"{texts[0]} and {texts[1]}"
            return text if outer else f"({text})"
        case _:
            called = re.split(r"[._]", name)[-1]
            return f"{called}({', '.join(texts)})"


def is_of_ones(guard: Guard) -> bool:
    """Return whether a guard says only that a size is none of 0 and 1.

    An export that asks about 1 for PyTorch's own sake never has these as examples of dynamic sizes,
    and says so of all of them.
    """
    match guard:
        case ("operator.ne", str(), 0 | 1):
            return True
        case ("operator.le", int(least), str()) | ("operator.ge", str(), int(least)):
            return least <= _FIRST
        case ("operator.lt", int(least), str()) | ("operator.gt", str(), int(least)):
            return least < _FIRST
    return False


def is_trivial(guard: Guard, bounds: Mapping[str, Bounds]) -> bool:
    """Return whether a guard is known to hold for all sizes.

    Parameters
    ----------
    guard : Guard
        Legal.
    bounds : mapping of str to (float, float)
        The least and the greatest size of each dimension, which may be infinite.
    """
    name, *rest = guard
    if name in _OF_EQUALS and rest[0] == rest[1]:
        return True
    if name not in SYMBOLS:
        return False
    (low, high), (other_low, other_high) = (bounds_of(part, bounds) for part in rest)
    match name:
        case "operator.lt":
            return high < other_low
        case "operator.le":
            return high <= other_low
        case "operator.gt":
            return low > other_high
        case "operator.ge":
            return low >= other_high
        case "operator.ne":
            return high < other_low or low > other_high
    return False


def bounds_of(expression: Expression, bounds: Mapping[str, Bounds]) -> Bounds:
    """Return bounds on the value of an expression, given those on the sizes in it."""
    if isinstance(expression, str):
        return bounds[expression]
    if not isinstance(expression, tuple):
        return expression, expression
    name, *rest = expression
    if name not in _MONOTONE:
        return -math.inf, math.inf
    parts = [bounds_of(part, bounds) for part in rest]
    if name == "operator.floordiv" and not 0 < parts[1][0] == parts[1][1] < math.inf:
        return -math.inf, math.inf
    if name == "operator.mul" and min(part[0] for part in parts) < 0:
        return -math.inf, math.inf
    low, high = (_MONOTONE[name](*ends) for ends in zip(*parts, strict=True))
    return low, high


def _product(left: float, right: float) -> float:
    return 0 if 0 in (left, right) else left * right


def _quotient(left: float, right: float) -> float:
    return left if math.isinf(left) else left // right


_MONOTONE: Mapping[str, Callable[[float, float], float]] = {
    "operator.add": lambda left, right: left + right,
    "operator.mul": _product,
    "operator.floordiv": _quotient,
    "torch.sym_max": max,
    "torch.sym_min": min,
}
"""Operators that do not fall when an argument rises, within what `bounds_of` asks of them."""

_FIRST = 2
_LONGEST = 300
_OF_EQUALS = ("operator.eq", "operator.le", "operator.ge")
