"""Validation of graphs, before anything is built from them.

Every operator is in the allow-list and every argument has the kind that its operator declares;
every reference is to an earlier value of a fitting kind; names cannot become code; numbers,
including those computed from numbers and from the example sizes of the inputs, fit in 64 bits.
Shapes and values are only checked by the operators, when the network runs.
"""

from __future__ import annotations

import math
from collections.abc import Container

from nnrcodec.errors import LimitExceededError, SyntaxElementError
from nnrcodec.graph.graph import (
    Argument,
    Graph,
    Input,
    Node,
    Output,
    Ref,
    TensorRef,
    Word,
)
from nnrcodec.graph.guards import TRUTHS, holds, misfit_of, parts
from nnrcodec.graph.names import MAX_NAME_LENGTH, RULE, is_identifier, is_key, is_safe
from nnrcodec.graph.operators import OPERATORS, Parameter, is_word
from nnrcodec.graph.scalars import INT64_MAX, INT64_MIN, ScalarError
from nnrcodec.graph.sizes import Known, example_shape, known_inputs, known_value, value_bytes
from nnrcodec.limits import Limits
from nnrcodec.model.dtypes import COMPUTED_DTYPES, item_bytes

MAX_OUTPUT_DEPTH = 16
"""Largest nesting depth of the containers of an output."""

MAX_LEAVES_OF_NODE = 20
"""Most numbers, words and references of a node, on average over the largest number of nodes."""

_CHANGE_SHAPES = frozenset({"aten.squeeze_.dim", "aten.unsqueeze_.default"})
"""Operators that change the shape of an existing value."""

CLAUSE = "spec/graph.md"


def check(
    graph: Graph,
    tensors: Container[str] | None = None,
    limits: Limits | None = None,
    path: str = "graph",
) -> None:
    """Raise unless `graph` is legal.

    Parameters
    ----------
    graph : Graph
        What to check; its fields may hold anything of the declared Python types.
    tensors : container of str, optional
        Names of the existing tensors; by default any name is accepted.
    limits : Limits, optional
        Bounds on nodes, dimensions and the size of inputs.
    path : str
        Position of the graph in the stream, for messages.

    Raises
    ------
    SyntaxElementError
        If the graph does not conform to ``spec/graph.md``; the message has the position.
    LimitExceededError
        If the graph has more nodes, dimensions or larger inputs than `limits` allow.
    """
    limits = limits or Limits()
    check_counts(len(graph.nodes), len(graph.inputs), len(graph.dims), limits, path)
    _check_dims(graph, path)
    _check_inputs(graph, limits, path)
    _check_guards(graph, limits, path)
    kinds = ["Tensor"] * len(graph.inputs)
    known = known_inputs(graph)
    leaves_left = MAX_LEAVES_OF_NODE * limits.max_graph_nodes
    for position, node in enumerate(graph.nodes):
        here = f"{path}/nodes[{position}]"
        kinds.append(_check_node(node, kinds, tensors, here))
        _check_lists(node, limits, here)
        known.append(_known_value(node, known, limits, here))
        if node.op in _CHANGE_SHAPES:
            known = [None] * len(known)
        leaves_left -= sum(1 for _ in node.leaves())
        if leaves_left < 0:
            raise LimitExceededError(
                f"more than {MAX_LEAVES_OF_NODE} arguments for each node that is allowed; graph "
                f"nodes: {limits.allowed('graph_nodes')}",
                path=here,
                clause=CLAUSE,
            )
    _check_output(graph.output, kinds, tensors, f"{path}/output", 0)


def check_counts(nodes: int, inputs: int, dims: int, limits: Limits, path: str) -> None:
    """Raise `LimitExceededError` if a graph has more nodes, inputs or dimensions than allowed."""
    for what, count in (("nodes", nodes), ("inputs", inputs), ("dims", dims)):
        if count > limits.max_graph_nodes:
            raise LimitExceededError(
                f"{count} {what}: {limits.allowed('graph_nodes')}",
                path=f"{path}/{what}",
                clause=CLAUSE,
            )


def _fail(message: str, path: str) -> SyntaxElementError:
    return SyntaxElementError(message, path=path, clause=CLAUSE)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= INT64_MAX


def _check_dims(graph: Graph, path: str) -> None:
    for name, dim in graph.dims.items():
        here = f"{path}/dims/{name}"
        high = INT64_MAX if dim.high is None else dim.high
        if not is_identifier(name):
            raise _fail("a dimension must be named by an identifier that is no keyword", here)
        if not (_is_size(dim.low) and _is_size(high) and _is_size(dim.example)):
            raise _fail("bounds and example must be sizes", here)
        if not dim.low <= dim.example <= high:
            raise _fail(f"the example {dim.example} is not within {dim.low}..{high}", here)


def _check_inputs(graph: Graph, limits: Limits, path: str) -> None:
    names: set[str] = set()
    for position, value in enumerate(graph.inputs):
        here = f"{path}/inputs[{position}]"
        _check_input(value, graph, limits, here)
        if value.name in names:
            raise _fail(f"a second input {value.name!r}", here)
        names.add(value.name)


def _check_guards(graph: Graph, limits: Limits, path: str) -> None:
    sizes = {name: dim.example for name, dim in graph.dims.items()}
    used = {size for value in graph.inputs for size in value.shape if isinstance(size, str)}
    left = MAX_LEAVES_OF_NODE * limits.max_graph_nodes
    for position, guard in enumerate(graph.guards):
        here = f"{path}/guards[{position}]"
        if not (isinstance(guard, tuple) and guard[:1] and guard[0] in TRUTHS):
            raise _fail("must begin with an operator that is true or not", here)
        misfit = misfit_of(guard, used)
        if misfit is not None:
            raise _fail(misfit, here)
        left -= sum(1 for _ in parts(guard))
        if left < 0:
            raise LimitExceededError(
                f"guards of more than {MAX_LEAVES_OF_NODE} parts for each node that is allowed; "
                f"graph nodes: {limits.allowed('graph_nodes')}",
                path=here,
                clause=CLAUSE,
            )
        if not holds(guard, sizes):
            raise _fail("the example sizes do not meet it", here)


def _check_input(value: Input, graph: Graph, limits: Limits, path: str) -> None:
    if not is_identifier(value.name):
        raise _fail(f"{value.name!r} is not an identifier, or a keyword", path)
    if value.dtype not in COMPUTED_DTYPES:
        raise _fail(f"unknown dtype {value.dtype!r}", path)
    if len(value.shape) > limits.max_dimensions:
        raise LimitExceededError(
            f"{len(value.shape)} dimensions, at most {limits.max_dimensions} allowed",
            path=path,
            clause=CLAUSE,
        )
    for size in value.shape:
        if not (size in graph.dims if isinstance(size, str) else _is_size(size)):
            raise _fail(f"{size!r} is neither a size nor a dimension of the graph", path)
    size = math.prod(example_shape(graph, value)) * item_bytes(value.dtype)
    if size > limits.max_value_bytes:
        raise LimitExceededError(
            f"{value.name} takes {size} bytes, at most {limits.max_value_bytes} allowed",
            path=path,
            clause=CLAUSE,
        )


def _check_node(node: Node, kinds: list[str], tensors: Container[str] | None, path: str) -> str:
    """Check one node, given the kinds of the values before it; return the kind of its value."""
    operator = OPERATORS.get(node.op)
    if operator is None:
        raise _fail(f"operator {node.op!r} is not in the allow-list", path)
    if len(node.args) > len(operator.positional):
        raise _fail(f"{node.op} takes at most {len(operator.positional)} arguments", path)
    given = dict(zip((p.name for p in operator.positional), node.args, strict=False))
    for name, argument in node.kwargs:
        if name in given:
            raise _fail(f"{node.op} is given {name!r} twice", path)
        given[name] = argument
    if operator.writes_in_place and isinstance(given.get(operator.positional[0].name), TensorRef):
        raise _fail(f"{node.op} would change a tensor of the model", path)
    for parameter in operator.parameters:
        if parameter.name in given:
            argument = given.pop(parameter.name)
            _check_argument(argument, parameter, kinds, tensors, f"{path}/{parameter.name}")
        elif not parameter.has_default:
            raise _fail(f"{node.op} lacks {parameter.name!r}", path)
    if given:
        raise _fail(f"{node.op} has no argument {next(iter(given))!r}", path)
    return operator.result


def _check_lists(node: Node, limits: Limits, path: str) -> None:
    """Raise for lists that make tensors with more axes than allowed."""
    for argument in (*node.args, *(value for _, value in node.kwargs)):
        if not isinstance(argument, tuple):
            continue
        most = limits.max_dimensions * (1 if node.op.startswith("aten.meshgrid.") else 2)
        if len(argument) > most and not node.op.startswith(_TAKE_LONG_LISTS):
            raise LimitExceededError(
                f"a list of {len(argument)} for {node.op}, at most {most} allowed",
                path=path,
                clause=CLAUSE,
            )


_TAKE_LONG_LISTS = (
    *("aten.cat.", "aten.concat", "aten.stack.", "aten.hstack.", "aten.vstack.", "aten.split"),
    *("aten.tensor_split.", "aten.einsum.", "aten.broadcast_tensors.", "aten.lstm.", "aten.gru."),
    *("aten.rnn_tanh.", "aten.rnn_relu."),
)
"""Operators whose lists are not sizes of axes; lists of padding have two numbers for each axis."""


def _known_value(node: Node, known: list[Known], limits: Limits, path: str) -> Known:
    """Return what is known of a value; raise for numbers and tensors that are too large."""
    try:
        value = known_value(node, known)
    except ScalarError as error:
        raise _fail(f"{node.op} at the example sizes: {error}", path) from None
    if isinstance(value, tuple) and len(value) > limits.max_dimensions:
        raise LimitExceededError(
            f"{node.op} makes {len(value)} axes, at most {limits.max_dimensions} allowed",
            path=path,
            clause=CLAUSE,
        )
    size = value_bytes(node, value)
    if size > limits.max_value_bytes:
        raise LimitExceededError(
            f"{node.op} makes a tensor of {size} bytes at the example sizes, at most "
            f"{limits.max_value_bytes} allowed",
            path=path,
            clause=CLAUSE,
        )
    return value


def _check_argument(
    argument: Argument,
    parameter: Parameter,
    kinds: list[str],
    tensors: Container[str] | None,
    path: str,
) -> None:
    if argument is None and parameter.nullable:
        return
    if not parameter.is_list:
        _check_item(argument, parameter.kind, kinds, tensors, path)
    elif isinstance(argument, Ref):
        if parameter.kind != "Tensor" or _kind_of(argument, kinds, path) != "Tensor[]":
            raise _fail(f"{argument!r} is not a list of {parameter.kind}", path)
    elif isinstance(argument, tuple):
        for position, item in enumerate(argument):
            if item is not None or not parameter.item_nullable:
                _check_item(item, parameter.kind, kinds, tensors, f"{path}[{position}]")
    else:
        raise _fail(f"must be a list of {parameter.kind}", path)


def _check_item(
    item: Argument, kind: str, kinds: list[str], tensors: Container[str] | None, path: str
) -> None:
    legal = False
    if isinstance(item, Ref):
        legal = _kind_of(item, kinds, path) in _REFERENCES.get(kind, ())
    elif isinstance(item, TensorRef):
        _check_tensor(item, tensors, path)
        legal = kind in {"Tensor", "Operand"}
    elif isinstance(item, Word):
        legal = item.kind == kind and is_word(kind, item.value)
    elif isinstance(item, bool | int | float):
        legal = _is_number_of_kind(item, kind)
    if not legal:
        raise _fail(f"{item!r} is not of kind {kind}", path)


_REFERENCES = {
    "Tensor": ("Tensor",),
    "Operand": ("Tensor", "Scalar"),
    "SymInt": ("Scalar",),
    "Scalar": ("Scalar",),
    "float": ("Scalar",),
}
"""For each kind of argument, the kinds of values to which it may be a reference."""


def _is_number_of_kind(number: bool | int | float, kind: str) -> bool:
    if isinstance(number, int) and not INT64_MIN <= number <= INT64_MAX:
        return False
    match kind:
        case "bool":
            return isinstance(number, bool)
        case "false":
            return number is False
        case "zero":
            return not isinstance(number, bool) and number == 0
        case "int" | "SymInt":
            return type(number) is int
        case "float":
            return not isinstance(number, bool)
        case "Scalar" | "Operand":
            return True
        case _:
            return False


def _kind_of(ref: Ref, kinds: list[str], path: str) -> str:
    if type(ref.index) is not int or not 0 <= ref.index < len(kinds):
        raise _fail("a reference must go back to an earlier value", path)
    return kinds[ref.index]


def _check_tensor(ref: TensorRef, tensors: Container[str] | None, path: str) -> None:
    check_name(ref.name, path)
    if tensors is not None and ref.name not in tensors:
        raise _fail(f"there is no tensor {ref.name!r}", path)


def check_name(name: str, path: str) -> None:
    """Raise unless a tensor of a network with a graph may have this name."""
    if not is_safe(name):
        raise _fail(f"a tensor is named {name!r}; with a graph names are {RULE}", path)


def _check_output(
    output: Output, kinds: list[str], tensors: Container[str] | None, path: str, depth: int
) -> None:
    if depth > MAX_OUTPUT_DEPTH:
        raise _fail(f"more than {MAX_OUTPUT_DEPTH} containers within each other", path)
    if isinstance(output, tuple | list):
        for position, item in enumerate(output):
            _check_output(item, kinds, tensors, f"{path}[{position}]", depth + 1)
    elif isinstance(output, dict):
        for key, item in output.items():
            if not is_key(key):
                raise _fail(
                    f"the key {key!r} must be printable, without quotes, backslashes and "
                    f"braces, and of {MAX_NAME_LENGTH} characters at most",
                    path,
                )
            _check_output(item, kinds, tensors, f"{path}/{key}", depth + 1)
    elif isinstance(output, Ref):
        if _kind_of(output, kinds, path) == "Tensor[]":
            raise _fail("a list of tensors must be split into tensors before it is returned", path)
    elif isinstance(output, TensorRef):
        _check_tensor(output, tensors, path)
    elif isinstance(output, bool | int | float):
        if not _is_number_of_kind(output, "Scalar"):
            raise _fail(f"{output} does not fit into 64 bits", path)
    elif output is not None:
        raise _fail(f"{output!r} cannot be returned", path)
