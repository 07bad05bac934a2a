"""What is coded: ordered named tensors and, where it is known, the graph that uses them.

This is the only form in which a network travels through the package. It knows numpy and nothing of
PyTorch or of files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal

import numpy as np

from nnrcodec.model.dtypes import DTYPES, item_bytes, to_little_endian, values_of

if TYPE_CHECKING:
    from nnrcodec.graph.graph import Graph
    from nnrcodec.model.source import Source

__all__ = ["DTYPES", "Factors", "Model", "OnnxTopology", "Role", "SchemeName", "Tensor"]

SchemeName = Literal["separable", "channel", "linear"]
"""How one layer becomes two: by `nnrcodec.reduce.schemes`."""


class Role(Enum):
    """What a tensor is to its network."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    CONSTANT = "constant"
    """Used by the graph but not part of the state dict."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named tensor, read when it is needed.

    Parameters
    ----------
    name : str
        Qualified name, such as ``net.2.weight``.
    dtype : str
        A key of `DTYPES`.
    shape : tuple of int
        Dimensions; empty for a scalar.
    read : callable
        Returns the values, shape `shape`, dtype ``DTYPES[dtype]``.
    role : Role
        Parameter, buffer or constant.
    exact : bool
        Whether it is no weight: its values must not change.
    words : callable or None
        Returns the bit patterns of the values, in place of which they are held.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    role: Role = Role.PARAMETER
    exact: bool = False
    words: Callable[[], np.ndarray] | None = None

    @classmethod
    def of_words(
        cls, name: str, words: np.ndarray, dtype: str, role: Role = Role.PARAMETER
    ) -> Tensor:
        """Wrap the bit patterns of values, as `nnrcodec.model.dtypes.words_of` returns them."""

        def read() -> np.ndarray:
            return values_of(words, dtype)

        return cls(name, dtype, tuple(words.shape), read, role, words=lambda: words)

    @classmethod
    def of(
        cls, name: str, value: np.ndarray, dtype: str | None = None, role: Role = Role.PARAMETER
    ) -> Tensor:
        """Wrap an array that is already in memory."""
        return cls(name, dtype or value.dtype.name, tuple(value.shape), lambda: value, role)

    def little_endian(self) -> np.ndarray:
        """Return the values as they stand in files: `nnrcodec.model.dtypes.to_little_endian`."""
        if self.words is None or self.dtype == "bool":  # of which all but 0 are True
            return to_little_endian(self.read(), self.dtype)
        words = self.words()
        return words.astype(words.dtype.newbyteorder("<"), copy=False)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def stored_bytes(self) -> int:
        """Number of bytes of the values as they stand in files."""
        return self.size * item_bytes(self.dtype)


@dataclass(frozen=True, slots=True)
class Factors:
    """Two tensors that stand for one: a layer replaced by two thin ones.

    Parameters
    ----------
    layer : str
        Qualified name of the layer, such as ``net.2``.
    kernel_shape : tuple of int
        Shape of the weight that was replaced: (N, C, d, d') of a two-dimensional convolution,
        (C, N, d, d') of a transposed one, (N, C) of a linear layer.
    rank : int
        Number of channels between the two.
    scheme : "separable", "channel" or "linear"
        What the two are, and so which shapes they have (`nnrcodec.reduce.schemes.Scheme`).
    transposed : bool
        Whether the layer is a transposed convolution.
    """

    layer: str
    kernel_shape: tuple[int, ...]
    rank: int
    scheme: SchemeName = "separable"
    transposed: bool = False

    @property
    def u(self) -> str:
        """Name of the first kernel."""
        return f"{self.layer}.u.weight"

    @property
    def v(self) -> str:
        """Name of the second kernel."""
        return f"{self.layer}.v.weight"

    @property
    def v_bias(self) -> str:
        """Name of the bias, where there is one; it belongs to the second layer."""
        return f"{self.layer}.v.bias"


@dataclass(frozen=True, slots=True)
class OnnxTopology:
    """The ONNX file that a model was read from, without the values of its tensors.

    Parameters
    ----------
    proto : bytes
        A ModelProto.
    names : mapping of str to str
        Names in the proto of tensors that have others in the model. Of layers that were
        decomposed it has the names of weight and bias before.
    """

    proto: bytes
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Model:
    """A network on its way through the codec.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        By name, in the order in which they are coded.
    graph : Graph or None
        How they are used; None for a bare state dict.
    factors : tuple of Factors
        Which tensors stand for one another (empty unless a layer was decomposed).
    ties : mapping of str to str
        Tensors that are the same one under another name: the name, and that of the first one.
    source : Source or None
        The file that it is from, as far as it is not tensors.
    onnx : OnnxTopology or None
        The file that it came from, if that was one of ONNX and still has its structure.
    """

    tensors: Mapping[str, Tensor]
    graph: Graph | None = None
    factors: tuple[Factors, ...] = field(default=())
    ties: Mapping[str, str] = field(default_factory=dict)
    source: Source | None = None
    onnx: OnnxTopology | None = None

    @classmethod
    def of(
        cls,
        tensors: Iterable[Tensor],
        graph: Graph | None = None,
        factors: tuple[Factors, ...] = (),
        ties: Mapping[str, str] | None = None,
        source: Source | None = None,
        onnx: OnnxTopology | None = None,
    ) -> Model:
        """Build a model from tensors in coding order."""
        return cls({t.name: t for t in tensors}, graph, factors, ties or {}, source, onnx)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the values of all tensors; tied ones count once."""
        return sum(t.stored_bytes for t in self.tensors.values() if t.name not in self.ties)

    @property
    def elements(self) -> int:
        """Elements of all tensors; tied ones count once."""
        return sum(t.size for t in self.tensors.values() if t.name not in self.ties)


def ties_of(places: Iterable[tuple[str, Hashable]]) -> dict[str, str]:
    """Return which tensors are the same one, by the names of the first of them.

    Parameters
    ----------
    places : iterable of (str, hashable)
        Names, and where in memory or in a file the values are: equal for the same tensor, None
        if that is not known or there are none.
    """
    first: dict[Hashable, str] = {}
    ties = {}
    for name, place in places:
        if place is None:
            continue
        if first.setdefault(place, name) != name:
            ties[name] = first[place]
    return ties
