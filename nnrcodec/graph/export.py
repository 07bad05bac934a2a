"""From PyTorch to a `Model`: an exported program, or a module that is exported first.

The graph of `torch.export` is used before any decomposition, so that convolutions, normalisations
and attention stay single operators. Run-time assertions, devices of tensors, and nodes whose value
is not used are omitted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from nnrcodec.errors import BitstreamError, ModelError
from nnrcodec.graph.check import check
from nnrcodec.graph.generality import (
    Examples,
    Trial,
    breaking_sizes,
    broken_guards,
    difference,
    joined,
    refusal,
    with_sizes_fixed,
    without_needless,
)
from nnrcodec.graph.graph import (
    Argument,
    Dim,
    Graph,
    Input,
    Node,
    Output,
    Ref,
    TensorRef,
    Word,
)
from nnrcodec.graph.guarding import with_fixed, with_guards
from nnrcodec.graph.guards import sentence
from nnrcodec.graph.module import (
    DecodedModel,
    check_inputs,
    first_line,
    model_of_decoded,
    signature_of,
)
from nnrcodec.graph.names import with_safe_names
from nnrcodec.graph.operators import OPERATORS
from nnrcodec.graph.operators_torch import NAMES, TORCH_WORDS, WORD_NAMES
from nnrcodec.graph.preparing import tensors_only, unwrapped, without_parametrizations
from nnrcodec.graph.sizes import example_shape
from nnrcodec.graph.torch_internals import (
    expression_of,
    guard_codes_of,
    hint_of,
    is_fixed,
    storage_key,
    with_ones_like_others,
)
from nnrcodec.model.dtypes import COMPUTED_DTYPES
from nnrcodec.model.model import Model, Role, Tensor, ties_of
from nnrcodec.model.torch_values import from_torch, place_of

logger = logging.getLogger(__name__)

_ASSERTIONS = frozenset(
    {
        "aten._assert_async.msg",
        "aten._assert_scalar.default",
        "aten._assert_tensor_metadata.default",
        "aten.sym_constrain_range.default",
        "aten.sym_constrain_range_for_size.default",
    }
)
"""Operators that compute nothing; they are omitted."""

_GRADIENT_SWITCH = "torch.ops.higher_order.wrap_with_set_grad_enabled"
"""Operator for ``torch.no_grad()`` inside a network in an export with gradients enabled."""

_OMITTED_ARGUMENTS = frozenset({"device", "layout", "pin_memory", "generator"})
"""Arguments of ATen operators that are omitted."""

_OVERLOAD = type(torch.ops.aten.relu.default)
"""Type of the operators of ATen in a graph of PyTorch."""

_Kind = torch.export.graph_signature.InputKind
_OutputKind = torch.export.graph_signature.OutputKind
_ROLES = {
    _Kind.PARAMETER: Role.PARAMETER,
    _Kind.BUFFER: Role.BUFFER,
    _Kind.CONSTANT_TENSOR: Role.CONSTANT,
}


def model_of_module(
    module: torch.nn.Module,
    example_inputs: Sequence[torch.Tensor],
    dynamic_shapes: Any = None,
) -> Model:
    """Export a module for inference and return it as a `Model`.

    Parameters
    ----------
    module : torch.nn.Module
        The network. It is exported in evaluation mode; its training flags are left as they were.
    example_inputs : sequence
        Inputs by position, of a valid size: tensors, which are moved to the device of the module if
        they are on another; or lists and mappings of tensors, which become inputs of their own; or
        numbers, texts and None, which the graph has as they are here.
    dynamic_shapes : optional
        As for `torch.export.export`. By default every axis of every input is dynamic, except the
        channel axis (1) of inputs with four or five axes, and `torch.export` determines which axes
        the network requires to be fixed. A batch of one is doubled before, because many networks
        go another way for it. The outputs of graph and module must then be equal, for the example
        and at other sizes. Where the network asks about sizes, the graph refuses those for which it
        would be wrong. If all of this fails, only axis 0 is dynamic, or none.
        Axes that became fixed are logged: as a warning with the reason if an attempt failed, as
        information if the network takes no other size. A decoded model that takes the example
        inputs keeps its graph, and so its dynamic axes.

    Returns
    -------
    Model
        With a graph.

    Raises
    ------
    ModelError
        If the network cannot be exported or coded; the message says why.
    """
    module, examples = unwrapped(module), tuple(example_inputs)
    if isinstance(module, DecodedModel) and dynamic_shapes is None:
        try:
            check_inputs(module._nnr_graph, examples)
        except ValueError as error:
            logger.warning("this decoded model is exported again: %s", error)
        else:
            return _checked(model_of_decoded(module), module._nnr_graph)
    try:
        return _exported(module, examples, dynamic_shapes)
    except ModelError:
        folded = without_parametrizations(module)
        if folded is None:
            raise
        return _exported(folded, examples, dynamic_shapes)


def _exported(module: torch.nn.Module, examples: Sequence[Any], dynamic_shapes: Any) -> Model:
    with (
        _evaluation_mode(module),
        _named_inputs(module),
        tensors_only(module, examples) as (tensors, is_changed),
        _quiet_export(),
        torch.no_grad(),
    ):
        tensors = _moved_to(module, tensors)
        if dynamic_shapes is None:
            return _with_dynamic_sizes(module, tensors)
        if is_changed:
            raise ModelError("dynamic_shapes are for modules that take tensors only: omit them")
        return _exported_for_all(module, tensors, lambda _: dynamic_shapes)


def _with_dynamic_sizes(module: torch.nn.Module, examples: Examples) -> Model:
    """Export a module with as many dynamic sizes as possible; log which are fixed, and why."""
    reasons: list[str] = []
    for attempt, axes_of in _attempts(examples):
        try:
            model = _if_general(module, attempt, axes_of, examples, reasons)
        except _ExportError as error:
            reasons.append(first_line(error))
            continue
        if model is not None:
            _log_fixed_axes(model, examples, reasons)
            return model
    model = _with_first_axis(module, examples, reasons)
    if model is None:
        model = model_of_program(_export(module, examples, None), is_own=True)
    _log_fixed_axes(model, examples, reasons)
    return model


def _with_first_axis(
    module: torch.nn.Module, examples: Examples, reasons: list[str]
) -> Model | None:
    """Export with the first axes dynamic; if the graph is wrong, return None and add to `reasons`.

    PyTorch may take an axis for one that is longer than 1, which it is not.
    """
    try:
        program = _export(module, examples, _first_axis(examples))
        model = with_sizes_fixed(model_of_program(program, is_own=True))
    except _ExportError as error:
        reasons.append(first_line(error))
        return None
    problem = refusal(model, examples) or difference(module, model, examples)
    if problem is None:
        return model
    reasons.append(problem)
    return None


def _if_general(
    module: torch.nn.Module,
    attempt: Examples,
    axes_of: Callable[[Examples], Any],
    examples: Examples,
    reasons: list[str],
) -> Model | None:
    """Export with some axes dynamic; if no graph is right, return None and add to `reasons`.

    Where the network asks about sizes, it is exported at some others, too: one of the graphs may
    hold for all of them.
    """
    model = _exported_for_all(module, attempt, axes_of)
    problem = refusal(model, examples) or difference(module, model, attempt)
    problem = problem or Trial(module, model, attempt).difference(examples)
    if problem is None:
        return model
    reasons.append(problem)
    return None


def _exported_for_all(
    module: torch.nn.Module, examples: Examples, axes_of: Callable[[Examples], Any]
) -> Model:
    """Export, also at sizes that go other ways, and return the graph that holds for most."""
    first = model_of_program(_export(module, examples, axes_of(examples)), is_own=True)
    first = without_needless(module, first, examples)
    return joined(module, [first, *_exported_elsewhere(module, first, examples, axes_of)], examples)


def _exported_elsewhere(
    module: torch.nn.Module,
    first: Model,
    attempt: Examples,
    axes_of: Callable[[Examples], Any],
) -> Iterator[Model]:
    """Yield exports at sizes that break the guards of the first one, or at which it is wrong."""
    graph = first.graph
    if graph is None or not graph.dims:
        return
    if not broken_guards(graph) and difference(module, first, attempt) is None:
        return
    base = {name: dim.example for name, dim in graph.dims.items()}
    trial = Trial(module, first, attempt)
    models = [first]
    larger = {name: size + 1 for name, size in base.items()}
    for sizes in (
        *(breaking for g in graph.guards for breaking in breaking_sizes(graph, g)),
        larger,
    ):
        inputs = trial.at(sizes)
        if any(refusal(model, inputs) is None for model in models):
            continue  # an export from there is one of those before
        if len(models) > _MOST_OTHERS:
            return
        try:
            model = model_of_program(_export(module, inputs, axes_of(inputs)), is_own=True)
        except ModelError as error:
            logger.info("no export at other sizes: %s", first_line(error))
            continue
        models.append(model)
        yield model


_MOST_OTHERS = 4
"""Exports at other sizes."""


def _moved_to(module: torch.nn.Module, examples: Examples) -> Examples:
    """Return the examples on the device of the module; unchanged if it has several or none."""
    devices = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    elsewhere = {example.device for example in examples} - devices
    if len(devices) != 1 or not elsewhere:
        return examples
    (device,) = devices
    logger.warning(
        "example inputs are on %s and are moved to %s, where the module is",
        ", ".join(sorted(map(str, elsewhere))),
        device,
    )
    return tuple(example.to(device) for example in examples)


def _log_fixed_axes(model: Model, examples: Examples, reasons: Sequence[str]) -> None:
    """Log which axes, of those that could be dynamic, are fixed in the graph, and conditions."""
    broken = [] if model.graph is None else broken_guards(model.graph)
    if model.graph is not None and broken:
        places = model.graph.places
        logger.warning(
            "the network asks about sizes, and its graph holds only for inputs with %s: other "
            "sizes are refused when it runs",
            sentence(broken, places),
        )
    inputs = model.graph.inputs if model.graph else ()
    fixed = [
        (f"axis {axis} of input {value.name!r} to {value.shape[axis]}", value.shape[axis])
        for value, axes in zip(inputs, _all_axes(examples), strict=True)
        for axis in axes
        if not isinstance(value.shape[axis], str)
    ]
    by_network = [axis for axis, size in fixed if size not in (0, 1)]
    by_example = [axis for axis, size in fixed if size in (0, 1)]
    if reasons and fixed:
        logger.warning(
            "fixed in the graph: %s; with more dynamic sizes it cannot be exported, or its outputs "
            "differ from those of the module (%s)",
            ", ".join(axis for axis, _ in fixed),
            "; ".join(dict.fromkeys(reasons)),
        )
        return
    if by_example:
        logger.warning(
            "fixed in the graph: %s, because an example of size 0 or 1 cannot be dynamic",
            ", ".join(by_example),
        )
    if by_network:
        logger.info("fixed in the graph by the network: %s", ", ".join(by_network))


def model_of_program(program: torch.export.ExportedProgram, *, is_own: bool = False) -> Model:
    """Return an exported program as a `Model`.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        From `torch.export.export` or `torch.export.load`.
    is_own : bool
        Whether it was exported here (`with_ones_like_others`).

    Returns
    -------
    Model
        Its tensors are in the order of the state dict, followed by other tensors that the graph
        uses. Names that are not allowed in a stream with a graph are replaced
        (`nnrcodec.graph.names`). Tied parameters are two tensors, each under its name. Arrays are
        created when they are read.

    Raises
    ------
    ModelError
        If the program contains an operator outside the allow-list (the message names every one),
        control flow, changes to its inputs or to its own tensors, inputs that are not tensors, or
        a tensor of a dtype that has no name in `nnrcodec.model.dtypes.COMPUTED_DTYPES`.
    """
    codes = guard_codes_of(program)
    if any(_name(node) == _GRADIENT_SWITCH for node in program.graph.nodes):
        with _quiet_export():
            program = program.run_decompositions({})  # this merges the parts into one graph
    for result in program.graph_signature.output_specs:
        if result.kind not in (_OutputKind.USER_OUTPUT, _OutputKind.USER_INPUT_MUTATION):
            raise ModelError(
                f"{result.target!r} is changed by the network ({result.kind.name.lower()}): what "
                f"it keeps from call to call cannot be coded; {_WITHOUT_GRAPH}"
            )
    values = {value.arg.name: value for value in program.graph_signature.input_specs}
    tensors: dict[str, TensorRef] = {}
    roles: dict[str, Role] = {}
    for name, value in values.items():
        if value.kind in _ROLES:
            tensors[name] = TensorRef(str(value.target))
            in_state = value.kind is not _Kind.BUFFER or value.persistent
            roles[str(value.target)] = _ROLES[value.kind] if in_state else Role.CONSTANT
        elif value.kind is not _Kind.USER_INPUT:
            raise ModelError(f"input {name!r} is a {value.kind.name.lower()}, not a tensor")
    inputs, dims = _inputs(program, is_own=is_own)
    graph = with_guards(_graph(program, tensors, inputs, dims), codes, is_own=is_own)
    state = {**program.state_dict, **program.constants}
    order = [name for name in state if name in roles]
    tensors_in_order = [_tensor(name, state[name], roles[name]) for name in order]
    ties = ties_of((name, place_of(state[name])) for name in order)
    model = Model.of(tensors_in_order, graph, ties=ties)
    model = with_safe_names(model)
    graph = model.graph or graph
    if graph.original_names:
        safe, original = next(iter(graph.original_names.items()))
        logger.warning(
            "%d names are not allowed in a stream with a graph, such as %r, which is coded as %r; "
            "state dicts get the original names, decoded networks the coded ones",
            len(graph.original_names),
            original,
            safe,
        )
    return _checked(model, graph)


def model_of_foreign_program(program: torch.export.ExportedProgram) -> Model:
    """Return a program that somebody has exported, after a look at what its graph does.

    Parameters, returns, errors
    ---------------------------
    As of `model_of_program`; a `ModelError` also if the graph does something else than the program.
    Sizes at which it does so are fixed, which is logged.
    """
    model = model_of_program(program)
    graph = model.graph
    if graph is None or not graph.inputs:
        return model
    examples = _examples_of(program, graph)
    with torch.no_grad(), _quiet_export():
        network = program.module()
        problem = difference(network, model, examples, few=True)
    if problem is None:
        return model
    if not graph.dims:
        raise ModelError(f"the graph does something else than the program: {problem}")
    return replace(model, graph=with_fixed(graph, set(graph.dims), problem))


def _examples_of(program: torch.export.ExportedProgram, graph: Graph) -> Examples:
    """Return inputs of the example sizes: those of the program, or small numbers."""
    generator = torch.Generator().manual_seed(0)

    def made(value: Input) -> torch.Tensor:
        dtype = TORCH_WORDS["dtype"][value.dtype]
        shape = example_shape(graph, value)
        if dtype.is_floating_point or dtype.is_complex:
            return torch.rand(shape, generator=generator).to(dtype)
        return torch.randint(0, 2, shape, generator=generator).to(dtype)

    given = program.example_inputs
    flat = [] if given is None else [*given[0], *given[1].values()]
    shapes = [example_shape(graph, value) for value in graph.inputs]
    if [tuple(getattr(value, "shape", ())) for value in flat] == shapes:
        return tuple(flat)
    return tuple(map(made, graph.inputs))


def _checked(model: Model, graph: Graph) -> Model:
    """Return a model if its graph can be coded."""
    try:
        check(graph, model.tensors)
    except BitstreamError as error:
        raise ModelError(f"the graph of this network cannot be coded: {error}") from error
    return model


class _ExportError(ModelError):
    """`torch.export` refuses the module with these dynamic dimensions."""


def _export(
    module: torch.nn.Module, examples: Examples, dynamic_shapes: Any
) -> torch.export.ExportedProgram:
    try:
        with with_ones_like_others():
            return torch.export.export(module, examples, dynamic_shapes=dynamic_shapes)
    except Exception as error:  # including any exception of the module's own code
        raise _ExportError(f"torch.export cannot export this module: {error}") from error


def _all_axes(examples: Examples) -> tuple[Any, ...]:
    """Return all axes as dynamic, except the channel axis of images and volumes."""
    return tuple(
        {axis: torch.export.Dim.AUTO for axis in range(e.dim()) if axis != 1 or e.dim() < 4}
        for e in examples
    )


def _first_axis(examples: Examples) -> tuple[Any, ...]:
    return tuple({0: torch.export.Dim.AUTO} if e.dim() else {} for e in examples)


def _longer_axes(examples: Examples) -> tuple[Any, ...]:
    """Return those of them that are longer than 1."""
    return tuple(
        {axis: kind for axis, kind in axes.items() if e.shape[axis] > 1}
        for e, axes in zip(examples, _all_axes(examples), strict=True)
    )


def _attempts(examples: Examples) -> Iterator[tuple[Examples, Callable[[Examples], Any]]]:
    """Yield examples to export with, and their dynamic axes.

    For a batch of one, there is a batch of two first. Last come the axes longer than 1: a network
    may squeeze the others.
    """
    if any(e.dim() and e.shape[0] == 1 for e in examples):
        yield tuple(torch.cat([e, e]) if e.dim() else e for e in examples), _all_axes
    yield examples, _all_axes
    if any(1 in e.shape for e in examples):
        yield examples, _longer_axes


@contextlib.contextmanager
def _evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, flag in flags:
            part.training = flag


@contextlib.contextmanager
def _named_inputs(module: torch.nn.Module) -> Iterator[None]:
    """Give the forward of a decoded model its input names, which ``*args`` hides, for export."""
    if not isinstance(module, DecodedModel):
        yield
        return
    run = module.forward

    def forward(*args: Any) -> Any:
        return run(*args)

    forward.__signature__ = signature_of(module._nnr_graph)  # type: ignore[attr-defined]
    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward


@contextlib.contextmanager
def _quiet_export() -> Iterator[None]:
    """Silence warnings of the exporter, and keep attention in portable operators."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"torch\.(_?export|fx|_dynamo|_functorch)\b")
            warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
            # Recurrent layers have a second reference to their weights, in a list.
            warnings.filterwarnings(
                "ignore", message=r"The tensor attributes? self\..*_flat_weights"
            )
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _tensor(name: str, value: Any, role: Role) -> Tensor:
    if not isinstance(value, torch.Tensor):
        raise ModelError(f"{name!r} is a {type(value).__name__}, not a tensor")
    tensor = from_torch(name, value, role)
    if tensor.dtype not in COMPUTED_DTYPES:
        raise ModelError(
            f"tensor {name!r} has dtype {tensor.dtype}, which no network with a graph may have; "
            "without the graph, as a state dict, it can be coded"
        )
    return tensor


def _inputs(
    program: torch.export.ExportedProgram, *, is_own: bool
) -> tuple[tuple[Input, ...], dict[str, Dim]]:
    """Return the user inputs under the names of the arguments, and their dynamic dimensions."""
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    names = list(program.graph_signature.user_inputs)
    args, kwargs = program.call_spec.in_spec.unflatten(names)
    if [*args, *kwargs.values()] != names:
        raise ModelError("inputs must be tensors, not lists or dictionaries of tensors")
    signature = program.module_call_graph[0].signature
    arguments = (signature.forward_arg_names if signature else None) or names
    inputs: list[Input] = []
    dims: dict[str, Dim] = {}
    symbols: dict[Any, str] = {}
    for argument, name in zip(arguments, names, strict=True):
        value = placeholders[name].meta.get("val") if isinstance(name, str) else None
        if not isinstance(value, torch.Tensor) or value.dtype not in WORD_NAMES:
            raise ModelError(f"input {argument!r} is not a tensor of a dtype that can be coded")
        shape: list[int | str] = []
        for size in value.shape:
            if isinstance(size, int) or is_fixed(size):
                shape.append(int(size))
                continue
            symbol = expression_of(size)
            if symbol not in symbols:
                symbols[symbol] = f"d{len(symbols)}"
                dims[symbols[symbol]] = _dim(
                    program.range_constraints.get(symbol), size, is_own=is_own
                )
            shape.append(symbols[symbol])
        while any(other.name == argument for other in inputs):
            argument += "_"
        inputs.append(Input(argument, WORD_NAMES[value.dtype][1], tuple(shape)))
    return tuple(inputs), dims


def _dim(bounds: Any, size: torch.SymInt, *, is_own: bool) -> Dim:
    """Return the bounds on a size.

    A lower bound of 2 only means that 0 and 1 were not tried, unless the export is one of ours.
    """
    low = int(bounds.lower) if bounds is not None else 0
    high: Any = bounds.upper if bounds is not None else None
    bounded = getattr(high, "is_Integer", False) and high < 2**62
    return Dim(low if low > 2 or is_own else 0, int(high) if bounded else None, hint_of(size))


def _graph(
    program: torch.export.ExportedProgram,
    tensors: Mapping[str, TensorRef],
    inputs: tuple[Input, ...],
    dims: Mapping[str, Dim],
) -> Graph:
    calls = _live_calls(program.graph)
    _refuse_unknown(calls)
    changed = _changed_inputs(program, calls)
    values: dict[str, Argument] = {**tensors}
    values |= {name: Ref(p) for p, name in enumerate(program.graph_signature.user_inputs)}
    copies = [Node("aten.clone.default", (values[name],)) for name in changed]
    for position, name in enumerate((*changed, *(call.name for call in calls))):
        values[name] = Ref(len(inputs) + position)
    nodes = (*copies, *(_node(call, values) for call in calls))
    (returned,) = (n for n in program.graph.nodes if n.op == "output")
    kinds = (result.kind for result in program.graph_signature.output_specs)
    outputs = [
        _argument(value, "", values)
        for value, kind in zip(returned.args[0], kinds, strict=True)
        if kind is _OutputKind.USER_OUTPUT
    ]
    output = _plain(program.call_spec.out_spec.unflatten(outputs))
    return Graph(inputs, nodes, output, dims)


def _live_calls(graph: torch.fx.Graph) -> list[torch.fx.Node]:
    """Return the nodes that are used by live nodes, are unknown, or write in place."""
    live: set[torch.fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op in {"placeholder", "output", "get_attr"} or _name(node) in _ASSERTIONS:
            continue
        operator = OPERATORS.get(_name(node))
        used = any(user in live or user.op == "output" for user in node.users)
        if used or operator is None or operator.writes_in_place:
            live.add(node)
    return [node for node in graph.nodes if node in live]


def _name(node: torch.fx.Node) -> str:
    """Return the name of the operator of a node, as in the allow-list if it is in it."""
    target: Any = node.target
    if isinstance(target, str):
        return f"{node.op} {target}"
    if isinstance(target, _OVERLOAD):
        name = str(target)
        return "aten.to.dtype" if name == "aten.to.device" else name
    if target in NAMES:
        return NAMES[target]
    return f"{getattr(target, '__module__', '?')}.{getattr(target, '__qualname__', target)}"


def _refuse_unknown(calls: Sequence[torch.fx.Node]) -> None:
    unknown: dict[str, str] = {}
    for call in calls:
        if _name(call) not in OPERATORS:
            unknown.setdefault(_name(call), _place(call))
    if not unknown:
        return
    listed = "; ".join(f"{name} at {place}" for name, place in unknown.items())
    if all(_is_random(name) for name in unknown):
        raise ModelError(
            f"the network draws random numbers ({listed}), and a graph is the same each time: make "
            f"them an input of the network, or {_WITHOUT_GRAPH}"
        )
    raise ModelError(
        f"operators outside the list of those that a graph may have: {listed}; {_WITHOUT_GRAPH}"
    )


def _is_random(name: str) -> bool:
    return any(part in name for part in ("rand", "bernoulli", "multinomial", "normal_", "dropout"))


_WITHOUT_GRAPH = (
    "encode the module without example inputs: the receiver then needs its class, and load_into"
)


def _place(node: torch.fx.Node) -> str:
    """Return the position of a node in the network, for messages."""
    stack = node.meta.get("nn_module_stack") or {}
    layers = [path for path, _ in stack.values() if path]
    return f"node {node.name!r}" + (f" of layer {layers[-1]!r}" if layers else "")


def _changed_inputs(
    program: torch.export.ExportedProgram, calls: Sequence[torch.fx.Node]
) -> list[str]:
    """Return the inputs that nodes write into, or into views of; the graph changes copies of them.

    Raises
    ------
    ModelError
        A node writes into a tensor of the model, or into several inputs that share memory.
    """
    given = {_storage(node): node for node in program.graph.nodes if node.op == "placeholder"}
    inputs = set(program.graph_signature.user_inputs)
    changed: dict[str, None] = {}
    for call in calls:
        name = _name(call)
        if OPERATORS[name].writes_in_place and name != "aten.detach_.default":
            target = given.get(_storage(call.all_input_nodes[0]))
            if target is not None and target.name in inputs:
                changed[target.name] = None
            elif target is not None:
                raise ModelError(
                    f"{name} at {_place(call)} changes {target.name!r} in place, a tensor of the "
                    f"network: what it keeps from call to call cannot be coded; {_WITHOUT_GRAPH}"
                )
        trains = call.args[5] if name in _RUNNING_STATISTICS else False
        if trains and call.args[3] is not None:
            raise ModelError(f"{name} at {_place(call)} updates its running statistics")
    return list(changed)


_RUNNING_STATISTICS = frozenset({"aten.batch_norm.default", "aten.instance_norm.default"})
"""Operators that update arguments 3 and 4 where argument 5 is true."""


def _storage(node: torch.fx.Node) -> object:
    value = node.meta.get("val")
    return storage_key(value) if isinstance(value, torch.Tensor) else node


def _node(call: torch.fx.Node, values: Mapping[str, Argument]) -> Node:
    operator = OPERATORS[_name(call)]
    args = list(call.args)
    if str(call.target) == "aten.to.device":
        del args[1]
    converted = []
    for parameter, value in zip(operator.positional, args, strict=False):
        if parameter.is_list and isinstance(value, int | float):
            value = [value]
        converted.append(_argument(value, parameter.kind, values))
    kinds = {parameter.name: parameter.kind for parameter in operator.parameters}
    named = {name: value for name, value in call.kwargs.items() if name not in _OMITTED_ARGUMENTS}
    if call.kwargs.get("layout") not in (None, torch.strided):
        raise ModelError(f"{operator.name} at {_place(call)} makes a sparse tensor")
    return Node(
        operator.name,
        tuple(converted),
        tuple((name, _argument(value, kinds[name], values)) for name, value in named.items()),
    )


def _argument(value: Any, kind: str, values: Mapping[str, Argument]) -> Argument:
    if isinstance(value, torch.fx.Node) and value.name in values:
        return values[value.name]
    if isinstance(value, str):
        return Word(kind, value)
    if isinstance(value, Sequence):
        return tuple(_argument(item, kind, values) for item in value)
    if isinstance(value, torch.dtype | torch.memory_format) and value in WORD_NAMES:
        return Word(*WORD_NAMES[value])
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ModelError(f"an argument {value!r} cannot be coded")


def _plain(output: Any) -> Output:
    """Return the output; raise for containers other than tuples, lists and dictionaries."""
    if type(output) is tuple:
        return tuple(_plain(item) for item in output)
    if type(output) is list:
        return [_plain(item) for item in output]
    if isinstance(output, tuple | list):
        kind = type(output).__name__
        names = ", ".join(getattr(output, "_fields", ()))
        logger.warning("a %s that is returned becomes a tuple%s", kind, f": {names}" * bool(names))
        return tuple(_plain(item) for item in output)
    if dataclasses.is_dataclass(output) and not isinstance(output, dict | type | Ref | TensorRef):
        logger.warning("a %s that is returned becomes a dict", type(output).__name__)
        fields = (field.name for field in dataclasses.fields(output))
        return {name: _plain(getattr(output, name)) for name in fields}
    if isinstance(output, dict):
        if type(output) is not dict:
            logger.info("a %s that is returned becomes a dict", type(output).__name__)
        if not all(isinstance(key, str) for key in output):
            logger.warning("keys of a dict that is returned become strings")
        return {str(key): _plain(item) for key, item in output.items()}
    if output is None or isinstance(output, bool | int | float | Ref | TensorRef):
        return output
    raise ModelError(
        f"the network returns a {type(output).__name__}: tensors, numbers, None, and tuples, lists "
        f"and dicts of them can be returned; {_WITHOUT_GRAPH}"
    )
