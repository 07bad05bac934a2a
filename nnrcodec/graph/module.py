"""A graph and its tensors as a PyTorch module.

`DecodedModel` calls the operators of the graph in order. It is not a `torch.fx.GraphModule`,
because a GraphModule generates Python source from the graph and executes it, so that names from a
stream would become source code, and its own attributes (``graph``, ``code``) would conflict with
layers of these names. Here no source is generated; a stream can only select among the functions of
`nnrcodec.graph.operators_torch`.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from nnrcodec.errors import (
    LimitExceededError,
    ModelError,
    SyntaxElementError,
    UnsupportedFeatureError,
)
from nnrcodec.graph.check import CLAUSE, check, check_name
from nnrcodec.graph.graph import Graph, Node, Ref, TensorRef, Word, leaves
from nnrcodec.graph.guards import dims_of, holds, sentence
from nnrcodec.graph.operators import OPERATORS
from nnrcodec.graph.operators_torch import FUNCTIONS, IN_ANY_LAYOUT, TORCH_WORDS
from nnrcodec.graph.scalars import FUNCTIONS as SCALARS
from nnrcodec.graph.scalars import ScalarError, fits
from nnrcodec.graph.trusting_operators import CHECKS, ArgumentsError
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model, Role, Tensor, ties_of
from nnrcodec.model.torch_values import from_torch, place_of, to_torch

MAX_LAYERS_DEEP = 100
"""Largest nesting depth of layers, which PyTorch visits recursively."""

LAYERS_OF_TENSOR = 8
"""Most layers for each tensor, on average, in a model of many layers."""

_RELU = "aten.relu.default"


class _Call(NamedTuple):
    """A node with the function that it calls."""

    function: Callable[..., Any]
    node: Node
    takes_device: bool
    done_with: tuple[int, ...]
    """Numbers of the values that no later node needs."""


class DecodedModel(torch.nn.Module):
    """A decoded network.

    Parameters and buffers have their names of the stream, in nested plain modules, so that
    ``state_dict()`` equals that of the original if all its names are allowed in a stream. It is
    called like the original: with inputs by position or by name. It can be copied and pickled.

    Parameters
    ----------
    graph : Graph
        A graph that has been checked.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._nnr_graph = graph
        self._nnr_fast = False
        self._nnr_calls = _calls(graph, fast=False)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_nnr_calls"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._nnr_calls = _calls(self._nnr_graph, fast=self._nnr_fast)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network.

        Parameters
        ----------
        *args, **kwargs : torch.Tensor
            The inputs, by position or by name.

        Returns
        -------
        object
            Tensors in the same tuples, lists and dictionaries as those of the original.

        Raises
        ------
        ValueError
            If an input has a size for which the model was not exported.
        """
        bound = signature_of(self._nnr_graph).bind(*args, **kwargs)
        _check_sizes(self._nnr_graph, bound.arguments)
        return self._run(list(bound.arguments.values()))

    def _run(self, values: list[Any]) -> Any:
        """Call the operators; `values` has the inputs, and the values of nodes are appended."""
        for position in range(len(self._nnr_calls)):
            for number in run_node(self, position, values):
                values[number] = None
        return output_of(self, values)

    def extra_repr(self) -> str:
        """Return inputs and size of the graph."""
        graph = self._nnr_graph
        inputs = ", ".join(f"{i.name}: {i.dtype}{list(i.shape)}" for i in graph.inputs)
        return f"{inputs}; {len(graph.nodes)} operators"


def build_module(model: Model, limits: Limits | None = None) -> DecodedModel:
    """Return a module that runs a model, in evaluation mode.

    Parameters
    ----------
    model : Model
        With a graph. Its arrays become the memory of the tensors if they are writable.
    limits : Limits, optional
        Bounds on the graph. They bound time and memory of a run only as far as these are known
        from the graph.

    Returns
    -------
    DecodedModel
        On the CPU. Floating-point parameters require gradients.

    Raises
    ------
    BitstreamError
        If the graph is not legal or a tensor has a name that is not allowed in a module.
    UnsupportedFeatureError
        If this version of PyTorch lacks an operator.
    ModelError
        If the model has no graph.
    """
    if model.graph is None:
        raise ModelError("this model has tensors only, no graph to run")
    check(model.graph, model.tensors, limits)
    module = DecodedModel(model.graph)
    layers: dict[str, torch.nn.Module] = {"": module}
    most_layers = LAYERS_OF_TENSOR * len(model.tensors) + MAX_LAYERS_DEEP
    for tensor in model.tensors.values():
        check_name(tensor.name, "tensors")
        _register(layers, tensor)
        if len(layers) - 1 > most_layers:
            raise LimitExceededError(
                f"more than {LAYERS_OF_TENSOR} layers for each tensor", clause=CLAUSE
            )
    return module.eval()


def model_of_decoded(module: DecodedModel) -> Model:
    """Return a decoded model as a `Model`: its graph and the current values of its tensors.

    Parameters
    ----------
    module : DecodedModel
        A model from `build_module`, possibly trained further, on any device except "meta".

    Returns
    -------
    Model
        In the order of an export: parameters, buffers, constants. Arrays are created when they are
        read.

    Raises
    ------
    ModelError
        If a tensor has no values, or a dtype that cannot be coded.
    """
    persistent = module.state_dict().keys()
    tensors: list[tuple[str, torch.Tensor, Role]] = []
    tensors += [(name, value, Role.PARAMETER) for name, value in module.named_parameters()]
    for role in (Role.BUFFER, Role.CONSTANT):
        tensors += [
            (name, value, role)
            for name, value in module.named_buffers()
            if (name in persistent) is (role is Role.BUFFER)
        ]
    ties = ties_of((name, place_of(value)) for name, value, _ in tensors)
    return Model.of((from_torch(*tensor) for tensor in tensors), module._nnr_graph, ties=ties)


def optimized_for_inference(module: DecodedModel) -> DecodedModel:
    """Optimize a network for fast inference; return the module.

    The weights of 2-D convolutions get the channels-last memory format. The output of a convolution
    has the memory format of its weight, so all later layers have it as well; low-rank pairs gain
    most. A ReLU writes in place if its input is a new tensor without other users.
    """
    graph = module._nnr_graph
    for node in graph.nodes:
        if node.op.startswith("aten.conv2d"):
            for leaf in node.leaves():
                if isinstance(leaf, TensorRef):
                    tensor = tensor_named(module, leaf.name)
                    if tensor.ndim == 4:
                        tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    module._nnr_fast = True
    module._nnr_calls = _calls(graph, fast=True)
    return module


_MAKE_NEW_VALUES = ("aten.conv", "aten.linear.", "aten.batch_norm.", "aten.add.")


def _fast_function(node: Node, graph: Graph) -> Callable[..., Any] | None:
    """Return a faster function with the same result as a node; None if there is none."""
    if node.op == _RELU and node.args and isinstance(node.args[0], Ref):
        source = graph.node_of(node.args[0])
        is_new = source is not None and source.op.startswith(_MAKE_NEW_VALUES)
        if is_new and len(graph.uses(node.args[0])) == 1:
            return torch.ops.aten.relu_.default
    return IN_ANY_LAYOUT.get(node.op)


def run_node(module: DecodedModel, position: int, values: list[Any]) -> tuple[int, ...]:
    """Run one node of a network.

    Parameters
    ----------
    module : DecodedModel
        The network.
    position : int
        Position of the node in the graph; all earlier nodes have run.
    values : list
        The values so far, by number; the value of the node is appended.

    Returns
    -------
    tuple of int
        Numbers of the values that no later node needs.
    """
    call = module._nnr_calls[position]
    named = {name: argument_of(module, value, values) for name, value in call.node.kwargs}
    if call.takes_device:
        named["device"] = device_of(module, values)
    arguments = (argument_of(module, value, values) for value in call.node.args)
    try:
        values.append(call.function(*arguments, **named))
    except (ArgumentsError, ScalarError) as error:
        raise SyntaxElementError(
            f"{call.node.op} at these sizes: {error}",
            path=f"graph/nodes[{position}]",
            clause=CLAUSE,
        ) from None
    return call.done_with


def first_line(error: Exception) -> str:
    """Return the message of an error of PyTorch or a network as a single short line."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 200 else f"{line[:200]}..."


def output_of(module: DecodedModel, values: list[Any]) -> Any:
    """Return the output of a network, from the values of all its nodes."""
    return argument_of(module, module._nnr_graph.output, values)


def check_inputs(graph: Graph, inputs: Sequence[torch.Tensor]) -> None:
    """Check inputs, in the order of the graph, before it is run node by node.

    Raises
    ------
    ValueError
        If their number is wrong, or an input has another dtype or a size for which the network was
        not exported.
    """
    declared = graph.inputs
    if len(inputs) != len(declared):
        raise ValueError(f"there are {len(inputs)} inputs, the model takes {len(declared)}")
    for value, entry in zip(inputs, declared, strict=True):
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype != entry.dtype:
            raise ValueError(f"input {entry.name!r} is {dtype}, the model takes {entry.dtype}")
    named = zip(declared, inputs, strict=True)
    _check_sizes(graph, {entry.name: value for entry, value in named})


def _calls(graph: Graph, fast: bool) -> tuple[_Call, ...]:
    last_use: dict[int, int] = {}
    for position, node in enumerate(graph.nodes):
        last_use[graph.ref(position).index] = position
        for leaf in node.leaves():
            if isinstance(leaf, Ref):
                last_use[leaf.index] = position
    for leaf in leaves(graph.output):
        if isinstance(leaf, Ref):
            last_use.pop(leaf.index, None)
    done_with: dict[int, list[int]] = {}
    for number, position in last_use.items():
        done_with.setdefault(position, []).append(number)
    return tuple(
        _Call(
            (_fast_function(node, graph) if fast else None) or function_of(node.op),
            node,
            OPERATORS[node.op].makes_tensor,
            tuple(done_with.get(position, ())),
        )
        for position, node in enumerate(graph.nodes)
    )


def function_of(op: str) -> Callable[..., Any]:
    """Return the PyTorch function of an operator, with a check of arguments where it needs one."""
    if op not in FUNCTIONS:
        raise UnsupportedFeatureError(
            f"PyTorch {torch.__version__} has no operator {op}; a newer one has", feature=op
        )
    function = FUNCTIONS[op]
    if op in CHECKS:
        return _with_checked_arguments(function, CHECKS[op])
    return _within_64_bits(function) if OPERATORS[op].result == "Scalar" else function


def _with_checked_arguments(
    function: Callable[..., Any], check: Callable[..., None]
) -> Callable[..., Any]:
    """Return a function whose arguments are checked before each call."""

    def call(*args: Any, **kwargs: Any) -> Any:
        check(*args, **kwargs)
        return function(*args, **kwargs)

    return call


def _within_64_bits(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of numbers that raises `ScalarError` for an undefined or too large result.

    Symbolic sizes, while a network is exported, are returned without a check.
    """

    def call(*numbers: Any) -> Any:
        try:
            result = function(*numbers)
        except (ArithmeticError, ValueError, AssertionError, TypeError) as error:
            raise ScalarError(str(error)) from None
        if isinstance(result, int) and not fits(result):
            raise ScalarError("an integer does not fit in 64 bits")
        return result

    return call


def signature_of(graph: Graph) -> inspect.Signature:
    """Return the call signature of a network."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter(value.name, kind) for value in graph.inputs])


def _check_sizes(graph: Graph, inputs: Mapping[str, Any]) -> None:
    """Raise if an input does not have a declared shape, for which the graph could be wrong."""
    sizes: dict[str, int] = {}
    for value in graph.inputs:
        shape = inputs[value.name].shape
        if len(shape) != len(value.shape):
            raise ValueError(
                f"input {value.name!r} has {len(shape)} axes, the model takes {len(value.shape)}"
            )
        for axis, (size, declared) in enumerate(zip(shape, value.shape, strict=True)):
            dim = graph.dims[declared] if isinstance(declared, str) else None
            low, high = (dim.low, dim.high) if dim else (declared, declared)
            if size < low or (high is not None and size > high):
                legal = f"{low}..{high or ''}" if dim else declared
                raise ValueError(
                    f"input {value.name!r} has size {size} in axis {axis}, the model takes {legal}"
                )
            if isinstance(declared, str) and sizes.setdefault(declared, size) != size:
                raise ValueError(
                    f"{value.name}.shape[{axis}] is {size} and {graph.places[declared]} is "
                    f"{sizes[declared]}: in this network they are the same size"
                )
    are_known = all(type(size) is int for size in sizes.values())  # not in an export
    functions = SCALARS.__getitem__ if are_known else function_of
    for guard in graph.guards:
        if not holds(guard, sizes, functions):
            places = graph.places
            found = ", ".join(f"{places[d]} is {sizes[d]}" for d in sorted(dims_of(guard)))
            asked = sentence([guard], places)
            raise ValueError(
                f"this network holds only for inputs with {asked}, and {found}: it was exported "
                "with an input for which it goes that way"
            )


def argument_of(module: DecodedModel | None, argument: Any, values: Sequence[Any]) -> Any:
    """Return the value of an argument of a node, or of a part of the output.

    Without a module, tensors of the model are None.
    """
    match argument:
        case Ref(index):
            return values[index]
        case TensorRef(name):
            return None if module is None else tensor_named(module, name)
        case Word(kind, word):
            return TORCH_WORDS[kind][word] if kind in TORCH_WORDS else word
        case tuple() | list():
            return type(argument)(argument_of(module, item, values) for item in argument)
        case dict():
            return {key: argument_of(module, item, values) for key, item in argument.items()}
        case _:
            return argument


def device_of(module: torch.nn.Module, inputs: list[Any]) -> torch.device:
    """Return the device of tensors that are created without an input: that of the inputs."""
    for value in itertools.chain(inputs, module.parameters(), module.buffers()):
        if isinstance(value, torch.Tensor):
            return value.device
    return torch.device("cpu")


def tensor_named(module: torch.nn.Module, name: str) -> torch.Tensor:
    """Return a parameter or buffer of a decoded model by its name in the graph."""
    path, _, leaf = name.rpartition(".")
    layer = module.get_submodule(path)
    try:
        return layer.get_parameter(leaf)
    except AttributeError:  # it is a buffer
        return layer.get_buffer(leaf)


def _register(layers: dict[str, torch.nn.Module], tensor: Tensor) -> None:
    """Add a tensor to the module under its name, with the layers that do not exist yet."""
    *path, leaf = tensor.name.split(".")
    if len(path) > MAX_LAYERS_DEEP:
        raise SyntaxElementError(
            f"tensor {tensor.name[:40]!r}... is {len(path)} layers deep, at most "
            f"{MAX_LAYERS_DEEP} allowed",
            clause=CLAUSE,
        )
    module = layers[""]
    for layer, name in zip(path, itertools.accumulate(path, "{}.{}".format), strict=True):
        if name not in layers:
            _require_free(module, layer, tensor)
            layers[name] = torch.nn.Module()
            module.add_module(layer, layers[name])
        module = layers[name]
    _require_free(module, leaf, tensor)
    value = to_torch(tensor)
    if tensor.role is Role.PARAMETER:
        trainable = value.is_floating_point()
        module.register_parameter(leaf, torch.nn.Parameter(value, requires_grad=trainable))
    else:
        module.register_buffer(leaf, value, persistent=tensor.role is Role.BUFFER)


def _require_free(module: torch.nn.Module, attribute: str, tensor: Tensor) -> None:
    if attribute == "" or hasattr(module, attribute):
        raise SyntaxElementError(
            f"a module cannot have a tensor named {tensor.name!r}: {attribute!r} is empty or used",
            clause=CLAUSE,
        )
