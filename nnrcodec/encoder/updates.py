"""Updates: streams of differences to what the receiver has.

Owns `UpdateEncoder`. It knows what a decoder has by decoding what it sends, so that the errors of
one update are in the difference of the next and do not add up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnrcodec.config import EncoderConfig, as_config
from nnrcodec.container.record import Record, TensorEntry, model_digest, tensor_digest
from nnrcodec.container.stream import write_stream
from nnrcodec.decoder.updates import UpdateDecoder, is_update
from nnrcodec.encoder.grouping import coded_names
from nnrcodec.encoder.levels import int32_levels, quantize_reals, read_checked
from nnrcodec.encoder.profiles import PROFILES
from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats.sources import model_of
from nnrcodec.graph.names import original_name
from nnrcodec.limits import Limits
from nnrcodec.model.dtypes import is_float
from nnrcodec.model.model import Model, Role, Tensor
from nnrcodec.parallel import in_order
from nnrcodec.progress import Progress
from nnrcodec.quant.quantized import FEWEST_ELEMENTS
from nnrcodec.syntax.unit import Unit
from nnrcodec.units.ndu_encoding import (
    Update,
    encode_float_unit,
    encode_integer_unit,
)


class UpdateEncoder:
    """Encode a network that goes on changing, as differences to the streams before.

    A stream it makes is of profile nnc, whatever the base model is. Tensors that do not change, to
    the step size, are not in it.

    Parameters
    ----------
    base : bytes
        The stream of the base model.
    updates : iterable of bytes
        The updates that were sent since, in their order.
    config : EncoderConfig, optional
        How to code. Without a qp, the step size of a tensor is that of coding it anew; low rank,
        codebooks, blocks and folding are not for updates.
    limits : Limits, optional
        What to accept of the streams.

    Raises
    ------
    BitstreamError, UnsupportedFeatureError
        If a stream cannot be decoded.
    ConfigError
        If the configuration is not for updates, or a stream is not what it should be.

    Examples
    --------
    >>> import numpy as np
    >>> import nnrcodec
    >>> weights = np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)
    >>> base = nnrcodec.encode({"w": weights})
    >>> encoder = nnrcodec.UpdateEncoder(base)
    >>> weights[7, 7] += 1
    >>> update = encoder.encode({"w": weights})
    >>> decoder = nnrcodec.UpdateDecoder()
    >>> for stream in (base, update):
    ...     _ = decoder.decode(stream)
    >>> bool(abs(decoder.state["w"] - weights).max() < 0.3)
    True
    """

    def __init__(
        self,
        base: bytes,
        updates: Iterable[bytes] = (),
        config: EncoderConfig | None = None,
        *,
        limits: Limits | None = None,
    ) -> None:
        config = as_config(config)
        if config.low_rank or config.fold_batch_norm or config.codebook:
            raise ConfigError(
                "an update has the tensors of its base model: low rank, batch-norm folding and "
                "codebooks are for the base model only"
            )
        if config.has_target:
            raise ConfigError("max_loss and target_bytes are for the base model only")
        self._config = replace(config, profile="nnc")
        self._decoder = UpdateDecoder(limits=limits, threads=config.threads)
        for index, data in enumerate((base, *updates)):
            if is_update(data, limits) != (index > 0):
                what = "is an update, expected a base model" if index == 0 else "is no update"
                raise ConfigError(f"stream {index + 1} of those to build on {what}")
            self._decoder.decode(data)

    def encode(self, model: Any, *, progress: Progress | None = None) -> bytes:
        """Encode the differences to what a decoder has, which then has the result.

        Parameters
        ----------
        model : torch.nn.Module, torch.export.ExportedProgram, mapping or Model
            The network as it is now, with the tensors of the base model.
        progress : callable, optional
            Called after each tensor.

        Returns
        -------
        bytes
            The stream.

        Raises
        ------
        ModelError
            If its tensors are not those of the base model, or one cannot be coded.
        ConfigError
            If a step size that was asked for does not fit.
        """
        base = self._decoder.network()
        source = _with_names_of(base, model_of(model))
        _require_same_tensors(source, base)
        names = coded_names(base.tensors, PROFILES["nnc"].reserved_suffixes)
        changes = [
            _Change(
                source.tensors[name],
                old,
                names.get(name),
                Update(
                    parameter_id=index,
                    history=self._decoder.histories.get(names.get(name, name)),
                ),
            )
            for index, (name, old) in enumerate(base.tensors.items())
            if name in source.tensors
        ]
        units, entries = [], []
        done, total = 0, sum(change.new.size for change in changes)
        results = in_order(self._encode, changes, self._config.threads)
        for change, coded in zip(changes, results, strict=True):
            if coded is not None:
                units.append(coded[0])
                entries.append(coded[1])
            done += change.new.size
            if progress is not None:
                progress(done, total)
        data = write_stream(
            Record(tuple(entries), base=model_digest(base)),
            self._config.quantization.qp_density,
            units,
            parent_signalling=True,
        )
        self._decoder.decode(data)
        return data

    def _encode(self, change: _Change) -> tuple[Unit, TensorEntry] | None:
        """Code the difference of a tensor; None if there is none."""
        config = self._config
        if not is_float(change.old.dtype):
            levels = change.integers()
            if not levels.any():
                return None
            unit = encode_integer_unit(change.unit_name, levels, config.cabac, update=change.update)
            return unit, change.entry("int32", levels)
        new, old, difference = change.reals()
        dq = config.dq and new.size >= FEWEST_ELEMENTS
        tensor = Tensor.of(change.new.name, difference, "float32")
        found = quantize_reals(tensor, difference, new if new.any() else old, config, dq=dq)
        if found is None:
            raise ModelError(
                f"the difference of tensor {change.new.name!r} to the one before is infinite or "
                "beyond the step sizes of the standard: encode a new base model"
            )
        if not found.levels.any():
            return None
        density = config.quantization.qp_density
        unit = encode_float_unit(
            change.unit_name, found, density, config.cabac, update=change.update
        )
        return unit, change.entry("float32", found.value)


@dataclass(frozen=True, slots=True)
class _Change:
    """A tensor as it is now and as a decoder has it, and what its unit must know."""

    new: Tensor
    old: Tensor
    coded_name: str | None
    update: Update

    @property
    def unit_name(self) -> str:
        """The name in the unit."""
        return self.coded_name or self.new.name

    def reals(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return values now, values before, and their difference in binary64."""
        new, old = (np.atleast_1d(read_checked(t)).astype(np.float64) for t in (self.new, self.old))
        with np.errstate(invalid="ignore"):  # the same infinity twice is no difference
            difference = np.where(new == old, 0.0, new - old)
        smallest = np.finfo(np.float32).tiny
        difference[np.abs(difference) < smallest] = 0
        finite = np.isfinite(new)
        return np.where(finite, new, 0), np.where(finite, old, 0), difference

    def integers(self) -> np.ndarray:
        """Return the difference; those of 64 bits wrap around."""
        new, old = (np.atleast_1d(t.read()).astype(np.int64) for t in (self.new, self.old))
        with np.errstate(over="ignore"):
            return int32_levels(self.new, new - old)

    def entry(self, dtype: str, difference: np.ndarray) -> TensorEntry:
        """Return what the record says of a decoded difference."""
        value = difference.reshape(self.new.shape)
        digest = tensor_digest(Tensor.of(self.new.name, value, dtype), value)
        scalar = not self.new.shape
        return TensorEntry(
            self.new.name, digest, dtype, self.old.role, self.coded_name, scalar=scalar
        )


def _with_names_of(base: Model, model: Model) -> Model:
    """Return a model with the names that its tensors have in the base model's stream."""
    names = {original_name(name, base.graph): name for name in base.tensors}
    return Model.of(
        (replace(t, name=names.get(t.name, t.name)) for t in model.tensors.values()), model.graph
    )


def _require_same_tensors(model: Model, base: Model) -> None:
    """Raise unless a network has the tensors of the base model; constants may be left out."""
    problems = [
        f"{name!r} is not in the base model" for name in model.tensors.keys() - base.tensors
    ]
    for name, old in base.tensors.items():
        new = model.tensors.get(name)
        if new is None:
            if old.role is not Role.CONSTANT:
                problems.append(f"{name!r} is in the base model only")
        elif (new.shape, new.dtype) != (old.shape, old.dtype):
            problems.append(
                f"{name!r} is {new.dtype}{list(new.shape)}, in the base model "
                f"{old.dtype}{list(old.shape)}"
            )
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ModelError(f"this is no update of the base model: {shown}{more}")
