"""Signatures of the operators of the allow-list, as data.

`OPERATORS` is parsed once from `nnrcodec.graph.operator_table.TABLE`. This module does not use
PyTorch; `nnrcodec.graph.operators_torch` has the function of each name.

Kinds of arguments: ``Tensor``; ``Operand`` (a tensor or a number); ``int``, ``float``, ``bool``;
``SymInt`` and ``Scalar`` (a number that may be computed by another node, as may a ``float``);
``false`` and ``zero`` (only this value: training options that must be off in inference); and the
words of `WORDS`. A question mark allows None, brackets mean a list, and ``Tensor?[]`` is a list
whose items may be None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nnrcodec.graph.operator_table import TABLE
from nnrcodec.model.dtypes import COMPUTED_DTYPES

WORDS: Mapping[str, frozenset[str]] = {
    "dtype": frozenset(COMPUTED_DTYPES),
    "memory_format": frozenset(
        {"contiguous_format", "preserve_format", "channels_last", "channels_last_3d"}
    ),
    "padding": frozenset({"valid", "same"}),
    "pad_mode": frozenset({"constant", "reflect", "replicate", "circular"}),
    "approximate": frozenset({"none", "tanh"}),
    "rounding_mode": frozenset({"trunc", "floor"}),
    "indexing": frozenset({"ij", "xy"}),
    "side": frozenset({"left", "right"}),
    "reduce": frozenset({"sum", "prod", "mean", "amax", "amin"}),
    "quantile_interpolation": frozenset({"linear", "lower", "higher", "midpoint", "nearest"}),
    "fft_norm": frozenset({"forward", "backward", "ortho"}),
}
"""The words of each kind; equations have a pattern instead."""

EQUATION = re.compile(r"(?:[A-Za-z,. ]|->){1,200}")
"""Pattern of an equation of ``einsum``."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument that an operator takes.

    Parameters
    ----------
    name : str
        Name as in PyTorch.
    kind : str
        Kind of the argument, or of its items.
    is_list : bool
        Whether it is a list.
    nullable : bool
        Whether it may be None.
    item_nullable : bool
        Whether an item may be None.
    has_default : bool
        Whether it may be omitted.
    """

    name: str
    kind: str
    is_list: bool
    nullable: bool
    item_nullable: bool
    has_default: bool


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of the allow-list.

    Parameters
    ----------
    name : str
        Name with namespace and overload, such as ``aten.conv2d.default``.
    positional : tuple of Parameter
        Arguments that may be given by position (or by name).
    keyword_only : tuple of Parameter
        Arguments that may be given by name only.
    result : str
        ``Tensor``, ``Tensor[]`` or ``Scalar``.
    """

    name: str
    positional: tuple[Parameter, ...]
    keyword_only: tuple[Parameter, ...]
    result: str

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All arguments."""
        return self.positional + self.keyword_only

    @property
    def writes_in_place(self) -> bool:
        """Whether it changes its first argument: its name ends in a single underscore."""
        name = self.name.split(".")[1]
        return name.endswith("_") and not name.endswith("__")

    @property
    def makes_tensor(self) -> bool:
        """Whether it returns a tensor without a tensor argument."""
        kinds = {parameter.kind for parameter in self.parameters}
        return self.result == "Tensor" and not kinds & {"Tensor", "Operand"}


def is_word(kind: str, value: str) -> bool:
    """Return whether `value` is one of the words of `kind`."""
    if kind == "equation":
        return EQUATION.fullmatch(value) is not None
    return value in WORDS.get(kind, ())


def _parse_parameter(text: str) -> Parameter:
    declaration, _, default = text.partition("=")
    kind, name = declaration.split(" ")
    nullable = kind.endswith("?")
    item_kind = kind.removesuffix("?").removesuffix("[]")
    return Parameter(
        name=name,
        kind=item_kind.removesuffix("?"),
        is_list="[]" in kind,
        nullable=nullable,
        item_nullable=item_kind.endswith("?"),
        has_default=default != "",
    )


def _parse_table(table: str) -> dict[str, Operator]:
    table = re.sub(r"^#.*$", "", table, flags=re.MULTILINE)
    operators = {}
    for names, arguments, result in re.findall(r"(\S[^(]*)\(([^)]*)\) -> (\S+)", table):
        namespace, _, name_and_overload = re.sub(r"\s", "", names).partition(".")
        alternatives, _, overload = name_and_overload.partition(".")
        before, _, after = re.sub(r"\s+", " ", arguments).partition("*, ")
        positional, keyword_only = (
            tuple(_parse_parameter(part) for part in re.split(r", (?![^\[]*\])", half) if part)
            for half in (before.removesuffix(", "), after)
        )
        for alternative in alternatives.split("|"):
            name = ".".join(filter(None, (namespace, alternative, overload)))
            operators[name] = Operator(name, positional, keyword_only, result)
    return operators


OPERATORS: Mapping[str, Operator] = _parse_table(TABLE)
"""The operators of the allow-list, by name."""
