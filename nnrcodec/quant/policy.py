"""Which qp a tensor gets: the one place that chooses.

==================  ==============================================================================
`Policy.asked`      what the user has given for tensors of so many dimensions
`Policy.by_scale`   without a network: in proportion to the scale of the tensor's own values
`Policy.by_effect`  with calibration inputs: all weights add the same to the error of the output
`Policy.carried`    by scale, kept to what a data unit of the standard can carry
==================  ==============================================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nnrcodec.errors import ConfigError
from nnrcodec.messages import logger_of
from nnrcodec.quant.quantized import FEWEST_ELEMENTS
from nnrcodec.quant.search.trellis import dependent_qp
from nnrcodec.quant.step_size import qp_of_step_size, step_size
from nnrcodec.quant.uniform import FINEST_STEPS, MAX_LEVEL, UniformConfig

MOST_BY_SCALE = 8.0
"""By how much a step is coarser at most than that by scale: inputs that were not seen may need what
those that were seen do not."""

logger = logger_of(__name__)


def qp_offset_range(qp_density: int) -> range:
    """Return the qps that an NNR_NDU can carry; deployed encoders wrap around at its ends."""
    return range(-(32 << qp_density), 32 << qp_density)


def require_qp(name: str, qp: int, qp_density: int) -> None:
    """Raise unless an NNR_NDU can carry a qp.

    Raises
    ------
    ConfigError
        Naming the tensor.
    """
    allowed = qp_offset_range(qp_density)
    if qp not in allowed:
        raise ConfigError(
            f"tensor {name!r}: qp {qp} does not fit a unit of the standard, which carries "
            f"{allowed[0]} to {allowed[-1]} at density {qp_density}"
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """How the qp of each tensor is chosen.

    Parameters
    ----------
    config : UniformConfig
        What the user wants.
    """

    config: UniformConfig

    @property
    def carried_qps(self) -> range:
        """The qps that an NNR_NDU can carry."""
        return qp_offset_range(self.config.qp_density)

    def asked(self, values: np.ndarray) -> int | None:
        """Return the qp that the user has given for tensors like this one, if any."""
        return self.config.asked_qp(values.ndim)

    def by_scale(self, values: np.ndarray, name: str, *, dq: bool = False) -> int:
        """Return the qp that follows from the scale of a tensor's values, or the one asked for.

        Parameters
        ----------
        values : ndarray of float
            The tensor, any shape, finite.
        name : str
            Of it.
        dq : bool
            Whether it is for dependent quantization, which has about the same error with a larger
            step size. A qp that was asked for is taken as it is.
        """
        qp = self.config.qp_for(values, name)
        if not dq or self.asked(values) is not None:
            return qp
        return dependent_qp(qp, self.config.qp_density)

    def by_effect(
        self, values: np.ndarray, name: str, sensitivity: float, error: float, *, dq: bool = False
    ) -> int:
        """Return the qp at which rounding has each weight add the error that it may.

        Without `dq`: for dependent quantization with error feedback the same qp is taken as for
        rounding, and adds less.

        Parameters
        ----------
        values : ndarray of float
            The tensor, any shape, finite.
        name : str
            Of it.
        sensitivity : float
            What the squared error of the network's output grows by with that of a value.
        error : float
            Squared error of the output that each value may add.
        dq : bool
            Whether it is for dependent quantization without feedback.
        """
        asked, density, allowed = self.asked(values), self.config.qp_density, self.carried_qps
        if asked is not None:
            return asked
        peak = float(np.abs(values).max())
        by_scale = step_size(self.config.qp_for(values, name), density)
        step = coarsest = min(max(peak, step_size(allowed[0], density)), MOST_BY_SCALE * by_scale)
        if not error > 0:  # nothing varies that could tell
            step = by_scale
        elif sensitivity > 0:
            step = min(math.sqrt(12 * error / sensitivity), coarsest)
        step = max(step, 2 * peak / MAX_LEVEL, step_size(allowed[0], density))
        qp = qp_of_step_size(step, density)
        return max(dependent_qp(qp, density), allowed[0]) if dq else qp

    def finest(self, values: np.ndarray) -> int:
        """Return the qp of the finest step that is a power of two and that levels can reach with.

        Parameters
        ----------
        values : ndarray of float
            The tensor, any shape, finite.
        """
        density, peak = self.config.qp_density, float(np.abs(values).max())
        qp = qp_of_step_size(2 * peak / MAX_LEVEL, density) if peak else 0
        octave = 1 << density
        return max(-(-qp // octave) * octave, self.carried_qps[0])

    def carried(self, name: str, values: np.ndarray, peak: float, *, dq: bool) -> int:
        """Return a qp by scale that an NNR_NDU can carry, with levels that can reach a peak.

        Parameters
        ----------
        name : str
            Of the tensor.
        values : ndarray of float
            What the scale is taken from, any shape, finite.
        peak : float
            Largest magnitude of what is quantized.
        dq : bool
            As in `by_scale`.

        Raises
        ------
        ConfigError
            If the qp that was asked for does not fit.
        """
        asked, density, allowed = self.asked(values), self.config.qp_density, self.carried_qps
        if asked is not None:
            require_qp(name, asked, density)
            return asked
        qp = self.config.qp_for(values, name)
        if values.size < FEWEST_ELEMENTS:
            rms = math.sqrt(float(np.mean(np.square(values, dtype=np.float64))))
            finest = qp_of_step_size(rms / FINEST_STEPS, density) if rms else 0
            qp = min(qp, finest - finest % (1 << density))  # powers of two: most stay exact
        if peak:
            qp = max(qp, qp_of_step_size(2 * peak / MAX_LEVEL, density))
        if dq:
            qp = dependent_qp(qp, density)
        if qp < allowed[0]:
            logger.warning(
                "tensor %r: its values are small; profile nnc has no step size below %g",
                name,
                step_size(allowed[0], density),
            )
        return min(max(qp, allowed[0]), allowed[-1])
