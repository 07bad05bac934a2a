"""The PyTorch functions of the operator names.

`FUNCTIONS` is made on import from the names of our own allow-list. A name from a stream is only
used as a key into it: it never reaches `getattr` or an import.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from nnrcodec.graph.operators import OPERATORS

_NAMESPACES: Mapping[str, Any] = {
    "aten": torch.ops.aten,
    "operator": operator,
    "math": math,
    "torch": torch,
}


def _functions() -> dict[str, Callable[..., Any]]:
    functions = {}
    for name in OPERATORS:
        namespace, *attributes = name.split(".")
        function = _NAMESPACES[namespace]
        for attribute in attributes:
            function = getattr(function, attribute, None)
        if function is not None:
            functions[name] = function
    return functions


FUNCTIONS: Mapping[str, Callable[..., Any]] = _functions()
"""The function of each name of the allow-list that the installed PyTorch has."""

IN_ANY_LAYOUT: Mapping[str, Callable[..., Any]] = {
    "aten.view.default": torch.ops.aten.reshape.default,
    "aten._unsafe_view.default": torch.ops.aten.reshape.default,
    "aten.view_as.default": torch.ops.aten.reshape_as.default,
}
"""Replacements of operators that require a memory layout, with the same result. A value may have
had another layout in the network that was exported."""

NAMES: Mapping[Callable[..., Any], str] = {call: name for name, call in FUNCTIONS.items()}
"""The name of each function in the allow-list."""

TORCH_WORDS: Mapping[str, Mapping[str, Any]] = {
    "dtype": {
        "float32": torch.float32,
        "float64": torch.float64,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
        "int8": torch.int8,
        "int16": torch.int16,
        "int32": torch.int32,
        "int64": torch.int64,
        "uint8": torch.uint8,
        "uint16": torch.uint16,
        "uint32": torch.uint32,
        "uint64": torch.uint64,
        "bool": torch.bool,
    },
    "memory_format": {
        "contiguous_format": torch.contiguous_format,
        "preserve_format": torch.preserve_format,
        "channels_last": torch.channels_last,
        "channels_last_3d": torch.channels_last_3d,
    },
}
"""The words for which PyTorch has objects; it takes the others as strings."""

WORD_NAMES: Mapping[Any, tuple[str, str]] = {
    value: (kind, name) for kind, values in TORCH_WORDS.items() for name, value in values.items()
}
"""Kind and name of these objects."""
