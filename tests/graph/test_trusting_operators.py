"""Operators that do not look at their arguments are never called with what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nnrcodec.errors import SyntaxElementError
from nnrcodec.graph.graph import Argument, Graph, Input, Node, Ref
from nnrcodec.graph.module import build_module, function_of
from nnrcodec.graph.trusting_operators import CHECKS, ArgumentsError
from nnrcodec.model.model import Model


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


def recurrent(gates: int, layers: int = 1, directions: int = 1, biases: bool = True, out: int = 3):
    """Return the arguments of a layer of three hidden units, of four inputs in two batches."""
    params, inputs = [], 4
    for _ in range(layers):
        for _ in range(directions):
            params += [zeros(3 * gates, inputs), zeros(3 * gates, out)]
            params += [zeros(3 * gates)] * 2 * biases
            params += [zeros(out, 3)] * (out != 3)
        inputs = out * directions
    states: Any = zeros(layers * directions, 2, out)
    if gates == 4:
        states = [states, zeros(layers * directions, 2, 3)]
    return [zeros(5, 2, 4), states, params, biases, layers, 0.0, False, directions == 2, False]


NORM = "aten._weight_norm.default"
STATISTICS = "aten._native_batch_norm_legit_no_training.default"
SAMPLER = "aten.grid_sampler.default"
LSTM, GRU, RNN = "aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input"

GOOD: list[tuple[str, list[Any]]] = [
    (NORM, [torch.ones(3, 2, 2), torch.ones(3, 1, 1)]),
    (NORM, [torch.ones(3, 2, 2), torch.ones(1, 1, 2), 2]),
    (NORM, [torch.ones(3, 2, 2), torch.ones(1, 2, 1), 1]),
    (STATISTICS, [zeros(1, 3, 2), None, None, zeros(3), torch.ones(3), 0.1, 1e-5]),
    (SAMPLER, [zeros(1, 2, 4, 4), zeros(1, 3, 3, 2), 2, 2, False]),
    (SAMPLER, [zeros(1, 2, 4, 4, 4), zeros(1, 3, 3, 3, 3), 1, 0, False]),
    (LSTM, recurrent(4)),
    (LSTM, recurrent(4, 2, 2, biases=False)),
    (LSTM, recurrent(4, 2, 2, out=2)),
    (GRU, recurrent(3, 3, 1)),
    (RNN, recurrent(1, 1, 2)),
]


@pytest.mark.parametrize(("op", "arguments"), GOOD)
def test_what_fits_is_called(op: str, arguments: list[Any]) -> None:
    CHECKS[op](*arguments)
    function_of(op)(*arguments)


def changed(arguments: list[Any], **changes: Any) -> list[Any]:
    """Return arguments with those of some positions exchanged."""
    return [changes.get(f"_{position}", value) for position, value in enumerate(arguments)]


def with_weight(op: str, position: int, weight: torch.Tensor) -> tuple[str, list[Any]]:
    arguments = recurrent({LSTM: 4, GRU: 3, RNN: 1}[op])
    arguments[2][position] = weight
    return op, arguments


BAD: list[tuple[str, list[Any]]] = [
    (NORM, [zeros(64, 2), zeros(1), 0]),
    (NORM, [zeros(64, 2), zeros(1, 1), 0]),
    (NORM, [zeros(64, 2), zeros(64, 1), 1]),
    (NORM, [zeros(0, 3, 2), zeros(0, 3, 2), 0]),
    (NORM, [zeros(3, 2), zeros(3, 1, dtype=torch.float64), 0]),
    (NORM, [zeros(3, 2), zeros(3, 1), 7]),
    (STATISTICS, [zeros(1, 9, 2), None, None, zeros(1), zeros(9), 0.1, 1e-5]),
    (STATISTICS, [zeros(1, 9, 2), zeros(8), None, zeros(9), zeros(9), 0.1, 1e-5]),
    (STATISTICS, [zeros(9), None, None, zeros(9), zeros(9), 0.1, 1e-5]),
    (SAMPLER, [zeros(1, 2, 4, 4), zeros(1, 3, 3, 2), 4, 0, False]),
    (SAMPLER, [zeros(1, 2, 4, 4), zeros(1, 3, 3, 2), -1, 0, False]),
    (SAMPLER, [zeros(1, 2, 4, 4), zeros(1, 3, 3, 2), 0, 3, False]),
    (SAMPLER, [zeros(1, 2, 4, 4, 4), zeros(1, 3, 3, 3, 3), 2, 0, False]),
    (SAMPLER, [zeros(1, 2, 4, 4), zeros(2, 3, 3, 2), 0, 0, False]),
    (SAMPLER, [zeros(1, 2, 4, 4), zeros(1, 3, 3, 3), 0, 0, False]),
    (LSTM, changed(recurrent(4), _0=zeros(4, 2, 8, 2))),
    (LSTM, changed(recurrent(4), _1=[zeros(1, 2, 3)])),
    (LSTM, changed(recurrent(4), _1=[zeros(1, 2, 3), zeros(1, 2, 2)])),
    (LSTM, changed(recurrent(4), _2=[])),
    (LSTM, changed(recurrent(4), _4=2)),
    (LSTM, changed(recurrent(4), _4=2**40)),
    (LSTM, changed(recurrent(4), _4=0)),
    (LSTM, changed(recurrent(4), _3=False)),
    (LSTM, changed(recurrent(4), _7=True)),
    (LSTM, changed(recurrent(4), _8=True)),
    with_weight(LSTM, 0, zeros(0)),
    with_weight(GRU, 1, zeros(9, 4)),
    with_weight(GRU, 2, zeros(8)),
    with_weight(RNN, 3, zeros(3, dtype=torch.float64)),
]


@pytest.mark.parametrize(("op", "arguments"), BAD)
def test_what_does_not_fit_is_not_called(op: str, arguments: list[Any]) -> None:
    with pytest.raises(ArgumentsError):
        function_of(op)(*arguments)


def test_a_network_says_which_node_it_is() -> None:
    arguments: tuple[Argument, ...] = (Ref(0), Ref(1), 0)
    graph = Graph(
        (Input("x", "float32", (64, 2)), Input("g", "float32", (1,))),
        (Node(NORM, arguments),),
        Ref(2),
    )
    module = build_module(Model.of([], graph))
    with pytest.raises(SyntaxElementError, match=r"graph/nodes\[0\].*lengths of shape"):
        module(zeros(64, 2), zeros(1))
