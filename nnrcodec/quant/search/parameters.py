"""Constants of the searches, shared by the plain loops and the compiled ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

STATES = 8
NEIGHBOURS = 3
"""Number of signs of the previous level: zero, negative, positive."""


class SearchSchedule(NamedTuple):
    """How often levels are decided and rates estimated.

    Parameters
    ----------
    chunk : int
        Number of levels that are decided between two updates of the rates.
    lookahead : int
        Number of levels that are searched beyond a chunk before it is decided.
    memory : int
        Number of bins from which the probability in a context is estimated; the weight of older
        ones decays.
    """

    chunk: int = 1024
    lookahead: int = 32
    memory: int = 256


SCHEDULE = SearchSchedule()

RATE_UNIT = 2**15
"""Rates are integers in this fraction of a bit."""

RATES = np.rint(-RATE_UNIT * np.log2((np.arange(4096) + 0.5) / 4096))
"""Rate of a bin, by its probability in multiples of 1/4096."""

WARMUP_PASSES = 8
"""Searches of a sample that only adapt the probability estimates: cheap levels become more frequent
and so cheaper, and it takes some passes until that converges."""

PATHS = 16
"""Number of surviving paths: two for each state of dependent quantization."""

MAX_UNDECIDED = 32
"""Number of undecided levels at which the oldest is decided."""
