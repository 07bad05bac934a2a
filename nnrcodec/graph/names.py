"""Names that are allowed in a stream with a graph, and the encoding of all other names.

PyTorch writes the names of tensors and inputs, without escaping, into Python source when it makes a
module from an exported program. To exclude code injection, names in a stream consist of letters,
digits and underscores only, and no part is a keyword (`is_safe`, `is_identifier`). Other names of a
network are coded as safe names; the original names are stored beside the graph, as data that is
only used for the keys of a state dict (`with_safe_names`, `original_name`).
"""

from __future__ import annotations

import itertools
import keyword
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from nnrcodec.graph.graph import Graph, Leaf, TensorRef
from nnrcodec.model.model import Model

MAX_NAME_LENGTH = 1000
"""Length of the longest name in a stream with a graph."""

_PART = re.compile(r"[A-Za-z0-9_]+")
_NOT_IN_PART = re.compile(r"[^A-Za-z0-9_]")

_RESERVED_BY_PROGRAMS = frozenset(
    (
        *("self", "graph", "code", "meta", "validate_inputs", "range_constraints", "shape_env"),
        *("add_submodule", "delete_submodule", "delete_all_unused_submodules", "print_readable"),
        *("recompile", "to_folder", "_boxed_call", "_code", "_codegen", "_create_node_hooks"),
        *("_deepcopy_hooks", "_deepcopy_init", "_erase_node_hooks", "_graph", "_guards_fn"),
        *("_in_spec", "_lineno_map", "_out_spec", "_prologue_start", "_recompile_submodules"),
        *("_register_create_node_hook", "_register_deepcopy_hook", "_register_erase_node_hook"),
        *("_register_replace_node_hook", "_replace_hooks", "_set_replace_hook", "_tracer_cls"),
        *("_tracer_extras", "_unregister_create_node_hook", "_unregister_deepcopy_hook"),
        *("_unregister_erase_node_hook", "_unregister_replace_node_hook", "_wrapped_call"),
        *("__copy__", "__deepcopy__", "__jit_unused_properties__", "__reduce_package__"),
    )
)
"""Attributes that PyTorch sets on the module of an exported program."""

RULE = (
    "of parts of A-Z, a-z, 0-9 and _ between points, no part a keyword of Python, "
    f"{MAX_NAME_LENGTH} characters at most"
)
"""The rule of `is_safe`, for messages."""


def is_safe(name: str) -> bool:
    """Return whether a tensor or layer of a network with a graph may have this name."""
    return len(name) <= MAX_NAME_LENGTH and all(map(_is_safe_part, name.split(".")))


def fits_program(name: str) -> bool:
    """Return whether an exported program can have a tensor of this safe name.

    PyTorch exports other names as well, but fails when the program runs.
    """
    return name.partition(".")[0] not in _RESERVED_BY_PROGRAMS


def is_identifier(name: str) -> bool:
    """Return whether an input or a dimension may have this name."""
    return name.isidentifier() and is_safe(name) and name != "self"


def is_key(text: str) -> bool:
    """Return whether a dictionary that a network returns may have this key.

    Keys are only used as data; quotes are excluded as an additional safety measure.
    """
    return len(text) <= MAX_NAME_LENGTH and text.isprintable() and not set(text) & set("'\"`\\{}")


def _is_safe_part(part: str) -> bool:
    return _PART.fullmatch(part) is not None and not _is_reserved(part)


def _is_reserved(part: str) -> bool:
    """Return whether a word is reserved in Python."""
    return keyword.iskeyword(part) or part == "__debug__"


def safe_paths(names: Iterable[str]) -> dict[str, str]:
    """Choose safe names, layer by layer, so that tensors of one layer stay together.

    Parameters
    ----------
    names : iterable of str
        Names of tensors, with parts separated by points.

    Returns
    -------
    dict of str to str
        The safe path of each layer or tensor whose last part is not safe. Characters that are not
        allowed become underscores, and a number is appended if that name exists already. Safe paths
        are not in it, and no other path becomes the same as one of them.
    """
    children: dict[str | None, dict[str, None]] = {}  # None: outside all layers
    for name in names:
        path = None
        for part in name.split("."):
            children.setdefault(path, {})[part] = None
            path = _joined(path, part)
    paths: dict[str, str] = {}
    for layer, parts in children.items():  # a layer comes before those within it
        safe_layer = None if layer is None else translated(layer, paths)
        unusable = _RESERVED_BY_PROGRAMS if layer is None else frozenset()
        taken = {part for part in parts if _is_safe_part(part)} | unusable
        for part in parts:
            if _is_safe_part(part) and part not in unusable:
                continue
            base = _NOT_IN_PART.sub("_", part) or "_"
            base += "_" * (_is_reserved(base) or base in unusable)
            safe, number = base, 0
            while safe in taken:
                number += 1
                safe = f"{base}_{number}"
            taken.add(safe)
            paths[_joined(layer, part)] = _joined(safe_layer, safe)
    return paths


def _joined(path: str | None, part: str) -> str:
    return part if path is None else f"{path}.{part}"


def translated(name: str, paths: Mapping[str, str]) -> str:
    """Return a name whose longest prefix in `paths` is replaced."""
    end = len(name) if paths else -1
    while end >= 0:
        if name[:end] in paths:
            return paths[name[:end]] + name[end:]
        end = name.rfind(".", 0, end)
    return name


def original_name(name: str, graph: Graph | None) -> str:
    """Return the name that a tensor or layer had in the network that was encoded."""
    return name if graph is None else translated(name, graph.original_names)


def with_safe_names(model: Model) -> Model:
    """Return a model whose tensors have names that are allowed in a stream with a graph.

    Parameters
    ----------
    model : Model
        With any names.

    Returns
    -------
    Model
        The same model if its names are safe or it has no graph; else with `Graph.original_names`.
    """
    if model.graph is None:
        return model
    if all(is_safe(name) and fits_program(name) for name in model.tensors):
        return model
    paths = safe_paths(model.tensors)

    def change(leaf: Leaf) -> Leaf:
        return TensorRef(translated(leaf.name, paths)) if isinstance(leaf, TensorRef) else leaf

    graph = replace(
        model.graph.replace_leaves(change),
        original_names={safe: path for path, safe in paths.items()},
    )
    tensors = (replace(t, name=translated(t.name, paths)) for t in model.tensors.values())
    ties = {translated(n, paths): translated(first, paths) for n, first in model.ties.items()}
    return replace(model, tensors={t.name: t for t in tensors}, graph=graph, ties=ties)


def names_and_layers(model: Model) -> Iterator[str]:
    """Yield the names of all tensors, and of the layers that they are in."""
    for name in model.tensors:
        yield from itertools.accumulate(name.split("."), "{}.{}".format)


def without_unused_names(model: Model) -> Model:
    """Return a model that has original names only of the tensors and layers in it."""
    graph = model.graph
    if graph is None or not graph.original_names:
        return model
    left = set(names_and_layers(model))
    names = {safe: name for safe, name in graph.original_names.items() if safe in left}
    return replace(model, graph=replace(graph, original_names=names))
