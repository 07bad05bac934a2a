"""The file that a model is from, as far as it is not tensors: the wrapper, and what was left out.

A wrapper is data as JSON has it, so that a record can carry it and a stranger's can be checked. A
node is None, a bool, a number, a string, or a list whose first item is one of `TAGS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from nnrcodec.model import mat_wrapper
from nnrcodec.model.dtypes import DTYPES

WrapperKind = Literal["torch", "safetensors", "hdf5", "mat"]
"""What a wrapper is of: the Python values in a PyTorch file, the header of a safetensors file, the
groups of an HDF5 file, or the variables of a MATLAB file."""

MOST_DEPTH = 64
"""Levels of a wrapper within one another."""

MOST_BYTES = 2**18
"""Of the JSON text of a wrapper: what does not fit is left out."""

MOST_VALUES = 2**16
"""In a wrapper, about; decoders bound those of a record."""

INT64_MAX = 2**63 - 1

_DEVICE = re.compile(r"[a-z]{1,16}(:[0-9]{1,3})?")
_FLOATS = {"nan", "inf", "-inf"}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An entry of a model file that is not coded.

    Parameters
    ----------
    name : str
        Its path in the file, with points.
    what : str
        What it is, such as ``optimizer state, 9 tensors``.
    reason : str
        Why, and how to have it if that can be done.
    """

    name: str
    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Wrapper:
    """What stands around the tensors of a model file.

    Parameters
    ----------
    kind : "torch", "safetensors", "hdf5" or "mat"
        What `content` is of.
    content : JSON value
        For torch a node (spec/record.md, wrapper); for safetensors the metadata, an object of
        strings; for hdf5 the attributes of groups, by path; for mat a node of
        `nnrcodec.model.mat_wrapper`.
    """

    kind: WrapperKind
    content: Any


@dataclass(frozen=True, slots=True)
class Source:
    """The file that a model is from.

    Parameters
    ----------
    form : str
        What kind of file it is, in words.
    wrapper : Wrapper or None
        What stands around the tensors; None if there is nothing that matters.
    left_out : tuple of LeftOut
        Entries that are not coded.
    coded : str
        The path of the entry that is coded; empty for all of the file.
    notes : tuple of str
        What a user should know of how the file was read.
    """

    form: str = ""
    wrapper: Wrapper | None = None
    left_out: tuple[LeftOut, ...] = ()
    coded: str = ""
    notes: tuple[str, ...] = ()


class WrapperError(ValueError):
    """A wrapper is not what it should be; `args` has the reason."""


def check_wrapper(wrapper: Wrapper, tensors: Container[str] | None) -> None:
    """Raise unless a wrapper is one, and all tensors that it names exist, each of them once.

    Parameters
    ----------
    wrapper : Wrapper
        From anywhere; its values are as JSON has them.
    tensors : container of str
        Names of the tensors; None if they are not known yet.

    Raises
    ------
    WrapperError
    """
    if wrapper.kind not in get_args(WrapperKind):
        raise WrapperError(f"a wrapper of {wrapper.kind!r}, expected one of a known kind")
    if wrapper.kind == "safetensors":
        _check_strings(wrapper.content)
    elif wrapper.kind == "hdf5":
        _check_attributes(wrapper.content)
    elif wrapper.kind == "mat":
        misfit = mat_wrapper.misfit_of(wrapper.content)
        if misfit is not None:
            raise WrapperError(misfit)
    else:
        names = list(tensors_named(wrapper.content))
        for name in names:
            if tensors is not None and name not in tensors:
                raise WrapperError(f"there is no tensor {name!r}")
        if len(set(names)) != len(names):
            raise WrapperError("a tensor has two places")
        prefixes = list(prefixes_of(wrapper.content))
        if len(set(prefixes)) != len(prefixes):
            raise WrapperError("two mappings have the tensors of one prefix")


def places_tensors_alike(one: Wrapper | None, other: Wrapper | None) -> bool:
    """Return whether two wrappers differ in plain values at most: numbers, strings, bytes.

    Where tensors have their places, of what kind they are, and what their mappings are called, must
    be the same; so must scales of quantized tensors.
    """
    if one is None or other is None or one.kind != other.kind:
        return one == other
    if one.kind == "torch":
        return _is_alike(one.content, other.content)
    if one.kind == "safetensors":
        return bool(one.content.keys() == other.content.keys())
    return bool(one.content == other.content)


_VALUES = ("float", "complex", "bytes")


def _is_alike(one: Any, other: Any) -> bool:
    is_value = [not isinstance(node, list) or node[0] in _VALUES for node in (one, other)]
    if any(is_value):
        return all(is_value)
    if one[0] != other[0] or len(one) != len(other):
        return False
    if one[0] in ("list", "tuple", "set"):
        return all(map(_is_alike, one[1:], other[1:]))
    if one[0] in ("dict", "OrderedDict"):
        first = 1 + (one[0] == "OrderedDict")
        keys = one[first::2] == other[first::2]
        return keys and all(map(_is_alike, one[first + 1 :: 2], other[first + 1 :: 2]))
    return bool(one == other)


PLAIN: Mapping[WrapperKind, Any] = {
    "torch": ["tensors", "dict", "", None],
    "safetensors": {},
    "hdf5": {},
}
"""Wrappers in which nothing stands around the tensors."""


def tensors_named(node: Any) -> Iterator[str]:
    """Yield the names of tensors with a place of their own in a wrapper; all of it is checked."""
    for part in walk(node):
        if isinstance(part, list) and part[0] in ("tensor", "array", "quantized"):
            yield from (name for name in part[1 + (part[0] == "quantized") :] if type(name) is str)


def prefixes_of(node: Any) -> Iterator[str]:
    """Yield the prefixes of mappings that have all tensors whose names begin with them."""
    for part in walk(node):
        if isinstance(part, list) and part[0] == "tensors":
            yield part[2]


def left_out_in(wrapper: Wrapper | None) -> tuple[LeftOut, ...]:
    """Return what a checked wrapper says was left out, with its paths."""
    if wrapper is not None and wrapper.kind == "torch":
        return tuple(left_out_of(wrapper.content))
    if wrapper is not None and wrapper.kind == "mat":
        return tuple(LeftOut(*row) for row in mat_wrapper.left_out_of(wrapper.content))
    return ()


def left_out_of(node: Any, path: tuple[str, ...] = ()) -> Iterator[LeftOut]:
    """Yield what a checked wrapper of kind torch says was left out, with its paths."""
    if not isinstance(node, list):
        return
    if node[0] == "left_out":
        yield LeftOut(".".join(path), node[1], node[2])
        return
    parts = children(node)
    if node[0] in ("dict", "OrderedDict"):
        for key, value in zip(parts[::2], parts[1::2], strict=True):
            yield from left_out_of(value, (*path, str(key)))
    else:
        for index, value in enumerate(parts):
            yield from left_out_of(value, (*path, str(index)))


def members_of(prefixes: Iterable[str], names: Iterable[str]) -> dict[str, list[str]]:
    """Return which tensors are in which mapping: that with the longest prefix of their names.

    Parameters
    ----------
    prefixes : iterable of str
        Of the mappings.
    names : iterable of str
        Of tensors without a place of their own; those without any mapping are in none.
    """
    members: dict[str, list[str]] = {prefix: [] for prefix in prefixes}
    for name in names:
        end = len(name)
        while end >= 0:
            if name[:end] in members:
                members[name[:end]].append(name)
                break
            end = name.rfind(".", 0, end - 1) + 1 if end > 0 else -1
    return members


def walk(node: Any, depth: int = 0) -> Iterator[Any]:
    """Yield all nodes of a wrapper, checked.

    Raises
    ------
    WrapperError
        One is not as it should be.
    """
    if depth > MOST_DEPTH:
        raise WrapperError(f"more than {MOST_DEPTH} levels")
    if node is None or isinstance(node, bool | float | str):
        yield node
        return
    if isinstance(node, int):
        if not -INT64_MAX <= node <= INT64_MAX:
            raise WrapperError("an integer of more than 64 bits")
        yield node
        return
    if not (isinstance(node, list) and node and isinstance(node[0], str) and node[0] in TAGS):
        raise WrapperError(f"a node that is none: {str(node)[:50]}")
    tag, *items = node
    TAGS[tag](items)
    yield node
    for item in children(node):
        yield from walk(item, depth + 1)


def children(node: list[Any]) -> list[Any]:
    """Return the nodes within a node."""
    tag, *items = node
    if tag in ("list", "tuple", "set", "dict"):
        return items
    return items[1:] if tag == "OrderedDict" else []


def _check_strings(content: Any) -> None:
    if not (isinstance(content, dict) and all(isinstance(v, str) for v in content.values())):
        raise WrapperError("metadata of safetensors are strings by name")


def _check_attributes(content: Any) -> None:
    if not isinstance(content, dict):
        raise WrapperError("attributes of HDF5 are an object, by path")
    for attributes in content.values():
        if not isinstance(attributes, dict):
            raise WrapperError("attributes of HDF5 are objects, by name")
        for value in attributes.values():
            parts = value if isinstance(value, list) else [value]
            if not all(isinstance(p, str | int | float) for p in parts):
                raise WrapperError("an attribute of HDF5 is a text, a number, or a list of them")


def _sequence(items: list[Any]) -> None:
    del items  # anything may be in it


def _scalars(items: list[Any]) -> None:
    if any(isinstance(item, list) for item in items):
        raise WrapperError("a set has scalars only")


def _pairs(items: list[Any]) -> None:
    if len(items) % 2:
        raise WrapperError("a mapping has keys and values")
    for key in items[::2]:
        if isinstance(key, list) and not (
            key[:1] in (["tuple"], ["bytes"]) and not any(isinstance(k, list) for k in key)
        ):
            raise WrapperError("a key is a scalar, or a tuple of them")


def _ordered(items: list[Any]) -> None:
    if not items:
        raise WrapperError("an OrderedDict has versions, or null")
    _versions(items[0])
    _pairs(items[1:])


def _versions(value: Any) -> None:
    if value is None:
        return
    if not (isinstance(value, dict) and all(type(v) is int for v in value.values())):
        raise WrapperError("versions of layers are integers by name")


def _tensors(items: list[Any]) -> None:
    if len(items) != 3 or items[0] not in ("dict", "OrderedDict") or not isinstance(items[1], str):
        raise WrapperError("expected a kind of mapping, a prefix, and versions")
    _versions(items[2])


def _strings(count: int) -> Callable[[list[Any]], None]:
    def check(items: list[Any]) -> None:
        if len(items) != count or not all(isinstance(item, str) for item in items):
            raise WrapperError(f"expected {count} strings")

    return check


def _word(allowed: Callable[[str], bool]) -> Callable[[list[Any]], None]:
    def check(items: list[Any]) -> None:
        if len(items) != 1 or not isinstance(items[0], str) or not allowed(items[0]):
            raise WrapperError(f"{str(items)[:50]} is not allowed")

    return check


def _sizes(items: list[Any]) -> None:
    if not all(type(item) is int and 0 <= item <= INT64_MAX for item in items):
        raise WrapperError("a size has whole numbers")


def _complex(items: list[Any]) -> None:
    if len(items) != 2 or not all(isinstance(item, float) for item in items):
        raise WrapperError("a complex number has two parts")


def _quantized(items: list[Any]) -> None:
    match items:
        case [str(dtype), str(), float(), int()] if dtype in QUANTIZED:
            return
        case [str(dtype), str(), str(), str(), int()] if dtype in QUANTIZED:
            return
    raise WrapperError("expected what quantized a tensor")


QUANTIZED: Mapping[str, str] = {"qint8": "int8", "quint8": "uint8", "qint32": "int32"}
"""Dtypes of quantized tensors of PyTorch, and those of their integers."""

TAGS: Mapping[str, Callable[[list[Any]], None]] = {
    "list": _sequence,
    "tuple": _sequence,
    "set": _scalars,
    "dict": _pairs,
    "OrderedDict": _ordered,
    "tensors": _tensors,
    "tensor": _strings(1),
    "array": _strings(1),
    "quantized": _quantized,
    "float": _word(lambda text: text in _FLOATS),
    "complex": _complex,
    "bytes": _word(str.isascii),
    "Size": _sizes,
    "dtype": _word(lambda text: text in DTYPES or text in QUANTIZED),
    "device": _word(lambda text: _DEVICE.fullmatch(text) is not None),
    "left_out": _strings(2),
}
"""What begins a node that is a list, and what checks the rest of it.

========================================  ======================================================
``list``, ``tuple``, ``set``               nodes
``dict``                                   keys and values, one after the other
``OrderedDict``                            versions of layers or null, then as ``dict``
``tensors``                                kind of mapping, prefix, versions: all tensors without a
                                           place of their own whose names begin with the prefix
``tensor``, ``array``                      the name of a tensor
``quantized``                              what a quantized tensor of PyTorch is made of
``float``, ``complex``, ``bytes``          what JSON has no values for; bytes in base 64
``Size``, ``dtype``, ``device``            values of PyTorch
``left_out``                               what it was, and why it is not there
========================================  ======================================================
"""
