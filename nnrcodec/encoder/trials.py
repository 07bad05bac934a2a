"""Trials of scales: streams of one network that differ in their step sizes only.

What is searched is one number, the scale of all step sizes (`UniformConfig.scale`). The steps of
single tensors follow from it such that a bit is worth the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from nnrcodec.calibration.fidelity import Fidelity
from nnrcodec.config import EncoderConfig
from nnrcodec.container.record import INPUT_KINDS, Measurement
from nnrcodec.container.stream import with_measurement
from nnrcodec.encoder.pipeline import Encoded

QP_DENSITY = 4
"""The least in a search: coarser steps of qp would miss a target by several per cent."""

_FARTHEST = math.log(8)


@dataclass(frozen=True, slots=True)
class Trial:
    """One stream that the search has made.

    Parameters
    ----------
    scale : float
        Of step sizes.
    bytes : int
        Of the stream.
    loss : float or None
        By how much the score is lower than that of the original, if it was measured.
    fidelity : Fidelity or None
        How near its outputs are to those of the original, if it was measured.
    """

    scale: float
    bytes: int
    loss: float | None = None
    fidelity: Fidelity | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The stream that was encoded, and the search for it.

    Parameters
    ----------
    encoded : Encoded
        The stream.
    trials : tuple of Trial
        All trials of the search; empty if there was no target.
    taken : Trial or None
        The trial of the stream.
    fidelity : Fidelity or None
        How near its outputs are to those of the original, if that was measured.
    """

    encoded: Encoded
    trials: tuple[Trial, ...] = ()
    taken: Trial | None = None
    fidelity: Fidelity | None = None


def stream_of(result: SearchResult, config: EncoderConfig) -> bytes:
    """Return the stream of a result, with the loss in its record if it was measured."""
    data, fidelity = result.encoded.data, result.fidelity
    if fidelity is None or not config.record:
        return data
    (on,) = (on for on, kind in INPUT_KINDS.items() if kind == fidelity.kind)
    return with_measurement(
        data,
        Measurement(
            on,
            fidelity.count,
            fidelity.snr,
            fidelity.absolute,
            fidelity.change,
        ),
    )


class NothingBetweenError(Exception):
    """Scales so near one another that all steps are the same: qp are whole numbers."""


def require_new(kept: Mapping[float, Encoded], scale: float) -> None:
    """Raise if the stream of a scale is one that another scale gave before.

    Raises
    ------
    NothingBetweenError
    """
    if any(kept[scale].data == encoded.data for at, encoded in kept.items() if at != scale):
        raise NothingBetweenError


def scaled(config: EncoderConfig, scale: float) -> EncoderConfig:
    """Return a configuration with other default steps, of which there are many."""
    density = max(config.quantization.qp_density, QP_DENSITY)
    quantization = replace(config.quantization, scale=scale, qp_density=density)
    return replace(config, quantization=quantization)


def solve(
    excess: Callable[[float], float],
    slope: float,
    near: float,
    trials: int,
    highest: float = math.inf,
    start: float = 1.0,
) -> float | None:
    """Return the scale nearest to a positive excess, of those that are tried.

    Parameters
    ----------
    excess : callable
        Of the scale; monotone but for noise. It raises `NothingBetweenError` to end the search.
    slope : float
        Of it, about, by the logarithm of the scale; its sign is relied on.
    near : float
        An excess between minus this and zero ends the search.
    trials : int
        Calls at most.
    highest : float
        The largest scale to try.
    start : float
        The first scale to try.

    Returns
    -------
    float or None
        None if no excess is zero or below.
    """
    below: tuple[float, float] | None = None  # the last that kept to the limit
    above: tuple[float, float] | None = None
    at = math.log(start)
    for _ in range(trials):
        try:
            value = excess(math.exp(at))
        except NothingBetweenError:
            break
        if value <= 0:
            below = at, value
        else:
            above = at, value
        if -near <= value <= 0:
            break
        if below is None or above is None:
            move = -(value + near / 2) / slope
            if at >= math.log(highest) and move > 0:
                break
            at += math.copysign(min(max(abs(move), 0.1), _FARTHEST), move)
            at = min(at, math.log(highest))
        else:
            part = (below[1] + near / 2) / (below[1] - above[1])
            at = below[0] + min(max(part, 0.1), 0.9) * (above[0] - below[0])
            if abs(above[0] - below[0]) < near / 4:
                break
    return None if below is None else math.exp(below[0])
