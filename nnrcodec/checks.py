"""Checks of what a caller gives: types of configurations, by the annotations of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nnrcodec.errors import ConfigError, shortened

_WORDS: dict[object, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    Mapping: "a mapping",
    tuple: "a list or a tuple",
    NoneType: "None",
}


def check_fields(config: Any) -> None:
    """Check the types of all fields of a frozen dataclass; call it in ``__post_init__``.

    Numbers of numpy become numbers of Python. A bool is not a number.

    Parameters
    ----------
    config : dataclass
        Its fields are annotated with bool, int, float, Literal, Mapping, other classes, None, or
        unions of these.

    Raises
    ------
    ConfigError
        If a value is of another type; the message names the field and says what is allowed.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Size:
    ...     width: int | None = None
    >>> check_fields(Size(3))
    >>> check_fields(Size("3"))
    Traceback (most recent call last):
        ...
    nnrcodec.errors.ConfigError: width is '3', expected a whole number or None
    """
    allowed = _allowed(config.__class__)
    for field in fields(config):
        value = checked(field.name, getattr(config, field.name), allowed[field.name])
        object.__setattr__(config, field.name, value)


def checked(name: str, value: object, allowed: tuple[object, ...]) -> object:
    """Return a value of one of the types that are allowed, as Python has it.

    Parameters
    ----------
    name : str
        What the value is, for the message.
    value : object
        It.
    allowed : tuple of type
        As `check_fields` has them in annotations, without unions.

    Raises
    ------
    ConfigError
        If it has another type.
    """
    for kind in allowed:
        fits, converted = _as(kind, value)
        if fits:
            return converted
    words = " or ".join(_word(kind) for kind in allowed)
    raise ConfigError(f"{name} is {shortened(repr(value))}, expected {words}")


def check_whole(name: str, value: object, least: int) -> int:
    """Return a whole number that is large enough.

    Raises
    ------
    ConfigError
        If it is something else.
    """
    fits, number = _as(int, value)
    if not fits or number < least:
        raise ConfigError(f"{name} is {value!r}, expected a whole number of at least {least}")
    return int(number)


@cache
def _allowed(kind: type) -> dict[str, tuple[object, ...]]:
    """Return the types that each field may have."""
    hints = get_type_hints(kind)
    return {field.name: _members(hints[field.name]) for field in fields(kind)}


def _members(hint: object) -> tuple[object, ...]:
    """Return the members of a union, or what is no union alone."""
    is_union = get_origin(hint) in (Union, UnionType)
    members = get_args(hint) if is_union else (hint,)
    return tuple(member if get_origin(member) is Literal else _plain(member) for member in members)


def _plain(hint: object) -> object:
    """Return a type without its parameters."""
    return get_origin(hint) or hint


def _as(kind: Any, value: Any) -> tuple[bool, Any]:
    """Return whether a value is of a type, and the value as Python has it."""
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind), value
    if kind in (int, float):
        number = Integral if kind is int else Real
        fits = isinstance(value, number) and not isinstance(value, bool)
        return fits, kind(value) if fits and type(value) not in (int, float) else value
    return isinstance(value, kind), value


def _word(kind: Any) -> str:
    """Say in words what is allowed."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return _WORDS.get(kind) or f"a {kind.__name__}"
