"""What the values of options may be."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import NamedTuple

UNITS = ("dB", "%")
"""Of a loss: decibels of PSNR, and per cent."""


class Loss(NamedTuple):
    """A loss, and its unit; an empty one is that of the task."""

    value: float
    unit: str


def at_least(least: int) -> Callable[[str], int]:
    """Return a function that reads a whole number that is large enough."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\s*[+-]?[0-9]+\s*", text) or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"{text} is not allowed, expected a whole number of at least {least}"
            )
        return int(text)

    return read


def part(text: str) -> float:
    """Read a part of the whole, which may be in per cent.

    Examples
    --------
    >>> part("0.4"), part("40%")
    (0.4, 0.4)
    """
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text} is not allowed, expected a part such as 0.4 or 40%"
        ) from None


def loss(text: str) -> Loss:
    """Read a loss with or without a unit.

    Examples
    --------
    >>> loss("0.03dB"), loss("0.5 %").unit, loss("1").unit
    (Loss(value=0.03, unit='dB'), '%', '')
    """
    number, unit = text.strip(), ""
    for known in UNITS:
        if number.endswith(known):
            number, unit = number.removesuffix(known), known
    try:
        return Loss(float(number), unit)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text} is not allowed, expected a number with a unit, such as 0.03dB or 0.5%"
        ) from None
