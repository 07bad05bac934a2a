"""Updates: tensors as differences to those that a decoder has, in units of the standard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnrcodec.config import EncoderConfig
from nnrcodec.container.turnover import Turnover
from nnrcodec.encoder.candidates import Candidate
from nnrcodec.encoder.coded import CodedUnit
from nnrcodec.encoder.exact import is_kept
from nnrcodec.encoder.grouping import Group
from nnrcodec.encoder.levels import fit_int32, int32_levels, quantize_reals, read_checked
from nnrcodec.entropy.lossless.model import Difference
from nnrcodec.entropy.lossless.words import differences
from nnrcodec.errors import ModelError
from nnrcodec.model.dtypes import DTYPES, is_float, words_of
from nnrcodec.model.model import Model, Tensor
from nnrcodec.model.source import Wrapper
from nnrcodec.quant.policy import Policy
from nnrcodec.quant.quantized import FEWEST_ELEMENTS, Quantized
from nnrcodec.quant.step_size import step_size
from nnrcodec.quant.uniform import MAX_LEVEL
from nnrcodec.units.ndu import Histories
from nnrcodec.units.ndu_encoding import Update, encode_float_unit, encode_integer_unit
from nnrcodec.units.xdu_encoding import encode_lossless


@dataclass(frozen=True, slots=True)
class Base:
    """What a decoder of an update has.

    Parameters
    ----------
    model : Model
        The base model with all updates so far.
    histories : mapping of str to TensorHistory
        By name in the data unit, what these updates left.
    parameter_ids : mapping of str to int
        By name, the numbers of the tensors.
    turnover : Turnover
        Which tensors come and go with the update.
    after : Model
        The tensors after the update, with values of before or now: their names and order count.
    has_short_names : bool
        Whether its stream has numbers in place of the names of tensors.
    new_wrapper : Wrapper or None
        What stands around the tensors after the update, if the update is to say so.
    is_plain : bool
        Whether the stream does not say that it is an update.
    """

    model: Model
    histories: Histories
    parameter_ids: Mapping[str, int]
    turnover: Turnover
    after: Model
    has_short_names: bool = False
    new_wrapper: Wrapper | None = None
    is_plain: bool = False

    @classmethod
    def of(
        cls,
        model: Model,
        histories: Histories,
        now: Model,
        turnover: Turnover,
        *,
        has_short_names: bool = False,
        new_wrapper: Wrapper | None = None,
        is_plain: bool = False,
    ) -> Base:
        """Return the base of an update to the model `now`; tensors are numbered in their order."""
        ids = {name: index for index, name in enumerate(model.tensors)}
        tensors = [
            now.tensors[name] if name in turnover.new else model.tensors[name]
            for name in turnover.order(model.tensors)
        ]
        left = {*turnover.new, *turnover.gone}
        ties = {n: first for n, first in model.ties.items() if left.isdisjoint((n, first))}
        ties |= {name: first for name, first in now.ties.items() if name in turnover.new}
        after = Model.of(tensors, model.graph, ties=ties)
        return cls(model, histories, ids, turnover, after, has_short_names, new_wrapper, is_plain)

    def encode_group(
        self,
        group: Group,
        names: Mapping[str, str],
        config: EncoderConfig,
        _known: Mapping[str, Quantized],
    ) -> list[CodedUnit]:
        """Code the difference of a tensor, as `nnrcodec.encoder.profiles.EncodeGroup`.

        Returns
        -------
        list of CodedUnit
            Empty if there is no difference, to the step size.

        Raises
        ------
        ModelError
            If the difference cannot be coded.
        ConfigError
            If a step size that was asked for does not fit.
        """
        (new,) = group.tensors.values()
        old, name = self.model.tensors[new.name], names.get(new.name, new.name)
        if has_same_bits(new, old):
            return []
        if config.lossless or (config.profile == "ext" and is_kept(new, new.read())):
            return [_exactly(new, old, name, names)]
        update = None
        if not self.is_plain:
            parameter_id, history = self.parameter_ids[new.name], self.histories.get(name)
            update = Update(parameter_id=parameter_id, history=history)
        if not is_float(old.dtype):
            levels = _integers(new, old)
            if not levels.any():
                return []
            unit = encode_integer_unit(name, levels, config.cabac, update=update)
            coded = Tensor.of(new.name, levels.reshape(new.shape), "int32", old.role)
            return [CodedUnit.of(unit, [(coded, coded.read())], names)]
        now, before, difference = _reals(new, old)
        coded = Tensor.of(new.name, difference.reshape(new.shape), "float32", old.role)
        dq = config.dq and new.size >= FEWEST_ELEMENTS
        like = now if now.any() else before
        quantized = quantize_reals(coded, difference, like, config, dq=dq)
        if quantized is None:
            raise ModelError(
                f"the difference of tensor {new.name!r} to the one before is infinite or beyond "
                "the step sizes of the standard: encode a new base model"
            )
        if not quantized.levels.any():
            return []
        density = config.quantization.qp_density
        unit = encode_float_unit(name, quantized, density, config.cabac, update=update)
        return [CodedUnit.of(unit, [(coded, quantized.value.reshape(new.shape))], names)]


def has_same_bits(new: Tensor, old: Tensor) -> bool:
    """Return whether the values of two tensors of one shape and dtype are the same, bit for bit."""
    bits = [tensor.little_endian().tobytes() for tensor in (new, old)]
    return bits[0] == bits[1]


def can_be_differed(new: Tensor, old: Tensor, config: EncoderConfig) -> bool:
    """Return whether a unit can carry the difference of two tensors of one shape and dtype."""
    if not new.size or has_same_bits(new, old):
        return True
    if config.lossless or DTYPES[old.dtype].kind == "c":
        return DTYPES[old.dtype].kind != "c"
    if not is_float(old.dtype):
        return fit_int32(_integer_difference(new, old))
    *_, difference = _reals(new, old)
    largest = step_size(Policy(config.quantization).carried_qps[-1], config.quantization.qp_density)
    peak = float(np.abs(difference).max())  # of NaN, no comparison is true
    return peak <= min(MAX_LEVEL / 2 * largest, float(np.finfo(np.float32).max))


def _exactly(new: Tensor, old: Tensor, name: str, names: Mapping[str, str]) -> CodedUnit:
    """Code what changes bit patterns, in the fewest bytes."""
    now, before = words_of(new.read(), new.dtype), words_of(old.read(), old.dtype)
    tried = []
    for form in (Difference.XOR, Difference.INTEGER, Difference.NEW):
        words = differences(now, before, form)
        tried.append(Candidate(encode_lossless(name, words, new.dtype, form), words))
    best = min(tried, key=lambda candidate: candidate.unit_bytes)
    coded = Tensor.of(new.name, best.value, best.value.dtype.name, old.role)
    return CodedUnit.of(best.unit, [(coded, best.value)], names)


def _reals(new: Tensor, old: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values now, values before, and their difference in binary64."""
    with np.errstate(invalid="ignore"):  # the same infinity or NaN twice is no difference
        now, before = (np.atleast_1d(read_checked(t)).astype(np.float64) for t in (new, old))
        same = (now == before) | (np.isnan(now) & np.isnan(before))
        difference = np.where(same, 0.0, now - before)
    difference[np.abs(difference) < np.finfo(np.float32).tiny] = 0
    finite = np.isfinite(now)
    return np.where(finite, now, 0), np.where(finite, before, 0), difference


def _integer_difference(new: Tensor, old: Tensor) -> np.ndarray:
    """Return the difference; those of 64 bits wrap around."""
    now, before = (np.atleast_1d(t.read()).astype(np.int64) for t in (new, old))
    with np.errstate(over="ignore"):
        difference: np.ndarray = now - before
    return difference


def _integers(new: Tensor, old: Tensor) -> np.ndarray:
    difference = _integer_difference(new, old)
    name = f"the difference of tensor {new.name!r} to the one before"
    return int32_levels(difference, name, "encode a new base model")
