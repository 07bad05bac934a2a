"""What is set apart before a model is coded, because no data unit has it.

Such are tensors that are another one under a second name, tensors without elements, and what stands
around all of them in the file that they are from. They go into the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from nnrcodec.container.record import TensorEntry, tensor_digest
from nnrcodec.errors import ModelError
from nnrcodec.graph.graph import Leaf, TensorRef
from nnrcodec.messages import logger_of
from nnrcodec.model.dtypes import DTYPES
from nnrcodec.model.model import Model, Tensor
from nnrcodec.model.source import Wrapper, tensors_named

logger = logger_of(__name__)


@dataclass(frozen=True, slots=True)
class Apart:
    """What was set apart.

    Parameters
    ----------
    tied : tuple of Tensor
        Tensors that are others under a second name.
    ties : mapping of str to str
        By their names, those of the others.
    empty : tuple of Tensor
        Tensors without elements.
    order : tuple of str
        The names of all tensors of the model.
    wrapper : Wrapper or None
        What stands around them.
    """

    tied: tuple[Tensor, ...] = ()
    ties: Mapping[str, str] = field(default_factory=dict)
    empty: tuple[Tensor, ...] = ()
    order: tuple[str, ...] = ()
    wrapper: Wrapper | None = None

    def entries(self, coded: Mapping[str, TensorEntry]) -> list[TensorEntry]:
        """Return what the record says of all tensors.

        Parameters
        ----------
        coded : mapping of str to TensorEntry
            Of those with data units, in their order.
        """
        own = {t.name: _empty_entry(t) for t in self.empty}
        own |= {
            t.name: TensorEntry(
                t.name, coded[first].digest, t.dtype, t.role, tied_to=self.ties[t.name]
            )
            for t in self.tied
            for first in (self.ties[t.name],)
        }
        result: list[TensorEntry] = []
        place = {name: index for index, name in enumerate(self.order)}
        pending = sorted(own, key=place.__getitem__)
        for name, entry in coded.items():
            while pending and name in place and place[pending[0]] < place[name]:
                result.append(own[pending.pop(0)])
            result.append(entry)
        return [*result, *(own[name] for name in pending)]

    def wrapper_for(self, entries: list[TensorEntry]) -> Wrapper | None:
        """Return the wrapper, if all tensors that it names are still there."""
        if self.wrapper is None or self.wrapper.kind != "torch":
            return self.wrapper
        missing = set(tensors_named(self.wrapper.content)) - {entry.name for entry in entries}
        if not missing:
            return self.wrapper
        logger.warning(
            "what stands around the tensors in the file is not kept: two tensors of low rank took "
            "the place of %r, which it names",
            min(missing),
        )
        return None


def set_apart(model: Model, untied_because: str | None = None) -> tuple[Model, Apart]:
    """Return a model that data units can carry, and what they cannot.

    Parameters
    ----------
    model : Model
        Any.
    untied_because : str, optional
        Why no tensor may be coded under one of its names only.

    Raises
    ------
    ModelError
        A graph uses a tensor without elements.
    """
    ties = model.ties
    if ties and untied_because is not None:
        logger.warning(
            "%d tied tensors, such as %r, are coded each for itself: %s",
            len(ties),
            next(iter(ties)),
            untied_because,
        )
        ties = {}
    empty = tuple(t for t in model.tensors.values() if t.size == 0)
    graph = model.graph
    if graph is not None:
        used = set(graph.tensor_names())
        for tensor in empty:
            if tensor.name in used:
                raise ModelError(
                    f"tensor {tensor.name!r} of shape {tensor.shape} is empty, and the graph uses "
                    "it: nothing to code"
                )

        def first_of(leaf: Leaf) -> Leaf:
            is_tied = isinstance(leaf, TensorRef) and leaf.name in ties
            return TensorRef(ties[leaf.name]) if is_tied else leaf  # type: ignore[union-attr]

        if ties:
            graph = graph.replace_leaves(first_of)
    gone = {*ties, *(t.name for t in empty)}
    rest = {name: t for name, t in model.tensors.items() if name not in gone}
    apart = Apart(
        tuple(model.tensors[name] for name in ties),
        dict(ties),
        empty,
        tuple(model.tensors),
        None if model.source is None else model.source.wrapper,
    )
    return replace(model, tensors=rest, graph=graph, ties={}), apart


def _empty_entry(tensor: Tensor) -> TensorEntry:
    nothing = np.zeros(tensor.shape, DTYPES[tensor.dtype])
    digest = tensor_digest(tensor, nothing)
    return TensorEntry(tensor.name, digest, tensor.dtype, tensor.role, empty_shape=tensor.shape)
