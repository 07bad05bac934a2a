"""The graph of a network: a flat list of operator calls.

A `Graph` is plain data. Operators are names from the allow-list of `nnrcodec.graph.operators`,
arguments are numbers, words from fixed sets, references and tuples of these. This module does not
use PyTorch; `nnrcodec.graph.check` defines which graphs are legal.

Values are numbered: first the inputs, then the nodes, so that node ``p`` has the value number
``len(inputs) + p``. A node refers only to values with a smaller number than its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from nnrcodec.graph.guards import Guard


@dataclass(frozen=True, slots=True)
class Ref:
    """The value with number `index`: inputs are numbered first, then nodes."""

    index: int


@dataclass(frozen=True, slots=True)
class Local:
    """The value of node `position` of the nodes of a `Splice`; legal only there."""

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
        """Return the elements of the arguments, without the tuples."""
        for argument in (*self.args, *(value for _, value in self.kwargs)):
            yield from leaves(argument)

    def replace_leaves(self, change: Callable[[Leaf], Leaf]) -> Node:
        """Return the node with `change` applied to every leaf of its arguments."""
        return Node(
            self.op,
            tuple(_replace_leaves(argument, change) for argument in self.args),
            tuple((name, _replace_leaves(argument, change)) for name, argument in self.kwargs),
        )


@dataclass(frozen=True, slots=True)
class Dim:
    """A dynamic dimension of an input.

    Parameters
    ----------
    low : int
        Smallest size for which the graph is valid.
    high : int or None
        Largest such size; None if there is no bound.
    example : int
        A valid size, for exporting the model again.
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
        A key of `nnrcodec.model.dtypes.COMPUTED_DTYPES`.
    shape : tuple of int or str
        A number for a fixed size, a key of `Graph.dims` for a dynamic one.
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
        Value that is returned: references, numbers and None in any nesting of tuples, lists and
        dictionaries with string keys.
    dims : mapping of str to Dim
        The dynamic dimensions of the inputs.
    original_names : mapping of str to str
        Original names of layers and tensors that are coded under other names
        (`nnrcodec.graph.names`), by path.
    guards : tuple of Guard
        What must hold of the dynamic dimensions (`nnrcodec.graph.guards`).
    """

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    output: Output
    dims: Mapping[str, Dim] = field(default_factory=dict)
    original_names: Mapping[str, str] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()
    _uses: Mapping[Ref | TensorRef, list[int]] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    @property
    def places(self) -> dict[str, str]:
        """Where each dynamic dimension is first, such as ``x.shape[2]``."""
        places: dict[str, str] = {}
        for value in self.inputs:
            for axis, size in enumerate(value.shape):
                if isinstance(size, str):
                    places.setdefault(size, f"{value.name}.shape[{axis}]")
        return places

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

    def uses(self, value: Ref | TensorRef) -> Sequence[int]:
        """Return the positions of the nodes that use `value`, in order, once for each use.

        The number of nodes stands for the output of the graph.
        """
        index = self._uses
        if index is None:
            index = {}
            for position, node in enumerate(self.nodes):
                _note_uses(index, node.leaves(), position)
            _note_uses(index, leaves(self.output), len(self.nodes))
            object.__setattr__(self, "_uses", index)  # valid for good: a graph is immutable
        return index.get(value, ())

    def users(self, value: Ref | TensorRef) -> tuple[int, ...]:
        """Return the positions of the nodes that have `value` among their arguments."""
        return tuple(p for p in dict.fromkeys(self.uses(value)) if p < len(self.nodes))

    def is_output(self, value: Ref | TensorRef) -> bool:
        """Return whether `value` is, or is part of, what the graph returns."""
        return len(self.nodes) in self.uses(value)[-1:]

    def replace_leaves(self, change: Callable[[Leaf], Leaf]) -> Graph:
        """Return the graph with `change` applied to every leaf of nodes and output."""
        return replace(
            self,
            nodes=tuple(node.replace_leaves(change) for node in self.nodes),
            output=_replace_output_leaves(self.output, change),
        )

    def rename(self, names: Mapping[str, str]) -> Graph:
        """Return the graph with tensors renamed, by a mapping from old to new names."""

        def change(leaf: Leaf) -> Leaf:
            if isinstance(leaf, TensorRef) and leaf.name in names:
                return TensorRef(names[leaf.name])
            return leaf

        return self.replace_leaves(change)

    def splice(self, splices: Iterable[Splice]) -> Graph:
        """Return the graph with runs of its nodes replaced; later references are renumbered.

        Parameters
        ----------
        splices : iterable of Splice
            Replacements, in the order of the replaced nodes.

        Raises
        ------
        ValueError
            If a remaining node uses a replaced value other than the last of a run, if new nodes
            refer to values that do not exist, or if runs are empty or not in order.
        """
        numbers: list[Ref | None] = [Ref(index) for index in range(len(self.inputs))]
        nodes: list[Node] = []

        def renumber(leaf: Leaf) -> Leaf:
            if not isinstance(leaf, Ref):
                return leaf
            if leaf.index >= len(numbers):
                raise ValueError(f"{leaf} is not a value before what uses it")
            number = numbers[leaf.index]
            if number is None:
                raise ValueError(f"the value of node {leaf.index - len(self.inputs)} is still used")
            return number

        def copy(stop: int) -> None:
            for node in self.nodes[len(numbers) - len(self.inputs) : stop]:
                nodes.append(node.replace_leaves(renumber))
                numbers.append(Ref(len(self.inputs) + len(nodes) - 1))

        for start, stop, replacement, result in splices:
            if not len(numbers) - len(self.inputs) <= start < stop <= len(self.nodes):
                raise ValueError(f"no nodes {start}..{stop - 1} in a graph of {len(self.nodes)}")
            if result is None and not replacement:
                raise ValueError("without new nodes, result must be given")
            copy(start)
            first = len(nodes)

            def place(leaf: Leaf, first: int = first) -> Leaf:
                if not isinstance(leaf, Local):
                    return renumber(leaf)
                if not 0 <= leaf.position < len(nodes) - first:
                    raise ValueError(f"{leaf} must be an earlier one of the new nodes")
                return Ref(len(self.inputs) + first + leaf.position)

            for node in replacement:
                nodes.append(node.replace_leaves(place))
            replaced_by = place(Local(len(replacement) - 1) if result is None else result)
            numbers += [None] * (stop - start - 1)
            numbers.append(replaced_by if isinstance(replaced_by, Ref) else None)
        copy(len(self.nodes))
        output = _replace_output_leaves(self.output, renumber)
        return replace(self, nodes=tuple(nodes), output=output)


class Splice(NamedTuple):
    """The replacement of a run of nodes.

    Inside `nodes` a `Ref` has the old numbering and is a value before `start`; a `Local` is an
    earlier one of the new nodes. All users of node ``stop - 1`` use `result` instead: a `Ref` or a
    `Local`, by default the last new node. It must be given if `nodes` is empty.
    """

    start: int
    stop: int
    nodes: tuple[Node, ...]
    result: Ref | Local | None = None


def leaves(argument: Argument | Output) -> Iterator[Leaf]:
    """Return the elements of an argument or an output, without the containers."""
    if isinstance(argument, tuple | list):
        for item in argument:
            yield from leaves(item)
    elif isinstance(argument, dict):
        for item in argument.values():
            yield from leaves(item)
    else:
        yield argument


def _note_uses(
    index: dict[Ref | TensorRef, list[int]], used: Iterator[Leaf], position: int
) -> None:
    for leaf in used:
        if isinstance(leaf, Ref | TensorRef):
            index.setdefault(leaf, []).append(position)


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
