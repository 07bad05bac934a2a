"""Guards out of the text in which PyTorch keeps them: it is parsed, and never run.

An example is ``(L['x'].size()[2] % 8) == 0``, where ``x`` is an argument of the network.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from nnrcodec.graph.guards import Expression, Guard

SizeOf = Callable[[str, int], Expression]
"""Returns the size of an axis of an argument: a number, or the name of a dimension.

Raises KeyError or IndexError if there is none.
"""

_BINARY: dict[type, str] = {
    ast.Add: "operator.add",
    ast.Sub: "operator.sub",
    ast.Mult: "operator.mul",
    ast.Div: "operator.truediv",
    ast.FloorDiv: "operator.floordiv",
    ast.Mod: "operator.mod",
}
_COMPARED: dict[type, str] = {
    ast.Eq: "operator.eq",
    ast.NotEq: "operator.ne",
    ast.Lt: "operator.lt",
    ast.LtE: "operator.le",
    ast.Gt: "operator.gt",
    ast.GtE: "operator.ge",
}
_CALLED = {"max": "torch.sym_max", "min": "torch.sym_min"}
_ROUNDED = {"math.trunc", "math.floor", "math.ceil", "torch.sym_float"}
_HIGHEST_POWER = 8


class InexpressibleError(ValueError):
    """A guard has what graphs have no operators for."""


def guards_of(code: str, size_of: SizeOf) -> list[Guard]:
    """Return what a line says of the sizes of inputs; all of it must hold.

    Parameters
    ----------
    code : str
        An expression of Python.
    size_of : callable
        Knows the inputs.

    Raises
    ------
    InexpressibleError
        It has something else than integer arithmetic on these sizes.
    """
    try:
        tree = ast.parse(code.strip(), mode="eval").body
        return [_Reader(size_of).truth(part) for part in _parts(tree)]
    except InexpressibleError:
        raise
    except (SyntaxError, ValueError, KeyError, IndexError, RecursionError, MemoryError) as error:
        raise InexpressibleError(str(error)) from error


def _parts(tree: ast.expr) -> Iterator[ast.expr]:
    """Yield what is joined by ``and``."""
    if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And):
        for part in tree.values:
            yield from _parts(part)
    else:
        yield tree


def sizes_in(code: str) -> list[tuple[str, int]]:
    """Return which sizes a line names, argument and axis, as far as they are known."""
    found = []
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        for part in ast.walk(ast.parse(code.strip(), mode="eval")):
            match part:
                case ast.Subscript(
                    ast.Call(ast.Attribute(argument, "size"), [], []), ast.Constant(int(axis))
                ):
                    found.append((_name_of(argument), axis))
    return found


def _name_of(tree: ast.expr) -> str:
    """Return the name of an argument; one of several has its number behind it, as in a program."""
    match tree:
        case ast.Subscript(ast.Name("L"), ast.Constant(str(argument))):
            return argument
        case ast.Subscript(several, ast.Constant(int() | str() as place)):
            return f"{_name_of(several)}_{place}"
    raise InexpressibleError(ast.unparse(tree))


class _Reader:
    def __init__(self, size_of: SizeOf) -> None:
        self._size_of = size_of

    def truth(self, tree: ast.expr) -> Guard:
        match tree:
            case ast.Compare(left, [comparison], [right]) if type(comparison) in _COMPARED:
                return _COMPARED[type(comparison)], self.number(left), self.number(right)
            case ast.Compare(left, comparisons, rights):
                operands = [left, *rights]
                pairs = zip(operands, comparisons, rights, strict=False)
                links = [self.truth(ast.Compare(a, [c], [b])) for a, c, b in pairs]
                return self._all(links)
            case ast.BoolOp(ast.Or(), values):
                *rest, last = map(self.truth, values)
                for value in reversed(rest):
                    last = ("torch.sym_ite", value, 1, last)
                return last
            case ast.BoolOp(ast.And(), values):
                return self._all(list(map(self.truth, values)))
            case ast.UnaryOp(ast.Not(), operand):
                return "torch.sym_not", self.truth(operand)
        raise InexpressibleError(ast.unparse(tree))

    def _all(self, truths: list[Guard]) -> Guard:
        *rest, last = truths
        for value in reversed(rest):
            last = ("torch.sym_ite", value, last, 0)
        return last

    def number(self, tree: ast.expr) -> Expression:
        match tree:
            case ast.Constant(int() | float() as value) if not isinstance(value, bool):
                return value
            case ast.BinOp(left, ast.Pow(), ast.Constant(int(power))) if (
                1 <= power <= _HIGHEST_POWER
            ):
                base = self.number(left)
                product: Any = base
                for _ in range(power - 1):
                    product = ("operator.mul", product, base)
                return product
            case ast.BinOp(left, op, right) if type(op) in _BINARY:
                return _BINARY[type(op)], self.number(left), self.number(right)
            case ast.UnaryOp(ast.USub(), operand):
                inner = self.number(operand)
                return -inner if isinstance(inner, int | float) else ("operator.neg", inner)
            case ast.Call(ast.Name("max" | "min" as name), [first, second], []):
                return _CALLED[name], self.number(first), self.number(second)
            case ast.Call(ast.Attribute(ast.Name(module), name), [operand], []) if (
                f"{module}.{name}" in _ROUNDED
            ):
                return f"{module}.{name}", self.number(operand)
            case ast.Subscript(
                ast.Call(ast.Attribute(argument, "size"), [], []), ast.Constant(int(axis))
            ):
                return self._size_of(_name_of(argument), axis)
        raise InexpressibleError(ast.unparse(tree))
