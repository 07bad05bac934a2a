"""Which names may stand in a stream with a graph, and how other names get there all the same.

PyTorch writes the names of tensors and inputs into Python source when it makes a module of an
exported program, and does not escape them. So a name that reaches a program must not be able to
leave the place where it stands: letters, digits and underscores only, and no keyword, which would
break the source (`is_safe`, `is_identifier`). Networks may have other names. They are coded under
a safe one, and what they were called is kept beside the graph, as data that only becomes keys of a
state dict again (`with_safe_names`, `original_name`).
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from nnrcodec.graph.graph import Graph, Leaf, TensorRef
from nnrcodec.model.model import Model

MAX_NAME_LENGTH = 1000
"""Characters of the longest name in a stream with a graph."""

_PART = re.compile(r"[A-Za-z0-9_]+")
_NOT_IN_PART = re.compile(r"[^A-Za-z0-9_]")

_OF_PROGRAMS = frozenset(
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
"""Attributes that PyTorch gives to the module of an exported program."""

RULE = (
    "of parts of A-Z, a-z, 0-9 and _ between points, no part a keyword of Python, "
    f"{MAX_NAME_LENGTH} characters at most"
)
"""What `is_safe` asks for, for messages."""


def is_safe(name: str) -> bool:
    """Return whether a tensor, or a layer, of a network with a graph may have this name."""
    return len(name) <= MAX_NAME_LENGTH and all(map(_is_safe_part, name.split(".")))


def fits_program(name: str) -> bool:
    """Return whether an exported program can have a tensor of this name, which is safe.

    PyTorch accepts others when it exports, and fails when the program is to run.
    """
    return name.partition(".")[0] not in _OF_PROGRAMS


def is_identifier(name: str) -> bool:
    """Return whether an input or a dimension may have this name."""
    return name.isidentifier() and is_safe(name) and name != "self"


def is_key(text: str) -> bool:
    """Return whether a dictionary that a network returns may have this key.

    Keys are data wherever networks go. That they cannot end a quotation is for safety.
    """
    return len(text) <= MAX_NAME_LENGTH and text.isprintable() and not set(text) & set("'\"`\\{}")


def _is_safe_part(part: str) -> bool:
    return _PART.fullmatch(part) is not None and not _is_taken(part)


def _is_taken(part: str) -> bool:
    """Return whether Python takes a word for something else than a name."""
    return keyword.iskeyword(part) or part == "__debug__"


def safe_paths(names: Iterable[str]) -> dict[str, str]:
    """Choose safe names, layer by layer, so that tensors of one layer stay together.

    Parameters
    ----------
    names : iterable of str
        Names of tensors, parts between points.

    Returns
    -------
    dict of str to str
        By path, of a layer or a tensor, whose last part is not safe: the safe path. Characters
        that are not allowed have become underscores, with a number where that name was taken.
        Paths that are safe are not in it, and no other path becomes the same as one of them.
    """
    children: dict[str | None, dict[str, None]] = {}  # None is what is around all layers
    for name in names:
        path = None
        for part in name.split("."):
            children.setdefault(path, {})[part] = None
            path = _joined(path, part)
    paths: dict[str, str] = {}
    for layer, parts in children.items():  # a layer stands before those within it
        safe_layer = None if layer is None else translated(layer, paths)
        unusable = _OF_PROGRAMS if layer is None else frozenset()
        taken = {part for part in parts if _is_safe_part(part)} | unusable
        for part in parts:
            if _is_safe_part(part) and part not in unusable:
                continue
            wanted = _NOT_IN_PART.sub("_", part) or "_"
            wanted += "_" * (_is_taken(wanted) or wanted in unusable)
            safe, number = wanted, 0
            while safe in taken:
                number += 1
                safe = f"{wanted}_{number}"
            taken.add(safe)
            paths[_joined(layer, part)] = _joined(safe_layer, safe)
    return paths


def _joined(path: str | None, part: str) -> str:
    return part if path is None else f"{path}.{part}"


def translated(name: str, paths: Mapping[str, str]) -> str:
    """Return a name with the longest path it begins with exchanged for what `paths` has for it."""
    end = len(name) if paths else -1
    while end >= 0:
        if name[:end] in paths:
            return paths[name[:end]] + name[end:]
        end = name.rfind(".", 0, end)
    return name


def original_name(name: str, graph: Graph | None) -> str:
    """Return what a tensor or layer was called in the network that was encoded."""
    return name if graph is None else translated(name, graph.original_names)


def with_safe_names(model: Model) -> Model:
    """Give the tensors of a network with a graph names that may stand in a stream.

    Parameters
    ----------
    model : Model
        Of any names.

    Returns
    -------
    Model
        The same model where its names are safe, or it has no graph; else with
        `Graph.original_names` that lead back.
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
    return Model.of(tensors, graph, model.factors)
