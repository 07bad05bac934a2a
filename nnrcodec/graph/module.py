"""A graph and its tensors as a module that runs.

`DecodedModel` calls the operators of the graph one after the other. It is not a
`torch.fx.GraphModule`, although that would hold the same graph: a GraphModule turns the graph into
Python source and executes it, so that names from a stream would become source code, and its own
attributes (``graph``, ``code``) would clash with layers of these names. Here no source is ever
made; a stream selects among the functions of `nnrcodec.graph.operators_torch` and nothing else.
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
from nnrcodec.graph.operators import OPERATORS
from nnrcodec.graph.operators_torch import FUNCTIONS, IN_ANY_LAYOUT, TORCH_WORDS
from nnrcodec.graph.scalars import ScalarError, fits
from nnrcodec.graph.trusting_operators import CHECKS, ArgumentsError
from nnrcodec.limits import Limits
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.model.torch_values import from_torch, to_torch

MAX_LAYERS_DEEP = 100
"""How deep layers may nest: PyTorch walks through them recursively."""

LAYERS_OF_TENSOR = 8
"""How many layers there are for each tensor at most, on average, where there are many."""

_RELU = "aten.relu.default"


class _Call(NamedTuple):
    """One node, ready to run."""

    function: Callable[..., Any]
    node: Node
    takes_device: bool
    done_with: tuple[int, ...]
    """Numbers of the values that no later node needs."""


class DecodedModel(torch.nn.Module):
    """A network that came out of a stream.

    Parameters and buffers have the names they have in the stream, in nested plain modules, so
    that ``state_dict()`` is that of the original unless names of it cannot be in a stream. Call it
    as the original: with its inputs by position or by name. It can be copied and pickled.

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
            Tensors in the tuples, lists and dictionaries in which the original returned them.

        Raises
        ------
        ValueError
            If an input has a size for which the model was not exported.
        """
        bound = signature_of(self._nnr_graph).bind(*args, **kwargs)
        _check_sizes(self._nnr_graph, bound.arguments)
        return self._run(list(bound.arguments.values()))

    def _run(self, values: list[Any]) -> Any:
        """Call the operators; `values` holds the inputs and receives what the nodes compute."""
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
    """Return a module that computes what `model` says, in evaluation mode.

    Parameters
    ----------
    model : Model
        With a graph. Its arrays become the memory of the tensors where they can be written to.
    limits : Limits, optional
        Bounds on the graph. What the network takes when it runs is not bounded by them, where the
        graph does not tell: running a network costs what it asks for.

    Returns
    -------
    DecodedModel
        On the CPU. Floating-point parameters require gradients.

    Raises
    ------
    BitstreamError
        If the graph is not legal or a tensor has a name that a module cannot hold.
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
    """Return a decoded model as a `Model` again: its tensors as they are now, and its graph.

    Parameters
    ----------
    module : DecodedModel
        A model made by `build_module`, trained further or not, on any device with values.

    Returns
    -------
    Model
        In the order of an export: parameters, buffers, constants. Arrays are made when they are
        read.

    Raises
    ------
    ModelError
        If a tensor has no values, or a dtype that cannot be coded.
    """
    persistent = module.state_dict().keys()
    held: list[tuple[str, torch.Tensor, Role]] = []
    held += [(name, value, Role.PARAMETER) for name, value in module.named_parameters()]
    for kind in (Role.BUFFER, Role.CONSTANT):
        held += [
            (name, value, kind)
            for name, value in module.named_buffers()
            if (name in persistent) is (kind is Role.BUFFER)
        ]
    return Model.of((from_torch(*each) for each in held), module._nnr_graph)


def made_fast(module: DecodedModel) -> DecodedModel:
    """Let a network run fast; return the module.

    Kernels of 2-D convolutions are laid out with channels last. A convolution gives its output the
    layout of its kernel, so all after it have it, too; pairs of thin convolutions gain most. And
    a ReLU writes into what it takes, where that is new and nothing else wants it.
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
    """Return what does the same as a node in less time, None where there is nothing."""
    if node.op == _RELU and node.args and isinstance(node.args[0], Ref):
        maker = graph.node_of(node.args[0])
        is_new = maker is not None and maker.op.startswith(_MAKE_NEW_VALUES)
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
        Of the node in its graph; all before it have run.
    values : list
        The values so far, by number; that of the node is added.

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
    """Return what an error of PyTorch, or of a network, says in one line that is not too long."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 200 else f"{line[:200]}..."


def output_of(module: DecodedModel, values: list[Any]) -> Any:
    """Return what a network returns, from the values of all its nodes."""
    return argument_of(module, module._nnr_graph.output, values)


def check_inputs(graph: Graph, inputs: Sequence[torch.Tensor]) -> None:
    """Check inputs, in the order of the graph, before it is run node by node.

    Raises
    ------
    ValueError
        If there are not as many as the network takes, or one has another dtype or a size for which
        it was not exported.
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
    """Return what an operator of the allow-list calls: PyTorch's, looked after where it must be."""
    if op not in FUNCTIONS:
        raise UnsupportedFeatureError(
            f"PyTorch {torch.__version__} has no operator {op}; a newer one has", feature=op
        )
    function = FUNCTIONS[op]
    if op in CHECKS:
        return _looked_at(function, CHECKS[op])
    return _within_64_bits(function) if OPERATORS[op].result == "Scalar" else function


def _looked_at(function: Callable[..., Any], check: Callable[..., None]) -> Callable[..., Any]:
    """Return a function whose arguments are checked before each call."""

    def call(*args: Any, **kwargs: Any) -> Any:
        check(*args, **kwargs)
        return function(*args, **kwargs)

    return call


def _within_64_bits(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of numbers with a `ScalarError` in place of what does not exist.

    Sizes that stand for any size, while a network is exported, pass through it.
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
    """Return how the network is called."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter(value.name, kind) for value in graph.inputs])


def _check_sizes(graph: Graph, inputs: Mapping[str, Any]) -> None:
    """Raise where an input is not as declared: the graph would compute something else."""
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


def argument_of(module: DecodedModel | None, argument: Any, values: Sequence[Any]) -> Any:
    """Return what an argument of a node, or a part of the output, stands for.

    Without a module the tensors of the model stand for nothing.
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
    """Return where tensors must be made that are made from nothing: where the inputs are."""
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
    """Put a tensor where its name says; add the layers that are made for it to those there are."""
    *path, leaf = tensor.name.split(".")
    if len(path) > MAX_LAYERS_DEEP:
        raise SyntaxElementError(
            f"tensor {tensor.name[:40]!r}... lies {len(path)} layers deep, at most "
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
            f"a module cannot hold a tensor named {tensor.name!r}: {attribute!r} is empty or taken",
            clause=CLAUSE,
        )
