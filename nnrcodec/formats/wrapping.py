"""What is coded of a tree of Python values, and the wrapper that stands around it.

Where a file has one state dict, that is coded, and with it every tensor that stands beside it; the
state of optimizers and of random generators is left out. Where it has several, the caller chooses.
What is no tensor becomes the wrapper (`nnrcodec.model.source`).
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nnrcodec.errors import ModelError
from nnrcodec.formats.pickled import Name, Ordered, Thing
from nnrcodec.formats.torch_values import Device, Size, StoredTensor, value_of
from nnrcodec.formats.tree import Path, Tree, children, dotted, names_of, with_state_dicts, words
from nnrcodec.model.source import (
    INT64_MAX,
    MOST_BYTES,
    MOST_VALUES,
    LeftOut,
    Wrapper,
    members_of,
    prefixes_of,
    tensors_named,
)

ALL = "all"
"""The key that codes all of a file."""

_NO_CLASS = "no class is built of what a file says"
_NOT_KEPT = "numbers, texts and containers of them are kept"


@dataclass(frozen=True, slots=True)
class Picked:
    """What is coded of a tree.

    Parameters
    ----------
    tensors : list of (str, StoredTensor, bool)
        Names, tensors, and whether they stand beside the state dict.
    wrapper : Wrapper or None
        What stands around them; None where that is one plain mapping.
    coded : str
        Path of the entry that was chosen; empty for all.
    left_out : tuple of LeftOut
    notes : tuple of str
        What changes on the way back.
    is_state_of_program : bool
        Whether state dicts were taken out of pickled or scripted networks.
    """

    tensors: list[tuple[str, StoredTensor, bool]]
    wrapper: Wrapper | None
    coded: str
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    is_state_of_program: bool


def pick(root: Any, key: str | None, path: object) -> Picked:
    """Choose what is coded.

    Parameters
    ----------
    root : object
        The tree.
    key : str or None
        The path of an entry, "all" for all of the tree, None to find the only state dict.
    path : object
        The file, for messages.

    Raises
    ------
    ModelError
        There are several state dicts, or no tensors.
    ConfigError
        There is no entry of that name.
    """
    notes: dict[str, None] = {}
    root = with_state_dicts(root, notes)
    has_program = bool(notes)
    tree = Tree(root, path)
    if not tree.tensors:
        raise ModelError(
            f"{path} holds no tensors, but {words(root)}; a state dict is expected: write "
            "module.state_dict() with torch.save, or the whole network to a .pt2 file with "
            "torch.export"
        )
    if key == ALL:
        chosen: Path = ()
        kept = dict(tree.tensors)
    elif key is not None:
        chosen = tree.entry(key)
        kept = {p: t for p, t in tree.tensors.items() if p[: len(chosen)] == chosen}
    else:
        chosen = tree.only_state_dict()
        kept = {p: t for p, t in tree.tensors.items() if not tree.is_state_of_training(p)}
    names = names_of(kept, chosen)
    writer = _Writer(tree, names, chosen)
    wrapper = writer.wrapper(notes)
    tensors = [(names[p], t, p[: len(chosen)] != chosen) for p, t in kept.items()]
    # the state dict itself is in front, in its own order
    tensors.sort(key=lambda row: row[2])
    coded = "" if key == ALL else dotted(chosen)
    return Picked(tensors, wrapper, coded, tuple(writer.left_out), tuple(notes), has_program)


@dataclass(slots=True)
class _Writer:
    """Writes what stands around tensors as a wrapper."""

    tree: Tree
    names: Mapping[Path, str]
    chosen: Path
    left_out: list[LeftOut] = field(default_factory=list)
    plain: dict[Path, int] = field(default_factory=dict)
    dropped: set[Path] = field(default_factory=set)
    notes: dict[str, None] = field(default_factory=dict)
    expected: dict[str, list[str]] = field(default_factory=dict)
    below: dict[Path, list[Path]] = field(default_factory=lambda: defaultdict(list))
    with_prefixes: bool = True

    def __post_init__(self) -> None:
        for path in self.tree.tensors:
            for length in range(len(path)):
                self.below[path[:length]].append(path)

    def wrapper(self, notes: dict[str, None]) -> Wrapper | None:
        """Return the wrapper, without its largest entries where it would be too large."""
        while True:
            self.left_out, self.plain, self.notes, self.expected = [], {}, {}, {}
            content = self.node(self.tree.root, ())
            text = json.dumps(content)
            size = len(text)
            if size <= MOST_BYTES and text.count(",") + text.count("[") <= MOST_VALUES:
                break
            largest = max(self.plain, key=self.plain.__getitem__, default=None)
            if largest is None:
                notes[f"what stands around the tensors is not kept: {size} bytes are too many"] = (
                    None
                )
                return None
            self.dropped.add(largest)
        notes.update(self.notes)
        if content[0] == "tensors" and content[2:] == ["", None]:
            return None
        if self.with_prefixes and not self._is_unambiguous(content):
            self.with_prefixes = False
            return self.wrapper(notes)
        return Wrapper("torch", content)

    def _is_unambiguous(self, content: Any) -> bool:
        """Return whether every mapping gets its own tensors back by their names."""
        alone = set(tensors_named(content))
        names = [name for name in self.names.values() if name not in alone]
        return members_of(prefixes_of(content), names) == self.expected

    def node(self, value: Any, at: Path) -> Any:
        """Return what stands for a value."""
        if isinstance(value, StoredTensor):
            return self.tensor(value, at)
        tensors = self.below.get(at, [])
        if tensors and not any(p in self.names for p in tensors):
            return self.not_coded(value, at, tensors)
        if not tensors:
            return self.without_tensors(value, at)
        if isinstance(value, Mapping):
            return self.mapping(value, at)
        if isinstance(value, list | tuple):
            tag = "list" if isinstance(value, list) else "tuple"
            return [tag, *(self.node(v, (*at, k)) for k, v in children(value))]
        if isinstance(value, Thing):
            self.notes[f"objects of the class {value.maker} become plain mappings"] = None
            pairs = [(k, v) for k, v in children(value)]
            return ["dict", *self.pairs(pairs, at)]
        raise TypeError(f"a {type(value).__name__} with tensors")

    def tensor(self, value: StoredTensor, at: Path) -> Any:
        if at not in self.names:
            return self.not_coded(value, at, [at])
        name = self.names[at]
        if value.quantized is not None:
            kind, *how = value.quantized
            if len(how) == 2 and all(isinstance(x, int | float) for x in how):
                return ["quantized", kind, name, float(how[0]), int(how[1])]
            scale, zero_point = (self.names.get((*at, part)) for part in ("scale", "zero_point"))
            if scale is not None and zero_point is not None and type(how[-1]) is int:
                return ["quantized", kind, name, scale, zero_point, how[-1]]
            self.notes[f"{name!r} is quantized in a way that is not known: integers are kept"] = (
                None
            )
        return ["array" if value.is_array else "tensor", name]

    def mapping(self, value: Mapping[Any, Any], at: Path) -> list[Any]:
        kind = "OrderedDict" if isinstance(value, Ordered) else "dict"
        versions = self.versions(value)
        if self.with_prefixes and self._is_state_dict(value, at):
            prefix = dotted(at[len(self.chosen) :]) if at != self.chosen else ""
            prefix = f"{prefix}." if prefix else ""
            names = [self.names[(*at, key)] for key in value]
            if names == [prefix + key for key in value]:
                self.expected[prefix] = names
                return ["tensors", kind, prefix, versions]
        head = ["OrderedDict", versions] if kind == "OrderedDict" else ["dict"]
        return [*head, *self.pairs(list(value.items()), at)]

    def _is_state_dict(self, value: Mapping[Any, Any], at: Path) -> bool:
        inside = at[: len(self.chosen)] == self.chosen
        return inside and all(
            isinstance(key, str)
            and isinstance(entry, StoredTensor)
            and not entry.is_array
            and entry.quantized is None
            for key, entry in value.items()
        )

    def pairs(self, items: list[tuple[Any, Any]], at: Path) -> Iterator[Any]:
        for key, entry in items:
            node = self.node(entry, (*at, key))
            written = self.key(key)
            if written is None and key is not None:
                self.left_out.append(
                    LeftOut(
                        dotted((*at, key)),
                        words(entry),
                        f"its key is {words(key)}, which is not kept",
                    )
                )
                continue
            yield written
            yield node

    def key(self, key: Any) -> Any:
        if isinstance(key, tuple):
            parts = [_scalar(part) for part in key]
            simple = all(p is not None and not isinstance(p, list) for p in parts)
            return ["tuple", *parts] if simple else None
        return None if isinstance(key, float) and not math.isfinite(key) else _scalar(key)

    def versions(self, value: Mapping[Any, Any]) -> dict[str, int] | None:
        """Return the versions of layers that a state dict has, if they are all that it has."""
        attributes = value.attributes if isinstance(value, Ordered) else None
        metadata = attributes.get("_metadata") if isinstance(attributes, dict) else None
        if not isinstance(metadata, dict):
            return None
        versions = {}
        for name, entry in metadata.items():
            if isinstance(entry, dict) and isinstance(name, str):
                version = entry.get("version")
                if type(version) is int and abs(version) <= INT64_MAX:
                    versions[name] = version
                if entry.keys() - {"version"}:
                    self.notes["of the metadata of layers only versions are kept"] = None
        return versions

    def not_coded(self, value: Any, at: Path, tensors: list[Path]) -> Any:
        elements = sum(self.tree.tensors[p].size for p in tensors)
        count = f"{len(tensors)} tensor{'s' * (len(tensors) != 1)}, {elements} elements"
        if all(self.tree.is_state_of_training(p) for p in tensors):
            what, reason = f"state of training, {count}", "only --key all codes it"
        else:
            what, reason = count, "not chosen by --key"
        self.left_out.append(LeftOut(dotted(at), what, reason))
        return ["left_out", what, reason]

    def without_tensors(self, value: Any, at: Path) -> Any:
        """Return what stands for a value without tensors, or that it is left out."""
        if at in self.dropped:
            reason = f"more than the {MOST_BYTES} bytes of text that are kept around tensors"
            what = words(value)
            self.left_out.append(LeftOut(dotted(at), what, reason))
            return ["left_out", what, reason]
        before = len(self.left_out)
        node = self.data(value, at)
        if len(self.left_out) == before:
            self.plain[at] = len(json.dumps(node))
        return node

    def data(self, value: Any, at: Path) -> Any:
        if isinstance(value, Mapping):
            kind = "OrderedDict" if isinstance(value, Ordered) else "dict"
            head = [kind, self.versions(value)] if kind == "OrderedDict" else ["dict"]
            return [*head, *self.pairs(list(value.items()), at)]
        if isinstance(value, list | tuple):
            tag = "list" if isinstance(value, list) else "tuple"
            return [tag, *(self.node(v, (*at, k)) for k, v in children(value))]
        if isinstance(value, set):
            items = [_scalar(item) for item in sorted(value, key=repr)]
            if all(item is not None and not isinstance(item, list) for item in items):
                return ["set", *items]
        elif isinstance(value, Name):
            dtype = value_of(value)
            if dtype is not None:
                return ["dtype", dtype.name]
        elif value is None or isinstance(value, bool | int | float | str | bytes | complex):
            node = _scalar(value)
            if node is not None or value is None:
                return node
        elif isinstance(value, Size):
            return ["Size", *value.sizes]
        elif isinstance(value, Device) and re.fullmatch(r"[a-z]{1,16}(:[0-9]{1,3})?", value.name):
            return ["device", value.name]
        what = words(value)
        reason = _NO_CLASS if isinstance(value, Thing | Name) else _NOT_KEPT
        self.left_out.append(LeftOut(dotted(at), what, reason))
        return ["left_out", what, reason]


def _scalar(value: Any) -> Any:
    """Return what stands for a value that holds no others; None also if there is nothing."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= INT64_MAX else None
    if isinstance(value, float):
        return value if math.isfinite(value) else ["float", str(value)]
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return None
        return value
    if isinstance(value, bytes):
        return ["bytes", base64.b64encode(value).decode()]
    if isinstance(value, complex) and math.isfinite(value.real) and math.isfinite(value.imag):
        return ["complex", value.real, value.imag]
    return None
