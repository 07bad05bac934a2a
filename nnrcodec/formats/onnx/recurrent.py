"""LSTM, GRU and RNN of ONNX, with the gates in the order of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from nnrcodec.formats.onnx.calls import Call, Known, operator

Tensor = torch.Tensor


class _Kind(NamedTuple):
    gates: tuple[int, ...]
    """For each gate of PyTorch, its place in ONNX."""
    activations: tuple[str, ...]


_KINDS: Mapping[str, _Kind] = {
    "LSTM": _Kind((0, 2, 3, 1), ("Sigmoid", "Tanh", "Tanh")),  # ONNX has i, o, f, c
    "GRU": _Kind((1, 0, 2), ("Sigmoid", "Tanh")),  # ONNX has z, r, h
    "RNN": _Kind((0,), ("Tanh",)),
}


@operator("LSTM", "GRU", "RNN")
def _recurrent(call: Call) -> tuple[Tensor, ...]:
    kind = _KINDS[call.op]
    x, weights, recurrent = (call.tensor(position) for position in range(3))
    direction = call.attribute("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    hidden = int(recurrent.shape[2])
    if call.attribute("hidden_size", hidden) != hidden:
        raise call.refuse("hidden_size is not that of the weights")
    relu = _check(call, kind, directions)
    batch_first = bool(call.attribute("layout", 0))
    x = x.transpose(0, 1) if batch_first else x
    x = torch.flip(x, [0]) if direction == "reverse" else x
    params: list[Tensor] = []
    bias = call.optional(3)
    for index in range(directions):
        parts = [weights[index], recurrent[index]]
        if bias is not None:
            size = len(kind.gates) * hidden
            parts += [bias[index].narrow(0, 0, size), bias[index].narrow(0, size, size)]
        params += [_in_order(part, kind.gates, hidden) for part in parts]
    states = [
        _initial(call, position, x, directions, hidden, batch_first=batch_first)
        for position in ((5, 6) if call.op == "LSTM" else (5,))
    ]
    options = (bias is not None, 1, 0.0, False, directions == 2, False)
    if call.op == "LSTM":
        out, *last = torch.lstm(x, states, params, *options)
    else:
        run = torch.gru if call.op == "GRU" else torch.rnn_relu if relu else torch.rnn_tanh
        out, *last = run(x, states[0], params, *options)
    y = torch.unflatten(out, 2, (directions, hidden))
    y = torch.flip(y, [0]) if direction == "reverse" else y
    if batch_first:
        return (y.transpose(0, 1), *(state.transpose(0, 1) for state in last))
    return (y.transpose(1, 2), *last)


def _check(call: Call, kind: _Kind, directions: int) -> bool:
    """Refuse what PyTorch does not have; return whether an RNN has ReLUs."""
    call.require("direction", "forward", "reverse", "bidirectional")
    call.require("input_forget", 0)
    call.attribute("output_sequence")
    for name in ("activation_alpha", "activation_beta", "clip"):
        if call.attribute(name):
            raise call.refuse(name)
    given: Sequence[str] = call.attribute("activations") or list(kind.activations) * directions
    relu = call.op == "RNN" and set(given) == {"Relu"}
    if not relu and list(given) != list(kind.activations) * directions:
        raise call.refuse(f"activations {list(given)}")
    if call.op == "GRU" and not call.attribute("linear_before_reset", 0):
        raise call.refuse("linear_before_reset 0, which PyTorch does not have")
    if call.has(4) or call.has(7):
        raise call.refuse("sequence lengths or peepholes")
    return relu


def _in_order(rows: Tensor, gates: Sequence[int], hidden: int) -> Tensor:
    if len(gates) == 1:
        return rows
    return torch.cat([rows.narrow(0, gate * hidden, hidden) for gate in gates])


def _initial(
    call: Call, position: int, x: Tensor, directions: int, hidden: int, *, batch_first: bool
) -> Tensor:
    if not call.has(position):
        return x.new_zeros(directions, x.shape[1], hidden)
    value = call.value(position)
    zeros = isinstance(value, Known) and not value.is_symbolic and not value.values.any()
    if zeros:
        return x.new_zeros(directions, x.shape[1], hidden)
    state = call.tensor(position)
    return state.transpose(0, 1) if batch_first else state
