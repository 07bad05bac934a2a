"""The graph as JSON: compact, and strictly checked against ``spec/graph.md``.

`to_json` and `from_json` convert between a `Graph` and the JSON value in the container record.
References are written as distances, so that similar layers have the same text, which deflate
compresses well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from nnrcodec.errors import SyntaxElementError
from nnrcodec.graph.check import CLAUSE, MAX_OUTPUT_DEPTH, check, check_counts
from nnrcodec.graph.graph import (
    Argument,
    Dim,
    Graph,
    Input,
    Leaf,
    Node,
    Output,
    Ref,
    TensorRef,
    Word,
)
from nnrcodec.graph.guards import MAX_DEPTH, Expression
from nnrcodec.limits import Limits

REF = "r"
"""Member name of the object for a reference."""

FLOAT = "f"
"""Member name of the object for a float that is not a number of JSON."""

NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}

MAX_ARGUMENT_DEPTH = 2
"""Largest nesting depth of the lists of an argument."""

Item = TypeVar("Item")


def to_json(graph: Graph) -> dict[str, Any]:
    """Return a graph as a JSON value.

    Parameters
    ----------
    graph : Graph
        A legal graph.

    Returns
    -------
    dict
        For `json.dumps`, with ``allow_nan=False`` and the shortest separators.
    """
    operators = list(dict.fromkeys(node.op for node in graph.nodes))
    numbers = {name: number for number, name in enumerate(operators)}
    count = len(graph.inputs)
    guards = {"guards": [_guard_to_json(guard) for guard in graph.guards]} if graph.guards else {}
    return {
        "inputs": [[i.name, i.dtype, list(i.shape)] for i in graph.inputs],
        "dims": {name: [dim.low, dim.high, dim.example] for name, dim in graph.dims.items()},
        "ops": operators,
        "nodes": [
            [
                numbers[node.op],
                *(_argument_to_json(argument, count + p) for argument in node.args),
                *_kwargs_to_json(node, count + p),
            ]
            for p, node in enumerate(graph.nodes)
        ],
        "output": _output_to_json(graph.output, count + len(graph.nodes)),
        **guards,
    }


def _guard_to_json(expression: Expression) -> Any:
    return list(map(_guard_to_json, expression)) if isinstance(expression, tuple) else expression


def _kwargs_to_json(node: Node, number: int) -> list[Any]:
    if not node.kwargs:
        return []
    return [{"k": {name: _argument_to_json(value, number) for name, value in node.kwargs}}]


def _argument_to_json(argument: Argument, number: int) -> Any:
    if isinstance(argument, tuple):
        return [_argument_to_json(item, number) for item in argument]
    return _leaf_to_json(argument, number)


def _leaf_to_json(leaf: Leaf, number: int) -> Any:
    match leaf:
        case Ref(index):
            return {REF: number - index}
        case TensorRef(name):
            return name
        case Word(kind, value):
            return {kind: value}
        case float() if not math.isfinite(leaf):
            return {FLOAT: str(leaf)}
        case _:
            return leaf


def _output_to_json(output: Output, number: int) -> Any:
    if isinstance(output, tuple):
        return [_output_to_json(item, number) for item in output]
    if isinstance(output, list):
        return {"list": [_output_to_json(item, number) for item in output]}
    if isinstance(output, dict):
        return {"dict": {key: _output_to_json(item, number) for key, item in output.items()}}
    return _leaf_to_json(output, number)


def from_json(value: object, limits: Limits | None = None, path: str = "graph") -> Graph:
    """Return the graph of a JSON value.

    Parameters
    ----------
    value : object
        Result of `json.loads`; it is not trusted.
    limits : Limits, optional
        Bounds on the number of nodes and dimensions.
    path : str
        Position of the value, for messages.

    Returns
    -------
    Graph
        A graph that `nnrcodec.graph.check.check` accepts. The caller checks that the tensors that
        it names exist.

    Raises
    ------
    SyntaxElementError
        If the value does not conform to ``spec/graph.md``; the message has the position.
    LimitExceededError
        If the graph has more nodes or dimensions than `limits` allow.
    """
    limits = limits or Limits()
    members = _members(value, ("inputs", "dims", "ops", "nodes", "output"), path, ("guards",))
    rows = _array(members["nodes"], f"{path}/nodes")
    count = len(_array(members["inputs"], f"{path}/inputs"))
    check_counts(len(rows), count, len(_object(members["dims"], f"{path}/dims")), limits, path)
    inputs = _items(members["inputs"], _input, f"{path}/inputs")
    operators = _items(members["ops"], _string, f"{path}/ops")
    dims = {
        name: _dim(dim, f"{path}/dims/{name}")
        for name, dim in _object(members["dims"], f"{path}/dims").items()
    }
    nodes = tuple(
        _node(row, operators, len(inputs) + p, f"{path}/nodes[{p}]") for p, row in enumerate(rows)
    )
    output = _output(members["output"], len(inputs) + len(nodes), f"{path}/output", 0)
    guards = tuple(
        _guard(guard, f"{path}/guards[{p}]", 0)
        for p, guard in enumerate(_array(members.get("guards", []), f"{path}/guards"))
    )
    graph = Graph(inputs, nodes, output, dims, guards=guards)
    check(graph, None, limits, path)
    return graph


def _fail(message: str, path: str) -> SyntaxElementError:
    return SyntaxElementError(message, path=path, clause=CLAUSE)


def _object(value: object, path: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _fail("must be an object", path)
    return value


def _members(
    value: object, names: tuple[str, ...], path: str, optional: tuple[str, ...] = ()
) -> dict[str, object]:
    members = _object(value, path)
    if set(members) - set(optional) != set(names):
        raise _fail(f"must have the members {', '.join(names)} and no others", path)
    return members


def _array(value: object, path: str, length: int | None = None) -> list[object]:
    if not isinstance(value, list) or length not in (None, len(value)):
        raise _fail(f"must be an array{'' if length is None else f' of {length}'}", path)
    return value


def _items(value: object, read: Callable[[object, str], Item], path: str) -> tuple[Item, ...]:
    return tuple(read(item, f"{path}[{p}]") for p, item in enumerate(_array(value, path)))


def _string(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise _fail("must be a string", path)
    return value


def _integer(value: object, path: str) -> int:
    if type(value) is not int:
        raise _fail("must be an integer", path)
    return value


def _size(value: object, path: str) -> int | str:
    return value if isinstance(value, str) else _integer(value, path)


def _input(value: object, path: str) -> Input:
    name, dtype, shape = _array(value, path, 3)
    return Input(_string(name, path), _string(dtype, path), _items(shape, _size, path))


def _dim(value: object, path: str) -> Dim:
    low, high, example = _array(value, path, 3)
    return Dim(
        _integer(low, path),
        None if high is None else _integer(high, path),
        _integer(example, path),
    )


def _guard(value: object, path: str, depth: int) -> Any:
    """Return a part of a guard; `nnrcodec.graph.check` looks at what is in it."""
    if depth > MAX_DEPTH:
        raise _fail(f"more than {MAX_DEPTH} operators within one another", path)
    if isinstance(value, list):
        return tuple(_guard(part, path, depth + 1) for part in value)
    return value


def _node(row: object, operators: tuple[str, ...], number: int, path: str) -> Node:
    cells = _array(row, path)
    if not cells:
        raise _fail("must not be empty", path)
    op, *arguments = cells
    op = _integer(op, path)
    if not 0 <= op < len(operators):
        raise _fail(f"there is no operator {op}", path)
    named: dict[str, object] = {}
    last = arguments[-1] if arguments else None
    if isinstance(last, dict) and list(last) == ["k"]:
        named = _object(last["k"], path)
        arguments.pop()
    return Node(
        operators[op],
        tuple(
            _argument(argument, number, f"{path}/args[{p}]", 0)
            for p, argument in enumerate(arguments)
        ),
        tuple(
            (name, _argument(argument, number, f"{path}/{name}", 0))
            for name, argument in named.items()
        ),
    )


def _argument(value: object, number: int, path: str, depth: int) -> Argument:
    if not isinstance(value, list):
        return _leaf(value, number, path)
    if depth == MAX_ARGUMENT_DEPTH:
        raise _fail(f"more than {MAX_ARGUMENT_DEPTH} lists within each other", path)
    return tuple(_argument(v, number, f"{path}[{p}]", depth + 1) for p, v in enumerate(value))


def _leaf(value: object, number: int, path: str) -> Leaf:
    if isinstance(value, str):
        return TensorRef(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise _fail(f"{value} must be written as an object", path)
    if value is None or isinstance(value, bool | int | float):
        return value
    members = _object(value, path)
    if len(members) != 1:
        raise _fail("must be an object with one member", path)
    ((kind, content),) = members.items()
    if kind == REF:
        return Ref(number - _integer(content, path))
    content = _string(content, path)
    if kind == FLOAT:
        if content not in NON_FINITE:
            raise _fail(f"must be one of {', '.join(NON_FINITE)}", path)
        return NON_FINITE[content]
    return Word(kind, content)


def _output(value: object, number: int, path: str, depth: int) -> Output:
    if depth > MAX_OUTPUT_DEPTH:
        raise _fail(f"more than {MAX_OUTPUT_DEPTH} containers within each other", path)

    def item(value: object, path: str) -> Output:
        return _output(value, number, path, depth + 1)

    if isinstance(value, list):
        return _items(value, item, path)
    if isinstance(value, dict) and list(value) == ["list"]:
        return list(_items(value["list"], item, path))
    if isinstance(value, dict) and list(value) == ["dict"]:
        members = _object(value["dict"], path)
        return {key: item(member, f"{path}/{key}") for key, member in members.items()}
    return _leaf(value, number, path)
