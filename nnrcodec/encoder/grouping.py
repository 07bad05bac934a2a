"""Which tensors share a data unit, and what they are called there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nnrcodec.graph.normalized import NormalizedConvolution, normalized_convolutions
from nnrcodec.model.model import Model, Tensor
from nnrcodec.units.ndu import Part

_BATCH_NORM = (Part.BETA, Part.GAMMA, Part.MEAN, Part.VARIANCE)


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that are coded together.

    Parameters
    ----------
    tensors : mapping of Part to Tensor
        A weight, which may be any tensor if it is alone.
    """

    tensors: Mapping[Part, Tensor]


def groups_of(model: Model, *, blocks: bool) -> list[Group]:
    """Return what is coded together, in the order of the model.

    Parameters
    ----------
    model : Model
    blocks : bool
        Put a kernel together with its bias, and with its batch norm if the model has a graph.
    """
    if not blocks:
        return [Group({Part.WEIGHT: tensor}) for tensor in model.tensors.values()]
    normalized = normalized_convolutions(model) if model.graph is not None else ()
    names = {layer.weight: _names_beside(layer) for layer in normalized}
    led: dict[str, dict[Part, Tensor]] = {}
    taken: set[str] = set()
    for weight in model.tensors.values():
        if weight.name in taken or not _can_lead_block(weight):
            continue
        layer, dot, last = weight.name.rpartition(".")
        by_name = {Part.BIAS: f"{layer}{dot}bias"} if last == "weight" else {}
        beside = {
            part: model.tensors[name]
            for part, name in (by_name | names.get(weight.name, {})).items()
            if name in model.tensors and name not in taken
            if _fits_block(model.tensors[name], weight)
        }
        if not beside.keys() >= set(_BATCH_NORM):
            beside = {part: tensor for part, tensor in beside.items() if part is Part.BIAS}
        if beside and len({tensor.name for tensor in beside.values()}) == len(beside):
            led[weight.name] = {Part.WEIGHT: weight, **beside}
            taken |= {tensor.name for tensor in led[weight.name].values()}
    return [
        Group(led.get(tensor.name, {Part.WEIGHT: tensor}))
        for tensor in model.tensors.values()
        if tensor.name not in taken or tensor.name in led
    ]


def coded_names(names: Iterable[str], reserved_suffixes: tuple[str, ...]) -> dict[str, str]:
    """Return what tensors are called in their units, where that is not their name.

    Parameters
    ----------
    names : iterable of str
        Of all tensors.
    reserved_suffixes : tuple of str
        How no name in a unit may end. No more may it have zero bytes, which would end it.
    """
    ordered = list(names)
    taken = set(ordered)
    renamed = {}
    for name in ordered:
        coded = name.replace("\0", "_")
        if coded.endswith(reserved_suffixes):
            coded += "_"
        if coded != name:
            while coded in taken:
                coded += "_"
            taken.add(coded)
            renamed[name] = coded
    return renamed


def _names_beside(layer: NormalizedConvolution) -> dict[Part, str]:
    """Return the names of what may be in a unit with a kernel."""
    names = {
        Part.BIAS: layer.bias,
        Part.BETA: layer.beta,
        Part.GAMMA: layer.gamma,
        Part.MEAN: layer.running_mean,
        Part.VARIANCE: layer.running_var,
    }
    return {part: name for part, name in names.items() if name is not None}


def _can_lead_block(tensor: Tensor) -> bool:
    is_matrix = len(tensor.shape) >= 2 and tensor.size > 0
    return tensor.dtype == "float32" and is_matrix and not tensor.exact


def _fits_block(tensor: Tensor, weight: Tensor) -> bool:
    fits = tensor.dtype == weight.dtype and tensor.shape == weight.shape[:1]
    return fits and not tensor.exact
