"""``--set PATTERN:KEY=VALUE,...``: what holds for some tensors only."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any, get_args

from nnrcodec.config import Coder, TensorConfig
from nnrcodec.errors import ConfigError


def _yes(text: str) -> bool:
    words = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
    return words[text.lower()]


_KEYS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "coder": ("coder", str, f"one of {', '.join(get_args(Coder))}"),
    "qp": ("qp", int, "a whole number"),
    "scale": ("scale", float, "a number"),
    "dq": ("dq", _yes, "true or false"),
    "codebook": ("codebook", _yes, "true or false"),
    "lambda": ("lambda_", float, "a number"),
    "scan-order": ("scan_order", int, "a whole number"),
    "unary-length": ("unary_length", int, "a whole number"),
}
"""By key: the field of `TensorConfig`, what reads a value, and what is expected."""

KEYS = ", ".join(_KEYS)


def parse_settings(texts: Iterable[str]) -> dict[str, TensorConfig]:
    """Read what ``--set`` was given.

    Parameters
    ----------
    texts : iterable of str
        Each such as ``layer4.*:qp=-20,coder=cabac``.

    Returns
    -------
    dict of str to TensorConfig
        By pattern; what was said later of the same pattern comes first.

    Raises
    ------
    ConfigError
        A text has another form, or an unknown key; the message names those that there are.

    Examples
    --------
    >>> parse_settings(["fc.*:qp=-20"])["fc.*"].qp
    -20
    """
    settings: dict[str, TensorConfig] = {}
    for text in texts:
        pattern, colon, rest = text.rpartition(":")
        pairs = [pair.partition("=") for pair in rest.split(",")]
        if not (pattern and colon) or not all(equals for _, equals, _ in pairs):
            raise ConfigError(
                f"{text!r} is not of the form PATTERN:KEY=VALUE,..., such as "
                f"layer4.*:qp=-20; keys are {KEYS}"
            )
        given: dict[str, Any] = {}
        for key, _, value in pairs:
            field, read = _setting(key.strip(), value.strip(), text)
            if field in given:
                raise ConfigError(f"{text!r} has key {key.strip()!r} twice")
            given[field] = read
        try:
            said = TensorConfig(**given)
        except ConfigError as error:
            raise ConfigError(f"{text!r}: {error}") from None
        settings[pattern] = said.over(settings.pop(pattern, None))
    return settings


def _setting(key: str, value: str, text: str) -> tuple[str, Any]:
    """Return a field and its value."""
    found = _KEYS.get(key.replace("_", "-"))
    if found is None:
        near = difflib.get_close_matches(key, _KEYS, n=1)
        hint = f"; do you mean {near[0]}?" if near else ""
        raise ConfigError(f"{text!r} has key {key!r}, allowed are {KEYS}{hint}")
    field, read, expected = found
    if key == "coder" and value not in get_args(Coder):
        raise ConfigError(f"{text!r}: coder is {value!r}, expected {expected}")
    try:
        return field, read(value)
    except (ValueError, KeyError):
        raise ConfigError(f"{text!r}: {key} is {value!r}, expected {expected}") from None
