"""One node of an ONNX graph while it runs in PyTorch, and the values that go in and come out.

A value is a tensor of PyTorch, or a `Known`: numbers that are known before the network runs, such
as constants of the graph and what is computed from them and from sizes. Sizes may be symbolic while
a network is exported; so the many nodes that compute shapes leave no trace in the exported network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from nnrcodec.errors import ModelError
from nnrcodec.graph.operators_torch import TORCH_WORDS

TORCH_DTYPES: Mapping[str, torch.dtype] = TORCH_WORDS["dtype"]

sym_max: Any = torch.sym_max
sym_min: Any = torch.sym_min
sym_float: Any = torch.sym_float
sym_int: Any = torch.sym_int

MOST_KNOWN = 2**20
"""Most elements of what is computed before a network runs."""


class RefusedError(ModelError):
    """A node that is not translated, with the reason."""


@dataclass(frozen=True, slots=True)
class Known:
    """Numbers that are known before the network runs.

    Parameters
    ----------
    values : ndarray
        Of the dtype, or of objects: integers of Python and symbolic sizes.
    dtype : str
        What ONNX says that they are.
    name : str
        Of the value in the graph.
    """

    values: np.ndarray
    dtype: str
    name: str = ""

    @property
    def is_symbolic(self) -> bool:
        """Whether some of the numbers are symbolic sizes."""
        return self.values.dtype == object

    def numbers(self) -> list[Any]:
        """Return the numbers in a flat list, as Python has them."""
        return list(self.values.ravel().tolist())


Value = torch.Tensor | Known | None


def known(numbers: Any, dtype: str = "int64") -> Known:
    """Return numbers as a value; symbolic ones stay so, others become arrays of the dtype."""
    values = np.array(numbers, dtype=object)
    if any(isinstance(n, torch.SymInt | torch.SymFloat | torch.SymBool) for n in values.ravel()):
        return Known(values, dtype)
    held = np.float32 if dtype == "bfloat16" else np.dtype(dtype)
    return Known(values.astype(held), dtype)


@dataclass(slots=True)
class Call:
    """A node of the graph, with the values of its inputs.

    Attributes are read by `attribute`, which remembers them: what an operator does not read it does
    not know, so that the node is refused.
    """

    op: str
    name: str
    opset: int
    outputs: int
    attributes: Mapping[str, Any]
    constants: Callable[[Known], torch.Tensor]
    values: Sequence[Value] = ()
    read: set[str] = field(default_factory=set)

    def refuse(self, why: str) -> RefusedError:
        """Return the error that says why this node is not translated."""
        return RefusedError(f"{self.op} (node {self.name!r}): {why}")

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute: a number, a string, a list of them, or a `Known`."""
        self.read.add(name)
        return self.attributes.get(name, default)

    def require(self, name: str, *allowed: Any) -> None:
        """Refuse the node unless an attribute is one of `allowed`, of which the first is usual."""
        value = self.attribute(name, allowed[0])
        if value not in allowed:
            raise self.refuse(f"{name} {value!r}")

    def has(self, position: int) -> bool:
        """Return whether an input is given."""
        return position < len(self.values) and self.values[position] is not None

    def value(self, position: int) -> torch.Tensor | Known:
        """Return an input."""
        value = self.values[position] if position < len(self.values) else None
        if value is None:
            raise self.refuse(f"input {position} is missing")
        return value

    def tensor(self, position: int) -> torch.Tensor:
        """Return an input as a tensor."""
        return self.as_tensor(self.value(position))

    def optional(self, position: int) -> torch.Tensor | None:
        """Return an input as a tensor; None if it is not given."""
        return self.tensor(position) if self.has(position) else None

    def as_tensor(self, value: torch.Tensor | Known) -> torch.Tensor:
        """Return a value as a tensor."""
        if isinstance(value, torch.Tensor):
            return value
        if value.is_symbolic:
            return self._of_sizes(value)
        return self.constants(value)

    def _of_sizes(self, value: Known) -> torch.Tensor:
        dtype = TORCH_DTYPES[value.dtype]
        parts = [torch.full((1,), number, dtype=dtype) for number in value.numbers()]
        return torch.cat(parts).reshape(value.values.shape)

    def known(self, position: int) -> Known:
        """Return an input that must be known before the network runs."""
        value = self.value(position)
        if isinstance(value, torch.Tensor):
            raise self.refuse(f"input {position} is computed while the network runs")
        return value

    def ints(self, position: int) -> list[Any]:
        """Return an input as a list of integers, known or symbolic."""
        return self.known(position).numbers()

    def fixed_ints(self, position: int) -> list[int]:
        """Return an input as a list of integers that do not depend on sizes."""
        value = self.known(position)
        if value.is_symbolic:
            raise self.refuse(f"input {position} depends on the sizes of inputs")
        return value.numbers()

    def number(self, position: int) -> Any:
        """Return an input as a single number."""
        numbers = self.known(position).numbers()
        if len(numbers) != 1:
            raise self.refuse(f"input {position} has {len(numbers)} elements, expected one")
        return numbers[0]

    def operand(self, position: int, other: torch.Tensor) -> Any:
        """Return an input that is combined with a tensor: a number where it is only one."""
        value = self.value(position)
        if isinstance(value, torch.Tensor):
            return value
        single = value.values.size == 1 and value.values.ndim <= other.dim()
        if single and TORCH_DTYPES[value.dtype] == other.dtype and value.dtype != "bool":
            return value.numbers()[0]
        return self.as_tensor(value)

    def axis(self, axis: int, dimensions: int) -> int:
        """Return an axis counted from the front."""
        if not -dimensions <= axis < max(dimensions, 1):
            raise self.refuse(f"there is no axis {axis} of {dimensions}")
        return axis % max(dimensions, 1)


Translation = Callable[[Call], Any]
"""Runs a node: returns its value, or a tuple of them."""

TRANSLATIONS: dict[str, Translation] = {}
"""By name of the operator of ONNX."""


def operator(*names: str) -> Callable[[Translation], Translation]:
    """Register the translation of some operators."""

    def register(function: Translation) -> Translation:
        for name in names:
            TRANSLATIONS[name] = function
        return function

    return register


def product(sizes: Sequence[Any]) -> Any:
    """Return the product of sizes, which may be symbolic."""
    result: Any = 1
    for size in sizes:
        result = result * size
    return result


def check_size(call: Call, shape: Sequence[int]) -> None:
    """Refuse to make numbers of such a shape before the network runs."""
    if any(size < 0 for size in shape) or math.prod(shape) > MOST_KNOWN:
        raise call.refuse(f"a constant of shape {list(shape)}")
