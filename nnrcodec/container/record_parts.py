"""Members of the container record that came with version 2.2 (spec/record.md).

They are what makes a stream hold a whole file: tensors that no data unit can carry as they are, and
what stands around tensors.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

from nnrcodec.container.record import TensorEntry
from nnrcodec.container.turnover import Turnover
from nnrcodec.errors import SyntaxElementError
from nnrcodec.graph.graph import Graph
from nnrcodec.limits import Limits
from nnrcodec.model.dtypes import COMPUTED_DTYPES, DTYPES
from nnrcodec.model.source import Wrapper, WrapperError, check_wrapper

CLAUSE = "spec/record.md"

_LARGEST_SIZE = 2**31 - 1


def with_new_members(
    entries: Sequence[TensorEntry], content: dict[str, Any], limits: Limits
) -> list[TensorEntry]:
    """Add which tensors are bit patterns, have no elements, or are others under a second name.

    Parameters
    ----------
    entries : sequence of TensorEntry
        All of them, with their names.
    content : dict
        The record.
    limits : Limits
        Bounds on the number of dimensions.

    Raises
    ------
    SyntaxElementError
    """
    by_name = {entry.name: entry for entry in entries}
    for name in listed(content, "patterns"):
        if not isinstance(name, str) or name not in by_name or by_name[name].is_pattern:
            raise wrong("record/patterns", "expected names of tensors, each of them once")
        by_name[name] = replace(by_name[name], is_pattern=True)
    for name, shape in _by_name(content, "empty", by_name).items():
        sizes_are_legal = isinstance(shape, list) and all(
            type(n) is int and 0 <= n <= _LARGEST_SIZE for n in shape
        )
        if not sizes_are_legal or len(shape) > limits.max_dimensions or 0 not in shape:
            raise wrong("record/empty", f"the shape of {name!r} is none without elements")
        by_name[name] = replace(by_name[name], empty_shape=tuple(shape))
    for name, first in _by_name(content, "ties", by_name).items():
        entry = by_name.get(first) if isinstance(first, str) else None
        own = by_name[name]
        if entry is None or first in content["ties"] or not (entry.has_unit and own.has_unit):
            raise wrong("record/ties", f"{name!r} is tied to what is no tensor with a data unit")
        if (entry.dtype, entry.digest) != (own.dtype, own.digest):
            raise wrong("record/ties", f"{name!r} is tied to a tensor of another dtype or digest")
        by_name[name] = replace(own, tied_to=first)
    all_are_coded_otherwise = isinstance(content.get("coded_names"), list)
    for entry in by_name.values():
        if not entry.has_unit and (entry.coded_name is not None or entry.scalar):
            raise wrong("record/coded_names", f"{entry.name!r} has no data unit")
        if all_are_coded_otherwise and entry.has_unit and entry.coded_name is None:
            raise wrong("record/coded_names", f"{entry.name!r} has a data unit, but no name there")
        needs_pattern = entry.has_unit and DTYPES[entry.dtype].kind == "c"
        if needs_pattern and not entry.is_pattern:
            raise wrong("record/patterns", f"{entry.name!r} of {entry.dtype} is not among them")
    return [by_name[entry.name] for entry in entries]


def turnover_of(content: dict[str, Any], names: Container[str]) -> Turnover:
    """Return which tensors come and go with an update.

    Parameters
    ----------
    content : dict
        The record.
    names : container of str
        Of the tensors in the stream.

    Raises
    ------
    SyntaxElementError
    """
    new, gone = content.get("new", {}), listed(content, "gone")
    if not isinstance(new, dict) or not all(type(place) is int for place in new.values()):
        raise wrong("record/new", "expected places by name")
    if not all(isinstance(name, str) for name in gone) or len(set(gone)) != len(gone):
        raise wrong("record/gone", "expected names, each of them once")
    for name in new:
        if name not in names:
            raise wrong("record/new", f"{name!r} is not among tensors")
    for name in gone:
        if name in names:
            raise wrong("record/gone", f"{name!r} is among tensors")
    if (new or gone) and "base" not in content:
        raise wrong("record/base", "tensors come or go, which only those of an update do")
    return Turnover(new, tuple(gone))


def wrapper_of(content: dict[str, Any], names: Container[str] | None) -> Wrapper | None:
    """Return what stands around the tensors, checked.

    Parameters
    ----------
    content : dict
        The record.
    names : container of str or None
        Of the tensors; None if that is not known yet.

    Raises
    ------
    SyntaxElementError
    """
    match content.get("wrapper"):
        case None:
            return None
        case [str(kind), value]:
            wrapper = Wrapper(kind, value)  # type: ignore[arg-type]
            try:
                check_wrapper(wrapper, names)
            except WrapperError as error:
                raise wrong("record/wrapper", str(error)) from None
            return wrapper
    raise wrong("record/wrapper", "expected a kind and what it is")


def require_no_new_members(
    graph: Graph, entries: Sequence[TensorEntry], wrapper: Wrapper | None
) -> None:
    """Raise if a network with a graph has what none may have.

    Raises
    ------
    SyntaxElementError
    """
    used = set(graph.tensor_names())
    for entry in entries:
        if entry.dtype not in COMPUTED_DTYPES:
            raise wrong("record/tensors", f"{entry.name!r} of {entry.dtype} beside a graph")
        if entry.empty_shape is not None and entry.name in used:
            raise wrong("record/empty", f"the graph uses {entry.name!r}, which has no elements")
    if wrapper is not None and wrapper.kind == "torch":
        raise wrong("record/wrapper", "a network with a graph has no wrapper of a PyTorch file")


def listed(content: dict[str, Any], key: str) -> list[Any]:
    """Return a member that is a list, an empty one if it is not there."""
    value = content.get(key, [])
    if not isinstance(value, list):
        raise wrong(f"record/{key}", "expected a list")
    return value


def wrong(path: str, message: str) -> SyntaxElementError:
    """Return the error of a record that is not as spec/record.md says."""
    return SyntaxElementError(message, path=path, clause=CLAUSE)


def _by_name(content: dict[str, Any], key: str, names: dict[str, TensorEntry]) -> dict[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise wrong(f"record/{key}", "expected an object")
    for name in value:
        if name not in names:
            raise wrong(f"record/{key}", f"{name!r} is not among tensors")
    return value
