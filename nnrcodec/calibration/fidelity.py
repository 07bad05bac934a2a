"""How near the output of a changed network is to that of the original, and how near is enough.

Pictures (an output of the size of an input picture, which is like it or has 4 channels at most) are
compared in two ways, of which the worse counts:

- absolutely: the mean squared error to the square of their range. Rounding to 8 bits has 58.9 dB,
  so an error of that size is as invisible as that rounding;
- relative to the change that the network makes to its input. A filter that changes little gains
  little, and an error of a hundredth of the change (20 dB) costs about a hundredth of the gain.

All other outputs are compared by the ratio of signal to error, where the signal is how much an
output varies (`nnrcodec.calibration.outputs`): each output of the network for itself, of which the
worst counts. At 35 dB an output is off by 2 % of what it varies. Classifiers that were measured
keep 98 % of their decisions at 24 dB and 99 % at 32. Detectors change 2 % of what they find at
about 33; inputs that are made up flatter them by up to 3 dB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from nnrcodec.calibration.synthetic import Inputs


InputKind = Literal["made-up", "given", "fitted"]
"""What inputs to measure with are."""


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


TARGETS = {
    "transparent": Target(absolute=58.9, change=20.0, values=35.0),
    "balanced": Target(absolute=52.9, change=14.0, values=29.0),
    "small": Target(absolute=46.9, change=8.0, values=23.0),
}
"""By preset: 6 dB less are twice the error, for about one bit less a weight."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What was measured.

    Parameters
    ----------
    snr : float
        Ratio of signal to error of the worst output, in dB; infinite without an error. The signal
        is how much the output varies (`nnrcodec.calibration.outputs`).
    absolute, change : float or None
        Of pictures, in dB, as in `Target`.
    count : int
        Number of inputs.
    source : str
        Where they are from.
    kind : "made-up", "given" or "fitted"
        What they are: made up, given and held back, or given and fitted as well.
    """

    snr: float
    absolute: float | None
    change: float | None
    count: int
    source: str
    kind: InputKind = "made-up"

    @property
    def words(self) -> str:
        """What was measured, in words."""
        change = f", {self.change:.1f} dB of its change" if self.change is not None else ""
        return f"output SNR {self.snr:.1f} dB{change}, on {self.source}"

    def margin(self, target: Target) -> float:
        """Return by how many dB a target is kept; negative if it is missed."""
        if self.absolute is None:
            return self.snr - target.values
        margin = self.absolute - target.absolute
        return margin if self.change is None else min(margin, self.change - target.change)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a network is calibrated with, and what the result is measured with.

    Parameters
    ----------
    inputs : sequence of tuple of Tensor
        Calibration inputs.
    held_back : HeldBack
        Inputs to measure with.
    """

    inputs: Inputs
    held_back: HeldBack


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Inputs that are used to measure, and not to fit anything.

    Parameters
    ----------
    inputs : sequence of tuple of Tensor
        What a network is called with each time.
    source : str
        Where they are from, in words.
    kind : "made-up", "given" or "fitted"
        What they are: made up, given and held back, or given and fitted as well.
    fitted : HeldBack, optional
        Where there are few: some that were fitted. Where these have the larger error, it counts.
    """

    inputs: Inputs
    source: str
    kind: InputKind = "made-up"
    fitted: HeldBack | None = None
