"""Does an operator of the list read beyond the tensors that it is given?

    python -m tests.fuzz.memory [count of nodes] [first seed]

Every tensor is the middle of a larger one. A node whose value depends on what lies around its
arguments would hand out memory of the process in a network from a stranger.
"""

from __future__ import annotations

import os
import random
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for the command line

import torch
from fuzz.graphs import OPERATOR_NAMES, Maker

from nnrcodec.graph.graph import Node
from nnrcodec.graph.module import function_of
from nnrcodec.graph.operators import OPERATORS

AROUND = 4096
SEVERAL = [
    name
    for name in OPERATOR_NAMES
    if sum(p.kind in {"Tensor", "Operand"} for p in OPERATORS[name].parameters) > 1
]
"""Operators of several tensors, of which one can be shorter than the others make believe."""


def embedded(meta: torch.Tensor, fill: int) -> torch.Tensor:
    """Return a tensor of small numbers with other numbers before and behind it."""
    count = max(meta.numel(), 0)
    whole = torch.full((count + 2 * AROUND,), fill).to(meta.dtype)
    inside = whole[AROUND : AROUND + count]
    inside.copy_((torch.arange(count) % 3).to(meta.dtype))
    return inside.view(meta.shape)


def _argument(value: Any, fill: int) -> Any:
    if isinstance(value, torch.Tensor):
        return embedded(value, fill)
    return [_argument(item, fill) for item in value] if isinstance(value, list) else value


def value_of(maker: Maker, node: Node, fill: int) -> list[bytes] | None:
    """Return the bits of the value of a node; None if the operator refuses its arguments."""
    named = {name: _argument(maker.known(value), fill) for name, value in node.kwargs}
    try:
        value = function_of(node.op)(*(_argument(maker.known(a), fill) for a in node.args), **named)
    except Exception:
        return None
    parts = value if isinstance(value, tuple | list) else [value]
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    if sum(tensor.numel() for tensor in tensors) > 2**20:
        return None
    return [bits(tensor) for tensor in tensors]


def bits(tensor: torch.Tensor) -> bytes:
    """Return the values of a tensor as they are in memory."""
    packed = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.flatten())
    return packed.view(torch.uint8).numpy().tobytes()


def leaking(seed: int) -> tuple[Node, bool] | None:
    """Return a node, and whether its value depends on what is not its business."""
    maker = Maker(random.Random(seed))  # noqa: S311 - reproducible, not secret
    for _ in range(maker.rng.randrange(3)):
        maker.tensor(*(maker.rng.choice([1, 1, 2, 4]) for _ in range(maker.rng.randrange(1, 3))))
    for _ in range(20):
        operator = OPERATORS[maker.rng.choice(SEVERAL)]
        node = maker.node(operator, wild=False)
        if operator.result == "Scalar" or any(
            maker.known(leaf) is None for leaf in node.leaves() if leaf is not None
        ):
            continue
        several = [value_of(maker, node, fill) for fill in (0, 1, 77)]
        if several[0] is not None:
            return node, len({tuple(value or ()) for value in several}) > 1
    return None


def main() -> int:
    """Try nodes, each in a child, and print those that leak or crash; return 1 if there are any."""
    count, first = (int(argument) for argument in [*sys.argv[1:], "2000", "0"][:2])
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    bad = 0
    for start in range(first, first + count, CHUNK):
        if _ended_badly(range(start, min(start + CHUNK, first + count)), quiet=True):
            bad += sum(_ended_badly(range(seed, seed + 1)) for seed in range(start, start + CHUNK))
    print(f"{count} nodes, {bad} of them leak or crash", flush=True)  # noqa: T201
    return 1 if bad else 0


CHUNK = 40


def _ended_badly(seeds: range, quiet: bool = False) -> bool:
    """Return whether one of some seeds leaks, or ends the child in which it is tried."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            bad = [result[0] for result in map(leaking, seeds) if result is not None and result[1]]
        except BaseException:  # else the child would go on with the work of its parent
            print(traceback.format_exc(), flush=True)  # noqa: T201
            os._exit(2)
        if bad and not quiet:
            print(f"seed {seeds[0]} leaks: {bad[0]}", flush=True)  # noqa: T201
        os._exit(1 if bad else 0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and not quiet:
        print(f"seed {seeds[0]} is ended by signal {os.WTERMSIG(status)}", flush=True)  # noqa: T201
    return status != 0


if __name__ == "__main__":
    sys.exit(main())
