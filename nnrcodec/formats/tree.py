"""A tree of Python values with tensors in it: where they are, and which of them are a state dict.

A state dict is a mapping with tensors. Tensors in a mapping that has state dicts further down stand
beside these, unless their names have points, as those in state dicts have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats.pickled import Name, Ordered, Thing
from nnrcodec.formats.torch_values import StoredTensor
from nnrcodec.model.source import INT64_MAX, MOST_DEPTH

MOST_NODES = 2_000_000
"""Values of a tree; the same list may be in it any number of times."""

_STATE_OF_OPTIMIZER = {"state", "param_groups"}
_OPTIMIZER = re.compile(r"(^|_)optim(izers?)?([A-Z_0-9]|$)")
_RANDOM = re.compile(r"(^|_)(rng|random)_states?(_|$)")
Path = tuple[Any, ...]


def dotted(path: Path) -> str:
    """Return the path of an entry as a user writes it."""
    return ".".join(map(str, path))


def children(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the keys and values within a node of a tree."""
    if isinstance(node, Mapping):
        yield from node.items()
    elif isinstance(node, list | tuple):
        yield from enumerate(node)
    elif isinstance(node, Thing):
        for part in (node.items, node.state):
            if isinstance(part, dict | list):
                yield from children(part)


class Tree:
    """The tensors of a tree, by their paths in order.

    Parameters
    ----------
    root : object
        The tree.
    path : object
        The file, for messages.

    Raises
    ------
    ModelError
        Too much is within one another, or there is too much of it.
    """

    def __init__(self, root: Any, path: object) -> None:
        self.root, self.path = root, path
        self.tensors: dict[Path, StoredTensor] = {}
        self._training: set[Path] = set()
        self._scales: set[Path] = set()
        self._count = 0
        self._walk(root, (), in_optimizer=False)

    def _walk(self, node: Any, at: Path, *, in_optimizer: bool) -> None:
        self._count += 1
        if len(at) > MOST_DEPTH or self._count > MOST_NODES:
            raise ModelError(f"{self.path} has too many values within one another")
        if isinstance(node, StoredTensor):
            self.tensors[at] = node
            scales = [] if node.quantized is None else node.quantized[1:3]
            for name, part in zip(("scale", "zero_point"), scales, strict=False):
                if isinstance(part, StoredTensor):
                    self.tensors[*at, name] = part
                    self._scales.add((*at, name))
            if in_optimizer or (at and isinstance(at[-1], str) and _RANDOM.search(at[-1])):
                self._training.update(p for p in self.tensors if p[: len(at)] == at)
            return
        in_optimizer = in_optimizer or _is_state_of_training(node, at)
        for key, child in children(node):
            self._walk(child, (*at, key), in_optimizer=in_optimizer)

    def is_state_of_training(self, path: Path) -> bool:
        """Return whether a tensor is of an optimizer, or of a random generator."""
        return path in self._training

    def get(self, path: Path) -> Any:
        """Return the value at a path."""
        node = self.root
        for step in path:
            node = dict(children(node))[step]
        return node

    def state_dicts(self) -> list[Path]:
        """Return the paths of all state dicts, without those within another one."""
        counts: dict[Path, list[Path]] = {}
        for path in self.tensors:
            if path not in self._training and path not in self._scales:
                counts.setdefault(path[:-1], []).append(path)
        mappings = {p: t for p, t in counts.items() if not isinstance(self.get(p), list | tuple)}
        mappings = mappings or counts
        with_axes = {p: t for p, t in mappings.items() if any(self.tensors[x].shape for x in t)}
        mappings = with_axes or mappings  # scores beside a state dict are none
        found = []
        for at, tensors in mappings.items():
            inner = [p for p in mappings if p != at and p[: len(at)] == at]
            outer = [p for p in mappings if p != at and at[: len(p)] == p]
            is_flat = any("." in str(p[-1]) for p in tensors)
            within_flat = any(any("." in str(t[-1]) for t in mappings[p]) for p in outer)
            if (not inner or is_flat) and not within_flat:
                found.append(at)
        return found

    def only_state_dict(self) -> Path:
        """Return the path of the only state dict.

        Raises
        ------
        ModelError
            There is none, or there are several.
        """
        if () in self.tensors:
            return ()
        found = self.state_dicts()
        if not found:
            raise ModelError(
                f"{self.path} holds no state dict, only the state of training: --key all codes it"
            )
        if len(found) == 1:
            return found[0]
        names = ", ".join(repr(dotted(p)) for p in found[:20])
        more = f" and {len(found) - 20} more" if len(found) > 20 else ""
        raise ModelError(
            f"{self.path} holds several state dicts ({names}{more}): choose one with --key NAME "
            "(key= in Python), or all of the file with --key all"
        )

    def entry(self, key: str) -> Path:
        """Return the path of an entry, given as a user writes it.

        Raises
        ------
        ConfigError
            There is none, or there are several.
        """
        found = {p[:n] for p in self.tensors for n in range(len(p)) if dotted(p[:n]) == key}
        if len(found) == 1:
            return found.pop()
        known = ", ".join(repr(dotted(p)) for p in self.state_dicts()[:20])
        what = "several entries" if found else "no entry with tensors"
        raise ConfigError(f"{self.path} has {what} {key!r}; there are {known}, and all")


def _is_state_of_training(node: Any, at: Path) -> bool:
    if isinstance(node, Mapping) and node.keys() >= _STATE_OF_OPTIMIZER:
        return isinstance(node["param_groups"], list)
    key = at[-1] if at else None
    if not isinstance(key, str) or isinstance(node, StoredTensor):
        return False
    return "." not in key and bool(_OPTIMIZER.search(key) or _RANDOM.search(key))


def names_of(tensors: Mapping[Path, StoredTensor], chosen: Path) -> dict[Path, str]:
    """Return a name for each tensor: as in its state dict, or its path if it is beside it."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for inside in (True, False):
        for path in tensors:
            if (path[: len(chosen)] == chosen) is not inside:
                continue
            name = dotted(path[len(chosen) :] if inside else path) or ("" if path else "tensor")
            while name in taken:
                name += "_"
            taken.add(name)
            names[path] = name
    return names


_KINDS = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor, and only dense ones are coded",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without values",
    "torch._utils._rebuild_nested_tensor": "a nested tensor, and only dense ones are coded",
}
"""By the function that makes it, what something is."""


def words(value: Any) -> str:
    """Return what a value is, for people."""
    if isinstance(value, Thing):
        return _KINDS.get(str(value.maker)) or f"an object of the class {value.maker}"[:200]
    if isinstance(value, Name):
        return f"the name {value}"[:200]
    if isinstance(value, StoredTensor):
        return f"{value.size} values of {value.dtype}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > INT64_MAX:
        return "a whole number of more than 64 bits"
    if isinstance(value, Mapping | list | tuple | set):
        return f"a {type(value).__name__.lower().replace('ordered', 'ordereddict')} of {len(value)}"
    return f"a {type(value).__name__}"


def with_state_dicts(root: Any, notes: dict[str, None]) -> Any:
    """Return a tree with the state dicts of the modules in it."""
    seen: dict[int, Any] = {}

    def changed(node: Any, depth: int) -> Any:
        if depth > MOST_DEPTH:
            return node
        if isinstance(node, Thing):
            state = state_dict_of(node)
            if state is not None:
                script = node.maker.module.startswith("__torch__")
                kind = "a TorchScript network" if script else "a pickled network"
                notes[
                    f"it holds {kind} of the class {node.maker}: its tensors are taken as a state "
                    "dict, and nothing of it is run; its program is not kept, so load the result "
                    "with load_state_dict, or export the network with torch.export to code it all"
                ] = None
                return state
            return node
        if isinstance(node, dict | list) and id(node) not in seen:
            seen[id(node)] = node
            for key, child in list(children(node)):
                node[key] = changed(child, depth + 1)
        return node

    return changed(root, 0)


def state_dict_of(thing: Thing) -> Ordered | None:
    """Return the state dict of a network that was pickled or scripted; None if it is none."""
    result = Ordered()
    ok = _collect(thing, "", result, 0)
    return result if ok and result else None


def _collect(thing: Thing, prefix: str, result: Ordered, depth: int) -> bool:
    state = thing.state
    if not isinstance(state, dict) or depth > MOST_DEPTH:
        return False
    modules: Mapping[Any, Any]
    if thing.maker.module.startswith("__torch__"):
        tensors = {k: v for k, v in state.items() if isinstance(v, StoredTensor)}
        modules = {k: v for k, v in state.items() if isinstance(v, Thing)}
    elif "_parameters" in state and "_modules" in state:
        own = [state.get(name) for name in ("_parameters", "_buffers")]
        transient = state.get("_non_persistent_buffers_set")
        skipped = transient if isinstance(transient, set) else set()
        tensors = {
            key: value
            for part in own
            if isinstance(part, Mapping)
            for key, value in part.items()
            if isinstance(value, StoredTensor) and key not in skipped
        }
        modules = state["_modules"] if isinstance(state["_modules"], Mapping) else {}
    else:
        return False
    for key, value in tensors.items():
        result[f"{prefix}{key}"] = value
    for key, value in modules.items():
        if isinstance(value, Thing):
            _collect(value, f"{prefix}{key}.", result, depth + 1)
        if len(result) > MOST_NODES:
            return False
    return True
