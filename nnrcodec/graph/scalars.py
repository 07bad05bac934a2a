"""Arithmetic on sizes: the operators of a graph that take and return numbers, within 64 bits.

Integers of Python are unbounded: a few dozen squarings give one with millions of digits. Here every
result is an integer of 64 bits, a float or a bool, or a `ScalarError` is raised. This module does
not use PyTorch; the symbolic sizes of an export are computed by its own functions.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

Number = bool | int | float

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1


class ScalarError(ArithmeticError):
    """A result that is undefined or does not fit in 64 bits."""


def _bounded(function: Callable[..., Any]) -> Callable[..., Number]:
    @wraps(function, assigned=())
    def call(*numbers: Number) -> Number:
        try:
            result: Number = function(*numbers)
        except (ArithmeticError, ValueError) as error:
            raise ScalarError(str(error)) from None
        if not fits(result):
            raise ScalarError("an integer does not fit in 64 bits")
        return result

    return call


def fits(number: object) -> bool:
    """Return whether a value is a float, or an integer of 64 bits."""
    if isinstance(number, int):
        return INT64_MIN <= number <= INT64_MAX
    return isinstance(number, float)


def _choose(condition: Number, first: Number, second: Number) -> Number:
    return first if condition else second


_UNBOUNDED: Mapping[str, Callable[..., Any]] = {
    "operator.add": operator.add,
    "operator.sub": operator.sub,
    "operator.mul": operator.mul,
    "operator.truediv": operator.truediv,
    "operator.floordiv": operator.floordiv,
    "operator.mod": operator.mod,
    "operator.eq": operator.eq,
    "operator.ne": operator.ne,
    "operator.lt": operator.lt,
    "operator.le": operator.le,
    "operator.gt": operator.gt,
    "operator.ge": operator.ge,
    "operator.neg": operator.neg,
    "operator.pos": operator.pos,
    "math.trunc": math.trunc,
    "math.floor": math.floor,
    "math.ceil": math.ceil,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_int": int,
    "torch.sym_float": float,
    "torch.sym_not": operator.not_,
    "torch.sym_ite": _choose,
}

FUNCTIONS: Mapping[str, Callable[..., Number]] = {
    name: _bounded(function) for name, function in _UNBOUNDED.items()
}
"""The operators whose arguments are all numbers, by name in the allow-list."""
