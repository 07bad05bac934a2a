"""Blocks: tensors of one data unit that together represent a weight.

The standard has two such representations: a weight as the product of two thin matrices, and a
weight with one scale for each row. `merge_blocks` computes the weight from both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from nnrcodec.messages import logger_of
from nnrcodec.model.dtypes import cast
from nnrcodec.model.model import Tensor

logger = logger_of(__name__)


@dataclass(frozen=True, slots=True)
class Block:
    """The tensors that represent a weight.

    Parameters
    ----------
    weight : str
        Name of the weight.
    shape : tuple of int
        Its dimensions.
    g, h : str or None
        Names of the matrices whose product it is; None if there is a tensor for the weight itself.
    scaling : str or None
        Name of the tensor with a scale for each row, if there is one.
    """

    weight: str
    shape: tuple[int, ...]
    g: str | None = None
    h: str | None = None
    scaling: str | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors from which the weight is computed."""
        names = (self.g or self.weight, self.h, self.scaling)
        return tuple(name for name in names if name is not None)


def block_of_parts(parts: Mapping[str, str], shape: tuple[int, ...]) -> Block | None:
    """Return the block of the tensors of a data unit; None if there is nothing to merge.

    Parameters
    ----------
    parts : mapping of str to str
        Names of the tensors by part: ``weight``, or ``G`` and ``H``, and ``scaling``.
    shape : tuple of int
        Dimensions of the weight.

    Examples
    --------
    >>> block_of_parts({"G": "fc.weight_G", "H": "fc.weight_H"}, (4, 6)).weight
    'fc.weight'
    """
    g, h, scaling = (parts.get(part) for part in ("G", "H", "scaling"))
    if g is None and scaling is None:
        return None
    weight = parts["weight"] if g is None else g.removesuffix("_G")
    return Block(weight, shape, g, h, scaling)


def merge_blocks(tensors: Iterable[Tensor], blocks: Iterable[Block]) -> list[Tensor]:
    """Return tensors with the weight of each block in place of its parts.

    The product of two matrices is computed in binary64 and rounded once to binary32; the order of
    summation is free, so a weight may differ in the last place. Scales are multiplied in binary32,
    the scale of a row with each of its elements. The result has the dtype of the first part.

    Parameters
    ----------
    tensors : iterable of Tensor
        In their order.
    blocks : iterable of Block
        Those whose parts are not among the tensors, or do not fit, are left alone.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    merged: dict[str, Tensor] = {}
    gone: set[str] = set()
    for block in blocks:
        if _fits(by_name, block):
            merged[block.parts[0]] = _merged(by_name, block)
            gone |= set(block.parts)
        elif not by_name.keys().isdisjoint(block.parts):
            logger.info(
                "weight %s stays in parts: not all of %s are there, or their shapes do not fit",
                block.weight,
                ", ".join(block.parts),
            )
    kept = (n for n in by_name if n in merged or n not in gone)
    return [merged.get(name, by_name[name]) for name in kept]


def _fits(tensors: Mapping[str, Tensor], block: Block) -> bool:
    """Return whether all parts of a block exist in shapes that fit together."""
    shapes = [tensors[name].shape for name in block.parts if name in tensors]
    if len(shapes) < len(block.parts):
        return False
    if block.scaling is not None and shapes.pop() != block.shape[:1]:
        return False
    if block.h is None:
        return shapes == [block.shape]
    (rows, rank), (inner, columns) = ((*shape, 0, 0)[:2] for shape in shapes)
    return rank == inner and rows * columns == math.prod(block.shape)


def _merged(tensors: Mapping[str, Tensor], block: Block) -> Tensor:
    first = tensors[block.parts[0]]
    value = first.read()
    if block.h is not None:
        product = value.astype(np.float64) @ tensors[block.h].read().astype(np.float64)
        value = product.astype(np.float32)
    value = value.astype(np.float32).reshape(block.shape)
    if block.scaling is not None:
        rows = (-1, *[1] * (len(block.shape) - 1))
        value *= tensors[block.scaling].read().astype(np.float32).reshape(rows)
    dtype = "float32" if first.dtype == "float64" else first.dtype
    return Tensor.of(block.weight, cast(value, dtype), dtype, first.role)
