"""The graph of a network: a flat list of operator calls.

A `Graph` is plain data. Operators are names from the allow-list of `nnrcodec.graph.operators`,
arguments are numbers, words from fixed sets, references and tuples of these. Nothing here knows
PyTorch; `nnrcodec.graph.check` says which graphs are legal.

Values are numbered: first the inputs, then the nodes, so that node ``p`` has the value number
``len(inputs) + p``. A node refers only to values with a smaller number than its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Ref:
    """The value with number `index`: inputs are numbered first, then nodes."""

    index: int


@dataclass(frozen=True, slots=True)
class Local:
    """The value of node `position` of the nodes handed to `Graph.splice`; legal only there."""

    position: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor of the model, by its qualified name."""

    name: str


@dataclass(frozen=True, slots=True)
class Word:
    """A word from a fixed set, such as a dtype, a memory format or a padding mode."""

    kind: str
    value: str


Leaf = None | bool | int | float | Word | Ref | Local | TensorRef
Argument = Leaf | tuple["Argument", ...]
Output = Leaf | tuple["Output", ...] | list["Output"] | dict[str, "Output"]


@dataclass(frozen=True, slots=True)
class Node:
    """One operator call.

    Parameters
    ----------
    op : str
        Name in the allow-list, such as ``aten.conv2d.default``.
    args : tuple of Argument
        Positional arguments.
    kwargs : tuple of (str, Argument)
        Keyword arguments.
    """

    op: str
    args: tuple[Argument, ...]
    kwargs: tuple[tuple[str, Argument], ...] = ()

    def leaves(self) -> Iterator[Leaf]:
        """Return everything the arguments consist of, without the tuples."""
        for argument in (*self.args, *(value for _, value in self.kwargs)):
            yield from leaves(argument)

    def replace_leaves(self, change: Callable[[Leaf], Leaf]) -> Node:
        """Return the node with every leaf of its arguments passed through `change`."""
        return Node(
            self.op,
            tuple(_replace_leaves(argument, change) for argument in self.args),
            tuple((name, _replace_leaves(argument, change)) for name, argument in self.kwargs),
        )


@dataclass(frozen=True, slots=True)
class Dim:
    """A dimension of an input that may change from call to call.

    Parameters
    ----------
    low : int
        Smallest size for which the exporter vouches.
    high : int or None
        Largest such size; None where there is no bound.
    example : int
        A size that works, for exporting the model again.
    """

    low: int
    high: int | None
    example: int


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that the caller passes in.

    Parameters
    ----------
    name : str
        Name of the argument.
    dtype : str
        A key of `nnrcodec.model.DTYPES`.
    shape : tuple of int or str
        A number for a fixed size, a key of `Graph.dims` for one that may change.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """How a network computes its output.

    Parameters
    ----------
    inputs : tuple of Input
        What the caller passes in, in order.
    nodes : tuple of Node
        Operator calls in the order in which they run.
    output : Output
        What is returned: references, numbers and None in any nesting of tuples, lists and
        dictionaries with string keys.
    dims : mapping of str to Dim
        The dimensions of the inputs that may change.
    """

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    output: Output
    dims: Mapping[str, Dim] = field(default_factory=dict)

    def ref(self, position: int) -> Ref:
        """Return the reference to the value of node `position`."""
        return Ref(len(self.inputs) + position)

    def node_of(self, ref: Ref) -> Node | None:
        """Return the node that computes a value; None for an input."""
        position = ref.index - len(self.inputs)
        return self.nodes[position] if position >= 0 else None

    def tensor_names(self) -> tuple[str, ...]:
        """Return the names of the tensors the graph uses, in order of first use."""
        used = [leaf for node in self.nodes for leaf in node.leaves()] + list(leaves(self.output))
        return tuple(dict.fromkeys(leaf.name for leaf in used if isinstance(leaf, TensorRef)))

    def users(self, value: Ref | TensorRef) -> tuple[int, ...]:
        """Return the positions of the nodes that have `value` among their arguments."""
        return tuple(p for p, node in enumerate(self.nodes) if value in node.leaves())

    def rename(self, old: str, new: str) -> Graph:
        """Return the graph with its nodes using tensor `new` where they used tensor `old`."""

        def change(leaf: Leaf) -> Leaf:
            return TensorRef(new) if leaf == TensorRef(old) else leaf

        return replace(self, nodes=tuple(node.replace_leaves(change) for node in self.nodes))

    def is_output(self, value: Ref | TensorRef) -> bool:
        """Return whether `value` is, or is part of, what the graph returns."""
        return value in leaves(self.output)

    def splice(
        self,
        start: int,
        stop: int,
        nodes: tuple[Node, ...],
        result: Ref | Local | None = None,
    ) -> Graph:
        """Return the graph with nodes ``start..stop-1`` replaced by `nodes`.

        Inside `nodes` a `Ref` has the old numbering and means a value before `start`; a `Local`
        means an earlier one of the new nodes. Everything that used the value of node
        ``stop - 1`` uses `result` instead, and later references are renumbered.

        Parameters
        ----------
        start, stop : int
            Positions in `nodes` of the graph, ``start < stop``.
        nodes : tuple of Node
            The replacement, possibly empty.
        result : Ref or Local, optional
            What takes the place of the value of node ``stop - 1``: the last new node unless
            given. It must be given where `nodes` is empty.

        Raises
        ------
        ValueError
            If a later node or the output uses one of the replaced values other than the last,
            or `nodes` refer to what is not there.
        """
        if not 0 <= start < stop <= len(self.nodes):
            raise ValueError(f"no nodes {start}..{stop - 1} in a graph of {len(self.nodes)}")
        first, last = self.ref(start).index, self.ref(stop - 1).index

        def place(leaf: Leaf, count: int) -> Leaf:
            if isinstance(leaf, Local):
                if not 0 <= leaf.position < count:
                    raise ValueError(f"{leaf} must be an earlier one of the new nodes")
                return Ref(first + leaf.position)
            if isinstance(leaf, Ref) and leaf.index >= first:
                raise ValueError(f"{leaf} is not a value before node {start}")
            return leaf

        if result is None:
            if not nodes:
                raise ValueError("without new nodes, result must say what takes their place")
            result = Local(len(nodes) - 1)
        heir = place(result, len(nodes))

        def renumber(leaf: Leaf) -> Leaf:
            if not isinstance(leaf, Ref) or leaf.index < first:
                return leaf
            if leaf.index == last:
                return heir
            if leaf.index < last:
                raise ValueError(f"the value of node {leaf.index - len(self.inputs)} is still used")
            return Ref(leaf.index - (stop - start) + len(nodes))

        new = tuple(
            node.replace_leaves(lambda leaf, count=count: place(leaf, count))  # type: ignore[misc]
            for count, node in enumerate(nodes)
        )
        after = tuple(node.replace_leaves(renumber) for node in self.nodes[stop:])
        return replace(
            self,
            nodes=self.nodes[:start] + new + after,
            output=_replace_output_leaves(self.output, renumber),
        )


def leaves(argument: Argument | Output) -> Iterator[Leaf]:
    """Return everything an argument or an output consists of, without the containers."""
    if isinstance(argument, tuple | list):
        for item in argument:
            yield from leaves(item)
    elif isinstance(argument, dict):
        for item in argument.values():
            yield from leaves(item)
    else:
        yield argument


def _replace_leaves(argument: Argument, change: Callable[[Leaf], Leaf]) -> Argument:
    if isinstance(argument, tuple):
        return tuple(_replace_leaves(item, change) for item in argument)
    return change(argument)


def _replace_output_leaves(output: Output, change: Callable[[Leaf], Leaf]) -> Output:
    if isinstance(output, tuple):
        return tuple(_replace_output_leaves(item, change) for item in output)
    if isinstance(output, list):
        return [_replace_output_leaves(item, change) for item in output]
    if isinstance(output, dict):
        return {key: _replace_output_leaves(item, change) for key, item in output.items()}
    return change(output)
