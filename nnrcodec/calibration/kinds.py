"""What the inputs of a network are, as far as its graph tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from nnrcodec.graph.graph import Graph, Input, Node, Ref, TensorRef
from nnrcodec.model.model import Model


class Kind(Enum):
    """What values an input has."""

    PICTURE = auto()
    SIGNAL = auto()
    FEATURES = auto()
    """A vector for each time, of what was measured of a signal."""
    TOKENS = auto()
    MASK = auto()
    """Which tokens are no padding."""
    NOISE = auto()
    """Real numbers of which nothing is known."""
    UNKNOWN = auto()
    """Numbers of which some may not be valid."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a network takes as one of its inputs.

    Parameters
    ----------
    kind : Kind
    time : int
        Axis of time of a signal, of features, tokens or a mask; of noise what may be one.
    channels : int or None
        Axis of the channels of a signal, or of features; None where a signal has one channel.
    rows : int
        Number of tokens.
    """

    kind: Kind
    time: int = -1
    channels: int | None = None
    rows: int = 0


_SAME_VALUES = frozenset(
    (
        "alias",
        "chunk",
        "clone",
        "contiguous",
        "detach",
        "expand",
        "flatten",
        "getitem",
        "permute",
        "reshape",
        "select",
        "slice",
        "split",
        "squeeze",
        "swapaxes",
        "t",
        "to",
        "transpose",
        "unflatten",
        "unsqueeze",
        "view",
        "_to_copy",
        "_unsafe_view",
    )
)
"""Operators that give out what they take."""

_RECURRENT = frozenset(("lstm", "gru", "rnn_tanh", "rnn_relu"))

_PRODUCTS = frozenset(("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "embedding"))

_SIZES = frozenset(
    (
        "sym_size",
        "sym_numel",
        "zeros_like",
        "ones_like",
        "new_zeros",
        "new_ones",
        "expand_as",
        "view_as",
    )
)
"""Operators whose result depends on the sizes of what they take."""

_MOST_CHANNELS = 16
"""Most channels of a signal; with more, they are taken for features."""


def kinds_of(model: Model) -> tuple[Taken, ...]:
    """Return what the inputs of a network are.

    Axes of pictures are (n, channels, height, width). What a convolution along one axis takes is a
    signal, or features if it has many channels; what a recurrent layer takes are features. Tokens
    are rows of an embedding. A mask has the last axis of an input of tokens, or of features, and
    no axes of other sizes. All other integers are unknown.

    Parameters
    ----------
    model : Model
        With a graph.
    """
    graph = model.graph
    if graph is None:
        return ()
    inputs = [_taken(index, entry, graph, model) for index, entry in enumerate(graph.inputs)]
    sequences = [
        (taken.kind, _sequence_axes(entry, taken))
        for entry, taken in zip(graph.inputs, inputs, strict=True)
        if taken.kind is Kind.TOKENS or (len(entry.shape) == 3 and taken.kind is not Kind.UNKNOWN)
    ]
    for index, (entry, taken) in enumerate(zip(graph.inputs, inputs, strict=True)):
        if taken.kind is not Kind.TOKENS and any(
            _is_mask(entry, axes)
            for kind, axes in sequences
            if kind is Kind.TOKENS or taken.kind is Kind.UNKNOWN
        ):
            inputs[index] = Taken(Kind.MASK, time=len(entry.shape) - 1)
    return tuple(inputs)


def _sequence_axes(entry: Input, taken: Taken) -> tuple[int | str, ...]:
    """Return the axes that a mask for an input has."""
    return entry.shape if taken.kind is Kind.TOKENS else (entry.shape[0], entry.shape[taken.time])


def _is_mask(entry: Input, sequence: tuple[int | str, ...]) -> bool:
    """Return whether an input has the axes of a sequence, or some of them and others of size 1."""
    shape = entry.shape
    if shape[-1:] != sequence[-1:] or sequence[-1:] in ((), (1,)):
        return False
    return shape == sequence or (len(shape) >= 2 and all(size in (1, *sequence) for size in shape))


def _taken(index: int, entry: Input, graph: Graph, model: Model) -> Taken:
    if "float" not in entry.dtype:
        rows = [
            model.tensors[node.args[0].name].shape[0]
            for node, _ in _takers(graph, index, _SAME_VALUES.__contains__)
            if node.op == "aten.embedding.default" and isinstance(node.args[0], TensorRef)
        ]
        if rows:
            return Taken(Kind.TOKENS, time=len(entry.shape) - 1, rows=min(rows))
        picture = entry.dtype == "uint8" and len(entry.shape) == 4
        return Taken(Kind.PICTURE if picture else Kind.UNKNOWN)
    if len(entry.shape) == 4:
        return Taken(Kind.PICTURE)
    if len(entry.shape) in (2, 3):
        for node, value in _takers(graph, index, lambda name: not _looks_at_all(name)):
            if _name(node) not in _SIZES:
                return _sequence(node, value, index, entry, model)
    return Taken(Kind.NOISE, time=1)


def _looks_at_all(name: str) -> bool:
    known = _PRODUCTS | _RECURRENT | _SIZES
    return name.startswith("conv") or name in known


def _sequence(node: Node, value: int, index: int, entry: Input, model: Model) -> Taken:
    """Return what an input is of which a node is the first layer."""
    axes, name = len(entry.shape), _name(node)
    if name in _RECURRENT and axes == 3:
        first = node.args[-1] is not False or value != index
        return Taken(Kind.FEATURES, time=1 if first else 0, channels=2)
    weight = node.args[1] if name in ("conv1d", "conv2d") else None
    if not isinstance(weight, TensorRef):
        return Taken(Kind.NOISE, time=1)
    shape, groups = model.tensors[weight.name].shape, (*node.args, *7 * (1,))[6]
    if sum(size > 1 for size in shape[2:]) > 1 or not isinstance(groups, int):
        return Taken(Kind.NOISE, time=1)
    taken = groups * shape[1]
    if taken == 1:
        return Taken(Kind.SIGNAL, time=1 if entry.shape[2:] == (1,) else axes - 1)
    if axes == 2 or name == "conv2d":
        return Taken(Kind.NOISE, time=1)
    channels = 2 if entry.shape[2] == taken != entry.shape[1] else 1
    kind = Kind.FEATURES if taken > _MOST_CHANNELS else Kind.SIGNAL
    return Taken(kind, time=3 - channels, channels=channels)


def _name(node: Node) -> str:
    """Return the name of an operator, without that of its overload."""
    return node.op.split(".")[1]


def _takers(graph: Graph, index: int, passes: Callable[[str], bool]) -> Iterator[tuple[Node, int]]:
    """Yield the nodes that an input reaches through others, each with the value that it takes."""
    reached = {index}
    for position, node in enumerate(graph.nodes):
        taken = [
            leaf.index for leaf in node.leaves() if isinstance(leaf, Ref) and leaf.index in reached
        ]
        if taken and passes(_name(node)):
            reached.add(graph.ref(position).index)
        elif taken:
            yield node, taken[0]
