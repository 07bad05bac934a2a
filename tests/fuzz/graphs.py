"""Graphs made from the table of operators: legal by the kinds of arguments, odd in all else.

Most nodes are tried on tensors without memory while the graph is made, so that a graph is not over
at its second node; now and then one that does not work is kept, or one with sizes beyond reason.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fuzz import streams

import nnrcodec
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
from nnrcodec.graph.operators import OPERATORS, WORDS, Operator, Parameter
from nnrcodec.graph.operators_torch import FUNCTIONS, TORCH_WORDS
from nnrcodec.graph.text import to_json

SIZES = [0, 1, 1, 2, 2, 3, 4, 4, 6, 8]
WILD = [0, -1, 1, 2, 7, 64, 1000, 65535, 10**6, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, -(2**63)]
FLOATS = [0.0, 1.0, -1.0, 0.5, 1e-5, 1e308, -1e308, float("inf"), float("-inf"), float("nan")]
EQUATIONS = ["ij,jk->ik", "i,i->", "ii->i", "...i,...i->...", "i,j", "ab,ab->ba", "a->", "i,j->ji"]
MOST_ELEMENTS = 2**20
DTYPE_NAMES = list(TORCH_WORDS["dtype"])
NAMES = ["w", "b", "layer.weight", "layer.bias", "layer.running_mean", "a.b.c.d", "p_w", "w2"]


class Maker:
    """A graph in the making."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.state: dict[str, np.ndarray] = {}
        self.nodes: list[Node] = []
        self.kinds: list[str] = []
        self.values: list[Any] = []
        """What is known of each value: a tensor without memory, a number, or nothing."""
        self.dims = {
            f"d{i}": self._dim() for i in range(rng.choice([0, 0, 1, 2, 3]))
        }  # their names are of no interest here
        self.inputs = tuple(self._input(f"x{i}") for i in range(rng.choice([1, 1, 2, 3])))

    def _dim(self) -> Dim:
        example = self.rng.choice([0, 1, 2, 2, 3, 4, 5, 8])
        low = self.rng.choice([0, min(1, example), min(2, example), example])
        return Dim(low, self.rng.choice([None, None, example, example + 9, 2**62]), example)

    def _input(self, name: str) -> Input:
        rng = self.rng
        sizes = [rng.choice([*SIZES, *self.dims, *self.dims]) for _ in range(rng.choice(RANKS))]
        dtype = rng.choice(["float32"] * 12 + ["int64"] * 4 + DTYPE_NAMES)
        shape = [self.dims[s].example if isinstance(s, str) else s for s in sizes]
        self._add("Tensor", torch.empty(shape, dtype=TORCH_WORDS["dtype"][dtype], device="meta"))
        return Input(name, dtype, tuple(sizes))

    def _add(self, kind: str, value: Any) -> Ref:
        self.kinds.append(kind)
        self.values.append(value)
        return Ref(len(self.values) - 1)

    def tensor(self, *shape: int) -> TensorRef:
        """Return a tensor of the model."""
        free = [name for name in NAMES if name not in self.state]
        name = free[0] if free else f"t{len(self.state)}"
        self.state[name] = np.ones(shape, np.float32)
        return TensorRef(name)

    def known(self, argument: Argument) -> Any:
        """Return what is known of an argument, as PyTorch takes it."""
        match argument:
            case Ref(index):
                return self.values[index]
            case TensorRef(name):
                return torch.empty(self.state[name].shape, device="meta")
            case Word(kind, word):
                return TORCH_WORDS[kind][word] if kind in TORCH_WORDS else word
            case tuple():
                return [self.known(item) for item in argument]
            case _:
                return argument

    def refs(self, *kinds: str) -> list[Ref]:
        return [Ref(i) for i, kind in enumerate(self.kinds) if kind in kinds]

    def a_ref(self, *kinds: str) -> Ref | None:
        found = self.refs(*kinds)
        if not found:
            return None
        return self.rng.choice(found[-4:] if self.rng.random() < 0.7 else found)

    def a_tensor(self) -> Ref | TensorRef:
        if self.state and self.rng.random() < 0.1:
            return TensorRef(self.rng.choice(list(self.state)))
        ref = self.a_ref("Tensor")
        assert ref is not None
        return ref

    def shape_of(self, argument: Argument) -> list[int]:
        value = self.known(argument)
        return list(value.shape) if isinstance(value, torch.Tensor) else []

    def argument(self, parameter: Parameter, first: Argument, wild: bool) -> Argument:
        """Return some argument of the kind that is declared."""
        rng = self.rng
        if parameter.nullable and rng.random() < 0.3:
            return None
        if not parameter.is_list:
            return self.item(parameter, first, wild)
        if parameter.kind == "Tensor":
            ref = self.a_ref("Tensor[]")
            if ref is not None and rng.random() < 0.2 and not parameter.item_nullable:
                return ref
            same = self.a_tensor()
            return tuple(
                None
                if parameter.item_nullable and rng.random() < 0.3
                else same
                if rng.random() < 0.6
                else self.a_tensor()
                for _ in range(rng.choice([1, 2, 2, 3, 4]))
            )
        shape = self.shape_of(first)
        near: list[Argument] = [*shape]
        if rng.random() < 0.4 and shape and parameter.kind in {"int", "SymInt"}:
            rng.shuffle(near)
            return rng.choice([tuple(near), (-1,), (-1, *near[1:]), tuple(range(len(near)))])
        length = rng.choice([0, 1, 2, 3, len(shape), len(shape), max(0, len(shape) - 2)])
        if wild and rng.random() < 0.1:
            length = rng.choice([17, 65, 500])
        return tuple(self.item(parameter, first, wild) for _ in range(length))

    def item(self, parameter: Parameter, first: Argument, wild: bool) -> Argument:
        rng, kind = self.rng, parameter.kind
        number = self.a_ref("Scalar") if rng.random() < 0.3 else None
        integer = rng.choice(WILD if wild else [0, 0, 1, 1, 1, 2, 2, 3, 4, -1, -2])
        match kind:
            case "Tensor":
                return self.a_tensor()
            case "Operand" if rng.random() < 0.6:
                return self.a_tensor()
            case "int":
                return integer
            case "SymInt":
                return integer if number is None else number
            case "float":
                return rng.choice(FLOATS) if number is None else number
            case "Scalar" | "Operand":
                if number is not None:
                    return number
                return rng.choice([integer, integer, rng.choice(FLOATS), True])
            case "bool":
                return rng.random() < 0.5
            case "false":
                return False
            case "zero":
                return rng.choice([0, 0.0])
            case "equation":
                return Word(kind, rng.choice(EQUATIONS))
            case _:
                return Word(kind, rng.choice(sorted(WORDS[kind])))

    def node(self, operator: Operator, wild: bool) -> Node:
        """Return a node with random arguments."""
        recipe = RECIPES.get(operator.name)
        if recipe is not None and self.rng.random() < 0.8:
            made = recipe(self, self.a_tensor())
            if made is not None:
                return Node(operator.name, made)
        first: Argument = None
        arguments: list[Argument] = []
        for parameter in operator.positional:
            if parameter.has_default and self.rng.random() < 0.4:
                break
            arguments.append(self.argument(parameter, first, wild))
            first = arguments[0] if not isinstance(arguments[0], tuple) else None
        named = {
            parameter.name: self.argument(parameter, first, wild)
            for parameter in operator.keyword_only
            if not parameter.has_default or self.rng.random() < 0.4
        }
        return Node(operator.name, tuple(arguments), tuple(named.items()))

    def result(self, node: Node) -> Any:
        """Return what is known of the value of a node; raise whatever the operator does."""
        named = {name: self.known(value) for name, value in node.kwargs}
        if OPERATORS[node.op].makes_tensor:
            named["device"] = "meta"
        value = FUNCTIONS[node.op](*(self.known(a) for a in node.args), **named)
        parts = value if isinstance(value, tuple | list) else [value]
        for part in parts:
            if isinstance(part, torch.Tensor) and part.numel() > MOST_ELEMENTS:
                raise ValueError("too large to go on with")
        return value

    def grow(self, count: int) -> None:
        """Add nodes."""
        rng = self.rng
        for _ in range(count):
            for _ in range(40):
                operator = OPERATORS[rng.choice(OPERATOR_NAMES)]
                wild = rng.random() < 0.03
                node = self.node(operator, wild)
                if any(self.known(leaf) is None for leaf in node.leaves() if leaf is not None):
                    continue
                try:
                    value = None if wild else self.result(node)
                except Exception:
                    if rng.random() > 0.004:
                        continue
                    value = None
                self.nodes.append(node)
                self._add(operator.result, value)
                break

    def output(self) -> Output:
        """Return some of the values in containers."""
        rng = self.rng
        found = self.refs("Tensor", "Scalar")
        chosen: list[Output] = [*found[-2:], *rng.choices(found, k=rng.choice([0, 0, 1, 3]))]
        chosen += rng.choice([[], [], [None], [7], [*map(TensorRef, self.state)][:1]])
        return rng.choice(
            [tuple(chosen), chosen, {"a": tuple(chosen), "b": [chosen[0]]}, chosen[0], ()]
        )


RANKS = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5]
OPERATOR_NAMES = sorted(FUNCTIONS)
COMMON = ["aten.sym_size.int", "operator.getitem", "aten.cat.default", "aten.view.default"]
COMMON += ["operator.add", "operator.floordiv", "operator.mul", "aten.split.Tensor"]
COMMON += ["aten.reshape.default", "aten.unbind.int", "aten.chunk.default", "aten.linear.default"]
COMMON += ["aten.conv2d.default", "aten.expand.default", "aten.slice.Tensor", "aten.zeros.default"]
OPERATOR_NAMES += COMMON * 8


Recipe = Callable[[Maker, Any], tuple[Argument, ...] | None]


def _linear(maker: Maker, x: Any) -> tuple[Argument, ...] | None:
    shape = maker.shape_of(x)
    return (x, maker.tensor(3, shape[-1]), maker.tensor(3)) if shape and shape[-1] else None


def _convolution(axes: int) -> Recipe:
    def recipe(maker: Maker, x: Any) -> tuple[Argument, ...] | None:
        shape = maker.shape_of(x)
        if len(shape) != axes + 2 or not shape[1]:
            return None
        kernel = maker.rng.choice([1, 2, 3])
        weight = maker.tensor(4, shape[1], *[kernel] * axes)
        return x, weight, None, (maker.rng.choice([1, 2]),) * axes, (kernel // 2,) * axes

    return recipe


def _batch_norm(maker: Maker, x: Any) -> tuple[Argument, ...] | None:
    shape = maker.shape_of(x)
    if len(shape) < 2 or not shape[1]:
        return None
    four = [maker.tensor(shape[1]) for _ in range(4)]
    return (x, *four, False, 0.1, 1e-5, False)


def _layer_norm(maker: Maker, x: Any) -> tuple[Argument, ...] | None:
    shape = maker.shape_of(x)
    return (x, (shape[-1],), maker.tensor(shape[-1])) if shape and shape[-1] else None


def _recurrent(gates: int) -> Recipe:
    def recipe(maker: Maker, x: Any) -> tuple[Argument, ...] | None:
        shape = maker.shape_of(x)
        if len(shape) != 3 or not shape[2]:
            return None
        state = maker.tensor(1, shape[1] or 1, 2)
        weights = (maker.tensor(2 * gates, shape[2]), maker.tensor(2 * gates, 2))
        states: Argument = (state, state) if gates == 4 else state
        return x, states, weights, False, 1, 0.0, False, False, False

    return recipe


def _getitem(maker: Maker, x: Any) -> tuple[Argument, ...] | None:
    ref = maker.a_ref("Tensor[]")
    return None if ref is None else (ref, maker.rng.choice([0, 0, 1, -1, 5]))


def _size(maker: Maker, x: Any) -> tuple[Argument, ...] | None:
    shape = maker.shape_of(x)
    return (x, maker.rng.randrange(len(shape))) if shape else None


def _attention(maker: Maker, x: Any) -> tuple[Argument, ...] | None:
    return (x, x, x)


RECIPES: dict[str, Recipe] = {
    "aten.linear.default": _linear,
    "aten.conv1d.default": _convolution(1),
    "aten.conv2d.default": _convolution(2),
    "aten.conv3d.default": _convolution(3),
    "aten.batch_norm.default": _batch_norm,
    "aten.layer_norm.default": _layer_norm,
    "aten.lstm.input": _recurrent(4),
    "aten.gru.input": _recurrent(3),
    "aten.rnn_tanh.input": _recurrent(1),
    "aten.scaled_dot_product_attention.default": _attention,
    "operator.getitem": _getitem,
    "aten.sym_size.int": _size,
}


def random_graph(rng: random.Random) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return a graph and the tensors that it uses."""
    maker = Maker(rng)
    maker.grow(rng.choice([1, 2, 4, 8, 16, 30]))
    graph = Graph(maker.inputs, tuple(maker.nodes), maker.output(), maker.dims)
    return graph, maker.state


def stream_of(graph: Any, state: dict[str, np.ndarray] | None = None) -> bytes:
    """Return a stream with a graph as JSON, and these tensors or some."""
    data = nnrcodec.encode(state or {"w": np.ones(2, np.float32)}, config=streams.STATIC)
    content = streams.record_content(data)
    content["graph"] = graph
    return streams.with_record(data, content, "1.1")


def graph_stream(rng: random.Random) -> tuple[bytes, str]:
    """Return the stream of a random graph, and its operators for people to read."""
    graph, state = random_graph(rng)
    note = " ".join(node.op.removesuffix(".default") for node in graph.nodes)
    return stream_of(to_json(graph), state), note
