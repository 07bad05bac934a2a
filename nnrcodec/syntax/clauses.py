"""The registry of syntax tables, and their rendering as documents.

A syntax function is registered with `clause` under the title of its table. `render` makes the
tables of ``spec/tables`` from the source of the functions, so that the two cannot differ::

    python -m nnrcodec.syntax spec/tables
"""

from __future__ import annotations

import ast
import copy
import inspect
import re
import textwrap
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, get_type_hints

Table = Callable[..., None]
F = TypeVar("F", bound=Table)

CLAUSES: list[tuple[str, Table]] = []
"""Title and syntax function of every table, in the order of definition."""

NOTICE = "<!-- Made from the source by `python -m nnrcodec.syntax spec/tables`. -->"


def clause(title: str) -> Callable[[F], F]:
    """Register a syntax function under the title of its table."""

    def register(function: F) -> F:
        CLAUSES.append((title, function))
        return function

    return register


@cache
def record_of(function: Table) -> type[Any]:
    """Return the record class that a syntax function codes."""
    record: type[Any] = list(get_type_hints(function).values())[1]
    return record


def render() -> dict[str, str]:
    """Return the text of each file of ``spec/tables`` by its name."""
    files: dict[str, list[str]] = {}
    for title, function in CLAUSES:
        file = f"{function.__module__.rpartition('.')[2]}.md"
        files.setdefault(file, [NOTICE]).append(_table(title, function))
    return {file: "\n\n".join(parts) + "\n" for file, parts in sorted(files.items())}


def _table(title: str, function: Table) -> str:
    definition = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(definition, ast.FunctionDef)  # noqa: S101 - so clause() is used
    rows = ["| element | descriptor | range | if absent |", "|---|---|---|---|"]
    body = definition.body[1:] if ast.get_docstring(definition) else definition.body
    for statement in body:
        rows += _rows(statement, 0, record_of(function)())
    if len(rows) == 2:
        rows.append("| (empty) | | | |")
    return "\n\n".join([f"## {title}", inspect.getdoc(function) or "", "\n".join(rows)])


def _rows(statement: ast.stmt, depth: int, defaults: object) -> list[str]:
    """Return the rows of a statement and of those inside it."""
    indent = "&emsp;" * depth

    def block(head: str, body: list[ast.stmt]) -> list[str]:
        inner = [row for s in body for row in _rows(s, depth + 1, defaults)]
        return [f"| {indent}{head} | | | |", *inner]

    if isinstance(statement, ast.If):
        rows = block(f"if {_text(statement.test)}", statement.body)
        while len(statement.orelse) == 1 and isinstance(statement.orelse[0], ast.If):
            statement = statement.orelse[0]
            rows += block(f"else if {_text(statement.test)}", statement.body)
        return rows + (block("else", statement.orelse) if statement.orelse else [])
    if isinstance(statement, ast.For):
        head = f"for {_text(statement.target)} in {_text(statement.iter)}"
        return block(head, statement.body)
    if isinstance(statement, ast.Assign):
        return [f"| {indent}{_text(statement)} | | | |"]
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        if (
            isinstance(statement.value.func, ast.Attribute)
            and statement.value.func.attr == "ie_list"
        ):
            return block(f"for j in range({_text(statement.value.args[3])})", [_of_list(statement)])
        cells = _call(statement.value, depth, defaults)
        return [f"| {indent}{' | '.join(cells)} |"] if cells else []
    raise TypeError(f"not a statement of a syntax table: {ast.unparse(statement)}")


def _of_list(statement: ast.Expr) -> ast.stmt:
    """Return the statement that codes one element of an array."""
    one = copy.deepcopy(statement)
    call = one.value
    assert isinstance(call, ast.Call)  # noqa: S101 - so `_rows` has found
    assert isinstance(call.func, ast.Attribute)  # noqa: S101
    call.func.attr = "ie"
    call.args[3] = ast.Name("j")
    return one


def _call(call: ast.Call, depth: int, defaults: object) -> list[str] | None:
    """Return the cells of one call: element, descriptor, range and inferred value."""
    if isinstance(call.func, ast.Name):
        return [f"{call.func.id}()", "", "", ""]
    assert isinstance(call.func, ast.Attribute)  # noqa: S101 - the body holds nothing else
    arguments = [_text(argument) for argument in call.args]
    ranges = {k.arg: _text(k.value) for k in call.keywords}
    match call.func.attr, arguments:
        case "array", _:
            return None
        case "byte_alignment", _:
            return ["byte_alignment()", "", "", ""]
        case "unsupported", [feature]:
            return [f"*not supported: {feature}*", "", "", ""]
        case "limit_product", [_, name, limit]:
            return [f"*the product of {name} is bounded*", "", f"<= {limit}", ""]
        case "structure", [_, name, table, *_]:
            return [f"{table}()" + (f" as {name}" if name != table else ""), "", "", ""]
        case "fixed", [name, n, value]:
            return [f"**{name}**", f"u({n})", f"= {value}", ""]
        case kind, [_, name, *subscripts] if kind in _WITHOUT_PARAMETER:
            descriptor = _WITHOUT_PARAMETER[kind]
        case kind, [_, name, parameter, *subscripts]:
            descriptor = f"{kind}({parameter})"
    bounds = [f"{sign} {ranges[key]}" for key, sign in _RANGES.items() if key in ranges]
    inferred = getattr(defaults, name)
    absent = "" if depth == 0 or subscripts or inferred is None else repr(inferred)
    element = f"**{name}**" + "".join(f"[{j}]" for j in subscripts)
    return [element, descriptor, ", ".join(bounds), absent]


_WITHOUT_PARAMETER = {"flag": "u(1)", "flt": "flt(32)", "st": "st(v)", "bs": "bs(v)"}

_RANGES = {"low": ">=", "high": "<=", "limit": "<=", "enum": "see"}

_OWNERS = re.compile(r"\b(h|ctx|NnrCompressedDataUnitPayloadType|CompressedParameterTypes)\.")


def _text(node: ast.AST) -> str:
    """Return an expression without quotes and without the names of records and enumerations."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return _OWNERS.sub("", ast.unparse(node)).replace("|", "\\|")
