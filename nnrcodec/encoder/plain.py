"""Streams without a container record: what decoders of the standard are given, and nothing else.

Owns which tensors are in one, and what is said of the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nnrcodec.container.record import TensorEntry
from nnrcodec.encoder.apart import Apart
from nnrcodec.encoder.coded import CodedUnit
from nnrcodec.errors import ModelError
from nnrcodec.graph.names import original_name
from nnrcodec.messages import logger_of, some
from nnrcodec.model.dtypes import is_pattern
from nnrcodec.model.model import Model, Role

logger = logger_of(__name__)

_AS_DECODED = ("float32", "int32")


def in_state_dict(coded: Iterable[CodedUnit]) -> list[CodedUnit]:
    """Return the units without those that only the graph uses, which the stream has not."""
    return [part for part in coded if any(e.role is not Role.CONSTANT for e in part.entries)]


def names_in_units(model: Model, coded: Mapping[str, str]) -> dict[str, str]:
    """Return what tensors are called in units, where that is not their name.

    Parameters
    ----------
    model : Model
        Of which the stream has the state dict.
    coded : mapping of str to str
        Names that decoders of the standard need otherwise.
    """
    original = {name: original_name(name, model.graph) for name in model.tensors}
    return {n: own for n, own in original.items() if own != n} | dict(coded)


def say_what_is_lost(
    model: Model, entries: Sequence[TensorEntry], apart: Apart, names: Mapping[str, str]
) -> None:
    """Warn of what a stream without a record does not tell.

    Raises
    ------
    ModelError
        A tensor is coded as bit patterns, which nothing would say.
    """
    patterns = [entry for entry in entries if entry.is_pattern or is_pattern(entry.dtype)]
    if patterns:
        raise ModelError(
            f"tensor {patterns[0].name!r} of {patterns[0].dtype} is coded as the bit patterns of "
            "its values, and only a record says so: keep the record, or leave the tensor out"
        )
    lost = ["digests"]
    if model.graph is not None or model.onnx is not None:
        lost.append("the graph")
    if model.factors:
        lost.append(
            "which tensors are factors of low rank: "
            + some(repr(f"{factors.layer}.u.weight") for factors in model.factors)
        )
    others = [f"{e.name!r} of {e.dtype}" for e in entries if e.dtype not in _AS_DECODED]
    if others:
        lost.append(f"dtypes other than float32 and int32: {some(others)}")
    scalars = [repr(entry.name) for entry in entries if entry.scalar]
    if scalars:
        lost.append(f"that tensors are scalars and not of one element: {some(scalars)}")
    if apart.empty:
        lost.append(f"tensors without elements: {some(repr(t.name) for t in apart.empty)}")
    if apart.wrapper is not None:
        lost.append("what stands around the tensors in the file")
    renamed = [
        f"{name!r} is {coded!r}"
        for name, coded in names.items()
        if coded != original_name(name, model.graph)
    ]
    if renamed:
        lost.append(f"names: {some(renamed)}")
    logger.warning("without a record the stream does not have %s", "; ".join(lost))
