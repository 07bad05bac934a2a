"""Which arrays of a MATLAB file become tensors, and the wrapper that stands around them.

Nodes of the wrapper are those of `nnrcodec.model.mat_wrapper`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nnrcodec.formats.mat.network import Path
from nnrcodec.formats.mat.values import Array, Cell, Other, Struct, Text, Value, children
from nnrcodec.model.mat_wrapper import MOST_ELEMENTS, NAME
from nnrcodec.model.model import Tensor
from nnrcodec.model.source import MOST_BYTES, MOST_VALUES, LeftOut, Wrapper

_FEW, _SETTING = 16, 256
"""Elements: up to the first an array within structs is exact; up to the second one beside the
layers of a network is a setting, which is kept in the wrapper."""

_TOO_MUCH = f"more than the {MOST_BYTES} bytes that are kept"
_TRAINING = {"momentum", "solverState", "state", "stats", "der", "dzdx"}


@dataclass(slots=True)
class Wrapping:
    """Takes the arrays of a file.

    Parameters
    ----------
    places : mapping of int to list
        Nodes for arrays that are tensors of a network, by identity.
    has_network : bool
        Whether there is one: then all other arrays stand beside it.
    not_chosen : tuple of Path
        Paths of networks that are not coded.
    everything : bool
        Whether the state of training is coded too.
    """

    places: Mapping[int, list[Any]] = field(default_factory=dict)
    has_network: bool = False
    not_chosen: tuple[Path, ...] = ()
    everything: bool = False
    tensors: list[Tensor] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)
    _sizes: dict[Path, int] = field(default_factory=dict)
    _dropped: set[Path] = field(default_factory=set)

    def wrapper(self, root: Struct, taken: frozenset[str] = frozenset()) -> Wrapper | None:
        """Return the wrapper of a file, without its largest entries where it would be too large.

        Parameters
        ----------
        root : Struct
            The variables.
        taken : frozenset of str
            Names that other tensors have.
        """
        while True:
            self.tensors, self.left_out, self._sizes = [], [], {}
            self._taken = set(taken)
            content = self._node(root, ())
            size = _weight(content)
            if size <= MOST_BYTES:
                return Wrapper("mat", content)
            if not self._sizes:
                self.notes.append("what stands around the tensors is not kept: it is too much")
                return None
            for path in sorted(self._sizes, key=self._sizes.__getitem__, reverse=True):
                if size <= MOST_BYTES:
                    break
                self._dropped.add(path)
                size -= self._sizes[path]

    def _node(self, value: Value, path: Path) -> list[Any]:
        if path in self.not_chosen:
            return self._left(path, "a network", "not chosen by --key")
        if path in self._dropped:
            return self._left(path, _words(value), _TOO_MUCH)
        if isinstance(value, Other):
            return self._left(path, value.what, "only numbers, texts, cells and structs are kept")
        if max(value.dims) >= 2**31 or (
            math.prod(value.dims) > MOST_ELEMENTS and not isinstance(value, Array)
        ):
            return self._left(path, _words(value), "it has too many elements")
        if isinstance(value, Array):
            return self._array(value, path)
        if path and path[-1] in _TRAINING and not self.everything and _has_numbers(value):
            return self._left(path, _words(value), "state of training: only --key all codes it")
        if isinstance(value, Text):
            return self._plain(["text", list(value.dims), value.text], path)
        before = len(self.tensors), len(self.left_out)
        if isinstance(value, Cell):
            inner = [self._node(item, (*path, str(i))) for i, item in enumerate(value.items)]
            node = ["cell", list(value.dims), inner]
        else:
            node = ["struct", list(value.dims), *self._fields(value, path)]
        if path and (len(self.tensors), len(self.left_out)) == before and value.dims != (1, 1):
            self._sizes[path] = _weight(node)
        return node

    def _fields(self, value: Struct, path: Path) -> list[Any]:
        names, nodes = [], []
        is_one = value.dims == (1, 1)
        for name, values in value.fields.items():
            if not NAME.fullmatch(name):
                self._left((*path, name), _words(values[0]), "its name is none of MATLAB")
                continue
            names.append(name)
            for index, item in enumerate(values):
                step = (name,) if is_one else (str(index), name)
                nodes.append(self._node(item, (*path, *step)))
        return [names, nodes]

    def _array(self, value: Array, path: Path) -> list[Any]:
        place = self.places.get(id(value))
        if place is not None:
            return place
        is_nested = len(path) > 1 or self.has_network
        if path and path[-1] in _TRAINING and not self.everything and value.size > 1:
            return self._left(path, _words(value), "state of training: only --key all codes it")
        few = _SETTING if self.has_network else 1
        if value.size <= few * is_nested:
            node = ["numbers", value.dtype, list(value.dims), _json(value)]
            return self._plain(node, path)
        if self.has_network and value.dtype.startswith("complex"):
            return self._left(path, _words(value), "beside a graph only real numbers are coded")
        name = ".".join(path)
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        exact = self.has_network or (is_nested and value.size <= _FEW)
        tensor = Tensor(name, value.dtype, value.dims, value.read)
        self.tensors.append(replace(tensor, exact=exact))
        return ["tensor", name]

    def _plain(self, node: list[Any], path: Path) -> list[Any]:
        """Return a node without others in it, which is left out where there is too much."""
        self._sizes[path] = _weight(node)
        return node

    def _left(self, path: Path, what: str, reason: str) -> list[Any]:
        self.left_out.append(LeftOut(".".join(path), what, reason))
        return ["left_out", what, reason]


def _weight(node: list[Any]) -> int:
    """Return the bytes of a node, or as many as so many values may have."""
    text = json.dumps(node)
    return max(len(text), (text.count(",") + text.count("[")) * MOST_BYTES // MOST_VALUES)


def _json(value: Array) -> list[Any]:
    """Return numbers as JSON has them, in the order of MATLAB."""
    flat = value.read().reshape(-1, order="F")
    if flat.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
    return [
        number if not isinstance(number, float) or math.isfinite(number) else str(number)
        for number in flat.tolist()
    ]


def _has_numbers(value: Value) -> bool:
    if isinstance(value, Array):
        return value.size > 1
    return any(_has_numbers(child) for _, child in children(value))


def _words(value: Value) -> str:
    if isinstance(value, Other):
        return value.what
    size = "x".join(map(str, value.dims))
    kind = {Array: "an array", Cell: "a cell", Struct: "a struct"}.get(type(value), "a text")
    return f"{kind} of {size}"
