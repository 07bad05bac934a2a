"""How near the output of a changed network is to that of the original, and how near is enough.

Pictures (an output with the shape of an input picture) are compared in two ways, of which the
worse counts:

- absolutely: the mean squared error to the square of their range. Rounding to 8 bits has 58.9 dB,
  so an error of that size is as invisible as that rounding;
- relative to the change that the network makes to its input. A filter that changes little gains
  little, and an error of a hundredth of the change (20 dB) costs about a hundredth of the gain.

All other outputs are compared by the ratio of signal to error, each output of the network for
itself, of which the worst counts: at 30 dB an output is off by 3 % of its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from nnrcodec.calibration.inputs import running
from nnrcodec.calibration.sensitivity import real_tensors
from nnrcodec.calibration.synthetic import Inputs

Preset = Literal["transparent", "balanced", "small"]


@dataclass(frozen=True, slots=True)
class Target:
    """How near is enough, in dB.

    Parameters
    ----------
    absolute : float
        Of pictures, relative to their range.
    change : float
        Of pictures, relative to what the network changes.
    values : float
        Of other outputs.
    """

    absolute: float
    change: float
    values: float


TARGETS: dict[Preset, Target] = {
    "transparent": Target(absolute=58.9, change=20.0, values=30.0),
    "balanced": Target(absolute=52.9, change=14.0, values=24.0),
    "small": Target(absolute=46.9, change=8.0, values=18.0),
}
"""By preset: 6 dB less are twice the error, for about one bit less a weight."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What was measured.

    Parameters
    ----------
    snr : float
        Ratio of signal to error of the worst output, in dB; infinite without an error.
    absolute, change : float or None
        Of pictures, in dB, as in `Target`.
    count : int
        Number of inputs.
    source : str
        Where they are from.
    """

    snr: float
    absolute: float | None
    change: float | None
    count: int
    source: str

    def margin(self, target: Target) -> float:
        """Return by how many dB a target is kept; negative if it is missed."""
        if self.absolute is None:
            return self.snr - target.values
        margin = self.absolute - target.absolute
        return margin if self.change is None else min(margin, self.change - target.change)


class Reference:
    """The outputs of the original network, to compare others with.

    Parameters
    ----------
    module : torch.nn.Module
        The original network.
    inputs : sequence of tuple of Tensor
        That were not used to fit anything.
    source : str
        Where they are from.
    """

    def __init__(self, module: torch.nn.Module, inputs: Inputs, source: str) -> None:
        self._inputs, self._source = inputs, source
        self._outputs = [*_outputs(module, inputs)]

    def compare(self, module: torch.nn.Module) -> Fidelity:
        """Measure how near the outputs of a network are; it takes the same inputs."""
        changed = [*_outputs(module, self._inputs)]
        pairs = [
            (torch.cat([a.flatten() for a in wanted]), torch.cat([b.flatten() for b in found]))
            for wanted, found in zip(
                zip(*self._outputs, strict=True), zip(*changed, strict=True), strict=True
            )
        ]
        snr = min((_decibels(_power(a), _power(a - b)) for a, b in pairs), default=math.inf)
        absolute, change = None, None
        before = self._pictures()
        if before is not None:
            ((wanted, found),) = pairs
            error = _power(wanted - found)
            extent = float(wanted.max() - wanted.min())
            absolute = _decibels(wanted.numel() * extent**2, error)
            change = _decibels(_power(wanted - before), error)
        return Fidelity(snr, absolute, change, len(self._inputs), self._source)

    def _pictures(self) -> torch.Tensor | None:
        """Return what the network changes, if its only output is a picture like its first input."""
        if any(len(outputs) != 1 or outputs[0].ndim != 4 for outputs in self._outputs):
            return None
        before = []
        for (first, *_), (output,) in zip(self._inputs, self._outputs, strict=True):
            if first.ndim != 4 or first.shape[2:] != output.shape[2:]:
                return None
            if first.shape[1] < output.shape[1] or output.shape[1] > _MOST_COLOURS:
                return None
            before.append(first[:, : output.shape[1]].double().flatten())
        return torch.cat(before)


_MOST_COLOURS = 4


def _outputs(module: torch.nn.Module, inputs: Inputs) -> Iterator[Sequence[torch.Tensor]]:
    with running(), torch.inference_mode():
        for values in inputs:
            copies = tuple(value.clone() for value in values)
            yield [real.double() for real in real_tensors(module(*copies))]


def _power(values: torch.Tensor) -> float:
    return float(values.square().sum())


def _decibels(signal: float, error: float) -> float:
    if error == 0:
        return math.inf
    return 10 * math.log10(signal / error) if signal > 0 and math.isfinite(error) else -math.inf
