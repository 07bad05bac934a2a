"""Wrappers of MATLAB files: what their nodes are, and what checks those of strangers.

========================================  ======================================================
``["struct", dims, names, nodes]``         for each name in turn one node for each element
``["cell", dims, nodes]``                  elements
``["text", dims, characters]``             characters
``["numbers", dtype, dims, numbers]``      numbers; what JSON lacks as strings, complex ones in
                                           pairs
``["tensor", name]``                       a tensor as it is
``["filter", name]``                       a weight of a convolution, (outputs, inputs, height,
                                           width), as (height, width, inputs, outputs)
``["vector", name, row]``                  a tensor of one dimension, as a row or as a column
``["moments", mean, variance, epsilon]``   two such tensors, as columns: mean, and the square root
                                           of variance + epsilon
``["left_out", what, reason]``             what it was, and why it is not there
========================================  ======================================================

Elements are in the order of MATLAB, the first dimension fastest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

MOST_DEPTH = 34
"""Levels of nodes within one another: those of a file, and what holds its variables."""

MOST_ELEMENTS = 2**20
"""Of a struct, a cell or a text."""

DTYPES = frozenset(
    {"float64", "float32", "bool", "complex128", "complex64"}
    | {f"{u}int{s}" for s in (8, 16, 32, 64) for u in ("", "u")}
)
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
"""Names of variables and fields."""

_WORDS = {"nan", "inf", "-inf"}


def misfit_of(node: Any, depth: int = 0) -> str | None:
    """Return what is wrong with a node; None if it is one."""
    if depth > MOST_DEPTH:
        return f"more than {MOST_DEPTH} levels"
    match node:
        case ["struct", dims, list(names), list(nodes)]:
            fields = [n for n in names if isinstance(n, str) and NAME.fullmatch(n)]
            if len(set(fields)) != len(names):
                return "fields of a struct have names of their own"
            if not _are_dims(dims, len(nodes), len(names)):
                return "a struct has a node for each field of each element"
            return _first(nodes, depth)
        case ["cell", dims, list(nodes)]:
            if not _are_dims(dims, len(nodes)):
                return "a cell has a node for each element"
            return _first(nodes, depth)
        case ["text", dims, str(text)]:
            return None if _are_dims(dims, len(text)) else "a text has as many characters as it has"
        case ["numbers", str(dtype), dims, list(numbers)] if dtype in DTYPES:
            parts = 2 if dtype.startswith("complex") else 1
            if not _are_dims(dims, len(numbers), parts) or not all(
                _is_number(number, dtype) for number in numbers
            ):
                return f"an array of {dtype} with other numbers"
            return None
        case ["tensor" | "filter", str()] | ["vector", str(), bool()] | ["left_out", str(), str()]:
            return None
        case ["moments", str(), str(), float(epsilon)] if 0 <= epsilon <= 1:
            return None
    return f"a node that is none: {str(node)[:50]}"


def _first(nodes: list[Any], depth: int) -> str | None:
    return next(filter(None, (misfit_of(node, depth + 1) for node in nodes)), None)


def _are_dims(dims: Any, count: int, parts: int = 1) -> bool:
    return (
        isinstance(dims, list)
        and 2 <= len(dims) <= 32
        and all(type(size) is int and 0 <= size < 2**31 for size in dims)
        and math.prod(dims) <= MOST_ELEMENTS
        and math.prod(dims) * parts == count
    )


def _is_number(number: Any, dtype: str) -> bool:
    if dtype == "bool":
        return isinstance(number, bool)
    if dtype.startswith(("float", "complex")):
        return type(number) in (int, float) or (isinstance(number, str) and number in _WORDS)
    if type(number) is not int:
        return False
    bits = int(dtype.lstrip("uint"))
    low, high = (0, 2**bits) if dtype[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    return low <= number < high


def left_out_of(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str, str]]:
    """Yield path, what and reason of what a checked node says was left out."""
    match node:
        case ["left_out", what, reason]:
            yield ".".join(path), what, reason
        case ["struct", dims, names, nodes]:
            count = math.prod(dims)
            for index, inner in enumerate(nodes):
                name, number = names[index // count], (str(index % count),) * (count > 1)
                yield from left_out_of(inner, (*path, *number, name))
        case ["cell", _, nodes]:
            for index, inner in enumerate(nodes):
                yield from left_out_of(inner, (*path, str(index)))
