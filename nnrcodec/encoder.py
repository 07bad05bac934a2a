"""From a model to a stream: reduce, quantize, code, and put the units together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnrcodec.config import EncoderConfig
from nnrcodec.errors import ModelError
from nnrcodec.model import Model, Tensor
from nnrcodec.ndu_encoding import is_raw
from nnrcodec.parallel import in_order
from nnrcodec.progress import Progress
from nnrcodec.record import Record, TensorEntry, record_to_bytes, tensor_digest
from nnrcodec.reduce.batch_norm import FoldReport, fold_batch_norm
from nnrcodec.reduce.low_rank import LayerReport, decompose
from nnrcodec.standard_coding import (
    Group,
    coded_names,
    encode_group,
    groups_of,
    require_one_raw,
)
from nnrcodec.stream import write_stream
from nnrcodec.syntax.data_unit import NnrCompressedDataUnitHeader
from nnrcodec.syntax.extended_data_unit import Coding
from nnrcodec.syntax.unit import Unit
from nnrcodec.tensor_coding import encode_tensor

CODERS = ("DeepCABAC", "static tables", "stored")
"""What a tensor may be coded by."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A stream and how it came about.

    Parameters
    ----------
    data : bytes
        The stream.
    original_bytes, original_elements : int
        Size of the tensors of the model that was given.
    layers : tuple of LayerReport
        What low-rank decomposition did to each layer; empty if it was off.
    folds : tuple of FoldReport
        What batch-norm folding did to each layer; empty if it was off.
    coders : mapping of str to int
        How many tensors each of `CODERS` has coded.
    """

    data: bytes
    original_bytes: int
    original_elements: int
    layers: tuple[LayerReport, ...]
    folds: tuple[FoldReport, ...]
    coders: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _CodedUnit:
    """A unit, and what the record says of its tensors."""

    unit: Unit
    entries: tuple[TensorEntry, ...]


def encode_model(model: Model, config: EncoderConfig, progress: Progress | None = None) -> Encoded:
    """Encode a model.

    Parameters
    ----------
    model : Model
        Its tensors are read when they are coded, a few at a time.
    config : EncoderConfig
        What to do.
    progress : callable, optional
        Called after each tensor.

    Returns
    -------
    Encoded
        With the same bytes for any number of threads.

    Raises
    ------
    ModelError
        If a tensor cannot be coded.
    ConfigError
        If the configuration does not fit the model.
    """
    if not model.tensors:
        raise ModelError("there are no tensors in this model: nothing to code")
    original = model
    layers: tuple[LayerReport, ...] = ()
    folds: tuple[FoldReport, ...] = ()
    if config.fold_batch_norm:
        model, folds = fold_batch_norm(model)
    if config.low_rank is not None:
        model, layers = decompose(model, config.low_rank)

    standard = config.profile == "nnc"
    names = coded_names(model.tensors) if standard else {}
    groups = groups_of(model, blocks=standard and config.blocks and not config.codebook)

    def code(group: Group) -> list[_CodedUnit]:
        if standard:
            return [
                _coded(unit, values, group, names)
                for unit, values in encode_group(group, names, config)
            ]
        (tensor,) = group.tensors.values()
        unit, value = encode_tensor(tensor, config)
        return [_coded(unit, {tensor.name: value}, group, names)]

    coded: list[_CodedUnit] = []
    done, total = 0, sum(tensor.size for tensor in model.tensors.values())
    for group, units in zip(groups, in_order(code, groups, config.threads), strict=True):
        coded += units
        done += sum(tensor.size for tensor in group.tensors.values())
        if progress is not None:
            progress(done, total)

    coded = _raw_last(coded)
    entries = {entry.name: entry for part in coded for entry in part.entries}
    record = Record(tuple(entries[name] for name in model.tensors), model.factors, model.graph)
    data_units = [part.unit for part in coded]
    return Encoded(
        write_stream(record_to_bytes(record), config.quantization.qp_density, data_units),
        sum(t.stored_bytes for t in original.tensors.values()),
        sum(t.size for t in original.tensors.values()),
        layers,
        folds,
        Counter(_coder(part.unit) for part in coded for _ in part.entries),
    )


def _coded(
    unit: Unit, values: Mapping[str, np.ndarray], group: Group, names: Mapping[str, str]
) -> _CodedUnit:
    """Return a unit with what the record says of its tensors; the values are needed no more."""
    tensors: dict[str, Tensor] = {tensor.name: tensor for tensor in group.tensors.values()}
    is_standard = isinstance(unit.body, NnrCompressedDataUnitHeader)
    return _CodedUnit(
        unit,
        tuple(
            TensorEntry(
                name,
                tensor_digest(tensors[name], value),
                tensors[name].dtype,
                tensors[name].role,
                names.get(name),
                scalar=is_standard and not tensors[name].shape,
            )
            for name, value in values.items()
        ),
    )


def _raw_last(coded: list[_CodedUnit]) -> list[_CodedUnit]:
    """Move the unit to the end that must be the last, if there is one."""
    raw = [part for part in coded if is_raw(part.unit)]
    require_one_raw([entry.name for part in raw for entry in part.entries])
    return [part for part in coded if not is_raw(part.unit)] + raw


def _coder(unit: Unit) -> str:
    cabac, tables, stored = CODERS
    if is_raw(unit) or getattr(unit.body, "xdu_coding", None) == Coding.RAW:
        return stored
    return cabac if isinstance(unit.body, NnrCompressedDataUnitHeader) else tables
